"""Chunked upload v2 of Nextcloud, and ownCloud 10's that it grew from: a file in parts, joined at the end.

`MKCOL uploads/USER/ID`, `PUT ID/00001` and so on in any order, `MOVE ID/.file` to the name; each with the
Destination and OC-Total-Length, which version 2 demands. Until the MOVE nothing of the file is at its name,
and the MOVE takes the conditions of any MOVE: `Overwrite: F`, or the tag of what it may replace in `If`. So
this is also how a file is replaced whole on a server that writes a PUT in place (servers.md 1).

Numbers run from 1 to 10,000; a part has 5 MB to 5 GB, the last one less. The server drops a folder that
nobody has touched for a day. Requests here are sent once: after Disconnected or TimedOut the caller looks.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Final

from davfs.dav.exchange import Exchange
from davfs.dav.hrefs import decode_href, shown
from davfs.dav.lanes import Preflight
from davfs.dav.multistatus import Multistatus
from davfs.dav.owncloud import MOST_REFUSAL_BYTES, Account, Refusal, Sum
from davfs.dav.properties import propfind
from davfs.dav.request import PLAIN, XML, Request, if_header
from davfs.dav.resource import DavPath, ETag
from davfs.dav.retry import ONCE, PATIENT
from davfs.dav.times import put_headers
from davfs.dav.wire import Incoming, Octets
from davfs.errors import Damaged, DavfsError, NotFound, ServerTimedOut, refused

SMALLEST_PART: Final = 5 * 1024 * 1024  # the manual says 5 MB; S3 means 5 MiB
USUAL_PART: Final = 10 * 1024 * 1024
LARGEST_PART: Final = 64 * 1024 * 1024  # below the 100 MB that proxies allow
MOST_PARTS: Final = 10_000
PIECE: Final = 128 * 1024
_FINISHED: Final = ".file"
_SERVER_WORK_BYTES_PER_S: Final = 1024 * 1024  # the manual: ten minutes a gigabyte, and here two passes


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes [start, end) of the file, under their number from 1."""

    number: int
    start: int
    end: int

    @property
    def name(self) -> str:
        return f"{self.number:05d}"

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


def part_size(size_bytes: int, *, lanes: int, most: int = LARGEST_PART) -> int:
    """So many parts that all lanes have some, none too small, and never more than there are numbers for."""
    share = -(-size_bytes // max(1, 2 * lanes))
    wanted = min(max(share, USUAL_PART), LARGEST_PART)
    return max(min(wanted, most), SMALLEST_PART, -(-size_bytes // MOST_PARTS))


def parts_of(size_bytes: int, part_bytes: int) -> list[Part]:
    starts = range(0, size_bytes, part_bytes)
    return [Part(i + 1, at, min(at + part_bytes, size_bytes)) for i, at in enumerate(starts)]


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload on the server: its folder's name, and what it is to become."""

    name: str
    path: DavPath
    size_bytes: int
    part_bytes: int

    @property
    def parts(self) -> list[Part]:
        return parts_of(self.size_bytes, self.part_bytes)


@dataclass(slots=True)
class ChunkBody:
    """A request body: one part of a file, summed up while it is read."""

    fd_of_file: int
    part: Part
    new_sum: Callable[[], Sum]
    progressed: Callable[[int], None] = field(default=lambda _bytes: None)
    digest: str | None = None  # of all of it, once it was read

    @property
    def size_bytes(self) -> int:
        return self.part.size_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        summed, at, self.digest = self.new_sum(), self.part.start, None
        while at < self.part.end:
            piece = os.pread(self.fd_of_file, min(PIECE, self.part.end - at), at)
            if not piece:
                raise DavfsError("the cached file is shorter than it was")
            summed.update(piece)
            at += len(piece)
            if at == self.part.end:
                self.digest = summed.hexdigest()
            yield piece
            self.progressed(len(piece))


class UploadGone(DavfsError):
    """The folder of an upload is not there (any more): dropped by the server, or put together by a MOVE."""

    retry_helps = True

    @property
    def outcome_unknown(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Assembled:
    """What the answer to the MOVE tells."""

    etag: ETag | None
    mtime_accepted: bool


class ChunkedUploads:
    """The requests, of one account."""

    def __init__(self, exchange: Exchange, account: Account, timeout_s: float) -> None:
        self._exchange = exchange
        self._account = account
        self._timeout_s = timeout_s

    def _request(self, method: str, upload: Upload, member: str = "", **headers: str) -> Request:
        address = self._account.upload(upload.name, member)
        told = {
            **PLAIN,
            "Destination": self._account.destination(upload.path),
            "OC-Total-Length": str(upload.size_bytes),
            **headers,
        }
        return Request(method, upload.path, told, is_collection=not member, address=address)

    async def begin(self, upload: Upload) -> None:
        """Make the folder. Raises NoSpace where the server looks at the total."""
        await self._exchange.ask(ONCE, self._request("MKCOL", upload))

    async def present(self, upload: Upload) -> dict[int, int | None]:
        """The size of each part that is there, by number. Raises UploadGone."""
        body = Octets(propfind())
        headers = {**XML, "Depth": "1", "Content-Length": str(body.size_bytes)}
        address = self._account.upload(upload.name)
        request = Request("PROPFIND", upload.path, headers, body, is_collection=True, address=address)
        try:
            _, _, answer = await self._exchange.ask(PATIENT, request)
        except NotFound as error:
            raise UploadGone(f"{request.label}: the upload is gone") from error
        document, found = Multistatus(), {}
        for entry in (*document.feed(answer), *document.close()):
            for href in entry.hrefs:
                name = (decode_href(href) or ("",))[-1]
                if entry.is_ok and not entry.resource.is_collection and name.isascii() and name.isdigit():
                    found[int(name[:6])] = entry.resource.size_bytes
        return found

    async def put(self, upload: Upload, body: ChunkBody) -> None:
        """Raises TooLarge, UploadGone. A part that is there already is replaced."""
        request = replace(
            self._request("PUT", upload, body.part.name, **{"Content-Length": str(body.size_bytes)}),
            content=body,
            read_timeout_s=self._timeout_s + body.size_bytes / _SERVER_WORK_BYTES_PER_S,
            # The credentials were settled by MKCOL or PROPFIND; there is nothing to ask about a new name.
            preflight=Preflight(_no_objection, is_known=True, is_new=True),
        )
        with self._exchange.reach.watched():
            async with self._exchange.answer(request) as answer:
                if answer.status in (404, 409):
                    raise UploadGone(f"{request.label}: the upload is gone")
                if not 200 <= answer.status < 300:
                    raise refused("PUT", answer.status, f"{body.part.name} of {shown(upload.path)}")

    async def assemble(
        self,
        upload: Upload,
        *,
        overwrite: bool,
        if_match: ETag | None = None,
        mtime_s: int | None = None,
        checksum: str | None = None,
    ) -> Assembled:
        """The MOVE that makes it the file: at most once.

        Raises PreconditionFailed when something else is there, UploadGone when the folder, or what `if_match`
        is about, is not. It takes as long as the server copies: Disconnected, TimedOut, 502, 504 say nothing.
        """
        claim = if_header((self._account.destination(upload.path), None, if_match))
        headers = {"Overwrite": "T" if overwrite else "F", **claim}
        if mtime_s is not None:
            headers |= put_headers(mtime_s, by_date=False)
        if checksum is not None:
            headers["OC-Checksum"] = checksum
        longest_s = self._timeout_s + upload.size_bytes / _SERVER_WORK_BYTES_PER_S
        request = self._request("MOVE", upload, _FINISHED, **headers)
        with self._exchange.reach.watched():
            async with self._exchange.answer(replace(request, read_timeout_s=longest_s)) as answer:
                await self._check_assembled(request, answer)
                tag = ETag.parse(answer.headers.get("etag") or answer.headers.get("oc-etag"))
                return Assembled(tag, answer.headers.get("x-oc-mtime", "").lower() == "accepted")

    async def _check_assembled(self, request: Request, answer: Incoming) -> None:
        status = answer.status
        if status == 404:
            raise UploadGone(f"{request.label}: the upload, or what it replaces, is gone")
        if status == 400:
            said = Refusal.parse(await answer.receive_small(MOST_REFUSAL_BYTES))
            if said.is_checksum:
                raise Damaged(f"{request.label}: it arrived damaged: {said.message}")
            raise UploadGone(f"{request.label}: the parts do not make up the file: {said.message}")
        if status == 202:  # ownCloud may go on with it in the background
            raise ServerTimedOut(f"{request.label}: the server is not done yet", status=status)
        if not 200 <= status < 300:
            raise refused("MOVE", status, shown(request.path))

    async def remove(self, name: str) -> None:
        """Give the upload up. That it is gone already is fine."""
        headers = {**PLAIN, "Destination": self._account.destination(DavPath())}
        address = self._account.upload(name)
        request = Request("DELETE", DavPath((name,)), headers, is_collection=True, address=address)
        await self._exchange.ask(ONCE, request, fine=(404, 410))


def _no_objection(_answer: object) -> None:
    """Nothing was asked, so nothing is refused."""
