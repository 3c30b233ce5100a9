"""Renames of all kinds: what POSIX says about them, on servers that each think otherwise."""

from __future__ import annotations

import errno
import os

import pytest

from tests.contract.refusing import refused
from tests.contract.stage import Drive


@pytest.mark.feature("rename a file")
def test_rename_a_file(drive: Drive) -> None:
    """The bytes are under the new name, nothing is under the old one."""
    drive.store("a", b"x")
    drive.rename("a", "b")
    assert drive.listdir() == ["b"]
    assert drive.rival.names(drive.there) == ["b"]
    assert drive.on_server("b") == b"x"
    with refused(errno.ENOENT):
        drive.stat("a")


@pytest.mark.feature("rename what is not sent yet")
def test_rename_an_unsent_file(drive: Drive) -> None:
    """It arrives under the new name only."""
    drive.write_file("a", b"unsent")
    drive.rename("a", "b")
    drive.send("b")
    assert drive.on_server("b") == b"unsent"
    assert drive.rival.names(drive.there) == ["b"]


@pytest.mark.feature("rename file over file")
def test_rename_over_a_file(drive: Drive) -> None:
    """The other file is replaced, in one step."""
    drive.store("a", b"new")
    drive.store("b", b"old and longer")
    drive.rename("a", "b")
    assert drive.rival.names(drive.there) == ["b"]
    assert drive.on_server("b") == b"new"
    assert drive.read_file("b") == b"new"


@pytest.mark.feature("rename over another client's file")
def test_rename_over_their_file(drive: Drive) -> None:
    """A file that was never read here is replaced as well."""
    drive.find_there("b", b"theirs")
    drive.store("a", b"ours")
    drive.rename("a", "b")
    assert drive.on_server("b") == b"ours"
    assert drive.rival.names(drive.there) == ["b"]


@pytest.mark.feature("rename into another folder")
def test_rename_into_another_folder(drive: Drive) -> None:
    """A file and a folder move to another parent."""
    for folder in ("from", "to", "from/sub"):
        drive.mkdir(folder)
    drive.store("from/file", b"f")
    drive.store("from/sub/x", b"x")
    drive.rename("from/file", "to/file")
    drive.rename("from/sub", "to/sub")
    assert drive.listdir("from") == []
    assert drive.rival.names(f"{drive.there}/to") == ["file", "sub"]
    assert drive.on_server("to/sub/x") == b"x"
    assert drive.read_file("to/sub/x") == b"x"


@pytest.mark.feature("rename a folder")
def test_rename_a_folder(drive: Drive) -> None:
    """All that is in it goes along, here and there; open files too."""
    drive.mkdir("a")
    drive.mkdir("a/sub")
    drive.store("a/sub/x", b"deep")
    fd = drive.open("a/sub/x", os.O_RDWR)
    drive.rename("a", "b")
    assert drive.listdir() == ["b"]
    assert drive.read_file("b/sub/x") == b"deep"
    drive.pwrite(fd, b"DEEP", 0)
    drive.fsync(fd)
    drive.close(fd)
    assert drive.on_server("b/sub/x") == b"DEEP"
    assert drive.on_server("a/sub/x") is None


@pytest.mark.feature("rename folder over an empty folder")
def test_folder_over_an_empty_folder(drive: Drive) -> None:
    """The empty one is replaced."""
    drive.mkdir("a")
    drive.mkdir("b")
    drive.store("a/x", b"x")
    drive.rename("a", "b")
    assert drive.listdir() == ["b"]
    assert drive.rival.names(f"{drive.there}/b") == ["x"]
    assert drive.on_server("b/x") == b"x"


@pytest.mark.feature("rename between kinds is refused: {}")
@pytest.mark.parametrize("kinds", ["folder over a full folder", "file over folder", "folder over file"])
def test_between_kinds(drive: Drive, kinds: str) -> None:
    """ENOTEMPTY, EISDIR, ENOTDIR; what many servers destroy for it is still there."""
    old, new, number = {
        "folder over a full folder": ("folder", "full", errno.ENOTEMPTY),
        "file over folder": ("file", "folder", errno.EISDIR),
        "folder over file": ("folder", "file", errno.ENOTDIR),
    }[kinds]
    drive.mkdir("folder")
    drive.mkdir("full")
    drive.store("full/x", b"x")
    drive.store("file", b"f")
    with refused(number):
        drive.rename(old, new)
    assert drive.rival.names(drive.there) == ["file", "folder", "full"]
    assert drive.on_server("full/x") == b"x"
    assert drive.on_server("file") == b"f"


@pytest.mark.feature("rename folder over a folder that another client just filled is refused")
def test_over_a_folder_that_was_just_filled(drive: Drive) -> None:
    """ENOTEMPTY: nobody's file is destroyed by what was known a moment ago."""
    drive.mkdir("a")
    drive.mkdir("b")
    assert drive.listdir("b") == []
    drive.put_there("b/theirs", b"theirs")
    with refused(errno.ENOTEMPTY):
        drive.rename("a", "b")
    assert drive.on_server("b/theirs") == b"theirs"


@pytest.mark.feature("rename into itself is refused")
def test_into_itself(drive: Drive) -> None:
    """A folder below itself is EINVAL, a file onto itself is nothing; both are still there."""
    drive.mkdir("a")
    drive.store("a/x", b"x")
    with refused(errno.EINVAL):
        drive.rename("a", "a/b")
    drive.rename("a/x", "a/x")
    assert drive.on_server("a/x") == b"x"


@pytest.mark.feature("RENAME_NOREPLACE")
def test_noreplace(drive: Drive) -> None:
    """It renames onto a free name, and is EEXIST onto another client's file that was not seen yet."""
    drive.store("a", b"ours")
    drive.call("rename_noreplace", drive.at("a"), drive.at("b"))
    assert drive.on_server("b") == b"ours"
    drive.listdir()
    drive.put_there("theirs", b"theirs")
    with refused(errno.EEXIST):
        drive.call("rename_noreplace", drive.at("b"), drive.at("theirs"))
    assert drive.on_server("theirs") == b"theirs"
    assert drive.on_server("b") == b"ours"


@pytest.mark.feature("RENAME_EXCHANGE is refused")
def test_exchange(drive: Drive) -> None:
    """WebDAV has no such thing: EINVAL, and nothing is changed."""
    drive.store("a", b"a")
    drive.store("b", b"b")
    with refused(errno.EINVAL):
        drive.call("rename_exchange", drive.at("a"), drive.at("b"))
    assert (drive.on_server("a"), drive.on_server("b")) == (b"a", b"b")


@pytest.mark.feature("rename of what is not there is refused")
def test_missing(drive: Drive) -> None:
    """ENOENT, of the file and of the folder that it should go to."""
    drive.store("a", b"a")
    for old, new in (("none", "b"), ("a", "none/b")):
        with refused(errno.ENOENT):
            drive.rename(old, new)
    assert drive.rival.names(drive.there) == ["a"]


@pytest.mark.feature("a save: write a temporary file, rename it over")
def test_atomic_save(drive: Drive) -> None:
    """A reader finds the old version or the new one at every moment, never half, never none."""
    versions = [b"%02d" % number * (5000 + number) for number in range(10)]
    drive.store("a", versions[0])
    reader = drive.another_program()
    for number, version in enumerate(versions[1:]):
        drive.write_file("a.tmp", version)
        if number % 3 == 0:
            drive.send("a.tmp")
        before = reader.call("read_file", drive.at("a"))
        drive.rename("a.tmp", "a")
        assert before == versions[number]
        assert reader.call("read_file", drive.at("a")) == version
    drive.send("a")
    assert drive.on_server("a") == versions[-1]
    assert drive.rival.names(drive.there) == ["a"]
