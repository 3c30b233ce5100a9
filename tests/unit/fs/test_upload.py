"""Write-back over a server in memory: which requests go out, what survives, what is told."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from davfs.errors import DavfsError
from davfs.fs.conflict import conflict_name
from davfs.fs.settings import Settings
from tests.fakes.davserver import ETags, FakeDav, Fault, Logged
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.drive import write
from tests.unit.fs.rig import URL, at, opened, path_of, rig

warns = pytest.mark.expects_warning
LONG_AGO_S = 1_700_000_000


class Watched(httpx.AsyncBaseTransport):
    """The server, and the conditions that came with each PUT."""

    def __init__(self, server: FakeDav) -> None:
        self._server = server
        self.conditions: list[tuple[str | None, str | None]] = []
        self.announced = server.announced

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            self.conditions.append((request.headers.get("if-match"), request.headers.get("if-none-match")))
        return await self._server.handle_async_request(request)


def shown(requests: list[Logged]) -> list[tuple[str, str]]:
    return [(entry.method, entry.path) for entry in requests]


def conflict_copies(server: FakeDav) -> list[bytes | None]:
    return [data for name, data in server.tree().items() if "(conflict " in name]


# --- what goes out --------------------------------------------------------------------------------


async def test_a_new_file_is_one_put_that_overwrites_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A new file goes with If-None-Match: *, in one request."""
    server = FakeDav()
    wire = Watched(server)
    async with rig(wire, tmp_path / "c") as it:
        content = it.new_file("/f", b"hello")
        assert await it.uploads.drain(60) == 0
        assert not content.dirty
    assert server.content("/f") == b"hello"
    assert wire.conditions == [(None, "*")]
    assert shown(server.requests()) == [("PUT", "/f")]


async def test_a_changed_file_is_one_put_with_its_tag(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A change goes with the tag of the version it was made on, and the next with the tag of the answer."""
    server = FakeDav()
    server.put("/f", b"base")
    wire = Watched(server)
    async with rig(wire, tmp_path / "c") as it:
        content = await it.overwritten_file("/f", b"first")
        tag = content.base.etag.header() if content.base is not None and content.base.etag else ""
        assert await it.uploads.drain(60) == 0
        second = content.base.etag.header() if content.base is not None and content.base.etag else ""
        content.write(0, b"SECOND")
        it.uploads.schedule(it.node("/f"), content, 0)
        assert await it.uploads.drain(60) == 0
    assert server.content("/f") == b"SECOND"
    assert wire.conditions == [(tag, None), (second, None)]
    assert tag != second


async def test_write_and_rename_over_is_one_put(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What an editor does to save a file is a single PUT with If-Match at the final name."""
    server = FakeDav()
    server.put("/doc", b"old")
    wire = Watched(server)
    async with running(wire, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        assert await vfs.listdir("") == ["doc"]
        fd = await vfs.open("tmp", os.O_WRONLY | os.O_CREAT)
        await vfs.write(fd, b"new text")
        await vfs.close(fd)
        await vfs.rename("tmp", "doc")
        assert await fs.sync(60) == 0
    assert server.tree() == {"doc": b"new text"}
    assert shown(server.requests("PUT", "MOVE", "DELETE")) == [("PUT", "/doc")]
    assert wire.conditions[0][0] is not None


async def test_writes_that_follow_one_another_are_one_put(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Opened, written and closed five times within the write-back delay: one PUT."""
    server = FakeDav()
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        for number in range(5):
            fd = await vfs.open("f", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            await vfs.write(fd, f"{number}".encode())
            await vfs.close(fd)
        assert await fs.sync(60) == 0
    assert server.content("/f") == b"01234"
    assert len(server.requests("PUT")) == 1


async def test_a_file_that_is_written_while_it_is_sent_is_sent_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The PUT that runs carries the old bytes whole, the next one the new."""
    server = FakeDav()
    server.inject(Fault("PUT", delay_s=5))
    wire = Watched(server)
    async with rig(wire, tmp_path / "c") as it:
        content = it.new_file("/f", b"first")
        await trio.sleep(1)
        await content.prepare_write()
        content.write(0, b"SECOND")
        assert await it.uploads.drain(60) == 0
    assert server.content("/f") == b"SECOND"
    assert [entry.body_bytes for entry in server.requests("PUT")] == [5, 6]
    assert wire.conditions[0] == (None, "*")
    assert wire.conditions[1][0] is not None


async def test_at_most_as_many_uploads_as_connections(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Ten files over two connections take five rounds, and all arrive."""
    server = FakeDav()
    server.inject(Fault("PUT", times=10, delay_s=1))
    async with rig(server, tmp_path / "c", connections=2) as it:
        for number in range(10):
            it.new_file(f"/f{number}", b"x")
        started_s = trio.current_time()
        assert await it.uploads.drain(60) == 0
        assert trio.current_time() - started_s == pytest.approx(5, abs=0.5)
    assert len(server.tree()) == 10


@pytest.mark.parametrize("etags", ["hidden", "none"])
async def test_one_propfind_verifies_a_folder(
    tmp_path: Path, autojump_clock: MockClock, etags: ETags
) -> None:
    """Where PUT answers carry no tag, all files that were sent to a folder are verified by one listing."""
    server = FakeDav(etags=etags)
    async with rig(server, tmp_path / "c", connections=16) as it:
        contents = [it.new_file(f"/f{number}", b"x" * number) for number in range(10)]
        assert await it.uploads.drain(60) == 0
        assert not any(content.dirty for content in contents)
    assert len(server.requests("PUT")) == 10
    assert [entry.depth for entry in server.requests("PROPFIND")] == ["1"]


@pytest.mark.parametrize(("answer_s", "renamed_s"), [(0.5, 0.25), (0.05, 0.4)])
async def test_a_verification_does_not_wait_for_what_waits_for_it(
    tmp_path: Path, autojump_clock: MockClock, answer_s: float, renamed_s: float
) -> None:
    """A rename over a file that is being sent waits for its answer, not for itself as its sibling."""
    server = FakeDav(etags="hidden")
    server.inject(Fault("PUT", answer_delay_s=answer_s))
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs, begun_s = Vfs(fs), trio.current_time()
        await write(vfs, "config", b"first")
        await trio.sleep(0.21)
        await write(vfs, "config.lock", b"second")
        await trio.sleep_until(begun_s + renamed_s)
        await vfs.rename("config.lock", "config")
        assert trio.current_time() - begun_s < max(0.2 + answer_s, renamed_s) + 0.1
        assert await fs.sync(60) == 0
    assert server.tree() == {"config": b"second"}
    assert len(server.requests("PUT")) == 2


@pytest.mark.parametrize("text", [b"new", b"another size"])
async def test_a_large_folder_is_not_listed_to_verify_one_file(
    tmp_path: Path, autojump_clock: MockClock, text: bytes
) -> None:
    """In a folder of 150 files one changed file is one PUT and a small question, and can be changed again."""
    server = FakeDav(etags="none")
    for number in range(150):
        server.put(f"/f{number}", b"old", mtime_s=LONG_AGO_S)
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        await vfs.listdir("")
        await trio.sleep(1)
        for data in (text, b"and again"):
            fd = await vfs.open("f3", os.O_WRONLY | os.O_TRUNC)
            await vfs.write(fd, data)
            await vfs.close(fd)
            assert await fs.sync(60) == 0
            assert server.content("/f3") == data
    assert len(server.requests("PUT")) == 2
    assert conflict_copies(server) == []


@warns("not sent")
async def test_a_failed_verification_is_no_evidence(tmp_path: Path, autojump_clock: MockClock) -> None:
    """If the question after a PUT gets no answer, the old listing does not count as one."""
    server = FakeDav(etags="none")
    server.put("/f", b"old", mtime_s=LONG_AGO_S)
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        await vfs.listdir("")
        await trio.sleep(1)
        fd = await vfs.open("f", os.O_WRONLY | os.O_TRUNC)
        await vfs.write(fd, b"new")
        await vfs.close(fd)
        fault = server.inject(Fault("PROPFIND", times=1000, status=403))
        await trio.sleep(5)
        fault.times = 0
        assert await fs.sync(60) == 0
        fd = await vfs.open("f", os.O_WRONLY | os.O_TRUNC)
        await vfs.write(fd, b"newer")
        await vfs.close(fd)
        assert await fs.sync(60) == 0
    assert server.tree() == {"f": b"newer"}


# --- conflicts ------------------------------------------------------------------------------------


@warns("conflict")
@pytest.mark.parametrize("etags", ["strong", "none"])
async def test_a_conflict_keeps_both(tmp_path: Path, autojump_clock: MockClock, etags: ETags) -> None:
    """When somebody else changed the file, theirs keeps the name, and ours goes beside it."""
    server = FakeDav(etags=etags)
    server.put("/d.odt", b"base", mtime_s=LONG_AGO_S)
    async with rig(server, tmp_path / "c") as it:
        await it.overwritten_file("/d.odt", b"ours", delay_s=1)
        server.put("/d.odt", b"theirs")
        assert await it.uploads.drain(60) == 0
        assert len(it.uploads.conflicts) == 1
    tree = server.tree()
    assert tree.pop("d.odt") == b"theirs"
    ((name, data),) = tree.items()
    assert data == b"ours"
    assert name.startswith("d (conflict ")
    assert name.endswith(").odt")


@warns("conflict")
async def test_two_new_files_of_one_name_are_both_kept(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A file that somebody else made meanwhile is not overwritten by our new one."""
    server = FakeDav()
    async with rig(server, tmp_path / "c") as it:
        it.new_file("/f", b"ours", delay_s=1)
        server.put("/f", b"theirs, longer")
        assert await it.uploads.drain(60) == 0
    assert server.content("/f") == b"theirs, longer"
    assert conflict_copies(server) == [b"ours"]


@warns("not sent")
@warns("conflict")
async def test_a_folder_in_the_way_is_a_conflict(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A folder that somebody made at our name stays, and ours goes beside it."""
    server = FakeDav()
    async with rig(server, tmp_path / "c") as it:
        it.new_file("/f", b"ours", delay_s=1)
        server.mkdir("/f")
        with trio.move_on_after(30):
            await it.uploads.drain(30)
    assert server.tree()["f"] is None
    assert conflict_copies(server) == [b"ours"]


async def test_equal_bytes_are_no_conflict(tmp_path: Path, autojump_clock: MockClock) -> None:
    """When somebody else stored the same bytes, there is nothing left to do."""
    server = FakeDav()
    async with rig(server, tmp_path / "c") as it:
        content = it.new_file("/f", b"the same", delay_s=1)
        server.put("/f", b"the same")
        assert await it.uploads.drain(60) == 0
        assert not content.dirty
    assert server.tree() == {"f": b"the same"}


@warns("not sent")
async def test_a_write_during_the_comparison_is_no_conflict(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A write while the server's bytes are compared with ours makes no conflict copy."""
    server = FakeDav()
    server.put("/f", b"base")
    server.inject(Fault("PUT", lost="after"))
    server.inject(Fault("GET", delay_s=5))
    async with rig(server, tmp_path / "c") as it:
        content = await it.overwritten_file("/f", b"first")
        with trio.move_on_after(3):
            await it.uploads.drain()
        content.write(0, b"SECON")
        assert await it.uploads.drain(60) == 0
        assert it.uploads.conflicts == []
    assert server.tree() == {"f": b"SECON"}


@warns("conflict")
async def test_a_file_made_with_its_folder_by_somebody_else_is_not_overwritten(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A folder that comes back with a version of our file, while we make it again, is looked at first."""
    server = FakeDav()
    server.mkdir("/d")
    server.put("/d/f", b"base")
    server.inject(Fault("MKCOL", delay_s=5))
    async with rig(server, tmp_path / "c") as it:
        await it.overwritten_file("/d/f", b"ours", delay_s=1)
        server.delete("/d")
        await trio.sleep(3)
        server.mkdir("/d")
        server.put("/d/f", b"theirs")
        assert await it.uploads.drain(60) == 0
    assert server.content("/d/f") == b"theirs"
    assert conflict_copies(server) == [b"ours"]


# --- lost answers ---------------------------------------------------------------------------------


@warns("not sent")
async def test_a_put_whose_answer_was_lost_is_found(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A PUT that arrived although its answer did not is acknowledged by a look, without a second PUT."""
    server = FakeDav()
    server.put("/f", b"base")
    server.inject(Fault("PUT", lost="after"))
    async with rig(server, tmp_path / "c") as it:
        content = await it.overwritten_file("/f", b"ours")
        assert await it.uploads.drain(60) == 0
        assert not content.dirty
    assert len(server.requests("PUT")) == 1
    assert server.tree() == {"f": b"ours"}


@warns("not sent")
@pytest.mark.parametrize("exists", [True, False])
async def test_a_put_that_did_not_arrive_is_repeated(
    tmp_path: Path, autojump_clock: MockClock, exists: bool
) -> None:
    """A PUT that was lost on its way is looked for, and sent again under the same condition."""
    server = FakeDav()
    if exists:
        server.put("/f", b"base")
    server.inject(Fault("PUT", times=3, lost="before"))
    wire = Watched(server)
    async with rig(wire, tmp_path / "c") as it:
        content = await it.overwritten_file("/f", b"ours") if exists else it.new_file("/f", b"ours")
        assert await it.uploads.drain(60) == 0
        assert not content.dirty
    assert server.tree() == {"f": b"ours"}
    assert len(set(wire.conditions)) == 1


@warns("not sent")
async def test_a_write_after_a_lost_answer_is_no_conflict_with_ourselves(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Our own PUT, found later under changed bytes, is a version of ours and not somebody else's."""
    server = FakeDav()
    server.put("/f", b"base")
    server.inject(Fault("PUT", lost="after"))
    async with rig(server, tmp_path / "c") as it:
        content = await it.overwritten_file("/f", b"first")
        await trio.sleep(0.5)
        await content.prepare_write()
        content.write(5, b" and second")
        assert await it.uploads.drain(60) == 0
    assert server.tree() == {"f": b"first and second"}


@warns("conflict")
@warns("not sent")
async def test_a_write_after_the_lost_put_of_an_empty_file(tmp_path: Path, autojump_clock: MockClock) -> None:
    """An empty file that arrived without an answer is ours as well: touch, and write a moment later."""
    server = FakeDav()
    server.inject(Fault("PUT", lost="after"))
    async with rig(server, tmp_path / "c") as it:
        content = it.new_file("/f", b"")
        await trio.sleep(0.5)
        await content.prepare_write()
        content.write(0, b"text")
        assert await it.uploads.drain(60) == 0
    assert server.tree() == {"f": b"text"}


@warns("conflict")
@warns("not sent")
async def test_somebody_else_after_a_lost_answer_is_a_conflict(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A lost answer is no licence: what somebody else stored after it stays."""
    server = FakeDav()
    server.put("/f", b"base")
    server.inject(Fault("PUT", lost="after"))
    async with rig(server, tmp_path / "c") as it:
        await it.overwritten_file("/f", b"ours")
        await trio.sleep(0.5)
        server.put("/f", b"them")
        assert await it.uploads.drain(60) == 0
    assert server.content("/f") == b"them"
    assert conflict_copies(server) == [b"ours"]


# --- refusals -------------------------------------------------------------------------------------


@warns("not sent")
@pytest.mark.parametrize("status", [507, 423, 403, 413, 500])
async def test_what_the_server_refuses_stays_pending(
    tmp_path: Path, autojump_clock: MockClock, status: int
) -> None:
    """A refused file stays at its path, readable, with the reason, and goes out when the server lets it."""
    server = FakeDav()
    fault = server.inject(Fault("PUT", times=1000, status=status))
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("f", os.O_RDWR | os.O_CREAT)
        await vfs.write(fd, b"precious")
        with pytest.raises(DavfsError):
            await vfs.fsync(fd)
        await vfs.close(fd)
        assert await fs.sync(20) == 1
        assert fs.pending_paths() == ["/f"]
        assert str(status) in str(fs.status()["pending"])
        assert await vfs.listdir("") == ["f"]
        assert (await vfs.stat("f")).size == 8
        fd = await vfs.open("f")
        assert await vfs.read(fd) == b"precious"
        await vfs.close(fd)
        assert server.tree() == {}
        fault.times = 0
        assert await fs.sync(20) == 0
    assert server.tree() == {"f": b"precious"}


@warns("not sent")
async def test_a_drain_waits_for_the_attempt_that_runs(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The refusal of the attempt before is not the answer of the one that is on its way."""
    server = FakeDav()
    server.inject(Fault("PUT", status=413))
    async with rig(server, tmp_path / "c") as it:
        content = it.new_file("/f", b"refused")
        assert await it.uploads.drain(5) == 1
        server.inject(Fault("PUT", delay_s=3))
        content.truncate(3)
        it.uploads.schedule(it.node("/f"), content, 0)
        await trio.sleep(1)
        assert await it.uploads.drain(30) == 0
    assert server.content("/f") == b"ref"


@warns("not sent")
@warns("409")
async def test_a_name_that_is_not_utf_8_can_be_refused(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A refusal about a name of any bytes is an error of that file, and the mount goes on."""
    server = FakeDav()
    fault = server.inject(Fault("PUT", times=1000, status=409))
    async with rig(server, tmp_path / "c") as it:
        it.new_file("/\udcff", b"x")
        assert await it.uploads.drain(5, patient=False) == 1
        fault.times = 0
        assert await it.uploads.drain(60) == 0
    assert server.content("/\udcff") == b"x"


async def test_folders_that_somebody_removed_are_made_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """An edit wins over the deletion of the folders around it."""
    server = FakeDav()
    async with rig(server, tmp_path / "c") as it:
        it.new_file("/a/b/f", b"ours")
        assert await it.uploads.drain(60) == 0
    assert server.tree() == {"a": None, "a/b": None, "a/b/f": b"ours"}


async def test_a_file_that_somebody_removed_is_stored_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """An edit wins over a deletion."""
    server = FakeDav()
    server.put("/f", b"base")
    async with rig(server, tmp_path / "c") as it:
        await it.overwritten_file("/f", b"ours", delay_s=1)
        server.delete("/f")
        assert await it.uploads.drain(60) == 0
    assert server.tree() == {"f": b"ours"}


# --- waiting --------------------------------------------------------------------------------------


async def test_drain_counts_what_is_left(tmp_path: Path, autojump_clock: MockClock) -> None:
    """When time runs out the files that are not sent are counted, and go on being sent."""
    server = FakeDav()
    server.inject(Fault("PUT", path="/slow", delay_s=25))
    async with rig(server, tmp_path / "c") as it:
        it.new_file("/slow", b"x")
        it.new_file("/quick", b"x")
        started_s = trio.current_time()
        assert await it.uploads.drain(10) == 1
        assert trio.current_time() - started_s == pytest.approx(10, abs=0.1)
        assert server.tree() == {"quick": b"x"}
        assert await it.uploads.drain(60) == 0


@warns("not sent")
@warns("403")
async def test_drain_does_not_wait_for_what_cannot_pass(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A file that the server refuses for good does not hold up the drain."""
    server = FakeDav()
    server.inject(Fault("PUT", times=1000, status=403))
    async with rig(server, tmp_path / "c") as it:
        it.new_file("/f", b"x")
        with trio.fail_after(30):
            assert await it.uploads.drain() == 1


async def test_an_abandoned_file_is_not_sent(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A file that was unlinked before it was sent leaves no request and nothing pending."""
    server = FakeDav()
    async with rig(server, tmp_path / "c") as it:
        content = it.new_file("/f", b"x", delay_s=5)
        await it.uploads.abandon(content)
        it.tree.removed(it.node("/f"))
        await trio.sleep(10)
        assert it.uploads.pending() == []
    assert server.requests() == []


# --- the next run ---------------------------------------------------------------------------------


@warns("not sent")
async def test_unsent_files_are_sent_after_a_crash(tmp_path: Path, autojump_clock: MockClock) -> None:
    """After kill -9 every unsent file goes out at its path, those with an unknown outcome after a look."""
    server = FakeDav()
    server.mkdir("/d")
    server.put("/changed", b"base")
    server.inject(Fault("PUT", path="/arrived", lost="after"))
    async with rig(server, tmp_path / "c") as it:
        it.new_file("/arrived", b"arrived")
        await trio.sleep(0.5)
        it.new_file("/d/new", b"new", delay_s=1000)
        await it.overwritten_file("/changed", b"changed", delay_s=1000)
        shutil.copytree(tmp_path / "c", tmp_path / "after")
    puts = len(server.requests("PUT"))
    async with rig(server, tmp_path / "after", recover=True) as it:
        assert sorted(path_of(item.content) for item in it.uploads.pending()) == [
            "arrived",
            "changed",
            "d/new",
        ]
        assert await it.uploads.drain(60) == 0
    assert server.tree() == {"d": None, "d/new": b"new", "changed": b"changed", "arrived": b"arrived"}
    assert len(server.requests("PUT")) - puts == 2


@warns("conflict")
async def test_two_unsent_files_of_one_path_are_both_sent(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A power loss in the middle of a rename can leave that: the newest keeps the name, neither is lost."""
    server = FakeDav()
    with opened(tmp_path / "c") as store:
        for data in (b"older", b"newest"):
            content = store.create(5, at("/doc"), size=0, base=None)
            store.acquire(content)
            content.write(0, data)
    async with running(server, URL, Settings(str(tmp_path / "c"))) as fs:
        assert await fs.sync(60) == 0
    assert server.content("/doc") == b"newest"
    assert conflict_copies(server) == [b"older"]


@warns("conflict")
async def test_a_file_and_a_folder_of_one_name_in_the_journal(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """As a salvaged journal may have them: the folder keeps the name, the file stands beside it."""
    server = FakeDav()
    with opened(tmp_path) as store:
        for number, path in enumerate(("a", "a/b")):
            content = store.create_unsent(100 + number, at(path), base=None, mode=None)
            store.acquire(content)
            content.write(0, path.encode())
    async with rig(server, tmp_path, recover=True) as parts:
        assert await parts.uploads.drain(60) == 0
    assert sorted(data for data in server.tree().values() if data) == [b"a", b"a/b"]
    assert server.content("/a/b") == b"a/b"


@warns("conflict")
async def test_a_conflict_is_seen_after_a_crash(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What somebody else stored while the daemon was dead is not overwritten by the next run."""
    server = FakeDav()
    server.put("/f", b"base")
    async with rig(server, tmp_path / "c") as it:
        await it.overwritten_file("/f", b"ours", delay_s=1000)
    server.put("/f", b"theirs")
    async with rig(server, tmp_path / "c", recover=True) as it:
        assert await it.uploads.drain(60) == 0
    assert server.content("/f") == b"theirs"
    assert conflict_copies(server) == [b"ours"]


# --- names ----------------------------------------------------------------------------------------


@contextmanager
def within_cpu_seconds(seconds: float) -> Iterator[None]:
    """Raises TimeoutError out of an endless loop; pytest's own alarm stays untouched."""

    def too_long(_signal: int, _frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


NOON = time.struct_time((2026, 1, 31, 12, 0, 0, 5, 31, 0))


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("report.odt", 1, "report (conflict host 2026-01-31 120000).odt"),
        ("report.odt", 2, "report (conflict host 2026-01-31 120000 2).odt"),
        ("Makefile", 1, "Makefile (conflict host 2026-01-31 120000)"),
        (".bashrc", 1, ".bashrc (conflict host 2026-01-31 120000)"),
        ("a.tar.gz", 1, "a.tar (conflict host 2026-01-31 120000).gz"),
    ],
)
def test_the_name_of_a_conflict_copy(name: str, count: int, expected: str) -> None:
    """It says what it is, whose it is and when, and keeps the suffix."""
    assert conflict_name(name, "host", NOON, count) == expected


@pytest.mark.parametrize(
    "name", ["x" * 255, "ä" * 127, "x" * 251 + ".odt", "a." + "b" * 253, "a." + "ä" * 126, "\udcff" * 255]
)
def test_the_name_of_a_conflict_copy_fits(name: str) -> None:
    """However long the name was, that of its conflict copy is another one of at most 255 bytes."""
    with within_cpu_seconds(1):
        made = conflict_name(name, "a-host-with-a-name", NOON, 999)
    assert len(os.fsencode(made)) <= 255
    assert "(conflict " in made
    assert made != name
    at(made)


@warns("not sent")
async def test_what_is_written_while_a_lock_is_waited_for_is_sent_too(tmp_path: Path) -> None:
    """A lock whose answer was lost is asked for before the body: a write in between is not in the body, and
    is not counted as sent with it."""
    server = FakeDav(conditions=False)
    server.tells_owners, server.most_lock_s = False, 0.5
    server.put("/file", b"old" * 40_000)
    server.inject(Fault("LOCK", lost="after"))
    async with rig(server, tmp_path / "c") as it:
        content = await it.overwritten_file("/file", b"a" * 100_000)
        with trio.fail_after(20):
            while not server.requests("LOCK"):
                await trio.sleep(0.01)
            slow = server.inject(Fault("LOCK", delay_s=0.5))
            while slow.times:
                await trio.sleep(0.01)
        await content.prepare_write()
        content.write(0, b"b")
        assert await it.uploads.drain(60) == 0
    assert server.content("/file") == b"b" + b"a" * 99_999
