"""Sets of byte extents: which bytes of a file are present.

A `RangeSet` holds disjoint, non-touching half-open extents in order, as two parallel lists, so
that every question is a bisect and a sequential download costs one extent whatever its length.
Pure: no I/O, no clock. Property-tested against a plain set of integers.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class RangeSet:
    """A set of bytes. All extents are half-open: [start, end)."""

    _starts: list[int] = field(default_factory=list)
    _ends: list[int] = field(default_factory=list)

    @classmethod
    def whole(cls, size: int) -> RangeSet:
        ranges = cls()
        ranges.add(0, size)
        return ranges

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        """The number of extents (not of bytes)."""
        return len(self._starts)

    @property
    def total_bytes(self) -> int:
        return sum(self._ends) - sum(self._starts)

    def add(self, start: int, end: int) -> None:
        if end <= start:
            return
        low = bisect_left(self._ends, start)  # the first extent that touches [start, ...
        high = bisect_right(self._starts, end)  # one past the last that touches ..., end)
        if low < high:
            start = min(start, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]

    def remove(self, start: int, end: int) -> None:
        if end <= start:
            return
        low = bisect_right(self._ends, start)  # the first extent with a byte past start
        high = bisect_left(self._starts, end)  # one past the last with a byte before end
        if low >= high:
            return
        keep = [(self._starts[low], start), (end, self._ends[high - 1])]
        keep = [(a, b) for a, b in keep if a < b]
        self._starts[low:high] = [a for a, _ in keep]
        self._ends[low:high] = [b for _, b in keep]

    def covers(self, start: int, end: int) -> bool:
        if end <= start:
            return True
        at = bisect_right(self._starts, start) - 1
        return at >= 0 and self._ends[at] >= end

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """The extents of [start, end) that are not in the set."""
        gaps = []
        at = bisect_right(self._ends, start)
        while start < end:
            if at >= len(self._starts) or self._starts[at] >= end:
                gaps.append((start, end))
                break
            if self._starts[at] > start:
                gaps.append((start, self._starts[at]))
            start = self._ends[at]
            at += 1
        return gaps

    def run_from(self, start: int) -> int:
        """One past the last byte present without a gap from `start`; `start` itself if it is absent."""
        at = bisect_right(self._starts, start) - 1
        return self._ends[at] if at >= 0 and self._ends[at] > start else start

    def to_bytes(self) -> bytes:
        flat = [number for extent in self for number in extent]
        return struct.pack(f"<{len(flat)}Q", *flat)

    @classmethod
    def from_bytes(cls, raw: bytes) -> RangeSet:
        """Raises ValueError on bytes that `to_bytes` cannot have written."""
        if len(raw) % 16:
            raise ValueError("not a range set")
        flat = struct.unpack(f"<{len(raw) // 8}Q", raw)
        ranges = cls()
        for start, end in zip(flat[::2], flat[1::2], strict=True):
            if end <= start:
                raise ValueError("not a range set")
            ranges.add(start, end)
        return ranges
