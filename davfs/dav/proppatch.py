"""PROPPATCH (RFC 4918 9.2): the body, and what the answer says of each property. Pure.

Servers apply all or nothing (424 for what another one's failure undid), but their answers differ: 207 with
a propstat for each status, lighttpd 204 without a body (servers.md 22), and some name no property at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lxml import etree

from davfs.dav.documents import root_of

_STATUS: Final = re.compile(r"\S+\s+(\d{3})\b|\s*(\d{3})\s*$")


@dataclass(frozen=True, slots=True)
class PropertyChange:
    """Set `name` (Clark notation) to a text; None removes it."""

    name: str
    value: str | None


def body(changes: Sequence[PropertyChange]) -> bytes:
    """Raises ValueError for text that XML cannot hold: the caller encodes such values."""
    root = etree.Element("{DAV:}propertyupdate", nsmap={"D": "DAV:"})
    for change in changes:
        update = etree.SubElement(root, "{DAV:}remove" if change.value is None else "{DAV:}set")
        prop = etree.SubElement(update, "{DAV:}prop")
        namespace = etree.QName(change.name).namespace
        element = etree.SubElement(
            prop, change.name, nsmap={"Z": namespace} if namespace and namespace != "DAV:" else None
        )
        element.text = change.value
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + etree.tostring(root)


def outcome(changes: Sequence[PropertyChange], status: int, answer: bytes) -> Mapping[str, int]:
    """The status of each change. One that a 207 does not name has the status of its response, or 500.

    `status` is that of the answer: 2xx other than 207 means that all were made.
    """
    if status != 207:
        return {change.name: status for change in changes}
    root = root_of(answer)
    response = None if root is None else root.find("{DAV:}response")
    if response is None:
        return {change.name: 500 for change in changes}
    overall = _status(response.findtext("{DAV:}status")) or 500
    found: dict[str, int] = {}
    for propstat in response.iterfind("{DAV:}propstat"):
        of_these = _status(propstat.findtext("{DAV:}status")) or 500
        for prop in propstat.iterfind("{DAV:}prop"):
            found.update((value.tag, of_these) for value in prop if isinstance(value.tag, str))
    # ASGIWebDAV names all of them as if they were in DAV:
    misnamed = {_local(name): of_these for name, of_these in found.items()}
    return {
        change.name: found.get(change.name, misnamed.get(_local(change.name), overall)) for change in changes
    }


def _local(name: str) -> str:
    """Without its namespace. A broken answer has names that are none ("ns1:a"): QName raises for them."""
    return name.rpartition("}")[2]


def _status(text: str | None) -> int | None:
    found = _STATUS.match(text.strip()) if text else None
    return int(found[1] or found[2]) if found else None
