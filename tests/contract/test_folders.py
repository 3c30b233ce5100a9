"""Folders: made, listed, removed, deep and wide."""

from __future__ import annotations

import errno

import pytest

from tests.contract.limits import NOT_LISTED, Otherwise
from tests.contract.refusing import refused
from tests.contract.stage import SEEN_WITHIN_S, Drive, Stage

MANY = 1000
DEEP = 24


@pytest.mark.feature("mkdir, list, rmdir")
def test_mkdir_list_rmdir(drive: Drive) -> None:
    """They are there at once, on the server too, and gone again."""
    drive.mkdir("a")
    drive.mkdir("a/b")
    assert drive.listdir("a") == ["b"]
    assert drive.rival.names(f"{drive.there}/a") == ["b"]
    drive.rmdir("a/b")
    drive.rmdir("a")
    assert drive.listdir() == []
    assert drive.rival.names(drive.there) == []
    with refused(errno.ENOENT):
        drive.rmdir("a")


@pytest.mark.feature("rmdir of a folder that is not empty is refused")
def test_rmdir_full(drive: Drive) -> None:
    """ENOTEMPTY, also of what another client put there a moment ago; nothing is removed."""
    drive.mkdir("ours")
    drive.write_file("ours/x", b"x")
    drive.mkdir("theirs")
    drive.listdir("theirs")
    drive.put_there("theirs/x", b"x")
    for name in ("ours", "theirs"):
        with refused(errno.ENOTEMPTY):
            drive.rmdir(name)
    drive.send("ours/x")
    assert drive.on_server("ours/x") == drive.on_server("theirs/x") == b"x"


@pytest.mark.feature("mkdir of what another client just made is refused")
def test_mkdir_over_theirs(drive: Drive) -> None:
    """EEXIST, whatever the server says to MKCOL; what is in it stays."""
    drive.listdir()
    drive.rival.mkcol(drive.server_path("a"))
    drive.put_there("a/x", b"theirs")
    with refused(errno.EEXIST):
        drive.mkdir("a")
    assert drive.on_server("a/x") == b"theirs"


@pytest.mark.feature("a tree 24 folders deep")
def test_deep(stage: Stage, drive: Drive) -> None:
    """Made, filled, read in another mount, removed from below."""
    path = ""
    for level in range(DEEP):
        path = f"{path}/level {level}".lstrip("/")
        drive.mkdir(path)
    drive.store(f"{path}/bottom", b"deep down")
    other = stage.elsewhere(drive)
    assert other.read_file(f"{path}/bottom") == b"deep down"
    drive.unlink(f"{path}/bottom")
    while path:
        drive.rmdir(path)
        path = path.rpartition("/")[0]
    assert drive.rival.names(drive.there) == []


@pytest.mark.feature("a folder of 1,000 files")
def test_wide(drive: Drive) -> None:
    """All are listed once, with their sizes, and each can be opened."""
    drive.rival.mkcol(drive.server_path("wide"))
    names = [f"file {number:04d}" for number in range(MANY)]
    for number, name in enumerate(names):
        drive.rival.put(drive.server_path(f"wide/{name}"), b"x" * (number % 7))
    drive.eventually(lambda: "wide" in drive.listdir(), "the folder is not seen")
    assert drive.listdir("wide") == names
    for number in range(0, MANY, 97):
        assert drive.stat(f"wide/{names[number]}").size == number % 7
        assert drive.read_file(f"wide/{names[number]}") == b"x" * (number % 7)
    drive.unlink(f"wide/{names[0]}")
    assert drive.listdir("wide") == names[1:]


@pytest.mark.feature("rm -r of a tree")
def test_rm_r(drive: Drive) -> None:
    """Nothing of it is left, sent or unsent."""
    for folder in ("t", "t/a", "t/b", "t/a/c"):
        drive.mkdir(folder)
    for name in ("t/x", "t/a/x", "t/a/c/.hidden", "t/b/y z"):
        drive.store(name, b"x")
    drive.write_file("t/a/c/unsent", b"x")
    drive.run(["rm", "-r", "t"])
    assert drive.listdir() == []
    assert drive.rival.names(drive.there) == []


@pytest.mark.feature("hidden files")
def test_hidden(stage: Stage, drive: Drive) -> None:
    """A name with a leading dot is a file like others: listed, opened, kept, removed with its folder."""
    drive.mkdir("d")
    drive.store("d/.hidden", b"h")
    drive.mkdir("d/.git")
    assert drive.listdir("d") == [".git", ".hidden"]
    assert stage.elsewhere(drive).read_file("d/.hidden") == b"h"
    with refused(errno.ENOTEMPTY):
        drive.rmdir("d")
    drive.unlink("d/.hidden")
    drive.rmdir("d/.git")
    drive.rmdir("d")
    assert drive.rival.names(drive.there) == []


@pytest.mark.feature("hidden files are listed by another mount")
def test_hidden_elsewhere(stage: Stage, drive: Drive) -> None:
    """Another machine sees them; at the least it can open them."""
    drive.store(".hidden", b"h")
    other = stage.elsewhere(drive)
    listed = other.listdir()
    assert other.read_file(".hidden") == b"h"
    if listed != [".hidden"]:
        raise Otherwise(NOT_LISTED)


@pytest.mark.feature("another client's folder comes and goes")
def test_their_folder(drive: Drive) -> None:
    """It is seen within the time-out, and ENOENT when it is gone."""
    drive.listdir()
    drive.rival.mkcol(drive.server_path("d"))
    drive.put_there("d/x", b"x")
    drive.eventually(lambda: drive.listdir() == ["d"], "it is not seen", within_s=SEEN_WITHIN_S)
    assert drive.read_file("d/x") == b"x"
    drive.rival.delete(drive.server_path("d/"))
    drive.eventually(lambda: drive.listdir() == [], "it is still seen", within_s=SEEN_WITHIN_S)
    with refused(errno.ENOENT):
        drive.listdir("d")
