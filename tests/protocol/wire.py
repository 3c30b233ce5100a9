"""A `Client` over lanes for tests against authenticating servers, and a body whose bytes cost nothing."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from davfs.dav.auth import Authenticator, Credentials, Scheme, Token, TokenSource, build_auth
from davfs.dav.client import Client
from davfs.dav.lanes import Lanes, LaneSettings

_PIECE = bytes(range(256)) * 1024


@dataclass(frozen=True)
class Content:
    """`size_bytes` bytes that are the same each time; `seed` makes files that differ."""

    size_bytes: int
    seed: int = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces():
            await trio.lowlevel.checkpoint()
            yield piece

    def pieces(self) -> Iterator[bytes]:
        turn = self.seed % 256
        piece = _PIECE[turn:] + _PIECE[:turn]
        left = self.size_bytes
        while left:
            yield piece[:left]
            left -= len(piece[:left])

    def read(self) -> bytes:
        return b"".join(self.pieces())


def source_of(make: Callable[[], str]) -> TokenSource:
    """A token source that calls `make` each time it is asked."""

    async def ask() -> Token:
        await trio.lowlevel.checkpoint()
        return Token.parse(make())

    return ask


@dataclass(frozen=True)
class Wire:
    client: Client
    auth: Authenticator


@asynccontextmanager
async def wire_to(
    url: str,
    scheme: Scheme,
    username: str = "",
    password: str = "",
    *,
    tokens: TokenSource | None = None,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = 30.0,
) -> AsyncIterator[Wire]:
    """What a mount puts together, without the mount. Not connected yet."""
    credentials = Credentials(username, password, token_source=tokens) if username or tokens else None
    auth = build_auth(scheme, url, credentials)
    client = Client(Lanes(auth, LaneSettings(tls=tls)), url, timeout_s=timeout_s)
    try:
        yield Wire(client, auth)
    finally:
        await client.aclose()
