"""Partial updates over a server in memory: when they are sent, and that the file is right in any case."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

import httpx
import pytest
import trio
from trio.testing import MockClock

from davfs.dav.resource import ETag, Validator
from davfs.errors import StaleVersion
from davfs.fs.changes import EXTENTS_MAX, Changes
from davfs.fs.content import Content
from davfs.fs.partial import FILE_MIN, GAP_MAX, PIECES_MAX, pieces_of
from davfs.fs.ranges import RangeSet
from tests.fakes.davserver import ETags, FakeDav, Fault
from tests.unit.fs.rig import Rig, rig

warns = pytest.mark.expects_warning
SIZE = FILE_MIN + (1 << 20)
OLD = os.urandom(SIZE)
MORE = b"more"
MIB = 1 << 20
ONE, TWO = (Validator(ETag(tag), 1, SIZE) for tag in ("one", "two"))


def extents(*pairs: tuple[int, int]) -> RangeSet:
    ranges = RangeSet()
    for start, end in pairs:
        ranges.add(start, end)
    return ranges


def serving(etags: ETags = "strong") -> FakeDav:
    """A server that replaces parts, with a file that nobody has changed for a while."""
    server = FakeDav(etags=etags)
    server.parts = "written"
    server.put("/file", OLD, mtime_s=time.time() - 100)
    return server


def sent(server: FakeDav) -> list[tuple[str, int]]:
    """Bodies of PUTs, the try left out."""
    return [(entry.path, entry.body_bytes) for entry in server.requests("PUT") if entry.body_bytes > 10]


def changing(server: FakeDav) -> list[str]:
    return [entry.method for entry in server.requests("COPY", "PUT", "MOVE", "DELETE", "LOCK")]


async def appended(it: Rig, data: bytes = MORE * 100) -> Content:
    """What a program does that opens the file to append: nothing of it is read."""
    node = it.node("/file")
    content = node.content
    if content is None:
        content = await it.opened_file("/file")
    await content.prepare_write()
    content.write(content.size_bytes, data)
    it.uploads.schedule(node, content, 0)
    return content


# --- what is sent


def test_pieces_are_the_changes_where_they_are_few() -> None:
    """Extents as they are, short gaps between them closed where their bytes are here."""
    size, present = 64 * MIB, extents((0, 64 * MIB))
    near = extents((0, 10), (10 + GAP_MAX, 20 + GAP_MAX), (40 * MIB, 41 * MIB))
    assert pieces_of(near, present, size, size) == [(0, 20 + GAP_MAX), (40 * MIB, 41 * MIB)]
    assert pieces_of(near, near, size, size) == list(near)


@pytest.mark.parametrize(
    ("changed", "base_size", "size"),
    [
        (extents(), 64 * MIB, 64 * MIB),  # nothing
        (extents((0, 32 * MIB)), 64 * MIB, 64 * MIB),  # half of it
        (extents((0, 10)), 64 * MIB, 63 * MIB),  # shorter than before
        (extents((0, 10)), 63 * MIB, 64 * MIB),  # grown, and nobody knows by what
        (extents((0, 10)), FILE_MIN - 10, FILE_MIN - 10),  # small
        (extents(*((n * MIB, n * MIB + 1) for n in range(PIECES_MAX + 1))), 900 * MIB, 900 * MIB),  # many
    ],
)
def test_the_whole_file_where_that_is_less(changed: RangeSet, base_size: int, size: int) -> None:
    """Much changed, cut off, small, scattered: one PUT is better, or nothing else is possible."""
    assert pieces_of(changed, RangeSet.whole(size), base_size, size) is None


def test_changes_belong_to_one_version() -> None:
    """What is written while an upload runs differs from what it makes; of another base nothing is known."""
    changes = Changes()
    assert changes.since(ONE) is None
    changes.restart(ONE)
    changes.note(0, 10)
    changes.sending()
    changes.note(20, 30)
    assert list(changes.since(ONE) or ()) == [(0, 10), (20, 30)]
    changes.acknowledged(TWO)
    assert changes.since(ONE) is None
    assert list(changes.since(TWO) or ()) == [(20, 30)]


def test_too_many_changes_are_not_remembered() -> None:
    """Beyond some thousand extents nothing is known, until an upload has settled them."""
    changes = Changes()
    changes.restart(ONE)
    for n in range(EXTENTS_MAX + 1):
        changes.note(2 * n, 2 * n + 1)
    assert changes.since(ONE) is None
    changes.sending()
    changes.acknowledged(TWO)
    assert changes.since(TWO) is not None


# --- the server


async def test_an_append_copies_and_sends_its_bytes_only(tmp_path: Path) -> None:
    """COPY, the part, MOVE; nothing comes down; a second one needs no try."""
    server = serving()
    async with rig(server, tmp_path / "c", partial_put=True) as it:
        for count in (1, 2):
            content = await appended(it)
            assert await it.uploads.drain(60) == 0
            assert not content.dirty
            assert server.content("/file") == OLD + MORE * 100 * count
        assert it.client.traffic.up_bytes < 10_000
        assert await it.read(content, 0, 10) == OLD[:10]  # from our own version
        await trio.testing.wait_all_tasks_blocked()
    assert changing(server)[:4] == ["PUT", "PUT", "PUT", "MOVE"]
    assert changing(server)[4:] == ["COPY", "PUT", "MOVE"] * 2
    assert not [entry for entry in server.requests("GET") if entry.path == "/file"][1:]


async def test_not_without_being_asked(tmp_path: Path) -> None:
    """By default the file goes as a whole, and nothing is tried."""
    server = serving()
    async with rig(server, tmp_path / "c") as it:
        await appended(it)
        assert await it.uploads.drain(60) == 0
    assert [size for _, size in sent(server)] == [SIZE + 400]
    assert server.content("/file") == OLD + MORE * 100


@pytest.mark.parametrize("parts", ["replaces", "ignored", "refused"])
async def test_a_server_that_cannot_is_tried_once(
    tmp_path: Path, parts: Literal["replaces", "ignored", "refused"]
) -> None:
    """Whatever it does instead: the try shows it, and files go as a whole from then on."""
    server = serving()
    server.parts = parts
    async with rig(server, tmp_path / "c", partial_put=True) as it:
        for count in (1, 2):
            await appended(it)
            assert await it.uploads.drain(60) == 0
            assert server.content("/file") == OLD + MORE * 100 * count
        assert it.client.capabilities.partial_put == "no"
    assert [size for _, size in sent(server)] == [SIZE + 400, SIZE + 800]
    assert len(server.requests("PUT")) <= 5


@pytest.mark.parametrize("parts", ["replaces", "ignored", "refused"])
async def test_what_the_try_did_not_show_is_seen_in_the_copy(
    tmp_path: Path, parts: Literal["replaces", "ignored", "refused"]
) -> None:
    """A server that does otherwise with the file itself: the copy shows it before it gets the name."""
    server = serving()
    async with rig(server, tmp_path / "c", partial_put=True) as it:
        it.client.capabilities = it.client.capabilities.learned_partial_put(works=True)
        server.parts = parts
        await appended(it)
        assert await it.uploads.drain(60) == 0
        assert server.content("/file") == OLD + MORE * 100
        await trio.sleep(0.1)
    assert "file" in server.tree()
    assert len(server.tree()) == 1


@pytest.mark.parametrize("status", [403, 404, 405, 412, 423, 500, 507])
async def test_after_a_refused_copy_the_whole_file_is_sent(tmp_path: Path, status: int) -> None:
    """Whatever the server has against the COPY, the file arrives."""
    server = serving()
    server.inject(Fault("COPY", status=status))
    async with rig(server, tmp_path / "c", partial_put=True) as it:
        await appended(it)
        assert await it.uploads.drain(60) == 0
    assert server.content("/file") == OLD + MORE * 100


@warns("not sent")
@pytest.mark.parametrize("method", ["COPY", "PUT", "MOVE"])
@pytest.mark.parametrize("lost", ["before", "after"])
async def test_a_request_that_was_not_answered(
    tmp_path: Path, autojump_clock: MockClock, method: str, lost: Literal["before", "after"]
) -> None:
    """The base stands, or ours is known again by its tag: once more from a new copy, and no conflict."""
    server = serving()
    async with rig(server, tmp_path / "c", partial_put=True) as it:
        it.client.capabilities = it.client.capabilities.learned_partial_put(works=True)
        server.inject(Fault(method, lost=lost))
        content = await appended(it)
        assert await it.uploads.drain(600) == 0
        assert not content.dirty
        assert sum(size for _, size in sent(server)) <= 1200
    assert server.content("/file") == OLD + MORE * 100
    assert "COPY" in changing(server)
    assert not [name for name in server.tree() if "conflict" in name]


@warns("not sent")
async def test_a_move_that_lands_late_is_ours(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Unanswered, and done after the next attempt has looked: its condition does not hold any more."""
    server = serving()
    async with rig(server, tmp_path / "c", partial_put=True) as it:
        server.now_s = lambda: time.time() + trio.current_time()
        it.client.capabilities = it.client.capabilities.learned_partial_put(works=True)
        server.inject(Fault("MOVE", lost="before", late_s=60))
        await appended(it)
        assert await it.uploads.drain(600) == 0
        await trio.sleep(100)
        await it.client.stat(it.node("/file").path)
    assert server.content("/file") == OLD + MORE * 100
    assert not [name for name in server.tree() if "conflict" in name]


async def test_what_is_written_while_a_part_goes_up_follows(tmp_path: Path) -> None:
    """It is not in the part that is out: the next one has it, and nothing is counted as sent that was not."""
    server = serving()
    async with rig(server, tmp_path / "c", partial_put=True) as it:
        it.client.capabilities = it.client.capabilities.learned_partial_put(works=True)
        server.inject(Fault("COPY", answer_delay_s=0.2))
        content = await appended(it)
        with trio.fail_after(10):
            while not server.requests("COPY"):
                await trio.sleep(0.01)
        await content.prepare_write()
        content.write(0, b"first")
        content.write(content.size_bytes, b"last")
        assert await it.uploads.drain(60) == 0
    assert server.content("/file") == b"first" + OLD[5:] + MORE * 100 + b"last"
    assert sum(size for _, size in sent(server)) < 2000


@warns("conflict")
async def test_another_version_under_the_copy_is_not_overwritten(tmp_path: Path) -> None:
    """Somebody stores the file after the COPY: the MOVE is refused, both versions are there."""
    server = serving()

    class Meddled(httpx.AsyncBaseTransport):
        announced = server.announced

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            answer = await server.handle_async_request(request)
            if request.method == "COPY":
                server.put("/file", b"theirs")
            return answer

    async with rig(Meddled(), tmp_path / "c", partial_put=True) as it:
        content = await it.opened_file("/file")
        await it.read(content, 0, SIZE)
        await appended(it)
        assert await it.uploads.drain(60) == 0
    assert server.content("/file") == b"theirs"
    (kept,) = [name for name in server.tree() if "conflict" in name]
    assert server.content("/" + kept) == OLD + MORE * 100


@pytest.mark.parametrize(("etags", "age_s"), [("none", 100), ("hidden", 100), ("coarse", 0)])
async def test_without_a_proof_the_whole_file_is_sent(tmp_path: Path, etags: ETags, age_s: int) -> None:
    """No tags, tags that only GET shows, tags of whole seconds for a file of this second."""
    server = serving(etags)
    server.put("/file", OLD, mtime_s=time.time() - age_s)
    async with rig(server, tmp_path / "c", partial_put=True) as it:
        await appended(it)
        assert await it.uploads.drain(60) == 0
    assert "COPY" not in changing(server)
    assert server.content("/file") == OLD + MORE * 100


async def test_where_tags_have_whole_seconds_that_second_is_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The copy gets its name when its second is over: so its tag proves it, and the next part may follow."""
    server = serving("coarse")
    async with rig(server, tmp_path / "c", partial_put=True) as it:
        await appended(it)
        begun_s = trio.current_time()
        assert await it.uploads.drain(60) == 0
        assert trio.current_time() - begun_s >= 2
    assert "COPY" in changing(server)
    assert server.content("/file") == OLD + MORE * 100


async def test_an_own_upload_is_a_base_once_its_tag_was_known_before_its_name(tmp_path: Path) -> None:
    """A large file made here is moved into place, so that the change after it can go as a part."""
    server = serving()
    async with rig(server, tmp_path / "c", partial_put=True) as it:
        content = it.new_file("/new", OLD)
        assert await it.uploads.drain(60) == 0
        await content.prepare_write()
        content.write(100, b"changed")
        it.uploads.schedule(it.node("/new"), content, 0)
        assert await it.uploads.drain(60) == 0
    assert server.content("/new") == OLD[:100] + b"changed" + OLD[107:]
    assert [size for _, size in sent(server)] == [SIZE]
    assert "COPY" in changing(server)


@warns("")
@pytest.mark.parametrize("foreign", [False, True])
async def test_who_reads_while_a_move_is_in_doubt(
    tmp_path: Path, autojump_clock: MockClock, foreign: bool
) -> None:
    """What stands there may be ours: that is found out before a reader is told that the file changed."""
    server = serving()
    async with rig(server, tmp_path, partial_put=True) as it:
        content = await appended(it)
        assert await it.uploads.drain(100) == 0
        server.inject(Fault("MOVE", lost="after"))
        await appended(it)
        while not content.life.unknown or not server.requests("MOVE")[1:]:
            await trio.sleep(0.01)
        await trio.sleep(0.1)
        assert content.life.unknown
        assert content.missing(0, 10)
        if foreign:
            server.put("/file", OLD + MORE)
            begun_s = trio.current_time()
            with pytest.raises(StaleVersion):
                await it.read(content, 0, 10)
            assert trio.current_time() - begun_s < 40
        else:
            assert await it.read(content, 0, 10) == OLD[:10]
            assert await it.uploads.drain(100) == 0
            assert server.content("/file") == OLD + MORE * 200
