"""Renames over a server in memory: what the next daemon makes of one that a kill left half noted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from davfs.errors import DavfsError
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav, Fault
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL


def settings(tmp_path: Path, folder: str) -> Settings:
    return Settings(str(tmp_path / folder), write_back_s=30)


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
