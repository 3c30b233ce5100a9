"""The mounted share: every operation a kernel can ask for, over the parts that do the work.

This is the whole interface between a front end (the kernel, or a test) and the rest. Names are str with
surrogateescape, inode numbers int, times nanoseconds, failures DavfsError with an errno. Everything
lives in one trio loop; `run` holds the only nursery. Opening and listing count references as FUSE does:
`lookup`, `mkdir`, `create` and `remember` add one to a node's lookup count, `forget` takes them back.
"""

from __future__ import annotations

import errno
import functools
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio

from davfs.dav.attributes import XATTR_PREFIX
from davfs.dav.client import Client
from davfs.dav.microsoft import attribute_words
from davfs.dav.resource import Quota, Resource
from davfs.errors import PosixError, as_davfs_error
from davfs.fs.attributes import Attributes, Changes, Opened
from davfs.fs.chunks import Chunks
from davfs.fs.conflict import Conflicts
from davfs.fs.download import Downloads
from davfs.fs.failures import Failures
from davfs.fs.files import Files
from davfs.fs.guard import Guard
from davfs.fs.handles import Handles
from davfs.fs.inodes import ROOT_INO, Node
from davfs.fs.inventories import Inventories
from davfs.fs.leftovers import Leftovers
from davfs.fs.links import Links
from davfs.fs.locks import Locks
from davfs.fs.metadata import Folder
from davfs.fs.namespace import Namespace
from davfs.fs.overview import Overview
from davfs.fs.pending import Pendings
from davfs.fs.prefetch import Prefetch
from davfs.fs.probe import Probe
from davfs.fs.pushes import Pushes
from davfs.fs.quota import Allowance
from davfs.fs.renames import Renames
from davfs.fs.settings import Settings
from davfs.fs.spellings import Spellings
from davfs.fs.store import ContentStore
from davfs.fs.times import Times
from davfs.fs.tree import Tree
from davfs.fs.upload import Uploads
from davfs.fs.xattrs import OWN_PREFIX, Xattrs

__all__ = ["ROOT_INO", "Attributes", "Changes", "Filesystem", "Invalidation", "Opened"]

TOLD_WITHIN_S: Final = 1.0
XATTR_LOCK: Final = "user.davfs.lock"
SETTLE_LOCKS_S: Final = 5.0
SETTLE_RENAMES_S: Final = 5.0
SETTLE_PROPERTIES_S: Final = 5.0
TIMES_WITHIN_S: Final = 10.0  # for what goes after the files, and is no part of them
AGAIN_S: Final = 5.0  # a task that ended by a mistake of ours begins anew
CHANGES_MAX: Final = 10_000  # invalidations not yet delivered; more are dropped, time-outs cover them


@dataclass(frozen=True, slots=True, eq=False)
class Invalidation:
    """The kernel must forget the attributes and pages of this inode; with a name, what that name in it is."""

    ino: int
    name: str | None = None
    delivered: trio.Event = field(default_factory=trio.Event)


class Filesystem:
    def __init__(
        self,
        client: Client,
        content: ContentStore,
        settings: Settings,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._store = content
        self._settings = settings
        self._now_s = now_s
        self._handles = Handles()
        self._tree = Tree(client, content, settings, wall_s=now_s)
        self._spellings = Spellings(self._tree)
        self._downloads = Downloads(
            client,
            content,
            connections=settings.connections,
            timeout_s=settings.timeout_s,
            cache_bytes=settings.cache_size_bytes,
        )
        self._leftovers = Leftovers(content.index)
        conflicts = Conflicts(self._tree, self._downloads, self._handles)
        self._locks = locks = Locks(client, content.index, self._handles, settings.lock)
        guard = Guard(client, locks)
        self._chunks = Chunks(
            client,
            guard,
            content.index,
            connections=settings.connections,
            timeout_s=settings.timeout_s,
        )
        self._uploads = Uploads(
            self._tree, self._downloads, conflicts, guard, self._leftovers, self._chunks, settings
        )
        self._failures = Failures(content.index)
        self._uploads.failed = self._failures.noted
        self._allowance = Allowance(client, content.growth)
        self._pushes = Pushes(self._tree, locks)
        self._tree.sent = self._pushes.uploaded
        self._inventories = Inventories(self._tree, self._pushes)
        self._xattrs = Xattrs(self._tree, self._pushes)
        self._uploads.delivery.carry = self._xattrs.carry
        self._links = Links(self._tree, guard, self._leftovers, self._pushes)
        self._files = Files(
            self._tree,
            content,
            self._downloads,
            self._uploads,
            self._handles,
            self._failures,
            self._allowance,
            settings,
            locks=locks,
        )
        self._namespace = Namespace(
            self._tree,
            content,
            self._files,
            self._uploads,
            self._handles,
            settings,
            guard=guard,
            conflicts=conflicts,
            leftovers=self._leftovers,
            renames=Renames(content.index),
        )
        self._uploads.settle_name = self._namespace.settle_renames_of
        self._prefetch = Prefetch(self._tree, self._files)
        self._probe = Probe(client, self._tree, self._uploads, timeout_s=settings.timeout_s)
        self._times = Times(self._tree, self._uploads, locks, settings.connections)
        self._started = now_s()
        self._send_changes, self.invalidations = trio.open_memory_channel[Invalidation](CHANGES_MAX)
        self._tree.changed = self._report_change
        self._tree.kernel_knows = self._report_and_wait
        self.unsent = Pendings(
            self._tree, self._uploads, self._handles, self._failures, locks, self._report_other_file
        )
        self._overview = Overview(
            self._tree, self._files, self._downloads, self._uploads, partial_put=settings.partial_put
        )

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """The background work, until cancelled. Reports how many unsent files the last run left."""
        try:
            async with trio.open_nursery() as nursery:
                self._downloads.start(nursery)
                nursery.start_soon(_going_on, self._store.newcomers.run)
                nursery.start_soon(_going_on, self._store.outdated.run)
                self._tree.questions.start(nursery)
                self._prefetch.start(nursery)
                self._namespace.emptying.start(nursery)
                await nursery.start(self._probe.run)
                nursery.start_soon(_going_on, functools.partial(self._tree.listings.run, self._tree.meta))
                left = self._uploads.recover()
                self._tree.owed.recover()
                self._tree.wishes.recover()
                self._locks.recover(item.node.path for item in self._uploads.pending())
                with trio.move_on_after(SETTLE_RENAMES_S):  # no program sees half of one
                    await self._namespace.settle_renames()
                nursery.start_soon(self._locks.run, nursery)
                nursery.start_soon(self._send, nursery)
                nursery.start_soon(_going_on, functools.partial(self._leftovers.clean, self._client))
                for work in (self._allowance.run, self._chunks.clean, self._client.cloud.learn):
                    nursery.start_soon(_going_on, work)
                for work in (self._times.run, self._pushes.run, self._inventories.run):
                    nursery.start_soon(_going_on, work)
                task_status.started(left)
        finally:
            self._tree.listings.end(self._tree.meta)

    async def _send(self, nursery: trio.Nursery) -> None:
        """The uploads, as soon as it is known which locks of the last run still hold."""
        with trio.move_on_after(SETTLE_LOCKS_S):
            await self._locks.settle()
        await self._uploads.run(nursery)

    async def release_locks(self) -> None:
        """At the end: what is on the server has its properties, and is unlocked."""
        await self._pushes.drain(SETTLE_PROPERTIES_S)
        await self._locks.leave()

    def learn_root(self, resource: Resource) -> None:
        """What connecting has shown of the root: not asked again."""
        self._tree.learn_root(resource, trio.current_time(), itself=True)

    def _report_change(self, node: Node) -> None:
        if node.lookups:
            with suppress(trio.WouldBlock):
                self._send_changes.send_nowait(Invalidation(node.ino))

    async def _report_and_wait(self, node: Node) -> None:
        """Not for ever: the kernel may be waiting for the very call that waits here."""
        if node.lookups:
            told = Invalidation(node.ino)
            with suppress(trio.WouldBlock), trio.move_on_after(TOLD_WITHIN_S):
                self._send_changes.send_nowait(told)
                await told.delivered.wait()

    def _report_other_file(self, folder: Node, name: str) -> None:
        if folder.lookups:
            with suppress(trio.WouldBlock):
                self._send_changes.send_nowait(Invalidation(folder.ino, name))

    # --- names and attributes

    async def lookup(self, parent: int, name: str) -> Attributes:
        folder = self._tree.nodes.get(parent)
        self._prefetch.looks_into(folder)
        listed_s = self._tree.meta.listed_s(parent)
        node = await self._spellings.find(folder, name)
        if self._tree.meta.listed_s(parent) != listed_s:
            self._prefetch.was_listed(folder)
        if node is None:
            raise PosixError(errno.ENOENT)
        return self._referenced(node)

    def _referenced(self, node: Node) -> Attributes:
        node.lookups += 1
        return self._tree.told_attributes(node)

    def has_taken(self, handle: int, name: str, told: Attributes) -> None:
        """The kernel has this member of an open folder, just given by `readdir`: one look-up."""
        self._tree.nodes.told(self._handles.folder(handle).node, name, told.ino, told.size_bytes)

    def forget(self, ino: int, count: int) -> None:
        self._tree.nodes.forget(ino, count)

    async def getattr(self, ino: int, handle: int | None = None) -> Attributes:
        node = self._tree.nodes.get(ino)
        if handle is not None and node.content is not self._handles.file(handle).content:
            return self._tree.told_attributes(node)  # an older version, still open: nothing to ask
        await self._tree.know(node)
        return self._tree.told_attributes(node)

    async def setattr(self, ino: int, changes: Changes, handle: int | None = None) -> Attributes:
        node = self._tree.nodes.get(ino)
        if handle is not None:  # its file may have gone beside the name since, as a conflict copy
            node = self._handles.file(handle).node
        self._check_changes(node, changes)
        if changes.size_bytes is not None:
            await self._files.set_size(node, handle, changes.size_bytes)
        if changes.mode is not None:
            self._tree.keep_mode(node, changes.mode & 0o7777)
            self._pushes.mode_changed(node, changes.mode)
            node.ctime_ns = time.time_ns()
        if changes.atime_ns is not None:
            node.atime_ns = changes.atime_ns
        if changes.mtime_ns is not None:
            await self._files.set_mtime(node, changes.mtime_ns)
        await self._tree.know(node)
        told = self._tree.told_attributes(node)
        return told if told.ino == ino else told._replace(ino=ino)

    def _check_changes(self, node: Node, changes: Changes) -> None:
        """Before anything is changed: what cannot be done at all."""
        if self._settings.read_only:
            raise PosixError(errno.EROFS)
        if changes.size_bytes is not None and node.is_folder:
            raise PosixError(errno.EISDIR)
        for wanted, held in ((changes.uid, self._settings.uid), (changes.gid, self._settings.gid)):
            if wanted is not None and wanted not in {held, 0xFFFFFFFF, -1}:
                raise PosixError(errno.EPERM, "a WebDAV share has no owners")

    # --- folders

    async def opendir(self, ino: int, *, program: int = 0) -> int:
        """`program`: a number that tells who asks from others; 0 if nobody knows."""
        node = self._tree.nodes.get(ino)
        if not node.is_folder:
            raise PosixError(errno.ENOTDIR)
        self._prefetch.comes_to(node, program)
        if not node.unlinked:
            self._tree.meta.hits.note(hit=self._tree.meta.listing_is_fresh(ino, trio.current_time()))
        names = [] if node.unlinked else await self._tree.list_names(node)
        self._prefetch.has_listed(node, program)
        self._tree.nodes.pin(node)
        return self._handles.open_folder(node, names).number

    async def readdir(self, handle: int, start: int) -> Iterator[tuple[str, Attributes, int]]:
        """(name, attributes, where to go on) from `start`; lazy: a caller stops when its buffer is full."""
        return self._entries(handle, start)

    def _entries(self, handle: int, start: int) -> Iterator[tuple[str, Attributes, int]]:
        folder = self._handles.folder(handle)
        self._prefetch.is_busy_in(folder.node)
        if folder.node.unlinked:
            return
        known, now_s = self._tree.meta.known_folder(folder.node.ino) or Folder(), trio.current_time()
        for at in range(start, len(folder.names)):
            name = folder.names[at]
            told = self._tree.told_member(known, folder.node, name, now_s)
            if told is not None:
                try:
                    yield name, told[1], at + 1
                finally:
                    self._tree.nodes.release(told[0])

    def dots(self, handle: int) -> tuple[int, int]:
        """The numbers of an open folder itself and of the one above it: '.' and '..'."""
        node = self._handles.folder(handle).node
        return node.ino, (node.parent or node).ino

    def releasedir(self, handle: int) -> None:
        self._tree.nodes.unpin(self._handles.close_folder(handle).node)

    async def mkdir(self, parent: int, name: str, mode: int) -> Attributes:
        folder = self._tree.nodes.get(parent)
        name = await self._spellings.new(folder, name, is_folder=True)
        return self._referenced(await self._namespace.mkdir(folder, name, mode))

    async def rmdir(self, parent: int, name: str) -> None:
        folder = self._tree.nodes.get(parent)
        await self._namespace.rmdir(folder, self._spellings.known(folder, name))

    async def symlink(self, parent: int, name: str, target: str) -> Attributes:
        """EOPNOTSUPP on a share that keeps no links: `tar`, `cp` and `git` know what to do then."""
        folder = self._tree.nodes.get(parent)
        self._namespace.must_be_writable(folder)
        return self._referenced(
            await self._links.make(folder, await self._spellings.new(folder, name), target)
        )

    async def readlink(self, ino: int) -> str:
        return await self._links.target(self._tree.nodes.get(ino))

    async def unlink(self, parent: int, name: str) -> None:
        folder = self._tree.nodes.get(parent)
        name = self._spellings.known(folder, name)
        await self._pushes.out_of_the_way((folder, name))
        await self._times.out_of_the_way((folder, name))
        await self._namespace.unlink(folder, name)

    async def rename(
        self, parent: int, name: str, new_parent: int, new_name: str, *, no_replace: bool = False
    ) -> None:
        source, target = self._tree.nodes.get(parent), self._tree.nodes.get(new_parent)
        name = self._spellings.known(source, name)
        node = source.children.get(name)
        is_folder = node is not None and node.is_folder
        renamed = name if source is target else None
        new_name = await self._spellings.new(target, new_name, is_folder=is_folder, renamed=renamed)
        await self._pushes.out_of_the_way((source, name), (target, new_name))
        await self._times.out_of_the_way((source, name), (target, new_name))
        await self._namespace.rename(source, name, target, new_name, no_replace=no_replace)

    # --- files

    async def open(self, ino: int, flags: int) -> Opened:
        node = self._tree.nodes.get(ino)
        if flags & os.O_ACCMODE == os.O_RDONLY:
            self._prefetch.opens(node)
        try:
            return await self._files.open(node, flags)
        finally:
            self._prefetch.has_opened(node)

    async def create(self, parent: int, name: str, mode: int, flags: int) -> tuple[Opened, Attributes]:
        folder = self._tree.nodes.get(parent)
        if not folder.is_folder:
            raise PosixError(errno.ENOTDIR)
        name = await self._spellings.new(folder, name)
        opened, node = await self._files.create(folder, name, mode, flags)
        return opened, self._referenced(node)

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        return await self._files.read(handle, offset, size)

    async def write(self, handle: int, offset: int, data: bytes) -> int:
        return await self._files.write(handle, offset, data)

    async def flush(self, handle: int) -> None:
        await self._files.flush(handle)

    async def fsync(self, handle: int) -> None:
        await self._files.fsync(handle)
        await self._pushes.settle(self._handles.file(handle).node)

    async def release(self, handle: int) -> None:
        node = self._files.release(handle)
        if not node.unlinked:
            await self._locks.finished(node.path)
        if node.unlinked and not node.pins:
            await self._namespace.forget_set_aside(node)

    async def fsyncdir(self, handle: int) -> None:
        """What was created in this folder is on the server (the rest of the namespace always is)."""
        node = self._handles.folder(handle).node
        for child in list(node.children.values()):
            if child.content is not None and child.content.dirty:
                await self._uploads.flush(child, child.content)

    # --- the share

    async def statfs(self) -> Quota:
        """From the last answer; a new one is fetched in the background, so this never waits (promise 6)."""
        return self._allowance.quota()

    async def getxattr(self, ino: int, name: str) -> bytes:
        if not name.startswith(XATTR_PREFIX):
            # `ls -l` asks for two of every file, until it is told that this kind is not supported.
            raise PosixError(errno.EOPNOTSUPP)
        if not name.startswith(OWN_PREFIX):
            return await self._xattrs.get(self._tree.nodes.get(ino), name)
        node = await self._attributed(ino)
        if name == XATTR_LOCK and not node.unlinked:
            await self._locks.look(node.path)
        value = self._told(node).get(name)
        if value is None:
            raise PosixError(errno.ENODATA)
        return value

    async def listxattr(self, ino: int) -> list[str]:
        """Not what davfs tells, as CephFS does it: `rsync -X` would copy that, and fail to remove it (23)."""
        return await self._xattrs.names(self._tree.nodes.get(ino))

    async def setxattr(self, ino: int, name: str, value: bytes) -> None:
        await self._xattrs.set(self._tree.nodes.get(ino), name, value)

    async def removexattr(self, ino: int, name: str) -> None:
        await self._xattrs.remove(self._tree.nodes.get(ino), name)

    async def _attributed(self, ino: int) -> Node:
        node = self._tree.nodes.get(ino)
        await self._tree.know(node)
        return node

    def _told(self, node: Node) -> dict[str, bytes]:
        """Read-only attributes that describe the resource."""
        if node.unlinked or self._tree.link_target(node) is not None:
            return {}
        values = {"user.davfs.url": self._client.url(node.path, is_collection=node.is_folder)}
        content = node.content
        values["user.davfs.state"] = self.unsent.state(node)
        if content is not None and content.dirty and content.error:
            values["user.davfs.error"] = content.error
        holder = self._locks.holder(node.path)
        if holder is not None:
            values[XATTR_LOCK] = holder
        entry = self._tree.meta.stale_entry(node.parent.ino, node.name) if node.parent is not None else None
        if entry is not None and entry.resource is not None and (words := attribute_words(entry.resource)):
            values["user.davfs.win32"] = words
        if entry is not None and entry.resource is not None and entry.resource.etag is not None:
            values["user.davfs.etag"] = entry.resource.etag.header()
        return {name: value.encode("utf-8", "surrogateescape") for name, value in values.items()}

    async def sync(self, timeout_s: float | None = None, *, patient: bool = True) -> int:
        """Send everything now; returns how many files are left. Not patient: one attempt each."""
        self._probe.hurry()
        ends_s = trio.current_time() + (float("inf") if timeout_s is None else timeout_s)
        left = await self._uploads.drain(timeout_s, patient=patient)
        await self._pushes.drain(min(SETTLE_PROPERTIES_S, max(0.0, ends_s - trio.current_time())))
        await self._times.drain(min(TIMES_WITHIN_S, max(0.0, ends_s - trio.current_time())))
        return left

    def refresh(self) -> None:
        """For who knows that something changed elsewhere: nothing is believed any more without asking."""
        self._tree.meta.doubt_all()
        for ino in self._tree.nodes.kernel_has():
            with suppress(trio.WouldBlock):
                self._send_changes.send_nowait(Invalidation(ino))

    def pending_paths(self) -> list[str]:
        """What is not on the server yet."""
        return self.unsent.paths()

    @property
    def outage(self) -> str | None:
        """Why the server cannot be reached; None while it can."""
        outage = self._client.reach.link.outage
        return None if outage is None else outage.reason

    def status(self, most: int | None = None) -> dict[str, object]:
        """What is going on, as JSON-able values; `most` rows of each list. Asks the server nothing."""
        locks = self._locks.status()
        return {
            "link": self._probe.status(),
            "pending": self.unsent.rows(most),
            **self.unsent.counts(),
            "conflicts": self._uploads.conflicts[:most],
            "conflict_files": len(self._uploads.conflicts),
            "recovered": list(self._store.recovered)[:most],
            "recovered_files": len(self._store.recovered),
            "transfers": self._overview.transfers(),
            "sent_files": self._uploads.sent_files,
            "open_files": len(self._handles),
            "locks": locks[:most],
            "locks_held": len(locks),
            "known_entries": self._tree.meta.entries_count(),
            "inodes": len(self._tree.nodes),
            "cache_bytes": self._store.bytes_on_disk,
            "cache_limit_bytes": self._settings.cache_size_bytes,
            "hits": self._overview.hits(),
            **self._overview.wire(),
        }


async def _going_on(work: Callable[[], Awaitable[None]]) -> None:
    """A task beside others: a mistake of ours in it must not take the drive away. Logged, and begun anew."""
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the edge of a task
            as_davfs_error(error)
            await trio.sleep(AGAIN_S)
        else:
            return
