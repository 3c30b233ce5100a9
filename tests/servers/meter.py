"""Reads along with HTTP/1.1 on one connection: which body bytes belong to which request, and how it ended.

Pure: bytes of both directions in, `Exchange` values out. It believes the framing of both sides and bounds
nothing, as both are ours. A connection that turns out not to speak HTTP (TLS) is left alone: `is_http` is
False then, and nothing is recorded. No credential is kept: of Authorization only the scheme,
and which leg of NTLM.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

# What just passed: the head of a request, half of its body, all of it, or the head of the final answer.
Moment = Literal["request", "half", "sent", "answer"]

_NTLM: Final = b"NTLMSSP\0"
_NO_BODY: Final = frozenset({204, 304})


@dataclass(slots=True)
class Exchange:
    """One request and its answer. `connection` counts from 1; `order` is that of the request lines."""

    connection: int
    order: int
    method: str
    target: str
    depth: str | None = None
    destination: str | None = None
    announced_bytes: int | None = None  # Content-Length of the request; None: none, or chunked
    expects_continue: bool = False
    is_conditional: bool = False  # If-Match, If-None-Match or If
    names_version: bool = False  # a condition on what is there, not on a lock alone
    scheme: str | None = None  # of Authorization, in lower case
    ntlm_message: int | None = None  # 1 or 3, the first leg and the last
    body_bytes: int = 0  # of the request, as they passed the relay; chunked framing not counted
    head_bytes: int = 0
    continued: bool = False  # 100 Continue came
    bytes_before_answer: int | None = None  # of the body, when the final status passed
    status: int | None = None  # None: no final answer came
    offers: tuple[str, ...] = ()  # schemes of WWW-Authenticate, in lower case

    @property
    def wasted_bytes(self) -> int:
        """Bytes of the body that met an answer other than 2xx, or none."""
        accepted = self.status is not None and 200 <= self.status < 300
        return 0 if accepted else self.body_bytes

    def __str__(self) -> str:
        depth = "" if self.depth is None else f" Depth {self.depth}"
        leg = {1: " (1)", 3: " (3)"}.get(self.ntlm_message or 0, "")
        auth = "" if self.scheme is None else f" {self.scheme}{leg}"
        to = "" if self.destination is None else f" to {self.destination}"
        return (
            f"{self.connection}: {self.method} {self.target}{to}{depth}{auth} {self.body_bytes} {self.status}"
        )


class _Stream:
    """One direction: heads and bodies by turns. `start` gets each head and says how its body ends."""

    def __init__(self, start: Callable[[bytes], int | str], body: Callable[[int], None]) -> None:
        self._start = start
        self._body = body
        self._buffer = bytearray()
        self._left: int = 0  # of the body or of this chunk
        self._mode = "head"  # "head", "length", "chunk-size", "chunk", "trailer", "close", "blind"

    @property
    def is_blind(self) -> bool:
        return self._mode == "blind"

    @property
    def is_between(self) -> bool:
        return self._mode == "head" and not self._buffer

    def go_blind(self) -> None:
        self._mode = "blind"
        self._buffer.clear()

    def feed(self, data: bytes) -> None:
        view = data
        while view and self._mode != "blind":
            view = self._step(view)

    def _step(self, data: bytes) -> bytes:
        if self._mode == "close":
            self._body(len(data))
            return b""
        if self._mode in {"length", "chunk"}:
            return self._body_step(data)
        return self._line_step(data)

    def _body_step(self, data: bytes) -> bytes:
        size = min(self._left, len(data))
        self._left -= size
        self._body(size)
        if not self._left:
            self._mode = "head" if self._mode == "length" else "chunk-end"
        return data[size:]

    def _line_step(self, data: bytes) -> bytes:
        """Collects until the end of a head, or of a line of chunked framing."""
        mark = b"\r\n\r\n" if self._mode == "head" else b"\r\n"
        had = len(self._buffer)
        self._buffer += data
        end = self._buffer.find(mark, max(0, had - len(mark)))
        if end < 0:
            return b""
        rest = bytes(self._buffer[end + len(mark) :])
        line = bytes(self._buffer[:end])
        self._buffer.clear()
        self._take_line(line)
        return rest

    def _take_line(self, line: bytes) -> None:
        if self._mode == "head":
            self._take_head(line)
        elif self._mode == "chunk-size":
            self._left = int(line.partition(b";")[0], 16)
            self._mode = "chunk" if self._left else "trailer"
        elif self._mode == "chunk-end":
            self._mode = "chunk-size"
        elif not line:  # the empty line after the trailers
            self._mode = "head"

    def _take_head(self, head: bytes) -> None:
        framing = self._start(head)
        if framing in {"blind", "close"}:
            self._mode = str(framing)
        elif framing == "chunked":
            self._mode = "chunk-size"
        elif framing:
            self._left = int(framing)
            self._mode = "length"


@dataclass(slots=True)
class Meter:
    """One connection. `log` is shared by all connections of a relay and gets each exchange at its start."""

    connection: int
    log: list[Exchange]
    is_http: bool = True
    moments: list[tuple[Moment, Exchange]] = field(
        default_factory=list
    )  # since whoever reads them cleared it
    answered: Exchange | None = None  # whose final answer passed last
    _unanswered: list[Exchange] = field(default_factory=list)
    _current: Exchange | None = None
    _up: _Stream = field(init=False)
    _down: _Stream = field(init=False)

    def __post_init__(self) -> None:
        self._up = _Stream(self._request, self._request_body)
        self._down = _Stream(self._answer, lambda _: None)

    @property
    def is_idle(self) -> bool:
        """Every request that passed here was answered, and the answer is complete."""
        return self.is_http and not self._unanswered and self._up.is_between and self._down.is_between

    def up(self, data: bytes) -> None:
        if data[:1] == b"\x16" and self._current is None:  # a TLS record: the handshake
            self.is_http = False
            self._up.go_blind()
            self._down.go_blind()
        self._up.feed(data)

    def down(self, data: bytes) -> None:
        self._down.feed(data)

    def _request(self, head: bytes) -> int | str:
        first, headers = _parsed(head)
        method, _, rest = first.partition(" ")
        self._current = one = Exchange(
            connection=self.connection,
            order=len(self.log),
            method=method,
            target=rest.rpartition(" ")[0],
            depth=_one(headers, "depth"),
            destination=_one(headers, "destination"),
            expects_continue=(_one(headers, "expect") or "").lower() == "100-continue",
            head_bytes=len(head) + 4,
            is_conditional=any(name in {"if-match", "if-none-match", "if"} for name, _ in headers),
            names_version=any(
                name in {"if-match", "if-none-match"}
                or (name == "if" and "[" in value)
                or (name == "overwrite" and value.strip().upper() == "F")
                for name, value in headers
            ),
        )
        one.scheme, one.ntlm_message = _authorization(_one(headers, "authorization"))
        length = _one(headers, "content-length")
        one.announced_bytes = None if length is None else int(length)
        self.log.append(one)
        self._unanswered.append(one)
        self.moments.append(("request", one))
        framing = _framing(headers)
        if framing == 0:
            self.moments.append(("sent", one))
        return framing

    def _request_body(self, size: int) -> None:
        one = self._current
        if one is None:
            return
        before, one.body_bytes = one.body_bytes, one.body_bytes + size
        whole = one.announced_bytes
        if whole is not None:  # the end of a chunked body is not a moment
            if before < whole // 2 <= one.body_bytes:
                self.moments.append(("half", one))
            if before < whole <= one.body_bytes:
                self.moments.append(("sent", one))

    def _answer(self, head: bytes) -> int | str:
        first, headers = _parsed(head)
        status = int(first.split(" ")[1])
        if not self._unanswered:  # an answer to nothing: 408 before the close of an idle connection
            return "blind"
        if status < 200:
            self._unanswered[0].continued |= status == 100
            return 0
        self.answered = one = self._unanswered.pop(0)
        one.status = status
        one.bytes_before_answer = one.body_bytes
        self.moments.append(("answer", one))
        one.offers = tuple(
            value.split(" ")[0].lower() for name, value in headers if name == "www-authenticate"
        )
        if one.method == "HEAD" or status in _NO_BODY:
            return 0
        return _framing(headers, without="close")


def _parsed(head: bytes) -> tuple[str, list[tuple[str, str]]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    return first, [(name.strip().lower(), value.strip()) for name, _, value in pairs]


def _one(headers: list[tuple[str, str]], name: str) -> str | None:
    return next((value for each, value in headers if each == name), None)


def _framing(headers: list[tuple[str, str]], without: int | str = 0) -> int | str:
    if "chunked" in (_one(headers, "transfer-encoding") or "").lower():
        return "chunked"
    length = _one(headers, "content-length")
    return without if length is None else int(length)


def _authorization(value: str | None) -> tuple[str | None, int | None]:
    """The scheme, and the NTLM message type of a token, which SPNEGO may wrap."""
    if value is None:
        return None, None
    scheme, _, token = value.partition(" ")
    if scheme.lower() not in {"ntlm", "negotiate"}:
        return scheme.lower(), None
    try:
        raw = base64.b64decode(token, validate=True)
    except binascii.Error:
        return scheme.lower(), None
    at = raw.find(_NTLM)
    return scheme.lower(), None if at < 0 else int.from_bytes(raw[at + 8 : at + 12], "little")
