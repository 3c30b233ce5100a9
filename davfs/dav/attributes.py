"""Extended attributes and link targets as texts of dead properties, and back. Pure.

A property's name must be an XML name, and its text XML text: servers that keep properties differ in all the
rest. lighttpd keeps flat text only, and drops an empty value; sabre/dav 1.8 lists no dead property in allprop
or propname. So: names and values are encoded where they are not plain; no text is empty; and which
attributes a file has stands in one more property (`Inventory`), which listings can ask for.

What is read back was perhaps written by somebody else: what cannot have been written here is None.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from dataclasses import dataclass
from typing import Final

XATTR_NAMESPACE: Final = "urn:davfs:xattr:"
XATTR_PREFIX: Final = "user."
NAME_MAX_BYTES: Final = 255  # XATTR_NAME_MAX, with its prefix
VALUE_MAX_BYTES: Final = 64 * 1024  # XATTR_SIZE_MAX
TARGET_MAX_BYTES: Final = 4095  # PATH_MAX without its NUL
INVENTORY_MAX: Final = 4000  # characters: `properties.EXTRA_TEXT_MAX` is what listings keep
_BASE64: Final = "base64:"

_NAME_START: Final = re.compile(rb"[A-Za-z]")
_NAME_BYTE: Final = re.compile(rb"[A-Za-z0-9.-]")
_CODED_BYTE: Final = re.compile(r"_x([0-9A-F]{2})_")
# What XML forbids, what parsers change (a carriage return, blanks at the ends), and what escapes the rest.
_NOT_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]")
_TO_CODE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff\udc80-\udcff%]+|^ +| +$")


# --- extended attributes


def xattr_property(name: str) -> str:
    """In Clark notation: the name itself, with `_xHH_` for the bytes that an XML name may not have."""
    return f"{{{XATTR_NAMESPACE}}}{encoded_name(name)}"


def encoded_name(name: str) -> str:
    raw = name.removeprefix(XATTR_PREFIX).encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if _is_plain(raw, at) else f"_x{byte:02X}_" for at, byte in enumerate(raw))


def _is_plain(raw: bytes, at: int) -> bool:
    if raw[at : at + 1] == b"_":
        return raw[at + 1 : at + 2] != b"x"
    return (_NAME_START if at == 0 else _NAME_BYTE).match(raw, at) is not None


def decoded_name(coded: str) -> str | None:
    raw = bytearray()
    at = 0
    while at < len(coded):
        found = _CODED_BYTE.match(coded, at)
        raw += bytes([int(found[1], 16)]) if found else coded[at].encode("utf-8", "surrogateescape")
        at = found.end() if found else at + 1
    if not raw or b"\0" in raw or len(raw) + len(XATTR_PREFIX) > NAME_MAX_BYTES:
        return None
    name = XATTR_PREFIX + raw.decode("utf-8", "surrogateescape")
    return name if encoded_name(name) == coded else None


def value_text(value: bytes) -> str:
    """The value itself where it is plain text, so that other clients can read it; else base64."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or text != text.strip() or _NOT_TEXT.search(text) or text.startswith(_BASE64):
        return _BASE64 + base64.b64encode(value).decode()
    return text


def value_of(text: str) -> bytes | None:
    if not text.startswith(_BASE64):
        return text.encode("utf-8", "surrogateescape")
    try:
        return base64.b64decode(text[len(_BASE64) :].strip(), validate=True)
    except (binascii.Error, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Inventory:
    """Which attributes a file has. Each change gives another `serial`: what was read holds until then."""

    serial: str = ""
    names: frozenset[str] = frozenset()  # with their prefix

    @classmethod
    def parse(cls, text: str | None) -> Inventory:
        serial, *coded = (text or "").split() or [""]
        names = (decoded_name(each) for each in coded)
        return cls(serial, frozenset(name for name in names if name is not None))

    def changed(self, added: frozenset[str], removed: frozenset[str]) -> Inventory:
        return Inventory(secrets.token_hex(4), (self.names | added) - removed)

    def text(self) -> str:
        return " ".join([self.serial, *sorted(map(encoded_name, self.names))])

    @property
    def fits(self) -> bool:
        return len(self.text()) <= INVENTORY_MAX


# --- symbolic links


def target_text(target: str) -> str:
    """A link's target (surrogateescape): itself, with %HH for what XML cannot hold, and for '%'."""
    return _TO_CODE.sub(
        lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape")), target
    )


def target_of(text: str | None) -> str | None:
    """The target as it is, whatever it points to: only the kernel follows it. None for what is no target."""
    if not text:
        return None
    plain = text.encode("utf-8", "surrogatepass")
    raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), plain)
    if not 0 < len(raw) <= TARGET_MAX_BYTES or b"\0" in raw:
        return None
    return raw.decode("utf-8", "surrogateescape")
