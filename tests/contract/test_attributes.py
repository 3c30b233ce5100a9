"""Times, modes, space and extended attributes."""

from __future__ import annotations

import errno
import os
import time

import pytest

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
    """user.davfs.url and user.davfs.state can be read; what is not there is ENODATA."""
    drive.store("a b", b"x")
    assert drive.getxattr("a b", "user.davfs.state") == b"clean"
    assert drive.getxattr("a b", "user.davfs.url").decode().endswith("/a%20b")
    with refused(errno.ENODATA):
        drive.getxattr("a b", "user.none")


@pytest.mark.feature("extended attributes of programs")
def test_xattrs(stage: Stage, drive: Drive) -> None:
    """Set, listed, read, and found by another mount; EOPNOTSUPP where the server keeps no properties."""
    drive.store("a", b"x")
    drive.call("setxattr", drive.at("a"), "user.colour", b"blue \x00\xff")
    assert drive.getxattr("a", "user.colour") == b"blue \x00\xff"
    assert drive.listxattr("a") == ["user.colour"]
    other = stage.elsewhere(drive)
    other.eventually(lambda: other.listxattr("a") == ["user.colour"], "another mount does not see it")
    assert other.getxattr("a", "user.colour") == b"blue \x00\xff"
    assert drive.on_server("a") == b"x"


@pytest.mark.feature("symbolic links")
def test_symbolic_links(drive: Drive) -> None:
    """Made, read, followed and removed; EOPNOTSUPP where the server keeps no properties."""
    drive.store("a", b"x")
    drive.call("symlink", "a", drive.at("link"))
    assert drive.call("readlink", drive.at("link")) == "a"
    assert drive.read_file("link") == b"x"
    drive.unlink("link")
    assert drive.rival.names(drive.there) == ["a"]
