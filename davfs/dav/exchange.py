"""Sending one request and getting its answer: repetition, redirects, time-outs, counting.

Owns the one retry loop, and tells `reach` of every answer and every failure. What a request means, and what
its answer means, is the client's. Starts no task.

Invariants:
- `repeat` ends within `timeout_s`, or `longest_s` where that is given.
- Beyond the share no credential goes out, and no header but the range's.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from types import MappingProxyType, TracebackType
from typing import Final, TypeVar

import httpx
import trio

from davfs.dav.hrefs import Share
from davfs.dav.lanes import AtHand, Errand, Home, Lanes, Reply, Timeouts
from davfs.dav.owncloud import MOST_REFUSAL_BYTES, Refusal
from davfs.dav.pace import Pace
from davfs.dav.reach import Reach
from davfs.dav.redirects import is_in_share, redirected
from davfs.dav.request import Request, Traffic
from davfs.dav.retry import RetryPolicy
from davfs.dav.wire import Body, Incoming, Octets, Outgoing, deadline, reply_of, translated
from davfs.errors import DavfsError, LinkDown, ProtocolError, Unreachable, UriTooLong, refused

T = TypeVar("T")

_ABROAD: Final = frozenset({"Range", "Accept-Encoding"})  # the only headers that another host gets
_REDIRECTS: Final = frozenset({301, 302, 307, 308})
_MOST_REDIRECTS: Final = 3
# A listing of 100,000 names is 50 MB: it may take longer than `timeout_s` while it keeps coming, and so may
# a server's work on a whole tree.
_LONG_FACTOR: Final = 10
_BUFFERED_BYTES: Final = 8 * 1024 * 1024  # beyond what the kernel takes for a peer that is gone (tcp_wmem)
_CONNECT_TIMEOUT_S: Final = 15.0
_SHORT_BYTES: Final = 1024 * 1024
_NOT_NOW: Final = 503
_AT_HAND_BYTES: Final = 64 * 1024  # goes out with the head, in one write
_LONGEST_TARGET: Final = 65_536  # as httpx has it
_NO_LIMIT: Final = nullcontext()
_CARRY_FILES: Final = frozenset({"PUT", "PATCH"})


class Exchange:
    """Requests to `share` and their answers, over `wire`."""

    def __init__(
        self, wire: httpx.AsyncBaseTransport, share: Share, timeout_s: float, clock: Callable[[], float]
    ) -> None:
        self._wire = wire
        self._lanes = wire if isinstance(wire, Lanes) else None
        self._home = None if self._lanes is None else Home.of(share.origin, self._lanes.own_lines)
        self._share = share
        self._timeout_s = timeout_s
        self._connect_timeout_s = min(_CONNECT_TIMEOUT_S, timeout_s)
        self._clock = clock
        self._requests: Counter[str] = Counter()
        self._up_bytes = 0
        self._down_bytes = 0
        self.reach = Reach(clock)
        self.pace_up: Pace | None = None  # of the bodies of files
        self.pace_down: Pace | None = None

    @property
    def request_counts(self) -> Mapping[str, int]:
        """Requests sent so far by method, those of an authentication handshake included."""
        return MappingProxyType(self._requests)

    @property
    def traffic(self) -> Traffic:
        return Traffic(self._up_bytes, self._down_bytes)

    @property
    def asks_folders(self) -> bool:
        """Whether the wire asks the folder of a large new file before its body."""
        return bool(getattr(self._wire, "asks_folders", False))  # lanes know; a script asks nothing

    async def aclose(self) -> None:
        await self._wire.aclose()

    @property
    def long_s(self) -> float:
        return self._timeout_s * _LONG_FACTOR

    async def repeat(
        self,
        policy: RetryPolicy,
        label: str,
        attempt: Callable[[], Awaitable[T]],
        *,
        longest_s: float | None = None,
    ) -> T:
        """The one retry loop: `attempt` until it answers, the policy gives up, or the deadline passes."""
        started = self._clock()
        failures = 0
        while True:
            left_s = started + self._timeout_s - self._clock()
            try:
                with self.reach.watched(), self.reach.asking(longest_s or left_s, label):
                    return await attempt()
            except DavfsError as error:
                if failures == 0 and isinstance(error, LinkDown):
                    raise  # known to be down; only who found that out tries again for a moment
                failures += 1
                left_s = started + self._timeout_s - self._clock()
                dice = random.random()  # noqa: S311 - it spreads retries, it hides nothing
                wait_s = policy.wait_s(error, failures=failures, left_s=left_s, dice=dice)
                if wait_s is None:
                    raise
            await trio.sleep(wait_s)

    async def ask(
        self, policy: RetryPolicy, request: Request, *, fine: tuple[int, ...] = ()
    ) -> tuple[int, Mapping[str, str], bytes]:
        """A short answer, read whole. Raises ServerRefused unless it is success, or `fine`."""

        async def attempt() -> tuple[int, Mapping[str, str], bytes]:
            async with self.answer(request) as answer:
                if not (200 <= answer.status < 300 or answer.status in fine):
                    raise refused(request.method, answer.status, request.label.partition(" ")[2])
                return answer.status, answer.headers, await answer.receive_small(_SHORT_BYTES)

        return await self.repeat(policy, request.label, attempt)

    def answer(self, request: Request) -> AbstractAsyncContextManager[Incoming]:
        """The answer to `request`; afterwards its connection is free again."""
        return _Answer(self, request)

    async def send(self, request: Request) -> Incoming:
        """The final answer, after redirects. The caller finishes it."""
        url = request.address or self._share.url(request.path, is_collection=request.is_collection)
        for redirects in range(_MOST_REDIRECTS + 1):
            incoming = await self._send_once(request, url, is_ours=not redirects)
            if incoming.status not in _REDIRECTS:
                return incoming
            location = incoming.headers.get("location", "")
            await incoming.finish()
            url = redirected(
                self._share,
                request.label,
                request.method,
                incoming.url,
                location,
                is_collection=request.is_collection,
            )
        raise ProtocolError(f"{request.label}: more than {_MOST_REDIRECTS} redirects")

    async def _send_once(self, request: Request, url: str, *, is_ours: bool) -> Incoming:
        """`is_ours`: the address is one that we made, which is in the share."""
        if not request.is_probe:
            self.reach.check()
        sent: Sequence[str] = (request.method,)
        try:
            with translated(request.label), self._in_time(request):
                reply = await self._pass_on(request, url, is_ours=is_ours)
            sent = reply.sent
        except httpx.InvalidURL:
            raise UriTooLong(f"{request.label}: the address is too long", status=414) from None
        finally:
            for verb in sent:
                self._requests[verb] += 1
        pace = self.pace_down if request.method == "GET" else None
        incoming = Incoming(reply, url, request.label, self._count_down, pace, is_ours=is_ours)
        if incoming.status == _NOT_NOW and await _is_maintenance(incoming):
            raise Unreachable(f"{request.label}: the server is in maintenance mode")
        self.reach.answered()
        return incoming

    def _in_time(self, request: Request) -> AbstractContextManager[None]:
        """The wire's time-outs are of one connection: a keep-alive one that ends after a while is followed
        by another, which begins anew (`ls` on a silent Apache: its FIN after 5 s, and `timeout` on top)."""
        if request.answer_by_s is None:
            return _NO_LIMIT
        return deadline(request.answer_by_s - self._clock(), request.label)

    def _pass_on(self, request: Request, url: str, *, is_ours: bool) -> Awaitable[Reply]:
        """This and `_carried` only choose who does it, and need no coroutine of their own for that."""
        content = request.content
        if content is None:
            return self._carried(request, url, None, is_ours=is_ours)
        pace = self.pace_up if request.method in _CARRY_FILES else None
        if pace is None and type(content) is Octets and content.size_bytes <= _AT_HAND_BYTES:
            # type(): a class of it may give other bytes at each reading
            self._up_bytes += content.size_bytes
            return self._carried(request, url, AtHand(content.data), is_ours=is_ours)
        return self._streamed(request, url, content, pace, is_ours=is_ours)

    async def _streamed(
        self, request: Request, url: str, content: Body, pace: Pace | None, *, is_ours: bool
    ) -> Reply:
        is_large = content.size_bytes > _BUFFERED_BYTES
        count = self._count_up_large if is_large else self._count_up
        outgoing = Outgoing(content, count, pace)
        try:
            return await self._carried(request, url, outgoing, is_ours=is_ours)
        finally:
            await outgoing.aclose()

    def _carried(
        self, request: Request, url: str, stream: httpx.AsyncByteStream | None, *, is_ours: bool
    ) -> Awaitable[Reply]:
        if self._lanes is not None and self._home is not None and is_ours:
            target = url.removeprefix(self._share.origin)
            if target[:1] == "/":
                return self._lanes.carry(self._errand(self._home, request, target, stream))
        return self._carried_by_httpx(request, url, stream, is_ours=is_ours)

    async def _carried_by_httpx(
        self, request: Request, url: str, stream: httpx.AsyncByteStream | None, *, is_ours: bool
    ) -> Reply:
        address = httpx.URL(url)
        timeouts = dataclasses.asdict(self._timeouts(request))
        extensions: dict[str, object] = {"timeout": timeouts, "davfs_preflight": request.preflight}
        if request.is_ahead:
            extensions["davfs_lane"] = "ahead"
        if not is_ours and not is_in_share(self._share, address):
            # Object storage behind a redirected GET: no credentials, no cookies, no validators of ours
            kept = {name: text for name, text in request.headers.items() if name in _ABROAD}
            built = httpx.Request("GET", address, headers=kept, extensions=extensions)
        else:
            built = httpx.Request(request.method, address, headers=request.headers, extensions=extensions)
            if stream is not None:
                built.stream = stream
        return reply_of(await self._wire.handle_async_request(built), request.method)

    def _errand(
        self, home: Home, request: Request, target: str, stream: httpx.AsyncByteStream | None
    ) -> Errand:
        if len(target) > _LONGEST_TARGET:
            raise httpx.InvalidURL("the address is too long")
        return Errand.home(
            home,
            request.method,
            target,
            request.headers,
            timeouts=self._timeouts(request),
            stream=stream,
            preflight=request.preflight,
            is_ahead=request.is_ahead,
        )

    def _timeouts(self, request: Request) -> Timeouts:
        longest_s = self._timeout_s
        return Timeouts(self._connect_timeout_s, request.read_timeout_s or longest_s, longest_s, longest_s)

    def _count_up(self, size_bytes: int) -> None:
        self._up_bytes += size_bytes

    def _count_up_large(self, size_bytes: int) -> None:
        """Somebody takes these bytes: more of them than fit into the buffers of a dead connection."""
        self._up_bytes += size_bytes
        self.reach.progressed()

    def _count_down(self, size_bytes: int) -> None:
        self._down_bytes += size_bytes
        self.reach.progressed()


class _Answer(AbstractAsyncContextManager[Incoming]):
    """Sent on the way in, finished on the way out. As a generator it would cost 5 us more."""

    def __init__(self, exchange: Exchange, request: Request) -> None:
        self._exchange = exchange
        self._request = request

    async def __aenter__(self) -> Incoming:
        self._incoming = await self._exchange.send(self._request)
        return self._incoming

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, DavfsError):
            await self._incoming.finish()
        else:
            await self._incoming.close()


async def _is_maintenance(answer: Incoming) -> bool:
    """Whether a 503 is Nextcloud's (servers.md E): it says so in its body, the newer ones in a header too."""
    if answer.headers.get("x-nextcloud-maintenance-mode") == "1":
        await answer.finish()
        return True
    if "xml" not in answer.headers.get("content-type", ""):
        return False
    said = Refusal.parse(await answer.receive_small(MOST_REFUSAL_BYTES))
    if said.is_maintenance:
        await answer.finish()
    return said.is_maintenance
