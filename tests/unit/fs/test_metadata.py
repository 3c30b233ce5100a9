"""What is known of the share, and until when it is believed."""

from __future__ import annotations

import pytest
from cachetools import LRUCache

from davfs.dav.resource import ETag, Resource
from davfs.fs.index import LocalAttributes
from davfs.fs.metadata import TRUST_S, Entry, Folder, Metadata

WALL_S = 1_000_000.0
FOLDER = 7


@pytest.fixture
def meta() -> Metadata:
    return Metadata(min_s=3, max_s=60, wall_s=lambda: WALL_S, hidden=lambda name: name.startswith("."))


def a_file(age_s: float = 10_000, size: int = 1) -> Resource:
    return Resource(is_collection=False, size_bytes=size, mtime_s=int(WALL_S - age_s))


def a_folder(age_s: float = 10_000) -> Resource:
    return Resource(is_collection=True, mtime_s=int(WALL_S - age_s))


def nothing_kept(_name: str) -> LocalAttributes | None:
    return None


def list_folder(
    meta: Metadata, *names: str, asked_s: float = 0.0, complete: bool = True, age_s: float = 10_000
) -> None:
    members = {name: a_file() for name in names}
    meta.learn_listing(FOLDER, a_folder(age_s), members, nothing_kept, asked_s, complete=complete)


def left_s(meta: Metadata, folder: int, name: str, now_s: float) -> float:
    return meta.left_s(meta.known_folder(folder), meta.stale_entry(folder, name), now_s)


def is_there(meta: Metadata, name: str, now_s: float) -> bool | None:
    """None: the server has to be asked."""
    entry = meta.entry(FOLDER, name, now_s)
    return None if entry is None else entry.resource is not None


@pytest.mark.parametrize(
    ("age_s", "lifetime_s"), [(0, 3), (29, 3), (100, 10), (400, 40), (600, 60), (1e6, 60), (-100, 3)]
)
def test_what_was_still_for_long_is_believed_for_long(
    meta: Metadata, age_s: float, lifetime_s: float
) -> None:
    """An entry lives a tenth of the time since its last change, within the limits, future dates included."""
    meta.learn(FOLDER, "f", Entry(a_file(age_s), 100.0))
    assert left_s(meta, FOLDER, "f", 100.0) == pytest.approx(lifetime_s)
    assert is_there(meta, "f", 100.0 + lifetime_s - 0.1) is True
    assert is_there(meta, "f", 100.0 + lifetime_s + 0.1) is None


def test_a_date_that_is_not_known_is_believed_shortly(meta: Metadata) -> None:
    """A server without dates gets the shortest time-out."""
    meta.learn(FOLDER, "f", Entry(Resource(is_collection=False), 0.0))
    assert is_there(meta, "f", 2.9) is True
    assert is_there(meta, "f", 3.1) is None


def test_a_fresh_listing_knows_what_is_not_there(meta: Metadata) -> None:
    """A name that a fresh listing lacks is absent without a question; once it is old, the server is asked."""
    list_folder(meta, "f")
    assert is_there(meta, "g", 2.9) is False
    assert is_there(meta, "g", 61) is None


def test_the_first_listing_of_an_old_folder_is_believed_for_long(meta: Metadata) -> None:
    """A folder that has been still for hours is still when it is first seen."""
    list_folder(meta, "f")
    assert is_there(meta, "g", 59) is False


def test_hidden_names_are_never_concluded_absent(meta: Metadata) -> None:
    """A name that a listing may leave out is asked for by itself."""
    list_folder(meta, "f")
    assert is_there(meta, ".hidden", 1) is None


def test_hidden_names_survive_a_listing(meta: Metadata) -> None:
    """What was learned of a hidden name is not undone by a listing that cannot show it."""
    meta.learn(FOLDER, ".hidden", Entry(a_file(), 0.0))
    list_folder(meta, "f", asked_s=1)
    assert is_there(meta, ".hidden", 2) is True


def test_an_incomplete_listing_concludes_nothing(meta: Metadata) -> None:
    """After a listing that broke off, names that it lacks are asked for."""
    list_folder(meta, "f", complete=False)
    assert is_there(meta, "f", 1) is True
    assert is_there(meta, "g", 1) is None


def test_own_changes_survive_an_older_listing(meta: Metadata) -> None:
    """A listing that was asked for before our own create and delete does not undo them."""
    list_folder(meta, "old")
    meta.learn(FOLDER, "new", Entry(a_file(), 10.0, ours=True))
    meta.learn(FOLDER, "old", Entry(None, 10.0, ours=True))
    list_folder(meta, "old", asked_s=9)
    assert is_there(meta, "new", 11) is True
    assert is_there(meta, "old", 11) is False
    assert meta.names(FOLDER) == ["new"]


def test_a_newer_listing_wins_over_own_changes(meta: Metadata) -> None:
    """What a later listing shows is what somebody else did since."""
    meta.learn(FOLDER, "mine", Entry(a_file(), 10.0, ours=True))
    list_folder(meta, "theirs", asked_s=11)
    assert is_there(meta, "mine", 12) is False
    assert meta.names(FOLDER) == ["theirs"]


def test_an_own_change_survives_an_older_single_answer(meta: Metadata) -> None:
    """A look-up that was sent before our change and answered after it is ignored."""
    meta.learn(FOLDER, "f", Entry(a_file(size=5), 10.0, ours=True))
    meta.learn(FOLDER, "f", Entry(None, 9.0))
    assert is_there(meta, "f", 11) is True


def test_a_folder_that_changes_is_listed_often(meta: Metadata) -> None:
    """After a change, ours or one that a listing showed, absence is believed for the shortest time only."""
    list_folder(meta, "f")
    list_folder(meta, "f", "g", asked_s=100)
    assert not meta.listing_is_fresh(FOLDER, 103.1)
    list_folder(meta, "f", "g", asked_s=200)
    assert meta.listing_is_fresh(FOLDER, 203.1)
    meta.learn(FOLDER, "mine", Entry(a_file(), 204.0, ours=True))
    assert is_there(meta, "absent", 207.5) is None


def test_a_new_folder_of_ours_needs_no_listing(meta: Metadata) -> None:
    """mkdir is followed by creates without a question."""
    meta.learn_new_folder(FOLDER, 0.0)
    assert is_there(meta, "anything", 1) is False
    assert meta.listing_is_fresh(FOLDER, 1)


def test_expired_means_ask(meta: Metadata) -> None:
    """Nothing that was expired is believed: a name, an absent name, the whole folder."""
    list_folder(meta, "f", "g")
    meta.expire(FOLDER, "f")
    assert (is_there(meta, "f", 1), is_there(meta, "g", 1)) == (None, True)
    meta.expire(FOLDER, "absent")
    assert is_there(meta, "absent", 1) is None
    meta.expire(FOLDER)
    assert is_there(meta, "g", 1) is None


def test_the_second_question_about_a_folder_is_a_listing(meta: Metadata) -> None:
    """One stat in an unknown folder is one small answer; a walk through it is one listing."""
    assert [meta.wants_listing(FOLDER, now_s) for now_s in (0.0, 1.0)] == [False, True]
    assert not meta.wants_listing(8, 0.0)
    assert not meta.wants_listing(8, 100.0)


def test_a_small_known_folder_is_always_listed_again(meta: Metadata) -> None:
    """The first question after the listing got old renews it whole."""
    list_folder(meta, "f")
    assert meta.wants_listing(FOLDER, 1000.0)


def test_the_number_of_entries_is_bounded(meta: Metadata) -> None:
    """The folders that were not used longest are forgotten first."""
    meta._folders = LRUCache[int, Folder](100, getsizeof=lambda folder: len(folder.entries) + 1)
    for number in range(20):
        members = {f"{number}-{member}": a_file() for member in range(9)}
        meta.learn_listing(number, a_folder(), members, nothing_kept, 0.0)
        assert meta.entries_count() <= 100
        assert meta.names(0)
    assert meta.names(1) == []
    assert len(meta.names(19)) == 9


def test_what_was_asked_for_last_is_forgotten_too(meta: Metadata) -> None:
    """A folder that is forgotten, or had to make room, is not answered from the last question about it."""
    meta._folders = LRUCache[int, Folder](10, getsizeof=lambda folder: len(folder.entries) + 1)
    list_folder(meta, "a", "b")
    assert meta.names(FOLDER) == ["a", "b"]
    meta.forget_folder(FOLDER)
    assert meta.names(FOLDER) == []
    list_folder(meta, "a", "b")
    assert meta.names(FOLDER) == ["a", "b"]
    meta.learn_listing(1, a_folder(), {str(one): a_file() for one in range(9)}, nothing_kept, 0.0)
    assert meta.names(FOLDER) == []
    assert meta.folder(FOLDER) is meta.folder(FOLDER)


def test_single_entries_are_counted_too(meta: Metadata) -> None:
    """Names learned one by one, as by a program that makes or probes many, are within the bound as well."""
    for number in range(500):
        meta.learn(FOLDER, str(number), Entry(None, 0.0, ours=True))
    assert meta.entries_count() >= 500


def test_a_folder_larger_than_the_bound_is_kept_alone(meta: Metadata) -> None:
    """A huge folder can still be listed."""
    meta._folders = LRUCache[int, Folder](10, getsizeof=lambda folder: len(folder.entries) + 1)
    list_folder(meta, *(str(number) for number in range(50)))
    assert len(meta.names(FOLDER)) == 50


# --- proofs of whole trees


class Told:
    """Somebody who knows when the folders were last seen with the tag they were listed with."""

    def __init__(self) -> None:
        self.is_possible = True
        self.seen_s: float | None = None
        self.is_refuted = False

    def proved_s(self, _meta: Metadata, _folder_ino: int, tag: str, _now_s: float) -> float | None:
        return self.seen_s if tag == "t1" else None

    def refute(self) -> None:
        self.is_refuted = True


def _proved(told: Told) -> Metadata:
    return Metadata(min_s=3, max_s=60, wall_s=lambda: WALL_S, proofs=told)


def _listed(meta: Metadata, at_s: float, *, tag: str = "t1", etag: str = "e1") -> None:
    itself = Resource(is_collection=True, mtime_s=int(WALL_S), etag=ETag(tag))
    file = Resource(is_collection=False, mtime_s=int(WALL_S), etag=ETag(etag), size_bytes=1)
    meta.learn_listing(1, itself, {"a": file}, lambda _name: None, at_s)


def test_a_proof_makes_a_folder_fresh_again() -> None:
    """Its listing and its members, from the time of the proof on; that a name is missing is asked."""
    told = Told()
    meta = _proved(told)
    _listed(meta, 0)
    assert meta.entry(1, "a", 10) is None
    told.seen_s = 9.0
    assert meta.entry(1, "a", 10) is not None
    assert meta.listing_is_fresh(1, 10)
    assert meta.entry(1, "b", 10) is None
    assert left_s(meta, 1, "a", 10) == pytest.approx(2)
    assert meta.entry(1, "a", 13) is None


def test_a_proof_does_not_cover_what_was_declared_doubtful() -> None:
    """`expire` means: ask."""
    told = Told()
    meta = _proved(told)
    _listed(meta, 0)
    told.seen_s = 9.0
    meta.expire(1, "a")
    assert meta.entry(1, "a", 10) is None
    meta.expire(1)
    assert not meta.listing_is_fresh(1, 10)


def test_a_listing_is_believed_on_proofs_for_a_time() -> None:
    """What changes behind the server's back changes no tag: after a quarter of an hour it is listed again."""
    told = Told()
    meta = _proved(told)
    _listed(meta, 0)
    told.seen_s = TRUST_S - 1
    assert meta.listing_is_fresh(1, TRUST_S - 0.5)
    told.seen_s = TRUST_S + 1
    assert not meta.listing_is_fresh(1, TRUST_S + 3)


@pytest.mark.parametrize(
    ("tag", "etag", "refuted"), [("t1", "e1", False), ("t1", "e2", True), ("t2", "e2", False)]
)
def test_the_same_tag_with_other_members_is_a_refutation(tag: str, etag: str, refuted: bool) -> None:
    """Then this server's tags do not cover what is below."""
    told = Told()
    meta = _proved(told)
    _listed(meta, 0)
    _listed(meta, 100, tag=tag, etag=etag)
    assert told.is_refuted == refuted
