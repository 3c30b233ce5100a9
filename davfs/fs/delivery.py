"""One file to the server: look up, send with a precondition, verify, compare.

What to do is decided by `lifecycle.next_step`, how an overwrite is made conditional by `guard`; this module
performs it. Raises what stands in the way; the file is then as dirty as before, and its life tells what the
server may hold. DELETE goes to our own temporary names only.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Final

import trio

from davfs.dav.chunked import ChunkedUploads
from davfs.dav.hrefs import shown
from davfs.dav.quirks import TIME_TELLS_S
from davfs.dav.request import PutResult
from davfs.dav.resource import DavPath, ETag, Resource, Validator
from davfs.errors import (
    Damaged,
    DavfsError,
    Disconnected,
    Forbidden,
    Locked,
    NotFound,
    NotItsAddress,
    ParentMissing,
    PartsLost,
    PreconditionFailed,
    ServerRefused,
    StaleVersion,
    TooLarge,
)
from davfs.fs.body import FileBody, OnItsWay
from davfs.fs.chunks import Chunks, NoChannel, checksum_of
from davfs.fs.conflict import Conflicts
from davfs.fs.content import Content
from davfs.fs.copies import Copies
from davfs.fs.download import Downloads
from davfs.fs.guard import HTTP_LOCKED, Guard, Known, Superseded, needs_staging
from davfs.fs.inodes import Node
from davfs.fs.leftovers import Leftovers
from davfs.fs.lifecycle import Life, LookedUp, Next, Step, next_step
from davfs.fs.parents import MAY_MEAN_NO_FOLDER, make_parents
from davfs.fs.partial import PartBody, Partials
from davfs.fs.queue import Pending
from davfs.fs.recognition import Recognition, forget_what_cannot_land_any_more, is_contended
from davfs.fs.spellings import is_doubtful, stored_as
from davfs.fs.tree import HIDDEN_PREFIX, Tree
from davfs.fs.verification import Verification

log = logging.getLogger("davfs.upload")

STEPS_MAX: Final = 12  # a file that needs more steps than this has a server that contradicts itself
PUTS_MAX: Final = 3  # in one attempt: whole bodies are not thrown at a server that will not have them
HTTP_METHOD_NOT_ALLOWED: Final = 405


class Delivery(Recognition):
    """`free_slot` is called when the body is sent and only the answer's meaning is left to find out."""

    def __init__(
        self,
        tree: Tree,
        downloads: Downloads,
        conflicts: Conflicts,
        verification: Verification,
        guard: Guard,
        leftovers: Leftovers,
        chunks: Chunks,
        free_slot: Callable[[Pending], None],
        *,
        partial_put: bool = False,
    ) -> None:
        partials = Partials(tree, leftovers, wanted=partial_put)
        super().__init__(tree, chunks, partials, guard.locks.strays)
        self._downloads = downloads
        self._conflicts = conflicts
        self._verification = verification
        self._guard = guard
        self._leftovers = leftovers
        self._free_slot = free_slot
        self._copies = Copies(tree, leftovers)
        self.sent_files = 0
        self.carry: Callable[[Node, DavPath], Awaitable[None]] = _nothing_to_carry
        self._on_their_way: dict[int, OnItsWay] = {}  # by content id

    def on_their_way(self) -> list[OnItsWay]:
        """At most as many as there are connections."""
        return list(self._on_their_way.values())

    async def settle(self, pending: Pending) -> None:
        """Step by step until the server has the file. Raises what stands in the way."""
        before = None if pending.node.unlinked else pending.node.path
        await self._settle(pending)
        self._chunks.forsake(pending.content.id)
        if before is None:
            return
        after = before if pending.node.unlinked else pending.node.path
        await self._guard.done(before)
        if after != before:  # renamed during its upload
            await self._guard.done(after)

    async def _settle(self, pending: Pending) -> None:
        content = pending.content
        found: LookedUp | None = None
        trust_tags, puts = True, 0
        for _ in range(STEPS_MAX):
            if content.orphan or pending.node.content is not content:
                return
            forget_what_cannot_land_any_more(content)
            self.inherit(pending.node.path, content)
            todo = next_step(
                content.life,
                content.base,
                found,
                our_sizes={content.size_bytes, *content.unanswered.sizes},
                longest_part=max(
                    self._strays.longest_part(pending.node.path, trio.current_time()),
                    self._longest_cut(content),
                ),
            )
            match todo.step:
                case Step.NOTHING:
                    return
                case Step.LOOK_UP:
                    found = await self._look_up(pending.node)
                case Step.PUT_NEW | Step.PUT_OVER if puts >= PUTS_MAX:
                    break
                case Step.PUT_NEW | Step.PUT_OVER:
                    puts += 1
                    found, refused = await self._try_put(pending, todo, trust_tags=trust_tags)
                    # lighttpd says 412 to the right tag of an aged file (servers.md, table 5): after one
                    # refusal it is the look-up right before the PUT that protects.
                    trust_tags = trust_tags and not refused
                    if found is None and not content.life.unknown and not refused:
                        return
                case Step.COMPARE if await self._compared(pending, found):
                    found = None
                case Step.COMPARE | Step.CONFLICT:
                    await self._conflicts.keep_both(pending)
                    return
        raise ServerRefused(f"{shown(pending.node.path)}: the server's answers contradict each other")

    async def _try_put(
        self, pending: Pending, todo: Next, *, trust_tags: bool
    ) -> tuple[LookedUp | None, bool]:
        """One PUT: (what the server holds, as far as it was asked; whether a precondition was refused)."""
        path = pending.node.path
        try:
            return await self._put_undamaged(pending, todo, trust_tags=trust_tags), False
        except Superseded:
            pending.node.foreign_s = trio.current_time()
            pending.content.base = None  # whatever its tag says: it is not the version ours is based on
            return await self._look_up(pending.node), True
        except (PreconditionFailed, StaleVersion):
            await self._guard.refused(pending.node.path)
            pending.node.foreign_s = trio.current_time()
            return await self._look_up(pending.node), True
        except Locked as error:
            if error.status != HTTP_LOCKED or not await self._guard.locked(pending.node.path):
                raise
            return await self._look_up(pending.node), False
        except (NoChannel, TooLarge) as error:
            if not self._chunks.has_another_way(error, pending.content.size_bytes):
                raise
            return await self._look_up(pending.node), False
        except PartsLost:
            raise
        except ServerRefused as error:
            return await self._after_refusal(pending, todo, path, error)

    async def _after_refusal(
        self, pending: Pending, todo: Next, sent_to: DavPath, error: ServerRefused
    ) -> tuple[LookedUp | None, bool]:
        """Another way, if there is one: as `_try_put`. Raises `error` if there is none."""
        node, size, is_new = pending.node, pending.content.size_bytes, todo.step is Step.PUT_NEW
        if isinstance(error, NotItsAddress) and not self._must_stage(node, size, new=is_new):
            return await self._look_up(node), False
        if error.status in MAY_MEAN_NO_FOLDER:
            await make_parents(self._tree, self._conflicts, node, sent_to, size, error)
            return await self._look_up(node), False
        found = await self._look_up(node) if isinstance(error, Forbidden) else LookedUp(None)
        blocked = found.resource is not None and found.resource.is_collection
        if error.status == HTTP_METHOD_NOT_ALLOWED and blocked:
            return found, True  # a folder has the name (lighttpd, WsgiDAV)
        raise error

    async def _compared(self, pending: Pending, found: LookedUp | None) -> bool:
        resource = found.resource if found is not None else None
        return resource is not None and await self.is_ours(pending.node, pending.content, resource)

    async def _put_undamaged(self, pending: Pending, todo: Next, *, trust_tags: bool) -> LookedUp | None:
        """What arrived with another checksum than was sent along is not stored: it is sent once more."""
        with suppress(Damaged):
            return await self._put(pending, todo, trust_tags=trust_tags)
        return await self._put(pending, todo, trust_tags=trust_tags)

    async def _put(self, pending: Pending, todo: Next, *, trust_tags: bool) -> LookedUp | None:
        """One PUT. Returns what verification found when that is not what we sent."""
        node, content = pending.node, pending.content
        await self._partials.learn(content.size_bytes, node.path.parent)
        over = self._replaced(node, content, todo)
        pieces = self._partials.pieces(content, node.name, over)
        if over is not None and pieces is not None:
            return await self._put_parts(pending, over, pieces)
        channel = await self._chunks.channel(content.size_bytes, new=over is None)
        try:
            await self._downloads.ensure_whole(content, lambda: node.path)
        except NotFound as error:
            text = f"{shown(node.path)}: the server has lost parts of it that were never read here"
            raise PartsLost(text, status=error.status) from error
        over = self._replaced(node, content, todo)
        with content.steady() as fd:
            size, life = content.size_bytes, content.life.put_begins()
            content.changes.sending()
            body = FileBody(fd, size, before=content.unanswered)
            etag: ETag | LookedUp | None = None
            stored: Resource | None = None
            with self._on_its_way(pending, body):
                if channel is not None and size:
                    etag = await self._put_chunked(pending, body, over, life, channel)
                elif self._must_stage(node, size, new=over is None):
                    async with self._guard.staging(node.path, over):
                        await self._put_staged(pending, body, over, life)
                else:
                    result = await self._put_directly(pending, body, over, life, trust_tags=trust_tags)
                    etag, stored = result.etag, result.stored
        if isinstance(etag, LookedUp):
            return etag
        if stored is not None:
            is_rewritten = stored.size_bytes != size or (etag is not None and stored.etag != etag)
            self._acknowledge(pending, stored.validator, body, is_rewritten=is_rewritten)
            return None
        if etag is not None and not is_doubtful(self._tree, node.name):
            self._acknowledge(pending, Validator(etag, None, size), body)
            return None
        self._free_slot(pending)
        return await self._verify(pending, body)

    @contextmanager
    def _on_its_way(self, pending: Pending, body: FileBody) -> Iterator[None]:
        pending.is_out = lambda: body.is_out
        self._on_their_way[pending.content.id] = OnItsWay(pending.content, body, trio.current_time())
        try:
            yield
        finally:
            del self._on_their_way[pending.content.id]

    async def _put_parts(
        self, pending: Pending, over: Known, pieces: list[tuple[int, int]]
    ) -> LookedUp | None:
        """The same with what changed only. Without a checkpoint since `pieces` were chosen.

        The rest may be nowhere but on the server: who reads of it between MOVE and acknowledgement waits.
        """
        node, content = pending.node, pending.content
        life = content.life.put_begins()
        content.changes.sending()
        try:
            with ExitStack() as reading:
                body = PartBody(content, reading.enter_context(content.steady()), pieces)
                if body.in_memory:
                    reading.close()  # a program may go on writing
                with self._on_its_way(pending, body):
                    async with self._guard.staging(node.path, over):
                        if not await self._put_staged(pending, body, over, life):
                            return await self._look_up(node)
            self._free_slot(pending)
            return await self._verify(pending, body)
        finally:
            content.turning = False
            content.progress.unpark_all()

    def _replaced(self, node: Node, content: Content, todo: Next) -> Known | None:
        """The version that this PUT is to replace: the base, by the newest words for it."""
        if todo.step is Step.PUT_NEW or content.base is None:
            return None
        version = content.base
        if todo.if_match is not None:
            version = replace(version, etag=todo.if_match)
        return Known(version, content.base_digest, is_contended(node))

    def _must_stage(self, node: Node, size: int, *, new: bool) -> bool:
        server = self._tree.client.capabilities
        wanted = needs_staging(server, size=size, new=new) or self._partials.stages(size)
        wanted = wanted or not server.puts_name(node.name)
        return wanted and not server.move_unsafe(node.name)

    def may_hurry(self, node: Node, content: Content) -> bool:
        """Whether the PUT of this new file can begin while its name and time may still change."""
        return self.stages_new(node, content) and not self._tree.client.capabilities.time_in_put

    def stages_new(self, node: Node, content: Content) -> bool:
        """Whether this new file goes to a temporary name first."""
        return self._must_stage(node, content.size_bytes, new=True)

    def fits_over(self, pending: Pending, over: Known | None) -> bool:
        """Whether what is on its way to a temporary name can as well replace this version.

        Not where times tell versions and it was sent with that version's: see `_time_along`.
        """
        content, server = pending.content, self._tree.client.capabilities
        if over is None or not server.versions_by_time:
            return True
        return not _is_alike(content, over, content.mtime_ns // 1_000_000_000)

    async def _put_directly(
        self, pending: Pending, body: FileBody, over: Known | None, life: Life, *, trust_tags: bool
    ) -> PutResult:
        path, content = pending.node.path, pending.content
        mtime_s = body.mtime_s = self._time_along(content, over)
        if self._tree.client.capabilities.is_owncloud and body.size_bytes:
            kind = self._tree.client.cloud.checksum_kind
            body.checksum = await checksum_of(body.file, body.size_bytes, kind)
        content.life = replace(content.life, sent=life.sent, unknown=True)
        content.save()
        try:
            if over is None:
                result = await self._guard.put_new(path, body, mtime_s=mtime_s)
            else:
                result = await self._guard.put_over(path, body, over, mtime_s=mtime_s, trust_tags=trust_tags)
        except BaseException as error:
            await body.sum_up()
            self._unanswered(content, path, body, error)
            may_be_cut = body.size_bytes > self._tree.client.capabilities.whole_up_to_bytes
            if body.whole is not None and may_be_cut:
                self._strays.keep(path, body.whole, trio.current_time())
            raise
        return result

    async def _put_staged(self, pending: Pending, body: FileBody, over: Known | None, life: Life) -> bool:
        """To a temporary name beside it, then MOVE. Until the MOVE nothing of the file can be on the server.

        `life` is that of the moment that `body` shows. Returns no tag: a server may give the file another one
        at its new name (Tomcat). False: nothing was moved, as it has to be sent whole.
        """
        node, content, path = pending.node, pending.content, pending.node.path
        staged = path.parent.child(f"{HIDDEN_PREFIX}{secrets.token_hex(8)}")
        self._leftovers.note(staged)
        pending.staged, moving = staged, False
        content.progress.unpark_all()  # a rename need not wait any more
        try:
            if isinstance(body, PartBody):
                if over is None or not await self._partials.stage(content, path, body, over, staged):
                    await self._leftovers.remove(self._tree.client, staged)
                    return False
                content.turning = not content.complete
                content.staged = (body.digest or b"", life.sent)
            else:
                await self._fill_staged(pending, body, staged, over)
            if node.path != path:  # renamed meanwhile: as if it had been sent after that
                path, over, body.before = node.path, self._newly_replaced(node, content), content.unanswered
            if over is not None:
                await self.carry(node, staged)
            # Written to meanwhile: the counters go on, what is sent stays as it was when the body began.
            content.life = replace(content.life, sent=life.sent, unknown=True)
            self._note_body(content, body)  # a daemon that is killed now must know its own bytes again
            content.save()
            moving = True
            try:
                await self._guard.move(staged, path, over)
            except BaseException as error:
                await body.sum_up()
                self._unanswered(content, path, body, error)
                raise
        except BaseException as error:
            if isinstance(error, ServerRefused):
                await self._leftovers.remove(self._tree.client, staged)
            else:
                self._leftovers.may_appear(staged)
            if isinstance(error, NotFound | ParentMissing) and (moving or node.path.parent != staged.parent):
                raise Disconnected(f"{shown(staged)} is gone: it is sent again") from error
            raise
        finally:
            pending.staged = None
        self._leftovers.forget(staged)
        return True

    def _newly_replaced(self, node: Node, content: Content) -> Known | None:
        """What stands under the name that a rename gave to this file, which was never sent before."""
        base = content.base
        step = Next(Step.PUT_NEW) if base is None else Next(Step.PUT_OVER, base.if_match)
        return self._replaced(node, content, step)

    async def _put_chunked(
        self,
        pending: Pending,
        body: FileBody,
        over: Known | None,
        life: Life,
        channel: ChunkedUploads,
    ) -> ETag | LookedUp | None:
        """In parts beside, then one MOVE. Until that nothing of the file can be at its name."""
        path, content = pending.node.path, pending.content
        underway = await self._chunks.send(channel, content.id, body, path, over)
        if body.fd is None:  # may be forked: its digest is known before the MOVE, as after a PUT
            await body.sum_up()
        # Written to meanwhile: the counters go on, what is sent stays as it was when the upload began.
        content.life = replace(content.life, sent=life.sent, unknown=True)
        self._note_body(content, body)
        content.save()
        body.mtime_s = mtime_s = content.mtime_ns // 1_000_000_000
        try:
            return await self._chunks.assemble(channel, underway, over, mtime_s=mtime_s)
        except BaseException as error:
            await body.sum_up()
            self._unanswered(content, path, body, error)
            if not isinstance(error, DavfsError) or not error.outcome_unknown:
                raise
            self._free_slot(pending)
            if not await self._chunks.settled(channel, underway, over, error):
                raise
            return await self._look_up(pending.node)

    async def _fill_staged(
        self, pending: Pending, body: FileBody, staged: DavPath, over: Known | None
    ) -> None:
        """By a COPY of what the server has already, else by PUT."""
        content = pending.content
        if await self._copies.stage(content, body.file, staged):
            body.sent_up_to(body.size_bytes)
            if body.fd is None:  # may be forked: its digest is known before the MOVE, as after a PUT
                await body.sum_up()
        else:
            body.mtime_s = self._time_along(content, over)
            folder = pending.folder_said(staged.parent, trio.current_time())
            await self._tree.client.put(staged, body, mtime_s=body.mtime_s, is_new=True, folder=folder)
        await self._partials.note_tag(body, staged)

    def _time_along(self, content: Content, over: Known | None) -> int | None:
        """The time that goes with the PUT. Where times tell versions: only one that a program set, or an old
        one, and none that would make this version look like the one before.
        """
        mtime_s, server = content.mtime_ns // 1_000_000_000, self._tree.client.capabilities
        if not server.versions_by_time:
            return mtime_s
        if over is not None and _is_alike(content, over, mtime_s):
            return None
        is_old = time.time() - mtime_s > TIME_TELLS_S
        return mtime_s if is_old or self._tree.owed.goes_along(content.ino, content.mtime_ns) else None

    def _acknowledge(
        self, pending: Pending, version: Validator, body: FileBody, *, is_rewritten: bool = False
    ) -> None:
        """`is_rewritten`: the server made that version of what it was sent: ours is an older one now."""
        content = pending.content
        content.life = content.life.put_succeeded()
        if body.digest is not None and not body.before.has(body.digest):
            content.unanswered = content.unanswered.without(body.digest)
        content.base = version
        self._note_proof(pending.node, content, None if is_rewritten else body.proof, body.size_bytes)
        self._partials.acknowledged(content, body, version)
        content.changes.acknowledged(version)
        content.base_size = version.size_bytes or 0
        if is_rewritten:
            content.base, content.successor = None, version
        content.attempts, content.error = 0, None
        with self._tree.store.atomically():
            content.save()
            self._tree.uploaded(pending.node, content, version.etag, version.mtime_s)
        self.sent_files += 1

    async def _verify(self, pending: Pending, body: FileBody) -> LookedUp | None:
        """No ETag came back: ask what the server holds, one question for a whole folder."""
        found: LookedUp | None = None

        def learn(resource: Resource | None) -> None:
            nonlocal found
            if resource is not None and body.is_stored_as(resource):
                self._learn_time(body, resource)
                self._acknowledge(pending, resource.validator, body)
            else:
                found = LookedUp(resource)

        await self._verification.ask(pending.node, learn)
        if found == LookedUp(None) and is_doubtful(self._tree, pending.node.name):
            found = None
            learn(await stored_as(self._tree, pending.node, pending.content))
        return found

    def _learn_time(self, body: FileBody, resource: Resource) -> None:
        if body.mtime_s is not None:
            client = self._tree.client
            client.capabilities = client.capabilities.learned_time(
                sent_s=body.mtime_s, found_s=resource.mtime_s, now_s=time.time()
            )


async def _nothing_to_carry(_node: Node, _staged: DavPath) -> None:
    """The file that is replaced has no properties of ours."""


def _is_alike(content: Content, over: Known, mtime_s: int) -> bool:
    """Whether size and time would not tell it from the version that it replaces."""
    return over.version.size_bytes == content.size_bytes and over.version.mtime_s in {None, mtime_s}
