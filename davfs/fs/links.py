"""Symbolic links, where the server keeps properties: a small file whose property holds the target.

The bytes of the file are the target too, so who sees no link sees where it leads. A link is made under a
temporary name, which is noted first, and then moved to its own: nobody sees a file that is no link yet, and a
crash leaves nothing under the name. That it is one comes with the listing of its folder (`marker`).

A link never leads the daemon anywhere. Targets are not looked at, and not judged: only the kernel follows.
"""

from __future__ import annotations

import errno
import os
import secrets
from typing import Final

import trio

from davfs.dav.attributes import TARGET_MAX_BYTES, target_text
from davfs.dav.hrefs import shown
from davfs.dav.properties import EXTRA_TEXT_MAX, LINK
from davfs.dav.resource import DavPath, Resource
from davfs.dav.wire import Octets
from davfs.errors import DavfsError, NotFound, PosixError, PreconditionFailed, ServerRefused
from davfs.fs.guard import Guard
from davfs.fs.inodes import Node
from davfs.fs.leftovers import Leftovers
from davfs.fs.metadata import Entry
from davfs.fs.permissions import check_making
from davfs.fs.pushes import Pushes
from davfs.fs.tree import HIDDEN_PREFIX, Tree

WORD: Final = "symlink"  # of `properties.KEPT_WORDS`


class Links:
    def __init__(self, tree: Tree, guard: Guard, leftovers: Leftovers, pushes: Pushes) -> None:
        self._tree = tree
        self._guard = guard
        self._leftovers = leftovers
        self._pushes = pushes

    async def make(self, parent: Node, name: str, target: str) -> Node:
        """Raises EOPNOTSUPP where the server keeps no properties, or with `symlinks=never`."""
        raw = os.fsencode(target)
        if not raw or b"\0" in raw:
            raise PosixError(errno.ENOENT if not raw else errno.EINVAL)
        if len(raw) > TARGET_MAX_BYTES or len(target_text(target)) > EXTRA_TEXT_MAX:
            raise PosixError(errno.ENAMETOOLONG)
        if await self._tree.find(parent, name) is not None:
            raise PosixError(errno.EEXIST)
        check_making(self._tree.known_resource(parent), parent.name)
        path = parent.path.child(name)
        if not self._tree.settings.symlinks or self._is_unsafe(path) or not await self._begin():
            raise PosixError(errno.EOPNOTSUPP, f"{shown(path)}: no symbolic links on this share")
        try:
            await self._make(path, raw, target_text(target))
        except PreconditionFailed:
            self._tree.meta.expire(parent.ino, name)
            raise PosixError(errno.EEXIST, f"{shown(path)}: somebody else made it") from None
        resource = Resource(
            is_collection=False,
            size_bytes=len(raw),
            mtime_s=int(self._tree.wall_s()),
            extras=((LINK, target_text(target)),),
        )
        now_s = trio.current_time()
        self._tree.meta.learn(parent.ino, name, Entry(resource, now_s, None, ours=True))
        self._tree.touched(parent)
        return self._tree.nodes.child(parent, name, is_folder=False)

    async def _begin(self) -> bool:
        return await self._tree.marker.begin(WORD)

    def _is_unsafe(self, path: DavPath) -> bool:
        return any(self._tree.client.capabilities.move_unsafe(part) for part in path.parts)

    async def _make(self, path: DavPath, raw: bytes, text: str) -> None:
        client = self._tree.client
        staged = path.parent.child(f"{HIDDEN_PREFIX}{secrets.token_hex(8)}")
        self._leftovers.note(staged)
        try:
            await client.put(staged, Octets(raw), is_new=True)
            await self._pushes.store_at(staged, {LINK: text})
            await self._guard.move(staged, path, None)
        except DavfsError as error:
            if isinstance(error, ServerRefused):
                await self._leftovers.remove(client, staged)
            else:
                self._leftovers.give_up(staged)
            if not (error.outcome_unknown and await self._is_there(path, text)):
                raise
        except BaseException:
            self._leftovers.give_up(staged)
            raise
        self._leftovers.forget(staged)

    async def _is_there(self, path: DavPath, text: str) -> bool:
        """Whether the answer alone was lost."""
        try:
            return (await self._tree.client.stat(path)).extra(LINK) == text
        except NotFound:
            return False

    async def target(self, node: Node) -> str:
        """Raises EINVAL for what is no link."""
        await self._tree.know(node)
        target = self._tree.link_target(node)
        if target is None:
            raise PosixError(errno.EINVAL)
        return os.fsdecode(target)
