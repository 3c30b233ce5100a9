"""The inode table against a model that knows which file is where, under random kernels.

The model is a dict of paths to files; each file has the number it was first seen with. Invariants: a file
that still exists has that number whenever it is looked up, no two live nodes share a number, an open file's
number finds its node, and an empty kernel leaves an empty table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from davfs.fs import schema
from davfs.fs.database import Database
from davfs.fs.index import Numbers
from davfs.fs.inodes import InodeTable, Node

folders = st.sampled_from(["", "d", "e"])
names = st.sampled_from(["a", "b", "tmp"])


class Kernels(RuleBasedStateMachine):
    held = Bundle("held")  # nodes with one look-up each
    open_files = Bundle("open_files")

    def __init__(self) -> None:
        super().__init__()
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.executescript(schema.ALL)
        self.table = InodeTable(Numbers(Database(self.db)))
        self.numbers: dict[tuple[int, str], int] = {}  # (folder's number, name) -> the file's number
        self.nodes: list[Node] = []  # one entry for each look-up that was not taken back
        self.pinned: list[Node] = []
        self.listed: list[int] = []  # one number for each member of a listing that was not taken back

    @contextmanager
    def folder(self, name: str) -> Iterator[Node]:
        """Held while an operation works in it, as the kernel does."""
        root = self.table.root
        node = root if not name else self.known(root, name, is_folder=True)
        self.table.pin(node)
        yield node
        self.table.unpin(node)

    def known(self, parent: Node, name: str, *, is_folder: bool = False) -> Node:
        node = self.table.child(parent, name, is_folder=is_folder)
        first = self.numbers.setdefault((parent.ino, name), node.ino)
        assert node.ino == first
        return node

    @rule(target=held, folder=folders, name=names)
    def look_up(self, folder: str, name: str) -> Node:
        with self.folder(folder) as parent:
            node = self.known(parent, name)
            node.lookups += 1
        self.nodes.append(node)
        return node

    @rule(folder=folders, name=names)
    def list_folder(self, folder: str, name: str) -> None:
        """The kernel is told of a member by a listing, which may need no node."""
        with self.folder(folder) as parent:
            ino = self.table.leaf_number(parent, name)
            if ino is None:
                ino = self.known(parent, name).ino
            assert ino == self.numbers.setdefault((parent.ino, name), ino)
            self.table.told(parent, name, ino, 0)
        self.listed.append(ino)

    @rule(data=st.data())
    def forget_listed(self, data: st.DataObject) -> None:
        if self.listed:
            ino = self.listed.pop(data.draw(st.integers(0, len(self.listed) - 1)))
            self.table.forget(ino, 1)

    @rule(node=consumes(held))
    def forget(self, node: Node) -> None:
        if node in self.nodes:  # and not from before a remount
            self.nodes.remove(node)
            self.table.forget(node.ino, 1)

    @rule(target=open_files, node=held)
    def open(self, node: Node) -> object:
        if node not in self.nodes:
            return multiple()
        self.table.pin(node)
        self.pinned.append(node)
        return node

    @rule(node=consumes(open_files))
    def close(self, node: Node) -> None:
        if node in self.pinned:
            self.pinned.remove(node)
            self.table.unpin(node)

    @rule(folder=folders, name=names)
    def unlink(self, folder: str, name: str) -> None:
        with self.folder(folder) as parent:
            node = self.known(parent, name)
            del self.numbers[parent.ino, name]
            self.table.detach(node)

    @rule(folder=folders, name=names, new_folder=folders, new_name=names)
    def rename(self, folder: str, name: str, new_folder: str, new_name: str) -> None:
        with self.folder(folder) as old, self.folder(new_folder) as new:
            self.moved(self.known(old, name), new, new_name)

    def moved(self, node: Node, parent: Node, name: str) -> None:
        assert node.parent is not None
        before = (node.parent.ino, node.name)
        self.table.pin(node)
        self.table.move(node, parent, name)
        self.table.unpin(node)
        self.numbers[parent.ino, name] = self.numbers.pop(before)

    @rule()
    def swap_folders(self) -> None:
        """d and e change places, by a third name."""
        root = self.table.root
        for old, new in (("d", "f"), ("e", "d"), ("f", "e")):
            with self.folder(old) as node:
                self.moved(node, root, new)

    @rule()
    def remount(self) -> None:
        self.nodes.clear()
        self.pinned.clear()
        self.listed.clear()
        self.table = InodeTable(Numbers(Database(self.db)))

    @invariant()
    def every_held_node_is_found_by_its_number(self) -> None:
        live = [*self.nodes, *self.pinned]
        for node in live:
            assert self.table.find(node.ino) is node
        assert len({node.ino for node in live}) == len({id(node) for node in live})
        assert {node.ino for node in self.nodes}.union(self.listed) <= set(self.table.kernel_has())

    def teardown(self) -> None:
        for node in self.pinned:
            self.table.unpin(node)
        for node in self.nodes:
            self.table.forget(node.ino, 1)
        for ino in self.listed:
            self.table.forget(ino, 1)
        for node in list(self.table.root.below()):
            self.table.release(node)  # what was looked at in passing
        assert len(self.table) == 1
        self.db.close()


TestKernels = Kernels.TestCase
TestKernels.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
