"""What a person can do about an unsent file, and which program is told of its failure: over a fake server."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from davfs.errors import DavfsError, LinkDown, Locked
from davfs.fs.filesystem import Filesystem
from davfs.fs.locks import Policy
from davfs.fs.settings import Settings
from davfs.fs.states import State
from tests.fakes.davserver import FakeDav, Fault
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL

pytestmark = pytest.mark.expects_warning("not sent")


def refusing(status: int = 413) -> tuple[FakeDav, Fault]:
    server = FakeDav()
    server.put("/f", b"theirs", mtime_s=1_700_000_000)
    return server, server.inject(Fault("PUT", times=1000, status=status))


@asynccontextmanager
async def mounted(
    server: FakeDav, folder: Path, *, close_sync: bool = False, lock: Policy = "auto"
) -> AsyncIterator[Vfs]:
    async with running(server, URL, Settings(str(folder / "c"), close_sync=close_sync, lock=lock)) as fs:
        yield Vfs(fs)


async def write(vfs: Vfs, path: str, data: bytes) -> None:
    fd = await vfs.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        await vfs.write(fd, data)
    finally:
        await vfs.close(fd)


async def read(vfs: Vfs, path: str) -> bytes:
    fd = await vfs.open(path)
    try:
        return await vfs.read(fd)
    finally:
        await vfs.close(fd)


def states(fs: Filesystem) -> dict[object, object]:
    return {row["path"]: row["state"] for row in fs.unsent.rows()}


# --- who is told ------------------------------------------------------------------------------------


async def test_a_refused_upload_is_told_once_at_the_next_open_for_writing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Whoever opens the file for writing next gets the errno, once; reading always works."""
    server, _ = refusing()
    async with mounted(server, tmp_path) as vfs:
        await write(vfs, "f", b"ours")
        await trio.sleep(5)
        assert states(vfs.fs) == {"/f": State.REFUSED}
        assert await read(vfs, "f") == b"ours"
        with pytest.raises(DavfsError) as told:
            await vfs.open("f", os.O_WRONLY | os.O_TRUNC)
        assert told.value.errno == errno.EFBIG
        assert await read(vfs, "f") == b"ours"
        await vfs.close(await vfs.open("f", os.O_WRONLY))
    assert server.content("/f") == b"theirs"


async def test_the_same_refusal_again_is_not_told_again_but_of_new_bytes_it_is(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A program that was told is left in peace until it writes something else."""
    server, _ = refusing()
    async with mounted(server, tmp_path) as vfs:
        await write(vfs, "f", b"ours")
        await trio.sleep(5)
        with pytest.raises(DavfsError):
            await vfs.open("f", os.O_RDWR)
        await trio.sleep(4000)
        fd = await vfs.open("f", os.O_RDWR)
        await vfs.write(fd, b"more")
        await vfs.close(fd)
        await trio.sleep(4000)
        with pytest.raises(DavfsError):
            await vfs.open("f", os.O_RDWR)


async def test_while_the_server_is_away_open_says_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What passes by itself does not stop anybody from editing; fsync and the state tell it."""
    server = FakeDav()
    fault = server.inject(Fault("PUT", times=1000, lost="before"))
    async with mounted(server, tmp_path) as vfs:
        await write(vfs, "new", b"one")
        await trio.sleep(60)
        assert states(vfs.fs) == {"/new": State.FAILED}
        fd = await vfs.open("new", os.O_WRONLY)
        with pytest.raises(DavfsError):
            await vfs.fsync(fd)
        fault.times = 0
        await vfs.fsync(fd)
        await vfs.close(fd)
        assert await vfs.getxattr("new", "user.davfs.state") == b"clean"
    assert server.content("/new") == b"one"


async def test_each_handle_is_told_at_close_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The failure is known when a writer closes: it is told to each, although nobody waits for the server."""
    server, _ = refusing(507)
    async with mounted(server, tmp_path) as vfs:
        first, second = await vfs.open("f", os.O_RDWR), await vfs.open("f", os.O_RDWR)
        reader = await vfs.open("f")
        await vfs.write(first, b"ours")
        await trio.sleep(40)
        for fd in (first, second):
            with pytest.raises(DavfsError) as told:
                await vfs.fs.flush(vfs._files[fd].handle or 0)
            assert told.value.errno == errno.ENOSPC
            await vfs.close(fd)
        await vfs.close(reader)
        await vfs.close(await vfs.open("f", os.O_WRONLY))


async def test_fsync_never_gives_an_old_answer(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Told once is not told for ever: fsync tries again, and 0 means that the server has it."""
    server, fault = refusing()
    async with mounted(server, tmp_path) as vfs:
        fd = await vfs.open("f", os.O_RDWR)
        await vfs.write(fd, b"ours")
        for _ in range(2):
            with pytest.raises(DavfsError):
                await vfs.fsync(fd)
        fault.times = 0
        await vfs.fsync(fd)
        assert server.content("/f") == b"oursrs"
        await vfs.close(fd)


@pytest.mark.parametrize("told_before", [False, True])
async def test_a_restart_forgets_neither_the_failure_nor_who_was_told(
    tmp_path: Path, autojump_clock: MockClock, *, told_before: bool
) -> None:
    """The next daemon has the errno, and tells it if nobody was told; a retry that succeeds clears it."""
    server, fault = refusing(507)
    async with mounted(server, tmp_path) as vfs:
        await write(vfs, "f", b"ours")
        await trio.sleep(5)
        if told_before:
            with pytest.raises(DavfsError):
                await vfs.open("f", os.O_WRONLY)
    server.inject(Fault("PUT", times=1000, delay_s=5, status=507))
    fault.times = 0
    async with mounted(server, tmp_path) as vfs:
        await vfs.listdir("")
        assert vfs.fs.unsent.rows()[0]["errno"] == "ENOSPC"
        if told_before:
            await vfs.close(await vfs.open("f", os.O_WRONLY))
        else:
            with pytest.raises(DavfsError) as told:
                await vfs.open("f", os.O_WRONLY)
            assert told.value.errno == errno.ENOSPC
        server.faults.clear()
        await trio.sleep(10)  # the attempt that is on its way is refused once more
        assert await vfs.fs.sync(100) == 0
        assert vfs.fs.unsent.rows() == []
        await vfs.close(await vfs.open("f", os.O_WRONLY))
    assert server.content("/f") == b"ours"


async def test_a_handle_of_a_replaced_version_does_not_write_into_the_void(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Somebody else's version was opened meanwhile: ESTALE, and not a write that nobody will ever read."""
    server = FakeDav()
    server.put("/f", b"old", mtime_s=1_700_000_000)
    async with mounted(server, tmp_path) as vfs:
        fd = await vfs.open("f", os.O_RDWR)
        assert await vfs.read(fd) == b"old"
        server.put("/f", b"theirs")
        await trio.sleep(100)
        assert await read(vfs, "f") == b"theirs"
        with pytest.raises(DavfsError) as told:
            await vfs.write(fd, b"lost?")
        assert told.value.errno == errno.ESTALE
        await vfs.close(fd)


# --- what a person can do ---------------------------------------------------------------------------


async def test_the_state_is_the_same_wherever_it_is_asked(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Status, pending list and the attribute use one table."""
    server, fault = refusing()
    async with mounted(server, tmp_path) as vfs:
        await write(vfs, "f", b"ours")
        for state in (State.WAITING, State.REFUSED):
            (row,) = vfs.fs.unsent.rows()
            assert row["state"] == state
            assert vfs.fs.status()["pending"] == [row]
            assert await vfs.getxattr("f", "user.davfs.state") == state.encode()
            await trio.sleep(5)
        assert b"413" in await vfs.getxattr("f", "user.davfs.error")
        fault.times = 0
        assert vfs.fs.unsent.retry("/f") == 1
        await trio.sleep(1)
        assert await vfs.getxattr("f", "user.davfs.state") == b"clean"
    assert server.content("/f") == b"ours"


async def test_a_discarded_change_shows_the_servers_version(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The name is the server's file again; who has ours open reads on, and is told ESTALE when he writes."""
    server, _ = refusing()
    async with mounted(server, tmp_path) as vfs:
        fd = await vfs.open("f", os.O_RDWR)
        await vfs.write(fd, b"ours, longer")
        await trio.sleep(60)
        (row,) = await vfs.fs.unsent.discard("f")
        assert row == {"path": "/f", "size": 12, "gone": False, "may_have_arrived": False}
        assert vfs.fs.pending_paths() == []
        assert await read(vfs, "f") == b"theirs"
        assert (await vfs.stat("f")).size == 6
        assert await vfs.pread(fd, 100, 0) == b"ours, longer"
        assert (await vfs.fstat(fd)).nlink == 0
        for call in (vfs.write(fd, b"x"), vfs.fsync(fd)):
            with pytest.raises(DavfsError) as told:
                await call
            assert told.value.errno == errno.ESTALE
        await vfs.close(fd)
        assert await vfs.fs.sync(10) == 0
    async with mounted(server, tmp_path) as vfs:
        assert await read(vfs, "f") == b"theirs"
    assert server.content("/f") == b"theirs"
    assert server.requests("DELETE") == []


async def test_a_discarded_new_file_is_gone(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What the server never had disappears, without a request; the other files of the folder stay queued."""
    server, _ = refusing()
    async with mounted(server, tmp_path) as vfs:
        await vfs.mkdir("d")
        await write(vfs, "d/new", b"ours")
        await write(vfs, "d/other", b"stays")
        await trio.sleep(5)
        before = len(server.log)
        (row,) = await vfs.fs.unsent.discard("/d/new")
        assert row["gone"] is True
        assert server.log[before:] == []
        assert await vfs.listdir("d") == ["other"]
        with pytest.raises(DavfsError):
            await vfs.stat("d/new")
        assert vfs.fs.pending_paths() == ["/d/other"]
        assert [row["path"] for row in await vfs.fs.unsent.discard("d")] == ["/d/other"]
        assert await vfs.listdir("d") == []


async def test_a_discard_stops_the_upload_that_runs(tmp_path: Path, autojump_clock: MockClock) -> None:
    """It does not wait for the server, and says that the server may have it."""
    server = FakeDav()
    server.inject(Fault("PUT", delay_s=1000))
    async with mounted(server, tmp_path) as vfs:
        await write(vfs, "new", b"ours")
        await trio.sleep(5)
        assert states(vfs.fs) == {"/new": State.SENDING}
        begun = trio.current_time()
        (row,) = await vfs.fs.unsent.discard("new")
        assert row["may_have_arrived"] is True
        assert trio.current_time() - begun < 1
        assert await vfs.listdir("") == []


async def test_a_discard_gives_the_lock_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Also the empty file that our LOCK made goes, and the lock although a program has the file open."""
    server, _ = refusing()
    async with mounted(server, tmp_path, lock="always") as vfs:
        fd = await vfs.open("f", os.O_WRONLY)
        await vfs.write(fd, b"ours")
        new = await vfs.open("new", os.O_WRONLY | os.O_CREAT)
        await vfs.write(new, b"ours")
        assert len(server.locks) == 2
        assert [row["gone"] for row in await vfs.fs.unsent.discard("f")] == [False]
        assert [lock.parts for lock in server.locks] == [("new",)]
        assert [row["gone"] for row in await vfs.fs.unsent.discard("new")] == [True]
        assert server.locks == []
        assert await vfs.listdir("") == ["f"]
        await vfs.close(fd)
        await vfs.close(new)
    assert server.tree() == {"f": b"theirs"}


async def test_a_discard_gives_back_the_lock_of_an_earlier_run(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The lock of an earlier run goes with the unsent bytes that it was kept for."""
    server, _ = refusing()
    async with mounted(server, tmp_path, lock="always") as vfs:
        await write(vfs, "f", b"ours")
        await trio.sleep(5)
    assert len(server.locks) == 1
    async with mounted(server, tmp_path, lock="always") as vfs:
        await trio.sleep(5)
        assert len(server.locks) == 1
        await vfs.fs.unsent.discard("f")
        assert server.locks == []


@pytest.mark.parametrize("path", ["nothing", "d", "../f", "f/below"])
async def test_a_path_where_nothing_is_unsent_is_refused(
    tmp_path: Path, autojump_clock: MockClock, path: str
) -> None:
    """A typing error discards nothing."""
    server, _ = refusing()
    server.mkdir("/d")
    async with mounted(server, tmp_path) as vfs:
        await write(vfs, "f", b"ours")
        with pytest.raises(DavfsError):
            await vfs.fs.unsent.discard(path)
        with pytest.raises(DavfsError):
            vfs.fs.unsent.retry(path)
        assert vfs.fs.pending_paths() == ["/f"]


async def test_the_unsent_bytes_say_what_is_missing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A large file of which little was read and written here: the rest is named, and nothing is asked."""
    server = FakeDav()
    server.put("/big", bytes(4 << 20), mtime_s=1_700_000_000)
    server.inject(Fault("PUT", times=1000, status=507))
    async with mounted(server, tmp_path) as vfs:
        fd = await vfs.open("big", os.O_WRONLY)
        await vfs.pwrite(fd, b"mine", 1 << 20)
        before = len(server.log)
        found = vfs.fs.unsent.unsent_bytes("big")
        try:
            assert os.pread(found.fd, 4, 1 << 20) == b"mine"
            with pytest.raises(OSError, match="Bad file"):
                os.pwrite(found.fd, b"x", 0)
        finally:
            os.close(found.fd)
        (_, before_ours), (after_ours, end) = found.missing  # the head was fetched when it was opened
        assert (before_ours, after_ours, end) == (1 << 20, (1 << 20) + 4, 4 << 20)
        assert server.log[before:] == []
        await vfs.close(fd)


# --- locks ------------------------------------------------------------------------------------------


async def test_unlock_takes_away_what_is_ours_and_asks_for_more_about_others(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A lock that we hold, one of ours that we do not know of, somebody else's, and none."""
    server, _ = refusing()
    async with mounted(server, tmp_path, lock="always") as vfs:
        unsent = vfs.fs.unsent
        assert await unsent.unlock("f", force=False) is None
        fd = await vfs.open("f", os.O_WRONLY)
        owner = await unsent.unlock("f", force=False)
        assert owner is not None
        assert "(davfs " in owner
        assert server.locks == []
        server.lock("/f", owner)
        assert await unsent.unlock("f", force=False) == owner
        server.lock("/f", "bob")
        with pytest.raises(Locked, match="locked by bob"):
            await unsent.unlock("f", force=False)
        assert await unsent.unlock("f", force=True) == "bob"
        assert server.locks == []
        await vfs.close(fd)


async def test_unlock_without_the_server_is_done_when_it_is_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """It says so, and the lock goes by itself later."""
    server, _ = refusing()
    async with mounted(server, tmp_path, lock="always") as vfs:
        fd = await vfs.open("f", os.O_WRONLY)
        server.inject(Fault("UNLOCK", lost="before"))
        with pytest.raises(LinkDown):
            await vfs.fs.unsent.unlock("f", force=False)
        await trio.sleep(30)
        assert server.locks == []
        await vfs.close(fd)
