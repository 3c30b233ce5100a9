"""From py-spy's stacks to what each part of the daemon took, as one table for all rows. Pure.

A sample belongs to the innermost frame that is the daemon's or that of a library under it: the time of C code
(lxml, SQLite, system calls) is that of the function that called it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

RATE_HZ: Final = 250
_LOOPS: Final = ("unrolled_run (", "WorkerThread._work (")
# py-spy cannot always tell a thread that waits here from one that works.
_WAITING: Final = ("EpollIOManager.get_events (", "WorkerThread._work (")
_NAMED: Final = 3
_FEWEST: Final = 25  # samples: below, shares say nothing

# The first whose mark stands in a frame, for the innermost frame that has any.
_PARTS: Final = {
    "kernel's requests": ("_pyfuse3.py", "davfs/fuse.py"),
    "listings": tuple(
        f"davfs/{name}.py"
        for name in (
            *("dav/multistatus", "dav/answered", "dav/properties", "dav/hrefs", "dav/names", "dav/times"),
            *("dav/dates", "dav/resource", "fs/listings", "fs/spellings", "fs/prefetch", "fs/walks"),
        )
    ),
    "requests to the server": ("davfs/dav/",),
    "cache files": tuple(
        f"davfs/fs/{name}.py" for name in ("store", "content", "disk", "ranges", "body", "chunks")
    ),
    "records": tuple(f"davfs/fs/{name}.py" for name in ("index", "database", "schema", "record", "journal")),
    "file system": ("davfs/fs/", "davfs/"),
    "event loop": ("trio/", "outcome"),
}
PARTS: Final = (*_PARTS, "other")


@dataclass(slots=True)
class Costs:
    """Samples of one row: at work by part and by function, and waiting."""

    parts: Counter[str] = field(default_factory=Counter)
    own: Counter[str] = field(default_factory=Counter)
    within: Counter[str] = field(default_factory=Counter)
    waiting: int = 0

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def work_s(self) -> float:
        return self.total / RATE_HZ


def costs(stacks: Iterable[str]) -> Costs:
    """`stacks`: lines of `py-spy record --format raw --function`: frames from the outermost, then a count."""
    found = Costs()
    for stack in stacks:
        frames, _, text = stack.rpartition(" ")
        names, samples = _below_the_loop(frames.split(";")), int(text)
        if names[-1].startswith(_WAITING):
            found.waiting += samples
            continue
        found.own[names[-1]] += samples
        found.parts[_part(names)] += samples
        for name in set(names):
            found.within[name] += samples
    return found


def _below_the_loop(names: list[str]) -> list[str]:
    """Without what stands above every task and every thread."""
    for number, name in enumerate(names[:-1]):
        if name.startswith(_LOOPS):
            return names[number + 1 :]
    return names


def _part(names: list[str]) -> str:
    for name in reversed(names):
        for part, marks in _PARTS.items():
            if any(mark in name for mark in marks):
                return part
    return "other"


def table(found: Mapping[str, Costs], titles: Mapping[str, str]) -> Iterator[str]:
    """The rows in the order of `titles`; those that were too short for shares are named below it."""
    yield f"| work | s | {' | '.join(PARTS)} | the dearest functions |"
    yield "|" + "---|" * (len(PARTS) + 3)
    short = []
    for key, title in titles.items():
        if (one := found.get(key)) is None:
            continue
        if one.total < _FEWEST:
            short.append(title)
            continue
        shares = " | ".join(f"{100 * one.parts[part] / one.total:.0f} %" for part in PARTS)
        dearest = "; ".join(
            f"{_said(name)} {100 * count / one.total:.0f} %" for name, count in one.own.most_common(_NAMED)
        )
        yield f"| {title} | {one.work_s:.2f} | {shares} | {dearest} |"
    yield ""
    if short:
        yield f"Too short to say (below {_FEWEST / RATE_HZ:.1f} s at work): {'; '.join(short)}."


def _said(name: str) -> str:
    """`Content.fill (davfs/fs/content.py:151)` -> `` `Content.fill` ``."""
    function = name.partition(" (")[0].replace("|", " ")
    if "_pyfuse3.py" in name:
        function = "pyfuse3"
    return f"`{function}`"
