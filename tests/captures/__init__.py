"""Answers of real servers, byte for byte as received, and how tests read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h11
import httpx

_HERE = Path(__file__).parent


def names() -> list[str]:
    """All captures, as 'server/request'."""
    return sorted(f"{file.parent.name}/{file.stem}" for file in _HERE.glob("*/*.http"))


def _events(name: str) -> Iterator[h11.Event]:
    connection = h11.Connection(h11.CLIENT)
    method = "HEAD" if "/head-" in name else "GET"
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "capture")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data((_HERE / f"{name}.http").read_bytes())
    connection.receive_data(b"")
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Event)
        yield event


def _response(name: str) -> h11.Response:
    response = next(_events(name))
    assert isinstance(response, h11.Response)
    return response


def status(name: str) -> int:
    return _response(name).status_code


def headers(name: str) -> httpx.Headers:
    """The headers of a capture, as a client sees them."""
    return httpx.Headers(list(_response(name).headers))


def body(name: str) -> bytes:
    """The body of a capture, chunked framing undone, compression kept."""
    return b"".join(event.data for event in _events(name) if isinstance(event, h11.Data))
