"""Which HTTP proxy leads to a server: http_proxy, https_proxy, all_proxy and no_proxy, as curl reads them.

Pure: the environment comes as a mapping. `HTTP_PROXY` in capitals counts only where no request of a web
client can set it (REQUEST_METHOD is absent): CVE-2016-5385. Only proxies spoken to in plain http are known;
https goes through them in a CONNECT tunnel.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from davfs.dav.auth import Origin
from davfs.errors import ConfigError

_DEFAULT_PORT: Final = 1080


@dataclass(frozen=True, slots=True)
class Proxy:
    host: str
    port: int
    authorization: str  # of Proxy-Authorization, '' for none


@dataclass(frozen=True, slots=True)
class Proxies:
    by_scheme: Mapping[str, Proxy]
    bypass: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Proxies:
        """Raises ConfigError for a proxy that cannot be used."""
        found = {}
        for scheme in ("http", "https"):
            text = _variable(environ, f"{scheme}_proxy") or _variable(environ, "all_proxy")
            if text:
                found[scheme] = _parse(text)
        words = _variable(environ, "no_proxy").replace(",", " ").split()
        return cls(found, tuple(word.lower() for word in words))

    def for_origin(self, origin: Origin) -> Proxy | None:
        proxy = self.by_scheme.get(origin.scheme)
        if proxy is None or any(_matches(rule, origin) for rule in self.bypass):
            return None
        return proxy


DIRECT: Final = Proxies({})


def _variable(environ: Mapping[str, str], name: str) -> str:
    if name == "http_proxy" and "REQUEST_METHOD" in environ:
        return environ.get(name, "")
    return environ.get(name) or environ.get(name.upper(), "")


def _parse(text: str) -> Proxy:
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError("the proxy of the environment cannot be used: it must be http://host:port")
    authorization = ""
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    return Proxy(parts.hostname, port or _DEFAULT_PORT, authorization)


def _matches(rule: str, origin: Origin) -> bool:
    if rule == "*":
        return True
    host = origin.host.lower()
    name, colon, port = rule.rpartition(":")
    if colon and port.isdigit() and "]" not in port and (":" not in name or name.endswith("]")):
        if int(port) != origin.port:
            return False
        rule = name
    rule = rule.strip("[]").lstrip("*").lstrip(".")
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        return bool(rule) and (host == rule or host.endswith(f".{rule}"))
