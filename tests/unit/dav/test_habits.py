"""What a server's answers teach, and when an upload needs a look first: the table."""

from __future__ import annotations

import pytest

from davfs.dav.auth import Standing
from davfs.dav.lanes.habits import (
    EXPECT_FROM_BYTES,
    PARENT_FROM_BYTES,
    PREFLIGHT_FROM_BYTES,
    Expect,
    Habits,
    parent_needed,
    preflight_needed,
)

_BIG = PREFLIGHT_FROM_BYTES


def _habits(
    expect: Expect = Expect.HONOURED, early: tuple[int, ...] = (), late: tuple[int, ...] = ()
) -> Habits:
    return Habits(expect, refused_early=set(early), refused_late=set(late))


@pytest.mark.parametrize("size", [0, 1, _BIG])
@pytest.mark.parametrize("standing", [Standing.FRESH_LANE, Standing.UNPROVED, Standing.OLD_NONCE])
def test_no_body_before_yes(size: int, standing: Standing) -> None:
    """Where the next answer may be 401, a look goes first, be the body empty."""
    assert preflight_needed(size, standing, _habits(), is_conditional=False)


def test_an_answered_look_is_enough_but_on_a_fresh_lane() -> None:
    """What was learned on another connection holds, except for schemes that are bound to one."""
    for standing, again in (
        (Standing.OLD_NONCE, False),
        (Standing.PROVED, False),
        (Standing.FRESH_LANE, True),
    ):
        assert preflight_needed(_BIG, standing, _habits(), is_conditional=True, is_settled=True) is again


def test_what_is_known_is_not_looked_at_again() -> None:
    """After the guard's own look, or to a name that only we use, only the credentials are asked about."""
    for standing, needed in (
        (Standing.PROVED, False),
        (Standing.OLD_NONCE, True),
        (Standing.FRESH_LANE, True),
    ):
        assert preflight_needed(_BIG, standing, _habits(), is_conditional=True, is_known=True) is needed


@pytest.mark.parametrize(
    ("size", "conditional", "habits", "needed"),
    [
        (0, True, _habits(Expect.UNKNOWN), False),
        (_BIG - 1, True, _habits(Expect.IGNORED), False),
        (_BIG, False, _habits(), True),
        (_BIG, False, _habits(early=(423,)), False),
        (_BIG, False, _habits(early=(412,)), True),
        (_BIG, True, _habits(early=(423,)), True),
        (_BIG, True, _habits(), True),
        (_BIG, True, _habits(early=(412,)), False),
        (_BIG, False, _habits(late=(401,)), True),
        (_BIG, False, _habits(Expect.UNKNOWN), True),
        (_BIG, False, _habits(Expect.IGNORED), True),
        (_BIG, False, _habits(Expect.REFUSED), True),
    ],
)
def test_with_proved_credentials(size: int, conditional: bool, habits: Habits, needed: bool) -> None:
    """Small files are one PUT; large ones are asked about where the server may refuse late."""
    assert preflight_needed(size, Standing.PROVED, habits, is_conditional=conditional) is needed


@pytest.mark.parametrize(
    ("size", "status", "habits", "needed"),
    [
        (PARENT_FROM_BYTES, 404, _habits(), True),
        (PARENT_FROM_BYTES, 207, _habits(), False),
        (PARENT_FROM_BYTES - 1, 404, _habits(), False),
        (PARENT_FROM_BYTES, 404, _habits(early=(409,)), False),
        (PARENT_FROM_BYTES, 404, _habits(early=(409,), late=(507,)), True),
    ],
)
def test_when_the_folder_is_asked_too(size: int, status: int, habits: Habits, needed: bool) -> None:
    """For large new files: it may be gone, and it knows the quota."""
    assert parent_needed(size, status, habits) is needed


def test_expect_is_asked_by_what_was_learned() -> None:
    """Not for small bodies; not of servers that ignore or refuse it, for ten minutes."""
    habits = Habits()
    assert not habits.asks_expect(EXPECT_FROM_BYTES - 1, 0.0)
    assert habits.asks_expect(EXPECT_FROM_BYTES, 0.0)
    habits.note_expect(Expect.IGNORED, 100.0)
    assert not habits.asks_expect(EXPECT_FROM_BYTES, 200.0)
    assert habits.asks_expect(EXPECT_FROM_BYTES, 701.0)
    habits.note_expect(Expect.HONOURED, 701.0)
    habits.note_expect(Expect.IGNORED, 702.0)
    assert habits.asks_expect(EXPECT_FROM_BYTES, 703.0)
    assert habits.expect_wait_s > Habits().expect_wait_s
