"""`df`: what servers say of their room, from the XML to struct statvfs."""

from __future__ import annotations

import pytest

from davfs.dav.multistatus import Multistatus
from davfs.fuse import UNKNOWN_SPACE_BYTES, _statvfs

KIB = 1024


def room(available: str | None, used: str | None) -> tuple[int, int]:
    """(total, free) in bytes, as df shows them."""
    prop = "" if available is None else f"<D:quota-available-bytes>{available}</D:quota-available-bytes>"
    prop += "" if used is None else f"<D:quota-used-bytes>{used}</D:quota-used-bytes>"
    document = Multistatus()
    body = (
        '<D:multistatus xmlns:D="DAV:"><D:response><D:href>/</D:href><D:propstat><D:prop>'
        f"<D:resourcetype><D:collection/></D:resourcetype>{prop}</D:prop></D:propstat></D:response></D:multistatus>"
    )
    (entry,) = [*document.feed(body.encode()), *document.close()]
    told = _statvfs(entry.quota)
    assert told.f_bfree == told.f_bavail
    assert told.f_namemax == 255
    return told.f_blocks * told.f_frsize, told.f_bavail * told.f_frsize


@pytest.mark.parametrize(
    ("available", "used", "total", "free"),
    [
        (f"{600 * KIB}", f"{400 * KIB}", 1000 * KIB, 600 * KIB),
        ("0", f"{400 * KIB}", 400 * KIB, 0),  # full
        ("0", "0", 4 * KIB, 0),  # df leaves out what has no blocks at all
        (" 8192\n", "0", 8 * KIB, 8 * KIB),
        (f"{2**62}", f"{2**40}", 2**62 + 2**40, 2**62),
        (f"{2**63 - 1}", "0", 2**63 - 4 * KIB, 2**63 - 4 * KIB),
    ],
)
def test_what_is_told_is_shown(available: str, used: str, total: int, free: int) -> None:
    """Room and use in bytes, an exhausted quota, and sizes that fit 64 bits."""
    assert room(available, used) == (total, free)


@pytest.mark.parametrize("available", ["-1", "-2", "-3", None, "", "unlimited", "1.5E12", f"{2**64 - 1}"])
@pytest.mark.parametrize("used", ["0", f"{400 * KIB}", "-1", None])
def test_what_is_not_known_is_not_full(available: str | None, used: str | None) -> None:
    """Not computed, unknown, unlimited (Nextcloud), no number: room for a petabyte beside what is used."""
    known = int(used) if used is not None and used.isdigit() else 0
    assert room(available, used) == (UNKNOWN_SPACE_BYTES + known, UNKNOWN_SPACE_BYTES)
