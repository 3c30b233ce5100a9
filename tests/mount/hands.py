"""The process that touches a mount in place of pytest: reads calls from stdin, writes answers to stdout.

A mount whose daemon hangs blocks whoever touches it, beyond SIGKILL. So pytest never does: it asks this
process, waits for so long as it likes, and can still take the mount down. One length-prefixed pickle per call
and per answer. Run as a script; imports nothing of davfs and nothing of the tests.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import pickle
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2


def _renameat2(old: str, new: str, flags: int) -> None:
    if _LIBC.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), old)


def rename_noreplace(old: str, new: str) -> None:
    _renameat2(old, new, _RENAME_NOREPLACE)


def rename_exchange(old: str, new: str) -> None:
    _renameat2(old, new, _RENAME_EXCHANGE)


def as_tuple(found: os.stat_result) -> tuple[int, ...]:
    return (
        found.st_ino,
        found.st_mode,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_atime_ns,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
    )


def stat(path: str) -> tuple[int, ...]:
    return as_tuple(os.stat(path))


def lstat(path: str) -> tuple[int, ...]:
    return as_tuple(os.lstat(path))


def fstat(fd: int) -> tuple[int, ...]:
    return as_tuple(os.fstat(fd))


def listdir(path: str) -> list[str]:
    return sorted(os.listdir(path))


def utime(path: str, mtime_ns: int, atime_ns: int | None = None) -> None:
    os.utime(path, ns=(mtime_ns if atime_ns is None else atime_ns, mtime_ns))


def futime(fd: int, mtime_ns: int) -> None:
    os.utime(fd, ns=(mtime_ns, mtime_ns))


def read(fd: int, size: int = 1 << 20) -> bytes:
    return os.read(fd, size)


def seek(fd: int, offset: int) -> None:
    os.lseek(fd, offset, os.SEEK_SET)


def read_file(path: str) -> bytes:
    return Path(path).read_bytes()


def write_file(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)


def mmap_read(fd: int, offset: int, size: int) -> bytes:
    with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as window:
        return window[offset : offset + size]


def mmap_write(fd: int, offset: int, data: bytes) -> None:
    with mmap.mmap(fd, 0) as window:
        window[offset : offset + len(data)] = data
        window.flush()


def socket_at(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path)


def walk(path: str) -> list[tuple[str, list[str], list[str]]]:
    def fail(error: OSError) -> None:
        raise error

    return [(at, sorted(dirs), sorted(files)) for at, dirs, files in os.walk(path, onerror=fail)]


def read_tree(path: str) -> tuple[dict[str, bytes], set[str]]:
    """Everything below: relative paths of files with their bytes, and of folders."""
    files: dict[str, bytes] = {}
    folders: set[str] = set()
    for at, dirs, names in walk(path):
        here = Path(at)
        folders |= {str((here / name).relative_to(path)) for name in dirs}
        files |= {str((here / name).relative_to(path)): (here / name).read_bytes() for name in names}
    return files, folders


def statvfs(path: str) -> tuple[int, int]:
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


_CALLS: dict[str, Callable[..., Any]] = {
    call.__name__: call
    for call in (
        rename_noreplace, rename_exchange, stat, lstat, fstat, listdir, utime, futime, read, seek, read_file,
        write_file, mmap_read, mmap_write, socket_at, walk, read_tree, statvfs,
        os.open, os.close, os.write, os.pread, os.pwrite, os.fsync, os.truncate, os.ftruncate, os.chmod,
        os.chown, os.mkdir, os.rmdir, os.unlink, os.rename, os.link, os.symlink, os.mkfifo, os.mknod,
        os.listxattr, os.getxattr, os.setxattr, os.removexattr, os.readlink, os.chdir, os.getcwd, os.access,
        os.seteuid, os.fdatasync,
    )
}  # fmt: skip


def _take(stream: BinaryIO) -> Any:
    head = stream.read(4)
    if len(head) < 4:
        raise SystemExit(0)
    return pickle.loads(stream.read(struct.unpack("!I", head)[0]))


def _give(stream: BinaryIO, answer: object) -> None:
    data = pickle.dumps(answer)
    stream.write(struct.pack("!I", len(data)) + data)
    stream.flush()


def main() -> None:
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while True:
        name, arguments = _take(stdin)
        answer: tuple[tuple[int | None, str] | None, Any]
        try:
            answer = (None, _CALLS[name](*arguments))
        except OSError as error:
            answer = ((error.errno, str(error)), None)
        _give(stdout, answer)


if __name__ == "__main__":
    main()
