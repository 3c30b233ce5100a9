"""Locks of real mounts on real servers: who gets a file, whose lock it is, what a killed mount leaves."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time

import httpx
import pytest

from tests.mount.conftest import MountOf
from tests.mount.drivers import KernelDriver
from tests.mount.test_scenarios import eventually, refused
from tests.servers import Share

LOCK_AFTER_S = 5.0
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
ATTR = "user.davfs.lock"
NAMES_NO_OWNER = {"lighttpd", "nginx", "rclone"}


def is_locked(share: Share, name: str) -> bool:
    """Whether a PUT by somebody without a token is refused. The file has other bytes afterwards if not."""
    return httpx.put(share.url + name, content=b"probe").status_code == 423


def locks_in_status(drive: KernelDriver) -> list[str]:
    command = [sys.executable, "-m", "davfs", "status", str(drive.mount.point), "--json"]
    answer = subprocess.run(
        command,
        capture_output=True,
        check=True,
        timeout=30,
        env=drive.mount._environment,
        cwd=drive.mount.point.parent,
    )
    told = json.loads(answer.stdout)
    mounts = told if isinstance(told, list) else told.get("mounts", [told])
    return [lock["path"] for lock in mounts[0]["locks"]]


def test_of_two_mounts_one_opens_for_writing(locking_share: Share, mount_of: MountOf) -> None:
    """lock=always: the second open is EBUSY and shows the owner; after close and upload it is free."""
    share = locking_share
    share.write("doc", b"old")
    ours, theirs = (mount_of(share, lock="always", attr_timeout=0) for _ in range(2))
    fd = ours.open("doc", os.O_WRONLY)
    with refused(errno.EBUSY):
        theirs.open("doc", os.O_WRONLY)
    assert theirs.read_file("doc") == b"old"
    holder = theirs.getxattr("doc", ATTR).decode()
    if share.name in NAMES_NO_OWNER:
        assert "does not say" in holder
    else:
        assert "(davfs " in holder
        assert holder == ours.getxattr("doc", ATTR).decode()
    assert locks_in_status(ours) == ["/doc"]
    ours.write(fd, b"one")
    ours.close(fd)
    assert ours.sync() == 0
    fd = theirs.open("doc", os.O_WRONLY)
    theirs.write(fd, b"two")
    theirs.close(fd)
    assert theirs.sync() == 0
    assert (share.root / "doc").read_bytes() == b"two"
    eventually(lambda: not is_locked(share, "doc"), 30)
    assert locks_in_status(ours) == []


def test_a_new_name_has_one_winner(locking_share: Share, mount_of: MountOf) -> None:
    """lock=always: of two mounts that create a file one wins, and its bytes arrive."""
    share = locking_share
    ours, theirs = (mount_of(share, lock="always") for _ in range(2))
    assert ours.listdir() == theirs.listdir() == []
    fd = ours.open("new", NEW_FILE)
    with refused(errno.EBUSY, errno.EEXIST):
        theirs.open("new", NEW_FILE)
    ours.write(fd, b"one")
    ours.close(fd)
    assert ours.sync() == 0
    assert [path.name for path in share.root.iterdir() if not path.name.startswith(".")] == ["new"]
    assert (share.root / "new").read_bytes() == b"one"


def test_editing_under_always(locking_share: Share, mount_of: MountOf) -> None:
    """lock=always: create, write, rename over, rename, remove: as without locks, and nothing stays locked."""
    share = locking_share
    share.write("doc", b"old")
    drive = mount_of(share, lock="always")
    drive.write_file("tmp", b"new text")
    drive.rename("tmp", "doc")
    assert drive.sync() == 0
    assert (share.root / "doc").read_bytes() == b"new text"
    fd = drive.open("doc", os.O_WRONLY | os.O_APPEND)
    drive.rename("doc", "report")
    drive.write(fd, b" and more")
    drive.close(fd)
    assert drive.sync() == 0
    assert (share.root / "report").read_bytes() == b"new text and more"
    fd = drive.open("gone", NEW_FILE)
    drive.write(fd, b"x")
    drive.unlink("gone")
    drive.close(fd)
    drive.unlink("report")
    assert drive.sync() == 0
    assert [path.name for path in share.root.iterdir() if not path.name.startswith(".")] == []
    for name in ("doc", "tmp", "report", "gone"):
        assert not is_locked(share, name)


def remount(mount_of: MountOf, share: Share, drive: KernelDriver) -> KernelDriver:
    drive.mount.kill()
    return mount_of(share, lock="always", cache_dir=drive.mount.cache)


@pytest.mark.expects_warning("files from the last run are not on the server")
def test_a_killed_mount_does_not_leave_a_name_stuck(locking_share: Share, mount_of: MountOf) -> None:
    """kill -9 under two locks: the next mount gives back the clean one, and sends under the other."""
    share = locking_share
    share.write("clean", b"old")
    share.write("dirty", b"old")
    drive = mount_of(share, lock="always")
    drive.open("clean", os.O_WRONLY)
    fd = drive.open("dirty", os.O_WRONLY)
    drive.write(fd, b"new")
    assert is_locked(share, "clean")
    assert is_locked(share, "dirty")
    drive = remount(mount_of, share, drive)
    assert drive.sync() == 0
    assert (share.root / "dirty").read_bytes() == b"new"
    assert drive.listdir() == ["clean", "dirty"]
    eventually(lambda: not is_locked(share, "clean") and not is_locked(share, "dirty"), 30)


def test_auto_locks_what_stays_open(apache_share: Share, mount_of: MountOf) -> None:
    """lock=auto, the default: nothing at first, a LOCK after five seconds, UNLOCK after close and upload."""
    share = apache_share
    share.write("doc", b"old")
    drive = mount_of(share)
    drive.write_file("short", b"closed at once")
    share.forget_requests()
    fd = drive.open("doc", os.O_WRONLY)
    opened_s = time.monotonic()
    eventually(lambda: locks_in_status(drive) == ["/doc"], LOCK_AFTER_S + 20)
    assert time.monotonic() - opened_s >= LOCK_AFTER_S - 1
    assert is_locked(share, "doc")
    drive.write(fd, b"new")
    drive.close(fd)
    assert drive.sync() == 0
    eventually(lambda: locks_in_status(drive) == [], 30)
    assert (share.root / "doc").read_bytes() == b"new"
    asked = [request.method for request in share.log_requests() if "LOCK" in request.method]
    assert asked == ["LOCK", "UNLOCK"]


def test_never_locks_nothing(apache_share: Share, mount_of: MountOf) -> None:
    """lock=never: no LOCK goes out, even for a file that stays open."""
    share = apache_share
    share.write("doc", b"old")
    drive = mount_of(share, lock="never")
    fd = drive.open("doc", os.O_WRONLY)
    time.sleep(LOCK_AFTER_S + 2)
    drive.write(fd, b"new")
    drive.close(fd)
    assert drive.sync() == 0
    assert not [request for request in share.log_requests() if "LOCK" in request.method]
