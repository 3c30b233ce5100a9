"""What `Filesystem.status` counts: hits and misses, bytes, what the server is taken for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from trio.testing import MockClock

from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav
from tests.mount.assembly import running
from tests.mount.vfs import Vfs

URL = "http://fake/"


async def read_file(vfs: Vfs, path: str) -> bytes:
    fd = await vfs.open(path)
    try:
        return await vfs.read(fd)
    finally:
        await vfs.close(fd)


async def write_file(vfs: Vfs, path: str, data: bytes) -> None:
    fd = await vfs.open(path, os.O_WRONLY | os.O_CREAT)
    await vfs.write(fd, data)
    await vfs.close(fd)


async def test_hits_are_what_cost_no_request(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The first look, open and read miss; the second ones of each hit, and the server is asked nothing."""
    server = FakeDav()
    server.put("/f", b"content")
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)

        async def use() -> dict[str, Any]:
            assert (await vfs.stat("f")).size == 7
            assert await read_file(vfs, "f") == b"content"
            hits: Any = fs.status()["hits"]
            return {kind: (told["hits"], told["misses"]) for kind, told in hits.items()}

        first, asked = await use(), len(server.log)
        assert first["names"][1] >= 1
        assert first["opens"] == (0, 1)
        second = await use()
        assert len(server.log) == asked
        assert [each[1] for each in second.values()] == [each[1] for each in first.values()]
        assert second["opens"] == (1, 1)
        assert second["names"][0] > first["names"][0]


async def test_lists_can_be_cut_and_counts_stay(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Who asks every second gets a few rows, and the true numbers."""
    settings = Settings(str(tmp_path / "c"), write_back_s=3600)
    async with running(FakeDav(), URL, settings) as fs:
        vfs = Vfs(fs)
        for number in range(5):
            await write_file(vfs, f"f{number}", b"12")
        told: Any = fs.status(most=2)
        assert len(told["pending"]) == 2
        assert (told["pending_files"], told["pending_bytes"], told["failed"]) == (5, 10, 0)
        assert len(fs.status()["pending"]) == 5  # type: ignore[arg-type]
        await fs.sync()
        told = fs.status()
        assert (told["pending_files"], told["sent_files"], told["sent_bytes"] >= 10) == (0, 5, True)
        assert told["server_profile"]["name"] == "Apache mod_dav"
