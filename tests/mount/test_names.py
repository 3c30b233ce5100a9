"""Names: what round-trips through a real mount on each server, and which errno the rest get before anything is lost.

One test for each server makes every name in NAMES as a file, as a folder and by rename, and a file for each byte that
a name can hold. A second mount, with a cache of its own, must list and read exactly what the first one took.
`LIMITS` has what a server cannot hold, with the errno.
"""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.mount.drivers import KernelDriver
from tests.servers import Iis, Server, Share, SharePoint

MountOf = Callable[..., KernelDriver]

NFC, NFD = unicodedata.normalize("NFC", "é.txt"), unicodedata.normalize("NFD", "e\u0301 apart.txt")
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
    "quotes": "it's \"so\".txt",
    "brackets": "a[b]{c}<d>.txt",
    "star": "a*b|c.txt",
    "colon": "12:30.txt",
    "backslash": "a\\b.txt",
    "tilde": "~$doc.docx",
    "at": "~a@!$(c),=.txt",
    "caret": "a^b`c.txt",
    "NFC": NFC,
    "NFD": NFD,
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
_INVALID: Final = errno.EINVAL
LIMITS: Final[dict[str, dict[str, int]]] = {
    "apache": {},
    "nginx": {},
    "wsgidav": dict.fromkeys(RAW, _INVALID),
    "lighttpd": {
        **dict.fromkeys((*CONTROLS, *RAW), _INVALID),
        **dict.fromkeys(("255 bytes", "255 bytes wide"), errno.ENAMETOOLONG),
    },
    "sabredav": dict.fromkeys(RAW, _INVALID),
    "rclone": {},
    "iis": dict.fromkeys((*WINDOWS, *ENDS, *CONTROLS, *RAW, "device"), _INVALID),
    "sharepoint": dict.fromkeys(
        (*WINDOWS, *ENDS, *CONTROLS, *RAW, "device", "desktop.ini", "blank first", "tilde"), _INVALID
    ),
}


def outcome(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def test_matrix(mount_of: MountOf, request: pytest.FixtureRequest) -> None:
    name = os.environ["ONE"]
    if name in ("iis", "sharepoint"):
        server = (Iis if name == "iis" else SharePoint)()
        server.__enter__()
    else:
        server = request.getfixturevalue(name)
    with server.share() as share:
        drive = mount_of(share)
        results = {}
        for folder in ("files", "folders", "renamed"):
            drive.mkdir(folder)
        for label, one in NAMES.items():
            made = (
                outcome(lambda: drive.write_file(f"files/{one}", one.encode("utf-8", "surrogateescape"))),
                outcome(lambda: drive.mkdir(f"folders/{one}")),
            )
            drive.write_file("renamed/plain", b"plain")
            drive.sync()
            made += (outcome(lambda: drive.rename("renamed/plain", f"renamed/{one}")),)
            results[label] = made
        print("sync", drive.sync())
        print(drive.mount.davfs("pending", str(drive.mount.point), "list").stdout)
        other = mount_of(share)
        for n, folder in enumerate(("files", "folders", "renamed")):
            there = set(other.listdir(folder))
            took = {NAMES[label] for label, made in results.items() if made[n] == 0}
            print(folder, "lost", took - there, "extra", there - took)
            for one in there:
                try:
                    other.listdir(f"{folder}/{one}") if folder == "folders" else other.read_file(f"{folder}/{one}")
                except OSError as error:
                    print("cannot open", folder, repr(one), error)
        for label, made in results.items():
            want = LIMITS[name].get(label, 0)
            if set(made) != {want}:
                print(label, made, want)
        print(drive.mount.complaints())
