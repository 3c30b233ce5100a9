"""Room on the server: which writes are refused before they are accepted, and which never."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock

from davfs.dav.multistatus import PROPFIND_QUOTA
from davfs.dav.resource import ETag, Validator
from davfs.errors import PosixError
from davfs.fs.growth import Counted, Growth, growth
from davfs.fs.lifecycle import Life
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav, Fault
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL, version

KIB = 1024


@asynccontextmanager
async def drive(
    server: FakeDav, folder: Path, *, write_back_s: float = 600, answer_s: float = 0
) -> AsyncIterator[Vfs]:
    """A mount a second after its start, when it has asked for the quota; it sends nothing for now."""
    settings = Settings(str(folder / "c"), write_back_s=write_back_s, open_flush_s=write_back_s)
    if answer_s:
        server.inject(Fault("PROPFIND", delay_s=answer_s, times=2))  # connecting, and the quota
    async with running(server, URL, settings) as fs:
        await trio.sleep(1)
        yield Vfs(fs)


async def new(vfs: Vfs, name: str, size: int) -> None:
    fd = await vfs.open(name, os.O_RDWR | os.O_CREAT)
    try:
        await vfs.write(fd, b"x" * size)
    finally:
        await vfs.close(fd)


async def is_refused(vfs: Vfs, name: str, size: int) -> bool:
    try:
        await new(vfs, name, size)
    except PosixError as error:
        return error.errno == errno.ENOSPC
    return False


async def test_a_write_that_does_not_fit_is_refused(tmp_path: Path, autojump_clock: MockClock) -> None:
    """ENOSPC at write, nothing of it accepted; what fits is accepted, also afterwards."""
    async with drive(FakeDav(capacity_bytes=100 * KIB), tmp_path) as vfs:
        assert await is_refused(vfs, "large", 101 * KIB)
        assert (await vfs.stat("large")).size == 0
        assert not await is_refused(vfs, "fits", 100 * KIB)


async def test_what_is_unsent_counts(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Two files that fit alone and not together: the second is refused, before either was sent."""
    server = FakeDav(capacity_bytes=100 * KIB)
    async with drive(server, tmp_path) as vfs:
        await new(vfs, "one", 60 * KIB)
        assert await is_refused(vfs, "two", 60 * KIB)
        assert server.requests("PUT") == []
        await vfs.unlink("one")
        assert not await is_refused(vfs, "two", 60 * KIB)


async def test_growing_by_truncate_counts_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A hole is zeros on the server."""
    async with drive(FakeDav(capacity_bytes=100 * KIB), tmp_path) as vfs:
        await new(vfs, "file", KIB)
        with pytest.raises(PosixError) as refused:
            await vfs.truncate("file", 200 * KIB)
        assert refused.value.errno == errno.ENOSPC
        assert (await vfs.stat("file")).size == KIB


async def test_overwriting_and_shrinking_always_pass(tmp_path: Path, autojump_clock: MockClock) -> None:
    """On a full share a file can be written over, cut, and written again up to its old size."""
    server = FakeDav(capacity_bytes=50 * KIB)
    server.put("/full", b"f" * 50 * KIB)
    async with drive(server, tmp_path) as vfs:
        fd = await vfs.open("full", os.O_RDWR)
        await vfs.pwrite(fd, b"y" * 50 * KIB, 0)
        await vfs.ftruncate(fd, 0)
        await vfs.pwrite(fd, b"z" * 50 * KIB, 0)
        with pytest.raises(PosixError):
            await vfs.pwrite(fd, b"+", 50 * KIB)
        await vfs.close(fd)


async def test_a_removed_open_file_is_not_limited(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What was unlinked is never sent, so the server's room is none of its business."""
    async with drive(FakeDav(capacity_bytes=10 * KIB), tmp_path) as vfs:
        fd = await vfs.open("scratch", os.O_RDWR | os.O_CREAT)
        await vfs.unlink("scratch")
        await vfs.pwrite(fd, b"x" * 50 * KIB, 0)
        await vfs.close(fd)


@pytest.mark.parametrize("why", ["not told", "not known yet"])
async def test_an_unknown_quota_refuses_nothing(tmp_path: Path, autojump_clock: MockClock, why: str) -> None:
    """A server that says nothing, or has not answered yet, is not full."""
    server = FakeDav(capacity_bytes=None if why == "not told" else 10)
    async with drive(server, tmp_path, answer_s=0 if why == "not told" else 5) as vfs:
        assert not await is_refused(vfs, "a", 100 * KIB)


async def test_freed_space_is_noticed_within_seconds(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A refusal asks again: when another client removed something, the write passes soon after."""
    server = FakeDav(capacity_bytes=100 * KIB)
    server.put("/theirs", b"t" * 90 * KIB)
    async with drive(server, tmp_path) as vfs:
        assert await is_refused(vfs, "mine", 50 * KIB)
        server.delete("/theirs")
        await trio.sleep(2)
        await is_refused(vfs, "mine", 50 * KIB)
        await trio.sleep(1)
        assert not await is_refused(vfs, "mine", 50 * KIB)


async def test_what_was_sent_since_the_answer_counts(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The room that our own uploads took is not given out twice, without asking after each."""
    server = FakeDav(capacity_bytes=100 * KIB)
    async with drive(server, tmp_path, write_back_s=0.1) as vfs:
        await new(vfs, "one", 60 * KIB)
        await trio.sleep(1)
        assert len(server.requests("PUT")) == 1
        assert await is_refused(vfs, "two", 60 * KIB)


async def test_a_share_with_plenty_of_room_is_asked_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One question at the mount, however much is written and however long it takes."""
    server = FakeDav(capacity_bytes=10**12)
    async with drive(server, tmp_path) as vfs:
        server.log.clear()
        for number in range(10):
            await new(vfs, f"f{number}", KIB)
            await trio.sleep(20)
        assert [line for line in server.requests("PROPFIND") if line.body_bytes == len(PROPFIND_QUOTA)] == []


async def test_an_old_answer_refuses_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """When the server was away for minutes, what it said before is no reason to refuse."""
    server = FakeDav(capacity_bytes=10)
    async with drive(server, tmp_path) as vfs:
        server.capacity_bytes = 10**9
        await trio.sleep(300)
        assert not await is_refused(vfs, "a", KIB)


# --- the sums -------------------------------------------------------------------------------------

events = st.tuples(
    st.integers(0, 2), st.sampled_from(["write", "put", "acked", "refused", "gone"]), st.integers(0, 50)
)


@given(st.lists(events, max_size=40))
@example([(0, "write", 0), (0, "put", 0), (0, "write", 1)])  # written to while its empty body is on its way
def test_the_sums_are_those_of_the_files(history: list[tuple[int, str, int]]) -> None:
    """Unsent growth is what the dirty files say; begun grows by each PUT and shrinks by each refused one."""
    sums, files = Growth(), [Model() for _ in range(3)]
    begun = 0
    for number, event, size in history:
        file = files[number]
        begun += file.do(event, size)
        sums.note(file.counted, file.life, grown=growth(file.size, file.base), gone=file.gone)
        assert sums.begun == begun
        assert sums.unsent == sum(one.unsent for one in files)


class Model:
    """One file as the sums should see it."""

    def __init__(self) -> None:
        self.life, self.counted = Life(), Counted()
        self.size, self.sent_size, self.flying = 0, 0, 0
        self.base: Validator | None = None
        self.gone = False

    @property
    def unsent(self) -> int:
        if self.gone or not self.life.dirty:
            return 0
        return max(0, growth(self.size, self.base) - self.flying)

    def do(self, event: str, size: int) -> int:
        """Returns by how much `begun` changes."""
        if self.gone:
            return 0
        if event == "write":
            self.life, self.size = self.life.wrote(), size
        elif event == "put" and self.life.dirty and not self.life.unknown:
            self.life, self.sent_size = self.life.put_begins(), self.size
            self.flying = growth(self.size, self.base)
            return self.flying
        elif event == "acked" and self.life.unknown:
            self.life = self.life.put_succeeded()
            self.base, self.flying = Validator(ETag("x"), None, self.sent_size), 0
        elif event == "refused" and self.life.unknown:
            self.life = self.life.put_refused()
            back, self.flying = self.flying, 0
            return -back
        elif event == "gone":
            self.gone, self.flying = True, 0
        return 0


def test_growth_is_what_the_server_does_not_hold() -> None:
    """A file on the server counts with its growth only, a new one with all of it."""
    assert growth(100, None) == 100
    assert growth(100, version(60)) == 40
    assert growth(10, version(60)) == 0
