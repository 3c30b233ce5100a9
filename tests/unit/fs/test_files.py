"""Open files and the tree, where the parts meet: found by reading them side by side."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from davfs.errors import DavfsError
from davfs.fs.filesystem import ROOT_INO
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav, Fault, Node, Parts
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


class WritesNoPercent(FakeDav):
    """As libphodav: the href of a name with '%' is empty in its answers."""

    def _href(self, parts: Parts, node: Node) -> str:
        return "" if parts and "%" in parts[-1] else super()._href(parts, node)


async def test_a_name_that_a_listing_cannot_write_is_found(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Entries that cannot be read prove no absence: the file is found by its name, and stays whole."""
    server = WritesNoPercent()
    server.put("/a", b"a")
    server.put("/50%", b"half")
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        assert await vfs.listdir("") == ["a"]
        assert (await vfs.stat("50%")).size == 4
        with pytest.raises(DavfsError) as caught:
            await vfs.open("50%", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        assert caught.value.errno == errno.EEXIST
    assert server.content("/50%") == b"half"


async def test_listing_a_folder_leaves_no_nodes(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A kernel that takes none of a listing, or has forgotten all of it, leaves an empty table."""
    server = FakeDav()
    for number in range(30):
        server.put(f"/f{number}", b"x")
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        assert len(await vfs.listdir("")) == 30
        assert fs.status()["inodes"] == 31
        vfs.forget_listed()
        assert fs.status()["inodes"] == 1
        handle = await fs.opendir(ROOT_INO)
        assert len(list(await fs.readdir(handle, 0))) == 30
        fs.releasedir(handle)
        assert fs.status()["inodes"] == 1


async def test_a_listed_file_that_changed_elsewhere(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The kernel hears of it although only a listing told it of the file, and of which size."""
    server = FakeDav()
    server.put("/f", b"old")
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        assert await Vfs(fs).listdir("") == ["f"]
        changed: list[tuple[str, int]] = []
        fs._tree.changed = lambda node: changed.append((node.name, node.told_size))
        server.put("/f", b"longer")
        fs.refresh()
        fs.releasedir(await fs.opendir(ROOT_INO))
        assert changed == [("f", 3)]


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


@pytest.mark.expects_warning("not sent")
async def test_an_unsent_file_survives_a_refused_removal(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The removal stopped its upload; when the server refuses the removal, it is sent after all."""
    server = FakeDav()
    server.put("/f", b"base")
    server.inject(Fault("PUT", status=503))
    server.inject(Fault("DELETE", status=403))
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("f", os.O_WRONLY | os.O_TRUNC)
        await vfs.write(fd, b"ours")
        await vfs.close(fd)
        await trio.sleep(0.5)
        with pytest.raises(DavfsError, match="403"):
            await vfs.unlink("f")
        assert await fs.sync(60) == 0
    assert server.content("f") == b"ours"


@pytest.mark.expects_warning("not sent")
async def test_an_unsent_file_survives_a_refused_replacement(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The same for a file that a rename should have replaced."""
    server = FakeDav()
    server.put("/new", b"new")
    server.put("/f", b"base")
    server.inject(Fault("PUT", status=503))
    server.inject(Fault("MOVE", status=403))
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("f", os.O_WRONLY | os.O_TRUNC)
        await vfs.write(fd, b"ours")
        await vfs.close(fd)
        await trio.sleep(0.5)
        with pytest.raises(DavfsError, match="403"):
            await vfs.rename("new", "f")
        assert await fs.sync(60) == 0
    assert (server.content("f"), server.content("new")) == (b"ours", b"new")


async def test_a_write_while_a_rename_sends_the_file_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Where MOVE is unsafe the file is PUT anew: whole as it was, and what is written meanwhile follows."""
    server = FakeDav()
    server.put("/f", b"a" * 600_000)
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("f", os.O_RDWR)
        assert len(await vfs.pread(fd, 600_000, 0)) == 600_000
        server.inject(Fault("PUT", delay_s=1.0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(vfs.rename, "f", "f?new")
            await trio.sleep(0.5)
            await vfs.pwrite(fd, b"b", 0)
        await vfs.close(fd)
        assert await fs.sync(60) == 0
    assert server.content("f?new") == b"b" + b"a" * 599_999


@pytest.mark.expects_warning("conflict")
async def test_a_foreign_change_survives_a_rename_that_sends_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Where a rename is PUT and DELETE, somebody else's change is not what is deleted."""
    server = FakeDav(anonymous=True)
    server.put("/f", b"base")
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("f", os.O_WRONLY)
        await vfs.write(fd, b"ours")
        server.put("/f", b"theirs")
        with pytest.raises(DavfsError, match="somebody else"):
            await vfs.rename("f", "f?new")
        await vfs.close(fd)
        assert await fs.sync(60) == 0
    assert {b"ours", b"theirs"} <= set(server.tree().values())
