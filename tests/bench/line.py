"""The slow line: a relay with a round trip, a bandwidth per direction, and counts; a process of its own.

    python -m tests.bench.line --to 127.0.0.1:8080 --rtt-ms 20 --rate-mbit 200

It prints its port, then answers each line "counts" on its input with one line of JSON, and ends with it.

The model: half of the round trip lies on each direction; bytes in flight do not hold each other up (a delay
line), so that the round trip alone does not limit throughput, as with large TCP windows; what a new
connection sends waits one round trip longer, for its handshake. All connections share the bandwidth of a
direction, in turns of 16 KiB, behind a queue of 5 ms: a listing beside a transfer waits no longer than on a
well-kept router. There is no slow start and no loss.

Requests are counted by an HTTP parser on the way up; it skips bodies without looking, and what comes down
is not read along. One epoll loop, 256 KiB per system call: 2 GB/s without a limit, one byte copied twice.
(The relay of the tests, tests/servers/relay.py, knows faults and bodies; it moves a fourth of that.)
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import heapq
import itertools
import json
import os
import select
import socket
import sys
import time
from collections import Counter, deque
from typing import Final

import httptools

_PIECE_BYTES: Final = 256 * 1024  # fits the second-level cache: received and sent again before it is evicted
_TURN_BYTES: Final = 16 * 1024  # at a limited rate: 0.65 ms of 200 Mbit/s
_QUEUE_S: Final = 0.005
_IN_FLIGHT_BYTES: Final = 64 << 20  # 1.2 GB/s at a round trip of 100 ms
_UNTAKEN_BYTES: Final = 512 * 1024  # what the receiver does not take: then the sender waits, as over TCP
_PR_SET_TIMERSLACK: Final = 29


class _Requests:
    """Counts the requests of one connection. Bodies are skipped by their length."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self._counts[self._parser.get_method().decode("ascii")] += 1

    def feed(self, data: memoryview) -> None:
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._parser = None  # not HTTP: bytes are still counted


class _Direction:
    """One direction over all connections: its clock, and who has something to send."""

    def __init__(self, delay_s: float, rate_mbit: float | None) -> None:
        self.delay_s = delay_s
        self.s_per_byte = 0.0 if rate_mbit is None else 8 / (rate_mbit * 1e6)
        self.turn_bytes = _PIECE_BYTES if rate_mbit is None else _TURN_BYTES
        self.bytes = 0
        self.free_at_s = 0.0
        self.ready: deque[_Way] = deque()

    def busy_for_s(self, now_s: float) -> float:
        """How long until another piece may be queued."""
        return max(0.0, self.free_at_s - _QUEUE_S - now_s) if self.s_per_byte else 0.0

    def due_s(self, size: int, now_s: float) -> float:
        self.bytes += size
        self.free_at_s = max(self.free_at_s, now_s) + size * self.s_per_byte
        return self.free_at_s + self.delay_s


class _Way:
    """One direction of one connection."""

    def __init__(
        self, line: _Direction, source: socket.socket, target: socket.socket, opened_s: float
    ) -> None:
        self.line = line
        self.source = source
        self.target = target
        self.opened_s = opened_s  # nothing is on its way before the handshake is over
        self.requests: _Requests | None = None
        self.is_ready = False
        self.ended = False  # the source said so
        self.closed = False  # the target was told
        self.travelling = 0
        self.untaken: deque[tuple[bytearray, memoryview]] = deque()
        self.untaken_bytes = 0
        self.back: _Way = self

    @property
    def is_full(self) -> bool:
        return self.untaken_bytes > _UNTAKEN_BYTES or self.travelling > _IN_FLIGHT_BYTES


class Line:
    """All connections to `to`. `run` returns when the input ends."""

    def __init__(self, to: tuple[str, int], *, rtt_s: float, rate_mbit: float | None) -> None:
        self._to = to
        self._rtt_s = rtt_s
        self._up = _Direction(rtt_s / 2, rate_mbit)
        self._down = _Direction(rtt_s / 2, rate_mbit)
        self._requests: Counter[str] = Counter()
        self._connections = 0
        self._poll = select.epoll()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.settimeout(0)
        self._poll.register(self._listener, select.EPOLLIN)
        self._by_source: dict[int, _Way] = {}
        self._travelling: list[
            tuple[float, int, _Way, bytearray, int]
        ] = []  # a heap, by the moment of arrival
        self._order = itertools.count()
        self._buffers: list[bytearray] = []

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def counts(self) -> dict[str, object]:
        return {
            "requests": dict(self._requests),
            "connections": self._connections,
            "up": self._up.bytes,
            "down": self._down.bytes,
        }

    # --- the loop ---------------------------------------------------------------------------

    def run(self, commands: int) -> None:
        """`commands` is the descriptor that lines are read from; answers go to the standard output."""
        os.set_blocking(commands, False)
        self._poll.register(commands, select.EPOLLIN)
        while True:
            for number, event in self._wait():
                if number == self._listener.fileno():
                    self._accept()
                elif number == commands:
                    if not self._command(commands):
                        return
                else:
                    self._woken(number, event)
            self._deliver()
            self._take(self._up)
            self._take(self._down)

    def _wait(self) -> list[tuple[int, int]]:
        timeout_s = self._idle_s(time.monotonic())
        if timeout_s is None or timeout_s > 0:
            # epoll counts whole milliseconds, and half of the shortest round trip is 0.5 ms.
            select.select([self._poll], [], [], timeout_s)
        return self._poll.poll(0)

    def _idle_s(self, now_s: float) -> float | None:
        moments = [one.busy_for_s(now_s) for one in (self._up, self._down) if one.ready]
        if self._travelling:
            moments.append(max(0.0, self._travelling[0][0] - now_s))
        return min(moments) if moments else None

    def _command(self, commands: int) -> bool:
        said = os.read(commands, 4096)
        for word in said.decode().split():
            if word == "counts":
                sys.stdout.write(json.dumps(self.counts()) + "\n")
                sys.stdout.flush()
        return bool(said)

    # --- connections --------------------------------------------------------------------------

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                client, _ = self._listener.accept()
                self._connections += 1
                try:
                    server = socket.create_connection(self._to, timeout=5)
                except OSError:
                    client.close()
                    continue
                self._join(client, server)

    def _join(self, client: socket.socket, server: socket.socket) -> None:
        opened_s = time.monotonic() + self._rtt_s
        up, down = _Way(self._up, client, server, opened_s), _Way(self._down, server, client, opened_s)
        up.back, down.back = down, up
        up.requests = _Requests(self._requests)
        for way in (up, down):
            way.source.settimeout(0)
            way.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._by_source[way.source.fileno()] = way
            self._poll.register(way.source, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)

    def _woken(self, number: int, event: int) -> None:
        way = self._by_source.get(number)
        if way is None:
            return
        if event & ~select.EPOLLOUT:
            self._make_ready(way)
        if event & select.EPOLLOUT:
            self._push(way.back)

    def _make_ready(self, way: _Way) -> None:
        if not (way.is_ready or way.ended or way.is_full):
            way.is_ready = True
            way.line.ready.append(way)

    def _break(self, way: _Way) -> None:
        """Both sockets at once: one side has gone."""
        for one in (way, way.back):
            one.ended = one.closed = True
            self._by_source.pop(one.source.fileno(), None)
            one.source.close()

    # --- bytes --------------------------------------------------------------------------------

    def _take(self, line: _Direction) -> None:
        """One piece from each that has something, while the line takes more."""
        for _ in range(len(line.ready)):
            now_s = time.monotonic()
            if line.busy_for_s(now_s):
                return
            way = line.ready.popleft()
            way.is_ready = False
            if not (way.ended or way.is_full):
                self._take_one(way, now_s)

    def _take_one(self, way: _Way, now_s: float) -> None:
        buffer = self._buffers.pop() if self._buffers else bytearray(_PIECE_BYTES)
        try:
            size = way.source.recv_into(buffer, way.line.turn_bytes)
        except BlockingIOError:
            self._buffers.append(buffer)
            return
        except OSError:
            self._break(way)
            return
        if size:
            self._make_ready(way)
        else:
            way.ended = True
        if way.requests is not None and size:
            way.requests.feed(memoryview(buffer)[:size])
        self._send_off(way, buffer, size, now_s)

    def _send_off(self, way: _Way, buffer: bytearray, size: int, now_s: float) -> None:
        due_s = max(way.line.due_s(size, now_s), way.opened_s + way.line.delay_s)
        if due_s <= now_s and not way.travelling:
            self._arrived(way, buffer, size)
            return
        way.travelling += size
        heapq.heappush(self._travelling, (due_s, next(self._order), way, buffer, size))

    def _deliver(self) -> None:
        now_s = time.monotonic()
        while self._travelling and self._travelling[0][0] <= now_s:
            _, _, way, buffer, size = heapq.heappop(self._travelling)
            was_full = way.is_full
            way.travelling -= size
            self._arrived(way, buffer, size)
            if was_full:
                self._make_ready(way)

    def _arrived(self, way: _Way, buffer: bytearray, size: int) -> None:
        if way.closed:
            self._buffers.append(buffer)
            return
        way.untaken.append((buffer, memoryview(buffer)[:size]))
        way.untaken_bytes += size
        if len(way.untaken) == 1:
            self._push(way)

    def _push(self, way: _Way) -> None:
        was_full = way.is_full
        try:
            while way.untaken and not way.closed:
                self._push_one(way)
        except BlockingIOError:
            pass  # EPOLLOUT comes
        except OSError:
            self._break(way)
        if was_full:
            self._make_ready(way)

    def _push_one(self, way: _Way) -> None:
        buffer, data = way.untaken[0]
        if not data:  # the end of what the source had to say
            way.untaken.popleft()
            self._buffers.append(buffer)
            way.closed = True
            with contextlib.suppress(OSError):
                way.target.shutdown(socket.SHUT_WR)
            if way.back.closed:
                self._break(way)
            return
        sent = way.target.send(data)
        way.untaken_bytes -= sent
        if sent < len(data):
            way.untaken[0] = (buffer, data[sent:])
            return
        way.untaken.popleft()
        self._buffers.append(buffer)


def main() -> None:
    parser = argparse.ArgumentParser(prog="line", description="A TCP relay with round trip and bandwidth.")
    parser.add_argument("--to", required=True, help="HOST:PORT to connect to")
    parser.add_argument("--rtt-ms", type=float, default=0.0)
    parser.add_argument("--rate-mbit", type=float, default=None)
    given = parser.parse_args()
    host, _, port = given.to.rpartition(":")
    # Sleeps end 50 us late by default: a tenth of the shortest delay.
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
    line = Line((host, int(port)), rtt_s=given.rtt_ms / 1000, rate_mbit=given.rate_mbit)
    sys.stdout.write(f"{line.port}\n")
    sys.stdout.flush()
    line.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
