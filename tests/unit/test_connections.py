"""What a person reads when the first contact with a server fails: what it was, and what may help."""

from __future__ import annotations

import pytest

from davfs.connections import in_words
from davfs.dav.redirects import not_webdav
from davfs.errors import DavfsError, Disconnected, Forbidden, NotFound, Unauthorized, Unreachable
from tests.unit.test_config import config_for

UNTRUSTED = "PROPFIND /: the server's certificate is not trusted: self-signed certificate"


@pytest.mark.parametrize(
    ("error", "url", "words"),
    [
        (Unreachable("PROPFIND /: connection refused"), "https://h/", "connection refused"),
        (Unreachable("connect: no answer within 2 s"), "https://h/", "no answer within 2 s"),
        (
            NotFound("no such folder on the server: https://h/"),
            "https://h/",
            "no such folder on the server: https://h/",
        ),
        (
            Unauthorized("PROPFIND /: the server answered 401", status=401),
            "https://h/",
            "the server answered 401 (it wants to know who you are: -o username=NAME)",
        ),
        (
            Unauthorized("h refused the user name or the password (basic)"),
            "https://h/",
            "h refused the user name or the password (basic)",
        ),
        (
            Forbidden("PROPFIND /: the server answered 403", status=403),
            "https://h/",
            "the server answered 403 (this user may not list it, or it is not the address for WebDAV)",
        ),
        (
            not_webdav("https://h/f/", 400),
            "https://h/f/",
            (
                "https://h/f/ does not speak WebDAV: it answered 400 to PROPFIND"
                " (or it is a file: a share is a folder)"
            ),
        ),
        (
            Unreachable(UNTRUSTED),
            "https://h/",
            f"{UNTRUSTED[12:]} (if it is one of your own: -o cacert=FILE, or pin_sha256=HEX)",
        ),
        (
            Unreachable("PROPFIND /: TLS failed (WRONG_VERSION_NUMBER)"),
            "https://h/",
            "TLS failed (WRONG_VERSION_NUMBER) (does it speak http there, without the s?)",
        ),
        (
            Disconnected("PROPFIND /: the connection broke"),
            "http://h/",
            "the connection broke (does it want https there?)",
        ),
        (Disconnected("PROPFIND /: the connection broke"), "https://h/", "the connection broke"),
    ],
)
def test_first_contact(error: DavfsError, url: str, words: str) -> None:
    """No verbs of WebDAV where a person has typed an address, and a way on where there is one."""
    assert in_words(error, config_for(source=url)) == words


def test_a_pinned_certificate_needs_no_hint() -> None:
    """Who pins knows: the fingerprint that was found is in the text already."""
    config = config_for("pin_sha256=" + "00" * 32)
    assert in_words(Unreachable(UNTRUSTED), config) == UNTRUSTED[12:]
