"""The wire: an httpx transport of *lanes*, connections that have their own authentication.

    transport.py  one request from first byte to answer: authentication, pre-flight, Expect, what is repeated
    pool.py       which lane carries it; transfers and metadata never wait for each other
    lane.py       one connection: heads, bodies, time-outs
    connect.py    how a connection comes to be: TCP, proxy, TLS, pin
    answers.py    bytes -> answers (pure)       errand.py  a request as bytes (pure)
    cookies.py    which cookies go along
    habits.py     what a server does with bodies, and what follows (pure)

It exists because no Python client settles authentication before a body, waits for 100-continue, or stops a
body that was answered early (ADR 0010). Failures are httpx's: ConnectError, ReadError and the time-outs;
RemoteProtocolError for whatever is not HTTP. Unauthorized and what a pre-flight's judge raises pass through.
"""

from davfs.dav.lanes.errand import AtHand, Errand, Home, Preflight, PreflightAnswer, Timeouts
from davfs.dav.lanes.habits import PARENT_FROM_BYTES
from davfs.dav.lanes.proxies import Proxies
from davfs.dav.lanes.tls import tls_context
from davfs.dav.lanes.transport import Lanes, LaneSettings, Reply

__all__ = [
    "PARENT_FROM_BYTES",
    "AtHand",
    "Errand",
    "Home",
    "LaneSettings",
    "Lanes",
    "Preflight",
    "PreflightAnswer",
    "Proxies",
    "Reply",
    "Timeouts",
    "tls_context",
]
