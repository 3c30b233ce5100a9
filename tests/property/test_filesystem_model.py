"""The whole `Filesystem` against a small model of POSIX, with another client at work and answers that get
lost.

Hypothesis writes short programs: opens, reads, writes, renames, time stamps, waits, edits by another
client. Each runs in one trio loop with a clock of its own, over the real client, the real content store
and `FakeDav`. After every step the answer (or the errno) must be the model's; at the end everything is
synced, the server's tree equals the model's, and a second mount with an empty cache shows the same.

The model knows nothing of caches or servers. Another client edits only what is not open here, and after a
sync: what happens in a conflict is the subject of tests of its own below. Run deeper with
HYPOTHESIS_PROFILE=deep.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, event, example, given, note, settings
from hypothesis import strategies as st

from davfs.errors import DavfsError
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav, Fault
from tests.mount.assembly import running
from tests.mount.vfs import Vfs

URL = "http://fake.test/"
ATTR_TIMEOUT_S = 5.0
RUN_S = 6000.0  # of the mock clock
START_S = 1_700_000_000.0
EXAMPLES = {"default": 200, "deep": 3000}[os.environ.get("HYPOTHESIS_PROFILE", "default")]
MEMORY = Path("/dev/shm")  # the cache disk of thousands of examples

# --- the model ------------------------------------------------------------------------------------------


class Refused(Exception):
    """What POSIX answers; `allowed` where it lets the system choose."""

    def __init__(self, *allowed: int) -> None:
        super().__init__([errno.errorcode[one] for one in allowed])
        self.allowed = allowed

    def check(self, error: DavfsError) -> None:
        assert error.errno in self.allowed, f"{errno.errorcode[error.errno]}, and POSIX says {self}"


@dataclass(eq=False)
class File:
    content: bytearray = field(default_factory=bytearray)
    mtime_ns: int | None = None  # None: not known to the nanosecond
    ino: int | None = None
    linked: bool = True


@dataclass(eq=False)
class Folder:
    members: dict[str, File | Folder] = field(default_factory=dict)
    ino: int | None = None
    linked: bool = True


Node: TypeAlias = File | Folder


@dataclass(eq=False)
class Handle:
    file: File
    flags: int
    fd: int
    position: int = 0


class Model:
    def __init__(self) -> None:
        self.root = Folder()
        self.handles: list[Handle] = []

    def at(self, path: str) -> Node:
        node: Node = self.root
        for name in [part for part in path.split("/") if part]:
            if isinstance(node, File):
                raise Refused(errno.ENOTDIR)
            if name not in node.members:
                raise Refused(errno.ENOENT)
            node = node.members[name]
        return node

    def parent(self, path: str) -> tuple[Folder, str]:
        folder = self.at(path.rpartition("/")[0])
        if isinstance(folder, File):
            raise Refused(errno.ENOTDIR)
        return folder, path.rpartition("/")[2]

    def find(self, path: str) -> Node | None:
        try:
            return self.at(path)
        except Refused:
            return None

    def tree(self) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}

        def visit(prefix: str, folder: Folder) -> None:
            for name, node in folder.members.items():
                found[prefix + name] = bytes(node.content) if isinstance(node, File) else None
                if isinstance(node, Folder):
                    visit(f"{prefix}{name}/", node)

        visit("", self.root)
        return found

    def open_below(self, node: Node) -> bool:
        if isinstance(node, Folder):
            return any(self.open_below(one) for one in node.members.values())
        return any(handle.file is node for handle in self.handles)

    # Operations: each does it, or raises Refused.

    def open(self, path: str, flags: int) -> File:
        folder, name = self.parent(path) if path else (self.root, "")
        node = folder.members.get(name)
        if node is None:
            if not flags & os.O_CREAT:
                raise Refused(errno.ENOENT)
            node = folder.members[name] = File()
            return node
        if flags & os.O_CREAT and flags & os.O_EXCL:
            raise Refused(errno.EEXIST)
        if isinstance(node, Folder):
            raise Refused(errno.EISDIR)
        if flags & os.O_TRUNC:
            self.change(node, b"")
        return node

    def change(self, file: File, content: bytes) -> None:
        file.content[:] = content
        file.mtime_ns = None

    def write_at(self, file: File, offset: int, data: bytes) -> None:
        if not data:
            return
        content = file.content + bytes(max(0, offset - len(file.content)))
        content[offset : offset + len(data)] = data
        self.change(file, bytes(content))

    def truncate(self, file: File, size: int) -> None:
        self.change(file, bytes(file.content[:size]) + bytes(max(0, size - len(file.content))))

    def mkdir(self, path: str) -> None:
        folder, name = self.parent(path)
        if name in folder.members:
            raise Refused(errno.EEXIST)
        folder.members[name] = Folder()

    def rmdir(self, path: str) -> None:
        folder, name = self.parent(path)
        node = self.at(path)
        if isinstance(node, File):
            raise Refused(errno.ENOTDIR)
        if node.members:
            raise Refused(errno.ENOTEMPTY)
        del folder.members[name]
        node.linked = False

    def unlink(self, path: str) -> None:
        folder, name = self.parent(path)
        node = self.at(path)
        if isinstance(node, Folder):
            raise Refused(errno.EISDIR)
        del folder.members[name]
        node.linked = False

    def rename(self, old: str, new: str, *, no_replace: bool) -> None:
        folder, name = self.parent(old)
        new_folder, new_name = self.parent(new)
        node = self.at(old)
        target = new_folder.members.get(new_name)
        if target is not None and no_replace:
            raise Refused(errno.EEXIST)
        if f"{new}/".startswith(f"{old}/") and old != new:
            raise Refused(errno.EINVAL)
        if target is node:
            return
        if target is not None:
            self._may_replace(node, target, inside=f"{old}/".startswith(f"{new}/"))
            target.linked = False
        del folder.members[name]
        new_folder.members[new_name] = node

    def _may_replace(self, node: Node, target: Node, *, inside: bool) -> None:
        if isinstance(node, Folder) and isinstance(target, File):
            raise Refused(errno.ENOTDIR)
        if isinstance(node, File) and isinstance(target, Folder):
            raise Refused(errno.EISDIR, errno.ENOTEMPTY) if inside else Refused(errno.EISDIR)
        if isinstance(target, Folder) and target.members:
            raise Refused(errno.ENOTEMPTY, errno.EEXIST)


# --- the programs ---------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d")
names = st.sampled_from(NAMES)
paths = st.one_of(names, st.tuples(names, names).map("/".join), st.tuples(names, names, names).map("/".join))
indexes = st.integers(0, 5)
offsets = st.integers(0, 40)
contents = st.binary(max_size=24)
FLAGS = (
    os.O_RDONLY,
    os.O_RDWR,
    os.O_RDWR | os.O_CREAT,
    os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    os.O_RDWR | os.O_CREAT | os.O_EXCL,
    os.O_RDWR | os.O_CREAT | os.O_APPEND,
    os.O_RDWR | os.O_TRUNC,
)
FAULTS: tuple[dict[str, Any], ...] = ({"lost": "before"}, {"lost": "after"}, {"status": 503}, {"status": 500})

Step: TypeAlias = tuple[Any, ...]
steps = st.one_of(
    st.tuples(st.just("save"), paths, contents),
    st.tuples(st.just("save"), names, contents),
    st.tuples(st.just("open"), paths, st.sampled_from(FLAGS)),
    st.tuples(st.just("write"), indexes, contents),
    st.tuples(st.just("pwrite"), indexes, offsets, contents),
    st.tuples(st.just("read"), indexes, st.integers(0, 40)),
    st.tuples(st.just("pread"), indexes, offsets, st.integers(0, 40)),
    st.tuples(st.just("ftruncate"), indexes, offsets),
    st.tuples(st.just("fsync"), indexes),
    st.tuples(st.just("close"), indexes),
    st.tuples(st.just("truncate"), paths, offsets),
    st.tuples(st.just("utime"), paths, st.integers(1_000_000_000, 1_900_000_000_123_456_789)),
    st.tuples(st.just("mkdir"), paths),
    st.tuples(st.just("rmdir"), paths),
    st.tuples(st.just("unlink"), paths),
    st.tuples(st.just("rename"), paths, paths, st.booleans()),
    st.tuples(st.just("listdir"), paths),
    st.tuples(st.just("cat"), paths),
    st.tuples(st.just("sync")),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 0.5, 2.0, 2 * ATTR_TIMEOUT_S])),
    st.tuples(st.just("foreign put"), paths, contents),
    st.tuples(st.just("foreign delete"), paths),
    st.tuples(st.just("foreign mkdir"), paths),
    st.tuples(st.just("foreign move"), paths, paths),
)
faulty_steps = st.one_of(steps, st.tuples(st.just("fault"), st.sampled_from(FAULTS)))


class Run:
    """One program, on the file system and on the model at once."""

    def __init__(self, vfs: Vfs, server: FakeDav) -> None:
        self.vfs = vfs
        self.server = server
        self.model = Model()

    async def step(self, step: Step) -> None:
        name, *arguments = step
        await getattr(self, f"do_{name.replace(' ', '_')}")(*arguments)

    async def both(
        self, expected: Callable[[], Any], real: Callable[[], Awaitable[Any]]
    ) -> tuple[Any, Any, bool]:
        """Both answers, and whether it was done; the same errno, or one that POSIX allows."""
        try:
            wanted = expected()
        except Refused as refused:
            try:
                answer = await real()
            except DavfsError as error:
                refused.check(error)
                return None, None, False
            raise AssertionError(f"done, and POSIX says {refused}: {answer!r}") from None
        return wanted, await real(), True

    def handle(self, index: int) -> Handle | None:
        return self.model.handles[index % len(self.model.handles)] if self.model.handles else None

    def writable(self, index: int) -> Handle | None:
        handle = self.handle(index)
        return handle if handle is not None and handle.flags & os.O_ACCMODE != os.O_RDONLY else None

    def readable(self, index: int) -> Handle | None:
        handle = self.handle(index)
        return handle if handle is not None and handle.flags & os.O_ACCMODE != os.O_WRONLY else None

    # steps

    async def do_save(self, path: str, data: bytes) -> None:
        await self.do_open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        if self.model.handles and self.model.handles[-1].flags == os.O_WRONLY | os.O_CREAT | os.O_TRUNC:
            await self.do_write(len(self.model.handles) - 1, data)
            await self.do_close(len(self.model.handles) - 1)

    async def do_open(self, path: str, flags: int) -> None:
        if flags == os.O_RDONLY and isinstance(self.model.find(path), Folder):
            return  # a folder may be opened for reading: listdir's business
        file, fd, done = await self.both(
            lambda: self.model.open(path, flags), lambda: self.vfs.open(path, flags)
        )
        if done:
            self.model.handles.append(Handle(file, flags, fd))

    async def do_write(self, index: int, data: bytes) -> None:
        handle = self.writable(index)
        if handle is not None:
            if handle.flags & os.O_APPEND:
                handle.position = len(handle.file.content)
            self.model.write_at(handle.file, handle.position, data)
            handle.position += len(data)
            assert await self.vfs.write(handle.fd, data) == len(data)

    async def do_pwrite(self, index: int, offset: int, data: bytes) -> None:
        handle = self.writable(index)
        if handle is not None:
            at = len(handle.file.content) if handle.flags & os.O_APPEND else offset
            self.model.write_at(handle.file, at, data)
            assert await self.vfs.pwrite(handle.fd, data, offset) == len(data)

    async def do_read(self, index: int, size: int) -> None:
        handle = self.readable(index)
        if handle is not None:
            wanted = bytes(handle.file.content[handle.position : handle.position + size])
            handle.position += len(wanted)
            assert await self.vfs.read(handle.fd, size) == wanted

    async def do_pread(self, index: int, offset: int, size: int) -> None:
        handle = self.readable(index)
        if handle is not None:
            wanted = bytes(handle.file.content[offset : offset + size])
            assert await self.vfs.pread(handle.fd, size, offset) == wanted

    async def do_ftruncate(self, index: int, size: int) -> None:
        handle = self.writable(index)
        if handle is not None:
            self.model.truncate(handle.file, size)
            await self.vfs.ftruncate(handle.fd, size)

    async def do_fsync(self, index: int) -> None:
        handle = self.handle(index)
        if handle is not None:
            try:
                await self.vfs.fsync(handle.fd)
            except DavfsError:
                assert self.server.faults, "fsync failed although the server did not"
                return
            if handle.file.linked:
                path = self.path_of(handle.file)
                assert self.server.content(path) == bytes(handle.file.content), "fsync came back too early"

    def path_of(self, file: File) -> str:
        def search(prefix: str, folder: Folder) -> str | None:
            for name, node in folder.members.items():
                if node is file:
                    return prefix + name
                below = search(f"{prefix}{name}/", node) if isinstance(node, Folder) else None
                if below is not None:
                    return below
            return None

        found = search("", self.model.root)
        assert found is not None
        return found

    async def do_close(self, index: int) -> None:
        handle = self.handle(index)
        if handle is not None:
            self.model.handles.remove(handle)
            await self.vfs.close(handle.fd)

    async def do_truncate(self, path: str, size: int) -> None:
        def expected() -> None:
            node = self.model.at(path)
            if isinstance(node, Folder):
                raise Refused(errno.EISDIR)
            self.model.truncate(node, size)

        await self.both(expected, lambda: self.vfs.truncate(path, size))

    async def do_utime(self, path: str, mtime_ns: int) -> None:
        def expected() -> None:
            node = self.model.at(path)
            if isinstance(node, File):
                node.mtime_ns = mtime_ns

        if not isinstance(self.model.find(path), Folder):
            await self.both(expected, lambda: self.vfs.utime(path, mtime_ns))

    async def do_mkdir(self, path: str) -> None:
        await self.both(lambda: self.model.mkdir(path), lambda: self.vfs.mkdir(path))

    async def do_rmdir(self, path: str) -> None:
        await self.both(lambda: self.model.rmdir(path), lambda: self.vfs.rmdir(path))

    async def do_unlink(self, path: str) -> None:
        await self.both(lambda: self.model.unlink(path), lambda: self.vfs.unlink(path))

    async def do_rename(self, old: str, new: str, no_replace: bool) -> None:
        if old == new and no_replace:
            return  # the kernel itself says EEXIST
        await self.both(
            lambda: self.model.rename(old, new, no_replace=no_replace),
            lambda: self.vfs.rename(old, new, no_replace=no_replace),
        )

    async def do_listdir(self, path: str) -> None:
        def expected() -> list[str]:
            node = self.model.at(path)
            if isinstance(node, File):
                raise Refused(errno.ENOTDIR)
            return sorted(node.members)

        wanted, shown, _ = await self.both(expected, lambda: self.vfs.listdir(path))
        assert shown == wanted

    async def do_cat(self, path: str) -> None:
        await self.do_open(path, os.O_RDONLY)
        if self.model.handles and self.model.handles[-1].file is self.model.find(path):
            await self.do_pread(len(self.model.handles) - 1, 0, 1000)
            await self.do_close(len(self.model.handles) - 1)

    async def do_sync(self) -> None:
        """One attempt for each PUT that may fail, and one that may not."""
        for _ in range(1 + len(self.server.faults)):
            left = await self.vfs.fs.sync(60)
        assert left == 0

    async def do_wait(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def do_fault(self, fault: dict[str, Any]) -> None:
        self.server.inject(Fault("PUT", **fault))

    # the other client

    async def _foreign(self, path: str, change: Callable[[], None]) -> None:
        """Only where nothing is open or unsent here, and seen after the time-out."""
        node = self.model.find(path)
        await self.do_sync()
        if node is None or not self.model.open_below(node):
            change()
            await trio.sleep(2 * ATTR_TIMEOUT_S)

    async def do_foreign_put(self, path: str, data: bytes) -> None:
        folder = self.model.find(path.rpartition("/")[0])
        node = self.model.find(path)
        if isinstance(folder, Folder) and not isinstance(node, Folder):

            def change() -> None:
                self.server.put(path, data)
                folder.members[path.rpartition("/")[2]] = File(bytearray(data))

            await self._foreign(path, change)

    async def do_foreign_delete(self, path: str) -> None:
        if self.model.find(path) is not None:

            def change() -> None:
                self.server.delete(path)
                folder, name = self.model.parent(path)
                del folder.members[name]

            await self._foreign(path, change)

    async def do_foreign_mkdir(self, path: str) -> None:
        if isinstance(self.model.find(path.rpartition("/")[0]), Folder) and self.model.find(path) is None:

            def change() -> None:
                self.server.mkdir(path)
                self.model.mkdir(path)

            await self._foreign(path, change)

    async def do_foreign_move(self, old: str, new: str) -> None:
        parent = self.model.find(new.rpartition("/")[0])
        free = isinstance(parent, Folder) and self.model.find(new) is None
        if free and self.model.find(old) is not None and not new.startswith(f"{old}/"):

            def change() -> None:
                self.server.move(old, new)
                self.model.rename(old, new, no_replace=False)
                self._forget_numbers(self.model.at(new))

            await self._foreign(old, change)

    def _forget_numbers(self, node: Node) -> None:
        """After a move by another client all of it is new here, its time stamps included."""
        node.ino = None
        if isinstance(node, File):
            node.mtime_ns = None
        else:
            for one in node.members.values():
                self._forget_numbers(one)

    # after every step

    async def check(self) -> None:
        """Every attribute of everything, through paths and through handles."""
        for path, content in self.model.tree().items():
            node = self.model.at(path)
            told = await self.vfs.stat(path)
            assert told.is_folder == (content is None), path
            node.ino = told.ino if node.ino is None else node.ino
            assert told.ino == node.ino, f"{path}: the inode number changed"
            if isinstance(node, File):
                assert told.size == len(node.content), path
                node.mtime_ns = told.mtime_ns if node.mtime_ns is None else node.mtime_ns
                assert told.mtime_ns == node.mtime_ns, f"{path}: the time stamp moved by itself"
        for handle in self.model.handles:
            told = await self.vfs.fstat(handle.fd)
            assert told.nlink == (1 if handle.file.linked else 0)
            assert told.size == len(handle.file.content)

    async def finish(self) -> None:
        while self.model.handles:
            await self.do_close(0)
        await self.do_sync()
        await self.check()
        assert self.server.tree() == self.model.tree()
        assert not self.server.locks, "a lock was left behind"


# --- running them ------------------------------------------------------------------------------------------


class Clock:
    """Wall time that goes with trio's clock."""

    def __call__(self) -> float:
        try:
            return START_S + trio.current_time()
        except RuntimeError:
            return START_S


@asynccontextmanager
async def mounted(server: FakeDav, folder: str) -> AsyncIterator[Vfs]:
    told = Settings(
        cache_dir=folder,
        attr_timeout_min_s=ATTR_TIMEOUT_S / 2,
        attr_timeout_max_s=ATTR_TIMEOUT_S,
    )
    async with running(server, URL, told, now_s=server.now_s) as fs:
        yield Vfs(fs)


def in_loop(
    body: Callable[[FakeDav, str], Awaitable[None]], etags: Literal["strong", "coarse"] = "strong"
) -> None:
    folder = tempfile.mkdtemp(prefix="davfs-model-", dir=MEMORY if MEMORY.is_dir() else None)

    async def run() -> None:
        with trio.fail_after(RUN_S):
            await body(FakeDav(etags=etags, now_s=Clock()), folder)

    try:
        trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _program(program: list[Step], server: FakeDav, folder: str) -> None:
    async with mounted(server, f"{folder}/first") as vfs:
        run = Run(vfs, server)
        for step in program:
            note(repr(step))
            await run.step(step)
            await run.check()
        await run.finish()
    async with mounted(server, f"{folder}/second") as vfs:
        for path, content in run.model.tree().items():
            if content is not None:
                fd = await vfs.open(path)
                assert await vfs.read(fd) == content
                await vfs.close(fd)
    event(f"{len(run.model.tree())} things at the end")


MODEL = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.timeout(1200 if EXAMPLES > 1000 else 120)
@MODEL
@given(st.lists(steps, max_size=14))
def test_every_program_sees_posix_and_the_server_ends_up_with_the_same_tree(program: list[Step]) -> None:
    """Whatever a program does, alone or beside another client, it sees what POSIX says, and so does the
    server.
    """
    in_loop(lambda server, folder: _program(program, server, folder))


@pytest.mark.timeout(1200 if EXAMPLES > 1000 else 120)
@settings(MODEL, max_examples=EXAMPLES // 2)
@given(st.lists(faulty_steps, max_size=12))
@pytest.mark.expects_warning("")
def test_a_put_that_fails_or_whose_answer_is_lost_changes_nothing_of_that(program: list[Step]) -> None:
    """PUTs that break before, during or after they took effect are repeated or found done: no conflict
    copies.
    """
    in_loop(lambda server, folder: _program(program, server, folder))


@pytest.mark.timeout(300)
@settings(MODEL, max_examples=EXAMPLES // 6)
@given(ours=contents, theirs=contents, base=contents)
@example(ours=b"same", theirs=b"same", base=b"")
@pytest.mark.expects_warning("conflict")
def test_an_edit_on_both_sides_keeps_both(ours: bytes, theirs: bytes, base: bytes) -> None:
    """When another client was faster, its version keeps the name and ours stands beside it."""

    async def body(server: FakeDav, folder: str) -> None:
        server.put("a.txt", base)
        async with mounted(server, folder) as vfs:
            fd = await vfs.open("a.txt", os.O_WRONLY | os.O_TRUNC)
            await vfs.write(fd, ours)
            server.put("a.txt", theirs)
            await vfs.close(fd)
            assert await vfs.fs.sync(60) == 0
        assert server.content("a.txt") == theirs
        kept = [content for path, content in server.tree().items() if path != "a.txt"]
        unchanged = ours == base == b""  # an empty file emptied
        assert kept == ([] if ours == theirs or unchanged else [ours])

    in_loop(body)
