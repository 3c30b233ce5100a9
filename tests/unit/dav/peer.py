"""A scripted HTTP server on loopback: what it reads is kept, what it answers is said in bytes.

    async with serving(handler) as peer: ...      # handler(line: Line) runs once per connection

`Line` has the stream, reads requests with their bodies, and answers. Nothing outlives the block.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import trio

from davfs.dav.auth import Authenticator, Credentials, Scheme, build_auth
from davfs.dav.lanes import Lanes, LaneSettings


@dataclass
class Seen:
    """One request as it came."""

    connection: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    def __str__(self) -> str:
        auth = self.headers.get("authorization", "").partition(" ")[0]
        return f"{self.method} {self.target} {len(self.body)}" + (f" {auth}" if auth else "")


@dataclass
class Peer:
    port: int = 0
    connections: int = 0
    seen: list[Seen] = field(default_factory=list)
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/dav/"

    @property
    def said(self) -> list[str]:
        return [str(one) for one in self.seen]


class Line:
    """One connection, seen from the server."""

    def __init__(self, peer: Peer, stream: trio.abc.Stream, number: int) -> None:
        self._peer = peer
        self._rest = b""
        self.stream = stream
        self.number = number

    async def head(self) -> Seen | None:
        """The next request without its body; None when the client has gone."""
        while b"\r\n\r\n" not in self._rest:
            if not await self._more():
                return None
        block, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = block.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        pairs = (line.partition(": ") for line in lines)
        seen = Seen(self.number, method, target, {name.lower(): value for name, _, value in pairs})
        self._peer.seen.append(seen)
        return seen

    async def body(self, seen: Seen, at_most: int | None = None) -> None:
        size = int(seen.headers.get("content-length", "0"))
        size = size if at_most is None else min(size, at_most)
        while len(self._rest) < size and await self._more():
            pass
        seen.body, self._rest = self._rest[:size], self._rest[size:]

    async def request(self) -> Seen | None:
        seen = await self.head()
        if seen is not None:
            await self.body(seen)
        return seen

    async def _more(self) -> bool:
        try:
            data = await self.stream.receive_some(65536)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        self._rest += data
        return bool(data)

    async def say(self, data: bytes | str) -> None:
        await self.stream.send_all(data.encode() if isinstance(data, str) else data)

    async def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.say("\r\n".join([f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *lines, "", ""]))
        if body:
            await self.say(body)


Handler = Callable[[Line], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    peer = Peer(scheme="http" if tls is None else "https")

    async def one(stream: trio.SocketStream) -> None:
        peer.connections += 1
        line = Line(peer, stream if tls is None else _wrapped(stream, tls), peer.connections)
        try:
            await handler(line)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            stream.socket.close()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, one, 0)
        peer.port = listeners[0].socket.getsockname()[1]
        try:
            yield peer
        finally:
            nursery.cancel_scope.cancel()


def _wrapped(stream: trio.SocketStream, tls: ssl.SSLContext) -> trio.SSLStream[trio.SocketStream]:
    return trio.SSLStream(stream, tls, server_side=True, https_compatible=True)


def auth_for(peer: Peer, scheme: Scheme = "none", credentials: Credentials | None = None) -> Authenticator:
    return build_auth(scheme, peer.url, credentials)


@asynccontextmanager
async def lanes_to(
    peer: Peer,
    scheme: Scheme = "none",
    credentials: Credentials | None = None,
    settings: LaneSettings | None = None,
) -> AsyncIterator[Lanes]:
    lanes = Lanes(auth_for(peer, scheme, credentials), settings or LaneSettings())
    try:
        yield lanes
    finally:
        await lanes.aclose()


class Data(httpx.AsyncByteStream):
    """A body that can be iterated again and tells how often it was. `pause_s` after each piece."""

    def __init__(self, size_bytes: int, piece_bytes: int = 65536, pause_s: float = 0.0) -> None:
        self._pieces = [bytes(min(piece_bytes, size_bytes - at)) for at in range(0, size_bytes, piece_bytes)]
        self._pause_s = pause_s
        self.passes = 0
        self.given_bytes = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        self.passes += 1
        return _Pass(self, iter(self._pieces), self._pause_s)


class _Pass:
    def __init__(self, data: Data, pieces: object, pause_s: float) -> None:
        self._data = data
        self._pieces = iter(pieces)  # type: ignore[call-overload]
        self._pause_s = pause_s

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await trio.sleep(self._pause_s)
        for piece in self._pieces:
            self._data.given_bytes += len(piece)
            return bytes(piece)
        raise StopAsyncIteration


async def ask(
    lanes: Lanes,
    peer: Peer,
    method: str = "PROPFIND",
    path: str = "",
    *,
    body: httpx.AsyncByteStream | None = None,
    size: int | None = None,
    timeout_s: float = 5.0,
    **extensions: object,
) -> httpx.Response:
    """One request; its answer is read to the end."""
    headers = {} if size is None else {"Content-Length": str(size)}
    times = dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)
    request = httpx.Request(
        method, peer.url + path, headers=headers, extensions={"timeout": times, **extensions}
    )
    if body is not None:
        request.stream = body
    answer = await lanes.handle_async_request(request)
    await answer.aread()
    return answer
