"""How a status looks to a person."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from davfs.commands.progress import in_words
from davfs.commands.status import fact, show_one
from davfs.commands.words import human_size, human_time

STATUS = {
    "url": "https://h/dav/",
    "mountpoint": "/mnt",
    "pid": 12,
    "uptime_s": 3725.2,
    "link": "up",
    "cache": {"bytes": 1536, "files": 2},
    "requests": {"PROPFIND": 3, "GET": 1},
    "pending": [{"path": "/a[red]\x1b[2J", "size": 2048, "state": "dirty", "error": None}],
    "failed": [],
    "surprise_bytes": 2**20,
    "later": {"deep": {"er": True}},
}


def shown(status: Mapping[str, object]) -> str:
    out = io.StringIO()
    show_one(status, Console(file=out, width=200, markup=False, highlight=False, emoji=False))
    return out.getvalue()


def test_the_facts_are_told_in_words() -> None:
    """Sizes, times and counts are readable, and keys nobody knew are shown too."""
    text = shown(STATUS)
    for part in (
        "https://h/dav/ on /mnt",
        "1 h 2 min 5 s",
        "bytes 1.5 KiB",
        "PROPFIND 3, GET 1",
        "pending   1",
        "2.0 KiB",
    ):
        assert part in text
    assert "surprise  1.0 MiB" in text
    assert "deep er yes" in text


def test_a_hostile_name_moves_no_cursor() -> None:
    """A file name is neither markup nor a control sequence."""
    text = shown(STATUS)
    assert "/a[red]\\x1b[2J" in text
    assert "\x1b" not in text


def test_a_long_list_is_cut_and_says_so() -> None:
    """People see the first fifty; programs use --json."""
    many = {"pending": [{"path": f"/{index}", "size": 1} for index in range(60)]}
    assert "pending  60" in shown(many)
    assert "10 more" in shown(many)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(), json_values)
def test_any_value_can_be_shown(key: str, value: object) -> None:
    """Whatever another version of the daemon says, it becomes text without control characters."""
    assert fact(key, value).isprintable()


@given(st.dictionaries(st.sampled_from(["pending", "failed", "x", "a_s"]), json_values))
def test_any_status_can_be_shown(status: dict[str, object]) -> None:
    """The command does not fail on what it does not expect."""
    shown(status)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**40, "5.0 TiB")]
)
def test_sizes(size: int, text: str) -> None:
    """Binary units with one digit."""
    assert human_size(size) == text


@pytest.mark.parametrize(("duration_s", "text"), [(0.25, "0.25 s"), (61, "1 min 1 s"), (90000, "1 d 1 h")])
def test_times(duration_s: float, text: str) -> None:
    """The units that are there, the largest first."""
    assert human_time(duration_s) == text


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"files": 1, "bytes": 2048}, "sending: 1 file, 2.0 KiB left"),
        (
            {"files": 3, "bytes": 0, "stuck": 2},
            "sending: 3 files, 0 B left, 2 of them could not be sent yet",
        ),
    ],
)
def test_the_progress_is_one_line(answer: Mapping[str, object], text: str) -> None:
    """How much is left, and how much of it is in trouble."""
    assert in_words(answer) == text
