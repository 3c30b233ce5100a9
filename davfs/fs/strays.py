"""Bodies of ours that may still land under a name, whoever has the name by then. Pure.

A PUT that was given up is on the line, or in the server, and ends when it ends. Its file may be gone by
that time: removed and made again (the journal of SQLite, 20 times a second), or replaced by a temporary
file. The file that has the name now did not send that body; without a note of it, by name, what lands is
taken for somebody else's work. Measured: 5 conflicts with ourselves in 1,000 faults on Apache, all of this.

In memory: after a crash the unsent file itself knows what it sent (`Life.unknown`, `Unanswered`).
"""

from __future__ import annotations

from typing import Final

from davfs.dav.resource import DavPath
from davfs.fs.lifecycle import Unanswered

LATE_S: Final = 600.0  # how long a PUT that was given up may still land
STRAYS_MAX: Final = 10_000  # names; the oldest go first


class Strays:
    def __init__(self) -> None:
        self._bodies: dict[DavPath, tuple[Unanswered, float]] = {}  # and when the last was given up

    def note(self, path: DavPath, size_bytes: int, digest: bytes, now_s: float) -> None:
        """A body that went out to `path`, as a whole, was given up."""
        bodies, _ = self.at(path, now_s)
        self._bodies.pop(path, None)
        self._bodies[path] = bodies.with_body(size_bytes, digest), now_s
        while len(self._bodies) > STRAYS_MAX:
            del self._bodies[next(iter(self._bodies))]

    def at(self, path: DavPath, now_s: float) -> tuple[Unanswered, float]:
        """What may still land there, and when the last of it was given up."""
        bodies, given_up_s = self._bodies.get(path, (Unanswered(), 0.0))
        if now_s - given_up_s > LATE_S:
            self._bodies.pop(path, None)
            return Unanswered(), 0.0
        return bodies, given_up_s
