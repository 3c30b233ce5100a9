"""Where a redirect may lead: which part of a request survives it, and which address is refused.

Within the share it is followed; to another host only for a GET (object storage), and then without
credentials; out of the share on the same host it is a login page. Pure.
"""

from __future__ import annotations

import errno
from functools import lru_cache
from typing import Final
from urllib.parse import urljoin

import httpx

from davfs.dav import microsoft
from davfs.dav.hrefs import Share
from davfs.errors import NotDescribed, PosixError, ProtocolError, ServerRefused

_INDEX: Final = "Apache, where a folder has an index.html: set DirectoryIndex disabled"
_HARMLESS: Final = frozenset({"PROPFIND", "OPTIONS"})  # may be sent to 'a/' where 'a' was meant


class NotWebDav(ProtocolError):
    """Something answers at the address, but it does not speak WebDAV there."""


class LoginPage(NotWebDav):
    """The server sends who asks to a page for people."""

    errno = errno.EACCES


def not_webdav(url: str, status: int) -> NotWebDav:
    """For the person who typed the address."""
    text = f"{url} does not speak WebDAV: it answered {status} to PROPFIND"
    if status == 405:  # servers.md E and 21
        text += f" (Nextcloud: add /remote.php/dav/files/USER/; {_INDEX})"
    return NotWebDav(text)


def with_hint(error: ServerRefused) -> ServerRefused:
    """405 to PROPFIND below the root: Apache's mod_dir asks for the page in the folder (servers.md 21)."""
    if isinstance(error, NotDescribed):
        error.args = (f"{error} ({_INDEX})",)
    return error


def redirected(
    share: Share, label: str, method: str, here: str, location: str, *, is_collection: bool
) -> str:
    """Where to ask again. Raises for what must not be followed."""
    if not location:  # it would be sent to the same address again, with its body
        raise ProtocolError(f"{label}: redirected to nowhere: there is no Location")
    try:
        target = httpx.URL(urljoin(here, location)).copy_with(username="", password="", fragment=None)
        is_inside = is_in_share(share, target)  # reads the host, which may be punycode of nothing (xn--a)
    except (httpx.InvalidURL, ValueError):
        raise ProtocolError(f"{label}: redirected to an address that cannot be read") from None
    login = microsoft.redirect_text(str(target))
    if login is not None and microsoft.redirect_text(here) is None:
        raise LoginPage(f"{label}: {login}")
    if not is_inside:
        _check_abroad(share, label, method, target)
    elif method not in _HARMLESS and not is_collection and target.path.endswith("/"):
        # 'a' -> 'a/': what we took for a file is a folder. DELETE would remove a tree, GET read a page
        raise PosixError(errno.EISDIR, f"{label}: it is a folder on the server")
    return str(target)


def is_in_share(share: Share, url: httpx.URL) -> bool:
    if not _is_home(share, url):
        return False
    return share.path_of(url.raw_path.partition(b"?")[0].decode("ascii")) is not None


def _check_abroad(share: Share, label: str, method: str, target: httpx.URL) -> None:
    where = f"{target.scheme}://{target.netloc.decode('ascii')}{target.path}"[:300]
    is_downgrade = share.scheme == "https" and target.scheme != "https"
    if _is_home(share, target):  # a login page of this server, not an object store
        raise ProtocolError(f"{label}: redirected out of the share, to {where}")
    if method != "GET" or is_downgrade or target.scheme not in ("http", "https"):
        raise NotWebDav(f"{label}: the server redirects to {where}; use that address instead")


def _is_home(share: Share, url: httpx.URL) -> bool:
    return (url.scheme, url.host, url.port) == _home(share.origin)


@lru_cache(maxsize=16)
def _home(origin: str) -> tuple[str, str, int | None]:
    url = httpx.URL(origin)  # httpx drops default ports, so ':443' and '' are equal
    return url.scheme, url.host, url.port
