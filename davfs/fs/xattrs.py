"""Extended attributes of programs (`user.*`) as dead properties, and those that davfs tells itself.

Which attributes a file has comes with its listing, where anybody on this share has ever set one (`marker`);
their values are asked for when a program wants one, and hold until the file's inventory changes. So on a
share where none was ever set, and for every file without any, no program costs a request by asking: `ls -l`,
`cp -a` and file managers ask for each file.

What is set on a file of which the server has not got all bytes yet is a wish (`wishes`), and goes after them.
Namespaces other than `user` are not supported: `ls` and `cp` go on quietly when told so.
"""

from __future__ import annotations

import errno
from typing import Final

from cachetools import LRUCache

from davfs.dav.attributes import (
    NAME_MAX_BYTES,
    VALUE_MAX_BYTES,
    XATTR_PREFIX,
    Inventory,
    value_of,
    value_text,
    xattr_property,
)
from davfs.dav.properties import EXECUTABLE, XATTRS
from davfs.dav.resource import DavPath
from davfs.errors import NotFound, PosixError
from davfs.fs.inodes import Node, is_unsent
from davfs.fs.metadata import Entry
from davfs.fs.permissions import is_executable
from davfs.fs.pushes import Pushes, xattrs_in
from davfs.fs.tree import Tree

OWN_PREFIX: Final = "user.davfs."  # what davfs tells: see `Filesystem`
WORD: Final = "xattr"  # of `properties.KEPT_WORDS`
TOGETHER: Final = 8  # values that are asked for at once: 8 of 64 KiB stay below 1 MiB
CACHE_BYTES: Final = 4 << 20


class Xattrs:
    def __init__(self, tree: Tree, pushes: Pushes) -> None:
        self._tree = tree
        self._pushes = pushes
        self._client = tree.client
        # By inode number, serial of the inventory, name.
        self._values: LRUCache[tuple[int, str, str], bytes] = LRUCache(
            CACHE_BYTES, getsizeof=lambda value: len(value) + 200
        )

    # --- reading

    async def names(self, node: Node) -> list[str]:
        added, removed = xattrs_in(self._tree.wishes.changes_of(node))
        return sorted(((await self._inventory(node)).names | added) - removed)

    async def get(self, node: Node, name: str) -> bytes:
        """Raises PosixError(ENODATA) when it has none of this name."""
        tag = xattr_property(name)
        wished = self._tree.wishes.changes_of(node)
        if tag in wished:
            return _value(wished[tag])
        inventory = await self._inventory(node)
        if name not in inventory.names:
            raise PosixError(errno.ENODATA)
        key = (node.ino, inventory.serial, name)
        if key not in self._values:
            await self._fetch(node, inventory, name)
        value = self._values.get(key)
        if value is None:
            raise PosixError(errno.ENODATA)
        return value

    async def _inventory(self, node: Node) -> Inventory:
        """Of what the server has. No request where none was ever set, or while what is known is fresh."""
        if WORD not in self._tree.marker.in_use or node.unlinked:
            return Inventory()
        entry = await self._entry(node)
        return Inventory.parse(entry.resource.extra(XATTRS) if entry and entry.resource else None)

    async def _entry(self, node: Node) -> Entry | None:
        if node.parent is None:
            await self._tree.know(node)
            return self._tree.known_entry(node)
        if is_unsent(node):
            return self._tree.known_entry(node)
        return await self._tree.entry(node.parent, node.name, soon=True)

    async def _fetch(self, node: Node, inventory: Inventory, name: str) -> None:
        """With its neighbours: who asks for one asks for the next."""
        names = sorted(inventory.names)
        start = names.index(name) // TOGETHER * TOGETHER
        found = await self._values_at(
            node.path, names[start : start + TOGETHER], is_collection=node.is_folder
        )
        for each, text in found.items():
            value = value_of(text)
            if value is not None and len(value) <= VALUE_MAX_BYTES:
                self._values[node.ino, inventory.serial, each] = value

    async def _values_at(self, path: DavPath, names: list[str], *, is_collection: bool) -> dict[str, str]:
        tags = {xattr_property(name): name for name in names}
        found = await self._client.properties_of(path, tags, is_collection=is_collection)
        return {tags[tag]: text for tag, text in found.items() if tag in tags}

    # --- changing

    async def set(self, node: Node, name: str, value: bytes) -> None:
        """Raises EOPNOTSUPP where the server keeps no properties."""
        self._may_change(node, name)
        if len(name.encode("utf-8", "surrogateescape")) > NAME_MAX_BYTES:
            raise PosixError(errno.ERANGE)
        if len(value) > VALUE_MAX_BYTES:
            raise PosixError(errno.E2BIG)
        if not await self._tree.marker.begin(WORD):
            raise PosixError(errno.EOPNOTSUPP, "this server keeps no properties")
        await self._change(node, {xattr_property(name): value_text(value)})

    async def remove(self, node: Node, name: str) -> None:
        self._may_change(node, name)
        if name not in await self.names(node):
            raise PosixError(errno.ENODATA)
        await self._change(node, {xattr_property(name): None})

    def _may_change(self, node: Node, name: str) -> None:
        if not name.startswith(XATTR_PREFIX):
            raise PosixError(errno.EOPNOTSUPP)
        if name.startswith(OWN_PREFIX):
            raise PosixError(errno.EPERM, "this is what davfs tells, and nobody sets")
        if self._tree.settings.read_only:
            raise PosixError(errno.EROFS)
        if node.unlinked:
            raise PosixError(errno.EOPNOTSUPP, "the file has no name any more")

    async def _change(self, node: Node, changes: dict[str, str | None]) -> None:
        if self._pushes.must_wait(node) or not await self._pushes.store(node, changes):
            self._tree.wishes.add(node, changes)

    # --- bodies that take the place of others

    async def carry(self, node: Node, staged: DavPath) -> None:
        """An upload under a temporary name is about to replace this file: its properties go along.

        MOVE gives the name those of its source. Costs requests only where the old file has any.
        """
        entry = self._tree.known_entry(node)
        if WORD not in self._tree.marker.in_use and not (entry and is_executable(entry.resource)):
            return
        try:
            old = await self._client.stat(node.path)
        except NotFound:
            return
        texts: dict[str, str] = {}
        inventory = Inventory.parse(old.extra(XATTRS))
        names = sorted(inventory.names)
        for start in range(0, len(names), TOGETHER):
            together = names[start : start + TOGETHER]
            found = await self._values_at(node.path, together, is_collection=False)
            texts.update((xattr_property(name), text) for name, text in found.items())
        if texts:
            texts[XATTRS] = inventory.text()
        if old.executable:
            texts[EXECUTABLE] = "T"
        if texts:
            await self._pushes.store_at(staged, texts)


def _value(text: str | None) -> bytes:
    value = value_of(text) if text is not None else None
    if value is None:
        raise PosixError(errno.ENODATA)
    return value
