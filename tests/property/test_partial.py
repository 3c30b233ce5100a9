"""Partial updates under faults and another client: the server's file is always one that somebody wrote.

A history is writes of ours, foreign versions, and requests that are lost, refused or late. No mixture of two
versions may ever stand under the name, and nothing of ours or theirs may be lost.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from pathlib import Path
from typing import Literal

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from davfs.errors import DavfsError
from davfs.fs.content import Content
from davfs.fs.partial import FILE_MIN
from tests.fakes.davserver import FakeDav, Fault
from tests.unit.fs.rig import Rig, rig

SIZE = FILE_MIN + (1 << 20)
OLD = os.urandom(SIZE)
HISTORIES = 400 if os.environ.get("DAVFS_SOAK") == "1" else 8

pytestmark = [pytest.mark.expects_warning("")]  # trouble is logged


class History:
    """One file, written here and by somebody else."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.server = FakeDav(etags=self.dice.choice(["strong", "young"]))
        self.server.parts = "written"
        self.server.now_s = lambda: time.time() + trio.current_time()
        self.ours = bytearray(OLD)
        self.versions = {OLD}
        self.theirs: list[bytes] = []
        self.is_unsent = True  # when they stored theirs: else they replace ours knowingly

    async def run(self) -> None:
        self.server.put("/file", OLD, mtime_s=time.time() - 100)
        with tempfile.TemporaryDirectory() as folder:
            async with rig(self.server, Path(folder) / "c", partial_put=True) as it:
                content = await it.opened_file("/file")
                if self.dice.random() < 0.5:
                    await it.read(content, 0, SIZE)
                for _ in range(self.dice.randint(2, 8)):
                    await self._act(it, content)
                self.server.faults.clear()
                assert await it.uploads.drain(3600) == 0
                await trio.sleep(200)  # what is late has come
                await it.client.stat(it.node("/file").path)
                await it.uploads.drain(3600)
        self._check()

    async def _act(self, it: Rig, content: Content) -> None:
        kinds = ["fault", "wait"] if self.theirs else ["write", "write", "fault", "fault", "wait", "theirs"]
        kind = self.dice.choice(kinds)  # after a conflict nothing more is written: the file has another name
        if kind == "write":
            await content.prepare_write()
            at = self.dice.choice([0, 1 << 20, len(self.ours)])
            data = self.dice.randbytes(self.dice.randint(1, 5000))
            self.ours[at : at + len(data)] = data
            content.write(at, data)
            self.versions.add(bytes(self.ours))
            it.uploads.schedule(it.node("/file"), content, self.dice.choice([0, 0, 0.5]))
        elif kind == "fault":
            method = self.dice.choice(["COPY", "PUT", "PROPFIND", "MOVE", "MOVE"])
            lost: Literal["before", "after"] | None = self.dice.choice(["before", "after", None])
            status = None if lost else self.dice.choice([403, 412, 423, 500, 503, 507])
            late_s = self.dice.choice([None, 30.0]) if lost == "before" else None
            self.server.inject(Fault(method, lost=lost, status=status, late_s=late_s))
        elif kind == "wait":
            await trio.sleep(self.dice.choice([0.1, 1, 40]))
        else:
            with trio.move_on_after(1):
                await it.downloads.ensure_whole(content, lambda: it.node("/file").path)
            if content.complete:  # else what was never read is gone with the version that had it
                self.is_unsent = content.dirty
                self.theirs.append(self.dice.randbytes(2000))
                self.server.put("/file", self.theirs[-1])

    def _check(self) -> None:
        known = self.versions | set(self.theirs)
        stood = [one.stored for one in self.server.changes if "file" in (one.path, one.destination)]
        assert all(one is None or one in known for one in stood), "a mixture"
        left = [data for name, data in self.server.tree().items() if not name.startswith(".davfs-")]
        assert bytes(self.ours) in left or not self.is_unsent
        assert all(theirs in left for theirs in self.theirs)


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=HISTORIES)
def test_no_mixture_ever_stands_under_the_name(seed: int) -> None:
    """Whatever is lost, refused or late: each version under the name is whole, and none is lost."""
    try:
        trio.run(History(seed).run, clock=MockClock(autojump_threshold=0))
    except* DavfsError:
        pytest.fail("an error that nobody handled")
