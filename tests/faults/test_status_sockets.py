"""A sample of the table over real sockets and the real transport: silence, resets, half a status line.

One server answers as `FakeDav` does, but each call of the sample has a path whose verb goes wrong, and all
calls run at the same time: one that hangs must not hold up the others.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote

import httpx
import pytest
import trio

from davfs.errors import DavfsError
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.dav.peer import Line, Seen, lanes_to, serving

Wrong = Literal["silence", "reset", "half a line", "not http", "reset after"]
TIMEOUT_S: Final = 1.0
# A call may take a few time-outs: the verb, and the look at what became of it. On a busy machine more.
BOUND_S: Final = 25.0
LINK_ERRNOS: Final = {errno.EIO, errno.ETIMEDOUT, errno.EHOSTUNREACH}

pytestmark = [pytest.mark.expects_warning(""), pytest.mark.timeout(300)]


async def save(vfs: Vfs, path: str) -> None:
    fd = await vfs.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        await vfs.write(fd, b"saved")
        await vfs.fsync(fd)
    finally:
        await vfs.close(fd)


async def read(vfs: Vfs, path: str) -> None:
    fd = await vfs.open(path)
    try:
        assert await vfs.read(fd) == b"data"
    finally:
        await vfs.close(fd)


CALLS: Final[dict[tuple[str, str], Callable[[Vfs], Awaitable[object]]]] = {
    ("PROPFIND", "/unlisted"): lambda v: v.listdir("unlisted"),
    ("GET", "/read"): lambda v: read(v, "read"),
    ("PUT", "/new"): lambda v: save(v, "new"),
    ("PUT", "/old"): lambda v: save(v, "old"),
    ("DELETE", "/unlink"): lambda v: v.unlink("unlink"),
    ("DELETE", "/empty"): lambda v: v.rmdir("empty"),
    ("MKCOL", "/made"): lambda v: v.mkdir("made"),
    ("MOVE", "/a"): lambda v: v.rename("a", "b"),
}
CHANGING: Final = {"PUT", "DELETE", "MKCOL", "MOVE", "COPY"}


class Sockets:
    """`FakeDav` behind a socket."""

    def __init__(self) -> None:
        self.server = FakeDav(root="/dav")
        for folder in ("/unlisted", "/empty"):
            self.server.mkdir(folder)
        for name in ("read", "old", "unlink", "a"):
            self.server.put(f"/{name}", b"data", mtime_s=1_700_000_000)
        self.wrong: Wrong | None = None

    async def handle(self, line: Line) -> None:
        while (seen := await line.request()) is not None:
            path = "/" + unquote(seen.target).removeprefix("/dav/").strip("/")
            if self.wrong is not None and (seen.method, path) in CALLS:
                await self._go_wrong(self.wrong, line, seen)
                return
            await self._answer(line, seen)

    async def _answer(self, line: Line, seen: Seen) -> None:
        answer = await self._done(seen)
        head = [f"HTTP/1.1 {answer.status_code} X", *(f"{k}: {v}" for k, v in answer.headers.items())]
        await line.say("\r\n".join([*head, "", ""]).encode() + await answer.aread())

    async def _done(self, seen: Seen) -> httpx.Response:
        request = httpx.Request(
            seen.method, f"http://fake.example{seen.target}", headers=seen.headers, content=seen.body
        )
        return await self.server.handle_async_request(request)

    async def _go_wrong(self, wrong: Wrong, line: Line, seen: Seen) -> None:
        match wrong:
            case "silence":
                await trio.sleep(60)
            case "half a line":
                await line.say(b"HTTP/1.1 2")
            case "not http":
                await line.say(b"\x15\x03\x01\x00\x02\x02\x50")
            case "reset" | "reset after":
                if wrong == "reset after":
                    await self._done(seen)
                assert isinstance(line.stream, trio.SocketStream)
                linger = struct.pack("ii", 1, 0)
                line.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@pytest.mark.parametrize("wrong", ["silence", "reset", "half a line", "not http", "reset after"])
async def test_a_line_that_goes_wrong(wrong: Wrong, tmp_path: Path) -> None:
    """Each call ends in time with an errno, at the same time as the others, and nothing else was changed."""
    sockets = Sockets()
    told: dict[tuple[str, str], int] = {}

    async def call(key: tuple[str, str], vfs: Vfs) -> None:
        begun = time.monotonic()
        try:
            await CALLS[key](vfs)
            told[key] = 0
        except DavfsError as error:
            told[key] = error.errno
        assert time.monotonic() - begun < BOUND_S

    async with serving(sockets.handle) as peer, lanes_to(peer) as lanes:
        settings = Settings(str(tmp_path / "c"), timeout_s=TIMEOUT_S)
        async with running(lanes, peer.url, settings) as fs:
            vfs = Vfs(fs)
            await vfs.listdir("")
            before = sockets.server.tree()
            peer.seen.clear()
            sockets.wrong = wrong
            async with trio.open_nursery() as nursery:
                for key in CALLS:
                    nursery.start_soon(call, key, vfs)
            lost = {key for key in CALLS if key[0] in CHANGING - {"PUT"}} if wrong == "reset after" else set()
            assert {key for key, number in told.items() if number == 0} == lost
            assert {told[key] for key in CALLS if key not in lost} <= LINK_ERRNOS
            asked = {(one.method, "/" + one.target.removeprefix("/dav/").strip("/")) for one in peer.seen}
            assert {one for one in asked if one[0] in CHANGING} <= set(CALLS)
            if wrong != "reset after":
                assert sockets.server.tree() == before
            sockets.wrong = None
            assert await fs.sync(20) == 0
    assert sockets.server.content("/new") == sockets.server.content("/old") == b"saved"
