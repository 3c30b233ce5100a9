"""Extended attributes: kept by the server, asked for only where there are any, never lost on the way."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from davfs.dav.attributes import xattr_property
from davfs.dav.properties import XATTRS
from tests.fakes.davserver import FakeDav, Fault
from tests.mount.vfs import Vfs
from tests.unit.fs.drive import drive, errno_of, write

ALL_BYTES = bytes(range(256))


def asked(server: FakeDav) -> list[str]:
    found = [entry.method for entry in server.log]
    server.log.clear()
    return found


async def test_what_is_set_comes_back_elsewhere(tmp_path: Path, autojump_clock: MockClock) -> None:
    """On a file, a folder and the root, any bytes, from another mount that knows nothing yet."""
    server = FakeDav()
    server.put("f", b"x")
    server.mkdir("d")
    values = {
        "user.all": ALL_BYTES,
        "user.empty": b"",
        "user.a b/\udcff": b"1",
        "user.big": os.urandom(65536),
    }
    async with drive(server, tmp_path / "a") as vfs:
        for path in ("f", "d", ""):
            for name, value in values.items():
                await vfs.setxattr(path, name, value)
                assert await vfs.getxattr(path, name) == value
    async with drive(server, tmp_path / "b") as vfs:
        for path in ("f", "d", ""):
            assert await vfs.listxattr(path) == sorted(values)
            assert {name: await vfs.getxattr(path, name) for name in values} == values
            await vfs.removexattr(path, "user.all")
            assert await errno_of(vfs.getxattr(path, "user.all")) == errno.ENODATA
            assert await errno_of(vfs.removexattr(path, "user.all")) == errno.ENODATA
            assert await vfs.listxattr(path) == sorted(values.keys() - {"user.all"})


async def test_who_sets_none_pays_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """`ls -l` and `cp -a` ask for each file: no request, also where other files have attributes."""
    server = FakeDav()
    for number in range(100):
        server.put(f"f{number}", b"x")
    async with drive(server, tmp_path / "a") as vfs:
        for _ in range(2):
            await vfs.listdir("")
            server.log.clear()
            for number in range(100):
                assert await vfs.listxattr(f"f{number}") == []
                assert await errno_of(vfs.getxattr(f"f{number}", "user.x")) == errno.ENODATA
                for name in ("security.selinux", "system.posix_acl_access", "trusted.x"):
                    assert await errno_of(vfs.getxattr(f"f{number}", name)) == errno.EOPNOTSUPP
            assert asked(server) == []
            server.put("other", b"x")
            await trio.sleep(61)
            await vfs.setxattr("other", "user.x", b"1")


async def test_values_are_asked_for_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One request brings a file's values, and holds until another client changes one of them."""
    server = FakeDav()
    server.put("f", b"x")
    async with drive(server, tmp_path / "a") as vfs:
        for number in range(8):
            await vfs.setxattr("f", f"user.{number}", b"1")
    async with drive(server, tmp_path / "b") as vfs, drive(server, tmp_path / "c") as other:
        await vfs.listdir("")
        server.log.clear()
        for _ in range(3):
            for name in await vfs.listxattr("f"):
                assert await vfs.getxattr("f", name) == b"1"
        assert asked(server) == ["PROPFIND"]
        await other.setxattr("f", "user.3", b"2")
        await trio.sleep(61)
        assert await vfs.getxattr("f", "user.3") == b"2"


async def test_setting_one_costs_a_look_and_a_proppatch(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The look is for what other clients have set; the first one of a share says so on its root."""
    server = FakeDav()
    server.put("f", b"x")
    async with drive(server, tmp_path) as vfs:
        await vfs.listdir("")
        await vfs.setxattr("f", "user.x", b"12345678")
        server.log.clear()
        await vfs.setxattr("f", "user.y", b"1234")
        assert asked(server) == ["PROPFIND", "PROPPATCH"]


async def test_two_programs_at_once_lose_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The inventory of a file is changed by one at a time."""
    server = FakeDav()
    server.put("f", b"x")
    async with drive(server, tmp_path) as vfs:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(vfs.setxattr, "f", f"user.{number}", b"1")
        assert len(await vfs.listxattr("f")) == 10
    assert len(server.properties("f")[XATTRS].split()) == 11


async def test_an_unsent_file_keeps_them_till_it_is_sent(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Readable at once, through a rename; one PROPPATCH for all of them, after the PUT."""
    server = FakeDav()
    async with drive(server, tmp_path, write_back_s=5) as vfs:
        await write(vfs, "tmp", b"x")
        await vfs.setxattr("tmp", "user.x", b"1")
        await vfs.setxattr("tmp", "user.y", ALL_BYTES)
        await vfs.setxattr("tmp", "user.z", b"1")
        await vfs.listdir("")
        await vfs.removexattr("tmp", "user.z")
        server.log.clear()
        await vfs.rename("tmp", "f")
        assert await vfs.listxattr("f") == ["user.x", "user.y"]
        assert await vfs.getxattr("f", "user.y") == ALL_BYTES
        assert asked(server) == []
        assert await vfs.fs.sync() == 0
        assert [method for method in asked(server) if method != "PROPFIND"] == ["PUT", "PROPPATCH"]
        assert await vfs.getxattr("f", "user.y") == ALL_BYTES
    async with drive(server, tmp_path / "b") as vfs:
        assert await vfs.listxattr("f") == ["user.x", "user.y"]
        assert await vfs.getxattr("f", "user.y") == ALL_BYTES


async def test_they_outlive_the_daemon(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Set on an unsent file, and the daemon ends before it was sent: the next one sends both."""
    server = FakeDav()
    async with drive(server, tmp_path, write_back_s=600) as vfs:
        await write(vfs, "f", b"x")
        await vfs.setxattr("f", "user.x", ALL_BYTES)
        await vfs.mkdir("d")
        await vfs.rename("f", "d/g")
    assert "d/g" not in server.tree()
    async with drive(server, tmp_path) as vfs:
        assert await vfs.getxattr("d/g", "user.x") == ALL_BYTES
        assert await vfs.fs.sync() == 0
    async with drive(server, tmp_path / "b") as vfs:
        assert await vfs.getxattr("d/g", "user.x") == ALL_BYTES


async def test_they_go_with_the_file(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A removed file leaves none to the next one of its name, sent or not."""
    server = FakeDav()
    async with drive(server, tmp_path, write_back_s=5) as vfs:
        for sent in (False, True):
            await write(vfs, "f", b"x")
            await vfs.setxattr("f", "user.x", b"1")
            if sent:
                assert await vfs.fs.sync() == 0
            await vfs.unlink("f")
            await write(vfs, "f", b"y")
            assert await vfs.listxattr("f") == []
            assert await vfs.fs.sync() == 0
            assert await vfs.listxattr("f") == []
            await vfs.unlink("f")


async def test_an_upload_keeps_them(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Also where it goes to a temporary name that then takes the place of the file."""
    for number, server in enumerate((FakeDav(), FakeDav(anonymous=True))):
        server.put("f", b"x" * 100_000)
        async with drive(server, tmp_path / str(number)) as vfs:
            await vfs.setxattr("f", "user.x", ALL_BYTES)
            await write(vfs, "f", b"y" * 100_000)
            assert await vfs.fs.sync() == 0
            assert await vfs.getxattr("f", "user.x") == ALL_BYTES
        assert ("MOVE" in [entry.method for entry in server.log]) == bool(number)
        async with drive(server, tmp_path / f"{number}b") as vfs:
            assert await vfs.getxattr("f", "user.x") == ALL_BYTES


async def test_a_server_without_properties(tmp_path: Path, autojump_clock: MockClock) -> None:
    """EOPNOTSUPP, found out once for a whole mount; nothing is kept that cannot arrive."""
    server = FakeDav()
    server.put("f", b"x")
    server.inject(Fault("PROPPATCH", status=405, times=99))
    async with drive(server, tmp_path, write_back_s=600) as vfs:
        await write(vfs, "new", b"x")
        for path in ("f", "new", ""):
            assert await errno_of(vfs.setxattr(path, "user.x", b"1")) == errno.EOPNOTSUPP
            assert await vfs.listxattr(path) == []
        assert asked(server).count("PROPPATCH") == 1


async def test_values_that_a_server_cuts_are_refused(tmp_path: Path, autojump_clock: MockClock) -> None:
    """ENOSPC for what does not come back as it was; the file is then without it."""
    server = FakeDav()
    server.longest_property = 255
    server.put("f", b"x")
    async with drive(server, tmp_path) as vfs:
        await vfs.setxattr("f", "user.short", b"x" * 200)
        assert await errno_of(vfs.setxattr("f", "user.long", b"x" * 300)) == errno.ENOSPC
        assert await vfs.getxattr("f", "user.short") == b"x" * 200
        assert await errno_of(vfs.getxattr("f", "user.long")) == errno.ENODATA


async def test_limits_of_linux(tmp_path: Path, autojump_clock: MockClock) -> None:
    """64 KiB, 255 bytes of name, no more names than one property holds; EROFS on a mount that only reads."""
    server = FakeDav()
    server.put("f", b"x")
    async with drive(server, tmp_path) as vfs:
        assert await errno_of(vfs.setxattr("f", "user.x", b"x" * 65537)) == errno.E2BIG
        assert await errno_of(vfs.setxattr("f", "user." + "x" * 251, b"x")) == errno.ERANGE
        assert await errno_of(vfs.setxattr("f", "user.davfs.url", b"x")) == errno.EPERM
        assert await errno_of(vfs.setxattr("f", "security.x", b"x")) == errno.EOPNOTSUPP
        assert await errno_of(vfs.removexattr("f", "system.posix_acl_access")) == errno.EOPNOTSUPP
        for number in range(19):
            await vfs.setxattr("f", f"user.x{number:0200}", b"1")
        assert await errno_of(vfs.setxattr("f", f"user.x{99:0200}", b"1")) == errno.ENOSPC
        assert len(await vfs.listxattr("f")) == 19
    async with drive(server, tmp_path / "b", read_only=True) as vfs:
        assert await errno_of(vfs.setxattr("f", "user.x", b"x")) == errno.EROFS


@pytest.mark.expects_warning("conflict")
async def test_a_conflict_copy_takes_them_along(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What was set on our version is not on the one that keeps the name."""
    server = FakeDav()
    async with drive(server, tmp_path, write_back_s=5) as vfs:
        await write(vfs, "f", b"ours")
        await vfs.setxattr("f", "user.x", b"1")
        server.put("f", b"theirs")
        assert await vfs.fs.sync() == 0
        copy = next(name for name in await vfs.listdir("") if "conflict" in name)
        assert await vfs.getxattr(copy, "user.x") == b"1"
        assert await vfs.listxattr("f") == []


async def test_nobody_has_to_ask_for_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What was set before the upload goes by itself after it, and fsync returns when it is there."""
    server = FakeDav()
    async with drive(server, tmp_path, write_back_s=5) as vfs:
        for name in ("first", "second"):
            await write(vfs, name, b"x")
            await vfs.setxattr(name, "user.x", b"1")
        await trio.sleep(30)
        assert XATTRS in server.properties("first")
        fd = await vfs.open("third", os.O_WRONLY | os.O_CREAT)
        await vfs.write(fd, b"x")
        await vfs.setxattr("third", "user.x", b"1")
        await vfs.fsync(fd)
        assert XATTRS in server.properties("third")
        await vfs.close(fd)
        server.inject(Fault("PROPPATCH", status=503, times=3))
        fd = await vfs.open("fourth", os.O_WRONLY | os.O_CREAT)
        await vfs.write(fd, b"x")
        await vfs.setxattr("fourth", "user.x", b"1")
        begun_s = trio.current_time()
        await vfs.fsync(fd)  # the bytes are there
        assert trio.current_time() - begun_s < 20
        await vfs.close(fd)
        await trio.sleep(100)
        assert XATTRS in server.properties("fourth")


async def in_use(*drives: Vfs) -> None:
    """Every mount knows that there are attributes on this share."""
    for vfs in drives:
        await vfs.setxattr("", "user.first", b"1")


async def listed_elsewhere(server: FakeDav, folder: Path, path: str) -> list[str]:
    """By a mount that knows nothing yet."""
    async with drive(server, folder / "elsewhere") as other:
        return await other.listxattr(path)


@pytest.mark.parametrize("files", [1, 5])
async def test_two_mounts_at_once_hide_nothing(tmp_path: Path, autojump_clock: MockClock, files: int) -> None:
    """Each reads and writes the list of names: who was left out of it puts itself in again."""
    server = FakeDav()
    names = [f"f{number}" for number in range(files)]
    for name in names:
        server.put(name, b"x")
    async with drive(server, tmp_path / "a") as ours, drive(server, tmp_path / "b") as theirs:
        await in_use(ours, theirs)
        for name in names:
            fault = server.inject(Fault("PROPPATCH", path=f"/{name}", delay_s=1))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.setxattr, name, "user.ours", b"1")
                await trio.sleep(0.5)
                nursery.start_soon(theirs.setxattr, name, "user.theirs", b"2")
            assert not fault.times
        server.log.clear()
        await trio.sleep(20)
        assert len(server.requests("PROPFIND", "PROPPATCH")) <= 8 * files
        server.log.clear()
        await trio.sleep(40)
        assert not server.requests("PROPPATCH")
    for name in names:
        assert await listed_elsewhere(server, tmp_path, name) == ["user.ours", "user.theirs"]


async def test_one_removes_while_another_sets(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A name that came back into the list without its value goes again; what the other set stays."""
    server = FakeDav()
    server.put("f", b"x")
    async with drive(server, tmp_path / "a") as ours, drive(server, tmp_path / "b") as theirs:
        await in_use(ours, theirs)
        await ours.setxattr("f", "user.old", b"1")
        await trio.sleep(70)
        server.inject(Fault("PROPPATCH", path="/f", delay_s=1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.setxattr, "f", "user.theirs", b"2")
            await trio.sleep(0.5)
            nursery.start_soon(ours.removexattr, "f", "user.old")
        await trio.sleep(20)
        assert len(server.properties("f")) == 2
    assert await listed_elsewhere(server, tmp_path, "f") == ["user.theirs"]


async def test_an_overwrite_does_not_make_old_knowledge_new(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """What another mount set since we looked is in the list still, when we set one right after an upload."""
    server = FakeDav()
    server.put("f", b"x")
    async with drive(server, tmp_path / "a") as ours, drive(server, tmp_path / "b") as theirs:
        await in_use(ours, theirs)
        await ours.stat("f")
        await theirs.setxattr("f", "user.theirs", b"2")
        await write(ours, "f", b"y")
        assert await ours.fs.sync() == 0
        await ours.setxattr("f", "user.ours", b"1")
        assert server.properties("f")[XATTRS].split()[1:] == ["ours", "theirs"]


async def test_after_a_kill_older_ones_are_not_forgotten(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A daemon that sends what the last one left knows nothing of the file that it replaces."""
    server = FakeDav()
    server.put("f", b"x")
    async with drive(server, tmp_path, write_back_s=1000) as vfs:
        await vfs.setxattr("f", "user.old", b"1")
        await write(vfs, "f", b"y")
        await vfs.setxattr("f", "user.new", b"2")
    async with drive(server, tmp_path) as vfs:
        assert await vfs.fs.sync() == 0
        await trio.sleep(10)
    assert server.content("f") == b"y"
    assert await listed_elsewhere(server, tmp_path, "f") == ["user.new", "user.old"]


async def test_while_its_name_changes(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Set during a rename of the file, or of a folder above it: it is on the file, whatever its name."""
    server = FakeDav()
    server.mkdir("d")
    server.put("d/f", b"x")
    async with drive(server, tmp_path) as vfs:
        await in_use(vfs)
        for old, new, before, after in (("d/f", "d/g", "d/f", "d/g"), ("d", "e", "d/g", "e/g")):
            server.inject(Fault("MOVE", answer_delay_s=3))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(vfs.rename, old, new)
                await trio.sleep(1)
                await vfs.setxattr(before, f"user.{new}", b"1")
            assert await vfs.getxattr(after, f"user.{new}") == b"1"
        await trio.sleep(10)
        assert server.properties("e/g")[XATTRS].split()[1:] == ["d_x2F_g", "e"]


async def test_a_rename_waits_for_one_that_is_being_set(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Else it would be set on nothing, or on another file that has the name by then."""
    server = FakeDav()
    server.put("f", b"x")
    async with drive(server, tmp_path) as vfs:
        await in_use(vfs)
        server.inject(Fault("PROPPATCH", path="/f", delay_s=2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(vfs.setxattr, "f", "user.x", b"1")
            await trio.sleep(1)
            await vfs.rename("f", "g")
        assert server.properties("g")[XATTRS].split()[1:] == ["x"]


async def test_an_upload_at_the_same_time_does_not_take_it_away(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A body that takes the place of the file while the attribute is on its way: then it is set again."""
    server = FakeDav()
    server.put("f", b"x")
    async with drive(server, tmp_path, write_back_s=0) as vfs:
        await in_use(vfs)
        server.put("g", b"x")
        await vfs.setxattr("g", "user.first", b"1")  # the server has shown that it keeps those of files
        server.inject(Fault("PROPPATCH", path="/f", answer_delay_s=5))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(vfs.setxattr, "f", "user.x", b"1")
            await trio.sleep(1)
            await write(vfs, "f", b"y")
            await trio.sleep(1)
            server.properties("f").clear()  # as a MOVE that began before it leaves the name
        await trio.sleep(10)
        assert server.content("f") == b"y"
        assert server.properties("f")[XATTRS].split()[1:] == ["x"]


async def test_a_wish_for_what_is_a_folder_by_now(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A row of an earlier daemon takes no unsent file out of the tree that has its place today."""
    server = FakeDav()
    server.mkdir("d")
    async with drive(server, tmp_path, write_back_s=1000) as vfs:
        await write(vfs, "d/unsent", b"x")
        vfs.fs._tree.wishes._index.run(
            "INSERT INTO wishes (ino, name, value, path, is_folder) VALUES (?,?,?,?,?)",
            (123_456_789, xattr_property("user.x"), "1", b"d", 0),
        )
    async with drive(server, tmp_path) as vfs:
        assert await vfs.fs.sync(60) == 0
        assert server.content("d/unsent") == b"x"
