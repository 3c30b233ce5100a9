"""What is missing of a large file that a program changed is fetched while it waits to be sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock

from tests.fakes.davserver import FakeDav, Fault
from tests.mount.vfs import Vfs
from tests.unit.fs.drive import drive

MIB: Final = 1 << 20
OLD: Final = bytes(range(256)) * (3 * MIB // 256)
MORE: Final = b"one line more\n"
SOON_S: Final = 0.01  # well within the 0.2 s that a file waits for a rename


def serving() -> FakeDav:
    server = FakeDav()
    server.put("/log", OLD)
    return server


async def append(vfs: Vfs) -> None:
    fd = await vfs.open("log", os.O_WRONLY)
    await vfs.pwrite(fd, MORE, len(OLD))
    await vfs.close(fd)


async def test_an_appended_file_is_whole_when_its_wait_is_over(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """It is fetched when it is closed, each byte once, and sent when it has waited."""
    server = serving()
    async with drive(server, tmp_path) as vfs:
        await append(vfs)
        await trio.sleep(SOON_S)
        fetched = len(server.requests("GET"))
        assert fetched > 0
        assert server.requests("PUT") == []
        assert await vfs.fs.sync(60) == 0
        assert len(server.requests("GET")) == fetched
    assert server.content("/log") == OLD + MORE


async def test_a_file_that_stays_open_is_not_fetched(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Nor one that was opened for writing and closed as it was: who writes may write all of it."""
    server = serving()
    async with drive(server, tmp_path) as vfs:
        await vfs.close(await vfs.open("log", os.O_WRONLY))
        fd = await vfs.open("log", os.O_WRONLY)
        await vfs.pwrite(fd, MORE, 0)
        await trio.sleep(1)
        assert server.requests("GET") == []
        await vfs.truncate("log", 0)
        await vfs.close(fd)
        assert await vfs.fs.sync(60) == 0
    assert server.requests("GET") == []
    assert server.content("/log") == b""


async def test_what_is_removed_while_it_waits_is_hung_up_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The transfers end, not only the upload."""
    server = serving()
    server.inject(Fault("GET", times=99, delay_s=0.1))
    async with drive(server, tmp_path) as vfs:
        await append(vfs)
        await trio.sleep(SOON_S)
        await vfs.unlink("log")
        await trio.sleep(5)
        assert await vfs.fs.sync(60) == 0
    assert server.requests("GET") == []  # none was answered
    assert server.tree() == {}


async def test_what_is_emptied_while_it_waits_is_hung_up_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Nothing of what stood there is wanted any more."""
    server = serving()
    server.inject(Fault("GET", times=99, delay_s=0.1))
    async with drive(server, tmp_path) as vfs:
        await append(vfs)
        await trio.sleep(SOON_S)
        fd = await vfs.open("log", os.O_WRONLY | os.O_TRUNC)
        await vfs.write(fd, MORE)
        await vfs.close(fd)
        assert await vfs.fs.sync(60) == 0
    assert server.requests("GET") == []
    assert server.content("/log") == MORE


@pytest.mark.parametrize("options", [{"write_back_s": 30.0}, {"partial_put": True}], ids=str)
async def test_what_waits_longer_or_may_go_in_parts_is_not_fetched_before(
    tmp_path: Path, autojump_clock: MockClock, options: dict[str, Any]
) -> None:
    """Who sets a longer wait expects more changes; what goes in parts needs no rest."""
    server = serving()
    async with drive(server, tmp_path, **options) as vfs:
        await append(vfs)
        await trio.sleep(SOON_S)
        assert server.requests("GET") == []
        assert await vfs.fs.sync(60) == 0
    assert server.content("/log") == OLD + MORE


async def test_a_write_while_the_rest_comes_is_kept(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What a program writes meanwhile, also where the old bytes are still to come, is what is sent."""
    server = serving()
    server.inject(Fault("GET", times=99, delay_s=0.1))
    async with drive(server, tmp_path) as vfs:
        await append(vfs)
        await trio.sleep(SOON_S)
        fd = await vfs.open("log", os.O_WRONLY)
        await vfs.pwrite(fd, MORE, MIB)
        await vfs.close(fd)
        assert await vfs.fs.sync(60) == 0
    assert server.content("/log") == OLD[:MIB] + MORE + OLD[MIB + len(MORE) :] + MORE
