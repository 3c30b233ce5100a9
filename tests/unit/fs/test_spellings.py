"""Names that a server would keep under another name, or give to two, are refused before it is asked."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest
from trio.testing import MockClock

from davfs.dav.quirks import Capabilities
from davfs.errors import DavfsError
from davfs.fs.settings import Settings
from tests.fakes.davserver import Answer, FakeDav, Fault, Folder, _Asked
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL


@contextmanager
def eilseq() -> Iterator[None]:
    with pytest.raises(DavfsError) as caught:
        yield
    assert caught.value.errno == errno.EILSEQ


async def write(vfs: Vfs, path: str, data: bytes) -> None:
    fd = await vfs.open(path, os.O_WRONLY | os.O_CREAT)
    await vfs.write(fd, data)
    await vfs.close(fd)


class DecodesTwice(FakeDav):
    """As ASGIWebDAV 2.1: "%2541" in a URL is "A", and so is what stands in Destination."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        once = unquote(request.url.raw_path.decode())
        if once.count("%"):
            url = request.url.copy_with(raw_path=once.replace(" ", "%20").encode())
            request = httpx.Request(request.method, url, headers=request.headers, stream=request.stream)
        return await super().handle_async_request(request)


async def test_a_server_that_decodes_twice(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A name with "%20" is EILSEQ from create, mkdir and rename; the file "a b" is not touched by any."""
    server = DecodesTwice(anonymous=True)
    server.mkdir("/d")
    server.put("/d/a b", b"somebody's")
    server.put("/d/x", b"x")
    before = server.tree()
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        with eilseq():
            await write(vfs, "d/a%20b", b"ours")
        with eilseq():
            await vfs.mkdir("d/c%41")
        with eilseq():
            await vfs.rename("d/x", "d/a%20b")
        await write(vfs, "d/50%", b"fine")
        assert await fs.sync(30) == 0
    assert server.tree() == before | {"d/50%": b"fine"}


async def test_a_server_that_decodes_once_is_asked_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One PROPFIND for all names with "%" that are ever made; plain names cost none."""
    server = FakeDav(anonymous=True)
    server.mkdir("/d")
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        for name in ("plain", "a%20b", "c%41", "%2F"):
            await write(vfs, f"d/{name}", name.encode())
        assert await fs.sync(30) == 0
    assert [line.path for line in server.requests("PROPFIND")].count("/%64") == 1
    assert {path for path in server.tree() if path.startswith("d/")} == {
        "d/plain",
        "d/a%20b",
        "d/c%41",
        "d/%2F",
    }


async def test_bytes_that_are_no_utf_8(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Only servers that were seen to keep them get them: EILSEQ elsewhere, and nothing is stored."""
    server = FakeDav(anonymous=True)
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        with pytest.raises(DavfsError) as caught:
            await write(Vfs(fs), "a\udcff", b"x")
        assert caught.value.errno == errno.EILSEQ
    assert server.tree() == {}


async def test_mkdir_of_what_another_client_just_made(tmp_path: Path, autojump_clock: MockClock) -> None:
    """rclone says yes to MKCOL of a folder that is there: it is looked for first, and mkdir is EEXIST."""
    server = FakeDav()
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        assert await vfs.listdir("") == []
        fs._client.capabilities = Capabilities(server="rclone/v1.75.2")
        server.mkdir("/d")
        with pytest.raises(DavfsError) as caught:
            await vfs.mkdir("d")
        assert caught.value.errno == errno.EEXIST
        assert server.requests("MKCOL") == []


async def test_a_folder_over_an_empty_one_where_move_cannot(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """copyparty says 500 to MOVE over a folder: the empty one goes first, and comes again if that fails."""
    server = FakeDav()
    for folder in ("/a", "/b", "/c"):
        server.mkdir(folder)
    server.put("/a/x", b"x")
    server.put("/c/full", b"x")
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        fault = server.inject(Fault(method="MOVE", status=500, times=1))
        await vfs.rename("a", "b")
        assert fault.times == 0
        assert server.tree().get("b/x") == b"x"
        server.inject(Fault(method="MOVE", status=500, times=3))
        server.mkdir("/e")
        with pytest.raises(DavfsError):
            await vfs.rename("b", "e")
        assert {"b/x", "e", "c/full"} <= set(server.tree())
        with pytest.raises(DavfsError) as caught:
            await vfs.rename("b", "c")
        assert caught.value.errno == errno.ENOTEMPTY
    assert server.tree()["c/full"] == b"x"


class Swallows(FakeDav):
    """As copyparty 1.20: a folder goes to a taken name, whatever Overwrite says; its files are lost."""

    def _move(self, asked: _Asked) -> None:
        if isinstance(self._find(asked.parts), Folder) and self._find(asked.destination()) is not None:
            self._remove(asked.parts)
            raise Answer(201)
        super()._move(asked)


async def test_a_folder_to_a_name_that_was_just_taken(tmp_path: Path, autojump_clock: MockClock) -> None:
    """It is looked for first, where Overwrite: F does not protect it: EEXIST, and both folders are whole."""
    server = Swallows(etags="none", anonymous=True)
    server.put("/file", b"x")
    server.mkdir("/a")
    server.put("/a/ours", b"ours")
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        assert await vfs.listdir("") == ["a", "file"]
        server.mkdir("/b")
        server.put("/b/theirs", b"theirs")
        with pytest.raises(DavfsError) as caught:
            await vfs.rename("a", "b")
        assert caught.value.errno == errno.EEXIST
        await vfs.rename("a", "c")
    assert server.tree() == {"file": b"x", "b": None, "b/theirs": b"theirs", "c": None, "c/ours": b"ours"}
