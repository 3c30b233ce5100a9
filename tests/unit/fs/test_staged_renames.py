"""Renames of a new file whose body is on its way to a temporary name: they change where its MOVE goes.

At each moment of the upload: before it began, in the body, when the body has arrived, in the MOVE, and when
the answer of the MOVE is lost. A server in memory, and a real cache folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import trio
from trio.testing import MockClock

from davfs.dav.quirks import Capabilities
from davfs.fs.settings import Settings
from davfs.fs.tree import HIDDEN_PREFIX
from davfs.fs.upload import HURRY_FROM, HURRY_WITHIN_S
from tests.fakes.davserver import FakeDav, Fault
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL

SIZE: Final = 2 << 20  # staged
OURS: Final = b"o" * SIZE
SHORT_S: Final = 0.01  # the wait after close

# Held up for 5 s; the rename comes after 1.
IN_THE_BODY: Final = Fault("PUT", delay_s=5)
ARRIVED: Final = Fault("PUT", answer_delay_s=5)
BEFORE_THE_MOVE: Final = Fault("MOVE", delay_s=5)
MOVED: Final = Fault("MOVE", answer_delay_s=5)
LOST: Final = Fault("MOVE", answer_delay_s=5, lost="after")
NOT_MOVED: Final = Fault("MOVE", delay_s=5, lost="before")


def again(fault: Fault) -> Fault:
    """A fresh one: faults count down."""
    return Fault(fault.method, delay_s=fault.delay_s, answer_delay_s=fault.answer_delay_s, lost=fault.lost)


@asynccontextmanager
async def drive(
    server: FakeDav, folder: Path, *, cache: str = "cache", write_back_s: float = SHORT_S
) -> AsyncIterator[Vfs]:
    async with running(server, URL, Settings(str(folder / cache), write_back_s=write_back_s)) as fs:
        yield Vfs(fs)


async def write(vfs: Vfs, path: str, data: bytes = OURS) -> None:
    fd = await vfs.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for start in range(0, len(data), 1 << 20):
        await vfs.write(fd, data[start : start + (1 << 20)])
    await vfs.close(fd)


async def sending(vfs: Vfs, server: FakeDav, fault: Fault, path: str = "new.tmp") -> None:
    """A new file whose upload is held up by this fault."""
    server.inject(again(fault))
    await write(vfs, path)
    await trio.sleep(1)


def files(server: FakeDav) -> dict[str, bytes | None]:
    """What other clients see: without our temporary names."""
    return {path: data for path, data in server.tree().items() if HIDDEN_PREFIX not in path}


def names(server: FakeDav) -> list[str]:
    return sorted(server.tree())


@pytest.mark.parametrize("fault", [IN_THE_BODY, ARRIVED])
@pytest.mark.parametrize("replaced", [None, b"was there"])
async def test_a_rename_meanwhile_waits_for_nothing(
    tmp_path: Path, autojump_clock: MockClock, fault: Fault, replaced: bytes | None
) -> None:
    """One body, one MOVE: to the name that the file has by then, over what stands there."""
    server = FakeDav()
    if replaced is not None:
        server.put("/real", replaced)
    async with drive(server, tmp_path) as vfs:
        await sending(vfs, server, fault)
        begun_s = trio.current_time()
        await vfs.rename("new.tmp", "real")
        assert trio.current_time() - begun_s < 1
        assert await vfs.listdir("") == ["real"]
        assert files(server) == ({} if replaced is None else {"real": replaced})
        assert await vfs.fs.sync(60) == 0
        assert (await vfs.stat("real")).size == SIZE
        assert server.tree() == {"real": OURS}
    assert len(server.requests("PUT")) == 1
    assert [status for _, _, _, status, _ in server.requests("MOVE")] in ([201], [204])


@pytest.mark.parametrize("steps", range(8))
async def test_a_rename_at_once_needs_no_more(tmp_path: Path, autojump_clock: MockClock, steps: int) -> None:
    """Right after the close, in each moment of the upload's begin: one body, nothing at the old name."""
    server = FakeDav()
    server.put("/real", b"was there")
    server.inject(Fault("PUT", answer_delay_s=1))
    async with drive(server, tmp_path, write_back_s=0) as vfs:
        await write(vfs, "new.tmp")
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        await vfs.rename("new.tmp", "real")
        assert await vfs.fs.sync(60) == 0
        assert server.tree() == {"real": OURS}
    assert len(server.requests("PUT")) == 1
    assert all("new.tmp" not in change.path + change.destination for change in server.changes)


@pytest.mark.expects_warning("not sent")
@pytest.mark.parametrize("fault", [BEFORE_THE_MOVE, MOVED, LOST, NOT_MOVED])
@pytest.mark.parametrize("replaced", [None, b"was there"])
async def test_a_rename_in_the_move_comes_after_it(
    tmp_path: Path, autojump_clock: MockClock, fault: Fault, replaced: bytes | None
) -> None:
    """Then the file may be at its old name already: it is renamed there, whatever becomes of the answer."""
    server = FakeDav()
    if replaced is not None:
        server.put("/real", replaced)
    async with drive(server, tmp_path) as vfs:
        await sending(vfs, server, fault)
        await vfs.rename("new.tmp", "real")
        assert await vfs.listdir("") == ["real"]
        assert await vfs.fs.sync(60) == 0
        await trio.sleep(60)
        assert server.tree() == {"real": OURS}
    assert len(server.requests("PUT")) == (1 if fault is not NOT_MOVED else 2)


async def test_several_renames_meanwhile(tmp_path: Path, autojump_clock: MockClock) -> None:
    """There and back, and on: the last name counts."""
    server = FakeDav()
    server.mkdir("/folder")
    async with drive(server, tmp_path) as vfs:
        await sending(vfs, server, IN_THE_BODY)
        for old, new in (("new.tmp", "a"), ("a", "new.tmp"), ("new.tmp", "folder/b"), ("folder/b", "c")):
            await vfs.rename(old, new)
        assert await vfs.fs.sync(60) == 0
        assert server.tree() == {"folder": None, "c": OURS}
    assert len(server.requests("PUT")) == len(server.requests("MOVE")) == 1


@pytest.mark.expects_warning("conflict")
@pytest.mark.parametrize("made", [b"theirs", b"t" * SIZE])
async def test_what_somebody_else_puts_there_survives(
    tmp_path: Path, autojump_clock: MockClock, made: bytes
) -> None:
    """The new name was free when the file was renamed, and is taken when the MOVE comes: both survive."""
    server = FakeDav()
    async with drive(server, tmp_path) as vfs:
        await sending(vfs, server, IN_THE_BODY)
        await vfs.rename("new.tmp", "real")
        server.put("/real", made)
        assert await vfs.fs.sync(60) == 0
        assert sorted(files(server).values(), key=str) == sorted([made, OURS], key=str)
        assert files(server)["real"] == made


@pytest.mark.expects_warning("conflict")
async def test_what_somebody_else_changes_there_survives(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The condition is the version that stood there when the file was renamed over it."""
    server = FakeDav()
    server.put("/real", b"was there")
    async with drive(server, tmp_path) as vfs:
        await sending(vfs, server, IN_THE_BODY)
        await vfs.rename("new.tmp", "real")
        server.put("/real", b"changed")
        assert await vfs.fs.sync(60) == 0
        assert sorted(files(server).values(), key=str) == sorted([b"changed", OURS], key=str)
        assert files(server)["real"] == b"changed"


@pytest.mark.parametrize("replaced", [None, b"was there"])
@pytest.mark.parametrize("fault", [IN_THE_BODY, ARRIVED])
async def test_what_is_removed_after_that_is_gone(
    tmp_path: Path, autojump_clock: MockClock, fault: Fault, replaced: bytes | None
) -> None:
    """unlink of the new name: nothing is left of the file, nor of what it was to replace."""
    server = FakeDav()
    if replaced is not None:
        server.put("/real", replaced)
    async with drive(server, tmp_path) as vfs:
        await sending(vfs, server, fault)
        await vfs.rename("new.tmp", "real")
        await vfs.unlink("real")
        assert await vfs.listdir("") == []
        assert await vfs.fs.sync(60) == 0
        await trio.sleep(60)
        assert names(server) == []


@pytest.mark.parametrize("fault", [IN_THE_BODY, ARRIVED])
@pytest.mark.parametrize("replaced", [None, b"was there"])
async def test_a_kill_after_the_rename_loses_nothing(
    tmp_path: Path, autojump_clock: MockClock, fault: Fault, replaced: bytes | None
) -> None:
    """The journal has the new name when rename returns: the next daemon sends it there, and tidies up."""
    server = FakeDav()
    if replaced is not None:
        server.put("/real", replaced)
    async with drive(server, tmp_path) as vfs:
        await sending(vfs, server, fault)
        await vfs.rename("new.tmp", "real")
        shutil.copytree(tmp_path / "cache", tmp_path / "after")
    async with drive(server, tmp_path, cache="after") as vfs:
        assert await vfs.listdir("") == ["real"]
        assert await vfs.fs.sync(60) == 0
        await trio.sleep(60)
        assert server.tree() == {"real": OURS}


async def test_a_kill_in_the_move_after_the_rename(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Whether it was done is looked up under the new name: no second file, no conflict with ourselves."""
    server = FakeDav()
    server.put("/real", b"was there")
    server.inject(Fault("MOVE", answer_delay_s=5))
    async with drive(server, tmp_path) as vfs:
        await sending(vfs, server, IN_THE_BODY)
        await vfs.rename("new.tmp", "real")
        await trio.sleep(6)
        assert server.tree() == {"real": OURS}
        shutil.copytree(tmp_path / "cache", tmp_path / "after")
    async with drive(server, tmp_path, cache="after") as vfs:
        assert await vfs.fs.sync(60) == 0
        await trio.sleep(60)
        assert server.tree() == {"real": OURS}


@pytest.mark.expects_warning("not sent")
@pytest.mark.parametrize("status", [500, None])
async def test_an_upload_that_fails_after_the_rename_is_repeated(
    tmp_path: Path, autojump_clock: MockClock, status: int | None
) -> None:
    """The next attempt goes to the new name, and nothing is left of the first."""
    server = FakeDav()
    server.put("/real", b"was there")
    server.inject(Fault("PUT", delay_s=5, status=status, lost=None if status else "before"))
    async with drive(server, tmp_path) as vfs:
        await write(vfs, "new.tmp")
        await trio.sleep(1)
        await vfs.rename("new.tmp", "real")
        assert await vfs.fs.sync(600) == 0
        await trio.sleep(60)
        assert server.tree() == {"real": OURS}


async def test_a_folder_is_renamed_after_what_is_on_its_way(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A temporary name would move along with its folder: renames of that wait for the upload, as ever."""
    server = FakeDav()
    server.mkdir("/old")
    server.mkdir("/other")
    async with drive(server, tmp_path) as vfs:
        await sending(vfs, server, IN_THE_BODY, "old/new.tmp")
        await vfs.rename("old/new.tmp", "other/real")
        await vfs.rename("old", "older")
        await vfs.rename("other", "others")
        assert await vfs.fs.sync(60) == 0
        assert server.tree() == {"older": None, "others": None, "others/real": OURS}
    assert len(server.requests("PUT")) == 1


@pytest.mark.parametrize("by", ["rmdir", "rename over"])
async def test_a_folder_goes_after_what_is_on_its_way(
    tmp_path: Path, autojump_clock: MockClock, by: str
) -> None:
    """The file was renamed out of it, and its temporary name is still there: that is not removed with it."""
    server = FakeDav()
    server.mkdir("/old")
    server.mkdir("/empty")
    async with drive(server, tmp_path) as vfs:
        await sending(vfs, server, IN_THE_BODY, "old/new.tmp")
        await vfs.rename("old/new.tmp", "real")
        if by == "rmdir":
            await vfs.rmdir("old")
        else:
            await vfs.rename("empty", "old")
        assert await vfs.fs.sync(60) == 0
        left = {"empty": None} if by == "rmdir" else {"old": None}
        assert server.tree() == {"real": OURS, **left}
    assert len(server.requests("PUT")) == 1


async def test_a_write_after_the_rename_is_sent_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What is written to the new name while the old bytes are on their way goes over them."""
    server = FakeDav()
    server.put("/real", b"was there")
    async with drive(server, tmp_path) as vfs:
        await sending(vfs, server, IN_THE_BODY)
        await vfs.rename("new.tmp", "real")
        fd = await vfs.open("real", os.O_WRONLY)
        await vfs.pwrite(fd, b"more", 0)
        await vfs.close(fd)
        assert await vfs.fs.sync(60) == 0
        assert server.tree() == {"real": b"more" + OURS[4:]}


async def test_fsync_after_the_rename_waits_for_the_new_name(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """0 means that the server has it, under the name that it has."""
    server = FakeDav()
    async with drive(server, tmp_path) as vfs:
        await sending(vfs, server, IN_THE_BODY)
        await vfs.rename("new.tmp", "real")
        fd = await vfs.open("real", os.O_RDONLY)
        await vfs.fsync(fd)
        assert server.tree() == {"real": OURS}
        await vfs.close(fd)


@pytest.mark.expects_warning("not sent")
async def test_a_locked_target_is_not_replaced(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Somebody holds what it was renamed over: it waits at its path, and theirs stays as it is."""
    server = FakeDav()
    server.put("/real", b"was there")
    async with drive(server, tmp_path) as vfs:
        await sending(vfs, server, IN_THE_BODY)
        server.lock("/real", "somebody")
        await vfs.rename("new.tmp", "real")
        await trio.sleep(30)
        assert files(server) == {"real": b"was there"}
        server.forget_locks()
        assert await vfs.fs.sync(600) == 0
        assert server.tree() == {"real": OURS}


async def test_a_version_that_only_its_time_tells_is_not_followed_by_its_like(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Where size and time make the tag, a body with those of the old file is not moved over it unseen."""
    server = FakeDav(etags="coarse")
    server.put("/real", b"w" * SIZE, mtime_s=1_000_000_000)
    async with drive(server, tmp_path) as vfs:
        client = vfs.fs._client
        client.capabilities = Capabilities(server="nginx/1.22", dav_classes=frozenset({"1"}))
        server.inject(again(IN_THE_BODY))
        fd = await vfs.open("new.tmp", os.O_WRONLY | os.O_CREAT)
        await vfs.write(fd, OURS)
        await vfs.futime(fd, 1_000_000_000 * 10**9)
        await vfs.close(fd)
        await trio.sleep(1)
        begun_s = trio.current_time()
        await vfs.rename("new.tmp", "real")
        assert trio.current_time() - begun_s > 3  # after its upload
        assert await vfs.fs.sync(60) == 0
        assert server.tree() == {"real": OURS}


async def test_attributes_of_the_replaced_file_stay(tmp_path: Path, autojump_clock: MockClock) -> None:
    """As with every save by write-temporary-and-rename: they go along before the MOVE."""
    server = FakeDav()
    server.put("/real", b"was there")
    async with drive(server, tmp_path) as vfs:
        await vfs.setxattr("real", "user.colour", b"red")
        await sending(vfs, server, IN_THE_BODY)
        await vfs.rename("new.tmp", "real")
        assert await vfs.fs.sync(60) == 0
        assert server.tree() == {"real": OURS}
    async with drive(server, tmp_path, cache="another") as vfs:
        assert await vfs.getxattr("real", "user.colour") == b"red"


# --- without a wait


async def hurried(vfs: Vfs, server: FakeDav, path: str, size: int) -> bool:
    """Whether a new file of this size is on its way before the wait after its close is over."""
    before = len(server.requests("PUT"))
    await write(vfs, path, bytes(size))
    await trio.sleep(HURRY_WITHIN_S / 2)
    begun = len(server.requests("PUT")) > before
    await vfs.fs.sync(60)
    return begun


async def test_only_large_new_files_are_sent_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A small one waits, and a large one that is on the server already, or where a long wait is set."""
    server = FakeDav()
    async with drive(server, tmp_path, write_back_s=HURRY_WITHIN_S) as vfs:
        assert not await hurried(vfs, server, "small", HURRY_FROM)
        assert await hurried(vfs, server, "large", HURRY_FROM + 1)
        assert not await hurried(vfs, server, "large", HURRY_FROM + 1)
    async with drive(server, tmp_path, cache="patient", write_back_s=2 * HURRY_WITHIN_S) as vfs:
        assert not await hurried(vfs, server, "another", HURRY_FROM + 1)


async def test_a_file_that_is_opened_again_and_again_is_begun_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A write stops the upload that began at the first close; after that the file waits, as others do."""
    server = FakeDav()
    async with drive(server, tmp_path, write_back_s=HURRY_WITHIN_S) as vfs:
        held = server.inject(Fault("PUT", delay_s=5, times=9))
        await write(vfs, "large", bytes(HURRY_FROM + 1))
        for at in range(3):
            await trio.sleep(HURRY_WITHIN_S / 2)
            fd = await vfs.open("large", os.O_WRONLY)
            await vfs.pwrite(fd, b"more", at * 4)
            await vfs.close(fd)
        assert (held.times, server.requests("PUT")) == (8, [])
        assert await vfs.fs.sync(600) == 0
        assert files(server) == {"large": b"more" * 3 + bytes(HURRY_FROM - 11)}
        await trio.sleep(60)
        assert len(server.tree()) == 1


async def test_where_the_time_goes_with_the_body_it_waits(tmp_path: Path, autojump_clock: MockClock) -> None:
    """rsync and cp -p set it when the file is closed: sent before, the server would keep a wrong one."""
    server = FakeDav()
    async with drive(server, tmp_path, write_back_s=HURRY_WITHIN_S) as vfs:
        client = vfs.fs._client
        client.capabilities = Capabilities(server="rclone/v1.75", dav_classes=frozenset({"1", "2"}))
        assert client.capabilities.time_in_put
        assert not await hurried(vfs, server, "large", HURRY_FROM + 1)
