"""`davfs status --refresh`: what other clients changed is seen at the next look; nothing of ours is lost."""

from __future__ import annotations

from pathlib import Path

from trio.testing import MockClock

from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.drive import write
from tests.unit.fs.rig import URL

LONG_AGO_S = 1_000_000


async def read(vfs: Vfs, path: str) -> bytes:
    fd = await vfs.open(path)
    try:
        return await vfs.read(fd)
    finally:
        await vfs.close(fd)


async def test_changes_elsewhere_show_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Names that came and went, and contents; until then they are believed for the attribute time-out."""
    server = FakeDav(now_s=lambda: LONG_AGO_S)
    server.mkdir("/d")
    for name in ("/a", "/gone", "/d/b"):
        server.put(name, b"old", mtime_s=LONG_AGO_S)
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        before = [await vfs.listdir(""), await vfs.listdir("d"), await read(vfs, "a")]
        server.put("/a", b"newer")
        server.put("/new", b"new")
        server.delete("/gone")
        server.put("/d/c", b"c")
        assert [await vfs.listdir(""), await vfs.listdir("d"), await read(vfs, "a")] == before
        fs.refresh()
        assert await vfs.listdir("") == ["a", "d", "new"]
        assert await vfs.listdir("d") == ["b", "c"]
        assert await read(vfs, "a") == b"newer"


async def test_an_earlier_mount_is_not_believed_either(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Kept listings of a mount that ended a moment ago count no more."""
    server = FakeDav(now_s=lambda: LONG_AGO_S)
    server.mkdir("/d")
    server.put("/d/b", b"b", mtime_s=LONG_AGO_S)
    settings = Settings(str(tmp_path / "c"))
    async with running(server, URL, settings) as fs:
        assert await Vfs(fs).listdir("d") == ["b"]
    server.put("/d/c", b"c")
    async with running(server, URL, settings) as fs:
        fs.refresh()
        assert await Vfs(fs).listdir("d") == ["b", "c"]


async def test_what_is_unsent_stays(tmp_path: Path, autojump_clock: MockClock) -> None:
    """An unsent file is listed, read, and sent as before."""
    server = FakeDav()
    async with running(server, URL, Settings(str(tmp_path / "c"), write_back_s=60)) as fs:
        vfs = Vfs(fs)
        await write(vfs, "ours", b"ours")
        fs.refresh()
        assert await vfs.listdir("") == ["ours"]
        assert await read(vfs, "ours") == b"ours"
        assert await fs.sync(30) == 0
    assert server.tree() == {"ours": b"ours"}
