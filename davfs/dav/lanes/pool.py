"""The lanes of one server: those in use are counted by kind, those at rest are shared.

Transfers and metadata have slots of their own, so that a listing never waits for a transfer (promise 6).
What is fetched ahead has none: it takes of either kind what is free beyond one half, at once or not at
all, so that a program's own request always finds a slot that no prefetch holds.

A lane at rest is taken by either kind, the one used last first: the others age and are closed when they are
met. Nothing here runs by itself: no task, no timer.
"""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import trio

from davfs.dav.lanes.errand import Kind
from davfs.dav.lanes.lane import Lane


class Slot:
    """The right to use a lane. release() is idempotent."""

    def __init__(self, semaphore: trio.Semaphore) -> None:
        self._semaphore: trio.Semaphore | None = semaphore

    def release(self) -> None:
        if self._semaphore is not None:
            self._semaphore.release()
            self._semaphore = None


class Pool:
    def __init__(self, limits: Mapping[Kind, int]) -> None:
        self._slots = {kind: trio.Semaphore(count) for kind, count in limits.items()}
        self._spared = {kind: (count + 1) // 2 for kind, count in limits.items()}
        self._most_idle = sum(limits.values())
        self._idle: list[Lane] = []
        self._is_closed = False

    def slot_at_once(self, kind: Kind) -> Slot | None:
        """None where one has to be waited for; nobody waits ahead: then it raises httpx.PoolTimeout."""
        if kind == "ahead":
            return self._spare_slot()
        semaphore = self._slots[kind]
        if not semaphore.value:
            return None
        semaphore.acquire_nowait()
        return Slot(semaphore)

    async def slot(self, kind: Kind, timeout_s: float) -> Slot:
        """Raises httpx.PoolTimeout."""
        slot = self.slot_at_once(kind)
        if slot is not None:
            return slot
        try:
            with trio.fail_after(timeout_s):
                await self._slots[kind].acquire()
        except trio.TooSlowError:
            raise httpx.PoolTimeout(f"no free connection within {timeout_s:g} s") from None
        return Slot(self._slots[kind])

    def _spare_slot(self) -> Slot:
        for kind, semaphore in self._slots.items():
            if semaphore.value > self._spared[kind]:
                semaphore.acquire_nowait()
                return Slot(semaphore)
        raise httpx.PoolTimeout("no connection to spare")

    def take_at_once(self, *, requests: int = 1) -> Lane | None:
        """The lane used last, if it may carry `requests` more: that is nearly always the one to take."""
        if self._idle and self._idle[-1].is_ready(requests=requests):
            return self._idle.pop()
        return None

    async def take(self, *, requests: int = 1) -> Lane | None:
        """A lane at rest that may carry `requests` more, if there is one."""
        while self._idle:
            lane = self._idle.pop()
            is_usable = False
            try:
                is_usable = await lane.is_usable(requests=requests)
            finally:
                if not is_usable:
                    lane.close()
            if is_usable:
                return lane
        return None

    def give_back(self, lane: Lane) -> None:
        """The answer on `lane` was read to its end."""
        if lane.is_spoilt or self._is_closed or len(self._idle) >= self._most_idle:
            lane.close()
        else:
            lane.park()
            self._idle.append(lane)

    def close(self) -> None:
        self._is_closed = True
        for lane in self._idle:
            lane.close()
        self._idle.clear()
