"""`limit_up` and `limit_down`: how fast bodies of files go, and what is not held up."""

from __future__ import annotations

import httpx
import trio
from trio.testing import MockClock

from davfs.dav.client import Client
from davfs.dav.resource import ROOT
from davfs.dav.wire import Octets, Outgoing
from tests.fakes.davserver import FakeDav

URL = "http://fake.example/"
RATE = 100_000
DATA = bytes(500_000)


def _client(server: FakeDav, *, up: int | None = None, down: int | None = None) -> Client:
    client = Client(server, URL)
    client.limit(up_bytes_per_s=up, down_bytes_per_s=down)
    return client


async def _read(client: Client, name: str) -> bytes:
    async with client.get(ROOT.child(name)) as download:
        return b"".join([piece async for piece in download])


async def test_uploads_share_the_rate(autojump_clock: MockClock) -> None:
    """Two files of 500 kB take 10 s at 100 kB/s, and arrive whole."""
    server = FakeDav()
    client, begun_s = _client(server, up=RATE), trio.current_time()
    async with trio.open_nursery() as nursery:
        for name in ("a", "b"):
            nursery.start_soon(client.put, ROOT.child(name), Octets(DATA))
    assert 9.9 <= trio.current_time() - begun_s <= 10.1
    assert server.tree() == {"a": DATA, "b": DATA}


async def test_downloads_share_the_rate(autojump_clock: MockClock) -> None:
    """The same for what is fetched; no byte is lost between two turns."""
    server = FakeDav()
    data = bytes(range(250)) * 2000
    server.put("/a", data)
    server.put("/b", data)
    client, begun_s, found = _client(server, down=RATE), trio.current_time(), []

    async def read(name: str) -> None:
        found.append(await _read(client, name))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, "a")
        nursery.start_soon(read, "b")
    assert 9.9 <= trio.current_time() - begun_s <= 10.1
    assert found == [data, data]


async def test_only_that_way_and_only_files_wait(autojump_clock: MockClock) -> None:
    """A limit of uploads holds up no download and no listing, and the other way round."""
    server = FakeDav()
    server.put("/a", DATA)
    for client in (_client(server), _client(server, up=RATE)):
        begun_s = trio.current_time()
        await _read(client, "a")
        await client.list(ROOT)
        assert trio.current_time() == begun_s
    client, begun_s = _client(server, down=RATE), trio.current_time()
    await client.put(ROOT.child("b"), Octets(DATA))
    await client.list(ROOT)
    assert trio.current_time() == begun_s


async def test_a_listing_passes_a_running_upload(autojump_clock: MockClock) -> None:
    """While the line is full of a file's turns, a listing costs no time."""
    server = FakeDav()
    client = _client(server, up=RATE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.put, ROOT.child("a"), Octets(DATA))
        await trio.sleep(1)
        begun_s = trio.current_time()
        await client.list(ROOT)
        assert trio.current_time() == begun_s


async def test_an_idle_line_saves_nothing_up(autojump_clock: MockClock) -> None:
    """After a minute of silence a file takes as long as ever."""
    server = FakeDav()
    client = _client(server, up=RATE)
    await trio.sleep(60)
    begun_s = trio.current_time()
    await client.put(ROOT.child("a"), Octets(DATA))
    assert 4.9 <= trio.current_time() - begun_s <= 5.1


class _InFile:
    """A body that lies in a file, as unsent ones do."""

    size_bytes = 4
    fd: int | None = 0

    def __aiter__(self) -> httpx.ByteStream:
        raise NotImplementedError

    def sent_up_to(self, size_bytes: int) -> None:
        """Nobody asks."""


def test_the_kernel_sends_files_only_where_nothing_is_limited() -> None:
    """sendfile knows no rate: with a limit the bytes go through the turns."""
    paced = _client(FakeDav(), up=RATE)._exchange.pace_up
    assert Outgoing(_InFile(), len, None).fd == 0  # type: ignore[arg-type]
    assert Outgoing(_InFile(), len, paced).fd is None  # type: ignore[arg-type]
