"""What was known of the share, on disk: one row of the index for each folder, for the time without a server.

Rows are written in the background, seconds after something was learned, and never on the path of an answer;
they are read when a folder is asked for of which this run knows nothing. What comes from here was true once:
`Metadata` asks again before it believes it, as long as anybody can be asked.

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
from typing import Any, Final

import trio

from davfs.dav.resource import DavPath, ETag, Resource, checked_name
from davfs.errors import BadName, PosixError
from davfs.fs.content import path_from_bytes
from davfs.fs.index import Index
from davfs.fs.metadata import NEVER, Entry, Folder, Metadata

log = logging.getLogger("davfs.listings")

SAVE_EVERY_S: Final = 2.0
REST_FACTOR: Final = 50  # a folder whose encoding took 0.2 s is not encoded again for 10 s
BYTES_MAX: Final = 64 << 20  # some 3 million members
CHUNK: Final = 2_000
JOIN_MAX_BYTES: Final = 200_000  # some 10,000 members
_VERSION: Final = 1
_IS_FOLDER: Final = 1
_EXECUTABLE: Final = 2
_NOT_EXECUTABLE: Final = 4
_WEAK: Final = 8
_EXECUTABLE_KNOWN: Final = _EXECUTABLE | _NOT_EXECUTABLE

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS listings ("
    " ino INTEGER PRIMARY KEY, saved_s REAL NOT NULL, bytes INTEGER NOT NULL, members BLOB NOT NULL)"
)
_BY_AGE: Final = "CREATE INDEX IF NOT EXISTS listings_saved ON listings (saved_s, bytes)"


class Listings:
    """Owns the table `listings`."""

    def __init__(self, index: Index, *, wall_s: Callable[[], float], bytes_max: int = BYTES_MAX) -> None:
        self._index = index
        self._wall_s = wall_s
        self._bytes_max = bytes_max
        index.run(_TABLE)
        index.run(_BY_AGE)
        saved_s, self._bytes = index.run(
            "SELECT COALESCE(MAX(saved_s), 0), COALESCE(SUM(bytes), 0) FROM listings"
        ).fetchone()
        self._sent_later = _sent_since(index, saved_s - 2 * SAVE_EVERY_S) if self._bytes else {}
        self._not_before: dict[int, float] = {}  # only of folders that are costly to encode

    def load(self, ino: int, path: DavPath | None) -> Folder | None:
        """What was known of this folder. A damaged row is none."""
        try:
            row = self._index.run("SELECT members FROM listings WHERE ino=?", (ino,)).fetchone()
        except PosixError as error:
            log.warning("what was known of a folder cannot be read: %s", error)
            return None
        folder = None if row is None else decoded(row[0])
        if folder is not None and path is not None:
            for name, resource in self._sent_later.get(path.parts, {}).items():
                folder.entries[name] = Entry(resource, NEVER)
        return folder

    async def run(self, meta: Metadata) -> None:
        """Saves what changed, every few seconds until cancelled, and then what is left."""
        try:
            while True:
                await trio.sleep(SAVE_EVERY_S)
                await self.save(meta)
        finally:
            self._drop_forgotten(meta)
            for ino in list(meta.changed):
                self._save_now(meta, ino)

    async def save(self, meta: Metadata) -> None:
        """What changed since the last time, in slices."""
        self._drop_forgotten(meta)
        for ino in list(meta.changed):
            if self._not_before.get(ino, 0.0) > trio.current_time():
                continue
            folder = self._to_save(meta, ino)
            if folder is None:
                continue
            pieces, spent_s = [], 0.0
            encoding = encoded(folder, self._wall_s())
            while True:
                begun_s = time.perf_counter()
                piece = next(encoding, None)
                spent_s += time.perf_counter() - begun_s
                if piece is None:
                    break
                pieces.append(piece)
                await trio.lowlevel.checkpoint()
            self._rest(ino, spent_s)
            if ino not in meta.forgotten:
                self._put(ino, b"".join(pieces))

    def _rest(self, ino: int, spent_s: float) -> None:
        self._not_before.pop(ino, None)
        if spent_s > SAVE_EVERY_S / REST_FACTOR:
            self._not_before[ino] = trio.current_time() + REST_FACTOR * spent_s

    def _save_now(self, meta: Metadata, ino: int) -> None:
        folder = self._to_save(meta, ino)
        if folder is not None:
            self._put(ino, b"".join(encoded(folder, self._wall_s())))

    def _to_save(self, meta: Metadata, ino: int) -> Folder | None:
        """What is known of a folder; what changes from here on is saved the next time.

        Of a folder that this run has not listed the row may know more: then both are joined, unless
        that is too much work for a few names.
        """
        meta.changed.discard(ino)
        folder = meta.known_folder(ino)
        if folder is not None and not (folder.was_listed or folder.recalled):
            if self._size(ino) > JOIN_MAX_BYTES:
                return None
            meta.recall(ino)
        return meta.known_folder(ino)

    def _size(self, ino: int) -> int:
        with suppress(PosixError):
            row = self._index.run("SELECT bytes FROM listings WHERE ino=?", (ino,)).fetchone()
            return 0 if row is None else int(row[0])
        return 0

    def _put(self, ino: int, members: bytes) -> None:
        try:
            before = self._size(ino)
            self._index.run(
                "INSERT OR REPLACE INTO listings (ino, saved_s, bytes, members) VALUES (?,?,?,?)",
                (ino, self._wall_s(), len(members), members),
            )
            self._bytes += len(members) - before
            while self._bytes > self._bytes_max:
                self._drop_oldest()
        except PosixError as error:  # a full disk: contents need the room more than this does
            log.info("what is known of a folder was not saved: %s", error)

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


def encoded(folder: Folder, wall_s: float) -> Iterator[bytes]:
    """The row of a folder, piece by piece: each next() takes some milliseconds."""
    packer = zlib.compressobj(1)
    header = {
        "version": _VERSION,
        "listed": folder.listed_s is not None,
        "complete": folder.complete,
        "mtime_s": folder.mtime_s,
        "saved_s": wall_s,
    }
    yield packer.compress(json.dumps(header).encode())
    members = [(name, entry.resource) for name, entry in folder.entries.items() if entry.resource is not None]
    for start in range(0, len(members), CHUNK):
        rows = [_row(name, resource) for name, resource in members[start : start + CHUNK]]
        yield packer.compress(b"\n" + json.dumps(rows, separators=(",", ":")).encode())
    yield packer.flush()


def _row(name: str, resource: Resource) -> tuple[object, ...]:
    etag, executable = resource.etag, resource.executable
    flags = _IS_FOLDER if resource.is_collection else 0
    if executable is not None:
        flags |= _EXECUTABLE if executable else _NOT_EXECUTABLE
    head = (
        name,
        flags | (_WEAK if etag is not None and etag.weak else 0),
        resource.size_bytes,
        resource.mtime_s,
    )
    if resource.extras:
        return (*head, None if etag is None else etag.opaque, resource.extras)
    return head if etag is None else (*head, etag.opaque)


def decoded(data: bytes) -> Folder | None:
    """The folder of a row; None for what is not one."""
    try:
        header, *chunks = zlib.decompress(data).split(b"\n")
        return _folder(json.loads(header), chunks)
    except (zlib.error, ValueError, TypeError, KeyError, IndexError, RecursionError, BadName):
        log.info("what was kept of a folder is damaged, and not used")
        return None


def _folder(header: dict[str, Any], chunks: list[bytes]) -> Folder | None:
    if header["version"] != _VERSION:
        return None
    folder = Folder(
        listed_s=NEVER if header["listed"] is True else None,
        complete=header["complete"] is True,
        mtime_s=_number(header["mtime_s"]),
    )
    for chunk in chunks:
        for name, flags, size_bytes, mtime_s, *rest in json.loads(chunk):
            tag = rest[0] if rest else None
            extras = rest[1] if len(rest) > 1 else ()
            resource = Resource(
                is_collection=bool(flags & _IS_FOLDER),
                size_bytes=_number(size_bytes),
                mtime_s=_number(mtime_s),
                etag=ETag(str(tag), bool(flags & _WEAK)) if tag is not None else None,
                executable=bool(flags & _EXECUTABLE) if flags & _EXECUTABLE_KNOWN else None,
                extras=tuple((str(extra), str(text)) for extra, text in extras),
            )
            folder.entries[checked_name(name)] = Entry(resource, NEVER)
    return folder


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
