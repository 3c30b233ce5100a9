"""Records of files that were sent: taken away a moment later, many at once, in a thread.

To remove an extended attribute waits for the file system's journal while that is written: a fifth of the
loop's time with 500 small files on a busy disk. Until it is gone such a record has a lower revision than its
row, so it says nothing, unless the index is lost within that moment: then the file counts as unsent, and is
found on the server.

Without the task (`run`) a record goes at once. Invariant: a record that was written after `note` stays.
"""

from __future__ import annotations

import threading
from typing import Final

import trio

from davfs.fs.disk import CacheDisk

TOGETHER_S: Final = 0.2


class Outdated:
    def __init__(self, disk: CacheDisk) -> None:
        self._disk = disk
        self._waiting: dict[int, int] = {}  # generation, by content id
        self._going: dict[int, int] = {}  # the same, in the thread now
        self._one = threading.Lock()  # held while one of them is removed
        self._wake: trio.Event | None = None  # None: no task

    def note(self, content_id: int, generation: int) -> None:
        """The record of this file is not true any more."""
        if self._wake is None:
            self._disk.remove_record(content_id, generation)
            return
        self._waiting[content_id] = generation
        self._wake.set()

    def take_back(self, content_id: int) -> bool:
        """Before another record is written, or the row goes. Whether the old one may still be there."""
        waited = self._waiting.pop(content_id, None) is not None
        if content_id not in self._going:
            return waited
        with self._one:
            return self._going.pop(content_id, None) is not None or waited

    def remove_all(self) -> None:
        """At the end."""
        self._wake = None
        self._going, self._waiting = self._waiting, {}
        self._remove()

    async def run(self) -> None:
        """For ever."""
        try:
            while True:
                self._wake = trio.Event()
                if not self._waiting:
                    await self._wake.wait()
                await trio.sleep(TOGETHER_S)
                self._going, self._waiting = self._waiting, {}
                await trio.to_thread.run_sync(self._remove, abandon_on_cancel=True)
        finally:
            self._wake = None

    def _remove(self) -> None:
        """In a thread. What is taken back meanwhile is not touched."""
        while self._going:
            with self._one:
                try:
                    content_id, generation = self._going.popitem()
                except KeyError:
                    return
                self._disk.remove_record(content_id, generation)
