"""The client's own requests, made without httpx: the same bytes on the wire as by its way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from davfs import errors
from davfs.dav.auth import Credentials, build_auth
from davfs.dav.client import Client
from davfs.dav.lanes import Errand, Home, Lanes, LaneSettings, Timeouts
from davfs.dav.resource import ROOT, DavPath
from davfs.dav.wire import Octets
from tests.unit.dav.peer import Line, Peer, serving

_OWN_LINES = b"User-Agent: davfs\r\nConnection: keep-alive\r\n"


def _own(url: str, method: str, target: str, headers: dict[str, str]) -> Errand:
    return Errand.home(Home.of(url, _OWN_LINES), method, target, headers, timeouts=Timeouts())


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://server.example:80", "server.example"),
        ("https://server.example:443", "server.example"),
        ("https://server.example:8443", "server.example:8443"),
        ("http://[::1]:8080", "[::1]:8080"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Depth": "0", "Content-Length": "7"}, {"Accept": "text/css"}])
def test_the_same_bytes_as_by_way_of_httpx(origin: str, host: str, headers: dict[str, str]) -> None:
    """Request line, Host and header lines are what httpx makes of the same request, in another order."""
    target = "/dav/a%20b/%C3%A9;x"
    own = _own(origin, "PROPFIND", target, headers)
    request = httpx.Request("PROPFIND", origin + target, headers=headers)
    accept = b"" if "Accept" in headers else b"Accept: */*\r\n"
    by_httpx = Errand.of(request, _OWN_LINES + accept)
    assert own.lines.startswith(f"Host: {host}\r\n".encode())
    assert sorted(own.lines.split(b"\r\n")) == sorted(by_httpx.lines.split(b"\r\n"))
    assert (own.target, own.origin, own.size_bytes) == (by_httpx.target, by_httpx.origin, by_httpx.size_bytes)
    assert own.url == request.url
    for through_proxy in (False, True):
        heads = [one.head("", through_proxy=through_proxy).partition(b"\r\n")[0] for one in (own, by_httpx)]
        assert heads[0] == heads[1]


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\rb", "a\0b", "é"])
def test_what_would_break_the_framing_is_not_sent(value: str) -> None:
    """A tag or a token of the server cannot bring a header line of its own."""
    with pytest.raises(httpx.LocalProtocolError):
        _own("http://server.example", "PUT", "/f", {"If-Match": value})


def test_headers_without_an_end_are_not_sent() -> None:
    """More than 256 KiB of headers is a mistake of ours."""
    with pytest.raises(httpx.LocalProtocolError):
        _own("http://server.example", "PUT", "/f", {"If": "x" * 300_000})


@asynccontextmanager
async def _client(peer: Peer, credentials: Credentials | None = None) -> AsyncIterator[Client]:
    lanes = Lanes(build_auth("basic" if credentials else "none", peer.url, credentials), LaneSettings())
    client = Client(lanes, peer.url, timeout_s=5)
    try:
        yield client
    finally:
        await client.aclose()


async def _storing(line: Line) -> None:
    while await line.request():
        await line.answer(201)


async def test_an_address_that_is_too_long() -> None:
    """More than httpx takes is UriTooLong, and nothing is sent."""
    async with serving(_storing) as peer, _client(peer) as client:
        with pytest.raises(errors.UriTooLong):
            await client.delete(DavPath(("x" * 200,) * 400), is_collection=False)
        assert peer.said == []


async def test_what_is_cancelled_already_is_not_sent() -> None:
    """A request in a scope that was cancelled before it was written leaves no trace on the server."""
    async with serving(_storing) as peer, _client(peer) as client:
        await client.delete(ROOT.child("a"), is_collection=False)
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.delete(ROOT.child("b"), is_collection=False)
        await client.delete(ROOT.child("c"), is_collection=False)
        assert peer.said == ["DELETE /dav/a 0", "DELETE /dav/c 0"]


async def test_counts_what_goes_out_and_comes_in() -> None:
    """A short body that is at hand counts as one that is read piece by piece."""

    async def answering(line: Line) -> None:
        while await line.request():
            await line.answer(201, b"12345")

    async with serving(answering) as peer, _client(peer) as client:
        await client.put(ROOT.child("a"), Octets(b"x" * 1000))
        await client.put(ROOT.child("b"), Octets(b"x" * 100_000))
        assert (client.traffic.up_bytes, client.traffic.down_bytes) == (101_000, 10)
        assert client.request_counts == {"PUT": 2}


async def test_object_storage_behind_a_redirect_gets_no_password() -> None:
    """A GET that leads to another host is answered from there, without credentials or headers of ours."""

    async def storage(line: Line) -> None:
        while await line.request():
            await line.answer(200, b"content")

    async with serving(storage) as far:

        async def share(line: Line) -> None:
            while seen := await line.request():
                place = far.url.replace("127.0.0.1", "localhost")
                if seen.method == "GET":
                    await line.answer(302, Location=place + "object?sig=1")
                else:
                    await line.answer(204)

        async with serving(share) as peer, _client(peer, Credentials("ann", "pw")) as client:
            async with client.get(ROOT.child("f")) as download:
                assert b"".join([piece async for piece in download]) == b"content"
            assert peer.seen[-1].headers["authorization"].startswith("Basic ")
            assert far.said == ["GET /dav/object?sig=1 0"]
            assert "translate" not in far.seen[0].headers
