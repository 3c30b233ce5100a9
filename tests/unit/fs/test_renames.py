"""Renames over a server in memory: of which nobody knows whether they were done, and that fail halfway."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from davfs.errors import DavfsError, PosixError
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav, Fault
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL


def settings(tmp_path: Path, folder: str = "cache", *, write_back_s: float = 30.0) -> Settings:
    return Settings(str(tmp_path / folder), write_back_s=write_back_s)


async def killed_in_the_rename(server: FakeDav, tmp_path: Path, *, unsent: str) -> None:
    """The server has renamed /old to /new, and nobody here heard of it; `unsent` was written to before.

    The cache of the daemon that was killed is in 'after'.
    """
    server.inject(Fault("MOVE", answer_delay_s=60))
    async with running(server, URL, settings(tmp_path, "before")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open(unsent, os.O_WRONLY)
        await vfs.write(fd, b"ours")
        await vfs.close(fd)
        with trio.move_on_after(5):
            await vfs.rename("old", "new")
        assert "old" not in server.tree()
        shutil.copytree(tmp_path / "before", tmp_path / "after")


@pytest.mark.parametrize(("unsent", "shown"), [("old", b"ours and more"), ("new", b"**** and more")])
async def test_a_rename_that_was_done_and_not_noted_is_caught_up(
    tmp_path: Path, autojump_clock: MockClock, unsent: str, shown: bytes
) -> None:
    """At the first look after the remount there is one file, at its new name, with the bytes it had."""
    server = FakeDav()
    server.put("/old", b"**** and more")
    server.put("/new", b"was there")
    await killed_in_the_rename(server, tmp_path, unsent=unsent)
    async with running(server, URL, settings(tmp_path, "after")) as fs:
        vfs = Vfs(fs)
        assert await vfs.listdir("") == ["new"]
        fd = await vfs.open("new")
        assert await vfs.read(fd) == shown
        await vfs.close(fd)
        assert await fs.sync(60) == 0
    assert server.tree() == {"new": shown}


@pytest.mark.expects_warning("")
@pytest.mark.parametrize(("unsent", "shown"), [("old", b"ours and more"), ("new", b"**** and more")])
async def test_a_rename_is_caught_up_when_the_server_is_back(
    tmp_path: Path, autojump_clock: MockClock, unsent: str, shown: bytes
) -> None:
    """The next daemon starts without the server: nothing is sent to either name before it was asked."""
    server = FakeDav()
    server.put("/old", b"**** and more")
    server.put("/new", b"was there")
    await killed_in_the_rename(server, tmp_path, unsent=unsent)
    for method in ("OPTIONS", "PROPFIND", "PUT"):
        server.inject(Fault(method, times=10_000, lost="before"))
    async with running(server, URL, settings(tmp_path, "after"), offline=True) as fs:
        assert [rename.destination.name for rename in fs._namespace._renames.left] == ["new"]
        await trio.sleep(60)
        server.faults.clear()
        assert await fs.sync(60) == 0
        assert fs._namespace._renames.left == []
    assert server.tree() == {"new": shown}


async def test_a_rename_of_now_is_none_of_the_last_run(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One that runs is not taken for one that a daemon left behind, and its row goes with it."""
    server = FakeDav()
    server.put("/old", b"**** and more")
    server.inject(Fault("MOVE", answer_delay_s=5))
    async with running(server, URL, settings(tmp_path, "before")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("old", os.O_WRONLY)
        await vfs.write(fd, b"ours")
        await vfs.close(fd)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(vfs.rename, "old", "new")
            await trio.sleep(2)
            await fs._namespace.settle_renames()
            assert fs._namespace._renames._read() != []
        assert fs._namespace._renames._read() == []
        assert await fs.sync(60) == 0
    assert server.tree() == {"new": b"ours and more"}


@pytest.mark.expects_warning("")
@pytest.mark.parametrize("done", [True, False])
async def test_a_rename_in_doubt_is_settled_before_its_file_is_sent(
    tmp_path: Path, autojump_clock: MockClock, *, done: bool
) -> None:
    """The connection breaks in the MOVE, and the server is away: later the bytes go where the file is."""
    server = FakeDav()
    server.put("/old", b"**** and more")
    async with running(server, URL, settings(tmp_path, "before")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("old", os.O_WRONLY)
        await vfs.write(fd, b"ours")
        await vfs.close(fd)
        server.inject(Fault("MOVE", lost="after" if done else "before", delay_s=2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_refused, vfs)
            await trio.sleep(1)
            server.inject(Fault("PROPFIND", times=10_000, lost="before"))
        assert server.tree() == {"new" if done else "old": b"**** and more"}
        await trio.sleep(60)
        server.faults.clear()
        assert await fs.sync(60) == 0
        assert fs._namespace._renames._read() == []
    assert server.tree() == {"new" if done else "old": b"ours and more"}


async def _refused(vfs: Vfs) -> None:
    with pytest.raises(DavfsError):
        await vfs.rename("old", "new")


# --- told as failed, and done all the same ----------------------------------------------------------------


async def save(vfs: Vfs, path: str, data: bytes) -> None:
    fd = await vfs.open(path, os.O_WRONLY | os.O_CREAT)
    await vfs.write(fd, data)
    await vfs.close(fd)


def works(server: FakeDav) -> list[bytes]:
    return sorted(content for content in server.tree().values() if content)


async def left_in_doubt(vfs: Vfs, server: FakeDav, old: str, new: str) -> None:
    """The MOVE is done, its answer lost, and when that is asked the server is away: the rename has failed."""
    server.inject(Fault("MOVE", lost="after", delay_s=2))

    async def refused() -> None:
        with pytest.raises(DavfsError):
            await vfs.rename(old, new)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused)
        await trio.sleep(1)
        for method in ("PROPFIND", "PUT", "OPTIONS"):
            server.inject(Fault(method, times=10_000, lost="before"))


async def back(vfs: Vfs, server: FakeDav) -> None:
    """The server answers again."""
    server.faults.clear()
    await vfs.fs._client.probe(5)


@pytest.mark.expects_warning("")
@pytest.mark.parametrize("killed", [False, True])
async def test_what_is_written_to_the_new_name_after_that_survives(
    tmp_path: Path, autojump_clock: MockClock, *, killed: bool
) -> None:
    """Told that the rename had failed, a program makes a file of that name: it is not what was replaced."""
    server = FakeDav()
    server.put("/old", b"**** and more")
    async with running(server, URL, settings(tmp_path, "before")) as fs:
        vfs = Vfs(fs)
        await vfs.listdir("")
        await save(vfs, "old", b"ours")
        await left_in_doubt(vfs, server, "old", "new")
        await save(vfs, "new", b"written after that")
        shutil.copytree(tmp_path / "before", tmp_path / "after")
        if not killed:
            server.faults.clear()
            assert await fs.sync(60) == 0
    server.faults.clear()
    if killed:
        async with running(server, URL, settings(tmp_path, "after")) as fs:
            assert await fs.sync(60) == 0
    assert {b"ours and more", b"written after that"} <= set(works(server))


@pytest.mark.expects_warning("")
async def test_who_goes_on_writing_to_what_was_not_replaced_loses_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The new name held unsent bytes; after the failure a program writes more of them."""
    server = FakeDav()
    server.put("/old", b"old")
    server.put("/new", b"**** was there")
    async with running(server, URL, settings(tmp_path)) as fs:
        vfs = Vfs(fs)
        await vfs.listdir("")
        await save(vfs, "new", b"ours")
        await left_in_doubt(vfs, server, "old", "new")
        fd = await vfs.open("new", os.O_WRONLY)
        await vfs.pwrite(fd, b"too", 5)
        await vfs.close(fd)
        server.faults.clear()
        assert await fs.sync(60) == 0
    assert works(server) == [b"old", b"ours too there"]


@pytest.mark.expects_warning("")
async def test_a_file_made_in_the_folder_that_was_not_replaced_survives(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A folder was renamed over an empty one, in which a program makes a file after the failure."""
    server = FakeDav()
    for folder in ("/d", "/e"):
        server.mkdir(folder)
    server.put("/d/f", b"**** and more")
    async with running(server, URL, settings(tmp_path)) as fs:
        vfs = Vfs(fs)
        for folder in ("", "d", "e"):
            await vfs.listdir(folder)
        await save(vfs, "d/f", b"ours")
        await left_in_doubt(vfs, server, "d", "e")
        await save(vfs, "e/g", b"written after that")
        server.faults.clear()
        assert await fs.sync(60) == 0
    assert {b"ours and more", b"written after that"} <= set(works(server))


@pytest.mark.expects_warning("")
async def test_a_rename_that_is_tried_again_was_done(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The second one succeeds without a MOVE, and there is no conflict with ourselves."""
    server = FakeDav()
    server.put("/old", b"**** and more")
    async with running(server, URL, settings(tmp_path)) as fs:
        vfs = Vfs(fs)
        await vfs.listdir("")
        await save(vfs, "old", b"ours")
        await left_in_doubt(vfs, server, "old", "new")
        await back(vfs, server)
        await vfs.rename("old", "new")
        assert await fs.sync(60) == 0
    assert server.tree() == {"new": b"ours and more"}
    assert len(server.requests("MOVE")) == 1


@pytest.mark.expects_warning("")
async def test_a_clean_file_is_seen_where_it_is(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Nothing was unsent: after the failure neither name is believed without asking."""
    server = FakeDav()
    server.put("/old", b"old")
    async with running(server, URL, settings(tmp_path)) as fs:
        vfs = Vfs(fs)
        await vfs.listdir("")
        await left_in_doubt(vfs, server, "old", "new")
        await back(vfs, server)
        assert (await vfs.stat("new")).size == 3
        with pytest.raises(DavfsError) as refused:
            await vfs.stat("old")
        assert refused.value.errno == errno.ENOENT


@pytest.mark.expects_warning("")
@pytest.mark.parametrize(("old", "new"), [("d/old", "d/other"), ("d", "e")])
async def test_what_is_in_doubt_is_settled_before_it_is_renamed_again(
    tmp_path: Path, autojump_clock: MockClock, old: str, new: str
) -> None:
    """Most of the edited file is on the server only, where the first rename has put it."""
    server = FakeDav()
    large = os.urandom(1 << 20)
    server.mkdir("/d")
    server.put("/d/old", large)
    async with running(server, URL, settings(tmp_path)) as fs:
        vfs = Vfs(fs)
        await vfs.listdir("d")
        await save(vfs, "d/old", b"ours")
        await left_in_doubt(vfs, server, "d/old", "d/new")
        await back(vfs, server)
        with suppress(PosixError):  # ENOENT: it has the name of the first rename by now
            await vfs.rename(old, new)
        assert await fs.sync(60) == 0
    assert works(server) == [b"ours" + large[4:]]


@pytest.mark.expects_warning("")
async def test_what_is_in_doubt_is_settled_before_it_is_removed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The old name is gone by then; the edit is at the new one."""
    server = FakeDav()
    server.put("/old", b"**** and more")
    async with running(server, URL, settings(tmp_path)) as fs:
        vfs = Vfs(fs)
        await vfs.listdir("")
        await save(vfs, "old", b"ours")
        await left_in_doubt(vfs, server, "old", "new")
        await back(vfs, server)
        with pytest.raises(DavfsError) as refused:
            await vfs.unlink("old")
        assert refused.value.errno == errno.ENOENT
        assert await fs.sync(60) == 0
    assert server.tree() == {"new": b"ours and more"}


async def test_an_index_without_what_a_rename_replaces_is_taken_over(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The table of an older davfs: its renames are settled, and give nothing up."""
    server = FakeDav()
    server.put("/new", b"there")
    async with running(server, URL, settings(tmp_path)) as fs:
        fs._store.index.run("ALTER TABLE renames DROP COLUMN replaces")
        fs._store.index.run("INSERT INTO renames VALUES (?,?,?,?,?,?)", (b"old", b"new", None, None, 1, 5))
    async with running(server, URL, settings(tmp_path)) as fs:
        assert fs._namespace._renames._read() == []


# --- halfway ----------------------------------------------------------------------------------------------


class Watched(httpx.AsyncBaseTransport):
    """Calls `answered` with each request that the server has answered."""

    def __init__(self, server: FakeDav, answered: Callable[[httpx.Request], None]) -> None:
        self._server = server
        self._answered = answered

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._server.handle_async_request(request)
        self._answered(request)
        return answer


@pytest.mark.expects_warning("conflict")
async def test_what_they_store_right_after_the_move_is_not_overwritten(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Between MOVE and the look for the tag that the file has at its new name: that is their version."""
    server = FakeDav()
    server.put("/old", b"**** and more")

    def answered(request: httpx.Request) -> None:
        if request.method == "MOVE":
            server.put("/new", b"theirs")

    async with running(Watched(server, answered), URL, settings(tmp_path)) as fs:
        vfs = Vfs(fs)
        await save(vfs, "old", b"ours")
        await vfs.rename("old", "new")
        assert await fs.sync(60) == 0
    assert works(server) == [b"ours and more", b"theirs"]


@pytest.mark.expects_warning("")
async def test_a_rename_is_done_although_its_spelling_cannot_be_looked_at(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The line breaks between MOVE and the listing that shows how the server spells the new name."""
    server = FakeDav(anonymous=True)
    server.put("/old", b"**** and more")

    def answered(request: httpx.Request) -> None:
        if request.method == "MOVE" and request.url.path == "/old":
            server.inject(Fault("PROPFIND", path="/", times=100, lost="before"))

    async with running(Watched(server, answered), URL, settings(tmp_path)) as fs:
        vfs = Vfs(fs)
        await save(vfs, "old", b"ours")
        await vfs.rename("old", "na\u0308w")
        server.faults.clear()
        assert await fs.sync(60) == 0
    assert server.tree() == {"na\u0308w": b"ours and more"}


@pytest.mark.expects_warning("")
async def test_a_large_open_file_that_was_not_replaced_goes_on_as_before(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A copy of it was set aside for whoever has it open: that goes, and what is written is no conflict."""
    server = FakeDav()
    large = bytes(20 << 20)
    server.put("/large", large)
    server.put("/small", b"small")
    async with running(server, URL, settings(tmp_path, write_back_s=0.1)) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("large", os.O_RDWR)
        server.inject(Fault("MOVE", status=403))
        with pytest.raises(DavfsError):
            await vfs.rename("small", "large")
        await vfs.pwrite(fd, b"ours", 0)
        await vfs.close(fd)
        assert await fs.sync(60) == 0
    assert server.tree() == {"large": b"ours" + large[4:], "small": b"small"}


@pytest.mark.expects_warning("")
async def test_a_folder_takes_along_no_temporary_name_for_good(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A staged upload is given up for the rename of its folder: what it had stored is found there."""
    server = FakeDav(anonymous=True)
    server.mkdir("/d")
    server.put("/d/f", b"old" * 100_000)
    async with running(server, URL, settings(tmp_path, write_back_s=0.1)) as fs:
        vfs = Vfs(fs)
        await save(vfs, "d/f", b"ours")
        server.inject(Fault("PUT", answer_delay_s=25))
        await trio.sleep(1)
        await vfs.rename("d", "e")
        assert await fs.sync(60) == 0
        await trio.sleep(10)
    assert sorted(server.tree()) == ["e", "e/f"]


@pytest.mark.parametrize(("old", "new"), [("d/f", "d/g"), ("d", "e")])
async def test_a_read_that_a_rename_overtakes(
    tmp_path: Path, autojump_clock: MockClock, old: str, new: str
) -> None:
    """The GET reaches the server after the MOVE: what it says of the old name is not told to the reader."""
    server = FakeDav()
    data = os.urandom(3 << 20)
    server.mkdir("/d")
    server.put("/d/f", data)
    async with running(server, URL, settings(tmp_path)) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("d/f")
        server.inject(Fault("GET", delay_s=2))
        read: list[bytes] = []

        async def reads() -> None:
            read.append(await vfs.pread(fd, 4096, 2 << 20))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads)
            await trio.sleep(1)
            await vfs.rename(old, new)
        assert read == [data[2 << 20 : (2 << 20) + 4096]]


@pytest.mark.expects_warning("")
async def test_a_rename_fetches_nothing_that_cannot_be_ours(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """An upload went unanswered; what stands there by now has another size, so it is somebody else's."""
    server = FakeDav()
    server.put("/old", b"base")
    async with running(server, URL, settings(tmp_path, write_back_s=0.1)) as fs:
        vfs = Vfs(fs)
        await save(vfs, "old", b"ours is longer")
        server.inject(Fault("PUT", lost="before", times=1000))
        await trio.sleep(2)
        theirs = bytes(1 << 20)
        server.put("/old", theirs)
        server.log.clear()
        await vfs.rename("old", "new")
        assert server.requests("GET") == []
        server.faults.clear()
        assert await fs.sync(600) == 0
    assert works(server) == [theirs, b"ours is longer"]
