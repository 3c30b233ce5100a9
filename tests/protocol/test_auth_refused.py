"""Wrong credentials: a bounded number of requests, one clear error, and silence until they change."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from davfs.dav.auth import Credentials, Scheme
from davfs.dav.resource import DavPath
from davfs.errors import Unauthorized
from tests.protocol.wire import Content, source_of, wire_to
from tests.servers import Apache, Relay, SabreDav, Server, WsgiDav

OPERATIONS = 50


def _apache(auth: str) -> Callable[[], Server]:
    return lambda: Apache(username="ann", password="secret", auth=auth)


@pytest.mark.parametrize(
    ("make", "scheme", "most"),
    [
        (_apache("basic"), "basic", 1),
        (_apache("basic"), "auto", 2),
        (_apache("digest"), "digest", 2),
        (_apache("digest"), "auto", 2),
        (_apache("ntlm"), "ntlm", 2),
        (_apache("ntlm"), "auto", 3),
        (_apache("ntlm"), "negotiate", 3),
        (lambda: WsgiDav(username="ann", password="secret", auth="digest"), "auto", 2),
        (lambda: SabreDav(username="ann", password="secret", auth="basic"), "basic", 1),
        (lambda: SabreDav(username="ann", password="secret", auth="digest"), "auto", 2),
    ],
)
async def test_a_wrong_password_is_tried_once(make: Callable[[], Server], scheme: Scheme, most: int) -> None:
    """At most 1 (Basic), 2 (Digest) or 3 (NTLM) requests, EACCES, and then none in 50 further operations."""
    with make() as server, Relay(server.url) as relay:
        async with wire_to(relay.url, scheme, "ann", "wrong") as wire:
            with pytest.raises(Unauthorized) as caught:
                await wire.client.connect()
            assert caught.value.errno == errno.EACCES
            assert "127.0.0.1 refused the user name or the password" in str(caught.value)
            assert "wrong" not in str(caught.value)
            assert len(relay.exchanges) <= most, "\n".join(map(str, relay.exchanges))
            asked = len(relay.exchanges)
            for _ in range(OPERATIONS // 2):
                with pytest.raises(Unauthorized):
                    await wire.client.stat(DavPath(("a",)))
                with pytest.raises(Unauthorized):
                    await wire.client.put(DavPath(("a",)), Content(100_000))
            assert len(relay.exchanges) == asked, "\n".join(map(str, relay.exchanges))
            states = [wire.auth.state]
            wire.auth.replace(Credentials("ann", "secret"))
            await wire.client.connect()
            assert [*states, wire.auth.state] == ["refused", "accepted"]
        assert relay.wasted_bytes == 0


@pytest.mark.parametrize("auth", ["basic", "digest", "ntlm"])
async def test_a_password_that_changes_is_noticed_and_waited_for(auth: str) -> None:
    """In use: the old password stops at once and for good, the new one goes on, and no body was wasted."""
    with Apache(username="ann", password="secret", auth=auth) as server, Relay(server.url) as relay:
        async with wire_to(relay.url, "auto", "ann", "secret") as wire:
            await wire.client.connect()
            await wire.client.put(DavPath(("a",)), Content(100_000))
            server.set_password("changed")
            relay.drop()  # what NTLM authenticated stays so until its connection ends
            with pytest.raises(Unauthorized):
                await wire.client.put(DavPath(("a",)), Content(100_000))
            assert wire.auth.state == "refused"
            asked = len(relay.exchanges)
            for _ in range(OPERATIONS):
                with pytest.raises(Unauthorized):
                    await wire.client.stat(DavPath(("a",)))
            assert len(relay.exchanges) == asked
            wire.auth.replace(Credentials("ann", "changed"))
            await wire.client.put(DavPath(("b",)), Content(100_000))
        assert (server.root / "b").read_bytes() == Content(100_000).read()
        assert relay.wasted_bytes == 0, "\n".join(map(str, relay.exchanges))


async def test_a_token_that_nobody_renews_is_given_up() -> None:
    """The source has only the refused token: two requests at most, then silence."""
    with WsgiDav(auth="bearer") as server, Relay(server.url) as relay:
        tokens = source_of(lambda: "not-a-token")
        async with wire_to(relay.url, "bearer", tokens=tokens) as wire:
            for _ in range(OPERATIONS):
                with pytest.raises(Unauthorized):
                    await wire.client.connect()
        assert len(relay.exchanges) <= 2
