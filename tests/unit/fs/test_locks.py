"""Locks over a server in memory: when one is taken, kept, lost, given back, and found again after a crash."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from davfs.dav.locks import LockToken
from davfs.errors import Busy, DavfsError, Locked
from davfs.fs.filesystem import Filesystem
from davfs.fs.grants import FIRST_REFRESH_S, LOCK_FIRST_S, LOCK_TIMEOUT_S, UNKNOWN_HOLDER
from davfs.fs.locks import LOCK_AFTER_S, Policy
from davfs.fs.settings import Settings
from tests.fakes.davserver import Answer, FakeDav, Fault, _Asked
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL, at

WRITE = os.O_WRONLY
NEW = os.O_WRONLY | os.O_CREAT
XATTR = "user.davfs.lock"


def settings(tmp_path: Path, lock: Policy, folder: str = "c") -> Settings:
    return Settings(str(tmp_path / folder), lock=lock)


def lock_requests(server: FakeDav) -> list[tuple[str, int]]:
    return [(entry.method, entry.status) for entry in server.requests("LOCK", "UNLOCK")]


async def closed_and_sent(vfs: Vfs, fs: Filesystem, fd: int) -> None:
    await vfs.close(fd)
    assert await fs.sync(60) == 0


# --- policies -------------------------------------------------------------------------------------


async def test_auto_locks_what_stays_open(tmp_path: Path, autojump_clock: MockClock) -> None:
    """After five seconds of open-for-writing there is one LOCK; after close and upload it is gone."""
    server = FakeDav()
    server.put("/doc", b"old")
    async with running(server, URL, settings(tmp_path, "auto")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", WRITE)
        await trio.sleep(LOCK_AFTER_S - 1)
        assert server.locks == []
        await trio.sleep(2)
        (lock,) = server.locks
        assert lock.parts == ("doc",)
        assert [one["path"] for one in fs.status()["locks"]] == ["/doc"]  # type: ignore[attr-defined]
        await vfs.write(fd, b"new")
        await closed_and_sent(vfs, fs, fd)
        assert fs.status()["locks"] == []
    assert server.content("/doc") == b"new"
    assert lock_requests(server) == [("LOCK", 200), ("UNLOCK", 204)]
    assert [method for method, condition, _ in server.headers if lock.token in condition] == ["PUT"]


async def test_auto_spends_nothing_on_short_writes(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A file that is written and closed at once is one PUT, as without locks."""
    server = FakeDav()
    async with running(server, URL, settings(tmp_path, "auto")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", NEW)
        await vfs.write(fd, b"new")
        await closed_and_sent(vfs, fs, fd)
        await trio.sleep(60)
    assert lock_requests(server) == []


async def test_auto_locks_a_new_file_once_it_is_sent(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What the server never saw is not locked; while it stays open the first upload comes, then the LOCK."""
    server = FakeDav()
    async with running(server, URL, settings(tmp_path, "auto")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", NEW)
        await vfs.write(fd, b"first")
        await trio.sleep(25)
        assert server.locks == []
        await trio.sleep(15)
        assert server.content("/doc") == b"first"
        assert len(server.locks) == 1
        await vfs.write(fd, b" second")
        await closed_and_sent(vfs, fs, fd)
    assert server.content("/doc") == b"first second"
    assert server.locks == []


@pytest.mark.expects_warning("not sent: /doc")
async def test_auto_only_notes_a_foreign_lock(tmp_path: Path, autojump_clock: MockClock) -> None:
    """423 to our LOCK: the open file goes on, its holder shows, and the PUT is refused, not forced."""
    server = FakeDav()
    server.put("/doc", b"old")
    server.lock("/doc", "bob at the office")
    async with running(server, URL, settings(tmp_path, "auto")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", WRITE)
        await trio.sleep(LOCK_AFTER_S + 1)
        assert await vfs.getxattr("doc", XATTR) == b"bob at the office"
        await vfs.write(fd, b"new")
        await vfs.close(fd)
        await fs.sync(5, patient=False)
        assert fs.pending_paths() == ["/doc"]
        server.forget_locks()
        assert await fs.sync(300) == 0
    assert server.content("/doc") == b"new"


async def test_never_asks_for_no_lock(tmp_path: Path, autojump_clock: MockClock) -> None:
    """lock=never: not one LOCK or UNLOCK, however long a file is open."""
    server = FakeDav()
    server.put("/doc", b"old")
    async with running(server, URL, settings(tmp_path, "never")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", WRITE)
        await trio.sleep(120)
        await vfs.write(fd, b"new")
        await closed_and_sent(vfs, fs, fd)
        async with fs._locks.around(at("/doc")) as token:
            assert token is None
    assert lock_requests(server) == []
    assert server.content("/doc") == b"new"


async def test_always_refuses_the_open_of_what_is_locked(tmp_path: Path, autojump_clock: MockClock) -> None:
    """lock=always: EBUSY with the holder in the text; reading is not refused."""
    server = FakeDav()
    server.put("/doc", b"old")
    server.lock("/doc", "bob at the office")
    async with running(server, URL, settings(tmp_path, "always")) as fs:
        vfs = Vfs(fs)
        with pytest.raises(Locked, match="bob at the office") as refused:
            await vfs.open("doc", WRITE)
        assert refused.value.errno == errno.EBUSY
        assert await vfs.getxattr("doc", XATTR) == b"bob at the office"
        fd = await vfs.open("doc", os.O_RDONLY)
        assert await vfs.read(fd, 10) == b"old"
        await vfs.close(fd)
        server.forget_locks()
        await vfs.close(await vfs.open("doc", WRITE))
    assert server.locks == []


async def test_always_of_two_mounts_one_opens(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The second mount that opens a file for writing gets EBUSY, and the file when the first has sent it."""
    server = FakeDav()
    server.put("/doc", b"old")
    async with (
        running(server, URL, settings(tmp_path, "always", "a")) as ours,
        running(server, URL, settings(tmp_path, "always", "b")) as theirs,
    ):
        first, second = Vfs(ours), Vfs(theirs)
        fd = await first.open("doc", WRITE)
        with pytest.raises(Locked):
            await second.open("doc", WRITE)
        assert (await second.getxattr("doc", XATTR)).decode() == ours._locks.owner
        await first.write(fd, b"one")
        await closed_and_sent(first, ours, fd)
        await trio.sleep(61)
        fd = await second.open("doc", WRITE)
        await second.write(fd, b"TWO")
        await closed_and_sent(second, theirs, fd)
    assert server.content("/doc") == b"TWO"
    assert server.locks == []


async def test_always_of_two_creators_one_wins(tmp_path: Path, autojump_clock: MockClock) -> None:
    """O_EXCL on two mounts at once: one winner, whose bytes are there; the other is told at open."""
    server = FakeDav()
    async with (
        running(server, URL, settings(tmp_path, "always", "a")) as ours,
        running(server, URL, settings(tmp_path, "always", "b")) as theirs,
    ):
        first, second = Vfs(ours), Vfs(theirs)
        assert await second.listdir("") == []  # nothing is there, and that is fresh
        fd = await first.open("new", NEW | os.O_EXCL)
        with pytest.raises(DavfsError) as refused:
            await second.open("new", NEW | os.O_EXCL)
        assert refused.value.errno in {errno.EBUSY, errno.EEXIST}
        await first.write(fd, b"one")
        await closed_and_sent(first, ours, fd)
    assert server.tree() == {"new": b"one"}


async def test_a_file_made_by_lock_and_removed_leaves_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Created under lock=always and unlinked before it is sent: the empty file of the LOCK goes too."""
    server = FakeDav()
    async with running(server, URL, settings(tmp_path, "always")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("tmp", NEW)
        assert server.tree() == {"tmp": b""}
        await vfs.unlink("tmp")
        await vfs.close(fd)
    assert server.tree() == {}
    assert server.locks == []


async def test_a_temporary_renamed_over_the_real_file_under_always(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """What editors do works with locks too: the real file has the new bytes, the temporary is gone."""
    server = FakeDav()
    server.put("/doc", b"old")
    async with running(server, URL, settings(tmp_path, "always")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("tmp", NEW)
        await vfs.write(fd, b"new")
        await vfs.close(fd)
        await vfs.rename("tmp", "doc")
        assert await fs.sync(60) == 0
    assert server.tree() == {"doc": b"new"}
    assert server.locks == []


async def test_a_rename_of_an_open_file_locks_the_new_name(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Locks do not move along: UNLOCK before the MOVE, and a new LOCK where the file is now."""
    server = FakeDav()
    server.put("/a", b"old")
    async with running(server, URL, settings(tmp_path, "always")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("a", WRITE)
        await vfs.rename("a", "b")
        await trio.sleep(1)
        assert [lock.parts for lock in server.locks] == [("b",)]
        await vfs.write(fd, b"new")
        await closed_and_sent(vfs, fs, fd)
    assert server.tree() == {"b": b"new"}
    assert server.locks == []


# --- servers without ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [405, 501])
async def test_a_server_that_refuses_lock_is_not_asked_again(
    tmp_path: Path, autojump_clock: MockClock, status: int
) -> None:
    """Class 2 announced and LOCK refused: learned once, files open and are sent all the same."""
    server = FakeDav()
    server.put("/doc", b"old")
    server.inject(Fault("LOCK", times=99, status=status))
    async with running(server, URL, settings(tmp_path, "always")) as fs:
        vfs = Vfs(fs)
        for text in (b"one", b"two"):
            fd = await vfs.open("doc", WRITE)
            await vfs.write(fd, text)
            await closed_and_sent(vfs, fs, fd)
    assert server.content("/doc") == b"two"
    assert lock_requests(server) == [("LOCK", status)]


async def test_one_forbidden_lock_is_about_one_file(tmp_path: Path, autojump_clock: MockClock) -> None:
    """403 may be about this folder only: the file opens without a lock, others are still locked."""
    server = FakeDav()
    server.put("/doc", b"old")
    server.inject(Fault("LOCK", status=403))
    async with running(server, URL, settings(tmp_path, "always")) as fs:
        vfs = Vfs(fs)
        await vfs.close(await vfs.open("doc", WRITE))
        await vfs.close(await vfs.open("doc", WRITE))
    assert lock_requests(server) == [("LOCK", 403), ("LOCK", 200), ("UNLOCK", 204)]


# --- the refresh ----------------------------------------------------------------------------------


async def test_a_short_lock_outlives_a_slow_upload(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The server grants 60 s, the PUT takes 300: the lock is refreshed each 30 s and never lost."""
    server = FakeDav()
    server.most_lock_s = 60
    server.put("/doc", b"old")
    server.inject(Fault("PUT", delay_s=25, times=12))
    async with running(server, URL, settings(tmp_path, "always")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", WRITE)
        (lock,) = server.locks
        for _ in range(10):
            await vfs.write(fd, b"new")
            await vfs.fsync(fd)
            assert [one.token for one in server.locks] == [lock.token]
        await closed_and_sent(vfs, fs, fd)
    locked = [entry.status for entry in server.requests("LOCK")]
    assert len(locked) >= 8
    assert set(locked) == {200}
    asked = [timeout for method, _, timeout in server.headers if method == "LOCK"]
    assert asked[0] == f"Second-{int(LOCK_FIRST_S)}"
    assert set(asked[1:]) == {f"Second-{int(LOCK_TIMEOUT_S)}"}


class RefreshesNothing(FakeDav):
    """As npm's webdav-server and libphodav: 412 to each refresh, of locks that it still has."""

    def _refresh(self, _asked: _Asked) -> None:
        raise Answer(412)


@pytest.mark.expects_warning("the lock on /doc is lost")
async def test_a_server_that_refreshes_nothing(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning; then each lock runs to its end, and the next one follows, as long as the file is open."""
    server = RefreshesNothing()
    server.put("/doc", b"old")
    async with running(server, URL, settings(tmp_path, "auto")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", WRITE)
        await vfs.write(fd, b"new")
        await vfs.fsync(fd)
        locked = 0
        for _ in range(60):
            await trio.sleep(60)
            locked += len(server.locks)
        assert locked >= 50
        assert len([one for one in server.requests("LOCK") if one.status == 412]) == 1
        assert len(server.requests("LOCK")) <= 20
        await closed_and_sent(vfs, fs, fd)
    assert len([one for one in caplog.records if "is lost" in one.getMessage()]) == 1
    assert server.locks == []


@pytest.mark.expects_warning("the lock on /doc is lost")
async def test_a_lost_lock_is_noted_and_taken_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A server that forgot its locks: one warning, the upload arrives, and what is open is locked again."""
    server = FakeDav()
    server.most_lock_s = 60
    server.put("/doc", b"old")
    async with running(server, URL, settings(tmp_path, "always")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", WRITE)
        server.forget_locks()
        await vfs.write(fd, b"new")
        await vfs.fsync(fd)
        await trio.sleep(LOCK_AFTER_S + 31)
        assert len(server.locks) == 1
        await closed_and_sent(vfs, fs, fd)
    assert server.tree() == {"doc": b"new"}
    assert server.locks == []


@pytest.mark.expects_warning("no answer")
async def test_an_outage_does_not_lose_the_lock_by_itself(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Refreshes that find no server are tried again; a lock of ten minutes survives an outage of two."""
    server = FakeDav()
    server.put("/doc", b"old")
    async with running(server, URL, settings(tmp_path, "always")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", WRITE)
        (lock,) = server.locks
        await trio.sleep(FIRST_REFRESH_S + 1)
        outage = server.inject(Fault("LOCK", times=5, lost="before"))
        await trio.sleep(LOCK_TIMEOUT_S - 20)
        assert outage.times == 0
        assert [one.token for one in server.locks] == [lock.token]
        await vfs.close(fd)


# --- answers that are lost ------------------------------------------------------------------------


async def test_a_lock_whose_answer_was_lost_is_known_by_its_owner(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """LOCK worked, its answer did not come: lockdiscovery shows our id, and the lock is ours."""
    server = FakeDav()
    server.put("/doc", b"old")
    server.inject(Fault("LOCK", lost="after"))
    async with running(server, URL, settings(tmp_path, "always")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", WRITE)
        (lock,) = server.locks
        assert fs._locks.token_for(at("/doc")) == LockToken(lock.token)
        await vfs.write(fd, b"new")
        await closed_and_sent(vfs, fs, fd)
    assert server.content("/doc") == b"new"
    assert server.locks == []


async def test_a_lock_that_was_granted_and_answered_502_is_ours(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A proxy lost the answer: the lock is there, with our id, and it is ours."""
    server = FakeDav()
    server.put("/doc", b"old")
    server.inject(Fault("LOCK", status=502, late_s=0.0))  # it is granted all the same
    async with running(server, URL, settings(tmp_path, "always")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", WRITE)
        (lock,) = server.locks
        assert fs._locks.token_for(at("/doc")) == LockToken(lock.token)
        await closed_and_sent(vfs, fs, fd)
    assert server.locks == []


async def test_a_lock_of_ours_that_nobody_knows_any_more_is_given_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The PUT is refused with 423; the lock has our id: the file is sent now, not when the lock ends."""
    server = FakeDav()
    server.put("/doc", b"old")
    async with running(server, URL, settings(tmp_path, "auto")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", WRITE)
        await vfs.write(fd, b"new")
        await fs._client.lock(at("/doc"), fs._locks.owner, 600)  # as one that lands late
        await vfs.close(fd)
        await fs.sync(10)
    assert server.content("/doc") == b"new"
    assert server.locks == []


@pytest.mark.expects_warning("not sent")
async def test_a_lock_that_is_lost_to_us_blocks_a_minute_and_no_body_is_wasted(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A server that shows no owners: until the lost lock ends, the LOCK comes first, and no body is sent."""
    server = FakeDav(conditions=False)
    server.tells_owners = False
    server.put("/doc", b"0")
    server.inject(Fault("LOCK", lost="after"))
    async with running(server, URL, settings(tmp_path, "auto")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", WRITE)
        await vfs.write(fd, b"1")
        await vfs.close(fd)
        assert await fs.sync(LOCK_FIRST_S + 60) == 0
    assert server.content("/doc") == b"1"
    assert len(server.requests("PUT")) == 2  # the one whose LOCK was lost, and the last


async def test_a_lock_request_that_was_cut_off_is_looked_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Cancelled while the LOCK was under way: by our id it is found and given back."""
    server = FakeDav()
    server.put("/doc", b"old")
    server.inject(Fault("LOCK", answer_delay_s=5))
    async with running(server, URL, settings(tmp_path, "auto")) as fs:
        with trio.move_on_after(1):
            async with fs._locks.around(at("/doc")):
                raise AssertionError("there was no answer yet")
        assert len(server.locks) == 1
        await trio.sleep(20)
        assert server.locks == []


async def test_an_upload_that_ends_waits_a_moment_for_its_lock(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The file was gone, and LOCK made an empty one: when the answer comes soon, that goes, and the lock."""
    server = FakeDav()
    server.inject(Fault("LOCK", answer_delay_s=0.5))
    async with running(server, URL, settings(tmp_path, "auto")) as fs:
        with trio.move_on_after(0.1):
            async with fs._locks.around(at("/gone")):
                raise AssertionError("there was no answer yet")
        assert server.tree() == {}
        assert server.locks == []
        assert fs.status()["locks"] == []


async def cut_off_by_a_lock(server: FakeDav, fs: Filesystem) -> None:
    """/doc is written here and removed by somebody else; LOCK has made an empty one, and not answered."""
    vfs = Vfs(fs)
    fd = await vfs.open("doc", WRITE)
    await vfs.write(fd, b"new")
    server.delete("/doc")
    server.inject(Fault("LOCK", answer_delay_s=30))
    await vfs.close(fd)
    await trio.sleep(5)
    assert server.tree()["doc"] == b""


async def test_the_empty_file_of_an_unanswered_lock_is_ours(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The upload is stopped, and the next one finds what the LOCK made: no conflict with ourselves."""
    server = FakeDav(conditions=False)
    server.put("/doc", b"old")
    async with running(server, URL, settings(tmp_path, "auto")) as fs:
        await cut_off_by_a_lock(server, fs)
        (pending,) = fs._uploads.pending()
        await fs._uploads._cancel(pending)
        assert await fs.sync(60) == 0
        await trio.sleep(10)  # until our temporary name is gone
    assert server.tree() == {"doc": b"new"}


async def test_a_rename_finds_the_empty_file_of_an_unanswered_lock(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The file is renamed instead: ours gets the new name, and is not taken for somebody else's."""
    server = FakeDav(conditions=False)
    server.put("/doc", b"old")
    async with running(server, URL, settings(tmp_path, "auto")) as fs:
        await cut_off_by_a_lock(server, fs)
        (pending,) = fs._uploads.pending()
        await fs._uploads._cancel(pending)
        await Vfs(fs).rename("doc", "other")
        assert await fs.sync(60) == 0
        await trio.sleep(10)  # until our temporary name is gone
    assert server.tree() == {"other": b"new"}


async def test_killed_after_a_lock_that_made_an_empty_file(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The row of that LOCK is on disk: the next run takes the empty file for ours, too."""
    server = FakeDav(conditions=False)
    server.put("/doc", b"old")
    async with running(server, URL, settings(tmp_path, "auto", "before")) as fs:
        await cut_off_by_a_lock(server, fs)
        shutil.copytree(tmp_path / "before", tmp_path / "after")
    assert server.tree()["doc"] == b""
    async with running(server, URL, settings(tmp_path, "auto", "after")) as fs:
        assert await fs.sync(200) == 0
    assert {name: data for name, data in server.tree().items() if not name.startswith(".")} == {"doc": b"new"}


async def test_a_lock_whose_answer_was_lost_and_that_made_a_file(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The lock is found by its owner; that the empty file under it is its work, nobody said."""
    server = FakeDav(conditions=False)
    server.put("/doc", b"old")
    async with running(server, URL, settings(tmp_path, "auto")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", WRITE)
        await vfs.write(fd, b"new")
        server.delete("/doc")
        server.inject(Fault("LOCK", lost="after"))
        await closed_and_sent(vfs, fs, fd)
    assert server.tree() == {"doc": b"new"}
    assert server.locks == []


async def test_an_unlock_that_found_no_server_is_repeated(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The name does not stay locked because one UNLOCK got lost."""
    server = FakeDav()
    server.put("/doc", b"old")
    server.inject(Fault("UNLOCK", times=2, lost="before"))
    async with running(server, URL, settings(tmp_path, "always")) as fs:
        vfs = Vfs(fs)
        await vfs.close(await vfs.open("doc", WRITE))
        assert len(server.locks) == 1
        await trio.sleep(30)
        assert server.locks == []


# --- around one change ----------------------------------------------------------------------------


async def test_around_takes_and_gives_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A short lock: one LOCK, one UNLOCK; nested, and under one that is held, none at all."""
    server = FakeDav()
    server.put("/doc", b"old")
    async with running(server, URL, settings(tmp_path, "auto")) as fs:
        locks = fs._locks
        async with locks.around(at("/doc")) as token, locks.around(at("/doc")) as inner:
            assert token is not None
            assert inner == token
            assert locks.token_for(at("/doc")) == token
            assert len(server.locks) == 1
        assert server.locks == []
    assert lock_requests(server) == [("LOCK", 200), ("UNLOCK", 204)]


async def test_around_is_refused_while_another_holds_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Busy, which is tried again soon, when it may be another davfs: the server does not say who it is."""
    server = FakeDav()
    server.tells_owners = False
    server.put("/doc", b"old")
    server.lock("/doc", "bob")
    async with running(server, URL, settings(tmp_path, "auto")) as fs:
        with pytest.raises(Busy, match="somebody else"):
            async with fs._locks.around(at("/doc")):
                raise AssertionError("it is locked")
        assert fs._locks.holder(at("/doc")) == UNKNOWN_HOLDER


async def test_a_lock_whose_taking_was_cancelled_does_not_stand_in_the_way(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """An upload is given up while its LOCK is unanswered: the DELETE that comes next finds and returns it."""
    server = FakeDav()
    server.put("/doc", b"old")
    server.inject(Fault("LOCK", answer_delay_s=3))
    async with running(server, URL, settings(tmp_path, "auto")) as fs:
        with trio.move_on_after(1):
            async with fs._locks.around(at("/doc")):
                raise AssertionError("the answer does not come in time")
        assert len(server.locks) == 1
        await Vfs(fs).unlink("doc")
    assert server.tree() == {}
    assert [entry.status for entry in server.requests("DELETE")] == [204]


async def test_around_makes_no_file(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The file was deleted before the LOCK: the empty one that LOCK made goes at once."""
    server = FakeDav()
    async with (
        running(server, URL, settings(tmp_path, "auto")) as fs,
        fs._locks.around(at("/gone")) as token,
    ):
        assert token is None
        assert server.tree() == {}
    assert server.locks == []


async def saved(vfs: Vfs, fs: Filesystem, data: bytes) -> None:
    fd = await vfs.open("doc", WRITE)
    await vfs.write(fd, data)
    await closed_and_sent(vfs, fs, fd)


async def test_an_unlock_in_vain_is_sent_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Where MOVE over a locked file ends its lock, the first 409 to UNLOCK tells so, and no other is sent."""
    server = FakeDav(
        conditions=False
    )  # like WsgiDAV without its name: staged, and its locks go with the file
    server.put("/doc", b"0")
    async with running(server, URL, settings(tmp_path, "auto")) as fs:
        for data in (b"1", b"2", b"3"):
            await saved(Vfs(fs), fs, data)
        assert fs.status()["locks"] == []
    assert server.content("/doc") == b"3"
    assert lock_requests(server) == [("LOCK", 200), ("UNLOCK", 409), ("LOCK", 200), ("LOCK", 200)]
    assert server.locks == []


async def test_a_file_that_stays_open_is_locked_again_after_a_move_over_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Its lock ended with the version that was replaced; nothing is said, as nobody could do anything."""
    server = FakeDav(conditions=False)
    server.put("/doc", b"0")
    async with running(server, URL, settings(tmp_path, "always")) as fs:
        vfs = Vfs(fs)
        fs._client.capabilities = fs._client.capabilities.learned_move_over_lock(gone=True)
        fd = await vfs.open("doc", WRITE)
        await vfs.write(fd, b"1")
        await vfs.fsync(fd)
        await trio.sleep(1)
        (lock,) = server.locks
        assert fs._locks.token_for(at("/doc")) == LockToken(lock.token)
        await vfs.close(fd)
        assert server.locks == []
    assert server.content("/doc") == b"1"


# --- after a crash --------------------------------------------------------------------------------


async def crash(server: FakeDav, tmp_path: Path, *, write: bool, make: bool = False) -> None:
    """A mount that dies with /doc open for writing; its cache folder is 'after'."""
    async with running(server, URL, settings(tmp_path, "always", "before")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", NEW if make else WRITE)
        if write:
            await vfs.write(fd, b"new")
        assert len(server.locks) == 1
        shutil.copytree(tmp_path / "before", tmp_path / "after")


async def test_the_lock_of_a_sent_file_goes_after_a_crash(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Killed with a clean file open: the next run unlocks it, so that the name is not stuck."""
    server = FakeDav()
    server.put("/doc", b"old")
    await crash(server, tmp_path, write=False)
    assert len(server.locks) == 1
    async with running(server, URL, settings(tmp_path, "always", "after")):
        await trio.sleep(1)
        assert server.locks == []


async def test_the_lock_of_an_unsent_file_is_ours_after_a_crash(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Killed with unsent bytes under a lock: the next run uploads under that very lock, then unlocks."""
    server = FakeDav()
    server.put("/doc", b"old")
    await crash(server, tmp_path, write=True)
    (lock,) = server.locks
    server.headers.clear()
    async with running(server, URL, settings(tmp_path, "always", "after")) as fs:
        assert await fs.sync(60) == 0
    assert server.content("/doc") == b"new"
    assert server.locks == []
    used = [method for method, condition, _ in server.headers if lock.token in condition]
    assert used == ["LOCK", "PUT"]
    assert len(server.requests("LOCK")) == 2  # the first, and a refresh


async def test_a_file_created_under_a_lock_survives_a_crash(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Created and written, then killed: its bytes arrive in the place of the empty file of the LOCK."""
    server = FakeDav()
    await crash(server, tmp_path, write=True, make=True)
    async with running(server, URL, settings(tmp_path, "always", "after")) as fs:
        assert await fs.sync(60) == 0
    assert server.tree() == {"doc": b"new"}
    assert server.locks == []


async def test_a_lock_that_ended_meanwhile_does_not_stop_the_upload(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The next run comes when the lock is long over: it is dropped, and the upload goes without."""
    server = FakeDav()
    server.put("/doc", b"old")
    await crash(server, tmp_path, write=True)
    server.forget_locks()
    async with running(server, URL, settings(tmp_path, "auto", "after")) as fs:
        assert await fs.sync(60) == 0
    assert server.tree() == {"doc": b"new"}


async def test_killed_before_the_answer_to_lock(tmp_path: Path, autojump_clock: MockClock) -> None:
    """LOCK was sent and the daemon killed: the next run finds the lock by its owner and gives it back."""
    server = FakeDav()
    server.put("/doc", b"old")
    async with running(server, URL, settings(tmp_path, "always", "before")) as fs:
        await fs._locks._take(at("/doc"), None)
        fs._locks._tokens._index.run("UPDATE locks SET token=NULL")
        shutil.copytree(tmp_path / "before", tmp_path / "after")
    async with running(server, URL, settings(tmp_path, "always", "after")):
        await trio.sleep(1)
    assert server.locks == []


async def test_killed_between_lock_and_journal(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The LOCK had made an empty file that no program ever got: the next run removes it."""
    server = FakeDav()
    async with running(server, URL, settings(tmp_path, "always", "before")) as fs:
        assert await fs._locks.opened_for_writing(None, at("/new")) is not None
        shutil.copytree(tmp_path / "before", tmp_path / "after")
    assert server.tree() == {"new": b""}
    async with running(server, URL, settings(tmp_path, "always", "after")):
        await trio.sleep(1)
    assert server.tree() == {}
    assert server.locks == []


async def test_an_empty_file_that_a_program_made_is_never_removed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """touch(1), sent, then killed before UNLOCK: the empty file is what was wanted, and stays."""
    server = FakeDav()
    async with running(server, URL, settings(tmp_path, "always", "before")) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("new", NEW)
        await vfs.fsync(fd)
        shutil.copytree(tmp_path / "before", tmp_path / "after")
    assert server.tree() == {"new": b""}
    async with running(server, URL, settings(tmp_path, "always", "after")):
        await trio.sleep(1)
    assert server.tree() == {"new": b""}
    assert server.locks == []
