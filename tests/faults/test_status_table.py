"""Each answer of docs/ERRORS.md to each verb, under the whole file system, on a clock that jumps.

A server in memory gives one answer, for ever, to one verb at one path; everything else it does rightly. Asked
of each: the errno, how often the verb is sent within the call and in the hour after it, that nothing but that
verb goes out that could change anything, that what was written stays where it is, and that all is well once
the server is.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock

from davfs.dav import locks
from davfs.dav.client import Client
from davfs.dav.link import FAILURES_MAX
from davfs.dav.resource import ROOT
from davfs.errors import DavfsError
from davfs.fs.delivery import PUTS_MAX
from davfs.fs.filesystem import Filesystem
from davfs.fs.guard import LOCKED_WAITS_S
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav
from tests.faults.published import Row, rows
from tests.faults.scripted import CHANGING, Asked, Manner, Scripted, Trouble
from tests.mount.assembly import running
from tests.mount.vfs import Vfs

URL: Final = "http://fake.example/"
LONG_AGO_S: Final = 1_700_000_000
LARGE: Final = 17 << 20  # more than is fetched before an open file is removed: it is set aside on the server
LONGEST_ATTRIBUTES_S: Final = 61.0
TIMEOUT_S: Final = 30.0
HOUR_S: Final = 3600.0
MIB: Final = 1 << 20
# How many PUTs of one file within the hour after the first one was refused.
PUTS_IN_AN_HOUR: Final = {"seconds": range(40, 70), "minutes": range(5, 9), "hours": range(1)}

pytestmark = pytest.mark.expects_warning("")  # trouble is logged

ROWS: Final = rows()
STATUSES: Final = [row for row in ROWS if isinstance(row.answer, int)]


def row_of(answer: int | str) -> Row:
    return next(row for row in ROWS if row.answer == answer)


def trouble_of(row: Row, verb: str, path: str) -> Trouble:
    if isinstance(row.answer, int):
        return Trouble(verb, path, "answer", row.answer)
    manner: Manner = row.answer  # type: ignore[assignment]
    return Trouble(verb, path, manner)


# --- what is tried -----------------------------------------------------------------------------------


async def save(vfs: Vfs, path: str, data: bytes) -> None:
    """What a careful editor does."""
    fd = await vfs.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        await vfs.write(fd, data)
        await vfs.fsync(fd)
    finally:
        await vfs.close(fd)


async def read(vfs: Vfs, path: str) -> bytes:
    fd = await vfs.open(path)
    try:
        return await vfs.read(fd)
    finally:
        await vfs.close(fd)


async def while_open(vfs: Vfs, path: str, doing: Awaitable[None]) -> None:
    fd = await vfs.open(path)
    try:
        await doing
    finally:
        await vfs.close(fd)


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a program, the verb that it needs, and where. `after`: names that it leaves or removes."""

    name: str
    verb: str
    path: str
    run: Callable[[Vfs], Awaitable[object]]
    after: dict[str, bytes | str | None]
    then: str = ""  # where else it changes something, once that is done

    @property
    def column(self) -> str:
        return "MOVE" if self.verb == "COPY" else self.verb


GONE: Final = "gone"
CALLS: Final = [
    Call("stat", "PROPFIND", "/unseen", lambda v: v.stat("unseen/file"), {}),
    Call("ls", "PROPFIND", "/unlisted", lambda v: v.listdir("unlisted"), {}),
    Call("read", "GET", "/f/read", lambda v: read(v, "f/read"), {}),
    Call("fsync of a new file", "PUT", "/f/new", lambda v: save(v, "f/new", b"new"), {"f/new": b"new"}),
    Call("fsync of an old file", "PUT", "/f/old", lambda v: save(v, "f/old", b"newer"), {"f/old": b"newer"}),
    Call("unlink", "DELETE", "/f/unlink", lambda v: v.unlink("f/unlink"), {"f/unlink": GONE}),
    Call("rmdir", "DELETE", "/empty", lambda v: v.rmdir("empty"), {"empty": GONE}),
    Call("mkdir", "MKCOL", "/f/made", lambda v: v.mkdir("f/made"), {"f/made": None}),
    Call("rename", "MOVE", "/f/a", lambda v: v.rename("f/a", "f/b"), {"f/a": GONE, "f/b": b"a"}),
    Call("rename of a folder", "MOVE", "/dir", lambda v: v.rename("dir", "new"), {"dir": GONE, "new": None}),
    Call(
        "rename over a file",
        "MOVE",
        "/f/x",
        lambda v: v.rename("f/x", "f/over"),
        {"f/x": GONE, "f/over": b"x"},
    ),
    Call(
        "unlink of a large open file",
        "MOVE",
        "/f/large",
        lambda v: while_open(v, "f/large", v.unlink("f/large")),
        {"f/large": GONE},
    ),
    Call(
        "rename over a large open file",
        "COPY",
        "/f/huge",
        lambda v: while_open(v, "f/huge", v.rename("f/y", "f/huge")),
        {"f/y": GONE, "f/huge": b"y"},
        "/f/y",
    ),
]  # fmt: skip


def served() -> FakeDav:
    server = FakeDav()
    for folder in ("/unseen", "/unlisted", "/f", "/empty", "/dir"):
        server.mkdir(folder)
    for name in ("read", "old", "unlink", "a", "over", "x", "y"):
        server.put(f"/f/{name}", name.encode(), mtime_s=LONG_AGO_S)
    for name in ("large", "huge"):
        server.put(f"/f/{name}", bytes(LARGE), mtime_s=LONG_AGO_S)
    server.put("/unseen/file", b"file", mtime_s=LONG_AGO_S)
    return server


@asynccontextmanager
async def mounted(wire: Scripted, folder: Path) -> AsyncIterator[tuple[Filesystem, Vfs]]:
    async with running(wire, URL, Settings(str(folder), timeout_s=TIMEOUT_S)) as fs:
        vfs = Vfs(fs)
        await vfs.listdir("")
        await vfs.listdir("f")
        yield fs, vfs


async def errno_of(call: Awaitable[object]) -> int:
    try:
        await call
    except DavfsError as error:
        return error.errno
    return 0


def is_own(path: str) -> bool:
    """A temporary name of davfs itself."""
    return path.rpartition("/")[2].startswith(".davfs-")


def foreign_changes(asked: list[Asked], call: Call) -> list[Asked]:
    """Requests that change something and that this call does not need."""
    return [
        one
        for one in asked
        if one.method in CHANGING
        and not (one.method == call.verb and one.path.startswith(call.path))
        and one.path != call.then
        and not (is_own(one.path) or one.method in ("LOCK", "UNLOCK"))
    ]


async def state_of(vfs: Vfs, path: str) -> tuple[str, str]:
    error = b""
    with suppress(DavfsError):
        error = await vfs.getxattr(path, "user.davfs.error")
    return (await vfs.getxattr(path, "user.davfs.state")).decode(), error.decode()


# A name that was to be free is not (412): of a rename that is EEXIST, but unlink has no such errno.
OTHERWISE: Final[dict[tuple[str, int | str], int]] = {
    ("unlink of a large open file", 412): errno.ESTALE,
}


def shown_after(row: Row) -> str:
    """The state of a file that could not be sent (davfs.fs.states)."""
    return "failed" if row.upload == "seconds" else "refused"


# --- within the call ---------------------------------------------------------------------------------


LOCKED_TRIES: Final = 1 + len(LOCKED_WAITS_S)


def most_requests(call: Call, row: Row) -> range:
    """How often the verb may be sent within the call."""
    if (
        row.answer == 423
        and call.verb in ("PUT", "MOVE", "DELETE")
        and call.name != "unlink of a large open file"
    ):
        return range(LOCKED_TRIES, LOCKED_TRIES + 1)  # another davfs may hold it for one upload
    if call.verb == "PUT":
        return range(1, PUTS_MAX + 1)
    if call.verb == "DELETE":
        return range(1, 3)  # lighttpd says 412 to the right tag: then once without
    if row.answer in (400, 412, 502) and call.verb in ("MOVE", "COPY"):
        # 412: a rename over what somebody else changed, then beside it. The others: the first one again with
        # the path alone, for a server behind a proxy.
        return range(1, 4 if row.answer == 412 else 3)
    if not row.again:
        return range(1, 2)
    # Three broken connections in a row are an outage: who asks then is answered without a request.
    least = {"hang": 1, "cut before": FAILURES_MAX, "cut after": FAILURES_MAX}.get(str(row.answer), 4)
    if call.verb == "PROPFIND":
        return range(least, 5)
    if call.verb == "GET":
        # A connection that breaks may have brought something: the download begins anew twice.
        return range(least, 5 if isinstance(row.answer, int) else 13)
    return range(1, 2)


async def refuse(call: Call, row: Row, wire: Scripted, vfs: Vfs) -> None:
    """The call, while its verb gets this answer: exact, bounded, and harmless."""
    before = wire.server.tree()
    wire.begin(trouble_of(row, call.verb, call.path))
    begun_s = trio.current_time()
    number = await errno_of(call.run(vfs))
    took_s = trio.current_time() - begun_s
    assert number == OTHERWISE.get((call.name, row.answer), row.errnos[call.column])
    sent = [one for one in wire.requests(call.verb) if one.path.startswith(call.path)]
    assert len(sent) in most_requests(call, row), sent
    assert not foreign_changes(wire.asked, call)
    assert wire.server.tree() == before
    longest_s = 10 * TIMEOUT_S if call.verb == "COPY" or call.name == "rename of a folder" else TIMEOUT_S
    assert took_s <= longest_s + 1


async def heal(call: Call, wire: Scripted, fs: Filesystem, vfs: Vfs) -> None:
    """The server is well again: what waited arrives, and what failed works."""
    wire.begin(None)
    if call.verb == "PUT":
        assert await fs.sync(HOUR_S) == 0
    else:
        await trio.sleep(LONGEST_ATTRIBUTES_S)
        assert await errno_of(call.run(vfs)) == 0
    tree = wire.server.tree()
    for name, data in call.after.items():
        assert tree.get(name, GONE) == data
    assert not foreign_changes(wire.asked, call)


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_each_verb(row: Row, tmp_path: Path, autojump_clock: MockClock) -> None:
    """The errno of the table, as many requests as it says, nothing else changed; and afterwards it works."""
    wire = Scripted(served())
    async with mounted(wire, tmp_path / "c") as (fs, vfs):
        for call in CALLS:
            await refuse(call, row, wire, vfs)
            if call.verb == "PUT":
                (path, data), *_ = call.after.items()
                state, text = await state_of(vfs, path)
                assert state == shown_after(row)
                assert text
                assert await read(vfs, path) == data
            if row.errnos[call.column]:
                await heal(call, wire, fs, vfs)
        assert await fs.sync(HOUR_S) == 0


@pytest.mark.parametrize("call", [call for call in CALLS if call.verb in CHANGING], ids=lambda c: c.name)
async def test_an_answer_that_gets_lost(call: Call, tmp_path: Path, autojump_clock: MockClock) -> None:
    """What the server did although nobody was told is looked up: it counts, and nothing is done twice."""
    wire = Scripted(served())
    async with mounted(wire, tmp_path / "c") as (fs, vfs):
        wire.begin(Trouble(call.verb, call.path, "cut after", times=1))
        number = await errno_of(call.run(vfs))
        assert await fs.sync(HOUR_S) == 0
        assert number == 0 or call.verb == "PUT"  # fsync tells; the queue then looks
        assert len([one for one in wire.requests(call.verb) if one.path.startswith(call.path)]) == 1
        assert not foreign_changes(wire.asked, call)
        tree = wire.server.tree()
        for name, data in call.after.items():
            assert tree.get(name, GONE) == data
        assert not [name for name in tree if ".davfs-" in name or "(conflict" in name]


# --- in the hours after it ---------------------------------------------------------------------------


async def write_and_close(vfs: Vfs, path: str, data: bytes) -> None:
    fd = await vfs.open(path, os.O_WRONLY | os.O_CREAT)
    await vfs.write(fd, data)
    await vfs.close(fd)


def tries(times_s: list[float]) -> list[float]:
    """When the queue began: what follows within the patience with a lock is the same try."""
    longest_s = 1.5 * sum(LOCKED_WAITS_S)
    begun_s: list[float] = []
    for at_s in times_s:
        if not begun_s or at_s - begun_s[-1] > longest_s:
            begun_s.append(at_s)
    return begun_s


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_an_hour_of_refusals(row: Row, tmp_path: Path, autojump_clock: MockClock) -> None:
    """The queue tries again as the table says, sends nothing else, and keeps the file; `sync` ends it."""
    wire = Scripted(served())
    call = CALLS[3]
    async with mounted(wire, tmp_path / "c") as (fs, vfs):
        wire.begin(trouble_of(row, "PUT", "/f/new"))
        await write_and_close(vfs, "f/new", b"new")
        await trio.sleep(TIMEOUT_S + 2)
        assert (await state_of(vfs, "f/new"))[0] in (shown_after(row), "sending")
        wire.asked.clear()
        await trio.sleep(HOUR_S - TIMEOUT_S - 3)
        times_s = [one.at_s for one in wire.requests("PUT")]
        attempts = tries(times_s) if row.answer == 423 else set(times_s)
        assert row.answer != 423 or len(times_s) <= LOCKED_TRIES * len(attempts)
        least = 1 if row.answer == "hang" else PUTS_IN_AN_HOUR[row.upload].start
        assert len(attempts) in range(least, PUTS_IN_AN_HOUR[row.upload].stop)
        assert not foreign_changes(wire.asked, call)
        assert await read(vfs, "f/new") == b"new"
        assert (await state_of(vfs, "f/new"))[0] in (shown_after(row), "sending")
        assert "new" in await vfs.listdir("f")
        wire.begin(None)
        assert await fs.sync(HOUR_S) == 0
        assert wire.server.content("/f/new") == b"new"
        assert await state_of(vfs, "f/new") == ("clean", "")


@pytest.mark.parametrize("status", [403, 413, 423, 425, 429, 500, 503, 507])
@pytest.mark.parametrize("asked_s", [5, 700, 86_400])
async def test_an_upload_keeps_to_retry_after(
    status: int, asked_s: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Not a second before it, and soon after it."""
    wire = Scripted(served())
    async with mounted(wire, tmp_path / "c") as (_, vfs):
        trouble = Trouble("PUT", "/f/new", "answer", status, {"Retry-After": str(asked_s)}, times=1)
        wire.begin(trouble)
        await write_and_close(vfs, "f/new", b"new")
        await trio.sleep(asked_s * 1.25 + 120)
        first, second = (one.at_s for one in wire.requests("PUT"))
        least_s = max(asked_s, 1)
        assert least_s <= second - first <= max(least_s, 60) * 1.25 + 61
        assert wire.server.content("/f/new") == b"new"


@pytest.mark.parametrize("call", CALLS[:3], ids=lambda call: call.name)
@pytest.mark.parametrize("status", [425, 429, 500, 503])
async def test_a_call_keeps_to_retry_after(
    call: Call, status: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """It waits as long as asked when that fits into the time-out, else the error comes at once."""
    wire = Scripted(served())
    async with mounted(wire, tmp_path / "c") as (_, vfs):
        wire.begin(Trouble(call.verb, call.path, "answer", status, {"Retry-After": "7"}, times=2))
        assert await errno_of(call.run(vfs)) == 0
        times = [one.at_s for one in wire.requests(call.verb) if one.path.startswith(call.path)]
        assert [later - earlier for earlier, later in pairwise(times)][:2] == [7, 7]
        await trio.sleep(600)
        if call.verb == "PROPFIND":  # what was read is in the cache
            wire.begin(Trouble(call.verb, call.path, "answer", status, {"Retry-After": "3600"}))
            assert await errno_of(call.run(vfs)) == row_of(status).errnos[call.verb]
            assert len([one for one in wire.requests(call.verb) if one.path.startswith(call.path)]) == 1


# --- more than the server takes ---------------------------------------------------------------------


@pytest.mark.parametrize("status", [413, 404])
async def test_a_size_that_was_refused_is_refused_at_write(
    status: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """413, and IIS's 404: EFBIG at fsync, for the next large file at write, and smaller ones still arrive."""
    wire = Scripted(served())
    data = bytes(MIB)
    async with mounted(wire, tmp_path / "c") as (fs, vfs):
        wire.begin(Trouble("PUT", "/f/", "answer", status, least_bytes=2 * MIB))
        assert await errno_of(save(vfs, "f/film", data * 3)) == errno.EFBIG
        wire.asked.clear()
        fd = await vfs.open("f/other", os.O_WRONLY | os.O_CREAT)
        for number in range(2):
            await vfs.pwrite(fd, data, number * MIB)
        assert await errno_of(vfs.pwrite(fd, data, 2 * MIB)) == errno.EFBIG
        assert await errno_of(vfs.ftruncate(fd, 3 * MIB)) == errno.EFBIG
        assert not wire.requests("PUT")
        await vfs.ftruncate(fd, MIB)
        await vfs.fsync(fd)
        await vfs.close(fd)
        assert wire.server.content("/f/other") == data
        wire.begin(None)  # the limit is raised: the one that waits finds that out
        assert await fs.sync(HOUR_S) == 0
        assert wire.server.content("/f/film") == data * 3
        await save(vfs, "f/film", data * 4)


# --- answers that look like success -------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 203, 204, 205, 206, 226, 299])
async def test_a_success_that_stored_nothing(status: int, tmp_path: Path, autojump_clock: MockClock) -> None:
    """2xx to a PUT without a tag is looked after: fsync says that it is not there, and the file is kept."""
    wire = Scripted(served())
    async with mounted(wire, tmp_path / "c") as (fs, vfs):
        for call in CALLS[3:5]:
            # 200 and 204 to If-None-Match: * say that it is ignored: the next one goes to a temporary name.
            wire.begin(Trouble("PUT", "/f/", "answer", status))
            assert await errno_of(call.run(vfs))
            assert len(wire.requests("PUT")) <= PUTS_MAX
            assert not foreign_changes(wire.asked, call)
            await heal(call, wire, fs, vfs)


@pytest.mark.parametrize("status", [403, 404, 409, 423, 507])
@pytest.mark.parametrize("call", [c for c in CALLS if c.verb in CHANGING - {"PUT"}], ids=lambda c: c.name)
async def test_a_207_is_the_status_inside(
    call: Call, status: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Apache, WsgiDAV, Tomcat, nephele: 207 is how they refuse a change (servers.md 8)."""
    wire = Scripted(served())
    body = (
        f'<D:multistatus xmlns:D="DAV:"><D:response><D:href>{call.path}</D:href>'
        f"<D:status>HTTP/1.1 {status} X</D:status></D:response></D:multistatus>"
    ).encode()
    async with mounted(wire, tmp_path / "c") as (_, vfs):
        wire.begin(Trouble(call.verb, call.path, "answer", 207, body=body))
        assert await errno_of(call.run(vfs)) == row_of(status).errnos[call.column]
        assert not foreign_changes(wire.asked, call)


# --- verbs that only the client has yet ---------------------------------------------------------------


async def ask(client: Any, verb: str) -> None:
    """One request of this verb, as the client sends it."""
    path = ROOT.child("f").child("old")
    if verb == "LOCK":
        await client.lock(path, "test", 60.0)
    elif verb == "UNLOCK":
        await client.unlock(path, locks.LockToken("opaquelocktoken:1"))
    elif verb == "PROPPATCH":
        await client.proppatch(path, {})
    else:
        await client.copy(path, ROOT.child("f").child("copy"), is_collection=False, overwrite=False)


VERBS: Final = {"COPY": "copy", "LOCK": "lock", "UNLOCK": "unlock", "PROPPATCH": "proppatch"}
FINE: Final = {"UNLOCK": {400, 404, 409, 412}}  # the lock is gone already (peers.md, rule 7)


@pytest.mark.parametrize("verb", [verb for verb, method in VERBS.items() if hasattr(Client, method)])
@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_each_verb_of_the_client(row: Row, verb: str, autojump_clock: MockClock) -> None:
    """COPY, and where the client has them LOCK, UNLOCK, PROPPATCH: sent once, and the errno of the table.

    COPY twice after 502 and 400, which may be about the form of its Destination.
    """
    wire = Scripted(served())
    client = Client(wire, URL, timeout_s=TIMEOUT_S)
    wire.begin(trouble_of(row, verb, "/f/old"))
    number = await errno_of(ask(client, verb))
    if row.answer in FINE.get(verb, ()):
        assert number == 0
    elif row.answer not in (
        409,
        412,
    ):  # what these mean depends on what was asked: see the client's own tests
        assert number == row.errnos["MKCOL"]
    if verb == "COPY" and row.answer in {400, 502}:
        looks = ["PROPFIND"] * (2 if row.answer == 400 else 1)
        assert [one.method for one in wire.asked] == ["COPY", *looks, "COPY"]
        return
    assert len(wire.requests(verb)) == 1
    looks = (
        ["PROPFIND"] if verb == "COPY" and row.answer in {403, 405, 409} else []
    )  # may mean that it is there
    assert [one.method for one in wire.asked[1:]] == looks
