"""The cookies of the share's server: Nextcloud needs 0.55 s for a request without its session, 0.05 s with it
(servers.md 34). `now_s` is unix time.

Which of them go with a request is httpx's to say, by path and by age. That takes 150 us, as much as all the
rest of a small request, so where all of them are for the whole server the answer is kept until one expires.
"""

from __future__ import annotations

import math

import httpx

from davfs.dav.lanes.answers import Head
from davfs.dav.lanes.errand import Errand


class Cookies:
    def __init__(self) -> None:
        self._jar = httpx.Cookies()
        self._is_empty = True
        self._line = ""
        self._good_until_s = 0.0

    def line(self, errand: Errand, now_s: float) -> str:
        """The header line for `errand`, '' for none."""
        if not self._is_empty and now_s >= self._good_until_s:
            self._line = self._chosen(errand)
            self._good_until_s = self._changes_s()
        return self._line

    def keep(self, errand: Errand, head: Head) -> None:
        """What the answer to `errand` sets."""
        request = httpx.Request("GET", errand.url)
        self._jar.extract_cookies(httpx.Response(head.status, headers=head.headers, request=request))
        self._line, self._good_until_s = "", 0.0
        self._is_empty = not self._jar

    def _chosen(self, errand: Errand) -> str:
        carrier = httpx.Request("GET", errand.url)
        self._jar.set_cookie_header(carrier)
        text = carrier.headers.get("cookie", "")
        return f"Cookie: {text}\r\n" if text and text.isprintable() else ""

    def _changes_s(self) -> float:
        if any(cookie.path != "/" for cookie in self._jar.jar):
            return 0.0
        return min((one.expires for one in self._jar.jar if one.expires is not None), default=math.inf)
