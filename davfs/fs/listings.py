"""What was known of the share, on disk: one row of the index for each folder, for the next mount.

Rows are written in the background, seconds after something was learned, and never on the path of an answer;
they are read when a folder is asked for of which this run knows nothing. A row carries when its listing was
asked for, on two clocks, and comes back as old as it is (docs/adr/0018): `Metadata` believes it within its
time-outs, and asks before it believes it later, as long as anybody can be asked.

Nothing is believed of a run that did not end well, or in another boot of the machine, or that comes from the
future on either clock: then all is as old as can be, as are rows that could not be brought up to date.

A row is a header and the members in chunks, as lines of JSON in zlib: 100,000 members are encoded in slices
of some milliseconds, with everything else running in between. What cannot be read (damaged, or of another
version) is as if it were not there. The oldest rows go when all are together more than `BYTES_MAX`.
"""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import trio

from davfs.dav.resource import DavPath, ETag, Resource, checked_name
from davfs.errors import BadName, PosixError
from davfs.fs.content import path_from_bytes
from davfs.fs.index import Index, boot_id
from davfs.fs.inodes import InodeTable, Node
from davfs.fs.metadata import NEVER, Entry, Folder, Metadata

log = logging.getLogger("davfs.listings")

SAVE_EVERY_S: Final = 2.0
SLICE_S: Final = 0.002  # of saving, with everything else in between
REST_FACTOR: Final = 50  # a folder whose encoding took 0.2 s is not encoded again for 10 s
TOGETHER_MAX: Final = 64
BYTES_MAX: Final = 64 << 20  # some 3 million members
CHUNK: Final = 2_000
JOIN_MAX_BYTES: Final = 200_000  # some 10,000 members
_VERSION: Final = 2  # 1 has no times, and is read as old
_IS_FOLDER: Final = 1
_EXECUTABLE: Final = 2
_NOT_EXECUTABLE: Final = 4
_WEAK: Final = 8
_OLD: Final = 16  # older than the listing that it is in
_EXECUTABLE_KNOWN: Final = _EXECUTABLE | _NOT_EXECUTABLE

# `until_s`: nothing in the row is believed after that, by the wall's clock; NULL: not at all.
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS listings ("
    " ino INTEGER PRIMARY KEY, saved_s REAL NOT NULL, bytes INTEGER NOT NULL, members BLOB NOT NULL,"
    " until_s REAL)"
)
_ENDED: Final = "CREATE TABLE IF NOT EXISTS listings_ended (boot TEXT NOT NULL)"
_BY_AGE: Final = "CREATE INDEX IF NOT EXISTS listings_saved ON listings (saved_s, bytes)"


@dataclass(frozen=True, slots=True)
class Clocks:
    """A moment on the clock of this run, on the wall's, and since the machine was started."""

    now_s: float
    wall_s: float
    uptime_s: float

    def age_of(self, wall_s: float, uptime_s: float) -> float | None:
        """How old what was asked then is, by the clock that says more; None where one of them went back."""
        ages = self.wall_s - wall_s, self.uptime_s - uptime_s
        return max(ages) if min(ages) >= 0 else None


@dataclass(frozen=True, slots=True)
class Row:
    """What is written of a folder."""

    ino: int
    members: bytes
    until_s: float | None


class Listings:
    """Owns the tables `listings` and `listings_ended`."""

    def __init__(
        self,
        index: Index,
        *,
        wall_s: Callable[[], float],
        uptime_s: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        extras: Callable[[], frozenset[str]] = frozenset,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._index = index
        self._wall_s = wall_s
        self._uptime_s = uptime_s
        self._extras = extras  # what listings ask for beside what all ask for
        self._bytes_max = bytes_max
        for statement in (_TABLE, _BY_AGE, _ENDED):
            index.run(statement)
        if not index.rows("SELECT 1 FROM pragma_table_info('listings') WHERE name='until_s'"):
            index.run("ALTER TABLE listings ADD COLUMN until_s REAL")
        saved_s, self._bytes = index.run(
            "SELECT COALESCE(MAX(saved_s), 0), COALESCE(SUM(bytes), 0) FROM listings"
        ).fetchone()
        self._not_before: dict[int, float] = {}  # only of folders that are costly to encode
        self._is_whole = True  # nothing on disk is taken for newer than it is
        self._sent_later: dict[tuple[str, ...], dict[str, Resource]] = {}
        self.believable: set[int] = set()  # of neither old nor large rows, if this run knows nothing of them
        if self._ended_well():
            small = "SELECT ino FROM listings WHERE until_s > ? AND bytes <= ?"
            self.believable.update(ino for (ino,) in index.rows(small, (wall_s(), JOIN_MAX_BYTES)))
        elif self._bytes:
            index.run("UPDATE listings SET until_s=NULL WHERE until_s IS NOT NULL")
            self._sent_later = _sent_since(index, saved_s - 2 * SAVE_EVERY_S)

    def _ended_well(self) -> bool:
        """Whether the last run left everything in good order, and since the machine was started."""
        ended = self._index.rows("SELECT boot FROM listings_ended")
        self._index.run("DELETE FROM listings_ended")  # nothing is believed if this run is killed
        return not self._index.unclean and boot_id() != "" and ended == [(boot_id(),)]

    def recalled(self, node: Node, nodes: InodeTable) -> Folder | None:
        """The same as `load`, with what programs set and the server cannot store."""
        folder = self.load(node.ino, node.path)
        if folder is not None and (kept := self._index.locals_below(node.ino)):
            for name, entry in folder.entries.items():
                entry.kept = kept.get(nodes.number_of(node, name))
        return folder

    def load(self, ino: int, path: DavPath | None) -> Folder | None:
        """What was known of this folder, as old as it is. A damaged row is none."""
        try:
            row = self._index.run("SELECT members, until_s FROM listings WHERE ino=?", (ino,)).fetchone()
        except PosixError as error:
            log.warning("what was known of a folder cannot be read: %s", error)
            return None
        clocks = None if row is None or row[1] is None else self._clocks()
        folder = None if row is None else decoded(row[0], clocks, self._extras())
        if folder is not None and path is not None:
            for name, resource in self._sent_later.get(path.parts, {}).items():
                folder.entries[name] = Entry(resource, NEVER)
        return folder

    def _clocks(self) -> Clocks:
        return Clocks(trio.current_time(), self._wall_s(), self._uptime_s())

    async def run(self, meta: Metadata) -> None:
        """Saves what changed, every few seconds until cancelled."""
        while True:
            await trio.sleep(SAVE_EVERY_S)
            await self.save(meta)

    def end(self, meta: Metadata) -> None:
        """When nothing changes any more: what is left. After this the rows may be believed."""
        self._drop_forgotten(meta)
        rows: list[Row] = []
        for ino in list(meta.changed):
            folder = self._to_save(meta, ino)
            if folder is not None:
                rows.append(self._row_of(meta, ino, folder))
            if len(rows) >= TOGETHER_MAX:
                self._put_all(rows)
        self._put_all(rows)
        if self._is_whole and not meta.forgotten:
            with suppress(PosixError):
                self._index.run("INSERT INTO listings_ended VALUES (?)", (boot_id(),))

    async def save(self, meta: Metadata) -> None:
        """What changed since the last time, in slices of some milliseconds, each of them one commit."""
        self._drop_forgotten(meta)
        rows: list[Row] = []
        begun_s = time.perf_counter()
        for ino in list(meta.changed):
            if self._not_before.get(ino, 0.0) > trio.current_time():
                continue
            folder = self._to_save(meta, ino)
            if folder is None:
                continue
            if len(folder.entries) <= CHUNK:
                rows.append(self._row_of(meta, ino, folder))
            else:
                self._put_all(rows)
                await self._save_large(meta, ino, folder)
            if time.perf_counter() - begun_s > SLICE_S:
                self._put_all(rows)
                await trio.lowlevel.checkpoint()
                begun_s = time.perf_counter()
        self._put_all(rows)

    async def _save_large(self, meta: Metadata, ino: int, folder: Folder) -> None:
        try:
            pieces = await self._in_slices(ino, encoded(folder, self._clocks(), self._extras()))
        except BaseException:
            meta.changed.add(ino)
            raise
        if ino not in meta.forgotten:
            self._put(Row(ino, b"".join(pieces), self._until_s(meta, folder)))

    async def _in_slices(self, ino: int, encoding: Iterator[bytes]) -> list[bytes]:
        pieces: list[bytes] = []
        spent_s = 0.0
        while True:
            begun_s = time.perf_counter()
            piece = next(encoding, None)
            spent_s += time.perf_counter() - begun_s
            if piece is None:
                self._rest(ino, spent_s)
                return pieces
            pieces.append(piece)
            await trio.lowlevel.checkpoint()

    def _until_s(self, meta: Metadata, folder: Folder) -> float | None:
        if folder.listed_s is None or folder.listed_s == NEVER:
            return None
        return self._wall_s() - trio.current_time() + folder.listed_s + meta.longest_s(folder)

    def _rest(self, ino: int, spent_s: float) -> None:
        self._not_before.pop(ino, None)
        if spent_s > SAVE_EVERY_S / REST_FACTOR:
            self._not_before[ino] = trio.current_time() + REST_FACTOR * spent_s

    def _row_of(self, meta: Metadata, ino: int, folder: Folder) -> Row:
        data = b"".join(encoded(folder, self._clocks(), self._extras()))
        return Row(ino, data, self._until_s(meta, folder))

    def _to_save(self, meta: Metadata, ino: int) -> Folder | None:
        """What is known of a folder; what changes from here on is saved the next time.

        Of a folder that this run has not listed the row may know more: then both are joined, unless
        that is too much work for a few names.
        """
        meta.changed.discard(ino)
        folder = meta.known_folder(ino)
        if folder is not None and not (folder.was_listed or folder.recalled):
            if self._size(ino) > JOIN_MAX_BYTES:
                folder = None
            else:
                meta.recall(ino)
                folder = meta.known_folder(ino)
        if folder is None:
            self._disbelieve(ino)
        return folder

    def _disbelieve(self, ino: int) -> None:
        """The row does not know all that happened."""
        try:
            self._index.run("UPDATE listings SET until_s=NULL WHERE ino=? AND until_s IS NOT NULL", (ino,))
        except PosixError:
            self._is_whole = False

    def _size(self, ino: int) -> int:
        with suppress(PosixError):
            row = self._index.run("SELECT bytes FROM listings WHERE ino=?", (ino,)).fetchone()
            return 0 if row is None else int(row[0])
        return 0

    def _put_all(self, rows: list[Row]) -> None:
        """In one commit, or, where that fails, each alone. Empties `rows`."""
        todo, before_bytes = rows[:], self._bytes
        rows.clear()
        if len(todo) > 1:
            try:
                self._index.begin()
                for row in todo:
                    self._write(row)
                self._index.commit()
            except PosixError:
                self._index.give_up()
                self._bytes = before_bytes
            else:
                return
        for row in todo:
            self._put(row)

    def _put(self, row: Row) -> None:
        try:
            self._write(row)
        except PosixError as error:  # a full disk: contents need the room more than this does
            log.info("what is known of a folder was not saved: %s", error)
            self._disbelieve(row.ino)

    def _write(self, row: Row) -> None:
        before = self._size(row.ino)
        self._index.run(
            "INSERT OR REPLACE INTO listings (ino, saved_s, bytes, members, until_s) VALUES (?,?,?,?,?)",
            (row.ino, self._wall_s(), len(row.members), row.members, row.until_s),
        )
        self._bytes += len(row.members) - before
        while self._bytes > self._bytes_max:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        row = self._index.run("SELECT ino, bytes FROM listings ORDER BY saved_s LIMIT 1").fetchone()
        if row is None:
            self._bytes = 0
            return
        self._index.run("DELETE FROM listings WHERE ino=?", (row[0],))
        self._bytes -= row[1]

    def _drop_forgotten(self, meta: Metadata) -> None:
        for ino in list(meta.forgotten):
            try:
                self._index.run("DELETE FROM listings WHERE ino=?", (ino,))
            except PosixError as error:
                log.info("what was known of a removed folder is still kept: %s", error)
                return
            meta.forgotten.discard(ino)


# --- the format


def encoded(folder: Folder, clocks: Clocks, extras: frozenset[str] = frozenset()) -> Iterator[bytes]:
    """The row of a folder, piece by piece: each next() takes some milliseconds."""
    packer = zlib.compressobj(1)
    listed_s = NEVER if folder.listed_s is None else folder.listed_s
    header = {
        "version": _VERSION,
        "listed": folder.listed_s is not None,
        "complete": folder.complete,
        "mtime_s": folder.mtime_s,
        "saved": (clocks.wall_s, clocks.uptime_s),
        "age_s": None if listed_s == NEVER else clocks.now_s - listed_s,
        "changed_s": None if folder.changed_s is None else clocks.now_s - folder.changed_s,
        "cost_s": folder.cost_s,
        "extras": sorted(extras),
    }
    yield packer.compress(json.dumps(header).encode())
    members = [(name, entry) for name, entry in folder.entries.items() if entry.resource is not None]
    for start in range(0, len(members), CHUNK):
        rows = [
            _row(name, entry, is_old=entry.learned_s < listed_s)
            for name, entry in members[start : start + CHUNK]
        ]
        yield packer.compress(b"\n" + json.dumps(rows, separators=(",", ":")).encode())
    yield packer.flush()


def _row(name: str, entry: Entry, *, is_old: bool) -> tuple[object, ...]:
    resource = entry.resource
    assert resource is not None
    etag, executable = resource.etag, resource.executable
    flags = (_IS_FOLDER if resource.is_collection else 0) | (_OLD if is_old else 0)
    if executable is not None:
        flags |= _EXECUTABLE if executable else _NOT_EXECUTABLE
    if etag is not None and etag.weak:
        flags |= _WEAK
    row = (name, flags, resource.size_bytes, resource.mtime_s)
    tag = None if etag is None else etag.opaque
    if resource.extras:
        return (*row, tag, entry.touched_ns, entry.pushed_s, resource.extras)
    if entry.touched_ns or entry.pushed_s:
        return (*row, tag, entry.touched_ns, entry.pushed_s)
    return row if tag is None else (*row, tag)


def decoded(data: bytes, clocks: Clocks | None, extras: frozenset[str] = frozenset()) -> Folder | None:
    """The folder of a row; None for what is not one. Without clocks all of it is old, and so it is if one of
    these extras was not asked for: a link would be shown as a file.
    """
    try:
        header, *chunks = zlib.decompress(data).split(b"\n")
        told = json.loads(header)
        was_asked = extras.issubset(told["extras"]) if told["version"] == _VERSION else not extras
        return _folder(told, chunks, clocks if was_asked else None)
    except (zlib.error, ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError, BadName):
        log.info("what was kept of a folder is damaged, and not used")
        return None


def _folder(header: dict[str, Any], chunks: list[bytes], clocks: Clocks | None) -> Folder | None:
    if header["version"] not in {1, _VERSION}:
        return None
    folder = Folder(complete=header["complete"] is True, mtime_s=_number(header["mtime_s"]))
    folder.listed_s = NEVER if header["listed"] is True else None
    if clocks is not None and header["version"] == _VERSION:
        _set_ages(folder, header, clocks)
    learned_s = NEVER if folder.listed_s is None else folder.listed_s
    for chunk in chunks:
        for name, flags, size_bytes, mtime_s, *more in json.loads(chunk):
            tag, extras = (more[0] if more else None), (more[3] if len(more) > 3 else ())
            resource = Resource(
                is_collection=bool(flags & _IS_FOLDER),
                size_bytes=_number(size_bytes),
                mtime_s=_number(mtime_s),
                etag=None if tag is None else ETag(str(tag), bool(flags & _WEAK)),
                executable=bool(flags & _EXECUTABLE) if flags & _EXECUTABLE_KNOWN else None,
                extras=tuple((str(extra), str(text)) for extra, text in extras) if extras else (),
            )
            entry = Entry(resource, NEVER if flags & _OLD else learned_s)
            if len(more) > 1:
                entry.touched_ns, entry.pushed_s = int(more[1]), float(more[2])
            folder.entries[checked_name(name)] = entry
    return folder


def _set_ages(folder: Folder, header: dict[str, Any], clocks: Clocks) -> None:
    wall_s, uptime_s = header["saved"]
    kept_s = clocks.age_of(float(wall_s), float(uptime_s))
    if kept_s is None:
        return
    folder.cost_s = float(header["cost_s"])
    if header["age_s"] is not None and folder.listed_s is not None:
        folder.listed_s = clocks.now_s - kept_s - max(0.0, float(header["age_s"]))
    if header["changed_s"] is not None:
        folder.changed_s = clocks.now_s - kept_s - max(0.0, float(header["changed_s"]))


def _number(value: object) -> int | None:
    if value is None or type(value) is int:
        return value
    raise ValueError("not a number")


def _sent_since(index: Index, wall_s: float) -> dict[tuple[str, ...], dict[str, Resource]]:
    """What was sent after the listings were last saved, because the daemon was killed: by folder, by name."""
    found: dict[tuple[str, ...], dict[str, Resource]] = {}
    rows = index.run(
        "SELECT path, base_size, etag, etag_weak, mtime_s FROM contents"
        " WHERE used_at >= ? AND acked > 0 AND written <= acked AND NOT unknown AND base_known",
        (wall_s,),
    )
    for path, size_bytes, etag, weak, mtime_s in rows:
        try:
            *parts, name = path_from_bytes(path).parts
        except (BadName, ValueError):
            continue
        tag = ETag(etag, bool(weak)) if etag is not None else None
        found.setdefault(tuple(parts), {})[name] = Resource(
            is_collection=False, size_bytes=size_bytes, mtime_s=mtime_s, etag=tag
        )
    return found
