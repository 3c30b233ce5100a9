"""Files that go to the server in parts: which go that way, what is there already, and the end of it.

On Nextcloud and ownCloud a large file is sent in parts and put together by one conditional MOVE
(`dav.chunked`). Every overwrite goes that way too, in one part if it is small: a PUT over a file writes in
place there, and one that is cut off leaves new bytes under the old tag (ADR 0022).

A row stands in the index before the folder of an upload is made, and goes when the folder has. With each part
that the server has taken stands the checksum of its bytes: an upload that broke off, or that a killed daemon
left, goes on with the parts that are still the file's, and a byte that a program wrote meanwhile cannot come
into a file of another moment. If any part differs the whole upload is given up, because an older PUT of that
part could still land. What is given up is removed; what cannot be removed the server drops after a day.

After a MOVE without a clear answer the server is asked what became of it, for as long as it may work on it.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from davfs.dav.chunked import (
    LARGEST_PART,
    SMALLEST_PART,
    ChunkBody,
    ChunkedUploads,
    Part,
    Upload,
    UploadGone,
    part_size,
)
from davfs.dav.client import Client
from davfs.dav.hrefs import shown
from davfs.dav.owncloud import best_of, new_sum
from davfs.dav.resource import DavPath, ETag, Resource
from davfs.errors import (
    Damaged,
    DavfsError,
    LinkError,
    NoSpace,
    NotFound,
    PreconditionFailed,
    ServerFailure,
    ServerRefused,
    TooLarge,
)
from davfs.fs.body import FileBody
from davfs.fs.content import DIGEST_MAX, Content, path_bytes
from davfs.fs.guard import Guard, Known
from davfs.fs.index import Index

log = logging.getLogger("davfs.upload")

LARGE: Final = 20 << 20  # a new file of this size goes in parts; a smaller one is one PUT, which is spooled
LOOK_FROM: Final = 1 << 20  # an upload of this size is worth one question first: version, quota
SUMMED_AT_ONCE: Final = 8 << 20
SUM_INLINE: Final = 256 * 1024  # 0.2 ms of SHA1
NEW_FOLDERS_MAX: Final = 4  # in one attempt: parts that are too large, folders that vanish
PATIENCE_BYTES_PER_S: Final = 1 << 20  # how long the server may put a file together after nobody answered
SETTLE_S: Final = 10.0  # and that much longer
FAILED_S: Final = 2.0
LOOKS_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
CLEAN_PAUSE_S: Final = 10.0
_DELETES_MAX: Final = 32
_NO_PLACE: Final = frozenset({403, 404, 405, 409, 501})  # to MKCOL of a new name among the uploads

_UPLOADS_TABLE: Final = """
CREATE TABLE IF NOT EXISTS chunked (
    name TEXT PRIMARY KEY, content INTEGER NOT NULL, path BLOB NOT NULL,
    size INTEGER NOT NULL, part_bytes INTEGER NOT NULL, kind TEXT NOT NULL
)"""
_PARTS_TABLE: Final = """
CREATE TABLE IF NOT EXISTS chunked_parts (
    name TEXT NOT NULL, number INTEGER NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (name, number)
) WITHOUT ROWID"""


@dataclass(slots=True, eq=False)
class Underway:
    """One upload and what is known of it."""

    upload: Upload
    kind: str  # of the checksums
    sent: dict[int, str]  # number -> checksum of what the server has taken
    resumed: bool = False
    checksum: str | None = None  # of the whole file


class NoChannel(DavfsError):
    """The server does not take files in parts: for a while they are sent whole."""


class Chunks:
    def __init__(
        self, client: Client, guard: Guard, index: Index, *, connections: int, timeout_s: float = 30.0
    ) -> None:
        self._client = client
        self._guard = guard
        self._index = index
        self._timeout_s = timeout_s
        index.run(_UPLOADS_TABLE)
        index.run(_PARTS_TABLE)
        # Half of the lanes: listings, and other files, go on beside a file of gigabytes.
        self._parts_at_once = max(1, connections // 2)
        self._lanes = trio.CapacityLimiter(self._parts_at_once)
        self._largest_part = LARGEST_PART
        self._largest_put = LARGE
        self._of: dict[str, int] = dict(index.rows("SELECT name, content FROM chunked"))  # upload -> content
        self._unwanted: set[str] = set()
        self._wake = trio.Event()
        self._in_use: set[str] = set()

    # --- which files go that way

    async def channel(self, size: int, *, new: bool) -> ChunkedUploads | None:
        """Where this file is to be sent in parts; None: with one PUT to its name."""
        server = self._client.capabilities
        if not server.is_owncloud or not size or (new and size <= self._largest_put):
            return None
        return await self._client.cloud.uploads()

    def has_another_way(self, error: DavfsError, size: int) -> bool:
        """There are no parts after all: whole. A PUT of this size was answered with 413: in parts."""
        if isinstance(error, NoChannel):
            return True
        if not self._client.capabilities.is_owncloud or size <= SMALLEST_PART or size > self._largest_put:
            return False
        self._largest_put = size - 1
        self._largest_part = max(SMALLEST_PART, min(self._largest_part, size // 2))
        return not self._client.cloud.has_no_chunks

    # --- the parts

    async def send(
        self,
        channel: ChunkedUploads,
        content_id: int,
        body: FileBody,
        path: DavPath,
        over: Known | None,
    ) -> Underway:
        """Until the server has all parts of `body`. Nothing is at the name yet.

        Raises PreconditionFailed and NoSpace before the first byte, where a look tells; TooLarge for parts
        of the smallest size; NoChannel where there is no place for parts after all.
        """
        fd, size = body.file, body.size_bytes
        if size >= LOOK_FROM:
            await self._look(path, size, over)
        await self._remove_unwanted(channel)
        for attempt in range(NEW_FOLDERS_MAX):
            underway = await self._begun(channel, content_id, fd, path, size)
            self._in_use.add(underway.upload.name)
            try:
                await self._send_parts(channel, underway, fd, body.sent_up_to)
            except (TooLarge, UploadGone) as error:
                self._in_use.discard(underway.upload.name)
                await self.give_up(channel, underway)
                if attempt + 1 == NEW_FOLDERS_MAX or not self._worth_another(error, underway):
                    raise
            else:
                return underway
            finally:
                self._in_use.discard(underway.upload.name)
        raise ServerRefused(f"{shown(path)}: the server drops what it is sent")

    def _worth_another(self, error: DavfsError, underway: Underway) -> bool:
        if isinstance(error, UploadGone):
            return True
        largest = min(underway.upload.part_bytes, underway.upload.size_bytes)
        if largest <= SMALLEST_PART:
            return False
        self._largest_part = max(SMALLEST_PART, largest // 2)
        log.info(
            "parts of %d bytes are too large for the server: %d from now on", largest, self._largest_part
        )
        return True

    async def _look(self, path: DavPath, size: int, over: Known | None) -> None:
        """One question instead of an upload in vain."""
        if over is None:
            quota = await self._client.quota(path.parent)
            free = quota.available_bytes
            if free is not None and free < size:
                raise NoSpace(f"{shown(path)}: the server has room for {free} bytes", status=507)
            return
        try:
            found = await self._client.look(path, size, None)
        except NotFound:
            raise PreconditionFailed(f"{shown(path)}: it is gone on the server", status=412) from None
        if found.is_collection or not over.version.same_version(found.validator):
            raise PreconditionFailed(f"{shown(path)}: it changed on the server", status=412)

    async def _begun(
        self, channel: ChunkedUploads, content_id: int, fd: int, path: DavPath, size: int
    ) -> Underway:
        """The upload of an earlier attempt, if its parts are still the file's; else a new one."""
        earlier = self._noted(content_id, path, size)
        if earlier is not None:
            if await self._is_still_this(channel, earlier, fd):
                return earlier
            await self.give_up(channel, earlier)
        part_bytes = part_size(size, lanes=self._parts_at_once, most=self._largest_part)
        upload = Upload(f"davfs-{secrets.token_hex(16)}", path, size, part_bytes)
        kind = self._client.cloud.checksum_kind
        self._index.run(
            "INSERT INTO chunked VALUES (?,?,?,?,?,?)",
            (upload.name, content_id, path_bytes(path), size, part_bytes, kind),
        )
        self._of[upload.name] = content_id
        underway = Underway(upload, kind, {})
        try:
            await channel.begin(upload)
        except ServerRefused as error:
            self._forget(upload.name)
            if error.status not in _NO_PLACE:
                raise
            self._client.cloud.chunks_refused()
            raise NoChannel(f"{shown(path)}: the server has no place for parts: {error}") from error
        except BaseException:
            self._do_without(upload.name)
            raise
        return underway

    def _noted(self, content_id: int, path: DavPath, size: int) -> Underway | None:
        """What is underway for this file; what is noted for another name or size is not wanted any more."""
        found = None
        query = "SELECT name, path, size, part_bytes, kind FROM chunked WHERE content=?"
        for name, raw, noted, part_bytes, kind in self._index.rows(query, (content_id,)):
            if name in self._unwanted:
                continue
            if (
                raw != path_bytes(path)
                or noted != size
                or part_bytes > self._largest_part
                or found is not None
            ):
                self._do_without(name)
                continue
            rows = self._index.rows("SELECT number, digest FROM chunked_parts WHERE name=?", (name,))
            found = Underway(Upload(name, path, size, part_bytes), kind, dict(rows), resumed=True)
        return found

    async def _is_still_this(self, channel: ChunkedUploads, earlier: Underway, fd: int) -> bool:
        """Whether the server has the parts that are noted, and each is what the file holds now."""
        try:
            present = await channel.present(earlier.upload)
        except UploadGone:
            return False
        for part in earlier.upload.parts:
            digest = earlier.sent.get(part.number)
            if digest is None:
                continue
            if digest != await _digest(fd, part, earlier.kind):
                return False
            if present.get(part.number) != part.size_bytes:
                del earlier.sent[part.number]
        log.info(
            "%s: goes on with %d of %d parts there",
            shown(earlier.upload.path),
            len(earlier.sent),
            len(earlier.upload.parts),
        )
        return True

    async def _send_parts(
        self, channel: ChunkedUploads, underway: Underway, fd: int, sent_up_to: Callable[[int], None]
    ) -> None:
        upload = underway.upload
        todo = [part for part in upload.parts if part.number not in underway.sent]
        passed = upload.size_bytes - sum(part.size_bytes for part in todo)

        def progressed(size: int) -> None:
            nonlocal passed
            passed += size
            sent_up_to(min(passed, upload.size_bytes - 1))

        failures: list[DavfsError] = []
        async with trio.open_nursery() as nursery:

            async def send(part: Part) -> None:
                async with self._lanes:
                    await self._send_part(channel, underway, fd, part, progressed)

            async def attempt(work: Callable[[], Awaitable[None]]) -> None:
                """The first failure ends the others; what they sent so far is noted."""
                try:
                    await work()
                except DavfsError as error:
                    failures.append(error)
                    nursery.cancel_scope.cancel()

            if len(upload.parts) == 1:
                underway.checksum = None
            else:
                nursery.start_soon(attempt, partial(self._sum_up, underway, fd))
            for part in todo:
                nursery.start_soon(attempt, partial(send, part))
        if failures:
            raise failures[0]
        if len(upload.parts) == 1:
            underway.checksum = f"{underway.kind}:{underway.sent[1]}"
        sent_up_to(upload.size_bytes)

    async def _send_part(
        self,
        channel: ChunkedUploads,
        underway: Underway,
        fd: int,
        part: Part,
        progressed: Callable[[int], None],
    ) -> None:
        body = ChunkBody(fd, part, partial(new_sum, underway.kind), progressed)
        await channel.put(underway.upload, body)
        assert body.digest is not None
        underway.sent[part.number] = body.digest
        self._index.run(
            "INSERT OR REPLACE INTO chunked_parts VALUES (?,?,?)",
            (underway.upload.name, part.number, body.digest),
        )

    async def _sum_up(self, underway: Underway, fd: int) -> None:
        """The whole file's checksum, beside the parts."""
        whole = Part(0, 0, underway.upload.size_bytes)
        underway.checksum = f"{underway.kind}:{await _digest(fd, whole, underway.kind)}"

    # --- the end

    async def assemble(
        self, channel: ChunkedUploads, underway: Underway, over: Known | None, *, mtime_s: int
    ) -> ETag | None:
        """The MOVE to the name, while `over` (None: nothing) is there. Sent once."""

        async def move(tag: ETag | None) -> ETag | None:
            done = await channel.assemble(
                underway.upload,
                overwrite=over is not None,
                if_match=tag,
                mtime_s=mtime_s,
                checksum=underway.checksum,
            )
            server = self._client.capabilities
            self._client.capabilities = server.learned_put(
                etag=done.etag is not None, mtime_accepted=done.mtime_accepted
            )
            return done.etag

        self._in_use.add(underway.upload.name)
        try:
            tag = await self._guard.assemble(underway.upload.path, over, move)
        except (Damaged, PreconditionFailed):
            self._do_without(underway.upload.name)
            raise
        finally:
            self._in_use.discard(underway.upload.name)
        self._forget(underway.upload.name)
        return tag

    async def settled(
        self, channel: ChunkedUploads, underway: Underway, over: Known | None, error: DavfsError
    ) -> bool:
        """After a MOVE that nobody answered: wait until it shows what became of it, as long as that may take.

        False: nothing has changed, and the folder is still there: it was not done, or takes longer than any.
        A proxy gives up long before a server that copies gigabytes (peers.md 20). One that says 500, or that
        the parts do not make up the file, is done with it.
        """
        upload = underway.upload
        limit_s = min(SETTLE_S, self._timeout_s) + upload.size_bytes / PATIENCE_BYTES_PER_S
        if isinstance(error, ServerFailure | UploadGone):
            limit_s = FAILED_S
        deadline_s, looks = trio.current_time() + limit_s, 0
        while trio.current_time() < deadline_s:
            await trio.sleep(LOOKS_S[min(looks, len(LOOKS_S) - 1)])
            looks += 1
            try:
                await channel.present(upload)
            except UploadGone:
                self._forget(upload.name)
                return True
            except DavfsError:
                continue
            if await self._has_changed(upload.path, over):
                return True
        return False

    async def _has_changed(self, path: DavPath, over: Known | None) -> bool:
        try:
            found = await self._client.stat(path)
        except NotFound:
            return over is not None
        except DavfsError:
            return False
        return over is None or not over.version.same_version(found.validator)

    async def holds(self, path: DavPath, content: Content, found: Resource) -> bool:
        """Whether the server's checksum of a large file says that it is what is here: then nobody fetches it.

        Nextcloud keeps the checksum that came with the bytes, and drops it when others come without one.
        """
        size, life = content.size_bytes, content.life
        worth_it = self._client.capabilities.is_owncloud and size > DIGEST_MAX and size == found.size_bytes
        told = best_of(await self._client.cloud.checksums(path)) if worth_it and content.complete else None
        if told is None:
            return False
        with content.steady() as fd:
            ours = await checksum_of(fd, size, told[0])
        return ours == ":".join(told) and content.life == life

    # --- what is not wanted any more

    async def give_up(self, channel: ChunkedUploads, underway: Underway) -> None:
        self._unwanted.add(underway.upload.name)
        await self._remove_unwanted(channel)

    def recover(self, unsent: set[int]) -> None:
        """At start: the uploads of files that are not to be sent any more."""
        for content_id in set(self._of.values()) - unsent:
            self.forsake(content_id)

    def forsake(self, content_id: int) -> None:
        """The file is on the server, or was removed or replaced: parts of it are not wanted any more."""
        for name in [name for name, owner in self._of.items() if owner == content_id]:
            self._do_without(name)

    def _do_without(self, name: str) -> None:
        self._unwanted.add(name)
        self._wake.set()

    async def clean(self) -> None:
        """For ever: what the last daemon left, and what was given up since."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            with suppress(DavfsError):
                channel = await self._client.cloud.uploads()
                if channel is not None:
                    await self._remove_unwanted(channel)
            await trio.sleep(CLEAN_PAUSE_S)
            if self._unwanted - self._in_use:
                self._wake.set()

    async def _remove_unwanted(self, channel: ChunkedUploads) -> None:
        for name in list(self._unwanted - self._in_use)[:_DELETES_MAX]:
            try:
                await channel.remove(name)
            except LinkError as error:
                log.debug("%s is left on the server for now: %s", name, error)
                return
            except DavfsError as error:
                log.info("%s is left on the server, which drops it after a day: %s", name, error)
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._unwanted.discard(name)
        self._of.pop(name, None)
        self._index.run("DELETE FROM chunked WHERE name=?", (name,))
        self._index.run("DELETE FROM chunked_parts WHERE name=?", (name,))


async def _digest(fd: int, part: Part, kind: str) -> str:
    """Of bytes on the cache disk. Raises DavfsError when they are not all there."""
    summed, at = new_sum(kind), part.start
    while at < part.end:
        size = min(SUMMED_AT_ONCE, part.end - at)

        def add(at: int = at, size: int = size) -> int:
            piece = os.pread(fd, size, at)
            summed.update(piece)
            return len(piece)

        got = add() if size <= SUM_INLINE else await trio.to_thread.run_sync(add)
        if not got:
            raise DavfsError("the cached file is shorter than it was")
        at += got
    return summed.hexdigest()


async def checksum_of(fd: int, size: int, kind: str) -> str:
    """As OC-Checksum says it."""
    return f"{kind}:{await _digest(fd, Part(0, 0, size), kind)}"
