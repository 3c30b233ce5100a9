"""Which of our dead properties are in use: told on the share's root, on every server that can be started."""

from __future__ import annotations

from collections import Counter

from davfs.dav.client import Client
from davfs.dav.properties import KEPT, MTIME
from davfs.dav.proppatch import PropertyChange
from davfs.dav.resource import ROOT
from davfs.fs.marker import Marker
from tests.protocol.wire import wire_to
from tests.servers import Share

KEEPS_NOTHING = {"nginx", "rclone"}  # 405 to PROPPATCH


async def connected(client: Client) -> Marker:
    marker = Marker(client)
    marker.learn(await client.connect())
    return marker


async def test_the_first_who_uses_a_property_tells_the_others(locking_share: Share) -> None:
    """From then on all clients ask for it; where the server keeps none, nobody does."""
    async with wire_to(locking_share.url, "none") as ours, wire_to(locking_share.url, "none") as theirs:
        marker = await connected(ours.client)
        assert not marker.in_use
        begun = await marker.begin("mtime")
        assert begun == (locking_share.name not in KEEPS_NOTHING)
        assert ours.client.extras == (frozenset({MTIME}) if begun else frozenset())
        assert (await connected(theirs.client)).in_use == marker.in_use
        assert theirs.client.extras == ours.client.extras


async def test_a_refusal_is_asked_for_once(share: Share) -> None:
    """One PROPPATCH for a whole mount, kept or not; what is in use costs nothing more."""
    async with wire_to(share.url, "none") as wire:
        marker = await connected(wire.client)
        share.forget_requests()
        for _ in range(3):
            await marker.begin("symlink")
        found = Counter(request.method for request in share.log_requests())
        assert found["PROPPATCH"] == 1
        assert found["PROPFIND"] <= 2


async def test_words_of_others_stay(apache_share: Share) -> None:
    """Of another client that began meanwhile, and of a newer version of davfs."""
    async with wire_to(apache_share.url, "none") as wire:
        client = wire.client
        marker = await connected(client)
        told: list[bool] = []
        marker.widened = lambda: told.append(True)
        await client.proppatch(ROOT, [PropertyChange(KEPT, "mtime later")], is_collection=True)
        assert await marker.begin("xattr")
        assert marker.in_use == {"later", "mtime", "xattr"}
        assert told == [True]  # what was known of files is without the time: the caller looks again
        assert (await connected(client)).in_use == marker.in_use


async def test_a_listing_of_the_root_does_not_ask_its_members(apache_share: Share) -> None:
    """It would cost each of them a property that only the root can have."""
    apache_share.write("a", b"x")
    async with wire_to(apache_share.url, "none") as wire:
        marker = await connected(wire.client)
        await marker.begin("xattr")
        listing = await wire.client.list(ROOT)
        assert not listing.itself.extras
        assert not listing.members["a"].extras
