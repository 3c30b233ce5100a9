"""docs/PERFORMANCE.md: the tables between its two markers. What stands around them is written by hand.

Pure but for `write`: results in, Markdown out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.costs import Costs, table
from tests.bench.measuring import Sample
from tests.bench.results import Cell, Key, Results
from tests.bench.table import ROWS, WORKLOAD_OF, Row

OURS: Final = "davfs"
PEERS: Final = ("davfs", "rclone", "davfs2")
_BEGIN: Final = "<!-- scripts/bench mounts: what follows is written by it -->"
_END: Final = "<!-- scripts/bench mounts: end -->"
_COSTS_BEGIN: Final = "<!-- scripts/bench mounts --profile: what follows is written by it -->"
_COSTS_END: Final = "<!-- scripts/bench mounts --profile: end -->"
_SOON_S: Final = 0.0995  # below: three decimals

_PROSE: Final = f"""\
# Performance

{_BEGIN}
{_END}
"""


# --- what the figures say -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row on one line: its cells by peer, and how ours stands."""

    row: Row
    rtt_ms: float
    rate_mbit: float | None
    cells: dict[str, Cell]

    @property
    def floor_s(self) -> float:
        return self.row.floor_s(self.rtt_ms, self.rate_mbit)

    def seconds(self, peer: str) -> float | None:
        return self.cells[peer].seconds if peer in self.cells else None

    @property
    def best_other(self) -> str | None:
        """The fastest of those that did it at all."""
        done = {
            peer: seconds
            for peer in self.cells
            if peer != OURS and (seconds := self.seconds(peer)) is not None
        }
        return min(done, key=lambda peer: done[peer]) if done else None

    @property
    def ratio(self) -> float | None:
        ours, best = self.seconds(OURS), self.best_other
        if ours is None or best is None:
            return None
        return ours / max(self.seconds(best) or 0.0, 1e-6)

    @property
    def same_run(self) -> bool:
        best = self.best_other
        return best is None or self.cells[best].run == self.cells[OURS].run

    @property
    def target(self) -> float | None:
        return self.row.targets.get(int(self.rtt_ms)) if self.rtt_ms == int(self.rtt_ms) else None

    def objections(self) -> Iterator[str]:
        """Why the target is not reached."""
        if OURS not in self.cells:
            return
        if self.seconds(OURS) is None:
            yield "failed"
            return
        if self.target is not None and self.ratio is not None and self.ratio > self.target:
            yield f"{self.ratio / self.target:.1f} times the target"
        yield from self._too_much(self.cells[OURS].typical)

    def _too_much(self, ours: Sample) -> Iterator[str]:
        if self.row.most_up is not None and ours.up_bytes > self.row.most_up:
            yield f"{_bytes(ours.up_bytes)} up"
        if self.row.most_down is not None and ours.down_bytes > self.row.most_down:
            yield f"{_bytes(ours.down_bytes)} down"

    @property
    def has_target(self) -> bool:
        return self.target is not None or self.row.most_up is not None or self.row.most_down is not None


def verdicts(results: Results) -> dict[tuple[float, float | None, bool], list[Verdict]]:
    """By section: round trip, and the rate where it is not the rows' own. Rows as in the table."""
    found: dict[tuple[float, float | None, bool], dict[str, Verdict]] = {}
    order = list(ROWS)
    for key, cell in sorted(results.cells.items(), key=lambda item: _position(item[0], order)):
        if key.row not in ROWS:
            continue
        own = key.rate_mbit == WORKLOAD_OF[key.row].rate_mbit
        section = found.setdefault((key.rtt_ms, None if own else key.rate_mbit, own), {})
        verdict = section.setdefault(key.row, Verdict(ROWS[key.row], key.rtt_ms, key.rate_mbit, {}))
        verdict.cells[key.peer] = cell
    return {name: list(rows.values()) for name, rows in found.items()}


def _position(key: Key, order: Sequence[str]) -> tuple[float, int, float]:
    place = order.index(key.row) if key.row in order else len(order)
    return -key.rtt_ms, place, key.rate_mbit or 0.0


# --- Markdown -----------------------------------------------------------------------------------


def write(results: Results, path: Path, *, chart: bool) -> None:
    """Puts the tables between the markers of `path`; makes the file when there is none."""
    _put_between(_BEGIN, _END, lines(results, chart=chart), path)


def write_costs(found: Mapping[str, Costs], path: Path) -> None:
    """Puts what each part of the daemon took between markers of its own."""
    titles = {key: row.title for key, row in ROWS.items()}
    _put_between(_COSTS_BEGIN, _COSTS_END, table(found, titles), path)


def _put_between(begin: str, end: str, what: Iterable[str], path: Path) -> None:
    text = path.read_text() if path.exists() else _PROSE
    head, has_begin, rest = text.partition(begin)
    _, has_end, tail = rest.partition(end)
    if not has_begin or not has_end:
        head, tail = text + "\n", "\n"
    path.write_text(head + begin + "\n\n" + "\n".join(what) + "\n" + end + tail)


def lines(results: Results, *, chart: bool) -> Iterator[str]:
    sections = verdicts(results)
    yield from _machine(results)
    if chart:
        yield "![Seconds by work and mount, on a logarithmic scale](performance.svg)"
        yield ""
    for section, rows in sections.items():
        yield f"### {_section(*section)}"
        yield ""
        yield from _times(rows)
        yield from _costs(rows)
    yield from _many(sections.values())
    yield from _failures(sections.values())
    yield from _floors(results)


def _section(rtt_ms: float, rate_mbit: float | None, own: bool) -> str:
    text = f"Round trip of {rtt_ms:g} ms"
    if own:
        return text
    return text + (", no limit of bandwidth" if rate_mbit is None else f", {rate_mbit:g} Mbit/s")


def _machine(results: Results) -> Iterator[str]:
    used = {cell.run for cell in results.cells.values()}
    for name, about in sorted(results.runs.items()):
        if name in used:
            versions = ", ".join(f"{peer} {version}" for peer, version in about.get("versions", {}).items())
            yield (
                f"- {about['begun']}: {versions}; Apache {about['apache']}, Python {about['python']};"
                f" {about['cores']} cores ({about['processor']}), {about['memory_gib']} GiB,"
                f" kernel {about['kernel']}, load {about['load']} at the begin{_took(about)}."
            )
    yield ""


def _took(about: dict[str, Any]) -> str:
    return f"; {about['minutes']:g} minutes" if "minutes" in about else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _times(rows: Sequence[Verdict]) -> Iterator[str]:
    yield "Seconds (median); the ratio is to the best other mount."
    yield ""
    head = ("work", "floor", *PEERS, "ratio", "target", "reached")
    yield from _table(head, (_time_row(row) for row in rows))


def _time_row(one: Verdict) -> list[str]:
    peers = [_time(one.cells.get(peer)) for peer in PEERS]
    ratio = "" if one.ratio is None else f"{one.ratio:.2f}" + ("" if one.same_run else " (two runs)")
    target = "" if one.target is None else f"{one.target:.2f}"
    reached = ""
    if one.has_target and OURS in one.cells and len(one.cells) > 1:
        reached = ", ".join(one.objections())
        reached = f"no: {reached}" if reached else "yes"
    return [one.row.title, seconds_text(one.floor_s), *peers, ratio, target, reached]


def _time(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    return "failed" if cell.seconds is None else seconds_text(cell.seconds)


def _costs(rows: Sequence[Verdict]) -> Iterator[str]:
    measured = [one for one in rows if any(cell.cpu_s is not None for cell in one.cells.values())]
    yield f"What it cost ({' / '.join(PEERS)}); CPU seconds and peak memory are the daemon's:"
    yield ""
    head = ("work", "requests", "by kind, davfs", "connections", "up", "down", "CPU s", "peak MB")
    yield from _table(head, (_cost_row(one) for one in measured))
    yield from _dear(measured)


def _cost_row(one: Verdict) -> list[str]:
    typical = [one.cells[peer].typical if peer in one.cells else None for peer in PEERS]
    cpu = [one.cells[peer].cpu_s if peer in one.cells else None for peer in PEERS]
    peak = [one.cells[peer].peak_bytes if peer in one.cells else None for peer in PEERS]
    kinds = typical[0].requests if typical[0] is not None else {}
    return [
        one.row.title,
        _three(typical, lambda sample: str(sum(sample.requests.values()))),
        ", ".join(f"{name} {count}" for name, count in sorted(kinds.items())),
        _three(typical, lambda sample: str(sample.connections)),
        _three(typical, lambda sample: _bytes(sample.up_bytes)),
        _three(typical, lambda sample: _bytes(sample.down_bytes)),
        _three(cpu, lambda spent: f"{spent:.2f}"),
        _three(peak, lambda size: f"{size / 1e6:.0f}"),
    ]


def _three(values: Sequence[Any], said: Any) -> str:
    return " / ".join("-" if value is None else said(value) for value in values)


def _dear(rows: Sequence[Verdict]) -> Iterator[str]:
    """Where our daemon costs more than it may."""
    dearer = [one.row.title for one in rows if _more_cpu(one)]
    larger = [
        one.row.title
        for one in rows
        if OURS in one.cells and one.cells[OURS].peak_bytes > one.row.most_memory
    ]
    yield f"More processor time than rclone ({len(dearer)} of {len(rows)}): {'; '.join(dearer) or 'nowhere'}."
    yield ""
    yield f"Peak memory above its limit ({len(larger)} of {len(rows)}): {'; '.join(larger) or 'nowhere'}."
    yield ""


def _more_cpu(one: Verdict) -> bool:
    # The kernel counts in steps of 10 ms: two of them are no difference.
    ours, theirs = (one.cells[peer].cpu_s if peer in one.cells else None for peer in (OURS, "rclone"))
    return ours is not None and theirs is not None and ours > theirs + 0.02


def _many(sections: Iterable[Sequence[Verdict]]) -> Iterator[str]:
    """Whether the cost of one file grows with their number, and the memory with time."""
    rows = [
        [
            f"{one.row.title}, {one.rtt_ms:g} ms",
            peer,
            f"{seconds / one.row.count * 1e6:.0f}",
            ", ".join(f"{size / 1e6:.0f}" for size in cell.typical.resident),
        ]
        for verdicts_of in sections
        for one in verdicts_of
        for peer, cell in one.cells.items()
        if one.row.count is not None and (seconds := cell.seconds) is not None
    ]
    if rows:
        yield "### Very many files"
        yield ""
        yield from _table(("work", "mount", "µs for each file", "MB of memory, as time went"), rows)


def _failures(sections: Iterable[Sequence[Verdict]]) -> Iterator[str]:
    notes = [
        f"- {peer}, {one.row.title}, {one.rtt_ms:g} ms: {note}"
        for rows in sections
        for one in rows
        for peer, cell in one.cells.items()
        for note in sorted({sample.note for sample in cell.samples if sample.note})
    ]
    if notes:
        yield "### What failed"
        yield ""
        yield from notes
        yield ""


def _floors(results: Results) -> Iterator[str]:
    yield "### Where the floors come from"
    yield ""
    yield "Dependent round trips x round trip + bytes / bandwidth:"
    yield ""
    used = {key.row for key in results.cells}
    rows = (row for row in ROWS.values() if row.key in used)
    yield from _table(
        ("work", "dependent round trips", "why"), ((row.title, str(row.trips), row.why) for row in rows)
    )


def seconds_text(seconds: float) -> str:
    if seconds < _SOON_S:
        return f"{seconds:.3f}"
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}"


def _bytes(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}" if size < 1000 * factor else f"{size / factor:.0f} {unit}"
    return f"{size} B"


# --- for the chart ------------------------------------------------------------------------------


def chart_panels(results: Results) -> list[dict[str, Any]]:
    """What chart.py draws: rows with a target, one panel per round trip."""
    return [
        {
            "title": _section(*section),
            "rows": [
                {
                    "title": one.row.title,
                    "floor": one.floor_s,
                    "seconds": {peer: one.seconds(peer) for peer in PEERS if peer in one.cells},
                }
                for one in rows
                if one.target is not None
            ],
        }
        for section, rows in verdicts(results).items()
        if any(one.target is not None for one in rows)
    ]
