"""NTLM binds a connection, not a request: each lane is authenticated once and never borrows a handshake.

Read from the relay's record of each connection, in parallel use and with connections closing in between.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

import pytest
import trio

from davfs.dav.auth import Scheme
from davfs.dav.client import Client
from davfs.dav.resource import DavPath
from davfs.errors import Disconnected, TimedOut
from tests.protocol.wire import Content, wire_to
from tests.servers import Apache, Exchange, Relay

UPLOADS = 16
READS = 32
SIZE = 300_000


def _by_connection(exchanges: Sequence[Exchange]) -> dict[int, list[Exchange]]:
    lanes: dict[int, list[Exchange]] = defaultdict(list)
    for one in exchanges:
        lanes[one.connection].append(one)
    return dict(lanes)


def _check_lane(lane: Sequence[Exchange]) -> None:
    """At most one refused request, then the legs of one handshake, then requests without any 401."""
    messages = [one.ntlm_message for one in lane if one.ntlm_message]
    story = "\n".join(map(str, lane))
    answered = [one for one in lane if one.status is not None]
    assert messages in ([1, 3], [1], []), f"not one handshake:\n{story}"
    if messages != [1, 3]:
        assert len(answered) <= 1 or all(one.status == 401 for one in answered), story
        return
    third = next(at for at, one in enumerate(lane) if one.ntlm_message == 3)
    assert lane[third - 1].ntlm_message == 1, f"something came between the legs:\n{story}"
    assert sum(one.status == 401 for one in lane[:third]) <= 2, story
    refused_later = [str(one) for one in lane[third:] if one.status == 401]
    assert not refused_later, f"401 after the handshake:\n{story}"


def _server() -> Apache:
    """It hangs up only where a test wants it: on a loaded machine a lane may rest for long."""
    return Apache(username="ann", password="secret", auth="ntlm", keepalive_timeout_s=60)


async def _put(client: Client, number: int) -> None:
    await client.put(DavPath((f"file{number}",)), Content(SIZE, seed=number))


async def _get(client: Client, number: int) -> None:
    read = bytearray()
    async with client.get(DavPath((f"read{number}",))) as download:
        async for piece in download:
            read += piece
    assert bytes(read) == Content(SIZE, seed=number).read()


@pytest.mark.parametrize("scheme", ["ntlm", "negotiate"])
async def test_parallel_use_authenticates_each_lane_once(scheme: Scheme) -> None:
    """16 uploads and 32 reads at once: one handshake per connection, no 401 after it, no byte wasted."""
    with _server() as server, Relay(server.url) as relay:
        for number in range(READS):
            (server.root / f"read{number}").write_bytes(Content(SIZE, seed=number).read())
        async with wire_to(relay.url, scheme, "ann", "secret") as wire:
            await wire.client.connect()
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for number in range(UPLOADS):
                        nursery.start_soon(_put, wire.client, number)
                    for number in range(READS):
                        nursery.start_soon(_get, wire.client, number)
        lanes = _by_connection(relay.exchanges)
        for lane in lanes.values():
            _check_lane(lane)
        assert relay.wasted_bytes == 0
        assert len(lanes) <= 24
        for number in range(UPLOADS):
            assert (server.root / f"file{number}").read_bytes() == Content(SIZE, seed=number).read()


async def _closes_idle_ones(relay: Relay, choose: random.Random) -> None:
    """As a server's time-out does, and more often: by requests, so that a slow machine gets on as well."""
    next_at = 0
    while True:
        await trio.sleep(choose.uniform(0.005, 0.03))
        if len(relay.exchanges) >= next_at:
            relay.close_idle(most=choose.randint(1, 3))
            next_at = len(relay.exchanges) + 6  # a handshake is three requests


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_connections_that_close_in_between_cost_no_body(seed: int) -> None:
    """Idle connections vanish all the time: new lanes, new handshakes, and still no byte is wasted."""
    choose = random.Random(seed)
    with _server() as server, Relay(server.url) as relay:
        for number in range(READS):
            (server.root / f"read{number}").write_bytes(Content(SIZE, seed=number).read())

        async def uploads(client: Client, first: int) -> None:
            for number in range(first, first + 4):
                await _until_done(client, number, relay)
                await trio.sleep(choose.uniform(0, 0.03))

        async def reads(client: Client, number: int) -> None:
            for _ in range(3):
                await _get(client, number)
                await trio.sleep(choose.uniform(0, 0.03))

        async with wire_to(relay.url, "ntlm", "ann", "secret") as wire:
            await wire.client.connect()
            with trio.fail_after(90):
                async with trio.open_nursery() as closing:
                    closing.start_soon(_closes_idle_ones, relay, choose)
                    async with trio.open_nursery() as nursery:
                        for number in range(UPLOADS):
                            nursery.start_soon(uploads, wire.client, 4 * number)
                        for number in range(READS):
                            nursery.start_soon(reads, wire.client, number)
                    closing.cancel_scope.cancel()
        for lane in _by_connection(relay.exchanges).values():
            _check_lane(lane)
        assert relay.wasted_bytes == 0
        for number in range(4 * UPLOADS):
            assert (server.root / f"file{number}").read_bytes() == Content(SIZE, seed=number).read()


async def _until_done(client: Client, number: int, relay: Relay) -> None:
    """What write-back does with an unknown outcome: again, bounded."""
    for _ in range(5):
        try:
            await _put(client, number)
        except (Disconnected, TimedOut):
            continue
        return
    story = "\n".join(map(str, relay.exchanges[-40:]))
    pytest.fail(f"file{number} did not arrive in five attempts:\n{story}")
