"""Series of small files: which orders are seen, how far ahead is fetched, and when it ends."""

from __future__ import annotations

import pytest

from davfs.fs.series import (
    BYTES_AHEAD_MAX,
    STRIKES_MAX,
    WINDOW_FIRST,
    WINDOW_MAX,
    Key,
    Order,
    Series,
    order_of,
)

SMALL = 1000


def asked(series: Series, size: int | None = SMALL) -> list[str]:
    found = []
    while (key := series.next(lambda _key: size)) is not None:
        found.append(key[1])
    return found


def series_of(count: int) -> tuple[Series, list[Key]]:
    series = Series(Order.LISTING)
    names = [f"f{number:03d}" for number in range(count)]
    series.extend(1, names)
    return series, [(1, name) for name in names]


@pytest.mark.parametrize(
    ("first", "second", "order"),
    [
        ("b", "a", Order.LISTING),
        ("B", "a", Order.NAME),
        ("a", "B", Order.CASELESS),
        ("c", "b", Order.NUMBER),
        ("c", "a", None),
        ("a", "gone", None),
    ],
)
def test_orders(first: str, second: str, order: Order | None) -> None:
    """Two names one right after the other, in one of the orders that programs use."""
    listing = [("b", 3), ("a", 1), ("x", 4), ("B", 9), ("c", 2)]
    assert order_of(first, second, listing) is order


def test_the_window_grows_while_the_program_waits() -> None:
    """4, 16, 64 files; not when they are there in time."""
    series, keys = series_of(300)
    assert len(asked(series)) == WINDOW_FIRST
    series.opened(keys[0])
    assert series.window == 4 * WINDOW_FIRST
    for key in keys[1:5]:
        series.opened(key)
    assert series.window == WINDOW_MAX
    asked(series)
    series.arrived(keys[5])
    series.window = 10
    series.opened(keys[5])
    assert series.window == 10


def test_the_bytes_are_bounded() -> None:
    """16 MiB of what nobody has opened yet."""
    series, keys = series_of(300)
    for key in keys[:6]:
        series.opened(key)
    assert len(asked(series, 512 * 1024)) == BYTES_AHEAD_MAX // (512 * 1024)


def test_large_files_are_left_out_and_do_not_end_it() -> None:
    """The program opens them like the others."""
    series, keys = series_of(20)
    assert asked(series, None) == []
    for key in keys:
        series.opened(key)
    assert not series.is_over


def test_a_series_that_is_left_stops() -> None:
    """A program that opens other files three times in a row is not followed any more."""
    series, _keys = series_of(300)
    asked(series)
    for number in range(STRIKES_MAX):
        assert not series.is_over
        series.opened((1, f"other {number}"))
    assert series.is_over
    assert asked(series) == []


def test_what_is_passed_by_shrinks_the_window_and_ends_it() -> None:
    """A program that opens every fourth file: most of what is fetched is for nothing."""
    series, keys = series_of(300)
    for key in keys[::4]:
        asked(series)
        series.opened(key)
        if series.is_over:
            break
    assert series.is_over
    assert series.window < WINDOW_MAX


def test_programs_with_many_threads_open_a_little_out_of_order() -> None:
    """Four at a time, in any order among them: nothing is lost."""
    series, keys = series_of(200)
    for start in range(0, 200, 4):
        asked(series)
        for at in (2, 0, 3, 1):
            series.arrived(keys[start + at])
            series.opened(keys[start + at])
    assert not series.is_over
    assert series.ahead == 0


def test_what_found_no_lane_comes_again_and_what_failed_does_not() -> None:
    """Refused: the next one again. Failed: left to the program."""
    series, keys = series_of(10)
    assert asked(series) == ["f000", "f001", "f002", "f003"]
    series.failed(keys[0])
    series.refused(keys[2])
    assert asked(series) == ["f002", "f004"]


def test_it_goes_on_into_the_next_folder() -> None:
    """When a folder's files are all asked for and there is room, the next folder's come."""
    series, keys = series_of(2)
    assert asked(series) == ["f000", "f001"]
    assert series.wants_more
    series.extend(2, ["g"])
    assert asked(series) == ["g"]
    series.opened(keys[0])
    series.opened(keys[1])
    series.opened((2, "g"))
    assert not series.is_over
    assert series.ahead == 0
