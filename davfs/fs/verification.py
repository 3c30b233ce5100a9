"""After a PUT without an ETag in its answer: what does the server hold now?

One PROPFIND of the folder answers for all that was sent to it meanwhile: who comes while it is being prepared
joins it, and files of the folder that are about to be sent are waited for, but not long.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
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


@dataclass(slots=True)
class _Batch:
    """The uploads of one folder that wait for the same verifying PROPFIND."""

    names: set[str]
    done: trio.Event


class Verification:
    def __init__(self, tree: Tree, queue: Queue) -> None:
        self._tree = tree
        self._queue = queue
        self._batches: dict[int, _Batch] = {}

    async def held(self, node: Node) -> Resource | None:
        """What the server holds under the name of `node`, asked after this call; None: nothing."""
        since_s = trio.current_time()
        parent = node.parent
        if parent is None:
            return None
        if not self._tree.may_be_hidden(node.name):
            await self._ask_folder(parent, node.name)
            entry = self._tree.meta.stale_entry(parent.ino, node.name)
            if entry is not None and not entry.ours and entry.learned_s >= since_s:
                return entry.resource
        try:
            return await self._tree.client.stat(node.path)
        except NotFound:
            return None

    async def _ask_folder(self, parent: Node, name: str) -> None:
        """Join the folder's next verifying PROPFIND, or start it."""
        batch = self._batches.get(parent.ino)
        if batch is not None:
            batch.names.add(name)
            await batch.done.wait()
            return
        batch = self._batches[parent.ino] = _Batch({name}, trio.Event())
        try:
            await self._wait_for_siblings(parent, batch)
            del self._batches[parent.ino]  # whoever comes now was not there yet when we ask
            if len(batch.names) * 100 > len(self._tree.meta.folder(parent.ino).entries):
                await self._tree.list_names(parent, now=True)
        except DavfsError as error:
            log.info("verifying %s: %s", shown(parent.path), error)
        finally:
            if self._batches.get(parent.ino) is batch:
                del self._batches[parent.ino]
            batch.done.set()

    async def _wait_for_siblings(self, parent: Node, batch: _Batch) -> None:
        """While other files of this folder are about to be sent, wait for them, but not long."""
        deadline_s = trio.current_time() + VERIFY_WAIT_S
        while trio.current_time() < deadline_s:
            siblings = [p for p in self._queue.beside(parent) if p.failed is None]
            soon = trio.current_time() + VERIFY_WAIT_S
            waiting = [p for p in siblings if p.node.name not in batch.names and p.due_s <= soon]
            if not waiting:
                return
            with trio.move_on_after(deadline_s - trio.current_time()):
                await waiting[0].content.progress.park()
