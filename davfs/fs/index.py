"""The index of the content cache: one SQLite database, and in it the journal of what is unsent.

A row of `contents` is one version of one file on the cache disk. Rows that are not clean are the
journal: they are committed before the `write` that made them dirty returns. What has to survive a power loss
is on the server before `fsync` returns. `locals` keeps what programs set and the server cannot
(mode, mtime in ns); `numbers` the inode numbers that renames made (63 bits, so they fit SQLite's signed
integers). The tables are in `schema`; opening, damage and a full disk in `database`.

Methods are synchronous and short, so each is atomic under trio. Raises CacheUnusable.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from davfs.dav.resource import ETag, Validator
from davfs.errors import PosixError
from davfs.fs.database import CacheUnusable, Database, open_database

__all__ = ["CacheUnusable", "ContentRow", "Index", "LocalAttributes", "Numbers", "boot_id"]

CLOSED: Final = "closed"
REBUILDING: Final = "rebuilding"
MARK_BYTES: Final = 64
NUMBERS_MAX: Final = 50_000

_SELECT_ROW: Final = (
    "SELECT id, ino, path, generation, size, base_size, present, base_known, etag, etag_weak, mtime_s,"
    " validator_size, written, sent, acked, unknown, attempts, error, unanswered, own, base_digest, revision,"
    " used_at FROM contents"
)
# In the order of `_columns`. What is indexed comes after them, then `id`.
_COLUMNS: Final = (
    "path, generation, size, base_size, present, base_known, etag, etag_weak, mtime_s, validator_size,"
    " written, sent, acked, unknown, attempts, error, unanswered, own, base_digest, revision"
)
_SET_COLUMNS: Final = ", ".join(f"{name}=?" for name in _COLUMNS.split(", "))
_MARKS: Final = ",".join("?" * (_COLUMNS.count(",") + 4))
_INSERT_ROW: Final = f"INSERT INTO contents ({_COLUMNS}, ino, used_at, id) VALUES ({_MARKS})"  # noqa: S608 - constants
_UPDATE_ROW: Final = f"UPDATE contents SET {_SET_COLUMNS} WHERE id=?"  # noqa: S608 - constants
_UPDATE_INDEXED: Final = f"UPDATE contents SET {_SET_COLUMNS}, ino=?, used_at=? WHERE id=?"  # noqa: S608 - constants


@dataclass(slots=True)
class ContentRow:
    """One row of `contents`; `present` None means: all of it is on disk.

    `source` is the version that the rest can be fetched from. It is the base, but after a power loss, when
    what is on disk is not believed enough to be put over anything, there is a source and no base.
    """

    id: int
    ino: int
    path: bytes
    generation: int
    size: int
    base_size: int
    present: bytes | None
    base: Validator | None
    written: int = 0
    sent: int = 0
    acked: int = 0
    unknown: bool = False
    attempts: int = 0
    error: str | None = None
    unanswered: bytes = b""  # see lifecycle.Unanswered
    own: bytes | None = None  # of what is present, the extents that programs wrote; None where all is present
    source: Validator | None = None
    base_digest: bytes | None = None
    revision: int = 0  # counts the commits: see record
    used_s: float = field(default=float("-inf"), compare=False)


def _columns(row: ContentRow) -> tuple[object, ...]:
    return (
        row.path,
        row.generation,
        row.size,
        row.base_size,
        row.present,
        row.base is not None,
        *_validator_columns(row.base or row.source),
        row.written,
        row.sent,
        row.acked,
        row.unknown,
        row.attempts,
        None if row.error is None else row.error.encode("utf-8", "backslashreplace").decode(),
        row.unanswered,
        row.own,
        row.base_digest,
        row.revision,
    )


@dataclass(frozen=True, slots=True)
class LocalAttributes:
    """What a program set and the server does not keep. The mtime holds only for `version`."""

    mode: int | None = None
    mtime_ns: int | None = None
    version: Validator | None = None


def _validator_columns(validator: Validator | None) -> tuple[str | None, int | None, int | None, int | None]:
    if validator is None:
        return (None, None, None, None)
    etag = validator.etag
    return (
        etag.opaque if etag else None,
        int(etag.weak) if etag else None,
        validator.mtime_s,
        validator.size_bytes,
    )


def _validator(etag: str | None, weak: int | None, mtime_s: int | None, size: int | None) -> Validator:
    return Validator(ETag(etag, bool(weak)) if etag is not None else None, mtime_s, size)


class Index:
    """Owns `index.db` and the lock on the cache folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._next_id: int | None = None  # of `contents`; None: the database knows
        self._lock_fd = _lock(folder)
        try:
            mark = _mark(folder)
            self.unclean = mark != CLOSED  # the last daemon was killed, or the machine went down
            self.lost_power = mark not in {"", CLOSED, boot_id()}
            self._db, self.damage = open_database(folder, expected=_has_data(folder), thorough=self.unclean)
            if self.damage is not None:
                _set_mark(folder, REBUILDING)
            elif mark == REBUILDING:
                self.damage = "its rebuilding was interrupted"
            try:
                self.numbers = Numbers(self._db)
            except PosixError as error:
                self._db.close()
                raise CacheUnusable(f"cannot use the cache folder {folder}: {error}") from error
        except OSError as error:
            os.close(self._lock_fd)
            raise CacheUnusable(f"cannot use the cache folder {folder}: {error}") from error
        except CacheUnusable:
            os.close(self._lock_fd)
            raise

    def note_open(self) -> None:
        """From here on a kill or a power loss shows: what the last daemon left is sorted out."""
        try:
            _set_mark(self.folder, boot_id())
        except OSError as error:
            raise CacheUnusable(f"cannot use the cache folder {self.folder}: {error}") from error

    def distrust(self) -> None:
        """The machine went down while the cache was in use: bytes may be gone that the rows claim.

        What can be fetched again is forgotten: clean contents, and of unsent ones what no program wrote. What
        was not sent loses its base, so that it is never put over the server's version: it is sent if there
        is none, else kept beside it. Its validator stays as the source of what is to be fetched.
        """
        self.forget_clean()
        self.run(
            "UPDATE contents SET base_known=0, base_digest=NULL,"
            " present = CASE WHEN present IS NULL THEN NULL ELSE COALESCE(own, present) END"
        )

    def forget_clean(self) -> None:
        """What can be fetched again."""
        self.run("DELETE FROM contents WHERE written <= acked AND NOT unknown")

    def note_closed(self) -> None:
        """All bytes are on the disk: after this a power loss takes nothing."""
        if self._db.failed:
            return  # the next start looks at every row
        with suppress(OSError):
            _set_mark(self.folder, CLOSED)

    def close(self) -> None:
        self._db.close()
        os.close(self._lock_fd)

    def run(self, query: str, arguments: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """One statement, committed when it returns. Modules beside this one own tables of their own."""
        return self._db.run(query, arguments)

    def rows(self, query: str, arguments: tuple[object, ...] = ()) -> list[Any]:
        """All rows of a query."""
        return self._db.rows(query, arguments)

    @property
    def reserve_spent(self) -> bool:
        """The disk was so full that even this index needed what it had put by."""
        return self._db.reserve_spent

    def restore_reserve(self) -> bool:
        """False when the disk has no room for it yet."""
        return self._db.restore_reserve()

    # --- contents

    def take_id(self) -> int:
        """For a new version: its row may come later, or never."""
        if self._next_id is None:
            rows = self.rows("SELECT seq FROM sqlite_sequence WHERE name='contents'")
            self._next_id = int(rows[0][0]) + 1 if rows else 1
        self._next_id += 1
        return self._next_id - 1

    def add(self, row: ContentRow, *, now_s: float) -> None:
        """A row that is complete from the start, in one commit. Its id was taken."""
        self.run(_INSERT_ROW, (*_columns(row), row.ino, now_s, row.id))

    def save(self, row: ContentRow, *, used_s: float | None) -> bool:
        """Whether there is such a row. `used_s` None: when it was used, and its `ino`, stand as they are.

        They are indexed, and to move them costs more than all the rest (25 us of CPU against 10).
        """
        if used_s is None:
            return self.run(_UPDATE_ROW, (*_columns(row), row.id)).rowcount > 0
        return self.run(_UPDATE_INDEXED, (*_columns(row), row.ino, used_s, row.id)).rowcount > 0

    def adopt(self, row: ContentRow, mode: int | None, *, now_s: float) -> None:
        """A row made again from what its file says, in place of the one that there may be."""
        self._next_id = None
        self.run(
            "INSERT OR IGNORE INTO contents (id, ino, path, size) VALUES (?,?,?,0)",
            (row.id, row.ino, row.path),
        )
        self.save(row, used_s=now_s)
        if mode is not None and self.locals_of(row.ino) is None:
            self.save_locals(row.ino, 0, LocalAttributes(mode))

    def content_of(self, ino: int) -> ContentRow | None:
        """The newest version kept for this inode."""
        rows = self._rows("WHERE ino=? ORDER BY id DESC LIMIT 1", (ino,))
        return next(rows, None)

    def unfinished(self) -> list[ContentRow]:
        return list(self._rows("WHERE written > acked OR unknown ORDER BY id", ()))

    def delete_content(self, content_id: int) -> None:
        self.run("DELETE FROM contents WHERE id=?", (content_id,))

    def oldest_clean(self, limit: int) -> list[tuple[int, int]]:
        """(id, generation) of clean rows, least recently used first."""
        return self.rows(
            "SELECT id, generation FROM contents WHERE written <= acked AND NOT unknown"
            " ORDER BY used_at LIMIT ?",
            (limit,),
        )

    def files_on_disk(self) -> dict[int, tuple[int, int, int]]:
        """(generation, revision, whether it is unsent) of every content, by its id."""
        query = "SELECT id, generation, revision, written > acked OR unknown FROM contents"
        return {row[0]: row[1:] for row in self.rows(query)}

    def clean_of_size(self, size: int) -> list[ContentRow]:
        """What the server has and is wholly here, of this many bytes; the most recently used few."""
        where = "WHERE size=? AND present IS NULL AND base_known AND written <= acked AND NOT unknown"
        return list(self._rows(f"{where} ORDER BY used_at DESC LIMIT 8", (size,)))

    def _rows(self, where: str, arguments: tuple[object, ...]) -> Iterator[ContentRow]:
        for row in self.rows(f"{_SELECT_ROW} {where}", arguments):  # `where` is a constant of a caller above
            source = _validator(*row[8:12])
            yield ContentRow(
                id=row[0],
                ino=row[1],
                path=row[2],
                generation=row[3],
                size=row[4],
                base_size=row[5],
                present=row[6],
                base=source if row[7] else None,
                written=row[12],
                sent=row[13],
                acked=row[14],
                unknown=bool(row[15]),
                attempts=row[16],
                error=row[17],
                unanswered=row[18],
                own=row[19],
                source=source if row[7] or source != Validator() else None,
                base_digest=row[20],
                revision=row[21],
                used_s=row[22],
            )

    # --- what programs set and the server does not keep

    def save_locals(self, ino: int, parent_ino: int, kept: LocalAttributes) -> None:
        self.run(
            "INSERT OR REPLACE INTO locals"
            " (ino, parent, mode, mtime_ns, etag, etag_weak, mtime_s, validator_size)"
            " VALUES (?,?,?,?,?,?,?,?)",
            (
                ino,
                parent_ino,
                kept.mode,
                kept.mtime_ns,
                *_validator_columns(kept.version),
            ),
        )

    def delete_locals(self, ino: int) -> None:
        self.run("DELETE FROM locals WHERE ino=?", (ino,))

    def locals_of(self, ino: int) -> LocalAttributes | None:
        row = self.run(
            "SELECT mode, mtime_ns, etag, etag_weak, mtime_s, validator_size FROM locals WHERE ino=?",
            (ino,),
        ).fetchone()
        return None if row is None else LocalAttributes(row[0], row[1], _validator(*row[2:6]))

    def locals_below(self, parent_ino: int) -> dict[int, LocalAttributes]:
        """All that is kept for the members of one folder, in one query."""
        rows = self.rows(
            "SELECT ino, mode, mtime_ns, etag, etag_weak, mtime_s, validator_size FROM locals WHERE parent=?",
            (parent_ino,),
        )
        return {row[0]: LocalAttributes(row[1], row[2], _validator(*row[3:7])) for row in rows}


class Numbers:
    """Inode numbers that renames made: small, wholly in memory, the newest 50,000 kept."""

    def __init__(self, db: Database) -> None:
        self._db = db
        db.run(
            "DELETE FROM numbers WHERE serial <= (SELECT COALESCE(MAX(serial), 0) FROM numbers) - ?",
            (NUMBERS_MAX,),
        )
        rows = db.rows("SELECT parent, name, ino FROM numbers")
        self._by_name = {(p, os.fsdecode(name)): ino for p, name, ino in rows}
        self._promised = set(self._by_name.values())

    def get(self, parent_ino: int, name: str) -> int | None:
        return self._by_name.get((parent_ino, name))

    def is_promised(self, ino: int) -> bool:
        return ino in self._promised

    def put(self, parent_ino: int, name: str, ino: int) -> None:
        before = self._by_name.get((parent_ino, name))
        if before == ino:
            return
        self._promised.discard(before or 0)
        self._promised.add(ino)
        self._by_name[parent_ino, name] = ino
        self._db.run(
            "INSERT OR REPLACE INTO numbers (parent, name, ino) VALUES (?,?,?)",
            (parent_ino, os.fsencode(name), ino),
        )

    def drop(self, parent_ino: int, name: str) -> None:
        ino = self._by_name.pop((parent_ino, name), None)
        if ino is not None:
            self._promised.discard(ino)
            self._db.run("DELETE FROM numbers WHERE parent=? AND name=?", (parent_ino, os.fsencode(name)))


def _has_data(folder: str) -> bool:
    return any(names for _, _, names in os.walk(os.path.join(folder, "data")))


def _mark(folder: str) -> str:
    try:
        with open(os.path.join(folder, "boot"), encoding="ascii", errors="replace") as file:
            return file.read(MARK_BYTES).strip()
    except FileNotFoundError:
        return ""


def _set_mark(folder: str, mark: str) -> None:
    """Overwritten in place, so that a full disk is no obstacle, and flushed."""
    fd = os.open(os.path.join(folder, "boot"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, mark.encode().ljust(MARK_BYTES), 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def boot_id() -> str:
    """Another one after every start of the machine; empty where there is none to tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _lock(folder: str) -> int:
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        fd = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CacheUnusable(f"cannot use the cache folder {folder}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise CacheUnusable(f"the cache folder {folder} is in use by another davfs") from error
    return fd
