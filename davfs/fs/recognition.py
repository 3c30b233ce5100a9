"""Is what stands there ours? What was sent and not answered, what may still land, and how it is known again.

A PUT whose outcome nobody knows is remembered by the digest of its body, in the journal and by name
(`strays`). What is found later is ours if its tag or its bytes say so, and then it is known which of our
versions it is. Sends nothing but PROPFIND and GET.
"""

from __future__ import annotations

import logging
from typing import Final, Literal

import trio

from davfs.dav.hrefs import folded, shown
from davfs.dav.resource import DavPath, Resource, Validator
from davfs.errors import DavfsError, NotFound
from davfs.fs.body import FileBody
from davfs.fs.chunks import Chunks
from davfs.fs.content import DIGEST_MAX, Content, new_digest
from davfs.fs.guard import SMALL_NEW, Known
from davfs.fs.inodes import Node
from davfs.fs.lifecycle import Life, LookedUp, Unanswered, tag_digest
from davfs.fs.partial import Partials
from davfs.fs.strays import LATE_S, Strays
from davfs.fs.tree import Tree

log = logging.getLogger("davfs.upload")

CONTENDED_S: Final = 600.0  # a file that somebody else changed within this time is overwritten under a lock
CONTENDED_DIGEST_MAX: Final = 64 << 20  # and compared up to this size where a tag does not prove the version


class Recognition:
    def __init__(self, tree: Tree, chunks: Chunks, partials: Partials, strays: Strays) -> None:
        self._tree = tree
        self._chunks = chunks
        self._partials = partials
        self._strays = strays

    async def _look_up(self, node: Node) -> LookedUp:
        try:
            found = await self._tree.client.stat(node.path)
        except NotFound:
            return LookedUp(None)
        # Of a name without the dots and blanks at its end that is another file.
        other = found.spelled if found.spelled is not None else node.name
        return LookedUp(found if folded((other,)) == folded((node.name,)) else None)

    # --- what may still land

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

    def _longest_cut(self, content: Content) -> int:
        """How much of it may stand there after a kill in the middle of its PUT, of which no note was made.

        Small new files are PUT to their names also where uploads are written in place (WsgiDAV); -1: none.
        """
        small = self._tree.client.capabilities.whole_up_to_bytes < content.size_bytes <= SMALL_NEW
        return content.size_bytes - 1 if small and content.life.unknown and content.base is None else -1

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

    def _note_proof(self, node: Node, content: Content, digest: bytes | None, size: int) -> None:
        """What tells the version that we have just put there from another of the same second and size.

        Comparing costs a GET before the next overwrite. Of a file that somebody else changes too it is worth
        more bytes, and so is one at the next open: till then what is here is not believed.
        """
        coarse, contended = self._tree.client.capabilities.coarse_tags, is_contended(node)
        compared = coarse and size <= (CONTENDED_DIGEST_MAX if contended else DIGEST_MAX)
        content.base_digest = digest if compared else None
        content.young = coarse and contended


def is_contended(node: Node) -> bool:
    return trio.current_time() - node.foreign_s < CONTENDED_S


def forget_what_cannot_land_any_more(content: Content) -> None:
    """Whoever writes the same bytes to the server after that means it."""
    if not content.life.unknown and trio.current_time() - content.unanswered_s > LATE_S:
        content.unanswered = Unanswered()
