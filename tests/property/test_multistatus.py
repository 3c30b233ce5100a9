"""207 bodies: real ones, broken ones, hostile ones."""

from __future__ import annotations

import random
import re
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davfs.dav.hrefs import Share
from davfs.dav.multistatus import (
    Entry,
    Listing,
    ListingBuilder,
    Multistatus,
    entries_of,
    parse_failures,
)
from davfs.dav.resource import DavPath
from davfs.errors import ProtocolError
from tests import captures

_CAPTURED = [name for name in captures.names() if "gzip" not in name and captures.status(name) == 207]


def _parse(body: bytes, piece_bytes: int = 65536) -> tuple[list[Entry], bool]:
    document = Multistatus()
    entries: list[Entry] = []
    for start in range(0, len(body), piece_bytes):
        entries += document.feed(body[start : start + piece_bytes])
    entries += document.close()
    assert entries_of(body) in (None, entries)
    return entries, document.complete


def _listing(body: bytes, share: str = "http://h/", path: str = "") -> Listing:
    entries, complete = _parse(body)
    builder = ListingBuilder(Share.parse(share), DavPath(tuple(path.split("/") if path else ())))
    builder.extend(entries)
    return builder.build(complete=complete)


@given(name=st.sampled_from(_CAPTURED), piece_bytes=st.integers(1, 700))
@settings(max_examples=60, deadline=None)
def test_the_pieces_do_not_matter(name: str, piece_bytes: int) -> None:
    """A body gives the same entries however the network cuts it."""
    assert _parse(captures.body(name), piece_bytes) == _parse(captures.body(name))


@given(
    name=st.sampled_from(_CAPTURED),
    cuts=st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 40), st.binary(max_size=12)), max_size=5),
)
@settings(max_examples=150, deadline=None)
def test_mutated_answers_give_entries_or_one_error(name: str, cuts: list[tuple[int, int, bytes]]) -> None:
    """Whatever happens to the bytes: entries that can be placed, or ProtocolError, nothing else."""
    body = captures.body(name)
    for start, length, new in cuts:
        at = start % len(body) if body else 0
        body = body[:at] + new + body[at + length :]
    try:
        listing = _listing(body, path="probe/pf")
    except ProtocolError:
        return
    for member in listing.members.values():
        assert member.size_bytes is None or 0 <= member.size_bytes < 2**63
        assert member.mtime_s is None or isinstance(member.mtime_s, int)


@pytest.mark.parametrize("name", _CAPTURED)
def test_at_once_is_as_in_pieces(name: str) -> None:
    """A body that is here as a whole gives the entries that its pieces give; a cut one is left to them, and
    one with characters that XML forbids."""
    body = captures.body(name)
    entries, complete = _parse(body)
    is_plain = complete and not re.search(b"[\x00-\x08\x0b\x0c\x0e-\x1f]", body)
    assert entries_of(body) == (entries if is_plain else None)
    assert entries_of(body.rstrip()[:-1]) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html/>",
        b'<x><D:response xmlns:D="DAV:"><D:href>/a</D:href></D:response></x>',
        b'<!DOCTYPE x><D:multistatus xmlns:D="DAV:"/>',
        b'<D:multistatus xmlns:D="DAV:"><D:response><x><D:response/></x></D:response></D:multistatus>',
        b"\xff\xfe<\0x\0/\0>\0",
    ],
    ids=["nothing", "html", "another root", "DTD", "one within another", "UTF-16"],
)
def test_odd_documents_are_read_in_pieces(body: bytes) -> None:
    """What is no plain multistatus is not read at once: one reader alone decides about it."""
    assert entries_of(body) is None


@given(body=st.binary(max_size=300))
@settings(deadline=None)
def test_noise_is_one_error(body: bytes) -> None:
    """Bytes that are no multistatus raise ProtocolError."""
    with pytest.raises(ProtocolError):
        _parse(body)


@pytest.mark.parametrize(
    ("name", "share", "members"),
    [
        (
            "apache-basic/propfind-depth1-named",
            "http://h/probe/",
            {"a b+c": True, "f.txt": False, "sub": True},
        ),
        (
            "nginx/propfind-depth1-dir-allprop",
            "http://h/probe/",
            {"a b+c": True, "f.txt": False, "sub": True},
        ),
        ("lighttpd/propfind-depth1-named", "http://h/probe/", {"a b+c": True, "f.txt": False, "sub": True}),
        ("rclone/propfind-depth1-named", "http://h/probe/", {"a b+c": True, "f.txt": False, "sub": True}),
        ("wsgidav/propfind-depth1-named", "http://h/probe/", {"a b+c": True, "f.txt": False, "sub": True}),
        (
            "sabre-debian/propfind-depth1-named",
            "http://h/probe/",
            {"a b+c": True, "f.txt": False, "sub": True},
        ),
        (
            "nextcloud/propfind-depth1-named",
            "http://h/remote.php/dav/files/alice/probe/",
            {"a b+c": True, "f.txt": False, "sub": True},
        ),
    ],
)
def test_real_listings(name: str, share: str, members: dict[str, bool]) -> None:
    """Each server's listing of the same folder reads the same, with size, time and ETag where given."""
    listing = _listing(captures.body(name), share, "pf")
    assert listing.complete
    assert listing.ignored == 0
    assert listing.itself.is_collection
    kinds = {member: resource.is_collection for member, resource in listing.members.items()}
    assert kinds == {**members, "é &%.txt": False}
    file = listing.members["f.txt"]
    assert file.size_bytes == 5
    assert file.mtime_s is not None
    assert (file.etag is None) == name.startswith("nginx")
    assert listing.members["sub"].size_bytes is None


@pytest.mark.parametrize("server", ["nginx", "wsgidav"])
def test_a_control_character_hides_nothing(server: str) -> None:
    """The raw \\x01 in a displayname does not break the listing, and the name keeps its byte."""
    listing = _listing(captures.body(f"{server}/propfind-name-34"), path="probe/names/34")
    assert list(listing.members) == ["\x01ctl"]
    assert listing.complete


def test_text_after_the_document_means_incomplete() -> None:
    """rclone writes 'Internal Server Error' after a 207 whose listing it could not finish."""
    listing = _listing(captures.body("rclone/propfind-name-37"), path="probe/names/37")
    assert not listing.complete
    assert listing.itself.is_collection


def test_failures_of_a_delete() -> None:
    """WsgiDAV answers DELETE above a locked file with 207: that is 423 for the file."""
    failures = parse_failures(captures.body("wsgidav/delete-parent-of-locked"))
    assert [(one.href, one.status) for one in failures] == [("/probe/lc/f.txt", 423)]


def test_quota() -> None:
    """RFC 4331 numbers are read; Nextcloud's -3 is unknown."""
    (sabre,), _ = _parse(captures.body("sabre-debian/propfind-quota"))
    assert (sabre.quota.available_bytes, sabre.quota.used_bytes) == (79450206208, 191102967808)
    (nextcloud,), _ = _parse(captures.body("nextcloud/propfind-quota"))
    assert nextcloud.quota.available_bytes is None
    assert nextcloud.quota.used_bytes is not None


def _document(*responses: str) -> bytes:
    return f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{"".join(responses)}</D:multistatus>'.encode()


def _response(href: str, props: str = "", status: str = "<D:status>HTTP/1.1 200 OK</D:status>") -> str:
    href = f"<D:href>{href}</D:href>"
    return f"<D:response>{href}<D:propstat><D:prop>{props}</D:prop>{status}</D:propstat></D:response>"


_FOLDER = "<D:resourcetype><D:collection/></D:resourcetype>"


def test_one_bad_response_hides_no_other() -> None:
    """Foreign, escaping, empty and refused entries are counted, the rest is listed; self may come last."""
    body = _document(
        _response("/d/a", "<D:resourcetype/><D:getcontentlength>7</D:getcontentlength>"),
        _response("/elsewhere"),
        _response("/d/../x"),
        _response("/d/a%2Fb"),
        "<D:response/>",
        "<D:response><D:href>/d/gone</D:href><D:status>HTTP/1.1 404 Not Found</D:status></D:response>",
        _response(
            "/d/b", "<D:getcontentlength>-7</D:getcontentlength><D:getlastmodified>never</D:getlastmodified>"
        ),
        _response("/d/", _FOLDER),
    )
    listing = _listing(body, path="d")
    assert set(listing.members) == {"a", "b"}
    assert listing.members["a"].size_bytes == 7
    assert listing.members["b"].size_bytes is None
    assert listing.members["b"].mtime_s is None
    assert listing.ignored == 5
    assert listing.itself.is_collection


def test_a_folder_without_a_kind() -> None:
    """Where no resourcetype is told, the slash at the end of the href tells folders."""
    bare = "<D:getetag>x</D:getetag>"
    entries, _ = _parse(_document(_response("/dav/d/", bare), _response("/dav/f", bare)))
    assert [entry.resource.is_collection for entry in entries] == [True, False]


def test_each_propstat_has_its_own_status() -> None:
    """Properties of a failed propstat do not count; a missing status is OK."""
    propstats = (
        "<D:propstat><D:prop><D:getetag>x</D:getetag></D:prop>"
        "<D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>"
        "<D:propstat><D:prop><D:resourcetype/><D:getcontentlength>3</D:getcontentlength></D:prop></D:propstat>"
    )
    (entry,), _ = _parse(_document(f"<D:response><D:href>/a</D:href>{propstats}</D:response>"))
    assert entry.is_ok
    assert entry.resource.etag is None
    assert entry.resource.size_bytes == 3


def test_entries_before_a_break_are_kept() -> None:
    """A body cut in the middle of an entry gives the entries before it, marked incomplete."""
    whole = _document(_response("/d/", _FOLDER), _response("/d/a"), _response("/d/b"))
    listing = _listing(whole[: whole.index(b"/d/b")], path="d")
    assert set(listing.members) == {"a"}
    assert not listing.complete


def test_the_folder_under_another_spelling() -> None:
    """Nextcloud lists an NFD folder under its NFC name: its members are still its members."""
    listing = _listing(_document(_response("/%C3%A9/", _FOLDER), _response("/%C3%A9/a")), path="e\u0301")
    assert set(listing.members) == {"a"}
    assert listing.ignored == 0


def test_an_answer_about_another_place_is_an_error() -> None:
    """Only foreign hrefs: the message names the one the server believes in."""
    with pytest.raises(ProtocolError, match="/internal/d/"):
        _listing(_document(_response("/internal/d/", _FOLDER)), "http://h/dav/", "d")


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1"])
def test_other_encodings(encoding: str) -> None:
    """RFC 4918 10 asks for UTF-16; a declared Latin-1 is read as such."""
    head = f'<?xml version="1.0" encoding="{encoding}"?><D:multistatus xmlns:D="DAV:">'
    text = f"{head}{_response('/é')}</D:multistatus>"
    entries, complete = _parse(text.encode(encoding), 50)
    assert [entry.hrefs for entry in entries] == [("/é",)]
    assert complete


def test_a_dtd_is_refused() -> None:
    """No entity is expanded: the document ends before its first entry."""
    body = (
        b'<!DOCTYPE D [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>'
        b'<D:multistatus xmlns:D="DAV:"><D:response><D:href>/&b;</D:href></D:response></D:multistatus>'
    )
    with pytest.raises(ProtocolError):
        _parse(body)


def test_an_endless_response_is_bounded() -> None:
    """A response that never ends stops the parse within a few MiB of memory."""
    document = Multistatus()
    tracemalloc.start()
    document.feed(b'<D:multistatus xmlns:D="DAV:"><D:response><D:propstat><D:prop>')
    while not document.stopped:
        document.feed(b"<D:x/>" * 10_000)
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()
    with pytest.raises(ProtocolError):
        document.close()


def test_deep_nesting_ends_the_parse() -> None:
    """libxml2's own limit on depth stays on."""
    with pytest.raises(ProtocolError):
        _parse(b'<D:multistatus xmlns:D="DAV:">' + b"<D:response>" * 5000)


def test_large_listings_are_fast() -> None:
    """100,000 entries in 3 s means 10,000 in 0.3 s; twice that is allowed for a busy machine."""
    props = (
        "<D:resourcetype/><D:getcontentlength>5</D:getcontentlength><D:getetag>&quot;x&quot;</D:getetag>"
        "<D:getlastmodified>Sat, 21 Nov 2026 02:19:01 GMT</D:getlastmodified>"
    )
    numbers = list(range(10_000))
    random.Random(1).shuffle(numbers)
    body = _document(_response("/d/", _FOLDER), *(_response(f"/d/file%20{n}", props) for n in numbers))
    begin = time.process_time()
    listing = _listing(body, path="d")
    assert time.process_time() - begin < 0.6
    assert len(listing.members) == 10_000
