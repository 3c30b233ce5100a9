"""Programs that work on the same names at the same time, over a slow server that says no now and then.

There is no order to compare with, so what must hold in every order is checked: each file is whole, as some
program wrote it; what the drive shows is what the server has; nothing is removed on the server that no
program removed; there is no conflict with ourselves; and what only one program ever touched is as it left it.

As in the kernel, calls that change a folder's names have that folder to themselves (i_rwsem); reads, writes,
closes and uploads go on meanwhile.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import trio
from trio.testing import MockClock

from davfs.errors import DavfsError, PosixError
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav
from tests.faults.scripted import Scripted, Trouble
from tests.mount.assembly import running
from tests.mount.vfs import Vfs

URL: Final = "http://fake.example/"
SOAK: Final = os.environ.get("DAVFS_SOAK") == "1"
SEEDS: Final = 60 if SOAK else 2
PROGRAMS: Final = 4
CALLS: Final = 25
SHARED: Final = ("f", "g", "d/f", "d/g", "e/f")
STATUSES: Final = (403, 423, 429, 500, 503, 507)
VERBS: Final = ("PUT", "MOVE", "DELETE", "COPY", "PROPFIND", "GET")
SERVERS: Final[dict[str, Callable[[], FakeDav]]] = {
    "as Apache": FakeDav,
    "unknown": lambda: FakeDav(anonymous=True),
    "without conditions": lambda: FakeDav(conditions=False, etags="none"),
}
# What a call may say because of another program, beyond what the server's refusals are told as.
ORDINARY: Final = {errno.ENOENT, errno.EEXIST, errno.ESTALE, errno.ENOTEMPTY}
REFUSALS: Final = {errno.EACCES, errno.EBUSY, errno.EIO, errno.ENOSPC}

pytestmark = pytest.mark.expects_warning("")  # trouble is logged


class Program:
    """One of those at work; `own` is a file that nobody else touches."""

    def __init__(self, number: int, seed: int, vfs: Vfs, wire: Scripted, locks: dict[str, trio.Lock]) -> None:
        self.locks = locks
        self.dice = random.Random(seed * 100 + number)
        self.vfs = vfs
        self.wire = wire
        self.number = number
        self.own = f"own{number}"
        self.last = b""
        self.saved: set[bytes] = {b""}
        self.removed: set[str] = set()
        self.told: set[int] = set()
        self.serial = 0

    @asynccontextmanager
    async def alone_in(self, *paths: str) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for folder in sorted({path.rpartition("/")[0] for path in paths}):
                await stack.enter_async_context(self.locks[folder])
            yield

    def payload(self) -> bytes:
        self.serial += 1
        data = f"{self.number}.{self.serial};".encode() * self.dice.randrange(1, 2000)
        self.saved.add(data)
        return data

    async def run(self) -> None:
        for _ in range(CALLS):
            await trio.sleep(self.dice.random() * 0.6)
            if self.dice.random() < 0.2:
                self.wire.trouble = Trouble(
                    self.dice.choice(VERBS), "/", "answer", self.dice.choice(STATUSES), times=1
                )
            try:
                await self.dice.choice(
                    (self.save, self.save, self.rename, self.unlink, self.replace, self.read)
                )()
            except DavfsError as error:
                self.told.add(error.errno)
        while True:
            try:
                return await self.save_own()
            except PosixError as error:  # what became of an earlier save is told, once
                self.told.add(error.errno)

    async def write(self, path: str, data: bytes) -> None:
        async with self.alone_in(path):
            fd = await self.vfs.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            await self.vfs.write(fd, data)
        finally:
            await self.vfs.close(fd)

    async def save_own(self) -> None:
        self.last = self.payload()
        await self.write(self.own, self.last)

    async def save(self) -> None:
        if self.dice.random() < 0.3:
            await self.save_own()
        else:
            await self.write(self.dice.choice(SHARED), self.payload())

    async def rename(self) -> None:
        await self.move(self.dice.choice(SHARED), self.dice.choice(SHARED))

    async def move(self, old: str, new: str) -> None:
        async with self.alone_in(old, new):
            await self.vfs.rename(old, new)

    async def replace(self) -> None:
        """As an editor saves: a temporary file, renamed over the real one."""
        temporary = f"tmp{self.number}"
        self.removed.add(f"/{temporary}")
        await self.write(temporary, self.payload())
        await self.move(temporary, self.dice.choice(SHARED))

    async def unlink(self) -> None:
        path = self.dice.choice(SHARED)
        self.removed.add(f"/{path}")
        async with self.alone_in(path):
            await self.vfs.unlink(path)

    async def read(self) -> None:
        fd = await self.vfs.open(self.dice.choice(SHARED))
        try:
            await self.vfs.read(fd)
        finally:
            await self.vfs.close(fd)


async def shown(vfs: Vfs) -> dict[str, bytes]:
    """Every file of the drive."""
    files = {}
    for folder in ("", "d", "e"):
        for name in await vfs.listdir(folder):
            path = f"{folder}/{name}".strip("/")
            if path not in ("d", "e"):
                fd = await vfs.open(path)
                files[path] = await vfs.read(fd)
                await vfs.close(fd)
    return files


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_programs_at_once(seed: int, server: str, tmp_path: Path, autojump_clock: MockClock) -> None:
    """Four programs on five names: every file whole, drive and server the same, nothing else removed."""
    wire = Scripted(SERVERS[server]())
    dice = random.Random(seed)
    async with running(wire, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        for folder in ("d", "e"):
            await vfs.mkdir(folder)
        locks = {folder: trio.Lock() for folder in ("", "d", "e")}
        programs = [Program(number, seed, vfs, wire, locks) for number in range(PROGRAMS)]
        wire.delay_s = lambda: dice.random() * 0.8
        async with trio.open_nursery() as nursery:
            for program in programs:
                nursery.start_soon(program.run)
        wire.trouble = None
        assert set.union(*(program.told for program in programs)) <= ORDINARY | REFUSALS
        assert await fs.sync(7200) == 0
        await trio.sleep(120)
        held = {
            name: data
            for name, data in wire.server.tree().items()
            if data is not None and ".davfs-" not in name
        }
        assert not fs.status()["conflicts"]
        assert await shown(vfs) == held
        saved = set.union(*(program.saved for program in programs))
        assert {name for name, data in held.items() if data not in saved} == set()
        assert {name: held[name] for name in held if name.startswith("own")} == {
            program.own: program.last for program in programs
        }
        removed = set.union(*(program.removed for program in programs))
        deleted = {one.path for one in wire.requests("DELETE") if ".davfs-" not in one.path}
        assert deleted <= removed
