"""Who makes a file and only writes it does so past the kernel's pages; no page of it is ever an old one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest
from trio.testing import MockClock

from davfs.fs.filesystem import ROOT_INO, Changes, Filesystem, Opened
from tests.fakes.davserver import FakeDav
from tests.unit.fs.drive import drive

SET_UID: Final = 0o4755


async def make(fs: Filesystem, flags: int, mode: int = 0o644) -> tuple[Opened, int]:
    opened, told = await fs.create(ROOT_INO, "new", mode, flags)
    return opened, told.ino


def shared() -> FakeDav:
    server = FakeDav()
    server.put("/old", b"old")
    return server


async def test_only_who_makes_it_and_only_writes(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Who may read it too may map it, which is not possible past the pages."""
    async with drive(FakeDav(), tmp_path) as vfs:
        for flags, direct in ((os.O_WRONLY, True), (os.O_RDWR, False)):
            opened, _ = await make(vfs.fs, flags)
            assert opened.direct is direct
            assert opened.keep_cache is not direct
            await vfs.fs.release(opened.handle)
            await vfs.unlink("new")


@pytest.mark.parametrize(
    ("flags", "direct"),
    [(os.O_WRONLY, False), (os.O_WRONLY | os.O_TRUNC, True), (os.O_RDWR | os.O_TRUNC, False)],
)
async def test_of_an_old_file_only_when_it_is_emptied(
    tmp_path: Path, autojump_clock: MockClock, flags: int, direct: bool
) -> None:
    """Else the kernel may have pages of it, which are worth keeping."""
    async with drive(shared(), tmp_path) as vfs:
        ino = (await vfs.fs.lookup(ROOT_INO, "old")).ino
        opened = await vfs.fs.open(ino, flags)
        assert opened.direct is direct
        await vfs.fs.release(opened.handle)


async def test_not_beside_a_reader(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Its pages must follow what is written."""
    async with drive(shared(), tmp_path) as vfs:
        ino = (await vfs.fs.lookup(ROOT_INO, "old")).ino
        reader = await vfs.fs.open(ino, os.O_RDONLY)
        writer = await vfs.fs.open(ino, os.O_WRONLY | os.O_TRUNC)
        assert [reader.direct, writer.direct] == [False, False]
        for opened in (reader, writer):
            await vfs.fs.release(opened.handle)


async def test_who_comes_meanwhile_keeps_no_pages_either(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Until the last who writes directly is gone; the next one after that finds no page that was kept."""
    async with drive(FakeDav(), tmp_path) as vfs:
        first, ino = await make(vfs.fs, os.O_WRONLY)
        reader = await vfs.fs.open(ino, os.O_RDONLY)
        second = await vfs.fs.open(ino, os.O_RDWR)
        await vfs.fs.release(first.handle)
        third = await vfs.fs.open(ino, os.O_RDONLY)
        assert [one.direct for one in (reader, second, third)] == [True, True, True]
        await vfs.fs.release(second.handle)
        fourth = await vfs.fs.open(ino, os.O_RDONLY)
        fifth = await vfs.fs.open(ino, os.O_WRONLY)
        assert [(one.direct, one.keep_cache) for one in (fourth, fifth)] == [(False, False), (False, True)]
        for opened in (reader, third, fourth, fifth):
            await vfs.fs.release(opened.handle)


async def test_a_write_takes_set_id_away(tmp_path: Path, autojump_clock: MockClock) -> None:
    """As the kernel does where it keeps pages; there it is left to the kernel, so that root may keep it."""
    async with drive(FakeDav(), tmp_path) as vfs:
        opened, ino = await make(vfs.fs, os.O_WRONLY, SET_UID)
        assert not opened.direct
        await vfs.fs.release(opened.handle)
        await vfs.unlink("new")
        opened, ino = await make(vfs.fs, os.O_WRONLY)
        await vfs.fs.setattr(ino, Changes(mode=SET_UID))
        assert (await vfs.fs.getattr(ino)).mode & 0o7777 == SET_UID
        await vfs.fs.write(opened.handle, 0, b"x")
        assert (await vfs.fs.getattr(ino)).mode & 0o7777 == 0o755
        await vfs.fs.release(opened.handle)
