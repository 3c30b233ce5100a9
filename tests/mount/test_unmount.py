"""How a mount ends, with something unsent: unmount, umount, SIGTERM, SIGINT, SIGKILL; and the next mount."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.mount.conftest import MountOf
from tests.mount.drivers import KernelDriver, device_of
from tests.mount.test_scenarios import eventually
from tests.servers import Apache, Relay, Share

pytestmark = [pytest.mark.expects_warning(""), pytest.mark.timeout(300)]
BOUND_S = 30.0  # an end that is bounded by 5 s, on a machine with other work


def unmount(drive: KernelDriver, *words: str) -> subprocess.CompletedProcess[str]:
    return drive.mount.davfs("unmount", str(drive.mount.point), *words)


def ended(drive: KernelDriver, within_s: float = BOUND_S) -> int:
    return drive.mount.process.wait(within_s)


def is_mounted(drive: KernelDriver) -> bool:
    return device_of(drive.mount.point) is not None


def let_go(drive: KernelDriver) -> None:
    """What a person does who does not know davfs."""
    subprocess.run(["fusermount3", "-u", str(drive.mount.point)], check=True, timeout=20)


def test_unmount_says_what_is_left_and_where(apache_share: Share, mount_of: MountOf) -> None:
    """Code 9, the first twenty paths, how many more, the cache folder; the drive stays, and later it is 0."""
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url, timeout=1)
        drive.listdir()
        drive.write_file("first", b"")
        assert drive.sync() == 0
        relay.refuse()
        for number in range(25):
            drive.write_file(f"file{number:02}", b"x")
        left = unmount(drive, "--timeout", "1")
        assert left.returncode == 9
        lines = left.stderr.splitlines()
        assert lines[0].startswith("davfs: 25 files are not on the server yet, so ")
        assert sum(1 for line in lines if line.startswith("  /file")) == 20
        assert lines[-2:] == ["  ... and 5 more", f"kept in {cache_folder(drive)}"]
        assert is_mounted(drive)
        relay.accept()
        done = unmount(drive)
        assert done.returncode == 0
        assert all(line.startswith("sending: ") for line in done.stderr.splitlines())  # every five seconds
        assert not is_mounted(drive)
        assert ended(drive) == 0
    assert len(list(apache_share.root.iterdir())) == 26


def cache_folder(drive: KernelDriver) -> Path:
    (folder,) = drive.mount.cache.iterdir()
    return folder


def test_unmount_tells_its_progress(apache_share: Share, mount_of: MountOf) -> None:
    """Without a terminal a line every five seconds, with files and bytes."""
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url, timeout=2)
        drive.listdir()
        relay.stall()
        drive.write_file("large", b"x" * 2_000_000)
        told = unmount(drive, "--timeout", "7").stderr
        assert told.startswith("sending: 1 file, 1.9 MiB ")  # left, or on the way: sockets took all of it
        relay.resume()
        relay.drop()
        assert unmount(drive).returncode == 0
    assert (apache_share.root / "large").stat().st_size == 2_000_000


def test_unmount_counts_what_was_refused(mount_of: MountOf) -> None:
    """A file that the server does not want is named with the reason; --force unmounts, and says 9."""
    with Apache(limit_request_body=1000) as server, server.share() as share:
        drive = mount_of(share)
        drive.write_file("large", b"x" * 2000)
        refused = unmount(drive)
        assert refused.returncode == 9
        assert "  /large  (refused: PUT /large: the server answered 413)" in refused.stderr
        assert is_mounted(drive)
        forced = unmount(drive, "--force")
        assert forced.returncode == 9
        assert "1 file is not on the server, the next mount goes on sending\n  /large\n" in forced.stderr
        assert not is_mounted(drive)
        assert ended(drive) == 9


def test_after_a_plain_umount_the_daemon_goes_on_sending(apache_share: Share, mount_of: MountOf) -> None:
    """The log says so, the commands find it, `davfs unmount` waits for it; a bad line is waited for."""
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url, timeout=2)
        drive.listdir()
        relay.refuse()
        drive.write_file("late", b"late")
        let_go(drive)
        assert not is_mounted(drive)
        eventually(lambda: "unmounted: still sending 1 files, 4 bytes" in drive.mount.log_text(), BOUND_S)
        listed = drive.mount.davfs("pending", str(drive.mount.point), "list")
        assert "  /late  4 B" in listed.stdout
        with ThreadPoolExecutor() as meanwhile:
            waiting = meanwhile.submit(unmount, drive)
            time.sleep(3)
            assert not waiting.done(), waiting.result()
            relay.accept()
            done = waiting.result()
            assert done.returncode == 0, done.stderr
        assert ended(drive) == 0
    assert (apache_share.root / "late").read_bytes() == b"late"


def attempts(drive: KernelDriver) -> int:
    answer = drive.mount.davfs("pending", str(drive.mount.point), "list", "--json")
    return int(json.loads(answer.stdout)["files"][0]["attempts"])


def test_a_new_mount_takes_over_from_a_daemon_that_is_still_sending(
    apache_share: Share, mount_of: MountOf, tmp_path: Path
) -> None:
    """umount and then mount, with something unsent: nobody has to wait or to try again."""
    with Relay(apache_share.url) as relay:
        cache = tmp_path / "kept"
        first = mount_of(apache_share, url=relay.url, timeout=60, cache_dir=cache)
        first.listdir()
        relay.refuse()
        first.write_file("late", b"late")
        let_go(first)
        eventually(lambda: attempts(first) >= 1, 30)
        # The line comes back when the first has let go: it might send the file itself in between.
        second = mount_of(apache_share, url=relay.url, cache_dir=cache, offline="ok")
        assert ended(first) == 9
        assert "a new mount takes over" in first.mount.log_text()
        relay.accept()
        assert second.read_file("late") == b"late"
        assert second.sync() == 0
    assert (apache_share.root / "late").read_bytes() == b"late"


def test_a_cache_that_a_mounted_drive_uses_is_refused_with_its_place(
    apache_share: Share, mount_of: MountOf, tmp_path: Path
) -> None:
    """The message names the process and the mount point."""
    cache = tmp_path / "kept"
    drive = mount_of(apache_share, cache_dir=cache)
    other = tmp_path / "other"
    other.mkdir()
    refused = drive.mount.davfs("mount", apache_share.url, str(other), "-o", f"cache_dir={cache}", "-f")
    assert refused.returncode == 2
    assert f"(pid {drive.mount.pid}) for {drive.mount.point}: " in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_sends_first_and_ends_with_0(
    apache_share: Share, mount_of: MountOf, number: signal.Signals
) -> None:
    """systemd stop, Ctrl-C: what was just written is on the server when the daemon is gone."""
    drive = mount_of(apache_share, write_back=30)
    for name in range(20):
        drive.write_file(f"f{name}", b"x" * 10_000)
    drive.mount.process.send_signal(number)
    assert ended(drive) == 0
    assert not is_mounted(drive)
    assert sum(path.stat().st_size for path in apache_share.root.iterdir()) == 200_000


def test_a_signal_is_bounded_and_the_next_mount_goes_on(
    apache_share: Share, mount_of: MountOf, tmp_path: Path
) -> None:
    """The server hangs: the daemon ends within drain_timeout with 9, says what is left, and loses it not."""
    with Relay(apache_share.url) as relay:
        cache = tmp_path / "kept"
        first = mount_of(apache_share, url=relay.url, timeout=60, cache_dir=cache, drain_timeout=5)
        first.listdir()
        relay.stall()
        first.write_file("kept", b"kept")
        first.mount.process.send_signal(signal.SIGTERM)
        eventually(lambda: "stopping: still sending 1 files" in first.mount.log_text(), BOUND_S)
        assert first.read_file("kept") == b"kept"  # the drive answers meanwhile
        assert ended(first) == 9
        assert not is_mounted(first)
        assert "1 files are not on the server; they are kept in" in first.mount.log_text()
        assert "the next mount sends them: /kept" in first.mount.log_text()
        relay.resume()
        relay.drop()
        second = mount_of(apache_share, url=relay.url, cache_dir=cache)
        assert second.sync() == 0
    assert (apache_share.root / "kept").read_bytes() == b"kept"


def test_a_second_signal_ends_it_at_once(apache_share: Share, mount_of: MountOf, tmp_path: Path) -> None:
    """Whoever presses Ctrl-C twice does not wait; the journal keeps the file."""
    with Relay(apache_share.url) as relay:
        cache = tmp_path / "kept"
        first = mount_of(apache_share, url=relay.url, timeout=60, cache_dir=cache, drain_timeout=600)
        first.listdir()
        relay.stall()
        first.write_file("kept", b"kept")
        first.mount.process.send_signal(signal.SIGINT)
        eventually(lambda: "stopping: still sending 1 files" in first.mount.log_text(), BOUND_S)
        first.mount.process.send_signal(signal.SIGINT)
        assert ended(first) == 9
        relay.resume()
        relay.drop()
        assert mount_of(apache_share, url=relay.url, cache_dir=cache).sync() == 0
    assert (apache_share.root / "kept").read_bytes() == b"kept"


def test_a_signal_while_it_drains_after_umount(apache_share: Share, mount_of: MountOf) -> None:
    """Shutting the machine down right after umount: the limit of signals holds there too."""
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url, timeout=60, drain_timeout=1)
        drive.listdir()
        relay.stall()
        drive.write_file("kept", b"kept")
        let_go(drive)
        eventually(lambda: "unmounted: still sending" in drive.mount.log_text(), BOUND_S)
        drive.mount.process.send_signal(signal.SIGTERM)
        assert ended(drive) == 9
        assert "/kept" in drive.mount.log_text()


@pytest.mark.expects_warning("again: stopping at once")
def test_a_signal_right_after_umount_kills_nothing(apache_share: Share, mount_of: MountOf) -> None:
    """As systemd stops it, umount and SIGTERM at once: the end is orderly, and the cache closed as such."""
    apache_share.write("d/file", b"x")
    drive = mount_of(apache_share)
    drive.listdir("d")
    drive.close_driver()
    subprocess.run(["fusermount3", "-u", "-z", str(drive.mount.point)], check=True, timeout=20)
    with suppress(ProcessLookupError):  # until it has ended, also in the midst of closing
        while drive.mount.process.poll() is None:
            drive.mount.process.send_signal(signal.SIGTERM)
            time.sleep(0.001)
    assert drive.mount.process.returncode == 0
    assert [mark.read_text().strip() for mark in drive.mount.cache.rglob("boot")] == ["closed"]


def test_sigkill_in_the_middle_of_a_stop(apache_share: Share, mount_of: MountOf, tmp_path: Path) -> None:
    """A reboot: SIGTERM, and SIGKILL before the end. The next mount has the file and sends it."""
    with Relay(apache_share.url) as relay:
        cache = tmp_path / "kept"
        first = mount_of(apache_share, url=relay.url, timeout=60, cache_dir=cache)
        first.listdir()
        relay.stall()
        first.write_file("kept", os.urandom(100_000))
        data = first.read_file("kept")
        first.mount.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        first.mount.kill()
        relay.resume()
        relay.drop()
        second = mount_of(apache_share, url=relay.url, cache_dir=cache)
        assert second.read_file("kept") == data
        assert second.sync() == 0
    assert (apache_share.root / "kept").read_bytes() == data
