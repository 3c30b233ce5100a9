"""What refusals mean, and answers of success that are none: a 207 of failures, a 201 for another name."""

from __future__ import annotations

import time
from collections.abc import Mapping

from davfs.dav import microsoft
from davfs.dav.hrefs import Share, decode_href, folded, shown
from davfs.dav.multistatus import parse_failures, root_cause
from davfs.dav.names import form_between, is_respelled
from davfs.dav.request import Request
from davfs.dav.resource import DavPath
from davfs.dav.retry import retry_after_s
from davfs.errors import Busy, Garbled, NotThatName, ProtocolError, ServerRefused, refused


def raise_failures(request: Request, body: bytes) -> None:
    """207 is how many servers refuse a change (servers.md 8): raises what the first cause means, if any."""
    failures = parse_failures(body)
    if not failures:
        return
    status, href = root_cause(failures).status, root_cause(failures).href
    where = shown(DavPath(decode_href(href) or request.path.parts))
    kind = type(refused(request.method, status, where))
    raise kind(f"{request.label}: {len(failures)} failed, {where} with {status}", status=status)


def refusal(request: Request, status: int, headers: Mapping[str, str], *, is_owncloud: bool) -> ServerRefused:
    """What a final status of no success means. Nextcloud says 423 to a GET for as long as a PUT runs."""
    wait_s = retry_after_s(headers.get("retry-after"), now_s=time.time())
    if request.method == "GET" and status == 423 and is_owncloud:
        return Busy(f"{request.label}: somebody writes to it", status=423, retry_after_s=wait_s)
    where = shown(request.path)
    return microsoft.explained(headers, request.method, status, where, retry_after_s=wait_s)


def check_location(share: Share, request: Request, location: str) -> None:
    """copyparty without --daw never overwrites: it invents another name (servers.md 6)."""
    stored = decode_href(location)
    if stored is None or stored == (*share.base, *request.path.parts):
        return
    name, other = request.path.name, stored[-1] if stored else ""
    if form_between(name, other):
        return  # one file in another Unicode form: who looks afterwards sees that
    if is_respelled(name, other):
        raise NotThatName(f"{request.label}: the server has it as {shown(DavPath(stored))}", status=403)
    if folded(stored) != folded((*share.base, *request.path.parts)):
        raise ProtocolError(f"{request.label}: the server stored it as {shown(DavPath(stored))} instead")


def check_stored(request: Request, stored_bytes: int | None) -> None:
    """cheroot takes the end of a connection that was closed one way for the end of the body, and WsgiDAV
    says 201 to what it got."""
    size_bytes = request.content.size_bytes if request.content is not None else 0
    if stored_bytes is not None and stored_bytes != size_bytes:
        raise Garbled(f"{request.label}: the server stored {stored_bytes} bytes of {size_bytes}")
