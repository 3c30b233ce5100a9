"""How many requests an operation costs, by the server's own access log: part of the contract (promise 8).

Each test has a mount of its own, so that nothing else is in the log. Where a server sends no ETag with
its answer to PUT (Apache, nginx), one PROPFIND per folder follows to learn what it made of the file.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.mount.drivers import KernelDriver
from tests.mount.test_scenarios import eventually
from tests.servers import Exchange, LoggedRequest, Relay, Share
from tests.servers.meter import Moment
from tests.servers.relay import Verdict

MountOf = Callable[..., KernelDriver]
MIB = 1 << 20
# New files are staged (temporary name, MOVE) where only MOVE can tell that the name is free: nginx ignores
# conditions.
STAGES_NEW = {"nginx"}
# Who says in its answer to PUT what it holds now; the others are asked, once for a folder.
TELLS_THE_TAG = {"wsgidav"}
# What is asked to change "document" on each server, in this order (docs/adr/0015). P is PROPFIND.
OVERWRITES = {
    "apache": ["PUT", "P 1"],
    "nginx": ["LOCK", "P 0", "PUT", "UNLOCK", "P 1"],  # ignores conditions: a look under a lock
    # a cut PUT would leave half a file
    "wsgidav": ["PUT staged", "LOCK", "P 0", "MOVE staged", "P 1"],  # MOVE has ended the lock
}
# The same over a version of this very second, of which the tag proves little.
OVERWRITES_YOUNG = {
    "apache": ["PUT", "P 1"],  # weak tags hold in If
    "nginx": ["LOCK", "P 0", "GET", "PUT", "UNLOCK", "P 1"],  # tags of whole seconds: the bytes are the proof
    "wsgidav": ["PUT staged", "LOCK", "P 0", "GET", "MOVE staged", "P 1"],  # MOVE has ended the lock
}


@pytest.fixture
def mount_of(mount_of: MountOf) -> MountOf:
    """Listings stay fresh for a whole test, on a slow machine too: how soon they are asked for again is not
    what is counted here.
    """
    return partial(mount_of, attr_timeout_min=60)


def said(request: LoggedRequest) -> str:
    """The verb, with the depth of a PROPFIND, and whether it is about a temporary name."""
    verb = f"P {request.depth}" if request.method == "PROPFIND" else request.method
    return verb + (" staged" if ".davfs-" in request.path else "")


def asked(share: Share) -> Counter[str]:
    """How often each method was asked for since `forget_requests`."""
    return Counter(request.method for request in share.log_requests())


def test_listing_a_thousand_files_is_one_request(share: Share, mount_of: MountOf) -> None:
    """`ls -l` of 1,000 files: one PROPFIND Depth 1, and again: none."""
    for number in range(1000):
        (share.root / f"{number:04d}").write_bytes(b"x" * (number % 7))
    drive = mount_of(share)
    share.forget_requests()
    assert len(drive.run(["ls", "-l", "."]).splitlines()) == 1001
    wanted = {("PROPFIND", "1"): 1}
    found = Counter((request.method, request.depth) for request in share.log_requests())
    assert found == wanted or not found  # none: the check that the mount answers may have listed it
    share.forget_requests()
    drive.run(["ls", "-l", "."])
    assert not asked(share)


def test_listing_a_sub_folder_is_one_request(share: Share, mount_of: MountOf) -> None:
    """`ls -l` of a folder that was never looked at: exactly one PROPFIND Depth 1."""
    for number in range(50):
        share.write(f"sub/{number}", b"x")
    drive = mount_of(share)
    drive.listdir()
    share.forget_requests()
    assert len(drive.run(["ls", "-l", "sub"]).splitlines()) == 51
    assert [(request.method, request.depth) for request in share.log_requests()] == [("PROPFIND", "1")]


def test_reading_a_small_file_is_one_get(share: Share, mount_of: MountOf) -> None:
    """Of a fresh listing: one GET; again, by another open: none."""
    old = share.write("a", b"x" * 10_000)
    # what is read within two seconds of its change is fetched again where tags have whole seconds
    os.utime(old, (1_600_000_000, 1_600_000_000))
    drive = mount_of(share)
    drive.listdir()
    share.forget_requests()
    assert drive.read_file("a") == b"x" * 10_000
    assert asked(share) == {"GET": 1}
    assert drive.read_file("a") == b"x" * 10_000
    assert asked(share) == {"GET": 1}


def test_a_missing_name_costs_nothing(share: Share, mount_of: MountOf) -> None:
    """A fresh listing answers ENOENT by itself."""
    share.write("a", b"x")
    drive = mount_of(share)
    drive.listdir()
    share.forget_requests()
    for name in ("b", "c", "b"):
        with pytest.raises(FileNotFoundError):
            drive.stat(name)
    assert not asked(share)


def check_new_files(share: Share, count: int, *, looks_max: int = 1) -> None:
    """`count` PUTs, as many MOVEs where they are staged, and one PROPFIND where the answers have no ETag."""
    found = asked(share)
    looks = found.pop("PROPFIND", 0)
    assert found == ({"PUT": count, "MOVE": count} if share.name in STAGES_NEW else {"PUT": count})
    assert looks == 0 if share.name in TELLS_THE_TAG else 1 <= looks <= looks_max


def test_a_new_small_file_is_one_put(share: Share, mount_of: MountOf) -> None:
    """Creating, writing and closing a file in a listed folder."""
    drive = mount_of(share)
    drive.listdir()
    share.forget_requests()
    drive.write_file("a", b"x" * 4096)
    assert drive.sync() == 0
    check_new_files(share, 1)
    assert (share.root / "a").read_bytes() == b"x" * 4096


def test_many_new_files_are_one_put_each(share: Share, mount_of: MountOf) -> None:
    """50 files in one folder: 50 PUTs and a few PROPFINDs for all together."""
    drive = mount_of(share, write_back=1)
    drive.listdir()
    share.forget_requests()
    begun_s = time.monotonic()
    for number in range(50):
        drive.write_file(f"f{number}", b"x" * 1000)
    assert drive.sync() == 0
    # one each half second, as long as more of them are being sent
    check_new_files(share, 50, looks_max=2 + int(2 * (time.monotonic() - begun_s)))


def test_a_save_by_writing_a_temporary_file_is_one_put(share: Share, mount_of: MountOf) -> None:
    """Write a temporary file, rename it over the old one: one body, and what makes the overwrite safe."""
    old = share.write("document", b"old")
    os.utime(
        old, (1_600_000_000, 1_600_000_000)
    )  # else Apache's ETag is still weak, and a look must come first
    drive = mount_of(share)
    assert drive.read_file("document") == b"old"
    share.forget_requests()
    drive.write_file("document.tmp", b"new content")
    drive.rename("document.tmp", "document")
    assert drive.sync() == 0
    requests = share.log_requests()
    assert [said(r) for r in requests] == OVERWRITES[share.name]
    changes = [r for r in requests if r.method != "PROPFIND"]
    assert all(r.path == "document" or ".davfs-" in r.path for r in changes)
    assert (share.root / "document").read_bytes() == b"new content"


def test_saving_again_at_once_needs_no_look_of_its_own(share: Share, mount_of: MountOf) -> None:
    """Over the version that we sent a moment ago: what makes the overwrite safe looks, and nothing else."""
    drive = mount_of(share)
    drive.listdir()
    for attempt in range(20):  # both within one second, else nginx's and WsgiDAV's tags are proof enough
        name = f"document{attempt}"
        started = time.time()
        time.sleep(int(started) + 1 - started)
        drive.write_file(name, b"first")
        assert drive.sync() == 0
        share.forget_requests()
        drive.write_file(name, b"second")
        assert drive.sync() == 0
        if int(time.time()) <= int(started) + 1:
            break
    assert [said(r) for r in share.log_requests()] == OVERWRITES_YOUNG[share.name]
    assert (share.root / name).read_bytes() == b"second"


def test_a_large_overwrite_is_looked_at_once(share: Share, mount_of: MountOf) -> None:
    """2 MiB over an old file: one look, under a lock, tells the version, who holds it, and the room."""
    old = share.write("document", b"old")
    os.utime(old, (1_600_000_000, 1_600_000_000))
    drive = mount_of(share)
    drive.listdir()
    share.forget_requests()
    drive.write_file("document", b"x" * 2 * MIB)
    assert drive.sync() == 0
    staged = ["PUT staged", "LOCK", "P 0", "MOVE staged", "P 1"]
    direct = ["LOCK", "P 0", "PUT", "UNLOCK", "P 1"]
    assert [said(r) for r in share.log_requests()] == (staged if share.name == "wsgidav" else direct)


def test_a_large_new_file_is_not_looked_for(share: Share, mount_of: MountOf) -> None:
    """2 MiB under a new name go to a temporary name that only we use: nothing there needs a look."""
    drive = mount_of(share)
    drive.listdir()
    share.forget_requests()
    drive.write_file("new", b"x" * 2 * MIB)
    assert drive.sync() == 0
    assert [said(r) for r in share.log_requests()] == ["PUT staged", "MOVE staged", "P 1"]


def test_a_rename_meanwhile_is_only_another_move(apache_share: Share, mount_of: MountOf) -> None:
    """40 MiB to a temporary file, renamed over the real one in the middle of the upload: one body, one MOVE.

    The rename does not wait for the upload, which goes on.
    What its upload asks the folder was asked while it was being written.
    """
    halfway = Event()

    def hold(moment: Moment, exchange: Exchange) -> Verdict:
        if moment == "half" and exchange.method == "PUT":
            relay._close_gate()
            halfway.set()
        return "pass"

    old = apache_share.write("image", b"old")
    os.utime(old, (1_600_000_000, 1_600_000_000))
    with Relay(apache_share.url, watch=hold) as relay:
        drive = mount_of(apache_share, url=relay.url, attr_timeout=60)
        drive.listdir()
        apache_share.forget_requests()
        fd = drive.open("image.part", os.O_WRONLY | os.O_CREAT)
        drive.write(fd, bytes(10 * MIB))
        eventually(lambda: [said(r) for r in apache_share.log_requests()] == ["P 0"], 30)
        drive.write(fd, bytes(30 * MIB))
        drive.close(fd)
        try:
            assert halfway.wait(30)
            drive.rename("image.part", "image")
            assert drive.listdir() == ["image"]
            assert drive.stat("image").size == 40 * MIB
            assert (apache_share.root / "image").read_bytes() == b"old"
        finally:
            relay.resume()
        assert drive.sync() == 0
    changes = [said(r) for r in apache_share.log_requests() if r.method != "PROPFIND"]
    assert changes == ["PUT staged", "MOVE staged"]
    assert (apache_share.root / "image").stat().st_size == 40 * MIB


def test_a_save_by_vim_is_one_put(share: Share, mount_of: MountOf) -> None:
    """vim's :x with its probe file, its backup by rename and its new file: one PUT, and nothing left
    behind.
    """
    old = share.write("document", b"old line\n")
    # a version of this very second is proved by its bytes, which would be two GETs more
    os.utime(old, (1_600_000_000, 1_600_000_000))
    drive = mount_of(share)
    assert drive.read_file("document") == b"old line\n"
    share.forget_requests()
    options = "set backupcopy=no backupskip= noswapfile"  # backupskip: by default vim spares files in /tmp
    drive.run(
        ["vim", "-u", "NONE", "-N", "-es", "-c", options, "-c", "normal Onew line", "-c", "x", "document"]
    )
    assert drive.sync() == 0
    assert (share.root / "document").read_bytes() == b"new line\nold line\n"
    found = asked(share)
    assert found.pop("PUT") == 1, found
    found.pop("PROPFIND", None)
    staged = 1 if share.name in STAGES_NEW else 0
    assert found.pop("MOVE", 0) == 1 + staged, found  # the backup of a file that the server has
    assert found.pop("DELETE", 0) <= 1, found
    assert not found
    assert os.listdir(share.root) == ["document"]


def test_a_file_that_comes_and_goes_costs_nothing(share: Share, mount_of: MountOf) -> None:
    """Created, written and removed before it was sent: no request."""
    drive = mount_of(share, write_back=5)
    drive.listdir()
    share.forget_requests()
    drive.write_file("lock", b"x")
    drive.unlink("lock")
    assert drive.sync() == 0
    assert not asked(share)


def test_the_head_of_a_large_file_transfers_little(share: Share, mount_of: MountOf) -> None:
    """Reading 4 KiB of a 512 MiB file moves less than 1 MiB, measured on the wire."""
    large = share.write("large", b"")
    with large.open("r+b") as sink:
        sink.write(b"head" * 1024)
        sink.truncate(512 * MIB)
    with Relay(share.url) as relay:
        drive = mount_of(share, url=relay.url)
        drive.listdir()
        before = relay.bytes_down
        fd = drive.open("large")
        assert drive.pread(fd, 4096, 0) == b"head" * 1024
        time.sleep(0.5)  # read-ahead would show now
        drive.close(fd)
        assert relay.bytes_down - before < MIB
        before = relay.bytes_down
        fd = drive.open("large")
        assert drive.pread(fd, 4096, 300 * MIB) == bytes(4096)
        time.sleep(0.5)
        drive.close(fd)
        assert relay.bytes_down - before < MIB


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_listing_does_not_wait_for_data(apache_share: Share, mount_of: MountOf, tmp_path: Path) -> None:
    """`ls` of another folder is answered while 200 MB go down and 200 MB up, in at most two round trips.

    The line carries 30 MB/s each way, so that they go for longer than six times `ls` take.
    """
    large = apache_share.write("down", b"")
    os.truncate(large, 200_000_000)
    for number in range(6):
        apache_share.write(f"folder{number}/file", b"x")
    with Relay(apache_share.url, latency_s=0.1, bytes_per_s=30e6) as relay:
        drive = mount_of(apache_share, url=relay.url, write_back=0)
        drive.listdir()

        up = Thread(target=drive.run, args=(["dd", "if=/dev/zero", "of=up", "bs=1M", "count=200"],))
        down = Thread(target=drive.run, args=(["cat", "down"],), kwargs={"timeout_s": 120})
        down_started = relay.bytes_down
        up.start()
        down.start()
        passed = []
        try:
            eventually(lambda: relay.so_far[1] - down_started > 2 * MIB, 30)
            for number in range(6):
                assert drive.run(["ls", f"folder{number}"]) == "file\n"
                passed.append(relay.so_far)
        finally:
            up.join(120)
            down.join(120)
        assert drive.sync(120) == 0
        ends = (relay.bytes_up, relay.bytes_down)
        asked_for = Counter(one.target for one in relay.exchanges if "folder" in one.target)
    # Counted and not timed: what 2 cores need for the relay, the server and the daemon is not the listing's.
    assert len(asked_for) == 6
    assert max(asked_for.values()) <= 2, asked_for
    meanwhile = [one for one in passed if ends[0] - one[0] > MIB or ends[1] - one[1] > MIB]
    assert len(meanwhile) >= 3, (passed, ends)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_thousand_files_in_one_folder(apache_share: Share, mount_of: MountOf) -> None:
    """They are listed completely, and the daemon stays under 300 MB."""
    folder = apache_share.mkdir("many")
    for number in range(100_000):
        (folder / f"file-{number:06d}").touch()
    drive = mount_of(apache_share, timeout=120)
    names = drive.run(["ls", "-U", "many"], timeout_s=200).splitlines()
    assert len(names) == 100_000
    assert len(set(names)) == 100_000
    assert drive.mount.peak_bytes() < 300_000_000


def test_a_remount_within_the_time_out_asks_nothing(share: Share, mount_of: MountOf, tmp_path: Path) -> None:
    """A walk through what the last mount listed: no request; what this machine changed before is in it."""
    for number in range(3):
        share.write(f"folder{number}/file", b"x" * number)
    for made in sorted(share.root.rglob("*"), reverse=True):
        os.utime(made, (1_600_000_000, 1_600_000_000))
    os.utime(share.root, (1_600_000_000, 1_600_000_000))
    cache, walk = tmp_path / "kept-cache", ["find", ".", "-printf", "%P %s %T@ %i\\n"]
    first = mount_of(share, cache_dir=cache, attr_timeout_min=60)
    first.run(walk)
    first.unlink("folder1/file")
    first.utime(
        "folder0/file", 1_500_000_000_123_456_789
    )  # where properties are kept, listings now ask for more
    assert first.sync() == 0
    before = sorted(first.run(walk).splitlines())
    first.mount.close()
    second = mount_of(share, cache_dir=cache, attr_timeout_min=60)
    share.forget_requests()
    assert sorted(second.run(walk).splitlines()) == before
    found = [f"{said(request)} {request.path}" for request in share.log_requests()]
    assert [one for one in found if one.strip(" /") != "P 0"] == []  # of the top: how much room there is


def test_who_looks_up_every_name_has_each_folder_listed_once(share: Share, mount_of: MountOf) -> None:
    """As rsync and git do, listing nothing: one PROPFIND for each folder, and one more for the first."""
    for folder in range(8):
        for number in range(4):
            share.write(f"d{folder}/f{number}", b"x")
    drive = mount_of(share)
    drive.listdir()
    share.forget_requests()
    for folder in range(8):
        for number in range(4):
            assert drive.stat(f"d{folder}/f{number}").size == 1
    found = Counter(f"{said(request)} {request.path.strip('/')}" for request in share.log_requests())
    assert found == Counter(["P 0 d0/f0", *(f"P 1 d{folder}" for folder in range(8))])


def test_one_look_in_each_folder_lists_none(share: Share, mount_of: MountOf) -> None:
    """A single name of each of four folders is one small answer each."""
    for folder in range(4):
        for number in range(4):
            share.write(f"d{folder}/f{number}", b"x")
    drive = mount_of(share)
    drive.listdir()
    share.forget_requests()
    for folder in range(4):
        drive.stat(f"d{folder}/f1")
    found = [f"{said(request)} {request.path}" for request in share.log_requests()]
    assert found == [f"P 0 d{folder}/f1" for folder in range(4)]
