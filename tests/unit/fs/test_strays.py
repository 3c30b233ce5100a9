"""What is known of bodies that were given up: by name, for a while, and not too many."""

from __future__ import annotations

from davfs.dav.resource import ROOT
from davfs.fs.lifecycle import UNANSWERED_MAX, Unanswered
from davfs.fs.strays import LATE_S, WHOLE_MAX, Strays

A, B = ROOT.child("a"), ROOT.child("b")
ONE, TWO = b"1" * 16, b"2" * 16


def test_by_name_and_for_ten_minutes() -> None:
    """Each name has its own; what is too old to land is forgotten."""
    strays = Strays()
    strays.note(A, 3, ONE, 100.0)
    strays.note(A, 4, TWO, 200.0)
    assert strays.at(A, 200.0) == (Unanswered(((3, ONE), (4, TWO))), 200.0)
    assert strays.at(B, 200.0)[0] == Unanswered()
    assert strays.at(A, 201.0 + LATE_S)[0] == Unanswered()


def test_they_move_along() -> None:
    """With their file or with its folder; at the old name they may still land."""
    strays = Strays()
    strays.note(A.child("f"), 3, ONE, 100.0)
    strays.moved(A, B)
    assert (
        strays.at(B.child("f"), 100.0) == strays.at(A.child("f"), 100.0) == (Unanswered(((3, ONE),)), 100.0)
    )


def test_a_part_is_a_beginning() -> None:
    """Of a body that went to this name: shorter than it, and not too long ago."""
    strays = Strays()
    assert strays.longest_part(A, 0.0) == -1
    strays.keep(A, b"whole", 0.0)
    assert strays.longest_part(A, 0.0) == 4
    assert strays.has_part(A, b"who", 0.0)
    assert not strays.has_part(A, b"hole", 0.0)
    assert not strays.has_part(B, b"who", 0.0)
    assert not strays.has_part(A, b"who", LATE_S + 1)


def test_few_are_kept_whole() -> None:
    """The oldest go first."""
    strays = Strays()
    for number in range(WHOLE_MAX + 1):
        strays.keep(ROOT.child(str(number)), b"body", 0.0)
    assert not strays.has_part(ROOT.child("0"), b"b", 0.0)
    assert strays.has_part(ROOT.child("1"), b"b", 0.0)


def test_what_a_file_sent_itself_is_kept_rather() -> None:
    """Inherited bodies fill what room is left."""
    own = Unanswered(tuple((number, bytes([number]) * 16) for number in range(UNANSWERED_MAX - 1)))
    strays = Unanswered(((50, ONE), (51, TWO), own.bodies[0]))
    assert own.with_older(strays).bodies == ((51, TWO), *own.bodies)
