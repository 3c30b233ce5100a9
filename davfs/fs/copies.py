"""COPY instead of PUT: the server is asked to copy what it already has.

pyfuse3 knows no copy_file_range, so `cp` within the mount comes as reads and writes: its bytes are here, once
as the clean version that was read and once as the new file. When that is to be sent, cached versions of its
size are compared with it byte by byte. Both lie on the cache disk: for 128 MiB that is 0.03 s of CPU, a sixth
of what a hash takes, and nothing is done while reading and writing. What is equal is copied on the server to
the temporary name that a PUT would have gone to, and goes on as every staged upload: one conditional MOVE.
So a COPY may be cut, lost or repeated like a staged body; the journal knows nothing of it.

Never wrong bytes: the version of the source is pinned by a tag that was proof when the bytes were fetched. It
is sent as If-Match, and must still be there, strong, after the COPY: then nothing else stood under that name
meanwhile. The copy must have the size. In any doubt, and after any refusal, the body is sent.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Final

import trio

from davfs.dav.client import Client
from davfs.dav.hrefs import shown
from davfs.dav.properties import XATTRS
from davfs.dav.quirks import TIME_TELLS_S
from davfs.dav.resource import DavPath, Resource, Validator
from davfs.dav.times import NS
from davfs.errors import BadName, NotFound, ServerRefused
from davfs.fs.content import Content, path_from_bytes
from davfs.fs.leftovers import Leftovers
from davfs.fs.tree import Tree

log = logging.getLogger("davfs.upload")

COPY_MIN: Final = 4 << 20  # below, three more round trips (COPY, two looks) cost more than the bytes
PIECE: Final = 256 << 10  # in pieces of 1 MiB it takes twice as long: they outgrow the processor's cache
AT_ONCE: Final = 32 << 20  # compared in one visit to a thread: that long a cancellation waits, 15 ms
REMEMBERED_MAX: Final = 1024
_NEVER: Final = {405, 501}  # this server has no COPY


class Copies:
    def __init__(self, tree: Tree, leftovers: Leftovers) -> None:
        self._tree = tree
        self._leftovers = leftovers
        self._has_copy = True
        self._vain: set[int] = set()  # contents that are sent as a body after all

    async def stage(self, content: Content, fd: int, staged: DavPath) -> bool:
        """Make `staged`, which is noted as ours, a copy on the server of what `fd` holds.

        False: the body has to be sent. Raises when the server cannot be reached.
        """
        size = content.size_bytes
        if not self._may_copy(content, size):
            return False
        for source in self._tree.store.same_size(content):
            try:
                found = await self._identical(source, fd, size)
                if found is not None:
                    return await self._copied(content, *found, staged)
            finally:
                self._tree.store.release(source)
        return False

    def _may_copy(self, content: Content, size: int) -> bool:
        server = self._tree.client.capabilities
        # A PUT takes the time of the file along, where the server takes it: a COPY does not.
        useful = size >= COPY_MIN and content.id not in self._vain
        is_old = time.time() - content.mtime_ns / NS > TIME_TELLS_S
        time_goes = server.takes_mtime or (server.time_in_put and is_old)
        return useful and self._has_copy and server.etags_in_propfind is not False and not time_goes

    async def _identical(self, source: Content, fd: int, size: int) -> tuple[DavPath, Validator] | None:
        """Where the server has these very bytes, and in which version; None when that is not certain."""
        version = source.base
        if version is None or source.size_bytes != size or not is_pinned(self._tree.client, source):
            return None
        with source.steady() as theirs:
            same = await _same_bytes(fd, theirs, size, source)
        if not same or source.dirty or source.orphan or source.base != version:
            return None
        node = self._tree.nodes.find(source.ino)
        resource = None if node is None else self._tree.known_resource(node)
        if resource is not None and resource.extra(XATTRS) is not None:
            return None  # the copy would have them too
        if node is not None and node.content is source and not node.unlinked:
            return node.path, version
        try:
            return path_from_bytes(source.path), version  # renamed since: then the tag is not there
        except BadName:
            return None

    async def _copied(self, content: Content, path: DavPath, version: Validator, staged: DavPath) -> bool:
        try:
            await self._tree.client.copy(
                path, staged, is_collection=False, overwrite=False, if_match=version.if_match
            )
            size_holds = _is_file_of(await self._look(staged), content.size_bytes)
            if size_holds and is_still(await self._look(path), version):
                log.info("%s: copied on the server", shown(path))
                return True
        except ServerRefused as error:
            self._has_copy = self._has_copy and error.status not in _NEVER
            log.info("%s: no COPY: %s", shown(path), error)
        except BaseException:
            self._sent_next_time(content)
            self._leftovers.may_appear(staged)
            raise
        self._sent_next_time(content)
        return False

    def _sent_next_time(self, content: Content) -> None:
        if len(self._vain) >= REMEMBERED_MAX:
            self._vain.clear()
        self._vain.add(content.id)

    async def _look(self, path: DavPath) -> Resource | None:
        try:
            return await self._tree.client.stat(path)
        except NotFound:
            return None


def is_pinned(client: Client, source: Content) -> bool:
    """Whether its tag proves which bytes the server has: what `guard` takes as proof for an overwrite, and
    where tags have whole seconds only what was fetched when that second was over.
    """
    version, server = source.base, client.capabilities
    if version is None or version.etag is None or source.dirty or source.orphan or not source.complete:
        return False
    if source.base_digest is not None or source.young or client.is_young(version):
        return False
    if server.coarse_tags and source.life.written:
        return False
    return not version.etag.weak or server.weak_tag_in_if


def is_still(found: Resource | None, version: Validator) -> bool:
    """Whether the server's copy is proved to be this version."""
    if found is None or found.is_collection or found.validator.if_match is None or version.etag is None:
        return False
    return found.validator.if_match.opaque == version.etag.opaque and version.same_version(found.validator)


def _is_file_of(found: Resource | None, size: int) -> bool:
    return found is not None and not found.is_collection and found.size_bytes == size


async def _same_bytes(ours: int, theirs: int, size: int, source: Content) -> bool:
    """False too as soon as a program waits to write to `source`: a large one is not forked for that."""
    for start in range(0, size, AT_ONCE):
        if source.waiting:
            return False
        end = min(start + AT_ONCE, size)
        if not await trio.to_thread.run_sync(_same_part, ours, theirs, start, end):
            return False
    return True


def _same_part(ours: int, theirs: int, start: int, end: int) -> bool:
    at = start
    while at < end:
        want = min(PIECE, end - at)
        left, right = os.pread(ours, want, at), os.pread(theirs, want, at)
        if len(left) != want or left != right:
            return False
        at += want
    return True
