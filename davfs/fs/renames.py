"""Renames that are on their way to the server, of names that hold unsent files: kept over a crash.

The journal knows unsent files by path. A daemon that is killed between the server's MOVE and its own note of
it would send them to the old name. A row stands here before such a MOVE is sent and goes in the transaction
that changes the paths; the next daemon asks the server about what is left.
"""

from __future__ import annotations

from davfs.dav.resource import DavPath
from davfs.fs.content import path_bytes, path_from_bytes
from davfs.fs.index import Index

_SCHEMA = "CREATE TABLE IF NOT EXISTS renames (source BLOB PRIMARY KEY, destination BLOB NOT NULL)"


class Renames:
    def __init__(self, index: Index) -> None:
        self._index = index
        index.run(_SCHEMA)

    def begin(self, source: DavPath, destination: DavPath) -> None:
        self._index.run(
            "INSERT OR REPLACE INTO renames VALUES (?,?)", (path_bytes(source), path_bytes(destination))
        )

    def end(self, source: DavPath) -> None:
        self._index.run("DELETE FROM renames WHERE source=?", (path_bytes(source),))

    def left(self) -> list[tuple[DavPath, DavPath]]:
        """(source, destination) of those that began and did not end."""
        rows = self._index.rows("SELECT source, destination FROM renames")
        return [(path_from_bytes(source), path_from_bytes(destination)) for source, destination in rows]
