"""One version of one file on the cache disk.

A `Content` is its bytes (a sparse file), which of them are present, the version of the server's copy they
came from, and its life (what is written, sent, acknowledged). `store` keeps them all; nothing here talks
to the server.

Invariants:
- A dirty content's row is committed before the call that made it dirty returns.
- Bytes that a program wrote are never overwritten by downloaded ones (`fill` writes into gaps only).
- While an upload reads the file, it does not change: a write first forks it (`prepare_write`).
- The size and mtime of dirty bytes are those of the file on disk, so both survive `kill -9`
  without an index commit for each write.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import trio

from davfs.dav.resource import DavPath, Validator
from davfs.errors import PosixError
from davfs.fs.changes import Changes
from davfs.fs.disk import CacheDisk, copy, disk_error, punch
from davfs.fs.growth import Counted
from davfs.fs.index import ContentRow
from davfs.fs.lifecycle import DIGEST_BYTES, Life, Unanswered
from davfs.fs.ranges import RangeSet

log = logging.getLogger("davfs.content")

INLINE_READ_MAX: Final = 256 * 1024  # a page-cached pread of this size takes less than a thread hop (130 us)
INLINE_CACHED_MAX: Final = 1 << 20  # the most that the kernel asks for at once: 0.1 ms, if it is in memory
DIGEST_MAX: Final = 1 << 20  # bytes that are compared where a tag of whole seconds proves nothing
FORK_MAX: Final = 32 << 20  # a file larger than this is not copied for a write during its upload
FILE_SIZE_MAX: Final = 1 << 43  # 8 TiB: beyond it is EFBIG at once


class Store(Protocol):
    """What a content asks of the ContentStore that keeps it."""

    disk: CacheDisk
    stop_upload: Callable[[Content], None]

    def admit(self) -> None: ...
    def open_file(self, content: Content) -> int: ...
    def status(self, content: Content) -> os.stat_result: ...
    def pwrite(self, content: Content, data: bytes | memoryview, offset: int) -> None: ...
    def count_filled(self, content: Content, size: int) -> None: ...
    def count_growth(self, content: Content) -> None: ...
    def save(self, content: Content) -> None: ...


class Content:
    """One version of one file. Made and dropped by ContentStore only."""

    def __init__(self, store: Store, row: ContentRow) -> None:
        self._store = store
        self.id = row.id
        self.ino = row.ino
        self.path = row.path
        self.generation = row.generation
        self.size_bytes = row.size
        self.base_size = row.base_size  # bytes that could come from the server
        self.base = row.base
        self.base_digest = row.base_digest
        self.young = (
            False  # by a tag of whole seconds it may be another version: not believed at the next open
        )
        # What the server made of our bytes when it stored them: they are an older version then, and the base
        # of the next change is this one. In the index this content is one without a version.
        self.successor: Validator | None = None
        self.fetched = row.base if row.written == 0 else None  # under this tag all that is here came
        self.changes = Changes()
        self.made_here = False  # by a program; until the server has it for the first time
        self.turning = False  # the version that the rest is fetched from is being replaced by ours
        self.staged: tuple[bytes, int] | None = None  # what was moved to its name last, and `written` then
        self._source = row.source
        self.revision = row.revision
        self.recorded = False  # its file carries a record (see record)
        self.has_row = True  # in the index (see newcomers)
        self.saved: ContentRow | None = None  # the row as this run committed it last
        self.used_s = float("-inf")  # when it was used, as the index has it (wall time)
        self.counted = Counted()  # what of it is in the sums of unsent growth
        self.mode: int | None = None  # as a program set it, for the record
        self.life = Life(row.written, row.sent, row.acked, row.unknown)
        self.attempts = row.attempts
        self.error = row.error
        self.unanswered = Unanswered.from_bytes(row.unanswered)
        self.unanswered_s = 0.0  # when the last of them was given up (trio's clock)
        self.present = RangeSet.whole(row.size) if row.present is None else RangeSet.from_bytes(row.present)
        self.own = RangeSet() if row.own is None else RangeSet.from_bytes(row.own)  # see `claim`
        self.closed = False
        self._fd = -1
        self._in_threads = 0
        self._saved_complete = row.present is None
        self.users = 0  # handles, transfers
        self.held = 0  # operations that need all of it to stay
        self.readers = 0  # uploads that read the file now
        self.waiting = 0  # programs that would write to it, once nobody reads it
        self.progress = trio.lowlevel.ParkingLot()  # woken when an upload of it has come a step further
        self.orphan = False  # unlinked or replaced: lives only as long as it is open
        self.hurried = False  # was sent at once when it was closed
        self.disk_bytes = 0  # as last counted by the store

    @property
    def dirty(self) -> bool:
        return self.life.dirty and not self.orphan

    def is_shown(self, *, known: bool) -> bool:
        """Whether size and mtime are its own: of what is unsent, of what the server does not tell (not
        `known`), and, as long as it is open, of what the server has made another version of."""
        return not self.closed and (self.dirty or not known or self.successor is not None)

    @property
    def on_server(self) -> bool:
        """Whether the server may hold a file under its name."""
        return self.base is not None or self.life.unknown or self.life.acked > 0

    @property
    def source(self) -> Validator | None:
        """The version that missing bytes come from: the base, or after a power loss what was the base."""
        return self.base if self.base is not None else self._source

    @property
    def complete(self) -> bool:
        return self.present.covers(0, self.size_bytes)

    @property
    def fd(self) -> int:
        """The file, opened when need be: more files can be unsent than descriptors be open."""
        if self._fd < 0:
            self._fd = self._store.open_file(self)
        return self._fd

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def opened(self, fd: int) -> None:
        """This descriptor is its own from now on."""
        self._fd = fd

    @property
    def parkable(self) -> bool:
        return self._in_threads == 0

    def park(self) -> None:
        """Close the descriptor for now."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def mtime_ns(self) -> int:
        return self._store.status(self).st_mtime_ns

    def has(self, start: int, end: int) -> bool:
        return self.present.covers(start, min(end, self.size_bytes))

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """What of [start, end) must come from the server."""
        return self.present.missing(start, min(end, self.size_bytes))

    # --- bytes

    async def read(self, offset: int, size: int) -> bytes:
        """Bytes that are present; short at the end of the file."""
        size = min(size, self.size_bytes - offset)
        if size <= 0:
            return b""
        if size <= INLINE_READ_MAX or (size <= INLINE_CACHED_MAX and _is_in_memory(self.fd, offset, size)):
            return os.pread(self.fd, size, offset)
        self._in_threads += 1
        try:
            return await trio.to_thread.run_sync(os.pread, self.fd, size, offset)
        finally:
            self._in_threads -= 1

    def fill(self, offset: int, data: bytes) -> None:
        """Downloaded bytes: they go only where nothing is present yet."""
        view = memoryview(data)
        mtime_ns = self.mtime_ns if self.life.dirty else None  # a program's mtime is not moved by a download
        limit = min(offset + len(data), self.base_size, self.size_bytes)
        for start, end in self.present.missing(offset, limit):
            self._store.pwrite(self, view[start - offset : end - offset], start)
            self.present.add(start, end)
            self._store.count_filled(self, end - start)
        if mtime_ns is not None:
            self.set_mtime(mtime_ns)

    @property
    def droppable(self) -> bool:
        """Whether its bytes can be fetched again, and nobody is reading them from the disk right now."""
        in_use = self.held or self._in_threads or self.readers
        return self.base_size > 0 and not (self.life.dirty or self.orphan or in_use)

    def drop_lower_half(self) -> bool:
        """Give back disk space: of what is present, the half with the lower offsets.

        That is what a sequential reader has behind it. The row says so before the bytes go.
        """
        extents, total = list(self.present), self.present.total_bytes
        goal, gone = total // 2, 0
        for start, end in extents:
            cut = min(end, start + goal - gone)
            if cut <= start:
                break
            self.present.remove(start, cut)
            gone += cut - start
        self.save()
        return gone > 0 and punch(self.fd, extents[0][0], self._first_present(extents[-1][1]))

    def _first_present(self, end: int) -> int:
        return next((start for start, _ in self.present), end)

    def forget_bytes(self) -> None:
        """Start again with nothing present."""
        os.ftruncate(self.fd, 0)
        self.size_bytes = self.base_size = 0
        self.present = RangeSet()

    def append_downloaded(self, data: bytes) -> None:
        """Downloaded bytes of a file whose size nobody knew."""
        self._store.pwrite(self, data, self.size_bytes)
        self.present.add(self.size_bytes, self.size_bytes + len(data))
        self.size_bytes += len(data)
        self.base_size = self.size_bytes

    def write(self, offset: int, data: bytes) -> int:
        """A program's bytes. `prepare_write` must have run, without an await since."""
        end = offset + len(data)
        if end > FILE_SIZE_MAX:
            raise PosixError(errno.EFBIG)
        self._store.admit()
        first = not self.life.dirty
        if first:
            self.mark_written()
        try:
            self._store.pwrite(self, data, offset)
        except PosixError:
            if self._store.status(self).st_size > self.size_bytes:
                os.ftruncate(self.fd, self.size_bytes)  # a refused write leaves nothing behind
            raise
        if offset > self.size_bytes:
            self._claim(self.size_bytes, offset)  # a hole
        self._claim(offset, end)
        grown, self.size_bytes = end > self.size_bytes, max(self.size_bytes, end)
        if not first:
            self.life = self.life.wrote()
        self._save_extents()
        if grown:
            self._store.count_growth(self)
        return len(data)

    def truncate(self, size: int) -> None:
        """Cut or extend. `prepare_write` must have run, without an await since."""
        if size > FILE_SIZE_MAX:
            raise PosixError(errno.EFBIG)
        if size > self.size_bytes:
            self._store.admit()
        self.mark_written()
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            raise disk_error(error) from error
        if size < self.size_bytes:
            # What was cut off reads as zeros if the file grows again; it must not be fetched.
            self._claim(size, max(self.size_bytes, self.base_size))
        else:
            self._claim(self.size_bytes, size)
        self.size_bytes = size
        self._save_extents()
        self._store.count_growth(self)

    def _claim(self, start: int, end: int) -> None:
        """These bytes are a program's: present, and never to be fetched, also not after a power loss."""
        self.present.add(start, end)
        self.own.add(start, end)
        self.changes.note(start, end)

    def _save_extents(self) -> None:
        """The row must say which bytes are a program's, unless it already says that all are here."""
        if not (self._saved_complete and self.complete):
            self.save()

    def mark_written(self) -> None:
        """Count a change; the first one since the last acknowledgement commits the journal row."""
        before = self.life
        self.life = self.life.wrote()
        if before.dirty:
            return
        self.changes.restart(self.base)
        self.attempts, self.error = 0, None
        try:
            self.save()
        except PosixError:
            self.life = before  # not journalled, so not written
            raise

    def set_mtime(self, mtime_ns: int) -> None:
        os.utime(self.fd, ns=(mtime_ns, mtime_ns))

    async def prepare_write(self) -> None:
        """Make the file on disk safe to change: an upload that reads it keeps the old bytes.

        A file of more than 32 MiB is not copied: then whoever uploads is told to stop (`stop_upload`).
        """
        if self.life.unknown and self.life.written == self.life.sent:
            self.note_unanswered()
        if self.young and not self.life.dirty:
            self._note_base()
        if self.successor is not None and not self.life.dirty:
            self.base, self.successor = self.successor, None
        while self.readers and not self._fork():
            self._store.stop_upload(self)
            self.waiting += 1
            try:
                await self.progress.park()
            finally:
                self.waiting -= 1

    def _note_base(self) -> None:
        """Its tag does not prove which version this is: the bytes do, before they change."""
        self.young = False
        self.fetched = None  # in that second there may have been others
        if self.complete and 0 < self.size_bytes <= DIGEST_MAX:
            self.base_digest = new_digest(os.pread(self.fd, self.size_bytes, 0)).digest()

    def note_unanswered(self) -> None:
        """The bytes of now are those of a PUT of unknown outcome: remember them before they change."""
        if self.complete and self.size_bytes <= FORK_MAX:
            digest = new_digest(os.pread(self.fd, self.size_bytes, 0)).digest()
            self.unanswered = self.unanswered.with_body(self.size_bytes, digest)
            self.save()

    def _fork(self) -> bool:
        if self.size_bytes > FORK_MAX:
            return False
        source = self.fd
        old, new = (self._store.disk.file_name(self.id, self.generation + more) for more in (0, 1))
        target = self._store.disk.create(self.id, self.generation + 1)
        try:
            mtime_ns = os.fstat(source).st_mtime_ns
            copy(source, target, self.size_bytes)
            os.utime(target, ns=(mtime_ns, mtime_ns))
            self.generation += 1
            self.save()
        except (OSError, PosixError) as error:
            self.generation = int(old.rpartition(".")[2])
            os.close(target)
            self._store.disk.remove(new)
            raise PosixError(error.errno or errno.EIO, f"cache disk: {error}") from error
        self._fd, self.readers = target, 0
        os.close(source)  # uploads have their own descriptor
        self._store.disk.remove(old)
        return True

    @contextmanager
    def steady(self) -> Iterator[int]:
        """A descriptor of the bytes as they are now, for an upload: a write meanwhile forks the file."""
        generation, fd = self.generation, os.dup(self.fd)
        self.readers += 1
        try:
            yield fd
        finally:
            os.close(fd)
            if self.generation == generation:
                self.readers -= 1
            self.progress.unpark_all()

    # --- life

    def save(self) -> None:
        """Commit the row."""
        self._store.save(self)
        self._saved_complete = self.complete

    def rebase(self, base: Validator | None, digest: bytes | None = None) -> None:
        """The server's copy, as far as we know, is now this one."""
        self.base, self.base_digest = base, digest
        self.save()

    def as_row(self) -> ContentRow:
        return ContentRow(
            id=self.id,
            ino=self.ino,
            path=self.path,
            generation=self.generation,
            size=self.size_bytes,
            base_size=self.base_size,
            present=None if self.complete else self.present.to_bytes(),
            base=self.base,
            written=self.life.written,
            sent=self.life.sent,
            acked=self.life.acked,
            unknown=self.life.unknown,
            attempts=self.attempts,
            error=self.error,
            unanswered=self.unanswered.to_bytes(),
            own=None if self.complete else self.own.to_bytes(),
            source=self.source,
            base_digest=self.base_digest,
            revision=self.revision,
        )


def _is_in_memory(fd: int, offset: int, size: int) -> bool:
    """Whether reading this probably needs no disk: its first and its last page are cached."""
    byte = bytearray(1)
    try:
        return all(os.preadv(fd, [byte], at, os.RWF_NOWAIT) for at in (offset, offset + size - 1))
    except OSError:  # EAGAIN; EOPNOTSUPP where the file system cannot tell
        return False


def new_digest(data: bytes = b"") -> hashlib.blake2b:
    """Tells whether two bodies are the same; never shown."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES)


def path_bytes(path: DavPath) -> bytes:
    """How a path stands in the index: segments joined by NUL, which no name can hold."""
    return b"\0".join(os.fsencode(part) for part in path.parts)


def path_from_bytes(raw: bytes) -> DavPath:
    """Raises BadName on bytes that `path_bytes` cannot have written."""
    path = DavPath()
    for part in raw.split(b"\0") if raw else ():
        path = path.child(os.fsdecode(part))
    return path
