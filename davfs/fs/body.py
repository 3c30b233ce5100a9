"""Request bodies that are files of the cache: read as they are sent, and known again by their digest.

A body is a factory: each iteration starts anew, as a 401 may ask for. Nothing here talks to the server.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

from davfs.dav.resource import ETag, Resource
from davfs.errors import DavfsError
from davfs.fs.content import FORK_MAX, Content, new_digest
from davfs.fs.guard import SMALL_NEW
from davfs.fs.lifecycle import Unanswered

BODY_PIECE: Final = 128 * 1024  # what the wire sends at once
SUM_PIECE: Final = 4 << 20
SUM_S: Final = 10.0  # what is longer than that stays unsummed: then only the same bytes are known again
NOTHING_BEFORE: Final = Unanswered()


class FileBody:
    """A request body: the file as it was when the PUT began. Iterable again from the start.

    `digest` is known of a small file, which a fork may change meanwhile, when all of it was read. Of a large
    one, which nobody changes while it is sent, it costs more than sending: `sum_up` makes it, if need be.
    """

    def __init__(self, fd: int, size_bytes: int, *, before: Unanswered = NOTHING_BEFORE) -> None:
        self.file = fd
        self._size = size_bytes
        self._passed = 0
        self.mtime_s: int | None = None  # the time that went along
        self.before = before  # what earlier PUTs carried that may still land
        self.whole: bytes | None = None  # of a small one, when it was read
        self.digest = None if size_bytes else new_digest().digest()
        self.tag: ETag | None = None  # under a temporary name of ours: no other bytes have it
        self.is_out = not size_bytes  # all of it was handed to the connection
        self.checksum: str | None = None  # to send along

    @property
    def size_bytes(self) -> int:
        return self._size

    @property
    def fd(self) -> int | None:
        """Where the kernel may send it from."""
        return self.file if self._size > FORK_MAX else None

    @property
    def sent_bytes(self) -> int:
        """How much of it the connection has taken."""
        return self._size if self.is_out else self._passed

    @property
    def proof(self) -> bytes | None:
        """What its bytes are known by, where the tag is no proof."""
        return self.digest

    def is_stored_as(self, resource: Resource) -> bool:
        """Whether this may be it on the server."""
        return not resource.is_collection and resource.size_bytes == self._size

    def is_version(self, etag: ETag | None) -> bool:
        """Whether it is known by this very tag."""
        return same_tag(self.tag, etag)

    def sent_up_to(self, size_bytes: int) -> None:
        self._passed = size_bytes
        self.is_out = self.is_out or size_bytes == self._size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        at, summed = 0, new_digest() if self.fd is None else None
        self._passed = 0
        while at < self._size:
            piece = os.pread(self.file, min(BODY_PIECE, self._size - at), at)
            if not piece:
                raise DavfsError("the cached file is shorter than it was")
            at += len(piece)
            if summed is not None:
                summed.update(piece)
            if at == self._size:
                self.is_out = True
                self.digest = summed.digest() if summed is not None else None
                self.whole = piece if len(piece) == at <= SMALL_NEW else None
            yield piece
            self._passed = at

    async def sum_up(self) -> None:
        """The digest of a body that is out, also while being cancelled: after that the bytes may change."""
        if not self.is_out or self.digest is not None:
            return
        summed, at = new_digest(), 0
        with trio.move_on_after(SUM_S, shield=True), suppress(OSError, DavfsError):
            while at < self._size:
                at += await trio.to_thread.run_sync(self._add_to, summed, at)
            self.digest = summed.digest()

    def _add_to(self, summed: hashlib.blake2b, at: int) -> int:
        piece = os.pread(self.file, min(SUM_PIECE, self._size - at), at)
        if not piece:
            raise DavfsError("the cached file is shorter than it was")
        summed.update(piece)
        return len(piece)


@dataclass(frozen=True, slots=True)
class OnItsWay:
    """A file whose PUT runs."""

    content: Content
    body: FileBody
    begun_s: float


def same_tag(one: ETag | None, other: ETag | None) -> bool:
    """Whatever their strength: Apache's becomes strong after a second or two (servers.md 10)."""
    return one is not None and other is not None and one.opaque == other.opaque
