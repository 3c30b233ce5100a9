"""How far a file is from being on the server: the one table of states, and what is known of a failure.

`davfs status`, `davfs pending`, the attribute `user.davfs.state` and docs/SEMANTICS.md use these names. A
failure is counted as Linux counts writeback errors (errseq_t): it has a serial, every handle remembers up to
which serial its program was told, and a mark says whether anybody was told. So each program learns of it
once, and a program that comes later learns only what nobody knows yet.

Pure: no I/O, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from davfs.errors import DavfsError


class State(StrEnum):
    """What a person is told of one file."""

    meaning: str

    def __new__(cls, word: str, meaning: str) -> State:
        member = str.__new__(cls, word)
        member._value_ = word
        member.meaning = meaning
        return member

    CLEAN = "clean", "the server has it"
    WAITING = "waiting", "will be sent soon"
    SENDING = "sending", "is on its way"
    FAILED = "failed", "could not be sent for now; tried again by itself"
    REFUSED = "refused", "the server said no; it stays here, and is tried again rarely or by `pending retry`"
    CONFLICT = "conflict", "on the server, beside a version that somebody else made"


def state_of(*, dirty: bool, sending: bool, failure: Failure | None, is_conflict_copy: bool) -> State:
    """The first that holds, from the top: what happens now counts more than what happened."""
    if not dirty:
        return State.CONFLICT if is_conflict_copy else State.CLEAN
    if sending:
        return State.SENDING
    if failure is None:
        return State.WAITING
    return State.FAILED if failure.passes else State.REFUSED


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a file is not on the server."""

    serial: int
    errno: int
    text: str
    passes: bool  # trying again helps by itself: a line that is down, a server that is busy
    written: int  # the life's counter of what could not be sent
    seen: bool = False  # somebody was told

    def is_repeated_by(self, error: DavfsError, written: int) -> bool:
        """The same bytes, for the same reason: nothing that a program was not told before."""
        return (self.errno, self.written) == (error.errno, written)

    def is_news_at_open(self) -> bool:
        """Whether the next program that opens the file for writing is told.

        Not of what passes by itself: while the server is away, files are edited and queued.
        """
        return not (self.seen or self.passes)


def told_at_open(failure: Failure | None) -> int:
    """Up to which serial a new handle counts as told: what nobody was told is still to come."""
    if failure is None:
        return 0
    return failure.serial if failure.seen else failure.serial - 1
