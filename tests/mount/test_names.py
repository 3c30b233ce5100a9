"""Names: what round-trips through a real mount on each server, and which errno the rest get.

One test for each server makes every name in NAMES as a file, as a folder and by rename. A second mount, with
a cache of its own, must list exactly what the first one took, and open all of it. LIMITS has what a server
cannot hold, with the errno. With DAVFS_NAMES=1 on all servers, and with a file for each byte that a name can
hold.

Then names that are one name to a server: by case, by Unicode form, without the dots and blanks at the end.
"""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final, Literal

import pytest

from tests.mount.drivers import KernelDriver
from tests.servers import Iis, Server, Share, SharePoint

MountOf = Callable[..., KernelDriver]

NAMES: Final = {
    "blank": "a b.txt",
    "percent": "100%.txt",
    "escape": "a%41.txt",
    "escaped slash": "a%2Fb",
    "plus": "a+b.txt",
    "hash": "a#b.txt",
    "question": "what?.txt",
    "semicolon": "a;b.txt",
    "ampersand": "a&b=c.txt",
    "quotes": 'it\'s "so".txt',
    "brackets": "a[b]{c}<d>.txt",
    "star": "a*b|c.txt",
    "colon": "12:30.txt",
    "backslash": "a\\b.txt",
    "tilde": "~$doc.docx",
    "at": "~a@!$(c),=.txt",
    "caret": "a^b`c.txt",
    "NFC": unicodedata.normalize("NFC", "e\u0301.txt"),
    "NFD": unicodedata.normalize("NFD", "\u00e0.txt"),
    "wide": "日本語のファイル.txt",
    "emoji": "\U0001f600.txt",
    "hidden": ".hidden",
    "two dots": "..dots",
    "dots within": "a..b",
    "dot at end": "ends.",
    "blank at end": "ends ",
    "blank first": " begins",
    "newline": "new\nline",
    "return": "cr\rx",
    "tab": "tab\tx",
    "control": "\x01ctl",
    "delete": "\x7fdel",
    "no UTF-8": os.fsdecode(b"\xff\xfe raw"),
    "latin-1": os.fsdecode("é".encode("latin-1") + b".txt"),
    "byte order mark": "\ufeffbom",
    "no character": "\ufffe",
    "no-break space": "a\xa0b",
    "device": "con.txt",
    "desktop.ini": "desktop.ini",
    "143 bytes": "m" * 143,
    "200 bytes": "c" * 200,
    "228 bytes": "d" * 228,
    "245 bytes": "l" * 245,
    "255 bytes": "n" * 255,
    "255 bytes wide": "あ" * 85,
}
WINDOWS: Final = ("question", "quotes", "brackets", "star", "colon", "backslash")
ENDS: Final = ("dot at end", "blank at end")
CONTROLS: Final = ("newline", "return", "tab", "control", "delete")
RAW: Final = ("no UTF-8", "latin-1")
ESCAPES: Final = ("percent", "escape", "escaped slash", "plus")
_IIS: Final = (*WINDOWS, *ENDS, *CONTROLS, *RAW, "device")
LIMITS: Final[dict[str, dict[str, int]]] = {
    "apache": {},
    "nginx": {},
    "wsgidav": dict.fromkeys(RAW, errno.EILSEQ),  # the connection ends
    "lighttpd": dict.fromkeys((*CONTROLS, *RAW), errno.EILSEQ),  # 400
    # Listed in another encoding.
    "sabredav": dict.fromkeys((*RAW, "byte order mark", "no character"), errno.EILSEQ),
    "rclone": dict.fromkeys(CONTROLS, errno.EILSEQ),  # stored as pictures of them
    "iis": dict.fromkeys((*_IIS, *ESCAPES), errno.EILSEQ),
    "sharepoint": dict.fromkeys((*_IIS, "desktop.ini", "blank first", "tilde"), errno.EILSEQ),
}
# In no listing, but found by name (servers.md 17).
UNLISTED: Final = {"nginx": {"hidden", "two dots"}}
FOLDERS: Final = ("files", "folders", "renamed")


ALL: Final = os.environ.get("DAVFS_NAMES") == "1"


@pytest.fixture(params=list(LIMITS) if ALL else ["apache", "nginx", "iis"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    scripted = {"iis": Iis, "sharepoint": SharePoint}
    if request.param not in scripted:
        yield request.getfixturevalue(request.param)
        return
    with scripted[request.param]() as one:
        yield one


def outcome(call: Callable[..., object], *arguments: object) -> int:
    try:
        call(*arguments)
    except OSError as error:
        return error.errno or -1
    return 0


def open_all(drive: KernelDriver, folder: str, names: set[str]) -> None:
    for name in names:
        if folder == "folders":
            assert drive.listdir(f"folders/{name}") == []
        else:
            wanted = os.fsencode(name) if folder == "files" else b"plain"
            assert drive.read_file(f"{folder}/{name}") == wanted, name


def test_names(server: Server, mount_of: MountOf) -> None:
    """Each name is stored and found again by another client, or refused with the errno of LIMITS."""
    with server.share() as share:
        drive = mount_of(share)
        for folder in FOLDERS:
            drive.mkdir(folder)
        if server.name == "iis":  # as shipped it says 404 to these, which is learned at the first
            assert outcome(drive.mkdir, "a+b") == errno.EILSEQ
        for n in range(len(NAMES)):
            drive.write_file(f"renamed/plain {n}", b"plain")
        took: dict[str, tuple[int, int, int]] = {}
        files = {
            label: outcome(drive.write_file, f"files/{name}", os.fsencode(name))
            for label, name in NAMES.items()
        }
        assert drive.sync() == 0
        for n, (label, name) in enumerate(NAMES.items()):
            took[label] = (
                files[label],
                outcome(drive.mkdir, f"folders/{name}"),
                outcome(drive.rename, f"renamed/plain {n}", f"renamed/{name}"),
            )
        wanted = {label: (LIMITS[server.name].get(label, 0),) * 3 for label in NAMES}
        assert took == wanted
        assert drive.sync() == 0
        if ALL:
            check_bytes(drive, server.name)
        other = mount_of(share)
        for n, folder in enumerate(FOLDERS):
            stored = {NAMES[label] for label, made in took.items() if not made[n]}
            hidden = {NAMES[label] for label in UNLISTED.get(server.name, ())}
            listed = {name for name in other.listdir(folder) if not name.startswith("plain ")}
            assert listed == stored - hidden
            open_all(other, folder, stored)


def test_one_unicode_form(mount_of: MountOf) -> None:
    """A server that turns names into NFC, which nobody knows of it: one file, by either name, not two."""
    nfd, nfc = (unicodedata.normalize(form, "Zo\u00eb.txt") for form in ("NFD", "NFC"))
    with Iis("plain", form="NFC") as server, server.share() as share:
        drive = mount_of(share)
        drive.write_file(nfd, b"first")
        drive.mkdir(f"folder {nfd}")
        assert drive.sync() == 0
        assert sorted(drive.listdir()) == sorted([f"folder {nfc}", nfc]) == sorted(os.listdir(share.root))
        assert drive.stat(nfd)[0] == drive.stat(nfc)[0]
        drive.write_file(nfd, b"second")
        assert drive.sync() == 0
        assert (share.root / nfc).read_bytes() == drive.read_file(nfc) == drive.read_file(nfd) == b"second"
        drive.write_file("plain", b"moved")
        assert drive.sync() == 0
        drive.rename("plain", f"moved {nfd}")
        assert drive.read_file(f"moved {nfd}") == drive.read_file(f"moved {nfc}") == b"moved"
        drive.unlink(nfd)
        assert sorted(drive.listdir()) == [f"folder {nfc}", f"moved {nfc}"] == sorted(os.listdir(share.root))


def test_forms_kept_apart(apache_share: Share, mount_of: MountOf) -> None:
    """Where both forms can be, they are two files."""
    nfd, nfc = (unicodedata.normalize(form, "Zo\u00eb.txt") for form in ("NFD", "NFC"))
    drive = mount_of(apache_share)
    drive.write_file(nfd, b"nfd")
    drive.write_file(nfc, b"nfc")
    assert drive.sync() == 0
    assert {name: (apache_share.root / name).read_bytes() for name in drive.listdir()} == {
        nfd: b"nfd",
        nfc: b"nfc",
    }


def test_one_of_two_forms_found_by_the_other(rclone_share: Share, mount_of: MountOf) -> None:
    """rclone finds a file by either form and stores it as it was made: so here, and nothing goes over it."""
    nfd, nfc = (unicodedata.normalize(form, "Zo\u00eb.txt") for form in ("NFD", "NFC"))
    drive = mount_of(rclone_share)
    drive.write_file(nfc, b"one")
    assert drive.sync() == 0
    with pytest.raises(FileExistsError):
        drive.open(nfd, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    assert drive.read_file(nfd) == b"one"
    assert drive.listdir() == [nfc]


@pytest.mark.expects_warning("the server")
def test_ends_that_are_cut_off(mount_of: MountOf) -> None:
    """A server that nobody knows cuts blanks and dots off: never shown as saved, and refused from then on."""
    with Iis("plain", strip=". ") as server, server.share() as share:
        drive = mount_of(share)
        fd = drive.open("ends.", os.O_CREAT | os.O_WRONLY)
        drive.write(fd, b"kept here")
        with pytest.raises(PermissionError):
            drive.fsync(fd)
        drive.close(fd)
        assert drive.read_file("ends.") == b"kept here"
        assert "under another name" in drive.getxattr("ends.", "user.davfs.error").decode()
        with pytest.raises(OSError, match="Invalid or incomplete"):
            drive.write_file("other.", b"")
        with pytest.raises(OSError, match="Invalid or incomplete"):
            drive.mkdir("blank ")
        drive.unlink("ends.")


@pytest.mark.parametrize("kind", ["iis", "sharepoint"] if ALL else ["iis"])
def test_case_is_no_difference(kind: Literal["iis", "sharepoint"], mount_of: MountOf) -> None:
    """Only the listed spelling is a name; another cannot be made beside it, and nothing is overwritten."""
    with Iis(kind) as server, server.share() as share:
        share.write("Read.me", b"theirs")
        drive = mount_of(share)
        inode = drive.stat("Read.me")[0]
        for code in (
            outcome(drive.stat, "READ.ME"),
            outcome(drive.read_file, "read.me"),
            outcome(drive.unlink, "READ.ME"),
        ):
            assert code == errno.ENOENT
        drive.write_file("mine", b"mine")
        drive.mkdir("Folder")
        for code in (
            outcome(drive.write_file, "READ.ME", b"x"),
            outcome(drive.open, "read.ME", os.O_CREAT | os.O_EXCL | os.O_WRONLY),
            outcome(drive.mkdir, "READ.me"),
            outcome(drive.rename, "mine", "READ.me"),
            outcome(drive.write_file, "MINE", b"x"),  # ours is not sent yet
            outcome(drive.mkdir, "FOLDER"),
        ):
            assert code == errno.EEXIST
        assert drive.sync() == 0
        assert drive.listdir() == ["Folder", "Read.me", "mine"]
        assert drive.stat("Read.me")[0] == inode
        assert (share.root / "Read.me").read_bytes() == b"theirs"


@pytest.mark.parametrize("kind", ["iis", "sharepoint"] if ALL else ["sharepoint"])
def test_rename_of_case_only(kind: Literal["iis", "sharepoint"], mount_of: MountOf) -> None:
    """MOVE onto itself would destroy it there: it goes by a third name, and nothing is lost, sent or not."""
    with Iis(kind) as server, server.share() as share:
        share.write("a.txt", b"theirs")
        share.write("dir/inner", b"inner")
        drive = mount_of(share)
        drive.listdir()
        inode = drive.stat("a.txt")[0]
        drive.rename("a.txt", "A.txt")
        drive.rename("dir", "DIR")
        drive.write_file("unsent", b"unsent")
        drive.rename("unsent", "UnSent")
        fd = drive.open("A.txt", os.O_WRONLY)
        drive.write(fd, b"THEIRS")
        drive.rename("A.txt", "a.TXT")
        drive.close(fd)
        assert drive.sync() == 0
        assert sorted(os.listdir(share.root)) == ["DIR", "UnSent", "a.TXT"] == sorted(drive.listdir())
        assert drive.stat("a.TXT")[0] == inode
        assert (share.root / "a.TXT").read_bytes() == drive.read_file("a.TXT") == b"THEIRS"
        assert drive.read_file("DIR/inner") == b"inner"
        assert not [one for one in share.log_requests() if one.method == "DELETE"]


def test_case_is_learned(mount_of: MountOf) -> None:
    """A server without case that nobody knows: the first answer about another spelling tells."""
    with Iis("plain", fold_case=True) as server, server.share() as share:
        share.write("Read.me", b"theirs")
        drive = mount_of(share)
        assert outcome(drive.stat, "READ.ME") == errno.ENOENT
        assert outcome(drive.write_file, "READ.ME", b"x") == errno.EEXIST
        drive.rename("Read.me", "read.me")
        assert drive.listdir() == ["read.me"] == os.listdir(share.root)
        assert drive.read_file("read.me") == b"theirs"


def check_bytes(drive: KernelDriver, server: str) -> None:
    """A file for each byte: it is there and right after a remount, or was refused."""
    drive.mkdir("bytes")
    refused = []
    for byte in range(1, 256):
        if byte == ord("/"):
            continue
        name = os.fsdecode(b"x" + bytes([byte]) + b"y")
        code = outcome(drive.write_file, f"bytes/{name}", bytes([byte]))
        assert code in {0, errno.EILSEQ, errno.EEXIST}
        if code:
            refused.append(byte)
    assert drive.sync() == 0
    for byte in range(1, 256):
        if byte != ord("/") and byte not in refused:
            assert drive.read_file(os.fsdecode(b"bytes/x" + bytes([byte]) + b"y")) == bytes([byte])
    kinds = {label: {ord(c) for c in NAMES[label] if not c.isalnum()} for label in LIMITS[server]}
    raw = set(range(0x80, 0x100)) if set(RAW) & set(LIMITS[server]) else set()
    controls = {*range(1, 0x20), 0x7F} if "control" in LIMITS[server] else set()
    assert set(refused) <= raw | controls | set().union(*kinds.values()) | {ord(c) for c in ".~"}
