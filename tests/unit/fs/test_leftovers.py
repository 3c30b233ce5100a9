"""Our temporary names on the server: what is cleaned up, when, and what is never touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from davfs.dav.client import Client
from davfs.fs.index import Index
from davfs.fs.leftovers import Leftovers
from davfs.fs.settings import Settings
from davfs.fs.strays import LATE_S
from davfs.fs.tree import HIDDEN_PREFIX
from tests.fakes.davserver import FakeDav, Fault
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL, at

OURS, OTHERS = ".davfs-0011223344556677", ".davfs-8899aabbccddeeff"


def left_behind(folder: Path, *names: str) -> Index:
    """The index of a daemon that was killed before it could clean up, opened again."""
    index = Index(str(folder))
    leftovers = Leftovers(index)
    for name in names:
        leftovers.note(at(name))
    index.close()
    return Index(str(folder))


async def test_what_the_last_daemon_left_is_removed(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The noted names go, and with them the notes; names of another machine stay."""
    server = FakeDav()
    server.put(OURS, b"x")
    server.put(OTHERS, b"theirs")
    index = left_behind(tmp_path, OURS)
    with trio.move_on_after(10):
        await Leftovers(index).clean(Client(server, URL))
    assert server.tree() == {OTHERS: b"theirs"}
    assert index.rows("SELECT path FROM leftovers") == []
    index.close()


async def test_what_was_never_made_costs_one_request(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A crash between the note and the request: the server says 404, and that is that."""
    server = FakeDav()
    index = left_behind(tmp_path, OURS)
    with trio.move_on_after(1000):
        await Leftovers(index).clean(Client(server, URL))
    assert [request.method for request in server.log] == ["DELETE"]
    assert index.rows("SELECT path FROM leftovers") == []
    index.close()


@pytest.mark.expects_warning("")
async def test_a_server_that_is_away_is_asked_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The cleaning goes on when the server is back."""
    server = FakeDav()
    server.put(OURS, b"x")
    server.inject(Fault("DELETE", lost="before", times=20))
    index = left_behind(tmp_path, OURS)
    with trio.move_on_after(3600):
        await Leftovers(index).clean(Client(server, URL))
    assert server.tree() == {}
    index.close()


async def test_a_refused_removal_is_left_to_the_next_daemon(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """403 is not hammered; the note stays."""
    server = FakeDav()
    server.put(OURS, b"x")
    server.inject(Fault("DELETE", status=403, times=100))
    index = left_behind(tmp_path, OURS)
    with trio.move_on_after(3600):
        await Leftovers(index).clean(Client(server, URL))
    assert len(server.log) == 1
    assert len(index.rows("SELECT path FROM leftovers")) == 1
    index.close()


async def test_names_of_this_run_are_left_alone(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What is noted now is in use: only `remove` ends it, and after a failure the background goes on."""
    server = FakeDav()
    server.put(OURS, b"x")
    index = Index(str(tmp_path))
    leftovers, client = Leftovers(index), Client(server, URL)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leftovers.clean, client)
        leftovers.note(at(OURS))
        await trio.sleep(1000)
        assert server.tree() == {OURS: b"x"}
        server.inject(Fault("DELETE", status=503, times=8))
        await leftovers.remove(client, at(OURS))
        await trio.sleep(1000)
        assert server.tree() == {}
        nursery.cancel_scope.cancel()
    index.close()


async def test_what_is_not_noted_is_never_deleted(tmp_path: Path) -> None:
    """A DELETE needs a note, and a note a name with our prefix."""
    server = FakeDav()
    server.put(OTHERS, b"theirs")
    server.put("report", b"x")
    index = Index(str(tmp_path))
    leftovers = Leftovers(index)
    await leftovers.remove(Client(server, URL), at(OTHERS))
    with pytest.raises(ValueError, match="not a temporary name"):
        leftovers.note(at("report"))
    assert server.log == []
    index.close()


@pytest.mark.expects_warning("not sent")
async def test_what_appears_late_is_looked_for_once_more(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A body that was given up lands under its temporary name after the DELETE that found nothing."""
    server = FakeDav(anonymous=True, now_s=lambda: 1.7e9 + trio.current_time())
    server.put("/f", b"old" * 100_000)
    async with running(server, URL, Settings(str(tmp_path))) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("f", os.O_WRONLY)
        await vfs.write(fd, b"ours")
        await vfs.close(fd)
        server.inject(Fault("PUT", lost="before", late_s=20))
        assert await fs.sync(60) == 0
        await trio.sleep(30)
        assert len(server.tree()) == 2
        await trio.sleep(LATE_S)
        assert sorted(server.tree()) == ["f"]
        assert fs._store.index.rows("SELECT path FROM leftovers") == []


@pytest.mark.expects_warning("unexpected ZeroDivisionError")
async def test_a_mistake_in_the_background_ends_nothing(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that ends by an error of ours is begun anew; the drive answers meanwhile."""
    plain, failures = Leftovers._clean_once, [ZeroDivisionError()]

    async def fails_first(self: Leftovers, client: Client) -> bool:
        await trio.lowlevel.checkpoint()
        if failures:
            raise failures.pop()
        return await plain(self, client)

    monkeypatch.setattr(Leftovers, "_clean_once", fails_first)
    server = FakeDav()
    async with running(server, URL, Settings(str(tmp_path))) as fs:
        server.put(f"/{HIDDEN_PREFIX}x", b"")
        fs._leftovers.note(at(f"/{HIDDEN_PREFIX}x"))
        fs._leftovers.give_up(at(f"/{HIDDEN_PREFIX}x"))
        await trio.sleep(20)
        assert not server.tree()
        assert not fs._leftovers._unwanted
        fs._leftovers.give_up(at("/.davfs-never-noted"))
        await trio.sleep(20)
        assert not fs._leftovers._unwanted
