"""Open files and the tree, where the parts meet: found by reading them side by side."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from davfs.fs.filesystem import ROOT_INO
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav, Fault
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL


class BreaksListings(httpx.AsyncBaseTransport):
    """A server whose Depth 1 answers end in the middle of the XML."""

    def __init__(self, server: FakeDav, after: bytes) -> None:
        self._server = server
        self._after = after

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert len(self._server.log) < 50, "no end of questions"
        answer = await self._server.handle_async_request(request)
        if request.headers.get("depth") != "1":
            return answer
        body = await answer.aread()
        body = body[: body.index(self._after)]
        return httpx.Response(
            207, headers={"Content-Type": "application/xml"}, stream=httpx.ByteStream(body), request=request
        )


async def test_a_file_opens_again_after_a_transfer_outlived_its_handle(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Looking into a large file and closing it at once leaves it readable."""
    server = FakeDav()
    data = os.urandom(2 << 20)
    server.put("/f", data)
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        ino = (await fs.lookup(ROOT_INO, "f")).ino
        for _ in range(2):
            handle = (await fs.open(ino, os.O_RDONLY)).handle
            assert await fs.read(handle, 0, 4096) == data[:4096]
            await fs.release(handle)
            await trio.sleep(1)


async def test_a_name_past_the_break_of_a_listing_is_found(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A listing that broke off does not make the names absent that it did not get to."""
    server = FakeDav()
    for name in ("a", "b", "zzz"):
        server.put(f"/{name}", name.encode())
    wire = BreaksListings(server, b"/zzz")
    async with running(wire, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        for _ in range(3):
            assert (await vfs.stat("a")).size == 1
            assert (await vfs.stat("zzz")).size == 3


async def test_listing_a_folder_leaves_no_nodes(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A kernel that reads a listing in small pieces and remembers none of it leaves an empty table."""
    server = FakeDav()
    for number in range(30):
        server.put(f"/f{number}", b"x")
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        assert len(await Vfs(fs).listdir("")) == 30
        assert fs.status()["inodes"] == 1


@pytest.mark.expects_warning("conflict")
async def test_a_foreign_change_before_a_rename_is_not_overwritten(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A changed, unsent file that is renamed after somebody else changed it too: both versions survive."""
    server = FakeDav()
    server.put("/f", b"base")
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("f", os.O_WRONLY)
        await vfs.write(fd, b"ours")
        server.put("/f", b"theirs")
        await vfs.rename("f", "g")
        await vfs.close(fd)
        assert await fs.sync(60) == 0
    assert {b"ours", b"theirs"} <= set(server.tree().values())


@pytest.mark.expects_warning("conflict")
@pytest.mark.expects_warning("not sent")
async def test_a_foreign_change_before_a_late_rename_is_not_overwritten(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The same after a PUT whose answer was lost: it was not ours that is there now."""
    server = FakeDav()
    server.put("/f", b"base")
    server.inject(Fault("PUT", lost="before"))
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("f", os.O_WRONLY | os.O_TRUNC)
        await vfs.write(fd, b"ours")
        await vfs.close(fd)
        await trio.sleep(0.5)
        server.put("/f", b"theirs")
        await vfs.rename("f", "g")
        assert await fs.sync(60) == 0
    assert {b"ours", b"theirs"} <= set(server.tree().values())
