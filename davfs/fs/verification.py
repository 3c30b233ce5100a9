"""After a PUT without an ETag in its answer: what does the server hold now?

One PROPFIND of the folder answers for all that was sent to it meanwhile: who comes while it is being prepared
joins it, and files of the folder that are about to be sent are waited for, but not long. What follows from
the answers is committed in few transactions for all, not in one for each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import trio

from davfs.dav.hrefs import shown
from davfs.dav.resource import Resource
from davfs.errors import DavfsError, NotFound
from davfs.fs.inodes import Node
from davfs.fs.queue import Queue
from davfs.fs.tree import Tree

log = logging.getLogger("davfs.upload")

VERIFY_WAIT_S: Final = 0.5
TOGETHER: Final = 16  # more in one transaction would not fit the log that is kept on a small disk

# Told what the server holds under the name now. Synchronous; raises PosixError when that cannot be noted.
Learn = Callable[[Resource | None], None]


@dataclass(slots=True, eq=False)
class _Waiting:
    """One upload that waits for the answer."""

    node: Node
    learn: Learn
    since_s: float
    told: bool = False
    failure: DavfsError | None = None


@dataclass(slots=True)
class _Batch:
    """The uploads of one folder that wait for the same verifying PROPFIND."""

    waiting: list[_Waiting] = field(default_factory=list)
    done: trio.Event = field(default_factory=trio.Event)

    @property
    def names(self) -> set[str]:
        return {one.node.name for one in self.waiting}


class Verification:
    def __init__(self, tree: Tree, queue: Queue) -> None:
        self._tree = tree
        self._queue = queue
        self._batches: dict[int, _Batch] = {}

    async def ask(self, node: Node, learn: Learn) -> None:
        """Tells `learn` what the server holds under the name of `node`, asked after this call."""
        one = _Waiting(node, learn, trio.current_time())
        parent = node.parent
        if parent is not None and not self._tree.may_be_hidden(node.name):
            await self._ask_folder(parent, one)
        if one.failure is not None:
            raise one.failure
        if not one.told:
            learn(await self._ask_alone(node))

    async def _ask_alone(self, node: Node) -> Resource | None:
        if node.parent is None:
            return None
        try:
            found = await self._tree.client.stat(node.path)
        except NotFound:
            return None
        return found if found.spelled is None else None

    async def _ask_folder(self, parent: Node, one: _Waiting) -> None:
        """Join the folder's next verifying PROPFIND, or start it."""
        batch = self._batches.get(parent.ino)
        if batch is not None:
            batch.waiting.append(one)
            try:
                await batch.done.wait()
            except BaseException:
                batch.waiting.remove(one)
                raise
            return
        batch = self._batches[parent.ino] = _Batch([one])
        try:
            await self._wait_for_siblings(parent, batch)
            del self._batches[parent.ino]  # whoever comes now was not there yet when we ask
            if len(batch.names) * 100 > len(self._tree.meta.folder(parent.ino).entries):
                await self._tree.list_names(parent, now=True)
                self._tell(parent, batch)
        except DavfsError as error:
            log.info("verifying %s: %s", shown(parent.path), error)
        finally:
            if self._batches.get(parent.ino) is batch:
                del self._batches[parent.ino]
            batch.done.set()

    def _tell(self, parent: Node, batch: _Batch) -> None:
        waiting = iter(batch.waiting)
        while together := list(islice(waiting, TOGETHER)):
            try:
                with self._tree.store.atomically():
                    for one in together:
                        self._tell_one(parent, one)
            except DavfsError as error:
                for one in together:
                    one.failure = error

    def _tell_one(self, parent: Node, one: _Waiting) -> None:
        if one.node.parent is not parent:
            return
        entry = self._tree.meta.stale_entry(parent.ino, one.node.name)
        if entry is None or entry.ours or entry.learned_s < one.since_s:
            return
        one.told = True
        try:
            one.learn(entry.resource)
        except DavfsError as error:
            one.failure = error

    async def _wait_for_siblings(self, parent: Node, batch: _Batch) -> None:
        """While other files of this folder are about to be sent, wait for them, but not long."""
        deadline_s = trio.current_time() + VERIFY_WAIT_S
        while trio.current_time() < deadline_s:
            soon, names = trio.current_time() + VERIFY_WAIT_S, batch.names
            siblings = self._queue.beside(parent)
            coming = (
                p for p in siblings if p.failed is None and p.due_s <= soon and p.node.name not in names
            )
            coming = (p for p in coming if not p.node.busy)  # its rename may wait for this very answer
            sibling = next(coming, None)
            if sibling is None:
                return
            with trio.move_on_at(deadline_s):
                await sibling.content.progress.park()
