"""One at a time for each path: who comes second waits, and nothing is kept of a path that nobody uses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from davfs.dav.resource import DavPath


@dataclass(slots=True, eq=False)
class _Turn:
    lock: trio.Lock = field(default_factory=trio.Lock)
    waiting: int = 0


class Turns:
    def __init__(self) -> None:
        self._turns: dict[DavPath, _Turn] = {}

    @asynccontextmanager
    async def at(self, path: DavPath) -> AsyncIterator[None]:
        turn = self._turns.setdefault(path, _Turn())
        turn.waiting += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                self._turns.pop(path, None)
