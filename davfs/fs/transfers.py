"""What is on its way, and what the cache spared: the numbers behind `davfs status`.

Pure: no I/O, no clock. Nothing here is touched for each byte: a transfer keeps where it began and where it
is, which it must know anyway, and rates are worked out when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

RATE_AFTER_S: Final = 0.05  # before that a rate is noise
SHOWN_MAX: Final = 100  # transfers; there are at most 64 connections


@dataclass(slots=True)
class Hits:
    """How often an answer was here already."""

    hits: int = 0
    misses: int = 0

    def note(self, *, hit: bool) -> None:
        if hit:
            self.hits += 1
        else:
            self.misses += 1

    def told(self) -> dict[str, object]:
        """JSON-able; `rate` is a share of 1, None while nothing was asked."""
        asked = self.hits + self.misses
        rate = round(self.hits / asked, 4) if asked else None
        return {"hits": self.hits, "misses": self.misses, "rate": rate}


@dataclass(frozen=True, slots=True)
class Moving:
    """One file whose bytes go up or down. `moved_bytes` in the last `for_s`; 0 s: it waits to begin."""

    path: str
    direction: Literal["up", "down"]
    size_bytes: int
    done_bytes: int  # of the file: on the server's side of the line, or here
    left_bytes: int  # of what was asked for
    moved_bytes: int
    for_s: float

    @property
    def rate(self) -> float:
        """Bytes a second since it began."""
        return self.moved_bytes / self.for_s if self.for_s >= RATE_AFTER_S else 0.0

    def told(self) -> dict[str, object]:
        """JSON-able; `left_s` is None while nobody can tell."""
        return {
            "path": self.path,
            "direction": self.direction,
            "size_bytes": self.size_bytes,
            "done_bytes": self.done_bytes,
            "left_bytes": self.left_bytes,
            "rate_bytes_per_s": round(self.rate),
            "left_s": round(self.left_bytes / self.rate, 1) if self.rate else None,
        }


def in_order(moving: Iterable[Moving]) -> list[dict[str, object]]:
    """The rows a person is shown: uploads first, then by path."""
    found = sorted(moving, key=lambda one: (one.direction != "up", one.path))
    return [one.told() for one in found[:SHOWN_MAX]]
