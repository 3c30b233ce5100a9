"""The SQLite file of the index: opened, checked, migrated, set aside when damaged; one statement at a time.

WAL with synchronous=NORMAL: a commit survives `kill -9` of the daemon (the pages are in the kernel) and costs
20-100 us; power loss may take the last commits.

A damaged file is kept as `index.db.damaged-DATE`, the newest three of them, and an empty index takes its
place: what was not sent is found again by `salvage`. A file of a newer davfs is refused, and not touched. A
file, `reserve`, is given back when the disk is so full that nothing can be committed any more: what is
on the way to the server can then be noted, and removing works.
"""

from __future__ import annotations

import errno as _errno
import logging
import os
import sqlite3
import time
from contextlib import suppress
from typing import Any, Final

from davfs.errors import CacheFull, ConfigError, PosixError
from davfs.fs import schema

log = logging.getLogger("davfs.index")

NAME: Final = "index.db"
DAMAGED_MAX: Final = 3
SMALL_DISK_BYTES: Final = 64 << 20
# A commit needs 16 to 37 KB of log. The log grows to 4 MB (1,000 pages) before it is copied to the database,
# which may grow by as much: all that must fit when nothing else does. On a small disk the log is kept short,
# at the price of a flush for every eighth commit.
RESERVE_BYTES: Final = 8 << 20
SMALL_RESERVE_BYTES: Final = 256 << 10
SMALL_LOG_PAGES: Final = 32
# SQLITE_ERROR is a table or column that is not there: not our database, or not all of it.
_DAMAGE: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR}


class CacheUnusable(ConfigError):
    """The cache folder cannot be used: in use by another daemon, of a newer davfs, or not writable."""

    errno = _errno.EBUSY


_Statement = tuple[str, tuple[object, ...]]


class Damaged(Exception):
    """SQLite cannot read it. Never leaves this module."""


class Database:
    """One connection in autocommit mode."""

    def __init__(self, connection: sqlite3.Connection, folder: str | None = None) -> None:
        self._db = connection
        self._reserve = os.path.join(folder, "reserve") if folder is not None else None
        self._small = folder is not None and _is_small(folder)
        if self._small:
            connection.execute(f"PRAGMA wal_autocheckpoint={SMALL_LOG_PAGES}")
        self.reserve_spent = self._reserve is not None and not os.path.exists(self._reserve)
        self.failed = False  # SQLite found damage while running: the next start looks closely
        self._done: list[_Statement] | None = None  # since the transaction began

    def run(self, query: str, arguments: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """One statement, committed when it returns. A full or failing disk is a PosixError."""
        try:
            cursor = self._db.execute(query, arguments)
        except sqlite3.Error as error:
            if not (_is_full(error) and self._found_room()):
                raise self._failure(error) from error
            cursor = self._run_again(query, arguments)
        if self._done is not None:
            self._done.append((query, arguments))
        return cursor

    def _run_again(self, query: str, arguments: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """On a full disk SQLite undoes the whole transaction, and goes on without one."""
        try:
            if self._done is not None and not self._db.in_transaction:
                self._repeat(self._done)
            return self._db.execute(query, arguments)
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _repeat(self, statements: list[_Statement]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for query, arguments in statements:
                self._db.execute(query, arguments)
        except sqlite3.Error:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def begin(self) -> None:
        """From here to `commit` all statements take effect, or none."""
        self.run("BEGIN IMMEDIATE")
        self._done = []

    def commit(self) -> None:
        """After a failure it can be tried again, when there is more room; `give_up` ends it without."""
        if self._done is None:
            return
        try:
            self._commit()
        except sqlite3.Error as error:
            if not (_is_full(error) and self._found_room()):
                raise self._failure(error) from error
            self._run_again("COMMIT")
        self._done = None

    def _commit(self) -> None:
        if self._db.in_transaction:
            self._db.execute("COMMIT")
        else:  # undone by a failure before
            self._run_again("COMMIT")

    def give_up(self) -> None:
        """Of a transaction that cannot be committed nothing is kept."""
        self._done = None
        self._roll_back()

    def rows(self, query: str, arguments: tuple[object, ...] = ()) -> list[Any]:
        try:
            return self._db.execute(query, arguments).fetchall()
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> PosixError:
        if _is_full(error):
            return CacheFull(_errno.ENOSPC, f"cache index: {error}")
        if is_damage(error) and not self.failed:
            self.failed = True
            log.error("the cache index is damaged (%s): the next mount rebuilds it", error)
        return PosixError(_errno.EIO, f"cache index: {error}")

    def close(self) -> None:
        self._db.close()

    # --- the reserve

    def _found_room(self) -> bool:
        if self._reserve is None:
            return False
        with suppress(FileNotFoundError):
            os.unlink(self._reserve)
        self.reserve_spent = True
        with suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return True

    def restore_reserve(self) -> bool:
        """Take it again. False when the disk has no room for it."""
        if self._reserve is None or not self.reserve_spent:
            return True
        name = f"{self._reserve}.new"
        try:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, SMALL_RESERVE_BYTES if self._small else RESERVE_BYTES)
            finally:
                os.close(fd)
            os.rename(name, self._reserve)
        except OSError:
            with suppress(OSError):
                os.unlink(name)
            return False
        self.reserve_spent = False
        return True


def open_database(folder: str, *, expected: bool, thorough: bool) -> tuple[Database, str | None]:
    """The index of a cache folder, and what was wrong with the one before, if it was damaged.

    `expected`: there are data files, so there was an index. `thorough`: look at every row, because
    the last daemon did not end well (0.9 us a row; else 0.4 us). Raises CacheUnusable.
    """
    path = os.path.join(folder, NAME)
    damage = None
    try:
        if expected and not os.path.exists(path):
            raise Damaged("it is missing")
        try:
            connection = _connected(path, expected=expected, thorough=thorough)
        except Damaged:
            raise
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            raise Damaged(str(error)) from error
    except Damaged as error:
        damage = str(error)
        _set_aside(path)
        connection = _again(path)
    except (sqlite3.Error, OSError) as error:
        raise CacheUnusable(f"the cache index {path} cannot be used: {error}") from error
    database = Database(connection, folder)
    database.restore_reserve()
    return database, damage


def _again(path: str) -> sqlite3.Connection:
    try:
        return _connected(path, expected=False, thorough=False)
    except (sqlite3.Error, Damaged) as error:
        raise CacheUnusable(f"the cache index {path} cannot be made: {error}") from error


def _connected(path: str, *, expected: bool, thorough: bool) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > schema.VERSION:
            raise CacheUnusable(
                f"{path} was written by a newer davfs (format {version}, this one knows {schema.VERSION}):"
                " use that one, or another cache_dir"
            )
        if version < 0 or (version == 0 and expected):
            raise Damaged("it is empty")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        (found,) = db.execute(f"PRAGMA {'integrity' if thorough else 'quick'}_check(1)").fetchone()
        if found != "ok":
            raise Damaged(str(found))
        if version != schema.VERSION:
            db.executescript(schema.migration(version))
            if version:
                log.info("%s was migrated from format %d to %d", path, version, schema.VERSION)
        for table in ("contents", "locals", "numbers", "leftovers"):
            db.execute(f"SELECT * FROM {table} LIMIT 0")  # noqa: S608 - constants
        db.execute("SELECT own, base_digest, revision FROM contents LIMIT 0")
    except BaseException:
        db.close()
        raise
    return db


def _is_small(folder: str) -> bool:
    disk = os.statvfs(folder)
    return disk.f_blocks * disk.f_frsize < SMALL_DISK_BYTES


def is_damage(error: sqlite3.Error) -> bool:
    """Not a full disk or a lock, but bytes that are no index of ours."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _DAMAGE


def _is_full(error: sqlite3.Error) -> bool:
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) == sqlite3.SQLITE_FULL


def _set_aside(path: str) -> None:
    """Keep it for whoever wants to look, but not every one for ever. Raises CacheUnusable."""
    now_s, now_us = divmod(time.time_ns() // 1000, 1_000_000)  # read once: the names sort by it
    kept = f"{path}.damaged-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now_s))}-{now_us:06d}"
    try:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                os.rename(path + suffix, kept + suffix)
        with suppress(FileNotFoundError):
            os.unlink(f"{path}-shm")
        prefix, folder = f"{NAME}.damaged-", os.path.dirname(path)
        names = sorted(name for name in os.listdir(folder) if name.startswith(prefix))
        for old in sorted({name.removesuffix("-wal") for name in names})[:-DAMAGED_MAX]:
            for suffix in ("", "-wal"):
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(folder, old + suffix))
    except OSError as error:
        raise CacheUnusable(f"the cache index {path} is damaged, and cannot be set aside: {error}") from error
