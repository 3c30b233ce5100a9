"""What the upload of a large new file asks its folder first is asked while the file is being written."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import trio
from trio.testing import MockClock

from davfs.dav.lanes import PARENT_FROM_BYTES, Preflight
from davfs.fs.queue import FOLDER_SAID_S
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL

LARGE: Final = bytes(PARENT_FROM_BYTES)


class Asking(FakeDav):
    """Behind lanes that ask the folder; `left_to_ask`: whether a PUT still has that to ask."""

    asks_folders = True

    def __init__(self) -> None:
        super().__init__()
        self.left_to_ask: list[bool] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        plan = request.extensions.get("davfs_preflight")
        if request.method == "PUT" and isinstance(plan, Preflight):
            self.left_to_ask.append(plan.folder is not None)
        return await super().handle_async_request(request)

    def looks(self, path: str) -> int:
        return sum(one.path == path and one.depth == "0" for one in self.requests("PROPFIND"))


@asynccontextmanager
async def drive(server: FakeDav, folder: Path) -> AsyncIterator[Vfs]:
    async with running(server, URL, Settings(str(folder / "cache"))) as fs:
        await trio.sleep(1)  # for the quota, asked at the mount
        yield Vfs(fs)


async def new(vfs: Vfs, path: str, data: bytes) -> int:
    fd = await vfs.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for start in range(0, len(data), 1 << 20):
        await vfs.write(fd, data[start : start + (1 << 20)])
    await trio.sleep(0.1)
    return fd


async def test_it_is_asked_once_and_not_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """While the program writes; the PUT then has nothing left to ask."""
    server = Asking()
    server.mkdir("/folder")
    async with drive(server, tmp_path) as vfs:
        await vfs.listdir("folder")
        before = server.looks("/folder")
        fd = await new(vfs, "folder/new", LARGE)
        assert server.looks("/folder") == before + 1
        await vfs.write(fd, LARGE)
        await vfs.close(fd)
        assert await vfs.fs.sync(60) == 0
        assert server.looks("/folder") == before + 1
        assert server.left_to_ask == [False]
        assert server.content("/folder/new") == LARGE + LARGE


async def test_an_old_answer_does_not_count(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Somebody may have removed the folder, or filled the disk, since."""
    server = Asking()
    async with drive(server, tmp_path) as vfs:
        fd = await new(vfs, "new", LARGE)
        await trio.sleep(FOLDER_SAID_S)
        await vfs.close(fd)
        assert await vfs.fs.sync(60) == 0
        assert server.left_to_ask == [True]


async def test_another_folder_was_not_asked(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The file is renamed before it is sent: what its old folder said is not about the new one."""
    server = Asking()
    server.mkdir("/folder")
    async with drive(server, tmp_path) as vfs:
        fd = await new(vfs, "new", LARGE)
        await vfs.rename("new", "folder/new")
        await vfs.close(fd)
        assert await vfs.fs.sync(60) == 0
        assert server.left_to_ask == [True]


async def test_a_refusal_is_asked_for_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Only a yes is believed: what the folder says no to may have passed by the time of the upload."""
    server = Asking()
    server.mkdir("/folder")
    async with drive(server, tmp_path) as vfs:
        await vfs.listdir("folder")
        server.delete("/folder")
        fd = await new(vfs, "folder/new", LARGE)
        server.mkdir("/folder")
        await vfs.close(fd)
        assert await vfs.fs.sync(60) == 0
        assert server.left_to_ask == [True]


async def test_what_has_no_such_upload_asks_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Small files, files that are there already, and what may be a copy of a file that is being read."""
    server = Asking()
    server.put("/old", b"old")
    server.put("/source", LARGE * 2)
    async with drive(server, tmp_path) as vfs:
        await vfs.listdir("")
        before = server.looks("/")
        await vfs.close(await new(vfs, "small", LARGE[1:]))
        await vfs.close(await new(vfs, "old", LARGE))
        source = await vfs.open("source")
        await vfs.read(source)
        await vfs.close(await new(vfs, "copy", LARGE))
        await vfs.close(source)
        assert server.looks("/") == before
