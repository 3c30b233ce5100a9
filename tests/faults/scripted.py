"""A WebDAV server that answers one verb as a test says, and all else rightly: `FakeDav` behind a switch.

`Scripted.trouble` is the switch. Everything asked is noted with its time, so that a test can say what may be
asked and how often. It keeps to the time-outs that came with a request, as the real transport does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, cast
from urllib.parse import unquote, urlsplit

import httpx
import trio

from tests.fakes.davserver import FakeDav

Manner = Literal["answer", "hang", "cut before", "cut after", "garbage"]
CHANGING: Final = frozenset(
    {"PUT", "DELETE", "MKCOL", "MOVE", "COPY", "PROPPATCH", "LOCK", "UNLOCK", "POST", "PATCH"}
)


class Asked(NamedTuple):
    """One request. `target` is the Destination of MOVE and COPY."""

    at_s: float
    method: str
    path: str
    target: str | None


@dataclass(slots=True)
class Trouble:
    """What is wrong with the answers to `method` below `path`.

    "hang": no answer; "cut before", "cut after": the connection breaks, with the request not done or done;
    "garbage": what comes is not HTTP; "answer": this status, with nothing done.
    """

    method: str
    path: str = "/"
    manner: Manner = "answer"
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    times: int = 1 << 30

    def concerns(self, method: str, path: str) -> bool:
        return self.times > 0 and method == self.method and path.startswith(self.path)


class Scripted(httpx.AsyncBaseTransport):
    def __init__(self, server: FakeDav, clock: Callable[[], float] = trio.current_time) -> None:
        self.server = server
        self.trouble: Trouble | None = None
        self.asked: list[Asked] = []
        self._clock = clock

    def begin(self, trouble: Trouble | None) -> None:
        """From now on this is wrong, and the record is empty."""
        self.trouble = trouble
        self.asked.clear()

    def requests(self, *methods: str) -> list[Asked]:
        return [one for one in self.asked if one.method in methods]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = unquote(request.url.path)
        target = request.headers.get("destination")
        self.asked.append(
            Asked(self._clock(), request.method, path, unquote(urlsplit(target).path) if target else None)
        )
        trouble = self.trouble
        if trouble is None or not trouble.concerns(request.method, path):
            return await self.server.handle_async_request(request)
        trouble.times -= 1
        return await self._in_trouble(request, trouble)

    async def _in_trouble(self, request: httpx.Request, trouble: Trouble) -> httpx.Response:
        match trouble.manner:
            case "hang":
                await trio.sleep(_read_timeout_s(request))
                raise httpx.ReadTimeout("nothing came")
            case "garbage":
                raise httpx.RemoteProtocolError("illegal status line: b'\\x00\\x01'")
            case "cut before":
                raise httpx.ReadError("the connection broke")
            case "cut after":
                answer = await self.server.handle_async_request(request)
                await answer.aclose()
                raise httpx.ReadError("the connection broke")
        async for _ in cast("httpx.AsyncByteStream", request.stream):
            pass
        headers = {"Content-Length": str(len(trouble.body)), **trouble.headers}
        return httpx.Response(trouble.status, headers=headers, stream=_Whole(trouble.body), request=request)


class _Whole(httpx.AsyncByteStream):
    def __init__(self, data: bytes) -> None:
        self._pieces = [data] if data else []

    def __aiter__(self) -> _Whole:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop()


def _read_timeout_s(request: httpx.Request) -> float:
    return float(request.extensions["timeout"]["read"])
