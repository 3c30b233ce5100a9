"""RangeSet against a plain set of integers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfs.fs.ranges import RangeSet

END = 40  # small enough that extents meet, touch and swallow one another all the time
extents = st.tuples(st.integers(0, END), st.integers(0, END))
changes = st.lists(st.tuples(st.sampled_from(["add", "remove"]), extents), max_size=12)


def built(history: list[tuple[str, tuple[int, int]]]) -> tuple[RangeSet, set[int]]:
    ranges, model = RangeSet(), set[int]()
    for change, (start, end) in history:
        if change == "add":
            ranges.add(start, end)
            model |= set(range(start, end))
        else:
            ranges.remove(start, end)
            model -= set(range(start, end))
    return ranges, model


def bytes_in(extents: list[tuple[int, int]]) -> list[int]:
    return [byte for start, end in extents for byte in range(start, end)]


@given(changes)
def test_it_holds_what_was_added_and_not_removed(history: list[tuple[str, tuple[int, int]]]) -> None:
    """The extents are the bytes of the set: in order, none empty, none touching."""
    ranges, model = built(history)
    listed = list(ranges)
    assert bytes_in(listed) == sorted(model)
    assert all(start < end for start, end in listed)
    assert all(one[1] < two[0] for one, two in pairwise(listed))
    assert (len(ranges), ranges.total_bytes) == (len(listed), len(model))


@given(changes, extents)
def test_covers_and_missing_say_what_is_there(
    history: list[tuple[str, tuple[int, int]]], asked: tuple[int, int]
) -> None:
    """`covers` is true when every byte is there; `missing` is every byte that is not, in order."""
    ranges, model = built(history)
    wanted = set(range(*asked))
    assert ranges.covers(*asked) is (wanted <= model)
    gaps = ranges.missing(*asked)
    assert bytes_in(gaps) == sorted(wanted - model)
    assert all(start < end for start, end in gaps)
    assert all(one[1] < two[0] for one, two in pairwise(gaps))


@given(changes, st.integers(0, END))
def test_a_run_ends_at_the_first_absent_byte(history: list[tuple[str, tuple[int, int]]], start: int) -> None:
    """`run_from` is one past the last byte that is there without a gap."""
    ranges, model = built(history)
    end = start
    while end in model:
        end += 1
    assert ranges.run_from(start) == end


@given(changes)
def test_it_survives_being_stored(history: list[tuple[str, tuple[int, int]]]) -> None:
    """What `to_bytes` wrote, `from_bytes` reads back."""
    ranges, _ = built(history)
    assert RangeSet.from_bytes(ranges.to_bytes()) == ranges


@given(st.binary(max_size=80))
def test_stored_bytes_are_read_or_refused_with_value_error(raw: bytes) -> None:
    """Damaged bytes give a set in order, or ValueError, and nothing else."""
    try:
        ranges = RangeSet.from_bytes(raw)
    except ValueError:
        return
    listed = list(ranges)
    assert all(start < end for start, end in listed)
    assert listed == sorted(listed)


@pytest.mark.parametrize("size", [0, 1, 1 << 43])
def test_whole_is_every_byte(size: int) -> None:
    """A whole file of any size is one extent, or none when it is empty."""
    assert list(RangeSet.whole(size)) == ([(0, size)] if size else [])
