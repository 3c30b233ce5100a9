"""The index of the content cache: one SQLite database, and in it the journal of what is unsent.

A row of `contents` is one version of one file on the cache disk. Rows that are not clean are the
journal: they are committed before the `write` that made them dirty returns. WAL with
synchronous=NORMAL: a commit survives `kill -9` of the daemon (the pages are in the kernel) and costs
20-100 us; power loss may take the last commits, and what has to survive that is on the server
before `fsync` returns. `locals` keeps what programs set and the server cannot (mode, mtime in ns);
`numbers` the inode numbers that renames made
(63 bits, so they fit SQLite's signed integers).

Methods are synchronous and short, so each is atomic under trio. Raises CacheUnusable.
"""

from __future__ import annotations

import errno as _errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from davfs.dav.resource import ETag, Validator
from davfs.errors import ConfigError, PosixError

SCHEMA_VERSION: Final = 1
CLOSED: Final = "closed"
MARK_BYTES: Final = 64
NUMBERS_MAX: Final = 50_000

_SCHEMA: Final = """
CREATE TABLE contents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ino INTEGER NOT NULL,
    path BLOB NOT NULL,
    generation INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL,
    base_size INTEGER NOT NULL DEFAULT 0,
    present BLOB,
    base_known INTEGER NOT NULL DEFAULT 0,
    etag TEXT, etag_weak INTEGER, mtime_s INTEGER, validator_size INTEGER,
    written INTEGER NOT NULL DEFAULT 0,
    sent INTEGER NOT NULL DEFAULT 0,
    acked INTEGER NOT NULL DEFAULT 0,
    unknown INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    unanswered BLOB NOT NULL DEFAULT x'',
    used_at REAL NOT NULL DEFAULT 0
);
CREATE INDEX contents_ino ON contents (ino);
CREATE INDEX contents_used ON contents (used_at);
CREATE TABLE locals (
    ino INTEGER PRIMARY KEY,
    parent INTEGER NOT NULL,
    mode INTEGER,
    mtime_ns INTEGER,
    etag TEXT, etag_weak INTEGER, mtime_s INTEGER, validator_size INTEGER
);
CREATE INDEX locals_parent ON locals (parent);
CREATE TABLE numbers (
    serial INTEGER PRIMARY KEY AUTOINCREMENT,
    parent INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER NOT NULL,
    UNIQUE (parent, name)
);
"""


_SELECT_ROW: Final = (
    "SELECT id, ino, path, generation, size, base_size, present, base_known, etag, etag_weak, mtime_s,"
    " validator_size, written, sent, acked, unknown, attempts, error, unanswered FROM contents"
)


class CacheUnusable(ConfigError):
    """The cache folder cannot be used: in use by another daemon, damaged, or not writable."""

    errno = _errno.EBUSY


@dataclass(slots=True)
class ContentRow:
    """One row of `contents`; `present` None means: all of it is on disk."""

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
        self._lock_fd = _lock(folder)
        try:
            self._db, self.numbers = _open(os.path.join(folder, "index.db"))
        except CacheUnusable:
            os.close(self._lock_fd)
            raise

        try:
            self.lost_power = self._opened_after_power_loss()
        except (OSError, PosixError) as error:
            self.close()
            raise CacheUnusable(f"cannot use the cache folder {folder}: {error}") from error

    def _opened_after_power_loss(self) -> bool:
        """Mark the cache as in use; True when it was in use when the machine went down."""
        boot_id = _boot_id()
        lost_power = _mark(self.folder) not in {"", CLOSED, boot_id}
        if lost_power:
            self._distrust()
        _set_mark(self.folder, boot_id)
        return lost_power

    def _distrust(self) -> None:
        """The machine went down while the cache was in use: bytes may be gone that the rows claim.

        What can be fetched again is forgotten. What was not sent loses its base, so that it is never put over
        the server's version: it is sent if there is none, else kept beside it. (A partly present file
        keeps its base: it needs the rest of that very version.)
        """
        self.run("DELETE FROM contents WHERE written <= acked AND NOT unknown")
        self.run("UPDATE contents SET base_known = 0 WHERE present IS NULL")

    def note_closed(self) -> None:
        """All bytes are on the disk: after this a power loss takes nothing."""
        with suppress(OSError):
            _set_mark(self.folder, CLOSED)

    def close(self) -> None:
        self._db.close()
        os.close(self._lock_fd)

    def run(self, query: str, arguments: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """One statement, committed when it returns. Modules beside this one own tables of their own."""
        return _run(self._db, query, arguments)

    # --- contents

    def new_content(self, ino: int, path: bytes, size: int, base: Validator | None) -> int:
        """A row for a version of which nothing is present yet (or for a new, empty file: no base)."""
        present = b"" if base is not None and size else None
        base_size = size if base is not None else 0
        cursor = self.run(
            "INSERT INTO contents"
            " (ino, path, size, base_size, present, base_known, etag, etag_weak, mtime_s, validator_size)"
            " VALUES (?,?,?,?,?,?,?,?,?,?)",
            (ino, path, size, base_size, present, int(base is not None), *_validator_columns(base)),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def save(self, row: ContentRow, *, now_s: float) -> None:
        self.run(
            "UPDATE contents SET ino=?, path=?, generation=?, size=?, base_size=?, present=?, base_known=?,"
            " etag=?, etag_weak=?, mtime_s=?, validator_size=?,"
            " written=?, sent=?, acked=?, unknown=?, attempts=?, error=?, unanswered=?,"
            " used_at=? WHERE id=?",
            (
                row.ino,
                row.path,
                row.generation,
                row.size,
                row.base_size,
                row.present,
                int(row.base is not None),
                *_validator_columns(row.base),
                row.written,
                row.sent,
                row.acked,
                int(row.unknown),
                row.attempts,
                None if row.error is None else row.error.encode("utf-8", "backslashreplace").decode(),
                row.unanswered,
                now_s,
                row.id,
            ),
        )

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
        return list(
            self.run(
                "SELECT id, generation FROM contents WHERE written <= acked AND NOT unknown"
                " ORDER BY used_at LIMIT ?",
                (limit,),
            )
        )

    def files_on_disk(self) -> set[tuple[int, int]]:
        return set(self.run("SELECT id, generation FROM contents"))

    def _rows(self, where: str, arguments: tuple[object, ...]) -> Iterator[ContentRow]:
        for row in self.run(f"{_SELECT_ROW} {where}", arguments):  # `where` is a constant of a caller above
            yield ContentRow(
                id=row[0],
                ino=row[1],
                path=row[2],
                generation=row[3],
                size=row[4],
                base_size=row[5],
                present=row[6],
                base=_validator(*row[8:12]) if row[7] else None,
                written=row[12],
                sent=row[13],
                acked=row[14],
                unknown=bool(row[15]),
                attempts=row[16],
                error=row[17],
                unanswered=row[18],
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
        rows = self.run(
            "SELECT ino, mode, mtime_ns, etag, etag_weak, mtime_s, validator_size FROM locals WHERE parent=?",
            (parent_ino,),
        )
        return {row[0]: LocalAttributes(row[1], row[2], _validator(*row[3:7])) for row in rows}


class Numbers:
    """Inode numbers that renames made: small, wholly in memory, the newest 50,000 kept."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        db.execute(
            "DELETE FROM numbers WHERE serial <= (SELECT COALESCE(MAX(serial), 0) FROM numbers) - ?",
            (NUMBERS_MAX,),
        )
        rows = db.execute("SELECT parent, name, ino FROM numbers")
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
        _run(
            self._db,
            "INSERT OR REPLACE INTO numbers (parent, name, ino) VALUES (?,?,?)",
            (parent_ino, os.fsencode(name), ino),
        )

    def drop(self, parent_ino: int, name: str) -> None:
        ino = self._by_name.pop((parent_ino, name), None)
        if ino is not None:
            self._promised.discard(ino)
            _run(self._db, "DELETE FROM numbers WHERE parent=? AND name=?", (parent_ino, os.fsencode(name)))


def _run(db: sqlite3.Connection, query: str, arguments: tuple[object, ...] = ()) -> sqlite3.Cursor:
    """One statement. A full or failing disk is a PosixError, as for any other write."""
    try:
        return db.execute(query, arguments)
    except sqlite3.Error as error:
        full = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL
        raise PosixError(_errno.ENOSPC if full else _errno.EIO, f"cache index: {error}") from error


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


def _boot_id() -> str:
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


def _open(path: str) -> tuple[sqlite3.Connection, Numbers]:
    try:
        db = sqlite3.connect(path, isolation_level=None)
    except sqlite3.Error as error:
        raise CacheUnusable(f"the cache index {path} cannot be used: {error}") from error
    try:
        return db, _prepared(db, path)
    except (sqlite3.Error, PosixError, CacheUnusable) as error:
        db.close()
        if isinstance(error, CacheUnusable):
            raise
        raise CacheUnusable(f"the cache index {path} cannot be used: {error}") from error


def _prepared(db: sqlite3.Connection, path: str) -> Numbers:
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == 0:
        db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
    elif version != SCHEMA_VERSION:
        raise CacheUnusable(f"{path} was written by another version of davfs (format {version})")
    return Numbers(db)
