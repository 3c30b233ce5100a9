"""Questions asked ahead, by nobody: who comes meanwhile shares the answer, and never the failure."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from davfs.errors import TimedOut
from davfs.fs.questions import Questions

KEY = (1, None)


class Server:
    def __init__(self) -> None:
        self.asked = 0

    async def answers(self) -> None:
        self.asked += 1
        await trio.sleep(1)

    async def fails(self) -> None:
        self.asked += 1
        await trio.sleep(1)
        raise TimedOut("no")


async def test_who_comes_meanwhile_waits_for_that_answer(autojump_clock: MockClock) -> None:
    """One request; patient and impatient ones are served by it."""
    questions, server = Questions(), Server()
    async with trio.open_nursery() as nursery:
        questions.start(nursery)
        nursery.start_soon(questions.ask_ahead, KEY, server.answers)
        await trio.testing.wait_all_tasks_blocked()
        assert await questions.answered(KEY, server.answers) is False
        assert server.asked == 1


async def test_its_failure_is_told_to_nobody_else(autojump_clock: MockClock) -> None:
    """Who waits for it asks anew; only then a failure is a failure."""
    for patient in (True, False):
        questions, server = Questions(), Server()
        async with trio.open_nursery() as nursery:
            questions.start(nursery)

            async def ahead(questions: Questions = questions, server: Server = server) -> None:
                with pytest.raises(TimedOut, match="no"):
                    await questions.ask_ahead(KEY, server.fails)

            nursery.start_soon(ahead)
            await trio.testing.wait_all_tasks_blocked()
            if patient:
                assert await questions.answered(KEY, server.answers) is True
            else:
                assert await questions.answered_within(5, KEY, server.answers) is True
            assert server.asked == 2
            nursery.cancel_scope.cancel()


async def test_what_is_out_already_is_not_asked_ahead(autojump_clock: MockClock) -> None:
    """A program was first."""
    questions, server = Questions(), Server()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(questions.answered, KEY, server.answers)
        await trio.testing.wait_all_tasks_blocked()
        await questions.ask_ahead(KEY, server.answers)
    assert server.asked == 1
