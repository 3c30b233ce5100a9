"""One request on one lane: out it goes, and the head of its answer comes back.

Small bodies go out with the head in one write. From 64 KiB on, the body waits for 100-continue where the
server is known to say it or may; then it is sent while the answer is awaited, because an answer that comes
meanwhile and is a refusal ends the sending at once: rclone and Tomcat close after 2 to 5 MiB, and the answer
is only readable by who looks for it before the reset (servers.md 25).

A body that was not sent to its end spoils the lane: the server would read the next request as its rest.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Coroutine
from typing import Final, Protocol, runtime_checkable

import httpx
import trio

from davfs.dav.lanes.answers import Head
from davfs.dav.lanes.errand import AtHand, Errand
from davfs.dav.lanes.habits import Expect, Habits
from davfs.dav.lanes.lane import Lane

_JOINED_BYTES: Final = 64 * 1024
_FILE_PIECE_BYTES: Final = 1024 * 1024  # in one call: other tasks wait for it, about 0.2 ms
_AFTER_BREAK_S: Final = 5.0  # how long the answer may take when the server has stopped reading
_EXPECT_LINE: Final = "Expect: 100-continue\r\n"


@runtime_checkable
class FromFile(Protocol):
    """A body that lies in a file as it is: [0, size) of `fd`. `passed` is told what the connection took."""

    @property
    def fd(self) -> int | None: ...
    def passed(self, begin: int, end: int) -> None: ...


class Unsent(Exception):
    """Nothing was processed, and the lane is at its end: repeat it on another."""


def deliver(lane: Lane, errand: Errand, extra: str, habits: Habits) -> Coroutine[None, None, Head]:
    """The head of the final answer. Raises httpx's errors, and Unsent where a repetition is safe."""
    if errand.size_bytes <= _JOINED_BYTES:
        return _deliver_small(lane, errand, extra)
    return _deliver_large(lane, errand, extra, habits)


async def _deliver_large(lane: Lane, errand: Errand, extra: str, habits: Habits) -> Head:
    if habits.asks_expect(errand.size_bytes, trio.current_time()):
        head = await _ask_first(lane, errand, extra, habits)
        if head is not None:
            return head
    else:
        await _send_first(lane, errand, _head(lane, errand, extra))
    return await _Upload(lane, errand).run(habits)


def _head(lane: Lane, errand: Errand, extra: str) -> bytes:
    proxy = lane.proxy
    if proxy is not None and proxy.authorization:
        extra += f"Proxy-Authorization: {proxy.authorization}\r\n"
    return errand.head(extra, through_proxy=proxy is not None)


async def _send_first(lane: Lane, errand: Errand, data: bytes) -> None:
    """The first write on a lane. A connection that is broken by then has carried nothing."""
    try:
        await lane.send_first(data, errand.timeouts.write)
    except httpx.WriteError:
        if lane.is_reused:
            raise Unsent from None
        raise


async def _deliver_small(lane: Lane, errand: Errand, extra: str) -> Head:
    data = _head(lane, errand, extra)
    if errand.size_bytes:
        stream = errand.stream
        assert stream is not None  # noqa: S101
        body = stream.data if isinstance(stream, AtHand) else b"".join([piece async for piece in stream])
        if len(body) != errand.size_bytes:
            raise httpx.LocalProtocolError("the body is not as long as announced")
        data += body
    await _send_first(lane, errand, data)
    try:
        return await lane.read_head(errand.method, errand.timeouts.read)
    except httpx.ReadError:
        if errand.is_safe and lane.is_reused:  # the server closed it while the request was on its way
            raise Unsent from None
        raise


async def _ask_first(lane: Lane, errand: Errand, extra: str, habits: Habits) -> Head | None:
    """Head with Expect. None: the body may go now. Else the final answer, and no byte of the body went."""
    now_s = trio.current_time()
    data = _head(lane, errand, extra + _EXPECT_LINE)
    await _send_first(lane, errand, data)
    head: Head | None = None
    with trio.move_on_after(habits.expect_wait_s) as wait:
        try:
            head = await lane.read_head(errand.method, errand.timeouts.read, wants_continue=True)
        except httpx.ReadError:
            if lane.is_reused:
                raise Unsent from None
            raise
    if wait.cancelled_caught or head is None:
        lane.is_spoilt = False  # the wait ended, not the lane
        habits.note_expect(Expect.IGNORED, now_s)
        return None
    if head.status == 100:
        habits.note_expect(Expect.HONOURED, now_s)
        return None
    lane.is_spoilt = True
    if head.status == 417:
        habits.note_expect(Expect.REFUSED, now_s)
        raise Unsent
    if head.status < 300:
        raise httpx.RemoteProtocolError(f"the server answered {head.status} before the body was sent")
    habits.note_expect(Expect.HONOURED, now_s)
    habits.note_refusal(head.status, is_late=False)
    return head


class _Upload:
    """A body on its way, and the answer awaited at the same time."""

    def __init__(self, lane: Lane, errand: Errand) -> None:
        self._lane = lane
        self._errand = errand
        self._sent_bytes = 0
        self._failure: Exception | None = None
        self._patience = trio.CancelScope()  # of the reader: endless until the body is out
        self._sending = trio.CancelScope()

    @property
    def _is_whole(self) -> bool:
        return self._sent_bytes == self._errand.size_bytes

    async def run(self, habits: Habits) -> Head:
        head: Head | None = None
        error: httpx.TransportError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            try:
                with self._patience:
                    head = await self._lane.read_head(self._errand.method, math.inf)
            except httpx.TransportError as found:
                error = found
            if head is None or head.status >= 300:
                self._sending.cancel()
        self._lane.is_spoilt = self._lane.is_spoilt or not self._is_whole
        if head is None:
            raise self._reason(error)
        if head.status < 300 and not self._is_whole:
            raise httpx.RemoteProtocolError(f"the server answered {head.status} to a part of the body")
        if head.status >= 400:
            habits.note_refusal(head.status, is_late=True)
        return head

    def _reason(self, error: httpx.TransportError | None) -> Exception:
        if self._failure is not None:
            return self._failure
        return error or httpx.ReadTimeout("no answer after the body was sent")

    async def _send(self) -> None:
        """Ends by itself; what went wrong stands in `_failure`, and the reader is given a little time."""
        patience_s = self._errand.timeouts.read
        try:
            with self._sending:
                await self._send_pieces()
        except httpx.WriteError as error:  # the answer may still be readable
            self._failure, patience_s = error, min(patience_s, _AFTER_BREAK_S)
        except Exception as error:  # noqa: BLE001 - the body's own error, raised by run()
            self._failure, patience_s = error, 0.0
        self._patience.deadline = trio.current_time() + patience_s

    async def _send_pieces(self) -> None:
        errand = self._errand
        assert errand.stream is not None  # noqa: S101
        if isinstance(errand.stream, FromFile) and errand.stream.fd is not None and self._lane.takes_files:
            await self._send_file(errand.stream, errand.stream.fd)
            return
        pieces: AsyncIterator[bytes] = aiter(errand.stream)
        async for piece in pieces:
            if self._sent_bytes + len(piece) > errand.size_bytes:
                raise httpx.LocalProtocolError("the body is longer than announced")
            await self._lane.send(piece, errand.timeouts.write)
            self._sent_bytes += len(piece)
        if not self._is_whole:
            raise httpx.LocalProtocolError("the body is shorter than announced")

    async def _send_file(self, source: FromFile, fd: int) -> None:
        errand = self._errand
        while not self._is_whole:
            left = min(_FILE_PIECE_BYTES, errand.size_bytes - self._sent_bytes)
            taken = await self._lane.send_file(fd, self._sent_bytes, left, errand.timeouts.write)
            if not taken:
                raise httpx.LocalProtocolError("the body is shorter than announced")
            source.passed(self._sent_bytes, self._sent_bytes + taken)
            self._sent_bytes += taken
