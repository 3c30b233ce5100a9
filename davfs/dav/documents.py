"""How XML of strangers is read: no DTD, no entities, no network. Pure.

Small answers are read whole here; listings are for `multistatus`, which reads with the same `CAUTION`.
"""

from __future__ import annotations

from typing import Final, TypedDict

from lxml import etree


class _Caution(TypedDict):
    resolve_entities: bool
    load_dtd: bool
    no_network: bool
    huge_tree: bool
    remove_comments: bool
    remove_pis: bool


# libxml2's own limits stay on (depth 256, 10 MB of text).
CAUTION: Final[_Caution] = {
    "resolve_entities": False,
    "load_dtd": False,
    "no_network": True,
    "huge_tree": False,
    "remove_comments": True,
    "remove_pis": True,
}


def root_of(body: bytes) -> etree._Element | None:
    """The root of a bounded document; None when there is none to read, or it has a DTD.

    All text in it can be read: a parser that recovers lets references to surrogates (&#xD800;) pass, and lxml
    raises UnicodeDecodeError only when somebody looks at such a text.
    """
    parser = etree.XMLParser(**CAUTION, recover=True)  # rclone writes after the end (servers.md 16)
    try:
        root = etree.fromstring(body, parser) if body.strip() else None
    except (etree.XMLSyntaxError, ValueError):
        return None
    if root is None or root.getroottree().docinfo.doctype or not _is_readable(root):
        return None
    return root


def _is_readable(root: etree._Element) -> bool:
    try:
        return all(_texts_of(element) for element in root.iter())
    except UnicodeDecodeError:
        return False


def _texts_of(element: etree._Element) -> tuple[object, ...]:
    return element.tag, element.text, element.tail
