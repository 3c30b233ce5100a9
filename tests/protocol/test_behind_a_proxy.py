"""A server that knows itself by another address than the user does: a proxy in front ends TLS, or renames it.

Such a server takes Destination, and the tags in If, for another server's (servers.md, table 11a). The proxy
here is the least that there can be: it passes everything on, under the server's own address.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from davfs.dav.auth import build_auth
from davfs.dav.lanes import Lanes, LaneSettings
from davfs.errors import DavfsError
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.servers import Share

NAME = "https://drive.example"
LARGE = bytes(range(256)) * 8192  # by way of a temporary name on all that may write in place


class Proxy(httpx.AsyncBaseTransport):
    """Passes requests for `NAME` on to `server`, and changes nothing but where they go."""

    def __init__(self, wire: httpx.AsyncBaseTransport, server: str) -> None:
        self._wire = wire
        self._server = httpx.URL(server)

    def _inside(self, url: httpx.URL) -> httpx.URL:
        return url.copy_with(scheme=self._server.scheme, host=self._server.host, port=self._server.port)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        headers = [(name, text) for name, text in request.headers.multi_items() if name.lower() != "host"]
        extensions = dict(request.extensions)
        look = extensions.get("davfs_preflight")
        if look is not None and look.folder is not None:
            extensions["davfs_preflight"] = replace(look, folder=self._inside(look.folder))
        inner = httpx.Request(
            request.method, self._inside(request.url), headers=headers, extensions=extensions
        )
        if request.headers.get("content-length"):
            inner.stream = request.stream
        return await self._wire.handle_async_request(inner)

    async def aclose(self) -> None:
        await self._wire.aclose()


@asynccontextmanager
async def drive(share: Share, folder: Path) -> AsyncIterator[Vfs]:
    proxy = Proxy(Lanes(build_auth("none", share.url, None), LaneSettings()), share.url)
    address = NAME + httpx.URL(share.url).path
    try:
        async with running(proxy, address, Settings(str(folder), write_back_s=0)) as fs:
            yield Vfs(fs)
    finally:
        await proxy.aclose()


async def save(vfs: Vfs, path: str, data: bytes) -> None:
    fd = await vfs.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        await vfs.write(fd, data)
        await vfs.fsync(fd)
    finally:
        await vfs.close(fd)


async def test_files_are_saved(locking_share: Share, tmp_path: Path) -> None:
    """New files, small and large ones over others, again and again: whatever way each server needs for it."""
    locking_share.write("old", b"old")
    async with drive(locking_share, tmp_path / "c") as vfs:
        await save(vfs, "new", b"new")
        await save(vfs, "old", LARGE)
        await save(vfs, "large", LARGE)
        await save(vfs, "large", b"small again")
        await save(vfs, "old", b"newer")
        assert sorted(await vfs.listdir("")) == ["large", "new", "old"]
    found = {name: (locking_share.root / name).read_bytes() for name in ("new", "old", "large")}
    assert found == {"new": b"new", "old": b"newer", "large": b"small again"}


async def test_names_are_changed(locking_share: Share, tmp_path: Path) -> None:
    """By the path alone where the address is refused. Apache takes no path: it is told what is wrong."""
    locking_share.write("a", b"a")
    locking_share.write("b", b"b")
    async with drive(locking_share, tmp_path / "c") as vfs:
        await vfs.mkdir("d")
        if locking_share.name == "apache":
            with pytest.raises(
                DavfsError, match="a proxy in front of it has to change Destination"
            ) as caught:
                await vfs.rename("a", "c")
            assert caught.value.errno == errno.EBUSY
            return
        await vfs.rename("a", "c")
        await vfs.rename("b", "c")
        await vfs.rename("d", "e f")
        await vfs.rename("c", "e f/c")
        assert await vfs.listdir("") == ["e f"]
    assert (locking_share.root / "e f/c").read_bytes() == b"b"


async def test_the_form_is_learned_once(tmp_path: Path) -> None:
    """One refusal, one look, and from then on each rename is one request; a form that worked is kept."""
    for authority, moves in ((None, [201, 201]), ("inside:80", [502, 201, 201])):
        server = FakeDav()
        server.authority = authority
        server.put("/a", b"a")
        async with running(server, "http://fake.example/", Settings(str(tmp_path / str(authority)))) as fs:
            vfs = Vfs(fs)
            await vfs.rename("a", "b")
            await vfs.rename("b", "c")
        assert [one.status for one in server.requests("MOVE")] == moves
        assert server.tree() == {"c": b"a"}


async def test_a_taken_name_stays_taken(tmp_path: Path) -> None:
    """The other client's file survives, whichever form the server understands."""
    server = FakeDav()
    server.authority = "inside:80"
    server.put("/a", b"ours")
    async with running(server, "http://fake.example/", Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        await vfs.listdir("")
        server.put("/b", b"theirs")
        with pytest.raises(DavfsError) as caught:
            await vfs.rename_noreplace("a", "b")
        assert caught.value.errno == errno.EEXIST
    assert server.tree() == {"a": b"ours", "b": b"theirs"}


async def test_a_broken_gateway_is_no_other_address(tmp_path: Path) -> None:
    """A 502 after which the file is gone from its old name: it was moved, and nothing is sent again."""

    class Broken(FakeDav):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            answer = await super().handle_async_request(request)
            if request.method != "MOVE":
                return answer
            return httpx.Response(502, stream=httpx.ByteStream(b""), request=request)

    server = Broken()
    server.put("/a", b"a")
    async with running(server, "http://fake.example/", Settings(str(tmp_path / "c"))) as fs:
        await Vfs(fs).rename("a", "b")
        assert [one.path for one in server.requests("MOVE")] == ["/a"]
    assert server.tree() == {"b": b"a"}
