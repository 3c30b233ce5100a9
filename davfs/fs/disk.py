"""The files of the content cache on the disk: where they are, and how many of them are open.

One file for each generation of each content: `data/xx/ID.GENERATION`. What is in them, and which of them are
wanted, is known by `content` and `index`. Beside its bytes a file can carry a `record`, as an extended
attribute (4 us); where the file system has none, or too small ones (ext4: 4 KiB), in a file that ends in
`.journal`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, Protocol

from davfs.errors import CacheFull, PosixError

RECORD: Final = "user.davfs.journal"
SIDECAR: Final = ".journal"
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT}
_FICLONE: Final = 0x40049409
_PUNCH_HOLE: Final = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE; Python has no call for it
_libc: Final = ctypes.CDLL(None, use_errno=True)


class CacheDisk:
    """The folder of the data files. Raises PosixError with what the disk said."""

    def __init__(self, folder: str) -> None:
        self._data = os.path.join(folder, "data")
        self._recovered = os.path.join(folder, "recovered")
        self._complete = os.path.join(folder, "records")
        self._has_sidecars = True  # until `files` has found none
        os.makedirs(self._data, mode=0o700, exist_ok=True)

    def file_name(self, content_id: int, generation: int) -> str:
        return f"{self._data}/{content_id & 0xFF:02x}/{content_id}.{generation}"

    def prepare(self) -> None:
        """Make all folders at once (10 ms), not one with each of the first 256 files."""
        if not os.path.exists(os.path.join(self._data, "ff")):
            for number in range(256):
                with suppress(OSError):  # a full disk: it is said when one is needed
                    os.mkdir(os.path.join(self._data, f"{number:02x}"), 0o700)

    def create(self, content_id: int, generation: int) -> int:
        """A descriptor of a new, empty file."""
        name = self.file_name(content_id, generation)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            try:
                return os.open(name, flags, 0o600)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(name), mode=0o700, exist_ok=True)
                return os.open(name, flags, 0o600)
        except OSError as error:
            raise disk_error(error) from error

    def remove(self, name: str) -> None:
        """A data file, and what belongs to it."""
        for path in (name, name + SIDECAR) if self._has_sidecars else (name,):
            with suppress(FileNotFoundError):
                os.unlink(path)

    def files(self) -> Iterator[tuple[str, tuple[int, int] | None]]:
        """Every file in the folder with its (id, generation); None for one with a name that is not ours."""
        sidecars = False
        for folder, _, names in os.walk(self._data):
            for name in names:
                sidecars = sidecars or name.endswith(SIDECAR)
                if name.endswith(SIDECAR) and name.removesuffix(SIDECAR) in names:
                    continue
                left, _, right = name.partition(".")
                ours = left.isdigit() and right.isdigit()
                yield os.path.join(folder, name), (int(left), int(right)) if ours else None
        self._has_sidecars = self._has_sidecars and sidecars

    def flush(self) -> None:
        """fsync(2) of every file would take one call each: syncfs(2) takes one."""
        fd = os.open(self._data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _libc.syncfs(fd) != 0:
                raise OSError(ctypes.get_errno(), "syncfs")
        finally:
            os.close(fd)

    # --- records

    @property
    def records_complete(self) -> bool:
        """Whether every unsent file has a record: then one without is known to be clean."""
        return os.path.exists(self._complete)

    def note_records_complete(self) -> None:
        with suppress(OSError):  # a full disk: said at the next start
            os.close(os.open(self._complete, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def write_record(self, content_id: int, generation: int, raw: bytes) -> None:
        name = self.file_name(content_id, generation)
        try:
            os.setxattr(name, RECORD, raw)
        except OSError:  # no attributes here, too large for one, or no room: a file of its own tells
            self._write_sidecar(name, raw)

    def _write_sidecar(self, name: str, raw: bytes) -> None:
        """Written over in one piece: the length says where it ends, its sum whether all of it is there."""
        self._has_sidecars = True
        try:
            fd = os.open(name + SIDECAR, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                whole = len(raw).to_bytes(4, "little") + raw
                if os.pwrite(fd, whole, 0) != len(whole):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(fd)
        except OSError as error:
            raise disk_error(error) from error

    def remove_record(self, content_id: int, generation: int) -> None:
        name = self.file_name(content_id, generation)
        with suppress(OSError):
            os.removexattr(name, RECORD)
        if self._has_sidecars:
            with suppress(OSError):
                os.unlink(name + SIDECAR)

    def records(self, path: str) -> list[bytes]:
        """What this file says of itself: nothing, one record, or an older and a newer one."""
        found = []
        with suppress(OSError):
            found.append(os.getxattr(path, RECORD))
        with suppress(OSError), open(path + SIDECAR, "rb") as file:
            raw = file.read()
            found.append(raw[4 : 4 + int.from_bytes(raw[:4], "little")])
        return found

    # --- what nobody knows

    def recover(self, path: str) -> str:
        """Put a file where nothing touches it any more: its new name."""
        os.makedirs(self._recovered, mode=0o700, exist_ok=True)
        name = os.path.join(self._recovered, os.path.basename(path))
        count = 0
        while os.path.exists(name):
            count += 1
            name = os.path.join(self._recovered, f"{os.path.basename(path)}-{count}")
        os.rename(path, name)
        with suppress(OSError):
            os.rename(path + SIDECAR, name + SIDECAR)
        return name

    def recovered(self) -> list[str]:
        try:
            names = os.listdir(self._recovered)
        except OSError:
            return []
        return sorted(os.path.join(self._recovered, name) for name in names if not name.endswith(SIDECAR))


def disk_error(error: OSError) -> PosixError:
    text = f"cache disk: {error.strerror}"
    if error.errno in _NO_ROOM:
        return CacheFull(error.errno, text)
    return PosixError(error.errno or errno.EIO, text)


class Parkable(Protocol):
    """What holds a descriptor that may be closed for a while."""

    @property
    def id(self) -> int: ...
    @property
    def parkable(self) -> bool: ...
    def opened(self, fd: int) -> None: ...
    def park(self) -> None: ...


class Descriptors:
    """Which contents have their file open: more can be unsent than descriptors be open."""

    def __init__(self) -> None:
        self._open: OrderedDict[int, Parkable] = OrderedDict()  # least recently opened first
        self._max = _descriptors()

    def open(self, content: Parkable, name: str) -> int:
        """A descriptor for this one; the least recently opened ones are closed for it."""
        self._make_room()
        try:
            fd = os.open(name, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise PosixError(errno.EIO, f"cache disk: {error.strerror}") from error
        self._open[content.id] = content
        return fd

    def keep(self, content: Parkable, fd: int) -> None:
        """The same for a file that was just made, which is open already."""
        self._make_room()
        content.opened(fd)
        self._open[content.id] = content

    def _make_room(self) -> None:
        while len(self._open) >= self._max:
            oldest = next((other for other in self._open.values() if other.parkable), None)
            if oldest is None:
                break
            del self._open[oldest.id]
            oldest.park()

    def forget(self, content_id: int) -> None:
        self._open.pop(content_id, None)


def _descriptors() -> int:
    """How many cached files may be open at once: half of what this process may have at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(16, max(soft, wanted) // 2)


def punch(fd: int, start: int, end: int) -> bool:
    """Free the disk space of [start, end); False where the file system cannot."""
    length = end - start
    return length > 0 and _libc.fallocate(fd, _PUNCH_HOLE, ctypes.c_int64(start), ctypes.c_int64(length)) == 0


def copy(source: int, target: int, size: int) -> None:
    """The first `size` bytes of one file to another: shared where the file system can. Raises OSError."""
    with suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        return
    done = 0
    while done < size:
        copied = os.copy_file_range(source, target, size - done, done, done)
        if copied == 0:
            break
        done += copied
    os.ftruncate(target, size)
