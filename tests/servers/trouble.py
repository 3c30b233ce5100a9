"""What a bad line does to one connection at one byte. The relay takes `Fault`s and applies each once.

    reset        RST to both sides          stall      nothing passes this way for `seconds`
    cut          FIN to both sides          drip       a few bytes at a time for `seconds`
    half-close   FIN this way only          status     the next answer has another status (`status`)
    garbage      the next answer begins with bytes that are no HTTP

`at_byte` counts what flows this way on the connection that meets the fault, from then on. The last two
are for answers: they wait for the head of the next one, to one of `methods` if those are given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import trio

Direction = Literal["up", "down"]
Kind = Literal["reset", "cut", "half-close", "stall", "drip", "garbage", "status"]

KINDS: Final[tuple[Kind, ...]] = ("reset", "cut", "half-close", "stall", "drip", "garbage", "status")
_GARBAGE: Final = b"\x00\xffSSH-2.0 no such thing\r\n"
_DRIP_BYTES: Final = 7
_DRIP_PAUSE_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class Fault:
    kind: Kind
    direction: Direction
    at_byte: int = 0
    seconds: float = 0.0
    status: int = 503
    methods: frozenset[str] = frozenset()  # empty: any
    retry_after_s: int | None = None

    @property
    def is_for_answers(self) -> bool:
        return self.kind in {"garbage", "status"}


class Wound:
    """A fault on one connection, until it has happened."""

    def __init__(self, fault: Fault, happened: Callable[[Fault], None]) -> None:
        self.fault = fault
        self._left = fault.at_byte
        self._happened = happened
        self._deaf = False  # after half-close: the rest of this direction is swallowed
        self.over = False

    @property
    def may_go(self) -> bool:
        """It has happened, and the connection goes on."""
        return self.over and not self._deaf

    async def deliver(self, data: bytes, sink: trio.SocketStream, method: str) -> bool:
        """Passes the bytes on as the fault lets them. False: the connection is to end; see `fault.kind`.

        `method` is that of the last request whose answer began.
        """
        if self.over:
            if not self._deaf:
                await sink.send_all(data)
            return True
        if self.fault.is_for_answers:
            await sink.send_all(self._corrupted(data, method))
            return True
        if len(data) <= self._left:
            self._left -= len(data)
            await sink.send_all(data)
            return True
        self.over = True
        self._happened(self.fault)
        await sink.send_all(data[: self._left])
        return await self._from_here(data[self._left :], sink)

    async def _from_here(self, rest: bytes, sink: trio.SocketStream) -> bool:
        match self.fault.kind:
            case "reset" | "cut":
                return False
            case "half-close":
                self._deaf = True
                await sink.send_eof()
            case "stall":
                await trio.sleep(self.fault.seconds)
                await sink.send_all(rest)
            case _:
                await self._drip(rest, sink)
        return True

    async def _drip(self, rest: bytes, sink: trio.SocketStream) -> None:
        at, deadline_s = 0, trio.current_time() + self.fault.seconds
        while at < len(rest) and trio.current_time() < deadline_s:
            await sink.send_all(rest[at : at + _DRIP_BYTES])
            at += _DRIP_BYTES
            await trio.sleep(_DRIP_PAUSE_S)
        await sink.send_all(rest[at:])

    def _corrupted(self, data: bytes, method: str) -> bytes:
        if not data.startswith(b"HTTP/1.1 ") or data.startswith(b"HTTP/1.1 1"):
            return data
        if self.fault.methods and method not in self.fault.methods:
            return data
        self.over = True
        self._happened(self.fault)
        _, _, rest = data.partition(b"\r\n")
        if self.fault.kind == "garbage":
            return _GARBAGE + rest
        head = b"HTTP/1.1 %d Corrupted\r\n" % self.fault.status
        if self.fault.retry_after_s is not None:
            head += b"Retry-After: %d\r\n" % self.fault.retry_after_s
        return head + rest
