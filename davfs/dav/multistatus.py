"""PROPFIND bodies, and 207 answers: bytes in, resources out, while the bytes still arrive.

Owns the XML: what is asked for (only properties that are used), and how an answer is read: `Multistatus`
yields one `Entry` per DAV:response, `ListingBuilder` and `sole_entry` give entries their place in the
share. Pure: no I/O, no clock.

Hostile input (design.md 5): no DTD, no entities, no network; libxml2's own limits stay on (depth 256).
A response that does not end within 1 MiB, or more than a million of them, ends the parse. Response
elements are freed when read, so memory does not grow with the listing.

Lenient where servers are known to be wrong (servers.md 14-18): the bytes that XML forbids are replaced by
their percent-encoding, which keeps the name in an href right; several propstat each with its own status,
none meaning OK; XML that breaks off keeps what came before and is marked incomplete; "self" is found by
its path, not its position. The only error raised is ProtocolError, when nothing usable came.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from lxml import etree

from davfs.dav.dates import parse_date
from davfs.dav.documents import CAUTION
from davfs.dav.hrefs import Share, folded
from davfs.dav.names import is_respelled
from davfs.dav.properties import EXECUTABLE, EXTRAS, IS_COLLECTION, extra_text, is_true
from davfs.dav.resource import DavPath, ETag, Quota, Resource
from davfs.errors import ProtocolError

_HEAD: Final = b'<?xml version="1.0" encoding="utf-8"?>\n'
# RFC 4331. copyparty answers the used bytes only when the available ones are asked for too.
PROPFIND_QUOTA: Final = (
    _HEAD + b'<D:propfind xmlns:D="DAV:"><D:prop><D:quota-available-bytes/><D:quota-used-bytes/>'
    b"</D:prop></D:propfind>"
)
# Before an upload: who holds it, which version it is, whether there is room.
PROPFIND_PREFLIGHT: Final = (
    _HEAD + b'<D:propfind xmlns:D="DAV:"><D:prop><D:resourcetype/><D:getcontentlength/><D:getetag/>'
    b"<D:getlastmodified/><D:lockdiscovery/><D:quota-available-bytes/><D:quota-used-bytes/></D:prop></D:propfind>"
)

_MULTISTATUS: Final = "{DAV:}multistatus"
_RESPONSE: Final = "{DAV:}response"
_HREF: Final = "{DAV:}href"
_STATUS: Final = "{DAV:}status"
_PROPSTAT: Final = "{DAV:}propstat"
_PROP: Final = "{DAV:}prop"
_COLLECTION: Final = "{DAV:}collection"
_RESOURCETYPE: Final = "{DAV:}resourcetype"
_QUOTA_AVAILABLE: Final = "{DAV:}quota-available-bytes"
_QUOTA_USED: Final = "{DAV:}quota-used-bytes"
_LENGTH: Final = "{DAV:}getcontentlength"
_MODIFIED: Final = "{DAV:}getlastmodified"
_ETAG: Final = "{DAV:}getetag"
_TEXTS: Final = frozenset({_LENGTH, _MODIFIED, _ETAG, EXECUTABLE, _QUOTA_AVAILABLE, _QUOTA_USED})
_NO_TEXTS: Final[Mapping[str, str]] = {}
_NO_QUOTA: Final = Quota()

_STATUS_LINE: Final = re.compile(r"HTTP/\S+\s+(\d{3})\b|\s*(\d{3})\s*$")
# A member's name as it stands in an href, if it needs no decoding. None that begins with a dot, to be sure.
_PLAIN_NAME: Final = re.compile(r"([A-Za-z0-9_~-][A-Za-z0-9._~-]{0,254})/?")
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\udc80-\udcff]")
_CONTROLS: Final = bytes(byte for byte in range(0x20) if byte not in b"\t\n\r")
_DECLARED: Final = re.compile(rb"""<\?xml[^>]*\bencoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_UTF8_NAMES: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_SLICE_BYTES: Final = 64 * 1024  # what is parsed at a time: the bound on memory after a gzip bomb's chunk
_LONGEST_STATUS: Final = 200
_SIZE_MAX: Final = 2**63 - 1  # off_t

MOST_RESPONSES: Final = 1_000_000
LONGEST_RESPONSE_BYTES: Final = 1024 * 1024  # the largest real one with all properties is 2 kB


class Entry(NamedTuple):
    """One DAV:response. `status` is 200 where the server gave properties and no other status."""

    hrefs: tuple[str, ...]
    status: int
    resource: Resource
    quota: Quota

    @property
    def is_ok(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Failure:
    """One member for which DELETE, MOVE, COPY, PUT or LOCK did not succeed (RFC 4918 9.6.1)."""

    href: str
    status: int


@dataclass(frozen=True, slots=True)
class Listing:
    """One PROPFIND Depth 1: a folder and what is directly in it."""

    itself: Resource
    members: dict[str, Resource]  # by decoded name (str, surrogateescape)
    ignored: int  # bad or foreign response elements that were skipped
    complete: bool  # False when the XML broke off: absence from `members` proves nothing then


# --- bytes -> text that XML allows ------------------------------------------------------------------


def _percent(found: re.Match[str]) -> str:
    data = found[0].encode("utf-8", "surrogateescape")
    return "".join(f"%{byte:02X}" for byte in data)


def _has_controls(data: bytes) -> bool:
    """Whether ASCII `data` holds what XML forbids. Three times as fast as an expression."""
    return len(data.translate(None, _CONTROLS)) != len(data)


def _is_utf8(head: bytes) -> bool:
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or b"\0" in head[:4]:
        return False
    declared = _DECLARED.match(head.lstrip(codecs.BOM_UTF8))
    return declared is None or declared[1].decode("ascii").lower() in _UTF8_NAMES


class _Cleaner:
    """UTF-8 bytes in any pieces -> UTF-8 bytes without what XML 1.0 forbids (section 2.2).

    A name with a control character, U+FFFE or broken UTF-8 makes the whole listing ill-formed on
    nginx, WsgiDAV, copyparty and others (servers.md 16). Documents declared in another encoding
    pass unchanged.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._head = b""
        self.is_utf8: bool | None = None  # not known yet

    def clean(self, data: bytes, *, final: bool = False) -> bytes:
        if self.is_utf8 is None:
            self._head += data
            if len(self._head) < 128 and b"?>" not in self._head and not final:
                return b""  # the declaration may still be on its way
            data, self._head = self._head, b""
            self.is_utf8 = _is_utf8(data)
        if not self.is_utf8 or (data.isascii() and not self._is_amidst() and not _has_controls(data)):
            return data
        text = self._decoder.decode(data, final)
        return _FORBIDDEN.sub(_percent, text).encode()

    def _is_amidst(self) -> bool:
        """Did the last piece end within a character?"""
        return bool(self._decoder.getstate()[0])


# --- one response element ---------------------------------------------------------------------------


def _status_of(text: str | None) -> int | None:
    return _status_in(text[:_LONGEST_STATUS]) if text else None


@lru_cache(maxsize=64)  # nearly always the same two: 1 us of each entry
def _status_in(text: str) -> int | None:
    found = _STATUS_LINE.match(text.strip())
    return int(found[1] or found[2]) if found else None


def _number(text: str | None) -> int | None:
    if not text:
        return None
    text = text.strip()
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        return None
    value = int(text)
    return value if value <= _SIZE_MAX else None


class _Properties:
    """The properties of one response, from its successful propstats."""

    __slots__ = ("collection", "extras", "status", "texts")

    def __init__(self) -> None:
        self.status: int | None = None  # of the first propstat that failed
        self.texts: dict[str, str] | None = None  # None: no propstat succeeded
        self.collection: bool | None = None
        self.extras: tuple[tuple[str, str], ...] = ()

    def read(self, propstat: etree._Element) -> None:
        props: list[etree._Element] = []
        status = None
        for child in propstat[:]:
            tag = child.tag
            if tag == _PROP:
                props.append(child)
            elif tag == _STATUS:
                status = _status_of(child.text)
        if status is not None and not 200 <= status < 300:
            self.status = self.status or status
            return
        texts = self.texts = self.texts or {}
        for prop in props:
            for value in prop[:]:
                tag = value.tag
                if tag in _TEXTS:
                    texts[tag] = value.text or ""
                elif tag == _RESOURCETYPE:
                    self.collection = len(value) > 0 and any(kind.tag == _COLLECTION for kind in value)
                elif tag in EXTRAS:
                    self.extras += ((tag, extra_text(value)),)

    def is_collection(self, href: str) -> bool:
        if self.collection is not None:
            return self.collection
        told = next((text for name, text in self.extras if name == IS_COLLECTION), None)
        return is_true(told) or (told is None and href.rstrip().endswith("/"))

    def resource(self, href: str) -> Resource:
        texts = self.texts or _NO_TEXTS
        is_collection = self.is_collection(href)
        # lighttpd, Nephele and libphodav give folders a getcontentlength (servers.md 18): not content
        size_bytes = None if is_collection else _number(texts.get(_LENGTH))
        mtime_s, etag = parse_date(texts.get(_MODIFIED)), _etag(texts.get(_ETAG))
        executable = _EXECUTABLE_TEXTS.get(texts.get(EXECUTABLE, ""))
        return Resource(is_collection, size_bytes, mtime_s, etag, executable, None, self.extras)

    def quota(self) -> Quota:
        texts = self.texts or _NO_TEXTS
        available, used = texts.get(_QUOTA_AVAILABLE), texts.get(_QUOTA_USED)
        if available is None and used is None:
            return _NO_QUOTA
        # -1, -2, -3 (Nextcloud: not computed, unknown, unlimited) are no numbers of bytes
        return Quota(_number(available), _number(used))


_EXECUTABLE_TEXTS: Final = {"T": True, "F": False}
_LONGEST_ETAG: Final = 1024  # it goes back in a request header


def _etag(text: str | None) -> ETag | None:
    return ETag.parse(text) if text and len(text) <= _LONGEST_ETAG else None


def _entry(response: etree._Element) -> Entry:
    hrefs: list[str] = []
    status = None
    properties = _Properties()
    for child in response[:]:  # a list is made faster than an iterator
        tag = child.tag  # made anew each time it is asked for
        if tag == _HREF:
            hrefs.append(child.text or "")
        elif tag == _PROPSTAT:
            properties.read(child)
        elif tag == _STATUS:
            status = _status_of(child.text)
    if status is None:
        status = 200 if properties.texts is not None else properties.status or 200
    href = hrefs[0] if hrefs else ""
    return Entry(tuple(hrefs), status, properties.resource(href), properties.quota())


# --- the document -----------------------------------------------------------------------------------

_WHOLE: Final = etree.XMLParser(**CAUTION, remove_blank_text=True)  # between elements: 0.6 us of an entry


def entries_of(body: bytes) -> list[Entry] | None:
    """What `Multistatus` would read from all of a short document, in three quarters of the time.

    None for one that is broken, in another encoding than UTF-8 or of another build than it should be:
    `Multistatus` knows what to make of it.
    """
    try:
        # What `_Cleaner` would replace no parser lets pass, so there is nothing to clean in what can be read.
        root = etree.fromstring(body, _WHOLE) if _is_utf8(body) else None
    except etree.XMLSyntaxError:
        return None
    if root is None:
        return None
    responses = list(root.iter(_RESPONSE))
    is_as_usual = root.tag == _MULTISTATUS and responses == list(root.iterchildren(_RESPONSE))
    if not is_as_usual or root.getroottree().docinfo.doctype:
        return None
    return [_entry(response) for response in responses]


class Multistatus:
    """Incremental reader of one 207 body: feed() gives the entries that ended in the bytes so far.

    After close(), `complete` tells whether the document was whole. Nothing here raises on bad bytes
    except close(), when not one response could be read (ProtocolError).
    """

    def __init__(self) -> None:
        self._parser = etree.XMLPullParser(events=("end",), tag=_RESPONSE, remove_blank_text=True, **CAUTION)
        self._cleaner = _Cleaner()
        self._since_response_bytes = 0
        self._broken: str | None = None
        self._root_seen = False
        self.responses = 0

    @property
    def stopped(self) -> bool:
        """True when further bytes will not be looked at: the caller may hang up."""
        return self._broken is not None

    @property
    def complete(self) -> bool:
        return self._broken is None

    def feed(self, data: bytes) -> list[Entry]:
        return self._parse(self._cleaner.clean(data))

    def close(self) -> list[Entry]:
        """The end of the bytes: the last entries, if any. Raises ProtocolError if there never was one."""
        entries = self._parse(self._cleaner.clean(b"", final=True))
        if self._broken is None:
            self._end_document()
        if self.responses == 0 and (self._broken is not None or not self._root_seen):
            why = self._broken or "another document"
            raise ProtocolError(f"the answer is not a WebDAV multistatus: {why}")
        return entries

    def _end_document(self) -> None:
        try:
            root = self._parser.close()
        except etree.XMLSyntaxError as error:
            self._broken = _first_line(error)
        else:
            self._root_seen = root.tag == _MULTISTATUS

    def _parse(self, data: bytes) -> list[Entry]:
        entries: list[Entry] = []
        for start in range(0, len(data), _SLICE_BYTES):
            if self._broken is not None:
                break
            piece = data[start : start + _SLICE_BYTES]
            self._since_response_bytes += len(piece)
            try:
                self._parser.feed(piece)
            except etree.XMLSyntaxError as error:
                self._broken = _first_line(error)
            entries.extend(self._read_events())
        return entries

    def _read_events(self) -> Iterator[Entry]:
        response = None
        for _, response in self._parser.read_events():
            if self.responses == 0 and response.getroottree().docinfo.doctype:
                self._broken = "it has a DTD"
            if self._broken == "it has a DTD" or self.responses >= MOST_RESPONSES:
                self._broken = self._broken or "too many responses"
                return
            self.responses += 1
            self._since_response_bytes = 0
            yield _entry(response)
            response.clear()
        if response is not None:
            _free_before(response)
        if self._since_response_bytes > LONGEST_RESPONSE_BYTES:
            self._broken = self._broken or "a response is too large"


def _free_before(response: etree._Element) -> None:
    """Drops from the tree what was read. The last child of the root stays: the parser may be within it."""
    del response.getroottree().getroot()[:-1]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def parse_failures(body: bytes) -> list[Failure]:
    """What failed, from the 207 body of a verb that changes something; empty when all went well.

    Raises ProtocolError when it cannot be read: then nobody knows what happened.
    """
    document = Multistatus()
    entries = document.feed(body) + document.close()
    refused = (entry for entry in entries if not entry.is_ok)
    failures = [Failure(href, entry.status) for entry in refused for href in entry.hrefs or ("",)]
    if not failures and not document.complete:
        raise ProtocolError("the list of failures broke off")
    return failures


def root_cause(failures: list[Failure]) -> Failure:
    """The one to report: 424 only says that another one failed (RFC 4918 11.4)."""
    return next((failure for failure in failures if failure.status != 424), failures[0])


# --- entries -> the place asked for -----------------------------------------------------------------


def sole_entry(entries: Sequence[Entry], share: Share, path: DavPath) -> Entry | None:
    """The answer about `path` among those to a Depth 0 request; None if it is not there.

    By path first. A single answer under another spelling is taken as well: Nextcloud turns NFD into
    NFC, IIS ignores case, libphodav writes an empty href for names with '%' (servers.md 14, 22).
    """
    if len(entries) == 1 and entries[0].hrefs == (share.href(path),):  # as nearly all answer about a file
        return entries[0]
    for entry in entries:
        if any(share.path_of(href) == path for href in entry.hrefs):
            return entry
    if len(entries) != 1:
        return None
    named = [share.path_of(href) for href in entries[0].hrefs if href]
    return entries[0] if all(one is not None and _is_alike(one, path) for one in named) else None


def _is_alike(one: DavPath, path: DavPath) -> bool:
    """Also without the dots and blanks at the end of its name: `spelled_name` tells."""
    if folded(one.parts) == folded(path.parts):
        return True
    return folded(one.parts[:-1]) == folded(path.parts[:-1]) and is_respelled(path.name, one.name)


def spelled_name(entry: Entry, share: Share, path: DavPath) -> str | None:
    """The last segment as the server writes it, where that is not the one asked for."""
    if entry.hrefs == (share.href(path),):
        return None
    places = (share.path_of(href) for href in entry.hrefs if href)
    named = next((place.name for place in places if place is not None), path.name)
    return named if named and named != path.name else None


@dataclass(slots=True)
class ListingBuilder:
    """Sorts the entries of one Depth 1 answer about `path` into the folder and its members."""

    share: Share
    path: DavPath
    ignored: int = 0
    foreign: str | None = None  # the first href outside the share, for the message
    _itself: Resource | None = None
    _itself_status: int = 0
    _members: dict[str, Resource] = field(default_factory=dict)
    _strays: list[tuple[DavPath, Resource]] = field(default_factory=list)
    _own_href: str = field(init=False)

    def __post_init__(self) -> None:
        self._own_href = self.share.href(self.path, is_collection=True)

    def extend(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            for href in entry.hrefs:
                self._place(href, entry)
            if not entry.hrefs:
                self.ignored += 1

    def _place(self, href: str, entry: Entry) -> None:
        if entry.is_ok and href.startswith(self._own_href):  # as nearly all are written: nothing to decode
            plain = _PLAIN_NAME.fullmatch(href, len(self._own_href))
            if plain is not None:
                self._members.setdefault(plain[1], entry.resource)
                return
        place = self.share.path_of(href)
        if place is None:
            self.ignored += 1
            self.foreign = self.foreign or href[:200]
        elif place == self.path:
            self._take_itself(entry)
        elif not entry.is_ok:
            self.ignored += 1
        elif place.parts[:-1] == self.path.parts:
            self._members.setdefault(place.name, entry.resource)
        else:
            self._strays.append((place, entry.resource))

    def _take_itself(self, entry: Entry) -> None:
        if entry.is_ok:
            self._itself = self._itself or entry.resource
        else:
            self._itself_status = self._itself_status or entry.status

    @property
    def refused_status(self) -> int | None:
        """The failure the server gave for the folder itself, if it gave nothing better."""
        return self._itself_status if self._itself is None and self._itself_status else None

    def build(self, *, complete: bool) -> Listing:
        """Raises ProtocolError when nothing in the answer is about the folder."""
        if self._itself is None and not self._members:
            self._adopt_other_spelling()
        if self._itself is None and not self._members:
            raise ProtocolError(self._nothing_usable())
        itself = self._itself or Resource(is_collection=True)
        return Listing(itself, self._members, self.ignored + len(self._strays), complete)

    def _adopt_other_spelling(self) -> None:
        """The server spells the folder differently (case, NFC): read the strays from its own name."""
        wanted = folded(self.path.parts)
        own = next((place for place, _ in self._strays if folded(place.parts) == wanted), None)
        if own is None:
            return
        strays, self._strays, self.path = self._strays, [], own
        for place, resource in strays:
            if place == own:
                self._itself = self._itself or resource
            elif place.parts[:-1] == own.parts:
                self._members.setdefault(place.name, resource)
            else:
                self._strays.append((place, resource))

    def _nothing_usable(self) -> str:
        if self.foreign is not None:
            return f"the server's answer is about another address: {self.foreign!r}"
        return "the server's answer says nothing about the folder asked for"
