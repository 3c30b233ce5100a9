"""What POSIX says of open, rename, unlink, mkdir, rmdir, truncate and ftruncate: each errno, each time stamp.

The groups are those of pjdfstest; the checks are our own. What WebDAV cannot have is not tested here:

- symbolic links, and so ELOOP: RFC 4918 has none (`symlink` is refused, test_scenarios.py);
- hard links, fifos, devices, sockets: the same; so "too many links" (EMLINK) and rename of them do not exist;
- owners, groups, sticky bits, and so EACCES and EPERM by permission: a share has one owner, who mounts; the
  server's own refusals are EACCES (tests/faults);
- file flags (immutable, append-only): Linux keeps them per file system, and WebDAV has none;
- ETXTBSY of a running program: the kernel's FUSE knows it only for the same mount, and the server never does;
- EROFS is test_scenarios.py's; ENOSPC and EDQUOT are tests/faults'; EFAULT and EMFILE are the kernel's alone;
- PATH_MAX (a path of 4,096 bytes): the kernel's alone.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

import pytest

from tests.mount.drivers import Driver
from tests.mount.test_scenarios import refused

NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL
TOO_LONG = "x" * 256
TICK_S = 0.02
CLOCK_NS = 50_000_000  # the kernel takes the time of files from a clock that ticks
SECOND_NS = 1_000_000_000


def _make(drive: Driver) -> None:
    """file, full/ (with a file), empty/: the kinds of thing a name can stand for."""
    drive.write_file("file", b"0123456789")
    drive.mkdir("full")
    drive.write_file("full/inner", b"x")
    drive.mkdir("empty")


Call = Callable[[Driver, str], object]
BY_PATH: dict[str, Call] = {
    "open": lambda drive, path: drive.open(path),
    "open to create": lambda drive, path: drive.open(path, NEW_FILE),
    "unlink": lambda drive, path: drive.unlink(path),
    "mkdir": lambda drive, path: drive.mkdir(path),
    "rmdir": lambda drive, path: drive.rmdir(path),
    "truncate": lambda drive, path: drive.truncate(path, 1),
    "stat": lambda drive, path: drive.stat(path),
    "rename from": lambda drive, path: drive.rename(path, "new"),
    "rename to": lambda drive, path: drive.rename("full/inner", path),
    "chmod": lambda drive, path: drive.chmod(path, 0o600),
    "utimens": lambda drive, path: drive.utime(path, 1),
}


@pytest.mark.parametrize("name", BY_PATH)
def test_errors_of_a_bad_path(drive: Driver, name: str) -> None:
    """A missing folder on the way is ENOENT, a file on the way ENOTDIR, a long name ENAMETOOLONG; nothing
    changes.
    """
    call = BY_PATH[name]
    _make(drive)
    with refused(errno.ENOENT):
        call(drive, "missing/x")
    with refused(errno.ENOTDIR):
        call(drive, "file/x")
    with refused(errno.ENAMETOOLONG):
        call(drive, TOO_LONG)
    with refused(errno.ENAMETOOLONG):
        call(drive, f"{TOO_LONG}/x")
    assert drive.listdir() == ["empty", "file", "full"]
    assert drive.listdir("full") == ["inner"]


@pytest.mark.parametrize(
    "name", ["open", "unlink", "rmdir", "truncate", "stat", "rename from", "chmod", "utimens"]
)
def test_a_missing_name_is_enoent(drive: Driver, name: str) -> None:
    """Of a name that does not exist, and of one that existed until now."""
    drive.write_file("gone", b"x")
    drive.unlink("gone")
    for path in ("never", "gone"):
        with refused(errno.ENOENT):
            BY_PATH[name](drive, path)


# --- open -----------------------------------------------------------------------------------------------


def test_open_creates_with_the_mode_given(drive: Driver) -> None:
    """The mode of open(2) is the file's, whatever the mode of others is."""
    for mode in (0o600, 0o640, 0o755):
        drive.close(drive.open(f"f{mode:o}", NEW_FILE, mode))
        assert drive.stat(f"f{mode:o}").permissions == mode


def test_creating_a_file_moves_the_times_of_its_folder(drive: Driver) -> None:
    """mtime and ctime of the folder, and all three of the file, are now."""
    drive.mkdir("d")
    before = drive.stat("d")
    time.sleep(TICK_S)
    begun_ns = time.time_ns()
    drive.close(drive.open("d/a", NEW_FILE))
    after = drive.stat("d")
    assert after.mtime_ns > before.mtime_ns
    assert after.ctime_ns > before.ctime_ns
    assert begun_ns - CLOCK_NS <= drive.stat("d/a").mtime_ns <= time.time_ns()


def test_opening_an_existing_file_changes_no_times(drive: Driver) -> None:
    """O_CREAT of what exists leaves file and folder alone, content included."""
    drive.mkdir("d")
    drive.write_file("d/a", b"x")
    before, folder_before = drive.stat("d/a"), drive.stat("d")
    time.sleep(TICK_S)
    drive.close(drive.open("d/a", os.O_RDWR | os.O_CREAT))
    assert drive.stat("d/a").mtime_ns == before.mtime_ns
    assert drive.stat("d").mtime_ns == folder_before.mtime_ns
    assert drive.read_file("d/a") == b"x"


def test_o_trunc(drive: Driver) -> None:
    """Empties the file and moves its mtime and ctime."""
    drive.write_file("a", b"0123456789")
    before = drive.stat("a")
    time.sleep(TICK_S)
    drive.close(drive.open("a", os.O_WRONLY | os.O_TRUNC))
    after = drive.stat("a")
    assert after.size == 0
    assert after.mtime_ns > before.mtime_ns
    assert after.ctime_ns > before.ctime_ns


@pytest.mark.parametrize(
    "flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_TRUNC]
)
def test_opening_a_folder_for_writing_is_eisdir(drive: Driver, flags: int) -> None:
    """In every way that would write."""
    drive.mkdir("d")
    with refused(errno.EISDIR):
        drive.open("d", flags)


def test_o_excl_of_anything_that_exists(drive: Driver) -> None:
    """A file, an empty folder, a full one: EEXIST."""
    _make(drive)
    for name in ("file", "full", "empty"):
        with refused(errno.EEXIST):
            drive.open(name, NEW_FILE)


def test_o_creat_of_a_folder_is_eisdir(drive: Driver) -> None:
    """Without O_EXCL."""
    drive.mkdir("d")
    with refused(errno.EISDIR):
        drive.open("d", os.O_RDWR | os.O_CREAT)


def test_o_directory_of_a_file_is_enotdir(drive: Driver) -> None:
    """And a folder opens with it."""
    _make(drive)
    with refused(errno.ENOTDIR):
        drive.open("file", os.O_RDONLY | os.O_DIRECTORY)
    drive.close(drive.open("empty", os.O_RDONLY | os.O_DIRECTORY))


def test_handles_do_only_what_they_were_opened_for(drive: Driver) -> None:
    """write on O_RDONLY and read on O_WRONLY are EBADF."""
    drive.write_file("a", b"x")
    reader, writer = drive.open("a", os.O_RDONLY), drive.open("a", os.O_WRONLY)
    with refused(errno.EBADF):
        drive.write(reader, b"y")
    with refused(errno.EBADF):
        drive.read(writer)
    drive.close(reader)
    drive.close(writer)
    assert drive.read_file("a") == b"x"


# --- unlink ---------------------------------------------------------------------------------------------


def test_unlink(drive: Driver) -> None:
    """Removes the file, and moves the times of the folder."""
    drive.mkdir("d")
    drive.write_file("d/a", b"x")
    before = drive.stat("d")
    time.sleep(TICK_S)
    drive.unlink("d/a")
    assert drive.listdir("d") == []
    after = drive.stat("d")
    assert after.mtime_ns > before.mtime_ns
    assert after.ctime_ns > before.ctime_ns


def test_unlink_of_a_folder_is_eisdir(drive: Driver) -> None:
    """Linux says EISDIR; POSIX also allows EPERM. The folder stays."""
    _make(drive)
    for name in ("full", "empty"):
        with refused(errno.EISDIR, errno.EPERM):
            drive.unlink(name)
    assert drive.listdir() == ["empty", "file", "full"]


def test_unlink_of_an_open_file_moves_its_ctime(drive: Driver) -> None:
    """fstat shows st_nlink 0 and a new ctime; size and mtime stay."""
    drive.write_file("a", b"0123456789")
    fd = drive.open("a")
    before = drive.fstat(fd)
    time.sleep(TICK_S)
    drive.unlink("a")
    after = drive.fstat(fd)
    assert (after.nlink, after.size, after.mtime_ns) == (0, before.size, before.mtime_ns)
    assert after.ctime_ns > before.ctime_ns
    drive.close(fd)


def test_a_name_can_be_used_again_at_once(drive: Driver) -> None:
    """unlink, create, unlink, create: each time a new, empty file, while the old one is open."""
    drive.write_file("a", b"old")
    fd = drive.open("a")
    old_ino = drive.fstat(fd).ino
    drive.unlink("a")
    drive.close(drive.open("a", NEW_FILE))
    assert drive.stat("a").size == 0
    assert drive.stat("a").ino != old_ino
    assert drive.read(fd) == b"old"
    drive.close(fd)


# --- mkdir and rmdir -----------------------------------------------------------------------------------


def test_mkdir(drive: Driver) -> None:
    """Makes an empty folder with the mode given, and moves the times of its parent."""
    drive.mkdir("p")
    before = drive.stat("p")
    time.sleep(TICK_S)
    begun_ns = time.time_ns()
    drive.mkdir("p/d", 0o750)
    told = drive.stat("p/d")
    assert told.is_folder
    assert told.permissions == 0o750
    assert drive.listdir("p/d") == []
    assert drive.stat("p").mtime_ns > before.mtime_ns
    assert drive.stat("p").ctime_ns > before.ctime_ns
    assert begun_ns - SECOND_NS <= told.mtime_ns <= time.time_ns() + SECOND_NS  # the server's own, perhaps


def test_mkdir_of_anything_that_exists_is_eexist(drive: Driver) -> None:
    """A file, an empty folder, a full one."""
    _make(drive)
    for name in ("file", "full", "empty"):
        with refused(errno.EEXIST):
            drive.mkdir(name)


def test_rmdir(drive: Driver) -> None:
    """Removes an empty folder, and moves the times of its parent."""
    drive.mkdir("p")
    drive.mkdir("p/d")
    before = drive.stat("p")
    time.sleep(TICK_S)
    drive.rmdir("p/d")
    assert drive.listdir("p") == []
    assert drive.stat("p").mtime_ns > before.mtime_ns
    assert drive.stat("p").ctime_ns > before.ctime_ns


def test_rmdir_refuses(drive: Driver) -> None:
    """A full folder is ENOTEMPTY, a file ENOTDIR; both stay."""
    _make(drive)
    drive.mkdir("nested")
    drive.mkdir("nested/empty")
    for name in ("full", "nested"):
        with refused(errno.ENOTEMPTY, errno.EEXIST):
            drive.rmdir(name)
    with refused(errno.ENOTDIR):
        drive.rmdir("file")
    assert drive.listdir() == ["empty", "file", "full", "nested"]
    assert drive.read_file("full/inner") == b"x"


# --- rename --------------------------------------------------------------------------------------------


def test_rename_of_a_file(drive: Driver) -> None:
    """To a free name: same number, size and mtime; ctime may move; the times of both folders move."""
    drive.mkdir("from")
    drive.mkdir("to")
    drive.write_file("from/a", b"x")
    before = drive.stat("from/a")
    folders = (drive.stat("from"), drive.stat("to"))
    time.sleep(TICK_S)
    drive.rename("from/a", "to/b")
    after = drive.stat("to/b")
    assert (after.ino, after.size, after.mtime_ns) == (before.ino, before.size, before.mtime_ns)
    for name, told in zip(("from", "to"), folders, strict=True):
        assert drive.stat(name).mtime_ns > told.mtime_ns
        assert drive.stat(name).ctime_ns > told.ctime_ns
    with refused(errno.ENOENT):
        drive.stat("from/a")


@pytest.mark.parametrize("sent", [True, False])
def test_rename_over_an_existing_file(drive: Driver, sent: bool) -> None:
    """The old file is gone, the new one has its name."""
    drive.write_file("a", b"a")
    drive.write_file("b", b"b")
    if sent:
        assert drive.sync() == 0
    ino = drive.stat("a").ino
    drive.rename("a", "b")
    assert drive.listdir() == ["b"]
    assert drive.read_file("b") == b"a"
    assert drive.stat("b").ino == ino
    assert drive.sync() == 0
    assert (drive.disk / "b").read_bytes() == b"a"


def test_rename_to_itself(drive: Driver) -> None:
    """Does nothing, successfully (servers.md: a MOVE onto itself deletes the file on some)."""
    _make(drive)
    assert drive.sync() == 0
    drive.rename("file", "file")
    drive.rename("full", "full")
    assert drive.read_file("file") == b"0123456789"
    assert drive.read_file("full/inner") == b"x"


def test_rename_of_a_folder_over_an_empty_one(drive: Driver) -> None:
    """Takes its place."""
    _make(drive)
    drive.rename("full", "empty")
    assert drive.listdir() == ["empty", "file"]
    assert drive.read_file("empty/inner") == b"x"


def test_rename_of_a_folder_over_a_full_one(drive: Driver) -> None:
    """ENOTEMPTY or EEXIST, and both stay."""
    _make(drive)
    drive.mkdir("other")
    drive.write_file("other/o", b"o")
    for name in ("other", "empty"):
        with refused(errno.ENOTEMPTY, errno.EEXIST):
            drive.rename(name, "full")
    assert drive.read_file("full/inner") == b"x"
    assert drive.read_file("other/o") == b"o"


def test_rename_between_kinds(drive: Driver) -> None:
    """A folder over a file is ENOTDIR, a file over a folder EISDIR; all stay."""
    _make(drive)
    for name in ("full", "empty"):
        with refused(errno.ENOTDIR):
            drive.rename(name, "file")
        with refused(errno.EISDIR):
            drive.rename("file", name)
    assert drive.listdir() == ["empty", "file", "full"]
    assert drive.sync() == 0
    assert (drive.disk / "full/inner").read_bytes() == b"x"


def test_rename_of_a_folder_into_itself(drive: Driver) -> None:
    """EINVAL, directly and deeper (nginx would destroy it, servers.md 2)."""
    drive.mkdir("d")
    drive.mkdir("d/e")
    drive.write_file("d/f", b"x")
    assert drive.sync() == 0
    for target in ("d/new", "d/e/new", "d/e"):
        with refused(errno.EINVAL):
            drive.rename("d", target)
    assert drive.listdir("d") == ["e", "f"]
    assert (drive.disk / "d/f").read_bytes() == b"x"


def test_rename_over_an_ancestor(drive: Driver) -> None:
    """ENOTEMPTY (or EEXIST): the target holds the source."""
    drive.mkdir("d")
    drive.mkdir("d/e")
    with refused(errno.ENOTEMPTY, errno.EEXIST):
        drive.rename("d/e", "d")
    assert drive.listdir("d") == ["e"]


def test_rename_moves_a_whole_tree(drive: Driver) -> None:
    """Everything below is found under the new name, here and on the server."""
    drive.mkdir("a")
    drive.mkdir("a/b")
    drive.write_file("a/b/c", b"deep")
    assert drive.sync() == 0
    drive.mkdir("x")
    drive.rename("a", "x/y")
    assert drive.read_file("x/y/b/c") == b"deep"
    assert drive.listdir() == ["x"]
    assert drive.sync() == 0
    assert (drive.disk / "x/y/b/c").read_bytes() == b"deep"


# --- truncate and ftruncate ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 5, 10, 11, 4096, 100_000])
def test_truncate(drive: Driver, size: int) -> None:
    """By path: the size is right at once, what is left is kept, what is new is zeros."""
    drive.write_file("a", b"0123456789")
    drive.truncate("a", size)
    assert drive.stat("a").size == size
    assert drive.read_file("a") == (b"0123456789" + b"\0" * size)[:size]
    assert drive.sync() == 0
    assert (drive.disk / "a").read_bytes() == (b"0123456789" + b"\0" * size)[:size]


@pytest.mark.parametrize("size", [0, 5, 10, 100_000])
def test_ftruncate(drive: Driver, size: int) -> None:
    """By handle: the same, and the position of the handle stays."""
    drive.write_file("a", b"0123456789")
    assert drive.sync() == 0
    fd = drive.open("a", os.O_RDWR)
    drive.ftruncate(fd, size)
    assert drive.fstat(fd).size == drive.stat("a").size == size
    drive.write(fd, b"AB")
    drive.close(fd)
    wanted = b"AB" + (b"0123456789" + b"\0" * size)[:size][2:]
    assert drive.read_file("a") == wanted
    assert drive.sync() == 0
    assert (drive.disk / "a").read_bytes() == wanted


def test_truncate_moves_mtime_and_ctime(drive: Driver) -> None:
    """Also on a file that is on the server, by path and by handle."""
    drive.write_file("a", b"0123456789")
    assert drive.sync() == 0
    before = drive.stat("a")
    time.sleep(TICK_S)
    drive.truncate("a", 5)
    between = drive.stat("a")
    assert between.mtime_ns > before.mtime_ns
    assert between.ctime_ns > before.ctime_ns
    time.sleep(TICK_S)
    fd = drive.open("a", os.O_RDWR)
    drive.ftruncate(fd, 3)
    assert drive.fstat(fd).mtime_ns > between.mtime_ns
    drive.close(fd)


def test_truncate_refuses(drive: Driver) -> None:
    """A folder is EISDIR; a handle for reading is EINVAL (or EBADF); a negative size EINVAL."""
    _make(drive)
    for name in ("full", "empty"):
        with refused(errno.EISDIR):
            drive.truncate(name, 0)
    fd = drive.open("file", os.O_RDONLY)
    with refused(errno.EINVAL, errno.EBADF):
        drive.ftruncate(fd, 0)
    drive.close(fd)
    assert drive.stat("file").size == 10


def test_ftruncate_of_an_unlinked_file(drive: Driver) -> None:
    """Works on the handle; nothing comes back on the server."""
    drive.write_file("a", b"0123456789")
    assert drive.sync() == 0
    fd = drive.open("a", os.O_RDWR)
    drive.unlink("a")
    drive.ftruncate(fd, 4)
    assert drive.pread(fd, 10, 0) == b"0123"
    drive.close(fd)
    assert drive.sync() == 0
    assert not (drive.disk / "a").exists()
