"""Path <-> href: how a place in the share is written on the wire, and how a server's writing is read.

Owns the encoding (one: percent-encoded bytes, unreserved characters bare), the decoding of
whatever servers write, and containment: nothing outside the share becomes a `DavPath`.
Pure: no I/O, no clock; sync throughout.

Writing: every byte outside ALPHA DIGIT - . _ ~ is encoded (RFC 3986 2.3). Servers agree on that
form; Tomcat answers 404 to a raw `;` and npm cuts at a raw `?` (servers.md 14). Collections end
with '/': nginx refuses MKCOL, DELETE and MOVE of a folder without it (servers.md 20).

Reading: absolute URL or path, another host (a proxy's inside name), `//`, any case of %xx,
unescaped characters, raw UTF-8, with or without the final slash. Never cut at '#' or '?': npm and
libphodav do not encode them. `None` for what is not in the share or cannot be a path:
'..', NUL, an encoded slash inside a segment, names too long for the kernel.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from davfs.dav.resource import NAME_MAX_BYTES, DavPath
from davfs.errors import ConfigError

_AUTHORITY: Final = re.compile(r"https?://[^/]*", re.IGNORECASE)
_BASE_URL: Final = re.compile(r"(https?)://(?:[^/@]*@)?([^/@?#]+)(/[^?#]*)?", re.IGNORECASE)


def encode_name(name: str) -> str:
    """One path segment, percent-encoded; any bytes the kernel gave survive (surrogateescape)."""
    return quote_from_bytes(os.fsencode(name), safe="")


@lru_cache(maxsize=256)
def _encoded_folders(folders: tuple[str, ...]) -> str:
    return "".join(["/" + encode_name(name) for name in folders])


def folded(parts: Sequence[str]) -> tuple[str, ...]:
    """Equal for what a server without case, or with one Unicode form, takes for one path."""
    return tuple(unicodedata.normalize("NFC", part).casefold() for part in parts)


def decoded_again(path: DavPath) -> DavPath:
    """What a server that decodes a URL twice takes `path` for: "a%20b" is "a b" there (ASGIWebDAV 2.1)."""
    return DavPath(tuple(os.fsdecode(unquote_to_bytes(os.fsencode(name))) for name in path.parts))


def shown(path: DavPath) -> str:
    """The path for a message: one line, printable, encodable in any log."""
    text = str(path)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)


def _decode_segment(raw: str) -> str | None:
    try:
        data = unquote_to_bytes(raw.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        return None
    if len(data) > NAME_MAX_BYTES or b"/" in data or b"\0" in data or data in (b".", b".."):
        return None
    return os.fsdecode(data)


# A listing repeats one folder part in every href: 100,000 entries decode it once.
@lru_cache(maxsize=16)
def _decode_segments(raw: str) -> tuple[str, ...] | None:
    parts = []
    for segment in raw.split("/"):
        if not segment:  # '//' and the slashes at both ends
            continue
        name = _decode_segment(segment)
        if name is None:
            return None
        parts.append(name)
    return tuple(parts)


def _without_layout(href: str) -> str:
    """`href` without the line breaks of pretty-printed XML; blanks that end a name stay."""
    href = href.lstrip(" \t\r\n")
    bare = href.rstrip(" \t\r\n")
    return href if href[len(bare) :].strip(" ") == "" else bare


def _split_last(path: str) -> tuple[str, str]:
    """The folder part and the last segment of `/a/b` or `/a/b/`."""
    body = path.rstrip("/")
    folder, _, last = body.rpartition("/")
    return folder, last


def decode_href(href: str) -> tuple[str, ...] | None:
    """The decoded segments of an href from the root of its host; None if it cannot be a path."""
    path = _without_layout(href)
    absolute = _AUTHORITY.match(path)
    if absolute is not None:
        path = path[absolute.end() :] or "/"
    if not path.startswith("/"):  # RFC 4918 8.3: absolute URI or absolute path, nothing else
        return None
    folder, last = _split_last(path)
    parents = _decode_segments(folder)
    if parents is None or not last:
        return parents
    name = _decode_segment(last)
    return None if name is None else (*parents, name)


def _ascii_authority(authority: str) -> str:
    """Host and port as they may stand in a Destination header: international names in punycode."""
    if authority.isascii():
        return authority
    try:
        return authority.encode("idna").decode("ascii")
    except UnicodeError:
        raise ConfigError("not a share: the host name cannot be encoded") from None


@dataclass(frozen=True, slots=True)
class Share:
    """The mounted URL: its origin, and the decoded folders below which everything of ours lies."""

    scheme: str
    authority: str  # host and port as the user wrote them, without credentials
    base: tuple[str, ...]

    @classmethod
    def parse(cls, url: str) -> Share:
        """The share at `url`. Raises ConfigError; never repeats credentials of the URL in its text.

        The user may have typed blanks and umlauts unencoded; a query or fragment names no folder.
        """
        found = _BASE_URL.fullmatch(url.strip())
        if found is None:
            raise ConfigError("not a share: the address must be http://HOST/PATH or https://HOST/PATH")
        base = _decode_segments(found[3] or "/")
        if base is None:
            raise ConfigError("not a share: the address holds '..', NUL or an encoded slash")
        return cls(found[1].lower(), _ascii_authority(found[2].lower()), base)

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    def href(self, path: DavPath, *, is_collection: bool = False) -> str:
        """The absolute path of `path` on the server, in our encoding."""
        parts = path.parts
        if not parts:
            return _encoded_folders(self.base) + "/"
        folders = _encoded_folders(self.base + parts[:-1])  # the same one for many names in turn
        return f"{folders}/{encode_name(parts[-1])}{'/' if is_collection else ''}"

    def url(self, path: DavPath, *, is_collection: bool = False) -> str:
        return self.origin + self.href(path, is_collection=is_collection)

    def path_of(self, href: str) -> DavPath | None:
        """The place in the share that `href` names; None when it is outside, or not a path."""
        parts = decode_href(href)
        depth = len(self.base)
        if parts is None or not (parts[:depth] == self.base or folded(parts[:depth]) == folded(self.base)):
            return None  # SharePoint and IIS write the folders above in their own case
        return DavPath(parts[depth:])
