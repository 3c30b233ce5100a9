"""Files that go to a Nextcloud: what is written meanwhile arrives, what fails ends, what is given up goes."""

from __future__ import annotations

import os
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from davfs.dav.chunked import SMALLEST_PART, ChunkBody, ChunkedUploads, Part, Upload, UploadGone
from davfs.errors import DavfsError, Forbidden, TimedOut
from davfs.fs import chunks, delivery
from davfs.fs.body import FileBody
from davfs.fs.chunks import NoChannel, Underway
from davfs.fs.content import Content
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL, Rig, at, rig


async def test_a_write_while_the_checksum_is_made_is_sent_too(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checksum is of what is sent; what was written meanwhile counts as unsent, and follows."""
    server = FakeDav(root="/")
    async with rig(server, tmp_path) as parts:
        parts.client.capabilities = replace(
            parts.client.capabilities,
            dav_classes=frozenset({"1", "3", "extended-mkcol", "nextcloud-checksum-update"}),
        )
        content = parts.new_file("file", b"first", delay_s=60)
        plain = chunks.checksum_of
        writes = [b"SECON"]

        async def with_a_writer(fd: int, size: int, kind: str) -> str:
            if writes:
                await content.prepare_write()
                content.write(0, writes.pop())
            return await plain(fd, size, kind)

        monkeypatch.setattr(delivery, "checksum_of", with_a_writer)
        assert await parts.uploads.drain(60) == 0
        assert server.content("file") == b"SECON"
        assert not content.dirty


class Channel(ChunkedUploads):
    """Where parts go, without a server: `fails` is what becomes of each."""

    def __init__(self, fails: DavfsError | None = None) -> None:
        self.fails = fails
        self.folders: list[str] = []
        self.removed: list[str] = []

    async def begin(self, upload: Upload) -> None:
        await trio.lowlevel.checkpoint()
        self.folders.append(upload.name)

    async def present(self, _upload: Upload) -> dict[int, int | None]:
        await trio.lowlevel.checkpoint()
        return {}

    async def put(self, _upload: Upload, body: ChunkBody) -> None:
        async with aclosing(aiter(body)) as pieces:  # type: ignore[type-var]
            async for _ in pieces:
                await trio.lowlevel.checkpoint()
        if self.fails is not None:
            raise self.fails

    async def remove(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        self.removed.append(name)


async def sent_in_parts(it: Rig, channel: Channel, size: int = 3 * SMALLEST_PART) -> tuple[Content, Underway]:
    """A file goes to `channel` in parts of the smallest size."""
    content = it.store.create(it.node("file").ino, at("file"), size=0, base=None)
    it.store.acquire(content)
    content.write(0, bytes(size))
    it.uploads._chunks._largest_part = SMALLEST_PART
    with content.steady() as fd:
        return content, await it.uploads._chunks.send(
            channel, content.id, FileBody(fd, size), at("file"), None
        )


async def test_a_file_that_cannot_be_summed_up_is_one_failure(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong beside the parts ends as any failure of an upload does, not as a group of them."""

    async def fails(_fd: int, _part: Part, _kind: str) -> str:
        await trio.lowlevel.checkpoint()
        raise DavfsError("the cached file is shorter than it was")

    monkeypatch.setattr(chunks, "_digest", fails)
    async with rig(FakeDav(), tmp_path) as it:
        with pytest.raises(DavfsError, match="shorter"):
            await sent_in_parts(it, Channel())


@pytest.mark.parametrize(
    ("error", "patience_s"),
    [(UploadGone("400: the parts do not make up the file"), 4), (TimedOut("no answer"), 40)],
)
async def test_how_long_a_move_without_an_answer_is_waited_for(
    tmp_path: Path, autojump_clock: MockClock, error: DavfsError, patience_s: float
) -> None:
    """A server that says no is not waited for; one that says nothing for as long as it may work on it."""
    async with rig(FakeDav(), tmp_path) as it:
        channel = Channel()
        _, underway = await sent_in_parts(it, channel)
        begun_s = trio.current_time()
        assert not await it.uploads._chunks.settled(channel, underway, None, error)
        waited_s = trio.current_time() - begun_s
        assert patience_s / 2 < waited_s <= patience_s


async def test_parts_of_a_file_that_was_given_up_are_removed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """`davfs pending discard` of a file that is half there leaves nothing to wait for on the server."""
    async with running(FakeDav(), URL, Settings(str(tmp_path))) as fs:
        vfs, channel = Vfs(fs), Channel()
        fd = await vfs.open("file", os.O_WRONLY | os.O_CREAT)
        await vfs.write(fd, b"x")
        (unsent,) = fs._uploads.pending()
        channel.fails = TimedOut("no answer")
        with unsent.content.steady() as raw:
            body = FileBody(raw, 1)
            with pytest.raises(TimedOut):
                await fs._chunks.send(channel, unsent.content.id, body, at("file"), None)
        await fs.unsent.discard("file")
        await fs._chunks._remove_unwanted(channel)
        assert channel.removed == channel.folders
        await vfs.close(fd)


async def test_times_of_a_file_that_was_given_up_are_forgotten(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Nothing waits for the upload of a file that is not to be sent."""
    async with running(FakeDav(), URL, Settings(str(tmp_path), mtime="properties")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("file", os.O_WRONLY | os.O_CREAT)
        await vfs.write(fd, b"x")
        await vfs.futime(fd, 1_000_000_000_000_000_000)
        assert len(fs._tree.owed) == 1
        await fs.unsent.discard("file")
        assert len(fs._tree.owed) == 0
        await vfs.close(fd)


async def test_a_refused_place_for_parts_is_asked_for_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """One 403 is no word for the rest of the mount: without parts a cut overwrite tears the file."""

    class Refusing(Channel):
        async def begin(self, _upload: Upload) -> None:
            await trio.lowlevel.checkpoint()
            raise Forbidden("by a proxy", status=403)

    async with rig(FakeDav(), tmp_path) as it:
        with pytest.raises(NoChannel):
            await sent_in_parts(it, Refusing())
        assert it.client.cloud.has_no_chunks
        await trio.sleep(1000)
        assert not it.client.cloud.has_no_chunks
