"""A second mount over the cache of the first: what it asks, and what it believes."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from davfs.errors import PosixError
from davfs.fs.index import Index
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL

OLD_S = 1_000_000


@dataclass
class Wire(httpx.AsyncBaseTransport):
    """Counts what is asked of the server, but for the room that it has (quota)."""

    server: FakeDav
    asked: Counter[str] = field(default_factory=Counter)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        depth = request.headers.get("depth", "")
        if (depth, request.url.path) != ("0", "/"):
            self.asked[f"{request.method} {depth} {request.url.path}"] += 1
        return await self.server.handle_async_request(request)


@dataclass
class Drive:
    """Mounts one share again and again, by a wall's clock that the test moves."""

    wire: Wire
    folder: Path
    later_s: float = 0.0

    @asynccontextmanager
    async def mounted(self) -> AsyncIterator[Vfs]:
        settings = Settings(str(self.folder / "cache"), attr_timeout_max_s=60, write_back_s=0)
        async with running(self.wire, URL, settings, now_s=lambda: time.time() + self.later_s) as fs:
            self.wire.asked.clear()
            yield Vfs(fs)


@pytest.fixture
def server() -> FakeDav:
    server = FakeDav(now_s=lambda: OLD_S)
    for name in "abc":
        server.mkdir(f"/{name}")
        for number in range(3):
            server.put(f"/{name}/{number}", b"x" * number, mtime_s=OLD_S)
    return server


@pytest.fixture
def drive(server: FakeDav, tmp_path: Path) -> Drive:
    return Drive(Wire(server), tmp_path)


async def walk(vfs: Vfs) -> list[str]:
    """find, with the attributes of everything."""
    found = []
    for name in await vfs.listdir(""):
        found.append(name)
        for below in await vfs.listdir(name):
            found.append(f"{name}/{below}")
            await vfs.stat(f"{name}/{below}")
    return found


ALL = ["a", "a/0", "a/1", "a/2", "b", "b/0", "b/1", "b/2", "c", "c/0", "c/1", "c/2"]


async def visited(drive: Drive) -> None:
    async with drive.mounted() as vfs:
        assert await walk(vfs) == ALL


async def test_a_walk_after_a_remount_asks_nothing(drive: Drive) -> None:
    """Within the time-outs the next mount knows what the last one knew: names, kinds, sizes."""
    await visited(drive)
    drive.later_s = 20
    async with drive.mounted() as vfs:
        assert await walk(vfs) == ALL
        assert (await vfs.stat("c/2")).size == 2
        assert not drive.wire.asked


async def test_and_one_remount_more_makes_it_no_younger(drive: Drive) -> None:
    """30 s and 35 s make 65 s: a mount in between that only looked does not count as asking."""
    await visited(drive)
    drive.later_s = 30
    async with drive.mounted() as vfs:
        assert await walk(vfs) == ALL
    drive.later_s = 65
    async with drive.mounted() as vfs:
        assert await walk(vfs) == ALL
        assert sum(drive.wire.asked.values()) == 4


@pytest.mark.parametrize("later_s", [61, -5, 10**9])
async def test_what_is_old_or_from_the_future_is_asked_again(
    drive: Drive, server: FakeDav, later_s: float
) -> None:
    """After the time-out, or when the clock was set back: another client's changes are seen."""
    await visited(drive)
    server.put("/b/new", b"", mtime_s=OLD_S)
    server.put("/b/1", b"longer", mtime_s=OLD_S + 1)
    drive.later_s = later_s
    async with drive.mounted() as vfs:
        assert await walk(vfs) == sorted([*ALL, "b/new"])
        assert (await vfs.stat("b/1")).size == 6


async def test_no_name_is_absent_by_an_earlier_listing(drive: Drive, server: FakeDav) -> None:
    """The server is asked, also within the time-out."""
    await visited(drive)
    server.put("/b/new", b"12", mtime_s=OLD_S)
    async with drive.mounted() as vfs:
        assert (await vfs.stat("b/new")).size == 2
        with pytest.raises(PosixError, match="ENOENT"):
            await vfs.stat("c/none")


async def test_own_changes_are_in_what_is_kept(drive: Drive) -> None:
    """Made, written, renamed and removed until the very end: the next mount shows it, and asks nothing."""
    await visited(drive)
    async with drive.mounted() as vfs:
        await vfs.unlink("a/1")
        await vfs.rename("b/2", "c/two")
        await vfs.mkdir("a/d")
        fd = await vfs.open("a/d/new", os.O_WRONLY | os.O_CREAT, 0o644)
        await vfs.write(fd, b"12345")
        await vfs.close(fd)
        assert await vfs.fs.sync() == 0
        times = [(await vfs.stat(name)).mtime_ns for name in "abc"]
    async with drive.mounted() as vfs:
        gone, come = {"a/1", "b/2"}, ["a/d", "c/two"]
        assert await walk(vfs) == sorted([*(name for name in ALL if name not in gone), *come])
        assert await vfs.listdir("a/d") == ["new"]
        assert (await vfs.stat("a/d/new")).size == 5
        assert [(await vfs.stat(name)).mtime_ns for name in "abc"] == times
        assert not drive.wire.asked


async def test_nothing_is_believed_of_a_run_that_was_killed(drive: Drive, server: FakeDav) -> None:
    """Its last changes may be missing in what it kept."""
    await visited(drive)
    index = Index(str(drive.folder / "cache"))
    index.note_open()
    index.close()  # without a word: as after kill -9
    server.put("/b/new", b"", mtime_s=OLD_S)
    async with drive.mounted() as vfs:
        assert await walk(vfs) == sorted([*ALL, "b/new"])


async def test_a_listing_that_could_not_be_kept_is_not_believed(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full when it was saved: the row from before is old."""
    await visited(drive)
    async with drive.mounted() as vfs:
        await vfs.unlink("a/1")
        index = vfs.fs._store.index
        index.run("CREATE TEMP TRIGGER full BEFORE INSERT ON listings BEGIN SELECT RAISE(ABORT, 'full'); END")
    async with drive.mounted() as vfs:
        assert await vfs.listdir("a") == ["0", "2"]
