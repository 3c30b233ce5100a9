"""Rows of versions that are only read: none while they are open, many in one commit when they are closed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from davfs.fs.content import Content
from davfs.fs.newcomers import TOGETHER_MAX, TOGETHER_S
from davfs.fs.store import ContentStore
from tests.unit.fs.rig import at, crashed, drop, opened, version

SIZE = 4096


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(folder: Path) -> Iterator[ContentStore]:
    with opened(folder) as store:
        yield store


def read(store: ContentStore, ino: int) -> Content:
    """Opened, and all of it fetched."""
    content = store.create(ino, at(f"f{ino}"), size=SIZE, base=version(SIZE))
    store.acquire(content)
    content.fill(0, b"x" * SIZE)
    return content


def data_files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "data").rglob("*") if path.is_file())


def log_bytes(folder: Path) -> int:
    return (folder / "index.db-wal").stat().st_size


def test_reading_commits_nothing(store: ContentStore, folder: Path) -> None:
    """A version that is fetched and open for reading is on the cache disk, and not in the index."""
    before = log_bytes(folder)
    content = read(store, 11)
    assert log_bytes(folder) == before
    assert store.cached(11) is content
    assert data_files(folder) == [f"{content.id}.0"]


def test_a_closed_one_is_kept(store: ContentStore, folder: Path) -> None:
    """Closed, it has its row, and the next mount finds it whole."""
    drop(store, read(store, 11))
    with crashed(folder) as after:
        found = after.cached(11)
        assert found is not None
        assert found.complete
        assert found.base == version(SIZE)


async def test_many_in_one_commit(store: ContentStore, folder: Path, autojump_clock: MockClock) -> None:
    """What is closed within a moment is committed together; who asks for one of them meanwhile has it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.newcomers.run)
        await trio.testing.wait_all_tasks_blocked()
        before = log_bytes(folder)
        inos = range(11, 11 + TOGETHER_MAX // 2)
        for ino in inos:
            drop(store, read(store, ino))
        assert log_bytes(folder) == before
        await trio.sleep(2 * TOGETHER_S)
        assert all(store.index.content_of(ino) is not None for ino in inos)
        drop(store, read(store, 5))
        assert store.index.content_of(5) is None
        found = store.cached(5)
        assert found is not None
        assert found.complete
        nursery.cancel_scope.cancel()


async def test_not_too_many_wait(store: ContentStore, autojump_clock: MockClock) -> None:
    """Many that are closed at once do not all wait for the task."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.newcomers.run)
        await trio.testing.wait_all_tasks_blocked()
        for ino in range(11, 11 + TOGETHER_MAX):
            drop(store, read(store, ino))
        assert store.index.content_of(11) is not None
        nursery.cancel_scope.cancel()


def test_a_kill_loses_only_what_can_be_fetched_again(store: ContentStore, folder: Path) -> None:
    """Open at kill -9: nothing of it is left, neither row nor file, and its number is free again."""
    read(store, 11)
    with crashed(folder) as after:
        assert after.cached(11) is None
        assert after.bytes_on_disk == 0
        assert data_files(Path(after.index.folder)) == []
        assert on_disk(written(after, 11)) == b"new"


def test_what_is_written_to_it_is_in_the_journal_at_once(store: ContentStore, folder: Path) -> None:
    """The first write to a version without a row commits it: kill -9 loses nothing."""
    content = read(store, 11)
    content.write(0, b"new")
    with crashed(folder) as after:
        (found,) = after.unfinished()
        assert on_disk(found) == b"new" + b"x" * (SIZE - 3)
        assert found.base == version(SIZE)


def test_the_newest_version_counts(store: ContentStore) -> None:
    """A version that is still open while a newer one of the same file is sent is not taken for it."""
    old = read(store, 11)
    new = written(store, 11)
    new.life = new.life.put_begins().put_succeeded()
    new.save()
    drop(store, new)
    found = store.cached(11)
    assert found is not None
    assert found.id == new.id
    drop(store, old)
    found = store.cached(11)
    assert found is not None
    assert found.id == new.id


def test_what_nobody_wants_any_more_leaves_nothing(store: ContentStore, folder: Path) -> None:
    """Discarded while it is open, it is gone with its last user."""
    content = read(store, 11)
    store.discard(content)
    assert store.cached(11) is None
    drop(store, content)
    assert data_files(folder) == []
    assert store.bytes_on_disk == 0


def written(store: ContentStore, ino: int) -> Content:
    content = store.create_unsent(ino, at(f"f{ino}"), base=None, mode=None)
    store.acquire(content)
    content.write(0, b"new")
    return content


def on_disk(content: Content) -> bytes:
    return os.pread(content.fd, content.size_bytes + 1, 0)
