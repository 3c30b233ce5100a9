"""The life of one cached file, as counters, and what must happen next. Pure.

`written` counts the changes programs made, `sent` is `written` as it was when the last PUT began,
`acked` is `sent` of the last PUT known to be on the server: written >= sent >= acked. `unknown` says
that a PUT was begun and its outcome was never learned (crash, cut connection, cancelled): without that bit a
PUT that lands late makes the next If-Match conflict with ourselves.

`next_step` decides; `upload.py` performs. The decision looks only at the life, at the version of the
server's copy that ours is based on, and at what a look-up just found.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum, auto
from hashlib import blake2b
from typing import Final

from davfs.dav.resource import ETag, Resource, Validator

DIGEST_BYTES: Final = 16
UNANSWERED_MAX: Final = 8
_BODY: Final = struct.Struct(f"<Q{DIGEST_BYTES}s")


@dataclass(frozen=True, slots=True)
class Life:
    written: int = 0
    sent: int = 0
    acked: int = 0
    unknown: bool = False

    @property
    def dirty(self) -> bool:
        """Holds something that is not known to be on the server."""
        return self.written > self.acked or self.unknown

    def wrote(self) -> Life:
        return Life(self.written + 1, self.sent, self.acked, self.unknown)  # replace() takes 3 us

    def put_begins(self) -> Life:
        return replace(self, sent=self.written, unknown=True)

    def put_succeeded(self) -> Life:
        return replace(self, acked=self.sent, unknown=False)

    def put_refused(self) -> Life:
        """The server said no: what it holds is what it held before."""
        return replace(self, sent=self.acked, unknown=False)

    def found_unapplied(self) -> Life:
        """A look-up showed that what we hold now is not on the server."""
        return replace(self, sent=self.acked, unknown=False)


@dataclass(frozen=True, slots=True)
class Unanswered:
    """What PUTs carried whose outcome was never learned: any of them may have landed, or land yet.

    Pairs of (size in bytes, digest), the newest eight.
    """

    bodies: tuple[tuple[int, bytes], ...] = ()

    def with_body(self, size: int, digest: bytes) -> Unanswered:
        kept = tuple(body for body in self.bodies if body[1] != digest)
        return Unanswered((*kept, (size, digest))[-UNANSWERED_MAX:])

    def with_older(self, others: Unanswered) -> Unanswered:
        """`others` were sent by another file; what this one sent is kept rather."""
        kept = tuple(body for body in others.bodies if body not in self.bodies)
        return Unanswered((*kept, *self.bodies)[-UNANSWERED_MAX:])

    def without(self, digest: bytes) -> Unanswered:
        return Unanswered(tuple(body for body in self.bodies if body[1] != digest))

    @property
    def sizes(self) -> set[int]:
        return {size for size, _ in self.bodies}

    def has(self, digest: bytes) -> bool:
        return any(digest == other for _, other in self.bodies)

    def to_bytes(self) -> bytes:
        return b"".join([_BODY.pack(size, digest) for size, digest in self.bodies]) if self.bodies else b""

    @classmethod
    def from_bytes(cls, raw: bytes) -> Unanswered:
        """Raises ValueError on bytes that `to_bytes` cannot have written."""
        if len(raw) % _BODY.size:
            raise ValueError("not a list of bodies")
        return cls(tuple(_BODY.iter_unpack(raw)))


def tag_digest(etag: ETag) -> bytes:
    """Stands among the digests of bodies for one whose tag on the server was known before it got its name."""
    return blake2b(
        b"tag\0" + etag.opaque.encode("utf-8", "surrogateescape"), digest_size=DIGEST_BYTES
    ).digest()


class Step(Enum):
    NOTHING = auto()  # the server has it all
    LOOK_UP = auto()  # ask what the server holds (PROPFIND Depth 0)
    PUT_NEW = auto()  # If-None-Match: *
    PUT_OVER = auto()  # over the base: how that is made sure is `guard`'s
    COMPARE = auto()  # the server's bytes may be ours: fetch and compare, equal is acked, else a conflict
    CONFLICT = auto()  # somebody else changed it: both survive


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What a look-up found; `resource` None means: nothing there."""

    resource: Resource | None


@dataclass(frozen=True, slots=True)
class Next:
    step: Step
    if_match: ETag | None = None


def next_step(
    life: Life,
    base: Validator | None,
    found: LookedUp | None,
    *,
    our_sizes: Collection[int],
    longest_part: int = -1,
) -> Next:
    """What to do for this file. `base` None: the server had no such file when ours was made.

    `our_sizes`: what our file holds now and what unanswered PUTs held, in bytes; only a server copy
    of such a size can be ours. `longest_part`: or of a smaller one, where the server keeps what it got of a
    PUT that was cut off.
    """
    if not life.dirty:
        return Next(Step.NOTHING)
    if found is None:
        return _without_evidence(life, base)
    if found.resource is None:
        # Never sent, or somebody deleted it: a deletion loses against an edit.
        return Next(Step.PUT_NEW)
    if found.resource.is_collection:
        return Next(Step.CONFLICT)
    if base is not None and base.same_version(found.resource.validator):
        return Next(Step.PUT_OVER, found.resource.validator.if_match)
    size = found.resource.size_bytes
    if size is None or size in our_sizes or size <= longest_part:
        return Next(Step.COMPARE)
    return Next(Step.CONFLICT)


def _without_evidence(life: Life, base: Validator | None) -> Next:
    if life.unknown:
        return Next(Step.LOOK_UP)
    if base is None:
        return Next(Step.PUT_NEW)
    # Where the tag is no proof, whoever makes the overwrite conditional looks right before it (`guard`).
    return Next(Step.PUT_OVER, base.if_match)
