"""The journal read while nobody serves it: the same rows, and a folder that stays as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from davfs.errors import PosixError
from davfs.fs import journal
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav, Fault
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL


def by_path(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return sorted(rows, key=lambda row: str(row["path"]))


def state_of_disk(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


@pytest.mark.expects_warning("not sent")
async def test_the_same_rows_as_the_daemon_tells(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Refused, failed and waiting files, with their sizes: while the daemon runs, and after its end."""
    server = FakeDav()
    server.mkdir("/d")
    server.inject(Fault("PUT", "/d/refused", times=1000, status=413))
    server.inject(Fault("PUT", "/failed", times=1000, status=503))
    folder = tmp_path / "c"
    async with running(server, URL, Settings(str(folder))) as fs:
        vfs = Vfs(fs)
        for name in ("d/refused", "failed"):
            fd = await vfs.open(name, os.O_WRONLY | os.O_CREAT)
            await vfs.write(fd, b"unsent")
            await vfs.close(fd)
        await trio.sleep(5)
        fd = await vfs.open("waiting", os.O_WRONLY | os.O_CREAT)
        await vfs.write(fd, b"un")
        await vfs.write(fd, b"sent")  # a row is not saved with each write
        rows = fs.unsent.rows()
        for row in rows:
            row["next_try_s"] = None
        assert {row["state"] for row in rows} == {"refused", "failed", "waiting"}
        assert by_path(journal.unsent(folder)) == by_path(rows)
    before = state_of_disk(folder)
    assert not (folder / "index.db-wal").exists()
    assert by_path(journal.unsent(folder)) == by_path(rows)
    assert state_of_disk(folder) == before


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    """A folder without an index has nothing; bytes that are no index are an error, and stay as they are."""
    assert journal.unsent(tmp_path) == []
    index = tmp_path / "index.db"
    index.write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(PosixError, match="cannot be read"):
        journal.unsent(tmp_path)
    assert index.read_bytes().startswith(b"not a database")
