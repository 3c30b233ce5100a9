"""The queue of unsent files: which, since when due, and what became of the last attempt.

Owns the references that keep a queued file alive (a pin on its node, a user of its content). One entry
for each content; a heap by due time, with lazy deletion. Synchronous, but for waiting until something is due.

Programs go first: what is due and may be held waits while one of them writes, `held_s` at most. Senders
take their time from the same interpreter: with them beside it, writing 500 files of 4 KiB took twice as long.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from davfs.dav.lanes import PreflightAnswer
from davfs.dav.resource import DavPath
from davfs.errors import DavfsError
from davfs.fs.content import Content
from davfs.fs.inodes import Node
from davfs.fs.tree import Tree

IDLE_S: Final = 3600.0
NOW: Final = float("-inf")  # due before all that may be held
QUIET_S: Final = 0.005  # a program that writes comes back within 1 ms, unless it waits for something
FOLDER_SAID_S: Final = 10.0  # for so long an answer stands for the question before an upload


@dataclass(slots=True, eq=False)
class FolderLook:
    """What the folder of a large file said before its upload, while the file was still being written."""

    folder: DavPath
    asked_s: float
    answer: PreflightAnswer | None = None


@dataclass(slots=True, eq=False)
class Pending:
    """One file that is not on the server yet."""

    node: Node
    content: Content
    due_s: float
    held_s: float = 0.0  # how long programs that write may go first
    running: trio.CancelScope | None = None
    sending: bool = False  # holds one of the slots for transfers
    is_out: Callable[[], bool] | None = None  # of the attempt that runs: the server may have the whole body
    staged: DavPath | None = None  # of the attempt that runs: the body is under this name of ours
    folder: FolderLook | None = None
    rest: trio.CancelScope | None = None  # what is missing of it is being fetched, while it waits
    failed: DavfsError | None = None
    refused_at: int | None = None  # the change (`Life.written`) that the server refused for good
    attempted: trio.Event = field(default_factory=trio.Event)

    def folder_said(self, folder: DavPath, now_s: float) -> PreflightAnswer | None:
        """What this folder said a moment ago."""
        look = self.folder
        if look is None or look.folder != folder or now_s - look.asked_s > FOLDER_SAID_S:
            return None
        return look.answer


class Queue:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._pending: dict[int, Pending] = {}  # by content id
        self._heap: list[tuple[float, int, int]] = []  # (due, serial, content id)
        self._serial = 0
        self._quiet_s = float("-inf")  # when programs will have stopped writing
        self._wake = trio.Event()

    def add(self, node: Node, content: Content, due_s: float, held_s: float = 0.0) -> Pending:
        """Queue this file, or make it due earlier if it is queued for later."""
        pending = self._pending.get(content.id)
        if pending is None:
            pending = Pending(node, content, due_s)
            self._pending[content.id] = pending
            self._tree.nodes.pin(node)
            self._tree.store.acquire(content)
            self.push(pending, due_s, held_s)
        elif due_s < pending.due_s:
            self.push(pending, due_s, held_s)
        return pending

    def push(self, pending: Pending, due_s: float, held_s: float = 0.0) -> None:
        pending.due_s, pending.held_s = due_s, held_s
        self._serial += 1
        heapq.heappush(self._heap, (due_s, self._serial, pending.content.id))
        if self._heap[0][1] == self._serial:  # else the scheduler wakes in time as it is
            self._wake.set()

    def programs_write(self) -> None:
        """One has just written."""
        self._quiet_s = trio.current_time() + QUIET_S

    def remove(self, pending: Pending) -> None:
        if self._pending.pop(pending.content.id, None) is not None:
            self._tree.let_go(pending.node, pending.content)
            self._tree.nodes.unpin(pending.node)

    def of(self, content: Content) -> Pending | None:
        return self._pending.get(content.id)

    def holds(self, pending: Pending) -> bool:
        return self._pending.get(pending.content.id) is pending

    def all(self) -> list[Pending]:
        return list(self._pending.values())

    def below(self, folder: Node) -> list[Pending]:
        return [pending for pending in self._pending.values() if pending.node.is_within(folder)]

    def beside(self, folder: Node) -> list[Pending]:
        """The queued files of one folder."""
        return [pending for pending in self._pending.values() if pending.node.parent is folder]

    def __len__(self) -> int:
        return len(self._pending)

    async def next_due(self) -> Pending:
        while True:
            self._wake = trio.Event()
            delay_s = IDLE_S
            while self._heap:
                due_s, _, content_id = self._heap[0]
                pending = self._pending.get(content_id)
                if pending is None or pending.due_s != due_s or pending.running is not None:
                    heapq.heappop(self._heap)
                    continue
                begins_s = max(due_s, min(self._quiet_s, due_s + pending.held_s))
                delay_s = begins_s - trio.current_time()
                if delay_s <= 0:
                    heapq.heappop(self._heap)
                    return pending
                break
            with trio.move_on_after(delay_s):
                await self._wake.wait()
