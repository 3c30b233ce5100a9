"""Which times that programs set the server is still to be told, and since when.

A row for each, so that a kill forgets none; in memory the node, pinned, so that its path follows renames.
What the time itself is, and of which version, is with what else is kept (`Index.locals_of`). A time that is
owed is what programs see, whatever the server says; once it is there, the server's word counts.

Nothing is noted where nothing can come of it: with `mtime=local`, on a server that takes times with a PUT
alone, and for what a PUT takes along. Synchronous; who sends them is `times`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

from davfs.dav.client import Client
from davfs.dav.resource import Resource
from davfs.dav.times import NS
from davfs.errors import BadName, PosixError
from davfs.fs.content import path_bytes, path_from_bytes
from davfs.fs.index import Index
from davfs.fs.inodes import InodeTable, Node
from davfs.fs.settings import Settings

MOST: Final = 50_000  # about 500 bytes each; a time more than that stays here only
JUST_NOW_NS: Final = 5_000_000  # `touch`: the time of this moment, which an upload soon gives by itself
NEVER: Final = float("inf")
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS times"
    " (ino INTEGER PRIMARY KEY, path BLOB NOT NULL, folder INTEGER NOT NULL, mtime_ns INTEGER NOT NULL)"
)


@dataclass(slots=True, eq=False)
class Debt:
    """One time. `due_s` NEVER: the file is to be sent first. `since_s`: nobody here changed it after that."""

    node: Node
    mtime_ns: int
    due_s: float
    since_s: float
    tries: int = 0  # that failed
    steps: int = 0  # that led nowhere: another way, or once more


class Owed:
    def __init__(self, client: Client, index: Index, nodes: InodeTable, settings: Settings) -> None:
        self._client = client
        self._index = index
        self._nodes = nodes
        self._mode = settings.mtime
        self._debts: dict[int, Debt] = {}  # by inode number
        self._along: dict[int, int] = {}  # times that are to go with the PUT of an unsent file
        self.wake = trio.Event()
        index.run(_TABLE)

    def __len__(self) -> int:
        return len(self._debts)

    def __contains__(self, ino: int) -> bool:
        return ino in self._debts

    @property
    def with_properties(self) -> bool:
        return self._mode == "properties"

    def all(self) -> Iterator[Debt]:
        yield from list(self._debts.values())

    def due(self, now_s: float) -> list[Debt]:
        return [debt for debt in self._debts.values() if debt.due_s <= now_s]

    # --- what programs and uploads do

    def set(self, node: Node, mtime_ns: int, *, now_ns: int, is_unsent: bool) -> None:
        """A program set this time. `is_unsent`: the file is to be sent; its PUT may take the time along."""
        is_now = is_unsent and abs(now_ns - mtime_ns) < JUST_NOW_NS
        if is_now or not self._is_worth_it(is_unsent=is_unsent):
            self.forget(node)
            if is_unsent and not is_now:
                self._along[node.ino] = mtime_ns
            return
        debt = self._debts.get(node.ino)
        if debt is None:
            if len(self._debts) >= MOST:
                return
            debt = self._debts[node.ino] = Debt(node, mtime_ns, NEVER, trio.current_time())
            self._nodes.pin(node)
        debt.mtime_ns = mtime_ns
        self._save(debt)
        if not is_unsent:
            self.settle_by(debt, trio.current_time())

    def goes_along(self, ino: int, mtime_ns: int) -> bool:
        """A program set the time of this unsent file, and it was not written to after that."""
        return self._along.get(ino) == mtime_ns

    def _is_worth_it(self, *, is_unsent: bool) -> bool:
        server = self._client.capabilities
        if self._mode == "local" or (is_unsent and server.time_in_put):
            return False
        return server.next_time_way(properties=self.with_properties) is not None

    def stored(self, node: Node, mtime_ns: int, resource: Resource) -> None:
        """The server has the file now, which has this time here; what it says of it."""
        self._along.pop(node.ino, None)
        debt = self._debts.get(node.ino)
        if debt is None:
            return
        if debt.mtime_ns != mtime_ns or resource.mtime_s == mtime_ns // NS:
            self.forget(node)  # written to after that; or it came along
        else:
            debt.since_s = trio.current_time()
            self.settle_by(debt, debt.since_s)

    def settle_by(self, debt: Debt, due_s: float) -> None:
        debt.due_s = due_s
        self.wake.set()

    def forget(self, node: Node) -> None:
        """It is there, or never will be."""
        self._along.pop(node.ino, None)
        debt = self._debts.pop(node.ino, None)
        if debt is not None:
            with suppress(PosixError):  # a full disk: the next mount finds that there is nothing to do
                self._index.run("DELETE FROM times WHERE ino=?", (node.ino,))
            self._nodes.unpin(debt.node)

    def moved(self, node: Node) -> None:
        """It was renamed: so was all that is below."""
        for debt in self._debts.values() if node.is_folder else filter(None, [self._debts.get(node.ino)]):
            if debt.node.is_within(node):
                self._save(debt)

    def _save(self, debt: Debt) -> None:
        if debt.node.unlinked:
            return
        with suppress(PosixError):  # a full disk: it is lost by a kill only
            self._index.run(
                "INSERT OR REPLACE INTO times (ino, path, folder, mtime_ns) VALUES (?,?,?,?)",
                (debt.node.ino, path_bytes(debt.node.path), debt.node.is_folder, debt.mtime_ns),
            )

    # --- start

    def recover(self) -> int:
        """What the last run owed. Files that it did not send come first; returns how many there are."""
        rows = self._index.rows("SELECT ino, path, folder, mtime_ns FROM times LIMIT ?", (MOST,))
        for ino, path, folder, mtime_ns in rows:
            node = self._node_at(path, is_folder=bool(folder))
            if node is None or node.ino != ino:
                self._index.run("DELETE FROM times WHERE ino=?", (ino,))
            if node is not None and node.parent is not None and node.ino not in self._debts:
                unsent = node.content is not None and node.content.dirty
                now_s = trio.current_time()
                debt = Debt(node, mtime_ns, NEVER if unsent else now_s, now_s)
                self._debts[node.ino] = debt
                self._nodes.pin(node)
                self._save(debt)
        return len(self._debts)

    def _node_at(self, path: bytes, *, is_folder: bool) -> Node | None:
        """None where something else has the name by now: it may hold what is not sent."""
        try:
            parts = path_from_bytes(path).parts
        except BadName:
            return None
        node = self._nodes.root
        for depth, part in enumerate(parts, 1):
            folder = is_folder or depth < len(parts)
            known = self._nodes.named(node, part)
            if known is not None and known.is_folder != folder:
                return None
            node = self._nodes.child(node, part, is_folder=folder)
        return node
