"""Property changes that the server is owed: kept in the index until it has them.

What programs set on a file that is not sent yet (attributes, the executable bit), and what an upload has
undone. A debt belongs to an inode number, so it follows renames by itself; its path stands beside it for the
next daemon. Debts go when the server has the property, and with the file. Synchronous; no requests here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import trio

from davfs.errors import BadName
from davfs.fs.content import path_bytes, path_from_bytes
from davfs.fs.index import Index
from davfs.fs.inodes import InodeTable, Node

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS owed (ino INTEGER NOT NULL, name TEXT NOT NULL, value TEXT,"
    " path BLOB NOT NULL, is_folder INTEGER NOT NULL, PRIMARY KEY (ino, name)) WITHOUT ROWID"
)
_NOTHING: Final[Mapping[str, str | None]] = MappingProxyType({})


@dataclass(slots=True, eq=False)
class Debt:
    """Of one node, which is pinned meanwhile. A value of None: the property is to be removed."""

    node: Node
    changes: dict[str, str | None] = field(default_factory=dict)
    refused: bool = False  # the server said no: asked again by the next daemon, or after another change


class Owed:
    """Owns the table `owed`."""

    def __init__(self, index: Index, nodes: InodeTable) -> None:
        self._index = index
        self._nodes = nodes
        self._debts: dict[int, Debt] = {}
        self.wake = trio.Event()  # there is something new to be sent
        index.run(_TABLE)

    def recover(self) -> None:
        """What the last daemon did not get to the server."""
        rows = self._index.rows("SELECT ino, name, value, path, is_folder FROM owed ORDER BY ino")
        for ino, name, value, path, is_folder in rows:
            debt = self._debts.get(ino)
            if debt is None:
                try:
                    node = self._node_at(path, is_folder=bool(is_folder))
                except BadName:
                    continue
                if node.ino != ino:  # its place has another number now: whose it was nobody knows
                    self._index.run("DELETE FROM owed WHERE ino=?", (ino,))
                    continue
                debt = self._debt_of(node)
            debt.changes[name] = value
        self.wake.set()

    def _node_at(self, path: bytes, *, is_folder: bool) -> Node:
        node, parts = self._nodes.root, path_from_bytes(path).parts
        for at, part in enumerate(parts):
            node = self._nodes.child(node, part, is_folder=is_folder or at + 1 < len(parts))
        return node

    def _debt_of(self, node: Node) -> Debt:
        debt = self._debts.get(node.ino)
        if debt is None:
            debt = self._debts[node.ino] = Debt(node)
            self._nodes.pin(node)
        return debt

    def __len__(self) -> int:
        return len(self._debts)

    def all(self) -> Iterator[Debt]:
        return iter(list(self._debts.values()))

    def of(self, node: Node) -> Debt | None:
        return self._debts.get(node.ino)

    def changes_of(self, node: Node) -> Mapping[str, str | None]:
        debt = self._debts.get(node.ino)
        return _NOTHING if debt is None else debt.changes

    def owe(self, node: Node, changes: Mapping[str, str | None]) -> None:
        """In the index when it returns. Raises PosixError when it cannot be noted."""
        path = path_bytes(node.path)
        for name, value in changes.items():
            self._index.run(
                "INSERT OR REPLACE INTO owed (ino, name, value, path, is_folder) VALUES (?,?,?,?,?)",
                (node.ino, name, value, path, node.is_folder),
            )
        debt = self._debt_of(node)
        debt.changes.update(changes)
        debt.refused = False
        self.wake.set()

    def paid(self, node: Node, changes: Mapping[str, str | None]) -> None:
        """The server has these, or never will; what was changed again since stays."""
        debt = self._debts.get(node.ino)
        if debt is None or debt.node is not node:
            return
        for name, value in changes.items():
            if name in debt.changes and debt.changes[name] == value:
                del debt.changes[name]
                self._index.run("DELETE FROM owed WHERE ino=? AND name=?", (node.ino, name))
        if not debt.changes:
            self._drop(debt)

    def forget(self, node: Node) -> None:
        """The file is gone."""
        debt = self._debts.get(node.ino)
        if debt is not None and debt.node is node:
            self._index.run("DELETE FROM owed WHERE ino=?", (node.ino,))
            self._drop(debt)

    def _drop(self, debt: Debt) -> None:
        self._debts.pop(debt.node.ino, None)
        self._nodes.unpin(debt.node)

    def moved(self, node: Node) -> None:
        """It, or a folder above it, was renamed."""
        for debt in self._debts.values():
            if debt.node.is_within(node):
                path = path_bytes(debt.node.path)
                self._index.run("UPDATE owed SET path=? WHERE ino=?", (path, debt.node.ino))

    def follow(self, node: Node, twin: Node) -> None:
        """Our version goes on beside the name, as a conflict copy, and takes along what was set on it."""
        debt = self._debts.get(node.ino)
        if debt is not None and debt.node is node:
            changes = dict(debt.changes)
            self.forget(node)
            self.owe(twin, changes)
