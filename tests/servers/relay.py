"""A TCP relay to put in front of any server: latency, byte counts, stalls and cuts.

    with Relay(server.url, latency_s=0.02) as relay:
        client = Client(relay.url) ...

`arm` a `Fault` (trouble.py) and the next connection has it: cut or reset at a byte, stall, drip, another
status.

It runs a trio loop in a thread of its own; its methods may be called from any thread. `latency_s` is the
round trip: half is added to each direction, and a new connection pays one round trip first, as on a real
line. Bytes in flight are not held up by each other (a delay line, not a sleep per chunk), so that latency
does not limit throughput by itself.

`watch` is told of each moment of each request, before the bytes that made it pass, and says what becomes of
them.

It reads along where the connection speaks HTTP in the clear: `relay.exchanges` has one entry per request,
with the bytes of its body and the status that they met, connection by connection (see meter.py).

Also a program, for benchmarks that must not share the tests' interpreter:
    python -m tests.servers.relay --to 127.0.0.1:8080 --port 8081 --latency 0.02
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import select
import socket
import struct
import sys
import termios
import threading
from array import array
from collections.abc import Callable
from typing import Literal, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import trio

from tests.servers.meter import Exchange, Meter, Moment
from tests.servers.trouble import Direction, Fault, Wound

_CHUNK_BYTES = 256 * 1024
_SETTLE_AT_MOST_S = 5.0
_IN_FLIGHT_CHUNKS = 512  # bounds memory; far above what a loopback socket delivers within one latency

# "half": up to the middle of the body, or of the piece, then the connection breaks; "drop": at once.
Verdict = Literal["pass", "half", "drop"]
Watch = Callable[[Moment, Exchange], Verdict]
T = TypeVar("T")


class Happened(NamedTuple):
    """A fault, the connection that had it, and how many requests there were before."""

    fault: Fault
    connection: int
    order: int


class _Flow:
    """One direction over all connections: how much went through, and how much still may."""

    def __init__(self) -> None:
        self.count = 0
        self.left: int | None = None  # None: no cut is planned
        self.free_s = 0.0  # when the line has carried all that came before

    def allowed(self, wanted: int) -> int:
        return wanted if self.left is None else min(wanted, self.left)

    def passed(self, size: int) -> None:
        self.count += size
        if self.left is not None:
            self.left -= size


def _reset(stream: trio.SocketStream) -> None:
    """Closes with RST, as a crashed peer or a firewall does; a plain close would end the answer politely."""
    if stream.socket.fileno() >= 0:  # a second drop finds it closed already
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()


def _unread(stream: trio.SocketStream) -> int:
    """Bytes that the kernel has for us."""
    if stream.socket.fileno() < 0:
        return 0
    size = array("i", [0])
    fcntl.ioctl(stream.socket.fileno(), termios.FIONREAD, size)
    return size[0]


def _is_full(stream: trio.SocketStream) -> bool:
    """Nothing more can be sent there now."""
    if stream.socket.fileno() < 0:
        return True
    one = select.poll()
    one.register(stream.socket.fileno(), select.POLLOUT)
    return not one.poll(0)


class _Connection:
    """Both sockets of one relayed connection, and its end."""

    def __init__(self, client: trio.SocketStream, server: trio.SocketStream, meter: Meter) -> None:
        self.client = client
        self.server = server
        self.meter = meter
        self.delivering = 0  # pieces that were counted and are not delivered yet
        self.read_bytes: dict[Direction, int] = {"up": 0, "down": 0}
        self.counted_bytes: dict[Direction, int] = {"up": 0, "down": 0}
        self.held: set[Direction] = set()  # a piece waits there for the gate, or for the end of a fault
        self.wounds: dict[Direction, Wound] = {}
        self.scope = trio.CancelScope()

    @property
    def is_idle(self) -> bool:
        return self.meter.is_idle and not self.delivering

    @property
    def method_answered(self) -> str:
        return self.meter.answered.method if self.meter.answered is not None else ""

    def come_bytes(self) -> dict[Direction, int]:
        """How much has come so far either way, what still lies in the kernel included."""
        unread: dict[Direction, int] = {"up": _unread(self.client), "down": _unread(self.server)}
        return {way: self.read_bytes[way] + unread[way] for way in unread}

    def is_counted(self, come_bytes: dict[Direction, int]) -> bool:
        """Is so much in the record, but for what cannot go on?"""
        full: dict[Direction, bool] = {"up": _is_full(self.server), "down": _is_full(self.client)}
        return all(
            self.counted_bytes[way] >= come_bytes[way] or way in self.held or full[way] for way in come_bytes
        )

    def end(self) -> None:
        """Closes politely, between two requests."""
        self.client.socket.close()
        self.server.socket.close()
        self.scope.cancel()

    def break_off(self) -> None:
        _reset(self.client)
        _reset(self.server)
        self.scope.cancel()


class Relay:
    """`up` is from client to server. Counters and switches span all connections, past and present."""

    def __init__(
        self,
        to: str,
        *,
        latency_s: float = 0.0,
        bytes_per_s: float | None = None,
        port: int = 0,
        watch: Watch | None = None,
    ) -> None:
        parts = urlsplit(to if "//" in to else f"//{to}")
        self._path = parts.path or "/"
        self._scheme = parts.scheme or "http"
        self._to = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.latency_s = latency_s
        self._bytes_per_s = bytes_per_s  # each way, of all connections together; None: as fast as it goes
        self.watch = watch  # runs in the relay's thread
        self.port = port
        self.connections = 0
        self._exchanges: list[Exchange] = []
        self._flows: dict[Direction, _Flow] = {"up": _Flow(), "down": _Flow()}
        self._live: set[_Connection] = set()
        self._refusing = False
        self._armed: list[Fault] = []
        self.happened: list[Happened] = []
        self._started = threading.Event()
        self._failure: BaseException | None = None

    # --- life -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="relay")
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()
        self._in_loop(self._scope.cancel)
        self._thread.join()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}{self._path}"

    # --- counters and switches ---------------------------------------------------------------

    @property
    def bytes_up(self) -> int:
        self.settle()
        return self._flows["up"].count

    @property
    def bytes_down(self) -> int:
        self.settle()
        return self._flows["down"].count

    @property
    def so_far(self) -> tuple[int, int]:
        """Bytes up and down, without waiting for those that are on their way: for a look while they flow."""
        return self._flows["up"].count, self._flows["down"].count

    @property
    def exchanges(self) -> list[Exchange]:
        """All requests so far, in the order of their request lines."""
        self.settle()
        return list(self._exchanges)

    @property
    def wasted_bytes(self) -> int:
        """Bytes of uploads that met an answer other than 2xx, or none. The XML of a PROPFIND is no upload."""
        self.settle()
        return sum(one.wasted_bytes for one in self._exchanges if one.method == "PUT")

    def settle(self) -> None:
        """Returns when all that was sent so far is counted.

        A server may answer a head while the body still lies in our socket: whoever has the answer would look
        at a record without the body.
        """
        if threading.current_thread() is self._thread:  # `watch`
            return
        done = threading.Event()

        def start() -> None:
            if self._scope.cancel_called:
                done.set()
            else:
                self._nursery.start_soon(self._until_counted, done)

        with contextlib.suppress(trio.RunFinishedError):  # nothing comes any more
            self._token.run_sync_soon(start)
            while not done.wait(0.1) and self._thread.is_alive():
                pass

    def forget(self) -> None:
        """What passed so far no longer counts. Only between requests."""
        self.settle()
        self._in_loop(self._forget)

    @property
    def open_connections(self) -> int:
        return len(self._live)

    def stall(self) -> None:
        """Nothing passes any more, in either direction; connections stay open and new ones are taken."""
        self._in_loop(self._close_gate)

    def resume(self) -> None:
        self._in_loop(self._open_gate)

    def drop(self) -> None:
        """Breaks every open connection with a reset. New ones are served."""
        self._in_loop(self._drop)

    def drop_one(self, which: int) -> bool:
        """Breaks one of the open connections, the `which`-th modulo their number. False: none is open."""
        return self._in_loop(lambda: self._drop_one(which))

    def close_idle(self, *, most: int = 1) -> int:
        """Closes up to `most` connections that carry nothing now, as a server's time-out does; how many."""
        return self._in_loop(lambda: self._close_idle(most))

    def refuse(self) -> None:
        """Breaks every connection and answers new ones with a reset, until `accept`."""
        self._refusing = True
        self.drop()

    def accept(self) -> None:
        self._refusing = False

    def cut_after(self, *, up: int | None = None, down: int | None = None) -> None:
        """Breaks the connection that would carry one byte more than that. Once: the plan is then gone."""
        self._flows["up"].left = up
        self._flows["down"].left = down

    def arm(self, fault: Fault) -> None:
        """The next connection that carries something in its direction has this fault."""
        self._in_loop(lambda: self._armed.append(fault))

    def disarm(self) -> None:
        """No fault any more, also not on the connections that have one to come."""
        self._in_loop(self._disarm)

    @property
    def waiting_faults(self) -> int:
        """Those that are armed, or on a connection, and did not happen yet."""
        live = [wound for one in list(self._live) for wound in one.wounds.values() if not wound.over]
        return len(self._armed) + len(live)

    # --- inside the loop ----------------------------------------------------------------------

    def _in_loop(self, action: Callable[[], T]) -> T:
        """Runs `action` between two steps of the loop, and returns when it is done.

        trio.from_thread would refuse a caller that runs a trio loop of its own, as async tests do.
        """
        done = threading.Event()
        results: list[T] = []

        def run() -> None:
            results.append(action())
            done.set()

        self._token.run_sync_soon(run)
        done.wait()
        return results[0]

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001  handed to the thread that waits in __enter__
            self._failure = error
            self._started.set()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._gate = trio.Event()
        self._gate.set()
        (listener,) = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        with trio.CancelScope() as self._scope:
            async with trio.open_nursery() as self._nursery:
                self._started.set()
                await trio.serve_listeners(self._relay, [listener])

    async def _until_counted(self, done: threading.Event) -> None:
        """Three times what has come by then: a piece that was just read is in nobody's hands for a moment."""
        try:
            with trio.move_on_after(_SETTLE_AT_MOST_S):
                for _ in range(3):
                    goals = {one: one.come_bytes() for one in self._live}
                    while not all(one.is_counted(goals[one]) for one in self._live & goals.keys()):
                        await trio.sleep(0.001)
                    await trio.lowlevel.checkpoint()
        finally:
            done.set()

    async def _relay(self, client: trio.SocketStream) -> None:
        if self._refusing:
            _reset(client)
            return
        await trio.sleep(self.latency_s)
        try:
            server = await trio.open_tcp_stream(*self._to)
        except OSError:
            _reset(client)
            return
        self.connections += 1
        connection = _Connection(client, server, Meter(self.connections, self._exchanges))
        self._live.add(connection)
        try:
            await self._both_ways(connection)
        finally:
            self._live.discard(connection)
            client.socket.close()
            server.socket.close()

    async def _both_ways(self, connection: _Connection) -> None:
        with connection.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, connection, connection.client, connection.server, "up")
                nursery.start_soon(self._pump, connection, connection.server, connection.client, "down")

    async def _pump(
        self,
        connection: _Connection,
        source: trio.SocketStream,
        sink: trio.SocketStream,
        direction: Direction,
    ) -> None:
        into, out_of = trio.open_memory_channel[tuple[float, bytes]](_IN_FLIGHT_CHUNKS)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, connection, source, into, direction)
                read = connection.meter.up if direction == "up" else connection.meter.down
                await self._deliver(connection, out_of, sink, direction, read)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            connection.break_off()

    async def _read(
        self,
        connection: _Connection,
        source: trio.SocketStream,
        into: trio.MemorySendChannel[tuple[float, bytes]],
        direction: Direction,
    ) -> None:
        async with into:
            while data := await source.receive_some(_CHUNK_BYTES):
                connection.read_bytes[direction] += len(data)
                await into.send((trio.current_time() + self.latency_s / 2, data))

    async def _deliver(
        self,
        connection: _Connection,
        out_of: trio.MemoryReceiveChannel[tuple[float, bytes]],
        sink: trio.SocketStream,
        direction: Direction,
        read: Callable[[bytes], None],
    ) -> None:
        flow = self._flows[direction]
        async for due, data in out_of:
            await trio.sleep_until(due)
            if self._bytes_per_s is not None:
                flow.free_s = max(flow.free_s, due) + len(data) / self._bytes_per_s
                await trio.sleep_until(flow.free_s)
            if not self._gate.is_set():
                connection.held.add(direction)
                await self._gate.wait()
                connection.held.discard(direction)
            size = flow.allowed(len(data))
            connection.counted_bytes[direction] += len(data)
            read(data[:size])  # before it is delivered: whoever sees the answer finds it counted
            allowed = self._judged(connection, data[:size])
            if allowed < size:
                await sink.send_all(data[:allowed])
                connection.break_off()
                return
            flow.passed(size)  # before, for the same reason
            connection.delivering += 1
            if not await self._pass_on(connection, direction, data[:size], sink):
                return
            connection.delivering -= 1
            if size < len(data):
                flow.left = None
                connection.break_off()
                return
        await sink.send_eof()

    async def _pass_on(
        self, connection: _Connection, direction: Direction, data: bytes, sink: trio.SocketStream
    ) -> bool:
        """Delivers, through the fault of this connection if it has one. False: it has ended."""
        wound = connection.wounds.get(direction)
        if (wound is None or wound.may_go) and (fault := self._take_fault(direction)) is not None:
            wound = connection.wounds[direction] = Wound(fault, lambda one: self._note(connection, one))
        if wound is None:
            await sink.send_all(data)
            return True
        connection.held.add(direction)
        if await wound.deliver(data, sink, connection.method_answered):
            connection.held.discard(direction)
            return True
        if wound.fault.kind == "reset":
            connection.break_off()
        else:
            connection.end()
        return False

    def _note(self, connection: _Connection, fault: Fault) -> None:
        self.happened.append(Happened(fault, connection.meter.connection, len(self._exchanges)))

    def _take_fault(self, direction: Direction) -> Fault | None:
        fault = next((one for one in self._armed if one.direction == direction), None)
        if fault is not None:
            self._armed.remove(fault)
        return fault

    def _disarm(self) -> None:
        self._armed.clear()
        for connection in self._live:
            connection.wounds = {way: wound for way, wound in connection.wounds.items() if wound.over}

    def _judged(self, connection: _Connection, data: bytes) -> int:
        """How many of these bytes pass, after the watch was told what they contain."""
        moments, connection.meter.moments = connection.meter.moments, []
        for moment, exchange in moments:
            verdict = "pass" if self.watch is None else self.watch(moment, exchange)
            if verdict == "drop":
                return 0
            if verdict == "half":
                beyond = exchange.body_bytes - (exchange.announced_bytes or 0) // 2
                return max(0, len(data) - beyond) if 0 < beyond < len(data) else len(data) // 2
        return len(data)

    def _close_gate(self) -> None:
        self._gate = trio.Event()

    def _open_gate(self) -> None:
        self._gate.set()

    def _drop(self) -> None:
        for connection in list(self._live):
            connection.break_off()

    def _drop_one(self, which: int) -> bool:
        live = sorted(self._live, key=lambda one: one.meter.connection)
        if live:
            live[which % len(live)].break_off()
        return bool(live)

    def _close_idle(self, most: int) -> int:
        idle = sorted((one for one in self._live if one.is_idle), key=lambda one: one.meter.connection)
        for connection in idle[:most]:
            connection.end()
        return len(idle[:most])

    def _forget(self) -> None:
        self._exchanges.clear()
        for flow in self._flows.values():
            flow.count = 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="relay", description="A TCP relay with latency.")
    parser.add_argument("--to", required=True, help="HOST:PORT to connect to")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="added round trip, in seconds")
    given = parser.parse_args()
    with Relay(given.to, latency_s=given.latency, port=given.port) as relay:
        sys.stdout.write(f"{relay.port}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
