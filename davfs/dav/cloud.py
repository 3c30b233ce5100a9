"""What is learned of a Nextcloud or ownCloud at work: its account, capabilities, name rules, and checksums.

Asked at most once each, bounded, and never needed: without answers davfs does what it does elsewhere. What
the documents mean is `owncloud`'s.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import trio

from davfs.dav.chunked import ChunkedUploads
from davfs.dav.documents import root_of
from davfs.dav.exchange import Exchange
from davfs.dav.hrefs import Share, decode_href
from davfs.dav.owncloud import (
    ALLOWING,
    DEFAULT_SUM,
    MOST_REFUSAL_BYTES,
    OCS_HEADERS,
    Account,
    Refusal,
    Told,
    account_of,
    capabilities_url,
    is_legacy,
    parse_checksums,
)
from davfs.dav.properties import propfind_of
from davfs.dav.request import PLAIN, XML, Request
from davfs.dav.resource import ROOT, DavPath
from davfs.dav.retry import ONCE, PATIENT
from davfs.dav.wire import Incoming, Octets
from davfs.errors import BadName, Damaged, DavfsError, Forbidden, LinkError, NameTooLong, ServerRefused

_CHECKSUMS: Final = "{http://owncloud.org/ns}checksums"
_CHECKSUM: Final = "{http://owncloud.org/ns}checksum"
_PRINCIPAL: Final = "{DAV:}current-user-principal"
_LEARNING_S: Final = 10.0
_NO_CHUNKS_S: Final = 900.0
_REFUSING: Final = frozenset({400, 403, 415})


class Cloud:
    def __init__(self, exchange: Exchange, share: Share, timeout_s: float) -> None:
        self._exchange = exchange
        self._share = share
        self._timeout_s = timeout_s
        self._asking = trio.Lock()
        self._account: Account | None = account_of(share)
        self._is_account_known = self._account is not None or not is_legacy(share)
        self.told = Told()
        self.names = ALLOWING
        self._no_chunks_until_s = float("-inf")

    async def learn(self) -> None:
        """Ask for the capabilities, once the server answers. Whatever goes wrong, nothing is learned."""
        address = capabilities_url(self._share)
        if address is None:
            return
        while self._exchange.reach.link.is_unproven:
            await self._exchange.reach.news.wait()
        request = Request("GET", ROOT, {**PLAIN, **OCS_HEADERS}, is_collection=True, address=address)
        with trio.move_on_after(_LEARNING_S), suppress(DavfsError):
            _, _, body = await self._exchange.ask(ONCE, request)
            self.told = Told.parse(body)
            self.names = self.told.names
            if self.told.chunks is False:
                self._no_chunks_until_s = float("inf")

    @property
    def has_no_chunks(self) -> bool:
        """It said so, or refused to make a folder for an upload a while ago."""
        return trio.current_time() < self._no_chunks_until_s

    def chunks_refused(self) -> None:
        """Not for good: what a proxy said once is no word about chunks, and without them a PUT that is cut
        off tears the file that it was to replace."""
        self._no_chunks_until_s = max(self._no_chunks_until_s, trio.current_time() + _NO_CHUNKS_S)

    async def uploads(self) -> ChunkedUploads | None:
        """Where files can be put together from parts; None: nowhere, as on a public share.

        Raises LinkError while that cannot be asked: /remote.php/webdav/ does not tell the user.
        """
        async with self._asking:
            if not self._is_account_known:
                self._account = account_of(self._share, await self._principal())
                self._is_account_known = True
        if self._account is None or self.has_no_chunks:
            return None
        return ChunkedUploads(self._exchange, self._account, self._timeout_s)

    async def _principal(self) -> str | None:
        try:
            answer = await self._asked(ROOT, _PRINCIPAL, is_collection=True)
        except LinkError:
            raise
        except DavfsError:
            return None
        root = root_of(answer)
        found = root.find(f".//{_PRINCIPAL}/{{DAV:}}href") if root is not None else None
        return found.text if found is not None else None

    async def _asked(self, path: DavPath, name: str, *, is_collection: bool = False) -> bytes:
        body = Octets(propfind_of((name,)))
        headers = {**XML, "Depth": "0", "Content-Length": str(body.size_bytes)}
        request = Request("PROPFIND", path, headers, body, is_collection)
        _, _, answer = await self._exchange.ask(PATIENT, request)
        return answer

    # --- checksums

    @property
    def checksum_kind(self) -> str:
        return self.told.checksum or DEFAULT_SUM

    async def checksums(self, path: DavPath) -> dict[str, str]:
        """What the server tells of the bytes of a file: digests by kind, none where it knows none."""
        try:
            root = root_of(await self._asked(path, _CHECKSUMS))
        except ServerRefused:
            return {}
        found = root.iter(_CHECKSUM) if root is not None else ()
        return parse_checksums(" ".join(one.text or "" for one in found))

    # --- refusals

    async def judge(self, request: Request, answer: Incoming) -> None:
        """Look at why a name or a body was refused, where the answer tells it; learn, or raise Damaged."""
        if answer.status not in _REFUSING or "xml" not in answer.headers.get("content-type", ""):
            return
        said = Refusal.parse(await answer.receive_small(MOST_REFUSAL_BYTES))
        if said.is_checksum and "OC-Checksum" in request.headers:
            raise Damaged(f"{request.label}: it arrived damaged: {said.message}")
        target = decode_href(request.headers.get("Destination", "")) or request.path.parts
        if said.is_name and target:
            self.names = self.names.after_refusal(target[-1])
            self._refuse(request, answer.status, target[-1])

    def _refuse(self, request: Request, status: int, name: str) -> None:
        """As the next such name will be refused; but fsync must not say EINVAL (errors.py)."""
        try:
            self.names.check(name)
        except BadName as error:
            if request.method == "PUT" and not isinstance(error, NameTooLong):
                raise Forbidden(f"{request.label}: {error}", status=status) from error
            raise
