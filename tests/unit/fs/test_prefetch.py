"""Prefetch over a server in memory, 20 virtual milliseconds away: requests, and time in round trips."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from davfs.errors import DavfsError
from davfs.fs import prefetch
from davfs.fs.filesystem import ROOT_INO
from davfs.fs.inodes import Node
from davfs.fs.settings import Settings
from davfs.fs.tree import Tree
from tests.fakes.davserver import FakeDav
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL

RTT_S = 0.02
OLD_S = 1_000_000


class Far(httpx.AsyncBaseTransport):
    """A server one round trip away, with so many lanes to spare; `down_bytes` of files."""

    def __init__(self, server: FakeDav, *, spare: int = 12) -> None:
        self.server = server
        self.spare = spare
        self.most = 0
        self._ahead = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        ahead = request.extensions.get("davfs_lane") == "ahead"
        if ahead and self._ahead >= self.spare:
            raise httpx.PoolTimeout("no connection to spare")
        self._ahead += ahead
        self.most = max(self.most, self._ahead)
        try:
            await trio.sleep(RTT_S)
            return await self.server.handle_async_request(request)
        finally:
            self._ahead -= ahead


@asynccontextmanager
async def drive(far: Far, folder: Path) -> AsyncIterator[Vfs]:
    async with running(far, URL, Settings(str(folder / "cache"))) as fs:
        far.server.log.clear()
        yield Vfs(fs)


def asked(server: FakeDav) -> Counter[str]:
    """By method; of PROPFIND the listings: what goes on in the background (quota) is of Depth 0."""
    return Counter(each.method for each in server.log if each.method != "PROPFIND" or each.depth == "1")


async def walk(vfs: Vfs, path: str = "", program: int = 7, most: int = 1_000_000) -> int:
    """As find does: a folder's members in listing order, then each of the folders; how many were listed."""
    async with vfs._at(vfs._whole(path)) as told:
        handle = await vfs.fs.opendir(told.ino, program=program)
        members = list(await vfs.fs.readdir(handle, 0))
        vfs.fs.releasedir(handle)
    count = 1
    for name, attributes, _ in members:
        if attributes.mode & 0o040000 and count < most:
            count += await walk(vfs, f"{path}/{name}", program, most - count)
    return count


async def read(vfs: Vfs, path: str) -> bytes:
    fd = await vfs.open(path, os.O_RDONLY, 0)
    try:
        return await vfs.read(fd, 1 << 20)
    finally:
        await vfs.close(fd)


def tree(folders: int, files: int) -> FakeDav:
    server = FakeDav()
    for number in range(folders):
        server.mkdir(f"/d{number:03d}")
        for file in range(files):
            server.put(f"/d{number:03d}/f{file:02d}", b"%d" % number, mtime_s=OLD_S)
    return server


@pytest.fixture
def far() -> Far:
    return Far(tree(100, 5))


async def test_a_walk_asks_once_for_each_folder_many_at_a_time(
    tmp_path: Path, far: Far, autojump_clock: MockClock
) -> None:
    """101 folders: 101 PROPFINDs, in the time of some twelve instead of 101."""
    async with drive(far, tmp_path) as vfs:
        begun_s = trio.current_time()
        assert await walk(vfs) == 101
        assert trio.current_time() - begun_s < 14 * RTT_S
        assert asked(far.server) == {"PROPFIND": 101}


async def test_a_walk_that_stops_costs_no_more_than_a_window(
    tmp_path: Path, far: Far, autojump_clock: MockClock
) -> None:
    """Stopped after five folders: at most 64 others were asked for, and nothing follows."""
    async with drive(far, tmp_path) as vfs:
        await walk(vfs, most=5)
        await trio.sleep(1)
        count = asked(far.server)["PROPFIND"]
        assert count <= 5 + 64
        await trio.sleep(10)
        assert asked(far.server)["PROPFIND"] == count


async def test_ordinary_steps_fetch_nothing_ahead(
    tmp_path: Path, far: Far, autojump_clock: MockClock
) -> None:
    """ls, a second later ls of a folder in it, by another process; then one of its files: three requests."""
    async with drive(far, tmp_path) as vfs:
        await walk(vfs, program=1, most=1)
        await trio.sleep(1)
        await walk(vfs, "d005", program=2)
        assert await read(vfs, "d005/f02") == b"5"
        await trio.sleep(1)
        assert asked(far.server) == {"PROPFIND": 2, "GET": 1}


async def test_a_deep_tree(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What is below the folders that were fetched ahead is fetched ahead as well."""
    server = FakeDav()
    for a in "abcd":
        server.mkdir(f"/{a}")
        for b in "abcd":
            server.mkdir(f"/{a}/{b}")
            for c in "abcd":
                server.mkdir(f"/{a}/{b}/{c}")
    far = Far(server)
    async with drive(far, tmp_path) as vfs:
        begun_s = trio.current_time()
        assert await walk(vfs) == 85
        assert trio.current_time() - begun_s < 20 * RTT_S
        assert asked(server) == {"PROPFIND": 85}


async def test_folders_that_are_refused(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A folder that is gone is asked for once more by the program, which hears of it; the walk goes on."""
    far = Far(tree(20, 0))
    async with drive(far, tmp_path) as vfs:
        await walk(vfs, most=1)
        far.server.delete("/d003")
        with pytest.raises(DavfsError) as caught:
            await walk(vfs)
        assert caught.value.errno == errno.ENOENT
        assert asked(far.server)["PROPFIND"] <= 22


async def test_without_lanes_to_spare_a_walk_is_as_before(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Nothing is fetched ahead, and nothing goes wrong."""
    far = Far(tree(20, 2), spare=0)
    async with drive(far, tmp_path) as vfs:
        begun_s = trio.current_time()
        assert await walk(vfs) == 21
        assert asked(far.server) == {"PROPFIND": 21}
        assert trio.current_time() - begun_s < 22 * RTT_S
        for number in range(4):
            assert await read(vfs, f"d{number:03d}/f00") == b"%d" % number


async def test_small_files_in_listing_order_are_fetched_ahead(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """200 files of one folder: one GET each, in the time of some thirty."""
    far = Far(tree(1, 200))
    async with drive(far, tmp_path) as vfs:
        names = await vfs.listdir("d000")
        begun_s = trio.current_time()
        for name in names:
            assert await read(vfs, f"d000/{name}") == b"0"
        assert trio.current_time() - begun_s < 32 * RTT_S
        assert asked(far.server)["GET"] == 200
        assert far.most <= 12


async def test_one_open_in_a_folder_of_a_thousand(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Nothing else is fetched; nor after opens here and there."""
    far = Far(tree(1, 100))
    async with drive(far, tmp_path) as vfs:
        await vfs.listdir("d000")
        for number in (50, 7, 93, 60, 12, 80, 33):
            await read(vfs, f"d000/f{number:02d}")
        await trio.sleep(1)
        assert asked(far.server)["GET"] == 7


async def test_a_reading_walk_goes_on_into_the_next_folders(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """grep -r over 20 folders of 10 files: 221 requests, in the time of some thirty."""
    far = Far(tree(20, 10))
    async with drive(far, tmp_path) as vfs:
        begun_s = trio.current_time()
        root = await vfs.fs.opendir(ROOT_INO, program=7)
        folders = [name for name, _, _ in await vfs.fs.readdir(root, 0)]
        for folder in folders:
            async with vfs._at([folder]) as told:
                handle = await vfs.fs.opendir(told.ino, program=7)
                names = [name for name, _, _ in await vfs.fs.readdir(handle, 0)]
                for name in names:
                    assert await read(vfs, f"{folder}/{name}") == b"%d" % int(folder[1:])
                vfs.fs.releasedir(handle)
        vfs.fs.releasedir(root)
        assert asked(far.server) == {"PROPFIND": 21, "GET": 200}
        assert trio.current_time() - begun_s < 40 * RTT_S


async def test_a_file_that_changes_after_it_was_fetched_ahead(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """An open after the attribute time-out sees the new version, fetched ahead or not."""
    far = Far(tree(1, 50))
    async with drive(far, tmp_path) as vfs:
        names = await vfs.listdir("d000")
        for name in names[:4]:
            await read(vfs, f"d000/{name}")
        await trio.sleep(1)
        ahead = asked(far.server)["GET"]
        assert ahead > 4
        for name in names:
            far.server.put(f"/d000/{name}", b"new", mtime_s=OLD_S + 100)
        await trio.sleep(61)
        for name in names[4:10]:
            assert await read(vfs, f"d000/{name}") == b"new"


async def test_a_file_that_changed_between_listing_and_prefetch(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The fetched bytes are of the new version; they are not taken for the listed one."""
    far = Far(tree(1, 50))
    async with drive(far, tmp_path) as vfs:
        names = await vfs.listdir("d000")
        for name in names[2:]:
            far.server.put(f"/d000/{name}", b"another", mtime_s=OLD_S + 100)
        for name in names[:2]:
            await read(vfs, f"d000/{name}")
        for name in names[2:10]:
            assert await read(vfs, f"d000/{name}") == b"another"


async def test_what_is_held_ahead_can_be_changed_like_anything_else(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Files that were fetched ahead and not opened are removed, renamed, replaced and written as ever."""
    far = Far(tree(1, 40))
    async with drive(far, tmp_path) as vfs:
        async with vfs._at(["d000"]) as told:
            handle = await vfs.fs.opendir(told.ino)
            names = [name for name, _, _ in await vfs.fs.readdir(handle, 0)]
            vfs.fs.releasedir(handle)
        for name in names[:4]:
            await read(vfs, f"d000/{name}")
        await trio.sleep(1)
        assert asked(far.server)["GET"] == 8
        gone, moved, replaced, written = (f"d000/{name}" for name in names[4:8])
        await vfs.unlink(gone)
        fd = await vfs.open(written, os.O_WRONLY | os.O_TRUNC, 0)
        await vfs.write(fd, b"written")
        await vfs.close(fd)
        await vfs.rename(moved, replaced)
        assert await vfs.fs.sync() == 0
        assert sorted(await vfs.listdir("d000")) == sorted(set(names) - {names[4], names[5]})
        assert await read(vfs, written) == b"written"
        assert await read(vfs, replaced) == b"0"
        assert await read(vfs, f"d000/{names[9]}") == b"0"
    assert {"DELETE", "PUT", "MOVE"} <= {each.method for each in far.server.log}


@pytest.mark.expects_warning("unexpected ZeroDivisionError")
async def test_a_mistake_in_what_is_fetched_ahead_ends_nothing(
    tmp_path: Path, far: Far, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it, and the drive goes on."""

    async def fails(_self: Tree, _node: Node) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    monkeypatch.setattr(Tree, "list_ahead", fails)
    async with drive(far, tmp_path) as vfs:
        assert await walk(vfs) == 101
        assert await walk(vfs) == 101


async def test_what_is_known_of_series_is_bounded(
    tmp_path: Path, far: Far, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files opened in each of many large folders: the names of the oldest are dropped."""
    monkeypatch.setattr(prefetch, "NAMES_MAX", 20)
    async with drive(far, tmp_path) as vfs:
        for number in range(0, 100, 7):
            await vfs.listdir(f"d{number:03d}")
            for name in ("f00", "f01"):
                await read(vfs, f"d{number:03d}/{name}")
            await trio.sleep(10)
        assert 0 < vfs.fs._prefetch._names() <= 25
