"""An edit wins over the removal of its folder, whatever a server says to a PUT into a folder that is gone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from trio.testing import MockClock

from tests.fakes.davserver import Answer, FakeDav, _Asked
from tests.unit.fs.drive import drive


class Says(FakeDav):
    """404 as rclone and Nextcloud, 409 as most, 500 as nginx, 400 as Apache where a file has the name."""

    status = 409

    def _check_put(self, asked: _Asked) -> None:
        try:
            super()._check_put(asked)
        except Answer as answer:
            raise Answer(self.status if answer.status == 409 else answer.status) from None


@pytest.mark.parametrize("is_staged", [False, True])
@pytest.mark.parametrize("status", [400, 404, 409, 500])
async def test_the_folder_is_made_again(
    status: int, is_staged: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """fsync returns when the file is there, also where uploads go by way of a temporary name."""
    server = Says(conditions=not is_staged, anonymous=is_staged)
    server.status = status
    async with drive(server, tmp_path) as vfs:
        await vfs.mkdir("d")
        await vfs.mkdir("d/e")
        fd = await vfs.open("d/e/a", os.O_WRONLY | os.O_CREAT)
        await vfs.write(fd, b"first")
        await vfs.fsync(fd)
        server.delete("/d")
        await vfs.pwrite(fd, b"again", 0)
        await vfs.fsync(fd)
        await vfs.close(fd)
    assert server.tree() == {"d": None, "d/e": None, "d/e/a": b"again"}


@pytest.mark.expects_warning("conflict")
@pytest.mark.parametrize("status", [400, 409])
async def test_a_file_has_the_folders_name(status: int, tmp_path: Path, autojump_clock: MockClock) -> None:
    """Theirs keeps it, and the folder of ours stands beside it."""
    server = Says()
    server.status = status
    async with drive(server, tmp_path) as vfs:
        await vfs.mkdir("d")
        fd = await vfs.open("d/a", os.O_WRONLY | os.O_CREAT)
        await vfs.write(fd, b"ours")
        server.delete("/d")
        server.put("/d", b"theirs")
        await vfs.fsync(fd)
        await vfs.close(fd)
    tree = server.tree()
    assert tree.pop("d") == b"theirs"
    assert sorted(content or b"" for content in tree.values()) == [b"", b"ours"]
