"""The index cannot be written for a while, on a full or failing disk: the mount goes on, nothing is lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import pytest
import trio
from trio.testing import MockClock

from davfs.errors import CacheFull, PosixError
from davfs.fs.filesystem import Filesystem
from davfs.fs.settings import Settings
from davfs.fs.store import ContentStore
from tests.fakes.davserver import FakeDav, Fault
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL, at, crashed, opened, path_of
from tests.unit.fs.test_content import tiny_disk

__all__ = ["tiny_disk"]

pytestmark = pytest.mark.expects_warning("")


@contextmanager
def read_only(fs: Filesystem) -> Iterator[None]:
    """Each commit fails, as on a disk that the kernel has made read-only."""
    connection = fs._store.index._db._db
    connection.execute("PRAGMA query_only=1")
    yield
    connection.execute("PRAGMA query_only=0")


async def save(vfs: Vfs, path: str, data: bytes) -> None:
    fd = await vfs.open(path, os.O_WRONLY | os.O_CREAT)
    await vfs.write(fd, data)
    await vfs.close(fd)


async def test_an_upload_that_fails_and_cannot_be_noted(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The failure is forgotten by a restart only; the file is tried again."""
    server = FakeDav()
    async with running(server, URL, Settings(str(tmp_path / "c"), write_back_s=5)) as fs:
        vfs = Vfs(fs)
        await save(vfs, "f", b"ours")
        server.inject(Fault("PUT", times=3, status=507))
        with read_only(fs):
            await trio.sleep(60)
        server.faults.clear()
        assert await vfs.listdir("") == ["f"]
        assert await fs.sync(600) == 0
    assert server.tree() == {"f": b"ours"}


async def test_an_upload_that_arrives_and_cannot_be_noted(tmp_path: Path, autojump_clock: MockClock) -> None:
    """It is noted later."""
    server = FakeDav()
    async with running(server, URL, Settings(str(tmp_path / "c"), write_back_s=5)) as fs:
        vfs = Vfs(fs)
        await save(vfs, "f", b"ours")
        server.inject(Fault("PUT", answer_delay_s=3))
        await trio.sleep(6)
        with read_only(fs):
            await trio.sleep(60)
        assert await fs.sync(600) == 0
        shutil.copytree(tmp_path / "c", tmp_path / "after")
    assert server.tree() == {"f": b"ours"}
    with opened(tmp_path / "after") as store:
        assert store.index.unfinished() == []


async def test_reading_goes_on(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What was fetched is only not kept."""
    server = FakeDav()
    data = os.urandom(1 << 20)
    server.put("/f", data)
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("f")
        with read_only(fs):
            assert await vfs.pread(fd, 1 << 20, 0) == data
            await vfs.close(fd)
        await trio.sleep(60)
        assert await vfs.listdir("") == ["f"]


@pytest.mark.parametrize("lock", ["auto", "always"])
async def test_a_lock_is_lost(
    tmp_path: Path, autojump_clock: MockClock, lock: Literal["auto", "always"]
) -> None:
    """The row stays, the next run asks what it means; the file is sent."""
    server = FakeDav()
    server.put("/f", b"old")
    async with running(server, URL, Settings(str(tmp_path / "c"), lock=lock)) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("f", os.O_RDWR)
        await vfs.write(fd, b"ours")
        await trio.sleep(8)
        assert server.locks
        server.forget_locks()
        with read_only(fs):
            await trio.sleep(3600)
        with pytest.raises(PosixError):  # what became of the attempt meanwhile
            await vfs.close(fd)
        assert await fs.sync(600) == 0
    assert server.tree() == {"f": b"ours"}


async def test_a_removed_file_does_not_come_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Its row cannot go, its bytes do: what is made under that name later is another file."""
    server = FakeDav()
    server.put("/f", b"old")
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("f")
        await vfs.read(fd)
        await vfs.close(fd)
        content = fs._store.cached((await vfs.stat("f")).ino)
        assert content is not None
        with read_only(fs):
            fs._store.discard(content)
        assert fs._store.cached(content.ino) is None
        await save(vfs, "f", b"new")
        assert await fs.sync(60) == 0
    assert server.tree() == {"f": b"new"}


# --- transactions -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def unsent(store: ContentStore, count: int) -> None:
    for number in range(count):
        content = store.create_unsent(100 + number, at(f"old/{number}"), base=None, mode=None)
        store.acquire(content)


def rename_all(store: ContentStore) -> None:
    with store.atomically():
        for content in store._live.values():
            content.path = content.path.replace(b"old", b"new")
            content.save()


def folders(store: ContentStore) -> set[str]:
    return {path_of(content).partition("/")[0] for content in store.unfinished()}


def filled(disk: Path, name: str) -> Path:
    """Not a page is free any more."""
    with (disk / name).open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return disk / name


def test_a_transaction_that_cannot_begin_leaves_no_trace(folder: Path) -> None:
    """The next one begins."""
    with opened(folder) as store:
        unsent(store, 3)
        store.index.begin()
        with pytest.raises(PosixError):
            rename_all(store)
        store.index.commit()
        rename_all(store)
        with crashed(folder) as after:
            assert folders(after) == {"new"}


def test_a_transaction_on_a_full_disk_takes_what_was_put_by(tiny_disk: Path, tmp_path: Path) -> None:
    """SQLite undoes all of it at COMMIT: with the reserve it is done again, and holds after a kill."""
    with opened(tiny_disk / "cache") as store:
        unsent(store, 50)
        store.index.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        filled(tiny_disk, "filler")
        rename_all(store)
        assert store.index.reserve_spent
        shutil.copytree(tiny_disk / "cache", tmp_path / "after", ignore=shutil.ignore_patterns("reserve"))
    with opened(tmp_path / "after") as after:
        assert folders(after) == {"new"}


def test_a_transaction_that_finds_no_room_is_told_and_can_be_done_again(
    tiny_disk: Path, tmp_path: Path
) -> None:
    """Nothing of it is half done, it is not taken for damage, and the next one is not part of it."""
    with opened(tiny_disk / "cache") as store:
        unsent(store, 50)
        first = filled(tiny_disk, "filler")
        store.index._db._found_room()
        filled(tiny_disk, "more")
        with pytest.raises(CacheFull):
            rename_all(store)
        assert not store.index._db.failed
        first.unlink()
        rename_all(store)
        shutil.copytree(tiny_disk / "cache", tmp_path / "after", ignore=shutil.ignore_patterns("reserve"))
    with opened(tmp_path / "after") as after:
        assert folders(after) == {"new"}
