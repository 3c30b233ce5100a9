"""Open files: choosing the version, reading, writing, cutting, and when what was written is sent.

Invariants: an open handle stays with the version it opened (promise 4); what `write` returned for is on
the cache disk and in the journal (promise 2); a version is chosen by the server's validator, asked for
again when what is known is older than the attribute time-out (promise 5).
"""

from __future__ import annotations

import errno
import logging
import os
import time
from typing import Final

import trio

from davfs.dav.lanes import PARENT_FROM_BYTES
from davfs.dav.resource import Resource
from davfs.errors import DavfsError, PosixError, StaleVersion
from davfs.fs.attributes import Opened
from davfs.fs.content import FILE_SIZE_MAX, Content, path_bytes
from davfs.fs.download import PIECE_MIN, WHOLE_MAX, WINDOW_MIN, Downloads
from davfs.fs.failures import Failures
from davfs.fs.handles import Handles, OpenFile
from davfs.fs.inodes import Node
from davfs.fs.locks import Locks
from davfs.fs.metadata import Entry
from davfs.fs.permissions import SET_ID, check_making, check_writing, has_set_id
from davfs.fs.quota import Allowance
from davfs.fs.settings import Settings
from davfs.fs.store import ContentStore
from davfs.fs.transfers import Hits
from davfs.fs.tree import Tree
from davfs.fs.upload import Uploads

log = logging.getLogger("davfs.files")

KEEP_MAX: Final = 16 << 20  # the rest of an open file that is being removed is fetched, up to this size
HEAD_MAX: Final = 128 * 1024  # reading only the head of a file starts no read-ahead of ours


class Files:
    def __init__(
        self,
        tree: Tree,
        store: ContentStore,
        downloads: Downloads,
        uploads: Uploads,
        handles: Handles,
        failures: Failures,
        allowance: Allowance,
        settings: Settings,
        *,
        locks: Locks,
    ) -> None:
        self._tree = tree
        self._store = store
        self._downloads = downloads
        self._uploads = uploads
        self._handles = handles
        self._failures = failures
        self._allowance = allowance
        self._locks = locks
        self._settings = settings
        self.opens = Hits()  # whether the first bytes were here
        self.reads = Hits()  # whether nobody had to wait for the server

    # --- opening

    async def open(self, node: Node, flags: int) -> Opened:
        if node.is_folder:
            raise PosixError(errno.EISDIR)
        writing = flags & os.O_ACCMODE != os.O_RDONLY
        if writing and self._settings.read_only:
            raise PosixError(errno.EROFS)
        self._tree.nodes.pin(node)
        try:
            emptied = writing and bool(flags & os.O_TRUNC)
            if writing:
                await self._lock(node)
            content = await self._current_for(node, writing=writing, emptied=emptied)
        except DavfsError:
            self._tree.nodes.unpin(node)
            raise
        file = self._handles.open_file(node, content, flags, is_empty=emptied)
        self._failures.opened(file)
        try:
            if writing and flags & os.O_TRUNC:
                await self._empty(node, content)
            else:
                await self._confirm(file)
                if node.told_size not in {-1, file.content.size_bytes}:
                    await self._tree.kernel_knows(node)  # it cuts what it reads at the size that it was told
        except DavfsError:
            self.release(file.number)
            raise
        if file.readable and not (emptied or file.content.dirty):
            self._tree.unread.over(node.ino)
        keep = node.kernel_content == file.content.id and not file.direct
        node.kernel_content = 0 if file.direct else file.content.id
        return Opened(file.number, keep, file.direct)

    async def _confirm(self, file: OpenFile) -> None:
        """The first bytes are fetched at open (of a small file all): then it is known which version this is.

        Found out at the first read, a new size would come too late: the kernel cuts reads at the size it
        knows. A reader asks for these bytes next, so the request is the same one.
        """
        content = file.content
        if content.dirty or content.base is None or not content.size_bytes:
            return
        if len(content.present):
            self.opens.note(hit=True)
            return
        if not file.readable and content.size_bytes > WHOLE_MAX:
            return
        self.opens.note(hit=False)
        try:
            await self._fetch_head(file)
        except StaleVersion:
            await self._adopt_new_version(file)
            await self._fetch_head(file)

    async def _fetch_head(self, file: OpenFile) -> None:
        size = file.content.size_bytes
        head = size if size <= WHOLE_MAX else 1
        await self._downloads.ensure(file.content, lambda: file.node.server_path, 0, head)

    async def _current_for(self, node: Node, *, writing: bool, emptied: bool) -> Content:
        """The version to open. Whoever will write is told first what became of the last change."""
        content = await self._current(node, writing=writing, emptied=emptied)
        if writing:
            try:
                self._failures.tell_at_open(content)
            except DavfsError:
                self._tree.let_go(node, content)
                raise
        return content

    async def _lock(self, node: Node) -> None:
        """Raises Locked when somebody else holds the file and the policy is `always`."""
        if node.parent is None:
            return
        path, parent = node.path, node.parent
        made = await self._locks.opened_for_writing(node, path)
        content = node.content
        if made is None or node.path != path:
            return
        if content is not None and content.dirty and content.base is None:
            content.rebase(made)  # unsent: the empty file in its place is ours
        else:  # somebody deleted it
            await self._locks.abandoned(path)
            self._tree.meta.expire(parent.ino, node.name)

    async def _empty(self, node: Node, content: Content) -> None:
        """O_TRUNC. A file that is empty already is not sent again; only its mtime moves."""
        if content.size_bytes:
            await self.truncate(node, content, 0)
        else:
            await self.set_mtime(node, time.time_ns())

    async def create(self, parent: Node, name: str, mode: int, flags: int) -> tuple[Opened, Node]:
        if self._settings.read_only:
            raise PosixError(errno.EROFS)
        existing = await self._tree.find(parent, name)
        if existing is not None:
            if flags & os.O_EXCL:
                raise PosixError(errno.EEXIST)
            return await self.open(existing, flags), existing
        if parent.unlinked:
            raise PosixError(errno.ENOENT)
        check_making(self._tree.known_resource(parent), parent.name)
        path = parent.path.child(name)
        made = await self._locks.opened_for_writing(None, path)
        rival = parent.children.get(name)
        if rival is not None and rival.content is not None and rival.content.dirty:  # made meanwhile, here
            if flags & os.O_EXCL:
                raise PosixError(errno.EEXIST)
            return await self.open(rival, flags), rival
        node = self._tree.nodes.child(parent, name, is_folder=False)
        self._tree.nodes.pin(node)
        mode &= self._settings.create_mask
        kept = mode if mode & 0o777 != self._settings.file_mode else None
        try:
            content = self._store.create_unsent(node.ino, node.path, base=made, mode=kept)
        except PosixError:
            self._tree.nodes.unpin(node)
            raise
        self._store.acquire(content)
        node.content = content
        node.ctime_ns = time.time_ns()
        if kept is not None:
            self._tree.keep_mode(node, kept)
        file = self._handles.open_file(node, content, flags, is_empty=True)
        node.kernel_content = 0 if file.direct else content.id
        self._tree.touched(parent)
        self._uploads.schedule(node, content, self._settings.open_flush_s)
        self._uploads.programs_write()
        self._locks.belongs_to(path, node)
        return Opened(file.number, not file.direct, file.direct), node

    async def _current(self, node: Node, *, writing: bool, emptied: bool) -> Content:
        """The version to open, acquired: the unsent one, the cached one if it still holds, or a new one.

        Whether it still holds is asked of the server: only while that is away, what was last known will do.
        """
        content = self._live_content(node)
        if content is not None and (content.dirty or content.orphan):
            self._store.acquire(content)
            return content
        if node.parent is None:
            raise PosixError(errno.ESTALE)
        entry = await self._tree.entry(node.parent, node.name)
        if self._tree.link_target(node) is not None:  # the kernel follows it, and opens what it leads to
            raise PosixError(errno.ELOOP)
        if writing:
            check_writing(entry.resource, node.name)
        refusal = self._tree.refusal()
        if refusal is not None and not emptied and not self._is_here(node, entry, whole=writing):
            raise refusal
        content = self._chosen(node, entry)
        if (
            refusal is None
            and entry.resource is not None
            and entry.resource.size_bytes is None
            and not content.dirty
        ):
            await self._learn_size(node, content)
        return content

    def _is_here(self, node: Node, entry: Entry, *, whole: bool) -> bool:
        """Whether this version can be opened without the server. To change a file, all of it must be here:
        else an edit could end as a conflict copy with holes.
        """
        resource = entry.resource
        if resource is None or resource.is_collection or resource.size_bytes == 0:
            return True  # `_chosen` says what is to be said
        content = self._live_content(node) or self._store.cached(node.ino)
        if content is None:
            return False
        self._store.acquire(content)
        try:
            if content.dirty:
                return True
            return _holds(content, resource) and (
                content.complete or (not whole and len(content.present) > 0)
            )
        finally:
            self._store.release(content)

    async def _learn_size(self, node: Node, content: Content) -> None:
        """A server that does not say how long a file is: only fetching it tells."""
        try:
            await self._downloads.fetch_of_unknown_size(content, lambda: node.server_path)
        except DavfsError:
            self._tree.let_go(node, content)
            raise

    def _live_content(self, node: Node) -> Content | None:
        """A version whose last transfer ended after its last handle is closed: only the index has it."""
        if node.content is not None and node.content.closed:
            node.content = None
        return node.content

    def _chosen(self, node: Node, entry: Entry) -> Content:
        """Sync, so that nobody changes the node between the choice and the acquisition."""
        content = self._live_content(node)
        if content is not None and content.dirty:
            self._store.acquire(content)
            return content
        resource = entry.resource
        if resource is None or resource.is_collection or node.parent is None:
            raise PosixError(errno.ENOENT if resource is None else errno.EISDIR)
        if content is None:
            content = self._store.cached(node.ino)
        if content is not None and _holds(content, resource) and not self._must_fetch_again(content):
            self._store.acquire(content)
            node.content = content
            return content
        if content is not None:
            if not _holds(content, resource) and content.successor is None:
                node.foreign_s = trio.current_time()
                if any(self._handles.of(content)):
                    self._tree.unread.replaced(node.ino, content)
            self._store.discard(content)
        content = self._new_version(node, resource)
        self._store.acquire(content)
        node.content = content
        return content

    def _new_version(self, node: Node, resource: Resource) -> Content:
        size = resource.size_bytes or 0
        content = self._store.create(node.ino, node.path, size=size, base=resource.validator)
        attributes = self._tree.known_attributes(node)
        content.set_mtime(attributes.mtime_ns)
        content.young = self._tree.client.is_young(resource.validator)
        return content

    def _must_fetch_again(self, content: Content) -> bool:
        """Whether it was fetched too soon after a change to tell whether there was another one since."""
        return content.young and not content.dirty and not any(self._handles.of(content))

    def release(self, handle: int) -> Node:
        file = self._handles.close_file(handle)
        content, node = file.content, file.node
        if (
            file.writable
            and content.dirty
            and node.content is content
            and not self._handles.has_writer(content)
        ):
            # Whoever wrote: bytes of a mapped file may have come through another handle than this one.
            self._uploads.closed(node, content)
            self._uploads.programs_write()
        if not any(self._handles.of(content)):
            self._downloads.nobody_reads(content)
        self._tree.let_go(node, content)
        if content.successor is not None:
            self._tree.changed(node)  # the next to open it gets another version
        self._tree.nodes.unpin(node)
        return node

    # --- reading

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        file = self._handles.file(handle)
        if not file.readable:
            raise PosixError(errno.EBADF)
        content = file.content
        end = min(offset + size, content.size_bytes)
        if end <= offset:
            return b""
        is_here = content.complete or content.present.covers(offset, end)
        self.reads.note(hit=is_here)
        if not content.complete:
            await self._ensure(file, offset, end)
        if file.content.size_bytes != content.size_bytes:  # the kernel cuts what it reads at the old size
            raise StaleVersion(f"{file.node.name}: changed on the server while it was opened")
        return await file.content.read(offset, end - offset)

    async def fetch_ahead(self, node: Node) -> Content | None:
        """What an open of this small file would fetch, while nobody has opened it. Raises what it met.

        The caller lets it go. None: there is nothing to fetch.
        """
        size_bytes = self.ahead_bytes(node)
        entry = self._known_entry(node)
        if size_bytes is None or entry is None:
            return None
        content = self._chosen(node, entry)
        try:
            await self._downloads.fetch_ahead(content, lambda: node.server_path)
        except BaseException:
            self._tree.let_go(node, content)
            raise
        return content

    def ahead_bytes(self, node: Node) -> int | None:
        """How much there is to fetch before it is opened; None if nothing, or if nobody knows yet."""
        entry = self._known_entry(node)
        resource = None if entry is None else entry.resource
        if resource is None or resource.is_collection or node.content is not None:
            return None
        if resource.extras and self._tree.link_target(node) is not None:
            return None
        if not resource.size_bytes or resource.size_bytes > WHOLE_MAX:
            return None
        # A young one would be fetched again at the open: see `_must_fetch_again`.
        return None if self._tree.client.is_young(resource.validator) else resource.size_bytes

    def _known_entry(self, node: Node) -> Entry | None:
        if node.parent is None:
            return None
        return self._tree.meta.entry(node.parent.ino, node.name, trio.current_time())

    async def _ensure(self, file: OpenFile, start: int, end: int) -> None:
        sequential = file.ahead.reads(start, end)
        content = file.content
        try:
            if sequential and file.ahead.next_offset > HEAD_MAX:
                self._downloads.read_ahead(content, lambda: file.node.server_path, file.ahead, start)
            least = WINDOW_MIN if sequential else PIECE_MIN
            await self._downloads.ensure(content, lambda: file.node.server_path, start, end, least=least)
        except StaleVersion:
            await self._adopt_new_version(file)
            await self._downloads.ensure(
                file.content, lambda: file.node.server_path, start, min(end, file.content.size_bytes)
            )

    async def _adopt_new_version(self, file: OpenFile) -> None:
        """The file changed before this handle saw a byte of it: then it opens the new version after all."""
        old, node = file.content, file.node
        untouched = len(old.present) == 0 and not old.dirty
        if node.parent is not None:
            entry = await self._tree.refreshed(node)
            self._tree.changed(node)
            if (
                untouched
                and node.content is old
                and entry.resource is not None
                and not entry.resource.is_collection
            ):
                content = self._chosen(node, entry)
                if content is not old:
                    for other in self._handles.of(old):
                        if other is not file:
                            self._store.acquire(content)
                        other.content = content
                        self._store.release(old)
                    node.kernel_content = 0
                    return
                self._store.release(content)
        raise StaleVersion(f"{node.name}: changed on the server while it was open")

    async def fetch_all(self, node: Node, content: Content) -> None:
        await self._downloads.ensure_whole(content, lambda: node.server_path)

    # --- writing

    async def write(self, handle: int, offset: int, data: bytes) -> int:
        file = self._handles.file(handle)
        if not file.writable:
            raise PosixError(errno.EBADF)
        if not data:
            return 0  # write(2): no effect, not even on the size
        await file.content.prepare_write()
        self._still_current(file)
        content = file.content
        self._must_fit(content, max(content.size_bytes, offset + len(data)))
        self._check_room(content, offset + len(data))
        was_dirty = content.dirty
        if not was_dirty:
            _journal_at(file.node, content)
        written = content.write(offset, data)
        file.wrote = True
        if file.direct and has_set_id(file.node.mode):  # the kernel leaves that to us
            self._tree.keep_mode(file.node, (file.node.mode or 0) & ~SET_ID)
            self._tree.changed(file.node)
        file.node.told_size = content.size_bytes  # the kernel follows its own writes
        self._uploads.programs_write()
        if not content.orphan:
            self._noted(file.node, content, was_dirty=was_dirty)
            if content.size_bytes >= PARENT_FROM_BYTES:
                self._uploads.grew(file.node, content)
        return written

    def _check_room(self, content: Content, end: int) -> None:
        """Before it is accepted: what grows must fit the server. What was unlinked is never sent."""
        if end > content.size_bytes and not content.orphan:
            self._allowance.check(content.size_bytes, end, content.base)

    def _still_current(self, file: OpenFile) -> None:
        """A handle of a version that was replaced or given up must not write: nobody would ever read it."""
        if file.discarded:
            raise StaleVersion(f"{file.node.name}: its unsent changes were discarded")
        if file.node.lost:
            raise StaleVersion(f"{file.node.name}: removed on the server while it was open")
        if file.node.content is not file.content and not file.node.unlinked:
            raise StaleVersion(f"{file.node.name}: changed on the server while it was open")

    def _must_fit(self, content: Content, size: int) -> None:
        """EFBIG now, not after an upload that the server refuses as it did before."""
        learned = self._tree.client.upload_limit
        if content.orphan or learned.refused_bytes is None:
            return
        now_s = trio.current_time()
        if not learned.allows(size, now_s):
            limit = learned.limit_bytes(now_s)
            raise PosixError(errno.EFBIG, f"the server has refused a file of more than {limit} bytes")

    def _noted(self, node: Node, content: Content, *, was_dirty: bool) -> None:
        node.ctime_ns = time.time_ns()
        if not was_dirty:
            self._uploads.schedule(node, content, self._settings.open_flush_s)

    async def truncate(self, node: Node, content: Content, size: int) -> None:
        """Cut or extend a version that the caller has acquired."""
        if size > FILE_SIZE_MAX:
            raise PosixError(errno.EFBIG)
        if size > content.size_bytes:
            self._must_fit(content, size)
        await content.prepare_write()
        self._check_room(content, size)
        was_dirty = content.dirty
        if not was_dirty:
            _journal_at(node, content)
        if size == 0 and node.content is content:
            self._based_on_what_was_seen(node, content)
        content.truncate(size)
        if content.complete:
            self._uploads.needs_no_rest(content)
        for file in self._handles.of(content):
            file.wrote = True
        if not content.orphan:
            self._noted(node, content, was_dirty=was_dirty)

    def _based_on_what_was_seen(self, node: Node, content: Content) -> None:
        """All of it is replaced, by a program that never read what stands there: see `unread`."""
        seen = self._tree.unread.seen(node.ino)
        if seen is not None:
            content.base, content.base_digest = seen.version, seen.digest
            if content.dirty:  # else its first change commits the row
                content.save()

    async def set_size(self, node: Node, handle: int | None, size: int) -> None:
        """SETATTR of the size, by handle or by path."""
        if self._settings.read_only:
            raise PosixError(errno.EROFS)
        if size > FILE_SIZE_MAX:
            raise PosixError(errno.EFBIG)
        if handle is not None:
            file = self._handles.file(handle)
            self._still_current(file)
            await self.truncate(file.node, file.content, size)
            return
        content = await self._current(node, writing=True, emptied=size == 0)
        try:
            await self.truncate(node, content, size)
            if content.dirty and not self._handles.has_writer(content):
                self._uploads.schedule(node, content, self._settings.write_back_s)
        finally:
            self._tree.let_go(node, content)

    async def set_mtime(self, node: Node, mtime_ns: int) -> None:
        content = node.content
        if content is not None and not content.closed:
            content.set_mtime(mtime_ns)
        if node.unlinked:
            node.last_mtime_ns = mtime_ns
            return
        node.ctime_ns = now_ns = time.time_ns()
        if node.parent is None:
            return
        if content is not None and content.dirty:
            self._tree.owed.set(node, mtime_ns, now_ns=now_ns, is_unsent=True)
            return
        entry = await self._tree.entry(node.parent, node.name)
        if entry.ours and self._tree.link_target(node) is not None:
            entry = await self._tree.refreshed(node)  # a link was made here: its version is not known yet
        if entry.resource is not None and not node.is_folder:
            self._tree.keep_mtime(node, mtime_ns, entry.resource.validator)
        elif node.is_folder:
            self._tree.keep_mtime(node, mtime_ns, None)
        self._tree.owed.set(node, mtime_ns, now_ns=now_ns, is_unsent=False)

    # --- durability

    async def flush(self, handle: int) -> None:
        """close(2): with close=sync it waits until the server has the file; else it tells what is known."""
        file = self._handles.file(handle)
        if self._settings.close_sync and file.wrote:
            await self.fsync(handle)
        elif file.writable:
            self._failures.tell_at_close(file)

    async def fsync(self, handle: int) -> None:
        """0 means that the server has it. A file in error is tried again: the answer is never an old one."""
        file = self._handles.file(handle)
        if file.discarded:
            raise StaleVersion(f"{file.node.name}: its unsent changes were discarded")
        if file.content.dirty:
            try:
                await self._uploads.flush(file.node, file.content)
            except DavfsError:
                self._failures.told(file)
                raise

    async def keep_readable(self, node: Node) -> bool:
        """Before an open file is removed or replaced: its handles must go on reading.

        False when too much of it is missing here: then the caller sets a copy aside on the server.
        """
        content = node.content
        if content is None or not any(self._handles.of(content)):
            return True
        content.held += 1  # for good: once its name is gone it cannot be fetched again
        if content.complete:
            return True
        if content.size_bytes - content.present.total_bytes > KEEP_MAX:
            return False
        try:
            await self.fetch_all(node, content)
        except DavfsError as error:
            # What is not here will read as an error; the removal itself is not refused for it.
            told = "%s is removed while it is open, and parts of it cannot be read any more: %s"
            log.warning(told, node.name, error)
        return True


def _journal_at(node: Node, content: Content) -> None:
    """The journal row of a file that becomes dirty names its path of now: it may be renamed while clean."""
    if not content.orphan and not node.unlinked:
        content.path = path_bytes(node.path)


def _holds(content: Content, resource: Resource) -> bool:
    """Whether the cached version is the one the server has."""
    return content.base is not None and content.base.same_version(resource.validator)
