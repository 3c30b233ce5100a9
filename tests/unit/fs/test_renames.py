"""Renames over a server in memory: what the next daemon makes of one that a kill left half noted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

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


async def test_a_rename_of_now_is_none_of_the_last_run(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The server is away at the start; when the old rename is asked about, one that runs is left alone."""
    server = FakeDav()
    server.put("/old", b"**** and more")
    await killed_in_the_rename(server, tmp_path, unsent="old")
    server.inject(Fault("PROPFIND", "/old", times=1, delay_s=6))
    async with running(server, URL, settings(tmp_path, "after")) as fs:
        assert [rename.destination.name for rename in fs._namespace._renames.left] == ["new"]
        assert await fs.sync(60) == 0
        assert fs._namespace._renames.left == []
    assert server.tree() == {"new": b"ours and more"}
