"""The cache folder: the contents in it, the index, and what is evicted when it is full.

Invariants:
- A dirty content is never evicted. When there is more of them than the limit of the cache, they exceed it,
  and nothing else is kept.
- What is not on the server is in the index and in a record at its file (`record`): either can be lost.
- A write is refused before it is accepted: what the index needs to go on is put by (`database`).
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from davfs.dav.hrefs import shown
from davfs.dav.resource import DavPath, Validator
from davfs.errors import CacheFull, PosixError
from davfs.fs.content import FILE_SIZE_MAX, Content, path_bytes, path_from_bytes
from davfs.fs.disk import CacheDisk, Descriptors, disk_error
from davfs.fs.growth import Growth, growth
from davfs.fs.index import ContentRow, Index
from davfs.fs.newcomers import Newcomers
from davfs.fs.outdated import Outdated
from davfs.fs.ranges import RangeSet
from davfs.fs.record import encode
from davfs.fs.salvage import Salvage

log = logging.getLogger("davfs.content")

ROOM_TRIES: Final = 4
DROP_MIN: Final = 1 << 20  # less is not worth fetching again
USED_S: Final = 10.0  # when a version was last used is noted to this


class ContentStore:
    """The cache folder: data files, the index, eviction."""

    def __init__(
        self, index: Index, *, size_limit_bytes: int, now_s: Callable[[], float] = time.time
    ) -> None:
        self.index = index
        self.disk = CacheDisk(index.folder)
        self._limit = size_limit_bytes
        self._now_s = now_s
        self._live: dict[int, Content] = {}
        self._doomed: list[str] | None = None  # files to remove when the transaction is over
        self._unrecorded: dict[int, Content] = {}  # whose records are to be made then
        self._descriptors = Descriptors()
        self.newcomers = Newcomers(self._add_rows)
        self.outdated = Outdated(self.disk)
        self.growth = Growth()
        self.stop_upload: Callable[[Content], None] = lambda _content: None
        self.bytes_on_disk = Salvage(index, self.disk, now_s=now_s()).run()
        self.recovered = self.disk.recovered()
        if not self.disk.records_complete:
            self._record_all()
        index.note_open()

    # --- making and finding

    def create(self, ino: int, path: DavPath, *, size: int, base: Validator | None) -> Content:
        """A version of the server's; without a base, an empty one that nobody has written to yet."""
        if size > FILE_SIZE_MAX:
            raise PosixError(errno.EFBIG, f"{shown(path)}: the server says it has {size} bytes")
        if base is None:
            self.admit()
        raw, content_id = path_bytes(path), self.index.take_id()
        present = b"" if base is not None and size else None
        base_size = size if base is not None else 0
        row = ContentRow(content_id, ino, raw, 0, size, base_size, present, base, source=base)
        content = Content(self, row)
        content.has_row = False
        fd = self.disk.create(content_id, 0)
        try:
            if size:
                os.ftruncate(fd, size)
        except OSError as error:
            os.close(fd)
            raise disk_error(error) from error
        self._descriptors.keep(content, fd)
        self._live[content_id] = content
        self.newcomers.came(content)
        return content

    def create_unsent(self, ino: int, path: DavPath, *, base: Validator | None, mode: int | None) -> Content:
        """An empty file that a program makes: it counts as written from the start, in one commit.

        `base`: the empty file that a LOCK had to make on the server. `mode`: what is to be recorded.
        """
        self.admit()
        raw, content_id = path_bytes(path), self.index.take_id()
        row = ContentRow(content_id, ino, raw, 0, 0, 0, None, base, written=1, source=base, revision=1)
        content = Content(self, row)
        fd = self.disk.create(content_id, 0)
        try:
            self.disk.write_record(content_id, 0, encode(row, mode))
            self._with_room(lambda: self.index.add(row, now_s=self._now_s()))
        except PosixError:
            os.close(fd)
            self.disk.remove(self.disk.file_name(content_id, 0))
            raise
        self._descriptors.keep(content, fd)
        content.recorded, content.mode, content.made_here = True, mode, base is None
        self._noted(content, row, self._now_s())
        self._live[content_id] = content
        self.newcomers.replaced(ino)
        return content

    def cached(self, ino: int) -> Content | None:
        """The version that is kept for this inode, opened; None when there is none (any more)."""
        newest = self.newcomers.of(ino)
        if newest is not None and not newest.closed:
            return newest
        if newest is not None:
            self.newcomers.settle()
        row = self.index.content_of(ino)
        if row is None:
            return None
        live = self._live.get(row.id)
        if live is not None and live.orphan:
            return None
        return live if live is not None else self._load(row)

    def same_size(self, content: Content) -> Iterator[Content]:
        """Other versions of its size, not all of them clean; each is acquired for the caller."""
        seen = {content.id}
        for other in list(self._live.values()):
            seen.add(other.id)
            if other is not content and other.size_bytes == content.size_bytes and not other.closed:
                self.acquire(other)
                yield other
        self.newcomers.settle()
        for row in self.index.clean_of_size(content.size_bytes):
            if row.id not in seen:
                loaded = self._live.get(row.id) or self._load(row)
                if loaded is not None:
                    self.acquire(loaded)
                    yield loaded

    def is_read(self, size_bytes: int) -> bool:
        """Whether a program has a version of at least this size open that is the server's."""
        return any(
            one.users and one.size_bytes >= size_bytes and not one.life.dirty for one in self._live.values()
        )

    def unfinished(self) -> list[Content]:
        """What the last run did not get to the server, opened, with size and mtime from the disk."""
        found = []
        for row in self.index.unfinished():
            content = self._live.get(row.id) or self._load(row)
            if content is None:
                log.error("%s was not sent, and its cached bytes are gone", shown(path_from_bytes(row.path)))
                continue
            self._believe_size(content)
            if content.life.unknown:
                # The counters of the row are those of the PUT; what was written after it is only in the file.
                content.note_unanswered()
                content.life = content.life.wrote()
            self.count_growth(content)
            found.append(content)
        return found

    def _believe_size(self, content: Content) -> None:
        """The size of the file is the size, unless a power loss took the end of one that can be fetched."""
        size = self.status(content).st_size
        if self.index.lost_power and size < content.size_bytes and not content.complete:
            os.ftruncate(content.fd, content.size_bytes)
            content.present.remove(size, content.size_bytes)
            return
        if size > content.size_bytes:
            content.present.add(content.size_bytes, size)
        content.size_bytes = size

    def _load(self, row: ContentRow) -> Content | None:
        try:
            content = Content(self, row)
            content.disk_bytes = self.status(content).st_blocks * 512
            if content.life.dirty:
                content.recorded, content.mode = True, self._kept_mode(content)
            else:
                content.saved, content.used_s = row, row.used_s
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
        if content.dirty:
            self._measure(content)
            self.evict()
        if content.users > 0:
            return
        if content.orphan or ((content.young or content.successor) and not content.life.dirty):
            self.discard(content)  # read too soon after a change to be believed again
        elif not content.life.dirty and not content.closed:
            if not content.has_row:
                self._measure(content)
            elif self._is_news(content):
                with suppress(PosixError):  # a full disk: the row says less than there is, never more
                    self.save(content)
            self._close(content)
            if not content.has_row:
                self.newcomers.closed(content)
            self.evict()

    def _is_news(self, content: Content) -> bool:
        """Whether the index knows less than is to be known of it."""
        return content.saved != content.as_row() or self._now_s() - content.used_s >= USED_S

    def discard(self, content: Content) -> None:
        """Forget this version: its row now, its bytes when the last user lets go."""
        if not content.orphan:
            # First: a record without a row says that the row was lost.
            if self.outdated.take_back(content.id) or content.recorded:
                self._remove_record(content)
            content.orphan = True
            self.count_growth(content)
            self.newcomers.left(content)
            try:
                if content.has_row:
                    self.index.delete_content(content.id)
            except PosixError as error:  # its file goes all the same: then the row is of nothing
                log.warning(
                    "%s is forgotten, and still in the index: %s", shown(path_from_bytes(content.path)), error
                )
            self.bytes_on_disk -= content.disk_bytes
        content.progress.unpark_all()
        if content.users <= 0 and not content.closed:
            self._close(content)
            self._remove_file(self.disk.file_name(content.id, content.generation))

    @contextmanager
    def atomically(self) -> Iterator[None]:
        """Rows that belong together change all or not at all, also at kill -9; files go after their rows."""
        if self._doomed is not None:
            yield
            return
        self.index.begin()
        self._doomed = []
        try:
            yield
        finally:
            doomed, self._doomed = self._doomed, None
            unrecorded, self._unrecorded = self._unrecorded, {}
            try:
                # What is done in memory is done: half of it is better than none.
                self._with_room(self.index.commit)
            finally:
                self.index.give_up()
                for name in doomed:
                    self.disk.remove(name)
                for content in unrecorded.values():
                    if content.recorded and not content.orphan:
                        with suppress(PosixError):  # a full disk: the row is newer, and counts
                            self._record(content, content.as_row())

    def _remove_file(self, name: str) -> None:
        if self._doomed is not None:
            self._doomed.append(name)
        else:
            self.disk.remove(name)

    def _close(self, content: Content) -> None:
        self._live.pop(content.id, None)
        self._descriptors.forget(content.id)
        content.park()
        content.closed = True

    def save(self, content: Content) -> None:
        if content.orphan:
            return
        content.revision += 1
        recorded = content.recorded
        try:
            self._with_room(lambda: self._commit(content))
        except PosixError:
            if not recorded:
                self._remove_record(content)
            raise
        if not content.life.dirty:
            self._forget_record(content)
            content.own = RangeSet()
        self._measure(content)
        self.count_growth(content)

    def _measure(self, content: Content) -> None:
        with suppress(FileNotFoundError):
            on_disk = self.status(content).st_blocks * 512
            self.bytes_on_disk += on_disk - content.disk_bytes
            content.disk_bytes = on_disk

    def count_growth(self, content: Content) -> None:
        """How much larger the server's files become by what is unsent."""
        grown = growth(content.size_bytes, content.base)
        self.growth.note(content.counted, content.life, grown=grown, gone=content.orphan)

    def _commit(self, content: Content) -> None:
        """The record first: what the index does not say is then taken from it."""
        row = content.as_row()
        if content.life.dirty:
            self._record(content, row)
        now_s = self._now_s()
        is_same = content.saved is not None and content.saved.ino == row.ino
        used_s = None if is_same and now_s - content.used_s < USED_S else now_s
        if not (content.has_row and self.index.save(row, used_s=used_s)):
            self.index.add(row, now_s=now_s)
            content.has_row = True
            self.newcomers.left(content)
        self._noted(content, row, now_s)

    def _add_rows(self, closed: Sequence[Content]) -> None:
        """Of clean versions, in one commit. Where there is no room for it they go instead."""
        try:
            with self.atomically():
                for content in closed:
                    self._with_room(functools.partial(self._commit, content))
        except PosixError as error:
            log.info("cached versions are dropped: %s", error)
            for content in closed:
                self.bytes_on_disk -= content.disk_bytes
                self._remove_file(self.disk.file_name(content.id, content.generation))

    def _noted(self, content: Content, row: ContentRow, now_s: float) -> None:
        """The index has this row."""
        if content.saved is None or content.saved.ino != row.ino or now_s - content.used_s >= USED_S:
            content.used_s = now_s
        content.saved = row

    def _with_room(self, commit: Callable[[], None]) -> None:
        """What can go goes, where that is what it takes."""
        try:
            commit()
        except PosixError as error:
            if error.errno != errno.ENOSPC or not self.evict(force=True):
                raise
            commit()

    def _record(self, content: Content, row: ContentRow) -> None:
        if not content.recorded:
            content.mode = self._kept_mode(content)
        content.recorded = True
        self.outdated.take_back(content.id)
        if self._doomed is not None:  # a record that is newer than its row is believed: not before the COMMIT
            self._unrecorded[content.id] = content
            return
        self.disk.write_record(content.id, content.generation, encode(row, content.mode))

    def _kept_mode(self, content: Content) -> int | None:
        kept = self.index.locals_of(content.ino)
        return kept.mode if kept is not None else None

    def _remove_record(self, content: Content) -> None:
        self.disk.remove_record(content.id, content.generation)
        content.recorded = False

    def _forget_record(self, content: Content) -> None:
        """It is sent: its row says so, and counts for more."""
        if content.recorded:
            self.outdated.note(content.id, content.generation)
            content.recorded = False

    def keep_mode(self, content: Content, mode: int) -> None:
        """What a program set goes with the unsent file."""
        if content.recorded and content.mode == mode:
            return
        content.mode = mode
        if content.recorded and not content.orphan:
            self._record(content, content.as_row())

    def _record_all(self) -> None:
        """An older davfs made no records: what it left unsent gets them now."""
        for row in self.index.unfinished():
            content = self._load(row)
            if content is not None:
                content.recorded = False
                self._record(content, row)
        self.disk.note_records_complete()

    def close(self) -> None:
        self.newcomers.settle()
        for content in list(self._live.values()):
            with suppress(PosixError):  # a full disk: the row says less than there is, never more
                self.save(content)
            self._close(content)
        self.outdated.remove_all()
        with suppress(PosixError, OSError):
            self.disk.flush()
            self.index.note_closed()

    # --- disk

    def admit(self) -> None:
        """Before a change is accepted: what the index has put by must be there, or be got back.

        Else the acknowledgement of what is being sent could not be noted. Raises CacheFull.
        """
        for _ in range(ROOM_TRIES):
            if not self.index.reserve_spent or self.index.restore_reserve():
                return
            if not self._make_room():
                break
        raise CacheFull(errno.ENOSPC, "cache disk: full of what is not on the server yet")

    def pwrite(self, content: Content, data: bytes | memoryview, offset: int) -> None:
        """All of it, or PosixError(ENOSPC, EDQUOT, EIO) after everything that can go has gone."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            try:
                done += os.pwrite(content.fd, view[done:], offset + done)
            except OSError as error:
                if error.errno not in {errno.ENOSPC, errno.EDQUOT} or not self._make_room():
                    raise disk_error(error) from error

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
        self.newcomers.settle()
        removed = False
        try:
            oldest = self.index.oldest_clean(256 + len(self._live))
        except PosixError as error:
            log.info("nothing is evicted: %s", error)
            return False
        for content_id, generation in oldest:
            if content_id in self._live:
                continue
            # The file first: on a full disk SQLite has no room for the DELETE. A clean row without its file
            # is only a lost cache entry.
            name = self.disk.file_name(content_id, generation)
            with suppress(FileNotFoundError):
                self.bytes_on_disk -= os.stat(name).st_blocks * 512
                os.unlink(name)
                removed = True
            with suppress(PosixError):
                self.index.delete_content(content_id)
                removed = True  # neither: the disk is full and only the row is left, which frees nothing
            if not force and self.bytes_on_disk <= self._limit * 0.9:
                break
        return removed

    def open_file(self, content: Content) -> int:
        """A descriptor for a content that has none."""
        return self._descriptors.open(content, self.disk.file_name(content.id, content.generation))

    def status(self, content: Content) -> os.stat_result:
        """stat(2) of its file, without taking a descriptor. Raises FileNotFoundError."""
        if content.is_open:
            return os.fstat(content.fd)
        return os.stat(self.disk.file_name(content.id, content.generation))
