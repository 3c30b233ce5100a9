"""One answer to a question of `davfs probe`, and what is read from it. Pure.

Reads with the bounds of `multistatus` and `locks`: no DTD, no entities, no network, a megabyte. Bytes that
cannot be read say nothing; nothing here raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from lxml import etree

from davfs.dav import locks
from davfs.dav.canaries import CANARY
from davfs.dav.dates import parse_date
from davfs.dav.documents import root_of
from davfs.dav.hrefs import Share
from davfs.dav.multistatus import Multistatus
from davfs.dav.resource import DavPath, ETag
from davfs.errors import ProtocolError

_LONGEST_TAG: Final = 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `status` 0: nothing did, and `error` says why."""

    request: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""
    error: str = ""
    sent_s: float = 0.0  # time.time() when it was asked
    body_taken_bytes: int | None = None  # of the request's body, where that was counted
    expect: str = ""  # what the server did with Expect: 100-continue, as the connections saw it

    @property
    def is_ok(self) -> bool:
        return 200 <= self.status < 300 and not (self.status == 207 and self.refused_inside)

    @property
    def refused_inside(self) -> bool:
        """A 207 that names a failure (servers.md 8)."""
        return any(not 200 <= status < 300 for status in self.inner_statuses)

    @property
    def inner_statuses(self) -> Sequence[int]:
        return statuses(self.body) if self.status == 207 else ()

    @property
    def line(self) -> str:
        """For people: the request and its status."""
        if not self.status:
            return f"{self.request}: {self.error or 'no answer'}"
        inner = [str(status) for status in self.inner_statuses if not 200 <= status < 300 and status != 404]
        return f"{self.request} {self.status}" + (f" ({', '.join(inner[:3])} inside)" if inner else "")

    def with_body_told(self, taken_bytes: int, expect: str) -> Answer:
        return replace(self, body_taken_bytes=taken_bytes, expect=expect)


def _number(text: str | None) -> int | None:
    words = (text or "").split()
    found = next((word for word in words if len(word) == 3 and word.isascii() and word.isdigit()), None)
    return int(found) if found is not None else None


def statuses(body: bytes) -> Sequence[int]:
    """Every status that a multistatus names."""
    root = root_of(body)
    if root is None:
        return ()
    found = (_number(element.text) for element in root.iter("{DAV:}status"))
    return tuple(status for status in found if status is not None)


def properties(answer: Answer) -> Mapping[str, str]:
    """Of the first response: the properties that the server has, with all text that is in each."""
    root = root_of(answer.body) if answer.status == 207 else None
    response = root.find("{DAV:}response") if root is not None else None
    return {} if response is None else _properties(response)


def _properties(response: etree._Element) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for propstat in response.iterfind("{DAV:}propstat"):
        status = _number(propstat.findtext("{DAV:}status"))
        if status is not None and not 200 <= status < 300:
            continue
        for prop in propstat.iterfind("{DAV:}prop"):
            found |= {
                value.tag: "".join(str(text) for text in value.itertext()) or _kinds(value)
                for value in prop
                if isinstance(value.tag, str)
            }
    return found


def _kinds(value: etree._Element) -> str:
    """What an element without text says: the names of what is in it."""
    return " ".join(str(inner.tag) for inner in value.iter() if inner is not value)


def members(answer: Answer) -> Sequence[Mapping[str, str]]:
    """The properties of each response of a listing that is a file."""
    root = root_of(answer.body) if answer.status == 207 else None
    if root is None:
        return ()
    each = (_properties(response) for response in root.iterfind("{DAV:}response"))
    return tuple(one for one in each if one and "{DAV:}collection" not in one.get("{DAV:}resourcetype", ""))


def tag_of(answer: Answer) -> ETag | None:
    return tag_in(properties(answer))


def tag_in(found: Mapping[str, str]) -> ETag | None:
    text = found.get("{DAV:}getetag", "")
    return ETag.parse(text) if text and len(text) <= _LONGEST_TAG else None


def mtime_of(answer: Answer) -> float | None:
    return parse_date(properties(answer).get("{DAV:}getlastmodified"))


def listed(answer: Answer, share: Share) -> tuple[Mapping[DavPath, int | None], bool]:
    """The places in a listing with their sizes, as a mount reads it, and whether it was whole."""
    document = Multistatus()
    if answer.status != 207:
        return {}, False
    try:
        entries = [*document.feed(answer.body), *document.close()]
    except ProtocolError:
        return {}, False
    places: dict[DavPath, int | None] = {}
    for entry in entries:
        path = share.path_of(entry.hrefs[0]) if entry.hrefs and entry.is_ok else None
        if path is not None:
            places[path] = None if entry.resource.is_collection else entry.resource.size_bytes
    return places, document.complete


# --- for the next question ---------------------------------------------------------------------------


def small_file(listing: Answer, share: Share) -> tuple[DavPath, int] | None:
    """A file of the share whose beginning can be read for a try, and its size."""
    places, _ = listed(listing, share)
    sizes = ((path, size) for path, size in places.items() if size is not None and size >= 2)
    return min(sizes, key=lambda one: one[1], default=None)


def token_of(answer: Answer) -> locks.LockToken | None:
    if not answer.is_ok:
        return None
    shown_tokens = [lock.token for lock in locks.active_locks(answer.body) if lock.token is not None]
    header = locks.LockToken.parse(answer.headers.get("lock-token"))
    return header or (shown_tokens[0] if len(shown_tokens) == 1 else None)


def dead_text(answer: Answer) -> str | None:
    return properties(answer).get(CANARY)


def announces_patch(options: Answer) -> bool:
    allowed = options.headers.get("allow", "").upper()
    return "sabredav-partialupdate" in options.headers.get("dav", "").lower() or "PATCH" in allowed
