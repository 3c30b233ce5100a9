"""Which httpx.Auth goes with a login, and the refusal to send a password in the clear.

Stateless schemes only: Basic (sent with the first request) and Digest (httpx keeps nonce and count).
'auto' sends nothing until the server asks, then answers with the strongest scheme offered. A password is
held in memory by the returned object and appears in no message. Connection-bound schemes need lanes and
are not here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Generator
from typing import Final, Literal

import httpx

from davfs.errors import ConfigError

Scheme = Literal["auto", "basic", "digest", "none"]
_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


def _is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") in _LOOPBACK_NAMES or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_plaintext(url: str, allow: bool) -> None:
    """Refuse to send a Basic password over plain http to another machine. Raises ConfigError."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError("not a usable address") from error
    if parsed.scheme == "http" and not allow and not _is_loopback(parsed.host):
        raise ConfigError(
            f"refusing to send a password in the clear to {parsed.host}: use https, "
            "or set allow_plaintext_auth if the network is trusted"
        )


class _OnDemand(httpx.Auth):
    """Asks without credentials once, then keeps to the scheme the server offered: Digest before Basic."""

    def __init__(self, username: str, password: str, *, allow_plaintext: bool) -> None:
        self._digest = httpx.DigestAuth(username, password)
        self._basic = httpx.BasicAuth(username, password)
        self._allow_plaintext = allow_plaintext
        self._settled: httpx.Auth | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._settled is None:
            response = yield request
            if response.status_code != 401:
                return
            self._settled = self._choice(request, response)
            if self._settled is None:
                return
        yield from self._settled.auth_flow(request)

    def _choice(self, request: httpx.Request, response: httpx.Response) -> httpx.Auth | None:
        offers = [offer.lower() for offer in response.headers.get_list("www-authenticate")]
        if any(offer.lstrip().startswith("digest") or ", digest " in offer for offer in offers):
            return self._digest
        if any("basic" in offer for offer in offers):
            check_plaintext(str(request.url), self._allow_plaintext)
            return self._basic
        return None


def build_auth(
    scheme: Scheme, url: str, username: str, password: str, *, allow_plaintext: bool = False
) -> httpx.Auth | None:
    """The authentication for `url`; None for anonymous. Raises ConfigError for a password in the clear."""
    if scheme == "none" or not username:
        return None
    if scheme == "basic":
        check_plaintext(url, allow_plaintext)
        return httpx.BasicAuth(username, password)
    if scheme == "digest":
        return httpx.DigestAuth(username, password)
    return _OnDemand(username, password, allow_plaintext=allow_plaintext)
