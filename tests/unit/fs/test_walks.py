"""Walks: when one begins, which folders come next, and how little is asked for in vain."""

from __future__ import annotations

from functools import partial

from davfs.fs.walks import ENTRIES_AHEAD_MAX, FAILURES_MAX, WINDOW_FIRST, WINDOW_MAX, Listings, Walk
from davfs.fs.walks import Path as Place


def asked(walk: Walk) -> list[Place]:
    """All that it wants to ask for now."""
    found = []
    while (path := walk.next()) is not None:
        found.append(path)
    return found


def begun(*names: str) -> Walk:
    """A walk whose program has come to the first of these."""
    walk = Walk()
    walk.learned((), names, 0)
    walk.visited((names[0],))
    return walk


def numbered(count: int) -> tuple[str, ...]:
    return tuple(f"d{number:03d}" for number in range(count))


def test_the_same_program_going_down_at_once_is_a_walk() -> None:
    """find lists a folder and a millisecond later the first one below it."""
    seen = Listings()
    seen.listed(1, 77, 10.0)
    assert seen.begins(1, "a", 77, lambda: ["a", "b"], 10.1) is not None


def test_a_person_going_down_is_no_walk() -> None:
    """ls, and ls of a sub-folder by another process or a second later: nothing follows from that."""
    seen = Listings()
    seen.listed(1, 77, 10.0)
    assert seen.begins(1, "b", 78, lambda: ["a", "b"], 10.1) is None
    assert seen.begins(1, "a", 77, lambda: ["a", "b"], 11.0) is None
    assert seen.begins(2, "a", 77, lambda: ["a", "b"], 10.0) is None, "the folder above was never listed"


def test_a_program_that_reads_files_in_between_is_still_walking() -> None:
    """grep -r reads the files of a folder before it goes down: being busy there counts."""
    seen = Listings()
    seen.listed(1, 77, 10.0)
    seen.active(1, 15.0)
    assert seen.begins(1, "a", 77, lambda: ["a", "b"], 15.1) is not None


def test_siblings_one_after_the_other_are_a_walk() -> None:
    """`for d in *; do ls $d; done`: many processes, in listing order or by name."""
    for siblings in (["c", "a", "b"], ["b", "a", "c"]):
        seen = Listings()
        seen.listed(1, 1, 0.0)
        assert seen.begins(1, "a", 2, partial(list, siblings), 5.0) is None
        assert seen.begins(1, "b", 3, partial(list, siblings), 6.0) is not None
    seen = Listings()
    seen.listed(1, 1, 0.0)
    seen.begins(1, "a", 2, lambda: ["a", "x", "b"], 5.0)
    assert seen.begins(1, "a", 3, lambda: ["a", "x", "b"], 6.0) is None


def test_the_order_is_that_of_the_program() -> None:
    """A program that begins with the first name goes on by name, else in listing order."""
    seen = Listings()
    for first, following in (("a", ["b", "c"]), ("c", ["a", "b"])):
        seen.listed(1, 7, 0.0)
        walk = seen.begins(1, first, 7, lambda: ["c", "a", "b"], 0.0)
        assert walk is not None
        walk.learned((), ["c", "a", "b"], 0)
        walk.visited((first,))
        assert asked(walk) == [(name,) for name in following]


def test_folders_come_depth_first() -> None:
    """What is below a folder comes before the next one beside it, whenever its listing arrives."""
    walk = begun("a", "b", "c")
    assert asked(walk) == [("b",), ("c",)]
    walk.learned(("c",), ["c1"], 1)
    walk.learned(("b",), ["b1", "b2"], 2)
    walk.learned(("a",), ["a1"], 1)
    assert asked(walk) == [("a", "a1"), ("b", "b1"), ("b", "b2"), ("c", "c1")]
    assert walk.coming() == [("b",), ("c",)]


def test_a_walk_that_stops_leaves_a_window_behind() -> None:
    """Without another visit nothing more is asked for, whatever arrives."""
    walk = begun(*numbered(1000))
    first = asked(walk)
    assert len(first) == walk.window == 2 * WINDOW_FIRST
    for path in first:
        walk.learned(path, [], 20)
    assert asked(walk) == []
    assert walk.ahead == 2 * WINDOW_FIRST


def test_the_window_grows_only_while_the_program_waits() -> None:
    """A program that finds everything there is far enough ahead of; one that waits gets up to 64."""
    walk = begun(*numbered(500))
    paths = asked(walk)
    for path in paths:
        walk.learned(path, [], 20)
    walk.visited(paths[0])
    assert walk.window == 2 * WINDOW_FIRST
    assert len(asked(walk)) == 1
    for number in range(50, 60):
        walk.visited((f"d{number:03d}",))
    assert walk.window == WINDOW_MAX


def test_what_is_passed_by_makes_the_window_small() -> None:
    """A program that visits every tenth folder only is not run ahead of by sixteen."""
    names = numbered(500)
    walk = begun(*names)
    for number in range(0, 200, 10):
        for path in asked(walk):
            walk.learned(path, [], 1)
        walk.visited((names[number],))
    assert walk.window < WINDOW_FIRST


def test_a_folder_of_very_many_folders_is_taken_from_where_the_program_is() -> None:
    """20,000 of them at a time; the walk begins anew after those."""
    names = [f"d{number:06d}" for number in range(50_000)]
    walk = Walk()
    walk.learned((), names, 0, first="d030000")
    assert not walk.knows(("d029999",))
    assert walk.knows(("d030000",))
    assert not walk.knows(("d049999",))


def test_memory_is_bounded() -> None:
    """Folders of many members: no more of them than 50,000 entries together."""
    walk = begun(*numbered(100))
    for path in asked(walk):
        walk.learned(path, [], ENTRIES_AHEAD_MAX)
    walk.visited(("d001",))
    assert asked(walk) == []


def test_folders_that_cannot_be_listed_end_it() -> None:
    """Three failures in a row: the program goes on by itself."""
    walk = begun(*numbered(100))
    for path in asked(walk)[:FAILURES_MAX]:
        walk.failed(path)
    assert asked(walk) == []


def test_what_found_no_lane_comes_again() -> None:
    """It is the next one again, in its place."""
    walk = begun("a", "b", "c")
    assert walk.next() == ("b",)
    walk.refused(("b",))
    assert asked(walk) == [("b",), ("c",)]


def test_nothing_is_asked_for_twice() -> None:
    """A whole walk in order, with answers in any order: each folder once, and nothing is kept of it."""
    names = numbered(300)
    walk = begun(*names)
    walk.learned((names[0],), [], 1)
    seen: list[Place] = []
    pending: list[Place] = []
    for name in names[1:]:
        pending += (new := asked(walk))
        seen += new
        while len(pending) > 5:
            walk.learned(pending.pop(), [], 1)
        walk.visited((name,))
    assert len(seen) == len(set(seen)) == 299
    for path in pending:
        walk.learned(path, [], 1)
    assert walk.ahead == 0
    assert not any(walk.knows((name,)) for name in names)
