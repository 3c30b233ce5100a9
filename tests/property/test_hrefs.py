"""Paths and hrefs: a round trip for every name the kernel allows, and containment for every href."""

from __future__ import annotations

import os
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfs.dav.hrefs import Share, decode_href, shown
from davfs.dav.resource import ROOT, DavPath
from davfs.errors import ConfigError

_names = (
    st.binary(min_size=1, max_size=255)
    .map(lambda data: data.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda data: data not in (b".", b".."))
    .map(os.fsdecode)
)
_paths = st.lists(_names, max_size=5).map(lambda names: DavPath(tuple(names)))
_shares = st.builds(Share, st.just("http"), st.just("server:8080"), st.lists(_names, max_size=3).map(tuple))


@given(share=_shares, path=_paths, is_collection=st.booleans())
def test_every_path_survives_the_wire(share: Share, path: DavPath, is_collection: bool) -> None:
    """What we write as an href or URL is read back as the same path, whatever bytes its names have."""
    assert share.path_of(share.href(path, is_collection=is_collection)) == path
    assert share.path_of(share.url(path, is_collection=is_collection)) == path
    assert Share.parse(share.url(ROOT)) == share


@given(path=_paths)
def test_our_hrefs_are_plain(path: DavPath) -> None:
    """An href of ours holds only unreserved characters, '%' and '/': nothing a server could cut at."""
    allowed = set(string.ascii_letters + string.digits + "-._~%/")
    assert set(Share("http", "server", ()).href(path)) <= allowed


@given(href=st.one_of(st.text(), st.text(alphabet="/.%2eEfF05cC\\:ah?#\0 \n", max_size=40)), share=_shares)
def test_nothing_leaves_the_share(href: str, share: Share) -> None:
    """Any href is either ignored or a path whose names can be names."""
    path = share.path_of(href)
    for name in path.parts if path is not None else ():
        assert name not in {"", ".", ".."}
        assert "/" not in name
        assert "\0" not in name
        assert len(os.fsencode(name)) <= 255


@given(path=_paths, data=st.data())
def test_any_spelling_is_the_same_path(path: DavPath, data: st.DataObject) -> None:
    """Case of the hex digits, doubled slashes, a final slash and another host do not matter."""
    share = Share("http", "server", ("dav",))
    href = share.href(path)
    if data.draw(st.booleans()):
        href = "".join(c.lower() if href[max(0, i - 2) : i].count("%") else c for i, c in enumerate(href))
    if data.draw(st.booleans()):
        href = href.replace("/", "//").replace("//", "/", 1)
    if data.draw(st.booleans()):
        href = href.rstrip("/") + "/"
    if data.draw(st.booleans()):
        href = "https://inside.example:8443" + href
    assert share.path_of(href) == path


@pytest.mark.parametrize(
    ("href", "parts"),
    [
        ("/dav/a%20b", ("a b",)),
        ("/dav/a b", ("a b",)),
        ("/dav/é", ("é",)),
        ("/dav/%c3%a9/", ("é",)),
        ("/dav/a#b?c", ("a#b?c",)),
        ("/dav/100%", ("100%",)),
        ("/dav/%zz", ("%zz",)),
        ("/dav/a%2541", ("a%41",)),
        ("/dav/a+b", ("a+b",)),
        ("/dav/%ff%fe", (os.fsdecode(b"\xff\xfe"),)),
        ("//dav//x//", ("x",)),
        ("http://other/dav/x", ("x",)),
        ("HTTPS://OTHER:1/%64av/x", ("x",)),
        ("\n  /dav/x\n ", ("x",)),
        ("/dav/x ", ("x ",)),
        ("/dav", ()),
        ("/davs/x", None),
        ("/other", None),
        ("/dav/../etc", None),
        ("/dav/%2e%2e/etc", None),
        ("/dav/a%2fb", None),
        ("/dav/a%00", None),
        ("/dav/./a", None),
        ("/dav/" + "n" * 256, None),
        ("dav/x", None),
        ("", None),
        ("ftp://h/dav/x", None),
    ],
)
def test_hrefs_seen_in_the_field(href: str, parts: tuple[str, ...] | None) -> None:
    """The writings of servers.md 14 are read, and what is not in the share is not."""
    path = Share.parse("http://h/dav/").path_of(href)
    assert path == (None if parts is None else DavPath(parts))


@pytest.mark.parametrize(
    ("typed", "root"),
    [
        ("http://host", "http://host/"),
        ("HTTP://Host/dav", "http://host/dav/"),
        ("https://me:secret@host:8443/my folder/", "https://host:8443/my%20folder/"),
        ("https://host/%c3%a9", "https://host/%C3%A9/"),
        ("https://b\u00fccher.example/x", "https://xn--bcher-kva.example/x/"),
    ],
)
def test_the_address_as_people_type_it(typed: str, root: str) -> None:
    """The share's URL is normal, and has lost its credentials."""
    assert Share.parse(typed).url(ROOT) == root


@pytest.mark.parametrize(
    "typed", ["", "host/dav", "ftp://host/", "http://", "http://h/?a=s3cret", "http://h/a/../b"]
)
def test_an_address_that_cannot_be_a_share(typed: str) -> None:
    """It is a ConfigError that does not repeat what was typed."""
    with pytest.raises(ConfigError) as caught:
        Share.parse(typed)
    assert "s3cret" not in str(caught.value)


def test_shown_paths_are_printable() -> None:
    """A path in a message cannot start a new line, and any log can encode it."""
    assert shown(DavPath(("a\nb", os.fsdecode(b"\xff"), "é"))) == "/a?b/?/é"


def test_decoding_reaches_the_root() -> None:
    """The root of the host is the empty path."""
    assert decode_href("/") == ()
    assert decode_href("http://host") == ()
