"""A scripted server at the seam below httpx: answers in order, and what was asked."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable

import httpx
import trio

from davfs.dav.client import Client

Answer = httpx.Response | Exception | Callable[[httpx.Request], "httpx.Response"]
BASE = "https://server.example/dav/"


class Pieces(httpx.AsyncByteStream):
    """A body in given pieces; an exception among them breaks it, a number is a pause in seconds."""

    def __init__(self, *pieces: bytes | Exception | float) -> None:
        self._pieces = iter(pieces)
        self.closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            if not isinstance(piece, bytes):
                await trio.sleep(piece)
                continue
            return piece
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


class Script(httpx.AsyncBaseTransport):
    """Gives `answers` in order, the last one for ever; keeps the requests and the bodies sent."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.bodies: list[bytes] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        assert isinstance(request.stream, httpx.AsyncByteStream)
        self.bodies.append(b"".join([piece async for piece in request.stream]))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer(request)

    def client(self, *, timeout_s: float = 30.0, base: str = BASE) -> Client:
        return Client(self, base, timeout_s=timeout_s)

    @property
    def methods(self) -> list[str]:
        return [request.method for request in self.requests]


def multistatus(*responses: str, zipped: bool = False) -> httpx.Response:
    """A 207 of response elements."""
    body = f'<D:multistatus xmlns:D="DAV:">{"".join(responses)}</D:multistatus>'.encode()
    if zipped:
        return httpx.Response(207, stream=Pieces(gzip.compress(body)), headers={"Content-Encoding": "gzip"})
    return httpx.Response(207, stream=Pieces(body))


def response(href: str, props: str = "<D:resourcetype/>") -> str:
    """One response element with properties that were found."""
    return (
        f"<D:response><D:href>{href}</D:href><D:propstat><D:prop>{props}</D:prop>"
        "<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
    )


def failure(href: str, status: int) -> str:
    """One response element that says what failed."""
    return f"<D:response><D:href>{href}</D:href><D:status>HTTP/1.1 {status} X</D:status></D:response>"


FOLDER = "<D:resourcetype><D:collection/></D:resourcetype>"
