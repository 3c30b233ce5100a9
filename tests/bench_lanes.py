"""Lanes against the stock httpx transport: small PROPFINDs and PUTs, alternating, in one run.

Both are driven as a mount would: one request after the other, and eight at a time. The server is either
Apache with mod_dav, or `tiny`, a process that answers fixed bytes, so that almost all the time is the
client's. CPU time is of this process alone. Medians over the rounds; the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import socketserver
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

import httpx
import trio

from davfs.dav.auth import build_auth
from davfs.dav.lanes import Lanes, LaneSettings
from davfs.dav.properties import propfind
from tests.servers import Apache

_ANSWER = (
    b"HTTP/1.1 207 Multi-Status\r\nDate: Sat, 21 Nov 2026 05:00:00 GMT\r\nServer: tiny\r\n"
    b'Content-Length: 600\r\nContent-Type: text/xml; charset="utf-8"\r\n\r\n' + b"x" * 600
)
_BODY = b"x" * 4096
_TIMES = dict.fromkeys(("connect", "read", "write", "pool"), 30.0)
_PROPFIND_HEADERS = {
    "Depth": "0",
    "Content-Type": "application/xml; charset=utf-8",
    "Content-Length": str(len(propfind())),
    "Accept-Encoding": "gzip",
    "Translate": "f",
}
_PUT_HEADERS = {"Content-Length": str(len(_BODY)), "Accept-Encoding": "identity", "Translate": "f"}


class _Tiny(socketserver.StreamRequestHandler):
    """Reads requests, answers always the same."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        while self._one():
            self.wfile.write(_ANSWER)

    def _one(self) -> bool:
        size, line = 0, self.rfile.readline()
        while line not in (b"\r\n", b""):
            if line[:15].lower() == b"content-length:":
                size = int(line[15:])
            line = self.rfile.readline()
        self.rfile.read(size)
        return bool(line)


class _Threads(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def _serve(pipe: object) -> None:
    with _Threads(("127.0.0.1", 0), _Tiny) as server:
        pipe.send(server.server_address[1])  # type: ignore[attr-defined]
        server.serve_forever()


@contextmanager
def _server(name: str) -> Iterator[str]:
    if name == "apache":
        with Apache() as server:
            yield server.url
        return
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/"
    finally:
        process.kill()
        process.join()


@dataclass(frozen=True)
class _Content(httpx.AsyncByteStream):
    data: bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data


Send = Callable[[str, str], Awaitable[None]]


def _parts(method: str) -> tuple[dict[str, str], bytes]:
    return (_PROPFIND_HEADERS, propfind()) if method == "PROPFIND" else (_PUT_HEADERS, _BODY)


async def _read(answer: httpx.Response) -> None:
    assert isinstance(answer.stream, httpx.AsyncByteStream)
    async for _ in answer.stream:
        pass
    await answer.aclose()
    if not answer.is_success:
        raise SystemExit(f"the server answered {answer.status_code}")


async def _by_lanes(lanes: Lanes, method: str, url: str) -> None:
    headers, body = _parts(method)
    request = httpx.Request(method, url, headers=headers, extensions={"timeout": _TIMES})
    request.stream = _Content(body)
    await _read(await lanes.handle_async_request(request))


async def _by_httpx(client: httpx.AsyncClient, method: str, url: str) -> None:
    headers, body = _parts(method)
    request = client.build_request(method, url, headers=headers, timeout=30)
    request.stream = _Content(body)
    await _read(await client.send(request, stream=True, follow_redirects=False))


async def _by_httpx_transport(transport: httpx.AsyncHTTPTransport, method: str, url: str) -> None:
    headers, body = _parts(method)
    request = httpx.Request(method, url, headers=headers, extensions={"timeout": _TIMES})
    request.stream = _Content(body)
    await _read(await transport.handle_async_request(request))


async def _measured(send: Send, method: str, base: str, count: int, parallel: int) -> tuple[float, float]:
    """Requests per second, and microseconds of this process' CPU per request."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await send(method, base if method == "PROPFIND" else f"{base}file{number % 16}")

    wall, cpu = time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(parallel):
            nursery.start_soon(worker)
    return count / (time.perf_counter() - wall), (time.process_time() - cpu) / count * 1e6


async def _compare(base: str, rounds: int, count: int) -> None:
    limits = httpx.Limits(max_connections=24, max_keepalive_connections=24)
    lanes = Lanes(build_auth("none", base, None), LaneSettings())
    async with (
        lanes,
        httpx.AsyncClient(limits=limits, trust_env=False) as client,
        httpx.AsyncHTTPTransport(limits=limits, trust_env=False) as transport,
    ):
        ways: dict[str, Send] = {
            "lanes": lambda method, url: _by_lanes(lanes, method, url),
            "httpx client": lambda method, url: _by_httpx(client, method, url),
            "httpx transport": lambda method, url: _by_httpx_transport(transport, method, url),
        }
        for method in ("PROPFIND", "PUT"):
            for parallel in (1, 8):
                found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
                for _ in range(rounds):
                    for name, send in ways.items():
                        found[name].append(await _measured(send, method, base, count, parallel))
                _report(method, parallel, found)


def _report(method: str, parallel: int, found: dict[str, list[tuple[float, float]]]) -> None:
    rates = {name: statistics.median(rate for rate, _ in runs) for name, runs in found.items()}
    costs = {name: statistics.median(cost for _, cost in runs) for name, runs in found.items()}
    for name, rate in rates.items():
        ratio = f"lanes x{rates['lanes'] / rate:.2f} rate, x{costs[name] / costs['lanes']:.2f} CPU"
        sys.stdout.write(
            f"{method:9}{parallel:2} at a time  {name:16}{rate:7.0f}/s{costs[name]:7.0f} us CPU  "
            f"{'' if name == 'lanes' else ratio}\n"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--server", choices=("apache", "tiny"), default="apache")
    given = parser.parse_args()
    with _server(given.server) as base:
        trio.run(_compare, base, given.rounds, given.requests)


if __name__ == "__main__":
    main()
