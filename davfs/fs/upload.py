"""Write-back: what is dirty gets to the server, conditionally, in parallel, and is never lost.

Owns the queue of unsent files and the tasks that send them. What to do for a file is decided by
`lifecycle.next_step`; this module performs it: look up, PUT with a precondition, compare, keep both
versions of a conflict. A file that cannot be sent stays at its path, dirty, with its error, and is tried
again when that can help. Never sends DELETE.

A file waits `write_back_s` after it was closed, so that write-temporary-and-rename-over is one PUT. Where the
server returns no ETag, one PROPFIND of the folder verifies all that was sent to it meanwhile.
"""

from __future__ import annotations

import heapq
import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import trio

from davfs.dav.hrefs import shown
from davfs.dav.resource import NAME_MAX_BYTES, Resource, Validator
from davfs.errors import (
    AlreadyExists,
    BadName,
    DavfsError,
    Forbidden,
    LinkError,
    Locked,
    NoSpace,
    NotFound,
    ParentMissing,
    PreconditionFailed,
    ServerRefused,
    StaleVersion,
    Unauthorized,
    Unreachable,
    as_davfs_error,
)
from davfs.fs.content import Content, new_digest, path_bytes, path_from_bytes
from davfs.fs.download import Downloads
from davfs.fs.handles import Handles
from davfs.fs.inodes import Node
from davfs.fs.lifecycle import Life, LookedUp, Next, Step, Unanswered, next_step
from davfs.fs.settings import Settings
from davfs.fs.tree import Tree

log = logging.getLogger("davfs.upload")

BODY_PIECE: Final = 256 * 1024
STEPS_MAX: Final = 12  # a file that needs more steps than this has a server that contradicts itself
HTTP_METHOD_NOT_ALLOWED: Final = 405
SUFFIX_MAX: Final = 32  # a longer one is no suffix
VERIFY_WAIT_S: Final = 0.5
RETRY_MIN_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
REFUSED_RETRY_S: Final = 60.0  # locked, full, unauthorised: may pass, but is not hammered


class FileBody:
    """A request body: the file as it was when the PUT began. Iterable again from the start."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        self._fd = fd
        self._size = size_bytes
        self.digest = None if size_bytes else new_digest().digest()  # known when all of it was read

    @property
    def size_bytes(self) -> int:
        return self._size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        at, summed = 0, new_digest()
        while at < self._size:
            piece = os.pread(self._fd, min(BODY_PIECE, self._size - at), at)
            if not piece:
                raise DavfsError("the cached file is shorter than it was")
            at += len(piece)
            summed.update(piece)
            if at == self._size:
                self.digest = summed.digest()
            yield piece


@dataclass(slots=True, eq=False)
class Pending:
    """One file that is not on the server yet."""

    node: Node
    content: Content
    due_s: float
    running: trio.CancelScope | None = None
    sending: bool = False
    failed: DavfsError | None = None
    attempted: trio.Event = field(default_factory=trio.Event)


@dataclass(slots=True)
class _Batch:
    """The uploads of one folder that wait for the same verifying PROPFIND."""

    names: set[str]
    done: trio.Event


class Uploads:
    def __init__(self, tree: Tree, downloads: Downloads, handles: Handles, settings: Settings) -> None:
        self._tree = tree
        self._downloads = downloads
        self._handles = handles
        self._settings = settings
        self._pending: dict[int, Pending] = {}  # by content id
        self._queue: list[tuple[float, int, int]] = []  # (due, serial, content id): a heap with lazy deletion
        self._serial = 0
        self._wake = trio.Event()
        self._slots = trio.Semaphore(settings.connections)
        self._nursery: trio.Nursery | None = None
        self._batches: dict[int, _Batch] = {}
        self.conflicts: list[str] = []
        self.sent_files = 0
        tree.store.stop_upload = self._stop

    # --- the queue

    def schedule(self, node: Node, content: Content, delay_s: float) -> Pending:
        """Send this file in `delay_s`, or earlier if that was said before."""
        due_s = trio.current_time() + delay_s
        pending = self._pending.get(content.id)
        if pending is None:
            pending = Pending(node, content, due_s)
            self._pending[content.id] = pending
            self._tree.nodes.pin(node)
            self._tree.store.acquire(content)
            self._push(pending, due_s)
        elif due_s < pending.due_s:
            self._push(pending, due_s)
        return pending

    def _push(self, pending: Pending, due_s: float) -> None:
        pending.due_s = due_s
        self._serial += 1
        heapq.heappush(self._queue, (due_s, self._serial, pending.content.id))
        self._wake.set()

    async def run(self, nursery: trio.Nursery) -> None:
        """The scheduler: one task; starts at most `connections` senders."""
        self._nursery = nursery
        while True:
            pending = await self._next_due()
            await self._slots.acquire()
            if self._pending.get(pending.content.id) is not pending or pending.running is not None:
                self._slots.release()
                continue
            pending.running = trio.CancelScope()
            nursery.start_soon(self._work, pending)

    async def _next_due(self) -> Pending:
        while True:
            self._wake = trio.Event()
            delay_s = 3600.0
            while self._queue:
                due_s, _, content_id = self._queue[0]
                pending = self._pending.get(content_id)
                if pending is None or pending.due_s != due_s or pending.running is not None:
                    heapq.heappop(self._queue)
                    continue
                delay_s = due_s - trio.current_time()
                if delay_s <= 0:
                    heapq.heappop(self._queue)
                    return pending
                break
            with trio.move_on_after(delay_s):
                await self._wake.wait()

    def _stop(self, content: Content) -> None:
        """A program writes to a large file while it is being sent: what was sent is void."""
        pending = self._pending.get(content.id)
        if pending is not None and pending.running is not None:
            pending.running.cancel()

    # --- waiting

    async def flush(self, node: Node, content: Content) -> None:
        """Until the server has all that was written so far; raises why it could not."""
        target = content.life.written
        while not content.orphan and content.dirty and (content.life.acked < target or content.life.unknown):
            pending = self.schedule(self._owner(content, node), content, 0)
            attempted = pending.attempted
            if pending.failed is not None and pending.running is None:
                self._push(pending, trio.current_time())
            await attempted.wait()
            if pending.failed is not None and (content.life.acked < target or content.life.unknown):
                raise pending.failed

    def _owner(self, content: Content, node: Node) -> Node:
        pending = self._pending.get(content.id)
        return pending.node if pending is not None else node

    async def settle_running(self, content: Content, limit_s: float) -> None:
        """Until no PUT of this file runs; after `limit_s` the running one is cancelled (outcome unknown)."""
        pending = self._pending.get(content.id)
        if pending is None or pending.running is None:
            return
        with trio.move_on_after(limit_s):
            await pending.attempted.wait()
        await self._cancel(pending)

    async def abandon(self, content: Content) -> None:
        """The file was removed: stop sending it and forget it."""
        pending = self._pending.get(content.id)
        if pending is not None:
            await self._cancel(pending)
            self._finish(pending)

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
            for pending in list(self._pending.values()):
                if pending.running is None:
                    pending.failed = None
                    self._push(pending, trio.current_time())
            for pending in list(self._pending.values()):
                while self._pending.get(pending.content.id) is pending:
                    if pending.failed is not None and not (patient and pending.failed.retry_helps):
                        break
                    await pending.attempted.wait()
        return len(self._pending)

    def link_is_up(self) -> None:
        """The server answers again: what failed for that is tried at once."""
        for pending in self._pending.values():
            if isinstance(pending.failed, LinkError) and pending.running is None:
                self._push(pending, trio.current_time())

    def pending(self) -> list[Pending]:
        return list(self._pending.values())

    def below(self, folder: Node) -> list[Pending]:
        return [pending for pending in self._pending.values() if pending.node.is_within(folder)]

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
                    await self._settle(pending)
                except Exception as failure:  # noqa: BLE001 - one file's trouble must not take the mount down
                    error = as_davfs_error(failure)
                cancelled = False
        finally:
            self._free_slot(pending)
            pending.running = None
            pending.failed = error
            pending.attempted.set()
            pending.attempted = trio.Event()
            content.progress.unpark_all()
        if self._pending.get(content.id) is not pending:
            return
        if error is not None:
            self._failed(pending, error)
        elif content.dirty and pending.node.content is content:
            self._push(pending, trio.current_time() + self._settings.write_back_s * (10 if cancelled else 1))
        else:
            self._finish(pending)

    def _free_slot(self, pending: Pending) -> None:
        if pending.sending:
            pending.sending = False
            self._slots.release()

    def _finish(self, pending: Pending) -> None:
        if self._pending.pop(pending.content.id, None) is not None:
            self._tree.let_go(pending.node, pending.content)
            self._tree.nodes.unpin(pending.node)

    def _failed(self, pending: Pending, error: DavfsError) -> None:
        content = pending.content
        content.attempts += 1
        content.error = str(error)
        content.save()
        if error.retry_helps:
            delay_s = min(RETRY_MAX_S, RETRY_MIN_S * 2 ** min(content.attempts - 1, 10))
        elif isinstance(error, Locked | NoSpace | Unauthorized):
            delay_s = REFUSED_RETRY_S
        else:
            delay_s = 3600.0
        if isinstance(error, ServerRefused) and error.retry_after_s is not None:
            delay_s = max(delay_s, error.retry_after_s)
        level = error.log_level if content.attempts == 1 else min(error.log_level, logging.INFO)
        log.log(level, "not sent: %s: %s; next try in %.0f s", _shown(content), error, delay_s)
        self._push(pending, trio.current_time() + delay_s)

    async def _settle(self, pending: Pending) -> None:
        """Step by step until the server has the file. Raises what stands in the way."""
        content = pending.content
        found: LookedUp | None = None
        trust_tags = True
        for _ in range(STEPS_MAX):
            if content.orphan or pending.node.content is not content:
                return
            todo = next_step(
                content.life, content.base, found, our_sizes={content.size_bytes, *content.unanswered.sizes}
            )
            match todo.step:
                case Step.NOTHING:
                    return
                case Step.LOOK_UP:
                    found = await self._look_up(pending.node)
                case Step.PUT_NEW | Step.PUT_OVER:
                    found, refused = await self._try_put(pending, todo if trust_tags else Next(todo.step))
                    # lighttpd says 412 to the right tag of an aged file (servers.md, table 5): after one
                    # refusal it is the look-up right before the PUT that protects.
                    trust_tags = trust_tags and not refused
                    if found is None and not content.life.unknown and not refused:
                        return
                case Step.COMPARE if await self._compared(pending, found):
                    found = None
                case Step.COMPARE | Step.CONFLICT:
                    await self._keep_both(pending)
                    return
        raise ServerRefused(f"{_shown(content)}: the server's answers contradict each other")

    async def _try_put(self, pending: Pending, todo: Next) -> tuple[LookedUp | None, bool]:
        """One PUT: (what the server holds, as far as it was asked; whether a precondition was refused)."""
        try:
            return await self._put(pending, todo), False
        except (PreconditionFailed, StaleVersion):
            return await self._look_up(pending.node), True
        except (ParentMissing, NotFound):
            await self._make_parents(pending.node)
            return await self._look_up(pending.node), False
        except Forbidden as error:
            found = await self._look_up(pending.node)
            if error.status == HTTP_METHOD_NOT_ALLOWED and found.resource is not None:
                return found, True  # a folder has the name (lighttpd, WsgiDAV)
            raise

    async def _compared(self, pending: Pending, found: LookedUp | None) -> bool:
        resource = found.resource if found is not None else None
        return resource is not None and await self.is_ours(pending.node, pending.content, resource)

    async def _look_up(self, node: Node) -> LookedUp:
        try:
            return LookedUp(await self._tree.client.stat(node.path))
        except NotFound:
            return LookedUp(None)

    async def _put(self, pending: Pending, todo: Next) -> LookedUp | None:
        """One PUT. Returns what verification found when that is not what we sent."""
        node, content = pending.node, pending.content
        await self._downloads.ensure_whole(content, lambda: node.path)
        content.life = content.life.put_begins()
        content.save()
        size, mtime_ns = content.size_bytes, content.mtime_ns
        with content.steady() as fd:
            body = FileBody(fd, size)
            try:
                result = await self._tree.client.put(
                    node.path,
                    body,
                    if_match=todo.if_match,
                    if_none_match=todo.step is Step.PUT_NEW,
                    mtime_s=mtime_ns // 1_000_000_000,
                )
            except BaseException as error:
                self._unanswered(content, body, error)
                raise
        if result.etag is not None:
            self._acknowledge(pending, Validator(result.etag, None, size))
            return None
        self._free_slot(pending)
        return await self._verify(pending, size)

    def _unanswered(self, content: Content, body: FileBody, error: BaseException) -> None:
        """Note what is known of a PUT that did not succeed; a 500 does not say that nothing happened."""
        refused = isinstance(error, ServerRefused) and (error.status < 500 or error.status in {501, 503, 507})
        if refused or isinstance(error, Unreachable):  # nothing was sent
            content.life = content.life.put_refused()
        elif body.digest is not None:
            content.unanswered = content.unanswered.with_body(body.size_bytes, body.digest)
        content.save()

    def _acknowledge(self, pending: Pending, version: Validator) -> None:
        content = pending.content
        content.life = content.life.put_succeeded()
        content.base = version
        content.base_size = version.size_bytes or 0
        content.attempts, content.error = 0, None
        content.unanswered = Unanswered()
        content.save()
        self.sent_files += 1
        self._tree.uploaded(pending.node, content, version.etag, version.mtime_s)

    async def _verify(self, pending: Pending, size: int) -> LookedUp | None:
        """No ETag came back: ask what the server holds, one question for a whole folder."""
        resource = await self._verified_resource(pending, trio.current_time())
        if resource is not None and not resource.is_collection and resource.size_bytes == size:
            self._acknowledge(pending, resource.validator)
            return None
        return LookedUp(resource)

    async def _verified_resource(self, pending: Pending, since_s: float) -> Resource | None:
        node = pending.node
        parent = node.parent
        if parent is None:
            return None
        if not self._tree.may_be_hidden(node.name):
            await self._verify_folder(parent, node.name)
            entry = self._tree.meta.stale_entry(parent.ino, node.name)
            if entry is not None and not entry.ours and entry.learned_s >= since_s:
                return entry.resource
        return (await self._look_up(node)).resource

    async def _verify_folder(self, parent: Node, name: str) -> None:
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
            siblings = [p for p in self._pending.values() if p.node.parent is parent and p.failed is None]
            soon = trio.current_time() + VERIFY_WAIT_S
            waiting = [p for p in siblings if p.node.name not in batch.names and p.due_s <= soon]
            if not waiting:
                return
            with trio.move_on_after(deadline_s - trio.current_time()):
                await waiting[0].content.progress.park()

    async def _make_parents(self, node: Node) -> None:
        """Somebody removed the folder under an unsent file: an edit wins over a deletion."""
        missing: list[Node] = []
        folder = node.parent
        while folder is not None and folder.parent is not None:
            try:
                await self._tree.client.stat(folder.path)
                break
            except NotFound:
                missing.append(folder)
                folder = folder.parent
        if not missing:
            raise ParentMissing(
                f"PUT {shown(node.path)}: the server answered 404 or 409 although the folder exists"
            )
        for folder in reversed(missing):
            try:
                await self._tree.client.mkcol(folder.path)
            except AlreadyExists:
                continue

    # --- conflicts

    async def is_ours(self, node: Node, content: Content, resource: Resource) -> bool:
        """Whether the server's bytes are ours: what we hold now, or what the unanswered PUT sent.

        If so that is noted: it is the version that ours is based on.
        """
        life, version = content.life, resource.validator
        at, summed, same_as_now = 0, new_digest(), content.complete
        async with self._tree.client.get(node.path) as download:
            async for chunk in download:
                summed.update(chunk)
                same_as_now = same_as_now and await content.read(at, len(chunk)) == chunk
                at += len(chunk)
            if not version.same_version(download.validator):
                return False
        if same_as_now and at == content.size_bytes and content.life == life:
            content.life = Life(life.written, life.written, life.written)
            content.unanswered = Unanswered()
        elif content.unanswered.has(summed.digest()):
            content.life = content.life.found_unapplied()  # an older one of ours: the newest is to be sent
        else:
            return False
        content.base, content.base_size = version, at
        content.save()
        self._tree.uploaded(node, content, version.etag, version.mtime_s)
        return True

    async def _keep_both(self, pending: Pending) -> None:
        """The server's version keeps the name; ours goes beside it."""
        node, content = pending.node, pending.content
        try:
            await self._downloads.ensure_whole(content, lambda: node.path)
        except DavfsError as error:
            log.error(
                "%s: parts that were never read are lost from the conflict copy: %s", _shown(content), error
            )
            content.present.add(0, content.size_bytes)
        parent = node.parent
        if parent is None:
            return
        name = await self._free_conflict_name(parent, node.name)
        twin = self._tree.nodes.child(parent, name, is_folder=False)
        twin.mode = node.mode
        content.ino, content.path = twin.ino, path_bytes(twin.path)
        content.base, content.base_size = None, 0
        content.life = Life(content.life.written + 1)
        content.save()
        twin.content, node.content = content, None
        for file in self._handles.of(content):
            self._tree.nodes.pin(twin)
            file.node = twin
            self._tree.nodes.unpin(node)
        self._tree.nodes.pin(twin)
        pending.node = twin
        self._tree.meta.expire(parent.ino, node.name)
        self._tree.touched(parent)
        self._tree.changed(node)
        self.conflicts.append(str(twin.path))
        log.warning(
            "conflict: %s was changed by somebody else; our version is %s", shown(node.path), shown(twin.path)
        )
        self._tree.nodes.unpin(node)

    async def _free_conflict_name(self, parent: Node, name: str) -> str:
        for count in range(1, 1000):
            candidate = conflict_name(name, socket.gethostname(), time.localtime(self._tree.wall_s()), count)
            if await self._tree.find(parent, candidate) is None:
                return candidate
        raise BadName(f"no free name for a conflict copy of {name!r}")

    # --- start

    def recover(self) -> int:
        """Take up what the last run did not send: every file at its path, queued. Returns how many."""
        found = self._tree.store.unfinished()
        for content in found:
            node = self._tree.nodes.root
            path = path_from_bytes(content.path)
            for part in path.parts[:-1]:
                node = self._tree.nodes.child(node, part, is_folder=True)
            node = self._tree.nodes.child(node, path.name, is_folder=False)
            node.content = content
            kept = self._tree.store.index.locals_of(content.ino)
            node.mode = kept.mode if kept is not None else None
            content.ino = node.ino
            content.save()
            self.schedule(node, content, 0)
        return len(found)


def conflict_name(name: str, host: str, when: time.struct_time, count: int) -> str:
    """`report (conflict HOST 2026-01-31 120000).odt`, shortened to 255 bytes at its stem."""
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(os.fsencode(suffix)) > SUFFIX_MAX:
        stem, dot, suffix = name, "", ""
    mark = (
        f" (conflict {host[:64]} {time.strftime('%Y-%m-%d %H%M%S', when)}{f' {count}' if count > 1 else ''})"
    )
    room = NAME_MAX_BYTES - len(os.fsencode(mark + dot + suffix))
    while len(os.fsencode(stem)) > room:
        stem = stem[:-1]
    return f"{stem}{mark}{dot}{suffix}"


def _shown(content: Content) -> str:
    return shown(path_from_bytes(content.path))
