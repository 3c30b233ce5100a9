"""All the ways in which servers write a date."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfs.dav.dates import parse_date

_AT = 1795227541  # 2026-11-21 02:19:01 UTC


@pytest.mark.parametrize(
    "text",
    [
        "Sat, 21 Nov 2026 02:19:01 GMT",
        "Sat, 21 Nov 2026 02:19:01 +0000",
        "Sat, 21 Nov 2026 04:19:01 +0200",
        "Fri, 20 Nov 2026 20:49:01 -05:30",
        "21 Nov 2026 02:19:01 GMT",
        "Saturday, 21-Nov-26 02:19:01 GMT",
        "Sat Nov 21 02:19:01 2026",
        "2026-11-21T02:19:01Z",
        "2026-11-21T02:19:01.123456+00:00",
        "2026-11-21T03:19:01+01:00",
        "2026-11-21 02:19:01",
        "  Sat, 21 Nov 2026 02:19:01 GMT\n",
    ],
)
def test_every_form(text: str) -> None:
    """The forms of peers.md, rule 1, name the same second."""
    assert parse_date(text) == _AT


def test_single_digit_days() -> None:
    """'1 Nov' and asctime's 'Nov  1' are the first."""
    first = 1793491200
    assert parse_date("Sun, 1 Nov 2026 00:00:00 GMT") == first
    assert parse_date("Sun Nov  1 00:00:00 2026") == first


@pytest.mark.parametrize(
    "text", [None, "", "never", "0", "Sat, 31 Feb 2026 02:19:01 GMT", "2026-13-01T00:00:00Z", "1" * 1000]
)
def test_a_bad_date_is_unknown(text: str | None) -> None:
    """Not 1970."""
    assert parse_date(text) is None


@given(st.text(alphabet="0123456789 :-+TZGMSatNov,./", max_size=70))
def test_no_text_raises(text: str) -> None:
    """Any text gives a number or None."""
    assert parse_date(text) is None or isinstance(parse_date(text), int)
