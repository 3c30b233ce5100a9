"""Properties that programs set and the server does not have yet: kept in the index until it has them.

What was set on a file that is not sent yet (attributes, the executable bit), and what an upload has undone. A
wish belongs to an inode number, so it follows renames by itself; its path stands beside it for the next
daemon. It goes when the server has the property, and with the file. Synchronous; `pushes` sends them.
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
    "CREATE TABLE IF NOT EXISTS wishes (ino INTEGER NOT NULL, name TEXT NOT NULL, value TEXT,"
    " path BLOB NOT NULL, is_folder INTEGER NOT NULL, PRIMARY KEY (ino, name)) WITHOUT ROWID"
)
_NOTHING: Final[Mapping[str, str | None]] = MappingProxyType({})


@dataclass(slots=True, eq=False)
class Wish:
    """Of one node, which is pinned meanwhile. A value of None: the property is to be removed."""

    node: Node
    changes: dict[str, str | None] = field(default_factory=dict)
    tries: int = 0
    refused: bool = False  # the server said no: asked again by the next daemon, or after another change


class Wishes:
    """Owns the table `wishes`."""

    def __init__(self, index: Index, nodes: InodeTable) -> None:
        self._index = index
        self._nodes = nodes
        self._wishes: dict[int, Wish] = {}
        self.wake = trio.Event()  # there is something new to be sent
        index.run(_TABLE)

    def recover(self) -> None:
        """What the last daemon did not get to the server."""
        rows = self._index.rows("SELECT ino, name, value, path, is_folder FROM wishes ORDER BY ino")
        for ino, name, value, path, is_folder in rows:
            wish = self._wishes.get(ino)
            if wish is None:
                try:
                    node = self._node_at(path, is_folder=bool(is_folder))
                except BadName:
                    continue
                if node is None or node.ino != ino:  # whose it was nobody knows any more
                    self._index.run("DELETE FROM wishes WHERE ino=?", (ino,))
                    self._nodes.release(node)
                    continue
                wish = self._wish_of(node)
            wish.changes[name] = value
        self.wake.set()

    def _node_at(self, path: bytes, *, is_folder: bool) -> Node | None:
        """None where something else has the name by now: it may hold what is not sent."""
        node, parts = self._nodes.root, path_from_bytes(path).parts
        for depth, part in enumerate(parts, 1):
            folder, known = is_folder or depth < len(parts), self._nodes.named(node, part)
            if known is not None and known.is_folder != folder:
                return None
            node = self._nodes.child(node, part, is_folder=folder)
        return node

    def _wish_of(self, node: Node) -> Wish:
        wish = self._wishes.get(node.ino)
        if wish is None:
            wish = self._wishes[node.ino] = Wish(node)
            self._nodes.pin(node)
        return wish

    def __len__(self) -> int:
        return len(self._wishes)

    def all(self) -> Iterator[Wish]:
        return iter(list(self._wishes.values()))

    def of(self, node: Node) -> Wish | None:
        return self._wishes.get(node.ino)

    def changes_of(self, node: Node) -> Mapping[str, str | None]:
        wish = self._wishes.get(node.ino)
        return _NOTHING if wish is None else wish.changes

    def add(self, node: Node, changes: Mapping[str, str | None]) -> None:
        """In the index when it returns. Raises PosixError when it cannot be noted."""
        path = path_bytes(node.path)
        for name, value in changes.items():
            self._index.run(
                "INSERT OR REPLACE INTO wishes (ino, name, value, path, is_folder) VALUES (?,?,?,?,?)",
                (node.ino, name, value, path, node.is_folder),
            )
        wish = self._wish_of(node)
        wish.changes.update(changes)
        wish.refused = False
        self.wake.set()

    def fulfilled(self, node: Node, changes: Mapping[str, str | None]) -> None:
        """The server has these, or never will; what was changed again since stays."""
        wish = self._wishes.get(node.ino)
        if wish is None or wish.node is not node:
            return
        for name, value in changes.items():
            if name in wish.changes and wish.changes[name] == value:
                del wish.changes[name]
                self._index.run("DELETE FROM wishes WHERE ino=? AND name=?", (node.ino, name))
        if not wish.changes:
            self._drop(wish)

    def forget(self, node: Node) -> None:
        """The file is gone."""
        wish = self._wishes.get(node.ino)
        if wish is not None and wish.node is node:
            self._index.run("DELETE FROM wishes WHERE ino=?", (node.ino,))
            self._drop(wish)

    def _drop(self, wish: Wish) -> None:
        self._wishes.pop(wish.node.ino, None)
        self._nodes.unpin(wish.node)

    def moved(self, node: Node) -> None:
        """It, or a folder above it, was renamed."""
        for wish in self._wishes.values():
            if wish.node.is_within(node):
                path = path_bytes(wish.node.path)
                self._index.run("UPDATE wishes SET path=? WHERE ino=?", (path, wish.node.ino))
                self.wake.set()  # it may have been set while the name changed

    def follow(self, node: Node, twin: Node) -> None:
        """Our version goes on beside the name, as a conflict copy, and takes along what was set on it."""
        wish = self._wishes.get(node.ino)
        if wish is not None and wish.node is node:
            changes = dict(wish.changes)
            self.forget(node)
            self.add(twin, changes)
