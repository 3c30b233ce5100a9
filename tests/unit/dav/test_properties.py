"""What listings ask for, and properties that are set."""

from __future__ import annotations

import pytest
from lxml import etree

from davfs.dav import properties, proppatch
from davfs.dav.multistatus import Multistatus
from davfs.dav.proppatch import PropertyChange

SET = PropertyChange(properties.MTIME, "1.5")
REMOVED = PropertyChange(properties.LINK, None)


def answered(*propstats: str, status: str = "") -> bytes:
    return (
        '<D:multistatus xmlns:D="DAV:" xmlns:Z="urn:davfs:"><D:response><D:href>/dav/a</D:href>'
        f"{status}{''.join(propstats)}</D:response></D:multistatus>"
    ).encode()


def propstat(name: str, status: int) -> str:
    return f"<D:propstat><D:prop><Z:{name}/></D:prop><D:status>HTTP/1.1 {status} X</D:status></D:propstat>"


def test_extras_are_asked_for_beside_the_usual() -> None:
    """In their own namespaces, each once."""
    root = etree.fromstring(properties.propfind(frozenset({properties.MTIME, properties.IS_HIDDEN})))
    asked = [element.tag for element in root[0]]
    assert asked == [*properties.ALWAYS, properties.IS_HIDDEN, properties.MTIME]


def test_extras_are_kept_as_text() -> None:
    """Also where the value is made of elements; one that the server does not have is not there."""
    prop = "<Z:mtime>12.5</Z:mtime><D:current-user-privilege-set><D:privilege><D:read/></D:privilege>"
    prop += "<D:privilege><D:write/></D:privilege></D:current-user-privilege-set>"
    found = f"<D:propstat><D:prop>{prop}</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
    document = Multistatus()
    (entry,) = [*document.feed(answered(found, propstat("symlink", 404))), *document.close()]
    assert entry.resource.extra(properties.MTIME) == "12.5"
    assert entry.resource.extra(properties.PRIVILEGES) == "{DAV:}read {DAV:}write"
    assert entry.resource.extra(properties.LINK) is None


def test_the_length_of_an_extra_is_bounded() -> None:
    """A server cannot fill the memory with them."""
    found = f"<D:propstat><D:prop><Z:mtime>{'1' * 9999}</Z:mtime></D:prop></D:propstat>"
    document = Multistatus()
    (entry,) = [*document.feed(answered(found)), *document.close()]
    assert entry.resource.extra(properties.MTIME) == "1" * properties.EXTRA_TEXT_MAX


def test_properties_are_set_and_removed_in_order() -> None:
    """RFC 4918 9.2: instructions are processed in document order."""
    root = etree.fromstring(proppatch.body([SET, REMOVED, PropertyChange("{DAV:}displayname", "<&ä")]))
    assert [(update.tag, update[0][0].tag, update[0][0].text) for update in root] == [
        ("{DAV:}set", properties.MTIME, "1.5"),
        ("{DAV:}remove", properties.LINK, None),
        ("{DAV:}set", "{DAV:}displayname", "<&ä"),
    ]


def test_text_that_xml_cannot_hold_is_not_sent() -> None:
    """Who has such values encodes them."""
    with pytest.raises(ValueError, match="XML"):
        proppatch.body([PropertyChange(properties.LINK, "a\x01")])


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (204, b"", (204, 204)),
        (207, answered(propstat("mtime", 200), propstat("symlink", 200)), (200, 200)),
        (207, answered(propstat("mtime", 403), propstat("symlink", 424)), (403, 424)),
        (207, answered(status="<D:status>HTTP/1.1 200 OK</D:status>"), (200, 200)),
        (207, answered(propstat("mtime", 200)), (200, 500)),
        (207, answered(propstat("mtime", 200).replace("Z:", "D:")), (200, 500)),
        (207, b"", (500, 500)),
        (207, b"<html/>", (500, 500)),
    ],
)
def test_what_was_done_of_each_change(status: int, answer: bytes, expected: tuple[int, int]) -> None:
    """From the propstats, the response, or the status alone; what is not named did not work."""
    found = proppatch.outcome([SET, REMOVED], status, answer)
    assert (found[SET.name], found[REMOVED.name]) == expected
