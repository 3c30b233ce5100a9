"""Names that are removed: what is asked before a folder goes, and when."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from davfs.errors import DavfsError
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL


@asynccontextmanager
async def listed(server: FakeDav, folder: Path) -> AsyncIterator[Vfs]:
    """A mount of a share with d/a and d/b, in which d was listed."""
    server.mkdir("/d")
    for name in ("/d/a", "/d/b"):
        server.put(name, b"x")
    async with running(server, URL, Settings(str(folder / "c"))) as fs:
        vfs = Vfs(fs)
        await trio.sleep(1)
        assert sorted(await vfs.listdir("d")) == ["a", "b"]
        server.log.clear()
        yield vfs


def asked(server: FakeDav) -> list[tuple[str, str]]:
    return [(line.method, line.path.rstrip("/")) for line in server.log]


async def test_rm_r_lists_a_folder_while_its_last_file_goes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The listing that must come before the folder's DELETE is under way with the last file's: rmdir is one
    request.
    """
    server = FakeDav()
    async with listed(server, tmp_path) as vfs:
        await vfs.unlink("d/a")
        assert asked(server) == [("DELETE", "/d/a")]
        await vfs.unlink("d/b")
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(asked(server)[1:]) == [("DELETE", "/d/b"), ("PROPFIND", "/d")]
        server.log.clear()
        await vfs.rmdir("d")
        assert asked(server) == [("DELETE", "/d")]


async def test_what_the_listing_shows_stays(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A file of somebody else that nobody here has seen keeps its folder."""
    server = FakeDav()
    async with listed(server, tmp_path) as vfs:
        await vfs.unlink("d/a")
        server.put("/d/theirs", b"x")
        await vfs.unlink("d/b")
        with pytest.raises(DavfsError) as refused:
            await vfs.rmdir("d")
        assert refused.value.errno == errno.ENOTEMPTY
        assert ("DELETE", "/d") not in asked(server)


async def test_a_listing_of_a_moment_ago_is_too_old(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Who waits before rmdir has the folder listed again: somebody may have put a file there since."""
    server = FakeDav()
    async with listed(server, tmp_path) as vfs:
        await vfs.unlink("d/a")
        await vfs.unlink("d/b")
        await trio.sleep(0.2)
        server.put("/d/theirs", b"x")
        with pytest.raises(DavfsError) as refused:
            await vfs.rmdir("d")
        assert refused.value.errno == errno.ENOTEMPTY
        assert ("DELETE", "/d") not in asked(server)


async def test_a_folder_that_holds_more_is_not_listed_ahead(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Nor one from which a single file was removed: that is no rm -r."""
    server = FakeDav()
    server.mkdir("/one")
    server.put("/one/file", b"x")
    server.mkdir("/d")
    server.put("/d/c", b"x")
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        server.put("/d/a", b"x")
        server.put("/d/b", b"x")
        for folder in ("d", "one"):
            await vfs.listdir(folder)
        server.log.clear()
        for path in ("d/a", "d/b", "one/file"):
            await vfs.unlink(path)
        await trio.sleep(1)
        assert asked(server) == [("DELETE", "/d/a"), ("DELETE", "/d/b"), ("DELETE", "/one/file")]
