"""Names under which a version stands that nobody here has read, in place of one that was known here.

After a conflict theirs has the name. A program that goes on to replace the whole file (rename over it,
O_TRUNC) knows what it last read or wrote, not theirs: that is then the version its PUT may replace, so the
server refuses, and both survive again. It ends when a program opens theirs to read it, removes it, or ours is
on the server again. Kept by inode number, which is the same after a forget; in memory only.
"""

from __future__ import annotations

from dataclasses import dataclass

from davfs.dav.resource import Validator
from davfs.fs.content import Content


@dataclass(frozen=True, slots=True)
class Seen:
    """The version that was known here; None: there was no file."""

    version: Validator | None = None
    digest: bytes | None = None


class Unread:
    def __init__(self) -> None:
        self._seen: dict[int, Seen] = {}

    def replaced(self, ino: int, ours: Content | None) -> None:
        """Another version took the name of ours; what ours was made from is the last that was seen there."""
        seen = Seen(ours.base, ours.base_digest) if ours is not None else Seen()
        self._seen.setdefault(ino, seen)

    def seen(self, ino: int) -> Seen | None:
        """What a program here knew last, where that is not what stands there now."""
        return self._seen.get(ino)

    def over(self, ino: int) -> None:
        self._seen.pop(ino, None)
