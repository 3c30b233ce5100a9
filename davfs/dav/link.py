"""Whether the server can be reached: a circuit breaker.

Up, until failures say otherwise: at once when no connection can be made, after `FAILURES_MAX` in a row when
connections break or nothing is answered. Then it is down, requests fail without being sent (`LinkDown`),
and one small question is asked again and again, after 1 s, 2 s, ... 30 s. Any HTTP status is an answer, a
503 with Retry-After too: the link is up, whatever the server says over it.

Sixteen transfers that one reset cuts are one piece of bad news, not sixteen: a failure counts when its
request was sent after the last one that counted, and nothing came back meanwhile, on any connection. After
the first time-out the small questions begin, so that a silent server is found out in seconds.

Pure: `now_s` is monotonic, `dice` is in [0, 1). It refuses requests only once somebody asks the small
questions (`guarded`): without a probe nothing would ever close the circuit again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from davfs.errors import LinkDown, LinkError, TimedOut, Unreachable

FAILURES_MAX: Final = 3
PROBE_FIRST_S: Final = 1.0
PROBE_LONGEST_S: Final = 30.0
ALIVE_S: Final = 1.0
DOUBT_S: Final = 0.5  # between two probes of a server that may only be slow
PATIENCE_FIRST_S: Final = 5.0  # of the first probe; a slow server gets longer with each


@dataclass(frozen=True, slots=True)
class Outage:
    """Since when, and what the first failure said."""

    since_s: float
    reason: str
    errno: int


class Link:
    def __init__(self) -> None:
        self.guarded = False
        self.outage: Outage | None = None
        self.next_probe_s: float | None = None  # None: nothing to find out
        self._unproven = False
        self._failures = 0
        self._counted_s = float("-inf")  # when a failure last counted
        self._alive_s = float("-inf")  # when anything last came back
        self._probes = 0

    @property
    def is_down(self) -> bool:
        return self.outage is not None

    def refusal(self) -> LinkDown | None:
        """What a request gets instead of being sent, if that is how it is."""
        if self.outage is None or not self.guarded:
            return None
        return LinkDown(f"the server does not answer ({self.outage.reason})", code=self.outage.errno)

    # --- what was observed

    def answered(self, now_s: float) -> bool:
        """A status came. True when this ends an outage."""
        self.progressed(now_s)
        if self.outage is None:
            self.next_probe_s = None
        elif not self._unproven:
            return self._up()
        return False

    def progressed(self, now_s: float) -> None:
        """Bytes of a transfer moved. They end no outage: they may come from what was sent before it."""
        self._alive_s = now_s
        self._failures = 0

    def is_alive(self, now_s: float) -> bool:
        """Something came a moment ago: what takes long is not the link."""
        return now_s - self._alive_s < ALIVE_S

    def failed(self, error: LinkError, now_s: float, *, asked_s: float) -> bool:
        """A request sent at `asked_s` failed. True when this begins an outage, or wants a probe."""
        if self.outage is not None or isinstance(error, LinkDown):
            return False
        if isinstance(error, Unreachable):
            return self._down(error, now_s)
        silent = self._alive_s <= asked_s or (
            isinstance(error, TimedOut) and now_s - self._alive_s >= PATIENCE_FIRST_S
        )
        if asked_s < self._counted_s or not silent:
            return False
        self._counted_s = now_s
        self._failures += 1
        if self._failures >= FAILURES_MAX:
            return self._down(error, now_s)
        return isinstance(error, TimedOut) and self.doubted(now_s)

    def doubted(self, now_s: float) -> bool:
        """Something takes long: a small question tells whether it is the link. True if it is to be asked."""
        if self.outage is not None or self.next_probe_s is not None:
            return False
        self.next_probe_s = now_s
        return True

    # --- probing

    def patience_s(self, longest_s: float) -> float:
        """How long the next probe may take. A slow server gets longer each time: it is not a dead one."""
        growth = 2.0 ** min(self._probes, 10) if self.is_down else 1.0
        return min(PATIENCE_FIRST_S * growth, longest_s)

    def probed(self, now_s: float, *, dice: float) -> None:
        """A probe has ended. As long as there is doubt, the next one is due later than the last."""
        if self.outage is None and self._alive_s > self._counted_s:
            self.next_probe_s = None
            return
        if self.outage is None:
            self.next_probe_s = now_s + DOUBT_S
            return
        wait_s = min(PROBE_FIRST_S * 2.0 ** min(self._probes, 10), PROBE_LONGEST_S)
        self._probes += 1
        self.next_probe_s = now_s + wait_s * (1.0 - dice / 4.0)

    def hurry(self, now_s: float) -> None:
        """Somebody waits: ask at once."""
        if self.next_probe_s is not None:
            self.next_probe_s = min(self.next_probe_s, now_s)

    # --- a server that was never reached

    def unproven(self, reason: str, code: int, now_s: float) -> None:
        """Down until `proven`, whatever answers: it may be a login page, or refuse our password."""
        if self.outage is None:
            self._probes = 0
            self.next_probe_s = now_s + PROBE_FIRST_S
        since_s = self.outage.since_s if self.outage is not None else now_s
        self.outage = Outage(since_s, reason, code)
        self._unproven = True

    def proven(self, now_s: float) -> bool:
        """It is a share, and we may use it. True when this ends an outage."""
        self._unproven = False
        return self.answered(now_s)

    @property
    def is_unproven(self) -> bool:
        return self._unproven

    # --- inside

    def _down(self, error: LinkError, now_s: float) -> bool:
        self.outage = Outage(now_s, str(error), error.errno)
        self._probes = 0
        self.next_probe_s = now_s + PROBE_FIRST_S
        return True

    def _up(self) -> bool:
        self.outage = None
        self.next_probe_s = None
        self._counted_s = float("-inf")
        return True
