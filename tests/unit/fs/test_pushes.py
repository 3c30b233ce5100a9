"""The executable bit: told where the server keeps it, and otherwise kept here without a word more."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from davfs.dav.properties import EXECUTABLE
from tests.fakes.davserver import FakeDav, Fault
from tests.mount.vfs import Vfs
from tests.unit.fs.drive import drive, write


async def mode_of(vfs: Vfs, path: str) -> int:
    return (await vfs.stat(path)).permissions


def keeps(*, bit: bool = True) -> FakeDav:
    """A server that keeps it as a dead property; unlike Apache it tells nothing of what has none."""
    server = FakeDav(etags="coarse")
    if not bit:
        server.inject(Fault("PROPPATCH", status=403, times=99))
    return server


async def test_another_mount_sees_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Set on a file of the server, on a new one, on an unsent one; taken away; seen within the time-out."""
    server = keeps()
    server.put("old", b"x")
    async with drive(server, tmp_path / "a") as ours, drive(server, tmp_path / "b") as theirs:
        await ours.chmod("old", 0o755)
        await write(ours, "new", b"x", 0o755)
        await write(ours, "later", b"x")
        await ours.chmod("later", 0o700)
        assert await ours.fs.sync() == 0
        for name, mode in (("old", 0o755), ("new", 0o755), ("later", 0o755)):
            assert server.properties(name)[EXECUTABLE] == "T"
            assert await mode_of(theirs, name) == mode
        assert await mode_of(ours, "later") == 0o700
        await theirs.chmod("old", 0o644)
        assert await theirs.fs.sync() == 0
        await trio.sleep(61)
        assert await mode_of(ours, "old") == 0o644


async def test_only_what_differs_is_told(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Untarring files of 0644 costs nothing; each of 0755 one PROPPATCH, in the background."""
    server = keeps()
    async with drive(server, tmp_path, write_back_s=1) as vfs:
        await vfs.listdir("")
        await write(vfs, "first", b"x", 0o755)
        assert await vfs.fs.sync() == 0
        server.log.clear()
        for number in range(20):
            await write(vfs, f"f{number}", b"x", 0o755 if number < 3 else 0o644)
            await vfs.chmod(f"f{number}", 0o755 if number < 3 else 0o644)
        await vfs.chmod("first", 0o700)
        assert await vfs.fs.sync() == 0
        assert len(server.requests("PROPPATCH")) == 3
        assert len(server.requests("PUT")) == 20
        await write(vfs, "f0", b"again")  # a PUT leaves it
        assert await vfs.fs.sync() == 0
        assert len(server.requests("PROPPATCH")) == 3


async def test_where_a_put_takes_it_away(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Apache puts a new file in the place of the old one: it is told again, and never missing here."""
    server = FakeDav()  # of Apache's kind
    server.put("f", b"x")
    server.properties("f")[EXECUTABLE] = "T"
    async with drive(server, tmp_path) as vfs:
        assert await mode_of(vfs, "f") == 0o755
        await write(vfs, "f", b"again")
        del server.properties("f")[EXECUTABLE]  # as Apache's PUT does
        assert await mode_of(vfs, "f") == 0o755
        assert await vfs.fs.sync() == 0
        assert await mode_of(vfs, "f") == 0o755
    assert server.properties("f")[EXECUTABLE] == "T"


@pytest.mark.parametrize("dropped", [False, True])
async def test_a_server_that_does_not_keep_it(
    tmp_path: Path, autojump_clock: MockClock, dropped: bool
) -> None:
    """Found out once, also where it says yes and drops it (rclone): the mode is then kept here."""
    server = keeps(bit=dropped)
    server.longest_property = 0 if dropped else None
    async with drive(server, tmp_path) as vfs:
        for name in ("a", "b", "c"):
            await write(vfs, name, b"x", 0o755)
            assert await vfs.fs.sync() == 0
            await vfs.chmod(name, 0o700)
            assert await vfs.fs.sync() == 0
            assert await mode_of(vfs, name) == 0o700
        assert len(server.requests("PROPPATCH")) <= 2
    async with drive(server, tmp_path) as vfs:
        assert await mode_of(vfs, "a") == 0o700


async def test_it_is_told_later_while_the_server_is_away(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Also by the next daemon, and shown as set all the time."""
    server = keeps()
    server.put("f", b"x")
    async with drive(server, tmp_path) as vfs:
        await vfs.listdir("")
        server.inject(Fault("PROPPATCH", status=503, times=3))
        await vfs.chmod("f", 0o755)
        await trio.sleep(2)
        assert await mode_of(vfs, "f") == 0o755
        assert EXECUTABLE not in server.properties("f")
    async with drive(server, tmp_path) as vfs:
        assert await mode_of(vfs, "f") == 0o755
        await trio.sleep(60)
        assert server.properties("f")[EXECUTABLE] == "T"
        assert len(vfs.fs._tree.wishes) == 0


async def test_it_follows_the_file(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A rename before it was told, of the file or its folder; nothing is told of a removed one."""
    server = keeps()
    server.mkdir("d")
    server.put("d/f", b"x")
    server.put("gone", b"x")
    async with drive(server, tmp_path) as vfs:
        await vfs.listdir("d")
        await vfs.chmod("d/f", 0o755)
        await vfs.chmod("gone", 0o755)
        await vfs.rename("d", "e")
        await vfs.rename("e/f", "g")
        await vfs.unlink("gone")
        assert await vfs.fs.sync() == 0
        assert server.properties("g")[EXECUTABLE] == "T"
        assert len(server.requests("PROPPATCH")) == 1


async def test_a_listing_of_before_does_not_undo_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A slow listing that was asked for before the PROPPATCH says nothing of the bit."""
    server = FakeDav()
    server.put("f", b"x")
    server.properties("f")[EXECUTABLE] = "F"
    async with drive(server, tmp_path, attr_timeout_min_s=1, attr_timeout_max_s=1) as vfs:
        await vfs.listdir("")
        await trio.sleep(2)
        server.inject(Fault("PROPFIND", path="/", answer_delay_s=2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(vfs.listdir, "")
            await trio.sleep(0.1)
            await vfs.chmod("f", 0o755)
            await trio.sleep(1)
            assert server.properties("f")[EXECUTABLE] == "T"
        assert await mode_of(vfs, "f") == 0o755
        await vfs.listdir("")
        assert await mode_of(vfs, "f") == 0o755
