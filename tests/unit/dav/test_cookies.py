"""The cookies that go with requests: by path, until they expire, and the newest."""

from __future__ import annotations

import math
import time

import pytest

from davfs.dav.lanes import Errand, Home, Timeouts
from davfs.dav.lanes.answers import parse_head
from davfs.dav.lanes.cookies import Cookies

HOME = Home.of("https://server.example", b"")


def _errand(target: str = "/dav/f") -> Errand:
    return Errand.home(HOME, "GET", target, {}, timeouts=Timeouts())


def _told(*cookies: str) -> Cookies:
    jar = Cookies()
    _tell(jar, *cookies)
    return jar


def _tell(jar: Cookies, *cookies: str) -> None:
    lines = "".join(f"Set-Cookie: {cookie}\r\n" for cookie in cookies)
    jar.keep(_errand(), parse_head(f"HTTP/1.1 204 X\r\n{lines}\r\n".encode(), "GET"))


def test_there_are_none_at_first() -> None:
    """Nothing was set, nothing goes along."""
    assert Cookies().line(_errand(), 0.0) == ""


def test_all_that_are_for_the_whole_server_go_with_everything() -> None:
    """Whatever the path and the time, as they name no end."""
    jar = _told("a=1; Path=/", "b=2; Path=/; HttpOnly")
    for target, now_s in (("/dav/f", 0.0), ("/dav/g", 1e9), ("/", math.inf)):
        assert jar.line(_errand(target), now_s) == "Cookie: a=1; b=2\r\n"


def test_the_newest_value_counts() -> None:
    """A server that renews a session is sent the new one, and none when it ends it."""
    jar = _told("a=1; Path=/")
    assert jar.line(_errand(), 0.0) == "Cookie: a=1\r\n"
    _tell(jar, "a=2; Path=/")
    assert jar.line(_errand(), 0.0) == "Cookie: a=2\r\n"
    _tell(jar, "a=2; Path=/; Max-Age=0")
    assert jar.line(_errand(), 0.0) == ""


def test_one_for_a_folder_goes_there_only() -> None:
    """Then each request is looked at by itself."""
    jar = _told("a=1; Path=/", "b=2; Path=/dav/sub")
    assert "b=2" not in jar.line(_errand("/dav/f"), 0.0)
    assert "b=2" in jar.line(_errand("/dav/sub/f"), 0.0)
    assert "b=2" not in jar.line(_errand("/dav/f"), 0.0)


def test_what_has_an_end_is_asked_for_again_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kept line is good until the first of them expires."""
    jar = _told("a=1; Path=/; Max-Age=100", "b=2; Path=/; Max-Age=200")
    now_s = time.time()
    assert jar.line(_errand(), now_s) == "Cookie: a=1; b=2\r\n"
    monkeypatch.setattr(time, "time", lambda: now_s + 150)  # http.cookiejar has no other clock
    assert jar.line(_errand(), now_s + 90) == "Cookie: a=1; b=2\r\n"
    assert jar.line(_errand(), now_s + 150) == "Cookie: b=2\r\n"
