"""Evidence in, capabilities out."""

from __future__ import annotations

import httpx
import pytest

from davfs.dav.quirks import Capabilities
from davfs.dav.resource import ETag, Resource
from davfs.errors import UnstorableName

_WSGIDAV = "OPTIONS, HEAD, GET, PROPFIND, DELETE, COPY, MOVE, PROPPATCH, LOCK, UNLOCK"
_PROPSET = "1,2, <http://apache.org/dav/propset/fs/1>"


@pytest.mark.parametrize(
    ("server", "dav", "locks", "hides_dot_names", "move_unsafe"),
    [
        ("Apache/2.4.71 (Debian)", _PROPSET, True, False, False),
        ("nginx/1.22.1", "2", True, True, False),
        ("nginx/1.22.1", "1, 3, extended-mkcol, 2, sabredav-partialupdate", True, False, False),
        ("nginx/1.22.1", "1,2", True, False, True),
        ("lighttpd/1.4.69", "1,2,3", True, False, False),
        ("WsgiDAV/4.4.0 Cheroot/11.1.2 Python/3.11.7", "1,2", True, False, True),
        ("Apache", "1, 3, extended-mkcol, access-control", False, False, False),
        ("", "", False, False, True),
    ],
)
def test_known_servers(server: str, dav: str, locks: bool, hides_dot_names: bool, move_unsafe: bool) -> None:
    """The OPTIONS headers of servers.md, table 1, and a proxy that hides who is behind it."""
    found = Capabilities.from_options(httpx.Headers({"Server": server, "DAV": dav, "Allow": "GET, PUT"}))
    assert found.locks == locks
    assert found.hides_dot_names == hides_dot_names
    assert found.move_unsafe("what?") == move_unsafe
    assert not found.move_unsafe("plain name & more.txt")
    assert found.methods == {"GET", "PUT"}


@pytest.mark.parametrize(
    ("server", "allow", "conditions"),
    [
        ("Cheroot/11.1.2", _WSGIDAV, "honoured"),
        ("Cheroot/11.1.2", f"{_WSGIDAV}, PUT", "unknown"),
        ("Cheroot/11.1.2", "OPTIONS, HEAD, GET, PROPFIND", "unknown"),
        ("", _WSGIDAV, "unknown"),
        ("WsgiDAV/4.4.0 Cheroot/11.1.2 Python/3.11.7", "", "honoured"),
    ],
)
def test_wsgidav_shows_by_what_its_folders_can_do(server: str, allow: str, conditions: str) -> None:
    """Where cheroot alone gives its name, the methods of the root tell; one that differs is not trusted."""
    found = Capabilities.from_options(httpx.Headers({"Server": server, "DAV": "1,2", "Allow": allow}))
    assert found.conditions == conditions
    assert found.whole_up_to_bytes == 0


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"server": "Apache/2.4", "dav": "1,2,<http://apache.org/dav/propset/fs/1>"}, "Apache mod_dav"),
        ({"server": "nginx/1.24", "dav": "2"}, "nginx dav-ext"),
        ({"server": "nginx/1.24", "dav": "1, 3, extended-mkcol"}, "sabre/dav"),
        ({"server": "Apache", "dav": "1, 3, extended-mkcol, nc-calendar-search"}, "Nextcloud or ownCloud"),
        ({"server": "lighttpd/1.4.69", "dav": "1,2,3"}, "lighttpd mod_webdav"),
        ({"server": "WsgiDAV/4.3.3"}, "WsgiDAV"),
        ({"server": "rclone/1.75"}, "rclone serve"),
        ({"server": "Apache", "dav": "1,2"}, "unknown"),
    ],
)
def test_the_profile_names_what_a_server_is_treated_as(headers: dict[str, str], name: str) -> None:
    """For people: the evidence behind the flags, in a word."""
    assert Capabilities.from_options(headers).profile == name


def test_what_is_learned_stays() -> None:
    """A PUT without a time keeps what an earlier one showed, and equal evidence gives the same value."""
    first = Capabilities().learned_put(etag=True, mtime_accepted=True)
    assert (first.put_etag, first.takes_mtime) == (True, True)
    assert first.learned_put(etag=True) is first
    assert first.learned_propfind(Resource(is_collection=False)).etags_in_propfind is False
    assert Capabilities().conditions == "unknown"
    assert Capabilities().move_ends_lock is None
    assert Capabilities().learned_move_over_lock(gone=True).move_ends_lock is True
    assert Capabilities(server="WsgiDAV/4.4.0").move_ends_lock is True


def test_tags_that_end_in_the_size() -> None:
    """One file shows it, three that do not disprove it for good; empty files and folders show nothing."""
    of_three = Resource(is_collection=False, size_bytes=3, etag=ETag("123-1700000000-3"))
    other = Resource(is_collection=False, size_bytes=3, etag=ETag("3-5f-abc"))
    empty = Resource(is_collection=False, size_bytes=0, etag=ETag("123-1700000000-0"))
    cut = ETag("123-1700000001-2")
    assert Capabilities().learned_propfind(empty).stored_bytes(cut) is None
    seen = Capabilities().learned_propfind(of_three)
    assert seen.learned_propfind(of_three) is seen
    assert seen.stored_bytes(cut) == 2
    assert seen.learned_propfind(other).learned_propfind(of_three).stored_bytes(cut) == 2
    for _ in range(3):
        seen = seen.learned_propfind(other)
    assert seen.learned_propfind(of_three).stored_bytes(cut) is None


def test_a_file_that_is_being_written_disproves_nothing() -> None:
    """Its tag and its size are of two moments: only several such in a row show other tags."""
    of_three = Resource(is_collection=False, size_bytes=3, etag=ETag("123-1700000000-3"))
    growing = Resource(is_collection=False, size_bytes=2, etag=ETag("123-1700000001-1"))
    cut = ETag("123-1700000001-2")
    seen = Capabilities().learned_propfind(of_three)
    for _ in range(5):
        seen = seen.learned_propfind(growing).learned_propfind(growing).learned_propfind(of_three)
    assert seen.stored_bytes(cut) == 2
    for _ in range(3):
        seen = seen.learned_propfind(growing)
    assert seen.learned_propfind(of_three).stored_bytes(cut) is None


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"DAV": _PROPSET}, ""),
        ({"Server": "nginx/1.22.1", "DAV": "2"}, ""),
        ({"Server": "rclone/v1.75.2", "DAV": "1, 2"}, "control"),
        ({"Server": "lighttpd/1.4.69", "DAV": "1,2,3"}, "bytes control"),
        ({"Server": "nginx", "DAV": "1, 3, extended-mkcol, 2"}, "bytes mark"),
        ({"Server": "WsgiDAV/4.4.0", "DAV": "1,2"}, "bytes"),
        ({"DAV": "1, 2"}, "bytes"),
    ],
)
def test_names_that_a_server_does_not_keep(headers: dict[str, str], refused: str) -> None:
    """As the contract suite found them, through a mount of each."""
    found = Capabilities.from_options(httpx.Headers(headers))
    names = {"bytes": "a\udcff", "control": "a\tb", "mark": "\ufeffa", "plain": "a \u00fc%?;\U0001f600"}

    def is_refused(name: str) -> bool:
        try:
            found.names.check((), (name,))
        except UnstorableName:
            return True
        return False

    assert [kind for kind, name in names.items() if is_refused(name)] == refused.split()


def test_a_name_that_put_does_not_take() -> None:
    """lighttpd appends to the name while it writes: from 246 bytes on the file is staged and moved."""
    lighttpd = Capabilities.from_options(httpx.Headers({"Server": "lighttpd/1.4.69", "DAV": "1,2,3"}))
    assert lighttpd.puts_name("n" * 245)
    assert not lighttpd.puts_name("n" * 246)
    assert Capabilities().puts_name("n" * 255)


@pytest.mark.parametrize(
    ("headers", "hides"),
    [
        ({"Server": "nginx/1.22.1", "DAV": "2"}, True),
        ({"Server": "cloudflare", "DAV": "2"}, True),
        ({"DAV": "1"}, True),
        ({"Server": "cloudflare", "DAV": "1, 2"}, False),
        ({"Server": "rclone/v1.75.2", "DAV": "1"}, False),
        ({"DAV": _PROPSET}, False),
    ],
)
def test_who_may_leave_names_with_a_dot_out_of_listings(headers: dict[str, str], hides: bool) -> None:
    """nginx, also behind a proxy that shows its own name: a single class is as much as dav-ext announces."""
    assert Capabilities.from_options(httpx.Headers(headers)).hides_dot_names is hides


def test_a_server_that_may_invent_a_name() -> None:
    """copyparty, as far as it shows: no name, no tags. Even an empty file is staged, and moved over."""
    unknown = Capabilities.from_options(httpx.Headers({"DAV": "1, 2"}))
    assert not unknown.puts_beside
    assert unknown.learned_propfind(Resource(is_collection=False, size_bytes=1)).puts_beside
    nginx = Capabilities.from_options(httpx.Headers({"Server": "nginx/1.22.1", "DAV": "2"}))
    assert not nginx.learned_propfind(Resource(is_collection=False, size_bytes=1)).puts_beside
