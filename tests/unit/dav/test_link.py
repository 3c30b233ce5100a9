"""When the server counts as away, and when it is asked again."""

from __future__ import annotations

import errno
import itertools

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from davfs.dav.link import ALIVE_S, FAILURES_MAX, PROBE_LONGEST_S, Link
from davfs.dav.reach import Reach
from davfs.dav.resource import ROOT
from davfs.errors import Busy, Disconnected, LinkDown, LinkError, TimedOut, Unreachable
from tests.unit.dav.script import FOLDER, Script, multistatus, response


def down(link: Link | None = None, now_s: float = 0.0) -> Link:
    link = link or Link()
    link.guarded = True
    assert link.failed(Unreachable("connection refused"), now_s, asked_s=now_s)
    return link


def test_no_connection_opens_the_circuit_at_once() -> None:
    """Refused connections and unknown hosts need no second proof; the next requests get the same errno."""
    refusal = down().refusal()
    assert refusal is not None
    assert refusal.errno == errno.EHOSTUNREACH
    assert "connection refused" in str(refusal)


@pytest.mark.parametrize("error", [Disconnected("cut"), TimedOut("silence")])
def test_one_cut_connection_is_no_outage(error: LinkError) -> None:
    """Only failures one after the other, with nothing between them, make one."""
    link = Link()
    for number in range(FAILURES_MAX - 1):
        link.failed(error, 10.0 * number + 5, asked_s=10.0 * number)
        assert not link.is_down
    link.failed(error, 100.0, asked_s=90.0)
    assert link.is_down


def test_sixteen_transfers_cut_at_once_are_one_failure() -> None:
    """A reset of all connections says the same thing sixteen times."""
    link = Link()
    for number in range(16):
        link.failed(Disconnected("cut"), 10.0 + number / 1000, asked_s=number / 10)
    assert not link.is_down


def test_a_byte_of_a_transfer_starts_the_count_again() -> None:
    """As long as anything comes back on any connection, the server is there."""
    link = Link()
    for number in range(10):
        link.failed(Disconnected("cut"), 10.0 * number + 5, asked_s=10.0 * number)
        link.progressed(10.0 * number + 6)
    assert not link.is_down


def test_bytes_of_an_old_transfer_do_not_end_an_outage() -> None:
    """What was sent before the outage may still arrive; only a status ends it."""
    link = down()
    link.progressed(1.0)
    assert link.is_down
    assert link.answered(2.0)
    assert link.refusal() is None


def test_after_one_time_out_a_short_question_is_asked() -> None:
    """A silent server is found out in seconds, not after three long time-outs."""
    link = Link()
    assert link.failed(TimedOut("silence"), 30.0, asked_s=0.0)
    assert link.next_probe_s == 30.0
    assert link.patience_s(30.0) == 5.0
    link.failed(TimedOut("silence"), 35.0, asked_s=30.0)
    link.probed(35.0, dice=0.0)
    assert not link.is_down
    link.failed(TimedOut("silence"), 41.0, asked_s=36.0)
    assert link.is_down


def test_an_answered_probe_clears_the_doubt() -> None:
    """One slow request of a server that answers others is no outage, and no further probes."""
    link = Link()
    link.failed(TimedOut("silence"), 30.0, asked_s=0.0)
    link.answered(31.0)
    link.probed(31.0, dice=0.5)
    assert link.next_probe_s is None


@given(st.floats(0, 0.999))
def test_probes_come_after_1_s_and_then_ever_more_rarely(dice: float) -> None:
    """1 s, 2 s, 4 s ... 30 s, each a little earlier at random; and each gets more time to be answered."""
    link = down(now_s=100.0)
    assert link.next_probe_s == 101.0
    waits, patience = [], []
    for _ in range(8):
        now_s = link.next_probe_s or 0.0
        patience.append(link.patience_s(30.0))
        link.probed(now_s, dice=dice)
        waits.append((link.next_probe_s or 0.0) - now_s)
    assert all(later >= earlier - 1e-6 for earlier, later in itertools.pairwise(waits))
    assert PROBE_LONGEST_S * 0.75 <= waits[-1] <= PROBE_LONGEST_S
    assert patience[0] == 5.0
    assert patience[-1] == 30.0


def test_nothing_is_refused_while_nobody_probes() -> None:
    """A client without a probe tries every time: nothing else would find out that the server is back."""
    link = Link()
    link.failed(Unreachable("refused"), 0.0, asked_s=0.0)
    assert link.is_down
    assert link.refusal() is None


def test_a_server_never_reached_must_prove_itself() -> None:
    """An answer alone does not make a share: it may be a login page, or refuse the password."""
    link = Link()
    link.guarded = True
    link.unproven("connection refused", errno.EHOSTUNREACH, 0.0)
    assert not link.answered(1.0)
    link.unproven("wrong password", errno.EACCES, 2.0)
    refusal = link.refusal()
    assert refusal is not None
    assert refusal.errno == errno.EACCES
    assert link.proven(3.0)
    assert link.refusal() is None


async def test_requests_fail_at_once_while_it_is_down(autojump_clock: MockClock) -> None:
    """Not one is sent, and none waits; the probe is, and its answer lets them through again."""
    root = multistatus(response("/dav/", FOLDER))
    script = Script(httpx.ConnectError("refused"), httpx.ConnectError("refused"), root)
    client = script.client()
    client.reach.link.guarded = True
    with pytest.raises(Unreachable):
        await client.stat(ROOT)
    sent, begun_s = len(script.requests), trio.current_time()
    for _ in range(10):
        with pytest.raises(LinkDown):
            await client.stat(ROOT)
    assert len(script.requests) == sent
    assert trio.current_time() == begun_s


async def test_a_503_is_an_answer(autojump_clock: MockClock) -> None:
    """A proxy that says Retry-After is reachable: the link stays up, however often it says so."""
    script = Script(
        lambda _: httpx.Response(503, headers={"Retry-After": "100"}, stream=httpx.ByteStream(b""))
    )
    client = script.client()
    client.reach.link.guarded = True
    for _ in range(5):
        with pytest.raises(Busy):
            await client.stat(ROOT)
    assert not client.reach.link.is_down


async def test_a_restarting_server_is_waited_for(autojump_clock: MockClock) -> None:
    """Who meets the outage first tries on for a moment: a restart of half a second is not seen."""
    refused = httpx.ConnectError("refused")
    script = Script(refused, lambda _: multistatus(response("/dav/", FOLDER)))
    client = script.client()
    client.reach.link.guarded = True

    async def probe_soon() -> None:
        await trio.sleep(0.15)
        await client.probe(5.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(probe_soon)
        assert (await client.stat(ROOT)).is_collection


def test_a_server_that_answers_is_not_doubted() -> None:
    """What takes long while other answers come is not the link: no small question goes out for each wait."""
    now_s = [100.0]
    reach = Reach(lambda: now_s[0])
    reach.answered()
    reach.doubt()
    assert reach.link.next_probe_s is None
    now_s[0] += 2 * ALIVE_S
    reach.doubt()
    assert reach.link.next_probe_s == now_s[0]
