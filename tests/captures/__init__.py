"""Answers of real servers, byte for byte as received, and how tests read them."""

from __future__ import annotations

from pathlib import Path

import h11

_HERE = Path(__file__).parent


def names() -> list[str]:
    """All captures, as 'server/request'."""
    return sorted(f"{file.parent.name}/{file.stem}" for file in _HERE.glob("*/*.http"))


def body(name: str) -> bytes:
    """The body of a capture, chunked framing undone, compression kept."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "capture")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data((_HERE / f"{name}.http").read_bytes())
    connection.receive_data(b"")
    data = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Data):
            data += event.data
    return data
