"""Draws docs/status.svg: what `davfs status --watch` shows of a real mount at work.

    python -m tests.mount.picture [FILE]

An Apache behind a relay, a mount of it, two large uploads and a download that the relay holds up in their
middle, a file that is locked, a conflict. The picture is drawn by rich from what the daemon answered; only
address, folder and the name of the machine are others.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI

from davfs import control
from davfs.commands.watch import picture, rates
from tests.mount.drivers import KernelDriver, mounted
from tests.servers import Apache, Relay
from tests.servers import relay as relay_module
from tests.servers.trouble import Fault

MIB = 1 << 20
COLUMNS = 104
PAGE = Path(__file__).parents[2] / "docs" / "status.svg"
SHOWN_URL, SHOWN_PLACE = "https://cloud.example/dav/", "/home/me/cloud"
PATIENCE_S = 30.0
SETTLED_S = 1.5  # rates of the first moment tell nothing


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    relay_module._IN_FLIGHT_CHUNKS = 2  # else it takes whole bodies on its way
    with tempfile.TemporaryDirectory() as folder, Apache() as server, server.share() as share:
        for number, size in ((1, 48), (2, 96)):
            (share.root / f"Lecture {number}.mp4").write_bytes(bytes(size * MIB))
        (share.root / "Budget.ods").write_bytes(b"1")
        with (
            Relay(share.url) as relay,
            mounted(
                relay.url, Path(folder), share.root, timeout=60, lock="always", log_file=f"{folder}/log"
            ) as drive,
        ):
            before, now, for_s = at_work(drive, relay, share.root)
    target.write_text(svg(before, now, for_s))


def at_work(drive: KernelDriver, relay: Relay, disk: Path) -> tuple[dict[str, Any], dict[str, Any], float]:
    """What the daemon says, twice, and how far apart."""
    for name in ("Lecture 1.mp4", "Budget.ods"):
        drive.read_file(name)
    for name in ("Lecture 1.mp4", "Budget.ods", ""):
        drive.stat(name)
    conflict(drive, disk)
    opened = drive.open("Budget.ods", os.O_RDWR)
    for number in range(12):
        drive.write_file(f"Photo {number:02}.jpg", bytes(MIB))
    drive.sync()
    with asking(drive) as client, ThreadPoolExecutor() as pool:
        begun_s = time.monotonic()
        before = client.ask("status", most=12)
        for at, way in ((20, "up"), (40, "up"), (30, "down"), (25, "up")):
            relay.arm(Fault("stall", way, at_byte=at * MIB, seconds=PATIENCE_S))  # type: ignore[arg-type]
        drive.write_file("Film.mkv", bytes(90 * MIB))
        drive.write_file("Backup.tar", bytes(60 * MIB))
        reading = pool.submit(drive.read_file, "Lecture 2.mp4")
        now = in_the_middle(client)
        for_s = time.monotonic() - begun_s
        relay.disarm()
        relay.drop()
        reading.result(PATIENCE_S * 2)
        drive.close(opened)
        drive.sync()
    return before, now, for_s


def conflict(drive: KernelDriver, disk: Path) -> None:
    """Somebody else changes a file while a program here has it open."""
    drive.write_file("Minutes.txt", b"ours")
    drive.sync()
    fd = drive.open("Minutes.txt", os.O_RDWR)
    drive.write(fd, b"ours, changed")
    (disk / "Minutes.txt").write_bytes(b"theirs, and longer than it was")
    drive.close(fd)
    drive.sync()


@contextlib.contextmanager
def asking(drive: KernelDriver) -> Iterator[control.ControlClient]:
    with control.connect(str(drive.mount.point), os.geteuid(), drive.mount._environment) as client:
        yield client


def in_the_middle(client: control.ControlClient) -> dict[str, Any]:
    """When three files are on their way, none of them at an end; after that time the best there was."""
    begun_s = time.monotonic()
    deadline, best = begun_s + PATIENCE_S / 3, client.ask("status", most=12)
    while time.monotonic() < deadline:
        told = client.ask("status", most=12)
        moving = [each for each in told["transfers"] if 0 < each["done_bytes"] < each["size_bytes"]]
        if len(moving) >= len(best["transfers"]):
            best = told
        if len(moving) >= 3 and time.monotonic() > begun_s + SETTLED_S:
            break
        time.sleep(0.02)
    return best


def svg(before: dict[str, Any], now: dict[str, Any], for_s: float) -> str:
    now = {**now, "url": SHOWN_URL, "mountpoint": SHOWN_PLACE}
    host = re.compile(r"\(conflict \S+ ")
    now["conflicts"] = [host.sub("(conflict laptop ", each) for each in now["conflicts"]]
    with open(os.devnull, "w") as nowhere:
        console = Console(
            file=nowhere, record=True, width=COLUMNS, markup=False, emoji=False, highlight=False
        )
        console.print(picture([(now, rates(before, now, for_s))], 1.0))
        # No fonts from elsewhere: a page that shows the picture asks nobody else.
        layout = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
        layout = re.sub(r"<!--.*?-->", "", layout, flags=re.DOTALL)
        return console.export_svg(
            title="davfs status --watch", theme=MONOKAI, code_format=layout, unique_id="davfs"
        )


if __name__ == "__main__":
    main()
