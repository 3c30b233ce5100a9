"""Small XML answers, read whole: no DTD, no entities, no network. Pure. Listings are for `multistatus`."""

from __future__ import annotations

from lxml import etree


def root_of(body: bytes) -> etree._Element | None:
    """The root of a bounded document; None when there is none to read, or it has a DTD.

    All text in it can be read: a parser that recovers lets references to surrogates (&#xD800;) pass, and lxml
    raises UnicodeDecodeError only when somebody looks at such a text.
    """
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        recover=True,  # rclone writes after the end of its documents (servers.md 16)
    )
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
