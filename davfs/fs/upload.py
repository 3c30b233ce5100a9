"""Write-back: what is dirty gets to the server, in parallel, and is never lost.

Owns the tasks that send the queue. What it takes to send one file is in `delivery`. A file that cannot be
sent stays at its path, dirty, with its error, and is tried again when that can help.

A file waits `write_back_s` after it was closed, so that write-temporary-and-rename-over is one PUT. It need
not any longer once it was renamed over an old one, and a large new one, that goes to a temporary name first,
need not at all: a rename meanwhile changes where its MOVE goes.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import trio

from davfs.dav.hrefs import shown
from davfs.errors import (
    DavfsError,
    LinkDown,
    LinkError,
    Locked,
    NoSpace,
    PosixError,
    ServerRefused,
    Unauthorized,
    as_davfs_error,
)
from davfs.fs.chunks import Chunks
from davfs.fs.conflict import Conflicts
from davfs.fs.content import FORK_MAX, Content, path_from_bytes
from davfs.fs.delivery import Delivery
from davfs.fs.download import Downloads
from davfs.fs.guard import Guard, Known
from davfs.fs.inodes import Node
from davfs.fs.leftovers import Leftovers
from davfs.fs.queue import NOW, FolderLook, Pending, Queue
from davfs.fs.retrying import next_try_s
from davfs.fs.settings import Settings
from davfs.fs.tree import Tree
from davfs.fs.verification import Verification

log = logging.getLogger("davfs.upload")

STORED_WITHIN_S: Final = 20.0  # how long a removal waits for a body that is wholly on its way
# After an upload that needed more than one PUT: when to look whether the first one landed late, in time-outs.
LATE_LOOKS: Final = (0.25, 0.75, 3, 10)
RECENT: Final = 2  # time-outs: while an unanswered PUT is so young, fsync looks once more before it returns
LATE_ONES_MAX: Final = 3  # that one fsync puts right
HURRY_WITHIN_S: Final = 1.0  # whoever sets a longer `write_back` wants more than renames to be waited for
HELD_S: Final = 0.3  # how long programs that write go first: most bursts of small files are over by then
# From there on (sixteen connections, 0.6 ms of processor time for a small file) uploads wait for the line
# most of the time, and to begin them later would end them later.
NEAR_S: Final = 0.008
SAVED_S: Final = 0.02  # what was renamed over an old file: an editor may still set its mode or time
HURRY_FROM: Final = FORK_MAX  # a smaller one is copied for a write that comes meanwhile, and sent twice


@dataclass(frozen=True, slots=True)
class Bound:
    """A rename that is about to happen: the file will replace `over`, or take a free name."""

    over: Known | None


class Uploads:
    def __init__(
        self,
        tree: Tree,
        downloads: Downloads,
        conflicts: Conflicts,
        guard: Guard,
        leftovers: Leftovers,
        chunks: Chunks,
        settings: Settings,
    ) -> None:
        self._chunks = chunks
        self._tree = tree
        self._downloads = downloads
        self._settings = settings
        self._queue = Queue(tree)
        self._slots = trio.Semaphore(settings.connections)
        self._conflicts = conflicts
        self._paused: list[Node] = []
        self._looking: set[int] = set()  # contents of which a PUT may still land
        self._nursery: trio.Nursery | None = None
        self.delivery = Delivery(
            tree,
            downloads,
            conflicts,
            Verification(tree, self._queue),
            guard,
            leftovers,
            chunks,
            self._free_slot,
            partial_put=settings.partial_put,
        )
        self.settle_name: Callable[[Node], Awaitable[None]] = _is_settled
        self.failed: Callable[[Content, DavfsError], None] = lambda _content, _error: None
        tree.store.stop_upload = self._stop

    @property
    def conflicts(self) -> list[str]:
        """The conflict copies made since the start."""
        return list(self._conflicts.names)

    @property
    def out_bytes(self) -> int:
        """Of bodies that are on their way: what the connections have taken already."""
        return sum(one.body.sent_bytes for one in self.delivery.on_their_way())

    @property
    def is_sending(self) -> bool:
        """Bodies are on their way."""
        return bool(self.delivery.on_their_way())

    @property
    def sent_files(self) -> int:
        return self.delivery.sent_files

    # --- the queue

    def schedule(self, node: Node, content: Content, delay_s: float, held_s: float = 0.0) -> Pending:
        """Send this file in `delay_s`, or earlier if that was said before; `held_s`: see `Queue`."""
        due_s = trio.current_time() + delay_s if delay_s else NOW
        return self._queue.add(node, content, due_s, held_s)

    def programs_write(self) -> None:
        """One has just written: what may be held waits until it does not come back."""
        self._queue.programs_write()

    def closed(self, node: Node, content: Content) -> None:
        """The last writer has closed it: it is sent soon, or now.

        Now is what is worth it and loses nothing: a large new file, whose upload follows a rename, and is
        stopped by a write. Once for each file: who opens and closes again and again would have each start
        paid for. Not where the time goes with the PUT: rsync sets it when the file is closed.
        """
        is_worth_it = content.size_bytes > HURRY_FROM and self._settings.write_back_s <= HURRY_WITHIN_S
        is_first = not (content.hurried or content.on_server)
        if is_worth_it and is_first and self.delivery.may_hurry(node, content):
            content.hurried = True
            self.schedule(node, content, 0)
        else:
            is_near = self._tree.client.reach.quickest_s < NEAR_S
            held_s = HELD_S if is_near else 0.0
            self._bring_rest(self.schedule(node, content, self._settings.write_back_s, held_s))

    def _bring_rest(self, pending: Pending) -> None:
        """It goes up as a whole, so what is missing of it is fetched while it waits: 256 MiB that 4 KiB were
        appended to are there a fifth sooner. Not what may go in parts, or waits for more than a rename.
        """
        content = pending.content
        is_wanted = content.base is not None and not (content.complete or self._settings.partial_put)
        if not is_wanted or self._settings.write_back_s > HURRY_WITHIN_S:
            return
        if self._nursery is not None and pending.rest is None:
            content.held += 1
            self._tree.store.acquire(content)
            pending.rest = trio.CancelScope()
            self._nursery.start_soon(self._fetch_rest, pending, pending.rest)

    async def _fetch_rest(self, pending: Pending, scope: trio.CancelScope) -> None:
        content = pending.content
        try:
            with scope, suppress(DavfsError):  # the upload meets it too, and says so
                await self._downloads.ensure_whole(content, lambda: pending.node.server_path)
        finally:
            pending.rest = None
            content.held -= 1
            if scope.cancel_called:
                self._downloads.nobody_reads(content)
            self._tree.store.release(content)

    def needs_no_rest(self, content: Content) -> None:
        """What was missing of it is not wanted any more: it was cut off, or the file is gone."""
        pending = self._queue.of(content)
        if pending is not None and pending.rest is not None:
            pending.rest.cancel()

    def renamed(self, node: Node, content: Content, *, over: bool) -> None:
        """An unsent, closed file has another name. Over an old one: it waited for just that."""
        wait_s = self._settings.write_back_s
        if over and wait_s <= HURRY_WITHIN_S:
            self.schedule(node, content, min(wait_s, SAVED_S), wait_s)
        else:
            self.schedule(node, content, wait_s)

    def grew(self, node: Node, content: Content) -> None:
        """A program writes on: is there something to be asked for its upload that takes a round trip?"""
        pending = self._queue.of(content)
        if self._nursery is None or pending is None or pending.folder is not None or pending.node is not node:
            return
        if content.on_server or pending.running is not None or not self.delivery.stages_new(node, content):
            return
        if not self._tree.store.is_read(content.size_bytes):  # else it may be a copy, which has no PUT
            pending.folder = FolderLook(node.path.parent, trio.current_time())
            self._nursery.start_soon(self._ask_folder, pending.folder)

    async def _ask_folder(self, look: FolderLook) -> None:
        with suppress(DavfsError):  # then it is asked before the body, as ever
            look.answer = await self._tree.client.look_at_folder(look.folder)

    async def run(self, nursery: trio.Nursery) -> None:
        """The scheduler: one task; starts at most `connections` senders."""
        self._nursery = nursery
        while True:
            pending = await self._queue.next_due()
            await self._slots.acquire()
            if not self._queue.holds(pending) or pending.running is not None or self._is_paused(pending):
                self._slots.release()
                continue
            pending.running = trio.CancelScope()
            nursery.start_soon(self._work, pending)

    @contextmanager
    def paused(self, *nodes: Node | None) -> Iterator[None]:
        """While a name changes on the server, nothing of what it names begins to be sent."""
        held = [node for node in nodes if node is not None]
        self._paused += held
        for node in held:
            if node.content is not None:
                node.content.progress.unpark_all()  # whoever waits for it to be sent need not
        try:
            yield
        finally:
            for node in held:
                self._paused.remove(node)
                for pending in self._queue.below(node):
                    if pending.running is None:  # it may have come up, and been passed over
                        self._queue.push(pending, pending.due_s, pending.held_s)

    def _is_paused(self, pending: Pending) -> bool:
        return any(pending.node.is_within(node) for node in self._paused)

    def retry(self, pending: Pending) -> None:
        """Try this one now, whatever became of it before."""
        if pending.running is None:
            self._queue.push(pending, NOW)

    def link_is_up(self) -> None:
        """The server answers again: what failed for want of it is tried now."""
        for pending in self._queue.all():
            if isinstance(pending.failed, LinkError):
                self.retry(pending)

    def _stop(self, content: Content) -> None:
        """A program writes to a large file while it is being sent: what was sent is void."""
        pending = self._queue.of(content)
        if pending is not None and pending.running is not None:
            pending.running.cancel()

    # --- waiting

    async def flush(self, node: Node, content: Content) -> None:
        """Until the server has all that was written so far; raises why it could not.

        While an older PUT of it went unanswered a moment ago, that includes one look at what is there.
        """
        for _ in range(LATE_ONES_MAX):
            await self._flushed(node, content)
            if not await self._came_late(node, content):
                return

    async def _came_late(self, node: Node, content: Content) -> bool:
        limit_s = content.unanswered_s + RECENT * self._settings.timeout_s
        if not content.unanswered.bodies or trio.current_time() > limit_s or content.dirty:
            return False
        if node.unlinked or content.orphan or node.content is not content:
            return False
        with suppress(DavfsError):  # the looks that come later ask again
            return await self.delivery.check_late(node, content)
        return False

    async def _flushed(self, node: Node, content: Content) -> None:
        target = content.life.written
        while not content.orphan and content.dirty and (content.life.acked < target or content.life.unknown):
            pending = self.schedule(self._owner(content, node), content, 0)
            attempted = pending.attempted
            if pending.failed is not None:
                if pending.refused_at == content.life.written and pending.due_s > trio.current_time():
                    raise pending.failed  # the same bytes would get the same answer
                self.retry(pending)
            await attempted.wait()
            if pending.failed is not None and (content.life.acked < target or content.life.unknown):
                raise pending.failed

    def _owner(self, content: Content, node: Node) -> Node:
        pending = self._queue.of(content)
        return pending.node if pending is not None else node

    async def settle_running(self, content: Content, limit_s: float, bound: Bound | None = None) -> None:
        """Until no PUT of this file runs; after `limit_s` the running one is cancelled (outcome unknown).

        One that can be `bound` for another name goes on: no checkpoint after that before it is renamed.
        """
        pending = self._queue.of(content)
        if pending is None:
            return
        with trio.move_on_after(limit_s):
            while pending.running is not None and not self._can_be(bound, pending):
                await content.progress.park()
        if not self._can_be(bound, pending):
            await self._cancel(pending)

    def _can_be(self, bound: Bound | None, pending: Pending) -> bool:
        """Nothing of it is at its name, and nothing will be before its MOVE, which looks where to."""
        if bound is None or pending.running is None or pending.staged is None:
            return False
        return not pending.content.on_server and self.delivery.fits_over(pending, bound.over)

    async def settle_staged(self, limit_s: float, *folders: Node | None) -> None:
        """Until no body of a file that was renamed away is under a temporary name in one of these folders."""
        for folder in folders:
            for pending in self._queue.all():
                staged = pending.staged
                if folder is not None and staged is not None and staged.is_within(folder.path):
                    await self.settle_running(pending.content, limit_s)

    async def abandon(self, content: Content) -> bool:
        """The file was removed: stop sending it and forget it.

        A body that is wholly on its way is waited for: it would be stored after the DELETE that comes next.
        False: by then it turned out that somebody else changed the file. Ours stands beside it, to be sent.
        """
        pending = self._queue.of(content)
        if pending is None:
            return True
        node = pending.node
        self.needs_no_rest(content)
        with trio.move_on_after(STORED_WITHIN_S):
            while _is_out(pending) and pending.node is node:
                await pending.attempted.wait()
        if pending.node is node:
            await self._cancel(pending)
        if pending.node is not node:
            return False
        self._queue.remove(pending)
        return True

    async def _cancel(self, pending: Pending) -> None:
        while pending.running is not None:
            attempted = pending.attempted
            pending.running.cancel()
            await attempted.wait()

    def resume(self, node: Node) -> None:
        """What was to replace or remove this file failed: if it is unsent, it is to be sent after all."""
        content = node.content
        if content is not None and content.dirty:
            self.schedule(node, content, self._settings.write_back_s)

    async def drain(self, timeout_s: float | None = None, *, patient: bool = True) -> int:
        """Send everything now. Returns how many files are left, because they failed or time ran out.

        Patient: as long as there is time, waits for what may pass (a server that is away).
        """
        with trio.move_on_after(timeout_s if timeout_s is not None else float("inf")):
            begun_before = {id(pending) for pending in self._queue.all() if pending.running is not None}
            for pending in self._queue.all():
                pending.failed = None  # of the attempt before, also where the next one runs already
                self.retry(pending)
            for pending in self._queue.all():
                while self._queue.holds(pending):
                    if pending.failed is not None and id(pending) in begun_before:
                        begun_before.discard(id(pending))  # it began before this was asked: once more
                        pending.failed = None
                        self.retry(pending)
                    elif pending.failed is not None and not (patient and pending.failed.retry_helps):
                        break
                    await pending.attempted.wait()
        return len(self._queue)

    def pending(self) -> list[Pending]:
        return self._queue.all()

    def below(self, folder: Node) -> list[Pending]:
        return self._queue.below(folder)

    # --- one file

    async def _work(self, pending: Pending) -> None:
        assert pending.running is not None
        content = pending.content
        pending.sending = True
        error: DavfsError | None = None
        cancelled = True
        try:
            with pending.running:
                try:
                    await self.settle_name(pending.node)
                    await self.delivery.settle(pending)
                except Exception as failure:  # noqa: BLE001 - one file's trouble must not take the mount down
                    error = as_davfs_error(failure)
                cancelled = False
        finally:
            self._free_slot(pending)
            pending.running = pending.is_out = pending.staged = None
            pending.failed = error
            pending.attempted.set()
            pending.attempted = trio.Event()
            content.progress.unpark_all()
        if not self._queue.holds(pending):
            return
        if error is not None:
            self._failed(pending, error)
        elif content.dirty and pending.node.content is content:
            self._queue.push(
                pending, trio.current_time() + self._settings.write_back_s * (10 if cancelled else 1)
            )
        else:
            if content.unanswered.bodies and not content.orphan:
                self._look_for_late_ones(pending.node, content)
            self._queue.remove(pending)

    def _look_for_late_ones(self, node: Node, content: Content) -> None:
        """The server has it, but an older PUT of ours that nobody answered may still land over it."""
        if self._nursery is not None and content.id not in self._looking:
            self._looking.add(content.id)
            self._tree.nodes.pin(node)
            self._tree.store.acquire(content)
            self._nursery.start_soon(self._look_later, node, content)

    async def _look_later(self, node: Node, content: Content) -> None:
        try:
            for patience in LATE_LOOKS:
                await trio.sleep(patience * self._settings.timeout_s)
                if node.unlinked or content.orphan or node.content is not content:
                    return
                with suppress(DavfsError):
                    if await self.delivery.check_late(node, content):
                        self.schedule(node, content, 0)
                        return
        finally:
            self._looking.discard(content.id)
            self._tree.let_go(node, content)
            self._tree.nodes.unpin(node)

    def _free_slot(self, pending: Pending) -> None:
        if pending.sending:
            pending.sending = False
            self._slots.release()

    def _failed(self, pending: Pending, error: DavfsError) -> None:
        content = pending.content
        content.attempts += 1
        content.error = str(error)
        with suppress(PosixError):  # a full disk: told as the error of whoever writes next
            content.save()
        with suppress(PosixError):  # what is not noted is forgotten by a restart only
            self.failed(content, error)
        pending.refused_at = content.life.written if _is_final(error) else None
        dice = random.random()  # noqa: S311 - it spreads retries, it hides nothing
        delay_s = next_try_s(error, content.attempts, dice=dice)
        told = isinstance(error, LinkDown)  # once, when the outage began
        level = logging.WARNING if content.attempts == 1 and not told else logging.INFO
        log.log(
            level,
            "not sent: %s: %s; next try in %.0f s",
            shown(path_from_bytes(content.path)),
            error,
            delay_s,
        )
        self._queue.push(pending, trio.current_time() + delay_s)

    # --- start

    def recover(self) -> int:
        """Take up what the last run did not send: every file at its path, queued. Returns how many."""
        found = self._tree.store.unfinished()
        newest = {content.path: content for content in found}
        self._chunks.recover({content.id for content in found})
        # The deepest first: no file takes the place of a folder that holds others (a salvaged journal).
        for content in sorted(found, key=lambda one: -one.path.count(b"\0")):
            node = self._tree.nodes.root
            path = path_from_bytes(content.path)
            for part in path.parts[:-1]:
                node = self._tree.nodes.child(node, part, is_folder=True)
            there = node.children.get(path.name)
            if there is None or not there.is_folder:
                there = self._tree.nodes.child(node, path.name, is_folder=False)
            is_first = newest[content.path] is content and not there.is_folder
            node = there if is_first else self._conflicts.set_beside(there, content)
            node.content = content
            kept = self._tree.store.index.locals_of(content.ino)
            node.mode = kept.mode if kept is not None else None
            content.ino = node.ino
            content.save()
            self.schedule(node, content, 0)
        return len(found)


def _is_out(pending: Pending) -> bool:
    return pending.running is not None and pending.is_out is not None and pending.is_out()


async def _is_settled(_node: Node) -> None:
    """No rename of the last run concerns it."""


def _is_final(error: DavfsError) -> bool:
    """Whether the server said no to this file, or when to come back: not asked again before it is due."""
    if not isinstance(error, ServerRefused):
        return False
    if error.retry_after_s is not None:
        return True
    return not (error.retry_helps or isinstance(error, Locked | NoSpace | Unauthorized))
