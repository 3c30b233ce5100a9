"""The states a person is told, and which failure is news to whom."""

from __future__ import annotations

import itertools

import pytest

from davfs.errors import DavfsError, PosixError, Unreachable, refused
from davfs.fs.states import Failure, State, state_of, told_at_open


def failure(error: DavfsError, *, serial: int = 7, written: int = 3, seen: bool = False) -> Failure:
    return Failure(serial, error.errno, str(error), error.retry_helps, written, seen)


TOO_LARGE = refused("PUT", 413, "/f")
AWAY = Unreachable("no route")


def test_every_state_is_said_of_exactly_one_situation() -> None:
    """What is clean is clean whatever happened before; what is on its way is not called failed."""
    said: dict[State, int] = {}
    for dirty, sending, failed, copy in itertools.product(
        (False, True), (False, True), (None, TOO_LARGE, AWAY), (False, True)
    ):
        state = state_of(
            dirty=dirty,
            sending=sending,
            failure=failure(failed) if failed else None,
            is_conflict_copy=copy,
        )
        said[state] = said.get(state, 0) + 1
        assert (state in {State.CLEAN, State.CONFLICT}) is not dirty
        assert (state is State.SENDING) is (dirty and sending)
    assert said == {
        State.CLEAN: 6,
        State.CONFLICT: 6,
        State.SENDING: 6,
        State.WAITING: 2,
        State.FAILED: 2,
        State.REFUSED: 2,
    }


def test_the_same_refusal_of_the_same_bytes_is_no_news() -> None:
    """Other bytes, or another reason, are."""
    known = failure(TOO_LARGE)
    assert known.is_repeated_by(TOO_LARGE, 3)
    assert not known.is_repeated_by(TOO_LARGE, 4)
    assert not known.is_repeated_by(refused("PUT", 507, "/f"), 3)


@pytest.mark.parametrize(
    ("error", "seen", "news"),
    [(TOO_LARGE, False, True), (TOO_LARGE, True, False), (AWAY, False, False), (AWAY, True, False)],
)
def test_a_writer_is_told_at_open_what_nobody_knows(error: DavfsError, *, seen: bool, news: bool) -> None:
    """And never that the server is away: then files are edited and queued."""
    assert failure(error, seen=seen).is_news_at_open() is news


def test_a_new_handle_has_heard_what_somebody_was_told() -> None:
    """As errseq_sample in Linux: what nobody was told is still to come for it."""
    assert told_at_open(None) == 0
    assert told_at_open(failure(PosixError(28), seen=True)) == 7
    assert told_at_open(failure(PosixError(28))) == 6
