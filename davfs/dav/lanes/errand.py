"""One request as the lanes carry it, written as bytes. Pure.

`Errand.of` reads it from an httpx.Request. The client's own requests are made by `Errand.home`, without
one: for the same bytes httpx needs 60 us, to parse an address that we made and to copy the headers twice.

Bodies have a Content-Length, always: chunked uploads end as empty files on some servers (peers.md 14). A
header that would break the framing raises httpx.LocalProtocolError, like everything that may not be sent.

`Preflight` travels in the request's extensions ("davfs_preflight"); its judge is called with what the
server says of the target before the body goes out, and stops the upload by raising.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self

import httpx

from davfs.dav.auth import Origin, origin_of

Kind = Literal["data", "metadata", "ahead"]  # ahead: for what nobody has asked for yet, see Pool

_DATA_VERBS: Final = frozenset({"GET", "PUT", "PATCH", "POST"})
_UPLOAD_VERBS: Final = frozenset({"PUT", "PATCH", "POST"})
_SAFE_VERBS: Final = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND", "REPORT", "SEARCH"})
_FRAMING: Final = frozenset({b"transfer-encoding", b"expect", b"connection", b"authorization"})
ACCEPT: Final = b"Accept: */*\r\n"
_LONGEST_HEADERS_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class PreflightAnswer:
    """What the server says of the target. `status` 207 with XML, or of a HEAD; 404: it is not there yet."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    parent: PreflightAnswer | None = None  # of the folder, where that was asked too


@dataclass(frozen=True, slots=True)
class Preflight:
    """How an upload wants to be checked. `judge` raises what the upload shall fail with.

    `question` is the body of a PROPFIND that asks for locks and quota, which many servers only tell when
    asked. It is left out while an answer may be 401. `folder` is the address of the parent. `is_known`: the
    target was looked at a moment ago. `is_new`: nobody can have this name yet (a temporary one of ours), so
    that only the folder can say anything.
    """

    judge: Callable[[PreflightAnswer], None]
    is_conditional: bool = False
    question: bytes = b""
    folder: httpx.URL | None = None
    is_known: bool = False
    is_new: bool = False


class AtHand(httpx.AsyncByteStream):
    """A short body that is in memory: it goes out with the head. Other transports iterate it."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self.data)


class _Once:
    """No generator: one that is left early is reported by trio."""

    def __init__(self, data: bytes) -> None:
        self._left = [data]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


@dataclass(slots=True)
class Timeouts:
    """Seconds, per step; httpx's meaning."""

    connect: float = math.inf
    read: float = math.inf
    write: float = math.inf
    pool: float = math.inf

    @classmethod
    def of(cls, extensions: Mapping[str, Any]) -> Timeouts:
        given: Mapping[str, float | None] = extensions.get("timeout") or {}
        values = [given.get(step) for step in ("connect", "read", "write", "pool")]
        return cls(*(math.inf if value is None else value for value in values))


@dataclass(frozen=True, slots=True)
class Home:
    """The server of the share, and the lines that head every request of ours to it."""

    origin: Origin
    lines: bytes  # Host first

    @classmethod
    def of(cls, url: str, default_lines: bytes) -> Self:
        """httpx says how the host is written: without a default port, in punycode."""
        request = httpx.Request("GET", url)
        return cls(origin_of(request.url), b"Host: " + request.headers.raw[0][1] + b"\r\n" + default_lines)


@dataclass(slots=True)
class Errand:
    """One request, ready to be written. Not changed once it is made."""

    method: str
    target: str
    origin: Origin
    kind: Kind
    size_bytes: int
    timeouts: Timeouts
    lines: bytes  # the header lines, without those that a lane decides about
    stream: httpx.AsyncByteStream | None
    preflight: Preflight | None = None

    @property
    def is_upload(self) -> bool:
        return self.method in _UPLOAD_VERBS

    @property
    def is_safe(self) -> bool:
        """May it be repeated without knowing whether it was processed?"""
        return self.method in _SAFE_VERBS

    @property
    def url(self) -> httpx.URL:
        """Parsed anew each time, which takes 30 us: for what is rare."""
        scheme, host, port = self.origin
        return httpx.URL(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{self.target}")

    @classmethod
    def home(
        cls,
        home: Home,
        method: str,
        target: str,
        headers: Mapping[str, str],
        *,
        timeouts: Timeouts,
        stream: httpx.AsyncByteStream | None = None,
        preflight: Preflight | None = None,
        is_ahead: bool = False,
    ) -> Self:
        """A request of the client's own to the server of the share; `target` is encoded already."""
        size_text = headers.get("Content-Length", "0")
        text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if not (text.count("\r") == text.count("\n") == len(headers)) or "\0" in text:
            raise httpx.LocalProtocolError("a header holds a line break")
        if len(text) > _LONGEST_HEADERS_BYTES or not text.isascii() or not size_text.isdigit():
            raise httpx.LocalProtocolError("the headers cannot be sent")
        return cls(
            method,
            target,
            home.origin,
            "ahead" if is_ahead else _kind(method),
            int(size_text),
            timeouts,
            home.lines + text.encode("ascii") + (b"" if "Accept" in headers else ACCEPT),
            stream,
            preflight,
        )

    @classmethod
    def of(cls, request: httpx.Request, default_lines: bytes) -> Errand:
        method, url = request.method.upper(), request.url
        size_bytes, lines = _headers(request)
        stream = request.stream
        if size_bytes and not isinstance(stream, httpx.AsyncByteStream):
            raise httpx.LocalProtocolError("the body cannot be read asynchronously")
        extensions = request.extensions
        return cls(
            method=method,
            target=url.raw_path.decode("ascii"),
            origin=origin_of(url),
            kind=extensions.get("davfs_lane", _kind(method)),
            size_bytes=size_bytes,
            timeouts=Timeouts.of(extensions),
            lines=lines + default_lines,
            stream=stream if size_bytes and isinstance(stream, httpx.AsyncByteStream) else None,
            preflight=extensions.get("davfs_preflight"),
        )

    def probe(self, verb: str, question: bytes = b"", url: httpx.URL | None = None) -> Errand:
        """A request for the same place (or for `url`) that changes nothing: PROPFIND Depth 0, or HEAD."""
        if verb != "PROPFIND":
            question = b""
        host = self.lines.partition(b"\r\n")[0] + b"\r\n"
        asks = b"Depth: 0\r\nContent-Length: %d\r\n" % len(question) if verb == "PROPFIND" else b""
        if question:
            asks += b"Content-Type: application/xml; charset=utf-8\r\n"
        kept = b"".join(line + b"\r\n" for line in self.lines.split(b"\r\n") if line[:11] == b"User-Agent:")
        return replace(
            self,
            method=verb,
            target=self.target if url is None else url.raw_path.decode("ascii"),
            size_bytes=len(question),
            stream=AtHand(question) if question else None,
            preflight=None,
            lines=host + kept + b"Connection: keep-alive\r\nAccept: */*\r\nTranslate: f\r\n" + asks,
        )

    def head(self, extra: str, *, through_proxy: bool) -> bytes:
        """Everything before the body. `extra`: whole header lines, in UTF-8."""
        target = self.target
        if through_proxy:
            url = self.url
            port = f":{url.port}" if url.port else ""
            host = url.raw_host.decode("ascii")
            target = f"{url.scheme}://{f'[{host}]' if ':' in host else host}{port}{target}"
        text = f"{self.method} {target} HTTP/1.1\r\n".encode("ascii")
        return b"".join((text, self.lines, extra.encode("utf-8", "surrogateescape"), b"\r\n"))


def _kind(method: str) -> Kind:
    return "data" if method in _DATA_VERBS else "metadata"


def _headers(request: httpx.Request) -> tuple[int, bytes]:
    """The size of the body, and the header lines with Host first."""
    host, lines, length = b"", [], None
    for name, value in request.headers.raw:
        if b"\r" in value or b"\n" in value or b"\0" in value or b":" in name or b"\r\n" in name:
            raise httpx.LocalProtocolError("a header holds a line break")
        lower = name.lower()
        if lower == b"host":
            host = b"Host: " + value + b"\r\n"
            continue
        if lower == b"transfer-encoding":
            raise httpx.LocalProtocolError("a body without a length is not sent")
        if lower in _FRAMING:
            continue
        if lower == b"content-length":
            length = value
        lines.append(name + b": " + value + b"\r\n")
    joined = host + b"".join(lines)
    if len(joined) > _LONGEST_HEADERS_BYTES or not host:
        raise httpx.LocalProtocolError("the headers are too long, or name no host")
    if length is not None and not (length.isdigit() and len(length) <= 19):
        raise httpx.LocalProtocolError("Content-Length is not a number")
    return int(length or 0), joined
