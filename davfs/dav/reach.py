"""The link in action: what requests tell it, whom it stops, and whom it wakes.

`Client` reports every answer and every failure here. When an outage becomes known, all that only ask are
stopped at once; `news` wakes whoever follows the link (the probe). The decisions are `dav.link`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

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

    def watched(self) -> AbstractContextManager[None]:
        """Tells the link when the server was not reached, or did not answer in time."""
        return _Watched(self, self._clock())

    def failed(self, error: BaseException, asked_s: float) -> None:
        """Of a request that was sent at `asked_s`."""
        if not isinstance(error, LinkError) or isinstance(error, NoLane):
            return
        if self.link.failed(error, self._clock(), asked_s=asked_s):
            self.tell()

    def took(self, asked_s: float) -> None:
        """What was sent at `asked_s` is answered."""
        self.quickest_s = min(self.quickest_s, self._clock() - asked_s)

    def asking(self, longest_s: float, label: str) -> AbstractContextManager[None]:
        """Raises TimedOut when the block takes longer. What only asks need not wait for that once the outage
        is known."""
        return _Asking(self._asking, longest_s, label)


class _Watched:
    """No generators, these two: every request has one of them or both."""

    __slots__ = ("_asked_s", "_reach")

    def __init__(self, reach: Reach, asked_s: float) -> None:
        self._reach = reach
        self._asked_s = asked_s

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is None:
            self._reach.took(self._asked_s)
        else:
            self._reach.failed(error, self._asked_s)


class _Asking:
    __slots__ = ("_asking", "_label", "_longest_s", "_scope")

    def __init__(self, asking: set[trio.CancelScope], longest_s: float, label: str) -> None:
        self._asking = asking
        self._longest_s = longest_s
        self._label = label
        self._scope = trio.CancelScope(deadline=trio.current_time() + longest_s)

    def __enter__(self) -> None:
        self._scope.__enter__()
        self._asking.add(self._scope)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        is_stopped = self._scope not in self._asking
        self._asking.discard(self._scope)
        is_caught = self._scope.__exit__(kind, error, trace)
        if self._scope.cancelled_caught:
            # Not LinkDown: what was sent may have been done, and a server that only restarts is tried
            # again for a moment, as by who found it away.
            if is_stopped:
                raise TimedOut("the server does not answer") from None
            raise TimedOut(f"{self._label}: no answer within {self._longest_s:.0f} s") from None
        return is_caught
