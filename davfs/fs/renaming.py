"""Rename, over whatever stands there, of what is sent and what is not. `Namespace` adds the other changes.

What is unsent needs no request: its journal row moves. Renaming a temporary file over the real one is
therefore one conditional PUT at the final name. POSIX checks come before the request, because servers do what
they like (MOVE onto a folder deletes the tree on most of them: servers.md 3).

Invariant: MOVE always says Overwrite, T only where the target was seen and may be replaced.
"""

from __future__ import annotations

import errno
import functools
import os
import secrets
from contextlib import suppress
from typing import Final

import trio

from davfs.dav.hrefs import shown
from davfs.dav.resource import ROOT, DavPath, Resource, Validator
from davfs.errors import (
    DavfsError,
    NotFound,
    ParentMissing,
    PosixError,
    PreconditionFailed,
    ServerRefused,
    StaleVersion,
)
from davfs.fs.body import FileBody
from davfs.fs.conflict import Conflicts
from davfs.fs.content import Content, path_bytes
from davfs.fs.emptying import Emptying
from davfs.fs.files import Files
from davfs.fs.guard import EMPTY_FOLDER, SMALL_NEW, Guard, Known
from davfs.fs.handles import Handles
from davfs.fs.inodes import Node, is_unsent
from davfs.fs.leftovers import Leftovers
from davfs.fs.metadata import NEVER, Entry
from davfs.fs.permissions import check_making, check_writing
from davfs.fs.renames import Rename, Renames
from davfs.fs.settings import Settings
from davfs.fs.spellings import move, name_after, raise_if_filtered
from davfs.fs.store import ContentStore
from davfs.fs.tree import HIDDEN_PREFIX, Tree
from davfs.fs.upload import Bound, Uploads

SETTLE_S: Final = 20.0  # how long a rename waits for a running upload of the same file
_MAY_MEAN_NO_FOLDERS: Final = frozenset({400, 403, 405, 409, 500})  # MOVE over a folder
_MAY_MEAN_TAKEN: Final = frozenset({405, 406, 409, 423})  # MKCOL of a name that is there (peers.md, rule 5)


class Renaming:
    def __init__(
        self,
        tree: Tree,
        store: ContentStore,
        files: Files,
        uploads: Uploads,
        handles: Handles,
        settings: Settings,
        *,
        guard: Guard,
        conflicts: Conflicts,
        leftovers: Leftovers,
        renames: Renames,
    ) -> None:
        self._tree = tree
        self._store = store
        self._files = files
        self._uploads = uploads
        self._handles = handles
        self._guard = guard
        self._conflicts = conflicts
        self._leftovers = leftovers
        self._renames = renames
        self._settings = settings
        self._bases: dict[Node, tuple[Content, Known | None]] = {}  # of what a copy was set aside of
        self.emptying = Emptying(tree)

    async def _must_be_empty(self, node: Node) -> None:
        """DELETE removes whole trees, so the server is asked right before."""
        if await self.emptying.was_just_empty(node):
            return
        if self._tree.known_names(node) and self._tree.meta.listing_is_fresh(node.ino, trio.current_time()):
            raise PosixError(errno.ENOTEMPTY)
        if await self._tree.list_names(node, now=True):
            raise PosixError(errno.ENOTEMPTY)

    async def _preserve(self, node: Node, *, by_copy: bool) -> bool:
        """Before an open file goes: fetch the rest, or set it aside on the server. True if its name is free.

        A file that will be replaced is copied aside, so that its name is never without a file.
        """
        if await self._files.keep_readable(node):
            return False
        content = node.content
        if content is None:
            return False
        aside = ROOT.child(f"{HIDDEN_PREFIX}{secrets.token_hex(8)}")
        set_aside = self._tree.client.copy if by_copy else self._tree.client.move
        self._leftovers.note(aside)
        try:
            await set_aside(node.path, aside, is_collection=False, overwrite=False)
        except DavfsError as error:
            if not error.outcome_unknown:
                self._leftovers.forget(aside)
            await self._really_failed(error, aside, made=True)
        node.aside = aside
        if by_copy:
            self._bases[node] = content, _known_base(content)
        await self._rebase(content, aside)
        return not by_copy

    async def _not_replaced(self, target: Node) -> None:
        """It was not replaced after all: what was done for that is undone."""
        self._guard.locks.moved(target)
        self._uploads.resume(target)
        if target not in self._bases:
            return
        content, base = self._bases[target]
        aside, target.aside = target.aside, None
        content.rebase(*((base.version, base.digest) if base is not None else (None, None)))
        if aside is not None:
            await self._leftovers.remove(self._tree.client, aside)

    async def _really_failed(self, error: DavfsError, path: DavPath, *, made: bool) -> None:
        """The answer got lost: ask the server what happened before anybody is told (peers.md, rule 8)."""
        if not error.outcome_unknown:
            raise error
        try:
            await self._tree.client.stat(path)
            exists = True
        except NotFound:
            exists = False
        except DavfsError:
            raise error from None
        if exists is not made:
            raise error

    async def rename(
        self, parent: Node, name: str, new_parent: Node, new_name: str, *, no_replace: bool
    ) -> None:
        self.must_be_writable(parent)
        self.must_be_writable(new_parent)
        paths = parent.path.child(name), new_parent.path.child(new_name)
        in_doubt = any((rename.source, rename.destination) == paths for rename in self._renames.left)
        await self.settle_renames_at(*paths)
        has_come = in_doubt and self._tree.nodes.named(new_parent, new_name) is not None
        if has_come and self._tree.nodes.named(parent, name) is None:
            return  # it was done, and nobody had heard of it
        node = await self._existing(parent, name)
        with self._tree.nodes.held(node):
            await self._rename(node, new_parent, new_name, no_replace=no_replace)

    async def _rename(self, node: Node, new_parent: Node, new_name: str, *, no_replace: bool) -> None:
        if new_parent.is_within(node):
            raise PosixError(errno.EINVAL)
        target = await self._tree.find(new_parent, new_name)
        if target is node:
            return
        if target is not None and no_replace:
            raise PosixError(errno.EEXIST)
        if target is not None:
            await self._may_replace(node, target)
        elif new_parent is not node.parent:
            folder = self._tree.known_resource(new_parent)
            check_making(folder, new_parent.name, is_folder=node.is_folder)
        rename = self._rename_folder if node.is_folder else self._rename_file
        with self._tree.nodes.held(target), self._uploads.paused(node, target):
            try:
                await self._guard.locks.give_up(node.path)
                await self._guard.locks.give_up(new_parent.path.child(new_name))
                await rename(node, new_parent, new_name, target)
            except PreconditionFailed:
                self._tree.meta.expire(new_parent.ino, new_name)
                raise PosixError(errno.EEXIST, f"{new_name!r}: somebody else made it meanwhile") from None
            finally:
                self._guard.locks.moved(node)
                if target is not None and not target.unlinked:
                    await self._not_replaced(target)
                if target is not None:
                    self._bases.pop(target, None)

    async def _may_replace(self, node: Node, target: Node) -> None:
        if node.is_folder and not target.is_folder:
            raise PosixError(errno.ENOTDIR)
        if target.is_folder and not node.is_folder:
            raise PosixError(errno.EISDIR)
        if target.is_folder:
            await self._must_be_empty(target)
        else:
            check_writing(self._tree.known_resource(target), target.name)

    async def _rename_folder(self, node: Node, new_parent: Node, new_name: str, target: Node | None) -> None:
        for pending in self._uploads.below(node):
            await self._uploads.settle_running(pending.content, SETTLE_S)
        await self._uploads.settle_staged(SETTLE_S, node, target)
        destination, client = new_parent.path.child(new_name), self._tree.client
        if target is None and client.capabilities.moves_folders_into_others and await client.has(destination):
            raise PosixError(errno.EEXIST, f"{new_name!r}: somebody else made it meanwhile")
        send = functools.partial(self._move, node, destination)
        try:
            await send(EMPTY_FOLDER if target is not None else None)
        except ServerRefused as error:
            if target is None or error.status not in _MAY_MEAN_NO_FOLDERS:
                raise
            await self._must_be_empty(target)
            await self.emptying.making_way(target, send)
        self._moved(node, new_parent, await name_after(self._tree, new_parent, new_name))

    async def _rename_file(self, node: Node, new_parent: Node, new_name: str, target: Node | None) -> None:
        over = await self._take_over(target) if target is not None else None
        destination = new_parent.path.child(new_name)
        content = await self._settled(node, None if self._move_is_unsafe(destination) else Bound(over))
        if content is not None:
            self._uploads.delivery.gave_up(node.path, content)
        if content is not None and content.dirty and not content.on_server:
            self._rename_unsent(node, content, new_parent, new_name, over)
            return
        if self._move_is_unsafe(destination):
            await self._send_again(node, destination, over)
            self._moved(node, new_parent, new_name)
            self._tree.meta.expire(new_parent.ino, new_name)
            return
        based = content is not None and content.dirty and await self._is_base(node, content)
        unsent = target.content if target is not None and is_unsent(target) else None
        try:
            await self._move_over(node, destination, over, unsent)
            self._moved(node, new_parent, await name_after(self._tree, new_parent, new_name))
        except PreconditionFailed:
            if target is None:
                raise
            await self._move_over_or_beside(node, new_parent, new_name, target)
        except NotFound:
            if content is None or not (content.dirty and content.complete):
                raise
            # Somebody took it away, and we hold an edit of it, whole: that goes to its new name.
            self._rename_unsent(node, content, new_parent, new_name, over)
            return
        if content is not None and based and content.base is not None:
            await self._rebase(content, node.path, content.base.size_bytes)

    async def _move_over(
        self, node: Node, destination: DavPath, over: Known | None, unsent: Content | None
    ) -> None:
        """What changed there may be an upload of ours that was given up, and landed late."""
        try:
            await self._move(node, destination, over, replaces=unsent)
        except PreconditionFailed:
            ours = await self._uploads.delivery.landed(destination)
            if ours is None:
                raise
            await self._move(node, destination, ours, replaces=unsent)

    async def _move_over_or_beside(self, node: Node, parent: Node, name: str, target: Node) -> None:
        """The version that was to be replaced is not there any more."""
        unsent = target.content if is_unsent(target) else None
        try:
            await self._move(node, parent.path.child(name), await self._instead(target), replaces=unsent)
        except PreconditionFailed:
            self._uploads.resume(target)
            await self._move_beside(node, parent, name)
        else:
            self._moved(node, parent, name)

    async def _instead(self, target: Node) -> Known | None:
        """What may be replaced, when the version that was known is not there any more.

        Nothing, if somebody removed it; or an upload of ours that nobody answered and that landed late.
        Raises PreconditionFailed when it is somebody else's.
        """
        content, found = target.content, await self._held(target.path)
        if found is None:
            return None
        if content is not None and await self._came_late(target, content, found):
            return Known(found.validator, content.base_digest)
        raise PreconditionFailed(f"{shown(target.path)}: it changed on the server", status=412)

    async def _came_late(self, target: Node, content: Content, found: Resource) -> bool:
        if found.is_collection or found.size_bytes not in content.unanswered.sizes:
            return False
        return await self._uploads.delivery.is_ours(target, content, found)

    async def _move_beside(self, node: Node, parent: Node, name: str) -> None:
        """The file that this one was to replace was changed by somebody else: both survive."""
        kept = await self._conflicts.free_name(parent, name)
        await self._move(node, parent.path.child(kept), None)
        self._moved(node, parent, kept)
        self._tree.meta.expire(parent.ino, name)
        self._conflicts.note(parent.path.child(name), node)

    async def _send_again(self, node: Node, destination: DavPath, over: Known | None) -> None:
        """Rename where MOVE would end at another name (WsgiDAV cuts Destination at '?'): PUT, then DELETE."""
        opened = await self._files.open(node, os.O_RDONLY)
        try:
            content = self._handles.file(opened.handle).content
            await self._files.fetch_all(node, content)
            base = content.base
            if not await self._is_base(node, content):
                raise StaleVersion(f"{node.name!r} was changed by somebody else: it is not removed")
            mtime_s = content.mtime_ns // 1_000_000_000
            with content.steady() as fd:
                body = FileBody(fd, content.size_bytes)
                if over is None:
                    try:
                        await self._guard.put_new(destination, body, mtime_s=mtime_s)
                    except ParentMissing as error:
                        raise_if_filtered(self._tree.client, error, destination.name)
                        raise
                else:
                    await self._guard.put_over(destination, body, over, mtime_s=mtime_s)
            await self._rebase(content, destination, body.size_bytes)
        finally:
            self._files.release(opened.handle)
        if_match = base.if_match if base is not None else None
        await self._tree.client.delete(node.path, is_collection=False, if_match=if_match)

    async def _settled(self, node: Node, bound: Bound | None = None) -> Content | None:
        """Its content when nothing of it is being sent, and what the server has is known if it can be.

        `bound` for another name: an upload that can go there instead goes on.
        """
        content = node.content
        if content is not None and content.dirty:
            await self._uploads.settle_running(content, SETTLE_S, bound)
        content = node.content
        if content is not None and content.dirty and content.life.unknown:
            await self._resolve_unknown(node, content)
        return node.content

    def _rename_unsent(
        self, node: Node, content: Content, new_parent: Node, new_name: str, over: Known | None
    ) -> None:
        """No request: our bytes will be PUT at the new name, over the version that we know there.

        Sync: an upload that is on its way to a temporary name finds the new name and version at its end.
        """
        version, digest = (over.version, over.digest) if over is not None else (None, None)
        with self._store.atomically():
            self._moved(node, new_parent, new_name)
            content.ino, content.path = node.ino, path_bytes(node.path)
            content.rebase(version, digest)
            self._uploads.delivery.inherit(node.path, content)
        if self._handles.has_writer(content):
            self._uploads.schedule(node, content, self._settings.open_flush_s)
        else:
            self._uploads.renamed(node, content, over=over is not None)

    async def _take_over(self, target: Node) -> Known | None:
        """The version that the server holds under the name that we are about to overwrite; None: nothing.

        Its handles keep its bytes, its upload is off.
        """
        settled, set_aside = await self._settled(target), target.aside is not None
        before = None if settled is None else _known_base(settled)
        await self._preserve(target, by_copy=True)
        content = target.content
        if content is not None and content.dirty:
            await self._uploads.abandon(content)
        if content is not None and target.parent is not None:
            self._uploads.delivery.gave_up(target.path, content)
        seen = self._tree.unread.seen(target.ino)
        if seen is not None:
            return Known(seen.version, seen.digest) if seen.version is not None else None
        if content is not None and target.aside is None:  # else its base is that of the copy
            before = _known_base(content)
        if content is not None and content.dirty:
            return before
        if target.parent is None:
            return None
        entry = self._tree.meta.stale_entry(target.parent.ino, target.name)
        if entry is None or entry.resource is None:
            return None
        version = entry.resource.validator
        same = before is not None and before.version.same_version(version)
        if content is None or set_aside or not (same or any(self._handles.of(content))):
            return Known(version)
        return before  # whoever has an older version open has not seen this one

    async def _resolve_unknown(self, node: Node, content: Content) -> None:
        """A PUT whose outcome is unknown, of a file that is about to move: look what is there.

        What is neither the old version nor what we sent is somebody else's: then the old base stays, so that
        the next PUT is refused and both versions survive.
        """
        self._uploads.delivery.inherit(node.path, content)
        try:
            resource = await self._tree.client.stat(node.path)
        except NotFound:
            content.life = content.life.found_unapplied()
            content.rebase(None)
            return
        if content.base is not None and content.base.same_version(resource.validator):
            content.life = content.life.found_unapplied()
            content.save()
        elif not resource.is_collection and _may_be_ours(content, resource):
            await self._uploads.delivery.is_ours(node, content, resource)

    async def _is_base(self, node: Node, content: Content) -> bool:
        """Whether the server still has the version that ours is based on."""
        try:
            resource = await self._tree.client.stat(node.path)
        except DavfsError:
            return False
        return content.base is not None and content.base.same_version(resource.validator)

    async def _rebase(self, content: Content, path: DavPath, size: int | None = None) -> None:
        """At its new place the tag may be another one (Tomcat copies): later changes are based on that.

        Not on what somebody else has put there since: that is known by its size.
        """
        try:
            resource = await self._tree.client.stat(path)
        except DavfsError:
            return
        if size is None or resource.size_bytes in {None, size}:
            content.rebase(resource.validator)

    async def _move(
        self, node: Node, destination: DavPath, over: Known | None, *, replaces: Content | None = None
    ) -> None:
        """`replaces`: unsent bytes that are given up by this."""
        source = node.path
        if self._move_is_unsafe(destination):
            raise PosixError(errno.EINVAL, f"this server cannot rename to {destination.name!r}")
        given_up = None if replaces is None else replaces.id
        rename = Rename(source, destination, self._version_of(node), given_up)
        concerns_unsent = replaces is not None or bool(self._uploads.below(node))
        if concerns_unsent:
            self._renames.begin(rename)
        try:
            await move(self._guard, self._tree, source, destination, over, is_collection=node.is_folder)
        except DavfsError as error:
            try:
                await self._check_move(rename, over, error)
            except DavfsError:
                if concerns_unsent and error.outcome_unknown:
                    self._renames.doubt(rename, told=True)
                else:
                    self._renames.end(source)
                if error.outcome_unknown:
                    self._believe_neither(source, destination)
                raise
        except BaseException:
            if concerns_unsent:
                self._renames.doubt(rename, told=False)
            raise
        self._uploads.delivery.moved(source, destination)

    async def _check_move(self, rename: Rename, over: Known | None, error: DavfsError) -> None:
        """Raises `error` unless it was done: the answer was lost, of this MOVE or of one before it."""
        if isinstance(error, NotFound):
            tag, known = rename.version.etag, over is not None and rename.version.same_version(over.version)
            with suppress(DavfsError):
                found = await self._held(rename.destination) if tag is not None and not known else None
                if (
                    found is not None
                    and found.etag is not None
                    and rename.version.same_version(found.validator)
                ):
                    return
        await self._really_failed(error, rename.destination, made=True)
        await self._really_failed(error, rename.source, made=False)

    def _believe_neither(self, *paths: DavPath) -> None:
        """Which of these names is there? Whoever comes next asks."""
        for path in paths:
            folder = self._tree.nodes.root.at(path.parent)
            if folder is None:
                continue
            if self._tree.meta.stale_entry(folder.ino, path.name) is None:
                self._tree.meta.learn(folder.ino, path.name, Entry(None, NEVER))
            self._tree.meta.expire(folder.ino, path.name)

    def _move_is_unsafe(self, destination: DavPath) -> bool:
        return any(self._tree.client.capabilities.move_unsafe(name) for name in destination.parts)

    def _moved(self, node: Node, parent: Node, name: str) -> None:
        """Here too, and at once in the journal, which knows unsent files by path."""
        source = node.path
        with self._store.atomically():
            self._renames.end(source)
            self._tree.moved(node, parent, name)
            if node.is_folder:
                self._leftovers.moved(source, node.path)
            for pending in self._uploads.below(node):
                pending.content.path = path_bytes(pending.node.path)
                pending.content.save()

    def _version_of(self, node: Node) -> Validator:
        """What the server is known to hold under this name."""
        if node.content is not None and node.content.dirty and node.content.base is not None:
            return node.content.base
        entry = self._tree.meta.stale_entry(node.parent.ino, node.name) if node.parent is not None else None
        return entry.resource.validator if entry is not None and entry.resource is not None else Validator()

    async def settle_renames(self) -> None:
        """Renames of the last run: did the server do them? Where it does not say, uploads ask again."""
        for rename in self._renames.left:
            with suppress(DavfsError):
                await self._settle_rename(rename)

    async def settle_renames_of(self, node: Node) -> None:
        """Before this file is sent: which is its name? Raises what stands in the way."""
        if not node.unlinked:
            await self.settle_renames_at(node.path)

    async def settle_renames_at(self, *paths: DavPath) -> None:
        """Those of a name at, above or below these: before they are renamed, removed or sent."""
        for rename in self._renames.left:
            names = (rename.source, rename.destination)
            if any(name.is_within(path) or path.is_within(name) for name in names for path in paths):
                await self._settle_rename(rename)

    async def _settle_rename(self, rename: Rename) -> None:
        found = None if await self._held(rename.source) else await self._held(rename.destination)
        if rename not in self._renames.left:
            return  # another upload asked too, or a program removed it
        if found is not None and (found.is_collection or rename.version.same_version(found.validator)):
            self._catch_up(rename, found)
        self._renames.end(rename.source)

    def _catch_up(self, rename: Rename, found: Resource) -> None:
        """The server did it: unsent bytes below the old name go along, those that it replaced are given up.

        Not what was written to the new name since: that is at odds with it as with another client's rename.
        """
        parent, node = self._tree.nodes.root, self._tree.nodes.root.at(rename.source)
        for part in rename.destination.parts[:-1]:
            parent = self._tree.nodes.child(parent, part, is_folder=True)
        replaced = self._tree.nodes.named(parent, rename.destination.name)
        content = replaced.content if replaced is not None else None
        given_up = content is not None and content.id == rename.replaces
        if replaced is not None and not given_up and self._uploads.below(replaced):
            return
        if node is not None and node.is_folder is found.is_collection and _is_what_moved(node, rename):
            self._moved(node, parent, rename.destination.name)
        elif replaced is not None and content is not None and given_up:
            self._store.discard(content)
            replaced.content = None

    async def _held(self, path: DavPath) -> Resource | None:
        try:
            return await self._tree.client.stat(path)
        except NotFound:
            return None

    def must_be_writable(self, parent: Node) -> None:
        if self._settings.read_only:
            raise PosixError(errno.EROFS)
        if not parent.is_folder:
            raise PosixError(errno.ENOTDIR)
        if parent.unlinked:
            raise PosixError(errno.ENOENT)

    async def _existing(self, parent: Node, name: str) -> Node:
        node = await self._tree.find(parent, name)
        if node is None:
            raise PosixError(errno.ENOENT)
        return node


def _may_be_ours(content: Content, resource: Resource) -> bool:
    """By its size; a small one may be a part of what was sent."""
    size = resource.size_bytes
    return size is None or size <= SMALL_NEW or size in {content.size_bytes, *content.unanswered.sizes}


def _is_what_moved(node: Node, rename: Rename) -> bool:
    """Not a new file, made at the name that the rename had left free."""
    base = node.content.base if node.content is not None else None
    return node.is_folder or (base is not None and rename.version.same_version(base))


def _known_base(content: Content) -> Known | None:
    return Known(content.base, content.base_digest) if content.base is not None else None
