"""Servers that write an upload in place: what they hold stays whole until the new bytes are there.

On WsgiDAV and rclone a cut PUT leaves half a file under its name (servers.md, table 7). So the body goes to a
temporary name, and MOVE puts it in place.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.drivers import KernelDriver
from tests.mount.test_scenarios import eventually
from tests.servers import Exchange, Relay, Share
from tests.servers.meter import Moment
from tests.servers.relay import Verdict

MountOf = Callable[..., KernelDriver]
TIMEOUT_S = 2.0

pytestmark = [pytest.mark.expects_warning(""), pytest.mark.timeout(300)]  # trouble is logged


@pytest.fixture(params=["wsgidav", "rclone"])
def in_place(request: pytest.FixtureRequest) -> Share:
    """A share of a server that writes in place."""
    share: Share = request.getfixturevalue(f"{request.param}_share")
    return share


def names(share: Share) -> list[str]:
    return sorted(os.listdir(share.root))


def test_a_cut_upload_leaves_the_old_file_whole(in_place: Share, mount_of: MountOf) -> None:
    """Cut in the middle again and again: the server shows the old bytes, then the new, never half."""
    old, new = os.urandom(300_000), os.urandom(3_000_000)
    in_place.write("file", old)
    seen: set[bytes] = set()
    with Relay(in_place.url) as relay:
        drive = mount_of(in_place, url=relay.url, timeout=TIMEOUT_S)
        fd = drive.open("file", os.O_WRONLY | os.O_TRUNC)
        drive.write(fd, new)
        for part in (100_000, 1_500_000, 2_900_000):
            relay.cut_after(up=part)
            try:
                drive.fsync(fd)
            except OSError:
                seen.add((in_place.root / "file").read_bytes())
        drive.close(fd)
        eventually(lambda: drive.sync() == 0, 30)
        assert seen == {old}
        assert (in_place.root / "file").read_bytes() == new
        eventually(lambda: names(in_place) == ["file"], 20)


def test_kill_9_in_the_middle_of_a_staged_upload(in_place: Share, mount_of: MountOf, tmp_path: Path) -> None:
    """The old file stays, the next mount sends the new one whole, and removes what the first left behind."""
    old, new = os.urandom(300_000), os.urandom(20_000_000)
    in_place.write("file", old)
    cache = tmp_path / "kept"
    with Relay(in_place.url) as relay:
        drive = mount_of(in_place, url=relay.url, cache_dir=cache)
        drive.write_file("file", new)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not any(name.startswith(".davfs-") for name in names(in_place)):
            time.sleep(0.005)
        drive.mount.kill()
        relay.drop()
        assert (in_place.root / "file").read_bytes() in {old, new}
        again = mount_of(in_place, url=relay.url, cache_dir=cache)
        assert again.sync() == 0
        assert (in_place.root / "file").read_bytes() == new
        eventually(lambda: names(in_place) == ["file"], 20)


def test_kill_9_after_the_move_of_a_file_that_was_written_to_meanwhile(
    in_place: Share, mount_of: MountOf, tmp_path: Path
) -> None:
    """The server has what was sent, the cache what was written since: both are ours, so no conflict."""
    sent, cache = os.urandom(100_000), tmp_path / "kept"
    in_place.write("file", b"old")
    sending, written = threading.Event(), threading.Event()
    with Relay(in_place.url) as relay:
        drive = mount_of(in_place, url=relay.url, cache_dir=cache, write_back=0.5)

        def watch(moment: Moment, one: Exchange) -> Verdict:
            if moment == "sent" and one.method == "PUT":
                sending.set()
            if moment == "answer" and one.method == "PUT":
                written.wait(20)  # the line stands still
            if moment == "answer" and one.method == "MOVE":
                drive.mount.kill()
                return "drop"
            return "pass"

        drive.write_file("file", sent)
        relay.watch = watch
        assert sending.wait(30)
        with open(drive.at("file"), "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"more", len(sent))  # before the answer to the PUT
        written.set()
        eventually(lambda: drive.mount.process.poll() is not None, 20)
        relay.watch = None
        assert (in_place.root / "file").read_bytes() == sent
        again = mount_of(in_place, url=relay.url, cache_dir=cache)
        assert again.sync() == 0
        assert (in_place.root / "file").read_bytes() == sent + b"more"
        eventually(lambda: names(in_place) == ["file"], 20)


def test_a_change_on_the_server_during_a_staged_upload_survives(in_place: Share, mount_of: MountOf) -> None:
    """Somebody else stores the file between our PUT and our MOVE: both versions are there afterwards."""
    in_place.write("file.txt", b"base" * 1000)
    drive = mount_of(in_place, attr_timeout=1)
    fd = drive.open("file.txt", os.O_RDWR)
    drive.pwrite(fd, b"ours", 0)
    in_place.write("file.txt", b"theirs, and of another size")
    drive.close(fd)
    assert drive.sync() == 0
    assert (in_place.root / "file.txt").read_bytes() == b"theirs, and of another size"
    (kept,) = [name for name in names(in_place) if name != "file.txt" and not name.startswith(".davfs-")]
    assert kept.startswith("file (conflict ")
    assert (in_place.root / kept).read_bytes() == b"ours" + b"base" * 999
    eventually(lambda: names(in_place) == sorted([kept, "file.txt"]), 20)
