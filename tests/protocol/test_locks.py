"""Locks and conditions on real servers: what the client's verbs promise, on each that can be started."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from davfs.dav.client import Client
from davfs.dav.locks import LockToken
from davfs.dav.resource import ROOT, DavPath, ETag
from davfs.dav.wire import Octets
from davfs.errors import DavfsError, Locked, NotFound, PreconditionFailed
from davfs.fs.grants import LOCK_FIRST_S, LOCK_TIMEOUT_S
from davfs.fs.handles import Handles
from davfs.fs.index import Index
from davfs.fs.locks import Locks
from tests.protocol.wire import Content, wire_to
from tests.servers import Rclone, Relay, Share, WsgiDav
from tests.servers.meter import Exchange, Moment
from tests.servers.relay import Verdict

OWNER = "ann on lab <1> é"
NAMES_NO_OWNER = {"nginx", "lighttpd"}
SHOWS_NO_LOCKS = {"rclone"}
IGNORES_CONDITIONS = {"nginx", "rclone"}
HONOURS_DESTINATION_TAG = {"apache", "sabredav"}
MOVE_ENDS_LOCK = {"wsgidav"}
WRITES_IN_PLACE = {"wsgidav", "rclone"}


def at(name: str) -> DavPath:
    return ROOT.child(name)


@asynccontextmanager
async def client_of(share: Share) -> AsyncIterator[Client]:
    async with wire_to(share.url, "none") as wire:
        await wire.client.connect()
        yield wire.client


@asynccontextmanager
async def locks_of(client: Client, folder: Path) -> AsyncIterator[Locks]:
    index = Index(str(folder / "cache"))
    try:
        yield Locks(client, index, Handles(), "auto")
    finally:
        index.close()


async def refusal_of(client: Client, name: str, token: LockToken | None = None) -> type[DavfsError] | None:
    """How a PUT is refused; None when it is not."""
    try:
        await client.put(at(name), Content(5), lock_token=token)
    except DavfsError as error:
        return type(error)
    return None


async def test_a_lock_keeps_others_out_until_it_is_given_back(locking_share: Share) -> None:
    """A second LOCK and a PUT without the token are Locked; with it the PUT works; after UNLOCK all do."""
    locking_share.write("a.txt", b"x")
    async with client_of(locking_share) as ours, client_of(locking_share) as theirs:
        lock = await ours.lock(at("a.txt"), OWNER, 600)
        assert not lock.created
        assert 30 <= lock.timeout_s <= 3600
        with pytest.raises(Locked):
            await theirs.lock(at("a.txt"), "somebody else", 600)
        assert await refusal_of(theirs, "a.txt") is Locked
        assert await refusal_of(ours, "a.txt", lock.token) is None
        await ours.unlock(at("a.txt"), lock.token)
        assert await refusal_of(theirs, "a.txt") is None


async def test_the_holder_is_told_as_far_as_the_server_tells(locking_share: Share) -> None:
    """The owner's text, "" where the server keeps it to itself; no lock before there is one."""
    locking_share.write("a.txt", b"x")
    async with client_of(locking_share) as ours, client_of(locking_share) as theirs:
        assert not await theirs.active_locks(at("a.txt"))
        lock = await ours.lock(at("a.txt"), OWNER, 600)
        told = [lock.owner for lock in await theirs.active_locks(at("a.txt"))]
        await ours.unlock(at("a.txt"), lock.token)
    if locking_share.name in SHOWS_NO_LOCKS:
        assert told == []
    elif locking_share.name in NAMES_NO_OWNER:
        assert told == [""]
    else:
        assert told == [OWNER]


async def test_refreshing_keeps_the_token(locking_share: Share) -> None:
    """A refresh gives the same token and a new time; of a lock that is gone it gives no such thing."""
    locking_share.write("a.txt", b"x")
    async with client_of(locking_share) as client:
        lock = await client.lock(at("a.txt"), OWNER, 600)
        again = await client.refresh_lock(at("a.txt"), lock.token, 600)
        assert again.token == lock.token
        assert again.timeout_s >= 30
        await client.unlock(at("a.txt"), lock.token)
        try:
            other = await client.refresh_lock(at("a.txt"), lock.token, 600)
        except DavfsError:
            return
        # nginx takes it for a first LOCK; lighttpd answers 200 to any token and grants nothing
        assert locking_share.name in {"nginx", "lighttpd"}
        if locking_share.name == "nginx":
            assert other.token != lock.token
            await client.unlock(at("a.txt"), other.token)


async def test_unlocking_what_is_not_locked_is_quiet(locking_share: Share) -> None:
    """400, 404, 409 or 204 to a second UNLOCK: whatever the server says, the lock is gone."""
    locking_share.write("a.txt", b"x")
    async with client_of(locking_share) as client:
        lock = await client.lock(at("a.txt"), OWNER, 600)
        await client.unlock(at("a.txt"), lock.token)
        await client.unlock(at("a.txt"), lock.token)


async def test_of_four_that_lock_a_free_name_one_wins(locking_share: Share) -> None:
    """LOCK of a name that is free makes exactly one winner, who can write it."""
    granted: list[LockToken] = []
    refused: list[DavfsError] = []
    # sabre/dav's File backend reads all locks, then writes them: of two in the same millisecond both win
    at_once = trio.CapacityLimiter(1 if locking_share.name == "sabredav" else 4)

    async def race(client: Client) -> None:
        async with at_once:
            try:
                granted.append((await client.lock(at("new.txt"), OWNER, 600)).token)
            except Locked as error:
                refused.append(error)

    async with client_of(locking_share) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(race, client)
        assert (len(granted), len(refused)) == (1, 3)
        assert await refusal_of(client, "new.txt", granted[0]) is None
        await client.unlock(at("new.txt"), granted[0])
    assert (locking_share.root / "new.txt").stat().st_size == 5


async def test_what_a_lock_of_a_free_name_leaves_behind(locking_share: Share) -> None:
    """After UNLOCK an empty file stays, which `created` told, or nothing (Apache)."""
    async with client_of(locking_share) as client:
        lock = await client.lock(at("new.txt"), OWNER, 600)
        await client.unlock(at("new.txt"), lock.token)
        try:
            left = await client.stat(at("new.txt"))
        except NotFound:
            assert not lock.created
            return
    assert lock.created
    assert left.size_bytes == 0


async def test_a_locked_file_is_deleted_with_its_token(locking_share: Share) -> None:
    """DELETE takes the token in the tagged form everywhere; UNLOCK first or after, the name is free then."""
    locking_share.write("a.txt", b"x")
    async with client_of(locking_share) as client:
        lock = await client.lock(at("a.txt"), OWNER, 600)
        await client.delete(at("a.txt"), is_collection=False, lock_token=lock.token)
        await client.unlock(at("a.txt"), lock.token)  # it survives on rclone and sabre/dav 1.8
        assert await refusal_of(client, "a.txt") is None


@pytest.mark.parametrize("name", ["50% 35.dat", "é.txt"])
async def test_a_name_that_has_to_be_encoded_is_written_under_its_lock(
    locking_share: Share, name: str
) -> None:
    """PUT and DELETE with the token in the form that this server understands (nginx: without the URL)."""
    locking_share.write(name, b"old")
    async with client_of(locking_share) as client:
        lock = await client.lock(at(name), OWNER, 600)
        await client.put(at(name), Octets(b"new"), lock_token=lock.token)
        assert (locking_share.root / name).read_bytes() == b"new"
        await client.delete(at(name), is_collection=False, lock_token=lock.token)
        await client.unlock(at(name), lock.token)


async def test_a_staged_upload_moves_onto_a_locked_file(locking_share: Share) -> None:
    """MOVE of a temporary name onto a locked file needs the token of the destination, and then works."""
    locking_share.write("a.txt", b"old")
    locking_share.write("t.txt", b"staged")
    async with client_of(locking_share) as client:
        lock = await client.lock(at("a.txt"), OWNER, 600)
        with pytest.raises(Locked):
            await client.move(at("t.txt"), at("a.txt"), is_collection=False, overwrite=True)
        token: LockToken | None = lock.token
        if not client.capabilities.moves_onto_locked("a"):
            assert locking_share.name == "lighttpd"
            with pytest.raises(PreconditionFailed):
                await client.move(
                    at("t.txt"), at("a.txt"), is_collection=False, overwrite=True, dest_lock_token=token
                )
            await client.unlock(at("a.txt"), lock.token)
            token = None
        await client.move(
            at("t.txt"), at("a.txt"), is_collection=False, overwrite=True, dest_lock_token=token
        )
        still_locked = await client.unlock(at("a.txt"), lock.token)
        assert still_locked is (token is not None and locking_share.name not in MOVE_ENDS_LOCK)
        assert await refusal_of(client, "a.txt") is None


async def test_a_lock_of_a_minute_ends_within_a_minute(locking_share: Share) -> None:
    """Asked for 60 s, and refreshed to more: what a lost answer costs, and where it is longer (sabre/dav)."""
    locking_share.write("a.txt", b"x")
    async with client_of(locking_share) as client:
        lock = await client.lock(at("a.txt"), OWNER, LOCK_FIRST_S)
        assert lock.timeout_s <= (1800 if locking_share.name == "sabredav" else LOCK_FIRST_S)
        longer = await client.refresh_lock(at("a.txt"), lock.token, LOCK_TIMEOUT_S)
        assert longer.token == lock.token
        assert longer.timeout_s >= (60 if locking_share.name == "nginx" else LOCK_TIMEOUT_S - 2)
        await client.unlock(at("a.txt"), lock.token)


async def test_a_lock_whose_answer_was_lost_is_found_where_it_can_be(
    locking_share: Share, tmp_path: Path
) -> None:
    """The connection breaks in the answer to LOCK: where owner and token are shown, it is ours at once."""
    locking_share.write("a.txt", b"x")
    lost: list[str] = []

    def watch(moment: Moment, exchange: Exchange) -> Verdict:
        if (moment, exchange.method) == ("answer", "LOCK") and not lost:
            lost.append(exchange.target)
            return "drop"
        return "pass"

    with Relay(locking_share.url, watch=watch) as relay:
        async with wire_to(relay.url, "none") as wire, locks_of(wire.client, tmp_path) as locks:
            await wire.client.connect()
            shown = locking_share.name in {"apache", "wsgidav"}
            if shown:
                async with locks.around(at("a.txt")) as token:
                    assert token is not None
            else:
                with pytest.raises(DavfsError):
                    async with locks.around(at("a.txt")):
                        raise AssertionError("nobody can know whose it is")
            assert locks.is_doubtful(at("a.txt")) is not shown
            assert (await refusal_of(wire.client, "a.txt")) is (None if shown else Locked)
    assert lost


async def test_a_file_is_moved_after_its_lock_was_given_back(locking_share: Share) -> None:
    """UNLOCK, then MOVE: the order that works everywhere (rclone cannot move a locked file)."""
    locking_share.write("a.txt", b"x")
    async with client_of(locking_share) as client:
        lock = await client.lock(at("a.txt"), OWNER, 600)
        if isinstance(locking_share.server, Rclone):
            with pytest.raises(PreconditionFailed):
                await client.move(
                    at("a.txt"), at("b.txt"), is_collection=False, overwrite=False, lock_token=lock.token
                )
        await client.unlock(at("a.txt"), lock.token)
        await client.move(at("a.txt"), at("b.txt"), is_collection=False, overwrite=False)
    assert (locking_share.root / "b.txt").exists()


async def test_capabilities_say_what_conditions_do(locking_share: Share) -> None:
    """What quirks knows of conditions on PUT and MOVE is what the server does with a wrong tag."""
    locking_share.write("a.txt", b"old")
    locking_share.write("t.txt", b"staged")
    wrong = ETag("no-such-version")
    async with client_of(locking_share) as client:
        if not client.capabilities.move_condition_honoured:
            assert locking_share.name not in HONOURS_DESTINATION_TAG
        else:
            with pytest.raises(PreconditionFailed):
                await client.move(
                    at("t.txt"), at("a.txt"), is_collection=False, overwrite=True, dest_if_match=wrong
                )
            assert (locking_share.root / "a.txt").read_bytes() == b"old"
            right = (await client.stat(at("a.txt"))).etag
            await client.move(
                at("t.txt"), at("a.txt"), is_collection=False, overwrite=True, dest_if_match=right
            )
            assert (locking_share.root / "a.txt").read_bytes() == b"staged"
        try:
            await client.put(at("a.txt"), Content(5), if_match=wrong)
            honoured = False
        except PreconditionFailed:
            honoured = True
        assert honoured is (locking_share.name not in IGNORES_CONDITIONS)
        assert client.capabilities.conditions == ("honoured" if honoured else "ignored")


async def test_capabilities_say_who_writes_in_place(locking_share: Share) -> None:
    """A PUT that is cut half way leaves the old file whole, unless quirks said that it would not."""
    locking_share.write("a.txt", b"old")
    with Relay(locking_share.url) as relay:
        async with wire_to(relay.url, "none") as wire:
            await wire.client.connect()
            in_place = wire.client.capabilities.whole_up_to_bytes == 0
            relay.cut_after(up=300_000)
            with pytest.raises(DavfsError):
                await wire.client.put(at("a.txt"), Content(2_000_000))
    await trio.sleep(0.3)
    whole = (locking_share.root / "a.txt").read_bytes() == b"old"
    assert in_place is (locking_share.name in WRITES_IN_PLACE)
    assert whole or in_place


async def test_a_connection_that_ends_before_the_answer_tears_no_file_we_put_directly(
    locking_share: Share,
) -> None:
    """All of the body is out, then the connection ends: a file that is not staged is whole, or as before."""
    async with client_of(locking_share) as client:
        most = client.capabilities.whole_up_to_bytes
    url = urlsplit(locking_share.url)
    sizes = {f"f{size}-{n}": size for size in (1000, 60_000, 2_000_000) for n in range(5) if size <= most}
    for name, size in sizes.items():
        locking_share.write(name, b"old")
        head = f"PUT {url.path}{name} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {size}\r\n\r\n"
        async with await trio.open_tcp_stream(url.hostname or "", url.port or 80) as stream:
            await stream.send_all(head.encode() + b"n" * size)
    await trio.sleep(1)
    for name, size in sizes.items():
        assert (locking_share.root / name).stat().st_size in {3, size}, name


async def test_only_one_timeout_value_goes_out(wsgidav_share: Share) -> None:
    """`Timeout` is one Second-N, on LOCK and on refresh: a list hangs lighttpd for good."""
    assert isinstance(wsgidav_share.server, WsgiDav)
    wsgidav_share.write("a.txt", b"x")
    with Relay(wsgidav_share.url) as relay:
        async with wire_to(relay.url, "none") as wire:
            lock = await wire.client.lock(at("a.txt"), OWNER, 90.5)
            await wire.client.refresh_lock(at("a.txt"), lock.token, 90.5)
            await wire.client.unlock(at("a.txt"), lock.token)
    assert re.fullmatch(r"\S+", lock.token.text)
    assert 80 <= lock.timeout_s <= 91
