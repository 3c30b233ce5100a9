"""Names: mkdir, rmdir, unlink (rename: `renaming`). Written through, but for what the server has never seen.

Unlink cancels what is unsent. POSIX checks come before the request, because servers do what they like.

Invariants: DELETE goes only to what a program removed here, and to a folder only right after a listing
showed it empty.
"""

from __future__ import annotations

import errno
import functools
from typing import Final

from davfs.dav.resource import DavPath, Validator
from davfs.errors import (
    AlreadyExists,
    DavfsError,
    Forbidden,
    NotFound,
    ParentMissing,
    PosixError,
    PreconditionFailed,
    ServerRefused,
    StaleVersion,
)
from davfs.fs.guard import patiently
from davfs.fs.inodes import Node
from davfs.fs.permissions import check_making
from davfs.fs.renaming import SETTLE_S, Renaming
from davfs.fs.spellings import name_after, raise_if_filtered

_MAY_MEAN_TAKEN: Final = frozenset({405, 406, 409, 423})  # MKCOL of a name that is there (peers.md, rule 5)


class Namespace(Renaming):
    # --- folders

    async def mkdir(self, parent: Node, name: str, mode: int) -> Node:
        self.must_be_writable(parent)
        if await self._tree.find(parent, name) is not None:
            raise PosixError(errno.EEXIST)
        check_making(self._tree.known_resource(parent), parent.name, is_folder=True)
        path = parent.path.child(name)
        if self._tree.client.capabilities.makes_folders_again and await self._tree.client.has(path):
            raise PosixError(errno.EEXIST)  # rclone would say 201: programs take mkdir for a lock
        try:
            await self._tree.client.mkcol(path)
        except DavfsError as error:
            if error.outcome_unknown:
                await self._really_failed(error, path, made=True)
            else:
                await self._raise_for_mkcol(error, parent, name)
        node = self._tree.made_folder(parent, await name_after(self._tree, parent, name))
        mode &= self._settings.create_mask
        if mode & 0o777 != self._settings.dir_mode:
            self._tree.keep_mode(node, mode)
        return node

    async def _raise_for_mkcol(self, error: DavfsError, parent: Node, name: str) -> None:
        """Servers say several things to a name that is taken, and 405 when they make no folders at all."""
        if isinstance(error, ServerRefused) and error.status in _MAY_MEAN_TAKEN:
            self._tree.meta.expire(parent.ino, name)
            if (await self._tree.entry(parent, name)).resource is not None:
                raise PosixError(errno.EEXIST) from None
            if isinstance(error, AlreadyExists):
                raise Forbidden(str(error), status=error.status) from None
        if isinstance(error, ParentMissing | NotFound):
            raise_if_filtered(self._tree.client, error, name)
        raise error

    async def rmdir(self, parent: Node, name: str) -> None:
        self.must_be_writable(parent)
        node = await self._existing(parent, name)
        if not node.is_folder:
            raise PosixError(errno.ENOTDIR)
        with self._tree.nodes.held(node):
            await self._uploads.settle_staged(SETTLE_S, node)
            await self._must_be_empty(node)
            await self._guard.locks.give_up(node.path)
            await self._delete(node, node.path)
            self._tree.removed(node)

    # --- files

    async def unlink(self, parent: Node, name: str) -> None:
        self.must_be_writable(parent)
        if self._renames.left:
            await self.settle_renames_at(parent.path.child(name))
        node = await self._existing(parent, name)
        if node.is_folder:
            raise PosixError(errno.EISDIR)
        with self._tree.nodes.held(node), self._uploads.paused(node):
            try:
                await self._free_name(node)
            except BaseException:
                self._uploads.resume(node)
                raise
            self._tree.removed(node)

    async def _free_name(self, node: Node) -> None:
        """Nothing of this file is on the server any more; open handles can go on."""
        path = node.path
        await self._guard.locks.give_up(path)
        content = node.content
        if content is None:
            await self._delete(node, path)
            return
        # Before it is set aside: it would be stored after that.
        if content.dirty and not await self._uploads.abandon(content):
            raise StaleVersion(f"{node.name!r} was changed by somebody else: ours stands beside it")
        set_aside = await self._preserve(node, by_copy=False)
        content = node.content
        if content is not None:
            self._uploads.delivery.gave_up(node.path, content)
        if content is not None and content.dirty and not content.on_server:
            return
        if not set_aside:
            await self._guard.locks.give_up(node.path)
            await self._delete(node, node.path)

    async def _delete(self, node: Node, path: DavPath) -> None:
        """No lock of ours is left on it."""
        self.emptying.removes(node)
        try:
            await patiently(functools.partial(self._delete_seen, node, path))
        except NotFound:
            return
        except DavfsError as error:
            await self._really_failed(error, path, made=False)

    async def _delete_seen(self, node: Node, path: DavPath) -> None:
        """DELETE of the version that this machine has seen, where a strong tag can say which that is."""
        client = self._tree.client
        entry = self._tree.meta.stale_entry(node.parent.ino, node.name) if node.parent is not None else None
        seen = entry.resource.validator if entry is not None and entry.resource is not None else Validator()
        if node.is_folder or seen.if_match is None:
            await client.delete(path, is_collection=node.is_folder)
            return
        try:
            await client.delete(path, is_collection=False, if_match=seen.if_match)
        except PreconditionFailed:
            found = (await self._tree.refreshed(node)).resource
            if found is not None and not (found.is_collection or seen.same_version(found.validator)):
                text = f"{node.name!r} was changed by somebody else since it was last seen here: not removed"
                raise StaleVersion(text) from None
            # lighttpd says 412 to the right tag of an aged file (servers.md, table 5).
            await client.delete(path, is_collection=False)

    async def forget_set_aside(self, node: Node) -> None:
        """The last handle of a file that was set aside is closed."""
        aside, node.aside = node.aside, None
        if aside is not None:
            await self._leftovers.remove(self._tree.client, aside)
