"""Bytes from the server -> heads and bodies of answers. Pure, bounded, and fuzzed.

The parser is llhttp (httptools), in its strict mode. It is given the head alone, cut at the empty line, so
that the size of a head is bounded before it is looked at, and so that a body with a length never passes
through it: such bytes are only counted. Chunked bodies go through llhttp.

Whatever is not HTTP raises httpx.RemoteProtocolError, and nothing else is raised here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, Protocol

import httptools
import httpx

MOST_HEAD_BYTES: Final = 64 * 1024
_MOST_HEADERS: Final = 256
_MOST_OVERHEAD_BYTES: Final = 64 * 1024  # of a chunked body that brings no content: extensions, trailers
_MOST_BODY_BYTES: Final = 2**62
_END: Final = b"\r\n\r\n"
_NO_BODY: Final = frozenset({204, 304})

_Header = tuple[bytes, bytes]
_ParserErrors: Final = (httptools.HttpParserError, httptools.HttpParserUpgrade)


class _Sink:
    """What llhttp calls."""

    parser: httptools.HttpResponseParser
    keep_alive = False  # to be asked at the end of the head: with the message it is forgotten

    def __init__(self) -> None:
        self.headers: list[_Header] = []
        self.pieces: list[bytes] = []
        self.messages = 0
        self.is_complete = False

    def on_message_begin(self) -> None:
        self.messages += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= _MOST_HEADERS:
            raise ValueError("too many headers")
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.keep_alive = self.parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        if not self.is_complete:
            self.pieces.append(data)

    def on_message_complete(self) -> None:
        self.is_complete = True


class Body(Protocol):
    """The framing of one body. `take` turns raw bytes into content; after `done`, `has_extra` tells of
    bytes that belong to no answer: such a connection cannot be used again."""

    done: bool
    has_extra: bool

    def take(self, data: bytes) -> bytes: ...

    def end(self) -> None:
        """The connection ended. Raises ReadError if the body was not at its end."""

    @property
    def wanted_bytes(self) -> int:
        """How much a read may usefully bring."""


class LengthBody:
    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes
        self.done = size_bytes == 0
        self.has_extra = False

    def take(self, data: bytes) -> bytes:
        if len(data) > self._left:
            self.has_extra = True
            data = data[: self._left]
        self._left -= len(data)
        self.done = self._left == 0
        return data

    def end(self) -> None:
        raise httpx.ReadError(f"the server closed the connection, {self._left} bytes are missing")

    @property
    def wanted_bytes(self) -> int:
        return self._left


class EndlessBody:
    """Ends with the connection."""

    done = False
    has_extra = False
    wanted_bytes = _MOST_BODY_BYTES

    def take(self, data: bytes) -> bytes:
        return data

    def end(self) -> None:
        self.done = True


class ChunkedBody:
    wanted_bytes = _MOST_BODY_BYTES

    def __init__(self, parser: httptools.HttpResponseParser, sink: _Sink) -> None:
        self._parser = parser
        self._sink = sink
        self._overhead_bytes = 0
        self.done = False
        self.has_extra = False

    def take(self, data: bytes) -> bytes:
        sink = self._sink
        try:
            self._parser.feed_data(data)
        except _ParserErrors as error:
            if not sink.is_complete:
                raise httpx.RemoteProtocolError(f"bad chunked body: {_cause(error)}") from None
            self.has_extra = True
        self.done = sink.is_complete
        self.has_extra = self.has_extra or sink.messages > 1
        pieces, sink.pieces = sink.pieces, []
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._overhead_bytes = 0 if content else self._overhead_bytes + len(data)
        if self._overhead_bytes > _MOST_OVERHEAD_BYTES:
            raise httpx.RemoteProtocolError("bad chunked body: no content comes")
        return content

    def end(self) -> None:
        raise httpx.ReadError("the server closed the connection within a chunked body")


@dataclass
class Head:
    """The head of one answer, and the framing of its body."""

    status: int
    raw_headers: Sequence[_Header]
    fields: Mapping[str, str]  # names in lower case; the values of a repeated one joined by commas
    keep_alive: bool
    body: Body

    @cached_property
    def headers(self) -> httpx.Headers:
        """For who needs repeated ones apart. 6 us to make, 2 us for each look: not for every answer."""
        return httpx.Headers(list(self.raw_headers))


class HeadReader:
    """Collects the bytes of one head. `feed` answers the head once it is whole; `rest` is what follows."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._buffer = bytearray()
        self.rest = b""

    @property
    def collected(self) -> bytes:
        return bytes(self._buffer)

    def feed(self, data: bytes) -> Head | None:
        begin = max(0, len(self._buffer) - 3)
        whole: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            whole = self._buffer
        end = whole.find(_END, begin)
        if end < 0 or end > MOST_HEAD_BYTES:
            if whole is data:
                self._buffer += data
            self._check_start()
            return None
        head, self.rest = bytes(whole[: end + 4]), bytes(whole[end + 4 :])
        self._buffer.clear()
        return parse_head(head, self._method)

    def _check_start(self) -> None:
        """What is too long, or does not begin like HTTP, needs no waiting for its end."""
        start = bytes(self._buffer[:5])
        if len(self._buffer) > MOST_HEAD_BYTES:
            raise httpx.RemoteProtocolError("the head of the answer is too long")
        line_end = self._buffer.find(b"\n")
        if line_end > 0 and self._buffer[line_end - 1] != 13:
            raise httpx.RemoteProtocolError("the lines of the answer do not end in CR LF")
        if not b"HTTP/".startswith(start):
            raise httpx.RemoteProtocolError("the answer does not begin with HTTP/")


def parse_head(head: bytes, method: str) -> Head:
    """`head` ends with the empty line. `method` of the request: HEAD has no body."""
    if not head.startswith(b"HTTP/"):
        raise httpx.RemoteProtocolError("the answer does not begin with HTTP/")
    sink = _Sink()
    sink.parser = parser = httptools.HttpResponseParser(sink)
    try:
        parser.feed_data(head)
    except _ParserErrors as error:
        raise httpx.RemoteProtocolError(f"the head of the answer cannot be read: {_cause(error)}") from None
    status = parser.get_status_code()
    if status < 100 or status == 101:
        raise httpx.RemoteProtocolError(f"the server answered {status}")
    fields = _fields(sink.headers)
    length, is_chunked = _framing(fields)
    keep_alive = sink.keep_alive
    body: Body = LengthBody(0)
    if method == "HEAD" or status in _NO_BODY or status < 200:
        keep_alive = keep_alive or _asks_to_keep(fields)
    elif method == "CONNECT" and 200 <= status < 300:
        pass  # RFC 9110 9.3.6: what follows is the tunnel
    elif is_chunked:
        body = ChunkedBody(parser, sink)
    else:
        body = EndlessBody() if length is None else LengthBody(length)
    return Head(status, tuple(sink.headers), fields, keep_alive, body)


def _fields(headers: Sequence[_Header]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in headers:
        key = name.decode("latin-1").lower()
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return fields


def _framing(fields: Mapping[str, str]) -> tuple[int | None, bool]:
    """Content-Length and chunked. llhttp has refused both together, doubles, signs and overflows."""
    text, coding = fields.get("content-length"), fields.get("transfer-encoding")
    length = None
    if text is not None:
        length = int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else -1
        if not 0 <= length <= _MOST_BODY_BYTES:
            raise httpx.RemoteProtocolError("the answer has an impossible Content-Length")
    if coding is not None and any(word.strip().lower() != "chunked" for word in coding.split(",")):
        raise httpx.RemoteProtocolError("the answer has a Transfer-Encoding that nobody asked for")
    return length, coding is not None


def _asks_to_keep(fields: Mapping[str, str]) -> bool:
    """llhttp cannot know that an answer to HEAD has no body, and says that it ends with the connection."""
    return "close" not in fields.get("connection", "").lower()


def _cause(error: BaseException) -> str:
    return str(error.__context__ or error)[:200]


@lru_cache(maxsize=256)  # Apache counts down from 100
def keep_alive_limits(text: str) -> tuple[float | None, int | None]:
    """`timeout=5, max=99` of Keep-Alive -> (5.0, 99); None for what is not said (RFC 2068 19.7.1)."""
    found: dict[str, int] = {}
    for word in text.split(","):
        key, _, number = word.strip().partition("=")
        if number.isascii() and number.isdigit() and len(number) <= 9:
            found[key.lower()] = int(number)
    timeout = found.get("timeout")
    return (None if timeout is None else float(timeout)), found.get("max")
