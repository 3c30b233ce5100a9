"""Bytes: written in every way, they are read back here, and the server has them."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable

import pytest

from tests.contract.refusing import refused
from tests.contract.stage import Drive, Stage

KIB = 1024
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL


def some(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.feature("create, write, read")
def test_create_write_read(drive: Drive) -> None:
    """What was written is read at once, and the server has it when fsync returns."""
    fd = drive.open("a", NEW)
    drive.write_all(fd, b"hello")
    assert drive.read_file("a") == b"hello"
    drive.fsync(fd)
    assert drive.on_server("a") == b"hello"
    drive.close(fd)
    assert drive.stat("a").size == 5


@pytest.mark.feature("a file closed without fsync arrives")
def test_arrives_by_itself(drive: Drive) -> None:
    """Nobody asks for it: it is on the server soon after the last close."""
    drive.write_file("a", b"by itself")
    drive.eventually(lambda: drive.on_server("a") == b"by itself", "it did not arrive")


@pytest.mark.feature("file of {} bytes")
@pytest.mark.parametrize("size", [0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1])
def test_sizes_around_a_block(drive: Drive, size: int) -> None:
    """Empty, one byte, and around 64 KiB: here, on the server, and in another mount."""
    data = some(size)
    drive.store("a", data)
    assert drive.stat("a").size == size
    assert drive.read_file("a") == data
    assert drive.on_server("a") == data


@pytest.mark.feature("5 MiB of random bytes")
def test_five_mebibytes(stage: Stage, drive: Drive) -> None:
    """They arrive whole, and a mount that has nothing of them reads them whole."""
    data = some(5 * KIB * KIB)
    drive.store("a", data)
    assert drive.on_server("a") == data
    other = stage.elsewhere(drive)
    assert other.read_file("a") == data


@pytest.mark.feature("a large file is read in its middle")
def test_read_in_the_middle(drive: Drive) -> None:
    """A piece of 10,000 bytes at an odd offset of another client's file, and its end."""
    data = some(3 * KIB * KIB + 17)
    drive.find_there("a", data)
    fd = drive.open("a")
    assert drive.pread(fd, 10_000, 1_234_567) == data[1_234_567:1_244_567]
    assert drive.pread(fd, 100, len(data) - 5) == data[-5:]
    assert drive.pread(fd, 100, len(data)) == b""
    drive.close(fd)


@pytest.mark.feature("overwrite, longer and shorter")
def test_overwrite(drive: Drive) -> None:
    """The file is the new one, whatever its length; nothing of the old is left behind."""
    for data in (some(1000, 1), some(3000, 2), some(10, 3), b"", some(500, 4)):
        drive.store("a", data)
        assert drive.on_server("a") == data
        assert drive.read_file("a") == data
    assert drive.rival.names(drive.there) == ["a"]


@pytest.mark.feature("many saves within one second, of one size")
def test_saves_within_one_second(drive: Drive) -> None:
    """The last one is what the server has, though tags and times of whole seconds do not tell them apart."""
    for number in range(6):
        drive.store("a", b"%04d" % number)
    assert drive.on_server("a") == b"0005"
    assert drive.read_file("a") == b"0005"
    assert drive.rival.names(drive.there) == ["a"]


@pytest.mark.feature("append")
def test_append(drive: Drive) -> None:
    """O_APPEND writes at the end of what the server has."""
    drive.store("a", b"one\n")
    fd = drive.open("a", os.O_WRONLY | os.O_APPEND)
    drive.write_all(fd, b"two\n")
    drive.fsync(fd)
    drive.close(fd)
    assert drive.on_server("a") == b"one\ntwo\n"


@pytest.mark.feature("append to another client's large file")
def test_append_to_what_was_never_read(drive: Drive) -> None:
    """What was not read yet is not lost."""
    data = some(700_000)
    drive.find_there("a", data)
    fd = drive.open("a", os.O_WRONLY | os.O_APPEND)
    drive.write_all(fd, b"end")
    drive.fsync(fd)
    drive.close(fd)
    assert drive.on_server("a") == data + b"end"


@pytest.mark.feature("truncate by {}, {}")
@pytest.mark.parametrize("to", ["shorter", "longer", "to nothing"])
@pytest.mark.parametrize("by", ["path", "handle"])
def test_truncate(drive: Drive, by: str, to: str) -> None:
    """Shorter cuts, longer fills with zeros, here and there."""
    data = some(100_000)
    size = {"shorter": 33_333, "longer": 150_001, "to nothing": 0}[to]
    drive.store("a", data)
    if by == "path":
        drive.truncate("a", size)
        drive.send("a")
    else:
        fd = drive.open("a", os.O_RDWR)
        drive.ftruncate(fd, size)
        assert drive.fstat(fd).size == size
        drive.fsync(fd)
        drive.close(fd)
    wanted = data[:size] + b"\0" * (size - len(data))
    assert drive.stat("a").size == size
    assert drive.read_file("a") == wanted
    assert drive.on_server("a") == wanted


@pytest.mark.feature("O_TRUNC of what another client wrote")
def test_o_trunc(drive: Drive) -> None:
    """The old bytes are gone at the open, and the new ones replace them."""
    drive.find_there("a", some(5000))
    fd = drive.open("a", os.O_WRONLY | os.O_TRUNC)
    assert drive.stat("a").size == 0
    drive.write_all(fd, b"new")
    drive.fsync(fd)
    drive.close(fd)
    assert drive.on_server("a") == b"new"


@pytest.mark.feature("O_EXCL")
def test_o_excl(drive: Drive) -> None:
    """It makes a file once: EEXIST then, also of what another client made."""
    drive.find_there("b", b"theirs")
    drive.close(drive.open("a", NEW))
    for name in ("a", "b"):
        with refused(errno.EEXIST):
            drive.open(name, NEW)
    assert drive.on_server("b") == b"theirs"


@pytest.mark.feature("a file with holes")
def test_holes(drive: Drive) -> None:
    """What nobody wrote is zeros."""
    fd = drive.open("a", NEW)
    drive.pwrite(fd, b"start", 0)
    drive.pwrite(fd, b"end", 300_001)
    assert drive.pread(fd, 10, 150_000) == b"\0" * 10
    drive.fsync(fd)
    drive.close(fd)
    assert drive.on_server("a") == b"start" + b"\0" * 299_996 + b"end"


@pytest.mark.feature("pread and pwrite at odd offsets")
def test_odd_offsets(drive: Drive) -> None:
    """A hundred pieces at random: the file is what a byte array would be."""
    model = bytearray(some(200_001))
    drive.find_there("a", bytes(model))
    chance = random.Random(7)
    fd = drive.open("a", os.O_RDWR)
    for number in range(100):
        at, size = chance.randrange(200_000), chance.choice([1, 13, 4095, 4097, 9001])
        if number % 2:
            piece = some(size, number)
            drive.pwrite(fd, piece, at)
            model.extend(bytes(max(0, at + size - len(model))))
            model[at : at + size] = piece
        else:
            assert drive.pread(fd, size, at) == bytes(model[at : at + size])
    drive.fsync(fd)
    drive.close(fd)
    assert drive.on_server("a") == bytes(model)


@pytest.mark.feature("mmap, reading")
def test_mmap_read(drive: Drive) -> None:
    """A mapping shows what another client wrote."""
    data = some(300_000)
    drive.find_there("a", data)
    fd = drive.open("a")
    assert drive.call("mmap_read", fd, 123_456, 70_000) == data[123_456:193_456]
    drive.close(fd)


@pytest.mark.feature("mmap, writing")
def test_mmap_write(drive: Drive) -> None:
    """What is written through a mapping arrives, and the rest of the file with it."""
    data = some(100_000)
    drive.find_there("a", data)
    fd = drive.open("a", os.O_RDWR)
    drive.call("mmap_write", fd, 5000, b"MAPPED")
    drive.fsync(fd)
    drive.close(fd)
    assert drive.on_server("a") == data[:5000] + b"MAPPED" + data[5006:]


@pytest.mark.feature("two handles see each other")
def test_two_handles(drive: Drive) -> None:
    """What one writes the other reads at once, and both changes arrive."""
    one = drive.open("a", NEW)
    two = drive.open("a", os.O_RDWR)
    drive.pwrite(one, b"hello world", 0)
    assert drive.pread(two, 20, 0) == b"hello world"
    drive.pwrite(two, b"HELLO", 0)
    assert drive.pread(one, 20, 0) == b"HELLO world"
    drive.fsync(one)
    drive.close(one)
    drive.close(two)
    assert drive.on_server("a") == b"HELLO world"


@pytest.mark.feature("unlink")
def test_unlink(drive: Drive) -> None:
    """It is gone here and there; a second time is ENOENT."""
    drive.store("sent", b"x")
    drive.write_file("unsent", b"x")
    drive.unlink("sent")
    drive.unlink("unsent")
    with refused(errno.ENOENT):
        drive.unlink("sent")
    assert drive.listdir() == []
    assert drive.rival.names(drive.there) == []


@pytest.mark.feature("an unlinked open file")
def test_unlinked_while_open(drive: Drive) -> None:
    """It can be read and written; nothing of it is left when it is closed."""
    data = some(300_000)
    drive.find_there("a", data)
    fd = drive.open("a", os.O_RDWR)
    drive.unlink("a")
    assert drive.fstat(fd).nlink == 0
    assert drive.pread(fd, 1000, 200_000) == data[200_000:201_000]
    drive.pwrite(fd, b"more", 0)
    assert drive.pread(fd, 4, 0) == b"more"
    drive.close(fd)
    assert drive.listdir() == []
    drive.eventually(lambda: drive.rival.names(drive.there) == [], "something is left")


@pytest.mark.feature("a file made again under its old name")
def test_made_again(drive: Drive) -> None:
    """Unlink and create at once: the new one arrives, nothing of the old comes back."""
    drive.store("a", b"old and long")
    drive.unlink("a")
    drive.store("a", b"new")
    assert drive.on_server("a") == b"new"
    assert drive.rival.names(drive.there) == ["a"]


@pytest.mark.feature("the right errno: {}")
@pytest.mark.parametrize("number", ["ENOENT", "EISDIR", "ENOTDIR", "EEXIST", "ENAMETOOLONG"])
def test_errors(drive: Drive, number: str) -> None:
    """What cannot be done says why, with the number that programs know."""
    drive.store("file", b"x")
    drive.mkdir("folder")
    wrong: dict[str, list[Callable[[], object]]] = {
        "ENOENT": [lambda: drive.open("none"), lambda: drive.stat("none/x"), lambda: drive.listdir("none")],
        "EISDIR": [lambda: drive.open("folder", os.O_WRONLY), lambda: drive.unlink("folder")],
        "ENOTDIR": [
            lambda: drive.listdir("file"),
            lambda: drive.open("file/x", os.O_WRONLY | os.O_CREAT),
            lambda: drive.rmdir("file"),
        ],
        "EEXIST": [lambda: drive.mkdir("folder"), lambda: drive.mkdir("file")],
        "ENAMETOOLONG": [lambda: drive.write_file("n" * 256, b"x"), lambda: drive.mkdir("n" * 256)],
    }
    for call in wrong[number]:
        with refused(getattr(errno, number)):
            call()
    assert drive.rival.names(drive.there) == ["file", "folder"]
