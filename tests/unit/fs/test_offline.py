"""The file system without its server: what is served, what is refused, what waits, and how it ends."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from davfs.errors import DavfsError, PosixError
from davfs.fs.filesystem import ROOT_INO, Filesystem
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL

pytestmark = pytest.mark.expects_warning("")  # outages are logged
LINK_ERRNOS = {errno.EIO, errno.EHOSTUNREACH, errno.ETIMEDOUT}


class Line(httpx.AsyncBaseTransport):
    """The way to the server: it can be cut, or become slow, or silent."""

    def __init__(self, server: FakeDav) -> None:
        self.server = server
        self.cut = False
        self.delay_s = 0.0
        self.status = 0
        self.sent = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent += 1
        if self.cut:
            raise httpx.ConnectError("no route to host")
        if self.delay_s:
            with trio.move_on_after(request.extensions["timeout"]["read"]):
                await trio.sleep(self.delay_s)
                return await self.server.handle_async_request(request)
            raise httpx.ReadTimeout("silence")
        if self.status:
            return httpx.Response(self.status, stream=httpx.ByteStream(b""), request=request)
        return await self.server.handle_async_request(request)


@pytest.fixture
def server() -> FakeDav:
    server = FakeDav()
    server.put("/a", b"cached", mtime_s=1_000_000)
    server.put("/b", b"never read", mtime_s=1_000_000)
    server.mkdir("/d")
    server.put("/d/deep", b"deep", mtime_s=1_000_000)
    server.mkdir("/never listed")
    return server


@pytest.fixture
def line(server: FakeDav) -> Line:
    return Line(server)


@asynccontextmanager
async def drive(
    line: Line, folder: Path, *, offline: bool = False, later_s: float = 0.0
) -> AsyncIterator[Vfs]:
    settings = Settings(str(folder / "cache"), attr_timeout_min_s=1, attr_timeout_max_s=1, write_back_s=0.1)
    async with running(line, URL, settings, offline=offline, now_s=lambda: time.time() + later_s) as fs:
        yield Vfs(fs)


async def read(vfs: Vfs, path: str) -> bytes:
    fd = await vfs.open(path, os.O_RDONLY, 0)
    try:
        return await vfs.read(fd, 1000)
    finally:
        await vfs.close(fd)


async def write(vfs: Vfs, path: str, data: bytes) -> None:
    fd = await vfs.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    await vfs.write(fd, data)
    await vfs.close(fd)


async def visit(vfs: Vfs) -> None:
    """What a person does before the train goes into the tunnel."""
    await vfs.listdir("")
    await vfs.listdir("d")
    assert await read(vfs, "a") == b"cached"
    assert await read(vfs, "d/deep") == b"deep"


async def cut(vfs: Vfs, line: Line) -> None:
    """The line is cut, the time-outs have passed, and somebody has noticed."""
    line.cut = True
    await trio.sleep(100)
    await vfs.listdir("")
    assert vfs.fs.status()["link"] != {"state": "up"}


@asynccontextmanager
async def at_once() -> AsyncIterator[None]:
    """Not one virtual millisecond: nothing was waited for."""
    begun_s = trio.current_time()
    yield
    assert trio.current_time() == begun_s


async def refused(vfs: Vfs, call: str, *arguments: object) -> None:
    async with at_once():
        with pytest.raises(DavfsError) as caught:
            await getattr(vfs, call)(*arguments)
        assert caught.value.errno in LINK_ERRNOS, caught.value


async def serves_what_is_kept(vfs: Vfs) -> None:
    async with at_once():
        assert sorted(await vfs.listdir("")) == ["a", "b", "d", "never listed"]
        assert await vfs.listdir("d") == ["deep"]
        assert (await vfs.stat("b")).size == 10
        assert await read(vfs, "a") == b"cached"
        assert await read(vfs, "d/deep") == b"deep"
    async with at_once():
        with pytest.raises(PosixError, match="ENOENT"):
            await vfs.stat("no such name")
    await refused(vfs, "open", "b", os.O_RDONLY, 0)
    await refused(vfs, "open", "b", os.O_RDWR, 0)
    await refused(vfs, "listdir", "never listed")
    await refused(vfs, "stat", "never listed/x")
    await refused(vfs, "mkdir", "new", 0o755)
    await refused(vfs, "rmdir", "d")
    await refused(vfs, "unlink", "a")
    await refused(vfs, "rename", "a", "c")
    async with at_once():
        await vfs.statvfs()


async def test_without_the_server_what_is_kept_is_served(
    tmp_path: Path, line: Line, autojump_clock: MockClock
) -> None:
    """Names, attributes and cached contents at once; the errno of the link at once for all that needs it."""
    async with drive(line, tmp_path) as vfs:
        await visit(vfs)
        await cut(vfs, line)
        await serves_what_is_kept(vfs)


async def test_and_also_after_a_restart(tmp_path: Path, line: Line, autojump_clock: MockClock) -> None:
    """The next mount, begun without the server, serves the same."""
    async with drive(line, tmp_path) as vfs:
        await visit(vfs)
    line.cut = True
    async with drive(line, tmp_path, offline=True, later_s=100) as vfs:
        await serves_what_is_kept(vfs)


async def test_work_goes_on_and_arrives(
    tmp_path: Path, line: Line, server: FakeDav, autojump_clock: MockClock
) -> None:
    """New files, edits of cached ones, temporary files renamed over, renames and deletions of unsent ones."""
    async with drive(line, tmp_path) as vfs:
        await visit(vfs)
        await cut(vfs, line)
        async with at_once():
            await write(vfs, "new", b"new")
            await write(vfs, "d/temporary", b"replaced")
            await write(vfs, "gone", b"gone")
            await write(vfs, "wrong name", b"moved")
        await trio.sleep(300)  # uploads were tried, and must not have become uncertain
        async with at_once():
            await vfs.rename("d/temporary", "d/deep")
            await vfs.rename("wrong name", "d/right name")
            await vfs.unlink("gone")
            await write(vfs, "a", b"edited")
            assert await read(vfs, "d/deep") == b"replaced"
            assert sorted(await vfs.listdir("d")) == ["deep", "right name"]
        line.cut = False
        await trio.sleep(60)
        assert vfs.fs.pending_paths() == []
        assert vfs.fs.status()["link"] == {"state": "up"}
    assert server.tree() == {
        "a": b"edited",
        "b": b"never read",
        "d": None,
        "d/deep": b"replaced",
        "d/right name": b"moved",
        "never listed": None,
        "new": b"new",
    }


async def test_an_edit_elsewhere_meanwhile_is_a_conflict(
    tmp_path: Path, line: Line, server: FakeDav, autojump_clock: MockClock
) -> None:
    """What was written over without the server's word overwrites nobody's work."""
    async with drive(line, tmp_path) as vfs:
        await visit(vfs)
        await cut(vfs, line)
        await write(vfs, "temporary", b"ours")
        await vfs.rename("temporary", "a")
        server.put("/a", b"theirs")
        line.cut = False
        await trio.sleep(60)
        assert await read(vfs, "a") == b"theirs"
        (copy,) = [name for name in await vfs.listdir("") if "conflict" in name]
        assert await read(vfs, copy) == b"ours"


async def test_uploads_begin_as_soon_as_the_server_answers(
    tmp_path: Path, line: Line, server: FakeDav, autojump_clock: MockClock
) -> None:
    """After an hour without it: no longer than until the next probe, although each upload waits a minute."""
    async with drive(line, tmp_path) as vfs:
        await visit(vfs)
        await cut(vfs, line)
        await write(vfs, "new", b"new")
        sent = line.sent
        await trio.sleep(3600)
        assert line.sent - sent < 200, "a dead server is not hammered"
        line.cut = False
        await trio.sleep(31)
        assert server.content("/new") == b"new"


async def test_a_person_who_asks_is_not_kept_waiting(
    tmp_path: Path, line: Line, server: FakeDav, autojump_clock: MockClock
) -> None:
    """`davfs sync` asks the server at once."""
    async with drive(line, tmp_path) as vfs:
        await visit(vfs)
        await cut(vfs, line)
        await write(vfs, "new", b"new")
        await trio.sleep(3600)
        line.cut = False
        assert await vfs.fs.sync(3.0) == 0


async def test_a_slow_server_does_not_hold_up_what_is_known(
    tmp_path: Path, line: Line, server: FakeDav, autojump_clock: MockClock
) -> None:
    """Names and attributes are served after 3 s, and at once while that question is still on its way."""
    async with drive(line, tmp_path) as vfs:
        await visit(vfs)
        await trio.sleep(100)
        line.delay_s = 20.0
        begun_s = trio.current_time()
        assert await vfs.listdir("d") == ["deep"]
        assert (await vfs.stat("d/deep")).size == 4
        assert trio.current_time() - begun_s <= 3
        async with at_once():
            assert await vfs.listdir("d") == ["deep"]
        begun_s = trio.current_time()
        assert await read(vfs, "a") == b"cached"
        assert trio.current_time() - begun_s >= 10, "open waits for the server's word"


async def test_a_slow_server_is_believed_on_what_is_absent(
    tmp_path: Path, line: Line, server: FakeDav, autojump_clock: MockClock
) -> None:
    """What another client made is found, however long it takes: "no such file" is only said by a server."""
    async with drive(line, tmp_path) as vfs:
        await visit(vfs)
    async with drive(line, tmp_path) as vfs:
        server.put("/d/made elsewhere", b"x")
        line.delay_s = 4.0
        assert (await vfs.stat("d/made elsewhere")).size == 1


async def test_a_silent_server_holds_up_nobody_twice(
    tmp_path: Path, line: Line, autojump_clock: MockClock
) -> None:
    """Forty programs ask what only the server knows: all end within one time-out, later ones at once."""
    async with drive(line, tmp_path) as vfs:
        await visit(vfs)
        await trio.sleep(100)
        line.delay_s = 1e6
        ended: list[float] = []
        begun_s = trio.current_time()

        async def program(number: int) -> None:
            with pytest.raises(DavfsError):
                await vfs.stat(f"never listed/{number % 4}")
            ended.append(trio.current_time() - begun_s)

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(program, number)
        assert max(ended) <= 34, "one time-out, and one patience on the way there"
        await trio.sleep(20)
        await refused(vfs, "stat", "never listed/x")


def link_of(fs: Filesystem) -> dict[str, object]:
    link = fs.status()["link"]
    assert isinstance(link, dict)
    return link


@pytest.mark.parametrize(("status", "number"), [(401, errno.EACCES), (405, errno.EIO)])
async def test_a_server_that_is_not_ours_after_a_start_without_it(
    tmp_path: Path, line: Line, autojump_clock: MockClock, status: int, number: int
) -> None:
    """A wrong password, or a login page in a hotel: shown in the status, what is kept is served all the same,
    and when it is our server after all the drive is whole.
    """
    async with drive(line, tmp_path) as vfs:
        await visit(vfs)
    line.cut = True
    async with drive(line, tmp_path, offline=True) as vfs:
        line.cut, line.status = False, status
        await trio.sleep(300)
        assert str(status) in str(link_of(vfs.fs)["reason"])
        assert await read(vfs, "a") == b"cached"
        with pytest.raises(DavfsError) as caught:
            await read(vfs, "b")
        assert caught.value.errno == number
        line.status = 0
        await trio.sleep(31)
        assert await read(vfs, "b") == b"never read"


async def test_the_root_of_a_drive_that_knows_nothing(
    tmp_path: Path, line: Line, autojump_clock: MockClock
) -> None:
    """A first mount without the server has a root to look at, and the rest when the server comes."""
    line.cut = True
    async with drive(line, tmp_path, offline=True) as vfs:
        assert (await vfs.fs.getattr(ROOT_INO)).ino == ROOT_INO
        await refused(vfs, "listdir", "")
        assert link_of(vfs.fs)["state"] == "not connected yet"
        line.cut = False
        await trio.sleep(40)
        assert link_of(vfs.fs) == {"state": "up"}
        assert sorted(await vfs.listdir("")) == ["a", "b", "d", "never listed"]
