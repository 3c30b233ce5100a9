"""Making bytes present, over a server in memory: how many requests and bytes, and what is never mixed."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from davfs.dav.client import Client
from davfs.dav.quirks import Capabilities
from davfs.dav.resource import ETag, Validator
from davfs.errors import DavfsError, StaleVersion, TimedOut
from davfs.fs import download
from davfs.fs.content import Content
from davfs.fs.download import PIECE_MIN, WINDOW_MAX, WINDOW_MIN, ReadAhead
from davfs.fs.files import HEAD_MAX
from davfs.fs.filesystem import ROOT_INO
from davfs.fs.settings import Settings
from tests.fakes.davserver import ETags, FakeDav, Fault
from tests.mount.assembly import running
from tests.unit.fs.rig import URL, Rig, at, rig

KIB, MIB = 1024, 1 << 20


class WithoutRanges(httpx.AsyncBaseTransport):
    """A server that ignores Range, as some gateways do."""

    def __init__(self, server: FakeDav) -> None:
        self._server = server

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.headers.pop("range", None)
        return await self._server.handle_async_request(request)


class Mixing(httpx.AsyncBaseTransport):
    """As rclone can: the tag and the length of the version before, the bytes of the next."""

    def __init__(self, server: FakeDav) -> None:
        self._server = server
        self.newer = b""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._server.handle_async_request(request)
        if request.method != "GET" or not self.newer:
            return answer
        self._server.put("/f", self.newer)
        return httpx.Response(
            answer.status_code, headers=answer.headers, content=self.newer[: len(await answer.aread())]
        )


class Slowly(httpx.AsyncByteStream):
    """A body that takes a second for each MiB."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), MIB):
            await trio.sleep(1)
            yield self._data[start : start + MIB]


class SlowWithoutRanges(WithoutRanges):
    """The same over a slow line."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await super().handle_async_request(request)
        if request.method != "GET":
            return answer
        return httpx.Response(200, headers=answer.headers, stream=Slowly(await answer.aread()))


class Silent(FakeDav):
    """As npm's webdav-server: If-Match is ignored, parts of files come without tag, date and total."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            request.headers.pop("If-Match", None)
        answer = await super().handle_async_request(request)
        if answer.status_code == 206:
            for name in ("ETag", "Last-Modified"):
                answer.headers.pop(name, None)
            answer.headers["Content-Range"] = answer.headers["Content-Range"].partition("/")[0] + "/*"
        return answer


def serving(size: int, etags: ETags = "strong") -> tuple[FakeDav, bytes]:
    server = FakeDav(etags=etags)
    data = os.urandom(size)
    server.put("/f", data, mtime_s=1_700_000_000)
    return server, data


def gets(server: FakeDav) -> int:
    return len(server.requests("GET"))


def note_read(it: Rig, content: Content, ahead: ReadAhead, start: int, end: int) -> None:
    """What Files does before each read."""
    if ahead.reads(start, end) and ahead.next_offset > HEAD_MAX:
        it.downloads.read_ahead(content, lambda: at("/f"), ahead, start)


async def read_in_order(it: Rig, size: int, piece: int) -> bytes:
    """As a reader with a handle does."""
    content = await it.opened_file("/f")
    ahead, read = ReadAhead(), bytearray()
    while len(read) < size:
        start, end = len(read), min(size, len(read) + piece)
        note_read(it, content, ahead, start, end)
        read += await it.read(content, start, end)
    return bytes(read)


async def test_many_readers_of_one_extent_are_one_get(tmp_path: Path, autojump_clock: MockClock) -> None:
    """However many wait for the same bytes, they are asked for once."""
    server, data = serving(MIB)
    server.inject(Fault("GET", delay_s=1))
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        answers: list[bytes] = []

        async def reader() -> None:
            answers.append(await it.read(content, 100 * KIB, 200 * KIB))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(reader)
        assert answers == [data[100 * KIB : 200 * KIB]] * 10
    assert gets(server) == 1


async def test_a_small_file_comes_whole_in_one_get(tmp_path: Path) -> None:
    """Reading a byte of a file of 400 KiB fetches all of it, without a range, and nothing later."""
    server, data = serving(400 * KIB)
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        assert await it.read(content, 300 * KIB, 300 * KIB + 1) == data[300 * KIB : 300 * KIB + 1]
        await it.downloads.ensure_whole(content, lambda: at("/f"))
        assert await it.read(content, 0, len(data)) == data
    assert gets(server) == 1


async def test_the_head_of_a_huge_file_costs_little(tmp_path: Path) -> None:
    """The first 4 KiB of a file of 64 MiB cost less than 1 MiB."""
    server, data = serving(64 * MIB)
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        assert await it.read(content, 0, 4 * KIB) == data[: 4 * KIB]
        await trio.testing.wait_all_tasks_blocked()
        assert it.client.traffic.down_bytes < MIB


async def test_random_reads_fetch_little(tmp_path: Path) -> None:
    """Ten reads of 4 KiB, far from one another, fetch at most one smallest window each."""
    server, data = serving(64 * MIB)
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        ahead = ReadAhead()
        for number in range(10):
            start = ((number * 7) % 10) * 6 * MIB + 12345
            note_read(it, content, ahead, start, start + 4 * KIB)
            assert await it.read(content, start, start + 4 * KIB) == data[start : start + 4 * KIB]
        await trio.testing.wait_all_tasks_blocked()
        assert it.client.traffic.down_bytes <= 10 * WINDOW_MIN + 64 * KIB


async def test_a_read_from_nothing_asks_for_no_more_than_a_piece(tmp_path: Path) -> None:
    """A read that goes on from no other brings 64 KiB: the rest of a window would only take time."""
    server, data = serving(4 * MIB)
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        start, end = 2 * MIB, 2 * MIB + 4 * KIB
        await it.downloads.ensure(content, lambda: at("/f"), start, end, least=PIECE_MIN)
        assert await content.read(start, 4 * KIB) == data[start:end]
        await trio.testing.wait_all_tasks_blocked()
        assert PIECE_MIN <= it.client.traffic.down_bytes < PIECE_MIN + 8 * KIB


async def test_pieces_asked_for_in_any_order_are_fetched_once(tmp_path: Path) -> None:
    """The kernel asks for its pieces in any order: no byte comes twice, although each asks for more."""
    server, data = serving(4 * MIB)
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        async with trio.open_nursery() as nursery:
            for start in (384, 256, 128, 640, 512):
                nursery.start_soon(
                    it.downloads.ensure, content, lambda: at("/f"), start * KIB, (start + 128) * KIB
                )
        await trio.testing.wait_all_tasks_blocked()
        assert await content.read(128 * KIB, 640 * KIB) == data[128 * KIB : 768 * KIB]
        assert it.client.traffic.down_bytes <= content.present.total_bytes + 8 * KIB


async def test_what_a_sequential_reader_wants_now_and_next_is_one_get(tmp_path: Path) -> None:
    """A first read of 1 MiB: what is missing of it comes with what follows; a window ahead is all."""
    server, data = serving(64 * MIB)
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        await it.read(content, 0, 1)
        await trio.testing.wait_all_tasks_blocked()
        note_read(it, content, ReadAhead(), 0, MIB)
        assert await it.read(content, 0, MIB) == data[:MIB]
        await trio.testing.wait_all_tasks_blocked()
        assert list(content.present) == [(0, 4 * MIB + 256 * KIB)]
        assert gets(server) == 3  # the head; the rest of the read and what follows; a window ahead


async def test_when_nobody_reads_any_more_the_rest_is_not_fetched(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The last handle is closed: a transfer that has much before it is hung up on, and can be begun again."""
    server, data = serving(8 * MIB)
    server.inject(Fault("GET", times=9, delay_s=1))
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        ahead = ReadAhead()
        ahead.reads(0, 2 * MIB)
        it.downloads.read_ahead(content, lambda: at("/f"), ahead, 0)
        await trio.sleep(0.5)
        it.downloads.nobody_reads(content)
        await trio.sleep(5)
        assert len(content.present) == 0
        assert await it.read(content, 0, 4 * KIB) == data[: 4 * KIB]


def test_the_window_doubles_while_reading_goes_on() -> None:
    """Sequential reads double the window up to its limit, a jump shrinks it to the smallest."""
    ahead = ReadAhead()
    widths = []
    at_byte = 0
    for _ in range(400):
        assert ahead.reads(at_byte, at_byte + 128 * KIB)
        widths.append(ahead.window)
        at_byte += 128 * KIB
    assert widths == sorted(widths)
    assert widths[-1] == WINDOW_MAX
    assert not ahead.reads(at_byte + 500 * MIB, at_byte + 500 * MIB + 4 * KIB)
    assert ahead.window == WINDOW_MIN


def test_pieces_of_the_kernels_read_ahead_may_come_in_any_order() -> None:
    """A read a little before or after the expected place is still sequential."""
    ahead = ReadAhead()
    for start in (0, 256, 128, 512, 384):
        assert ahead.reads(start * KIB, (start + 128) * KIB)


async def test_a_sequential_reader_needs_few_requests(tmp_path: Path) -> None:
    """24 MiB read in pieces of 128 KiB are right, fetched once, in a dozen requests."""
    server, data = serving(24 * MIB)
    async with rig(server, tmp_path / "c") as it:
        assert await read_in_order(it, len(data), 128 * KIB) == data
        assert it.client.traffic.down_bytes <= len(data) + MIB
    assert gets(server) <= 12


async def test_a_server_without_ranges_is_streamed_once(tmp_path: Path) -> None:
    """Where ranges are ignored, reading from front to back is not a download for each window."""
    server, data = serving(8 * MIB)
    async with rig(WithoutRanges(server), tmp_path / "c") as it:
        assert await read_in_order(it, len(data), 128 * KIB) == data
        assert it.client.traffic.down_bytes <= 2 * len(data)


async def test_a_server_without_ranges_serves_the_end_too(tmp_path: Path) -> None:
    """A read far into the file waits for the stream to get there."""
    server, data = serving(4 * MIB)
    async with rig(WithoutRanges(server), tmp_path / "c") as it:
        content = await it.opened_file("/f")
        assert await it.read(content, 4 * MIB - 10, 4 * MIB) == data[-10:]
    assert gets(server) == 1


class Steps(trio.abc.Instrument):
    """How often each task was resumed, by its name."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count[task.name] += 1


async def test_a_reader_is_woken_when_all_that_it_waits_for_is_there(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Of a body in pieces each has its bytes as soon as they came, and none wakes for another piece."""
    server, _ = serving(16 * MIB)
    steps, served_s = Steps(), dict[int, float]()
    async with rig(SlowWithoutRanges(server), tmp_path / "c") as it:
        content = await it.opened_file("/f")

        async def reader(mib: int) -> None:
            await it.downloads.ensure(content, lambda: at("/f"), 0, mib * MIB)
            served_s[mib] = trio.current_time() - begun_s

        begun_s = trio.current_time()
        trio.lowlevel.add_instrument(steps)
        async with trio.open_nursery() as nursery:
            for mib in (16, 2):
                nursery.start_soon(reader, mib, name=f"reader {mib}")
                await trio.sleep(0.5)
        trio.lowlevel.remove_instrument(steps)
    assert served_s == {2: pytest.approx(2), 16: pytest.approx(16)}
    assert steps.count["reader 2"] == steps.count["reader 16"] == 2
    assert gets(server) == 1


async def test_a_broken_transfer_goes_on_where_it_broke(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What came before the connection broke is not fetched again."""
    server, data = serving(MIB)
    server.inject(Fault("GET", cut_after_bytes=100 * KIB))
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        assert await it.read(content, 0, 200 * KIB) == data[: 200 * KIB]
        assert it.client.traffic.down_bytes < WINDOW_MIN + 200 * KIB
    assert gets(server) == 2


async def test_a_transfer_that_breaks_ten_times_still_arrives(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """As long as each attempt brings something, nobody gives up."""
    server, data = serving(MIB)
    server.inject(Fault("GET", times=10, cut_after_bytes=64 * KIB))
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        await it.downloads.ensure_whole(content, lambda: at("/f"))
        assert await it.read(content, 0, MIB) == data


async def test_a_server_that_never_delivers_is_an_error_in_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A GET that breaks without a byte ends the read with an error within a minute."""
    server, _ = serving(MIB)
    server.inject(Fault("GET", times=1000, cut_after_bytes=0))
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        with trio.fail_after(60), pytest.raises(DavfsError):
            await it.read(content, 0, 10)


@pytest.mark.parametrize("etags", ["strong", "hidden"])
async def test_a_changed_file_is_stale(tmp_path: Path, etags: ETags) -> None:
    """Bytes of another version are never mixed in, whether the tag is in PROPFIND or in GET only."""
    server, data = serving(4 * MIB, etags=etags)
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        assert await it.read(content, 0, 10) == data[:10]
        server.put("/f", os.urandom(4 * MIB))
        with pytest.raises(StaleVersion):
            await it.read(content, 3 * MIB, 3 * MIB + 10)


async def test_a_changed_file_of_another_size_is_stale(tmp_path: Path) -> None:
    """A server without any tag shows a change by the size."""
    server, _ = serving(4 * MIB, etags="none")
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        await it.read(content, 0, 10)
        server.put("/f", os.urandom(3 * MIB))
        with pytest.raises(StaleVersion):
            await it.read(content, 2 * MIB, 2 * MIB + 10)


async def test_a_changed_file_of_the_same_size_is_stale_by_its_date(tmp_path: Path) -> None:
    """A server without any tag shows a change by Last-Modified."""
    server, _ = serving(4 * MIB, etags="none")
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        await it.read(content, 0, 10)
        server.put("/f", os.urandom(4 * MIB))
        with pytest.raises(StaleVersion):
            await it.read(content, 3 * MIB, 3 * MIB + 10)


@pytest.mark.parametrize(("age_s", "looks"), [(5, 1), (3600, 0)])
async def test_bytes_under_the_tag_of_another_version_are_not_taken(
    tmp_path: Path, age_s: int, looks: int
) -> None:
    """Where the server is known to mix, a small file that changed lately is looked at after its GET."""
    server = FakeDav()
    server.put("/f", b"old bytes", mtime_s=time.time() - age_s)
    wire = Mixing(server)
    async with rig(wire, tmp_path / "c") as it:
        it.client.capabilities = Capabilities(server="rclone/v1.75.2")
        content = await it.opened_file("/f")
        before = len(server.requests("PROPFIND"))
        if looks:
            wire.newer = b"new bytes, and more of them"
            with pytest.raises(StaleVersion):
                await it.read(content, 0, 9)
            assert content.missing(0, 9)
        else:
            assert await it.read(content, 0, 9) == b"old bytes"
        assert len(server.requests("PROPFIND")) - before == looks


async def test_parts_that_do_not_tell_their_version_are_looked_at(tmp_path: Path) -> None:
    """A part without tag, date and total is taken only while a look shows the same version."""
    server = Silent()
    server.put("/f", b"A" * 3 * MIB)
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        assert await it.read(content, 0, 10) == b"A" * 10
        server.put("/f", b"B" * 3 * MIB)
        with pytest.raises(StaleVersion):
            await it.read(content, 2 * MIB, 2 * MIB + 10)
        assert content.missing(2 * MIB, 2 * MIB + 10)


async def test_a_program_that_writes_meanwhile_keeps_its_bytes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A write into an extent that is on its way is not overwritten when the extent comes."""
    server, data = serving(MIB)
    server.inject(Fault("GET", delay_s=1))
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.read, content, 0, 10)
            await trio.sleep(0.5)
            content.write(4, b"MINE")
        await it.downloads.ensure_whole(content, lambda: at("/f"))
        assert await it.read(content, 0, MIB) == data[:4] + b"MINE" + data[8:]


async def test_cutting_a_file_ends_the_wait_for_what_was_cut(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A reader of bytes that a program cuts off meanwhile does not wait for ever."""
    server, _ = serving(MIB)
    server.inject(Fault("GET", delay_s=1))
    async with rig(server, tmp_path / "c") as it:
        content = await it.opened_file("/f")
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(it.downloads.ensure, content, lambda: at("/f"), 500 * KIB, 600 * KIB)
                await trio.sleep(0.5)
                content.truncate(10)
        assert content.size_bytes == 10


def of_unknown_size(it: Rig, tag: Validator) -> Validator:
    return Validator(tag.etag, tag.mtime_s, None)


async def test_a_broken_transfer_of_unknown_size_is_not_taken_for_whole(tmp_path: Path) -> None:
    """Where only fetching tells the size, half a file is not the file."""
    server, data = serving(300 * KIB)
    server.inject(Fault("GET", cut_after_bytes=100 * KIB))
    async with rig(server, tmp_path / "c") as it:
        base = of_unknown_size(it, (await it.client.stat(at("/f"))).validator)
        content = it.store.create(5, at("/f"), size=0, base=base)
        it.store.acquire(content)
        with pytest.raises(DavfsError):
            await it.downloads.fetch_of_unknown_size(content, lambda: at("/f"))
        await it.downloads.fetch_of_unknown_size(content, lambda: at("/f"))
        assert await content.read(0, MIB) == data


async def test_two_readers_of_a_file_of_unknown_size_get_it_once(tmp_path: Path) -> None:
    """Two opens at the same time do not append the file to itself."""
    server, data = serving(300 * KIB)
    async with rig(server, tmp_path / "c") as it:
        base = of_unknown_size(it, (await it.client.stat(at("/f"))).validator)
        content = it.store.create(5, at("/f"), size=0, base=base)
        it.store.acquire(content)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(it.downloads.fetch_of_unknown_size, content, lambda: at("/f"))
        assert await content.read(0, MIB) == data


async def test_whole_files_come_in_parallel_windows(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A file of several windows is fetched several windows at a time, each byte once."""
    server, data = serving(40 * MIB)
    server.inject(Fault("GET", times=100, delay_s=1))
    async with rig(server, tmp_path / "c", connections=8) as it:
        content = await it.opened_file("/f")
        started_s = trio.current_time()
        await it.downloads.ensure_whole(content, lambda: at("/f"))
        assert trio.current_time() - started_s < 2.5
        assert it.client.traffic.down_bytes <= len(data) + MIB


async def test_windows_that_follow_each_other_have_one_rate(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A reader's next window goes on with the count of the last one; after a pause it begins anew."""
    server, data = serving(4 * MIB)
    async with rig(server, tmp_path) as it:
        content = await it.opened_file("/f")

        def begin(start: int) -> tuple[float, int]:
            it.downloads._begin(content, lambda: at("/f"), start, start + MIB, it.downloads._demand)
            ((_, begun_s, arrived),) = it.downloads.running()
            return trio.current_time() - begun_s, arrived

        assert begin(0) == (0, 0)
        await trio.sleep(0.5)
        assert begin(MIB) == (0.5, MIB)
        await trio.sleep(5)
        assert begin(2 * MIB) == (0, 0)
        await trio.sleep(0.1)
        assert await it.read(content, 0, 3 * MIB) == data[: 3 * MIB]


async def test_who_comes_while_a_transfer_is_hung_up_gets_his_bytes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A file that is closed and at once opened again: nobody waits for the transfer that just ended."""
    server, data = serving(8 * MIB)
    server.inject(Fault("GET", delay_s=1))
    async with rig(server, tmp_path) as it:
        content = await it.opened_file("/f")
        it.downloads._begin(content, lambda: at("/f"), 0, 4 * MIB, it.downloads._demand)
        await trio.sleep(0.5)
        it.downloads.nobody_reads(content)
        assert await it.read(content, 0, 10) == data[:10]


async def test_who_waits_for_a_transfer_that_is_hung_up_asks_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Whoever waited for it already, on behalf of no handle, gets the bytes by another request."""
    server, data = serving(8 * MIB)
    server.inject(Fault("GET", delay_s=1))
    async with rig(server, tmp_path) as it, trio.open_nursery() as nursery:
        content = await it.opened_file("/f")
        it.downloads._begin(content, lambda: at("/f"), 0, 4 * MIB, it.downloads._demand)
        nursery.start_soon(it.downloads.ensure, content, lambda: at("/f"), 0, 10)
        await trio.sleep(0.5)
        it.downloads.nobody_reads(content)
        await trio.sleep(5)
        assert await content.read(0, 10) == data[:10]
        assert not content.missing(0, 10)


async def replaced_while_a_get_is_out(it: Rig, new: bytes) -> Content:
    """A program replaces all of a file, and it is sent, while a GET of the old version is out."""
    content = await it.opened_file("/f")
    it.downloads._begin(content, lambda: at("/f"), 0, 4 * MIB, it.downloads._demand)
    await trio.sleep(0.5)
    await content.prepare_write()
    content.truncate(0)
    content.write(0, new)
    it.uploads.schedule(it.node("/f"), content, 0)
    assert await it.uploads.drain(20) == 0
    return content


async def test_bytes_of_the_version_before_ours_are_not_taken(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Not even where a full cache has dropped ours meanwhile: they would be mixed."""
    server, _ = serving(8 * MIB)
    new = os.urandom(8 * MIB)
    server.inject(Fault("GET", answer_delay_s=20))
    async with rig(server, tmp_path) as it:
        content = await replaced_while_a_get_is_out(it, new)
        content.drop_lower_half()
        assert content.missing(0, 10)
        await trio.sleep(25)
        assert await it.read(content, 0, MIB) == new[:MIB]


async def test_the_tag_of_the_version_before_ours_is_not_taken(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Where only GET tells tags, one that was on its way while we stored ours is not that of ours."""
    server, _ = serving(MIB, etags="hidden")
    server.inject(Fault("GET", answer_delay_s=20))
    async with rig(server, tmp_path) as it:
        content = await replaced_while_a_get_is_out(it, os.urandom(MIB))
        await trio.sleep(25)
        assert content.base is not None
        assert content.base.etag is None
        assert gets(server) == 1


async def test_without_ranges_far_reads_wait_for_the_one_stream(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A read far behind what has come asks for nothing: it would bring the same bytes from the beginning."""
    server, data = serving(40 * MIB)
    async with rig(SlowWithoutRanges(server), tmp_path) as it:
        content = await it.opened_file("/f")
        assert await it.read(content, 0, 10) == data[:10]
        assert await it.read(content, 30 * MIB, 30 * MIB + 10) == data[30 * MIB : 30 * MIB + 10]
    assert gets(server) == 1


async def test_parts_of_a_large_file_that_changed_lately_are_looked_at(tmp_path: Path) -> None:
    """Where the server is known to mix, no byte of a part is given out before a look shows its version."""
    server = FakeDav()
    old, new = os.urandom(4 * MIB), os.urandom(4 * MIB)
    server.put("/f", old, mtime_s=time.time() - 5)
    wire = Mixing(server)
    async with rig(wire, tmp_path) as it:
        it.client.capabilities = Capabilities(server="rclone/v1.75.2")
        content = await it.opened_file("/f")
        assert await it.read(content, 0, 10) == old[:10]
        wire.newer = new
        with pytest.raises(StaleVersion):
            await it.read(content, 2 * MIB, 2 * MIB + 10)
        assert content.missing(2 * MIB, 2 * MIB + 10)


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_large_file_that_a_server_may_have_mixed_is_looked_at_in_the_end(
    tmp_path: Path, replaced: bool
) -> None:
    """However old it was: its last bytes are given out only while the version is still there."""
    server = FakeDav()
    old, new = os.urandom(2 * MIB), os.urandom(2 * MIB)
    server.put("/f", old, mtime_s=time.time() - 3600)
    wire = Mixing(server)
    async with rig(wire, tmp_path) as it:
        it.client.capabilities = Capabilities(server="rclone/v1.75.2")
        content = await it.opened_file("/f")
        assert await it.read(content, 0, MIB) == old[:MIB]
        before = len(server.requests("PROPFIND"))
        wire.newer = new if replaced else b""
        if replaced:
            with pytest.raises(StaleVersion):
                await it.read(content, MIB, 2 * MIB)
            assert content.missing(0, 2 * MIB)
        else:
            assert await it.read(content, MIB, 2 * MIB) == old[MIB:]
            assert len(server.requests("PROPFIND")) == before + 1


async def test_a_server_that_is_slow_to_begin_is_asked_for_much(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What costs seconds before the first byte (sabre/dav sums the file up) is done a few times only."""
    monkeypatch.setattr(download, "WINDOW_MAX", MIB)
    server, data = serving(48 * MIB)
    async with rig(server, tmp_path / "quick", connections=8) as it:
        assert await read_in_order(it, len(data), MIB) == data
    quick = gets(server)
    server.log.clear()
    server.inject(Fault("GET", times=1000, delay_s=5))
    async with rig(server, tmp_path / "slow", connections=8) as it:
        assert await read_in_order(it, len(data), MIB) == data
    assert gets(server) * 4 <= quick


class Summing(httpx.AsyncBaseTransport):
    """As sabre/dav 1.8: a minute passes before a part begins. `pause_s`: between its two halves."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        with trio.fail_after(request.extensions["timeout"]["read"]):
            await trio.sleep(60)
        headers = {"Content-Range": "bytes 0-9/2147483648", "Content-Length": "10", "ETag": '"one"'}
        return httpx.Response(206, headers=headers, stream=Halves(self.pause_s))


class Halves(httpx.AsyncByteStream):
    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"first"
        await trio.sleep(self._pause_s)
        yield b"last."


@pytest.mark.parametrize("pause_s", [0.0, 20.0, 40.0])
async def test_a_server_that_sums_up_gigabytes_is_waited_for(
    autojump_clock: MockClock, pause_s: float
) -> None:
    """The first byte of 2 GiB may take longer than `timeout`; what comes after it may not."""
    client = Client(Summing(pause_s), URL, timeout_s=30, clock=trio.current_time)
    expected = Validator(ETag("one"), None, 2 << 30)
    got = b""
    with pytest.raises(TimedOut) if pause_s > 30 else nullcontext():
        async with client.get(at("/f"), start=0, end=10, expected=expected) as download:
            async for chunk in download:
                got += chunk
    assert got == (b"first" if pause_s > 30 else b"firstlast.")
    assert 60 + min(pause_s, 30) <= trio.current_time() < 100


@pytest.mark.expects_warning("no answer")
async def test_a_server_that_went_away_is_not_waited_for_so_long(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """While the first byte of a large file is awaited, small questions tell whether anybody is there."""
    server, _ = serving(MIB)
    async with running(server, URL, Settings(str(tmp_path))) as fs:
        handle = await fs.open((await fs.lookup(ROOT_INO, "f")).ino, os.O_RDONLY)
        content = fs._handles.file(handle.handle).content
        content.base_size = content.size_bytes = 2 << 30
        content.base = Validator(content.base.etag, None, 2 << 30) if content.base else None
        server.inject(Fault("GET", delay_s=1000, times=100))
        server.inject(Fault("PROPFIND", delay_s=1000, times=100))
        begun_s = trio.current_time()
        with pytest.raises(DavfsError):
            await fs.read(handle.handle, MIB, 10)
        assert trio.current_time() - begun_s < 60
