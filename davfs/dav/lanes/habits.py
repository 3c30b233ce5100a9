"""What a server does with bodies, learned from its answers, and what follows for the next upload. Pure.

Servers differ in whether they say no before the body (servers.md 24, tables 8a-8c):
- Apache, nginx, lighttpd, rclone answer `Expect: 100-continue` with the final status: the body stays here.
- sabre/php, WsgiDAV, npm say 100 first and refuse after the whole body: only a pre-flight helps.
- `php -S` never answers the Expect: waiting has to end, and is not tried again for a while.
- Some answer 417.

Every change is a method with a name; every decision is a function of values.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from davfs.dav.auth import Standing

EXPECT_FROM_BYTES: Final = 64 * 1024  # below, a body is on its way in fewer round trips than the question
PREFLIGHT_FROM_BYTES: Final = 1024 * 1024  # above, one small request costs little beside the body
PARENT_FROM_BYTES: Final = 8 * 1024 * 1024  # and above this, two
_FIRST_WAIT_S: Final = 1.0  # servers.md 24: php -S never answers
_TRUSTED_WAIT_S: Final = 5.0  # it has answered before: it is only slow (Nextcloud: 0.5 s for a password)
_ASK_AGAIN_S: Final = 600.0


class Expect(enum.Enum):
    UNKNOWN = enum.auto()
    HONOURED = enum.auto()
    IGNORED = enum.auto()
    REFUSED = enum.auto()  # 417


@dataclass(slots=True)
class Habits:
    """Of one server."""

    expect: Expect = Expect.UNKNOWN
    expect_since_s: float = 0.0
    refused_early: set[int] = field(default_factory=set)  # statuses that came before the body
    refused_late: set[int] = field(default_factory=set)  # statuses that came after 100 or after the body
    probe_verb: str = "PROPFIND"  # HEAD where PROPFIND is refused

    def note_expect(self, expect: Expect, now_s: float) -> None:
        if expect is Expect.IGNORED and self.expect is Expect.HONOURED:
            return  # slow once; it does know the word
        self.expect, self.expect_since_s = expect, now_s

    def note_refusal(self, status: int, *, is_late: bool) -> None:
        (self.refused_late if is_late else self.refused_early).add(status)

    def note_probe(self, status: int) -> bool:
        """True when the probe should be asked again with another verb."""
        if self.probe_verb == "PROPFIND" and status in (400, 405, 501):
            self.probe_verb = "HEAD"
            return True
        return False

    def asks_expect(self, size_bytes: int, now_s: float) -> bool:
        if size_bytes < EXPECT_FROM_BYTES:
            return False
        is_worthwhile = self.expect in (Expect.UNKNOWN, Expect.HONOURED)
        return is_worthwhile or now_s - self.expect_since_s > _ASK_AGAIN_S

    @property
    def expect_wait_s(self) -> float:
        return _TRUSTED_WAIT_S if self.expect is Expect.HONOURED else _FIRST_WAIT_S


def preflight_needed(
    size_bytes: int,
    standing: Standing,
    habits: Habits,
    *,
    is_conditional: bool,
    is_settled: bool = False,
    is_known: bool = False,
) -> bool:
    """Must a request without a body go first, on the lane that will carry the upload?

    Whatever the size, when the next request may be answered 401: a handshake with an empty PUT truncates
    files. With proved credentials only large bodies, on servers that are not known to refuse in time.
    `is_settled`: a pre-flight of this very upload was answered on another lane. `is_known`: whoever uploads
    knows what is there, so only the credentials are left to ask about.
    """
    if standing is Standing.FRESH_LANE:
        return True
    if is_settled:
        return False
    if standing is not Standing.PROVED:
        return True
    return (
        not is_known
        and size_bytes >= PREFLIGHT_FROM_BYTES
        and _may_refuse_late(habits, is_conditional=is_conditional)
    )


def parent_needed(size_bytes: int, status: int, habits: Habits) -> bool:
    """Must the folder of a new file be asked for too? It may be gone (409), and it knows the quota (507)."""
    is_new = status in (404, 410)
    knows = habits.expect is Expect.HONOURED and 409 in habits.refused_early and not habits.refused_late
    return is_new and size_bytes >= PARENT_FROM_BYTES and not knows


def _may_refuse_late(habits: Habits, *, is_conditional: bool) -> bool:
    """A 100 proves nothing: WsgiDAV and sabre/php say it to anybody. A refusal before the body does.

    lighttpd is in time with 409 and 423, but late with 412: each kind has to be seen.
    """
    if habits.expect is not Expect.HONOURED or habits.refused_late:
        return True
    kinds = {412} if is_conditional else {409, 423}
    return not habits.refused_early & kinds
