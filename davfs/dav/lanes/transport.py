"""The transport: one request, from the wish to the head of its answer.

The order of things: a slot; a lane at rest or a new one; a token renewed if it would end midway; the
handshake, without a body; the pre-flight, where `preflight_needed` says so; the request itself, whose body
waits for 100-continue and stops at an early refusal; a 401 judged by the lane's session.

A request is repeated only when nothing was processed: the server closed an idle connection before anything
of it was sent or, for verbs that change nothing, before anything was answered; a 401 that can be answered
better; a 417. Bounded: `_MOST_STEPS` on a lane, `_MOST_LANES` lanes. Credentials and cookies go to the
share's own origin; another host (object storage behind a redirect) gets neither.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import httpx
import trio

from davfs.dav.auth import Authenticator, Origin, Session, Standing, Step, build_auth
from davfs.dav.lanes.answers import Head
from davfs.dav.lanes.connect import connect
from davfs.dav.lanes.cookies import Cookies
from davfs.dav.lanes.errand import ACCEPT, Errand, Kind, PreflightAnswer
from davfs.dav.lanes.habits import PARENT_FROM_BYTES, Expect, Habits, parent_needed, preflight_needed
from davfs.dav.lanes.lane import Lane
from davfs.dav.lanes.pool import Pool, Slot
from davfs.dav.lanes.proxies import DIRECT, Proxies
from davfs.dav.lanes.sending import Unsent, deliver
from davfs.dav.lanes.tls import end_point_binding
from davfs.errors import DavfsError, Unauthorized

_MOST_LANES: Final = 5  # some servers close after each answer
_MOST_STEPS: Final = 7  # asked, type 1, type 3, pre-flight by HEAD, PUT, stale, PUT
_MOST_POOLS: Final = 8
_DRAIN_BYTES: Final = 256 * 1024  # of an answer that nobody wants: an error page, a PROPFIND of one file
_DRAIN_S: Final = 5.0
_UPLOAD_BYTES_PER_S: Final = 1024 * 1024  # a slow line: how long a token has to live
_KEEP_ALIVE: Final = b"Connection: keep-alive\r\n"


@dataclass(frozen=True, slots=True)
class LaneSettings:
    """`tls` None: the system's authorities."""

    data_lanes: int = 16
    metadata_lanes: int = 8
    tls: ssl.SSLContext | None = None
    pin_sha256: str | None = None
    proxies: Proxies = DIRECT
    user_agent: str = "davfs"

    @property
    def limits(self) -> dict[Kind, int]:
        return {"data": self.data_lanes, "metadata": self.metadata_lanes}


@dataclass(slots=True)
class _Server:
    """What belongs to one origin."""

    origin: Origin
    auth: Authenticator
    pool: Pool
    habits: Habits = field(default_factory=Habits)


@dataclass(slots=True)
class _Progress:
    """What is kept of one request from lane to lane."""

    sent: list[str] = field(default_factory=list)  # verbs
    answer: PreflightAnswer | None = None
    must_settle: bool = False
    wants_folder: bool = False
    wants_fresh: bool = False
    verdict: DavfsError | None = None  # of the pre-flight's judge


class _Delivered(NamedTuple):
    lane: Lane
    head: Head


@dataclass(slots=True)
class Reply:
    """The answer to an errand. `headers` has its names in lower case."""

    status: int
    headers: Mapping[str, str]
    stream: httpx.AsyncByteStream
    raw_headers: Sequence[tuple[bytes, bytes]] = ()
    sent: Sequence[str] = ()  # the verbs of all requests that it took
    preflight: PreflightAnswer | None = None


class Lanes(httpx.AsyncBaseTransport):
    """One per mount. `auth` is for its own origin only. `carry` is for our own client, without httpx."""

    def __init__(self, auth: Authenticator, settings: LaneSettings) -> None:
        self._auth = auth
        self._settings = settings
        self._servers: dict[Origin, _Server] = {}
        self._cookies = Cookies()
        self._cookies_of = auth.generation
        self._doubt = trio.Lock()
        self._user_agent = f"User-Agent: {settings.user_agent}\r\n".encode()

    @property
    def auth(self) -> Authenticator:
        return self._auth

    @property
    def expect(self) -> Expect:
        """What the server of the share has done with Expect: 100-continue so far."""
        return self._server(self._auth.origin).habits.expect

    @property
    def asks_folders(self) -> bool:
        """Whether a large new file of the share is not sent before its folder was asked."""
        return parent_needed(PARENT_FROM_BYTES, 404, self._server(self._auth.origin).habits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        reply = await self.carry(Errand.of(request, self._default_lines(request)))
        extensions = {"davfs_sent": reply.sent, "davfs_preflight": reply.preflight}
        return httpx.Response(
            reply.status, headers=reply.raw_headers, stream=reply.stream, extensions=extensions
        )

    @property
    def own_lines(self) -> bytes:
        """What goes with every request of our own, for `Home`."""
        return self._user_agent + _KEEP_ALIVE

    async def carry(self, errand: Errand) -> Reply:
        """Raises httpx's errors, Unauthorized, and what the judge of its pre-flight raises."""
        server = self._server(errand.origin)
        pool = server.pool
        slot = pool.slot_at_once(errand.kind) or await pool.slot(errand.kind, errand.timeouts.pool)
        try:
            progress = _Progress()
            perform = self._at_the_gate if server.auth.needs_gate else self._perform
            delivered = await perform(server, errand, progress)
            return _reply(server.pool, slot, delivered, errand, progress)
        except BaseException:
            slot.release()
            raise

    async def aclose(self) -> None:
        for server in self._servers.values():
            server.pool.close()
        self._servers.clear()

    # --- which server -------------------------------------------------------------------------------

    def _default_lines(self, request: httpx.Request) -> bytes:
        given = request.headers
        lines = b"" if "user-agent" in given else self._user_agent
        return lines + (b"" if "accept" in given else ACCEPT) + _KEEP_ALIVE

    def _server(self, origin: Origin) -> _Server:
        server = self._servers.get(origin)
        if server is None:
            is_home = origin == self._auth.origin
            url = f"{origin.scheme}://{f'[{origin.host}]' if ':' in origin.host else origin.host}"
            auth = self._auth if is_home else build_auth("none", url, None)
            self._forget_old_servers()
            server = self._servers[origin] = _Server(origin, auth, Pool(self._settings.limits))
        return server

    def _forget_old_servers(self) -> None:
        """Redirects could name any number of hosts."""
        strangers = [origin for origin in self._servers if origin != self._auth.origin]
        for origin in strangers[: max(0, len(strangers) - _MOST_POOLS + 1)]:
            self._servers.pop(origin).pool.close()

    # --- which lane ---------------------------------------------------------------------------------

    async def _at_the_gate(self, server: _Server, errand: Errand, progress: _Progress) -> _Delivered:
        """At first contact one goes ahead: what it learns spares the others a refusal each."""
        async with server.auth.gate:
            if server.auth.needs_gate:
                return await self._perform(server, errand, progress)
        return await self._perform(server, errand, progress)

    async def _perform(self, server: _Server, errand: Errand, progress: _Progress) -> _Delivered:
        for _ in range(_MOST_LANES):
            server.auth.check()
            requests = 2 if errand.is_upload else 1
            lane = None if progress.wants_fresh else server.pool.take_at_once(requests=requests)
            if lane is None:
                lane = await self._lane(server, errand, requests, fresh=progress.wants_fresh)
            try:
                head = await self._converse(server, lane, errand, progress)
            except Unsent:
                lane.close()
                progress.wants_fresh = True
                continue
            except BaseException as error:
                if error is progress.verdict:  # said at leisure, between two requests: the lane is well
                    server.pool.give_back(lane)
                else:
                    lane.close()
                raise
            if head is not None:
                return _Delivered(lane, head)
            lane.close()
        raise httpx.RemoteProtocolError("the server ends each connection before it is authenticated")

    async def _lane(self, server: _Server, errand: Errand, requests: int, *, fresh: bool) -> Lane:
        lane = None if fresh else await server.pool.take(requests=requests)
        if lane is not None:
            return lane
        settings, origin = self._settings, server.origin
        connection = await connect(
            origin,
            settings.tls,
            settings.pin_sha256 if origin == self._auth.origin else None,
            settings.proxies.for_origin(origin),
            errand.timeouts.connect,
        )
        return Lane(connection, server.auth.session(end_point_binding(connection.certificate)))

    # --- on one lane --------------------------------------------------------------------------------

    async def _converse(
        self, server: _Server, lane: Lane, errand: Errand, progress: _Progress
    ) -> Head | None:
        """Authenticates, pre-flights, sends. None: this needs another lane."""
        session = lane.session
        for _ in range(_MOST_STEPS):
            if server.auth.renews:
                await server.auth.prepare(errand.size_bytes / _UPLOAD_BYTES_PER_S)
            message = self._next_message(server, lane, errand, progress)
            is_probe = message is not errand
            progress.sent.append(message.method)
            head = await self._ask(server, lane, message)
            step = _judged(server, session, message, head)
            if step is Step.DONE and not is_probe:
                return head
            if step is Step.DOUBT:
                return await self._doubted(server, lane, errand, head, is_probe=is_probe)
            body = await _drained(lane, head)
            if step is Step.REFUSED:
                server.auth.check()
            if step is Step.DONE:
                self._note_probe(server, head, body, errand, progress)
            elif not is_probe:  # the upload itself was refused: it does not go again unproved
                progress.answer, progress.must_settle, progress.wants_folder = None, True, False
            if step is Step.NEW_LANE or lane.is_spoilt:
                progress.wants_fresh = step is Step.NEW_LANE
                return None
        raise httpx.RemoteProtocolError("the server asks for authentication again and again")

    def _next_message(self, server: _Server, lane: Lane, errand: Errand, progress: _Progress) -> Errand:
        """The errand itself, or what has to go before it."""
        session, verb, plan = lane.session, server.habits.probe_verb, errand.preflight
        if session.next_is_leg or (errand.size_bytes and session.expects_401):
            return errand.probe(verb)
        if not errand.is_upload:
            return errand
        if self._knows_it_is_new(lane, errand, progress):
            progress.answer = PreflightAnswer(404, {}, b"")
            progress.wants_folder = parent_needed(errand.size_bytes, 404, server.habits)
        if self._must_probe(server, lane, errand, progress):
            is_sure = plan is not None and not progress.must_settle and session.standing() is Standing.PROVED
            return errand.probe(verb, plan.question if plan is not None and is_sure else b"")
        if progress.wants_folder and plan is not None and plan.folder is not None:
            return errand.probe(verb, plan.question, plan.folder)
        return errand

    def _knows_it_is_new(self, lane: Lane, errand: Errand, progress: _Progress) -> bool:
        """A look at the target would say 404. It is needed for what it settles only: credentials in doubt."""
        plan, is_proved = errand.preflight, lane.session.standing() is Standing.PROVED
        unasked = progress.answer is None and not progress.must_settle
        return plan is not None and plan.is_new and is_proved and unasked

    def _must_probe(self, server: _Server, lane: Lane, errand: Errand, progress: _Progress) -> bool:
        standing = lane.session.standing()
        if progress.must_settle and standing is Standing.PROVED:
            standing = Standing.UNPROVED
        return preflight_needed(
            errand.size_bytes,
            standing,
            server.habits,
            is_conditional=errand.preflight is not None and errand.preflight.is_conditional,
            is_settled=progress.answer is not None,
            is_known=errand.preflight is not None and errand.preflight.is_known,
        )

    def _note_probe(
        self,
        server: _Server,
        head: Head,
        body: bytes,
        errand: Errand,
        progress: _Progress,
    ) -> None:
        """A probe was accepted. For an upload its answer is the pre-flight, and may end it."""
        if server.habits.note_probe(head.status) or not errand.is_upload:
            return
        answer = PreflightAnswer(head.status, head.fields, body)
        progress.must_settle = False
        if progress.wants_folder and progress.answer is not None:
            progress.wants_folder = False
            progress.answer = replace(progress.answer, parent=answer)
        else:
            progress.answer = answer
            progress.wants_folder = parent_needed(errand.size_bytes, head.status, server.habits)
        if errand.preflight is not None:
            try:
                errand.preflight.judge(progress.answer)
            except DavfsError as error:
                progress.verdict = error
                raise

    async def _doubted(
        self, server: _Server, lane: Lane, errand: Errand, head: Head, *, is_probe: bool
    ) -> Head | None:
        """A 401 although the credentials were good: for this place only, or not good any more?

        Asks once for the share's root, on another lane. Raises Unauthorized when that is refused as well.
        """
        lane.is_spoilt = True  # after a refused NTLM handshake no other succeeds on it
        async with self._doubt:
            server.auth.check()
            root = Errand.of(_root_request(server.auth.url, errand), self._user_agent)
            delivered = await self._perform(server, root, _Progress(wants_fresh=True))
            await _drained(delivered.lane, delivered.head)
            server.pool.give_back(delivered.lane)
        if is_probe:
            raise Unauthorized(f"{errand.method}: the server answered 401 for this place", status=401)
        return head

    async def _ask(self, server: _Server, lane: Lane, message: Errand) -> Head:
        session = lane.session
        if session.is_slow:
            header = await trio.to_thread.run_sync(session.header, message.method, message.target)
        else:
            header = session.header(message.method, message.target)
        extra = f"Authorization: {header}\r\n" if header else ""
        is_home = server.auth is self._auth
        if is_home:
            extra += self._cookies_of_today().line(message, time.time())
        head = await deliver(lane, message, extra, server.habits)
        if is_home and "set-cookie" in head.fields:
            self._cookies.keep(message, head)
        return head

    def _cookies_of_today(self) -> Cookies:
        """Those of earlier credentials go with them."""
        if self._cookies_of != self._auth.generation:
            self._cookies, self._cookies_of = Cookies(), self._auth.generation
        return self._cookies


def _judged(server: _Server, session: Session, message: Errand, head: Head) -> Step:
    if head.status != 401:
        return session.judge(head.status, head.headers if session.reads_answers else None)
    is_root = message.method == "PROPFIND" and message.url.path == server.auth.url.path
    return session.judge(head.status, head.headers, is_final=is_root)


def _root_request(url: httpx.URL, errand: Errand) -> httpx.Request:
    times = errand.timeouts
    given = {"connect": times.connect, "read": times.read, "write": times.write, "pool": times.pool}
    headers = {"Depth": "0", "Content-Length": "0"}
    return httpx.Request("PROPFIND", url, headers=headers, extensions={"timeout": given})


async def _drained(lane: Lane, head: Head) -> bytes:
    """The body of an answer that is not the caller's, so that its lane can go on; else the lane is spoilt."""
    content = bytearray()
    with trio.move_on_after(_DRAIN_S):
        try:
            while piece := await lane.read_body(head.body, _DRAIN_S):
                content += piece
                if len(content) > _DRAIN_BYTES:
                    break
        except httpx.TransportError:
            pass  # lane.is_spoilt says it
    lane.is_spoilt = lane.is_spoilt or not head.body.done
    return bytes(content)


# --- the answer -------------------------------------------------------------------------------------


class _AnswerBody(httpx.AsyncByteStream):
    """The body, read from its lane. Plain reads, no generator: leaving early leaves nothing suspended."""

    def __init__(self, pool: Pool, slot: Slot, delivered: _Delivered, timeout_s: float) -> None:
        self._pool = pool
        self._slot = slot
        self._lane: Lane | None = delivered.lane
        self._body = delivered.head.body
        self._timeout_s = timeout_s
        self._ready = b""

    def take_what_is_here(self) -> None:
        """A short answer has come with its head: its lane is free before it is even looked at."""
        assert self._lane is not None  # noqa: S101
        content = self._lane.body_at_hand(self._body)
        if content is not None:
            self._ready = content
        if self._body.done:
            self._free()

    def take_rest(self) -> bytes | None:
        """What nobody has read, if all of it is here; None while the lane is needed."""
        if self._lane is not None:
            return None
        ready, self._ready = self._ready, b""
        return ready

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._ready:
            ready, self._ready = self._ready, b""
            return ready
        if self._lane is None:
            raise StopAsyncIteration
        try:
            content = await self._lane.read_body(self._body, self._timeout_s)
        except BaseException:
            await self.aclose()
            raise
        if self._body.done:
            self._free()
        if not content:
            raise StopAsyncIteration
        return content

    def _free(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            self._pool.give_back(lane)
            self._slot.release()

    async def aclose(self) -> None:
        lane, self._lane = self._lane, None
        self._ready = b""
        if lane is not None:
            lane.close()
            self._slot.release()


def _reply(pool: Pool, slot: Slot, delivered: _Delivered, errand: Errand, progress: _Progress) -> Reply:
    head = delivered.head
    try:
        body = _AnswerBody(pool, slot, delivered, errand.timeouts.read)
        body.take_what_is_here()
    except BaseException:
        delivered.lane.close()
        raise
    return Reply(head.status, head.fields, body, head.raw_headers, progress.sent, progress.answer)
