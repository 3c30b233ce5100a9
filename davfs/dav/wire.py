"""Where httpx ends: its exceptions become davfs errors here, and its response bodies plain reads.

Owns request bodies on their way out; the mapping of every httpx failure to Unreachable (nothing was sent),
Disconnected (outcome unknown), TimedOut or ProtocolError; and the life of one answer's body: read it, unzip
it within bounds, leave it early without harm to the connection pool. Texts name the verb and the path,
never a URL with a query, a header or a credential.
"""

from __future__ import annotations

import socket
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, runtime_checkable

import httpx
import trio

from davfs.dav.lanes import Reply
from davfs.dav.pace import Pace
from davfs.errors import (
    DavfsError,
    Disconnected,
    Garbled,
    LinkError,
    ProtocolError,
    StaleVersion,
    TimedOut,
    Unreachable,
)

_DRAIN_BYTES: Final = 64 * 1024  # an error page up to this size is read, so that the connection lives on
_DRAIN_S: Final = 2.0
_CLOSE_S: Final = 2.0
_PIECE_BYTES: Final = 128 * 1024  # one write time-out covers one piece, so a slow link is not a dead one
_INFLATE_BYTES: Final = 64 * 1024


class NoLane(TimedOut):
    """All connections are busy. That says nothing of the link."""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and all that led to it, the members of groups included."""
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        todo += [one.__context__, one.__cause__]
        if isinstance(one, BaseExceptionGroup):
            todo += one.exceptions


def _tls_text(error: BaseException) -> str | None:
    """What went wrong in TLS, if that was it."""
    found = [one for one in _causes(error) if isinstance(one, ssl.SSLError)]
    for one in found:
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"the server's certificate is not trusted: {one.verify_message}"
    reasons = [str(one.reason or "") for one in found if not isinstance(one, ssl.SSLEOFError)]
    for reason in reasons:
        if "CERTIFICATE" in reason or "HANDSHAKE_FAILURE" in reason:
            return f"TLS failed, the server may want a client certificate ({reason})"
    return f"TLS failed ({reasons[0]})" if reasons else None


def _connect_text(error: BaseException) -> str:
    for one in _causes(error):
        if isinstance(one, socket.gaierror):
            return "unknown host"
        if isinstance(one, ConnectionRefusedError):
            return "connection refused"
    for one in _causes(error):
        if isinstance(one, OSError) and one.strerror:
            return one.strerror
    return "no connection"


def link_error(error: httpx.HTTPError, label: str) -> DavfsError:
    """The davfs error for an httpx failure of the request `label`."""
    if isinstance(error, httpx.ConnectTimeout):
        return Unreachable(f"{label}: no connection in time")
    if isinstance(error, httpx.TimeoutException):
        if isinstance(error, httpx.PoolTimeout):
            return NoLane(f"{label}: waited too long for a free connection")
        return TimedOut(f"{label}: waited too long for the server")
    tls = _tls_text(error)
    if isinstance(error, httpx.ConnectError):
        return Unreachable(f"{label}: {tls or _connect_text(error)}")
    if isinstance(error, httpx.NetworkError):
        # TLS 1.3 tells of a missing client certificate only on the first read: nothing was processed
        is_refusal = tls is not None and "certificate" in tls
        return (
            Unreachable(f"{label}: {tls}") if is_refusal else Disconnected(f"{label}: the connection broke")
        )
    return _protocol_error(error, label)


def _protocol_error(error: httpx.HTTPError, label: str) -> DavfsError:
    text = str(error)
    if isinstance(error, httpx.LocalProtocolError):  # a header we may not send, or a body of the wrong length
        return ProtocolError(f"{label}: the request cannot be sent ({type(error).__name__})")
    return Garbled(f"{label}: the answer is not HTTP ({text[:200]})")


class translated:  # noqa: N801 - it is used as a function
    """Turns what httpx raises inside into davfs errors.

    No generator, as with all that stands around each request: `contextlib` takes 1.5 us for one.
    """

    __slots__ = ("_label",)

    def __init__(self, label: str) -> None:
        self._label = label

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if isinstance(error, httpx.HTTPError):
            raise link_error(error, self._label) from error
        if isinstance(error, httpx.StreamError):
            raise Disconnected(f"{self._label}: the body was closed") from error
        if isinstance(error, ssl.SSLError):  # httpcore lets some through unmapped, from a close
            raise Disconnected(f"{self._label}: TLS broke ({error.reason})") from error


class deadline:  # noqa: N801 - as above
    """Raises TimedOut when the block takes longer."""

    __slots__ = ("_label", "_scope", "_seconds")

    def __init__(self, seconds: float, label: str) -> None:
        self._seconds = seconds
        self._label = label
        self._scope = trio.CancelScope(deadline=trio.current_time() + seconds)

    def __enter__(self) -> None:
        self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        is_caught = self._scope.__exit__(kind, error, trace)
        if self._scope.cancelled_caught:
            raise TimedOut(f"{self._label}: no answer within {self._seconds:.0f} s") from None
        return is_caught


class Body(Protocol):
    """The content of a request: a factory, iterable again from the start (a 401 may cost one full send)."""

    @property
    def size_bytes(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@runtime_checkable
class FileLike(Protocol):
    """A Body that is [0, size_bytes) of a file, and wants to know how much of it is out."""

    @property
    def fd(self) -> int | None: ...
    def sent_up_to(self, size_bytes: int) -> None: ...


def checksum_of(body: Body) -> str | None:
    """As OC-Checksum says it: `SHA1:...`; None for a Body that has none. A protocol checked at run time takes
    15 us to find that out."""
    checksum: str | None = getattr(body, "checksum", None)
    return checksum


@dataclass(frozen=True, slots=True)
class Octets:
    """A Body of bytes at hand."""

    data: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data


class _Sending:
    """One pass over a Body: pieces of at most 128 KiB, exactly as many bytes as announced."""

    def __init__(self, body: Body, count: Callable[[int], None], pace: Pace | None) -> None:
        self._pace = pace
        self._most = _PIECE_BYTES if pace is None else min(_PIECE_BYTES, pace.piece_bytes)
        self.source = aiter(body)
        self._chunk = memoryview(b"")
        self._left = body.size_bytes
        self._count = count
        self.ended = False  # nothing of the body is left suspended

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = b""
        while not self._chunk and not piece:
            chunk = await anext(self.source, None)
            if chunk is None:
                self.ended = True
                self._check(self._left == 0)
                raise StopAsyncIteration
            if len(chunk) <= self._most:
                piece = chunk
            else:
                self._chunk = memoryview(chunk)
        if not piece:
            piece, self._chunk = bytes(self._chunk[: self._most]), self._chunk[self._most :]
        self._left -= len(piece)
        self._check(self._left >= 0)
        if self._pace is not None:
            await self._pace.spend(len(piece))
        self._count(len(piece))
        return piece

    def _check(self, is_as_announced: bool) -> None:
        if not is_as_announced:  # the error cuts the connection, which keeps most servers from storing it
            raise StaleVersion("the content changed while it was being sent")


class Outgoing(httpx.AsyncByteStream):
    """A Body as httpx sends it. aclose() ends iterations that an early answer left suspended."""

    def __init__(self, body: Body, count: Callable[[int], None], pace: Pace | None = None) -> None:
        self._body = body
        self._count = count
        self._pace = pace
        self._passes: list[_Sending] = []

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._passes.append(_Sending(self._body, self._count, self._pace))
        return self._passes[-1]

    @property
    def fd(self) -> int | None:
        """The file that holds the body, where it lies in one, and may go as fast as the kernel sends it."""
        return self._body.fd if self._pace is None and isinstance(self._body, FileLike) else None

    def passed(self, begin: int, end: int) -> None:
        """The connection took [begin, end) from the file."""
        self._count(end - begin)
        if isinstance(self._body, FileLike):
            self._body.sent_up_to(end)

    async def aclose(self) -> None:
        left = [one.source for one in self._passes if not one.ended]
        self._passes.clear()
        if left:
            with trio.CancelScope(shield=True):
                for source in left:
                    if isinstance(source, AsyncGenerator):
                        await source.aclose()


class _Inflater:
    """gzip or zlib in any pieces, at most 64 KiB out at a time: a bomb costs no memory."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=47)  # 32 + 15: detects gzip and zlib headers
        self._rest = b""

    def feed(self, data: bytes) -> None:
        self._rest += data

    def more(self) -> bytes:
        if not self._rest or self._stream.eof:
            return b""
        data = self._stream.decompress(self._rest, _INFLATE_BYTES)
        self._rest = self._stream.unconsumed_tail
        return data


def _inflater_for(coding: str) -> _Inflater | None:
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return None
    if coding in ("gzip", "x-gzip", "deflate"):
        return _Inflater()
    raise ProtocolError(f"the answer came in an encoding that was not asked for: {coding[:40]!r}")


class Incoming:
    """One answer: its head, and its body as plain reads. Whoever holds it must finish() or close() it.

    Reads are calls, not an async generator: a consumer that stops early leaves nothing suspended
    behind, which trio would report as a leaked generator.
    """

    def __init__(
        self,
        reply: Reply,
        url: str,
        label: str,
        count: Callable[[int], None],
        pace: Pace | None = None,
        *,
        is_ours: bool,
    ) -> None:
        self._pace = pace
        self._early = b""  # came faster than it may be used
        self._stream = reply.stream
        self._pieces = aiter(reply.stream)
        self._label = label
        self._count = count
        self._ended = False
        self._inflater: _Inflater | None = None
        self._is_decoding = False
        self.status = reply.status
        self.headers = reply.headers  # to be asked for in lower case
        self.url = url
        self.is_ours = is_ours  # the address is one that we made, not one that a redirect told

    async def receive(self) -> bytes | None:
        """The next bytes as sent, None at the end. Raises Disconnected, TimedOut, ProtocolError."""
        if self._pace is None:
            return await self._received()
        piece = self._early or await self._received()
        if not piece:
            return piece
        most = self._pace.piece_bytes
        piece, self._early = piece[:most], piece[most:]
        await self._pace.spend(len(piece))
        return piece

    async def _received(self) -> bytes | None:
        if self._ended:
            return None
        rest = self._at_hand()
        if rest is not None:
            self._ended = True
            self._count(len(rest))
            return rest or None
        try:
            with translated(self._label):
                piece = await anext(self._pieces, None)
        except BaseException:
            self._ended = True
            raise
        if piece is None:
            self._ended = True
        else:
            self._count(len(piece))
        return piece

    async def receive_some(self) -> bytes | None:
        """The same, but never nothing."""
        piece = await self.receive()
        while piece == b"":
            piece = await self.receive()
        return piece

    def take_whole(self) -> bytes | None:
        """The body, if all of it is here already and not encoded. Else None, and it is to be received."""
        is_plain = self.headers.get("content-encoding", "identity") == "identity"
        body = self._at_hand() if is_plain else None
        if body:
            self._count(len(body))
        return body

    async def receive_small(self, most_bytes: int) -> bytes:
        """A body that is read whole, with gzip undone; what is past `most_bytes` is not looked at."""
        body = bytearray()
        while len(body) < most_bytes and (piece := await self.receive_decoded()) is not None:
            body += piece
        return bytes(body)

    async def receive_decoded(self) -> bytes | None:
        """The next bytes with gzip undone, None at the end."""
        if not self._is_decoding:
            self._inflater = _inflater_for(self.headers.get("content-encoding", ""))
            self._is_decoding = True
        if self._inflater is None:
            return await self.receive()
        while not (piece := self._inflate(self._inflater)):
            raw = await self.receive()
            if raw is None:
                return None
            self._inflater.feed(raw)
        return piece

    def _inflate(self, inflater: _Inflater) -> bytes:
        try:
            return inflater.more()
        except zlib.error as error:
            raise ProtocolError(f"{self._label}: the answer is not valid gzip") from error

    async def finish(self) -> None:
        """Done with it: reads a short rest, so that the connection can be used again, and closes."""
        rest = self._at_hand()
        if rest is not None:  # as of most answers to a change: two scopes less
            self._ended = True
            if rest:
                self._count(len(rest))
            return
        length = self.headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) <= _DRAIN_BYTES:
            with trio.move_on_after(_DRAIN_S):
                await self._drain()
        await self.close()

    def _at_hand(self) -> bytes | None:
        """What is left of the body, where all of it has come and its connection is free already."""
        take = getattr(self._stream, "take_rest", None)  # lanes have it; a script need not
        rest: bytes | None = take() if take is not None else None
        return rest

    async def _drain(self) -> None:
        left = _DRAIN_BYTES
        try:
            while left > 0 and (piece := await self.receive()) is not None:
                left -= len(piece)
        except (LinkError, ProtocolError):
            pass  # the answer itself was whole; only its connection is not worth keeping

    async def close(self) -> None:
        """Hangs up if the body was not read to its end. Safe under cancellation, and twice."""
        self._ended = True
        if self._at_hand() is not None:  # as after most bodies: there is nothing to hang up
            return
        with trio.move_on_after(_CLOSE_S, shield=True), suppress(DavfsError), translated(self._label):
            await self._stream.aclose()
            if isinstance(self._pieces, AsyncGenerator):  # a transport's own; trio reports it if left
                await self._pieces.aclose()


def reply_of(response: httpx.Response, method: str) -> Reply:
    """An answer of another transport than the lanes. Its body as that gives it: httpx's own iterators are
    generators around generators, which trio reports as leaked when a consumer leaves early."""
    if not isinstance(response.stream, httpx.AsyncByteStream):
        raise TypeError("not an answer of an asynchronous transport")
    return Reply(
        response.status_code,
        response.headers,
        response.stream,
        sent=response.extensions.get("davfs_sent", (method,)),
    )
