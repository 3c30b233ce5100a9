"""What is believed of a folder, under any order of answers and own changes.

Time goes on with each move; an answer may be older than the moment it is learned. Invariants: an own change
is what is believed until an answer that was asked for later says otherwise; nothing is believed longer than
the longest time-out; a name that listings may hide is never believed absent because of one; an incomplete
listing makes nothing absent.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from davfs.dav.resource import Resource
from davfs.fs.metadata import Entry, Metadata

MIN_S, MAX_S = 3.0, 60.0
WALL_S = 1_000_000.0
names = st.sampled_from(["a", "b", ".h"])


@dataclass(frozen=True)
class Listed:
    names: frozenset[str]
    late_s: float
    complete: bool


@dataclass(frozen=True)
class Told:
    name: str
    exists: bool
    is_ours: bool


moves = st.lists(
    st.tuples(
        st.floats(0.5, 70),
        st.builds(Listed, st.frozensets(names), st.floats(0, 5), st.booleans())
        | st.builds(Told, names, st.booleans(), st.booleans()),
    ),
    max_size=10,
)


@dataclass
class Belief:
    exists: bool
    since_s: float
    is_ours: bool = False


def resource(*, folder: bool = False) -> Resource:
    return Resource(is_collection=folder, size_bytes=None if folder else 1, mtime_s=int(WALL_S - 10_000))


def believe_listing(beliefs: dict[str, Belief], listed: Listed, asked_s: float) -> None:
    for name in ("a", "b", ".h"):
        before = beliefs.get(name)
        if before is not None and before.is_ours and before.since_s >= asked_s:
            continue
        if name in listed.names:
            beliefs[name] = Belief(exists=True, since_s=asked_s)
        elif not name.startswith(".") and listed.complete:
            beliefs[name] = Belief(exists=False, since_s=asked_s)
        elif not name.startswith(".") or (before is not None and not before.exists):
            beliefs.pop(name, None)  # nothing can be concluded


@given(moves, st.floats(0, 80))
def test_beliefs_follow_the_newest_evidence(
    history: list[tuple[float, Listed | Told]], wait_s: float
) -> None:
    """Whatever is answered without asking agrees with the newest evidence, and is not too old."""
    meta = Metadata(min_s=MIN_S, max_s=MAX_S, wall_s=lambda: WALL_S, hidden=lambda name: name.startswith("."))
    beliefs: dict[str, Belief] = {}
    now_s = 0.0
    for after_s, move in history:
        now_s += after_s
        if isinstance(move, Listed):
            asked_s = now_s - move.late_s
            members = {name: resource() for name in sorted(move.names)}
            meta.learn_listing(
                1, resource(folder=True), members, lambda _: None, asked_s, complete=move.complete
            )
            believe_listing(beliefs, move, asked_s)
        else:
            known = resource() if move.exists else None
            meta.learn(1, move.name, Entry(known, now_s, ours=move.is_ours))
            beliefs[move.name] = Belief(move.exists, now_s, move.is_ours)
    now_s += wait_s
    for name in ("a", "b", ".h"):
        entry, belief = meta.entry(1, name, now_s), beliefs.get(name)
        if entry is None:
            continue
        assert belief is not None
        assert (entry.resource is not None) is belief.exists
        assert now_s - belief.since_s <= MAX_S + 1e-6
        assert 0 <= meta.left_s(meta.known_folder(1), meta.stale_entry(1, name), now_s) <= MAX_S + 1e-6
