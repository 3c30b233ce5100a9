"""COPY instead of PUT, over a server in memory: when it is sent, and that the bytes are right in any case."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import httpx
import pytest
import trio
from trio.testing import MockClock

from davfs.dav.resource import ETag, Resource, Validator
from davfs.fs import content as content_module
from davfs.fs import copies
from davfs.fs.content import Content
from davfs.fs.copies import COPY_MIN, is_still
from tests.fakes.davserver import ETags, FakeDav, Fault
from tests.unit.fs.rig import Rig, rig

warns = pytest.mark.expects_warning
BYTES = os.urandom(COPY_MIN)
OTHERS = BYTES[:-1] + bytes([BYTES[-1] ^ 1])


class Meddled(httpx.AsyncBaseTransport):
    """The server, and somebody who does something right before it sees a COPY. `deaf`: to If-Match."""

    def __init__(self, server: FakeDav, meddle: Callable[[], None], *, deaf: bool = False) -> None:
        self._server = server
        self._meddle = meddle
        self._deaf = deaf
        self.announced = server.announced

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "COPY":
            self._meddle()
            if self._deaf:
                del request.headers["If-Match"]
        return await self._server.handle_async_request(request)


def methods(server: FakeDav) -> list[str]:
    return [entry.method for entry in server.requests() if entry.method not in {"GET", "PROPFIND"}]


async def read_whole(it: Rig, path: str) -> Content:
    content = await it.opened_file(path)
    await it.read(content, 0, content.size_bytes)
    return content


async def copied(it: Rig, data: bytes = BYTES) -> None:
    """What cp does: the source is read, the copy is written, and it is on the server."""
    await read_whole(it, "/source")
    content = it.new_file("/copy", data)
    assert await it.uploads.drain(60) == 0
    assert not content.dirty


async def test_a_copy_made_here_sends_no_body(tmp_path: Path) -> None:
    """What was read and written again unchanged is one COPY and one MOVE: no body goes up."""
    server = FakeDav()
    server.put("/source", BYTES)
    async with rig(server, tmp_path / "c") as it:
        await copied(it)
        assert it.client.traffic.up_bytes < 10_000
    assert methods(server) == ["COPY", "MOVE"]
    assert server.tree() == {"source": BYTES, "copy": BYTES}


async def test_a_version_that_is_only_in_the_index_is_found(tmp_path: Path) -> None:
    """A source that was read and closed before, perhaps by the last daemon, is a source all the same."""
    server = FakeDav()
    server.put("/source", BYTES)
    async with rig(server, tmp_path / "c") as it:
        content = await read_whole(it, "/source")
        it.tree.let_go(it.node("/source"), content)
        assert content.closed
        it.new_file("/copy", BYTES)
        assert await it.uploads.drain(60) == 0
    assert methods(server) == ["COPY", "MOVE"]


@pytest.mark.parametrize(("source", "copy"), [(BYTES, OTHERS), (BYTES, BYTES[:-1]), (BYTES[:-1], BYTES[:-1])])
async def test_other_bytes_and_short_files_are_sent(tmp_path: Path, source: bytes, copy: bytes) -> None:
    """One bit or one byte is a difference; a short file is not worth the round trips."""
    server = FakeDav()
    server.put("/source", source)
    async with rig(server, tmp_path / "c") as it:
        await copied(it, copy)
    assert "COPY" not in methods(server)
    assert server.tree() == {"source": source, "copy": copy}


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("kind", ["changed", "gone", "shorter"])
async def test_a_source_that_is_another_by_now_is_not_copied(tmp_path: Path, deaf: bool, kind: str) -> None:
    """Changed on the server since it was read: refused by If-Match, or seen afterwards; the body is sent."""
    server = FakeDav()
    server.put("/source", BYTES)

    def meddle() -> None:
        if kind == "gone":
            server.delete("/source")
        else:
            server.put("/source", OTHERS if kind == "changed" else b"short")

    async with rig(Meddled(server, meddle, deaf=deaf), tmp_path / "c") as it:
        await copied(it)
    assert server.content("/copy") == BYTES
    assert methods(server)[-2:] == ["PUT", "MOVE"]
    assert all(not name.startswith(".davfs-") for name in server.tree())


async def test_a_server_without_copy_is_asked_once(tmp_path: Path) -> None:
    """405: the body is sent, and so are those of all copies after it."""
    server = FakeDav()
    server.put("/source", BYTES)
    server.inject(Fault("COPY", status=405, times=9))
    async with rig(server, tmp_path / "c") as it:
        await copied(it)
        it.new_file("/second", BYTES)
        assert await it.uploads.drain(60) == 0
    assert methods(server).count("COPY") == 1
    assert methods(server).count("PUT") == 2
    assert server.tree() == {"source": BYTES, "copy": BYTES, "second": BYTES}


@pytest.mark.parametrize("status", [403, 409, 412, 423, 500, 507])
async def test_after_a_refusal_the_body_is_sent(tmp_path: Path, status: int) -> None:
    """Whatever the server has against the COPY, the file arrives."""
    server = FakeDav()
    server.put("/source", BYTES)
    server.inject(Fault("COPY", status=status))
    async with rig(server, tmp_path / "c") as it:
        await copied(it)
    assert server.tree() == {"source": BYTES, "copy": BYTES}


@warns("not sent")
@pytest.mark.parametrize("lost", ["before", "after"])
async def test_a_copy_that_was_not_answered(
    tmp_path: Path, autojump_clock: MockClock, lost: Literal["before", "after"]
) -> None:
    """The next attempt sends the body; the temporary name stays noted until it is known to be gone."""
    server = FakeDav()
    server.put("/source", BYTES)
    server.inject(Fault("COPY", lost=lost))
    async with rig(server, tmp_path / "c") as it:
        await copied(it)
        assert len(it.store.index.rows("SELECT path FROM leftovers")) == 1
    assert methods(server) == ["COPY", "PUT", "MOVE"]
    assert server.content("/copy") == BYTES


@pytest.mark.parametrize("etags", ["none", "hidden", "coarse"])
async def test_without_a_tag_that_proves_it_nothing_is_copied(tmp_path: Path, etags: ETags) -> None:
    """No tags, tags that only GET shows, tags of whole seconds for a file of this second: a body is sent."""
    server = FakeDav(etags=etags)
    server.put("/source", BYTES)
    async with rig(server, tmp_path / "c") as it:
        await copied(it)
    assert "COPY" not in methods(server)
    assert server.content("/copy") == BYTES


@pytest.mark.parametrize(
    ("tag", "size", "expected"),
    [('"a"', 5, True), ('W/"a"', 5, False), ('"b"', 5, False), ('"a"', 6, False), (None, 5, False)],
)
def test_what_proves_that_the_source_is_still_the_same(tag: str | None, size: int, expected: bool) -> None:
    """The same tag, strong, and the same size; a weak one may stand for two versions."""
    found = Resource(is_collection=False, etag=ETag.parse(tag), mtime_s=1, size_bytes=size)
    assert is_still(found, Validator(ETag("a"), 1, 5)) is expected
    assert not is_still(None, Validator(ETag("a"), 1, 5))


async def test_a_program_that_writes_to_the_source_is_not_kept_waiting(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparing gigabytes takes a while, and a large file is not copied for a write meanwhile."""
    plain, compared = copies._same_part, []
    monkeypatch.setattr(content_module, "FORK_MAX", COPY_MIN - 1)
    monkeypatch.setattr(copies, "AT_ONCE", 64 * 1024)
    server = FakeDav()
    server.put("/source", BYTES, mtime_s=1e9)
    async with rig(server, tmp_path) as it, trio.open_nursery() as nursery:
        source = await read_whole(it, "/source")
        wrote = trio.Event()

        async def writer() -> None:
            await source.prepare_write()
            wrote.set()

        def same_part(*extent: int) -> bool:
            compared.append(extent)
            if len(compared) == 3:
                trio.from_thread.run_sync(nursery.start_soon, writer)
                trio.from_thread.run(trio.testing.wait_all_tasks_blocked)
            return plain(*extent)

        monkeypatch.setattr(copies, "_same_part", same_part)
        it.new_file("/copy", BYTES)
        await wrote.wait()
        assert await it.uploads.drain(60) == 0
    assert len(compared) == 3
    assert server.content("/copy") == BYTES
