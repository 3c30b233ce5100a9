"""The servers that the suite runs on. To add one, add a line to `CANDIDATES`."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.contract.limits import LIMITS, Limit
from tests.contract.rival import Rival
from tests.servers import (
    Apache,
    AsgiWebDav,
    Copyparty,
    Lighttpd,
    Nginx,
    Rclone,
    SabreDav,
    Server,
    WsgiDav,
)


@dataclass(frozen=True)
class Place:
    """An empty folder on a running server."""

    url: str
    account: tuple[str, str] | None = None


@dataclass(frozen=True)
class Candidate:
    """A server: `place` gives an empty folder on it, and takes it away. `limits` says what it cannot do.

    `logs`: what davfs rightly warns of there, once or often.
    """

    name: str
    title: str
    place: Callable[[], contextlib.AbstractContextManager[Place]]
    limits: Mapping[str, Limit] = field(default_factory=dict)
    logs: tuple[str, ...] = ()


def started(make: Callable[[], Server]) -> Callable[[], contextlib.AbstractContextManager[Place]]:
    """A server of tests/servers. Raises MissingPart when its program is not there."""

    @contextlib.contextmanager
    def place() -> Iterator[Place]:
        with make() as server, server.share() as share:
            account = None if server.username is None else (server.username, server.password or "")
            yield Place(share.url, account)

    return place


@contextlib.contextmanager
def given_address() -> Iterator[Place]:
    """A new folder at DAVFS_CONTRACT_URL, which is removed at the end with all that is in it."""
    base = os.environ["DAVFS_CONTRACT_URL"].rstrip("/") + "/"
    user = os.environ.get("DAVFS_CONTRACT_USER")
    account = None if user is None else (user, os.environ.get("DAVFS_CONTRACT_PASSWORD", ""))
    name = f"davfs-contract-{uuid.uuid4().hex[:8]}"
    with Rival(base, account) as rival:
        rival.mkcol(name)
        try:
            yield Place(f"{base}{name}/", account)
        finally:
            rival.delete(f"{name}/")


def _known(name: str, title: str, make: Callable[[], Server], *logs: str) -> Candidate:
    return Candidate(name, title, started(make), LIMITS.get(name, {}), logs)


CANDIDATES: Final = (
    _known("apache", "Apache", lambda: Apache(limit_request_body=0)),  # as shipped: 1 GiB, then EFBIG
    _known("nginx", "nginx + dav-ext", Nginx),
    _known("lighttpd", "lighttpd", Lighttpd),
    _known("sabredav", "sabre/dav (PHP)", SabreDav),
    _known("wsgidav", "WsgiDAV", WsgiDav),
    _known("rclone", "rclone", lambda: Rclone(dir_cache_time="5m")),
    _known("copyparty", "copyparty", Copyparty),
    _known("asgiwebdav", "ASGIWebDAV", AsgiWebDav),
)


def is_address_given() -> bool:
    return "DAVFS_CONTRACT_URL" in os.environ


def chosen() -> tuple[Candidate, ...]:
    """All that the tests start, or the one address that the person gave."""
    if is_address_given():
        return (Candidate("address", "the given address", given_address),)
    return CANDIDATES
