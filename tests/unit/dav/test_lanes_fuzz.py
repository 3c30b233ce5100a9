"""The response side against hostile bytes: one kind of error, an end to every read, nothing left open.

Real lanes on socket pairs: the other end sends what is given, in the pieces that are given, and hangs up.
Whatever comes, the request ends with an answer, with RemoteProtocolError (not HTTP) or with ReadError (cut
off); a body that ends well has exactly the announced bytes.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from davfs.dav.auth import build_auth
from davfs.dav.lanes.answers import MOST_HEAD_BYTES
from davfs.dav.lanes.connect import Connection
from davfs.dav.lanes.lane import Lane

_LENGTH = b'HTTP/1.1 207 Multi-Status\r\nContent-Length: 11\r\nETag: "a"\r\n\r\nhello world'
_CHUNKED = (
    b"HTTP/1.1 207 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nT: x\r\n\r\n"
)
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 X\r\n\r\n" + _LENGTH
_GOOD = (_LENGTH, _CHUNKED, _INTERIM)


@dataclass(frozen=True)
class Outcome:
    """What a caller gets: content, or the kind of the failure."""

    content: bytes | None
    failure: type[Exception] | None = None
    is_spoilt: bool = True


async def _read(pieces: list[bytes], method: str = "PROPFIND", *, hangs_up: bool = True) -> Outcome:
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(one)) for one in socket.socketpair())
    lane = Lane(Connection(ours, ours, None), build_auth("none", "http://h/", None).session())

    async def send() -> None:
        for piece in pieces:
            try:
                await theirs.send_all(piece)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
        if hangs_up:
            theirs.socket.close()

    outcome = Outcome(None)
    try:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                outcome = await _answer(lane, method)
                nursery.cancel_scope.cancel()
    finally:
        lane.close()
        theirs.socket.close()
    return outcome


async def _answer(lane: Lane, method: str) -> Outcome:
    content = bytearray()
    try:
        head = await lane.read_head(method, 10.0)
        while piece := await lane.read_body(head.body, 10.0):
            content += piece
    except (httpx.RemoteProtocolError, httpx.ReadError) as error:
        return Outcome(None, type(error))
    return Outcome(bytes(content), None, lane.is_spoilt)


def _outcome(pieces: list[bytes], method: str = "PROPFIND") -> Outcome:
    return trio.run(_read, pieces, method)


@pytest.mark.parametrize("answer", _GOOD, ids=["length", "chunked", "interim"])
async def test_split_at_every_byte(answer: bytes) -> None:
    """In two pieces at each place, and in single bytes: the same answer."""
    for at in range(1, len(answer)):
        assert (await _read([answer[:at], answer[at:]])).content == b"hello world"
    assert (await _read([answer[at : at + 1] for at in range(len(answer))])).content == b"hello world"


@pytest.mark.parametrize("answer", _GOOD, ids=["length", "chunked", "interim"])
async def test_cut_at_every_byte(answer: bytes) -> None:
    """An answer without its end is never taken for whole."""
    for at in range(len(answer)):
        assert (await _read([answer[:at]])).failure is httpx.ReadError


_BAD = {
    "nothing like it": b"SSH-2.0-OpenSSH_9.2\r\n",
    "html": b"<!DOCTYPE html><html></html>",
    "bare line feeds": b"HTTP/1.1 207 X\nContent-Length: 0\n\n",
    "no status": b"HTTP/1.1 \r\n\r\n",
    "status of two digits": b"HTTP/1.1 99 X\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "negative length": b"HTTP/1.1 207 X\r\nContent-Length: -1\r\n\r\n",
    "length in words": b"HTTP/1.1 207 X\r\nContent-Length: many\r\n\r\n",
    "length with a sign": b"HTTP/1.1 207 X\r\nContent-Length: +5\r\n\r\n",
    "absurd length": b"HTTP/1.1 207 X\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
    "length beyond any disk": b"HTTP/1.1 207 X\r\nContent-Length: 9223372036854775807\r\n\r\n",
    "two lengths": b"HTTP/1.1 207 X\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "length and chunks": b"HTTP/1.1 207 X\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "unknown coding": b"HTTP/1.1 207 X\r\nTransfer-Encoding: gzip\r\n\r\n",
    "bad chunk": b"HTTP/1.1 207 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "chunk too long": b"HTTP/1.1 207 X\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "chunk without its end": b"HTTP/1.1 207 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n",
    "folded header": b"HTTP/1.1 207 X\r\nA: b\r\n c\r\n\r\n",
    "header without a colon": b"HTTP/1.1 207 X\r\nbroken\r\n\r\n",
    "NUL in a header": b"HTTP/1.1 207 X\r\nA: b\0c\r\n\r\n",
    "many headers": b"HTTP/1.1 207 X\r\n" + b"A: b\r\n" * 300 + b"\r\n",
    "one long header": b"HTTP/1.1 207 X\r\nA: " + b"b" * (MOST_HEAD_BYTES + 10),
    "endless interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
    "endless trailers": b"HTTP/1.1 207 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 300,
    "endless chunk extension": b"HTTP/1.1 207 X\r\nTransfer-Encoding: chunked\r\n\r\n5;" + b"x" * 1_000_000,
}


@pytest.mark.parametrize("name", _BAD)
async def test_what_is_not_http(name: str) -> None:
    """One error, without waiting for an end that may never come."""
    begin = trio.current_time()
    assert (await _read([_BAD[name]], hangs_up=False)).failure is httpx.RemoteProtocolError
    assert trio.current_time() - begin < 9


@pytest.mark.parametrize(
    ("method", "answer", "content", "spoilt"),
    [
        ("HEAD", b"HTTP/1.1 200 X\r\nContent-Length: 99\r\n\r\n", b"", False),
        ("HEAD", b"HTTP/1.1 200 X\r\n\r\n", b"", False),
        ("PUT", b"HTTP/1.1 204 X\r\nContent-Length: 99\r\n\r\n", b"", False),
        ("GET", b"HTTP/1.1 304 X\r\n\r\n", b"", False),
        ("GET", b"HTTP/1.1 200 X\r\n\r\nto the end", b"to the end", True),
        ("GET", b"HTTP/1.0 200 X\r\n\r\nto the end", b"to the end", True),
        ("GET", b"HTTP/1.1 401 \r\nContent-Length: 0\r\n\r\n", b"", False),
        ("GET", b"HTTP/1.1 200 X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", b"ok", True),
        ("GET", b"HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\nok, and more than that", b"ok", True),
    ],
)
async def test_where_a_body_ends(method: str, answer: bytes, content: bytes, spoilt: bool) -> None:
    """RFC 9112 6.3; a lane with bytes that belong to no answer is not used again."""
    assert await _read([answer], method) == Outcome(content, None, spoilt)


@given(
    st.sampled_from(_GOOD),
    st.lists(
        st.tuples(st.integers(0, 120), st.integers(0, 3), st.binary(max_size=4)), min_size=1, max_size=4
    ),
    st.integers(1, 40),
)
def test_mutated_answers(answer: bytes, edits: list[tuple[int, int, bytes]], piece_bytes: int) -> None:
    """Bytes taken out, put in and replaced, in pieces of any size: an answer or one of the two errors."""
    for at, removed, put_in in edits:
        answer = answer[:at] + put_in + answer[at + removed :]
    pieces = [answer[at : at + piece_bytes] for at in range(0, len(answer), piece_bytes)]
    outcome = _outcome(pieces)
    assert outcome.content is not None or outcome.failure in (httpx.RemoteProtocolError, httpx.ReadError)


@given(st.binary(max_size=300), st.sampled_from(["GET", "HEAD", "PROPFIND"]))
def test_any_bytes(data: bytes, method: str) -> None:
    """Noise is refused, with and without a status line before it."""
    assert _outcome([data], method).failure is not None
    outcome = _outcome([b"HTTP/1.1 207 X\r\n", data], method)
    assert outcome.content is not None or outcome.failure is not None
