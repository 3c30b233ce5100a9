"""Attributes, links and modes through real mounts, on every server that can be started.

What a server does not keep is data, with its reason: there a call fails with the errno that programs know.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import MountOf
from tests.mount.drivers import KernelDriver
from tests.servers import Share

KEEPS_NOTHING = {
    "nginx": "405 to PROPPATCH",
    "rclone": "answers 207 with 200 to PROPPATCH, and has no such property afterwards",
}
HANGS_UNDER_GIT = {
    "rclone": "1.60 answers nothing any more after some MOVEs in one folder, and PUTs beside them"
}
SOAK = os.environ.get("DAVFS_SOAK") == "1"
ALL_BYTES = bytes(range(256))
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
SOON_S = 30.0


def soon(check: Callable[[], object], wanted: object) -> None:
    """Within the time-out of attributes, and what the server needs."""
    deadline = time.monotonic() + SOON_S
    while (found := check()) != wanted:
        assert time.monotonic() < deadline, f"{found!r} instead of {wanted!r}"
        time.sleep(0.1)


def fails(number: int, call: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(OSError, check=lambda error: error.errno == number):
        call(*arguments)


def permissions(drive: KernelDriver, path: str) -> int:
    return stat.S_IMODE(drive.lstat(path).mode)


def make_tree(top: Path) -> None:
    """Links that lead up, out and nowhere, attributes of all bytes, folders and scripts with their modes."""
    (top / "d").mkdir(parents=True)
    (top / "a").write_bytes(b"x")
    (top / "d" / "script").write_text("#!/bin/sh\necho ran\n")
    (top / "d" / "script").chmod(0o755)
    os.symlink("../a", top / "d" / "up")
    os.symlink("/nowhere/at all", top / "out")
    os.setxattr(top / "a", "user.all", ALL_BYTES)
    os.setxattr(top / "d", "user.empty", b"")


@pytest.mark.timeout(300)
def test_attributes_and_links(locking_share: Share, mount_of: MountOf, tmp_path: Path) -> None:
    """Set in one mount, seen in a second one that knows nothing yet; EOPNOTSUPP elsewhere."""
    share = locking_share
    ours = mount_of(share, attr_timeout=1)
    ours.write_file("f", b"x")
    if share.name in KEEPS_NOTHING:
        fails(errno.EOPNOTSUPP, ours.setxattr, "f", "user.all", ALL_BYTES)
        fails(errno.EOPNOTSUPP, ours.symlink, "f", "link")
        ours.chmod("f", 0o755)
        assert ours.sync() == 0
        assert permissions(ours, "f") == 0o755
        assert ours.listdir() == ["f"]
        return
    ours.setxattr("f", "user.unsent", b"1")
    assert ours.getxattr("f", "user.unsent") == b"1"
    ours.mkdir("d")
    for path in ("f", "d", ""):
        ours.setxattr(path, "user.all", ALL_BYTES)
        fails(errno.EEXIST, ours.call, "setxattr", ours.at(path), "user.all", b"", os.XATTR_CREATE)
        fails(errno.ENODATA, ours.call, "setxattr", ours.at(path), "user.no", b"", os.XATTR_REPLACE)
    ours.setxattr("f", "user.big", ALL_BYTES * 256)
    ours.setxattr("f", "user.markup", b"<&\">'")
    ours.symlink("../x/\u00e4 %", "link")
    ours.chmod("f", 0o755)
    assert ours.sync() == 0
    theirs = mount_of(share, attr_timeout=1)
    assert theirs.listxattr("f") == ["user.all", "user.big", "user.markup", "user.unsent"]
    assert theirs.listxattr("d") == theirs.listxattr("") == ["user.all"]
    assert all(theirs.getxattr(path, "user.all") == ALL_BYTES for path in ("f", "d", ""))
    assert theirs.getxattr("f", "user.big") == ALL_BYTES * 256
    assert theirs.getxattr("f", "user.markup") == b"<&\">'"
    assert permissions(theirs, "f") == 0o755
    assert theirs.readlink("link") == "../x/\u00e4 %"
    assert stat.S_ISLNK(theirs.lstat("link").mode)
    theirs.removexattr("f", "user.all")
    theirs.rename("f", "g")
    theirs.rename("link", "moved")
    theirs.chmod("g", 0o644)
    soon(ours.listdir, ["d", "g", "moved"])
    soon(lambda: ours.listxattr("g"), ["user.big", "user.markup", "user.unsent"])
    soon(lambda: permissions(ours, "g"), 0o644)
    assert ours.readlink("moved") == "../x/\u00e4 %"
    ours.write_file("g", os.urandom(100_000))  # staged where the server would write in place
    assert ours.sync() == 0
    soon(lambda: theirs.stat("g").size, 100_000)
    assert theirs.getxattr("g", "user.big") == ALL_BYTES * 256


@pytest.mark.timeout(300)
def test_programs(locking_share: Share, mount_of: MountOf, tmp_path: Path) -> None:
    """git clone with a script and a link, `cp -a` and `rsync -aX` of a tree; the second mount agrees."""
    share = locking_share
    if share.name not in ("apache", "nginx") and not SOAK:
        return  # the calls that they make are tried above, on each server
    keeps = share.name not in KEEPS_NOTHING
    make_tree(tmp_path / "tree")
    origin = tmp_path / "origin"
    shutil.copytree(tmp_path / "tree", origin, symlinks=True)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run([*GIT, "-C", str(origin), *words], check=True)
    ours = mount_of(share)
    if share.name not in HANGS_UNDER_GIT:
        ours.run([*GIT, "clone", "-q", str(origin), "clone"])
        assert ours.run([*GIT, "status", "--porcelain"], cwd="clone") == ""
        ours.run([*GIT, "fsck", "--strict"], cwd="clone")
        assert ours.run(["./clone/d/script"]) == "ran\n"
    ours.run(["cp", "-a", str(tmp_path / "tree"), "copy"], status=0 if keeps else 1)
    ours.run(["df", "."])
    if not keeps:
        assert ours.sync() == 0
        return
    rsync = ["rsync", "-aXi", f"{tmp_path}/tree/"]
    assert ours.run([*rsync, "copy/"]) == ""
    ours.run([*rsync, "again/"])
    assert ours.sync() == 0
    for name in ("copy/", "again/"):
        assert ours.run([*rsync, name]) == ""
    ours.run(["rsync", "-aX", "copy/", f"{tmp_path}/back/"])
    assert ours.run(["rsync", "-aXi", f"{tmp_path}/tree/", f"{tmp_path}/back/"]) == ""
    theirs = mount_of(share)
    assert theirs.run([*GIT, "status", "--porcelain"], cwd="clone") == ""
    links = theirs.run(["find", "copy", "-type", "l", "-printf", "%P %l\\n"])
    assert sorted(links.splitlines()) == ["d/up ../a", "out /nowhere/at all"]
    assert theirs.getxattr("copy/a", "user.all") == ALL_BYTES
    assert theirs.run(["./copy/d/script"]) == "ran\n"
    assert "user.all" in theirs.run(["getfattr", "-dhR", "again"])


def test_looking_costs_nothing(apache_share: Share, mount_of: MountOf) -> None:
    """`ls -l`, `cp -a` and getfattr ask for attributes of each file: not one request, marked share or not."""
    share = apache_share
    for number in range(30):
        share.write(f"d/f{number}", b"x")
    drive = mount_of(share, attr_timeout_min=60)
    for turn in range(2):
        drive.run(["cat", *(f"d/f{number}" for number in range(30))])
        time.sleep(0.1)
        share.forget_requests()
        drive.run(["ls", "-l", "d"])
        drive.run(["getfattr", "-dR", "d"])
        drive.run(["cp", "-a", "d", str(drive.mount.cache.parent / f"copy{turn}")])
        found = Counter(request.method for request in share.log_requests())
        assert found["PROPFIND"] <= 1, found  # the listing, if its time is over
        drive.write_file("other", b"x")
        drive.setxattr("other", "user.x", b"1")
        assert drive.sync() == 0


def test_modes_cost_only_where_they_differ(apache_share: Share, mount_of: MountOf, tmp_path: Path) -> None:
    """Twenty files of 0644 and two scripts: two PROPPATCHs."""
    for number in range(20):
        (tmp_path / f"f{number}").write_bytes(b"x")
    for name in ("s1", "s2"):
        (tmp_path / name).write_bytes(b"x")
        (tmp_path / name).chmod(0o755)
    drive = mount_of(apache_share)
    apache_share.forget_requests()
    drive.run(["sh", "-c", f"tar -C '{tmp_path}' --exclude 'mount*' -cf - . | tar -xf -"])
    assert drive.sync() == 0
    found = Counter(request.method for request in apache_share.log_requests())
    assert found["PUT"] == 22
    assert found["PROPPATCH"] == 2


@pytest.mark.expects_warning("")
def test_kill_9_loses_no_attribute(apache_share: Share, mount_of: MountOf, tmp_path: Path) -> None:
    """Set on a file that is not sent yet, renamed, and the daemon killed: the next one tells the server."""
    cache = tmp_path / "cache"
    drive = mount_of(apache_share, cache_dir=cache, write_back=600)
    drive.write_file("tmp", b"x")
    drive.setxattr("tmp", "user.all", ALL_BYTES)
    drive.chmod("tmp", 0o755)
    drive.rename("tmp", "f")
    drive.mount.kill()
    again = mount_of(apache_share, cache_dir=cache)
    assert again.getxattr("f", "user.all") == ALL_BYTES
    assert again.sync() == 0
    fresh = mount_of(apache_share)
    assert fresh.getxattr("f", "user.all") == ALL_BYTES
    assert permissions(fresh, "f") == 0o755
