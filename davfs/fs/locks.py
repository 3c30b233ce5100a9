"""Locks held on the server: when one is taken, who refreshes it, and when it is given back.

Owns the one task that refreshes them, which waits for no transfer; how one is taken and given back is in
`grants`. The policy is the option `lock`: `auto` locks what stays open for writing for some seconds
and is on the server, so that others see it; `always` locks at open, for a new name too, and the open fails
with EBUSY while somebody else holds it; `never` sends no LOCK at all. A lock is kept until the file is closed
and sent.

A lock is never what keeps other people's work safe, conditions are (servers lose locks, drop them under MOVE
and COPY, and let go of them early): so a lock that cannot be had or is lost is noted, and the work goes on.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from math import ceil
from typing import Final, Literal

import trio

from davfs.dav.client import Client
from davfs.dav.hrefs import shown
from davfs.dav.locks import NEVER_S, LockToken
from davfs.dav.resource import DavPath, Validator
from davfs.errors import Busy, DavfsError, LinkError, Locked
from davfs.fs.grants import LOCK_TIMEOUT_S, OWNER_MARK, RETRY_S, UNKNOWN_HOLDER, Grants, Held
from davfs.fs.handles import Handles
from davfs.fs.index import Index
from davfs.fs.inodes import Node

log = logging.getLogger("davfs.locks")

Policy = Literal["auto", "always", "never"]

LOCK_AFTER_S: Final = 5.0  # auto: open for writing for so long
TOGETHER_S: Final = 0.25
LEAVE_S: Final = 5.0  # how long the end of a mount waits for its UNLOCKs
AROUND_S: Final = 10.0  # how long an upload or a rename waits for somebody else's short lock
AROUND_RETRY_S: Final = 0.1
# Doubled for ever it would ask 5 times: of 5,000 edits on two mounts of rclone one met a lock of the other
# mount each time, on a busy machine, and its rename was EBUSY.
AROUND_RETRY_MAX_S: Final = 0.4


class Locks(Grants):
    def __init__(self, client: Client, index: Index, handles: Handles, policy: Policy) -> None:
        super().__init__(client, index)
        self._handles = handles
        self._policy = policy
        self._watched: dict[Node, float] = {}  # open for writing, to be looked at then
        self._sleeps_until_s = NEVER_S

    @property
    def _usable(self) -> bool:
        return self._policy != "never" and self._client.capabilities.locks_usable

    # --- what open files ask

    async def opened_for_writing(self, node: Node | None, path: DavPath) -> Validator | None:
        """Before a file is opened for writing, or created (`node` None: see `belongs_to`).

        Returns the version of the empty file that the LOCK had to make, for what is created now to be based
        on. Raises Locked with the holder's name when the policy is `always`.
        """
        if not self._usable:
            return None
        if self._policy == "auto":
            if node is not None:
                self.belongs_to(path, node)
            return None
        try:
            return (await self._take(path, node)).made
        except Locked:
            raise
        except DavfsError as error:  # no server, no such folder, not allowed: conditions protect the upload
            log.info("%s is opened without a lock: %s", shown(path), error)
            if node is not None:
                self._watch(node, LOCK_AFTER_S)
            return None

    def belongs_to(self, path: DavPath, node: Node) -> None:
        """The node of a file that was created under a lock, or without one."""
        held = self._held.get(path)
        if held is not None:
            held.node, held.ending = node, False
        elif self._usable:
            self._watch(node, LOCK_AFTER_S)

    def _watch(self, node: Node, delay_s: float) -> None:
        """Many together, so that of 500 files made in a row not each one wakes the task twice."""
        due_s = trio.current_time() + delay_s
        self._watched[node] = due_s = ceil(due_s / TOGETHER_S) * TOGETHER_S if delay_s else due_s
        if due_s < self._sleeps_until_s:
            self._wake.set()

    async def finished(self, path: DavPath) -> None:
        """Closed, or sent: the lock goes unless the file is still open for writing or unsent."""
        held = self._held.get(path)
        if held is not None and not held.users and not self._is_needed(held.node):
            await self._release(held)

    async def abandoned(self, path: DavPath) -> None:
        """What was to be written under this lock will never be: the empty file it made goes too."""
        held = self._held.get(path)
        if held is not None:
            await self._remove_made(held)
            await self._release(held)

    async def discarded(self, path: DavPath, node: Node, *, never_sent: bool) -> bool:
        """What was unsent under this lock was given up. Whether an empty file went that the LOCK had made.

        Not the lock of whoever has opened the name anew meanwhile.
        """
        held = self._held.get(path)
        if held is None or held.node not in {None, node}:
            return False
        removed = never_sent and await self._remove_made(held)
        if held.node in {None, node} and not held.users:
            await self._release(held)
        return removed

    async def give_up(self, path: DavPath) -> None:
        """Before DELETE or MOVE of `path`: locks at and below it go.

        They never move along; rclone moves no locked file, and keeps the lock of a deleted one.
        """
        for lost in [one for one in self._unanswered if one.is_within(path)]:
            await self._look_for_unanswered(lost)
        for held in [one for one in self._held.values() if one.path.is_within(path)]:
            await self._release(held)

    def replaced(self, path: DavPath) -> None:
        """After MOVE over a locked file: on some servers its lock ended with it, and UNLOCK would be in vain.

        A file that is still open is locked again.
        """
        held = self._held.get(path)
        if held is None:
            return
        if not self._client.capabilities.move_ends_lock:
            held.moved_over = True
            return
        self._ended(held)

    def moved(self, node: Node) -> None:
        """A file has another name now: if it is open for writing it is locked there, as the policy says."""
        for one in (node, *node.below()):
            if self._usable and self._is_open(one):
                self._watch(one, LOCK_AFTER_S if self._policy == "auto" else 0)

    def _is_open(self, node: Node | None) -> bool:
        content = node.content if node is not None and not node.unlinked else None
        return content is not None and self._handles.has_writer(content)

    def _is_needed(self, node: Node | None) -> bool:
        if node is None or node.unlinked:
            return False
        return self._is_open(node) or (node.content is not None and node.content.dirty)

    # --- what requests ask

    def token_for(self, path: DavPath) -> LockToken | None:
        """What goes out with PUT, DELETE, and as the destination's with MOVE and COPY."""
        held = self._held.get(path)
        return held.token if held is not None else None

    def is_doubtful(self, path: DavPath) -> bool:
        """Whether a LOCK of ours, of which we were not told, may stand in our own way."""
        return self._doubtful.get(path, 0.0) > trio.current_time()

    @asynccontextmanager
    async def around(self, path: DavPath) -> AsyncIterator[LockToken | None]:
        """A lock for a look and the change that follows it; None where there is none to be had.

        Raises Locked when somebody else holds it, LinkError.
        """
        held = await self._taken_around(path)
        if held is None:
            yield None
            return
        held.users += 1
        try:
            yield held.token
        finally:
            held.users -= 1
            if not held.users and not self._is_needed(held.node) and self._held.get(path) is held:
                with trio.CancelScope(shield=True), trio.move_on_after(LEAVE_S):
                    await self._release(held)

    async def _taken_around(self, path: DavPath) -> Held | None:
        if not self._usable:
            return self._held.get(path)
        before = self._held.get(path)
        try:
            held = await self._take_patiently(path)
        except (Locked, Busy, LinkError):
            raise
        except DavfsError as error:
            log.info("no lock on %s: %s", shown(path), error)
            return None
        if before is None and held.made is not None:  # it is gone: what follows must see that
            await self.abandoned(path)
            return None
        return held

    async def _take_patiently(self, path: DavPath) -> Held:
        """Another davfs, or who may be one, holds a lock like this for the moment of one upload.

        Raises Locked for what is somebody's work; Busy when a short lock lasts, which passes by itself.
        """
        deadline_s, wait_s = trio.current_time() + AROUND_S, AROUND_RETRY_S
        while True:
            try:
                return await self._take(path, None)
            except Locked as error:
                holder = self._holders.get(path, "")
                if holder != UNKNOWN_HOLDER and OWNER_MARK not in holder:
                    raise
                if trio.current_time() + wait_s > deadline_s:
                    raise Busy(str(error), status=error.status) from None
            await trio.sleep(wait_s * (0.5 + random.random()))  # noqa: S311 - two that wait must not meet again
            wait_s = min(2 * wait_s, AROUND_RETRY_MAX_S)

    async def check(self, path: DavPath) -> bool:
        """After 412 or 423 under a token: whether the lock is still ours. A lost one is dropped."""
        held = self._held.get(path)
        if held is not None:
            await self._refresh(held)
        return path in self._held

    async def freed(self, path: DavPath) -> bool:
        """After 423 without a token: true when it was a lock of ours that nobody here knew, now given back:
        a LOCK that landed late, an UNLOCK of which the server got half (400)."""
        return self._usable and path not in self._held and await self._look_for_unanswered(path)

    # --- the task

    async def run(self, nursery: trio.Nursery) -> None:
        """Refreshes, looks after open files, repeats what found no server. Never ends by itself."""
        while True:
            self._wake = trio.Event()
            self._sleeps_until_s = self._next_due_s()
            with trio.move_on_at(self._sleeps_until_s):
                await self._wake.wait()
            self._start_what_is_due(nursery, trio.current_time())

    def _next_due_s(self) -> float:
        locks = (held.due_s for held in self._held.values())
        return min([*locks, *self._watched.values(), *self._unanswered.values()], default=NEVER_S)

    def _start_what_is_due(self, nursery: trio.Nursery, now_s: float) -> None:
        """Each on its own: one that waits for the server must not let the others run out."""
        for held in [one for one in self._held.values() if one.due_s <= now_s]:
            held.due_s = NEVER_S  # until it is done
            nursery.start_soon(self._attend, held)
        for node in [one for one, due_s in self._watched.items() if due_s <= now_s]:
            del self._watched[node]
            nursery.start_soon(self._lock_if_open, node)
        for path in [one for one, due_s in self._unanswered.items() if due_s <= now_s]:
            del self._unanswered[path]
            nursery.start_soon(self._look_for_unanswered, path)

    async def _attend(self, held: Held) -> None:
        if held.ending and not held.users:
            await self._release(held)
        elif self._refreshes or held.users:
            await self._refresh(held)
        else:
            self._ended(held)

    async def _refresh(self, held: Held) -> None:
        try:
            lock = await self._client.refresh_lock(held.path, held.token, LOCK_TIMEOUT_S)
        except DavfsError as error:
            if error.retry_helps:
                held.due_s = trio.current_time() + RETRY_S
                self._wake.set()
            else:
                self._unrefreshed.add(held.path)
                self._lost(held, str(error))
            return
        if self._held.get(held.path) is not held:
            return
        held.due_s = trio.current_time() + lock.timeout_s / 2  # nginx grants 60 s, always (servers.md 28)
        held.found = False
        self._wake.set()
        if lock.token == held.token:
            return
        # nginx takes the refresh of a lock that is gone for a new one, and makes the file if that is gone too
        held.token = lock.token
        self._tokens.save(held.path, lock.token, made=lock.created)
        if lock.created:
            await self._remove_new(held)

    async def _remove_new(self, held: Held) -> None:
        """A refresh made an empty file: somebody had deleted ours."""
        await self._note_made(held)
        await self._remove_made(held)
        await self._release(held)
        self._lost(held, "the file is gone")

    def _ended(self, held: Held) -> None:
        """As was to be expected; what is still open is locked again."""
        self._drop(held)
        if held.node is not None and self._is_open(held.node):
            self._watch(held.node, 0)

    def _lost(self, held: Held, why: str) -> None:
        if self._held.get(held.path) is not held:
            return
        self._drop(held)
        level = logging.INFO if held.found or held.ending else logging.WARNING
        log.log(level, "the lock on %s is lost: %s", shown(held.path), why)
        if self._is_open(held.node) and held.node is not None:
            self._watch(held.node, LOCK_AFTER_S)

    async def _lock_if_open(self, node: Node) -> None:
        """A file that is still open for writing. What the server never saw is not locked yet."""
        content = node.content
        if not self._usable or not self._is_open(node) or content is None:
            return
        path = node.path
        if content.base is None and path not in self._held:
            self._watch(node, LOCK_AFTER_S)
            return
        try:
            held = await self._take(path, node)
        except LinkError:
            self._watch(node, RETRY_S)
        except DavfsError as error:
            log.info("%s stays open without a lock: %s", shown(path), error)
        else:
            if held.made is not None:  # it was deleted meanwhile
                await self.abandoned(path)
            elif node.unlinked or node.path != path or not self._is_needed(node):
                await self.finished(path)

    # --- start and end

    def recover(self, unsent: Iterable[DavPath]) -> int:
        """Takes up the locks of the last run: those of unsent files are ours again, the others go.

        Returns how many there are; `settle` waits until the server has said what it thinks of them.
        """
        wanted = set(unsent)
        for path, token, made in self._tokens.of_the_last_run():
            if made or token is None:
                self._may_have_made(path)
            if token is None:
                self._unanswered[path] = trio.current_time()
            else:
                self._held[path] = Held(path, token, NEVER_S, ending=path not in wanted, found=True)
        return len(self._held)

    async def settle(self) -> None:
        """Adopts or gives back what `recover` found. What finds no server is tried again by `run`."""
        async with trio.open_nursery() as nursery:
            for held in [one for one in self._held.values() if one.found]:
                nursery.start_soon(self._settle, held)

    async def _settle(self, held: Held) -> None:
        if held.ending and self._tokens.was_made_and_never_written(held.path):
            token = held.token
            await self._refresh(held)  # is it ours still? Only then is the file
            if self._held.get(held.path) is held and not held.found and held.token == token:
                await self._note_made(held)
                await self._remove_made(held)
        await self._attend(held)

    async def leave(self) -> None:
        """The end of the mount: what is sent is unlocked. The locks of unsent files wait for the next run."""
        with trio.move_on_after(LEAVE_S):
            async with trio.open_nursery() as nursery:
                for held in list(self._held.values()):
                    content = held.node.content if held.node is not None else None
                    if content is None or not content.dirty:
                        nursery.start_soon(self._release, held)

    # --- what is told

    def holder(self, path: DavPath) -> str | None:
        """Who holds the lock, as far as it was noticed: ours, or the one that stood in the way."""
        return self.owner if path in self._held else self._holders.get(path)

    async def look(self, path: DavPath) -> str | None:
        """Who holds the lock now, asked of the server; what is known where it does not say."""
        if path in self._held or not self._client.capabilities.locks:
            return self.holder(path)
        try:
            locks = await self._client.active_locks(path)
        except DavfsError:
            return self.holder(path)
        if locks:
            self._holders[path] = locks[0].owner or UNKNOWN_HOLDER
        elif self._holders.get(path) != UNKNOWN_HOLDER:  # rclone shows no lock to anybody
            self._holders.pop(path, None)
        return self.holder(path)

    def status(self) -> list[dict[str, object]]:
        """The locks that are held, as JSON-able values."""
        now_s = trio.current_time()
        return [
            {"path": str(path), "refresh_s": _rounded(held.due_s - now_s)}
            for path, held in self._held.items()
        ]


def _rounded(seconds: float) -> int | None:
    return None if seconds == NEVER_S else round(seconds)
