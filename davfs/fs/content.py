"""File contents on the cache disk: one sparse file for each version of each resource.

A `Content` is one version of one file: its bytes (a sparse file), which of them are present, the
version of the server's copy they came from, and its life (what is written, sent, acknowledged). The
`ContentStore` owns the folder and the index. It never talks to the server.

Invariants:
- A dirty content's row is committed before the call that made it dirty returns.
- Bytes that a program wrote are never overwritten by downloaded ones (`fill` writes into gaps only).
- While an upload reads the file, it does not change: a write first forks it (`prepare_write`).
- A dirty content is never evicted.
- The size and mtime of dirty bytes are those of the file on disk, so both survive `kill -9`
  without an index commit for each write.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import logging
import os
import resource
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import trio

from davfs.dav.hrefs import shown
from davfs.dav.resource import DavPath, Validator
from davfs.errors import PosixError
from davfs.fs.index import ContentRow, Index
from davfs.fs.lifecycle import DIGEST_BYTES, Life, Unanswered
from davfs.fs.ranges import RangeSet

log = logging.getLogger("davfs.content")

INLINE_READ_MAX: Final = 256 * 1024  # a page-cached pread of this size takes less than a thread hop (130 us)
FORK_MAX: Final = 32 << 20  # a file larger than this is not copied for a write during its upload
FILE_SIZE_MAX: Final = 1 << 43  # 8 TiB: beyond it is EFBIG at once
DROP_MIN: Final = 1 << 20  # less is not worth fetching again
_FICLONE: Final = 0x40049409
_PUNCH_HOLE: Final = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE; Python has no call for it
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Content:
    """One version of one file. Made and dropped by ContentStore only."""

    def __init__(self, store: ContentStore, row: ContentRow) -> None:
        self._store = store
        self.id = row.id
        self.ino = row.ino
        self.path = row.path
        self.generation = row.generation
        self.size_bytes = row.size
        self.base_size = row.base_size  # bytes that could come from the server
        self.base = row.base
        self.base_digest: bytes | None = None
        self.life = Life(row.written, row.sent, row.acked, row.unknown)
        self.attempts = row.attempts
        self.error = row.error
        self.unanswered = Unanswered.from_bytes(row.unanswered)
        self.present = RangeSet.whole(row.size) if row.present is None else RangeSet.from_bytes(row.present)
        self.closed = False
        self._fd = -1
        self._in_threads = 0
        self._saved_complete = row.present is None
        self.users = 0  # handles, transfers
        self.held = 0  # operations that need all of it to stay
        self.readers = 0  # uploads that read the file now
        self.progress = trio.lowlevel.ParkingLot()  # woken whenever bytes arrive, or a transfer ends
        self.orphan = False  # unlinked or replaced: lives only as long as it is open
        self.disk_bytes = 0  # as last counted by the store

    @property
    def dirty(self) -> bool:
        return self.life.dirty and not self.orphan

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
        if size <= INLINE_READ_MAX:
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
        self.progress.unpark_all()

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
        return gone > 0 and _punch(self.fd, extents[0][0], self._first_present(extents[-1][1]))

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
            self.present.add(self.size_bytes, offset)  # a hole
        self.present.add(offset, end)
        self.size_bytes = max(self.size_bytes, end)
        if not first:
            self.life = self.life.wrote()
        self._save_extents()
        return len(data)

    def truncate(self, size: int) -> None:
        """Cut or extend. `prepare_write` must have run, without an await since."""
        if size > FILE_SIZE_MAX:
            raise PosixError(errno.EFBIG)
        self.mark_written()
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            raise PosixError(error.errno or errno.EIO, f"cache disk: {error.strerror}") from error
        if size < self.size_bytes:
            # What was cut off reads as zeros if the file grows again; it must not be fetched.
            self.present.add(size, max(self.size_bytes, self.base_size))
        else:
            self.present.add(self.size_bytes, size)
        self.size_bytes = size
        self._save_extents()

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
        while self.readers and not self._fork():
            self._store.stop_upload(self)
            await self.progress.park()

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
        old, new = (self._store.file_name(self.id, self.generation + more) for more in (0, 1))
        target = self._store.create_file(self.id, self.generation + 1)
        try:
            mtime_ns = os.fstat(source).st_mtime_ns
            _copy(source, target, self.size_bytes)
            os.utime(target, ns=(mtime_ns, mtime_ns))
            self.generation += 1
            self.save()
        except (OSError, PosixError) as error:
            self.generation = int(old.rpartition(".")[2])
            os.close(target)
            os.unlink(new)
            raise PosixError(error.errno or errno.EIO, f"cache disk: {error}") from error
        self._fd, self.readers = target, 0
        os.close(source)  # uploads have their own descriptor
        os.unlink(old)
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
        )


def _punch(fd: int, start: int, end: int) -> bool:
    """Free the disk space of [start, end); False where the file system cannot."""
    length = end - start
    return length > 0 and _libc.fallocate(fd, _PUNCH_HOLE, ctypes.c_int64(start), ctypes.c_int64(length)) == 0


def _copy(source: int, target: int, size: int) -> None:
    with suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        return
    done = 0
    while done < size:
        copied = os.copy_file_range(source, target, size - done, done, done)
        if copied == 0:
            break
        done += copied
    os.ftruncate(target, size)


class ContentStore:
    """The cache folder: data files, the index, eviction."""

    def __init__(
        self, index: Index, *, size_limit_bytes: int, now_s: Callable[[], float] = time.time
    ) -> None:
        self.index = index
        self._data = os.path.join(index.folder, "data")
        os.makedirs(self._data, mode=0o700, exist_ok=True)
        self._limit = size_limit_bytes
        self._now_s = now_s
        self._live: dict[int, Content] = {}
        self._open: OrderedDict[int, Content] = OrderedDict()  # descriptors, least recently opened first
        self._open_max = _descriptors()
        self.bytes_on_disk = 0
        self.stop_upload: Callable[[Content], None] = lambda _content: None
        if index.lost_power:
            log.warning("the machine went down while %s was in use: clean contents are dropped", index.folder)
        self._remove_strays()

    # --- making and finding

    def create(self, ino: int, path: DavPath, *, size: int, base: Validator | None) -> Content:
        """A new version. With a base, nothing is present yet; without, it is an empty new file."""
        if size > FILE_SIZE_MAX:
            raise PosixError(errno.EFBIG, f"{shown(path)}: the server says it has {size} bytes")
        raw = path_bytes(path)
        content_id = self.index.new_content(ino, raw, size, base)
        present = b"" if base is not None and size else None
        base_size = size if base is not None else 0
        content = Content(self, ContentRow(content_id, ino, raw, 0, size, base_size, present, base))
        fd = self.create_file(content_id, 0)
        try:
            os.ftruncate(fd, size)
        except OSError as error:
            raise PosixError(error.errno or errno.EIO, f"cache disk: {error.strerror}") from error
        finally:
            os.close(fd)
        self._live[content_id] = content
        return content

    def cached(self, ino: int) -> Content | None:
        """The version that is kept for this inode, opened; None when there is none (any more)."""
        row = self.index.content_of(ino)
        if row is None:
            return None
        live = self._live.get(row.id)
        return live if live is not None else self._load(row)

    def unfinished(self) -> list[Content]:
        """What the last run did not get to the server, opened, with size and mtime from the disk."""
        found = []
        for row in self.index.unfinished():
            content = self._live.get(row.id) or self._load(row)
            if content is None:
                log.error("%s was not sent, and its cached bytes are gone", shown(path_from_bytes(row.path)))
                continue
            size = self.status(content).st_size
            if size > content.size_bytes:
                content.present.add(content.size_bytes, size)
            content.size_bytes = size
            if content.life.unknown:
                # The counters of the row are those of the PUT; what was written after it is only in the file.
                content.note_unanswered()
                content.life = content.life.wrote()
            found.append(content)
        return found

    def _load(self, row: ContentRow) -> Content | None:
        try:
            content = Content(self, row)
            content.disk_bytes = self.status(content).st_blocks * 512
        except (FileNotFoundError, ValueError):
            # The file or its extents are gone. A clean row is only a lost cache entry.
            if row.written <= row.acked and not row.unknown:
                self.index.delete_content(row.id)
            return None
        self._live[row.id] = content
        return content

    # --- use

    def acquire(self, content: Content) -> None:
        content.users += 1

    def release(self, content: Content) -> None:
        """The last user of a clean version closes its file; of an unlinked one, removes it."""
        content.users -= 1
        if content.users > 0:
            return
        if content.orphan:
            self.discard(content)
        elif not content.life.dirty and not content.closed:
            self.save(content)
            self._close(content)
            self.evict()

    def discard(self, content: Content) -> None:
        """Forget this version: its row now, its bytes when the last user lets go."""
        if not content.orphan:
            content.orphan = True
            self.index.delete_content(content.id)
            self.bytes_on_disk -= content.disk_bytes
        content.progress.unpark_all()
        if content.users <= 0 and not content.closed:
            self._close(content)
            with suppress(FileNotFoundError):
                os.unlink(self.file_name(content.id, content.generation))

    def _close(self, content: Content) -> None:
        self._live.pop(content.id, None)
        self._open.pop(content.id, None)
        content.park()
        content.closed = True

    def save(self, content: Content) -> None:
        if content.orphan:
            return
        on_disk = content.disk_bytes
        with suppress(FileNotFoundError):
            on_disk = self.status(content).st_blocks * 512
        try:
            self.index.save(content.as_row(), now_s=self._now_s())
        except PosixError as error:
            if error.errno != errno.ENOSPC or not self.evict(force=True):
                raise
            self.index.save(content.as_row(), now_s=self._now_s())
        self.bytes_on_disk += on_disk - content.disk_bytes
        content.disk_bytes = on_disk

    def close(self) -> None:
        for content in list(self._live.values()):
            with suppress(PosixError):  # a full disk: the row says less than there is, never more
                self.save(content)
            self._close(content)
        with suppress(PosixError, OSError):
            self._flush_disk()
            self.index.note_closed()

    def _flush_disk(self) -> None:
        """fsync(2) of every file would take one call each: syncfs(2) takes one."""
        fd = os.open(self._data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _libc.syncfs(fd) != 0:
                raise OSError(ctypes.get_errno(), "syncfs")
        finally:
            os.close(fd)

    # --- disk

    def pwrite(self, content: Content, data: bytes | memoryview, offset: int) -> None:
        """All of it, or PosixError(ENOSPC, EDQUOT, EIO) after everything that can go has gone."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            try:
                done += os.pwrite(content.fd, view[done:], offset + done)
            except OSError as error:
                if error.errno not in {errno.ENOSPC, errno.EDQUOT} or not self._make_room():
                    raise PosixError(error.errno or errno.EIO, f"cache disk: {error.strerror}") from error

    def count_filled(self, content: Content, size: int) -> None:
        """Keep to the limit while a file is being read, also one that is larger than the limit."""
        content.disk_bytes += size
        self.bytes_on_disk += size
        if self.bytes_on_disk > self._limit and not self.evict():
            self._make_room()

    def _make_room(self) -> bool:
        """Evict what nobody uses; else half of the largest version that can be fetched again."""
        if self.evict(force=True):
            return True
        largest = max(
            (content for content in self._live.values() if content.droppable),
            key=lambda content: content.disk_bytes,
            default=None,
        )
        return largest is not None and largest.disk_bytes > DROP_MIN and largest.drop_lower_half()

    def evict(self, *, force: bool = False) -> bool:
        """Remove clean versions that nobody uses, oldest first, to 90 % of the limit; `force`: one batch."""
        if self.bytes_on_disk <= self._limit and not force:
            return False
        removed = False
        for content_id, generation in self.index.oldest_clean(256 + len(self._live)):
            if content_id in self._live:
                continue
            # The file first: on a full disk SQLite has no room for the DELETE. A clean row without its file
            # is only a lost cache entry.
            name = self.file_name(content_id, generation)
            with suppress(FileNotFoundError):
                self.bytes_on_disk -= os.stat(name).st_blocks * 512
                os.unlink(name)
            with suppress(PosixError):
                self.index.delete_content(content_id)
            removed = True
            if not force and self.bytes_on_disk <= self._limit * 0.9:
                break
        return removed

    def open_file(self, content: Content) -> int:
        """A descriptor for a content that has none; the least recently opened ones are closed for it."""
        while len(self._open) >= self._open_max:
            oldest = next((other for other in self._open.values() if other.parkable), None)
            if oldest is None:
                break
            del self._open[oldest.id]
            oldest.park()
        try:
            fd = os.open(self.file_name(content.id, content.generation), os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise PosixError(errno.EIO, f"cache disk: {error.strerror}") from error
        self._open[content.id] = content
        return fd

    def status(self, content: Content) -> os.stat_result:
        """stat(2) of its file, without taking a descriptor. Raises FileNotFoundError."""
        return os.stat(self.file_name(content.id, content.generation))

    def file_name(self, content_id: int, generation: int) -> str:
        return os.path.join(self._data, f"{content_id & 0xFF:02x}", f"{content_id}.{generation}")

    def create_file(self, content_id: int, generation: int) -> int:
        name = self.file_name(content_id, generation)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            if not os.path.isdir(os.path.dirname(name)):
                os.makedirs(os.path.dirname(name), mode=0o700, exist_ok=True)
            return os.open(name, flags, 0o600)
        except OSError as error:
            raise PosixError(error.errno or errno.EIO, f"cache disk: {error.strerror}") from error

    def _remove_strays(self) -> None:
        """Data files without a row: left by a crash between the two, never by acknowledged writes."""
        known = self.index.files_on_disk()
        for folder, _, names in os.walk(self._data):
            for name in names:
                path = os.path.join(folder, name)
                left, _, right = name.partition(".")
                if left.isdigit() and right.isdigit() and (int(left), int(right)) in known:
                    self.bytes_on_disk += os.stat(path).st_blocks * 512
                else:
                    os.unlink(path)


def new_digest(data: bytes = b"") -> hashlib.blake2b:
    """Tells whether two bodies are the same; never shown."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES)


def _descriptors() -> int:
    """How many cached files may be open at once: half of what this process may have at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(16, max(soft, wanted) // 2)


def path_bytes(path: DavPath) -> bytes:
    """How a path stands in the index: segments joined by NUL, which no name can hold."""
    return b"\0".join(os.fsencode(part) for part in path.parts)


def path_from_bytes(raw: bytes) -> DavPath:
    """Raises BadName on bytes that `path_bytes` cannot have written."""
    path = DavPath()
    for part in raw.split(b"\0") if raw else ():
        path = path.child(os.fsdecode(part))
    return path
