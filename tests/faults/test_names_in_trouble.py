"""Names and contents while requests fail: a program goes on working, and the server says no now and then.

A seeded sequence of calls runs against the file system and against a model of a few lines. Now and then a
request goes wrong: refused, lost before or after it took effect, unanswered, garbage. A call that succeeds
has happened, a call that fails has not, whatever became of its requests. close and the next open for writing
may tell of an earlier upload of that file, once, as the kernel does with writeback errors. In the end, when
the server is well, it holds exactly what the model holds: nothing lost, nothing twice. Only temporary names
of uploads that broke off may be left over: a later mount removes them.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
import trio
from trio.testing import MockClock

from davfs.errors import DavfsError, PosixError
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav
from tests.faults.scripted import Manner, Scripted, Trouble
from tests.mount.assembly import running
from tests.mount.vfs import Vfs

URL: Final = "http://fake.example/"
SOAK: Final = os.environ.get("DAVFS_SOAK") == "1"
SEEDS: Final = 40 if SOAK else 10
CALLS: Final = 40
FOLDERS: Final = ("", "d", "e", "d/in")
NAMES: Final = ("f", "g", "h")
# Not 404, 410 to DELETE and 412 to MOVE: those answers are believed, and here they would be lies.
STATUSES: Final = (400, 403, 409, 413, 423, 429, 500, 502, 503, 504, 507)
MANNERS: Final[tuple[Manner, ...]] = ("cut before", "cut after", "garbage", "hang")
TOLD_LATE: Final = "an earlier change could not be sent"
VERBS: Final = ("PUT", "PUT", "MOVE", "MOVE", "DELETE", "MKCOL", "PROPFIND", "GET", "COPY")

pytestmark = pytest.mark.expects_warning("")  # trouble is logged


@dataclass(eq=False)
class File:
    data: bytes = b""


@dataclass
class Model:
    """What a file system without a network would hold."""

    files: dict[str, File] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {""})

    def check_parent(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if parent not in self.folders:
            raise OSError(errno.ENOENT, path)

    def members(self, folder: str) -> list[str]:
        every = [*self.files, *self.folders]
        return [path for path in every if path and path.rpartition("/")[0] == folder]

    def save(self, path: str, data: bytes) -> File:
        self.check_parent(path)
        if path in self.folders:
            raise OSError(errno.EISDIR, path)
        file = self.files.setdefault(path, File())
        file.data = data
        return file

    def unlink(self, path: str) -> None:
        self.check_parent(path)
        if path in self.folders:
            raise OSError(errno.EISDIR, path)
        if path not in self.files:
            raise OSError(errno.ENOENT, path)
        del self.files[path]

    def mkdir(self, path: str) -> None:
        self.check_parent(path)
        if path in self.folders or path in self.files:
            raise OSError(errno.EEXIST, path)
        self.folders.add(path)

    def rmdir(self, path: str) -> None:
        self.check_parent(path)
        if path in self.files:
            raise OSError(errno.ENOTDIR, path)
        if path not in self.folders:
            raise OSError(errno.ENOENT, path)
        if self.members(path):
            raise OSError(errno.ENOTEMPTY, path)
        self.folders.remove(path)

    def rename(self, old: str, new: str) -> None:
        self.check_parent(old)
        self.check_parent(new)
        if old not in self.files and old not in self.folders:
            raise OSError(errno.ENOENT, old)
        if old in self.folders and (new == old or new.startswith(f"{old}/")):
            if new != old:
                raise OSError(errno.EINVAL, new)
            return
        if old in self.files:
            if new in self.folders:
                raise OSError(errno.EISDIR, new)
            self.files[new] = self.files.pop(old) if new != old else self.files[old]
            return
        if new in self.files:
            raise OSError(errno.ENOTDIR, new)
        if new in self.folders and self.members(new):
            raise OSError(errno.ENOTEMPTY, new)
        moved = {path for path in self.folders if path == old or path.startswith(f"{old}/")}
        self.folders = (self.folders - moved) | {new + path[len(old) :] for path in moved}
        self.files = {
            new + path[len(old) :] if path.startswith(f"{old}/") else path: file
            for path, file in self.files.items()
        }

    def tree(self) -> dict[str, bytes | None]:
        return {path: file.data for path, file in self.files.items()} | {
            path: None for path in self.folders if path
        }


class Play:
    """One sequence of calls, on both."""

    def __init__(self, seed: int, wire: Scripted, vfs: Vfs) -> None:
        self.dice = random.Random(seed)
        self.wire = wire
        self.vfs = vfs
        self.model = Model()
        self.held: list[tuple[int, File]] = []  # open for writing
        self.story: list[str] = []
        self.serial = 0

    def path(self, *, there: bool = True) -> str:
        """Of a file that is there, more often than not, when `there`."""
        if there and self.model.files and self.dice.random() < 0.7:
            return self.dice.choice(sorted(self.model.files))
        folder = self.dice.choice(FOLDERS)
        return f"{folder}/{self.dice.choice(NAMES)}" if folder else self.dice.choice(NAMES)

    def folder(self) -> str:
        return self.dice.choice(FOLDERS[1:])

    def payload(self) -> bytes:
        self.serial += 1
        return f"{self.serial}.".encode() * self.dice.randrange(1, 30)

    def trouble(self) -> Trouble | None:
        if self.dice.random() < 0.4:
            return None
        verb = self.dice.choice(VERBS)
        manner: Manner = "answer" if self.dice.random() < 0.5 else self.dice.choice(MANNERS)
        return Trouble(verb, "/", manner, self.dice.choice(STATUSES), times=self.dice.choice((1, 1, 1, 2)))

    async def step(self) -> None:
        trouble = self.trouble()
        self.wire.begin(trouble)
        names = ["save", "save", "hold", "write", "close", "unlink", "mkdir", "rmdir", "rename", "rename"]
        name = self.dice.choice([*names, "rename_folder", "read", "wait"])
        self.story.append(f"{name} {trouble and (trouble.method, trouble.manner, trouble.status)}")
        await getattr(self, name)(trouble)

    async def both(self, trouble: Trouble | None, said: str, ours, theirs) -> None:  # type: ignore[no-untyped-def]
        """The call on the file system; what it says decides whether the model does it too."""
        self.story[-1] += f" {said}"
        before = trouble.times if trouble else 0
        number, text = 0, ""
        try:
            await ours
        except DavfsError as error:
            number, text = error.errno, str(error)
        self.story[-1] += f" -> {errno.errorcode.get(number, 'ok')}"
        if number and trouble is not None and trouble.times < before:
            return  # it was told, and it has not happened
        if number and text.startswith(TOLD_LATE):
            return  # the open tells what became of an earlier upload, and has not happened
        wanted = 0
        try:
            theirs()
        except OSError as error:
            wanted = error.errno or 0
        assert number == wanted, "\n".join(self.story)

    async def open_to_write(self, path: str, flags: int) -> int:
        """A program that is told of an earlier failure gives up, or tries again: it is told once."""
        try:
            return await self.vfs.open(path, flags)
        except DavfsError as error:
            if not str(error).startswith(TOLD_LATE) or self.dice.random() < 0.5:
                raise
        try:
            return await self.vfs.open(path, flags)
        except DavfsError as error:
            if str(error).startswith(TOLD_LATE):
                raise AssertionError("\n".join([*self.story, "told twice"])) from None
            raise

    async def close_it(self, fd: int) -> None:
        """close sends nothing: what it may tell is of an earlier upload of the file, whose bytes are kept."""
        try:
            await self.vfs.close(fd)
        except PosixError as error:
            self.story[-1] += f" (close: {error})"

    async def save(self, trouble: Trouble | None) -> None:
        path, data = self.path(), self.payload()

        async def ours() -> None:
            fd = await self.open_to_write(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            await self.vfs.write(fd, data)
            await self.close_it(fd)

        await self.both(trouble, path, ours(), lambda: self.model.save(path, data))

    async def hold(self, trouble: Trouble | None) -> None:
        """Opened for writing, and kept open."""
        path = self.path()
        opened: list[int] = []

        async def ours() -> None:
            opened.append(await self.open_to_write(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC))

        def theirs() -> None:
            self.held.append((opened[0] if opened else -1, self.model.save(path, b"")))

        await self.both(trouble, path, ours(), theirs)

    async def write(self, trouble: Trouble | None) -> None:
        if not self.held:
            return
        fd, file = self.dice.choice(self.held)
        data = self.payload()

        def theirs() -> None:
            file.data = data + file.data[len(data) :]

        await self.both(trouble, f"fd {fd}", self.vfs.pwrite(fd, data, 0), theirs)

    async def close(self, trouble: Trouble | None) -> None:
        if self.held:
            fd, _ = self.held.pop(self.dice.randrange(len(self.held)))
            await self.both(trouble, f"fd {fd}", self.close_it(fd), lambda: None)

    async def unlink(self, trouble: Trouble | None) -> None:
        path = self.path()
        await self.both(trouble, path, self.vfs.unlink(path), lambda: self.model.unlink(path))

    async def mkdir(self, trouble: Trouble | None) -> None:
        path = self.folder()
        await self.both(trouble, path, self.vfs.mkdir(path), lambda: self.model.mkdir(path))

    async def rmdir(self, trouble: Trouble | None) -> None:
        path = self.folder()
        await self.both(trouble, path, self.vfs.rmdir(path), lambda: self.model.rmdir(path))

    async def rename(self, trouble: Trouble | None) -> None:
        old, new = self.path(), self.path(there=self.dice.random() < 0.5)
        said = f"{old} {new}"
        await self.both(trouble, said, self.vfs.rename(old, new), lambda: self.model.rename(old, new))

    async def rename_folder(self, trouble: Trouble | None) -> None:
        old, new = self.folder(), self.folder()
        said = f"{old} {new}"
        await self.both(trouble, said, self.vfs.rename(old, new), lambda: self.model.rename(old, new))

    async def read(self, trouble: Trouble | None) -> None:
        path = self.path()
        seen: list[bytes] = []

        async def ours() -> None:
            fd = await self.vfs.open(path)
            try:
                seen.append(await self.vfs.read(fd))
            finally:
                await self.vfs.close(fd)

        def theirs() -> None:
            self.model.check_parent(path)
            if path in self.model.folders:
                raise OSError(errno.EISDIR, path)
            if path not in self.model.files:
                raise OSError(errno.ENOENT, path)
            assert seen == [self.model.files[path].data], "\n".join(self.story)

        await self.both(trouble, path, ours(), theirs)

    async def wait(self, _trouble: Trouble | None) -> None:
        """Uploads run, retries come, what is known gets old."""
        await trio.sleep(self.dice.choice((0.1, 0.5, 2, 70)))


SERVERS: Final[dict[str, Callable[[], FakeDav]]] = {
    "as Apache": FakeDav,
    "as sabre": lambda: FakeDav(etags="coarse"),
    "unknown": lambda: FakeDav(anonymous=True),  # then uploads are staged
    "without conditions": lambda: FakeDav(conditions=False, etags="none"),
}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_what_failed_has_not_happened(
    seed: int, server: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Forty calls, more than half of them with a request that may go wrong: the server holds the model."""
    wire = Scripted(SERVERS[server]())
    async with running(wire, URL, Settings(str(tmp_path / "c"))) as fs:
        play = Play(seed, wire, Vfs(fs))
        for folder in FOLDERS[1:]:
            await play.vfs.mkdir(folder)
            play.model.mkdir(folder)
        for _ in range(CALLS):
            await play.step()
        wire.begin(None)
        for fd, _ in play.held:
            await play.close_it(fd)
        assert await fs.sync(7200) == 0, "\n".join(play.story)
        await trio.sleep(120)
        assert not fs.status()["conflicts"], "\n".join(play.story)
        held = {name: data for name, data in wire.server.tree().items() if ".davfs-" not in name}
        assert held == play.model.tree(), "\n".join(play.story)
