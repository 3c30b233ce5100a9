"""The retry policy and Retry-After."""

from __future__ import annotations

import pytest

from davfs.dav.retry import ONCE, PATIENT, retry_after_s
from davfs.errors import Busy, DavfsError, Disconnected, Forbidden, NotFound


def test_waits_grow_and_end() -> None:
    """0.2, 0.4, 0.8 s at most, halved at least, and then the error stands."""
    error = Disconnected("x")
    longest = [PATIENT.wait_s(error, failures=n, left_s=30, dice=0.0) for n in (1, 2, 3, 4)]
    assert longest == [0.2, 0.4, 0.8, None]
    assert PATIENT.wait_s(error, failures=1, left_s=30, dice=0.999) == pytest.approx(0.1, abs=0.001)


@pytest.mark.parametrize("error", [NotFound("x"), Forbidden("x"), DavfsError("x")])
def test_a_final_answer_is_not_asked_again(error: DavfsError) -> None:
    """What a repetition cannot change is not repeated."""
    assert PATIENT.wait_s(error, failures=1, left_s=30, dice=0.5) is None


def test_retry_after_is_obeyed_or_not_waited_for() -> None:
    """The server's wait is kept when it fits before the deadline; else the error comes at once."""
    busy = Busy("x", status=503, retry_after_s=5.0)
    assert PATIENT.wait_s(busy, failures=1, left_s=30, dice=0.5) == 5.0
    assert PATIENT.wait_s(busy, failures=1, left_s=4, dice=0.5) is None
    assert ONCE.wait_s(busy, failures=1, left_s=30, dice=0.5) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("Sat, 21 Nov 2026 02:19:01 GMT", 41.0),
        ("Sat, 21 Nov 2020 02:19:01 GMT", 0.0),
        ("-5", None),
        ("soon", None),
        ("9" * 400, None),
        (None, None),
    ],
)
def test_retry_after_forms(text: str | None, seconds: float | None) -> None:
    """Seconds, a date, or nothing that can be used."""
    assert retry_after_s(text, now_s=1795227500) == seconds
