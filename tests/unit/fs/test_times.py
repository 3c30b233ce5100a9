"""Times that programs set, over servers in memory: what is asked, what is believed, what survives."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
import trio
from lxml import etree
from trio.testing import MockClock

from davfs.dav.properties import MTIME
from davfs.dav.resource import Validator
from davfs.fs.settings import Settings
from tests.fakes.davserver import Answer, FakeDav, Fault, File
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL

OLD_NS = 1_000_000_000_123_456_789
OLD_S = OLD_NS // 1_000_000_000
LATER_NS = 1_200_000_000_987_654_321
Mode = Literal["auto", "properties", "local"]


class TimedDav(FakeDav):
    """As Nextcloud (`lastmodified`), IIS (`Win32LastModifiedTime`) and others: `sets` names what sets a time.

    With `moves_tag` that gives the file another tag. With `takes_put` the time goes with a PUT. `after` is
    called when one was set: the other client, that comes between.
    """

    def __init__(
        self, *, sets: str = "", moves_tag: bool = False, takes_put: bool = False, **known: Any
    ) -> None:
        super().__init__(**known)
        self.sets = sets
        self.moves_tag = moves_tag
        self.takes_put = takes_put
        self.after: Callable[[], None] = lambda: None

    def announced(self) -> dict[str, str]:
        """As Nextcloud: of which every way is tried."""
        return {**super().announced(), "DAV": "1, 3, extended-mkcol, nc-calendar-search", "Server": "Apache"}

    def _proppatch(self, asked: Any) -> None:
        element = next(etree.fromstring(asked.body).iterfind("*/{DAV:}prop/*"))
        if etree.QName(element).localname != self.sets:
            super()._proppatch(asked)
            return
        node, text = self._at(asked.parts), element.text or ""
        node.mtime_s = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp()
        if self.moves_tag and isinstance(node, File):
            node.serial = next(self._serials)
        self.after()
        raise Answer(204)

    def _put(self, asked: Any) -> None:
        try:
            super()._put(asked)
        except Answer as answer:
            told = asked.headers.get("x-oc-mtime")
            if self.takes_put and told and answer.status < 300:
                self._at(asked.parts).mtime_s = float(told)
                answer.headers["X-OC-Mtime"] = "accepted"
            raise


@asynccontextmanager
async def drive(
    server: httpx.AsyncBaseTransport, folder: Path, mode: Mode = "auto", cache: str = "cache"
) -> AsyncIterator[Vfs]:
    settings = Settings(str(folder / cache), attr_timeout_min_s=1, attr_timeout_max_s=1, mtime=mode)
    async with running(server, URL, settings) as fs:
        yield Vfs(fs)


async def written(vfs: Vfs, name: str, data: bytes, mtime_ns: int | None = None) -> None:
    """As cp and cp -p do it."""
    fd = await vfs.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    await vfs.write(fd, data)
    if mtime_ns is not None:
        await vfs.futime(fd, mtime_ns)
    await vfs.close(fd)


def proppatches(server: FakeDav) -> int:
    return len(server.requests("PROPPATCH"))


def mtime_of(server: FakeDav, name: str) -> float:
    return server._at((name,)).mtime_s


async def test_the_time_is_set_on_the_server_after_the_upload(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The tag that this changes is no change of another client's: the next save is one PUT, no conflict."""
    server = TimedDav(sets="lastmodified", moves_tag=True)
    async with drive(server, tmp_path) as vfs:
        await written(vfs, "f", b"one", OLD_NS)
        assert await vfs.fs.sync(60) == 0
        assert mtime_of(server, "f") == OLD_S
        assert (await vfs.stat("f")).mtime_ns == OLD_NS
        await trio.sleep(5)
        assert (await vfs.stat("f")).mtime_ns == OLD_NS
        server.log.clear()
        await written(vfs, "f", b"two")
        assert await vfs.fs.sync(60) == 0
    assert server.tree() == {"f": b"two"}
    assert [line.status for line in server.requests("PUT")] == [204]


async def test_the_price_of_properties(tmp_path: Path, autojump_clock: MockClock) -> None:
    """With mtime=properties one PROPPATCH for each file and one for the marker, with a look before and after
    the first of them; the marker is not set again by the next mount.
    """
    server = FakeDav()
    for number, cache in enumerate(("one", "two")):
        async with drive(server, tmp_path, "properties", cache) as vfs:
            server.log.clear()
            for name in "abc":
                await written(vfs, f"{name}{number}", b"x", OLD_NS)
            await vfs.fs.sync(60)
            found = Counter(line.method for line in server.log)
            assert (found["PUT"], found["PROPPATCH"]) == (3, 3 if number else 4)


@pytest.mark.expects_warning("conflict:")
async def test_a_change_between_is_never_taken_for_ours(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Another client's PUT of the same size right after our PROPPATCH: our next save keeps both versions."""
    server = TimedDav(sets="lastmodified", moves_tag=True)
    async with drive(server, tmp_path) as vfs:
        await written(vfs, "f", b"one", OLD_NS)
        server.after = lambda: server.put("/f", b"ONE")
        await vfs.fs.sync(60)
        server.after = lambda: None
        fd = await vfs.open("f", os.O_WRONLY)  # from what was known before
        await vfs.write(fd, b"two")
        await vfs.close(fd)
        assert await vfs.fs.sync(60) == 0
    assert sorted(filter(None, server.tree().values())) == [b"ONE", b"two"]


async def test_a_version_of_another_client_keeps_its_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The time was set on ours: what somebody else put there since is not touched."""
    server = TimedDav(sets="lastmodified")
    server.inject(Fault("PROPPATCH", status=503, times=1))
    async with drive(server, tmp_path) as vfs:
        await written(vfs, "f", b"one", OLD_NS)
        await vfs.fs.sync(60)
        server.put("/f", b"theirs")
        theirs_s = mtime_of(server, "f")
        await trio.sleep(60)
        assert proppatches(server) == 1
        assert mtime_of(server, "f") == theirs_s


@pytest.mark.parametrize("way", ["lastmodified", "getlastmodified", "Win32LastModifiedTime"])
async def test_the_way_that_worked_is_the_way(way: str, tmp_path: Path, autojump_clock: MockClock) -> None:
    """What is only kept as a dead property shows when it is read back: tried once, not for each file."""
    server = TimedDav(sets=way)
    async with drive(server, tmp_path) as vfs:
        await written(vfs, "first", b"x", OLD_NS)
        await vfs.fs.sync(60)
        server.log.clear()
        for number in range(5):
            await written(vfs, str(number), b"x", OLD_NS)
        await vfs.fs.sync(60)
        assert proppatches(server) == 5
        assert {mtime_of(server, str(number)) for number in range(5)} == {OLD_S}


async def test_a_server_that_refuses_is_asked_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Each way for one file, and then never again in this mount: the time is kept here, no trace there."""
    server = TimedDav()
    async with drive(server, tmp_path) as vfs:
        await written(vfs, "a", b"x", OLD_NS)
        await vfs.fs.sync(60)
        assert proppatches(server) == 4  # one was kept as a dead property, and taken back
        assert server._at(("a",)).dead == {}
        for name in "bcd":
            await written(vfs, name, b"x", OLD_NS)
        await vfs.fs.sync(60)
        await vfs.utime("a", LATER_NS)
        await vfs.fs.sync(60)
        assert proppatches(server) == 4
        assert (await vfs.stat("a")).mtime_ns == LATER_NS
        assert (await vfs.stat("b")).mtime_ns == OLD_NS


async def test_a_time_that_goes_with_the_put_costs_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Nextcloud says so in its answer: from the second file on no request is about times."""
    server = TimedDav(takes_put=True, sets="lastmodified")
    async with drive(server, tmp_path) as vfs:
        await written(vfs, "first", b"x", OLD_NS)
        await vfs.fs.sync(60)
        server.log.clear()
        await written(vfs, "f", b"x", OLD_NS)
        await vfs.fs.sync(60)
        assert Counter(line.method for line in server.log) == {"PUT": 1, "PROPFIND": 1}  # which tag it has
        assert mtime_of(server, "f") == OLD_S


@pytest.mark.parametrize("mode", ["auto", "properties"])
async def test_what_programs_only_write_has_no_time_to_tell(
    mode: Mode, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Nor has `touch` of a new file: the upload gives it that very time."""
    server = TimedDav(sets="lastmodified")
    async with drive(server, tmp_path, mode) as vfs:
        await written(vfs, "plain", b"x")
        await written(vfs, "set and written to", b"x", OLD_NS)
        fd = await vfs.open("set and written to", os.O_WRONLY)
        await vfs.write(fd, b"y")
        await vfs.close(fd)
        fd = await vfs.open("touched", os.O_WRONLY | os.O_CREAT)
        await vfs.utime("touched", time.time_ns())
        await vfs.close(fd)
        assert await vfs.fs.sync(60) == 0
        assert proppatches(server) == 0


async def test_local_means_local(tmp_path: Path, autojump_clock: MockClock) -> None:
    """With mtime=local no request is made for a time; it is kept here."""
    server = TimedDav(sets="lastmodified")
    server.put("/old", b"x", mtime_s=5e8)
    async with drive(server, tmp_path, "local") as vfs:
        await written(vfs, "f", b"x", OLD_NS)
        await vfs.utime("old", LATER_NS)
        assert await vfs.fs.sync(60) == 0
        assert proppatches(server) == 0
        assert (await vfs.stat("f")).mtime_ns == OLD_NS
        assert (await vfs.stat("old")).mtime_ns == LATER_NS


async def test_what_is_owed_survives_a_kill(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Rows of the index: the next mount tells the server, by the names that the files have by then."""
    server = TimedDav(sets="lastmodified")
    busy = server.inject(Fault("PROPPATCH", status=503, times=1000))
    async with drive(server, tmp_path) as vfs:
        await vfs.mkdir("d")
        await written(vfs, "d/f", b"x", OLD_NS)
        await vfs.fs.sync(60)
        await vfs.rename("d", "e")
    assert mtime_of(server, "e") != OLD_S
    busy.times = 0
    async with drive(server, tmp_path) as vfs:
        await trio.sleep(30)
        assert server._at(("e", "f")).mtime_s == OLD_S
        assert len(vfs.fs._tree.owed) == 0


async def test_a_file_that_takes_the_name_keeps_its_own_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A rename over a file whose time is being set waits for that: else the other one would get it."""
    server = TimedDav(sets="lastmodified", conditions=False)
    server.put("/f", b"old", mtime_s=5e8)
    server.put("/g", b"new", mtime_s=6e8)
    slow = server.inject(Fault("PROPPATCH", delay_s=5))
    async with drive(server, tmp_path) as vfs:
        assert sorted(await vfs.listdir("")) == ["f", "g"]
        await vfs.utime("f", LATER_NS)
        await trio.sleep(2)
        await vfs.rename("g", "f")
        await trio.sleep(30)
    assert slow.times == 0
    assert server.tree() == {"f": b"new"}
    assert mtime_of(server, "f") == 6e8


async def test_clean_files_and_folders_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    """touch -d of what the server has had for long."""
    server = TimedDav(sets="lastmodified")
    server.mkdir("/d")
    server.put("/f", b"x", mtime_s=5e8)
    async with drive(server, tmp_path) as vfs:
        await vfs.utime("f", LATER_NS)
        await vfs.utime("d", OLD_NS)
        await vfs.fs.sync(60)
    assert mtime_of(server, "f") == LATER_NS // 1_000_000_000
    assert mtime_of(server, "d") == OLD_S


async def test_dead_properties_only_where_asked_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    """With mtime=properties another mount sees the nanoseconds of files and folders; else no request goes."""
    server = FakeDav()
    async with drive(server, tmp_path) as vfs:
        await written(vfs, "f", b"x", OLD_NS)
        await vfs.fs.sync(60)
        assert proppatches(server) == 0
    async with drive(server, tmp_path, "properties") as vfs:
        await vfs.mkdir("d")
        await written(vfs, "d/g", b"x", LATER_NS)
        await vfs.utime("f", OLD_NS)
        await vfs.fs.sync(60)
        await trio.sleep(5)
        folder = server._at(("d",))
        folder.mtime_s -= 60  # the wall clock of this server does not jump along
        await trio.sleep(5)
        await vfs.utime("d", OLD_NS)
        await vfs.fs.sync(60)
    assert server._at(("d",)).dead[MTIME].startswith("1000000000.123456789 - ")
    async with drive(server, tmp_path, cache="another") as vfs:
        assert (await vfs.stat("f")).mtime_ns == OLD_NS
        assert (await vfs.stat("d/g")).mtime_ns == LATER_NS
        assert (await vfs.stat("d")).mtime_ns == OLD_NS


async def test_a_property_is_void_after_a_put_by_others(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Apache keeps it over the PUT: it names a version that is gone, and says nothing of the new one."""
    server = FakeDav()
    async with drive(server, tmp_path, "properties") as vfs:
        await written(vfs, "f", b"x", OLD_NS)
        await vfs.fs.sync(60)
        node = server._at(("f",))
        kept = dict(node.dead)
        assert MTIME in kept
        server.put("/f", b"y", mtime_s=1.5e9)
        server._at(("f",)).dead.update(kept)
        await trio.sleep(5)
        assert (await vfs.stat("f")).mtime_ns == 1_500_000_000 * 10**9


async def test_what_another_mount_told_last_counts(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The version is the same, so the time that is kept here would hold too: the server's word is newer."""
    server = FakeDav()
    async with drive(server, tmp_path, "properties") as ours:
        await written(ours, "f", b"x", OLD_NS)
        await ours.fs.sync(60)
        async with drive(server, tmp_path, "properties", cache="another") as theirs:
            await theirs.utime("f", LATER_NS)
            await theirs.fs.sync(60)
        await trio.sleep(5)
        assert (await ours.stat("f")).mtime_ns == LATER_NS
        await ours.utime("f", OLD_NS)
        assert (await ours.stat("f")).mtime_ns == OLD_NS


async def test_ctime_does_not_follow_an_old_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A program that sets an old mtime sees the ctime of its change, also after the file was forgotten."""
    server = FakeDav()
    async with drive(server, tmp_path) as vfs:
        await written(vfs, "f", b"x")
        before = await vfs.stat("f")
        await vfs.utime("f", OLD_NS)
        assert await vfs.fs.sync(60) == 0
        after = await vfs.stat("f")
        assert after.mtime_ns == OLD_NS
        assert after.ctime_ns // 10**9 >= before.mtime_ns // 10**9


async def test_a_date_that_lies_ahead_is_not_waited_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A folder whose date on the server comes in an hour, by its clock or somebody's wish: a few looks."""
    server = FakeDav()
    server.mkdir("/d")
    async with drive(server, tmp_path, "properties") as vfs:
        server._at(("d",)).mtime_s = time.time() + 3600
        await vfs.utime("d", OLD_NS)
        server.log.clear()
        await trio.sleep(1800)
        assert len([entry for entry in server.requests("PROPFIND") if entry.path == "/d"]) <= 10
        assert len(vfs.fs._tree.owed) == 0


@pytest.mark.parametrize(("age_s", "young"), [(1, True), (60, False), (-60, True), (-200_000, False)])
async def test_which_tags_are_too_young_to_tell(tmp_path: Path, age_s: int, young: bool) -> None:
    """Clocks may differ by minutes; a date two days ahead was set, and a change now would have another."""
    async with drive(FakeDav(etags="coarse"), tmp_path) as vfs:
        version = Validator(None, int(time.time()) - age_s, 10)
        assert vfs.fs._client.is_young(version) is young
