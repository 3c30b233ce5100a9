"""When a failed upload comes again by itself."""

from __future__ import annotations

import pytest

from davfs.errors import DavfsError, Disconnected, PosixError, ProtocolError, StaleVersion, TimedOut, refused
from davfs.fs.retrying import next_try_s

HOUR_S = 3600.0


def waits(error: DavfsError, count: int) -> list[float]:
    return [next_try_s(error, attempts) for attempts in range(1, count + 1)]


def answer(status: int, retry_after_s: float | None = None) -> DavfsError:
    return refused("PUT", status, "/f", retry_after_s=retry_after_s)


@pytest.mark.parametrize(
    "error", [Disconnected("x"), TimedOut("x"), *map(answer, (408, 425, 429, 500, 502, 503, 504, 599))]
)
def test_what_passes_by_itself_comes_soon(error: DavfsError) -> None:
    """A second, doubling, never more than a minute: a server that restarts has the files soon after."""
    assert waits(error, 8) == [1, 2, 4, 8, 16, 32, 60, 60]
    assert next_try_s(error, 10_000) == 60


@pytest.mark.parametrize(
    "error", [*map(answer, (401, 407, 423, 424, 507)), ProtocolError("x"), PosixError(28)]
)
def test_what_others_can_settle_comes_later(error: DavfsError) -> None:
    """A lock, a full disk, a password: from a minute to a quarter of an hour."""
    assert waits(error, 6) == [60, 120, 240, 480, 900, 900]


@pytest.mark.parametrize(
    "error",
    [*map(answer, (400, 403, 404, 405, 411, 413, 414, 415, 416, 422, 431, 501, 505)), StaleVersion("x")],
)
def test_a_refusal_of_this_file_is_not_hammered(error: DavfsError) -> None:
    """An hour, then six: the same bytes get the same answer."""
    assert waits(error, 4) == [HOUR_S, 6 * HOUR_S, 6 * HOUR_S, 6 * HOUR_S]


@pytest.mark.parametrize("dice", [0.0, 0.5, 0.999])
def test_retry_after_is_never_cut_short(dice: float) -> None:
    """What the server asked for is waited for, whatever the dice say; also with a refusal."""
    for status, asked_s, attempts in ((503, 300, 1), (429, 300, 5), (413, 300, 1), (423, 86_400, 1)):
        waited_s = next_try_s(answer(status, asked_s), attempts, dice=dice)
        assert asked_s <= waited_s <= asked_s + 60


def test_retry_after_zero_is_no_licence_to_hammer() -> None:
    """The own waits stay the least."""
    assert [next_try_s(answer(503, 0), attempts) for attempts in (1, 7)] == [1, 60]
    assert [next_try_s(answer(403, 0), attempts) for attempts in (1, 5)] == [60, 900]


def test_files_that_failed_together_do_not_come_back_together() -> None:
    """The dice add up to a quarter, and at most a minute."""
    assert next_try_s(answer(503), 7, dice=0.5) == 67.5
    assert 74.9 < next_try_s(answer(503), 7, dice=0.999) < 75
    assert HOUR_S <= next_try_s(answer(403), 1, dice=0.999) < HOUR_S + 60
