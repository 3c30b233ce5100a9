"""The commands on a real mount: mount, status, sync, unmount, demo, and what they say when it goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from davfs import mountpoint
from davfs.demo import DemoServer

pytestmark = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse cannot be opened"
)


def davfs(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "davfs", *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


class Drive:
    """A demo server's folder, mounted by the command."""

    def __init__(self, folder: Path) -> None:
        self.share = folder / "share"
        self.place = folder / "drive"
        self.cache = folder / "cache"
        self.share.mkdir()
        self.place.mkdir()
        self.server = DemoServer(self.share)

    @property
    def where(self) -> str:
        return str(self.place)

    def mount(self) -> subprocess.CompletedProcess[str]:
        options = f"cache_dir={self.cache},timeout=3,log_file={self.cache}.log"
        return davfs("mount", self.server.url, self.where, "-o", options)

    def is_mounted(self) -> bool:
        return mountpoint.is_davfs(self.where)

    def status(self) -> dict[str, object]:
        answer: dict[str, object] = json.loads(davfs("status", self.where, "--json").stdout)
        return answer

    def close(self) -> None:
        self.server._process.send_signal(signal.SIGCONT)
        if self.is_mounted():
            davfs("unmount", self.where, "--force", "--timeout", "5")
        self.server.stop()


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    made = Drive(tmp_path)
    yield made
    made.close()


def test_a_day_with_the_drive(drive: Drive) -> None:
    """mount returns when the drive answers, sync when the server has it, unmount when nothing is left."""
    assert drive.mount().returncode == 0
    (drive.place / "a.txt").write_text("hello")
    assert drive.status()["url"] == drive.server.url
    assert davfs("sync", drive.where).returncode == 0
    assert (drive.share / "a.txt").read_text() == "hello"
    again = drive.mount()
    assert (again.returncode, "mounted already" in again.stderr) == (3, True)
    (drive.place / "b.txt").write_text("late")
    assert davfs("unmount", drive.where).returncode == 0
    assert (drive.share / "b.txt").read_text() == "late"
    assert not drive.is_mounted()
    assert list(drive.place.iterdir()) == []


def test_a_drive_in_use_stays(drive: Drive) -> None:
    """unmount of a drive where a file is open says so, and the drive goes on working."""
    drive.mount()
    with (drive.place / "open.txt").open("w") as file:
        refused = davfs("unmount", drive.where)
        file.write("still works")
    assert (refused.returncode, "in use" in refused.stderr) == (3, True)
    assert davfs("unmount", drive.where).returncode == 0
    assert (drive.share / "open.txt").read_text() == "still works"


def test_unsent_files_keep_the_drive_mounted(drive: Drive) -> None:
    """With a silent server, sync and unmount end in time with code 9; so does --force,
    which keeps the file for later.
    """
    drive.mount()
    with (drive.place / "unsent.txt").open("w") as file:
        drive.server._process.send_signal(signal.SIGSTOP)
        file.write("kept")
    for command in ("sync", "unmount"):
        ended = davfs(command, drive.where, "--timeout", "0.5")
        assert (ended.returncode, "1 file is not on the server yet" in ended.stderr) == (9, True)
    assert drive.is_mounted()
    forced = davfs("unmount", drive.where, "--timeout", "0", "--force")
    assert (forced.returncode, "/unsent.txt" in forced.stderr) == (9, True)
    assert not drive.is_mounted()
    drive.server._process.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + 20
    while drive.mount().returncode and time.monotonic() < deadline:  # the old daemon may still hold the cache
        time.sleep(0.5)
    assert davfs("sync", drive.where).returncode == 0
    assert (drive.share / "unsent.txt").read_text() == "kept"


def test_a_daemon_that_was_killed_is_told_and_cleaned_up(drive: Drive) -> None:
    """Every command says that the daemon is gone, none hangs; mounting again heals, and so does --force."""
    drive.mount()
    os.kill(int(str(drive.status()["pid"])), signal.SIGKILL)
    for words in (("status",), ("sync",), ("unmount",)):
        ended = davfs(*words, drive.where)
        assert (ended.returncode, "no daemon answers" in ended.stderr) == (10, True)
    again = drive.mount()
    assert (again.returncode, again.stderr) == (0, "")
    os.kill(int(str(drive.status()["pid"])), signal.SIGKILL)
    assert davfs("unmount", drive.where, "--force").returncode == 0
    assert not drive.is_mounted()


@pytest.mark.parametrize(
    ("url", "code"),
    [("http://127.0.0.1:9/", 5), ("http://host.invalid/", 5), ("{}missing/", 8)],
)
def test_a_mount_that_fails_leaves_nothing(drive: Drive, url: str, code: int) -> None:
    """One line, the exit code of the cause, and no mount."""
    failed = davfs(
        "mount", url.format(drive.server.url), drive.where, "-o", f"cache_dir={drive.cache},timeout=3"
    )
    assert failed.returncode == code
    assert failed.stderr.startswith("davfs: ")
    assert failed.stderr.count("\n") == 1
    assert not drive.is_mounted()


@pytest.mark.parametrize(
    ("command", "status"), [("echo x > new.txt; exit 5", 5), ("echo x > new.txt; kill -9 $$", 137)]
)
def test_the_demo_runs_a_command(tmp_path: Path, command: str, status: int) -> None:
    """The command's status is the demo's, its files are on the share, and the folder made for it is gone."""
    place, share = tmp_path / "drive", tmp_path / "share"
    done = davfs("demo", str(place), "--share", str(share), "--run", command)
    assert done.returncode == status, done.stderr
    assert (share / "new.txt").read_text() == "x\n"
    assert (share / "README.txt").exists()
    assert not place.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_ends_at_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    """What was written last is on the share, nothing stays mounted, and a folder that was there is kept."""
    place, share = tmp_path / "drive", tmp_path / "share"
    place.mkdir()
    words = [sys.executable, "-m", "davfs", "demo", str(place), "--share", str(share)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        while "Ctrl-C" not in demo.stdout.readline():
            pass
        (place / "late.txt").write_text("late")
        demo.send_signal(number)
        assert demo.wait(timeout=30) == 0
    assert (share / "late.txt").read_text() == "late"
    assert place.is_dir()
    assert not mountpoint.is_davfs(str(place))
