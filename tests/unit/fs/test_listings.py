"""What is known of folders, on disk."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from davfs.dav.resource import ETag, Resource
from davfs.fs import listings as module
from davfs.fs.index import Index, boot_id
from davfs.fs.listings import Clocks, Listings, Row, decoded, encoded
from davfs.fs.metadata import NEVER, Entry, Folder, Metadata
from tests.unit.fs.rig import at

FOLDER = 7
names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]) | st.just("\udcff"),
    min_size=1,
    max_size=20,
).filter(lambda name: name not in {".", ".."})
numbers = st.none() | st.integers(0, 1 << 60)
tags = st.none() | st.builds(ETag, st.text(min_size=1, max_size=20), st.booleans())
resources = st.builds(
    Resource,
    is_collection=st.booleans(),
    size_bytes=numbers,
    mtime_s=st.none() | st.integers(-(1 << 40), 1 << 40),
    etag=tags,
    executable=st.none() | st.booleans(),
    spelled=st.none(),
    extras=st.just(()) | st.just((("{DAV:}ishidden", "1"), ("{urn:davfs:}mtime", ""))),
)


def a_file(size: int = 1) -> Resource:
    return Resource(is_collection=False, size_bytes=size, mtime_s=1_000_000, etag=ETag("one"))


def a_folder_of(*members: str, complete: bool = True) -> Folder:
    return Folder({name: Entry(a_file(), 5.0) for name in members}, listed_s=5.0, complete=complete)


def packed(folder: Folder, clocks: Clocks | None = None) -> bytes:
    return b"".join(encoded(folder, clocks or Clocks(5.0, 1_000.0, 100.0)))


@given(st.dictionaries(names, resources, max_size=20), st.booleans(), st.booleans())
def test_a_folder_comes_back_as_it_was(members: dict[str, Resource], listed: bool, complete: bool) -> None:
    """Names of any bytes, kinds, sizes, dates and tags; and nothing of it counts as fresh."""
    entries = {name: Entry(resource, 5.0) for name, resource in members.items()}
    found = decoded(
        packed(Folder(entries, listed_s=5.0 if listed else None, complete=complete, mtime_s=9)), None
    )
    assert found is not None
    assert {name: entry.resource for name, entry in found.entries.items()} == members
    assert all(entry.learned_s == NEVER for entry in found.entries.values())
    assert found.listed_s == (NEVER if listed else None)
    assert (found.complete, found.mtime_s) == (complete, 9)


def test_more_than_one_chunk() -> None:
    """A folder of 5,001 is cut in pieces and comes back in order."""
    wanted = [f"file{number}" for number in range(5_001)]
    found = decoded(packed(a_folder_of(*wanted)), None)
    assert found is not None
    assert list(found.entries) == wanted


@given(st.binary(max_size=200))
@example(b"")
@example(b"[]")
@example(b'{"version":1}')
@example(b'{"version":1,"listed":true,"complete":true,"mtime_s":"x"}')
@example(b'{"version":1,"listed":true,"complete":true,"mtime_s":1}\n[["../x",0,1,1]]')
@example(b'{"version":1,"listed":true,"complete":true,"mtime_s":1}\n[["x",0,"1",1]]')
@example(b'{"version":1,"listed":true,"complete":true,"mtime_s":1}\n[[3,0,1,1]]')
@example(b'{"version":1,"listed":true,"complete":true,"mtime_s":1}\n' + b"[" * 100_000)
def test_damaged_rows_are_none(data: bytes) -> None:
    """Whatever stands there: no exception, and no name that no folder can hold."""
    assert decoded(data, None) is None
    assert decoded(zlib.compress(data), None) is None


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_flipped_byte_is_noticed(at_byte: int, mask: int) -> None:
    """A row with one wrong byte is not used, or says the same."""
    whole = packed(a_folder_of("a", "b", "c"))
    data = bytearray(whole)
    data[at_byte % len(data)] ^= mask
    found = decoded(bytes(data), None)
    assert found is None or list(found.entries) == ["a", "b", "c"]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(str(tmp_path / "cache"))


def meta_over(listings: Listings) -> Metadata:
    return Metadata(min_s=3, max_s=60, wall_s=lambda: 0.0, recall=lambda ino: listings.load(ino, at("d")))


def recalled(meta: Metadata, ino: int = FOLDER) -> list[str]:
    meta.recall(ino)
    return meta.names(ino)


async def test_what_was_learned_is_known_to_the_next_run(index: Index) -> None:
    """A listing that was saved is recalled, never as fresh: it is known, and asked again."""
    meta = meta_over(Listings(index, wall_s=lambda: 0.0))
    meta.learn_listing(FOLDER, Resource(is_collection=True), {"a": a_file()}, lambda _: None, 1.0)
    await Listings(index, wall_s=lambda: 0.0).save(meta)
    later = meta_over(Listings(index, wall_s=lambda: 1000.0))
    later.recall(FOLDER)
    assert later.entry(FOLDER, "a", 0.0) is None
    assert later.entry(FOLDER, "never heard of", 0.0) is None
    assert not later.listing_is_fresh(FOLDER, 0.0)
    assert later.names(FOLDER) == ["a"]
    assert later.was_listed(FOLDER)
    absent = later.last_known(FOLDER, "never heard of")
    assert absent is not None
    assert absent.resource is None


async def test_what_was_removed_is_not_recalled(index: Index) -> None:
    """A folder that is gone, and its name made again, does not show old members."""
    listings = Listings(index, wall_s=lambda: 0.0)
    meta = meta_over(listings)
    meta.learn_listing(FOLDER, Resource(is_collection=True), {"a": a_file()}, lambda _: None, 1.0)
    await listings.save(meta)
    meta.forget_folder(FOLDER)
    assert recalled(meta) == []
    await listings.save(meta)
    assert recalled(meta_over(listings)) == []


async def test_one_name_learned_keeps_the_others(index: Index) -> None:
    """An upload into a folder of which only the disk knows more does not make the rest unknown."""
    listings = Listings(index, wall_s=lambda: 0.0)
    before = meta_over(listings)
    before.learn_listing(FOLDER, Resource(is_collection=True), {"a": a_file()}, lambda _: None, 1.0)
    await listings.save(before)
    meta = meta_over(listings)
    meta.learn(FOLDER, "b", Entry(a_file(), 2.0, ours=True))
    await listings.save(meta)
    assert sorted(recalled(meta_over(listings))) == ["a", "b"]


async def test_the_oldest_listings_go_first(index: Index) -> None:
    """All of them together stay below the limit."""
    clock = iter(range(10_000))
    size = len(packed(a_folder_of("a")))
    listings = Listings(index, wall_s=lambda: float(next(clock)), bytes_max=10 * size)
    for ino in range(100, 140):
        meta = meta_over(listings)
        meta.learn_listing(ino, Resource(is_collection=True), {"a": a_file()}, lambda _: None, 1.0)
        await listings.save(meta)
    kept = [ino for ino in range(100, 140) if recalled(meta_over(listings), ino)]
    assert 8 <= len(kept) <= 10
    assert kept == list(range(140 - len(kept), 140))


def test_what_was_sent_after_the_last_save_is_known(index: Index) -> None:
    """The daemon was killed between an upload and the next save: the cached version is the newer one."""
    listings = Listings(index, wall_s=lambda: 100.0)
    listings._put(Row(FOLDER, packed(a_folder_of("a", "old")), None))
    cursor = index.run(
        "INSERT INTO contents (ino, path, size, base_size, base_known, etag, etag_weak, written, sent, acked,"
        " used_at) VALUES (1, ?, 5, 5, 1, 'two', 0, 1, 1, 1, 101.0)",
        (b"d\0a",),
    )
    assert cursor.rowcount == 1
    folder = Listings(index, wall_s=lambda: 200.0).load(FOLDER, at("d"))
    assert folder is not None
    assert folder.entries["a"].resource == Resource(is_collection=False, size_bytes=5, etag=ETag("two"))
    assert folder.entries["old"].resource == a_file()


@given(st.integers(0, 10**6), st.integers(-9, 10**6), st.integers(-9, 10**6))
def test_a_row_comes_back_as_old_as_it_is(asked: int, wall: int, uptime: int) -> None:
    """By the clock that says more; and old for ever if one of the two went back. No entry is made younger."""
    folder = a_folder_of("a", "b")
    folder.entries["b"].learned_s = 4.0  # before the listing
    folder.changed_s = 2.0
    folder.cost_s = 1.5
    data = packed(folder, Clocks(5.0 + asked, 1_000.0, 1e7))
    found = decoded(data, Clocks(-300.0, 1_000.0 + wall, 1e7 + uptime))
    assert found is not None
    if min(wall, uptime) < 0:
        assert (found.listed_s, found.changed_s, found.cost_s) == (NEVER, None, 0.0)
    else:
        assert found.listed_s is not None
        age_s = -300.0 - found.listed_s
        assert age_s == pytest.approx(asked + max(wall, uptime))
        assert found.listed_s - (found.changed_s or 0.0) == pytest.approx(3.0, abs=1e-3)
        assert found.cost_s == 1.5
    assert found.entries["a"].learned_s == found.listed_s
    assert found.entries["b"].learned_s == NEVER


def test_when_a_member_last_came_or_went_is_kept() -> None:
    """Of a folder in a folder: without it its mtime would go back at a remount."""
    folder = a_folder_of("a", "file")
    folder.entries["a"] = Entry(Resource(is_collection=True), 5.0, touched_ns=7, pushed_s=8.5)
    found = decoded(packed(folder), None)
    assert found is not None
    assert (found.entries["a"].touched_ns, found.entries["a"].pushed_s) == (7, 8.5)
    assert (found.entries["file"].touched_ns, found.entries["file"].pushed_s) == (0, 0.0)


def test_rows_of_another_boot_are_old(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock since the start of the machine began again; and what is not believed once never is again."""

    def next_run() -> set[int]:
        listings = Listings(index, wall_s=lambda: 1_000.0, uptime_s=lambda: 100.0)
        believable = set(listings.believable)
        listings.end(Metadata(min_s=3, max_s=60, wall_s=lambda: 0.0))
        return believable

    monkeypatch.setattr(index, "unclean", False)
    Listings(index, wall_s=lambda: 1_000.0)._put(Row(FOLDER, packed(a_folder_of("a")), 1_060.0))
    index.run("INSERT INTO listings_ended VALUES (?)", (boot_id(),))
    assert next_run() == next_run() == {FOLDER}
    index.run("UPDATE listings_ended SET boot='another'")
    assert next_run() == next_run() == set()


def test_a_table_of_an_older_davfs_gets_its_column(index: Index) -> None:
    """What is in it is kept for the time without a server, and is not believed before."""
    index.run(
        "CREATE TABLE listings (ino INTEGER PRIMARY KEY, saved_s REAL NOT NULL, bytes INTEGER NOT NULL,"
        " members BLOB NOT NULL)"
    )
    header = b'{"version":1,"listed":true,"complete":true,"mtime_s":1}\n[["x",8,1,1,"tag"]]'
    index.run("INSERT INTO listings VALUES (?, 5.0, 9, ?)", (FOLDER, zlib.compress(header)))
    listings = Listings(index, wall_s=lambda: 5.0)
    folder = listings.load(FOLDER, None)
    assert folder is not None
    assert folder.entries["x"].resource == Resource(
        is_collection=False, size_bytes=1, mtime_s=1, etag=ETag("tag", weak=True)
    )
    assert not listings.believable


@given(st.frozensets(st.sampled_from("abc")), st.frozensets(st.sampled_from("abc")))
def test_a_listing_that_did_not_ask_for_all_is_old(asked: frozenset[str], wanted: frozenset[str]) -> None:
    """What is wanted today and was not asked for then may be there: a link would be shown as a file."""
    clocks = Clocks(5.0, 1_000.0, 100.0)
    found = decoded(b"".join(encoded(a_folder_of("a"), clocks, asked)), clocks, wanted)
    assert found is not None
    assert (found.listed_s == 5.0) == (wanted <= asked)
    assert list(found.entries) == ["a"]


def many_folders(index: Index) -> tuple[Listings, Metadata]:
    listings = Listings(index, wall_s=lambda: 1_000.0)
    meta = meta_over(listings)
    for ino in range(10, 30):
        meta.learn_listing(ino, Resource(is_collection=True), {"a": a_file()}, lambda _: None, 1.0)
    return listings, meta


async def test_many_small_folders_are_one_commit(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk leaves hundreds of them: what a slice has encoded is written at once."""
    monkeypatch.setattr(module, "SLICE_S", float("inf"))
    listings, meta = many_folders(index)
    statements: list[str] = []
    index._db._db.set_trace_callback(statements.append)
    await listings.save(meta)
    assert statements.count("COMMIT") == 1
    assert {ino for (ino,) in index.rows("SELECT ino FROM listings")} == set(range(10, 30))
    assert not meta.changed


async def test_one_row_that_cannot_be_written_keeps_no_other_away(index: Index) -> None:
    """What fails together is written one by one; and the bytes on disk are counted right."""
    listings, meta = many_folders(index)
    index.run(
        "CREATE TEMP TRIGGER no BEFORE INSERT ON listings WHEN new.ino=12 BEGIN SELECT RAISE(ABORT,'no'); END"
    )
    await listings.save(meta)
    assert {ino for (ino,) in index.rows("SELECT ino FROM listings")} == set(range(10, 30)) - {12}
    assert index.rows("SELECT SUM(bytes) FROM listings") == [(listings._bytes,)]
