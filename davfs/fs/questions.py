"""Questions to the server that are on their way: each is asked once, however many wait for its answer.

A waiter that knows something old need not wait for ever: after its patience, counted from when the question
was sent, it goes on with that, and the question goes on without it. A failure is told to all who wait: asked
one after the other, ten programs would wait ten times as long for a dead server.

A question may also be asked ahead, by nobody (see `prefetch`). Whoever comes meanwhile waits for its answer;
if it fails, that one asks again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from davfs.errors import DavfsError, LinkError, TimedOut, as_davfs_error

BACKGROUND_MAX: Final = 256

Key = tuple[int, str | None]
Ask = Callable[[], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Question:
    begun_s: float
    ahead: bool = False
    done: trio.Event = field(default_factory=trio.Event)
    error: DavfsError | None = None


class Questions:
    def __init__(self) -> None:
        self._running: dict[Key, _Question] = {}
        self._in_background = 0
        self._answered_s = float("-inf")
        self._nursery: trio.Nursery | None = None

    def start(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def is_out(self, key: Key) -> bool:
        """Whether this is on its way already."""
        return key in self._running

    async def answered(self, key: Key, ask: Ask) -> bool:
        """Until the answer is there. True if it was asked now, False if it was on its way already."""
        while (running := self._running.get(key)) is not None:
            await running.done.wait()
            if running.error is None:
                return False
            if not running.ahead:
                raise running.error
        question = self._begin(key)
        try:
            await ask()
        except DavfsError as error:
            question.error = error
            raise
        finally:
            self._end(key, question)
        return True

    async def answered_within(self, patience_s: float, key: Key, ask: Ask) -> bool | None:
        """The same, but None when it takes longer: then the question goes on by itself.

        None at once when too many others go on by themselves already: a server that slow answers no sooner.
        """
        question, asked = self._running.get(key), False
        if question is None:
            if self._nursery is None:
                return await self.answered(key, ask)
            if self._in_background >= BACKGROUND_MAX:
                return None
            question, asked = self._begin(key), True
            self._in_background += 1
            self._nursery.start_soon(self._ask_in_background, key, question, ask)
        if self._is_silent(patience_s):
            patience_s = 0.0
        with trio.move_on_at(max(question.begun_s + patience_s, trio.current_time())):
            await question.done.wait()
        if not question.done.is_set():
            return None
        if question.error is not None and question.ahead:
            return await self.answered_within(patience_s, key, ask)
        if question.error is not None:
            raise question.error
        return asked

    async def ask_ahead(self, key: Key, ask: Ask) -> None:
        """Unless it is out already. Raises what the question ends with; to nobody else."""
        if key in self._running:
            return
        question = self._begin(key, ahead=True)
        question.error = TimedOut("given up")  # what nobody hears of: it only makes the others ask again
        try:
            await ask()
            question.error = None
        finally:
            self._end(key, question)

    def begin(self, key: Key, ask: Ask) -> None:
        """Unless it is out already, or too many are. Nobody waits for it; who comes meanwhile joins it."""
        if key in self._running or self._nursery is None or self._in_background >= BACKGROUND_MAX:
            return
        self._in_background += 1
        self._nursery.start_soon(self._ask_in_background, key, self._begin(key), ask)

    def _is_silent(self, patience_s: float) -> bool:
        """Whether somebody's patience has just ended: a path of ten names costs it once, not ten times."""
        oldest = next(iter(self._running.values()))
        overdue_s = trio.current_time() - patience_s
        return oldest.begun_s <= overdue_s and self._answered_s <= overdue_s

    async def _ask_in_background(self, key: Key, question: _Question, ask: Ask) -> None:
        try:
            await ask()
        except Exception as error:  # noqa: BLE001 - the edge of a task: the failure belongs to who waits
            question.error = as_davfs_error(error)
        finally:
            self._in_background -= 1
            self._end(key, question)

    def _begin(self, key: Key, *, ahead: bool = False) -> _Question:
        question = self._running[key] = _Question(trio.current_time(), ahead)
        return question

    def _end(self, key: Key, question: _Question) -> None:
        del self._running[key]
        question.done.set()
        if not isinstance(question.error, LinkError):
            self._answered_s = trio.current_time()
