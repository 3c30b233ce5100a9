"""The servers that authenticate: each refuses and accepts as its kind does, and the relay tells."""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Iterator

import httpx
import pytest
import spnego

from tests.servers import Apache, Certificates, Relay, SabreDav, WsgiDav

PROPFIND = {"Depth": "0"}


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10, trust_env=False) as client:
        yield client


def _leg(http: httpx.Client, url: str, scheme: str, token: bytes | None) -> httpx.Response:
    given = f"{scheme} {base64.b64encode(token or b'').decode()}"
    return http.request("PROPFIND", url, headers={**PROPFIND, "Authorization": given})


def _challenge(answer: httpx.Response, scheme: str) -> bytes:
    offers = answer.headers.get_list("www-authenticate")
    token = next(offer.split(" ")[1] for offer in offers if offer.startswith(f"{scheme} "))
    return base64.b64decode(token)


@pytest.mark.parametrize("scheme", ["NTLM", "Negotiate"])
def test_ntlm_authenticates_the_connection(http: httpx.Client, scheme: str) -> None:
    """Two legs on one connection; after them requests on it need nothing, and on another one everything."""
    with Apache(username="ann", password="secret", auth="ntlm") as server, Relay(server.url) as relay:
        refused = http.request("PROPFIND", relay.url, headers=PROPFIND)
        assert refused.status_code == 401
        assert refused.headers.get_list("www-authenticate") == ["Negotiate", "NTLM"]
        protocol = "ntlm" if scheme == "NTLM" else "negotiate"
        context = spnego.client("LAB\\ann", "secret", hostname="127.0.0.1", service="HTTP", protocol=protocol)
        first = _leg(http, relay.url, scheme, context.step())
        assert first.status_code == 401
        assert _leg(http, relay.url, scheme, context.step(_challenge(first, scheme))).status_code == 207
        assert http.put(relay.url + "a", content=b"x" * 1000).status_code == 201
        with httpx.Client(trust_env=False) as other:
            assert other.put(relay.url + "b", content=b"x" * 1000).status_code == 401
        seen = [(one.connection, one.ntlm_message, one.body_bytes, one.status) for one in relay.exchanges]
        assert seen == [
            (1, None, 0, 401),
            (1, 1, 0, 401),
            (1, 3, 0, 207),
            (1, None, 1000, 201),
            (2, None, 1000, 401),
        ]
        assert relay.wasted_bytes == 1000


def test_a_nonce_grows_old(http: httpx.Client) -> None:
    """mod_auth_digest refuses a nonce that is older than its life with stale=true."""
    with Apache(username="ann", password="secret", auth="digest", nonce_lifetime_s=2) as server:
        auth = httpx.DigestAuth("ann", "secret")
        assert http.put(server.url + "a", content=b"x", auth=auth).status_code == 201
        time.sleep(2.1)
        request = http.build_request("PUT", server.url + "a", content=b"y")
        flow = auth.auth_flow(request)
        answer = http.send(next(flow))
        assert answer.status_code == 401
        assert "stale=true" in answer.headers["www-authenticate"]


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_php_refuses_after_the_body(http: httpx.Client, auth: str) -> None:
    """sabre/dav behind nginx: 100 Continue, the whole body, and only then 401."""
    with SabreDav(username="ann", password="secret", auth=auth) as server, Relay(server.url) as relay:
        expect = {"Expect": "100-continue"}
        assert http.put(relay.url + "a", content=b"x" * 300_000, headers=expect).status_code == 401
        (refused,) = relay.exchanges
        assert (refused.continued, refused.wasted_bytes) == (True, 300_000)
        login = ("ann", "secret") if auth == "basic" else httpx.DigestAuth("ann", "secret")
        assert http.put(relay.url + "a", content=b"x" * 300_000, auth=login).status_code == 201
        assert (server.root / "a").stat().st_size == 300_000
        listing = http.request("PROPFIND", relay.url, headers={"Depth": "1"}, auth=login)
        assert listing.status_code == 207
        assert "/a<" in listing.text


def test_php_has_a_quota(http: httpx.Client) -> None:
    """quota-available-bytes says what a PUT may bring, and 507 is the answer to more."""
    with SabreDav(quota_bytes=1000) as server:
        ask = '<propfind xmlns="DAV:"><prop><quota-available-bytes/></prop></propfind>'
        listing = http.request("PROPFIND", server.url, headers=PROPFIND, content=ask)
        assert ">1000<" in listing.text
        assert http.put(server.url + "a", content=b"x" * 1001).status_code == 507
        assert http.put(server.url + "a", content=b"x" * 1000).status_code == 201


@pytest.mark.parametrize("opaque", [False, True])
def test_bearer_tokens_expire(http: httpx.Client, opaque: bool) -> None:
    """Without a token, with a wrong one and with an old one: 401; with a good one the share is open."""
    with WsgiDav(auth="bearer") as server:
        for token, status in [
            (None, 401),
            ("wrong", 401),
            (server.bearer_token(-1, opaque=opaque), 401),
            (server.bearer_token(60, opaque=opaque), 201),
        ]:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            answer = http.put(server.url + "a", content=b"x", headers=headers)
            assert answer.status_code == status
            if status == 401:
                assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_client_certificate_is_demanded(certificates: Certificates) -> None:
    """Without one the handshake fails; with one requests pass, and the relay leaves TLS alone."""
    trust = ssl.create_default_context(cafile=str(certificates.ca))
    with (
        Apache(certificates=certificates, client_certificate=True) as server,
        Relay(server.url) as relay,
    ):
        with httpx.Client(verify=trust, trust_env=False) as http, pytest.raises(httpx.TransportError):
            http.request("PROPFIND", relay.url, headers=PROPFIND)
        trust.load_cert_chain(certificates.client)
        with httpx.Client(verify=trust, trust_env=False) as http:
            assert http.put(relay.url + "a", content=b"x").status_code == 201
        assert relay.exchanges == []


def test_tls_asks_for_a_password_too(certificates: Certificates) -> None:
    """Basic over TLS, with a certificate that names 127.0.0.1."""
    trust = ssl.create_default_context(cafile=str(certificates.ca))
    with (
        Apache(username="ann", password="secret", certificates=certificates) as server,
        httpx.Client(verify=trust, trust_env=False) as http,
    ):
        assert http.put(server.url + "a", content=b"x").status_code == 401
        assert http.put(server.url + "a", content=b"x", auth=("ann", "secret")).status_code == 201


def test_the_relay_tells_chunks_and_answers_apart(http: httpx.Client) -> None:
    """Chunked bodies are counted without their framing; exchanges on one connection keep their order."""
    with WsgiDav() as server, Relay(server.url) as relay:
        assert http.put(relay.url + "a", content=iter([b"abc", b"defg"])).status_code == 201
        assert http.get(relay.url + "a").content == b"abcdefg"
        assert http.head(relay.url + "a").status_code == 200
        assert http.delete(relay.url + "a").status_code == 204
        assert http.get(relay.url + "a").status_code == 404
        assert [(one.method, one.body_bytes, one.status) for one in relay.exchanges] == [
            ("PUT", 7, 201),
            ("GET", 0, 200),
            ("HEAD", 0, 200),
            ("DELETE", 0, 204),
            ("GET", 0, 404),
        ]
        assert relay.connections == 1
