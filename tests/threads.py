"""A mock clock stands still while a thread works.

trio's jumps when every task waits, for a thread too: a comparison of two files took an hour of the mock
clock, or no time at all, as the machine had it. With `run_sync` in place of `trio.to_thread.run_sync` no
machine is too slow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

import trio
from trio.testing import MockClock

_run_sync = trio.to_thread.run_sync
_working: Counter[MockClock] = Counter()
_threshold_s: dict[MockClock, float] = {}


async def run_sync(*arguments: Any, **options: Any) -> Any:
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, MockClock):
        return await _run_sync(*arguments, **options)
    with _standing(clock):
        return await _run_sync(*arguments, **options)


@contextmanager
def _standing(clock: MockClock) -> Iterator[None]:
    """Until the last of the threads has ended."""
    if not _working[clock]:
        _threshold_s[clock] = clock.autojump_threshold
        clock.autojump_threshold = inf
    _working[clock] += 1
    try:
        yield
    finally:
        _working[clock] -= 1
        if not _working[clock]:
            del _working[clock]
            clock.autojump_threshold = _threshold_s.pop(clock)
