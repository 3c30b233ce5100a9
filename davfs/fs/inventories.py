"""Two mounts that set attributes of one file at the same moment: both must show in the end.

Which attributes a file has stands in one property (`attributes.Inventory`), which each of them reads, changes
and writes: who writes last may leave out what the other has just added, though its value is there. So who
has changed it looks once more when the other must have written too, behind everything else, with one
request, or one listing for several files of a folder. What the file has is told by the values then.

Not after attributes of a file that was made here a moment ago: nobody else has seen it.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import trio

from davfs.dav.attributes import Inventory
from davfs.dav.properties import XATTRS
from davfs.dav.resource import Resource
from davfs.errors import DavfsError, as_davfs_error
from davfs.fs.inodes import Node, is_unsent
from davfs.fs.pushes import Pushes
from davfs.fs.tree import Tree

log = logging.getLogger("davfs.properties")

LOOK_AFTER_S: Final = 3.0  # a look and a PROPPATCH of the other are over by then, and half as much by chance
LOOKS_MAX: Final = 5  # at one file; each has found that it was left out again
DOUBTS_MAX: Final = 4096
LISTED_FROM: Final = 3  # files of one folder: then one listing tells of all


@dataclass(slots=True, eq=False)
class Doubt:
    """One file whose inventory we changed. `wanted`: whether this attribute is to be in it."""

    node: Node
    due_s: float
    changed_s: float
    wanted: dict[str, bool] = field(default_factory=dict)
    looks: int = 0


class Inventories:
    def __init__(self, tree: Tree, pushes: Pushes) -> None:
        self._tree = tree
        self._pushes = pushes
        self._doubts: dict[int, Doubt] = {}  # by inode number; each node is pinned
        self._wake = trio.Event()
        pushes.inventory_changed = self.changed

    def __len__(self) -> int:
        return len(self._doubts)

    def changed(self, node: Node, added: frozenset[str], removed: frozenset[str]) -> None:
        now_s, doubt = trio.current_time(), self._doubts.get(node.ino)
        if doubt is None:
            if len(self._doubts) >= DOUBTS_MAX:
                return
            doubt = self._doubts[node.ino] = Doubt(node, now_s, now_s)
            self._tree.nodes.pin(node)
        doubt.wanted.update(dict.fromkeys(added, True) | dict.fromkeys(removed, False))
        self._put_off(doubt)

    def _put_off(self, doubt: Doubt) -> None:
        doubt.changed_s = trio.current_time()
        # Two that were left out by each other must not go on in step.
        doubt.due_s = doubt.changed_s + LOOK_AFTER_S * (1 + random.random() / 2)  # noqa: S311
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake = trio.Event()
            soonest_s = min((doubt.due_s for doubt in self._doubts.values()), default=float("inf"))
            if soonest_s > trio.current_time():
                with trio.move_on_at(soonest_s):
                    await self._wake.wait()
                continue
            for doubt in [one for one in self._doubts.values() if one.due_s <= trio.current_time()]:
                await self._settle(doubt)

    async def _settle(self, doubt: Doubt) -> None:
        is_done = True
        try:
            is_done = not await self._was_left_out(doubt)
        except DavfsError as error:
            log.info("the attributes of %s are not looked at again: %s", doubt.node.name, error)
        except Exception as error:  # noqa: BLE001 - one file's trouble must not end the task
            as_davfs_error(error)
        doubt.looks += 1
        if is_done or doubt.looks >= LOOKS_MAX:
            self._forget(doubt)
        else:
            self._put_off(doubt)

    def _forget(self, doubt: Doubt) -> None:
        self._doubts.pop(doubt.node.ino, None)
        self._tree.nodes.unpin(doubt.node)

    async def _was_left_out(self, doubt: Doubt) -> bool:
        """And is put in again. What is to be sent with the file is no matter of its inventory yet."""
        node, changed_s = doubt.node, doubt.changed_s
        if node.unlinked or is_unsent(node) or self._tree.refusal() is not None:
            return False
        resource = await self._looked_at(node, changed_s)
        text = resource.extra(XATTRS) if resource is not None else None
        names = Inventory.parse(text).names
        doubtful = frozenset(name for name, wanted in doubt.wanted.items() if wanted != (name in names))
        if doubt.changed_s != changed_s:  # changed again meanwhile
            return True
        return bool(doubtful) and await self._pushes.list_again(node, doubtful)

    async def _looked_at(self, node: Node, since_s: float) -> Resource | None:
        """What the server said of it after that moment."""
        known, parent = self._tree.known_entry(node), node.parent
        if known is not None and not known.ours and known.learned_s > since_s:
            return known.resource
        if parent is None:
            return await self._tree.client.stat(node.path, is_collection=True)
        folders = Counter(doubt.node.parent for doubt in self._doubts.values())
        if folders[parent] < LISTED_FROM:
            return (await self._tree.refreshed(node)).resource
        await self._tree.list_names(parent, now=True)
        return self._tree.known_resource(node)
