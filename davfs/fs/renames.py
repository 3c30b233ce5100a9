"""Renames that are on their way to the server, of names that hold unsent files: kept over a crash.

The journal knows unsent files by path. A daemon that is killed between the server's MOVE and its own note of
it would send them to the old name. A row stands here before such a MOVE is sent and goes in the transaction
that changes the paths; the next daemon asks the server about what is left, before it answers programs and
before it sends one of these files. So does this one after a MOVE of which nobody knows whether it was done.
The program was told then that it had failed: nothing is given up for it any more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from davfs.dav.resource import DavPath, ETag, Validator
from davfs.fs.content import path_bytes, path_from_bytes
from davfs.fs.index import Index

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS renames (source BLOB PRIMARY KEY, destination BLOB NOT NULL,"
    " etag TEXT, etag_weak INTEGER, mtime_s INTEGER, size INTEGER, replaces INTEGER)"
)
_SELECT = "SELECT source, destination, etag, etag_weak, mtime_s, size, replaces FROM renames"
_HAS_REPLACES = "SELECT 1 FROM pragma_table_info('renames') WHERE name='replaces'"


@dataclass(frozen=True, slots=True)
class Rename:
    """`version` of the source, as the server had it: at the destination it says that the MOVE was done.

    `replaces`: the unsent content (its id) that is given up by it; None: nothing unsent is.
    """

    source: DavPath
    destination: DavPath
    version: Validator
    replaces: int | None = None


class Renames:
    def __init__(self, index: Index) -> None:
        self._index = index
        index.run(_SCHEMA)
        if not index.rows(_HAS_REPLACES):
            index.run("ALTER TABLE renames ADD COLUMN replaces INTEGER")
        self.left = self._read()  # of the last run, or in doubt: none that is running

    def begin(self, rename: Rename) -> None:
        self._drop(rename.source)
        etag = rename.version.etag
        self._index.run(
            "INSERT OR REPLACE INTO renames VALUES (?,?,?,?,?,?,?)",
            (
                path_bytes(rename.source),
                path_bytes(rename.destination),
                etag.opaque if etag is not None else None,
                etag.weak if etag is not None else None,
                rename.version.mtime_s,
                rename.version.size_bytes,
                rename.replaces,
            ),
        )

    def doubt(self, rename: Rename, *, told: bool) -> None:
        """No answer came, and the server cannot be asked now: to be asked before its files are sent.

        `told`: a program was told that it failed.
        """
        self._drop(rename.source)
        self.left.append(replace(rename, replaces=None) if told else rename)
        if told:
            self._index.run("UPDATE renames SET replaces=NULL WHERE source=?", (path_bytes(rename.source),))

    def end(self, source: DavPath) -> None:
        self._drop(source)
        self._index.run("DELETE FROM renames WHERE source=?", (path_bytes(source),))

    def _drop(self, source: DavPath) -> None:
        self.left = [rename for rename in self.left if rename.source != source]

    def _read(self) -> list[Rename]:
        return [
            Rename(
                path_from_bytes(source),
                path_from_bytes(destination),
                Validator(ETag(tag, bool(weak)) if tag is not None else None, mtime_s, size),
                replaces,
            )
            for source, destination, tag, weak, mtime_s, size, replaces in self._index.rows(_SELECT)
        ]
