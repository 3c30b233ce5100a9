"""IIS and SharePoint through real mounts, on the scripted server of tests/servers/iis.py.

DAVFS_NAMES=1 runs each test with all switches that concern it.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from tests.mount.drivers import KernelDriver
from tests.servers import Iis, Share

MountOf = Callable[..., KernelDriver]
ShareOf = Callable[..., Share]
Kind = Literal["iis", "sharepoint"]
ALL = os.environ.get("DAVFS_NAMES") == "1"
MADE = b"<SharePoint properties>"


@pytest.fixture
def share_of() -> Iterator[ShareOf]:
    """Starts a server with switches and gives a folder of it. To be named before `mount_of`: it ends last."""
    with ExitStack() as stack:
        yield lambda kind="iis", **switches: stack.enter_context(
            stack.enter_context(Iis(kind, **switches)).share()
        )


def errno_of(call: Callable[..., Any], *arguments: Any) -> int:
    try:
        call(*arguments)
    except OSError as error:
        return error.errno or 0
    return 0


def sent(share: Share) -> Counter[str]:
    return Counter(one.method for one in share.log_requests())


def why(drive: KernelDriver, path: str) -> str:
    return drive.getxattr(path, "user.davfs.error").decode()


@pytest.mark.parametrize("kind", ["iis", "sharepoint"] if ALL else ["iis"])
def test_every_request_says_translate_f(kind: Kind, share_of: ShareOf, mount_of: MountOf) -> None:
    """Without it IIS runs a script instead of giving its source; no verb of ours forgets it."""
    share = share_of(kind, fat=12)
    source = b"<% secret %>"
    share.write("page.asp", source)
    share.write("large", b"x" * 3_000_000)
    drive = mount_of(share, lock="always")
    assert drive.read_file("page.asp") == source
    drive.write_file("page.asp", b"<% changed %>")
    fd = drive.open("large", os.O_RDWR)
    assert drive.pread(fd, 10, 2_000_000) == b"x" * 10
    drive.pwrite(fd, b"y", 5)
    drive.close(fd)
    drive.write_file("new", b"n" * 2_000_000)
    drive.mkdir("folder")
    assert drive.sync() == 0
    drive.rename("new", "folder/moved")
    drive.run(["cp", "large", "copy"])
    assert drive.sync() == 0
    drive.unlink("folder/moved")
    drive.rmdir("folder")
    drive.statvfs()
    assert (share.root / "page.asp").read_bytes() == b"<% changed %>"
    asked = sent(share)
    assert isinstance(share.server, Iis)
    assert share.server.untranslated() == []
    assert {"PROPFIND", "GET", "PUT", "MKCOL", "MOVE", "DELETE", "LOCK", "UNLOCK", "OPTIONS"} <= set(asked)


@pytest.mark.expects_warning("not sent")
def test_404_for_too_large(share_of: ShareOf, mount_of: MountOf) -> None:
    """IIS says 404 to a PUT over its limit: EFBIG, told at the write from then on; what is there stays."""
    share = share_of(max_body=2_000_000)
    share.write("film", b"old")
    drive = mount_of(share)
    fd = drive.open("film", os.O_WRONLY | os.O_TRUNC)
    drive.write(fd, b"x" * 2_500_000)
    assert errno_of(drive.fsync, fd) == errno.EFBIG
    drive.close(fd)
    assert (share.root / "film").read_bytes() == b"old"
    assert "too large" in why(drive, "film")
    asked = sent(share)["PUT"]
    assert errno_of(drive.truncate, "film", 2_600_000) == errno.EFBIG
    drive.write_file("film", b"short enough")
    assert drive.sync() == 0
    assert (share.root / "film").read_bytes() == b"short enough"
    assert sent(share)["PUT"] == asked + 1


@pytest.mark.expects_warning("not sent")
@pytest.mark.expects_warning("not on the server")
def test_double_escaping(share_of: ShareOf, mount_of: MountOf) -> None:
    """404.11 is learned from the first refusal: then '+' and '%' are EINVAL before anything is written."""
    share = share_of()
    share.write("listed+.txt", b"made on the server")
    drive = mount_of(share, attr_timeout=0.1)
    fd = drive.open("a+b.txt", os.O_CREAT | os.O_WRONLY)
    drive.write(fd, b"kept")
    assert errno_of(drive.fsync, fd) == errno.EACCES
    drive.close(fd)
    assert "404.11" in why(drive, "a+b.txt")
    assert drive.read_file("a+b.txt") == b"kept"
    assert errno_of(drive.write_file, "c+d.txt", b"") == errno.EILSEQ
    assert errno_of(drive.mkdir, "100%") == errno.EILSEQ
    drive.write_file("plain", b"1")
    assert errno_of(drive.rename, "plain", "x+y") == errno.EILSEQ
    assert drive.sync(2) != 0
    assert not [one.path for one in share.log_requests() if "c%2Bd" in one.path or "100" in one.path]
    drive.rename("a+b.txt", "a-b.txt")
    assert drive.sync() == 0
    assert sorted(drive.listdir()) == ["a-b.txt", "plain"]  # none that cannot be opened


def test_double_escaping_allowed(share_of: ShareOf, mount_of: MountOf) -> None:
    """Where the administrator allows it the names are as good as any."""
    share = share_of(double_escaping=True)
    drive = mount_of(share)
    drive.write_file("a+b%41.txt", b"1")
    drive.mkdir("100%+")
    assert drive.sync() == 0
    drive.rename("a+b%41.txt", "100%+/c+d.txt")
    assert drive.read_file("100%+/c+d.txt") == b"1"
    assert (share.root / "100%+" / "c+d.txt").read_bytes() == b"1"


def test_office_files_that_sharepoint_rewrites(share_of: ShareOf, mount_of: MountOf) -> None:
    """No conflict with ourselves, no second upload: one PUT for each save, and the next open reads theirs."""
    share = share_of("sharepoint")
    drive = mount_of(share)
    drive.write_file("report.docx", b"first")
    assert drive.sync() == 0
    assert drive.read_file("report.docx") == b"first" + MADE
    assert drive.stat("report.docx")[2] == len(b"first" + MADE)
    drive.write_file("report.docx", b"second")
    assert drive.sync() == 0
    drive.write_file("report.docx", b"third")
    assert drive.sync() == 0
    fd = drive.open("report.docx", os.O_RDWR)  # an office program that keeps it open
    for version in (b"FOURTH", b"Fifth ", b"sixth "):
        drive.pwrite(fd, version, 0)
        drive.fsync(fd)
    assert drive.pread(fd, 6, 0) == b"sixth "
    drive.close(fd)
    assert drive.sync() == 0
    assert drive.read_file("report.docx") == (share.root / "report.docx").read_bytes()
    assert drive.read_file("report.docx").startswith(b"sixth ")
    assert drive.listdir() == ["report.docx"]
    assert sent(share)["PUT"] == 6


@pytest.mark.expects_warning("conflict")
def test_office_file_that_somebody_else_changed(share_of: ShareOf, mount_of: MountOf) -> None:
    """What SharePoint writes into a file is no excuse: a colleague's version is kept beside ours."""
    share = share_of("sharepoint")
    drive = mount_of(share)
    drive.write_file("report.docx", b"first")
    assert drive.sync() == 0
    fd = drive.open("report.docx", os.O_RDWR)
    httpx.put(share.url_of("report.docx"), content=b"theirs", headers={"Translate": "f"}).raise_for_status()
    drive.pwrite(fd, b"OURS", 0)
    drive.close(fd)
    assert drive.sync() == 0
    both = {(share.root / name).read_bytes() for name in os.listdir(share.root)}
    assert len(both) == 2
    assert b"theirs" + MADE in both
    assert any(one.startswith(b"OURS") for one in both)


def test_kill_9_after_a_rewritten_upload(share_of: ShareOf, mount_of: MountOf) -> None:
    """The bytes that were sent are never taken for what SharePoint made of them."""
    share = share_of("sharepoint")
    drive = mount_of(share)
    fd = drive.open("report.docx", os.O_CREAT | os.O_RDWR)
    drive.write(fd, b"first")
    drive.fsync(fd)
    drive.mount.kill()
    again = mount_of(share, cache_dir=drive.mount.cache)
    assert again.read_file("report.docx") == b"first" + MADE
    again.write_file("report.docx", b"next")
    assert again.sync() == 0
    assert again.listdir() == ["report.docx"]


def test_empty_file_on_sharepoint(share_of: ShareOf, mount_of: MountOf) -> None:
    """A PUT of nothing is 200 there and makes nothing: LOCK does; the name is free again."""
    share = share_of("sharepoint")
    drive = mount_of(share)
    drive.write_file("empty", b"")
    assert drive.sync() == 0
    assert (share.root / "empty").read_bytes() == b""
    drive.write_file("empty", b"no longer")
    assert drive.sync() == 0
    assert (share.root / "empty").read_bytes() == b"no longer"


@pytest.mark.expects_warning("not sent")
@pytest.mark.expects_warning("not on the server")
def test_what_sharepoint_says_of_an_error(share_of: ShareOf, mount_of: MountOf) -> None:
    """X-MSDAVEXT_Error has the reason that the status has not: it is told, and decides the errno."""
    share = share_of("sharepoint")
    share.write("locked.txt", b"old")
    drive = mount_of(share)
    body = b'<D:lockinfo xmlns:D="DAV:"><D:owner>LAB\\bob</D:owner></D:lockinfo>'
    url = share.url_of("locked.txt")
    httpx.request("LOCK", url, content=body, headers={"Timeout": "Second-600"}).raise_for_status()
    for name, code, text in (
        ("setup.exe", errno.EACCES, "files of this type are blocked"),
        ("checkedout.txt", errno.EBUSY, "checked out"),
        ("locked.txt", errno.EBUSY, "locked by LAB\\bob"),
    ):
        fd = drive.open(name, os.O_CREAT | os.O_WRONLY)
        drive.write(fd, b"x")
        assert errno_of(drive.fsync, fd) == code
        drive.close(fd)
        assert text in why(drive, name), why(drive, name)
        if name != "locked.txt":
            drive.unlink(name)
    assert (share.root / "locked.txt").read_bytes() == b"old"


@pytest.mark.parametrize("login", ["redirect", "online", "forms"] if ALL else ["forms"])
def test_login_pages(login: Literal["redirect", "online", "forms"], tmp_path: Path) -> None:
    """A site that wants a browser's cookies: the mount says so, instead of a redirect or a 403."""
    with Iis("sharepoint", login=login) as server:
        (tmp_path / "mnt").mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "davfs", "mount", server.url, str(tmp_path / "mnt"), "--foreground"],
            env=os.environ | {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode not in {0, 1}
    assert "cookies" in done.stderr
    assert "Basic, NTLM or Negotiate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("flags", ["1", "true"] if ALL else ["true"])
def test_folders_told_by_iscollection(
    flags: Literal["1", "true"], share_of: ShareOf, mount_of: MountOf
) -> None:
    """Without a resourcetype, and without a slash at the end: iscollection, in either form, tells folders."""
    share = share_of("sharepoint", flags=flags, resourcetype=False)
    share.write("folder/file", b"1")
    drive = mount_of(share)
    assert drive.listdir() == ["folder"]
    assert drive.listdir("folder") == ["file"]
    assert drive.read_file("folder/file") == b"1"


@pytest.mark.parametrize("version", ["16.0.0.10417", "15.0.0.4701"] if ALL else ["16.0.0.10417"])
def test_lengths(version: str, share_of: ShareOf, mount_of: MountOf) -> None:
    """SharePoint takes 400 characters of path, before 2019 260, and 128 of a name: ENAMETOOLONG at once."""
    drive = mount_of(share_of("sharepoint", version=version))
    folder, rest = ("d" * 128, 128) if version.startswith("15") else ("d" * 180, 210)
    drive.mkdir(folder)
    drive.write_file(f"{folder}/{'f' * (rest - 12)}", b"1")
    assert errno_of(drive.write_file, f"{folder}/{'f' * (rest + 12)}", b"1") == errno.ENAMETOOLONG
    assert errno_of(drive.write_file, "a#b", b"1") == (errno.EILSEQ if version.startswith("15") else 0)
    assert drive.sync() == 0


def test_win32_attributes(share_of: ShareOf, mount_of: MountOf) -> None:
    """A hidden file is listed; what Windows says of it is in user.davfs.win32; its mode shows read-only."""
    body = (
        '<D:propertyupdate xmlns:D="DAV:" xmlns:Z="urn:schemas-microsoft-com:"><D:set><D:prop>'
        "<Z:Win32FileAttributes>00000003</Z:Win32FileAttributes></D:prop></D:set></D:propertyupdate>"
    )
    share = share_of()
    share.write("thumbs.db", b"1")
    share.write("plain", b"1")
    httpx.request("PROPPATCH", share.url_of("thumbs.db"), content=body).raise_for_status()
    drive = mount_of(share)
    assert drive.listdir() == ["plain", "thumbs.db"]
    assert drive.getxattr("thumbs.db", "user.davfs.win32") == b"readonly hidden"
    with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
        drive.getxattr("plain", "user.davfs.win32")
    assert drive.stat("thumbs.db")[1] & 0o222 == 0
    assert drive.stat("plain")[1] & 0o222
