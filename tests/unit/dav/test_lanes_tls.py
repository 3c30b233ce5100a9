"""TLS of the lanes: authorities, pins, client certificates as PEM and PKCS#12, channel binding."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from davfs.dav.lanes import LaneSettings, Proxies, tls_context
from davfs.dav.lanes.tls import end_point_binding
from davfs.dav.wire import link_error
from davfs.errors import ConfigError, Unreachable
from tests.unit.dav.peer import Line, ask, lanes_to, serving


@dataclass(frozen=True)
class Identity:
    pem: Path
    p12: Path
    der: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.der).hexdigest()


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """A self-signed certificate for 127.0.0.1, that serves as server's and as client's."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "davfs test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "both.pem").write_bytes(pem)
    encryption = serialization.BestAvailableEncryption(b"geheim")
    (folder / "both.p12").write_bytes(
        pkcs12.serialize_key_and_certificates(b"x", key, certificate, None, encryption)
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    return Identity(folder / "both.pem", folder / "both.p12", der)


def _server(identity: Identity, *, wants_client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.pem)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if wants_client:
        context.load_verify_locations(identity.pem)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def _polite(line: Line) -> None:
    while await line.request():
        assert isinstance(line.stream, trio.SSLStream)
        await line.answer(207, str(line.stream.selected_alpn_protocol()).encode())


async def test_trust(identity: Identity) -> None:
    """A given authority is believed; the system's are not enough; only http/1.1 is offered."""
    async with serving(_polite, _server(identity)) as peer:
        async with lanes_to(peer, settings=LaneSettings(tls=tls_context(cacert=str(identity.pem)))) as lanes:
            for _ in range(3):
                assert (await ask(lanes, peer)).content == b"http/1.1"
            assert peer.connections == 1
        async with lanes_to(peer) as lanes:
            with pytest.raises(httpx.ConnectError) as caught:
                await ask(lanes, peer)
        error = link_error(caught.value, "PROPFIND /")
        assert isinstance(error, Unreachable)
        assert "not trusted" in str(error)
    assert len(peer.seen) == 3


async def test_a_pin_decides_alone(identity: Identity) -> None:
    """The pinned certificate is accepted whoever signed it; another one is refused before a byte is sent."""
    async with serving(_polite, _server(identity)) as peer:
        for pin, is_right in ((identity.sha256, True), ("0" * 64, False)):
            settings = LaneSettings(tls=tls_context(pin_sha256=pin), pin_sha256=pin)
            async with lanes_to(peer, settings=settings) as lanes:
                if is_right:
                    assert (await ask(lanes, peer)).status_code == 207
                    continue
                with pytest.raises(httpx.ConnectError) as caught:
                    await ask(lanes, peer)
                assert "not the pinned one" in str(link_error(caught.value, "x"))
        assert len(peer.seen) == 1


@pytest.mark.parametrize("kind", ["pem", "p12"])
async def test_client_certificates(identity: Identity, kind: str) -> None:
    """Both forms are shown to a server that wants one."""
    path = identity.pem if kind == "pem" else identity.p12
    tls = tls_context(cacert=str(identity.pem), client_cert=str(path), client_cert_password="geheim")
    settings = LaneSettings(tls=tls)
    async with (
        serving(_polite, _server(identity, wants_client=True)) as peer,
        lanes_to(peer, settings=settings) as lanes,
    ):
        assert (await ask(lanes, peer)).status_code == 207


@pytest.mark.parametrize("password", [None, "wrong"])
def test_a_client_certificate_that_cannot_be_read(
    identity: Identity, password: str | None, tmp_path: Path
) -> None:
    """Is told at start, without asking anybody at a terminal, and without its password."""
    encrypted = tmp_path / "key.pem"
    key = serialization.load_pem_private_key(identity.pem.read_bytes(), None)
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"geheim"),
        )
    )
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\0" * 100)
    for path in (identity.p12, encrypted, garbage, tmp_path / "missing"):
        with pytest.raises(ConfigError, match="client_cert"):
            tls_context(client_cert=str(path), client_cert_password=password)
    with pytest.raises(ConfigError, match="certificates"):
        tls_context(cacert=str(garbage))


def test_channel_binding(identity: Identity) -> None:
    """tls-server-end-point, by the certificate's own hash (RFC 5929 4.1); nothing from garbage."""
    expected = b"tls-server-end-point:" + hashlib.sha256(identity.der).digest()
    assert end_point_binding(identity.der) == expected
    assert end_point_binding(None) is None
    assert end_point_binding(b"garbage") is None


async def test_tls_through_a_proxy(identity: Identity) -> None:
    """CONNECT opens a tunnel; the certificate checked is the server's; requests inside know no proxy."""
    asked: list[bytes] = []

    async def tunnel(client: trio.SocketStream) -> None:
        asked.append(await client.receive_some(4096))
        server = await trio.open_tcp_stream("127.0.0.1", peer.port)
        async with client, server, trio.open_nursery() as both_ways:
            await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            both_ways.start_soon(_pass_on, client, server)
            both_ways.start_soon(_pass_on, server, client)

    async with serving(_polite, _server(identity)) as peer, trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, tunnel, [listener])
        address = f"http://me:secret@127.0.0.1:{listener.socket.getsockname()[1]}"
        proxies = Proxies.from_environment({"https_proxy": address})
        settings = LaneSettings(tls=tls_context(cacert=str(identity.pem)), proxies=proxies)
        async with lanes_to(peer, settings=settings) as lanes:
            for _ in range(2):
                assert (await ask(lanes, peer)).status_code == 207
        nursery.cancel_scope.cancel()
    assert len(asked) == 1
    assert asked[0].startswith(f"CONNECT 127.0.0.1:{peer.port} HTTP/1.1\r\n".encode())
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n" in asked[0]
    assert all("proxy-authorization" not in seen.headers for seen in peer.seen)


async def _pass_on(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while data := await source.receive_some(65536):
            await sink.send_all(data)
        await sink.send_eof()
