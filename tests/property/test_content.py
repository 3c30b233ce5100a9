"""One file on the cache disk, through any sequence of writes, cuts, downloads, uploads and kills.

The model is the bytes that programs must see, and the server's bytes that a download would bring. A kill
copies the cache folder as it is and opens the copy; nothing is closed or flushed first; then the index may be
spoiled too. Invariants: what
was acknowledged is there (size, bytes once the gaps are filled, the mtime a program set), it is still
unsent, and extents never claim what is not on disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davfs.dav.resource import ETag, Validator
from davfs.fs.content import Content
from davfs.fs.store import ContentStore
from tests.unit.fs.rig import at, close_store, open_store

SIZE = 24
SERVER = bytes(range(65, 65 + SIZE))
offsets = st.integers(0, SIZE + 8)
writes = st.tuples(st.just("write"), offsets, st.integers(1, 8))
cuts = st.tuples(st.just("truncate"), offsets, st.just(0))
fills = st.tuples(st.just("fill"), offsets, st.integers(1, SIZE))
others = st.tuples(
    st.sampled_from(["mtime", "fork", "put", "acked", "refused", "kill", "damage"]),
    st.integers(1, 10**9),
    st.just(0),
)
Move: TypeAlias = tuple[str, int, int]


class Play:
    """One file, the model of it, and the folder it is in."""

    def __init__(self, root: Path, *, is_new: bool) -> None:
        self.root = root
        self.folder = root / "0"
        self.store: ContentStore = open_store(self.folder)
        base = None if is_new else Validator(ETag("base"), 1, SIZE)
        self.content: Content = self.store.create(5, at("f"), size=0 if is_new else SIZE, base=base)
        self.store.acquire(self.content)
        self.model = bytearray() if is_new else bytearray(SERVER)
        self.remote = bytes(self.model)
        self.mtime_ns: int | None = None
        if is_new:
            self.content.mark_written()

    def write(self, offset: int, size: int) -> None:
        data = os.urandom(size)
        self.content.write(offset, data)
        self.model.extend(b"\0" * (offset - len(self.model)))
        self.model[offset : offset + size] = data
        self.mtime_ns = None

    def truncate(self, size: int, _: int) -> None:
        self.content.truncate(size)
        del self.model[size:]
        self.model.extend(b"\0" * (size - len(self.model)))
        self.mtime_ns = None

    def fill(self, start: int, size: int) -> None:
        """Downloads ask for nothing when nothing is missing, and may bring more than is missing."""
        if not self.content.complete:
            self.content.fill(start, self.remote[start : start + size])

    def mtime(self, mtime_ns: int, _: int) -> None:
        if self.content.dirty:
            self.mtime_ns = mtime_ns
            self.content.set_mtime(mtime_ns)

    def fork(self, _one: int, _two: int) -> None:
        self.content.readers = 1
        assert self.content._fork()

    def put(self, _one: int, _two: int) -> None:
        """An upload completes the file first."""
        self.fill(0, SIZE)
        if self.content.dirty:
            self.content.life = self.content.life.put_begins()
            self.content.save()

    def acked(self, number: int, _: int) -> None:
        life = self.content.life
        if life.unknown and life.sent == life.written:
            self.content.life = life.put_succeeded()
            self.remote = bytes(self.model)
            self.content.base_size = len(self.remote)
            self.content.base = Validator(ETag(str(number)), 1, len(self.remote))
            self.content.save()

    def refused(self, _one: int, _two: int) -> None:
        if self.content.life.unknown:
            self.content.life = self.content.life.put_refused()
            self.content.save()

    def kill(self, _one: int, _two: int) -> None:
        copy = self.root / str(int(self.folder.name) + 1)
        shutil.copytree(self.folder, copy, ignore=shutil.ignore_patterns("reserve"))
        self._open(copy)

    def damage(self, number: int, _: int) -> None:
        """A kill, and then the disk spoils the index or its log from some byte on, or loses one."""
        copy = self.root / str(int(self.folder.name) + 1)
        shutil.copytree(self.folder, copy, ignore=shutil.ignore_patterns("reserve"))
        victim = copy / ("index.db", "index.db-wal")[number % 2]
        (copy / "index.db-shm").unlink(missing_ok=True)
        if victim.exists():
            raw, kept = victim.read_bytes(), number // 8
            kept %= len(raw) + 1
            tail = b"" if number & 2 else b"\xa5" * (len(raw) - kept)
            victim.write_bytes(raw[:kept] + tail)
            if number & 4 and victim.name == "index.db":
                victim.unlink()
        self._open(copy, damaged=True)

    def _open(self, copy: Path, *, damaged: bool = False) -> None:
        was_dirty = self.content.dirty
        close_store(self.store)
        self.folder, self.store = copy, open_store(copy)
        unfinished = self.store.unfinished()
        if not damaged or was_dirty:
            assert len(unfinished) == was_dirty
        found = unfinished[0] if unfinished else self.store.cached(5)
        if found is None:  # a clean file may be fetched again
            found = self.store.create(5, at("f"), size=len(self.remote), base=self.content.base)
        self.content = found
        self.store.acquire(found)
        self.check()

    def check(self) -> None:
        content = self.content
        assert content.size_bytes == len(self.model)
        on_disk = os.pread(content.fd, len(self.model) + 100, 0)
        assert len(on_disk) == len(self.model)
        for start, end in content.missing(0, len(self.model)):
            assert end <= len(self.remote)
            on_disk = on_disk[:start] + self.remote[start:end] + on_disk[end:]
        assert on_disk == self.model
        if self.mtime_ns is not None and content.dirty:
            assert content.mtime_ns == self.mtime_ns


@pytest.mark.expects_warning("")  # a damaged index is told
@settings(max_examples=160)
@given(st.lists(writes | cuts | fills | others, max_size=12), st.booleans())
def test_whatever_happens_a_file_is_what_was_written(moves: list[Move], is_new: bool) -> None:
    """After every step, and after every kill, the file is what programs made of it."""
    with tempfile.TemporaryDirectory() as root:
        play = Play(Path(root), is_new=is_new)
        try:
            for move, one, two in [*moves, ("kill", 0, 0)]:
                getattr(play, move)(one, two)
                play.check()
        finally:
            close_store(play.store)
