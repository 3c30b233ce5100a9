"""One request as the lanes carry it: parsed once from httpx.Request, written as bytes. Pure.

Bodies have a Content-Length, always: chunked uploads end as empty files on some servers (peers.md 14). A
header that would break the framing raises httpx.LocalProtocolError, like everything that may not be sent.

`Preflight` travels in the request's extensions ("davfs_preflight"); its judge is called with what the
server says of the target before the body goes out, and stops the upload by raising.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import httpx

from davfs.dav.auth import Origin, origin_of

Kind = Literal["data", "metadata", "ahead"]  # ahead: for what nobody has asked for yet, see Pool

_DATA_VERBS: Final = frozenset({"GET", "PUT", "PATCH", "POST"})
_UPLOAD_VERBS: Final = frozenset({"PUT", "PATCH", "POST"})
_SAFE_VERBS: Final = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND", "REPORT", "SEARCH"})
_FRAMING: Final = frozenset({b"transfer-encoding", b"expect", b"connection", b"authorization"})
_LONGEST_HEADERS_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class PreflightAnswer:
    """What the server says of the target. `status` 207 with XML, or of a HEAD; 404: it is not there yet."""

    status: int
    headers: httpx.Headers
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


@dataclass(frozen=True, slots=True)
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
class Errand:
    """One request, ready to be written."""

    method: str
    target: str
    url: httpx.URL
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

    @classmethod
    def of(cls, request: httpx.Request, default_lines: bytes) -> Errand:
        method, url = request.method.upper(), request.url
        size_bytes, lines = _headers(request)
        stream = request.stream
        if size_bytes and not isinstance(stream, httpx.AsyncByteStream):
            raise httpx.LocalProtocolError("the body cannot be read asynchronously")
        kind: Kind = "data" if method in _DATA_VERBS else "metadata"
        extensions = request.extensions
        return cls(
            method=method,
            target=url.raw_path.decode("ascii"),
            url=url,
            origin=origin_of(url),
            kind=extensions.get("davfs_lane", kind),
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
        url = url or self.url
        host = self.lines.partition(b"\r\n")[0] + b"\r\n"
        asks = b"Depth: 0\r\nContent-Length: %d\r\n" % len(question) if verb == "PROPFIND" else b""
        if question:
            asks += b"Content-Type: application/xml; charset=utf-8\r\n"
        kept = b"".join(line + b"\r\n" for line in self.lines.split(b"\r\n") if line[:11] == b"User-Agent:")
        return replace(
            self,
            method=verb,
            url=url,
            target=url.raw_path.decode("ascii"),
            size_bytes=len(question),
            stream=httpx.ByteStream(question) if question else None,
            preflight=None,
            lines=host + kept + b"Connection: keep-alive\r\nAccept: */*\r\nTranslate: f\r\n" + asks,
        )

    def head(self, extra: str, *, through_proxy: bool) -> bytes:
        """Everything before the body. `extra`: whole header lines, in UTF-8."""
        target = self.target
        if through_proxy:
            port = f":{self.url.port}" if self.url.port else ""
            host = self.url.raw_host.decode("ascii")
            target = f"{self.url.scheme}://{f'[{host}]' if ':' in host else host}{port}{target}"
        text = f"{self.method} {target} HTTP/1.1\r\n".encode("ascii")
        return b"".join((text, self.lines, extra.encode("utf-8", "surrogateescape"), b"\r\n"))


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
