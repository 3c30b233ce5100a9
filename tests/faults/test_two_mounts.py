"""Two mounts of one share, each with a cache of its own, editing the same few files as fast as they can.

An edit reads the file and writes it again with a line that nobody has written before: by appending, by
cutting it to nothing and writing it whole, or by writing a temporary file and renaming it over. What an edit
had read is overwritten knowingly. Whatever else was acknowledged must be on the server's disk in the end,
under its name or in a conflict copy. `Tally` counts; DAVFS_SOAK=1 makes 5,000 edits for each server
instead of some 100.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field

import pytest

from tests.mount.drivers import KernelDriver
from tests.mount.test_scenarios import eventually
from tests.servers import Share

MountOf = Callable[..., KernelDriver]
EDITS = 5000 if os.environ.get("DAVFS_SOAK") == "1" else 100  # of both mounts together, on each server
FILES = 6
LINES_MAX = 20
PAUSE_S = 0.1  # at most, between two edits of one mount
TIMEOUT_S = 7200 if EDITS > 1000 else 120
# While a PUT over a file is stored, rclone 1.75 answers a GET with the new bytes cut at the old length (10 of
# 25,000 beside 120 PUTs a second), and a look that follows agrees until the PUT has ended: here about one of
# 3,000, on two cores with a load of 10. docs/SERVERS.md says so.
CUTS = {"rclone"}
TRANSIENT = {errno.ESTALE, errno.ENOENT}  # another client replaced it between two calls

pytestmark = [pytest.mark.expects_warning(""), pytest.mark.timeout(TIMEOUT_S)]


@dataclass
class Tally:
    """What was acknowledged, and which of it was overwritten by an edit that had read it."""

    written: dict[bytes, str] = field(default_factory=dict)  # content -> how
    last_replaced: dict[str, int] = field(default_factory=dict)  # file -> number of its last edit by renaming
    order: dict[bytes, tuple[str, int]] = field(default_factory=dict)  # content -> file, number of the edit
    superseded: dict[bytes, bytes] = field(default_factory=dict)  # content -> by which
    torn: list[bytes] = field(default_factory=list)  # read, and nobody wrote it
    refused: int = 0
    failures: list[BaseException] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def edited(self, name: str, seen: bytes, content: bytes, how: str) -> None:
        with self.lock:
            self.order[content] = (name, len(self.order))
            if how == "replace":
                self.last_replaced[name] = len(self.order)
            if seen and seen not in self.written:
                self.torn.append(seen)
            self.superseded[seen] = content
            self.written[content] = how

    def lost(self, share: Share) -> dict[bytes, str]:
        """By the way of the edit that wrote it."""
        there = {path.read_bytes() for path in share.root.iterdir() if path.is_file()}
        gone = self.written.keys() - self.superseded.keys() - there
        return {content: self.written[content] for content in gone - self.replaced_unseen(gone)}

    def replaced_unseen(self, gone: Set[bytes]) -> set[bytes]:
        """A rename replaces what the mount knows then; the program read the file a moment earlier
        (docs/CONFLICTS.md, "What was overwritten knowingly").
        """
        return {
            content
            for content in gone
            if self.order[content][1] < self.last_replaced.get(self.order[content][0], 0)
        }

    def begins_like(self, cut: bytes) -> bool:
        """Whether somebody wrote this, and more."""
        return any(content.startswith(cut) for content in self.written)

    def report(self, share: Share, seconds: float) -> str:
        copies = sum("(conflict " in path.name for path in share.root.iterdir())
        return (
            f"{share.name}: {len(self.written)} edits in {seconds:.0f} s, {copies} conflict copies, "
            f"{len(self.lost(share))} lost, {len(self.torn)} torn reads, {self.refused} refused"
        )


class Editor(threading.Thread):
    """One program on one mount."""

    def __init__(self, name: str, drive: KernelDriver, tally: Tally, edits: int) -> None:
        super().__init__(name=name)
        self._drive = drive
        self._tally = tally
        self._edits = edits
        self._serial = itertools.count(1)
        self._dice = random.Random(name)

    def run(self) -> None:
        try:
            for _ in range(self._edits):
                self._edit()
                time.sleep(self._dice.uniform(0, PAUSE_S))
        except BaseException as error:  # noqa: BLE001 - the thread's failure is the test's
            self._tally.failures.append(error)

    def _edit(self) -> None:
        name = f"file{self._dice.randrange(FILES)}.txt"
        how = self._dice.choice([self._append, self._write_anew, self._replace])
        line = f"{self.name} {next(self._serial)} {'x' * self._dice.randrange(60)}\n".encode()
        try:
            how(name, line)
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            self._tally.refused += 1

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[tuple[int, bytes]]:
        fd = self._drive.open(name, os.O_RDWR | os.O_CREAT)
        try:
            yield fd, b"".join(iter(lambda: self._drive.read(fd), b""))
        finally:
            self._drive.close(fd)

    def _append(self, name: str, line: bytes) -> None:
        with self._opened(name) as (fd, seen):
            self._drive.pwrite(fd, line, len(seen))
            self._tally.edited(name, seen, seen + line, "append")

    def _write_anew(self, name: str, line: bytes) -> None:
        with self._opened(name) as (fd, seen):
            content = _shortened(seen) + line
            self._drive.ftruncate(fd, 0)
            self._drive.pwrite(fd, content, 0)
            self._tally.edited(name, seen, content, "anew")

    def _replace(self, name: str, line: bytes) -> None:
        """As editors save: what the program read is known to be replaced, and what is seen right before."""
        temporary = f".{self.name}.tmp"
        with self._opened(name) as (_, seen):
            content = _shortened(seen) + line
        self._drive.write_file(temporary, content)
        self._drive.rename(temporary, name)
        self._tally.edited(name, seen, content, "replace")


def _shortened(content: bytes) -> bytes:
    return b"".join(content.splitlines(keepends=True)[-LINES_MAX:])


def edit_on_both(share: Share, mount_of: MountOf) -> tuple[Tally, str]:
    drives = [mount_of(share, attr_timeout=0.5) for _ in "AB"]
    tally = Tally()
    editors = [Editor(name, drive, tally, EDITS // 2) for name, drive in zip("AB", drives, strict=True)]
    begun = time.monotonic()
    for editor in editors:
        editor.start()
    for editor in editors:
        editor.join()
    for failure in tally.failures:
        raise failure
    for _ in range(2):  # a conflict found by the one may be news for the other
        for drive in drives:
            assert drive.sync(120) == 0
    report = tally.report(share, time.monotonic() - begun)
    print(report)  # noqa: T201 - the figures that a soak is run for
    return tally, report


def check(tally: Tally, report: str, share: Share) -> None:
    assert tally.lost(share) == {}, report
    assert [one for one in tally.torn if not (share.name in CUTS and tally.begins_like(one))] == [], report
    assert len(tally.written) > EDITS * 0.8, report
    # what a refused MOVE left is removed in the background
    eventually(lambda: not [path for path in share.root.iterdir() if path.name.startswith(".davfs-")], 20)


@pytest.mark.parametrize("server", ["apache", "wsgidav", "rclone"])
def test_two_mounts_lose_nothing(server: str, mount_of: MountOf, request: pytest.FixtureRequest) -> None:
    """Two programs on two mounts edit the same files: every line is in the file or in a conflict copy."""
    share: Share = request.getfixturevalue(f"{server}_share")
    tally, report = edit_on_both(share, mount_of)
    check(tally, report, share)
