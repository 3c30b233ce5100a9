"""The link in action: what requests tell it, whom it stops, and whom it wakes.

`Client` reports every answer and every failure here. When an outage becomes known, all that only ask are
stopped at once; `news` wakes whoever follows the link (the probe). The decisions are `dav.link`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from davfs.dav.link import Link
from davfs.dav.wire import NoLane
from davfs.errors import LinkError, TimedOut


class Reach:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._asking: set[trio.CancelScope] = set()
        self.link = Link()
        self.news = trio.Event()  # set, and replaced, when there is something new about the link
        self.quickest_s = float("inf")  # that anything was answered in: how far away the server is

    def tell(self) -> None:
        if self.link.refusal() is not None:
            for scope in self._asking:
                scope.cancel()
            self._asking.clear()
        self.news.set()
        self.news = trio.Event()

    def check(self) -> None:
        """Before a request is sent. Raises LinkDown."""
        refusal = self.link.refusal()
        if refusal is not None:
            raise refusal

    def answered(self) -> None:
        if self.link.answered(self._clock()):
            self.tell()

    def proven(self) -> None:
        if self.link.proven(self._clock()):
            self.tell()

    def progressed(self) -> None:
        self.link.progressed(self._clock())

    def doubt(self) -> None:
        """A question is out for long: a small one tells whether it is the link, if nothing came lately."""
        if not self.link.is_alive(self._clock()) and self.link.doubted(self._clock()):
            self.tell()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Tells the link when the server was not reached, or did not answer in time."""
        asked_s = self._clock()
        try:
            yield
        except NoLane:
            raise
        except LinkError as error:
            if self.link.failed(error, self._clock(), asked_s=asked_s):
                self.tell()
            raise
        self.quickest_s = min(self.quickest_s, self._clock() - asked_s)

    @contextmanager
    def asking(self, longest_s: float, label: str) -> Iterator[None]:
        """Raises TimedOut when the block takes longer. What only asks need not wait for that once the outage
        is known."""
        with trio.move_on_after(max(0.0, longest_s)) as scope:
            self._asking.add(scope)
            try:
                yield
            finally:
                is_stopped = scope not in self._asking
                self._asking.discard(scope)
        if scope.cancelled_caught:
            # Not LinkDown: what was sent may have been done, and a server that only restarts is tried
            # again for a moment, as by who found it away.
            if is_stopped:
                raise TimedOut("the server does not answer")
            raise TimedOut(f"{label}: no answer within {longest_s:.0f} s")
