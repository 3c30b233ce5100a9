"""One request as the client means it, and the headers that requests have in common. Pure.

A condition is sent only where the caller has one: If-Match with a strong tag, If-None-Match: *, and `If`
with the token of a lock that is held. `If` is always tagged with absolute URLs (servers.md 30): the untagged
form is 424 for DELETE and MOVE on Apache and ends npm's webdav-server, the path form is 412 on rclone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from davfs.dav.hrefs import shown
from davfs.dav.lanes import Preflight
from davfs.dav.locks import LockToken
from davfs.dav.resource import DavPath, ETag, Resource
from davfs.dav.wire import Body

_TRANSLATE: Final = {"Translate": "f"}  # IIS would run scripts instead of reading them
XML: Final = {"Content-Type": "application/xml; charset=utf-8", "Accept-Encoding": "gzip", **_TRANSLATE}
PLAIN: Final = {"Accept-Encoding": "identity", **_TRANSLATE}


@dataclass(frozen=True, slots=True)
class Request:
    """Everything about one request that survives a redirect and a repetition."""

    method: str
    path: DavPath
    headers: Mapping[str, str]
    content: Body | None = None
    is_collection: bool = False
    read_timeout_s: float | None = None
    answer_by_s: float | None = (
        None  # when the head is to be here, on the client's clock, repetitions included
    )
    preflight: Preflight | None = None
    is_probe: bool = False  # sent although the link is down
    is_ahead: bool = False  # nobody has asked for it yet: only if there is a lane to spare, and only once
    address: str | None = None  # in place of the path's: another place of the same server
    label: str = field(init=False)  # for messages

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", f"{self.method} {shown(self.path)}")


@dataclass(frozen=True, slots=True)
class PutResult:
    created: bool  # 201
    etag: ETag | None  # from the answer
    stored: Resource | None = None  # what the server made of it, where it may be something else


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of bodies, both ways, since the client was made."""

    up_bytes: int = 0
    down_bytes: int = 0


def conditions(if_match: ETag | None, *, if_none_match: bool = False) -> dict[str, str]:
    """The precondition headers of a change. A weak tag never matches, so sending one is a mistake."""
    if if_match is not None and if_match.weak:
        raise ValueError("a weak ETag cannot stand in If-Match")
    headers = {}
    if if_match is not None:
        headers["If-Match"] = if_match.header()
    if if_none_match:
        headers["If-None-Match"] = "*"
    return headers


def destination(url: str, *, overwrite: bool) -> dict[str, str]:
    """Where MOVE and COPY go. Overwrite is explicit: the default is F on rclone and npm (servers.md 4)."""
    return {"Destination": url, "Overwrite": "T" if overwrite else "F"}


def if_header(*claims: tuple[str | None, LockToken | None, ETag | None]) -> dict[str, str]:
    """`If: <url> (<token> ["etag"])` for each (url, token, tag) that claims anything (RFC 4918 10.4).

    Without an url it is about the request's own; only lighttpd's refresh asks for that form.
    """
    lists = []
    for url, token, etag in claims:
        parts = [token.coded] if token is not None else []
        parts += [f"[{etag.header()}]"] if etag is not None else []
        if parts:
            tag = f"<{url}> " if url is not None else ""
            lists.append(f"{tag}({' '.join(parts)})")
    return {"If": " ".join(lists)} if lists else {}
