"""Times, modes, space and extended attributes."""

from __future__ import annotations

import errno
import os
import stat
import time

import pytest

from tests.contract.limits import KEPT_HERE, Otherwise
from tests.contract.refusing import refused
from tests.contract.stage import Drive, Stage

MTIME_NS = 1_234_567_890_123_456_789


@pytest.mark.feature("set times by {}")
@pytest.mark.parametrize("by", ["path", "handle", "touch -d"])
def test_set_times(drive: Drive, by: str) -> None:
    """The time is the one that was set, to the nanosecond, and the upload does not move it."""
    fd = drive.open("a", os.O_RDWR | os.O_CREAT)
    drive.write_all(fd, b"x")
    if by == "path":
        drive.utime("a", MTIME_NS)
    elif by == "handle":
        drive.futime(fd, MTIME_NS)
    else:
        drive.run(["touch", "-d", f"@{MTIME_NS // 10**9}.{MTIME_NS % 10**9:09d}", "a"])
    drive.fsync(fd)
    drive.close(fd)
    assert drive.stat("a").mtime_ns == MTIME_NS
    drive.utime("a", MTIME_NS + 10**9)
    assert drive.stat("a").mtime_ns == MTIME_NS + 10**9
    assert drive.on_server("a") == b"x"


@pytest.mark.feature("times of what is written now")
def test_time_of_writing(drive: Drive) -> None:
    """A file that was just written is from now, not from the server's idea of it; touch is from now too."""
    drive.store("a", b"x")
    assert abs(drive.stat("a").mtime_ns / 1e9 - time.time()) < 30
    drive.utime("a", MTIME_NS)
    drive.run(["touch", "a"])
    assert abs(drive.stat("a").mtime_ns / 1e9 - time.time()) < 30


@pytest.mark.feature("another client's file has the server's time")
def test_their_time(drive: Drive) -> None:
    """Not now, not 1970: what the server says, whole seconds."""
    drive.find_there("a", b"x")
    found = drive.stat("a").mtime_ns
    assert found % 10**9 == 0
    assert abs(found / 1e9 - time.time()) < 60


@pytest.mark.feature("chmod, and a program that runs")
def test_chmod(drive: Drive) -> None:
    """Mode bits are those that were set; with +x a program on the drive can be started."""
    drive.store("run.sh", b"#!/bin/sh\necho it runs\n")
    drive.chmod("run.sh", 0o640)
    assert drive.stat("run.sh").mode & 0o777 == 0o640
    drive.chmod("run.sh", 0o755)
    assert drive.run(["./run.sh"]) == "it runs\n"


@pytest.mark.feature("df")
def test_statfs(drive: Drive) -> None:
    """Numbers that make sense, also where the server tells none: there is room to write."""
    space = drive.statvfs()
    assert 0 < space.free_bytes <= space.total_bytes


@pytest.mark.feature("extended attributes that tell of the upload")
def test_own_xattrs(drive: Drive) -> None:
    """user.davfs.url and user.davfs.state can be read, and are not listed; what is not there is ENODATA."""
    drive.store("a b", b"x")
    assert drive.listxattr("a b") == []
    assert drive.getxattr("a b", "user.davfs.state") == b"clean"
    assert drive.getxattr("a b", "user.davfs.url").decode().endswith("/a%20b")
    with refused(errno.ENODATA):
        drive.getxattr("a b", "user.none")


@pytest.mark.feature("extended attributes of programs")
def test_user_xattrs(drive: Drive, stage: Stage) -> None:
    """Any bytes, on a file and a folder, seen by another mount, kept over an upload and a rename."""
    drive.store("a", b"x")
    drive.mkdir("d")
    values = {"user.all": bytes(range(256)), "user.a b": b"", "user.long": b"<&>" * 20_000}
    for path in ("a", "d"):
        for name, value in values.items():
            drive.setxattr(path, name, value)
    drive.store("a", b"y" * 100_000)
    drive.rename("a", "b")
    other = stage.elsewhere(drive)
    for path in ("b", "d"):
        assert other.listxattr(path) == sorted(values)
        assert {name: other.getxattr(path, name) for name in values} == values
    drive.removexattr("b", "user.all")
    assert drive.listxattr("b") == ["user.a b", "user.long"]


@pytest.mark.feature("symbolic links")
def test_links(drive: Drive, stage: Stage) -> None:
    """Made, renamed, there after a remount, replaced, removed; never followed by the daemon."""
    drive.symlink("../else where/\u00e4 %", "first")
    drive.rename("first", "a")
    drive.symlink("/nowhere", "b")
    drive = stage.again(drive)
    assert stat.S_ISLNK(drive.lstat("a").mode)
    assert [drive.readlink(name) for name in ("a", "b")] == ["../else where/\u00e4 %", "/nowhere"]
    drive.store("file", b"content")
    drive.rename("file", "b")
    drive.unlink("a")
    assert drive.sync() == 0
    assert drive.listdir() == ["b"]
    assert drive.read_file("b") == b"content"


@pytest.mark.feature("another mount sees chmod +x")
def test_executable_elsewhere(drive: Drive, stage: Stage) -> None:
    """Where the server keeps the bit, or properties."""
    drive.store("run.sh", b"#!/bin/sh\necho it runs\n")
    drive.chmod("run.sh", 0o755)
    assert drive.sync() == 0
    if not stage.elsewhere(drive).stat("run.sh").mode & 0o100:  # it has not looked there before
        raise Otherwise(KEPT_HERE)
