"""When unsent files begin to be sent: after the programs that write, soon after they stop, not too late."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio
from trio.testing import MockClock

from davfs.fs.queue import QUIET_S
from davfs.fs.settings import Settings
from davfs.fs.upload import HELD_S, HURRY_WITHIN_S, NEAR_S, SAVED_S
from tests.fakes.davserver import FakeDav
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.drive import write
from tests.unit.fs.rig import URL

WRITE_BACK_S = 0.2
STEP_S = 0.003  # a program's pace: one file after the other


class Timed(httpx.AsyncBaseTransport):
    """The server, and when each PUT came to it."""

    def __init__(self, server: FakeDav, away_s: float) -> None:
        self._server = server
        self._away_s = away_s
        self.came_s: dict[str, float] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            self.came_s.setdefault(request.url.path, trio.current_time())
        await trio.sleep(self._away_s)
        return await self._server.handle_async_request(request)


@asynccontextmanager
async def timed(
    folder: Path, *names: str, away_s: float = 0.0, **options: Any
) -> AsyncIterator[tuple[Vfs, dict[str, float]]]:
    """A drive with these files on the server, listed; and when each PUT came to it. It is `away_s` away."""
    server = FakeDav()
    for name in names:
        server.put(f"/{name}", b"old")
    wire = Timed(server, away_s)
    options = {"write_back_s": WRITE_BACK_S} | options
    async with running(wire, URL, Settings(str(folder / "c"), **options)) as fs:
        vfs = Vfs(fs)
        await vfs.listdir("")
        yield vfs, wire.came_s


async def write_many(vfs: Vfs, until_s: float) -> None:
    """A program that makes one file after the other."""
    number = 0
    while trio.current_time() < until_s:
        await write(vfs, f"many{number}", b"text")
        number += 1
        await trio.sleep(STEP_S)


async def test_a_short_burst_is_written_before_it_is_sent(tmp_path: Path, autojump_clock: MockClock) -> None:
    """While a program writes, no upload is begun; the first a moment after it has stopped."""
    async with timed(tmp_path) as (vfs, came_s):
        ends_s = trio.current_time() + WRITE_BACK_S + HELD_S / 2
        await write_many(vfs, ends_s)
        assert came_s == {}
        await trio.sleep(2 * QUIET_S)
        assert "/many0" in came_s


async def test_a_program_that_never_stops_holds_up_nothing_for_long(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Every file is begun to be sent within `write_back` and `HELD_S`, whoever goes on writing."""
    async with timed(tmp_path) as (vfs, came_s):
        begun_s = trio.current_time()
        await write_many(vfs, begun_s + 2.5 * (WRITE_BACK_S + HELD_S))
        first_s = came_s["/many0"] - begun_s
        assert WRITE_BACK_S < first_s <= WRITE_BACK_S + HELD_S + 2 * STEP_S
        latest_s = max(came_s[name] - begun_s - STEP_S * int(name.removeprefix("/many")) for name in came_s)
        assert latest_s <= WRITE_BACK_S + HELD_S + 2 * STEP_S
        assert len(came_s) > 100


async def test_what_is_due_goes_when_programs_pause(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A program that waits for something leaves the time to the uploads, and goes on."""
    async with timed(tmp_path) as (vfs, came_s):
        await write_many(vfs, trio.current_time() + WRITE_BACK_S)
        await trio.sleep(3 * QUIET_S)
        await write_many(vfs, trio.current_time() + HELD_S / 2)
        assert "/many0" in came_s


async def test_a_far_server_is_not_kept_waiting(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Where uploads wait for the line most of their time they begin when they are due."""
    async with timed(tmp_path, away_s=NEAR_S) as (vfs, came_s):
        begun_s = trio.current_time()
        await write_many(vfs, begun_s + WRITE_BACK_S + HELD_S / 2)
        assert came_s["/many0"] - begun_s <= WRITE_BACK_S + 2 * STEP_S


async def test_what_somebody_waits_for_is_not_held(tmp_path: Path, autojump_clock: MockClock) -> None:
    """fsync and `davfs sync` begin at once, beside a program that writes, also with what was held."""
    async with timed(tmp_path) as (vfs, came_s), trio.open_nursery() as nursery:
        nursery.start_soon(write_many, vfs, trio.current_time() + 60)
        fd = await vfs.open("mine", os.O_WRONLY | os.O_CREAT)
        await vfs.write(fd, b"text")
        await trio.sleep(WRITE_BACK_S + HELD_S / 2)
        assert came_s == {}
        begun_s = trio.current_time()
        await vfs.fsync(fd)
        assert came_s["/mine"] == begun_s
        assert "/many0" not in came_s
        held = vfs.fs.pending_paths()
        await vfs.fs.sync(60)
        assert all(came_s[path] == begun_s for path in held)
        await vfs.close(fd)
        nursery.cancel_scope.cancel()


async def test_saves_go_when_the_editor_has_paused(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Not beside it, and not later than they would have without their rename; also far away."""
    names = [f"doc{number}" for number in range(60)]
    async with timed(tmp_path, *names, away_s=NEAR_S) as (vfs, came_s):
        for name in names:
            begun_s = trio.current_time()
            await write(vfs, f"{name}~", b"text")
            await vfs.rename(f"{name}~", name)
            await trio.sleep(STEP_S)
            if name == "doc20":
                assert came_s == {}
                await trio.sleep(SAVED_S + QUIET_S)
                assert "/doc0" in came_s
                assert "/doc20" in came_s
        assert "/doc59" not in came_s
        await trio.sleep(SAVED_S + QUIET_S)
        assert came_s["/doc59"] - begun_s <= SAVED_S + STEP_S + QUIET_S


async def test_an_editors_save_does_not_wait_for_another_rename(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Renamed over an old file it is sent soon; a new name may be changed once more."""
    async with timed(tmp_path, "doc") as (vfs, came_s):
        await write(vfs, "doc~", b"text")
        await write(vfs, "new~", b"text")
        await vfs.rename("doc~", "doc")
        await vfs.rename("new~", "new")
        begun_s = trio.current_time()
        await trio.sleep(2 * WRITE_BACK_S)
        assert came_s["/doc"] - begun_s <= SAVED_S + STEP_S
        assert came_s["/new"] - begun_s >= WRITE_BACK_S


async def test_who_wants_a_long_wait_gets_it_for_saves_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Above one second `write_back` is meant to gather more than one save."""
    wait_s = 2 * HURRY_WITHIN_S
    async with timed(tmp_path, "doc", write_back_s=wait_s) as (vfs, came_s):
        await write(vfs, "doc~", b"text")
        await vfs.rename("doc~", "doc")
        await trio.sleep(0.9 * wait_s)
        assert came_s == {}
        await trio.sleep(0.2 * wait_s)
        assert "/doc" in came_s
