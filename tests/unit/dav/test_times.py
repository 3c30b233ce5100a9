"""The ladder of ways to keep a time: what is sent, what is read, what is learned. Pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfs.dav import times
from davfs.dav.properties import MTIME
from davfs.dav.quirks import Capabilities
from davfs.dav.resource import ETag, Resource, Validator

OLD_NS = 1_000_000_000_000_000_001
VERSION = Validator(ETag("a-1"), 1_700_000_000, 5)
FILE = Resource(is_collection=False, size_bytes=5, mtime_s=1_700_000_000, etag=ETag("a-1"))
NGINX = Capabilities.from_options({"server": "nginx/1.22", "dav": "2", "allow": "GET,PUT,PROPFIND"})
APACHE = Capabilities.from_options({"server": "Apache", "dav": "1,2,<http://apache.org/dav/propset/fs/1>"})
NEXTCLOUD = Capabilities.from_options({"server": "Apache", "dav": "1, 3, extended-mkcol, nc-calendar-search"})

versions = st.builds(
    Validator,
    st.none() | st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=40).map(ETag),
    st.none() | st.integers(0, 2**40),
    st.integers(0, 2**62),
).filter(lambda version: version.etag is not None or version.mtime_s is not None)


def told(text: str, resource: Resource = FILE) -> int | None:
    """What the property with this text says of the file."""
    extras = ((MTIME, text),)
    return times.kept_mtime_ns(
        Resource(
            is_collection=resource.is_collection,
            size_bytes=resource.size_bytes,
            mtime_s=resource.mtime_s,
            etag=resource.etag,
            extras=extras,
        )
    )


@given(st.integers(-(10**19), 10**20), versions)
def test_what_is_written_is_read(mtime_ns: int, version: Validator) -> None:
    """The time to the nanosecond, also before 1970, and the version it was set on."""
    assert times.parsed(times.marked(mtime_ns, version)) == (mtime_ns, version)


@given(st.text(max_size=60))
def test_anything_else_is_no_time(text: str) -> None:
    """Text of another program, or of a hostile server: a time or nothing, never an error."""
    found = times.parsed(text)
    assert found is None or isinstance(found[0], int)


@pytest.mark.parametrize(
    "text", ["", "1", "1.5 5", "1.5 - -", "x 5 -", "1.5 5 x", "1e9 5 -", "9" * 40 + " 5 -"]
)
def test_a_time_without_its_version_is_no_time(text: str) -> None:
    """It would be believed of whatever stands there."""
    assert times.parsed(text) is None


def test_a_property_holds_for_its_version_only() -> None:
    """Servers keep it over a PUT by somebody else (servers.md 39): then it says nothing."""
    text = times.marked(OLD_NS, VERSION)
    assert told(text) == OLD_NS
    assert told(text, Resource(is_collection=False, size_bytes=6, mtime_s=1_700_000_000)) is None
    assert told(text, Resource(is_collection=False, size_bytes=5, etag=ETag("a-2"))) is None
    assert (
        told(times.marked(OLD_NS, Validator(None, 7, None)), Resource(is_collection=True, mtime_s=7))
        == OLD_NS
    )
    assert (
        told(times.marked(OLD_NS, Validator(None, 7, None)), Resource(is_collection=True, mtime_s=8)) is None
    )
    assert times.kept_mtime_ns(FILE) is None


def test_a_tag_that_is_too_long_is_left_out() -> None:
    """The value stays small: time and size tell the version then."""
    long = Validator(ETag("x" * 5000), 7, 5)
    assert times.parsed(times.marked(OLD_NS, long)) == (OLD_NS, Validator(None, 7, 5))


def test_what_goes_with_a_put() -> None:
    """X-OC-Mtime, Date for nginx, and nothing of the first day: Nextcloud refuses the whole PUT for it."""
    assert times.put_headers(1_000_000_000, by_date=False) == {"X-OC-Mtime": "1000000000"}
    assert times.put_headers(1_000_000_000, by_date=True) == {"Date": "Sun, 09 Sep 2001 01:46:40 GMT"}
    assert times.put_headers(0, by_date=False) == {}
    assert times.put_headers(-5, by_date=True) == {}


def test_each_way_has_its_form() -> None:
    """Seconds for Nextcloud, HTTP dates for the others, our own with the version."""
    assert times.value("lastmodified", OLD_NS, VERSION) == "1000000000"
    assert times.value("getlastmodified", OLD_NS, VERSION) == "Sun, 09 Sep 2001 01:46:40 GMT"
    assert times.value("win32", OLD_NS, VERSION) == "Sun, 09 Sep 2001 01:46:40 GMT"
    assert times.value("property", OLD_NS, VERSION) == "1000000000.000000001 5 1700000000 a-1"


def test_the_ladder_is_gone_down_by_what_did_not_work() -> None:
    """Each way once; the dead property last, and only where it is wanted."""
    server = Capabilities()
    tried = []
    while (way := server.next_time_way(properties=True)) is not None:
        tried.append(way)
        server = server.learned_time_way(way, worked=False)
    assert tried == ["lastmodified", "getlastmodified", "win32", "property"]
    assert Capabilities().learned_time_way("win32", worked=True).next_time_way(properties=True) == "win32"
    assert Capabilities().learned_time_way("property", worked=True).next_time_way(properties=False) is None


def test_servers_that_were_measured_are_not_asked_in_vain() -> None:
    """Apache and its like have the dead property alone, nginx no PROPPATCH, Nextcloud its own way first."""
    assert APACHE.next_time_way(properties=False) is None
    assert APACHE.next_time_way(properties=True) == "property"
    assert NGINX.next_time_way(properties=True) is None
    assert NEXTCLOUD.next_time_way(properties=False) == "lastmodified"


def test_a_put_takes_the_time_by_what_was_read_back() -> None:
    """A time of about now tells nothing; what is read counts more than the server's name or word."""
    now_s = 2_000_000_000.0
    assert NGINX.time_in_put
    assert not APACHE.time_in_put
    assert not NGINX.learned_time(sent_s=1_000_000_000, found_s=2_000_000_000, now_s=now_s).time_in_put
    assert APACHE.learned_time(sent_s=1_000_000_000, found_s=1_000_000_000, now_s=now_s).time_in_put
    assert APACHE.learned_time(sent_s=2_000_000_000, found_s=2_000_000_000, now_s=now_s) is APACHE
    assert APACHE.learned_time(sent_s=1_000_000_000, found_s=None, now_s=now_s) is APACHE
    accepted = Capabilities().learned_put(etag=True, mtime_accepted=True)
    assert accepted.time_in_put
    assert not accepted.learned_time(sent_s=1, found_s=2, now_s=now_s).time_in_put


def test_where_times_tell_versions_apart() -> None:
    """nginx, rclone, copyparty (no tags): the server's clock stamps what is only written."""
    tagless = Resource(is_collection=False, size_bytes=5, mtime_s=7)
    assert NGINX.versions_by_time
    assert Capabilities.from_options({"server": "rclone/v1.75"}).versions_by_time
    assert Capabilities().learned_propfind(tagless).versions_by_time
    assert not Capabilities().learned_propfind(FILE).versions_by_time
    assert not APACHE.versions_by_time
