"""Lanes against scripted servers on loopback: bodies, reuse, time-outs, authentication, pre-flight."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from davfs.dav.auth import Credentials, build_auth
from davfs.dav.client import Client
from davfs.dav.lanes import Lanes, LaneSettings, Preflight, PreflightAnswer, Proxies
from davfs.dav.lanes.connect import Connection
from davfs.dav.lanes.errand import Errand
from davfs.dav.lanes.habits import Expect, Habits
from davfs.dav.lanes.lane import GATHER_S, Lane
from davfs.dav.lanes.sending import deliver
from davfs.dav.resource import ROOT
from davfs.errors import PreconditionFailed, TimedOut, Unauthorized
from tests.unit.dav.peer import Data, Line, Seen, ask, lanes_to, serving

ANN = Credentials("ann", "pw")
_BASIC = 'Basic realm="r"'
BIG = 2 * 1024 * 1024


async def _polite(line: Line) -> None:
    """Takes everything."""
    while await line.request():
        await line.answer(207, b"<x/>")


async def test_a_lane_is_used_again() -> None:
    """One connection carries one request after the other, and each has the length of its body."""
    async with serving(_polite) as peer, lanes_to(peer) as lanes:
        for _ in range(3):
            assert (await ask(lanes, peer)).content == b"<x/>"
        await ask(lanes, peer, "PUT", "f", body=Data(10), size=10)
        assert (peer.connections, peer.said[-1]) == (1, "PUT /dav/f 10")
        assert peer.seen[-1].headers["content-length"] == "10"
        assert peer.seen[0].headers["connection"] == "keep-alive"


async def test_transfers_do_not_hold_up_metadata() -> None:
    """All data lanes are busy: a PROPFIND is answered at once; another GET waits as long as allowed."""

    async def slow(line: Line) -> None:
        while seen := await line.request():
            if seen.method == "GET":
                await line.say("HTTP/1.1 200 X\r\nContent-Length: 5\r\n\r\nab")
                await trio.sleep_forever()
            await line.answer(207)

    settings = LaneSettings(data_lanes=2, metadata_lanes=1)
    async with serving(slow) as peer, lanes_to(peer, settings=settings) as lanes:
        requests = [httpx.Request("GET", peer.url + str(number)) for number in range(2)]
        open_answers = [await lanes.handle_async_request(request) for request in requests]
        assert (await ask(lanes, peer)).status_code == 207
        with pytest.raises(httpx.PoolTimeout):
            await ask(lanes, peer, "GET", timeout_s=0.05)
        for answer in open_answers:
            await answer.aclose()


async def test_a_connection_that_was_closed_is_not_used() -> None:
    """The server hung up while the lane was at rest: even a PUT goes out, on a new one, once."""

    async def short(line: Line) -> None:
        await line.request()
        await line.answer(207)

    async with serving(short) as peer, lanes_to(peer) as lanes:
        for _ in range(3):
            await ask(lanes, peer, "PUT", "f", body=Data(10), size=10)
            await trio.sleep(0.02)
        assert (peer.connections, len(peer.seen)) == (3, 3)


async def _hangs_up_on_the_second(line: Line) -> None:
    if await line.request():
        await line.answer(207)
    await line.request()


@pytest.mark.parametrize(("method", "requests"), [("PROPFIND", 3), ("GET", 3)])
async def test_what_changes_nothing_is_repeated(method: str, requests: int) -> None:
    """When a used connection ends without an answer, on another one."""
    async with serving(_hangs_up_on_the_second) as peer, lanes_to(peer) as lanes:
        await ask(lanes, peer)
        assert (await ask(lanes, peer, method)).status_code == 207
        assert len(peer.seen) == requests


@pytest.mark.parametrize("method", ["PUT", "MOVE", "DELETE", "MKCOL"])
async def test_what_changes_something_is_not_repeated(method: str) -> None:
    """The outcome is unknown: the caller has to look."""
    async with serving(_hangs_up_on_the_second) as peer, lanes_to(peer) as lanes:
        await ask(lanes, peer)
        with pytest.raises(httpx.ReadError):
            await ask(lanes, peer, method)
        assert len(peer.seen) == 2


@pytest.mark.parametrize(
    "announcement", [{"Connection": "close"}, {"Keep_Alive": "timeout=5, max=0"}, {"Keep_Alive": "timeout=0"}]
)
async def test_announced_limits_are_respected(announcement: dict[str, str]) -> None:
    """The next request opens a connection, before the server closes the old one under it."""

    async def limited(line: Line) -> None:
        while await line.request():
            await line.answer(207, b"", **announcement)

    async with serving(limited) as peer, lanes_to(peer) as lanes:
        for _ in range(2):
            await ask(lanes, peer)
            await trio.sleep(0.01)
        assert peer.connections == 2


# --- bodies ---------------------------------------------------------------------------------------


async def test_a_refusal_before_the_body_keeps_it_here() -> None:
    """Expect: 100-continue, and a final status instead of 100: not one byte leaves."""

    async def refuses(line: Line) -> None:
        if await line.head():
            await line.answer(413)
            await trio.sleep(0.05)

    async with serving(refuses) as peer, lanes_to(peer) as lanes:
        body = Data(100_000)
        answer = await ask(lanes, peer, "PUT", "f", body=body, size=100_000)
        assert (answer.status_code, body.given_bytes) == (413, 0)
        assert peer.seen[0].headers["expect"] == "100-continue"


async def test_expect_is_learned() -> None:
    """A server that says 100 is asked again; one that never does is waited for once."""

    async def says_100(line: Line) -> None:
        while seen := await line.head():
            if "expect" in seen.headers:
                await line.say("HTTP/1.1 100 Continue\r\n\r\n")
            await line.body(seen)
            await line.answer(201)

    async with serving(says_100) as peer, lanes_to(peer) as lanes:
        for _ in range(2):
            await ask(lanes, peer, "PUT", "f", body=Data(100_000), size=100_000)
        assert all("expect" in seen.headers for seen in peer.seen)


async def test_a_server_that_ignores_expect() -> None:
    """The wait is short, and the next upload does not wait at all."""

    async with serving(_polite) as peer, lanes_to(peer) as lanes:
        begin = trio.current_time()
        await ask(lanes, peer, "PUT", "f", body=Data(100_000), size=100_000)
        between = trio.current_time()
        await ask(lanes, peer, "PUT", "f", body=Data(100_000), size=100_000)
        assert between - begin > 0.9
        assert trio.current_time() - between < between - begin
        assert ["expect" in seen.headers for seen in peer.seen] == [True, False]
        assert peer.connections == 1


async def test_a_server_that_refuses_expect() -> None:
    """417: sent again without the word, and the word is not used again."""

    async def dislikes(line: Line) -> None:
        while seen := await line.head():
            if "expect" in seen.headers:
                await line.answer(417)
                return
            await line.body(seen)
            await line.answer(201)

    async with serving(dislikes) as peer, lanes_to(peer) as lanes:
        for _ in range(2):
            assert (await ask(lanes, peer, "PUT", "f", body=Data(100_000), size=100_000)).status_code == 201
        assert ["expect" in seen.headers for seen in peer.seen] == [True, False, False]


@pytest.mark.parametrize("ending", ["stays", "closes", "resets"])
async def test_a_refusal_midway_stops_the_body(ending: str) -> None:
    """The answer is read although the server has stopped reading, or is gone."""

    async def refuses(line: Line) -> None:
        seen = await line.head()
        if seen is None:
            return
        await line.say("HTTP/1.1 100 Continue\r\n\r\n")
        await line.body(seen, at_most=200_000)
        await line.answer(507, b"full", Connection="close")
        if ending == "stays":
            await trio.sleep(1)
        elif ending == "closes":
            assert isinstance(line.stream, trio.SocketStream)
            await line.stream.send_eof()
            await trio.sleep(1)

    async with serving(refuses) as peer, lanes_to(peer) as lanes:
        body = Data(50_000_000, pause_s=0.001)
        answer = await ask(lanes, peer, "PUT", "f", body=body, size=50_000_000)
        assert answer.status_code == 507
        assert body.given_bytes < 20_000_000


class InFile(httpx.AsyncByteStream):
    """A body that lies in a file. It is never read here."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.fd: int | None = self._file.fileno()
        self.told: list[tuple[int, int]] = []

    def passed(self, begin: int, end: int) -> None:
        self.told.append((begin, end))

    def __aiter__(self) -> AsyncIterator[bytes]:
        raise AssertionError("read, although the kernel can send it")

    async def aclose(self) -> None:
        self._file.close()


class _Broken(trio.abc.Stream):
    """A connection that takes the head of a request and breaks in its body; the answer is on its way."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._writes = 0

    async def send_all(self, _data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._writes += 1
        if self._writes > 2:
            raise trio.BrokenResourceError

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, _max_bytes: int | None = None) -> bytes:
        await trio.sleep(1 if self._answer else 100)
        return self._answer

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def _lane_over(stream: trio.abc.Stream) -> AsyncIterator[Lane]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003 - a setter
    tcp = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    session = build_auth("none", "http://h/", None).session()
    lane = Lane(Connection(stream, tcp, None), session)  # type: ignore[arg-type]
    try:
        yield lane
    finally:
        lane.close()
        theirs.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 423 Locked\r\nContent-Length: 0\r\n\r\n", b""])
async def test_the_answer_after_the_connection_broke(answer: bytes, autojump_clock: MockClock) -> None:
    """rclone and Tomcat hang up on a body that they refuse: the refusal is waited for, at most 5 s."""
    stream, habits = _Broken(answer), Habits(expect=Expect.REFUSED, expect_since_s=trio.current_time())
    request = httpx.Request(
        "PUT", "http://h/f", headers={"Host": "h", "Content-Length": str(BIG)}, stream=Data(BIG)
    )
    async with _lane_over(stream) as lane:
        begun_s = trio.current_time()
        if answer:
            assert (await deliver(lane, Errand.of(request, b""), "", habits)).status == 423
            assert habits.refused_late == {423}
        else:
            with pytest.raises(httpx.WriteError):
                await deliver(lane, Errand.of(request, b""), "", habits)
            assert trio.current_time() - begun_s == pytest.approx(5)


async def test_an_idle_lane_is_not_used_for_long(autojump_clock: MockClock) -> None:
    """Apache closes after 5 s of rest: a lane that rests longer than 4 is not used any more."""
    async with _lane_over(_Broken(b"")) as lane:
        lane.park()
        await trio.sleep(3.9)
        assert await lane.is_usable()
        await trio.sleep(0.2)
        assert not await lane.is_usable()


async def test_a_file_goes_out_without_being_read(tmp_path: Path) -> None:
    """In the clear the kernel sends it, all of it, and it is told how far it got; a second time as well."""
    data = os.urandom(BIG + 12345)
    (tmp_path / "f").write_bytes(data)
    async with serving(_polite) as peer, lanes_to(peer) as lanes:
        body = InFile(tmp_path / "f")
        for _ in range(2):
            assert (await ask(lanes, peer, "PUT", "f", body=body, size=len(data))).status_code == 207
        await body.aclose()
        assert [seen.body == data for seen in peer.seen if seen.method == "PUT"] == [True, True]
        assert sum(end - begin for begin, end in body.told) == 2 * len(data)
        assert body.told[-1][1] == len(data)


async def test_a_file_that_is_too_short_cuts_the_connection(tmp_path: Path) -> None:
    """What is missing is not made up, and what came is not taken for whole."""
    (tmp_path / "f").write_bytes(bytes(100_000))
    async with serving(_polite) as peer, lanes_to(peer) as lanes:
        body = InFile(tmp_path / "f")
        with pytest.raises(httpx.LocalProtocolError):
            await ask(lanes, peer, "PUT", "f", body=body, size=200_000)
        await body.aclose()
        await trio.sleep(0.01)
        assert len(peer.seen[-1].body) < 200_000


async def test_a_body_that_fails_cuts_the_connection() -> None:
    """The error is the body's own, and the server does not take the rest for whole."""

    class Torn(Data):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield bytes(100_000)
            raise OSError(errno.EIO, "torn")

    async with serving(_polite) as peer, lanes_to(peer) as lanes:
        with pytest.raises(OSError, match="torn"):
            await ask(lanes, peer, "PUT", "f", body=Torn(200_000), size=200_000)
        await trio.sleep(0.01)
        assert len(peer.seen[0].body) < 200_000


@pytest.mark.parametrize("size", [5, 15])
async def test_a_body_of_another_length_than_announced(size: int) -> None:
    """Is never sent as if it were right."""
    async with serving(_polite) as peer, lanes_to(peer) as lanes:
        with pytest.raises(httpx.LocalProtocolError):
            await ask(lanes, peer, "PUT", "f", body=Data(10), size=size)
        assert peer.seen == []


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_body_that_is_given_up_does_not_arrive_later(*, cancelled: bool) -> None:
    """It waits in this kernel as the server does not read: after the time-out nothing more of it comes."""
    size, given_up = 128 * 1024, trio.Event()

    async def sleeper(line: Line) -> None:
        seen = await line.head()
        assert seen is not None
        await line.say("HTTP/1.1 100 Continue\r\n\r\n")
        await given_up.wait()
        with suppress(trio.BrokenResourceError):
            await line.body(seen)

    async with serving(sleeper) as peer, lanes_to(peer) as lanes:
        with trio.move_on_after(0.3):
            limit_s = 10 if cancelled else 0.1
            with pytest.raises((httpx.TimeoutException, trio.Cancelled)):
                await ask(lanes, peer, "PUT", "f", body=Data(size), size=size, timeout_s=limit_s)
        given_up.set()
        await trio.sleep(0.2)
        (seen,) = peer.seen
    assert len(seen.body) < size


async def test_a_success_for_half_a_body_is_no_success() -> None:
    """It would be a truncated file."""

    async def hasty(line: Line) -> None:
        await line.head()
        await line.answer(201)
        await trio.sleep(1)

    async with serving(hasty) as peer, lanes_to(peer) as lanes:
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(lanes, peer, "PUT", "f", body=Data(200_000), size=200_000)


# --- time-outs ------------------------------------------------------------------------------------


async def test_time_outs_are_of_httpx() -> None:
    """No answer, no end of an answer, nobody there."""

    async def silent(line: Line) -> None:
        seen = await line.request()
        if seen is not None and seen.method == "GET":
            await line.say("HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\nab")
        await trio.sleep_forever()

    async with serving(silent) as peer, lanes_to(peer) as lanes:
        for method in ("PROPFIND", "GET"):
            with pytest.raises(httpx.ReadTimeout):
                await ask(lanes, peer, method, timeout_s=0.05)
        peer.port = 1
        with pytest.raises(httpx.ConnectError):
            await ask(lanes, peer)


async def test_a_change_that_nobody_answers_ends_in_time() -> None:
    """After the client's time-out it is TimedOut; a program that gives up before is only cancelled."""

    async def silent(line: Line) -> None:
        await line.request()
        await trio.sleep_forever()

    async with serving(silent) as peer, lanes_to(peer) as lanes:
        client, path = Client(lanes, peer.url, timeout_s=0.1), ROOT.child("f")
        with trio.fail_after(30), pytest.raises(TimedOut):
            await client.delete(path, is_collection=False)
        with trio.fail_after(30), pytest.raises(TimedOut):
            await client.mkcol(path)
        with trio.move_on_after(0.1) as scope:
            await Client(lanes, peer.url, timeout_s=30).delete(path, is_collection=False)
        assert scope.cancelled_caught


async def test_nothing_is_left_open() -> None:
    """After cancellations at any time, and after aclose."""
    async with serving(_polite) as peer, lanes_to(peer) as lanes:
        for wait_s in (0, 0.001, 0.002, 0.004):
            with trio.move_on_after(wait_s):
                await ask(lanes, peer, "PUT", "f", body=Data(BIG, pause_s=0.001), size=BIG)
        for kind in ("data", "metadata"):
            slots = lanes._server(lanes.auth.origin).pool._slots[kind]
            assert slots.value == {"data": 16, "metadata": 8}[kind]


# --- authentication -------------------------------------------------------------------------------


def _guarded(*, late: bool = False, password: str = "pw") -> tuple[list[str], object]:
    """A server that wants Basic; `late`: it says 100 to anybody and refuses after the body."""
    import base64

    accepted = [password]

    async def handler(line: Line) -> None:
        while seen := await line.head():
            right = "Basic " + base64.b64encode(f"ann:{accepted[0]}".encode()).decode()
            is_right = seen.headers.get("authorization") == right
            if "expect" in seen.headers and (is_right or late):
                await line.say("HTTP/1.1 100 Continue\r\n\r\n")
            elif "expect" in seen.headers:
                await line.answer(401, WWW_Authenticate=_BASIC, Connection="close")
                return
            await line.body(seen)
            if is_right:
                await line.answer(201 if seen.method == "PUT" else 404)
            else:
                await line.answer(401, WWW_Authenticate=_BASIC)

    return accepted, handler


@pytest.mark.parametrize("size", [0, 10, 200_000])
async def test_a_first_upload_is_preceded_by_a_look(size: int) -> None:
    """Nothing is known of the server: no body, not even an empty one, before it took the credentials."""
    _, handler = _guarded(late=True)
    async with serving(handler) as peer, lanes_to(peer, "auto", ANN) as lanes:  # type: ignore[arg-type]
        answer = await ask(lanes, peer, "PUT", "f", body=Data(size), size=size)
        assert answer.status_code == 201
        assert peer.said == [
            "PROPFIND /dav/f 0",
            "PROPFIND /dav/f 0 Basic",
            f"PUT /dav/f {size} Basic",
        ]
        assert answer.extensions["davfs_sent"] == ["PROPFIND", "PROPFIND", "PUT"]
        assert peer.connections == 1


@pytest.mark.parametrize(("size", "looks"), [(BIG, 0), (8 * BIG, 1)])
async def test_a_name_that_nobody_has_is_not_looked_at(size: int, looks: int) -> None:
    """Of a temporary name only the folder can tell something, and it is asked for large bodies alone."""
    async with serving(_polite) as peer, lanes_to(peer) as lanes:
        await ask(lanes, peer, "PROPFIND")
        await ask(lanes, peer, "PROPFIND")
        before = len(peer.seen)
        plan = Preflight(lambda _answer: None, folder=httpx.URL(peer.url), is_new=True)
        await ask(lanes, peer, "PUT", "t", body=Data(size), size=size, davfs_preflight=plan)
        found = [(seen.method, seen.target) for seen in peer.seen[before:]]
        assert found == [("PROPFIND", "/dav/")] * looks + [("PUT", "/dav/t")]


async def test_a_small_new_file_is_one_put() -> None:
    """Once the credentials are accepted."""
    _, handler = _guarded()
    async with serving(handler) as peer, lanes_to(peer, "auto", ANN) as lanes:  # type: ignore[arg-type]
        await ask(lanes, peer)
        peer.seen.clear()
        await ask(lanes, peer, "PUT", "f", body=Data(1000), size=1000)
        assert peer.said == ["PUT /dav/f 1000 Basic"]


async def test_wrong_credentials_are_sent_once_by_all_lanes_together() -> None:
    """However many requests start at the same time, and until there are new ones."""
    accepted, handler = _guarded(password="other")
    async with serving(handler) as peer, lanes_to(peer, "basic", ANN) as lanes:  # type: ignore[arg-type]
        refused = 0

        async def one() -> None:
            nonlocal refused
            with pytest.raises(Unauthorized):
                await ask(lanes, peer)
            refused += 1

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(one)
        assert (refused, len(peer.seen)) == (10, 1)
        accepted[0] = "new"
        lanes.auth.replace(Credentials("ann", "new"))
        assert (await ask(lanes, peer)).status_code == 404
        assert lanes.auth.state == "accepted"


async def test_a_folder_of_somebody_else_refuses_itself_only() -> None:
    """401 although the credentials are good: the root is asked once, and the share goes on."""

    async def handler(line: Line) -> None:
        while seen := await line.request():
            is_private = "private" in seen.target
            await line.answer(401 if is_private else 207, WWW_Authenticate=_BASIC)

    async with serving(handler) as peer, lanes_to(peer, "basic", ANN) as lanes:
        await ask(lanes, peer)
        assert (await ask(lanes, peer, path="private/")).status_code == 401
        assert (await ask(lanes, peer)).status_code == 207
        assert lanes.auth.state == "accepted"
        assert peer.said[1:3] == ["PROPFIND /dav/private/ 0 Basic", "PROPFIND /dav/ 0 Basic"]


async def test_a_password_that_changed_ends_in_refused() -> None:
    """After the folder and the root said no; then nothing more is sent."""
    accepted, handler = _guarded()
    async with serving(handler) as peer, lanes_to(peer, "basic", ANN) as lanes:  # type: ignore[arg-type]
        await ask(lanes, peer)
        accepted[0] = "changed"
        for _ in range(5):
            with pytest.raises(Unauthorized):
                await ask(lanes, peer, path="folder/")
        assert len(peer.seen) == 3


async def test_another_host_gets_no_credentials() -> None:
    """Nor cookies: a redirected GET to object storage."""

    async def cookies(line: Line) -> None:
        while await line.request():
            await line.answer(207, Set_Cookie="session=s3cret; Path=/")

    async with serving(cookies) as home, serving(_polite) as other, lanes_to(home, "basic", ANN) as lanes:
        await ask(lanes, home)
        await ask(lanes, home)
        await ask(lanes, other, "GET")
        assert home.seen[1].headers["cookie"] == "session=s3cret"
        assert not {"authorization", "cookie"} & set(other.seen[0].headers)


# --- pre-flight -----------------------------------------------------------------------------------


async def test_the_judge_stops_an_upload() -> None:
    """What the look shows can forbid the body."""

    def judge(answer: PreflightAnswer) -> None:
        assert (answer.status, answer.body) == (207, b"<x/>")
        raise PreconditionFailed("it changed", status=412)

    async with serving(_polite) as peer, lanes_to(peer) as lanes:
        body = Data(BIG)
        with pytest.raises(PreconditionFailed):
            await ask(
                lanes, peer, "PUT", "f", body=body, size=BIG,
                davfs_preflight=Preflight(judge, is_conditional=True, question=b"<q/>"),
            )  # fmt: skip
        assert (peer.said, body.given_bytes) == (["PROPFIND /dav/f 4"], 0)
        assert (await ask(lanes, peer)).status_code == 207
        assert peer.connections == 1


async def test_the_look_is_a_head_where_propfind_is_refused() -> None:
    """Learned: the next upload asks HEAD at once."""

    async def no_propfind(line: Line) -> None:
        while seen := await line.request():
            if seen.method == "HEAD":
                await line.say('HTTP/1.1 200 X\r\nContent-Length: 99\r\nETag: "1"\r\n\r\n')
            else:
                await line.answer(405 if seen.method == "PROPFIND" else 201)

    def judge(answer: PreflightAnswer) -> None:
        assert answer.headers["etag"] == '"1"'

    async with serving(no_propfind) as peer, lanes_to(peer) as lanes:
        for _ in range(2):
            await ask(lanes, peer, "PUT", "f", body=Data(BIG), size=BIG, davfs_preflight=Preflight(judge))
        assert [seen.method for seen in peer.seen] == ["PROPFIND", "HEAD", "PUT", "HEAD", "PUT"]


# --- proxies --------------------------------------------------------------------------------------


async def test_plain_http_through_a_proxy() -> None:
    """The whole address, and the proxy's own credentials only for it."""
    async with serving(_polite) as proxy:
        proxies = Proxies.from_environment({"http_proxy": f"http://p:q@127.0.0.1:{proxy.port}"})
        async with lanes_to(proxy, settings=LaneSettings(proxies=proxies)) as lanes:
            request = httpx.Request("PROPFIND", "http://far.example/dav/")
            answer = await lanes.handle_async_request(request)
            await answer.aread()
        seen: Seen = proxy.seen[0]
        assert (seen.target, seen.headers["host"]) == ("http://far.example/dav/", "far.example")
        assert seen.headers["proxy-authorization"] == "Basic cDpx"


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_a_proxy_that_opens_no_tunnel(status: int) -> None:
    """Is a connection that failed: nothing was sent to the server."""

    async def refuses(line: Line) -> None:
        seen = await line.head()
        assert seen is not None
        assert (seen.method, seen.target) == ("CONNECT", "far.example:443")
        await line.answer(status)

    async with serving(refuses) as proxy:
        proxies = Proxies.from_environment({"https_proxy": f"127.0.0.1:{proxy.port}"})
        async with lanes_to(proxy, settings=LaneSettings(proxies=proxies)) as lanes:
            with pytest.raises(httpx.ConnectError, match="proxy"):
                await lanes.handle_async_request(httpx.Request("PROPFIND", "https://far.example/"))


@pytest.mark.parametrize(
    ("rule", "host", "direct"),
    [
        ("*", "a.example", True),
        ("example", "a.example", True),
        (".example", "a.example", True),
        ("example", "notexample", False),
        ("a.example:81", "a.example", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("::1", "::1", True),
        ("[::1]:80", "::1", True),
    ],
)
def test_who_goes_past_the_proxy(rule: str, host: str, direct: bool) -> None:
    """no_proxy as curl reads it: names, domains, ports, networks."""
    from davfs.dav.auth import Origin

    proxies = Proxies.from_environment({"all_proxy": "http://p:3128", "no_proxy": f"other, {rule}"})
    assert (proxies.for_origin(Origin("http", host, 80)) is None) is direct


async def _listener_at_ipv6(monkeypatch: pytest.MonkeyPatch) -> trio.SocketListener:
    """At ::1; where the kernel has no IPv6, as in many containers, ::1 stands for 127.0.0.1."""
    with suppress(OSError):
        (found,) = await trio.open_tcp_listeners(0, host="::1")
        return found
    real = trio.open_tcp_stream

    async def connected(host: str, port: int) -> trio.SocketStream:
        assert host == "::1"
        return await real("127.0.0.1", port)

    monkeypatch.setattr(trio, "open_tcp_stream", connected)
    (instead,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    return instead


async def test_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address in brackets is connected to, and named in Host as the URL has it."""
    heard: list[bytes] = []

    async def one(stream: trio.SocketStream) -> None:
        async with stream:
            heard.append(await stream.receive_some(4096))
            await stream.send_all(b"HTTP/1.1 207 Multi-Status\r\nContent-Length: 0\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listener = await _listener_at_ipv6(monkeypatch)
        nursery.start_soon(trio.serve_listeners, one, [listener])
        url = f"http://[::1]:{listener.socket.getsockname()[1]}/"
        lanes = Lanes(build_auth("none", url, None), LaneSettings())
        times = dict.fromkeys(("connect", "read", "write", "pool"), 5.0)
        answer = await lanes.handle_async_request(
            httpx.Request("PROPFIND", url, extensions={"timeout": times})
        )
        await answer.aread()
        assert answer.status_code == 207
        await lanes.aclose()
        nursery.cancel_scope.cancel()
    assert f"\r\nHost: {url[7:-1]}\r\n".encode().lower() in heard[0].lower()


async def _pieces(size_bytes: int, *, chunked: bool) -> tuple[list[int], float]:
    """The pieces of a body that comes 1 kB at a time, as they are read, and how long that took."""

    async def drips(line: Line) -> None:
        await line.request()
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size_bytes}"
        await line.say(f"HTTP/1.1 200 X\r\n{framing}\r\n\r\n")
        for _ in range(size_bytes // 1024):
            await line.stream.send_all((b"400\r\n%b\r\n" if chunked else b"%b") % bytes(1024))
            await trio.sleep(0.0001)
        if chunked:
            await line.stream.send_all(b"0\r\n\r\n")

    async with serving(drips) as peer, lanes_to(peer) as lanes:
        answer = await lanes.handle_async_request(httpx.Request("GET", peer.url))
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        begun_s = trio.current_time()
        pieces = [len(piece) async for piece in answer.stream]
        return pieces, trio.current_time() - begun_s


async def test_a_long_body_that_drips_is_read_in_gulps(autojump_clock: MockClock) -> None:
    """1 MiB in drops of 1 kB, 0.1 ms apart: up to 256 kB together, to the last byte."""
    pieces, took_s = await _pieces(1024 * 1024, chunked=False)
    assert sum(pieces) == 1024 * 1024
    assert len(pieces) < 64
    assert took_s < 0.0001 * 1024 + GATHER_S


async def _long_body(line: Line, *, then: bytes = b"", missing: int = 0) -> None:
    """A drop, so that gulps are waited for, and then the rest."""
    await line.say(f"HTTP/1.1 200 X\r\nContent-Length: {BIG}\r\n\r\n")
    await trio.sleep(0.01)
    await line.stream.send_all(b"\0")
    await trio.sleep(0.01)
    await line.stream.send_all(bytes(BIG - 1 - missing) + then)


async def test_after_a_long_body_an_answer_of_a_few_bytes_is_seen() -> None:
    """On the same connection: it wakes us for a single byte again. Else it would be waited for in vain."""

    async def serves(line: Line) -> None:
        await line.request()
        await _long_body(line)
        await _polite(line)

    async with serving(serves) as peer, lanes_to(peer) as lanes:
        assert (await ask(lanes, peer, "GET")).content == bytes(BIG)
        assert (await ask(lanes, peer)).content == b"<x/>"
        assert peer.connections == 1


async def test_a_byte_too_many_after_a_long_body_ends_the_connection() -> None:
    """It would be taken for the begin of the next answer."""

    async def serves(line: Line) -> None:
        if (seen := await line.request()) and seen.method == "GET":
            await _long_body(line, then=b"H")
        elif seen:
            await line.answer(207)
        await line.request()

    async with serving(serves) as peer, lanes_to(peer) as lanes:
        assert (await ask(lanes, peer, "GET")).content == bytes(BIG)
        await trio.sleep(0.02)
        assert (await ask(lanes, peer)).status_code == 207
        assert [(seen.connection, seen.method) for seen in peer.seen] == [(1, "GET"), (2, "PROPFIND")]


async def _received(stream: httpx.AsyncByteStream, into: bytearray) -> None:
    async for piece in stream:
        into += piece


@pytest.mark.parametrize(("hangs_up", "error"), [(True, httpx.ReadError), (False, httpx.ReadTimeout)])
async def test_of_a_long_body_that_ends_early_all_that_came_is_delivered(
    hangs_up: bool, error: type[Exception], autojump_clock: MockClock
) -> None:
    """Although it is less than what we wait for; then the failure, at once or after the time-out."""

    async def serves(line: Line) -> None:
        await line.request()
        await _long_body(line, missing=100)
        if not hangs_up:
            await trio.sleep_forever()

    async with serving(serves) as peer, lanes_to(peer) as lanes:
        times = dict.fromkeys(("connect", "read", "write", "pool"), 5.0)
        request = httpx.Request("GET", peer.url, extensions={"timeout": times})
        answer = await lanes.handle_async_request(request)
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        came, begun_s = bytearray(), trio.current_time()
        with pytest.raises(error):
            await _received(answer.stream, came)
        assert len(came) == BIG - 100
        assert trio.current_time() - begun_s < (0.1 if hangs_up else 5.1)


@pytest.mark.parametrize(("size_bytes", "chunked"), [(64 * 1024, False), (64 * 1024, True)])
async def test_a_short_body_is_read_as_it_comes(
    size_bytes: int, chunked: bool, autojump_clock: MockClock
) -> None:
    """Nothing is waited for: a program, or a listing, waits for it."""
    pieces, took_s = await _pieces(size_bytes, chunked=chunked)
    assert sum(pieces) == size_bytes
    assert took_s < 0.0001 * 64 + GATHER_S
