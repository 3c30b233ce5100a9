"""The clock of the tests: it jumps when all tasks wait, and not when one waits for a thread."""

from __future__ import annotations

import threading

import trio
from trio.testing import MockClock


async def test_no_time_passes_while_a_thread_works(autojump_clock: MockClock) -> None:
    """However long it takes: a time-out beside it does not come; when it has ended the clock jumps again."""
    begun_s = trio.current_time()
    end = threading.Event()

    async def lasts_long() -> None:
        for _ in range(2):
            await trio.to_thread.run_sync(end.wait, 0.1)

    with trio.fail_after(3600) as limit:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lasts_long)
            nursery.start_soon(lasts_long)
    assert not limit.cancelled_caught
    assert trio.current_time() == begun_s
    await trio.sleep(100)
    assert trio.current_time() == begun_s + 100
