"""Names: each is kept over a remount, here and on the server, or refused before anything is stored.

All names are stored first, then the mount ends and begins again: one remount per server for all of them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import pytest

from tests.contract.limits import NOT_LISTED, ONE_FILE, Otherwise
from tests.contract.stage import SEEN_WITHIN_S, Drive, Stage

NAMES: Final = {
    "a blank": "a b",
    "a leading blank": " a",
    "a trailing blank": "a ",
    "a leading dot": ".a",
    "a trailing dot": "a.",
    "%": "50%",
    "%20, as it stands": "a%20b",
    "%2F, as it stands": "a%2Fb",
    "?": "what?",
    "#": "a#b",
    "&": "a&b",
    "+": "a+b",
    ";": "a;b",
    "=": "a=b",
    "@": "a@b",
    "$": "$a",
    "!": "a!",
    ",": "a,b",
    "*": "a*b",
    "vertical bar": "a|b",
    "< and >": "a<b>c",
    "[ and ]": "[a]",
    "{ and }": "{a}",
    "~": "~a",
    "single quote": "it's",
    "double quote": '"a"',
    "backslash": "a\\b",
    "colon": "a:b",
    "a name like an address": "http:",
    "emoji": "😀",
    "Japanese": "日本語",
    "composed ü": "\u00fcber",
    "decomposed ü": "u\u0308nter",
    "byte order mark": "\ufeffa",
    "U+FFFE": "a\ufffe",
    "255 bytes": "n" * 255,
    "255 bytes of UTF-8": "\u3042" * 85,
    "tabulator": "a\tb",
    "new line": "a\nb",
    "control character": "a\x01b",
    "DEL": "a\x7fb",
    "invalid UTF-8": "a\udcff\udcfeb",
    "index.html": "index.html",
    ".htaccess": ".htaccess",
    "a name that ends in .part": "a.part",
}  # fmt: skip


@dataclass
class Stored:
    """What became of each name when it was stored, in the mount that begins after it."""

    drive: Drive
    failed: dict[str, OSError] = field(default_factory=dict)


def _bytes_for(name: str) -> bytes:
    return b"of " + os.fsencode(name)


@pytest.fixture(scope="module")
def stored(stage: Stage) -> Iterator[Stored]:
    """All names in one folder, after a remount."""
    drive = stage.drive()
    drive.mkdir("files")
    drive.mkdir("folders")
    stored = Stored(drive)
    for name in NAMES.values():
        try:
            drive.store(f"files/{name}", _bytes_for(name))
            drive.mkdir(f"folders/{name}")
        except OSError as error:
            stored.failed[name] = error
            _give_up(drive, name)
    drive.store("timed", b"x")
    drive.utime("timed", 1_234_567_890_000_000_000)
    drive.store("moded", b"x")
    drive.chmod("moded", 0o751)
    drive.close_driver()
    stored.drive = stage.again(drive)
    yield stored
    stored.drive.close_driver()


def _give_up(drive: Drive, name: str) -> None:
    """What was refused is kept, and can be read, until it is removed here."""
    if name in drive.listdir("files"):
        assert drive.read_file(f"files/{name}") == _bytes_for(name)
        drive.unlink(f"files/{name}")


@pytest.mark.feature("a name with {}")
@pytest.mark.parametrize("kind", NAMES)
def test_a_name(stage: Stage, stored: Stored, kind: str) -> None:
    """After a remount it is listed, and holds its own bytes; the server and another mount say the same.

    Where it was refused, nothing of it is left, and no name that cannot be opened is listed for it.
    """
    name, drive = NAMES[kind], stored.drive
    if name in stored.failed:
        assert name not in drive.listdir("files")
        assert name not in drive.rival.names(drive.server_path("files"))
        raise stored.failed[name]
    other = stage.elsewhere(drive)
    assert drive.on_server(f"files/{name}") == _bytes_for(name)
    for one in (drive, other):
        are_listed = {name in one.listdir("files"), name in one.listdir("folders")}
        assert one.read_file(f"files/{name}") == _bytes_for(name)
        assert one.listdir(f"folders/{name}") == []
        if are_listed == {False}:
            raise Otherwise(NOT_LISTED)
        assert are_listed == {True}


@pytest.mark.feature("a listing shows only names that can be opened")
def test_all_that_is_listed_opens(stage: Stage, stored: Stored) -> None:
    """And nothing else than what was stored."""
    wanted = sorted(name for name in NAMES.values() if name not in stored.failed)
    for drive in (stored.drive, stage.elsewhere(stored.drive)):
        assert set(drive.listdir("files")) <= set(wanted)
        for name in drive.listdir("files"):
            assert drive.read_file(f"files/{name}") == _bytes_for(name)


@pytest.mark.feature("rename to a name with {}")
@pytest.mark.parametrize("kind", ["blank, %, #, &, +", "? and ;", "emoji"])
def test_rename_to_an_awkward_name(drive: Drive, kind: str) -> None:
    """The file is under exactly this name, or EINVAL and it is where it was; no other file is touched."""
    name = {"blank, %, #, &, +": "a %20 # & +", "? and ;": "x?;y", "emoji": "😀 ü"}[kind]
    drive.store("x", b"bystander")
    drive.store("plain", b"data")
    try:
        drive.rename("plain", name)
    except OSError:
        assert drive.on_server("plain") == b"data"
        raise
    finally:
        assert drive.on_server("x") == b"bystander"
    assert drive.on_server(name) == b"data"
    assert drive.read_file(name) == b"data"
    drive.rename(name, "plain")
    assert drive.on_server("plain") == b"data"


@pytest.mark.feature("a name of 256 bytes is refused")
def test_too_long(drive: Drive) -> None:
    """ENAMETOOLONG from every call, and nothing is stored."""
    for call in (drive.mkdir, lambda name: drive.write_file(name, b"x"), drive.stat):
        with pytest.raises(OSError, match="too long") as caught:
            call("n" * 256)
        assert caught.value.errno == errno.ENAMETOOLONG
    assert drive.rival.names(drive.there) == []


@pytest.mark.feature("names that differ in case only")
def test_case_pairs(stage: Stage, drive: Drive) -> None:
    """Two files, each with its own bytes."""
    drive.store("Name", b"upper")
    drive.store("name", b"lower")
    assert (drive.on_server("Name"), drive.on_server("name")) == (b"upper", b"lower")
    other = stage.elsewhere(drive)
    assert other.listdir() == ["Name", "name"]
    assert (other.read_file("Name"), other.read_file("name")) == (b"upper", b"lower")


@pytest.mark.feature("a rename that changes case only")
def test_rename_case(drive: Drive) -> None:
    """The file has the new name and its bytes."""
    drive.store("readme", b"x")
    drive.rename("readme", "README")
    assert drive.rival.names(drive.there) == ["README"]
    assert drive.on_server("README") == b"x"


@pytest.mark.feature("names that differ in Unicode form only")
@pytest.mark.expects_warning("was changed by somebody else")
def test_unicode_pairs(stage: Stage, drive: Drive) -> None:
    """Composed and decomposed: two files, each with its own bytes, or one file by either name."""
    composed, decomposed = "\u00e9", "e\u0301"
    drive.store(composed, b"composed")
    drive.store(decomposed, b"decomposed")
    if len(drive.listdir()) == 1:
        assert drive.listdir() == stage.elsewhere(drive).listdir() == [composed]
        assert drive.read_file(composed) == drive.read_file(decomposed) == b"decomposed"
        raise Otherwise(ONE_FILE)
    assert drive.on_server(composed) == b"composed"
    other = stage.elsewhere(drive)
    assert sorted(other.listdir()) == sorted([composed, decomposed])
    assert other.read_file(composed) == b"composed"


@pytest.mark.feature("times and modes after a remount")
def test_attributes_after_a_remount(stored: Stored) -> None:
    """What a program set is what it finds."""
    assert stored.drive.stat("timed").mtime_ns == 1_234_567_890_000_000_000
    assert stored.drive.stat("moded").mode & 0o777 == 0o751


@pytest.mark.feature("another client's names are listed and opened")
def test_their_names(drive: Drive) -> None:
    """Whatever the server makes of a name that somebody else stored: what is listed here can be opened."""
    for name in ("a b", "50%", "a#b", "a&b", "\u00fc", "u\u0308x", "x'y", "a+b"):
        drive.put_there(name, _bytes_for(name))
    drive.eventually(lambda: len(drive.listdir()) == 8, "not all are seen", within_s=SEEN_WITHIN_S)
    for name in drive.listdir():
        assert drive.read_file(name) == _bytes_for(name)
