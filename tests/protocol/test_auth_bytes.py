"""Promise 1, counted on the wire: no byte of a body meets an answer other than 2xx, whatever the scheme.

Every case uploads 50 MB, twice, through a relay that tells which bytes met which status. The tables are
printed, and written into docs/AUTHENTICATION.md where DAVFS_WRITE_DOCS=1.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest
import trio

from davfs.dav.auth import Scheme
from davfs.dav.client import Client
from davfs.dav.resource import DavPath, ETag
from davfs.errors import (
    DavfsError,
    Locked,
    NoSpace,
    ParentMissing,
    PreconditionFailed,
    TooLarge,
)
from tests.protocol.wire import Content, Wire, source_of, wire_to
from tests.servers import (
    Apache,
    Certificates,
    Exchange,
    LoggedRequest,
    Nginx,
    Relay,
    SabreDav,
    Server,
    WsgiDav,
)

SIZE: Final = 50_000_000
MOST_BYTES_UP: Final = 1.01 * SIZE
PHP: Final = "sabre/dav (PHP)"
_DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "AUTHENTICATION.md"
_rows: dict[str, list[str]] = {"uploads": [], "refusals": []}


def _said(exchanges: list[Exchange] | list[LoggedRequest]) -> str:
    """The requests of one upload, in the order they went out."""
    return ", ".join(f"{one.method} {one.status}{_leg(one)}" for one in exchanges)


def _leg(one: Exchange | LoggedRequest) -> str:
    number = one.ntlm_message if isinstance(one, Exchange) else None
    return f" (leg {number})" if number else ""


@pytest.fixture(scope="module", autouse=True)
def _tables() -> Iterator[None]:
    """Prints the tables at the end, whether or not pytest captures; writes them where that is asked for."""
    yield
    for name, rows in _rows.items():
        if sys.__stdout__ is not None:
            sys.__stdout__.write("\n" + "\n".join(rows) + "\n")
        if os.environ.get("DAVFS_WRITE_DOCS") == "1" and rows:
            _write_table(name, rows)


def _write_table(name: str, rows: list[str]) -> None:
    """Replaces the rows between the two marks of table `name`; its head stays."""
    start, end = f"<!-- table {name} -->\n", f"<!-- end of table {name} -->"
    before, _, rest = _DOCUMENT.read_text().partition(start)
    old, _, after = rest.partition(end)
    head = "".join(old.splitlines(keepends=True)[:2])
    _DOCUMENT.write_text(before + start + head + "".join(f"{row}\n" for row in rows) + end + after)


# --- uploads that the server takes ----------------------------------------------------------------


@dataclass(frozen=True)
class Upload:
    """One row. `first` and `following` are the requests of two uploads, each after a pause of `pause_s`."""

    scheme: str
    server: str
    case: str
    make: Callable[[Certificates], Server]
    auth: Scheme
    first: str
    following: str
    pause_s: float = 0.0
    connects: bool = True  # False: the first upload is the very first thing the server hears
    is_fresh: bool = False  # every connection is closed before the first upload


def _apache(
    auth: str = "basic", *, tls: bool = False, nonce_lifetime_s: int = 300
) -> Callable[[Certificates], Server]:
    return lambda certificates: Apache(
        username="ann",
        password="secret",
        auth=auth,
        nonce_lifetime_s=nonce_lifetime_s,
        certificates=certificates if tls else None,
    )


def _certified(certificates: Certificates) -> Server:
    return Apache(certificates=certificates, client_certificate=True)


def _nginx(_: Certificates) -> Server:
    return Nginx(username="ann", password="secret")


def _wsgidav(auth: str) -> Callable[[Certificates], Server]:
    return lambda _: WsgiDav(username="ann", password="secret", auth=auth)


def _sabre(auth: str) -> Callable[[Certificates], Server]:
    return lambda _: SabreDav(username="ann", password="secret", auth=auth)


# A look at the target first, and as that is new, at its folder: 100 Continue does not prove that a refusal
# would come in time (PHP, cheroot), only a refusal that did come does.
LOOK: Final = "PROPFIND 404, PROPFIND 207, PUT 201"
ASKED: Final = f"PROPFIND 401, {LOOK}"
HANDSHAKE: Final = "PROPFIND 401 (leg 1), PROPFIND 404 (leg 3), PROPFIND 207, PUT 201"
# Apache's 404 brings no nextnonce, so that the look at the target uses the nonce up.
ONE_TIME: Final = "PROPFIND 404, PROPFIND 401, PROPFIND 207, PUT 201"

UPLOADS: Final = (
    Upload("Basic", "Apache", "in use", _apache(), "auto", LOOK, LOOK),
    Upload("Basic", "Apache", "configured, first contact", _apache(), "basic", LOOK, LOOK, connects=False),
    Upload("Basic", "Apache", "found out, first contact", _apache(), "auto", ASKED, LOOK, connects=False),
    Upload("Basic", "nginx", "in use", _nginx, "auto", LOOK, LOOK),
    Upload("Basic", PHP, "in use", _sabre("basic"), "auto", LOOK, LOOK),
    Upload("Basic", PHP, "found out, first contact", _sabre("basic"), "auto", ASKED, LOOK, connects=False),
    Upload("Basic", "WsgiDAV", "in use", _wsgidav("basic"), "auto", LOOK, LOOK),
    Upload("Basic over TLS", "Apache", "in use", _apache(tls=True), "auto", LOOK, LOOK),
    Upload("client certificate", "Apache", "in use", _certified, "none", LOOK, LOOK),
    Upload("Digest", "Apache", "fresh nonce", _apache("digest"), "auto", LOOK, LOOK),
    Upload(
        # one life of the nonce for a whole upload, on a loaded machine too
        "Digest", "Apache", "stale nonce", _apache("digest", nonce_lifetime_s=3), "auto", ASKED, ASKED,
        pause_s=3.2,
    ),
    Upload(
        "Digest", "Apache", "nonce never reused", _apache("digest", nonce_lifetime_s=0), "auto",
        ONE_TIME, ONE_TIME,
    ),
    Upload("Digest", "WsgiDAV", "in use", _wsgidav("digest"), "auto", LOOK, LOOK),
    Upload("Digest", PHP, "in use", _sabre("digest"), "auto", LOOK, LOOK),
    Upload("Digest", PHP, "first contact", _sabre("digest"), "auto", ASKED, LOOK, connects=False),
    Upload("NTLM", "Apache", "in use", _apache("ntlm"), "ntlm", LOOK, LOOK),
    Upload("NTLM", "Apache", "fresh lane", _apache("ntlm"), "ntlm", HANDSHAKE, LOOK, is_fresh=True),
    Upload("Negotiate (NTLM)", "Apache", "in use", _apache("ntlm"), "negotiate", LOOK, LOOK),
    Upload(
        "Negotiate (NTLM)", "Apache", "fresh lane", _apache("ntlm"), "negotiate", HANDSHAKE, LOOK,
        is_fresh=True,
    ),
)  # fmt: skip


@pytest.mark.parametrize("row", UPLOADS, ids=lambda row: f"{row.scheme}-{row.server}-{row.case}")
async def test_an_upload_is_paid_for_once(row: Upload, certificates: Certificates) -> None:
    """50 MB arrive whole, no byte of them met a refusal, and the requests are exactly those named."""
    trust = ssl.create_default_context(cafile=str(certificates.ca))
    if row.auth == "none":
        trust.load_cert_chain(certificates.client)
    username = "" if row.auth == "none" else "ann"
    with row.make(certificates) as server, Relay(server.url) as relay:
        async with wire_to(relay.url, row.auth, username, "secret", tls=trust) as wire:
            if row.connects:
                await wire.client.connect()
            if row.is_fresh:
                relay.close_idle(most=99)
            first = await _one_upload(wire, server, relay, "large1", row.pause_s)
            following = await _one_upload(wire, server, relay, "large2", row.pause_s)
    _judge(row.scheme, row.server, row.case, [first, following], [row.first, row.following])


@dataclass(frozen=True)
class Measured:
    wasted_bytes: int
    ratio: float
    requests: str


async def _one_upload(wire: Wire, server: Server, relay: Relay, name: str, pause_s: float) -> Measured:
    await trio.sleep(pause_s)
    logged = len(server.log_requests())
    relay.forget()
    await wire.client.put(DavPath((name,)), Content(SIZE))
    assert (server.root / name).stat().st_size == SIZE
    ratio = relay.bytes_up / SIZE
    if server.scheme == "http":
        return Measured(relay.wasted_bytes, ratio, _said(relay.exchanges))
    # Through TLS the relay sees bytes only; the server's own record tells what they met.
    asked = server.log_requests()[logged:]
    wasted = sum(one.bytes_in for one in asked if one.method == "PUT" and not 200 <= one.status < 300)
    return Measured(wasted, ratio, _said(asked))


def _judge(scheme: str, server: str, case: str, found: list[Measured], wanted: list[str]) -> None:
    wasted = sum(one.wasted_bytes for one in found)
    ratio = max(one.ratio for one in found)
    words = " | ".join([scheme, server, case, str(wasted), f"{ratio:.4f}", *(one.requests for one in found)])
    _rows["uploads"].append(f"| {words} |")
    assert wasted == 0
    assert ratio * SIZE <= MOST_BYTES_UP
    assert [one.requests for one in found] == wanted


@pytest.mark.parametrize(
    ("opaque", "lifetime_s", "wanted"),
    [
        (False, 600.0, [LOOK, LOOK]),
        (True, 600.0, [LOOK, LOOK]),
        (False, 2.0, [LOOK, LOOK]),  # its own date tells when a new one is needed
        (True, 2.0, [ASKED, ASKED]),
    ],
    ids=["JWT", "opaque", "JWT-expired", "opaque-expired"],
)
async def test_an_upload_with_a_token(*, opaque: bool, lifetime_s: float, wanted: list[str]) -> None:
    """A token that ended is replaced before the body: by its own date, or because the look was refused."""
    with WsgiDav(auth="bearer") as server, Relay(server.url) as relay:
        tokens = source_of(lambda: server.bearer_token(lifetime_s, opaque=opaque))
        async with wire_to(relay.url, "bearer", tokens=tokens) as wire:
            await wire.client.connect()
            pause_s = 2.2 if lifetime_s < 10 else 0.0
            found = [await _one_upload(wire, server, relay, name, pause_s) for name in ("large1", "large2")]
    case = f"{'opaque token' if opaque else 'JWT'}, {'expired' if pause_s else 'in use'}"
    _judge("Bearer", "WsgiDAV", case, found, wanted)


@pytest.mark.parametrize(
    ("make", "auth"),
    [
        (_apache(tls=True), "auto"),
        (_apache("digest"), "auto"),
        (_apache("ntlm"), "ntlm"),
        (_sabre("basic"), "auto"),
    ],
    ids=["Basic over TLS", "Digest", "NTLM", "PHP"],
)
async def test_a_small_file_is_one_request(
    make: Callable[[Certificates], Server], auth: Scheme, certificates: Certificates
) -> None:
    """In use, one new small file costs exactly one PUT: not one request more than needed."""
    trust = ssl.create_default_context(cafile=str(certificates.ca))
    with make(certificates) as server:
        async with wire_to(server.url, auth, "ann", "secret", tls=trust) as wire:
            await wire.client.connect()
            before = len(server.log_requests())
            for number in range(3):
                await wire.client.put(DavPath((f"small{number}",)), Content(10_000))
            assert _said(server.log_requests()[before:]) == "PUT 201, PUT 201, PUT 201"


async def test_a_server_that_has_refused_in_time_is_trusted() -> None:
    """Apache said 409 before a body: from then on a large upload is one request, with Expect."""
    with Apache(username="ann", password="secret") as server, Relay(server.url) as relay:
        async with wire_to(relay.url, "auto", "ann", "secret") as wire:
            await wire.client.connect()
            with pytest.raises(ParentMissing):
                await wire.client.put(DavPath(("gone", "middling")), Content(500_000))
            relay.forget()
            await wire.client.put(DavPath(("large",)), Content(SIZE))
            with pytest.raises(ParentMissing):
                await wire.client.put(DavPath(("gone", "large")), Content(SIZE))
        assert _said(relay.exchanges) == "PUT 201, PUT 409"
        assert relay.wasted_bytes == 0


# --- uploads that the server refuses --------------------------------------------------------------


async def _over_another_version(client: Client, server: Server) -> None:
    _put_theirs(server)
    await client.put(DavPath(("taken",)), Content(SIZE), if_match=ETag("not-this-one"))


async def _onto_a_name_taken(client: Client, server: Server) -> None:
    _put_theirs(server)
    await client.put(DavPath(("taken",)), Content(SIZE), if_none_match=True)


async def _below_nothing(client: Client, _: Server) -> None:
    await client.put(DavPath(("gone", "large")), Content(SIZE))


async def _too_much(client: Client, _: Server) -> None:
    await client.put(DavPath(("large",)), Content(SIZE))


async def _onto_a_lock(client: Client, server: Server) -> None:
    _put_theirs(server)
    body = (
        '<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>'
    )
    async with httpx.AsyncClient(trust_env=False, auth=("ann", "secret")) as other:
        headers = {"Depth": "0", "Timeout": "Second-60"}
        answer = await other.request("LOCK", server.url + "taken", content=body, headers=headers)
    assert answer.status_code == 200
    await client.put(DavPath(("taken",)), Content(SIZE))


def _put_theirs(server: Server) -> None:
    (server.root / "taken").write_bytes(b"theirs")
    server.own(server.root)


@dataclass(frozen=True)
class Refusal:
    """One row. `after` is what the server answers to the body where nothing told of it before; see `why`."""

    case: str
    server: str
    make: Callable[[], Server]
    attempt: Callable[[Client, Server], Awaitable[None]]
    error: type[DavfsError]
    requests: str
    wasted_bytes: int = 0
    why: str = ""


def _small_apache() -> Server:
    return Apache(username="ann", password="secret", limit_request_body=1_000_000)


def _small_nginx() -> Server:
    return Nginx(username="ann", password="secret", max_body="1m")


def _small_sabre() -> Server:
    return SabreDav(username="ann", password="secret", max_body="1m")


def _full_sabre() -> Server:
    return SabreDav(username="ann", password="secret", quota_bytes=1_000_000)


_SERVERS: Final[dict[str, Callable[[], Server]]] = {
    "Apache": lambda: Apache(username="ann", password="secret"),
    "nginx": lambda: Nginx(username="ann", password="secret"),
    "WsgiDAV": lambda: WsgiDav(username="ann", password="secret"),
    PHP: lambda: SabreDav(username="ann", password="secret"),
}
_FOUND: Final = "PROPFIND 207"
_TOO_LARGE: Final = "PROPFIND 404, PROPFIND 207, PUT 413"

REFUSALS: Final = (
    *(
        Refusal("412, other version", name, _SERVERS[name], _over_another_version, PreconditionFailed, _FOUND)
        for name in ("Apache", "WsgiDAV", PHP)
    ),
    *(
        Refusal("412, name taken", name, make, _onto_a_name_taken, PreconditionFailed, _FOUND)
        for name, make in _SERVERS.items()
    ),
    *(Refusal("423, locked", name, make, _onto_a_lock, Locked, _FOUND) for name, make in _SERVERS.items()),
    *(
        Refusal("409, parent gone", name, make, _below_nothing, ParentMissing, "PROPFIND 404, PROPFIND 404")
        for name, make in _SERVERS.items()
    ),
    Refusal("413, too large", "Apache", _small_apache, _too_much, TooLarge, _TOO_LARGE),
    Refusal("413, too large", "nginx", _small_nginx, _too_much, TooLarge, _TOO_LARGE),
    Refusal("413, too large", PHP, _small_sabre, _too_much, TooLarge, _TOO_LARGE),
    Refusal("507, no space", PHP, _full_sabre, _too_much, NoSpace, "PROPFIND 404, PROPFIND 207"),
)  # fmt: skip


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: f"{row.case}-{row.server}")
async def test_a_refusal_later_on_comes_before_the_body_too(row: Refusal) -> None:
    """The same after uploads that went well: 100 Continue does not prove that a refusal would be in time."""
    with row.make() as server, Relay(server.url) as relay:
        async with wire_to(relay.url, "basic", "ann", "secret") as wire:
            await wire.client.connect()
            for number in range(3):
                await wire.client.put(DavPath((f"well{number}",)), Content(500_000))
            relay.forget()
            with pytest.raises(row.error):
                await row.attempt(wire.client, server)
        assert relay.wasted_bytes == row.wasted_bytes, _said(relay.exchanges)


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: f"{row.case}-{row.server}")
async def test_a_refusal_comes_before_the_body(row: Refusal) -> None:
    """What a server can say before the body costs none of it; what it cannot is named in the table."""
    with row.make() as server, Relay(server.url) as relay:
        async with wire_to(relay.url, "basic", "ann", "secret") as wire:
            await wire.client.connect()
            relay.forget()
            with pytest.raises(row.error):
                await row.attempt(wire.client, server)
        said = _said(relay.exchanges)
        _rows["refusals"].append(f"| {row.case} | {row.server} | {relay.wasted_bytes} | {said} | {row.why} |")
        assert relay.wasted_bytes == row.wasted_bytes
        assert said == row.requests
