"""Small XML answers, read whole: no DTD, no entities, no network. Pure. Listings are for `multistatus`."""

from __future__ import annotations

from lxml import etree


def root_of(body: bytes) -> etree._Element | None:
    """The root of a bounded document; None when there is none to read, or it has a DTD."""
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
    if root is None or root.getroottree().docinfo.doctype:
        return None
    return root
