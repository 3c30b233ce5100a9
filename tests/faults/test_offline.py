"""A real mount without its server: a whole work session, restarts, killed programs, how long calls take.

`timeout` is 2 s or 4. A call may take that once for what it must know first, once for itself, and once
where a lost answer is looked up: `BOUND_S`, with room for a busy machine. Once the outage is known, calls
are answered at once: `AT_ONCE_S`, on a busy machine too.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.mount.drivers import Hung, KernelDriver, device_of
from tests.mount.test_scenarios import eventually
from tests.servers import Relay, Share

MountOf = Callable[..., KernelDriver]
TIMEOUT_S = 2.0
LONGER_S = 4.0  # where being answered at once is told from having waited so long
BOUND_S = 25.0
AT_ONCE_S = 3.5
LINK_ERRNOS = {errno.EIO, errno.EHOSTUNREACH, errno.ETIMEDOUT}

pytestmark = [pytest.mark.expects_warning(""), pytest.mark.timeout(300)]  # outages are logged


class Timed:
    """The calls of a driver, each with how long it took."""

    def __init__(self, drive: KernelDriver) -> None:
        self.drive = drive
        self.took: list[tuple[float, str]] = []

    def __call__(self, call: str, *arguments: Any) -> Any:
        begun = time.monotonic()
        try:
            return getattr(self.drive, call)(*arguments)
        finally:
            self.took.append((time.monotonic() - begun, f"{call}{arguments!r}"[:100]))

    def refused(self, call: str, *arguments: Any) -> None:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is checked
            self(call, *arguments)
        assert caught.value.errno in LINK_ERRNOS, caught.value

    def none_took_longer_than(self, bound_s: float) -> None:
        """Of the calls since the last time this was asked."""
        assert max(self.took)[0] < bound_s, sorted(self.took)[-3:]
        self.took.clear()


def status(drive: KernelDriver) -> dict[str, Any]:
    told = drive.mount.davfs("status", str(drive.mount.point), "--json")
    assert told.returncode == 0, told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def link_state(drive: KernelDriver) -> str:
    return str(status(drive)["link"]["state"])


def lose(relay: Relay, how: str) -> None:
    relay.refuse() if how == "refused" else relay.stall()


def find_again(relay: Relay, how: str) -> None:
    if how == "refused":
        relay.accept()
    else:
        relay.resume()
        relay.drop()


@pytest.fixture
def relay(apache_share: Share) -> Iterator[Relay]:
    with Relay(apache_share.url) as relay:
        yield relay


@contextmanager
def killed_at_the_end(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait(30)


def server_holds(share: Share) -> dict[str, bytes]:
    return {
        str(path.relative_to(share.root)): path.read_bytes()
        for path in sorted(share.root.rglob("*"))
        if path.is_file()
    }


def fill(share: Share) -> None:
    share.write("report", b"the report, first version")
    share.write("notes", b"notes")
    share.write("letters/old", b"an old letter")
    share.write("letters/older", b"an older letter")
    share.write("pictures/large", b"\xff" * 3_000_000)
    share.mkdir("empty")


def visit(drive: KernelDriver) -> None:
    """What somebody looked at before the train left."""
    for folder in ("", "letters", "pictures", "empty"):
        drive.listdir(folder)
    for file in ("report", "notes", "letters/old", "letters/older"):
        drive.read_file(file)


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_a_work_session_without_the_network(
    apache_share: Share, mount_of: MountOf, relay: Relay, tmp_path: Path, how: str
) -> None:
    """Edits, new files, saves by renaming, renames and deletions; the daemon killed, a mount begun without
    the network, more of the same; then the network: everything arrives, and every call ended in time.
    """
    fill(apache_share)
    cache = tmp_path / "kept"
    first = mount_of(apache_share, url=relay.url, timeout=LONGER_S, cache_dir=cache, attr_timeout=1)
    visit(first)
    time.sleep(3)  # what was seen is on disk
    call = Timed(first)
    fd = call("open", "new", os.O_WRONLY | os.O_CREAT)
    lose(relay, how)
    call("write", fd, b"written before anybody knew")
    call("close", fd)
    assert call("listdir", "letters") == ["old", "older"]
    eventually(lambda: link_state(first) == "down", 40)
    call.none_took_longer_than(BOUND_S)

    call("write_file", "letters/new", b"Dear")
    fd = call("open", "letters/new", os.O_WRONLY | os.O_APPEND)
    call("write", fd, b" friend")
    call("close", fd)
    call("write_file", "report.tmp", b"the report, second version")
    call("rename", "report.tmp", "report")
    fd = call("open", "notes", os.O_RDWR)
    call("pwrite", fd, b"NOTES", 0)
    call("close", fd)
    call("write_file", "draft", b"draft")
    call("rename", "draft", "letters/renamed")
    call("write_file", "mistake", b"mistake")
    call("unlink", "mistake")
    time.sleep(2)  # the uploads were tried, and are as unsent as before
    call("rename", "letters/renamed", "letters/renamed again")
    assert call("read_file", "report") == b"the report, second version"
    assert call("listdir", "letters") == ["new", "old", "older", "renamed again"]
    assert call("read_file", "letters/old") == b"an old letter"
    call("statvfs")
    call.refused("read_file", "pictures/large")
    call.refused("mkdir", "folder")
    call.refused("unlink", "letters/old")
    call.refused("rename", "letters/old", "letters/other")
    call.refused("rmdir", "empty")
    call.none_took_longer_than(AT_ONCE_S)
    first.mount.kill()

    second = mount_of(
        apache_share, url=relay.url, timeout=LONGER_S, cache_dir=cache, attr_timeout=1, offline="ok"
    )
    call = Timed(second)
    assert link_state(second) == "not connected yet"
    assert call("listdir", "") == ["empty", "letters", "new", "notes", "pictures", "report"]
    assert call("listdir", "letters") == ["new", "old", "older", "renamed again"]
    assert call("read_file", "letters/new") == b"Dear friend"
    assert call("read_file", "letters/older") == b"an older letter"
    assert call("stat", "pictures/large").size == 3_000_000
    fd = call("open", "letters/older", os.O_WRONLY | os.O_APPEND)
    call("write", fd, b", with a postscript")
    call("close", fd)
    call("write_file", "report.tmp", b"the report, third version")
    call("rename", "report.tmp", "report")
    call("rename", "letters/renamed again", "renamed a third time")
    call("unlink", "letters/new")
    call("write_file", "letters/new", b"Dear all")
    call.refused("read_file", "pictures/large")
    call("statvfs")
    call.none_took_longer_than(AT_ONCE_S)

    find_again(relay, how)
    eventually(lambda: second.sync() == 0, 60)
    assert link_state(second) == "up"
    assert server_holds(apache_share) == {
        "letters/new": b"Dear all",
        "letters/old": b"an old letter",
        "letters/older": b"an older letter, with a postscript",
        "new": b"written before anybody knew",
        "notes": b"NOTES",
        "pictures/large": b"\xff" * 3_000_000,
        "renamed a third time": b"draft",
        "report": b"the report, third version",
    }
    call("mkdir", "folder")
    assert call("read_file", "pictures/large") == b"\xff" * 3_000_000
    call.none_took_longer_than(BOUND_S)


def test_ordinary_tools_on_a_drive_without_its_server(
    apache_share: Share, mount_of: MountOf, relay: Relay, tmp_path: Path
) -> None:
    """ls -lR, find, cat, stat and df work on what was seen, in a mount that began without the server."""
    fill(apache_share)
    cache = tmp_path / "kept"
    first = mount_of(apache_share, url=relay.url, cache_dir=cache)
    visit(first)
    listed = first.run(["ls", "-lR", "--time-style=full-iso"])
    first.mount.close()
    relay.refuse()
    second = mount_of(apache_share, url=relay.url, cache_dir=cache, offline="ok")
    begun = time.monotonic()
    assert second.run(["ls", "-lR", "--time-style=full-iso"]) == listed
    assert len(second.run(["find", "."]).split()) == 9
    assert second.run(["cat", "report", "letters/old"]) == "the report, first versionan old letter"
    second.run(["stat", "pictures/large"])
    second.run(["df", "."])
    assert time.monotonic() - begun < BOUND_S


def test_without_the_option_a_mount_needs_its_server(relay: Relay, tmp_path: Path) -> None:
    """It fails as ever, with one line, and nothing is mounted."""
    relay.refuse()
    point = tmp_path / "mnt"
    point.mkdir()
    command = [sys.executable, "-m", "davfs", "mount", relay.url, str(point), "--foreground", "-o"]
    done = subprocess.run(
        [*command, f"cache_dir={tmp_path / 'cache'}"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1
    assert device_of(point) is None


def test_a_mount_that_began_alone_finds_its_server(
    apache_share: Share, mount_of: MountOf, relay: Relay
) -> None:
    """The status says what is wrong and when it is tried again; when the server comes the drive is whole."""
    fill(apache_share)
    relay.refuse()
    drive = mount_of(apache_share, url=relay.url, timeout=TIMEOUT_S, offline="ok")
    link = status(drive)["link"]
    assert link["state"] == "not connected yet"
    assert link["reason"]
    assert link["next_try_s"] <= 30
    relay.accept()
    eventually(lambda: link_state(drive) == "up", 60)
    assert drive.listdir() == ["empty", "letters", "notes", "pictures", "report"]
    assert status(drive)["server"] is not None


def test_programs_that_wait_for_a_silent_server_can_be_killed(
    apache_share: Share, mount_of: MountOf, relay: Relay
) -> None:
    """SIGKILL ends a program that reads, opens, or looks for a name, within the time-out at the latest."""
    fill(apache_share)
    drive = mount_of(apache_share, url=relay.url, timeout=TIMEOUT_S)
    drive.listdir()
    drive.listdir("pictures")
    relay.stall()
    for command in (["cat", "pictures/large"], ["ls", "letters"], ["stat", "empty/x"], ["mkdir", "new"]):
        process = subprocess.Popen(
            command, cwd=drive.at(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with killed_at_the_end(process):
            time.sleep(0.3)
            begun = time.monotonic()
            process.send_signal(signal.SIGKILL)
            process.wait(60)
            assert time.monotonic() - begun < BOUND_S, command


def test_many_programs_on_a_silent_server_all_end(
    apache_share: Share, mount_of: MountOf, relay: Relay
) -> None:
    """Forty at once, each asking what only the server knows: none waits for the others' time-outs as well."""
    fill(apache_share)
    for number in range(40):
        apache_share.write(f"many/{number}", b"x" * 1000)
    drive = mount_of(apache_share, url=relay.url, timeout=TIMEOUT_S)
    drive.listdir("many")
    relay.stall()
    begun = time.monotonic()
    programs = [drive.another_program() for _ in range(40)]
    calls: list[tuple[str, ...]] = [("read_file", f"many/{number}") for number in range(20)]
    calls += [("listdir", "letters"), ("stat", "letters/old"), ("mkdir", "many/folder")] * 6
    calls += [("unlink", "many/30"), ("rename", "many/31", "many/32")]
    took = _all_at_once(drive, programs, calls)
    assert len(took) == 40
    assert max(took) < 2 * BOUND_S, sorted(took)[-3:]
    assert time.monotonic() - begun < 60


def _all_at_once(drive: KernelDriver, programs: list[Any], calls: list[tuple[str, ...]]) -> list[float]:
    def one(job: tuple[Any, tuple[str, ...]]) -> float:
        program, (name, *paths) = job
        begun = time.monotonic()
        try:
            program.call(name, *[drive.at(path) for path in paths], timeout_s=100.0)
        except OSError as error:
            return time.monotonic() - begun if error.errno in LINK_ERRNOS else float("inf")
        except Hung:
            drive.mount.abort()
            raise
        return time.monotonic() - begun

    with ThreadPoolExecutor(40) as pool:
        return list(pool.map(one, zip(programs, calls, strict=True)))
