"""Bodies of ours that may still land under a name, whoever has the name by then. Pure.

A PUT that was given up is on the line, or in the server, and ends when it ends. Its file may be gone by
that time: removed and made again (the journal of SQLite, 20 times a second), or replaced by a temporary
file. The file that has the name now did not send that body; without a note of it, by name, what lands is
taken for somebody else's work. Measured: 5 conflicts with ourselves in 1,000 faults on Apache, all of this.

A server that writes in place may also have stored a part of it: small bodies are kept whole, to know
their beginnings by (WsgiDAV, 1,000 faults: some 25 conflicts with ourselves, most of them with such a part).

In memory: after a crash the unsent file itself knows what it sent (`Life.unknown`, `Unanswered`).
"""

from __future__ import annotations

from typing import Final

from davfs.dav.resource import DavPath
from davfs.fs.lifecycle import Unanswered

LATE_S: Final = 600.0  # how long a PUT that was given up may still land
STRAYS_MAX: Final = 10_000  # names; the oldest go first
WHOLE_MAX: Final = 256  # bodies kept whole, of at most 64 KiB each


class Strays:
    def __init__(self) -> None:
        self._bodies: dict[DavPath, tuple[Unanswered, float]] = {}  # and when the last was given up
        self._whole: list[tuple[DavPath, bytes, float]] = []

    def note(self, path: DavPath, size_bytes: int, digest: bytes, now_s: float) -> None:
        """A body that went out to `path`, as a whole, was given up."""
        bodies, _ = self.at(path, now_s)
        self._bodies.pop(path, None)
        self._bodies[path] = bodies.with_body(size_bytes, digest), now_s
        while len(self._bodies) > STRAYS_MAX:
            del self._bodies[next(iter(self._bodies))]

    def keep(self, path: DavPath, body: bytes, now_s: float) -> None:
        """It may be stored in part, at its name."""
        self._whole = [*self._whole, (path, body, now_s)][-WHOLE_MAX:]

    def longest_part(self, path: DavPath, now_s: float) -> int:
        """How long a part of ours may be that stands there; -1: none can."""
        return max((len(body) - 1 for body in self._kept(path, now_s)), default=-1)

    def has_part(self, path: DavPath, part: bytes, now_s: float) -> bool:
        """Whether a body that we sent there begins like this."""
        return any(body.startswith(part) for body in self._kept(path, now_s))

    def _kept(self, path: DavPath, now_s: float) -> list[bytes]:
        return [body for where, body, since_s in self._whole if where == path and now_s - since_s <= LATE_S]

    def moved(self, source: DavPath, destination: DavPath) -> None:
        """What landed before the MOVE went along; what did not may still land at the old name."""
        for path in [one for one in self._bodies if one.is_within(source)]:
            bodies, given_up_s = self._bodies[path]
            there = DavPath(destination.parts + path.parts[len(source.parts) :])
            already, _ = self._bodies.get(there, (Unanswered(), 0.0))
            self._bodies[there] = already.with_older(bodies), given_up_s

    def at(self, path: DavPath, now_s: float) -> tuple[Unanswered, float]:
        """What may still land there, and when the last of it was given up."""
        bodies, given_up_s = self._bodies.get(path, (Unanswered(), 0.0))
        if now_s - given_up_s > LATE_S:
            self._bodies.pop(path, None)
            return Unanswered(), 0.0
        return bodies, given_up_s
