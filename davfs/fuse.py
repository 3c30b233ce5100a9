"""The kernel side: pyfuse3 requests in, one Filesystem method each, attributes and errnos out.

The only module that knows pyfuse3. No rule of the file system lives here. pyfuse3 handlers may raise only
FUSEError (anything else takes the mount down), so every handler is wrapped: a DavfsError becomes its
errno, anything unexpected becomes EIO with a traceback in the log.

Invalidations go to the kernel from a thread of their own: they may block on requests being handled.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from davfs.dav.resource import Quota
from davfs.errors import DavfsError
from davfs.fs.attributes import Attributes, Changes, Opened
from davfs.fs.filesystem import Filesystem, Invalidation

log = logging.getLogger("davfs.fuse")

REQUESTS_MAX: Final = 1000  # handled at once: slow transfers must leave room for everything else
BLOCK_BYTES: Final = 4096
UNKNOWN_SPACE_BYTES: Final = 1 << 50  # a server that does not tell its quota is not full (peers.md 31)
READ_AHEAD_KIB: Final = (
    1024  # 0.6 GB/s with the default of 128, 1.5 with 1024, slower again with 4096 (design.md)
)

P = ParamSpec("P")
R = TypeVar("R")
_Handler = Callable[Concatenate["KernelOperations", P], Coroutine[Any, Any, R]]


def _answering(handler: _Handler[P, R]) -> _Handler[P, R]:
    """Translate every failure into the one exception that pyfuse3 takes."""

    @functools.wraps(handler)
    async def wrapper(self: KernelOperations, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(self, *args, **kwargs)
        except FUSEError:
            raise
        except DavfsError as error:
            log.log(min(error.log_level, logging.WARNING), "%s: %s", handler.__name__, error)
            raise FUSEError(error.errno) from None
        except OSError as error:
            log.exception("%s failed", handler.__name__)
            raise FUSEError(error.errno or errno.EIO) from None
        except Exception:
            log.exception("%s failed unexpectedly", handler.__name__)
            raise FUSEError(errno.EIO) from None

    return wrapper


class KernelOperations(pyfuse3.Operations):
    """What the kernel may ask for."""

    supports_dot_lookup = False
    enable_writeback_cache = False  # it would hide other clients' size and mtime changes
    enable_acl = False

    def __init__(self, filesystem: Filesystem) -> None:
        super().__init__()
        self._fs = filesystem

    # --- names and attributes

    @_answering
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        if name in {b".", b".."}:  # only asked for by NFS servers
            raise FUSEError(errno.EOPNOTSUPP)
        return _entry(await self._fs.lookup(parent_inode, os.fsdecode(name)))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for inode, count in inode_list:
            self._fs.forget(inode, count)

    @_answering
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return _entry(await self._fs.getattr(inode))

    @_answering
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        changes = Changes(
            size_bytes=attr.st_size if fields.update_size else None,
            mode=attr.st_mode if fields.update_mode else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
        )
        return _entry(await self._fs.setattr(inode, changes, fh))

    @_answering
    async def access(self, inode: InodeT, mode: ModeT, ctx: RequestContext) -> bool:
        return True  # default_permissions: the kernel has checked

    # --- folders

    @_answering
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(await self._fs.opendir(inode, program=ctx.pid))

    @_answering
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        if start_id < 2 and not self._dots(fh, start_id, token):
            return
        entry = EntryAttributes()  # one for all: it is copied into the reply
        for name, attributes, next_id in await self._fs.readdir(fh, max(0, start_id - 2)):
            _fill(entry, attributes)
            if not pyfuse3.readdir_reply(token, FileNameT(os.fsencode(name)), entry, next_id + 2):
                self._fs.forget(attributes.ino, 0)
                return
            self._fs.has_taken(fh, name, attributes)

    def _dots(self, fh: int, start_id: int, token: ReaddirToken) -> bool:
        """Programs see numbers and kinds of these two; of their attributes the kernel keeps nothing."""
        names, entry = (FileNameT(b"."), FileNameT(b"..")), EntryAttributes()
        entry.st_mode = ModeT(stat.S_IFDIR)
        for at, number in enumerate(self._fs.dots(fh)):
            entry.st_ino = InodeT(number)
            if at >= start_id and not pyfuse3.readdir_reply(token, names[at], entry, at + 1):
                return False
        return True

    @_answering
    async def releasedir(self, fh: FileHandleT) -> None:
        self._fs.releasedir(fh)

    @_answering
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        await self._fs.fsyncdir(fh)

    @_answering
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        return _entry(await self._fs.mkdir(parent_inode, os.fsdecode(name), mode & ~ctx.umask))

    @_answering
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._fs.rmdir(parent_inode, os.fsdecode(name))

    @_answering
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._fs.unlink(parent_inode, os.fsdecode(name))

    @_answering
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        if flags & ~pyfuse3.RENAME_NOREPLACE:  # RENAME_EXCHANGE, RENAME_WHITEOUT: WebDAV has no such thing
            raise FUSEError(errno.EINVAL)
        await self._fs.rename(
            parent_inode_old,
            os.fsdecode(name_old),
            parent_inode_new,
            os.fsdecode(name_new),
            no_replace=bool(flags & pyfuse3.RENAME_NOREPLACE),
        )

    # --- files

    @_answering
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        try:
            return _info(await self._fs.open(inode, flags))
        except DavfsError as error:
            if error.errno != errno.ENOENT:
                raise
            # Gone since the kernel looked: at ESTALE it looks again, and makes the file if it was to be made.
            raise FUSEError(errno.ESTALE) from None

    @_answering
    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        opened, attributes = await self._fs.create(parent_inode, os.fsdecode(name), mode & ~ctx.umask, flags)
        return _info(opened), _entry(attributes)

    @_answering
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return await self._fs.read(fh, off, size)

    @_answering
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        return await self._fs.write(fh, off, buf)

    @_answering
    async def flush(self, fh: FileHandleT) -> None:
        await self._fs.flush(fh)

    @_answering
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self._fs.fsync(fh)

    @_answering
    async def release(self, fh: FileHandleT) -> None:
        await self._fs.release(fh)

    # --- the share

    @_answering
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        return _statvfs(await self._fs.statfs())

    @_answering
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        if name.startswith(b"security."):  # asked by the kernel before each write to pages
            raise FUSEError(errno.EOPNOTSUPP)
        return await self._fs.getxattr(inode, os.fsdecode(name))

    @_answering
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        return [XAttrNameT(os.fsencode(name)) for name in await self._fs.listxattr(inode)]

    @_answering
    async def setxattr(self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext) -> None:
        await self._fs.setxattr(inode, os.fsdecode(name), value)  # pyfuse3 sees to XATTR_CREATE and _REPLACE

    @_answering
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        await self._fs.removexattr(inode, os.fsdecode(name))

    @_answering
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        """A plain file: `tar --xattrs` makes it so. EPERM as in mknod(2) for what a share cannot have."""
        if not stat.S_ISREG(mode):
            raise FUSEError(errno.EPERM)
        wanted = stat.S_IMODE(mode) & ~ctx.umask
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        opened, attributes = await self._fs.create(parent_inode, os.fsdecode(name), wanted, flags)
        await self._fs.release(opened.handle)
        return _entry(attributes)

    @_answering
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        return _entry(await self._fs.symlink(parent_inode, os.fsdecode(name), os.fsdecode(target)))

    @_answering
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return FileNameT(os.fsencode(await self._fs.readlink(inode)))

    # --- what a share cannot have: EPERM as in link(2); cp, tar and install know it

    @_answering
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        raise FUSEError(errno.EPERM)


def _entry(attributes: Attributes) -> EntryAttributes:
    entry = EntryAttributes()
    _fill(entry, attributes)
    return entry


def _fill(entry: EntryAttributes, attributes: Attributes) -> None:
    entry.st_ino = InodeT(attributes.ino)
    entry.generation = 0
    entry.entry_timeout = attributes.valid_s
    entry.attr_timeout = attributes.valid_s
    entry.st_mode = ModeT(attributes.mode)
    entry.st_nlink = attributes.nlink
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = 0
    entry.st_size = attributes.size_bytes
    entry.st_blksize = BLOCK_BYTES
    entry.st_blocks = (attributes.size_bytes + 511) // 512
    entry.st_atime_ns = attributes.atime_ns
    entry.st_mtime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns


def _info(opened: Opened) -> FileInfo:
    return FileInfo(fh=FileHandleT(opened.handle), keep_cache=opened.keep_cache, direct_io=opened.direct)


def _statvfs(quota: Quota) -> StatvfsData:
    told = StatvfsData()
    used = quota.used_bytes or 0
    free = quota.available_bytes if quota.available_bytes is not None else UNKNOWN_SPACE_BYTES
    told.f_bsize = told.f_frsize = BLOCK_BYTES
    told.f_blocks = max(1, (used + free) // BLOCK_BYTES)  # df leaves out what has none
    told.f_bfree = told.f_bavail = free // BLOCK_BYTES
    told.f_files = told.f_ffree = told.f_favail = 0
    told.f_namemax = 255
    return told


# --- the session


def mount(filesystem: Filesystem, mountpoint: str, options: frozenset[str]) -> None:
    """Attach to the kernel. Raises DavfsError when the kernel or fusermount3 says no."""
    with _standard_error() as said:
        try:
            pyfuse3.init(KernelOperations(filesystem), mountpoint, set(options))
        except RuntimeError as error:
            reason = said().removeprefix("fusermount3: ") or str(error)
            raise DavfsError(f"cannot mount on {mountpoint}: {reason}") from None


@contextmanager
def _standard_error() -> Iterator[Callable[[], str]]:
    """What is written to it meanwhile: fusermount3 says there why it refuses; a daemon has no terminal."""
    try:
        before = os.dup(2)
    except OSError:  # closed by who started us
        yield str
        return
    with TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)

        def last_line() -> str:
            lines = os.pread(sink.fileno(), 4096, 0).decode(errors="replace").strip().splitlines()
            return lines[-1].strip() if lines else ""

        try:
            yield last_line
        finally:
            os.dup2(before, 2)
            os.close(before)


async def handle_requests(filesystem: Filesystem) -> None:
    """Until the drive is unmounted, or `stop` was called."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_deliver_invalidations, filesystem)
        await pyfuse3.main(min_tasks=4, max_tasks=REQUESTS_MAX)
        nursery.cancel_scope.cancel()


def stop() -> None:
    """Make `handle_requests` return."""
    pyfuse3.terminate()


def unmount() -> None:
    """Detach from the kernel; harmless when the drive is unmounted already."""
    pyfuse3.close(unmount=True)


async def _deliver_invalidations(filesystem: Filesystem) -> None:
    async for told in filesystem.invalidations:
        with suppress(OSError):  # ENOENT: the kernel has forgotten it
            await trio.to_thread.run_sync(_invalidate, told, abandon_on_cancel=True)
        told.delivered.set()


def _invalidate(what: Invalidation) -> None:
    if what.name is None:
        pyfuse3.invalidate_inode(InodeT(what.ino))
    else:
        pyfuse3.invalidate_entry(InodeT(what.ino), FileNameT(os.fsencode(what.name)))


def widen_read_ahead(mountpoint: str) -> None:
    """Let the kernel ask for more at once, where the daemon may say so (root).

    When the drive answers, not before: the kernel sets its own 128 KiB with the answer to its first request.
    """
    with (
        suppress(OSError),
        open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts,
    ):
        escaped = (
            mountpoint.replace("\\", "\\134")
            .replace(" ", "\\040")
            .replace("\t", "\\011")
            .replace("\n", "\\012")
        )
        device = next(
            (line.split()[2] for line in reversed(list(mounts)) if line.split()[4] == escaped), None
        )
        if device is not None:
            with open(f"/sys/class/bdi/{device}/read_ahead_kb", "w", encoding="ascii") as setting:
                setting.write(str(READ_AHEAD_KIB))
