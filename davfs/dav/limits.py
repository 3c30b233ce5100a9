"""The largest body that a server takes, learned from what it refused and what it stored. Pure.

413 says it; IIS says 404 to a PUT over its limit, with the folder in place (peers.md 19). What was refused
is more than the limit, what was stored is not. A write that makes a file larger than that is then EFBIG
at once, instead of after an upload of gigabytes.

A wrong limit would refuse work for nothing, so: it is forgotten an hour after the last refusal, and at the
first body that contradicts it; and a refusal of a small body is no evidence (quotas and filters say 413 too).
For the same reason it is not kept over a new mount, which is how a person says "try again" after the limit
was raised: the file that was refused is still unsent, is tried first, and teaches it anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LIFETIME_S: Final = 3600.0
# The smallest limit in the field is 48 KiB: IIS that wants a client certificate (uploadReadAheadSize, 413).
# nginx has 1 MiB as shipped, PHP 2 MB, Apache 1 GiB.
SMALLEST_BYTES: Final = 32 * 1024
SMALLEST_GUESS_BYTES: Final = 1 << 20  # 404 or 409 may mean something else: then more evidence is asked for


@dataclass(frozen=True, slots=True)
class UploadLimit:
    """`refused_bytes`: the smallest body known to be too large; `stored_bytes`: the largest that was not."""

    stored_bytes: int = 0
    refused_bytes: int | None = None
    refused_s: float = 0.0

    def stored(self, size_bytes: int) -> UploadLimit:
        """After a PUT that succeeded."""
        if self.refused_bytes is not None and size_bytes >= self.refused_bytes:
            return UploadLimit(size_bytes)
        if size_bytes <= self.stored_bytes:
            return self
        return UploadLimit(size_bytes, self.refused_bytes, self.refused_s)

    def refused(self, size_bytes: int, now_s: float) -> UploadLimit:
        """After a 413, or what `is_too_large` says is one."""
        if size_bytes < SMALLEST_BYTES or size_bytes <= self.stored_bytes:
            return self
        known = self.limit_bytes(now_s)
        smallest = size_bytes if known is None else min(size_bytes, known + 1)
        return UploadLimit(self.stored_bytes, smallest, now_s)

    def limit_bytes(self, now_s: float) -> int | None:
        """The size in bytes that may still be taken; None: no limit is known."""
        if self.refused_bytes is None or now_s - self.refused_s >= LIFETIME_S:
            return None
        return self.refused_bytes - 1

    def allows(self, size_bytes: int, now_s: float) -> bool:
        limit = self.limit_bytes(now_s)
        return limit is None or size_bytes <= limit

    def is_too_large(self, status: int, size_bytes: int) -> bool:
        """Whether `status`, said to a PUT into a folder that is there, means that the body is too large."""
        if status == 413:
            return True
        return status in (404, 409) and size_bytes >= SMALLEST_GUESS_BYTES and size_bytes > self.stored_bytes
