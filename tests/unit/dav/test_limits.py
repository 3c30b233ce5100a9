"""What is learned of the largest body that a server takes."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfs.dav.limits import LIFETIME_S, UploadLimit
from davfs.dav.resource import ROOT
from davfs.dav.wire import Octets
from davfs.errors import TooLarge
from tests.unit.dav.script import Script

MIB = 1 << 20


def test_what_was_refused_is_too_large() -> None:
    """Until a smaller body is refused, only its own size is known to be too large."""
    limit = UploadLimit().refused(100 * MIB, 0.0)
    assert limit.limit_bytes(1.0) == 100 * MIB - 1
    assert limit.allows(99 * MIB, 1.0)
    assert not limit.allows(100 * MIB, 1.0)
    assert limit.refused(30 * MIB, 2.0).limit_bytes(3.0) == 30 * MIB - 1
    assert limit.refused(200 * MIB, 2.0).limit_bytes(3.0) == 100 * MIB - 1


def test_it_is_forgotten() -> None:
    """An administrator can raise a limit: after an hour an upload may find that out."""
    limit = UploadLimit().refused(2 * MIB, 10.0)
    assert not limit.allows(2 * MIB, 10.0 + LIFETIME_S - 1)
    assert limit.allows(2 * MIB, 10.0 + LIFETIME_S)
    assert limit.refused(5 * MIB, 20.0 + LIFETIME_S).limit_bytes(30.0 + LIFETIME_S) == 5 * MIB - 1


def test_a_larger_body_that_is_stored_proves_the_limit_wrong() -> None:
    """413 was about something else then: a folder, a quota, a filter."""
    limit = UploadLimit().refused(2 * MIB, 0.0).stored(3 * MIB)
    assert limit.limit_bytes(1.0) is None
    assert limit.refused(2 * MIB, 2.0).limit_bytes(3.0) is None


def test_a_small_body_proves_nothing() -> None:
    """One odd 413 must not make every write of the mount fail."""
    assert UploadLimit().refused(10, 0.0).allows(1 << 40, 1.0)


def test_404_with_the_folder_in_place() -> None:
    """IIS means "too large"; a small body was refused for its name, and what was stored before was not."""
    limit = UploadLimit()
    assert limit.is_too_large(413, 1)
    assert limit.is_too_large(404, 31_000_000)
    assert limit.is_too_large(409, 31_000_000)
    assert not limit.is_too_large(404, 1000)
    assert not limit.is_too_large(403, 31_000_000)
    assert not limit.stored(40_000_000).is_too_large(404, 31_000_000)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1 << 32)), max_size=20))
def test_what_was_stored_is_always_allowed(history: list[tuple[bool, int]]) -> None:
    """Whatever was refused and stored in whatever order: the largest body that was stored may be sent."""
    limit, largest = UploadLimit(), 0
    for stored, size in history:
        limit = limit.stored(size) if stored else limit.refused(size, 1.0)
        largest = max(largest, size) if stored else largest
        assert limit.allows(largest, 2.0)


async def test_the_client_learns_from_its_uploads() -> None:
    """413 teaches the limit, a success the floor."""
    script = Script(httpx.Response(413), httpx.Response(201))
    client = script.client()
    with pytest.raises(TooLarge):
        await client.put(ROOT.child("f"), Octets(bytes(2 * MIB)))
    now_s = client.upload_limit.refused_s
    assert client.upload_limit.limit_bytes(now_s) == 2 * MIB - 1
    await client.put(ROOT.child("f"), Octets(bytes(MIB)))
    assert client.upload_limit.stored_bytes == MIB
