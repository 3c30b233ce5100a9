"""Conflicts: the server's version keeps the name, ours goes beside it, and log, status and xattr say so."""

from __future__ import annotations

import itertools
import logging
import os
import re
import socket
import time
from typing import Final

from davfs.dav.hrefs import shown
from davfs.dav.resource import NAME_MAX_BYTES, DavPath
from davfs.errors import BadName, NotFound, StaleVersion
from davfs.fs.content import Content, path_bytes
from davfs.fs.download import Downloads
from davfs.fs.handles import Handles
from davfs.fs.inodes import Node
from davfs.fs.lifecycle import Life
from davfs.fs.queue import Pending
from davfs.fs.tree import Tree

log = logging.getLogger("davfs.upload")

SUFFIX_MAX: Final = 32  # bytes; a longer one is no suffix
# What `conflict_name` adds.
_COPY: Final = re.compile(r" \(conflict \S+ \d{4}-\d\d-\d\d \d{6}(?: \d+)?\)((?:\.[^.]*)?)$")


class Conflicts:
    def __init__(self, tree: Tree, downloads: Downloads, handles: Handles) -> None:
        self._tree = tree
        self._downloads = downloads
        self._handles = handles
        self.names: list[str] = []  # of the copies made since the start

    async def keep_both(self, pending: Pending) -> None:
        """The server's version keeps the name; ours goes beside it."""
        node, content = pending.node, pending.content
        await self._complete(node, content)
        parent = node.parent
        if parent is None:
            return
        # A copy that was never sent met another's of the same second: another name, not a copy of a copy.
        taken = node.name if content.base is not None else _COPY.sub(r"\1", node.name)
        name = await self.free_name(parent, taken)
        if node.parent is not parent or node.content is not content or content.orphan:
            return  # renamed, replaced or removed meanwhile: whoever sends it next sees that
        twin = self._tree.nodes.child(parent, name, is_folder=False)
        twin.mode = node.mode
        self._tree.unread.replaced(node.ino, content)
        content.ino, content.path = twin.ino, path_bytes(twin.path)
        content.base, content.base_size = None, 0
        content.life = Life(content.life.written + 1)
        content.save()
        twin.content, node.content = content, None
        self._tree.wishes.follow(node, twin)
        for file in self._handles.of(content):
            self._tree.nodes.pin(twin)
            file.node = twin
            self._tree.nodes.unpin(node)
        self._tree.nodes.pin(twin)
        pending.node = twin
        self._tree.meta.expire(parent.ino, node.name)
        self._tree.touched(parent)
        self._tree.changed(node)
        self.names = [each for each in self.names if taken == node.name or each != str(node.path)]
        self.note(node.path, twin)
        self._tree.nodes.unpin(node)

    async def _complete(self, node: Node, content: Content) -> None:
        """What was never read of a large file is fetched while it can be. Raises LinkError: then later."""
        try:
            await self._downloads.ensure_whole(content, lambda: node.path)
        except (StaleVersion, NotFound) as error:
            log.error(
                "%s: parts that were never read are lost from the conflict copy: %s", shown(node.path), error
            )
            content.present.add(0, content.size_bytes)

    async def make_way(self, folder: Node) -> None:
        """A file has the name of a folder that holds unsent files: it keeps the name, ours go beside it."""
        parent, name = folder.parent, folder.name
        if parent is None:
            return
        old = folder.path
        kept = await self.free_name(parent, name)
        if folder.parent is not parent or folder.name != name:
            return  # another of its files was faster
        with self._tree.store.atomically():  # a kill in the middle would leave them in two folders
            self._tree.moved(folder, parent, kept)
            for node in folder.below():
                if node.content is not None and node.content.dirty:
                    node.content.path = path_bytes(node.path)
                    node.content.save()
        self._tree.meta.expire(parent.ino, name)
        self._tree.unread.replaced(self._tree.nodes.number_of(parent, name), None)
        self.note(old, folder)

    def set_beside(self, node: Node, content: Content) -> Node:
        """Two unsent files have one path, as a power loss in a rename leaves them: both are kept.

        Returns the node of this one. Whether its name is free on the server is seen when it is sent.
        """
        parent = node.parent
        assert parent is not None
        names = (self._name(node.name, count) for count in itertools.count(1))
        name = next(name for name in names if self._tree.nodes.named(parent, name) is None)
        twin = self._tree.nodes.child(parent, name, is_folder=False)
        content.ino, content.path = twin.ino, path_bytes(twin.path)
        content.base, content.base_size = None, 0
        content.life = Life(content.life.written + 1)
        content.save()
        self.note(node.path, twin)
        return twin

    def note(self, name: DavPath, kept: Node) -> None:
        """Our version of `name` is now `kept`: said in log, status and xattr."""
        self.names.append(str(kept.path))
        log.warning(
            "conflict: %s was changed by somebody else; our version is %s", shown(name), shown(kept.path)
        )

    async def free_name(self, parent: Node, name: str) -> str:
        for count in range(1, 1000):
            candidate = self._name(name, count)
            if await self._tree.find(parent, candidate) is None:
                return candidate
        raise BadName(f"no free name for a conflict copy of {name!r}")

    def _name(self, name: str, count: int) -> str:
        return conflict_name(name, socket.gethostname(), time.localtime(self._tree.wall_s()), count)


def conflict_name(name: str, host: str, when: time.struct_time, count: int) -> str:
    """`report (conflict HOST 2026-01-31 120000).odt`, shortened to 255 bytes at its stem."""
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(os.fsencode(suffix)) > SUFFIX_MAX:
        stem, dot, suffix = name, "", ""
    mark = (
        f" (conflict {host[:64]} {time.strftime('%Y-%m-%d %H%M%S', when)}{f' {count}' if count > 1 else ''})"
    )
    room = NAME_MAX_BYTES - len(os.fsencode(mark + dot + suffix))
    while len(os.fsencode(stem)) > room:
        stem = stem[:-1]
    return f"{stem}{mark}{dot}{suffix}"
