"""Locks as servers write them: tokens, time-outs, owners, and what is hostile."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfs.dav.locks import (
    NEVER_S,
    GrantedLock,
    LockToken,
    active_locks,
    granted,
    lock_body,
    parse_timeout_s,
    timeout_header,
)
from davfs.dav.quirks import Capabilities
from davfs.dav.request import if_header
from davfs.dav.resource import ETag
from davfs.errors import ProtocolError
from tests import captures

_LOCKING = ["apache-basic", "lighttpd", "nginx", "rclone", "sabre-debian", "wsgidav"]


def _granted(name: str, held: LockToken | None = None) -> GrantedLock:
    return granted(captures.status(name), captures.headers(name), captures.body(name), asked_s=60, held=held)


@pytest.mark.parametrize(
    ("server", "token", "timeout_s"),
    [
        ("apache-basic", "opaquelocktoken:7178f2ad-a5b5-4733-b0a0-1af1908e6067", 3600),
        ("lighttpd", "urn:uuid:f9f8da84-bdd6-412f-ac31-a0c0172b1757", 600),
        ("nginx", "urn:13fdd44b", 60),
        ("rclone", "1795227727", 3600),
        ("sabre-debian", "opaquelocktoken:f3ac1e87-9f5f-4f69-a44f-bfaa0d327e46", 1800),
    ],
)
def test_a_real_grant_is_read(server: str, token: str, timeout_s: float) -> None:
    """Token and time-out of LOCK, and of its refresh, as five servers answered them."""
    lock = _granted(f"{server}/lock-exclusive")
    assert lock == GrantedLock(LockToken(token), timeout_s)
    again = _granted(f"{server}/lock-refresh", lock.token)
    assert again.token == lock.token
    assert again.timeout_s > 0


@pytest.mark.parametrize("server", _LOCKING)
def test_a_lock_of_a_free_name_tells_that_it_made_a_file(server: str) -> None:
    """201 made an empty file; Apache's 200 made an entry that goes with the lock."""
    assert _granted(f"{server}/lock-unmapped").created is (server != "apache-basic")


@pytest.mark.parametrize("server", _LOCKING)
def test_lockdiscovery_shows_what_it_shows(server: str) -> None:
    """rclone shows nothing; nginx, lighttpd and sabre 1.8 showed no owner here, sabre 1.8 no token."""
    locks = list(active_locks(captures.body(f"{server}/propfind-lockdiscovery")))
    assert len(locks) == (0 if server == "rclone" else 1)
    for lock in locks:
        assert lock.owner == ("labprobe" if server in {"apache-basic", "wsgidav"} else "")
        assert (lock.token is None) is (server == "sabre-debian")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Second-60", 60),
        ("Second-3599.998", 3599),
        ("second-60, Infinite", 60),
        ("Infinite", NEVER_S),
        ("Second-0", NEVER_S),
        ("nonsense", None),
        ("", None),
        (None, None),
    ],
)
def test_time_outs(text: str | None, seconds: float | None) -> None:
    """Fractions (Nephele), lists, no end, and zero, which stands for no end on rclone."""
    assert parse_timeout_s(text) == seconds


@pytest.mark.parametrize("given_s", [0.2, 59.9, 3600])
def test_what_is_asked_is_one_value(given_s: float) -> None:
    """Exactly one Second-N, never zero."""
    assert timeout_header(given_s) == f"Second-{max(1, int(given_s))}"


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("<opaquelocktoken:1>", "opaquelocktoken:1"),
        ("opaquelocktoken:1", "opaquelocktoken:1"),
        (" <1795227727> ", "1795227727"),
        ("", None),
        ("<>", None),
        ("<a b>", None),
        ("<a>\r\nHost: x", None),
        ("<a" + "x" * 2000 + ">", None),
        ("<é>", None),
        (None, None),
    ],
)
def test_tokens(text: str | None, token: str | None) -> None:
    """With or without brackets; what could not stand in a header again is no token."""
    assert LockToken.parse(text) == (LockToken(token) if token is not None else None)


def test_the_owner_survives_xml() -> None:
    """Markup, umlauts and control characters in an owner leave the body well-formed."""
    body = lock_body('a<b>&"\x01\ud800é')
    shown = body.replace(b"lockinfo", b"activelock")
    assert next(active_locks(shown)).owner == 'a<b>&"??é'


def test_an_answer_without_a_token_is_no_lock() -> None:
    """Nobody could refresh or release it."""
    with pytest.raises(ProtocolError):
        granted(200, httpx.Headers(), b"<html>fine</html>", asked_s=60)


def test_the_token_may_stand_in_the_body_alone() -> None:
    """A proxy that drops Lock-Token leaves the document."""
    body = captures.body("wsgidav/lock-exclusive")
    assert granted(200, httpx.Headers(), body, asked_s=60).token.text.startswith("opaquelocktoken:0x69e5")


def test_what_follows_the_document_does_no_harm() -> None:
    """rclone writes `Internal Server Error` after the end of a 207 (servers.md 16)."""
    document = (
        b'<D:prop xmlns:D="DAV:"><D:lockdiscovery><D:activelock><D:owner>ann</D:owner></D:activelock>'
        b"</D:lockdiscovery></D:prop>Internal Server Error"
    )
    assert [lock.owner for lock in active_locks(document)] == ["ann"]


def test_entities_and_dtds_are_not_read() -> None:
    """A document with a DTD says nothing at all."""
    bomb = (
        b'<!DOCTYPE a [<!ENTITY x "y">]><a xmlns:D="DAV:"><D:activelock>'
        b"<D:owner>&x;</D:owner></D:activelock></a>"
    )
    assert list(active_locks(bomb)) == []


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    """Garbage, alone or inside a real answer, is read as something or nothing, never an exception."""
    real = captures.body("apache-basic/propfind-lockdiscovery")
    middle = len(real) // 2
    for body in (data, real[:middle] + data + real[middle:]):
        for lock in active_locks(body):
            assert lock.owner.isprintable()


def test_the_if_header() -> None:
    """Tagged with the URL, token before tag; nothing to claim, no header."""
    token = LockToken("urn:1")
    assert if_header(("http://h/a", token, ETag("x"))) == {"If": '<http://h/a> (<urn:1> ["x"])'}
    assert if_header(("http://h/a", None, None), ("http://h/b", token, None)) == {
        "If": "<http://h/b> (<urn:1>)"
    }
    assert if_header((None, token, None)) == {"If": "(<urn:1>)"}
    assert if_header(("http://h/a", None, None)) == {}


@pytest.mark.parametrize(
    ("server", "locks", "conditions", "in_place", "moves_under_condition"),
    [
        ("apache-basic", True, "honoured", False, True),
        ("lighttpd", True, "honoured", False, False),
        ("nginx", True, "ignored", False, False),
        ("wsgidav", True, "honoured", True, False),
        ("nextcloud", False, "honoured", True, True),
        ("rclone", True, "unknown", True, False),  # 1.60: no Server header
        ("sabre-debian", True, "honoured", True, True),  # php -S: nobody says that it spools
    ],
)
def test_what_options_tells(
    server: str, locks: bool, conditions: str, in_place: bool, moves_under_condition: bool
) -> None:
    """The OPTIONS answers of seven servers, against servers.md, tables 5 and 7."""
    found = Capabilities.from_options(captures.headers(f"{server}/options-root"))
    assert found.locks_usable is locks
    assert found.conditions == conditions
    assert (found.whole_up_to_bytes == 0) is in_place
    assert found.move_condition_honoured is moves_under_condition
    assert found.put_if_match_trusted is (conditions == "honoured" and server != "lighttpd")


def test_unknown_servers_are_not_trusted() -> None:
    """Nothing known: uploads count as in place, conditions as unknown, until answers tell."""
    unknown = Capabilities()
    assert unknown.whole_up_to_bytes == 0
    assert unknown.conditions == "unknown"
    assert not unknown.put_if_match_trusted
    proved = unknown.learned_conditional_put(412, "same")
    assert proved.conditions == "honoured"
    assert proved.put_if_match_trusted
    assert unknown.learned_conditional_put(204, "same") is unknown
    caught = proved.learned_conditional_put(204, "absent")
    assert caught.conditions == "ignored"
    assert caught.learned_conditional_put(412, "same").conditions == "ignored"


def test_refused_locks_are_remembered() -> None:
    """Class 2 announced and LOCK refused: not asked again."""
    found = Capabilities(dav_classes=frozenset({"1", "2"}))
    assert found.locks_usable
    assert not found.learned_lock(refused=True).locks_usable
