"""What Nextcloud and ownCloud say beyond WebDAV: where uploads go, which names they take, checksums. Pure.

Three sources, none of them needed: the share's own address (`/remote.php/dav/files/USER/...` names the user,
and so the collection for uploads beside it), the capabilities of the server (OCS, one small JSON document),
and the text of a refusal. What is unknown stays unknown: then the server is asked the ordinary way, and what
it refuses is learned.

From the developer manual (WebDAV, "Chunked file upload"; OCS, "Capabilities API") and servers.md 22 and E.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, Self

from davfs.dav.documents import root_of
from davfs.dav.hrefs import Share, decode_href
from davfs.dav.resource import DavPath
from davfs.errors import BadName, NameTooLong

MOST_JSON_BYTES: Final = 1 << 20
MOST_REFUSAL_BYTES: Final = 16 * 1024
OCS_HEADERS: Final = {"OCS-APIRequest": "true", "Accept": "application/json"}
_FILES: Final = ("remote.php", "dav", "files")
_LEGACY: Final = ("remote.php", "webdav")
_SABRE: Final = "{http://sabredav.org/ns}"
# What some file system in the field cannot hold; of these a refusal of one name may teach.
_SUSPECT: Final = frozenset('\\:*?"<>|') | frozenset(map(chr, range(0x20))) | {"\x7f"}
_LONG_NAME_BYTES: Final = 200  # a refusal of a longer one may be for its length: 228 and 250 are in the field
_ENDINGS: Final = re.compile(r"\\\.\(([a-z|]+)\)\$")  # \.(part|filepart)$
_MOST_TOLD: Final = 1000  # entries of one list of the capabilities


# --- where things are ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Account:
    """One user of the server: the mounted folder as the uploads must name it, and the user's uploads."""

    files: Share
    uploads: Share

    def destination(self, path: DavPath) -> str:
        return self.files.url(path)

    def upload(self, name: str, member: str = "") -> str:
        """The address of an upload's folder, or of one member of it."""
        parts = (name, member) if member else (name,)
        return self.uploads.url(DavPath(parts), is_collection=not member)


def account_of(share: Share, principal: str | None = None) -> Account | None:
    """By the share's own address; for the old one, /remote.php/webdav/, by the href of the principal too."""
    at = _position(share.base, _FILES)
    if at is not None and len(share.base) > at + len(_FILES):
        user = share.base[at + len(_FILES)]
        return Account(share, replace(share, base=(*share.base[:at], "remote.php", "dav", "uploads", user)))
    at = _position(share.base, _LEGACY)
    found = decode_href(principal) if principal else None
    if at is None or not found or found[-3:-1] != ("principals", "users"):
        return None
    root, below = share.base[:at], share.base[at + len(_LEGACY) :]
    files = replace(share, base=(*root, *_FILES, found[-1], *below))
    return Account(files, replace(share, base=(*root, "remote.php", "dav", "uploads", found[-1])))


def is_legacy(share: Share) -> bool:
    """/remote.php/webdav/: the address does not tell the user."""
    return _position(share.base, _FILES) is None and _position(share.base, _LEGACY) is not None


def capabilities_url(share: Share) -> str | None:
    """Of the OCS document; None for an address that shows no root of a Nextcloud or ownCloud."""
    places = [at for at in (_position(share.base, _FILES), _position(share.base, _LEGACY)) if at is not None]
    if not places:
        return None
    path = DavPath((*share.base[: places[0]], "ocs", "v2.php", "cloud", "capabilities"))
    return replace(share, base=()).url(path) + "?format=json"


def _position(base: tuple[str, ...], wanted: tuple[str, ...]) -> int | None:
    ends = range(len(base) - len(wanted) + 1)
    return next((at for at in ends if base[at : at + len(wanted)] == wanted), None)


# --- names --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NameRules:
    """Which names the server refuses, as it told or as its refusals taught. In lower case, but for
    `refused`."""

    characters: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    stems: frozenset[str] = frozenset()
    endings: tuple[str, ...] = ()
    refused: frozenset[str] = frozenset()  # these very names, for a reason that is not known
    most_bytes: int = 255

    def check(self, name: str) -> None:
        """Raises BadName (EINVAL, or EACCES for a reserved name) or NameTooLong, before anything is sent."""
        if self is ALLOWING:
            return
        if len(os.fsencode(name)) > self.most_bytes:
            raise NameTooLong(f"the server takes names of at most {self.most_bytes} bytes")
        found = next((letter for letter in name if letter in self.characters), None)
        if found is not None:
            raise BadName(f"{name!r}: the server takes no name with {found!r}")
        lower = name.lower()
        reserved = lower in self.names or lower.partition(".")[0] in self.stems
        if reserved or lower.endswith(self.endings) or name in self.refused:
            raise ReservedName(f"{name!r}: the server does not take this name")

    def after_refusal(self, name: str) -> NameRules:
        """The server refused this name as a name. The narrowest reason that explains it is believed."""
        suspects = _SUSPECT.intersection(name)
        if len(suspects) == 1:
            return replace(self, characters=self.characters | suspects)
        size = len(os.fsencode(name))
        if not suspects and size > _LONG_NAME_BYTES:
            return replace(self, most_bytes=min(self.most_bytes, size - 1))
        return replace(self, refused=self.refused | {name}) if len(self.refused) < _MOST_TOLD else self


ALLOWING: Final = NameRules()


class ReservedName(BadName):
    """A name that the server keeps for itself, as .htaccess."""

    errno = errno.EACCES


# --- capabilities -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """What the capabilities say. None: they do not say."""

    chunks: bool | None = None
    checksum: str | None = None
    names: NameRules = ALLOWING

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Of a document of any content: what cannot be read is not told."""
        try:
            document = json.loads(body[:MOST_JSON_BYTES])
        except (ValueError, RecursionError):
            return cls()
        told = _below(document, "ocs", "data", "capabilities")
        files = _below(told, "files")
        chunks = files.get("bigfilechunking")
        return cls(
            chunks if isinstance(chunks, bool) else None,
            _checksum_kind(_below(told, "checksums")),
            _names(files),
        )


def _below(document: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def _texts(files: dict[str, Any], key: str) -> tuple[str, ...]:
    found = files.get(key)
    if not isinstance(found, list):
        return ()
    return tuple(text for text in found[:_MOST_TOLD] if isinstance(text, str) and 0 < len(text) <= 255)


def _names(files: dict[str, Any]) -> NameRules:
    lowered = {key: tuple(text.lower() for text in _texts(files, key)) for key in _LISTS}
    letters = {text for text in _texts(files, "forbidden_filename_characters") if len(text) == 1}
    regex = _ENDINGS.fullmatch(str(files.get("blacklisted_files_regex", ""))[:255])  # up to Nextcloud 29
    return NameRules(
        characters=frozenset(letters),
        names=frozenset((*lowered["forbidden_filenames"], *lowered["blacklisted_files"])),
        stems=frozenset(lowered["forbidden_filename_basenames"]),
        endings=(
            *lowered["forbidden_filename_extensions"],
            *(f".{end}" for end in (regex[1].split("|") if regex else ())),
        ),
    )


_LISTS: Final = (
    "forbidden_filenames",
    "blacklisted_files",
    "forbidden_filename_basenames",
    "forbidden_filename_extensions",
)


# --- checksums ----------------------------------------------------------------------------------------


class Sum(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Adler32:
    def __init__(self) -> None:
        self._value = 1

    def update(self, data: bytes, /) -> None:
        self._value = zlib.adler32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def _hash(name: str) -> Callable[[], Sum]:
    return lambda: hashlib.new(name, usedforsecurity=False)


_SUMS: Final[dict[str, Callable[[], Sum]]] = {  # the strongest first
    "SHA3-256": _hash("sha3_256"),
    "SHA256": _hash("sha256"),
    "SHA1": _hash("sha1"),
    "MD5": _hash("md5"),
    "ADLER32": _Adler32,
}
DEFAULT_SUM: Final = "SHA1"


def new_sum(kind: str) -> Sum:
    return _SUMS[kind]()


def _checksum_kind(told: dict[str, Any]) -> str | None:
    preferred = told.get("preferredUploadType")
    kinds = (preferred, *_texts(told, "supportedTypes"))
    return next((kind.upper() for kind in kinds if isinstance(kind, str) and kind.upper() in _SUMS), None)


def parse_checksums(text: str | None) -> dict[str, str]:
    """`SHA1:2fd4... MD5:9e10...`, as in OC-Checksum and oc:checksum, of the kinds that can be computed."""
    found = {}
    for word in (text or "")[:1024].split():
        kind, _, digest = word.partition(":")
        if kind.upper() in _SUMS and digest:
            found[kind.upper()] = digest.lower()
    return found


def best_checksum(text: str | None) -> tuple[str, str] | None:
    return best_of(parse_checksums(text))


def best_of(found: dict[str, str]) -> tuple[str, str] | None:
    return next(((kind, found[kind]) for kind in _SUMS if kind in found), None)


# --- refusals -----------------------------------------------------------------------------------------

_NAME_EXCEPTIONS: Final = (
    "InvalidPath",
    "InvalidCharacterInPath",
    "FileNameTooLong",
    "ReservedWord",
    "EmptyFileName",
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The XML of an error answer: the exception of the server, and its words."""

    exception: str = ""
    message: str = ""

    @classmethod
    def parse(cls, body: bytes) -> Self:
        root = root_of(body[:MOST_REFUSAL_BYTES])
        if root is None:
            return cls()
        texts = {str(child.tag): (child.text or "").strip() for child in root}
        return cls(texts.get(f"{_SABRE}exception", ""), texts.get(f"{_SABRE}message", "")[:500])

    @property
    def is_maintenance(self) -> bool:
        return "maintenance" in f"{self.exception} {self.message}".lower()

    @property
    def is_checksum(self) -> bool:
        return "checksum" in self.message.lower()

    @property
    def is_name(self) -> bool:
        """Whether it is the name that is refused. ForbiddenException of the server's blacklist is one too."""
        of_the_list = "forbidden file" in self.message.lower()
        return of_the_list or self.exception.rpartition("\\")[2] in _NAME_EXCEPTIONS
