"""How a connection comes to be: TCP (every address, the quicker family), a proxy's tunnel, TLS, the pin.

Ends with a stream and the server's certificate, or raises httpx.ConnectError or ConnectTimeout: nothing of
the request was sent then. Whatever was opened on the way is closed.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

import httpx
import trio

from davfs.dav.auth import Origin
from davfs.dav.lanes.answers import HeadReader
from davfs.dav.lanes.proxies import Proxy
from davfs.dav.lanes.tls import check_pin

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


@dataclass(frozen=True, slots=True)
class Connection:
    """One open connection. `proxy`: requests go to it in plain http, and must name the whole address."""

    stream: Stream
    tcp: trio.SocketStream
    certificate: bytes | None
    proxy: Proxy | None = None


async def connect(
    origin: Origin, tls: ssl.SSLContext | None, pin_sha256: str | None, proxy: Proxy | None, timeout_s: float
) -> Connection:
    """Raises httpx.ConnectError, ConnectTimeout."""
    try:
        with trio.fail_after(timeout_s):
            tcp = await _open_tcp(origin, proxy)
            try:
                return await _ready(tcp, origin, tls, pin_sha256, proxy)
            except BaseException:
                tcp.socket.close()
                raise
    except trio.TooSlowError:
        raise httpx.ConnectTimeout(f"no connection to {origin.host} within {timeout_s:g} s") from None


async def _open_tcp(origin: Origin, proxy: Proxy | None) -> trio.SocketStream:
    host, port = (origin.host, origin.port) if proxy is None else (proxy.host, proxy.port)
    try:
        return await trio.open_tcp_stream(host, port)
    except (OSError, ValueError) as error:  # ValueError: a name that idna refuses
        raise httpx.ConnectError(f"no connection to {host}") from error


async def _ready(
    tcp: trio.SocketStream,
    origin: Origin,
    tls: ssl.SSLContext | None,
    pin_sha256: str | None,
    proxy: Proxy | None,
) -> Connection:
    if origin.scheme != "https":
        return Connection(tcp, tcp, None, proxy)
    if proxy is not None:
        await _open_tunnel(tcp, origin, proxy)
    stream = trio.SSLStream(
        tcp,
        tls or ssl.create_default_context(),
        server_hostname=origin.host,
        https_compatible=True,
    )
    try:
        await stream.do_handshake()
        certificate = stream.getpeercert(binary_form=True)
        if pin_sha256 is not None:
            check_pin(certificate, pin_sha256)
    except (trio.BrokenResourceError, ssl.SSLError, ssl.CertificateError) as error:
        raise httpx.ConnectError(f"TLS with {origin.host} failed") from error
    return Connection(stream, tcp, certificate)


async def _open_tunnel(tcp: trio.SocketStream, origin: Origin, proxy: Proxy) -> None:
    """RFC 9110 9.3.6."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    authorization = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
    where = f"{host}:{origin.port}"
    reader, head = HeadReader("CONNECT"), None
    try:
        await tcp.send_all(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n{authorization}\r\n".encode())
        while head is None or head.status < 200:
            data = await tcp.receive_some(4096)
            if not data:
                raise httpx.ConnectError(f"the proxy {proxy.host} closed the connection")
            head = reader.feed(data)
    except (trio.BrokenResourceError, httpx.RemoteProtocolError) as error:
        raise httpx.ConnectError(f"the proxy {proxy.host} does not work") from error
    if head.status == 407:
        raise httpx.ConnectError(f"the proxy {proxy.host} wants a user name and a password")
    if head.status >= 300 or reader.rest:
        raise httpx.ConnectError(f"the proxy {proxy.host} answered {head.status}")
