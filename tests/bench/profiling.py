"""Where the daemon's time goes in each row: py-spy watches it while the row is measured.

`--profile FOLDER` writes two files per row: `.raw`, every stack with its samples (for any flame graph
program), and `.txt`, the functions in which most of the time was spent. All rows together are one table of
docs/PERFORMANCE.md. Seconds of such a run are not kept: the daemon is stopped for each sample.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.costs import RATE_HZ, Costs, costs

_TOP: Final = 20
_END_LIMIT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Profiler:
    """`program` is py-spy; `folder` is for what it finds."""

    program: Path
    folder: Path

    @contextlib.contextmanager
    def watching(self, pid: int, name: str) -> Iterator[None]:
        raw = self.folder / f"{name}.raw"
        options = ["--format", "raw", "--function", "--rate", str(RATE_HZ), "--output", str(raw)]
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
            found = costs(raw.read_text().splitlines())
            raw.with_suffix(".txt").write_text("\n".join(_summary(found)) + "\n")

    def found(self) -> dict[str, Costs]:
        """Of all rows whose stacks are in the folder, those of earlier runs too."""
        return {raw.stem: costs(raw.read_text().splitlines()) for raw in sorted(self.folder.glob("*.raw"))}


def _summary(found: Costs) -> Iterator[str]:
    total = found.total or 1
    waiting_s = found.waiting / RATE_HZ
    yield f"{found.work_s:.2f} s at work, {waiting_s:.2f} s in epoll_wait or waiting for work"
    for title, counts in (
        ("by part", found.parts),
        ("in the function itself", found.own),
        ("in it and what it calls", found.within),
    ):
        yield f"\n{title}:"
        for name, count in counts.most_common(_TOP):
            yield f"{100 * count / total:5.1f} %  {name}"
