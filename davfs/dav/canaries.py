"""What `davfs probe` writes and asks for: properties, names, contents, times. Data, pure.

Each is chosen so that what comes back shows what became of it.
"""

from __future__ import annotations

import base64
from email.utils import formatdate
from typing import Final
from xml.sax.saxutils import escape

_HEAD: Final = b'<?xml version="1.0" encoding="utf-8"?>\n'
_OWN: Final = "https://davfs.invalid/probe"
CANARY: Final = f"{{{_OWN}}}canary"
_WIN32: Final = "urn:schemas-microsoft-com:"
EXECUTABLE: Final = "{http://apache.org/dav/props/}executable"
PRIVILEGES: Final = ("{DAV:}current-user-privilege-set", "{http://owncloud.org/ns}permissions")
CHECKSUMS: Final = "{http://owncloud.org/ns}checksums"
QUESTION: Final = (
    _HEAD + b'<D:propfind xmlns:D="DAV:" xmlns:o="http://owncloud.org/ns"><D:prop><D:resourcetype/>'
    b"<D:getcontentlength/><D:getlastmodified/><D:getetag/><D:creationdate/><D:quota-available-bytes/>"
    b"<D:quota-used-bytes/><D:current-user-privilege-set/><o:permissions/><o:checksums/>"
    b'<executable xmlns="http://apache.org/dav/props/"/>'
    b'<canary xmlns="' + _OWN.encode() + b'"/></D:prop></D:propfind>'
)
EXECUTABLE_PROPERTY: Final = b'<executable xmlns="http://apache.org/dav/props/">T</executable>'

# Times of 2001, one day apart: each way to set one is recognised by what it leaves.
MTIMES: Final = {
    "x_oc_mtime": 1_000_000_000,
    "getlastmodified": 1_000_086_400,
    "lastmodified": 1_000_172_800,
    "win32lastmodifiedtime": 1_000_259_200,
    "put_date": 1_000_345_600,
}
PROPERTY_MTIMES: Final = tuple(
    (way, MTIMES[way]) for way in ("getlastmodified", "lastmodified", "win32lastmodifiedtime")
)

NAMES: Final = {
    "space": "a b",
    "percent": "a%41b",
    "question mark": "a?b",
    "hash": "a#b",
    "semicolon": "a;b",
    "backslash": "a\\b",
    "colon": "a:b",
    "plus": "a+b",
    "quotes": "a\"'b",
    "markup": "a&<b",
    "trailing dot": "dot.",
    "trailing space": "blank ",
    "umlaut": "nfc-\u00e9",
    "case": "Case",
}
NFD_NAME: Final = "nfc-e\u0301"
CONTROL_NAME: Final = "a\x01b"
MOVED_NAMES: Final = {"percent": "a%41b", "question mark": "a?b", "semicolon": "a;b", "umlaut": "\u00e9"}
NAME_SIZES: Final = (255, 245, 228, 143)
DEAD_TEXT: Final = base64.b64encode(bytes(range(256))).decode()  # any bytes, as xattrs would be kept
CUT_OLD: Final = b"o" * 1000
PART_OLD: Final = b"0123456789"
PART_NEW: Final = b"012XY56789"


def property_update(prop: bytes) -> bytes:
    return (
        _HEAD + b'<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop>' + prop + b"</D:prop></D:set>"
        b"</D:propertyupdate>"
    )


def dead_property(text: str) -> bytes:
    return f'<canary xmlns="{_OWN}">{escape(text)}</canary>'.encode()


def mtime_property(way: str, when_s: int) -> bytes:
    """`lastmodified` is Nextcloud's, in seconds; Win32LastModifiedTime is what Windows sets."""
    date = formatdate(when_s, usegmt=True)
    if way == "lastmodified":
        return f"<D:lastmodified>{when_s}</D:lastmodified>".encode()
    if way == "getlastmodified":
        return f"<D:getlastmodified>{date}</D:getlastmodified>".encode()
    return f'<Win32LastModifiedTime xmlns="{_WIN32}">{date}</Win32LastModifiedTime>'.encode()
