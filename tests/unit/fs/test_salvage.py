"""A damaged, lost, older or newer index: what was not sent is found again, with all that is known of it."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from davfs.dav.resource import ETag, Validator
from davfs.errors import PosixError
from davfs.fs import schema
from davfs.fs.content import Content, path_bytes
from davfs.fs.disk import RECORD, SIDECAR
from davfs.fs.index import CacheUnusable, ContentRow, LocalAttributes
from davfs.fs.record import decode, encode
from davfs.fs.store import ContentStore
from tests.unit.fs.rig import at, crashed, drop, open_store, opened, version

REBUILT = pytest.mark.expects_warning("")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def unsent(store: ContentStore, name: str, data: bytes, *, ino: int = 5) -> Content:
    content = store.create(ino, at(name), size=0, base=None)
    store.acquire(content)
    content.write(0, data)
    return content


def changed(store: ContentStore, name: str, *, ino: int = 6) -> Content:
    """A file of 100 bytes on the server, of which a program wrote five."""
    content = store.create(ino, at(name), size=100, base=version(100))
    store.acquire(content)
    content.fill(20, b"downloaded")
    content.write(10, b"wrote")
    return content


def clean(store: ContentStore, name: str, *, ino: int = 7) -> Content:
    content = store.create(ino, at(name), size=4, base=version(4))
    store.acquire(content)
    content.fill(0, b"base")
    content.save()
    return content


def killed(folder: Path, damage: str) -> Path:
    """A copy of the cache as it is now, spoiled."""
    copy = folder.with_name("spoiled")
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("reserve"))
    index, log = copy / "index.db", copy / "index.db-wal"
    (copy / "index.db-shm").unlink(missing_ok=True)
    match damage:
        case "missing":
            index.unlink()
        case "empty":
            index.write_bytes(b"")
            log.unlink()
        case "not a database":
            index.write_bytes(b"\xa5" * 20_000)
        case "log":
            log.write_bytes(b"\xa5" * log.stat().st_size)
        case "log cut":
            os.truncate(log, log.stat().st_size // 2)
        case _:
            with sqlite3.connect(index) as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.close()
            raw = index.read_bytes()
            if damage == "cut":
                index.write_bytes(raw[: len(raw) // 2])
            elif damage == "page":
                index.write_bytes(raw[:4096] + b"\xa5" * 4096 + raw[8192:])
            elif damage == "foreign":
                index.unlink()
                with sqlite3.connect(index) as db:
                    db.execute("CREATE TABLE somebody_elses (x)")
                db.close()
    return copy


DAMAGES = ["missing", "empty", "not a database", "log", "log cut", "cut", "page", "foreign"]


@REBUILT
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_not_sent_survives_a_damaged_index(folder: Path, damage: str) -> None:
    """Path, bytes, base, extents, counters and mode of every unsent file are the same after the rebuild."""
    with opened(folder) as store:
        store.index.save_locals(5, 1, LocalAttributes(0o755))
        drop(store, unsent(store, "new", b"new bytes"))
        partly = changed(store, "folder/changed")
        partly.life = partly.life.put_begins()
        partly.save()
        with opened(killed(folder, damage)) as after:
            new, again = sorted(after.unfinished(), key=lambda content: content.path)[::-1]
            assert (new.path, new.base, new.complete) == (path_bytes(at("new")), None, True)
            assert os.pread(new.fd, 100, 0) == b"new bytes"
            kept = after.index.locals_of(new.ino)
            assert kept is not None
            assert kept.mode == 0o755
            assert again.path == path_bytes(at("folder/changed"))
            assert (again.base, again.size_bytes, again.base_size) == (version(100), 100, 100)
            assert again.missing(0, 100) == [(0, 10), (15, 20), (30, 100)]
            assert os.pread(again.fd, 30, 0)[10:] == b"wrote" + b"\0" * 5 + b"downloaded"
            assert again.life.unknown


@REBUILT
@pytest.mark.parametrize("damage", DAMAGES)
def test_the_rebuilt_index_is_an_index(folder: Path, damage: str) -> None:
    """After a rebuild the cache works, survives a kill, and is not rebuilt again."""
    with opened(folder) as store:
        unsent(store, "new", b"new bytes")
        copy = killed(folder, damage)
    with opened(copy) as after:
        assert after.index.lost_power is False
        unsent(after, "other", b"other", ino=9)
        with crashed(copy) as third:
            assert third.index.damage is None
            assert len(third.unfinished()) == 2


@REBUILT
def test_an_index_that_is_set_aside_is_kept(folder: Path) -> None:
    """The newest three damaged indexes stay for whoever wants to look at them."""
    with opened(folder) as store:
        unsent(store, "new", b"x")
    for count in range(5):
        (folder / "index.db").write_bytes(bytes([count]) * 5000)
        with opened(folder) as store:
            assert len(store.unfinished()) == 1
    kept = sorted(folder.glob("index.db.damaged-*"))
    assert [path.read_bytes()[0] for path in kept] == [2, 3, 4]


@REBUILT
def test_clean_contents_are_forgotten_in_a_rebuild(folder: Path) -> None:
    """They can be fetched again; their files do not stay behind."""
    with opened(folder) as store:
        drop(store, clean(store, "clean"))
        sent = unsent(store, "sent", b"sent", ino=8)
        sent.life = sent.life.put_begins().put_succeeded()
        sent.save()
        copy = killed(folder, "missing")
    with opened(copy) as after:
        assert after.unfinished() == []
        assert after.bytes_on_disk == 0
        assert after.recovered == []
    assert [path for path in (copy / "data").rglob("*") if path.is_file()] == []


@REBUILT
def test_a_removed_file_does_not_come_back_in_a_rebuild(folder: Path) -> None:
    """An unsent file that was unlinked while it is open is gone, also for the rebuild."""
    with opened(folder) as store:
        content = unsent(store, "removed", b"x")
        store.discard(content)
        copy = killed(folder, "missing")
        with opened(copy) as after:
            assert after.unfinished() == []


@REBUILT
@pytest.mark.parametrize("spoiled", [b"", b"x" * 100, None])
def test_a_file_that_nobody_knows_is_never_deleted(folder: Path, spoiled: bytes | None) -> None:
    """Without a usable record it goes to recovered/, which the status tells."""
    with opened(folder) as store:
        content = unsent(store, "new", b"precious")
        name = Path(store.disk.file_name(content.id, content.generation))
        copy = killed(folder, "missing")
    victim = copy / name.relative_to(folder)
    if spoiled is None:  # of a davfs that made no records
        os.removexattr(victim, RECORD)
        (copy / "records").unlink()
    else:
        os.setxattr(victim, RECORD, spoiled)
    with opened(copy) as after:
        assert after.unfinished() == []
        (kept,) = after.recovered
        assert Path(kept).read_bytes() == b"precious"
    with opened(copy) as again:
        assert again.recovered == [kept]


@REBUILT
def test_without_attributes_a_file_beside_tells(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cache disk that has no extended attributes, the rebuild finds the same."""

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    with opened(folder) as store:
        content = changed(store, "changed")
        copy = killed(folder, "missing")
        with opened(copy) as after:
            (again,) = after.unfinished()
            assert again.missing(0, 100) == content.missing(0, 100)
            again.life = again.life.put_begins().put_succeeded()
            again.save()
        assert list((copy / "data").rglob(f"*{SIDECAR}")) == []


@REBUILT
def test_a_file_of_many_pieces_survives(folder: Path) -> None:
    """More extents than fit an attribute (4 KiB on ext4) are kept all the same."""
    with opened(folder) as store:
        content = store.create(5, at("many"), size=1 << 20, base=version(1 << 20))
        store.acquire(content)
        for number in range(600):
            content.write(number * 1000, b"x")
        with opened(killed(folder, "missing")) as after:
            (again,) = after.unfinished()
            assert again.present == content.present


def test_a_mode_that_is_set_later_is_in_the_record(folder: Path) -> None:
    """chmod of an unsent file goes with it."""
    with opened(folder) as store:
        content = unsent(store, "new", b"x")
        store.keep_mode(content, 0o600)
        (raw,) = store.disk.records(store.disk.file_name(content.id, content.generation))
        assert decode(raw).mode == 0o600


def test_a_clean_file_has_no_record(folder: Path) -> None:
    """It is removed when the server has the file."""
    with opened(folder) as store:
        content = unsent(store, "new", b"x")
        name = store.disk.file_name(content.id, content.generation)
        assert store.disk.records(name)
        content.life = content.life.put_begins().put_succeeded()
        content.save()
        assert store.disk.records(name) == []


def test_appending_writes_no_record(folder: Path) -> None:
    """Only what commits a row anyway writes one: the record of a file being written stays as it is."""
    with opened(folder) as store:
        content = unsent(store, "new", b"x")
        before = store.disk.records(store.disk.file_name(content.id, content.generation))
        for _ in range(10):
            content.write(content.size_bytes, b"more")
        assert store.disk.records(store.disk.file_name(content.id, content.generation)) == before


def test_records_read_back() -> None:
    """Every field of a row, and the mode; damaged ones are a ValueError."""
    row = ContentRow(
        0, 9, b"a\0\xff", 3, 0, 50, b"p" * 16, None, 7, 6, 5, unknown=True, unanswered=b"u", own=b"",
        source=Validator(ETag("t\udcffg", weak=True), None, 50), base_digest=b"d", revision=8,
    )  # fmt: skip
    raw = encode(row, 0o640)
    assert decode(raw).row == row
    assert decode(raw).mode == 0o640
    for at_byte in range(len(raw)):
        with pytest.raises(ValueError, match="record"):
            decode(raw[:at_byte] + bytes([raw[at_byte] ^ 1]) + raw[at_byte + 1 :])


# --- formats --------------------------------------------------------------------------------------

VERSION_1 = """
CREATE TABLE contents (
    id INTEGER PRIMARY KEY AUTOINCREMENT, ino INTEGER NOT NULL, path BLOB NOT NULL,
    generation INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL, base_size INTEGER NOT NULL DEFAULT 0,
    present BLOB, base_known INTEGER NOT NULL DEFAULT 0,
    etag TEXT, etag_weak INTEGER, mtime_s INTEGER, validator_size INTEGER,
    written INTEGER NOT NULL DEFAULT 0, sent INTEGER NOT NULL DEFAULT 0, acked INTEGER NOT NULL DEFAULT 0,
    unknown INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0, error TEXT,
    unanswered BLOB NOT NULL DEFAULT x'', used_at REAL NOT NULL DEFAULT 0
);
CREATE INDEX contents_ino ON contents (ino);
CREATE INDEX contents_used ON contents (used_at);
CREATE TABLE locals (
    ino INTEGER PRIMARY KEY, parent INTEGER NOT NULL, mode INTEGER, mtime_ns INTEGER,
    etag TEXT, etag_weak INTEGER, mtime_s INTEGER, validator_size INTEGER
);
CREATE INDEX locals_parent ON locals (parent);
CREATE TABLE numbers (
    serial INTEGER PRIMARY KEY AUTOINCREMENT,
    parent INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER NOT NULL, UNIQUE (parent, name)
);
INSERT INTO contents (id, ino, path, size, base_size, present, base_known, etag, etag_weak, mtime_s,
    validator_size, written) VALUES (3, 5, x'61', 10, 10, NULL, 1, 'one', 0, 1000000, 10, 1);
INSERT INTO contents (id, ino, path, size) VALUES (4, 6, x'62', 4);
INSERT INTO locals (ino, parent, mode) VALUES (5, 1, 493);
INSERT INTO numbers (parent, name, ino) VALUES (1, x'63', 99);
"""


def of_version_1(folder: Path) -> None:
    """A cache that a davfs of format 1 left behind when it was killed."""
    (folder / "data/03").mkdir(parents=True)
    (folder / "data/04").mkdir(parents=True)
    (folder / "data/03/3.0").write_bytes(b"0123456789")
    (folder / "data/04/4.0").write_bytes(b"kept")
    db = sqlite3.connect(folder / "index.db", isolation_level=None)
    db.executescript(f"PRAGMA journal_mode=WAL; BEGIN; {VERSION_1} PRAGMA user_version=1; COMMIT;")
    db.close()


def test_an_index_of_format_1_is_migrated(folder: Path) -> None:
    """Unsent and clean contents, attributes and numbers are all there, and new files get records."""
    of_version_1(folder)
    with opened(folder) as store:
        (content,) = store.unfinished()
        assert (content.path, content.base, content.size_bytes) == (b"a", version(10), 10)
        assert store.cached(6) is not None
        assert store.index.locals_of(5) == LocalAttributes(0o755, None, Validator())
        assert store.index.numbers.get(1, "c") == 99
        (raw,) = store.disk.records(store.disk.file_name(3, 0))
        assert decode(raw).row.path == b"a"
    with opened(folder) as store:
        assert len(store.unfinished()) == 1


def tables(path: Path) -> list[tuple[str, str, str]]:
    db = sqlite3.connect(path)
    names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY 1")]
    found = [
        (name, column[1], column[2]) for name in names for column in db.execute(f"PRAGMA table_info({name})")
    ]
    db.close()
    return found


def test_a_migrated_index_is_like_a_new_one(tmp_path: Path) -> None:
    """The steps lead to the tables of a new index, column by column."""
    of_version_1(tmp_path / "old")
    with opened(tmp_path / "old"), opened(tmp_path / "new"):
        pass
    assert tables(tmp_path / "old/index.db") == tables(tmp_path / "new/index.db")


def test_a_migration_that_breaks_off_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps are one transaction: the older format is still whole afterwards."""
    of_version_1(folder)
    before = tables(folder / "index.db")
    monkeypatch.setitem(schema.STEPS, 1, schema.STEPS[1] + "ALTER TABLE contents ADD COLUMN own BLOB;")
    db = sqlite3.connect(folder / "index.db", isolation_level=None)
    with pytest.raises(sqlite3.Error):
        db.executescript(schema.migration(1))
    db.close()
    assert tables(folder / "index.db") == before


def test_an_index_of_a_newer_davfs_is_refused(folder: Path) -> None:
    """In words that help; nothing is changed, and the folder is not left locked."""
    with opened(folder) as store:
        drop(store, unsent(store, "new", b"x"))
        store.index.run("PRAGMA user_version=99")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for _ in range(2):
        with pytest.raises(CacheUnusable, match=r"newer davfs .format 99, this one knows 2.: use that one"):
            open_store(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


# --- damage that is found while running ------------------------------------------------------------


def test_damage_at_run_time_is_the_error_of_that_write(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A write that cannot be journalled is refused and not done, said once, and the next start rebuilds."""
    caplog.set_level(logging.CRITICAL, logger="davfs.index")
    with opened(folder) as store:
        content = clean(store, "clean")
        unsent(store, "unsent", b"before")
        store.index.run("PRAGMA wal_checkpoint(TRUNCATE)")
        store.index.run("PRAGMA cache_size=0")
        with open(folder / "index.db", "r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (os.path.getsize(folder / "index.db") - 4096))
        with pytest.raises(PosixError, match="cache index"):
            content.write(0, b"X")
        assert not content.dirty
        assert os.pread(content.fd, 10, 0) == b"base"


@REBUILT
def test_the_start_after_damage_at_run_time_rebuilds(folder: Path) -> None:
    """What was unsent is there, and the damaged index is not believed although it was closed."""
    with opened(folder) as store:
        unsent(store, "unsent", b"before")
        store.index.run("PRAGMA wal_checkpoint(TRUNCATE)")
        with open(folder / "index.db", "r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (os.path.getsize(folder / "index.db") - 4096))
        store.index.run("PRAGMA cache_size=0")
        with pytest.raises(PosixError):
            unsent(store, "other", b"x", ino=8)
    with opened(folder) as after:
        (content,) = after.unfinished()
        assert os.pread(content.fd, 10, 0) == b"before"


def test_a_rename_over_an_unsent_file_happens_or_not(folder: Path) -> None:
    """Killed before the commit: both files are at their names, though one was to go and one had moved."""
    with opened(folder) as store:
        moved, replaced = unsent(store, "temporary", b"new"), unsent(store, "real", b"old", ino=6)
        with store.atomically():
            store.discard(replaced)
            moved.path = path_bytes(at("real"))
            moved.save()
            with crashed(folder) as after:
                assert {one.path: os.pread(one.fd, 9, 0) for one in after.unfinished()} == {
                    b"temporary": b"new",
                    b"real": b"old",
                }
        with crashed(folder) as after:
            assert [one.path for one in after.unfinished()] == [b"real"]
        record = os.getxattr(store.disk.file_name(moved.id, moved.generation), RECORD)
        assert decode(record).row.path == b"real"
