"""Telling the server the times that programs set: in the background, when the files are there, last of all.

Owns the task that works off what is `owed`. It waits while uploads run, but not for ever, uses connections
that nobody needs (`ahead`), and is in no hurry: programs on this mount see the time anyway. What a server
cannot do is learned once for the whole mount (`Capabilities`), and then given up without a word.

A PROPPATCH may change the tag of what it is about. Where it did, that is no change of somebody else's: the
version is looked at before and after, it must be the one that the time was set on, and only what looks as it
was asked to look is taken over. In any doubt it is not ours: then the next look treats it as another's.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import Final

import trio

from davfs.dav.hrefs import shown
from davfs.dav.proppatch import PropertyChange
from davfs.dav.resource import Resource, Validator
from davfs.dav.times import NAMES, NS, Way, kept_mtime_ns, value, with_kept
from davfs.dav.wire import NoLane
from davfs.errors import (
    Busy,
    DavfsError,
    LinkError,
    Locked,
    NotFound,
    ServerRefused,
    Unauthorized,
    as_davfs_error,
)
from davfs.fs.index import LocalAttributes
from davfs.fs.inodes import Node, is_unsent
from davfs.fs.locks import Locks
from davfs.fs.metadata import Entry
from davfs.fs.owed import NEVER, Debt
from davfs.fs.tree import Tree
from davfs.fs.upload import Uploads

log = logging.getLogger("davfs.times")

BEHIND_UPLOADS_S: Final = 20.0  # how long they may keep it from going on with a few
LOOK_S: Final = 0.1
TOGETHER_S: Final = 0.3
FOLDER_AGAIN_S: Final = 2.0
YOUNG_S: Final = 2.2  # a folder's time has whole seconds: another change within this one would not show
AGAIN_S: Final = 15.0
TRIES: Final = 5
_LATER: Final = (LinkError, Busy, Locked, Unauthorized)  # LinkError: NoLane too


class Times:
    def __init__(self, tree: Tree, uploads: Uploads, locks: Locks, connections: int) -> None:
        self._tree = tree
        self._client = tree.client
        self._owed = tree.owed
        self._uploads = uploads
        self._locks = locks
        self._at_once = max(1, connections // 2)
        self._being_set: dict[int, tuple[Node, trio.Event]] = {}  # by inode number

    async def run(self) -> None:
        """Until cancelled. In rounds, so that thousands of times are not looked through for each of them."""
        while True:
            self._owed.wake = trio.Event()
            due = self._owed.due(trio.current_time())
            if not due:
                with trio.move_on_after(self._until_next_s()):
                    await self._owed.wake.wait()
            elif self._tree.refusal() is not None:
                await trio.sleep(AGAIN_S)
                continue
            else:
                await self._round(sorted(due, key=_files_first))
            await trio.sleep(TOGETHER_S)

    async def _round(self, due: list[Debt]) -> None:
        for start in range(0, len(due), self._at_once):
            await self._let_uploads_go_first()
            async with trio.open_nursery() as nursery:
                for debt in due[start : start + self._at_once]:
                    nursery.start_soon(self._settle, debt)

    def _until_next_s(self) -> float:
        soonest_s = min((debt.due_s for debt in self._owed.all()), default=NEVER)
        return soonest_s - trio.current_time()

    async def _let_uploads_go_first(self) -> None:
        with trio.move_on_after(BEHIND_UPLOADS_S):
            while self._uploads.is_sending:  # noqa: ASYNC110 - a hundred files a second come and go
                await trio.sleep(LOOK_S)

    async def drain(self, within_s: float) -> None:
        """What can be told now; at the end of a mount, when the files are there."""
        with trio.move_on_after(within_s):
            while self._has_due() and self._tree.refusal() is None:  # noqa: ASYNC110 - once for a mount
                await trio.sleep(LOOK_S)

    async def out_of_the_way(self, *names: tuple[Node, str]) -> None:
        """Until no time is being set on these: their names are about to be those of other files.

        Our own property names its version, and does no harm there.
        """
        for folder, name in names if self._being_set else ():
            about_to_change = folder.children.get(name)
            for node, was_set in list(self._being_set.values()):
                if about_to_change is not None and node.is_within(about_to_change):
                    await was_set.wait()

    def _has_due(self) -> bool:
        return any(debt.due_s < NEVER and not debt.tries for debt in self._owed.all())

    # --- one time

    async def _settle(self, debt: Debt) -> None:
        node = debt.node
        path = None if node.unlinked else node.path
        try:
            done = await self._told(debt)
        except NoLane:
            self._owed.settle_by(debt, trio.current_time() + LOOK_S)
        except _LATER as error:
            self._later(debt, error)
        except NotFound:
            if node.unlinked or node.path == path:
                self._owed.forget(node)
            else:  # renamed meanwhile
                self._owed.settle_by(debt, trio.current_time())
        except ServerRefused as error:
            log.info("the time of %s stays here: %s", node.name, error)
            self._owed.forget(node)
        except Exception as error:  # noqa: BLE001 - one file's trouble must not end the task
            self._later(debt, as_davfs_error(error))
        else:
            if done:
                self._owed.forget(node)

    def _later(self, debt: Debt, error: DavfsError) -> None:
        debt.tries += not isinstance(error, LinkError)
        if debt.tries >= TRIES:
            log.info("the time of %s stays here: %s", debt.node.name, error)
            self._owed.forget(debt.node)
        else:
            self._owed.settle_by(debt, trio.current_time() + AGAIN_S)

    async def _told(self, debt: Debt) -> bool:
        """True: it is there, or is nobody's wish any more. False: it is to be looked at again, when due."""
        node = debt.node
        if node.parent is None:
            return True
        if is_unsent(node):
            debt.due_s = NEVER  # `Owed.stored` comes back to it
            return False
        if node.is_folder and self._is_moving(node):
            self._owed.settle_by(debt, trio.current_time() + FOLDER_AGAIN_S)
            return False
        kept = self._tree.store.index.locals_of(node.ino)
        if kept is None or kept.mtime_ns != debt.mtime_ns:
            return True  # written to since, or its members came and went
        way = self._client.capabilities.next_time_way(properties=self._owed.with_properties)
        if way is None:
            return True
        if way == "property":
            return await self._set_property(debt, kept)
        return await self._set_real(debt, kept, way)

    def _is_moving(self, folder: Node) -> bool:
        """Its members are still being sent, or told of, which moves the time of the folder (Apache: .DAV)."""
        if self._uploads.below(folder):
            return True
        return any(debt.node.parent is folder and debt.due_s < NEVER for debt in self._owed.all())

    # --- a property that sets what getlastmodified says

    async def _set_real(self, debt: Debt, kept: LocalAttributes, way: Way) -> bool:
        node, wanted_s = debt.node, debt.mtime_ns // NS
        before = await self._client.stat(node.path, is_collection=node.is_folder)
        if not node.is_folder and not _is_of(kept, before):
            return True
        if before.mtime_s == wanted_s:
            return True
        was_old = self._client.age_s(before.validator) >= YOUNG_S
        self._being_set[node.ino] = (node, trio.Event())
        try:
            accepted = await self._proppatch(node, way, debt.mtime_ns, before)
        finally:
            self._being_set.pop(node.ino)[1].set()
        after = await self._client.stat(node.path, is_collection=node.is_folder)
        worked = accepted and after.mtime_s == wanted_s
        is_same = before.validator.same_version(after.validator)
        if worked or is_same or (was_old and after.mtime_s == before.mtime_s):
            self._learn(way, worked=worked)
            if after.size_bytes == before.size_bytes:
                self._retimed(node, before.validator, after)
        elif not node.is_folder:
            return True  # somebody else's: that tells nothing of this way
        if worked:
            return True
        if accepted:
            await self._take_back(node, way)
        debt.steps += 1
        self._owed.settle_by(debt, trio.current_time())  # the next way
        return debt.steps >= TRIES

    async def _take_back(self, node: Node, way: Way) -> None:
        """It was kept as a property that means nothing there: on this one file, but not for good."""
        change = PropertyChange(NAMES[way], None)
        with suppress(ServerRefused):
            await self._client.proppatch(node.path, [change], is_collection=node.is_folder, ahead=True)

    async def _proppatch(self, node: Node, way: Way, mtime_ns: int, version: Resource) -> bool:
        change = PropertyChange(NAMES[way], value(way, mtime_ns, version.validator))
        try:
            outcome = await self._client.proppatch(
                node.path,
                [change],
                is_collection=node.is_folder,
                lock_token=self._locks.token_for(node.path),
                if_tag=version.etag if way != "property" else None,
                ahead=True,
            )
            self._pushed(node)
        except (NotFound, *_LATER):
            raise
        except ServerRefused as error:
            log.info("%s: %s", shown(node.path), error)
            return False
        return 200 <= outcome[change.name] < 300

    def _learn(self, way: Way, *, worked: bool) -> None:
        self._client.capabilities = self._client.capabilities.learned_time_way(way, worked=worked)

    def _retimed(self, node: Node, before: Validator, after: Resource) -> None:
        """We set its time on the server, which may have changed its tag: that is no change of its bytes."""
        if node.parent is None:
            return
        store = self._tree.store
        content = node.content if node.content is not None else store.cached(node.ino)
        if content is not None and not content.closed and content.base is not None:
            store.acquire(content)
            try:
                if content.base.same_version(before):
                    content.base = after.validator
                    content.save()
            finally:
                store.release(content)
        kept = store.index.locals_of(node.ino)
        if kept is not None and kept.version is not None and not node.is_folder:
            kept = replace(kept, version=after.validator)
            store.index.save_locals(node.ino, node.parent.ino, kept)
        self._tree.meta.learn(node.parent.ino, node.name, Entry(after, trio.current_time(), kept, ours=True))

    def _pushed(self, node: Node) -> None:
        """Apache keeps properties in a folder `.DAV` beside the file, or in the folder: its time may move."""
        folder = node if node.is_folder else node.parent
        if folder is not None:
            self._tree.pushed(folder)

    # --- the dead property

    async def _set_property(self, debt: Debt, kept: LocalAttributes) -> bool:
        node = debt.node
        if not await self._tree.marker.begin("mtime"):
            self._learn("property", worked=False)
            return True
        if node.is_folder:
            return await self._set_property_of_folder(debt)
        resource = await self._known(node)
        if resource is None or not _is_of(kept, resource):
            return True
        if resource.mtime_s == debt.mtime_ns // NS and kept_mtime_ns(resource) is None:
            return True
        if self._is_young(debt, resource):
            return self._waits_to_age(debt)
        accepted = await self._proppatch(node, "property", debt.mtime_ns, resource)
        if (
            self._client.capabilities.time_way is None
        ):  # the first one: is it kept, and the version what it was?
            found = await self._client.stat(node.path)
            accepted = accepted and kept_mtime_ns(found) == debt.mtime_ns
            self._learn("property", worked=accepted)
        if accepted:
            self._note_property(node, debt.mtime_ns, resource)
        return True

    async def _set_property_of_folder(self, debt: Debt) -> bool:
        """Looked at before and after: Apache makes a folder for properties in it, which moves its time."""
        node = debt.node
        before = await self._client.stat(node.path, is_collection=True)
        if before.mtime_s == debt.mtime_ns // NS or kept_mtime_ns(before) == debt.mtime_ns:
            return True
        if self._client.age_s(before.validator) < YOUNG_S:
            return self._waits_to_age(debt)
        if not await self._proppatch(node, "property", debt.mtime_ns, before):
            return True
        after = await self._client.stat(node.path, is_collection=True)
        if kept_mtime_ns(after) == debt.mtime_ns:
            return True
        debt.steps += 1
        self._owed.settle_by(debt, trio.current_time() + YOUNG_S)
        return debt.steps >= TRIES

    async def _known(self, node: Node) -> Resource | None:
        """What stands there by what was last known: if that is old, the property is void, no harm done."""
        assert node.parent is not None
        entry = self._tree.meta.stale_entry(node.parent.ino, node.name)
        if entry is None or entry.resource is None:
            entry = await self._tree.refreshed(node)
        return entry.resource

    def _is_young(self, debt: Debt, resource: Resource) -> bool:
        """Whether a change within this second would keep the tag, and so the time of this version."""
        if resource.mtime_s is not None or not self._client.capabilities.coarse_tags:
            return self._client.is_young(resource.validator)
        return trio.current_time() - debt.since_s < YOUNG_S

    def _waits_to_age(self, debt: Debt) -> bool:
        """Again when its second is over. Not for ever: its date may lie ahead, by a clock or by intent."""
        self._owed.settle_by(debt, trio.current_time() + YOUNG_S * 2**debt.steps)
        debt.steps += 1
        return debt.steps >= TRIES

    def _note_property(self, node: Node, mtime_ns: int, resource: Resource) -> None:
        """What the next listing would say."""
        entry: Entry | None = None
        if node.parent is not None:
            entry = self._tree.meta.stale_entry(node.parent.ino, node.name)
        if entry is not None and entry.resource is not None:
            text = value("property", mtime_ns, resource.validator)
            entry.resource = entry.resource._replace(extras=with_kept(entry.resource, text))


def _files_first(debt: Debt) -> tuple[bool, float]:
    return debt.node.is_folder, debt.due_s


def _is_of(kept: LocalAttributes, resource: Resource) -> bool:
    """Whether the version that the time was set on is the one there."""
    return kept.version is not None and kept.version.same_version(resource.validator)
