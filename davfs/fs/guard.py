"""Changing what stands under a name only while it is still what we believe. Decides how an overwrite is
made conditional, for uploads and for renames alike; nothing else overwrites.

Cheapest first: a condition in the request itself, where the server is known to honour it, the tag can prove
it, and nobody else was seen to write there (conditions are checked before the body is stored, so two PUTs at
once can both pass). Else a look right before, under a LOCK where the server has locks. Else the look alone. A
new name is If-None-Match: * where that is honoured; else, and for large bodies, a temporary name and MOVE
with Overwrite: F, which every server honours (servers.md, table 11a).

Never sends DELETE.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import trio

from davfs.dav.client import Body, Client, PutResult
from davfs.dav.hrefs import shown
from davfs.dav.locks import LockToken
from davfs.dav.microsoft import same_document
from davfs.dav.quirks import Capabilities
from davfs.dav.resource import DavPath, ETag, Validator
from davfs.errors import Locked, NotFound, PreconditionFailed, StaleVersion
from davfs.fs.content import new_digest
from davfs.fs.locks import Locks

# Conditions are checked when the headers arrive; a body of this size takes long enough for another client to
# come between (Apache: 4 of 4 racing PUTs with If-None-Match: * were stored, servers.md table 5).
LONG_BODY: Final = 1 << 20
LOCKED_WAITS_S: Final = (0.2, 0.5, 1.5)
HTTP_LOCKED: Final = 423
EMPTY_LOCK_S: Final = 60.0
SMALL_NEW: Final = 64 * 1024  # a new file of this size is not staged for want of spooling: nothing to destroy

T = TypeVar("T")


class Superseded(PreconditionFailed):
    """The tag is the one we know, the bytes are not: a change within the same second (servers.md 9)."""


@dataclass(frozen=True, slots=True)
class Known:
    """A version on the server that may be replaced; the digest of its bytes where the tag is no proof."""

    version: Validator
    digest: bytes | None = None
    contended: bool = False  # somebody else wrote to it lately


EMPTY_FOLDER: Final = Known(Validator())  # a folder that a listing just showed to be empty


def needs_staging(server: Capabilities, *, size: int, new: bool) -> bool:
    """Whether the body goes to a temporary name first.

    Over an existing file wherever a cut PUT would leave half of ours in its place (servers.md 1); to a new
    name where that would show half a file, or where nothing but MOVE can tell that the name is free.
    """
    if not server.may_stage or (server.has_no_move and size <= server.whole_up_to_bytes):
        return False
    if new:
        long = size >= LONG_BODY
        torn = size > max(SMALL_NEW, server.whole_up_to_bytes)
        return long or server.conditions != "honoured" or torn
    return size > server.whole_up_to_bytes or server.puts_beside


def needs_look(server: Capabilities, over: Known, *, size: int) -> bool:
    """Whether an overwrite needs a look right before it, under a lock if there are any."""
    tag = over.version.etag
    if tag is None or over.digest is not None or over.contended:
        return True
    if server.conditions != "honoured" or size >= LONG_BODY:
        return True
    return tag.weak and not server.weak_tag_in_if


class Guard:
    def __init__(self, client: Client, locks: Locks) -> None:
        self._client = client
        self.locks = locks

    async def put_new(self, path: DavPath, body: Body, *, mtime_s: int | None) -> PutResult:
        """Raises PreconditionFailed when the name is taken, where the server can tell."""
        if (
            not body.size_bytes
            and self._client.capabilities.stores_no_empty_files
            and await self._made_empty(path)
        ):
            return PutResult(created=True, etag=None)
        result = await patiently(
            lambda: self._client.put(
                path, body, if_none_match=True, mtime_s=mtime_s, lock_token=self.locks.token_for(path)
            )
        )
        return await self._with_stored(path, result)

    async def _made_empty(self, path: DavPath) -> bool:
        """By LOCK, which makes an empty file of a free name (RFC 4918 7.3)."""
        if not self._client.capabilities.locks_usable:
            return False
        lock = await self._client.lock(path, self.locks.owner, EMPTY_LOCK_S)
        with trio.CancelScope(shield=True), trio.move_on_after(EMPTY_LOCK_S):
            await self._client.unlock(path, lock.token)
        return True

    async def _with_stored(self, path: DavPath, result: PutResult) -> PutResult:
        """Looks at once where the server writes into what it is sent (SharePoint: office files)."""
        if not self._client.capabilities.rewrites(path.name):
            return result
        found = await self._client.stat(path)
        return replace(result, stored=found if same_document(result.etag, found.etag) else None)

    async def put_over(
        self, path: DavPath, body: Body, over: Known, *, mtime_s: int | None, trust_tags: bool = True
    ) -> PutResult:
        """Raises PreconditionFailed when the server's version is not `over`, Locked when it is locked."""
        tag = _condition(self._client.capabilities, over.version) if trust_tags else None
        server = self._client.capabilities
        # What the server writes into is stored under a lock, so that what is found then is made of ours.
        alone = server.rewrites(path.name)
        if trust_tags and not alone and not needs_look(server, over, size=body.size_bytes):
            return await patiently(
                lambda: self._client.put(
                    path, body, if_match=tag, mtime_s=mtime_s, lock_token=self.locks.token_for(path)
                )
            )
        async with self.locks.around(path) as token:
            await self._check(path, over, size=body.size_bytes, token=token)
            result = await self._client.put(
                path, body, if_match=tag, mtime_s=mtime_s, lock_token=token, is_known=True
            )
            return result if token is None else await self._with_stored(path, result)

    @asynccontextmanager
    async def staging(self, path: DavPath, over: Known | None) -> AsyncIterator[None]:
        """Around the body and the MOVE. Where a LOCK of ours went unanswered, it comes before the body.

        Else each attempt would send all of it, to be told at its end that the name is locked.
        """
        if over is None or not self.locks.is_doubtful(path):
            yield
            return
        async with self.locks.around(path):
            yield

    async def move(
        self, source: DavPath, destination: DavPath, over: Known | None, *, is_collection: bool = False
    ) -> None:
        """MOVE onto a name that is free (`over` None), or that still holds `over`."""
        if over is None or over is EMPTY_FOLDER:
            overwrite = over is not None
            await patiently(
                lambda: self._client.move(
                    source,
                    destination,
                    is_collection=is_collection,
                    overwrite=overwrite,
                    dest_lock_token=self.locks.token_for(destination),
                )
            )
            return
        tag = over.version.etag
        server = self._client.capabilities
        sure = over.digest is None and not over.contended
        proved = tag is not None and sure and (not tag.weak or server.weak_tag_in_if)
        if proved and server.move_condition_honoured:
            await patiently(
                lambda: self._client.move(
                    source,
                    destination,
                    is_collection=is_collection,
                    overwrite=True,
                    dest_lock_token=self.locks.token_for(destination),
                    dest_if_match=tag,
                )
            )
            return
        if not all(map(server.moves_onto_locked, destination.parts)):
            await self.locks.give_up(destination)
            await self._check(destination, over)
            await self._client.move(source, destination, is_collection=is_collection, overwrite=True)
            return
        async with self.locks.around(destination) as token:
            await self._check(destination, over)
            await self._client.move(
                source, destination, is_collection=is_collection, overwrite=True, dest_lock_token=token
            )
            self.locks.replaced(destination)

    async def assemble(
        self, path: DavPath, over: Known | None, move: Callable[[ETag | None], Awaitable[T]]
    ) -> T:
        """`move` puts a file together from its parts, at a name that is free or still holds `over`.

        It takes the tag of what it may replace, on servers that honour that.
        """
        tag = over.version.if_match if over is not None else None
        sure = over is None or (tag is not None and over.digest is None and not over.contended)
        if sure:
            return await patiently(lambda: move(tag))
        assert over is not None
        async with self.locks.around(path):
            await self._check(path, over)
            return await move(tag)

    async def refused(self, path: DavPath) -> None:
        """After 412: it may be the token of a lock that is lost, which then is dropped."""
        await self.locks.check(path)

    async def locked(self, path: DavPath) -> bool:
        """After 423: whether it was a lock of ours whose answer was lost, and now is gone."""
        return await self.locks.freed(path)

    async def done(self, path: DavPath) -> None:
        """Nothing more is to be sent there for now: a lock may go."""
        await self.locks.finished(path)

    async def _check(
        self, path: DavPath, over: Known, *, size: int = 0, token: LockToken | None = None
    ) -> None:
        try:
            if size >= LONG_BODY:
                found = await self._client.look(path, size, token)
            else:
                found = await self._client.stat(path)
        except NotFound:
            raise PreconditionFailed(f"{shown(path)}: it is gone on the server", status=412) from None
        if found.is_collection or not over.version.same_version(found.validator):
            raise PreconditionFailed(f"{shown(path)}: it changed on the server", status=412)
        if over.digest is not None and not await self._holds(path, over):
            raise Superseded(f"{shown(path)}: it changed on the server within a second", status=412)

    async def _holds(self, path: DavPath, over: Known) -> bool:
        """Whether the bytes there are those we know: a tag of whole seconds does not prove it."""
        summed = new_digest()
        try:
            async with self._client.get(path, expected=over.version) as download:
                async for chunk in download:
                    summed.update(chunk)
        except (StaleVersion, NotFound):
            return False
        return summed.digest() == over.digest


def _condition(server: Capabilities, version: Validator) -> ETag | None:
    """The tag that goes out with a PUT: never one that the server would not match."""
    tag = version.etag
    if tag is None or server.conditions != "honoured" or (tag.weak and not server.weak_tag_in_if):
        return None
    return tag


async def patiently(change: Callable[[], Awaitable[T]]) -> T:
    """Another davfs locks a file for the moment of one look and one upload: that is waited for, not told.

    With Retry-After the server says itself when to come back; 424 is no lock of this file.
    """
    for wait_s in LOCKED_WAITS_S:
        try:
            return await change()
        except Locked as error:
            if error.status != HTTP_LOCKED or error.retry_after_s is not None:
                raise
            await trio.sleep(wait_s * (0.5 + random.random()))  # noqa: S311 - it keeps two apart, it hides nothing
    return await change()
