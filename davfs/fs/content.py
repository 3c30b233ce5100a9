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

import errno
import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from davfs.dav.resource import DavPath, Validator
from davfs.errors import PosixError
from davfs.fs.index import ContentRow, Index
from davfs.fs.lifecycle import Life
from davfs.fs.ranges import RangeSet

INLINE_READ_MAX: Final = 256 * 1024  # a page-cached pread of this size takes less than a thread hop (130 us)
FORK_MAX: Final = 32 << 20  # a file larger than this is not copied for a write during its upload
FILE_SIZE_MAX: Final = 1 << 43  # 8 TiB: beyond it is EFBIG at once
_FICLONE: Final = 0x40049409


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
        self.life = Life(row.written, row.sent, row.acked, row.unknown)
        self.attempts = row.attempts
        self.error = row.error
        self.present = RangeSet.whole(row.size) if row.present is None else RangeSet.from_bytes(row.present)
        self.fd = -1
        self.users = 0  # handles, transfers
        self.readers = 0  # uploads that read the file now
        self.progress = trio.lowlevel.ParkingLot()  # woken whenever bytes arrive, or a transfer ends
        self.orphan = False  # unlinked or replaced: lives only as long as it is open
        self.disk_bytes = 0  # as last saved in the index

    @property
    def dirty(self) -> bool:
        return self.life.dirty and not self.orphan

    @property
    def complete(self) -> bool:
        return self.present.covers(0, self.size_bytes)

    @property
    def mtime_ns(self) -> int:
        return os.fstat(self.fd).st_mtime_ns

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
        return await trio.to_thread.run_sync(os.pread, self.fd, size, offset)

    def fill(self, offset: int, data: bytes) -> None:
        """Downloaded bytes: they go only where nothing is present yet."""
        view = memoryview(data)
        for start, end in self.present.missing(offset, min(offset + len(data), self.base_size)):
            self._store.pwrite(self.fd, view[start - offset : end - offset], start)
            self.present.add(start, end)
        self.progress.unpark_all()

    def append_downloaded(self, data: bytes) -> None:
        """Downloaded bytes of a file whose size nobody knew."""
        self._store.pwrite(self.fd, data, self.size_bytes)
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
        was_complete = self.complete
        self._store.pwrite(self.fd, data, offset)
        if offset > self.size_bytes:
            self.present.add(self.size_bytes, offset)  # a hole
        self.present.add(offset, end)
        self.size_bytes = max(self.size_bytes, end)
        if not first:
            self.life = self.life.wrote()
        if not was_complete:
            self.save()
        return len(data)

    def truncate(self, size: int) -> None:
        """Cut or extend. `prepare_write` must have run, without an await since."""
        if size > FILE_SIZE_MAX:
            raise PosixError(errno.EFBIG)
        was_complete = self.complete
        self.mark_written()
        os.ftruncate(self.fd, size)
        if size < self.size_bytes:
            # What was cut off reads as zeros if the file grows again; it must not be fetched.
            self.present.add(size, max(self.size_bytes, self.base_size))
        else:
            self.present.add(self.size_bytes, size)
        self.size_bytes = size
        if not was_complete:
            self.save()

    def mark_written(self) -> None:
        """Count a change; the first one since the last acknowledgement commits the journal row."""
        was_dirty = self.life.dirty
        self.life = self.life.wrote()
        if not was_dirty:
            self.attempts, self.error = 0, None
            self.save()

    def set_mtime(self, mtime_ns: int) -> None:
        os.utime(self.fd, ns=(mtime_ns, mtime_ns))

    async def prepare_write(self) -> None:
        """Make the file on disk safe to change: an upload that reads it keeps the old bytes.

        A file of more than 32 MiB is not copied: then whoever uploads is told to stop (`on_write`).
        """
        while self.readers and not self._fork():
            self._store.stop_upload(self)
            await self.progress.park()

    def _fork(self) -> bool:
        if self.size_bytes > FORK_MAX:
            return False
        source = self.fd
        target = self._store.create_file(self.id, self.generation + 1)
        status = os.fstat(source)
        _copy(source, target, self.size_bytes)
        os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))
        old = self._store.file_name(self.id, self.generation)
        self.fd, self.generation = target, self.generation + 1
        self.readers = 0
        self.save()
        os.close(source)  # uploads have their own descriptor
        os.unlink(old)
        return True

    # --- life

    def save(self) -> None:
        """Commit the row."""
        self._store.save(self)

    def rebase(self, base: Validator | None) -> None:
        """The server's copy, as far as we know, is now this one."""
        self.base = base
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
        )


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
        self.bytes_on_disk = index.bytes_on_disk()
        self.stop_upload: Callable[[Content], None] = lambda _content: None
        self._remove_strays()

    # --- making and finding

    def create(self, ino: int, path: DavPath, *, size: int, base: Validator | None) -> Content:
        """A new version. With a base, nothing is present yet; without, it is an empty new file."""
        raw = path_bytes(path)
        content_id = self.index.new_content(ino, raw, size, size if base is not None else 0, base)
        present = b"" if base is not None and size else None
        base_size = size if base is not None else 0
        row = ContentRow(content_id, ino, raw, 0, size, base_size, present, base)
        content = Content(self, row)
        content.fd = self.create_file(content_id, 0)
        self._live[content_id] = content
        if size:
            os.ftruncate(content.fd, size)
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
                continue
            size = os.fstat(content.fd).st_size
            if size > content.size_bytes:
                content.present.add(content.size_bytes, size)
            content.size_bytes = size
            found.append(content)
        return found

    def _load(self, row: ContentRow) -> Content | None:
        try:
            content = Content(self, row)
            content.fd = os.open(self.file_name(row.id, row.generation), os.O_RDWR | os.O_CLOEXEC)
        except (OSError, ValueError):
            # The file or the extents are gone: a clean row is only a lost cache entry.
            self.index.delete_content(row.id)
            return None
        content.disk_bytes = os.fstat(content.fd).st_blocks * 512
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
        elif not content.life.dirty and content.id in self._live:
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
        if content.users <= 0 and content.fd >= 0:
            name = self.file_name(content.id, content.generation)
            self._close(content)
            with suppress(FileNotFoundError):
                os.unlink(name)

    def _close(self, content: Content) -> None:
        self._live.pop(content.id, None)
        if content.fd >= 0:
            os.close(content.fd)
            content.fd = -1

    def save(self, content: Content) -> None:
        if content.orphan:
            return
        on_disk = os.fstat(content.fd).st_blocks * 512 if content.fd >= 0 else 0
        self.index.save(content.as_row(), bytes_on_disk=on_disk, now_s=self._now_s())
        self.bytes_on_disk += on_disk - content.disk_bytes
        content.disk_bytes = on_disk

    def close(self) -> None:
        for content in list(self._live.values()):
            if not content.orphan:
                self.save(content)
            self._close(content)

    # --- disk

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        """All of it, or PosixError(ENOSPC, EDQUOT, EIO) after clean versions were evicted."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            try:
                done += os.pwrite(fd, view[done:], offset + done)
            except OSError as error:
                if error.errno not in {errno.ENOSPC, errno.EDQUOT} or not self.evict(force=True):
                    raise PosixError(error.errno or errno.EIO, f"cache disk: {error.strerror}") from error

    def evict(self, *, force: bool = False) -> bool:
        """Remove clean versions that nobody uses, oldest first, to 90 % of the limit; `force`: one batch."""
        if self.bytes_on_disk <= self._limit and not force:
            return False
        removed = False
        for content_id, generation, size in self.index.oldest_clean(256):
            if content_id in self._live:
                continue
            self.index.delete_content(content_id)
            self.bytes_on_disk -= size
            with suppress(FileNotFoundError):
                os.unlink(self.file_name(content_id, generation))
            removed = True
            if not force and self.bytes_on_disk <= self._limit * 0.9:
                break
        return removed

    def file_name(self, content_id: int, generation: int) -> str:
        return os.path.join(self._data, f"{content_id & 0xFF:02x}", f"{content_id}.{generation}")

    def create_file(self, content_id: int, generation: int) -> int:
        name = self.file_name(content_id, generation)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            return os.open(name, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(name), mode=0o700, exist_ok=True)
            return os.open(name, flags, 0o600)
        except OSError as error:
            raise PosixError(error.errno or errno.EIO, f"cache disk: {error.strerror}") from error

    def _remove_strays(self) -> None:
        """Data files without a row: left by a crash between the two, never by acknowledged writes."""
        known = self.index.files_on_disk()
        for folder in os.scandir(self._data):
            for entry in os.scandir(folder.path):
                left, _, right = entry.name.partition(".")
                if not (left.isdigit() and right.isdigit() and (int(left), int(right)) in known):
                    os.unlink(entry.path)


def path_bytes(path: DavPath) -> bytes:
    """How a path stands in the index: segments joined by NUL, which no name can hold."""
    return b"\0".join(os.fsencode(part) for part in path.parts)


def path_from_bytes(raw: bytes) -> DavPath:
    """Raises BadName on bytes that `path_bytes` cannot have written."""
    path = DavPath()
    for part in raw.split(b"\0") if raw else ():
        path = path.child(os.fsdecode(part))
    return path
