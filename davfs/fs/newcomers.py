"""Versions of the server without a row in the index: it comes when they are closed, many in one commit.

A version that is only read needs none while it is open: a kill loses its bytes on the cache disk, which are
fetched again. (A row at the start and another commit at the end made two for each small file that was read.)
Once a program writes to it, its row is the journal: committed at once.

Without the task (`run`) the rows of closed ones are committed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio

from davfs.fs.content import Content

TOGETHER_S: Final = 0.2
TOGETHER_MAX: Final = 64


class Newcomers:
    """`commit` makes rows for all of these."""

    def __init__(self, commit: Callable[[Sequence[Content]], None]) -> None:
        self._commit = commit
        self._newest: dict[int, Content] = {}  # by inode number
        self._closed: dict[int, Content] = {}  # by content id
        self._wake: trio.Event | None = None  # None: no task

    def came(self, content: Content) -> None:
        self._newest[content.ino] = content

    def of(self, ino: int) -> Content | None:
        """The newest version for this inode, if that has no row; it may be closed."""
        return self._newest.get(ino)

    def replaced(self, ino: int) -> None:
        """There is a newer version for this inode, with a row."""
        self._newest.pop(ino, None)

    def left(self, content: Content) -> None:
        """It has its row, or needs none any more."""
        self._closed.pop(content.id, None)
        if self._newest.get(content.ino) is content:
            del self._newest[content.ino]

    def closed(self, content: Content) -> None:
        """All that is known of it is known."""
        self._closed[content.id] = content
        if self._wake is None or len(self._closed) >= TOGETHER_MAX:
            self.settle()
        else:
            self._wake.set()

    def settle(self) -> None:
        """Before somebody asks the index."""
        if self._closed:
            waiting = list(self._closed.values())
            for content in waiting:
                self.left(content)
            self._commit(waiting)

    async def run(self) -> None:
        """For ever."""
        try:
            while True:
                self._wake = trio.Event()
                if not self._closed:
                    await self._wake.wait()
                await trio.sleep(TOGETHER_S)
                self.settle()
        finally:
            self._wake = None
