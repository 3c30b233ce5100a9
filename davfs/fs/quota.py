"""Room on the server: what it last said, less what we have taken since, so that a write is refused early.

The quota (RFC 4331) is asked for in the background: at the mount, for `df`, and when writing comes near to
what is left; a share with plenty of room is not asked again for each write. Nothing waits for it, and what is
not known, or known too long ago, refuses nothing. What is unsent here is counted in `growth`.

The errno is ENOSPC. The Linux NFS client says what the server said (NFS4ERR_NOSPC or NFS4ERR_DQUOT), and
does not refuse by itself; `quota-available-bytes` is the smaller of disk and quota (RFC 4331, 3) and does not
tell which, so EDQUOT would be a guess, and `df` shows the same zero that ENOSPC speaks of.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

from davfs.dav.client import Client
from davfs.dav.resource import Quota, Validator
from davfs.errors import DavfsError, PosixError
from davfs.fs.growth import Growth, growth

LIFETIME_S: Final = 30.0  # for df, and for writing when little is left
REFUSING_S: Final = 2.0  # an answer that refuses is asked for again after this: space may have been freed
TRUSTED_S: Final = 120.0  # an older answer refuses nothing
PLENTY_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Answer:
    quota: Quota
    asked_s: float
    begun: int  # Growth.begun when it was asked for


class Allowance:
    def __init__(self, client: Client, taken: Growth) -> None:
        self._client = client
        self._taken = taken
        self._answer: Answer | None = None
        self._asked_s = float("-inf")
        self._wanted = trio.Event()

    async def run(self) -> None:
        """The task that asks, for ever."""
        while True:
            self._asked_s, begun = trio.current_time(), self._taken.begun
            self._wanted = trio.Event()
            with suppress(DavfsError):  # then what was known goes on to hold, until it is too old
                self._answer = Answer(await self._client.quota(), self._asked_s, begun)
            await self._wanted.wait()

    def quota(self) -> Quota:
        """The last answer, for df; asked for again in the background when it is old."""
        self._ask_after(LIFETIME_S)
        return self._answer.quota if self._answer is not None else Quota()

    def check(self, size_bytes: int, new_size_bytes: int, base: Validator | None) -> None:
        """Raises PosixError(ENOSPC) when a file cannot grow to this for want of room on the server."""
        answer = self._answer
        if answer is None or answer.quota.available_bytes is None:
            return
        more = growth(new_size_bytes, base) - growth(size_bytes, base)
        if more <= 0:
            return
        left = answer.quota.available_bytes - self._taken.unsent - (self._taken.begun - answer.begun)
        if left - more > PLENTY_BYTES:
            return
        self._ask_after(LIFETIME_S)
        if more <= left:
            return
        self._ask_after(REFUSING_S)
        if trio.current_time() - answer.asked_s < TRUSTED_S:
            raise PosixError(errno.ENOSPC, f"the server has room for {max(0, left)} bytes more")

    def _ask_after(self, age_s: float) -> None:
        if trio.current_time() - self._asked_s >= age_s:
            self._wanted.set()
