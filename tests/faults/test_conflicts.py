"""Every way in which two clients can be at odds over a name, and what becomes of both works.

docs/CONFLICTS.md is the table; each row names a test of this file. `ours` is a whole `Filesystem`, `theirs`
changes the server behind its back, between what ours last heard of it and what ours sends next. The server
is `FakeDav`, in its kinds of tags: new for each write, weak while the file is young, none at all.
"""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from davfs.errors import DavfsError
from davfs.fs.settings import Settings
from tests.fakes.davserver import ETags, FakeDav, Fault
from tests.mount.assembly import running
from tests.mount.vfs import Vfs

URL = "http://fake.test/"
START_S = 1_700_000_000.0
KINDS: tuple[ETags, ...] = ("strong", "young", "none")

pytestmark = pytest.mark.expects_warning("")  # a conflict is announced


def _now_s() -> float:
    """Wall time that goes with trio's clock, so that a young file is young however slow the machine is."""
    try:
        return START_S + trio.current_time()
    except RuntimeError:
        return START_S


@pytest.fixture(params=KINDS)
def theirs(request: pytest.FixtureRequest) -> FakeDav:
    """The server, as another client changes it."""
    return FakeDav(etags=request.param, now_s=_now_s)


@pytest.fixture
async def ours(theirs: FakeDav, tmp_path: Path, autojump_clock: MockClock) -> AsyncIterator[Vfs]:
    settings = Settings(cache_dir=str(tmp_path / "cache"))
    async with running(theirs, URL, settings, now_s=_now_s) as fs:
        yield Vfs(fs)


def unhurried(folder: Path) -> Settings:
    """What is written waits, so that something can come between."""
    return Settings(cache_dir=str(folder / "cache"), write_back_s=1000, open_flush_s=1000)


@contextmanager
def refused(*numbers: int) -> Iterator[None]:
    with pytest.raises(DavfsError) as caught:
        yield
    assert caught.value.errno in numbers, caught.value


async def read(ours: Vfs, path: str) -> bytes:
    fd = await ours.open(path)
    try:
        return await ours.read(fd)
    finally:
        await ours.close(fd)


async def save(ours: Vfs, path: str, content: bytes) -> None:
    """Read what is there, write it anew, close: not sent yet."""
    fd = await ours.open(path, os.O_RDWR | os.O_CREAT)
    await ours.read(fd)
    await ours.ftruncate(fd, 0)
    await ours.pwrite(fd, content, 0)
    await ours.close(fd)


async def known(ours: Vfs, theirs: FakeDav, path: str, content: bytes) -> None:
    """A file that both have seen."""
    theirs.put(path, content)
    assert await read(ours, path) == content


async def settled(ours: Vfs, theirs: FakeDav) -> dict[str, bytes | None]:
    """The server's tree when ours has sent everything; a conflict copy's mark is cut down."""
    assert await ours.fs.sync(100) == 0
    return {_plain(name): content for name, content in theirs.tree().items()}


def _plain(name: str) -> str:
    head, mark, tail = name.partition(" (conflict ")
    return f"{head} (conflict){tail.partition(')')[2]}" if mark else name


# --- a file that both change ----------------------------------------------------------------------------


async def test_edit_edit_equal_bytes(ours: Vfs, theirs: FakeDav) -> None:
    """Both wrote the same: there is nothing to keep apart."""
    await known(ours, theirs, "a.txt", b"old")
    await save(ours, "a.txt", b"new")
    theirs.put("a.txt", b"new")
    assert await settled(ours, theirs) == {"a.txt": b"new"}


async def test_edit_edit(ours: Vfs, theirs: FakeDav) -> None:
    """Theirs keeps the name, ours stands beside it."""
    await known(ours, theirs, "a.txt", b"old")
    await save(ours, "a.txt", b"ours")
    theirs.put("a.txt", b"theirs")
    assert await settled(ours, theirs) == {"a.txt": b"theirs", "a (conflict).txt": b"ours"}
    assert await read(ours, "a.txt") == b"theirs"


async def test_edit_edit_by_renaming_over(ours: Vfs, theirs: FakeDav) -> None:
    """A save by temporary file and rename is an edit like any other."""
    await known(ours, theirs, "a.txt", b"old")
    await save(ours, "a.tmp", b"ours")
    await ours.rename("a.tmp", "a.txt")
    theirs.put("a.txt", b"theirs")
    assert await settled(ours, theirs) == {"a.txt": b"theirs", "a (conflict).txt": b"ours"}


async def test_create_create(ours: Vfs, theirs: FakeDav) -> None:
    """Both made a file of one name: theirs keeps it."""
    await save(ours, "a.txt", b"ours")
    theirs.put("a.txt", b"theirs")
    assert await settled(ours, theirs) == {"a.txt": b"theirs", "a (conflict).txt": b"ours"}


async def test_create_create_exclusively(ours: Vfs, theirs: FakeDav) -> None:
    """O_EXCL holds against what this machine knows; what comes at the same time ends as two files."""
    await ours.listdir("")
    theirs.put("a.txt", b"theirs")
    fd = await ours.open("a.txt", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    await ours.write(fd, b"ours")
    await ours.close(fd)
    assert await settled(ours, theirs) == {"a.txt": b"theirs", "a (conflict).txt": b"ours"}


# --- a file that one changes and the other removes ----------------------------------------------------------


async def test_edit_delete(ours: Vfs, theirs: FakeDav) -> None:
    """They removed what we edit: an edit wins over a deletion."""
    await known(ours, theirs, "a.txt", b"old")
    await save(ours, "a.txt", b"ours")
    theirs.delete("a.txt")
    assert await settled(ours, theirs) == {"a.txt": b"ours"}


async def test_edit_delete_of_the_folder(ours: Vfs, theirs: FakeDav) -> None:
    """They removed the folders above it: made again, for our file alone."""
    theirs.mkdir("d")
    theirs.mkdir("d/e")
    theirs.put("d/other", b"other")
    await known(ours, theirs, "d/e/a.txt", b"old")
    await save(ours, "d/e/a.txt", b"ours")
    theirs.delete("d")
    assert await settled(ours, theirs) == {"d": None, "d/e": None, "d/e/a.txt": b"ours"}


@pytest.mark.parametrize("theirs", [FakeDav(etags="strong", now_s=_now_s)], ids=["strong"])
async def test_delete_edit(ours: Vfs, theirs: FakeDav) -> None:
    """We remove what they changed since we saw it: refused once, theirs shows; the second time is meant."""
    await known(ours, theirs, "a.txt", b"old")
    theirs.put("a.txt", b"theirs")
    with refused(errno.ESTALE, errno.EBUSY):
        await ours.unlink("a.txt")
    assert theirs.tree() == {"a.txt": b"theirs"}
    assert await read(ours, "a.txt") == b"theirs"
    await ours.unlink("a.txt")
    assert theirs.tree() == {}


@pytest.mark.parametrize("theirs", [FakeDav(etags="none", now_s=_now_s)], ids=["none"])
async def test_delete_edit_without_tags(ours: Vfs, theirs: FakeDav) -> None:
    """No condition can say which version is meant: it is removed, as by any other client."""
    await known(ours, theirs, "a.txt", b"old")
    theirs.put("a.txt", b"theirs")
    await ours.unlink("a.txt")
    assert theirs.tree() == {}


@pytest.mark.parametrize("theirs", [FakeDav(etags="strong", now_s=_now_s)], ids=["strong"])
async def test_delete_while_an_edit_turns_out_to_be_a_conflict(
    theirs: FakeDav, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Our upload is on its way, and will be refused: then theirs shows, and ours stands beside it, sent."""
    settings = Settings(cache_dir=str(tmp_path / "cache"), write_back_s=0.1)
    async with running(theirs, URL, settings, now_s=_now_s) as fs:
        ours = Vfs(fs)
        await known(ours, theirs, "a.txt", b"old")
        await save(ours, "a.txt", b"ours")
        theirs.put("a.txt", b"theirs")
        theirs.inject(Fault("PUT", answer_delay_s=5))
        await trio.sleep(1)
        with refused(errno.ESTALE):
            await ours.unlink("a.txt")
        assert await settled(ours, theirs) == {"a.txt": b"theirs", "a (conflict).txt": b"ours"}
        assert fs._store.index.unfinished() == []


async def test_delete_of_what_is_open_and_unchanged(
    theirs: FakeDav, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """They removed what is open for writing here, and that was noticed: no write goes into the void."""
    async with running(theirs, URL, unhurried(tmp_path), now_s=_now_s) as fs:
        ours = Vfs(fs)
        theirs.put("a.txt", b"old")
        fd = await ours.open("a.txt", os.O_RDWR)
        theirs.delete("a.txt")
        await trio.sleep(100)
        with refused(errno.ENOENT):
            await ours.stat("a.txt")
        with refused(errno.ESTALE):
            await ours.pwrite(fd, b"ours", 0)
        with refused(errno.ESTALE):
            await ours.ftruncate(fd, 0)
        await ours.close(fd)


async def test_edit_of_a_part_and_delete(theirs: FakeDav, tmp_path: Path, autojump_clock: MockClock) -> None:
    """The rest of a large file was never read here, and is gone with theirs: ours stays here, refused."""
    async with running(theirs, URL, unhurried(tmp_path), now_s=_now_s) as fs:
        ours = Vfs(fs)
        theirs.put("a.bin", bytes(2 << 20))
        fd = await ours.open("a.bin", os.O_RDWR)
        theirs.delete("a.bin")
        await ours.pwrite(fd, b"ours", 0)
        await ours.close(fd)
        assert await fs.sync(100, patient=False) == 1
        assert await ours.getxattr("a.bin", "user.davfs.state") == b"refused"
        assert fs._client.upload_limit.refused_bytes is None  # it was no answer to a PUT
        told = fs.unsent.unsent_bytes("a.bin")
        os.close(told.fd)
        assert told.missing
    assert theirs.tree() == {}


async def test_delete_delete(ours: Vfs, theirs: FakeDav) -> None:
    """Both removed it: it is gone, and nobody is told of an error."""
    await known(ours, theirs, "a.txt", b"old")
    theirs.delete("a.txt")
    await ours.unlink("a.txt")
    assert await settled(ours, theirs) == {}


async def test_delete_of_a_folder_that_they_filled(ours: Vfs, theirs: FakeDav) -> None:
    """rmdir asks the server right before: what they put there stays."""
    await ours.mkdir("d")
    theirs.put("d/a.txt", b"theirs")
    with refused(errno.ENOTEMPTY):
        await ours.rmdir("d")
    assert theirs.tree() == {"d": None, "d/a.txt": b"theirs"}


# --- after a conflict, or while an older version is open ------------------------------------------------


async def in_conflict(ours: Vfs, theirs: FakeDav) -> dict[str, bytes | None]:
    """They changed what we changed: theirs has the name, and no program here has read it."""
    await known(ours, theirs, "a.txt", b"old")
    await save(ours, "a.txt", b"ours")
    theirs.put("a.txt", b"theirs!")
    return await settled(ours, theirs)


async def replace(ours: Vfs, path: str, content: bytes) -> None:
    """Write a temporary file and rename it over `path`."""
    await save(ours, "tmp", content)
    await ours.rename("tmp", path)


async def replace_sent(ours: Vfs, path: str, content: bytes) -> None:
    """The same, with a temporary file that the server has: a MOVE."""
    await save(ours, "tmp", content)
    assert await ours.fs.sync(100) == 0
    await ours.rename("tmp", path)


async def empty_and_write(ours: Vfs, path: str, content: bytes) -> None:
    fd = await ours.open(path, os.O_WRONLY | os.O_TRUNC)
    await ours.pwrite(fd, content, 0)
    await ours.close(fd)


async def cut_and_write(ours: Vfs, path: str, content: bytes) -> None:
    fd = await ours.open(path, os.O_WRONLY)
    await ours.ftruncate(fd, 0)
    await ours.pwrite(fd, content, 0)
    await ours.close(fd)


WAYS = (replace, replace_sent, empty_and_write, cut_and_write)
Way = Callable[[Vfs, str, bytes], Awaitable[None]]


def works(tree: dict[str, bytes | None]) -> list[bytes]:
    return sorted(content for content in tree.values() if content is not None)


@pytest.mark.parametrize("way", WAYS)
async def test_theirs_is_not_replaced_unread(
    ours: Vfs, theirs: FakeDav, autojump_clock: MockClock, way: Way
) -> None:
    """A program that goes on saving after a conflict has not seen theirs: all three survive."""
    await in_conflict(ours, theirs)
    await trio.sleep(20)
    await ours.listdir("")
    await way(ours, "a.txt", b"ours again")
    await settled(ours, theirs)
    assert theirs.content("a.txt") == b"theirs!"
    assert works(theirs.tree()) == [b"ours", b"ours again", b"theirs!"]
    await way(ours, "a.txt", b"and again")
    await settled(ours, theirs)
    assert works(theirs.tree()) == [b"and again", b"ours", b"ours again", b"theirs!"]


@pytest.mark.parametrize("way", WAYS)
async def test_theirs_is_replaced_once_it_was_read(ours: Vfs, theirs: FakeDav, way: Way) -> None:
    """Reading theirs ends it: what is saved then replaces it."""
    await in_conflict(ours, theirs)
    assert await read(ours, "a.txt") == b"theirs!"
    await way(ours, "a.txt", b"merged")
    assert await settled(ours, theirs) == {"a.txt": b"merged", "a (conflict).txt": b"ours"}


@pytest.mark.parametrize("way", WAYS)
async def test_ours_in_place_of_theirs_is_ours_again(
    ours: Vfs, theirs: FakeDav, autojump_clock: MockClock, way: Way
) -> None:
    """They removed theirs: what is saved then is no conflict, nor is what comes next."""
    await in_conflict(ours, theirs)
    theirs.delete("a.txt")
    await trio.sleep(100)
    await save(ours, "a.txt", b"ours again")
    assert await settled(ours, theirs) == {"a.txt": b"ours again", "a (conflict).txt": b"ours"}
    await way(ours, "a.txt", b"and again")
    assert await settled(ours, theirs) == {"a.txt": b"and again", "a (conflict).txt": b"ours"}


async def test_theirs_can_be_removed_unread(ours: Vfs, theirs: FakeDav) -> None:
    """An unlink means what it says: the name is free, and ours is there again without another copy."""
    await in_conflict(ours, theirs)
    await ours.unlink("a.txt")
    await save(ours, "a.txt", b"ours again")
    assert await settled(ours, theirs) == {"a.txt": b"ours again", "a (conflict).txt": b"ours"}


@pytest.mark.parametrize("way", WAYS)
async def test_who_has_an_older_version_open_has_not_seen_theirs(
    ours: Vfs, theirs: FakeDav, autojump_clock: MockClock, way: Way
) -> None:
    """A file that is open here is changed by them, then replaced here: both survive."""
    await known(ours, theirs, "a.txt", b"old")
    fd = await ours.open("a.txt")
    await trio.sleep(100)
    theirs.put("a.txt", b"theirs!")
    await ours.listdir("")
    await way(ours, "a.txt", b"ours")
    assert await settled(ours, theirs) == {"a.txt": b"theirs!", "a (conflict).txt": b"ours"}
    await ours.close(fd)


# --- renames -----------------------------------------------------------------------------------------------


async def test_edit_rename(ours: Vfs, theirs: FakeDav) -> None:
    """They renamed what we edit: theirs stays at its new name, ours is stored under the old one."""
    await known(ours, theirs, "a.txt", b"old")
    await save(ours, "a.txt", b"ours")
    theirs.move("a.txt", "b.txt")
    assert await settled(ours, theirs) == {"a.txt": b"ours", "b.txt": b"old"}


async def test_edit_rename_of_the_folder(ours: Vfs, theirs: FakeDav) -> None:
    """They renamed the folder of what we edit: ours is stored where we wrote it, in a folder made again."""
    theirs.mkdir("d")
    await known(ours, theirs, "d/a.txt", b"old")
    await save(ours, "d/a.txt", b"ours")
    theirs.move("d", "e")
    assert await settled(ours, theirs) == {"d": None, "d/a.txt": b"ours", "e": None, "e/a.txt": b"old"}


async def test_rename_edit(ours: Vfs, theirs: FakeDav) -> None:
    """We rename what they changed: their version goes along."""
    await known(ours, theirs, "a.txt", b"old")
    theirs.put("a.txt", b"theirs")
    await ours.rename("a.txt", "b.txt")
    assert await settled(ours, theirs) == {"b.txt": b"theirs"}
    assert await read(ours, "b.txt") == b"theirs"


async def test_rename_of_an_edit_that_they_changed_too(ours: Vfs, theirs: FakeDav) -> None:
    """We edit and rename, they edit: their version is at the new name, ours beside it."""
    await known(ours, theirs, "a.txt", b"old")
    await save(ours, "a.txt", b"ours")
    theirs.put("a.txt", b"theirs")
    await ours.rename("a.txt", "b.txt")
    assert await settled(ours, theirs) == {"b.txt": b"theirs", "b (conflict).txt": b"ours"}


async def test_rename_rename(ours: Vfs, theirs: FakeDav) -> None:
    """Both renamed it: they were first, ours is ENOENT."""
    await known(ours, theirs, "a.txt", b"old")
    theirs.move("a.txt", "theirs.txt")
    with refused(errno.ENOENT):
        await ours.rename("a.txt", "ours.txt")
    assert await settled(ours, theirs) == {"theirs.txt": b"old"}
    assert await ours.listdir("") == ["theirs.txt"]


async def test_rename_rename_of_an_edit(ours: Vfs, theirs: FakeDav) -> None:
    """Both renamed it and ours holds an edit: that is stored under our name, theirs stays at theirs."""
    await known(ours, theirs, "a.txt", b"old")
    await save(ours, "a.txt", b"ours")
    theirs.move("a.txt", "theirs.txt")
    await ours.rename("a.txt", "ours.txt")
    assert await settled(ours, theirs) == {"theirs.txt": b"old", "ours.txt": b"ours"}


async def test_rename_over_what_they_changed(ours: Vfs, theirs: FakeDav) -> None:
    """We rename a file over one that they changed since we saw it: theirs keeps the name."""
    await known(ours, theirs, "a.txt", b"old")
    await known(ours, theirs, "b.txt", b"ours")
    theirs.put("a.txt", b"theirs")
    await ours.rename("b.txt", "a.txt")
    assert await settled(ours, theirs) == {"a.txt": b"theirs", "a (conflict).txt": b"ours"}


async def test_rename_over_an_edit_of_what_they_removed(ours: Vfs, theirs: FakeDav) -> None:
    """What was to be replaced is gone: the rename is done, and there is nothing to keep beside it."""
    await known(ours, theirs, "a.txt", b"old")
    await known(ours, theirs, "b.txt", b"new")
    await save(ours, "a.txt", b"edited")
    theirs.delete("a.txt")
    await ours.rename("b.txt", "a.txt")
    assert await settled(ours, theirs) == {"a.txt": b"new"}


async def test_rename_onto_a_name_that_they_took(ours: Vfs, theirs: FakeDav) -> None:
    """We rename to a name that was free when we looked: EEXIST, nothing is replaced."""
    await known(ours, theirs, "a.txt", b"ours")
    await ours.listdir("")
    theirs.put("b.txt", b"theirs")
    with refused(errno.EEXIST):
        await ours.rename("a.txt", "b.txt")
    assert await settled(ours, theirs) == {"a.txt": b"ours", "b.txt": b"theirs"}


# --- files and folders ------------------------------------------------------------------------------------


async def test_a_folder_where_our_file_is_to_go(ours: Vfs, theirs: FakeDav) -> None:
    """They made a folder of the name of our unsent file: ours stands beside it."""
    await save(ours, "a.txt", b"ours")
    theirs.mkdir("a.txt")
    theirs.put("a.txt/inside", b"theirs")
    assert await settled(ours, theirs) == {
        "a.txt": None,
        "a.txt/inside": b"theirs",
        "a (conflict).txt": b"ours",
    }


async def test_a_file_where_the_folder_of_our_file_was(ours: Vfs, theirs: FakeDav) -> None:
    """They put a file in place of our folder: the folder is made again beside it, for our file."""
    theirs.mkdir("d")
    await known(ours, theirs, "d/a.txt", b"old")
    await save(ours, "d/a.txt", b"ours")
    theirs.delete("d")
    theirs.put("d", b"theirs")
    await ours.fs.sync(100)
    assert {_plain(name): content for name, content in theirs.tree().items()} == {
        "d": b"theirs",
        "d (conflict)": None,
        "d (conflict)/a.txt": b"ours",
    }


@pytest.mark.parametrize("look", ["list", "stat", "read"])
async def test_a_file_where_the_folder_of_our_file_was_is_seen_first(
    theirs: FakeDav, tmp_path: Path, autojump_clock: MockClock, look: str
) -> None:
    """The same, when a program meets their file before ours are sent: until then our folder shows."""
    theirs.mkdir("d")
    async with running(theirs, URL, unhurried(tmp_path), now_s=_now_s) as fs:
        ours = Vfs(fs)
        await ours.listdir("d")
        await save(ours, "d/a.txt", b"ours")
        await save(ours, "d/b.txt", b"ours too")
        theirs.delete("d")
        theirs.put("d", b"theirs")
        await trio.sleep(100)
        if look == "list":
            assert await ours.listdir("") == ["d"]
        elif look == "stat":
            assert (await ours.stat("d")).is_folder
        else:
            with refused(errno.EISDIR):
                await read(ours, "d")
        assert await settled(ours, theirs) == {
            "d": b"theirs",
            "d (conflict)": None,
            "d (conflict)/a.txt": b"ours",
            "d (conflict)/b.txt": b"ours too",
        }
        assert len(fs.unsent.conflicts()) == 1


async def test_a_folder_makes_way_once(theirs: FakeDav, tmp_path: Path, autojump_clock: MockClock) -> None:
    """Four of its files are refused at the same time, and the answers come one after the other."""
    theirs.mkdir("d")
    async with running(theirs, URL, unhurried(tmp_path), now_s=_now_s) as fs:
        ours = Vfs(fs)
        await ours.listdir("d")
        for name in "abcd":
            await save(ours, f"d/{name}", name.encode())
        theirs.delete("d")
        theirs.put("d", b"theirs")
        for delay_s in (1.2, 0.2):
            theirs.inject(Fault("PROPFIND", times=3, delay_s=delay_s))
        assert await settled(ours, theirs) == {
            "d": b"theirs",
            "d (conflict)": None,
            **{f"d (conflict)/{name}": name.encode() for name in "abcd"},
        }
        assert len(fs.unsent.conflicts()) == 1


async def test_both_make_a_folder(ours: Vfs, theirs: FakeDav) -> None:
    """They were first: EEXIST, and what is in it shows."""
    await ours.listdir("")
    theirs.mkdir("d")
    theirs.put("d/a.txt", b"theirs")
    with refused(errno.EEXIST):
        await ours.mkdir("d")
    assert await ours.listdir("d") == ["a.txt"]


async def test_a_folder_where_they_made_a_file(ours: Vfs, theirs: FakeDav) -> None:
    """EEXIST, and their file shows."""
    await ours.listdir("")
    theirs.put("d", b"theirs")
    with refused(errno.EEXIST):
        await ours.mkdir("d")
    assert await read(ours, "d") == b"theirs"


# --- names that are one name to the server ----------------------------------------------------------------


def _case(name: str) -> str:
    return name.casefold()


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


one_name = pytest.mark.parametrize(
    ("theirs", "their_name", "our_name"),
    [
        pytest.param(FakeDav(same_name=_case, now_s=_now_s), "Report.txt", "report.txt", id="case"),
        pytest.param(
            FakeDav(same_name=_composed, now_s=_now_s), "caf\u00e9.txt", "cafe\u0301.txt", id="NFC and NFD"
        ),
    ],
)


@one_name
async def test_names_that_are_one_to_the_server(
    ours: Vfs, theirs: FakeDav, their_name: str, our_name: str
) -> None:
    """Two names here, one there: what is there keeps it. Another case of it cannot be made, as the server's
    answer to one question shows; in another Unicode form ours stands beside it."""
    theirs.put(their_name, b"theirs")
    assert await ours.listdir("") == [their_name]
    if their_name.casefold() == our_name.casefold():
        with refused(errno.EEXIST):
            await save(ours, our_name, b"ours")
        assert theirs.tree() == {their_name: b"theirs"}
        return
    await save(ours, our_name, b"ours")
    tree = await settled(ours, theirs)
    stem = our_name.removesuffix(".txt")
    assert tree == {their_name: b"theirs", f"{stem} (conflict).txt": b"ours"}
    theirs.delete(their_name)


@one_name
async def test_a_rename_between_names_that_are_one_to_the_server(
    ours: Vfs, theirs: FakeDav, their_name: str, our_name: str
) -> None:
    """The server takes both for the same resource and refuses the direct way: it goes by a third name."""
    for name in list(theirs.tree()):
        theirs.delete(name)
    theirs.put(their_name, b"theirs")
    assert await ours.listdir("") == [their_name]
    await ours.rename(their_name, our_name)
    assert theirs.tree() == {our_name: b"theirs"}
    assert await read(ours, our_name) == b"theirs"


async def test_names_that_differ_in_their_composition_are_two_names(ours: Vfs, theirs: FakeDav) -> None:
    """A server that tells NFC from NFD holds both, and both show."""
    theirs.put("caf\u00e9", b"theirs")
    await save(ours, "cafe\u0301", b"ours")
    assert await settled(ours, theirs) == {"caf\u00e9": b"theirs", "cafe\u0301": b"ours"}
    assert await ours.listdir("") == sorted(["caf\u00e9", "cafe\u0301"])
