"""The inode table: which node is behind which number, and where it is in the tree.

A node is one file or folder that somebody refers to: the kernel (lookup count), an open handle,
a child node, or an upload that is not finished. One node lives on through renames of itself and
of its parents, through unlink while open, and through being replaced by rename.

Inode numbers are a hash of (parent's number, name), so they are the same after a forget and after a
remount without being stored, and a renamed folder keeps those of everything below it. What was renamed
keeps its number through an exception table (`KnownNumbers`), which the caller makes durable.

Files that the kernel knows from a listing only are not nodes yet, but leaves of their folder (`leaves`):
`children` lacks them, and `named`, `child`, `get`, `find` and `members` make nodes of them.

All methods are synchronous, so each is atomic under trio. No I/O here.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager
from hashlib import blake2b
from types import MappingProxyType, TracebackType
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from davfs.dav.resource import DavPath
from davfs.errors import PosixError
from davfs.fs.content import Content
from davfs.fs.leaves import Leaves

T = TypeVar("T")

ROOT_INO: Final = 1
_NEVER: Final = float("-inf")
# Files have none: one for all of them.
_NO_CHILDREN: Final = cast("dict[str, Node]", MappingProxyType({}))


class KnownNumbers(Protocol):
    """Where numbers that do not follow from parent and name are kept."""

    def get(self, parent_ino: int, name: str) -> int | None: ...
    def put(self, parent_ino: int, name: str, ino: int) -> None: ...
    def drop(self, parent_ino: int, name: str) -> None: ...
    def is_promised(self, ino: int) -> bool: ...


class _Seldom(Generic[T]):
    """A field that few nodes ever set: then it is in `Node.seldom`, a dictionary that few nodes have."""

    def __init__(self, default: T) -> None:
        self._default = default

    def __set_name__(self, _owner: type[Node], name: str) -> None:
        self._name = name

    def __get__(self, node: Node, _owner: type[Node]) -> T:
        seldom = node.seldom
        return self._default if seldom is None else seldom.get(self._name, self._default)

    def __set__(self, node: Node, value: T) -> None:
        if node.seldom is None:
            if value == self._default:
                return
            node.seldom = {}
        node.seldom[self._name] = value


class Node:
    """An entry of the inode table. `parent` is None for the root and for what was unlinked."""

    __slots__ = ("content", "ino", "lookups", "name", "parent", "pins", "seldom", "told_size")

    is_folder = False
    children = _NO_CHILDREN
    leaves: Leaves | None = None

    busy = _Seldom(0)  # operations that are changing its name: what a listing says of it is old
    kernel_content = _Seldom(0)  # id of the content whose pages the kernel may hold
    ctime_ns = _Seldom(0)
    foreign_s = _Seldom(_NEVER)  # when somebody else's change of it was last noticed (trio's clock)
    atime_ns = _Seldom(0)
    lost = _Seldom(0)  # somebody else removed it, not a program here
    mode: _Seldom[int | None] = _Seldom(None)
    aside: _Seldom[DavPath | None] = _Seldom(None)  # where the server keeps an open file that lost its name
    last_mtime_ns = _Seldom(0)
    last_size = _Seldom(0)

    def __init__(self, ino: int, parent: Node | None, name: str) -> None:
        self.ino = ino
        self.parent = parent
        self.name = name
        self.lookups = 0
        self.pins = 0  # open handles, running operations, unsent content
        self.content: Content | None = None
        self.told_size = -1  # the size that the kernel was last told
        self.seldom: dict[str, Any] | None = None

    @property
    def unlinked(self) -> bool:
        return self.parent is None and self.ino != ROOT_INO

    @property
    def path(self) -> DavPath:
        """Where it is now. Raises PosixError(ENOENT) for what is not in the tree any more."""
        parts: list[str] = []
        node: Node = self
        while node.parent is not None:
            parts.append(node.name)
            node = node.parent
        if node.ino != ROOT_INO:
            raise PosixError(errno.ENOENT)
        return DavPath(tuple(reversed(parts)))

    @property
    def server_path(self) -> DavPath:
        """Where its bytes are on the server: for an open file that was removed, not where it was."""
        return self.aside if self.aside is not None else self.path

    def at(self, path: DavPath) -> Node | None:
        """The known node at this path below it; none for a leaf."""
        node: Node | None = self
        for part in path.parts:
            node = node.children.get(part) if node is not None else None
        return node

    def below(self) -> Iterator[Node]:
        """Every known node below this one, but for the leaves: nobody uses them."""
        for child in list(self.children.values()):
            yield child
            yield from child.below()

    def is_within(self, other: Node) -> bool:
        node: Node | None = self
        while node is not None:
            if node is other:
                return True
            node = node.parent
        return False

    def __repr__(self) -> str:
        return f"<Node {self.ino} {self.name!r}>"


class _Folder(Node):
    __slots__ = ("children", "leaves")

    is_folder = True

    def __init__(self, ino: int, parent: Node | None, name: str) -> None:
        super().__init__(ino, parent, name)
        self.children: dict[str, Node] = {}
        self.leaves: Leaves | None = None


def is_unsent(node: Node) -> bool:
    """Whether it holds bytes that are not known to be on the server."""
    return node.content is not None and node.content.dirty


def hashed_number(parent_ino: int, name: str, salt: int) -> int:
    """A 63-bit number above the reserved ones, from place and name."""
    digest = blake2b(f"{parent_ino}/{salt}/{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1 | 1 << 16


class InodeTable:
    def __init__(self, known: KnownNumbers) -> None:
        self.root: Node = _Folder(ROOT_INO, None, "")
        self.root.lookups = 1  # the kernel never forgets the root
        self._known = known
        self._by_ino: dict[int, Node] = {ROOT_INO: self.root}  # by the number of a leaf: its folder

    def __len__(self) -> int:
        return len(self._by_ino)

    def get(self, ino: int) -> Node:
        node = self.find(ino)
        if node is None:
            raise PosixError(errno.ESTALE, f"inode {ino} is not known any more")
        return node

    def find(self, ino: int) -> Node | None:
        node = self._by_ino.get(ino)
        if node is None or node.ino == ino:
            return node
        assert node.leaves is not None
        return self._grown(node, node.leaves.name_of(ino))

    def named(self, parent: Node, name: str) -> Node | None:
        """The known node of this name."""
        node = parent.children.get(name)
        if node is None and parent.leaves is not None and name in parent.leaves:
            return self._grown(parent, name)
        return node

    def members(self, folder: Node) -> list[Node]:
        """All known nodes in it."""
        for name in list(folder.leaves or ()):
            self._grown(folder, name)
        return list(folder.children.values())

    def _grown(self, parent: Node, name: str) -> Node:
        assert parent.leaves is not None
        ino, lookups, told_size = parent.leaves.take(name)
        node = self._by_ino[ino] = parent.children[name] = Node(ino, parent, name)
        node.lookups, node.told_size = lookups, told_size
        return node

    def kernel_has(self) -> list[int]:
        """All numbers that the kernel may come back with."""
        return [ino for ino, node in self._by_ino.items() if node.lookups or node.ino != ino]

    def number_of(self, parent: Node, name: str) -> int:
        """The number that `child` would give to this name now."""
        child = parent.children.get(name)
        if child is not None:
            return child.ino
        leaf = None if parent.leaves is None else parent.leaves.number_of(name)
        return self._number_for(parent.ino, name) if leaf is None else leaf

    def leaf_number(self, parent: Node, name: str) -> int | None:
        """The number of a file that nobody uses; None where it must be a node."""
        if name in parent.children:
            return None
        if parent.leaves is not None:
            number = parent.leaves.number_of(name)
            if number is not None or parent.leaves.is_full:
                return number
        return self._number_for(parent.ino, name)

    def told(self, parent: Node, name: str, ino: int, size_bytes: int) -> None:
        """The kernel has taken this member from a listing, and looked it up thereby."""
        node = self._by_ino.get(ino)
        if node is not None and node.ino == ino:
            node.lookups += 1
            return
        leaves = parent.leaves
        if leaves is None:
            assert isinstance(parent, _Folder)
            leaves = parent.leaves = Leaves()
        leaves.tell(name, ino, size_bytes)
        self._by_ino[ino] = parent

    def child(self, parent: Node, name: str, *, is_folder: bool) -> Node:
        """The node of this name, made if need be. A node of the other kind is replaced."""
        node = self.named(parent, name)
        if node is not None and node.is_folder == is_folder:
            return node
        if node is not None:
            self.detach(node)
        node = (_Folder if is_folder else Node)(self._number_for(parent.ino, name), parent, name)
        parent.children[name] = node
        self._by_ino[node.ino] = node
        return node

    def detach(self, node: Node) -> None:
        """Take it out of the tree (unlink, rmdir, replaced): its handles go on working."""
        parent = node.parent
        if parent is None:
            return
        if parent.children.get(node.name) is node:
            del parent.children[node.name]
        self._known.drop(parent.ino, node.name)
        node.parent = None
        self.release(node)
        self.release(parent)

    def move(self, node: Node, parent: Node, name: str) -> Node | None:
        """Rename; returns the node that was there before, detached."""
        replaced = self.named(parent, name)
        if replaced is node:
            return None
        if replaced is not None:
            self.pin(parent)  # it may be all that keeps the folder in the table
            self.detach(replaced)
            parent.pins -= 1
        old_parent = node.parent
        assert old_parent is not None
        del old_parent.children[node.name]
        self._known.drop(old_parent.ino, node.name)
        node.parent, node.name = parent, name
        parent.children[name] = node
        if hashed_number(parent.ino, name, 0) == node.ino:
            self._known.drop(parent.ino, name)
        else:
            self._known.put(parent.ino, name, node.ino)
        self.release(old_parent)
        return replaced

    def forget(self, ino: int, count: int) -> None:
        node = self._by_ino.get(ino)
        if node is None or ino == ROOT_INO:
            return
        if node.ino == ino:
            node.lookups = max(0, node.lookups - count)
            self.release(node)
        elif node.leaves is not None and node.leaves.forget(ino, count):
            del self._by_ino[ino]
            self.release(node)

    def pin(self, node: Node) -> None:
        node.pins += 1

    def unpin(self, node: Node) -> None:
        node.pins -= 1
        self.release(node)

    def held(self, *nodes: Node | None) -> AbstractContextManager[None]:
        """While an operation works on them they stay in the table, whoever lets go of them."""
        return _Held(self, nodes)

    def release(self, node: Node | None) -> None:
        """Drop nodes that nobody refers to any more, upwards."""
        while node is not None and node.ino != ROOT_INO:
            if node.lookups or node.pins or node.children or node.leaves:
                return
            if self._by_ino.get(node.ino) is node:
                del self._by_ino[node.ino]
            parent = node.parent
            if parent is not None and parent.children.get(node.name) is node:
                del parent.children[node.name]
            node = parent

    def _number_for(self, parent_ino: int, name: str) -> int:
        known = self._known.get(parent_ino, name)
        if known is not None and known not in self._by_ino:
            return known
        salt = 0
        while True:
            ino = hashed_number(parent_ino, name, salt)
            if ino not in self._by_ino and not self._known.is_promised(ino):
                break
            salt += 1
        if salt:
            self._known.put(parent_ino, name, ino)
        return ino


class _Held:
    """No generator: each removed file has one."""

    __slots__ = ("_nodes", "_table")

    def __init__(self, table: InodeTable, nodes: tuple[Node | None, ...]) -> None:
        self._table = table
        self._nodes = nodes

    def __enter__(self) -> None:
        for node in self._nodes:
            if node is not None:
                self._table.pin(node)
                node.busy += 1

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for node in self._nodes:
            if node is not None:
                node.busy -= 1
                self._table.unpin(node)
