"""A whole file system over a server in memory, driven by paths, and what tests of it do again and again."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from davfs.errors import DavfsError
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL


@asynccontextmanager
async def drive(server: FakeDav, folder: Path, **options: Any) -> AsyncIterator[Vfs]:
    async with running(server, URL, Settings(str(folder / "c"), **options)) as fs:
        yield Vfs(fs)


async def write(vfs: Vfs, path: str, data: bytes, mode: int = 0o644) -> None:
    fd = await vfs.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        await vfs.write(fd, data)
    finally:
        await vfs.close(fd)


async def errno_of(call: Any) -> int:
    with pytest.raises(DavfsError) as caught:
        await call
    return caught.value.errno
