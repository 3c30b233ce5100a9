"""One connection: bytes of a request out, heads and bodies of answers in, each step with its time-out.

Owns the socket and what is known of its future: whether it may carry another request, how long it may be
idle, how many requests the server still grants. It decides nothing about authentication; it holds the
`Session` that does.

Failures are httpx's (ReadError, WriteError, their time-outs, RemoteProtocolError); after any of them the
lane is spoilt. close() is synchronous, so that no cancellation can leave a socket open.
"""

from __future__ import annotations

import math
import os
import select
import socket
import ssl
import struct
from contextlib import suppress
from typing import Final

import httpx
import trio

from davfs.dav.auth import Session
from davfs.dav.lanes.answers import Body, Head, HeadReader, LengthBody, keep_alive_limits
from davfs.dav.lanes.connect import Connection

READ_BYTES: Final = 1024 * 1024  # twice the throughput of 64 KiB (design.md 2)
# A long body that comes in drops (200 Mbit/s: some kB at a time) is read in gulps: each piece costs 100 us on
# its way to the cache, whatever its length. The kernel is told to wake us for so many bytes; when they take
# longer than this, what came until then is a gulp too.
GULP_BYTES: Final = 256 * 1024
GATHER_S: Final = 0.032
_DROP_BYTES: Final = 64 * 1024
_LONG_BYTES: Final = 256 * 1024
_HEAD_READ_BYTES: Final = 64 * 1024
_MOST_INTERIM: Final = 16
_LONGEST_PROMISE: Final = 80  # characters of Keep-Alive that are looked at
_IDLE_S: Final = 4.0  # Apache closes idle connections after 5 s (servers.md 36): be earlier
_LONGEST_IDLE_S: Final = 55.0
_HURRY_S: Final = 1.0  # before the announced end, for the time that a request is on its way
_TICKET_S: Final = 0.002
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: close(2) sends RST


class Lane:
    """Use by one request at a time."""

    def __init__(self, connection: Connection, session: Session) -> None:
        self._stream = connection.stream
        self._tcp = connection.tcp
        self._is_tls = connection.stream is not connection.tcp
        self._poll = select.poll()
        self._poll.register(connection.tcp.socket.fileno(), select.POLLIN)
        self.proxy = connection.proxy
        self.session = session
        self.answers = 0
        self.is_spoilt = False
        self.requests_left: int | None = None
        self._idle_limit_s = _IDLE_S
        self._idle_since_s = 0.0
        self._rest = b""  # read, and not yet parsed
        self._drips = False  # a long body comes in drops
        self._least = 1  # the kernel wakes us for so many bytes
        self._is_waiting = False  # a request is out, and its answer is not here

    # --- life ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """A request that is given up ends with a reset: what waits in this kernel is not sent any more.

        Else a body that was held up on the line would arrive, and be stored, when the line is well again:
        over a newer one, on servers that look at conditions when the head comes (Apache) or never (nginx).
        """
        self.is_spoilt = True
        if self._is_waiting:
            with suppress(OSError):  # not connected any more
                self._tcp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._tcp.socket.close()

    def park(self) -> None:
        self._wake_for(1)  # a single byte tells that it cannot be used again
        self._idle_since_s = trio.current_time()

    @property
    def is_reused(self) -> bool:
        return self.answers > 0

    def is_ready(self, *, requests: int = 1) -> bool:
        """May a parked lane carry `requests` more? A readable idle connection has been closed."""
        return self._may_go_on(requests) and not self._poll.poll(0)

    async def is_usable(self, *, requests: int = 1) -> bool:
        """The same, and where there is something to read over TLS, it is looked at."""
        if not self._may_go_on(requests):
            return False
        return not self._poll.poll(0) or (self._is_tls and await self._was_only_a_ticket())

    def _may_go_on(self, requests: int) -> bool:
        is_over = trio.current_time() - self._idle_since_s > self._idle_limit_s
        if self.is_spoilt or is_over or not self.session.is_current:
            return False
        return self.requests_left is None or self.requests_left >= requests

    async def _was_only_a_ticket(self) -> bool:
        """TLS 1.3 sends session tickets when it likes; they carry no data."""
        try:
            with trio.move_on_after(_TICKET_S):
                await self._stream.receive_some(1)
                return False
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
            return False
        return True

    def note_answer(self, head: Head) -> None:
        """Learns from a head how long this lane will live."""
        self.answers += 1
        self._is_waiting = self._drips = False
        if not head.keep_alive:
            self.is_spoilt = True
        timeout_s, left = keep_alive_limits(head.fields.get("keep-alive", "")[:_LONGEST_PROMISE])
        if timeout_s is not None:
            self._idle_limit_s = min(max(timeout_s - _HURRY_S, timeout_s / 2), _LONGEST_IDLE_S)
        self.requests_left = left if left is not None else self._one_less()

    def _one_less(self) -> int | None:
        return None if self.requests_left is None else self.requests_left - 1

    # --- out ----------------------------------------------------------------------------------------

    async def send(self, data: bytes, timeout_s: float) -> None:
        """Raises httpx.WriteError, WriteTimeout."""
        self._is_waiting = True
        try:
            with trio.fail_after(timeout_s):
                await self._stream.send_all(data)
        except trio.TooSlowError:
            self.is_spoilt = True
            raise httpx.WriteTimeout(f"the server took nothing for {timeout_s:g} s") from None
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.is_spoilt = True
            raise httpx.WriteError("the connection broke while sending") from error
        except BaseException:
            self.is_spoilt = True
            raise

    async def send_first(self, data: bytes, timeout_s: float) -> None:
        """What begins a request, and is followed by a wait: as `send`, and what the kernel takes at once
        goes without a round through the event loop (20 us)."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._is_waiting = True
        taken = 0 if self._is_tls else self._taken_at_once(data)
        if taken < len(data):
            await self.send(data[taken:], timeout_s)

    def _taken_at_once(self, data: bytes) -> int:
        try:
            return os.write(self._tcp.socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self.is_spoilt = True
            raise httpx.WriteError("the connection broke while sending") from error

    @property
    def takes_files(self) -> bool:
        """In the clear the kernel sends a file by itself: 256 MiB cost 0.06 s of CPU, read and sent 0.35."""
        return not self._is_tls

    async def send_file(self, fd: int, offset: int, size: int, timeout_s: float) -> int:
        """What the connection takes now of [offset, offset + size) of a file, in bytes; 0 at its end.

        Raises httpx.WriteError, WriteTimeout.
        """
        sock = self._tcp.socket
        try:
            with trio.fail_after(timeout_s):
                await trio.lowlevel.checkpoint()
                while True:
                    try:
                        return os.sendfile(sock.fileno(), fd, offset, size)
                    except BlockingIOError:
                        await trio.lowlevel.wait_writable(sock)
        except trio.TooSlowError:
            self.is_spoilt = True
            raise httpx.WriteTimeout(f"the server took nothing for {timeout_s:g} s") from None
        except (OSError, trio.ClosedResourceError) as error:
            self.is_spoilt = True
            raise httpx.WriteError("the connection broke while sending") from error
        except BaseException:
            self.is_spoilt = True
            raise

    # --- in -----------------------------------------------------------------------------------------

    async def read_head(self, method: str, timeout_s: float, *, wants_continue: bool = False) -> Head:
        """The next final head; with `wants_continue` a 100 as well. Raises ReadError, ReadTimeout,
        RemoteProtocolError."""
        reader = HeadReader(method)
        data, self._rest = self._rest, b""
        try:
            for _ in range(_MOST_INTERIM):
                head = reader.feed(data) if data else None
                while head is None:
                    data = await self._receive(_HEAD_READ_BYTES, timeout_s)
                    if not data:
                        words = "within the head of an answer" if reader.collected else "without an answer"
                        raise httpx.ReadError(f"the server closed the connection {words}")
                    head = reader.feed(data)
                if head.status >= 200:
                    self.note_answer(head)
                if head.status >= 200 or (wants_continue and head.status == 100):
                    return head
                data = reader.rest
        finally:  # after a cancellation too: the wait for 100 may end within a head
            self._rest = reader.rest or reader.collected
        raise httpx.RemoteProtocolError("the server sends interim answers without an end")

    async def read_body(self, body: Body, timeout_s: float) -> bytes:
        """The next content; b'' only at the end. Raises ReadError, ReadTimeout, RemoteProtocolError."""
        while not body.done:
            data, self._rest = self._rest, b""
            if not data:
                wanted = max(body.wanted_bytes, 1)
                gulp = min(GULP_BYTES, wanted) if self._drips else 1
                data = await self._receive(min(READ_BYTES, wanted), timeout_s, gulp)
                is_long = isinstance(body, LengthBody) and wanted > _LONG_BYTES and not self._is_tls
                self._drips = self._drips or (is_long and len(data) < _DROP_BYTES)
            try:
                content = body.take(data) if data else self._ended(body)
            except httpx.TransportError:
                self.is_spoilt = True
                raise
            self.is_spoilt = self.is_spoilt or body.has_extra
            if content:
                return content
        return b""

    def body_at_hand(self, body: Body) -> bytes | None:
        """The whole content, when it came with the head. None when more has to be read."""
        if body.done:
            self.is_spoilt = self.is_spoilt or bool(self._rest)
            return b""
        if not self._rest:
            return None
        if body.wanted_bytes > len(self._rest) and not self._rest.endswith(b"0\r\n\r\n"):
            return None
        data, self._rest = self._rest, b""
        content = body.take(data)
        self.is_spoilt = self.is_spoilt or body.has_extra
        return content

    def _ended(self, body: Body) -> bytes:
        self.is_spoilt = True
        body.end()
        return b""

    async def _receive(self, size: int, timeout_s: float, gulp: int = 1) -> bytes:
        try:
            if gulp > 1 and (data := await self._gulp(size, gulp)) is not None:
                return data
            if _ends_within(timeout_s):
                return await self._received(size)
            with trio.move_on_after(timeout_s):
                return await self._received(size)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.is_spoilt = True
            raise httpx.ReadError("the connection broke while receiving") from error
        except BaseException:
            self.is_spoilt = True
            raise
        self.is_spoilt = True
        raise httpx.ReadTimeout(f"the server sent nothing for {timeout_s:g} s")

    async def _gulp(self, size: int, least: int) -> bytes | None:
        """`least` bytes or more, or what came in a while; None: nothing."""
        fd = self._fd()
        self._wake_for(least)
        with trio.move_on_after(GATHER_S):
            await trio.lowlevel.wait_readable(fd)
        with suppress(BlockingIOError):
            return os.read(fd, size)
        return None

    def _wake_for(self, least: int) -> None:
        """The connection is readable when so many bytes have come, or it ended (socket(7), SO_RCVLOWAT)."""
        if self._least != least:
            self._tcp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
            self._least = least

    def _fd(self) -> int:
        fd = self._tcp.socket.fileno()
        if fd < 0:
            raise trio.ClosedResourceError
        return fd

    async def _received(self, size: int) -> bytes:
        if self._is_tls:
            return bytes(await self._stream.receive_some(size))
        fd = self._fd()
        self._wake_for(1)
        while True:  # not `receive_some`: it asks once before it waits, which fails for every answer
            await trio.lowlevel.wait_readable(fd)
            with suppress(BlockingIOError):
                return os.read(fd, size)


def _ends_within(timeout_s: float) -> bool:
    """Whether a scope around this ends it sooner: then one more would cost 8 us, and never be the first."""
    return timeout_s == math.inf or trio.current_effective_deadline() <= trio.current_time() + timeout_s
