"""The refusal to show a secret to the network.

Basic and Bearer send the secret itself; Digest sends what a listener can try passwords against and a man
in the middle can turn into Basic. Over plain http they go to this machine only, unless the user allows it.
"""

from __future__ import annotations

import ipaddress
from typing import Final

import httpx

from davfs.errors import ConfigError

OPEN_SCHEMES: Final = frozenset({"basic", "digest", "bearer"})
_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


def _is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") in _LOOPBACK_NAMES or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def may_go_open(url: str, allow: bool) -> bool:
    """May a readable secret be sent to `url`? Raises ConfigError for what is no address."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError("not a usable address") from error
    return parsed.scheme != "http" or allow or _is_loopback(parsed.host)


def check_plaintext(url: str, allow: bool) -> None:
    """Refuse to send a password over plain http to another machine. Raises ConfigError."""
    if not may_go_open(url, allow):
        raise ConfigError(
            f"refusing to send a password in the clear to {httpx.URL(url).host}: use https, "
            "or set allow_plaintext_auth if the network is trusted"
        )
