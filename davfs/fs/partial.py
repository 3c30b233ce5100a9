"""Of a large file only what changed is sent: `partial_put=auto` (docs/adr/0027).

Both kinds of servers that can replace a part of a file (Apache, sabre/dav) do it in place: a request that
is cut leaves half of the part in the file, and readers may meet it. So no part ever goes to the file itself.
The server makes a copy of the base under a temporary name, the parts go into the copy, PROPFIND tells its
size and tag, and one conditional MOVE puts it in place, as for every staged upload (see `delivery`). What is
cut, lost or refused before the MOVE concerns the copy alone, which is removed and never written to again.

What is sent is mixed with the base on the server, so the base must be known by a proof: the tag under which
it was fetched, or which it had under a temporary name before we moved it to its own.

Whether the server can do it is tried once for a mount, on a file of ten bytes with a temporary name.
Never sends a part to a name that is not noted as ours.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import trio

from davfs.dav.canaries import PART_NEW, PART_OLD
from davfs.dav.client import YOUNG_S, Body, Client
from davfs.dav.hrefs import shown
from davfs.dav.resource import DavPath, Resource, Validator
from davfs.dav.wire import Octets
from davfs.errors import DavfsError, NotFound, PreconditionFailed, ServerRefused
from davfs.fs.body import BODY_PIECE, FileBody, same_tag
from davfs.fs.content import Content
from davfs.fs.guard import Known
from davfs.fs.leftovers import Leftovers
from davfs.fs.lifecycle import tag_digest
from davfs.fs.ranges import RangeSet
from davfs.fs.tree import HIDDEN_PREFIX, Tree

log = logging.getLogger("davfs.upload")

SHARE: Final = 4  # at most this part of the file is sent, the round trips counted as bytes
SAVED_MIN: Final = 1 << 20
ROUND_TRIP_BYTES: Final = 256 * 1024  # what a line of 100 Mbit/s carries in 20 ms
ROUND_TRIPS: Final = 4  # COPY, two looks and MOVE, instead of one PUT
FILE_MIN: Final = SHARE * (ROUND_TRIPS + 1) * ROUND_TRIP_BYTES  # a smaller one is never sent in parts
GAP_MAX: Final = 64 * 1024  # what is unchanged between two changes goes along if it is short, and here
PIECES_MAX: Final = 64
IN_MEMORY_MAX: Final = 8 << 20  # more is read from the file while it is sent, and nobody may write to it then
BROKEN_MAX: Final = 2  # attempts of one file that may end without an answer; then it is sent whole, this time
REFUSED: Final = 1000  # always
TRIES_MAX: Final = 2  # of the canary that may
REMEMBERED_MAX: Final = 1024
CANARY_MORE: Final = b"more"  # written behind its end

Extent = tuple[int, int]


def pieces_of(changed: RangeSet, present: RangeSet, base_size: int, size: int) -> list[Extent] | None:
    """What to send instead of the file; None: all of it. A part cuts nothing off."""
    if size < base_size or not changed.covers(base_size, size):
        return None
    pieces: list[Extent] = []
    for start, last in changed:
        end = min(last, size)
        if start >= end:
            break
        if pieces and start - pieces[-1][1] <= GAP_MAX and present.covers(pieces[-1][1], start):
            pieces[-1] = (pieces[-1][0], end)
        else:
            pieces.append((start, end))
    if not 0 < len(pieces) <= PIECES_MAX:
        return None
    cost = sum(end - start for start, end in pieces) + (ROUND_TRIPS + len(pieces)) * ROUND_TRIP_BYTES
    return pieces if cost * SHARE <= size and size - cost >= SAVED_MIN else None


class PartBody(FileBody):
    """Stands for a file of which only `pieces` are sent, as they are now.

    What it is on the server is known by its tag, which it has before it gets its name: so its digest is
    that of the tag.
    """

    def __init__(self, content: Content, fd: int, pieces: list[Extent]) -> None:
        super().__init__(fd, content.size_bytes, before=content.unanswered)
        self.pieces = pieces
        self.part_bytes = sum(end - start for start, end in pieces)
        self._octets: list[bytes] = []
        if self.part_bytes <= IN_MEMORY_MAX:
            self._octets = [os.pread(fd, end - start, start) for start, end in pieces]

    @property
    def in_memory(self) -> bool:
        """The file may change meanwhile."""
        return bool(self._octets)

    @property
    def sent_bytes(self) -> int:
        return self._passed

    @property
    def proof(self) -> bytes | None:
        return None  # its digest is not one of bytes

    def bodies(self) -> list[tuple[int, Body]]:
        """Each piece, and where it begins."""
        if self._octets:
            starts = [start for start, _ in self.pieces]
            return [(start, Octets(data)) for start, data in zip(starts, self._octets, strict=True)]
        return [(start, _Piece(self.file, start, end - start)) for start, end in self.pieces]

    def is_stored_as(self, resource: Resource) -> bool:
        return super().is_stored_as(resource) and self.is_version(resource.etag)

    def stored(self, version: Validator) -> None:
        """It is wholly on the server, under its temporary name."""
        self.tag = version.etag
        self.digest = None if version.etag is None else tag_digest(version.etag)
        self.is_out = True


@dataclass(frozen=True, slots=True)
class _Piece:
    """[start, start + size_bytes) of a file."""

    file: int
    start: int
    size_bytes: int

    async def __aiter__(self) -> AsyncIterator[bytes]:
        at, end = self.start, self.start + self.size_bytes
        while at < end:
            piece = os.pread(self.file, min(BODY_PIECE, end - at), at)
            if not piece:
                raise DavfsError("the cached file is shorter than it was")
            at += len(piece)
            yield piece


class Partials:
    """`wanted`: the option."""

    def __init__(self, tree: Tree, leftovers: Leftovers, *, wanted: bool) -> None:
        self._tree = tree
        self._leftovers = leftovers
        self._wanted = wanted
        self._trying = trio.Lock()
        self._tries = 0
        self._broken: dict[int, int] = {}  # by content id: attempts in vain
        self._put: dict[int, Validator] = {}  # what we put in place, known by its tag before that

    @property
    def _client(self) -> Client:
        return self._tree.client

    # --- whether

    def pieces(self, content: Content, name: str, over: Known | None) -> list[Extent] | None:
        """What of it would be sent over `over`; None: it goes as a whole. Asks nobody."""
        server = self._client.capabilities
        if not self._wanted or over is None or not server.replaces_parts or content.base is None:
            return None
        if not server.may_stage or server.move_unsafe(name) or server.takes_mtime:
            return None
        if self._broken.get(content.id, 0) >= BROKEN_MAX or not self._is_proved(content, over):
            return None
        changed = content.changes.since(content.base)
        if changed is None or content.base_size != over.version.size_bytes:
            return None
        return pieces_of(changed, content.present, content.base_size, content.size_bytes)

    def _is_proved(self, content: Content, over: Known) -> bool:
        """Whether the tag of `over` stands for the very bytes that the changes were made on."""
        tag = over.version.etag
        if tag is None or (tag.weak and not self._client.capabilities.weak_tag_in_if):
            return False
        if over.contended or over.digest is not None or content.young:
            return False
        if content.base not in (content.fetched, self._put.get(content.id)):
            return False
        return not self._client.is_young(over.version)

    async def learn(self, size: int, folder: DavPath) -> None:
        """Before the first large upload: whether this server replaces parts, by a try in `folder`."""
        if self._wanted and size >= FILE_MIN and self._client.capabilities.may_stage:
            async with self._trying:
                if self._client.capabilities.partial_put == "unknown":
                    await self._try(folder)

    async def _try(self, folder: DavPath) -> None:
        self._tries += 1
        try:
            works = await self._canary(folder)
        except ServerRefused as error:
            log.info("parts of files are refused: %s", error)
            works = False
        except DavfsError as error:
            log.info("whether parts of files can be sent is not known yet: %s", error)
            if self._tries < TRIES_MAX:
                return
            works = False
        self._client.capabilities = self._client.capabilities.learned_partial_put(works=works)
        log.info("partial updates: %s", self._client.capabilities.partial_put)

    async def _canary(self, folder: DavPath) -> bool:
        """A small file of ours: changed inside and behind its end, read, moved. Its tag has to go along."""
        first, second = (folder.child(f"{HIDDEN_PREFIX}{secrets.token_hex(8)}") for _ in range(2))
        way = self._client.capabilities.way_of_parts
        size = len(PART_OLD) + len(CANARY_MORE)
        try:
            self._leftovers.note(first)
            await self._client.put(first, Octets(PART_OLD), is_new=True)
            await self._client.put_part(first, Octets(PART_NEW[3:5]), way, start=3, total_bytes=len(PART_OLD))
            await self._client.put_part(
                first, Octets(CANARY_MORE), way, start=len(PART_OLD), total_bytes=size
            )
            made = await self._client.stat(first)
            if (
                made.size_bytes != size
                or made.etag is None
                or await self._read(first) != PART_NEW + CANARY_MORE
            ):
                return False
            self._leftovers.note(second)
            await self._client.move(first, second, is_collection=False, overwrite=False)
            self._leftovers.forget(first)
            return same_tag((await self._client.stat(second)).etag, made.etag)
        finally:
            for path in (first, second):
                self._leftovers.give_up(path)  # of what is not noted nothing comes

    async def _read(self, path: DavPath) -> bytes:
        data = b""
        async with self._client.get(path) as download:
            async for chunk in download:
                data += chunk
                if len(data) > len(PART_NEW) + len(CANARY_MORE):
                    break
        return data

    # --- doing it

    async def stage(
        self, content: Content, path: DavPath, body: PartBody, over: Known, staged: DavPath
    ) -> bool:
        """Make `staged`, which is noted as ours, what the file is to be. False: it has to be sent whole.

        Raises PreconditionFailed when the server's version is not `over`, LinkError and the like.
        """
        self._count(content)
        whole_from_now_on = True
        try:
            stored = await self._stored(path, body, over, staged)
        except PreconditionFailed:
            self._broken.pop(content.id, None)
            raise
        except ServerRefused as error:
            log.info("%s: is sent whole, as its changes alone are refused: %s", shown(path), error)
            stored, whole_from_now_on = None, not error.retry_helps
        if stored is None:
            self._broken[content.id] = REFUSED if whole_from_now_on else BROKEN_MAX
            return False
        self._broken.pop(content.id, None)
        body.stored(stored)
        await self._let_age()
        return True

    def _count(self, content: Content) -> None:
        """An attempt that is not answered, or ended by a kill of the task, counts as broken."""
        if len(self._broken) >= REMEMBERED_MAX:
            self._broken.clear()
        self._broken[content.id] = self._broken.get(content.id, 0) + 1

    async def _stored(self, path: DavPath, body: PartBody, over: Known, staged: DavPath) -> Validator | None:
        """The version that `staged` is now; None when it is not what was to be made."""
        await self._client.copy(
            path, staged, is_collection=False, overwrite=False, if_match=over.version.etag
        )
        copied = await self._look(staged)
        if copied is None or copied.size_bytes != over.version.size_bytes:
            return None
        way = self._client.capabilities.way_of_parts
        for start, piece in body.bodies():
            await self._client.put_part(staged, piece, way, start=start, total_bytes=body.size_bytes)
            body.sent_up_to(body.sent_bytes + piece.size_bytes)
        made = await self._look(staged)
        if made is None or made.size_bytes != body.size_bytes or made.etag is None:
            return None
        # A server that answered 204 and did nothing; one with tags of seconds may not show it.
        coarse = self._client.capabilities.coarse_tags
        return None if same_tag(made.etag, copied.etag) and not coarse else made.validator

    async def _look(self, path: DavPath) -> Resource | None:
        try:
            found = await self._client.stat(path)
        except NotFound:
            return None
        return None if found.is_collection else found

    def stages(self, size: int) -> bool:
        """Whether a whole file of this size gets its name by MOVE, so that its tag is known before."""
        server = self._client.capabilities
        return self._wanted and size >= FILE_MIN and server.replaces_parts and server.may_stage

    async def note_tag(self, body: FileBody, staged: DavPath) -> None:
        """Before the MOVE of a whole file: then its next change may be sent as a part."""
        if self.stages(body.size_bytes):
            found = await self._look(staged)
            if found is not None and found.etag is not None and body.is_stored_as(found):
                body.tag = found.etag
                await self._let_age()

    def acknowledged(self, content: Content, body: FileBody, version: Validator) -> None:
        """The server has it. Without a proof the next change goes up whole, and is known after that."""
        self._put.pop(content.id, None)
        if self._broken.get(content.id, 0) < REFUSED:
            self._broken.pop(content.id, None)
        if body.is_version(version.etag):
            self.recognised(content, version)

    def recognised(self, content: Content, version: Validator) -> None:
        """The server has it, known by a tag that only we gave."""
        while len(self._put) >= REMEMBERED_MAX:
            del self._put[next(iter(self._put))]
        self._put[content.id] = version

    async def _let_age(self) -> None:
        """Where tags have whole seconds, until its second is over: no later change can have the same tag."""
        if self._client.capabilities.coarse_tags:
            await trio.sleep(YOUNG_S)
