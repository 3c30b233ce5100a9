"""Where the daemon's time goes in each row: py-spy watches it while the row is measured.

`--profile FOLDER` writes two files per row: `.raw`, every stack with its samples (for any flame graph
program), and `.txt`, the functions in which most of the time was spent. Seconds of such a run are not worth
keeping: the daemon is stopped for each sample.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_RATE_HZ: Final = 250
_TOP: Final = 20
_LOOPS: Final = ("unrolled_run (", "WorkerThread._work (")
# py-spy cannot always tell a thread that waits here from one that works.
_WAITING: Final = ("EpollIOManager.get_events (", "WorkerThread._work (")
_END_LIMIT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Profiler:
    """`program` is py-spy; `folder` is for what it finds."""

    program: Path
    folder: Path

    @contextlib.contextmanager
    def watching(self, pid: int, name: str) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        raw = self.folder / f"{name}.raw"
        options = ["--format", "raw", "--function", "--rate", str(_RATE_HZ), "--output", str(raw)]
        spy = subprocess.Popen(
            [self.program, "record", "--pid", str(pid), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert spy.stdout is not None
        try:
            spy.stdout.readline()  # it says when it begins, or why it cannot
            yield
        finally:
            spy.send_signal(signal.SIGINT)
            try:
                spy.communicate(timeout=_END_LIMIT_S)
            except subprocess.TimeoutExpired:
                spy.kill()
                spy.communicate()
        if raw.exists():
            raw.with_suffix(".txt").write_text("\n".join(_summary(raw.read_text().splitlines())) + "\n")


def _summary(stacks: list[str]) -> Iterator[str]:
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    waiting = 0
    for stack in stacks:
        frames, _, samples = stack.rpartition(" ")
        names = _below_the_loop(frames.split(";"))
        if names[-1].startswith(_WAITING):
            waiting += int(samples)
            continue
        own[names[-1]] += int(samples)
        for name in set(names):
            within[name] += int(samples)
    total = sum(own.values()) or 1
    yield f"{total / _RATE_HZ:.2f} s at work, {waiting / _RATE_HZ:.2f} s in epoll_wait or waiting for work"
    for title, counts in (("in the function itself", own), ("in it and what it calls", within)):
        yield f"\n{title}:"
        for name, count in counts.most_common(_TOP):
            yield f"{100 * count / total:5.1f} %  {name}"


def _below_the_loop(names: list[str]) -> list[str]:
    """Without what stands above every task and every thread."""
    for number, name in enumerate(names[:-1]):
        if name.startswith(_LOOPS):
            return names[number + 1 :]
    return names
