"""How a server keeps the time that a program set: the ladder of ways, and what each writes. Pure.

With a PUT the time costs nothing (X-OC-Mtime on Nextcloud, copyparty and rclone 1.75, Date on nginx); whether
it was taken is read back. Afterwards it takes a PROPPATCH, in one of the `WAYS`: three that set what
getlastmodified says, if the server means it (each is accepted somewhere as a dead property that changes
nothing, so only reading back tells), and a dead property of ours.

The dead property names the version it was set on: Apache, sabre/dav, lighttpd and WsgiDAV keep it over a PUT
by somebody else, where it would be a lie. So setting it needs no condition: on another version it is void.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import Final, Literal

from davfs.dav.properties import MTIME, WIN32_MTIME
from davfs.dav.resource import ETag, Resource, Validator

Way = Literal["lastmodified", "getlastmodified", "win32", "property"]
# Nextcloud; what RFC 4918 protects and some let through; IIS; anything that keeps dead properties.
WAYS: Final[tuple[Way, ...]] = ("lastmodified", "getlastmodified", "win32", "property")
NAMES: Final[dict[Way, str]] = {
    "lastmodified": "{DAV:}lastmodified",
    "getlastmodified": "{DAV:}getlastmodified",
    "win32": WIN32_MTIME,
    "property": MTIME,
}
NS: Final = 1_000_000_000
DAY_S: Final = 86_400
LONGEST_TAG: Final = 256  # a longer one is left out: mtime and size then tell the version
_TIME: Final = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?")
_SIZE_MAX_DIGITS: Final = 19


def put_headers(mtime_s: int, *, by_date: bool) -> dict[str, str]:
    """What goes with a PUT. `by_date`: nginx, which takes the time of a file from there (its manual).

    Nextcloud refuses a PUT with a time within a day of the epoch, whatever time zone was meant.
    """
    if mtime_s <= DAY_S:
        return {}
    return {"Date": formatdate(mtime_s, usegmt=True)} if by_date else {"X-OC-Mtime": str(mtime_s)}


def value(way: Way, mtime_ns: int, version: Validator) -> str:
    """The text of the property."""
    if way == "property":
        return marked(mtime_ns, version)
    seconds = mtime_ns // NS
    return str(seconds) if way == "lastmodified" else formatdate(max(0, seconds), usegmt=True)


def marked(mtime_ns: int, version: Validator) -> str:
    """`SECONDS.NANOSECONDS SIZE MTIME TAG`, the last three as the server tells them; '-' for unknown."""
    sign, ns = ("-", -mtime_ns) if mtime_ns < 0 else ("", mtime_ns)
    size = "-" if version.size_bytes is None else version.size_bytes
    server = "-" if version.mtime_s is None else version.mtime_s
    tag = "" if version.etag is None or len(version.etag.opaque) > LONGEST_TAG else version.etag.opaque
    return f"{sign}{ns // NS}.{ns % NS:09} {size} {server} {tag}".rstrip()


def parsed(text: str) -> tuple[int, Validator] | None:
    """The time in nanoseconds and the version it belongs to; None for anything else."""
    words = text.strip().split(" ", 3)
    found = _TIME.fullmatch(words[0]) if len(words) >= 3 else None
    size, server = (_number(word) for word in words[1:3]) if found is not None else (None, None)
    if found is None:
        return None
    ns = int(found[2]) * NS + int((found[3] or "").ljust(9, "0"))
    tag = ETag(words[3]) if len(words) == 4 and words[3].isprintable() else None
    if tag is None and server is None:
        return None
    return (-ns if found[1] else ns), Validator(tag, server, size)


def _number(word: str) -> int | None:
    digits = word.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > _SIZE_MAX_DIGITS:
        return None
    return int(word)


def kept_mtime_ns(resource: Resource) -> int | None:
    """What a program set, by the dead property, if it was on the version that is there."""
    if not resource.extras:
        return None
    text = resource.extra(MTIME)
    found = parsed(text) if text else None
    if found is None:
        return None
    mtime_ns, version = found
    if resource.is_collection:  # no size; tags of folders follow their time
        same = version.mtime_s is not None and version.mtime_s == resource.mtime_s
    else:
        same = version.same_version(resource.validator)
    return mtime_ns if same else None


def with_kept(resource: Resource, text: str) -> tuple[tuple[str, str], ...]:
    """Its extras, after the property was set to this."""
    return (*(one for one in resource.extras if one[0] != MTIME), (MTIME, text))
