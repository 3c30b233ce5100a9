"""Figures by row, line and peer: medians of samples, kept as JSON. A partial run replaces only its own.

A cell knows the run it came from: a ratio between cells of two runs is marked in the report.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.measuring import Sample


class Key(NamedTuple):
    row: str
    rtt_ms: float
    rate_mbit: float | None
    peer: str


@dataclass(slots=True)
class Cell:
    """All samples of one key from one run."""

    run: str
    version: str
    samples: list[Sample]

    @property
    def done(self) -> list[Sample]:
        return [one for one in self.samples if one.seconds is not None]

    @property
    def seconds(self) -> float | None:
        """The median; None as soon as one round failed: what is done only sometimes is not done."""
        if len(self.done) < len(self.samples) or not self.samples:
            return None
        return statistics.median(one.seconds for one in self.done if one.seconds is not None)

    @property
    def typical(self) -> Sample:
        """The sample whose time is nearest to the median; of a failed cell, a failed one."""
        median = self.seconds
        if median is None:
            return next(one for one in self.samples if one.seconds is None)
        return min(self.samples, key=lambda one: abs((one.seconds or 0) - median))

    @property
    def cpu_s(self) -> float | None:
        known = [one.cpu_s for one in self.samples if one.cpu_s is not None]
        return statistics.median(known) if known else None

    @property
    def peak_bytes(self) -> int:
        return max(one.peak_bytes for one in self.samples)


class Results:
    """`runs` describes the machine and the versions, by the name of the run."""

    def __init__(self) -> None:
        self.cells: dict[Key, Cell] = {}
        self.runs: dict[str, dict[str, Any]] = {}

    def add(self, key: Key, run: str, version: str, sample: Sample) -> None:
        """A sample of another run than before starts the cell anew."""
        cell = self.cells.get(key)
        if cell is None or cell.run != run:
            cell = self.cells[key] = Cell(run, version, [])
        cell.samples.append(sample)

    # --- files ------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: Path) -> Results:
        results = cls()
        if path.exists():
            read = json.loads(path.read_text())
            results.runs = read["runs"]
            for cell in read["cells"]:
                key = Key(cell["row"], cell["rtt_ms"], cell["rate_mbit"], cell["peer"])
                samples = [Sample(**sample) for sample in cell["samples"]]
                results.cells[key] = Cell(cell["run"], cell["version"], samples)
        return results

    def save(self, path: Path) -> None:
        used = {cell.run for cell in self.cells.values()}
        cells = [
            key._asdict()
            | {"run": cell.run, "version": cell.version, "samples": [one.as_json() for one in cell.samples]}
            for key, cell in sorted(self.cells.items(), key=lambda item: _order(item[0]))
        ]
        runs = {name: about for name, about in sorted(self.runs.items()) if name in used}
        temporary = path.with_suffix(".new")
        temporary.write_text(_layout({"runs": runs}, cells))
        temporary.replace(path)


def _order(key: Key) -> tuple[str, float, float, str]:
    return key.row, key.rtt_ms, key.rate_mbit or 0.0, key.peer


def _layout(head: dict[str, Any], cells: list[dict[str, Any]]) -> str:
    """One cell per line, so that a new run is a readable difference."""
    lines = ",\n".join("  " + json.dumps(cell) for cell in cells)
    return json.dumps(head, indent=1)[:-2] + ',\n "cells": [\n' + lines + "\n ]\n}\n"
