"""Another client changes what we see. It knows nothing of us: plain HTTP."""

from __future__ import annotations

import errno
import os

import pytest

from tests.contract.refusing import refused
from tests.contract.stage import SEEN_WITHIN_S, Drive, Stage


@pytest.mark.feature("another client's change is seen")
def test_their_change(drive: Drive) -> None:
    """The next open after the time-out has the new bytes, though the old ones are in the cache."""
    drive.store("a", b"old")
    assert drive.read_file("a") == b"old"
    drive.put_there("a", b"new and longer")
    drive.eventually(lambda: drive.stat("a").size == 14, "it is not seen", within_s=SEEN_WITHIN_S)
    assert drive.read_file("a") == b"new and longer"


@pytest.mark.feature("another client's new file is seen")
def test_their_new_file(drive: Drive) -> None:
    """In the listing and by name, after the time-out; with its bytes."""
    assert drive.listdir() == []
    with refused(errno.ENOENT):
        drive.stat("a")
    drive.put_there("a", b"theirs")
    drive.eventually(lambda: drive.listdir() == ["a"], "it is not seen", within_s=SEEN_WITHIN_S)
    assert drive.read_file("a") == b"theirs"


@pytest.mark.feature("another client's unlink is seen")
def test_their_unlink(drive: Drive) -> None:
    """ENOENT after the time-out, and the name can be used again."""
    drive.store("a", b"ours")
    drive.rival.delete(drive.server_path("a"))
    drive.eventually(lambda: drive.listdir() == [], "it is still seen", within_s=SEEN_WITHIN_S)
    with refused(errno.ENOENT):
        drive.open("a")
    drive.store("a", b"again")
    assert drive.on_server("a") == b"again"


@pytest.mark.feature("both sides wrote: both are kept")
@pytest.mark.expects_warning("was changed by somebody else")
def test_both_wrote(stage: Stage, drive: Drive) -> None:
    """Theirs keeps the name, ours stands beside it; no byte of either is lost."""
    drive.store("a.txt", b"base")
    fd = drive.open("a.txt", os.O_RDWR)
    drive.pwrite(fd, b"ours here", 0)
    drive.put_there("a.txt", b"theirs, meanwhile")
    drive.fsync(fd)
    drive.close(fd)
    names = drive.rival.names(drive.there)
    assert len(names) == 2, names
    beside = next(name for name in names if name != "a.txt")
    assert beside.startswith("a (conflict ")
    assert drive.on_server("a.txt") == b"theirs, meanwhile"
    assert drive.on_server(beside) == b"ours here"


@pytest.mark.feature("a new file that another client makes at the same time")
@pytest.mark.expects_warning("was changed by somebody else")
def test_both_made(drive: Drive) -> None:
    """Both are kept, whatever the server thinks of conditions."""
    fd = drive.open("new", os.O_RDWR | os.O_CREAT)
    drive.write_all(fd, b"ours")
    drive.put_there("new", b"theirs!")
    drive.fsync(fd)
    drive.close(fd)
    kept = {drive.on_server(name) for name in drive.rival.names(drive.there)}
    assert kept == {b"ours", b"theirs!"}


@pytest.mark.feature("an open file stays one version")
def test_one_version(drive: Drive) -> None:
    """A handle reads the version it was opened on, or ESTALE; never a mixture."""
    drive.find_there("a", b"A" * 3_000_000)
    fd = drive.open("a")
    assert drive.pread(fd, 10, 0) == b"A" * 10
    drive.put_there("a", b"B" * 3_000_001)
    try:
        found = drive.pread(fd, 10, 2_900_000)
    except OSError as error:
        found = errno.errorcode[error.errno or 0].encode()
    assert found in (b"A" * 10, b"ESTALE", b"EIO")
    drive.close(fd)
    drive.eventually(lambda: drive.stat("a").size == 3_000_001, "it is not seen", within_s=SEEN_WITHIN_S)
    assert drive.read_file("a") == b"B" * 3_000_001


@pytest.mark.feature("two mounts see each other")
def test_two_mounts(stage: Stage, drive: Drive) -> None:
    """What one stores the other reads, changes, renames and removes."""
    other = stage.elsewhere(drive)
    drive.store("a", b"one")
    other.eventually(lambda: "a" in other.listdir(), "it is not seen")
    other.store("a", b"one, two")
    drive.eventually(lambda: drive.stat("a").size == 8, "the change is not seen")
    assert drive.read_file("a") == b"one, two"
    other.rename("a", "b")
    drive.eventually(lambda: drive.listdir() == ["b"], "the rename is not seen")
    assert drive.read_file("b") == b"one, two"
    drive.unlink("b")
    other.eventually(lambda: other.listdir() == [], "the unlink is not seen")
