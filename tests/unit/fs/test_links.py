"""Symbolic links: made whole or not at all, shown as they are, and never followed by the daemon."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from davfs.dav.properties import LINK
from davfs.fs.tree import HIDDEN_PREFIX
from tests.fakes.davserver import FakeDav, Fault
from tests.unit.fs.drive import drive, errno_of, write


def changes(server: FakeDav) -> list[str]:
    found = [entry.method for entry in server.log if entry.method != "PROPFIND"]
    server.log.clear()
    return found


TARGETS = ["f", "../../etc/passwd", "/", "no/such", "ä b%\udcff\n", "x" * 4095]


async def test_links_come_back_elsewhere(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Any target, by one listing, from another mount; its size is that of the target."""
    server = FakeDav()
    server.put("f", b"x")
    async with drive(server, tmp_path / "a") as vfs:
        for number, target in enumerate(TARGETS):
            await vfs.symlink(target, f"l{number}")
            assert await vfs.readlink(f"l{number}") == target
    async with drive(server, tmp_path / "b") as vfs:
        await vfs.listdir("")
        server.log.clear()
        for number, target in enumerate(TARGETS):
            found = await vfs.lstat(f"l{number}")
            assert stat.S_ISLNK(found.mode)
            assert found.size == len(os.fsencode(target))
            assert await vfs.readlink(f"l{number}") == target
        assert not server.log
        assert await errno_of(vfs.readlink("f")) == errno.EINVAL
        assert await errno_of(vfs.open("l0", os.O_RDONLY)) == errno.ELOOP
        assert await vfs.listxattr("l0") == []


async def test_a_link_is_three_requests(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Under a temporary name, and then moved: nobody sees a file that is no link yet."""
    server = FakeDav()
    async with drive(server, tmp_path) as vfs:
        await vfs.symlink("x", "first")
        await vfs.listdir("")
        server.log.clear()
        await vfs.symlink("x", "l")
        assert [entry.method for entry in server.log] == ["PUT", "PROPPATCH", "MOVE"]
    assert server.content("l") == b"x"  # who sees no link sees where it leads
    assert server.properties("l")[LINK] == "x"


async def test_renamed_replaced_removed(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A link is a name like others: `mv`, `ln -sf` and `rm` work on it, not on what it leads to."""
    server = FakeDav()
    server.put("f", b"x")
    async with drive(server, tmp_path) as vfs:
        await vfs.symlink("f", "a")
        await vfs.rename("a", "b")
        assert await vfs.readlink("b") == "f"
        await vfs.symlink("g", "c")
        await vfs.rename("c", "b")  # ln -sf
        assert await vfs.readlink("b") == "g"
        await vfs.rename("b", "f")
        assert await vfs.readlink("f") == "g"
        await vfs.unlink("f")
        assert await vfs.listdir("") == []
    assert server.tree() == {}


@pytest.mark.parametrize("is_sent", [False, True])
async def test_a_file_takes_the_place_of_a_link(
    tmp_path: Path, autojump_clock: MockClock, is_sent: bool
) -> None:
    """The property goes with the link, also where a PUT in its place leaves it."""
    server = FakeDav()
    async with drive(server, tmp_path) as vfs:
        await vfs.symlink("12345", "l")
        await write(vfs, "f", b"54321")  # of the same size
        if is_sent:
            assert await vfs.fs.sync() == 0
        await vfs.rename("f", "l")
        assert stat.S_ISREG((await vfs.lstat("l")).mode)
        assert await vfs.fs.sync() == 0
        assert stat.S_ISREG((await vfs.lstat("l")).mode)
    async with drive(server, tmp_path / "b") as vfs:
        assert stat.S_ISREG((await vfs.lstat("l")).mode)
        fd = await vfs.open("l", os.O_RDONLY)
        assert await vfs.read(fd, 99) == b"54321"
        await vfs.close(fd)
    assert LINK not in server.properties("l")


async def test_what_is_refused(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Before anything is sent: a name that is taken, a target that no system call can hold."""
    server = FakeDav()
    server.put("f", b"x")
    async with drive(server, tmp_path) as vfs:
        await write(vfs, "unsent", b"x")
        server.log.clear()
        for name in ("f", "unsent"):
            assert await errno_of(vfs.symlink("x", name)) == errno.EEXIST
        assert await errno_of(vfs.symlink("x" * 4096, "l")) == errno.ENAMETOOLONG
        assert await errno_of(vfs.symlink("%" * 4000, "l")) == errno.ENAMETOOLONG
        assert await errno_of(vfs.symlink("", "l")) == errno.ENOENT
        assert changes(server) == []
    async with drive(server, tmp_path / "b", read_only=True) as vfs:
        assert await errno_of(vfs.symlink("x", "l")) == errno.EROFS


async def test_without_properties_there_are_no_links(tmp_path: Path, autojump_clock: MockClock) -> None:
    """EOPNOTSUPP, found out once; nothing is left on the server."""
    server = FakeDav()
    server.inject(Fault("PROPPATCH", status=405, times=99))
    async with drive(server, tmp_path) as vfs:
        for _ in range(3):
            assert await errno_of(vfs.symlink("x", "l")) == errno.EOPNOTSUPP
        assert changes(server) == ["OPTIONS", "PROPPATCH"]
    assert server.tree() == {}


async def test_never(tmp_path: Path, autojump_clock: MockClock) -> None:
    """symlinks=never: none are made, and what another mount made is a small file."""
    server = FakeDav()
    async with drive(server, tmp_path / "a") as vfs:
        await vfs.symlink("target", "l")
    async with drive(server, tmp_path / "b", symlinks=False) as vfs:
        assert await errno_of(vfs.symlink("x", "m")) == errno.EOPNOTSUPP
        assert stat.S_ISREG((await vfs.lstat("l")).mode)
        fd = await vfs.open("l", os.O_RDONLY)
        assert await vfs.read(fd, 99) == b"target"
        await vfs.close(fd)


@pytest.mark.parametrize("text", ["", "other", "a%00b", "x" * 5000])
async def test_what_is_no_link(tmp_path: Path, autojump_clock: MockClock, text: str) -> None:
    """A property without a target, or of another file's bytes: a file that can be read."""
    server = FakeDav()
    async with drive(server, tmp_path / "a") as vfs:
        await vfs.symlink("x", "first")
    server.put("l", b"content")
    server.properties("l")[LINK] = text
    async with drive(server, tmp_path / "b") as vfs:
        assert stat.S_ISREG((await vfs.lstat("l")).mode)
        fd = await vfs.open("l", os.O_RDONLY)
        assert await vfs.read(fd, 99) == b"content"
        await vfs.close(fd)


@pytest.mark.parametrize("method", ["PUT", "PROPPATCH", "MOVE"])
@pytest.mark.parametrize("lost", ["before", "after"])
async def test_a_call_that_fails_has_not_happened(
    tmp_path: Path, autojump_clock: MockClock, method: str, lost: str
) -> None:
    """A lost answer: either there is the link and no error, or an error and nothing, soon."""
    server = FakeDav()
    async with drive(server, tmp_path) as vfs:
        await vfs.symlink("x", "first")
        server.inject(Fault(method, lost=lost))  # type: ignore[arg-type]
        made = method == "MOVE" and lost == "after"
        if made:
            await vfs.symlink("target", "l")
        else:
            assert await errno_of(vfs.symlink("target", "l")) == errno.EIO
        await trio.sleep(10)
        assert sorted(server.tree()) == ["first", *(["l"] if made else [])]
        if not made:
            await vfs.symlink("target", "l")
        assert await vfs.readlink("l") == "target"


async def test_a_crash_leaves_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The daemon ends while the link has its temporary name: the next one removes that."""
    server = FakeDav()
    async with drive(server, tmp_path) as vfs:
        await vfs.symlink("x", "first")
        server.inject(Fault("MOVE", delay_s=60))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(vfs.symlink, "target", "l")
            await trio.sleep(1)
            assert any(name.startswith(HIDDEN_PREFIX) for name in server.tree())
            server.inject(Fault("DELETE", lost="before", times=99))
            nursery.cancel_scope.cancel()
    server.faults.clear()
    async with drive(server, tmp_path) as vfs:
        await trio.sleep(10)
        assert await vfs.listdir("") == ["first"]
    assert sorted(server.tree()) == ["first"]


async def test_its_time_stays(tmp_path: Path, autojump_clock: MockClock) -> None:
    """As `cp -a`, `tar` and `rsync -l` set it, whatever second the server made the link in."""
    server = FakeDav(now_s=lambda: 1_700_000_000 + trio.current_time())  # another clock than ours
    async with drive(server, tmp_path) as vfs:
        for name in ("first", "second"):
            await vfs.symlink("x", name)
            await trio.sleep(1.5)
            await vfs.utime(name, 1_500_000_000_123_456_789)
        await trio.sleep(100)
        await vfs.listdir("")
        for name in ("first", "second"):
            assert (await vfs.lstat(name)).mtime_ns == 1_500_000_000_123_456_789


async def test_a_mount_that_stays_below_notices_the_first_link(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Where none was before: within a minute, by programs that never ask about the root, for one request."""
    server = FakeDav()
    server.mkdir("d")
    async with drive(server, tmp_path / "a") as ours, drive(server, tmp_path / "b") as theirs:
        await ours.listdir("d")
        await theirs.symlink("target", "d/l")
        server.log.clear()
        for _ in range(13):
            await trio.sleep(5)
            await ours.listdir("d")
        assert len([entry for entry in server.log if (entry.path, entry.depth) == ("/", "0")]) <= 2
        await trio.sleep(5)
        await ours.listdir("d")
        assert await ours.readlink("d/l") == "target"
