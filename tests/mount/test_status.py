"""`davfs status` of a real mount: what it tells, and that docs/STATUS.md names all of it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from davfs.commands.metrics import METRICS
from tests.mount.conftest import MountOf
from tests.mount.drivers import KernelDriver
from tests.mount.test_scenarios import eventually
from tests.servers import Relay, Share
from tests.servers import relay as relay_module
from tests.servers.trouble import Direction, Fault

PAGE = Path(__file__).parents[2] / "docs" / "STATUS.md"
BOUND_S = 20.0
LARGE = 32 << 20  # sockets on both sides of the relay swallow some 10 MiB
VARYING = {"hits": "KIND", "requests": "METHOD"}


def status(drive: KernelDriver) -> dict[str, Any]:
    told = drive.mount.davfs("status", str(drive.mount.point), "--json")
    assert told.returncode == 0, told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def documented(heading: str) -> list[str]:
    """The first column of the table below this heading."""
    section = PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


def keys_of(value: object, name: str = "") -> Iterator[str]:
    """The keys of an answer as docs/STATUS.md writes them; of an empty list only its name, with []."""
    if isinstance(value, dict):
        for key, each in value.items():
            inner = VARYING.get(name, key)
            yield from keys_of(each, f"{name}.{inner}" if name else key)
    elif isinstance(value, list):
        yield from (keys for each in value for keys in keys_of(each, f"{name}[]"))
        if not value:
            yield f"{name}[]"
    else:
        yield name


@pytest.fixture(autouse=True)
def _short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that takes no 128 MiB on its way, or a whole body would be out before the fault."""
    monkeypatch.setattr(relay_module, "_IN_FLIGHT_CHUNKS", 2)


def keys_when(drive: KernelDriver, wanted: Callable[[dict[str, Any]], bool]) -> set[str]:
    """Of the first answer that is as wanted: the next one may be different again."""
    told: dict[str, Any] = {}

    def look() -> bool:
        told.update(status(drive))
        return wanted(told)

    eventually(look, BOUND_S)
    return set(keys_of(told))


def hold_up(relay: Relay, way: Direction) -> None:
    """Whatever connection carries a large body that way stops in its middle."""
    for _ in range(20):
        relay.arm(Fault("stall", way, at_byte=LARGE // 4, seconds=10 * BOUND_S))  # until `go_on`


def go_on(relay: Relay) -> None:
    relay.disarm()
    relay.drop()


@pytest.mark.expects_warning("")
def test_every_key_is_documented_and_every_documented_key_is_told(
    apache_share: Share, mount_of: MountOf
) -> None:
    """docs/STATUS.md names what `--json` holds, no more and no less, over the states of a mount."""
    seen: set[str] = set()
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url, lock="always", timeout=60)
        drive.write_file("a", b"a")
        fd = drive.open("a", os.O_RDWR)
        drive.write(fd, b"b")
        seen |= set(keys_of(status(drive)))
        drive.close(fd)
        assert drive.sync() == 0
        hold_up(relay, "up")
        drive.write_file("large", b"x" * LARGE)
        seen |= keys_when(drive, lambda told: bool(told["transfers"]))
        go_on(relay)
        assert drive.sync() == 0
        relay.refuse()
        with contextlib.suppress(OSError):
            drive.stat("unknown")
        seen |= keys_when(drive, lambda told: told["link"]["state"] == "down")
        relay.accept()
        eventually(lambda: status(drive)["link"]["state"] == "up", BOUND_S)
    lists = {name for name in documented("Keys of `--json`") if "[]." in name}
    known = set(documented("Keys of `--json`"))
    empty = {f"{name.split('[]')[0]}[]" for name in lists}
    assert seen - empty <= known
    assert known <= seen


def test_refresh_shows_what_others_changed(apache_share: Share, mount_of: MountOf) -> None:
    """Names and contents, long before the attribute time-out, past the kernel's caches too."""
    apache_share.write("a", b"old")
    drive = mount_of(apache_share, attr_timeout=3600, attr_timeout_min=3600)
    assert (drive.listdir(""), drive.read_file("a"), drive.stat("a").size) == (["a"], b"old", 3)
    apache_share.write("a", b"newer")
    apache_share.write("b", b"b")
    assert (drive.listdir(""), drive.stat("a").size) == (["a"], 3)
    told = drive.mount.davfs("status", str(drive.mount.point), "--refresh")
    assert told.returncode == 0, told.stderr
    eventually(lambda: (drive.listdir(""), drive.stat("a").size) == (["a", "b"], 5), BOUND_S)
    assert drive.read_file("a") == b"newer"


def test_every_metric_is_documented() -> None:
    """The table is the list of metrics, with the words of their HELP lines."""
    assert documented("Metrics") == [each.name for each in METRICS]
    text = PAGE.read_text()
    assert [each.name for each in METRICS if f"| {each.kind}: {each.help} |" not in text] == []


@pytest.mark.expects_warning("not sent")
def test_an_upload_shows_how_far_it_is(apache_share: Share, mount_of: MountOf) -> None:
    """In the middle of one file: bytes done and left in the status, and what is left in `davfs sync`."""
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url, timeout=60)
        drive.listdir()
        hold_up(relay, "up")
        drive.write_file("large", b"x" * LARGE)
        row = in_flight(drive, lambda each: each["done_bytes"] > 0)
        assert (row["path"], row["direction"], row["size_bytes"]) == ("/large", "up", LARGE)
        assert row["done_bytes"] + row["left_bytes"] == LARGE
        left = drive.mount.davfs("sync", str(drive.mount.point), "--timeout", "6")
        told = re.match(r"sending: 1 file, ([0-9.]+) MiB left\n", left.stderr)
        assert told, left.stderr
        assert 0 < float(told[1]) < LARGE >> 20
        go_on(relay)
        assert drive.sync() == 0
        told_at_the_end = status(drive)
        assert told_at_the_end["transfers"] == []
        assert told_at_the_end["sent_bytes"] >= LARGE


def in_flight(drive: KernelDriver, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = [each for each in status(drive)["transfers"] if wanted(each)]
        return bool(found)

    eventually(look, BOUND_S)
    return found[0]


def test_a_download_shows_how_far_it_is(apache_share: Share, mount_of: MountOf) -> None:
    """All windows of one file are one row: what is here, and what was asked for and is still to come."""
    (apache_share.root / "large").write_bytes(b"x" * LARGE)
    with Relay(apache_share.url) as relay, ThreadPoolExecutor() as pool:
        drive = mount_of(apache_share, url=relay.url, timeout=60)
        drive.listdir()
        hold_up(relay, "down")
        reading = pool.submit(drive.read_file, "large")
        row = in_flight(drive, lambda each: each["done_bytes"] > 0)
        assert (row["path"], row["direction"], row["size_bytes"]) == ("/large", "down", LARGE)
        assert 0 < row["left_bytes"] <= LARGE - row["done_bytes"]
        go_on(relay)
        assert len(reading.result(BOUND_S * 2)) == LARGE
        assert status(drive)["received_bytes"] >= LARGE


def test_the_table_and_the_metrics_of_a_real_mount(apache_share: Share, mount_of: MountOf) -> None:
    """For people in words, for Prometheus as numbers; both of the same mount."""
    drive = mount_of(apache_share)
    drive.write_file("a", b"12345")
    assert drive.sync() == 0
    text = drive.mount.davfs("status", str(drive.mount.point)).stdout
    for part in (f"{apache_share.url} on {drive.mount.point}", "as Apache mod_dav", "1 files sent", "hits"):
        assert part in text
    numbers = drive.mount.davfs("status", str(drive.mount.point), "--metrics").stdout
    where = f'mountpoint="{drive.mount.point}"'
    for line in (f"davfs_up{{{where}}} 1", f"davfs_sent_files_total{{{where}}} 1"):
        assert line in numbers.splitlines()


# --- --watch


def watching(drive: KernelDriver, terminal: int | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "davfs", "status", str(drive.mount.point), "--watch", "--interval", "0.2"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if terminal is None else terminal,
        stderr=subprocess.PIPE,
        text=True,
        env=drive.mount._environment | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
    )


def test_watching_asks_the_server_nothing_and_ends_with_ctrl_c(
    apache_share: Share, mount_of: MountOf
) -> None:
    """Without a terminal: a line each interval, no request for it, exit code 0, silence on standard error."""
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url)
        drive.write_file("a", b"12345")
        assert drive.sync() == 0
        before = len(relay.exchanges)
        with watching(drive) as watch:
            assert watch.stdout is not None
            lines = [watch.stdout.readline() for _ in range(5)]
            watch.send_signal(signal.SIGINT)
            assert (watch.wait(BOUND_S), watch.stderr.read() if watch.stderr else None) == (0, "")
        assert len(relay.exchanges) == before
    told = f"{drive.mount.point} link up, pending 0, failed 0, conflicts 0, transfers 0, 0 B/s up, 0 B/s down"
    assert [each.strip().partition(" ")[2] for each in lines] == [told] * 5


def test_watching_on_a_terminal(apache_share: Share, mount_of: MountOf) -> None:
    """It draws the table, and leaves the terminal as it was: main screen, cursor shown."""
    drive = mount_of(apache_share)
    ours, theirs = pty.openpty()
    try:
        with watching(drive, theirs) as watch:
            drawn = read_until(ours, b"Ctrl-C ends it")
            watch.send_signal(signal.SIGINT)
            drawn += read_until(ours, b"\x1b[?25h")
            assert watch.wait(BOUND_S) == 0
            assert watch.stderr is not None
            assert watch.stderr.read() == ""
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"Apache mod_dav" in drawn
    assert b"\x1b[?1049h" in drawn
    assert b"\x1b[?1049l" in drawn


def read_until(fd: int, mark: bytes) -> bytes:
    read, deadline = b"", time.monotonic() + BOUND_S
    while mark not in read:
        assert select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0], read
        read += os.read(fd, 65536)
    return read


def test_watching_ends_with_the_mount(apache_share: Share, mount_of: MountOf) -> None:
    """Of one mount: when its daemon ends it says so in one line, with the code of `no daemon`."""
    drive = mount_of(apache_share)
    with watching(drive) as watch:
        assert watch.stdout is not None
        watch.stdout.readline()
        assert drive.mount.davfs("unmount", str(drive.mount.point)).returncode == 0
        assert watch.wait(BOUND_S) == 10
        assert watch.stderr is not None
        assert watch.stderr.read().count("\n") == 1


# --- doctor


def test_a_report_of_a_real_mount_names_nothing(
    apache_share: Share, mount_of: MountOf, tmp_path: Path
) -> None:
    """Options, capabilities, counts and the log are there; files, mount point and password are not."""
    log = tmp_path / "Ocelot.log"
    drive = mount_of(
        apache_share, log_file=log, log_level="info", username="wombat", password_command="echo hunter2"
    )
    drive.write_file("Kudu plan.txt", b"12345")
    assert drive.sync() == 0
    text = drive.mount.davfs("doctor", str(drive.mount.point)).stdout
    for private in ("wombat", "hunter2", "Kudu", "Ocelot", str(drive.mount.point), str(tmp_path)):
        assert private not in text
    told = json.loads(text.split("== mount 1\n")[1].split("\n== ")[0])
    assert told["sent_files"] == 1
    assert told["settings"]["options"]["log_level"] == "info"
    assert "PROPFIND" in told["settings"]["capabilities"]["methods"]
    assert "INFO davfs.mount: (url) is mounted on (private)" in text.split("== log of mount 1\n")[1]
    full = drive.mount.davfs("doctor", str(drive.mount.point), "--full").stdout
    assert str(drive.mount.point) in full
    assert "wombat" in full
    assert "hunter2" not in full


def test_the_picture_in_the_readme_is_small_and_asks_nobody() -> None:
    """Drawn by `python -m tests.mount.picture`: below 200 KB, and without fonts from elsewhere."""
    picture = PAGE.with_name("status.svg").read_text()
    assert len(picture) < 200_000
    assert set(re.findall(r"https?://[^/\"<]+", picture)) == {"http://www.w3.org", "https://cloud.example"}
    assert "transfers:" in picture
