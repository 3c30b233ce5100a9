"""Write locks on the wire (RFC 4918 6, 7, 9.10): what is asked, and what answers mean. Pure.

Asked: one exclusive write lock, Depth 0, one `Timeout: Second-N`. Never a list of values: `Infinite,
Second-4100000000` hangs lighttpd 1.4.69 for good, `Infinite` alone is Second-0 on rclone (servers.md 28). The
owner is plain text: sabre/dav 1.8 drops an owner that is an element.

Read: tokens with and without angle brackets (29), time-outs with fractions, `Infinite`, and documents of any
prefix, with the bounds of `multistatus`: no DTD, no entities, no network, a megabyte. A grant without a token
is no grant: that is the one ProtocolError here. Who holds a lock is told as far as the server tells it: nginx
and lighttpd do not echo the owner, sabre/dav 1.8 not the token, rclone neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from lxml import etree

from davfs.dav.documents import root_of
from davfs.errors import ProtocolError

_HEAD: Final = b'<?xml version="1.0" encoding="utf-8"?>\n'
PROPFIND_LOCKS: Final = (
    _HEAD + b'<D:propfind xmlns:D="DAV:"><D:prop><D:resourcetype/><D:lockdiscovery/></D:prop></D:propfind>'
)
LONGEST_TOKEN: Final = 1024  # it goes back in a request header
_LONGEST_OWNER: Final = 200
_MOST_LOCKS: Final = 100  # shared locks of one resource
_TOKEN: Final = re.compile(r"[!-;=?-~]+")  # printable ASCII without blanks and angle brackets
_SECONDS: Final = re.compile(r"\s*second-(\d{1,10})(?:\.\d+)?", re.IGNORECASE)
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
NEVER_S: Final = float("inf")


@dataclass(frozen=True, slots=True)
class LockToken:
    """What names a lock, verbatim as the server wrote it: a URI, or what it takes for one."""

    text: str

    @classmethod
    def parse(cls, text: str | None) -> LockToken | None:
        """From a Lock-Token header or a DAV:href; None for nothing usable."""
        text = (text or "").strip().removeprefix("<").removesuffix(">").strip()
        return cls(text) if len(text) <= LONGEST_TOKEN and _TOKEN.fullmatch(text) else None

    @property
    def coded(self) -> str:
        return f"<{self.text}>"


@dataclass(frozen=True, slots=True)
class GrantedLock:
    """A lock that is ours. `timeout_s` counts from the answer; infinite where it never ends.

    `created`: the LOCK made the resource, an empty file (201), or on Apache a lock-null entry (200, which
    does not tell: `created` is False there, and nothing stays after UNLOCK).
    """

    token: LockToken
    timeout_s: float
    created: bool = False


@dataclass(frozen=True, slots=True)
class ActiveLock:
    """A lock as lockdiscovery shows it."""

    owner: str  # one line; empty where the server does not say
    token: LockToken | None = None
    timeout_s: float = NEVER_S


def lock_body(owner: str) -> bytes:
    """The body of a LOCK: exclusive, write."""
    return (
        _HEAD + b'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/>'
        b"</D:locktype><D:owner>" + escape(_FORBIDDEN.sub("?", owner)).encode() + b"</D:owner></D:lockinfo>"
    )


def timeout_header(timeout_s: float) -> str:
    return f"Second-{max(1, int(timeout_s))}"


def parse_timeout_s(text: str | None) -> float | None:
    """RFC 4918 10.7; None when it says nothing. Zero (rclone, ASGIWebDAV for 'no end') is no end."""
    if text is None:
        return None
    if text.strip().lower().startswith("infinite"):
        return NEVER_S
    found = _SECONDS.match(text)
    if found is None:
        return None
    return float(found[1]) or NEVER_S


def granted(
    status: int, headers: Mapping[str, str], body: bytes, *, asked_s: float, held: LockToken | None = None
) -> GrantedLock:
    """The lock in a successful answer to LOCK; `held` is the token of a refresh.

    Raises ProtocolError when no token can be read. The token of a refresh's answer is believed before `held`:
    nginx answers 200 to a refresh of a lock that is gone, with a new lock (measured on dav-ext 3.0.0).
    """
    shown = list(active_locks(body))
    token = LockToken.parse(headers.get("lock-token")) or _one_token(shown, held) or held
    if token is None:
        raise ProtocolError("LOCK: the answer has no lock token")
    mine = next((lock for lock in shown if lock.token == token), shown[0] if len(shown) == 1 else None)
    timeout_s = parse_timeout_s(headers.get("timeout"))
    if timeout_s is None:
        timeout_s = mine.timeout_s if mine is not None else asked_s
    return GrantedLock(token, timeout_s, created=status == 201)


def _one_token(shown: list[ActiveLock], held: LockToken | None) -> LockToken | None:
    """From the document, when it names exactly one lock, or also the one that is held."""
    tokens = [lock.token for lock in shown if lock.token is not None]
    return held if held in tokens else tokens[0] if len(tokens) == 1 else None


def active_locks(body: bytes) -> Iterator[ActiveLock]:
    """Every DAV:activelock in a document; none for what cannot be read."""
    root = root_of(body)
    if root is None:
        return
    for count, lock in enumerate(root.iter("{DAV:}activelock")):
        if count >= _MOST_LOCKS:
            return
        timeout_s = parse_timeout_s(lock.findtext("{DAV:}timeout"))
        yield ActiveLock(
            owner=_owner(lock.find("{DAV:}owner")),
            token=LockToken.parse(lock.findtext("{DAV:}locktoken/{DAV:}href")),
            timeout_s=NEVER_S if timeout_s is None else timeout_s,
        )


def _owner(element: etree._Element | None) -> str:
    """The text of whatever the other client wrote there (Windows and Office: an href), as one line."""
    if element is None:
        return ""
    words = "".join(str(text) for text in element.itertext()).split()
    line = "".join(c if c.isprintable() else "?" for c in " ".join(words))
    return line[:_LONGEST_OWNER]
