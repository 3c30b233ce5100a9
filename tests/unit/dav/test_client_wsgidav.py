"""The client against a real server: WsgiDAV in a thread of this process, over real sockets."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from cheroot import wsgi
from wsgidav.wsgidav_app import WsgiDAVApp

from davfs import errors
from davfs.dav.auth import build_auth
from davfs.dav.client import Client, NotWebDav
from davfs.dav.lanes import Lanes, LaneSettings
from davfs.dav.resource import ROOT, ETag, Validator
from davfs.dav.wire import Octets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("share")


@pytest.fixture(scope="module")
def origin(folder: Path) -> Iterator[str]:
    app = WsgiDAVApp(
        {"provider_mapping": {"/dav": str(folder)}, "simple_dc": {"user_mapping": {"*": True}}, "verbose": 0}
    )
    server = wsgi.Server(("127.0.0.1", 0), app, numthreads=4, timeout=2, shutdown_timeout=1)
    server.prepare()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.bind_addr[1]}"
    server.stop()
    thread.join(5)


@asynccontextmanager
async def _client(origin: str, place: str = "/dav/") -> AsyncIterator[Client]:
    client = Client(_lanes(origin), origin + place, timeout_s=10)
    try:
        yield client
    finally:
        await client.aclose()


def _lanes(origin: str) -> Lanes:
    return Lanes(build_auth("none", origin, None), LaneSettings())


async def test_a_life_of_a_file(origin: str, folder: Path) -> None:
    """Made, described, read in part, overwritten under condition, copied, moved, deleted."""
    async with _client(origin) as client:
        await client.connect()
        path = ROOT.child("é a;b%41#?.txt")
        made = await client.put(path, Octets(b"x" * 200_000), if_none_match=True)
        assert made.created
        found = await client.stat(path)
        assert (found.size_bytes, found.etag) == (200_000, made.etag)
        assert (await client.list(ROOT)).members[path.name] == found
        async with client.get(path, start=10, end=20, expected=found.validator) as download:
            assert (download.ranged, download.total_bytes) == (True, 200_000)
            assert b"".join([piece async for piece in download]) == b"x" * 10
        with pytest.raises(errors.PreconditionFailed):
            await client.put(path, Octets(b"y"), if_none_match=True)
        with pytest.raises(errors.PreconditionFailed):
            await client.put(path, Octets(b"y"), if_match=ETag("stale"))
        assert not (await client.put(path, Octets(b"yy"), if_match=made.etag)).created
        with pytest.raises(errors.StaleVersion):
            async with client.get(path, start=10, end=20, expected=found.validator):
                pass
        await client.copy(path, ROOT.child("copy"), is_collection=False, overwrite=False)
        with pytest.raises(errors.PreconditionFailed):
            await client.move(path, ROOT.child("copy"), is_collection=False, overwrite=False)
        await client.move(path, ROOT.child("copy"), is_collection=False, overwrite=True)
        assert (folder / "copy").read_bytes() == b"yy"
        await client.delete(ROOT.child("copy"), is_collection=False)
        with pytest.raises(errors.NotFound):
            await client.stat(path)


async def test_folders(origin: str, folder: Path) -> None:
    """MKCOL once, members by name, a tree moves and goes as one."""
    async with _client(origin) as client:
        top = ROOT.child("top")
        await client.mkcol(top)
        with pytest.raises(errors.AlreadyExists):
            await client.mkcol(top)
        with pytest.raises(errors.ParentMissing):
            await client.mkcol(ROOT.child("none").child("x"))
        with pytest.raises(errors.ParentMissing):
            await client.put(ROOT.child("none").child("x"), Octets(b"x"))
        await client.mkcol(top.child("sub"))
        await client.put(top.child("file"), Octets(b""))
        listing = await client.list(top)
        assert {name: one.is_collection for name, one in listing.members.items()} == {
            "sub": True,
            "file": False,
        }
        assert listing.complete
        assert listing.itself.is_collection
        await client.move(top, ROOT.child("moved"), is_collection=True, overwrite=False)
        assert (folder / "moved" / "sub").is_dir()
        await client.delete(ROOT.child("moved"), is_collection=True)
        assert not (folder / "moved").exists()
        with pytest.raises(errors.NotFound):
            await client.list(top)


async def test_names_with_control_characters(origin: str, folder: Path) -> None:
    """A \\x01 in one name breaks WsgiDAV's XML, not our listing."""
    (folder / "ctl").mkdir()
    (folder / "ctl" / "a\x01b").write_bytes(b"1")
    (folder / "ctl" / "plain").write_bytes(b"2")
    async with _client(origin) as client:
        listing = await client.list(ROOT.child("ctl"))
        assert set(listing.members) == {"a\x01b", "plain"}
        async with client.get(ROOT.child("ctl").child("a\x01b")) as download:
            assert [piece async for piece in download] == [b"1"]


async def test_quota(origin: str) -> None:
    """The numbers are the disk's."""
    async with _client(origin) as client:
        quota = await client.quota()
    assert quota.available_bytes is not None
    assert quota.available_bytes > 0


async def test_leaving_a_download_leaks_nothing(origin: str, folder: Path) -> None:
    """After the first piece the rest is dropped, and the client goes on working."""
    (folder / "large").write_bytes(os.urandom(2_000_000))
    async with _client(origin) as client:
        for _ in range(3):
            async with client.get(ROOT.child("large")) as download:
                async for _ in download:
                    break
        with trio.move_on_after(0.001):
            async with client.get(ROOT.child("large")) as download:
                async for _ in download:
                    await trio.sleep(0.01)
        assert (await client.stat(ROOT.child("large"))).size_bytes == 2_000_000
        async with client.get(ROOT.child("large"), expected=Validator(None, None, 2_000_000)) as download:
            assert sum([len(piece) async for piece in download]) == 2_000_000


async def test_connections_are_reused(origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals and listings leave the connection in the pool."""
    opened: list[str] = []
    real = trio.open_tcp_stream

    async def counted(host: str, port: int) -> trio.SocketStream:
        opened.append(host)
        return await real(host, port)

    monkeypatch.setattr(trio, "open_tcp_stream", counted)
    async with _client(origin) as client:
        for _ in range(3):
            await client.list(ROOT)
            with pytest.raises(errors.NotFound):
                await client.stat(ROOT.child("missing"))
    assert len(opened) == 1


async def test_wrong_addresses(origin: str, folder: Path) -> None:
    """No such folder, a file, a closed port: each says what is wrong."""
    (folder / "file").write_bytes(b"x")
    for place, error, text in (
        ("/dav/none", errors.NotFound, "no such folder"),
        ("/dav/file", errors.PosixError, "not a folder"),
    ):
        async with _client(origin, place) as client:
            with pytest.raises(error, match=text):
                await client.connect()
    async with _client("http://127.0.0.1:1", "/") as client:
        with pytest.raises(errors.Unreachable, match="refused"):
            await client.connect()


async def test_a_plain_web_server() -> None:
    """A server that answers PROPFIND with a page is NotWebDav."""

    async def page(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, page, 0)
        port = listeners[0].socket.getsockname()[1]
        async with _client(f"http://127.0.0.1:{port}", "/") as client:
            with pytest.raises(NotWebDav):
                await client.connect()
        nursery.cancel_scope.cancel()


async def test_an_early_answer_to_a_large_put() -> None:
    """A 413 sent while the body is still coming is read, not lost."""

    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(1024)
            await stream.send_all(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            async for _ in stream:
                pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, refuse, 0)
        port = listeners[0].socket.getsockname()[1]
        async with _client(f"http://127.0.0.1:{port}", "/") as client:
            with pytest.raises(errors.TooLarge):
                await client.put(ROOT.child("f"), Octets(b"x" * 1_000_000))
        nursery.cancel_scope.cancel()


async def test_a_body_cut_off_by_the_server() -> None:
    """A GET that ends before its Content-Length is Disconnected after the bytes that came."""

    async def cut(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 40)

    got = 0

    async def read(client: Client) -> None:
        nonlocal got
        async with client.get(ROOT.child("f")) as download:
            async for piece in download:
                got += len(piece)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, cut, 0)
        port = listeners[0].socket.getsockname()[1]
        async with _client(f"http://127.0.0.1:{port}", "/") as client:
            with pytest.raises(errors.Disconnected):
                await read(client)
        nursery.cancel_scope.cancel()
    assert got == 40
