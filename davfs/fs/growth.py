"""How much larger the server's files become by what is unsent here, as two sums kept as they change. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from davfs.dav.resource import Validator
from davfs.fs.lifecycle import Life


@dataclass(slots=True)
class Counted:
    """What of one content is in the sums."""

    unsent: int = 0
    begun: int | None = None  # None: no PUT runs, or its answer was had
    acked: int = 0


class Growth:
    """The two sums.

    `unsent`: bytes by which the server's files are shorter than ours, of files that are not being sent.
    `begun`: the same of all files whose PUT was ever begun, unless it failed: what the server said before
    that does not have them in it, what it says after may. So a running PUT never counts twice.
    """

    def __init__(self) -> None:
        self.unsent = 0
        self.begun = 0

    def note(self, counted: Counted, life: Life, *, grown: int, gone: bool) -> None:
        """`grown`: ours less the server's, at least 0. `gone`: removed, so it will not be sent."""
        begun = counted.begun
        if gone or not life.dirty or life.acked > counted.acked:
            begun = None  # the server has it: stays in the sum
        elif life.unknown and begun is None:
            begun = grown
            self.begun += grown
        elif not life.unknown and begun is not None:
            self.begun -= begun
            begun = None
        unsent = max(0, grown - (begun or 0)) if life.dirty and not gone else 0
        self.unsent += unsent - counted.unsent
        counted.unsent, counted.begun, counted.acked = unsent, begun, life.acked


def growth(size_bytes: int, base: Validator | None) -> int:
    """By how much a file of this size is larger than the version of the server that it will replace."""
    held = base.size_bytes if base is not None else None
    return max(0, size_bytes - (held or 0))
