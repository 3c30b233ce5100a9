"""The values that the wire layer hands up: paths, entity tags, validators, resources.

All are frozen and cannot be wrong once built: a `DavPath` cannot hold `..` or a slash in a
segment, an `ETag` knows weak from strong. Nothing here does I/O or asks a clock.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, NamedTuple

from davfs.errors import BadName, NameTooLong

NAME_MAX_BYTES: Final = 255  # Linux NAME_MAX; every server but three takes as much (servers.md, table 13)


def checked_name(name: str) -> str:
    """`name` itself, if it can be one path segment.

    Names are str with surrogateescape, so that any bytes the kernel allows survive.
    Raises BadName (EINVAL) or NameTooLong (ENAMETOOLONG).
    """
    if not is_name_short(name):
        raise NameTooLong(f"name of more than {NAME_MAX_BYTES} bytes")
    if not name or name in {".", ".."} or "/" in name or "\0" in name:
        raise BadName(f"not a file name: {name!r}")
    return name


def is_name_short(name: str) -> bool:
    """Whether Linux can open it; the kernel fails a whole listing for one name that is too long."""
    return len(name) <= NAME_MAX_BYTES // 4 or len(os.fsencode(name)) <= NAME_MAX_BYTES


@dataclass(frozen=True, slots=True)
class DavPath:
    """A place in the share, as decoded segments below its root."""

    parts: tuple[str, ...] = ()

    def child(self, name: str) -> DavPath:
        return DavPath((*self.parts, checked_name(name)))

    @property
    def parent(self) -> DavPath:
        """The folder that holds it; the root is its own parent."""
        return DavPath(self.parts[:-1])

    @property
    def name(self) -> str:
        return self.parts[-1] if self.parts else ""

    def is_within(self, other: DavPath) -> bool:
        """True for `other` itself and everything below it."""
        return self.parts[: len(other.parts)] == other.parts

    def __str__(self) -> str:
        return "/" + "/".join(self.parts)


ROOT: Final = DavPath()


class ETag(NamedTuple):
    """An entity tag (RFC 9110 8.8.3): the text between the quotes, and its strength."""

    opaque: str
    weak: bool = False

    @classmethod
    def parse(cls, text: str | None) -> ETag | None:
        """Read a header or getetag text; None for nothing usable.

        Takes unquoted tags too: WsgiDAV and Nephele write getetag without quotes (servers.md 11).
        """
        if text is None:
            return None
        text = text.strip()
        weak = text[:2] in {"W/", "w/"}
        if weak:
            text = text[2:]
        if len(text) >= 2 and text[0] == text[-1] == '"':
            text = text[1:-1]
        if not text or '"' in text or not text.isprintable():
            return None
        return cls(text, weak)

    def header(self) -> str:
        return f'W/"{self.opaque}"' if self.weak else f'"{self.opaque}"'


@dataclass(frozen=True, slots=True)
class Validator:
    """What tells one version of a resource from another: ETag, else mtime and size."""

    etag: ETag | None = None
    mtime_s: int | None = None
    size_bytes: int | None = None

    def same_version(self, other: Validator) -> bool:
        """True when nothing known tells the two apart.

        Tags are compared without their strength: Apache's are weak for the first two seconds
        and the same text afterwards (servers.md 10). Where only one side has a tag (nginx shows
        ETags in GET but not in PROPFIND), mtime and size decide.
        """
        if (
            self.size_bytes is not None
            and other.size_bytes is not None
            and self.size_bytes != other.size_bytes
        ):
            return False
        if self.etag is not None and other.etag is not None:
            return self.etag.opaque == other.etag.opaque
        if self.mtime_s is None or other.mtime_s is None:
            return False
        return self.mtime_s == other.mtime_s

    @property
    def if_match(self) -> ETag | None:
        """The tag that may stand in If-Match: a strong one (RFC 9110 13.1.1), else None."""
        return self.etag if self.etag is not None and not self.etag.weak else None


class Resource(NamedTuple):
    """What the server says of one path. Unknown is None, never a made-up value.

    One is made for each entry of each listing, and a tag with it: tuples take a third of the time of frozen
    dataclasses.
    """

    is_collection: bool
    size_bytes: int | None = None
    mtime_s: int | None = None
    etag: ETag | None = None
    executable: bool | None = None
    spelled: str | None = None  # its name, where the server answered about another one than it was asked for
    extras: tuple[tuple[str, str], ...] = ()  # (name, text) of those in `properties.EXTRAS` that it has

    def extra(self, name: str) -> str | None:
        """What the server said of this one, if it was asked for and is there."""
        return next((text for known, text in self.extras if known == name), None)

    @property
    def validator(self) -> Validator:
        return Validator(self.etag, self.mtime_s, self.size_bytes)


@dataclass(frozen=True, slots=True)
class Quota:
    """RFC 4331, in bytes. None: the server does not say (or says -1, -2, -3: unknown or no limit)."""

    available_bytes: int | None = None
    used_bytes: int | None = None
