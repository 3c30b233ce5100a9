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
from typing import Final, Literal

import trio

from davfs.dav.chunked import ChunkedUploads
from davfs.dav.hrefs import folded, shown
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
    ParentMissing,
    PreconditionFailed,
    ServerRefused,
    StaleVersion,
    TooLarge,
)
from davfs.fs.body import FileBody, OnItsWay
from davfs.fs.chunks import Chunks, NoChannel, checksum_of
from davfs.fs.conflict import Conflicts
from davfs.fs.content import DIGEST_MAX, Content, new_digest
from davfs.fs.copies import Copies
from davfs.fs.download import Downloads
from davfs.fs.guard import HTTP_LOCKED, SMALL_NEW, Guard, Known, Superseded, needs_staging
from davfs.fs.inodes import Node
from davfs.fs.leftovers import Leftovers
from davfs.fs.lifecycle import Life, LookedUp, Next, Step, Unanswered, next_step, tag_digest
from davfs.fs.parents import make_parents
from davfs.fs.partial import PartBody, Partials
from davfs.fs.queue import Pending
from davfs.fs.spellings import is_doubtful, stored_as
from davfs.fs.strays import LATE_S, Strays
from davfs.fs.tree import HIDDEN_PREFIX, Tree
from davfs.fs.verification import Verification

log = logging.getLogger("davfs.upload")

STEPS_MAX: Final = 12  # a file that needs more steps than this has a server that contradicts itself
PUTS_MAX: Final = 3  # in one attempt: whole bodies are not thrown at a server that will not have them
HTTP_METHOD_NOT_ALLOWED: Final = 405
CONTENDED_S: Final = 600.0  # a file that somebody else changed within this time is overwritten under a lock
CONTENDED_DIGEST_MAX: Final = 64 << 20  # and compared up to this size where a tag does not prove the version


class Delivery:
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
        self._chunks = chunks
        self._tree = tree
        self._downloads = downloads
        self._conflicts = conflicts
        self._verification = verification
        self._guard = guard
        self._leftovers = leftovers
        self._free_slot = free_slot
        self._copies = Copies(tree, leftovers)
        self._partials = Partials(tree, leftovers, wanted=partial_put)
        self._strays = Strays()
        self.sent_files = 0
        self.carry: Callable[[Node, DavPath], Awaitable[None]] = _nothing_to_carry
        self._on_their_way: dict[int, OnItsWay] = {}  # by content id

    def on_their_way(self) -> list[OnItsWay]:
        """At most as many as there are connections."""
        return list(self._on_their_way.values())

    async def settle(self, pending: Pending) -> None:
        """Step by step until the server has the file. Raises what stands in the way."""
        path = None if pending.node.unlinked else pending.node.path
        await self._settle(pending)
        self._chunks.forsake(pending.content.id)
        if path is not None:
            await self._guard.done(path)

    async def _settle(self, pending: Pending) -> None:
        content = pending.content
        found: LookedUp | None = None
        trust_tags, puts = True, 0
        for _ in range(STEPS_MAX):
            if content.orphan or pending.node.content is not content:
                return
            _forget_what_cannot_land_any_more(content)
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

    def _longest_cut(self, content: Content) -> int:
        """How much of it may stand there after a kill in the middle of its PUT, of which no note was made.

        Small new files are PUT to their names also where uploads are written in place (WsgiDAV); -1: none.
        """
        small = self._tree.client.capabilities.whole_up_to_bytes < content.size_bytes <= SMALL_NEW
        return content.size_bytes - 1 if small and content.life.unknown and content.base is None else -1

    async def _try_put(
        self, pending: Pending, todo: Next, *, trust_tags: bool
    ) -> tuple[LookedUp | None, bool]:
        """One PUT: (what the server holds, as far as it was asked; whether a precondition was refused)."""
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
        except (ParentMissing, NotFound) as error:
            await make_parents(
                self._tree, self._conflicts, pending.node, pending.content.size_bytes, error.status
            )
            return await self._look_up(pending.node), False
        except Forbidden as error:
            found = await self._look_up(pending.node)
            blocked = found.resource is not None and found.resource.is_collection
            if error.status == HTTP_METHOD_NOT_ALLOWED and blocked:
                return found, True  # a folder has the name (lighttpd, WsgiDAV)
            raise

    async def _compared(self, pending: Pending, found: LookedUp | None) -> bool:
        resource = found.resource if found is not None else None
        return resource is not None and await self.is_ours(pending.node, pending.content, resource)

    async def _look_up(self, node: Node) -> LookedUp:
        try:
            found = await self._tree.client.stat(node.path)
        except NotFound:
            return LookedUp(None)
        # Of a name without the dots and blanks at its end that is another file.
        other = found.spelled if found.spelled is not None else node.name
        return LookedUp(found if folded((other,)) == folded((node.name,)) else None)

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
        await self._downloads.ensure_whole(content, lambda: node.path)
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
        return Known(version, content.base_digest, _is_contended(node))

    def _must_stage(self, node: Node, size: int, *, new: bool) -> bool:
        server = self._tree.client.capabilities
        wanted = needs_staging(server, size=size, new=new) or self._partials.stages(size)
        wanted = wanted or not server.puts_name(node.name)
        return wanted and not server.move_unsafe(node.name)

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
        path, content = pending.node.path, pending.content
        staged = path.parent.child(f"{HIDDEN_PREFIX}{secrets.token_hex(8)}")
        self._leftovers.note(staged)
        moving = False
        try:
            if isinstance(body, PartBody):
                if over is None or not await self._partials.stage(content, path, body, over, staged):
                    await self._leftovers.remove(self._tree.client, staged)
                    return False
                content.turning = not content.complete
                content.staged = (body.digest or b"", life.sent)
            else:
                await self._fill_staged(content, body, staged, over)
            if over is not None:
                await self.carry(pending.node, staged)
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
                self._leftovers.give_up(staged)
            if isinstance(error, NotFound | ParentMissing) and moving:
                raise Disconnected(f"{shown(staged)} is gone: it is sent again") from error
            raise
        self._leftovers.forget(staged)
        return True

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
        self, content: Content, body: FileBody, staged: DavPath, over: Known | None
    ) -> None:
        """By a COPY of what the server has already, else by PUT."""
        if await self._copies.stage(content, body.file, staged):
            body.sent_up_to(body.size_bytes)
            if body.fd is None:  # may be forked: its digest is known before the MOVE, as after a PUT
                await body.sum_up()
        else:
            body.mtime_s = self._time_along(content, over)
            await self._tree.client.put(staged, body, mtime_s=body.mtime_s, is_new=True)
        await self._partials.note_tag(body, staged)

    def _time_along(self, content: Content, over: Known | None) -> int | None:
        """The time that goes with the PUT. Where times tell versions: only one that a program set, or an old
        one, and none that would make this version look like the one before.
        """
        mtime_s, server = content.mtime_ns // 1_000_000_000, self._tree.client.capabilities
        if not server.versions_by_time:
            return mtime_s
        alike = over is not None and over.version.size_bytes == content.size_bytes
        if alike and over is not None and over.version.mtime_s in {None, mtime_s}:
            return None
        is_old = time.time() - mtime_s > TIME_TELLS_S
        return mtime_s if is_old or self._tree.owed.goes_along(content.ino, content.mtime_ns) else None

    def _unanswered(self, content: Content, path: DavPath, body: FileBody, error: BaseException) -> None:
        """Note what is known of a PUT that did not succeed; a 500 does not say that nothing happened."""
        if isinstance(error, DavfsError) and not error.outcome_unknown:
            content.life = content.life.put_refused()
        # Also of a refusal: a proxy may have given up on a server that had not.
        self._note_body(content, body)
        if body.digest is not None:
            self._strays.note(path, body.size_bytes, body.digest, trio.current_time())
        content.save()

    def _note_body(self, content: Content, body: FileBody) -> None:
        if body.digest is not None:
            content.unanswered = content.unanswered.with_body(body.size_bytes, body.digest)
            content.unanswered_s = trio.current_time()

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

    def _note_proof(self, node: Node, content: Content, digest: bytes | None, size: int) -> None:
        """What tells the version that we have just put there from another of the same second and size.

        Comparing costs a GET before the next overwrite. Of a file that somebody else changes too it is worth
        more bytes, and so is one at the next open: till then what is here is not believed.
        """
        coarse, contended = self._tree.client.capabilities.coarse_tags, _is_contended(node)
        compared = coarse and size <= (CONTENDED_DIGEST_MAX if contended else DIGEST_MAX)
        content.base_digest = digest if compared else None
        content.young = coarse and contended

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

    def gave_up(self, path: DavPath, content: Content) -> None:
        """It was replaced, removed or renamed; a PUT that nobody answered may still land under this name."""
        self._chunks.forsake(content.id)
        for size, digest in content.unanswered.bodies:
            self._strays.note(path, size, digest, trio.current_time())

    def inherit(self, path: DavPath, content: Content) -> None:
        """What another file sent under this name may still land there: it is no other client's."""
        strays, given_up_s = self._strays.at(path, trio.current_time())
        unanswered = content.unanswered.with_older(strays)
        if unanswered != content.unanswered:
            content.unanswered = unanswered
            content.unanswered_s = max(content.unanswered_s, given_up_s)
            content.save()

    async def check_late(self, node: Node, content: Content) -> bool:
        """Whether a PUT that was given up has landed after all, over a newer one of ours: then that is dirty.

        Apache checks If-Match when the headers come, and stores when the body is complete: a body that was
        held up on the line may arrive long after its time-out.
        """
        found = (await self._look_up(node)).resource
        if found is None or found.is_collection or content.dirty or content.base is None:
            return False
        if content.base.same_version(found.validator):
            return False
        if found.size_bytes not in content.unanswered.sizes:
            return False
        if await self._recognised(node, content, found) != "older" or not content.complete:
            return False
        log.info("%s: an older upload of ours arrived late: the newest is sent again", shown(node.path))
        content.mark_written()
        return True

    def moved(self, source: DavPath, destination: DavPath) -> None:
        """The server has moved what is there; it may be a body of ours that was given up."""
        self._strays.moved(source, destination)

    async def landed(self, path: DavPath) -> Known | None:
        """The version there, if it is a body of ours that was given up. Raises DavfsError."""
        strays, _ = self._strays.at(path, trio.current_time())
        resource = await self._tree.client.stat(path) if strays.bodies else None
        if resource is None or resource.is_collection or resource.size_bytes not in strays.sizes:
            return None
        if resource.etag is not None and strays.has(tag_digest(resource.etag)):
            return Known(resource.validator)
        summed = new_digest()
        async with self._tree.client.get(path, expected=resource.validator) as download:
            async for chunk in download:
                summed.update(chunk)
        if not strays.has(summed.digest()):
            return None
        coarse = self._tree.client.capabilities.coarse_tags
        return Known(resource.validator, summed.digest() if coarse else None)

    async def is_ours(self, node: Node, content: Content, resource: Resource) -> bool:
        """Whether the server's bytes are ours: what we hold now, or what an unanswered PUT sent.

        If so that is noted: it is the version that ours is based on.
        """
        return await self._recognised(node, content, resource) is not None

    async def _recognised(
        self, node: Node, content: Content, resource: Resource
    ) -> Literal["newest", "older"] | None:
        life, version = content.life, resource.validator
        if version.etag is not None and content.unanswered.has(tag_digest(version.etag)):
            # It had this tag under a temporary name of ours. After a new start nobody knows whether the file
            # was written to after that: then it is sent again.
            newest = content.staged == (tag_digest(version.etag), life.written)
            self._partials.recognised(content, version)
            which: Literal["newest", "older"] = "newest" if newest else "older"
            return self._found(node, content, version, None, version.size_bytes or 0, which=which)
        at, summed, same_as_now, beginning = 0, new_digest(), content.complete, b""
        if await self._chunks.holds(node.path, content, resource):
            return self._found(node, content, version, None, content.size_bytes)
        async with self._tree.client.get(node.path) as download:
            async for chunk in download:
                summed.update(chunk)
                same_as_now = same_as_now and await content.read(at, len(chunk)) == chunk
                at += len(chunk)
                beginning = (beginning + chunk)[:SMALL_NEW]
            if not version.same_version(download.validator):
                return None
        if same_as_now and at == content.size_bytes and content.life == life:
            return self._found(node, content, version, summed.digest(), at)
        if (
            content.unanswered.has(summed.digest())
            or (len(beginning) == at and self._strays.has_part(node.path, beginning, trio.current_time()))
            or (same_as_now and at <= self._longest_cut(content))
        ):
            return self._found(node, content, version, summed.digest(), at, which="older")
        return None

    def _found(
        self,
        node: Node,
        content: Content,
        version: Validator,
        digest: bytes | None,
        size: int,
        *,
        which: Literal["newest", "older"] = "newest",
    ) -> Literal["newest", "older"]:
        """The server has a version of ours: if it is an older one, the newest is to be sent."""
        content.made_here = False  # its bytes, not perhaps its properties
        written, older = content.life.written, content.life.found_unapplied()
        content.life = Life(written, written, written) if which == "newest" else older
        content.base, content.base_size = version, size
        self._note_proof(node, content, digest, size)
        content.save()
        self._tree.uploaded(node, content, version.etag, version.mtime_s)
        return which


async def _nothing_to_carry(_node: Node, _staged: DavPath) -> None:
    """The file that is replaced has no properties of ours."""


def _is_contended(node: Node) -> bool:
    return trio.current_time() - node.foreign_s < CONTENDED_S


def _forget_what_cannot_land_any_more(content: Content) -> None:
    """Whoever writes the same bytes to the server after that means it."""
    if not content.life.unknown and trio.current_time() - content.unanswered_s > LATE_S:
        content.unanswered = Unanswered()
