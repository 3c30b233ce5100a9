"""Several users and several mounts on one machine: who may mount, who may look; nothing is shared."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from davfs.demo import DemoServer
from tests.mount.people import ALICE, BOB, Machine, Person

pytestmark = [
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse cannot be opened"),
    pytest.mark.skipif(os.geteuid() != 0, reason="becoming other users takes root"),
]


@pytest.fixture
def share(tmp_path: Path) -> Iterator[tuple[DemoServer, Path]]:
    folder = tmp_path / "share"
    folder.mkdir()
    server = DemoServer(folder)
    yield server, folder
    server.stop()


@pytest.fixture
def machine(share: object) -> Iterator[Machine]:
    made = Machine()
    yield made
    made.close()


@pytest.fixture
def root(machine: Machine) -> Person:
    return Person(machine, 0)


@pytest.fixture
def alice(machine: Machine) -> Person:
    return Person(machine, ALICE)


@pytest.fixture
def bob(machine: Machine) -> Person:
    return Person(machine, BOB)


def test_a_user_mounts_without_root(share: tuple[DemoServer, Path], alice: Person, bob: Person) -> None:
    """Through fusermount3, with an empty /etc/fuse.conf: it is hers alone, not even root's."""
    server, disk = share
    mounted = alice.davfs("mount", server.url, alice.drive)
    assert (mounted.returncode, mounted.stderr) == (0, "")
    wrote = alice.runs(f"umask 022; echo mine >{alice.drive}/a.txt && stat -c '%u %g %a' {alice.drive}/a.txt")
    assert wrote.stdout == f"{ALICE} {ALICE} 644\n"
    root = Person(alice.machine, 0)
    for other in (bob, root):
        refused = other.runs("ls", str(alice.drive))
        assert refused.returncode != 0
        assert "Permission denied" in refused.stderr
    assert json.loads(alice.davfs("status", "--json").stdout)[0]["url"] == server.url
    ended = alice.davfs("unmount", alice.drive)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (disk / "a.txt").read_text() == "mine\n"
    assert alice.runs("ls", str(alice.drive)).stdout == ""


def test_a_number_without_a_name_is_told(share: tuple[DemoServer, Path], machine: Machine) -> None:
    """fusermount3 refuses a uid that /etc/passwd does not have, as in containers: said in one line."""
    server, _ = share
    nameless = Person(machine, 12345)
    refused = nameless.davfs("mount", server.url, nameless.drive)
    assert refused.returncode == 4
    assert refused.stderr == (
        "davfs: fusermount3 mounts for no user without an entry in /etc/passwd, and uid 12345 has none\n"
    )


def test_what_fusermount3_refuses_is_told(share: tuple[DemoServer, Path], alice: Person) -> None:
    """Its reason reaches the terminal, although a daemon in the background has none."""
    server, _ = share
    (alice.machine.folder / "fuse.conf").write_text("mount_max = 1\n")
    second = alice.place("second")
    assert alice.davfs("mount", server.url, alice.drive).returncode == 0
    refused = alice.davfs("mount", server.url, second, "-o", f"cache_dir={alice.home}/second-cache")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"davfs: cannot mount on {second}: too many FUSE filesystems mounted;")
    assert alice.davfs("unmount", alice.drive).returncode == 0


def test_allow_other_of_a_user_takes_the_line_in_fuse_conf(
    share: tuple[DemoServer, Path], alice: Person, bob: Person
) -> None:
    """Refused with one line that names it; with the line it works."""
    server, _ = share
    refused = alice.davfs("mount", server.url, alice.drive, "-o", "allow_other")
    assert refused.returncode == 4
    assert refused.stderr == "davfs: allow_other needs the line user_allow_other in /etc/fuse.conf\n"
    assert alice.machine.mounted() == []
    (alice.machine.folder / "fuse.conf").write_text("user_allow_other\n")
    assert alice.davfs("mount", server.url, alice.drive, "-o", "allow_other").returncode == 0
    alice.runs(f"echo hers >{alice.drive}/a.txt; chmod 600 {alice.drive}/a.txt")
    assert bob.runs("ls", str(alice.drive)).stdout == "a.txt\n"
    assert "Permission denied" in bob.runs("cat", f"{alice.drive}/a.txt").stderr
    assert alice.davfs("unmount", alice.drive).returncode == 0


def test_permissions_are_checked_for_other_users(
    share: tuple[DemoServer, Path], root: Person, alice: Person, bob: Person
) -> None:
    """allow_other of root with uid, gid and umask: the owner works, the others get what the mode says."""
    server, disk = share
    (disk / "plan.txt").write_text("plan")
    options = f"allow_other,uid={ALICE},gid={ALICE},umask=027"
    assert root.davfs("mount", server.url, root.drive, "-o", options).stderr == ""
    shown = alice.runs(f"stat -c '%u %g %a' {root.drive} {root.drive}/plan.txt")
    assert shown.stdout == f"{ALICE} {ALICE} 750\n{ALICE} {ALICE} 640\n"
    wrote = alice.runs(f"cd {root.drive} && echo more >>plan.txt && mkdir sub && echo x >sub/x && mv sub/x y")
    assert (wrote.returncode, wrote.stderr) == (0, "")
    assert alice.runs(f"stat -c '%u %g %a' {root.drive}/sub").stdout == f"{ALICE} {ALICE} 750\n"
    for forbidden in (f"cat {root.drive}/plan.txt", f"ls {root.drive}", f"echo >{root.drive}/new"):
        refused = bob.runs(forbidden)
        assert refused.returncode != 0, forbidden
        assert "Permission denied" in refused.stderr
    assert root.runs("cat", f"{root.drive}/plan.txt").stdout == "planmore\n"
    assert root.davfs("unmount", root.drive).returncode == 0
    assert (disk / "plan.txt").read_text() == "planmore\n"


def test_read_only_and_noexec_hold_for_other_users(
    share: tuple[DemoServer, Path], root: Person, alice: Person
) -> None:
    """`ro` refuses even the owner and root, `noexec` starts no program."""
    server, disk = share
    (disk / "tool").write_text("#!/bin/sh\necho ran\n")
    options = f"allow_other,uid={ALICE},umask=000,ro,noexec"
    assert root.davfs("mount", server.url, root.drive, "-o", options).stderr == ""
    for person in (alice, root):
        assert "Read-only file system" in person.runs(f"echo x >{root.drive}/new").stderr
        assert "Read-only file system" in person.runs("rm", f"{root.drive}/tool").stderr
    assert "Permission denied" in alice.runs(f"exec {root.drive}/tool").stderr
    assert alice.runs(f"sh {root.drive}/tool").stdout == "ran\n"
    assert root.davfs("unmount", root.drive).returncode == 0


def test_five_mounts_of_one_share_and_two_of_another(
    share: tuple[DemoServer, Path], tmp_path: Path, root: Person
) -> None:
    """Seven daemons, each with its cache; one dies, and the others do not notice; status lists them all."""
    server, disk = share
    (tmp_path / "other").mkdir()
    other = DemoServer(tmp_path / "other")
    try:
        urls = [server.url] * 5 + [other.url] * 2
        drives = [root.place(f"many{number}-") for number in range(len(urls))]
        for number, (url, drive) in enumerate(zip(urls, drives, strict=True)):
            done = root.davfs(
                "mount", url, drive, "-o", f"cache_dir={root.home}/cache{number},attr_timeout=0"
            )
            assert (done.returncode, done.stderr) == (0, "")
        told = json.loads(root.davfs("status", "--json").stdout)
        assert {each["mountpoint"]: each["url"] for each in told} == dict(
            zip(map(str, drives), urls, strict=True)
        )
        pids = {each["mountpoint"]: each["pid"] for each in told}
        assert len(set(pids.values())) == len(urls)
        for number, drive in enumerate(drives):
            root.runs(f"echo {number} >{drive}/{number}.txt")
            assert root.davfs("sync", drive).returncode == 0
        assert sorted(each.name for each in disk.iterdir()) == [f"{n}.txt" for n in range(5)]
        assert sorted(each.name for each in (tmp_path / "other").iterdir()) == ["5.txt", "6.txt"]
        os.kill(pids[str(drives[0])], signal.SIGKILL)
        for drive in drives[1:5]:
            assert root.runs("cat", f"{drive}/0.txt").stdout == "0\n"
        _until_dead(root, drives[0])
        listed = root.davfs("status")
        assert listed.returncode == 10
        assert str(drives[0]) in listed.stdout
        assert all(f"{each['url']} on {each['mountpoint']}" in listed.stdout for each in told)
        assert (
            root.davfs("mount", server.url, drives[0], "-o", f"cache_dir={root.home}/cache0").returncode == 0
        )
        for drive in drives:
            assert root.davfs("unmount", drive).returncode == 0
    finally:
        other.stop()


def _until_dead(person: Person, drive: Path) -> None:
    deadline = time.monotonic() + 20
    while "not connected" not in person.runs("stat", "-f", str(drive)).stderr:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_cache_serves_one_mount(share: tuple[DemoServer, Path], root: Person) -> None:
    """The same share twice with one cache folder: the second mount is refused, and says who has it."""
    server, _ = share
    assert root.davfs("mount", server.url, root.drive, "-o", f"cache_dir={root.home}/cache").returncode == 0
    second = root.place("second")
    refused = root.davfs("mount", server.url, second, "-o", f"cache_dir={root.home}/cache")
    assert refused.returncode != 0
    assert str(root.drive) in refused.stderr
    assert "cache_dir" in refused.stderr
    assert root.davfs("unmount", root.drive).returncode == 0


def test_users_do_not_reach_each_others_mounts(
    share: tuple[DemoServer, Path], alice: Person, bob: Person
) -> None:
    """Not the cache, not the control socket, not by a davfs command; both may mount the same share."""
    server, _ = share
    os.chmod(alice.home, 0o755)  # a home that others can enter
    for person in (alice, bob):
        assert person.davfs("mount", server.url, person.drive).stderr == ""
    alice.runs(f"echo secret >{alice.drive}/a.txt")
    for closed in (f"{alice.home}/.cache/davfs/*", f"{alice.home}/run"):
        assert "Permission denied" in bob.runs(f"ls {closed}").stderr
    for words in (["status"], ["sync"], ["unmount", "--force"], ["pending"]):
        more = ["list"] if words == ["pending"] else []
        refused = bob.davfs(words[0], alice.drive, *words[1:], *more)
        assert refused.returncode != 0, words
        assert "another user" in refused.stderr, (words, refused.stderr)
        assert "a.txt" not in refused.stdout + refused.stderr
    assert alice.runs("cat", f"{alice.drive}/a.txt").stdout == "secret\n"
    for person in (alice, bob):
        assert person.davfs("unmount", person.drive).returncode == 0
