"""Which authentication goes out, and what is refused before anything does."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from davfs.dav.auth import build_auth, check_plaintext
from davfs.errors import ConfigError

_DIGEST = 'Digest realm="dav", nonce="n0", qop="auth", algorithm=MD5'


@pytest.mark.parametrize(
    "url", ["https://example.org/", "http://127.0.0.1:8080/", "http://localhost/", "http://[::1]:80/"]
)
def test_where_a_password_may_go(url: str) -> None:
    """TLS and this machine."""
    check_plaintext(url, allow=False)


def test_no_password_in_the_clear() -> None:
    """Basic over plain http to another host is a ConfigError unless allowed."""
    with pytest.raises(ConfigError, match=r"example\.org"):
        build_auth("basic", "http://me:s3cret@example.org/", "me", "s3cret")
    assert build_auth("basic", "http://example.org/", "me", "s3cret", allow_plaintext=True) is not None


def test_nothing_to_log_in_with() -> None:
    """'none' and a missing user name mean anonymous."""
    assert build_auth("none", "https://h/", "me", "pw") is None
    assert build_auth("auto", "https://h/", "", "") is None


def _asked(scheme_header: list[str], url: str = "https://h/") -> list[str]:
    """The Authorization schemes sent to a server that always refuses with these challenges."""
    sent: list[str] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("authorization", "").partition(" ")[0])
        return httpx.Response(401, headers=[("WWW-Authenticate", text) for text in scheme_header])

    with httpx.Client(transport=httpx.MockTransport(refuse)) as http:
        http.get(url, auth=build_auth("auto", url, "me", "pw"))
    return sent


@pytest.mark.parametrize(
    ("challenges", "sent"),
    [
        (['Basic realm="dav"'], ["", "Basic"]),
        (['Basic realm="dav"', _DIGEST], ["", "", "Digest"]),
        (["Negotiate"], [""]),
        ([], [""]),
    ],
)
def test_the_strongest_offer_is_taken(challenges: list[str], sent: list[str]) -> None:
    """'auto' asks first, prefers Digest, and never goes round in circles on a refused password."""
    assert _asked(challenges) == sent


def test_auto_does_not_fall_for_basic_in_the_clear() -> None:
    """A challenge cannot talk the password out over plain http."""
    fetch: Callable[[], list[str]] = lambda: _asked(['Basic realm="x"'], "http://example.org/")  # noqa: E731
    with pytest.raises(ConfigError):
        fetch()
