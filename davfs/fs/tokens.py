"""The lock tokens on disk: what a next run needs to take up, or give back, the locks of this one.

A row is there before its LOCK is sent, without a token until the answer came, and goes when the lock has. The
id stands in the owner's text of each of our locks, drawn once for each cache: by it a lock whose answer was
lost is known as ours. What is done with all that is decided in `locks`.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Final, NamedTuple

from davfs.dav.locks import LockToken
from davfs.dav.resource import DavPath
from davfs.errors import PosixError
from davfs.fs.content import path_bytes, path_from_bytes
from davfs.fs.index import Index

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS locks (path BLOB PRIMARY KEY, token TEXT, made INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS lock_owner (id TEXT NOT NULL)",
)


class Kept(NamedTuple):
    """A row of an earlier run; `token` None: the answer to LOCK was never noted."""

    path: DavPath
    token: LockToken | None
    made: bool  # an empty file, as far as that was noted


class Tokens:
    def __init__(self, index: Index) -> None:
        self._index = index
        for statement in _SCHEMA:
            index.run(statement)
        self.own_id = self._own_id()

    def _own_id(self) -> str:
        row = self._index.run("SELECT id FROM lock_owner").fetchone()
        if row is not None:
            return str(row[0])
        new = secrets.token_hex(8)
        self._index.run("INSERT INTO lock_owner VALUES (?)", (new,))
        return new

    def note(self, path: DavPath) -> None:
        """A LOCK is about to be sent."""
        self._index.run("INSERT OR REPLACE INTO locks (path) VALUES (?)", (path_bytes(path),))

    def save(self, path: DavPath, token: LockToken, *, made: bool) -> None:
        """A row that cannot be written stays without its token: the next run asks for it by our id."""
        with suppress(PosixError):
            self._index.run(
                "INSERT OR REPLACE INTO locks VALUES (?,?,?)", (path_bytes(path), token.text, int(made))
            )

    def forget(self, path: DavPath) -> None:
        """A row that cannot be removed costs the next run a request."""
        with suppress(PosixError):
            self._index.run("DELETE FROM locks WHERE path=?", (path_bytes(path),))

    def of_the_last_run(self) -> list[Kept]:
        rows = self._index.rows("SELECT path, token, made FROM locks")
        return [Kept(path_from_bytes(raw), LockToken.parse(token), bool(made)) for raw, token, made in rows]

    def was_made_and_never_written(self, path: DavPath) -> bool:
        """Killed between LOCK and the journal: the cache knows nothing of a file there."""
        raw = path_bytes(path)
        row = self._index.run("SELECT made FROM locks WHERE path=?", (raw,)).fetchone()
        known = self._index.run("SELECT 1 FROM contents WHERE path=?", (raw,)).fetchone()
        return row is not None and bool(row[0]) and known is None
