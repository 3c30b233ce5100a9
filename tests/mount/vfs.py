"""What the kernel does above a FUSE daemon, in as little code as will do: paths, flags, file positions.

`Vfs` turns paths into lookups, one segment at a time, and calls one method of `Filesystem` for each thing
the kernel would ask. It keeps nothing: every inode it looked up is forgotten again before the call
returns, unless a handle holds it. So `Filesystem` is tried with the worst kernel there is, one without a
dentry cache. Only what it listed last it remembers until it lists again, as READDIRPLUS makes a kernel do.

It never decides what `Filesystem` should decide: kinds, emptiness and names are passed down unchecked,
although the real kernel refuses some of them itself.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from davfs.dav.resource import Quota
from davfs.errors import PosixError
from davfs.fs.attributes import Attributes, Changes
from davfs.fs.filesystem import ROOT_INO, Filesystem

_READDIR_NAMES = 7
_NOT_FOR_OPEN = os.O_CREAT | os.O_EXCL | os.O_NOCTTY  # the kernel keeps these for itself (fuse_send_open)


class Stat(NamedTuple):
    """What both drivers answer to stat, lstat and fstat."""

    ino: int
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    atime_ns: int
    nlink: int
    uid: int
    gid: int

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def permissions(self) -> int:
        return stat.S_IMODE(self.mode)


def as_stat(told: Attributes) -> Stat:
    return Stat(
        told.ino,
        told.mode,
        told.size_bytes,
        told.mtime_ns,
        told.ctime_ns,
        told.atime_ns,
        told.nlink,
        told.uid,
        told.gid,
    )


@dataclass(slots=True)
class _Open:
    """One file descriptor."""

    ino: int
    handle: int | None  # None: a folder
    flags: int
    position: int = 0


def _split(path: str) -> tuple[list[str], str]:
    parts = [part for part in path.split("/") if part and part != "."]
    if not parts:
        raise PosixError(errno.EBUSY)  # the root itself: the kernel never asks to remove or rename it
    return parts[:-1], parts[-1]


class Vfs:
    """Paths are relative to the mount's root; "" is the root. Raises DavfsError, with `.errno`."""

    def __init__(self, fs: Filesystem) -> None:
        self.fs = fs
        self._files: dict[int, _Open] = {}
        self._listed: list[int] = []

    # --- names

    @asynccontextmanager
    async def _at(self, parts: list[str]) -> AsyncIterator[Attributes]:
        """The attributes of a path, with its inode held meanwhile."""
        told = await self.fs.getattr(ROOT_INO)
        held: int | None = None
        try:
            for name in parts:
                if not stat.S_ISDIR(told.mode):
                    raise PosixError(errno.ENOTDIR)
                told = await self.fs.lookup(told.ino, name)
                if held is not None:
                    self.fs.forget(held, 1)
                held = told.ino
            yield told
        finally:
            if held is not None:
                self.fs.forget(held, 1)

    @asynccontextmanager
    async def _folder_of(self, path: str) -> AsyncIterator[tuple[int, str]]:
        parts, name = _split(path)
        async with self._at(parts) as folder:
            if not stat.S_ISDIR(folder.mode):
                raise PosixError(errno.ENOTDIR)
            yield folder.ino, name

    def _whole(self, path: str) -> list[str]:
        return [part for part in path.split("/") if part and part != "."]

    async def stat(self, path: str) -> Stat:
        async with self._at(self._whole(path)) as told:
            return as_stat(await self.fs.getattr(told.ino))

    lstat = stat

    async def listdir(self, path: str) -> list[str]:
        async with self._at(self._whole(path)) as folder:
            if not stat.S_ISDIR(folder.mode):
                raise PosixError(errno.ENOTDIR)
            handle = await self.fs.opendir(folder.ino)
            try:
                return await self._all_names(handle)
            finally:
                self.fs.releasedir(handle)

    async def _all_names(self, handle: int) -> list[str]:
        """In pieces of a few names, as a kernel whose buffer is small."""
        names: list[str] = []
        start, before_start = 0, -1
        self.forget_listed()
        while start != before_start:
            before_start = start
            for name, told, after in islice(await self.fs.readdir(handle, start), _READDIR_NAMES):
                names.append(name)
                self.fs.has_taken(handle, name, told)
                self._listed.append(told.ino)
                start = after
        return sorted(names)

    def forget_listed(self) -> None:
        while self._listed:
            self.fs.forget(self._listed.pop(), 1)

    async def mkdir(self, path: str, mode: int = 0o755) -> None:
        async with self._folder_of(path) as (parent, name):
            made = await self.fs.mkdir(parent, name, mode)
            self.fs.forget(made.ino, 1)

    async def rmdir(self, path: str) -> None:
        async with self._folder_of(path) as (parent, name):
            await self.fs.rmdir(parent, name)

    async def unlink(self, path: str) -> None:
        async with self._folder_of(path) as (parent, name):
            await self.fs.unlink(parent, name)

    async def rename(self, old: str, new: str, *, no_replace: bool = False) -> None:
        async with self._folder_of(old) as (parent, name), self._folder_of(new) as (new_parent, new_name):
            await self.fs.rename(parent, name, new_parent, new_name, no_replace=no_replace)

    async def rename_noreplace(self, old: str, new: str) -> None:
        await self.rename(old, new, no_replace=True)

    # --- attributes

    async def _change(self, path: str, changes: Changes) -> None:
        async with self._at(self._whole(path)) as told:
            await self.fs.setattr(told.ino, changes)

    async def truncate(self, path: str, size: int) -> None:
        await self._change(path, Changes(size_bytes=size))

    async def utime(self, path: str, mtime_ns: int, atime_ns: int | None = None) -> None:
        await self._change(
            path, Changes(mtime_ns=mtime_ns, atime_ns=mtime_ns if atime_ns is None else atime_ns)
        )

    async def chmod(self, path: str, mode: int) -> None:
        await self._change(path, Changes(mode=mode))

    async def chown(self, path: str, uid: int, gid: int) -> None:
        await self._change(path, Changes(uid=uid, gid=gid))

    async def listxattr(self, path: str) -> list[str]:
        async with self._at(self._whole(path)) as told:
            return await self.fs.listxattr(told.ino)

    async def getxattr(self, path: str, name: str) -> bytes:
        async with self._at(self._whole(path)) as told:
            return await self.fs.getxattr(told.ino, name)

    async def setxattr(self, path: str, name: str, value: bytes) -> None:
        async with self._at(self._whole(path)) as told:
            await self.fs.setxattr(told.ino, name, value)

    async def removexattr(self, path: str, name: str) -> None:
        async with self._at(self._whole(path)) as told:
            await self.fs.removexattr(told.ino, name)

    async def symlink(self, target: str, path: str) -> None:
        async with self._folder_of(path) as (parent, name):
            self.fs.forget((await self.fs.symlink(parent, name, target)).ino, 1)

    async def readlink(self, path: str) -> str:
        async with self._at(self._whole(path)) as told:
            return await self.fs.readlink(told.ino)

    async def statvfs(self) -> Quota:
        return await self.fs.statfs()

    # --- open files

    async def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
        if flags & os.O_CREAT:
            opened = await self._open_or_create(path, flags, mode)
        else:
            async with self._at(self._whole(path)) as told:
                opened = await self._open(told, flags)
        fd = min(set(range(3, 5 + len(self._files))) - set(self._files))
        self._files[fd] = opened
        return fd

    async def _open_or_create(self, path: str, flags: int, mode: int) -> _Open:
        async with self._folder_of(path) as (parent, name):
            try:
                told = await self.fs.lookup(parent, name)
            except Exception as error:
                if getattr(error, "errno", None) != errno.ENOENT:
                    raise
                made, told = await self.fs.create(parent, name, mode, flags)
                return _Open(told.ino, made.handle, flags)
            try:
                if flags & os.O_EXCL:
                    raise PosixError(errno.EEXIST)
                if stat.S_ISDIR(told.mode):
                    raise PosixError(errno.EISDIR)
                return await self._open(told, flags)
            finally:
                self.fs.forget(told.ino, 1)

    async def _open(self, told: Attributes, flags: int) -> _Open:
        """Takes a reference of its own, as the kernel's file does."""
        if stat.S_ISDIR(told.mode):
            if flags & (os.O_ACCMODE | os.O_TRUNC):
                raise PosixError(errno.EISDIR)
            return _Open(told.ino, None, flags)
        if flags & os.O_DIRECTORY:
            raise PosixError(errno.ENOTDIR)
        opened = await self.fs.open(told.ino, flags & ~_NOT_FOR_OPEN)
        self.fs._tree.nodes.get(told.ino).lookups += 1
        return _Open(told.ino, opened.handle, flags)

    def _file(self, fd: int, unwanted: int | None = None) -> tuple[_Open, int]:
        if fd not in self._files:
            raise PosixError(errno.EBADF)
        opened = self._files[fd]
        if unwanted is not None and opened.flags & os.O_ACCMODE == unwanted:
            raise PosixError(errno.EBADF)
        if opened.handle is None:
            raise PosixError(errno.EISDIR)
        return opened, opened.handle

    async def pread(self, fd: int, size: int, offset: int) -> bytes:
        _, handle = self._file(fd, os.O_WRONLY)
        return await self.fs.read(handle, offset, size)

    async def read(self, fd: int, size: int = 1 << 20) -> bytes:
        opened, _ = self._file(fd)
        data = await self.pread(fd, size, opened.position)
        opened.position += len(data)
        return data

    async def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        opened, handle = self._file(fd, os.O_RDONLY)
        if not data:
            return 0  # generic_write_checks ends it
        if opened.flags & os.O_APPEND:  # Linux appends in pwrite too (pwrite(2), BUGS)
            offset = (await self.fs.getattr(opened.ino, handle)).size_bytes
        return await self.fs.write(handle, offset, data)

    async def write(self, fd: int, data: bytes) -> int:
        opened, handle = self._file(fd, os.O_RDONLY)
        if not data:
            return 0
        if opened.flags & os.O_APPEND:
            opened.position = (await self.fs.getattr(opened.ino, handle)).size_bytes
        count = await self.fs.write(handle, opened.position, data)
        opened.position += count
        return count

    async def seek(self, fd: int, offset: int) -> None:
        self._file(fd)[0].position = offset

    async def fstat(self, fd: int) -> Stat:
        if fd not in self._files:
            raise PosixError(errno.EBADF)
        opened = self._files[fd]
        return as_stat(await self.fs.getattr(opened.ino, opened.handle))

    async def ftruncate(self, fd: int, size: int) -> None:
        opened, handle = self._file(fd)
        if opened.flags & os.O_ACCMODE == os.O_RDONLY:
            raise PosixError(errno.EINVAL)
        await self.fs.setattr(opened.ino, Changes(size_bytes=size), handle)

    async def futime(self, fd: int, mtime_ns: int) -> None:
        opened, handle = self._file(fd)
        await self.fs.setattr(opened.ino, Changes(mtime_ns=mtime_ns, atime_ns=mtime_ns), handle)

    async def fsync(self, fd: int) -> None:
        _, handle = self._file(fd)
        await self.fs.fsync(handle)

    async def close(self, fd: int) -> None:
        """Releases whatever flush says, as close(2) does."""
        if fd not in self._files:
            raise PosixError(errno.EBADF)
        opened = self._files.pop(fd)
        if opened.handle is None:
            return
        try:
            await self.fs.flush(opened.handle)
        finally:
            await self.fs.release(opened.handle)
            self.fs.forget(opened.ino, 1)
