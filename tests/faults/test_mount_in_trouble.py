"""A real mount when things go wrong: the server, the line, the password, the disk, another client, the
daemon itself.

What is asked each time: a clear errno in bounded time, nothing lost that was written, and a mount that
goes on when the trouble is over. `timeout` is 2 s here, so a call may take a few of those, and never
`BOUND_S`.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.drivers import KernelDriver, device_of
from tests.mount.test_scenarios import eventually, expect, foreign_write
from tests.servers import Apache, Relay, Share

MountOf = Callable[..., KernelDriver]
TIMEOUT_S = 2.0
BOUND_S = 25.0  # of a busy machine; a call that hangs is told of after 60
LINK_ERRNOS = {
    errno.EIO,
    errno.EHOSTUNREACH,
    errno.ETIMEDOUT,
    errno.ENETUNREACH,
    errno.ECONNREFUSED,
    errno.EAGAIN,
}

pytestmark = [pytest.mark.expects_warning(""), pytest.mark.timeout(300)]  # trouble is logged


@contextmanager
def fails_in_time(numbers: set[int]) -> Iterator[None]:
    """One of these errnos, within the bound."""
    begun = time.monotonic()
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is checked
        yield
    assert time.monotonic() - begun < BOUND_S
    assert caught.value.errno in numbers, caught.value


@contextmanager
def in_time() -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < BOUND_S


def test_the_server_cannot_be_reached_any_more(apache_share: Share, mount_of: MountOf) -> None:
    """What the cache has is served, the rest is an error in time, writes are kept; and all is well
    afterwards.
    """
    apache_share.write("cached", b"cached")
    apache_share.write("other", b"other")
    apache_share.write("folder/deep", b"deep")
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url, timeout=TIMEOUT_S)
        assert drive.read_file("cached") == b"cached"
        written = drive.open("written", os.O_RDWR | os.O_CREAT)
        relay.refuse()
        with in_time():
            assert drive.read_file("cached") == b"cached"
        with fails_in_time(LINK_ERRNOS):
            drive.read_file("other")
        with fails_in_time(LINK_ERRNOS):
            drive.listdir("folder")
        with fails_in_time(LINK_ERRNOS):
            drive.mkdir("new")
        with in_time():
            drive.write(written, b"meanwhile")
            assert drive.pread(written, 100, 0) == b"meanwhile"
        with in_time():
            drive.statvfs()
        with fails_in_time(LINK_ERRNOS):
            drive.fsync(written)
        drive.close(written)
        relay.accept()
        eventually(lambda: drive.sync() == 0, 40)
        assert (apache_share.root / "written").read_bytes() == b"meanwhile"
        assert drive.read_file("other") == b"other"
        assert drive.listdir("folder") == ["deep"]
        drive.mkdir("new")


def test_the_server_stops_answering(apache_share: Share, mount_of: MountOf) -> None:
    """A stalled line: every call ends, by the cache or with an errno; `ls` of what is known does not hang."""
    apache_share.write("cached", b"cached")
    apache_share.write("other", b"other" * 100_000)
    apache_share.write("folder/deep", b"deep")
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url, timeout=TIMEOUT_S)
        assert drive.read_file("cached") == b"cached"
        written = drive.open("written", os.O_RDWR | os.O_CREAT)
        relay.stall()
        with in_time():
            assert drive.read_file("cached") == b"cached"
        with fails_in_time(LINK_ERRNOS):
            drive.read_file("other")
        with fails_in_time(LINK_ERRNOS):
            drive.listdir("folder")
        with in_time():
            drive.write(written, b"meanwhile")
        with in_time():
            drive.statvfs()
        drive.close(written)
        relay.resume()
        relay.drop()
        eventually(lambda: drive.sync() == 0, 30)
        assert (apache_share.root / "written").read_bytes() == b"meanwhile"
        assert drive.read_file("other") == b"other" * 100_000


def test_a_stall_in_the_middle_of_a_download(apache_share: Share, mount_of: MountOf) -> None:
    """The read that waits for bytes gets an errno in time; the next try, after the stall, gets the bytes."""
    data = os.urandom(30_000_000)
    apache_share.write("large", data)
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url, timeout=TIMEOUT_S)
        fd = drive.open("large")
        assert drive.pread(fd, 1000, 0) == data[:1000]
        relay.stall()
        with fails_in_time(LINK_ERRNOS):
            drive.pread(fd, 1000, 25_000_000)
        relay.resume()
        relay.drop()
        assert drive.pread(fd, 1000, 25_000_000) == data[25_000_000:25_001_000]
        drive.close(fd)
        assert drive.read_file("large") == data


def test_a_connection_that_breaks_in_the_middle_of_an_upload(apache_share: Share, mount_of: MountOf) -> None:
    """The upload is done again, whole; the server never shows half of it under the name."""
    data = os.urandom(5_000_000)
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url, timeout=TIMEOUT_S)
        relay.cut_after(up=2_000_000)
        drive.write_file("large", data)
        eventually(lambda: drive.sync() == 0, 40)
        assert (apache_share.root / "large").read_bytes() == data
        assert os.listdir(apache_share.root) == ["large"]


def test_wrong_credentials_at_the_start(tmp_path: Path) -> None:
    """The mount fails with exit code 7 and one line, and nothing is mounted."""
    with Apache(username="me", password="right") as server, server.share() as share:
        point = tmp_path / "mnt"
        point.mkdir()
        secret = tmp_path / "password"
        secret.touch(0o600)
        secret.write_text("wrong\n")
        options = f"username=me,password_file={secret},cache_dir={tmp_path / 'cache'}"
        done = subprocess.run(
            [sys.executable, "-m", "davfs", "mount", share.url, str(point), "--foreground", "-o", options],
            capture_output=True,
            text=True,
            timeout=30,
            cwd=Path(__file__).parents[2],
            check=False,
        )
        assert done.returncode == 7, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert "wrong" not in done.stderr
        assert device_of(point) is None


def test_credentials_that_stop_working(mount_of: MountOf) -> None:
    """EACCES at once, no storm of attempts; the written file is kept, and sent after `davfs login`."""
    with Apache(username="me", password="right") as server, server.share() as share:
        share.write("a", b"x")
        drive = mount_of(share, password=("me", "right"), timeout=TIMEOUT_S, attr_timeout_min=60)
        drive.listdir()
        users = server.folder / "users"
        good = users.read_text()
        users.write_text("somebody:{SHA}x\n")
        with fails_in_time({errno.EACCES}):
            drive.read_file("a")
        fd = drive.open("b", os.O_RDWR | os.O_CREAT)
        drive.write(fd, b"kept")
        with fails_in_time({errno.EACCES}):
            drive.fsync(fd)
        drive.close(fd)
        assert drive.read_file("b") == b"kept"
        share.forget_requests()
        time.sleep(1)
        assert len(share.log_requests()) <= 2
        users.write_text(good)
        told = drive.mount.davfs("login", str(drive.mount.point), typed="right\n")
        assert told.returncode == 0, told.stderr
        eventually(lambda: drive.sync() == 0, 40)
        assert (share.root / "b").read_bytes() == b"kept"
        assert drive.read_file("a") == b"x"


def test_a_file_removed_by_another_client_while_open_for_reading(share: Share, mount_of: MountOf) -> None:
    """What is here stays readable; what is not is ENOENT, ESTALE or EIO; the mount goes on."""
    share.write("a", b"x" * 5_000_000)
    drive = mount_of(share, attr_timeout=1)
    fd = drive.open("a")
    assert drive.pread(fd, 100, 0) == b"x" * 100
    (share.root / "a").unlink()
    assert drive.pread(fd, 100, 0) == b"x" * 100
    try:
        assert drive.pread(fd, 100, 4_900_000) == b"x" * 100
    except OSError as error:
        expect(error, errno.ENOENT, errno.ESTALE, errno.EIO)
    drive.close(fd)
    eventually(lambda: drive.listdir() == [], 30)


def test_a_file_removed_by_another_client_while_being_written(share: Share, mount_of: MountOf) -> None:
    """What was written is on the server afterwards, under its name or beside it."""
    share.write("a", b"old")
    drive = mount_of(share, attr_timeout=1)
    fd = drive.open("a", os.O_RDWR)
    drive.pwrite(fd, b"new content", 0)
    (share.root / "a").unlink()
    drive.close(fd)
    assert drive.sync() == 0
    kept = [path.read_bytes() for path in share.root.iterdir()]
    assert kept == [b"new content"]


def test_both_sides_wrote(share: Share, mount_of: MountOf) -> None:
    """A conflict through a real mount: the server's version keeps the name, ours is beside it, both are
    listed.
    """
    share.write("report.txt", b"base")
    drive = mount_of(share, attr_timeout=1)
    fd = drive.open("report.txt", os.O_RDWR)
    drive.pwrite(fd, b"ours", 0)
    foreign_write(drive, "report.txt", b"theirs", mtime_s=int(time.time()) + 10)
    drive.close(fd)
    assert drive.sync() == 0
    assert (share.root / "report.txt").read_bytes() == b"theirs"
    (copy,) = [path for path in share.root.iterdir() if path.name != "report.txt"]
    assert copy.read_bytes() == b"ours"
    assert copy.name.startswith("report (conflict ")
    assert copy.suffix == ".txt"
    eventually(lambda: drive.read_file("report.txt") == b"theirs", 30)
    assert copy.name in drive.listdir()


def test_a_full_cache_disk(apache_share: Share, tiny_disk: Path, mount_of: MountOf) -> None:
    """ENOSPC where it happens, what was written before arrives, and the mount works when there is room
    again.
    """
    apache_share.write("there", b"there")
    drive = mount_of(apache_share, cache_dir=tiny_disk / "cache", write_back=0.1)
    drive.write_file("small", b"small")
    fd = drive.open("large", os.O_WRONLY | os.O_CREAT)
    with fails_in_time({errno.ENOSPC}):
        for _ in range(20):
            drive.write(fd, b"x" * 1_000_000)
    drive.close(fd)
    assert drive.read_file("small") == b"small"
    drive.unlink("large")
    drive.write_file("after", b"y" * 500_000)
    assert drive.sync() == 0
    assert (apache_share.root / "small").read_bytes() == b"small"
    assert (apache_share.root / "after").read_bytes() == b"y" * 500_000
    assert drive.read_file("there") == b"there"


def test_reading_more_than_the_cache_disk_holds(
    apache_share: Share, tiny_disk: Path, mount_of: MountOf
) -> None:
    """A file larger than the disk is read, or ENOSPC in time; smaller ones are read one after the other."""
    for number in range(5):
        apache_share.write(f"part{number}", bytes([number]) * 3_000_000)
    apache_share.write("large", b"x" * 20_000_000)
    drive = mount_of(apache_share, cache_dir=tiny_disk / "cache", cache_size="4M")
    for number in range(5):
        assert drive.read_file(f"part{number}") == bytes([number]) * 3_000_000
    begun = time.monotonic()
    try:
        assert drive.read_file("large") == b"x" * 20_000_000
    except OSError as error:
        expect(error, errno.ENOSPC)
    assert time.monotonic() - begun < BOUND_S
    assert drive.read_file("part0") == b"\0" * 3_000_000


def test_a_refused_upload_stays_readable(mount_of: MountOf) -> None:
    """413: fsync says EFBIG, the old version on the server is untouched, the new one stays at its path."""
    with Apache(limit_request_body=1_000_000) as server, server.share() as share:
        share.write("a", b"old")
        drive = mount_of(share)
        fd = drive.open("a", os.O_RDWR)
        drive.write(fd, b"x" * 2_000_000)
        with fails_in_time({errno.EFBIG}):
            drive.fsync(fd)
        drive.close(fd)
        assert (share.root / "a").read_bytes() == b"old"
        assert drive.read_file("a") == b"x" * 2_000_000
        assert drive.sync() != 0
        drive.truncate("a", 10)
        assert drive.sync() == 0
        assert (share.root / "a").read_bytes() == b"x" * 10


def test_a_server_that_forbids_writing(mount_of: MountOf) -> None:
    """A folder that the server may not change: EACCES for mkdir and fsync, and nothing is lost."""
    with Apache() as server, server.share() as share:
        share.mkdir("locked").chmod(0o555)
        if server.owner is None:
            pytest.skip("needs a server with a user of its own (root)")
        drive = mount_of(share)
        with fails_in_time({errno.EACCES, errno.EIO, errno.EPERM}):
            drive.mkdir("locked/d")
        fd = drive.open("locked/a", os.O_RDWR | os.O_CREAT)
        drive.write(fd, b"kept")
        with fails_in_time({errno.EACCES, errno.EIO, errno.EPERM}):
            drive.fsync(fd)
        drive.close(fd)
        assert drive.read_file("locked/a") == b"kept"
        (share.root / "locked").chmod(0o755)
        eventually(lambda: drive.sync() == 0, 40)
        assert (share.root / "locked/a").read_bytes() == b"kept"


def test_kill_9_of_the_daemon_loses_nothing(apache_share: Share, mount_of: MountOf, tmp_path: Path) -> None:
    """What write(2) accepted is there after the next mount, and arrives at its path."""
    cache = tmp_path / "kept"
    apache_share.write("changed", b"0123456789" * 1000)
    first = mount_of(apache_share, cache_dir=cache, write_back=60)
    first.mkdir("d")
    first.write_file("new", b"new" * 1000)
    first.write_file("d/renamed.tmp", b"r")
    first.rename("d/renamed.tmp", "d/renamed")
    fd = first.open("changed", os.O_RDWR)
    first.pwrite(fd, b"CHANGED", 5000)
    still_open = first.open("open", os.O_RDWR | os.O_CREAT)
    first.write(still_open, b"not even closed")
    first.mount.kill()
    wanted = bytearray(b"0123456789" * 1000)
    wanted[5000:5007] = b"CHANGED"
    second = mount_of(apache_share, cache_dir=cache)
    assert second.read_file("new") == b"new" * 1000
    assert second.read_file("changed") == wanted
    assert second.sync() == 0
    assert (apache_share.root / "new").read_bytes() == b"new" * 1000
    assert (apache_share.root / "changed").read_bytes() == wanted
    assert (apache_share.root / "open").read_bytes() == b"not even closed"
    assert sorted(os.listdir(apache_share.root)) == ["changed", "d", "new", "open"]
    assert os.listdir(apache_share.root / "d") == ["renamed"]


def test_a_server_that_restarts(mount_of: MountOf) -> None:
    """Connections that died with the server are made again without a program noticing."""
    with Apache() as server, server.share() as share:
        share.write("a", b"a")
        drive = mount_of(share, timeout=TIMEOUT_S, attr_timeout=0)
        assert drive.read_file("a") == b"a"
        server.stop()
        server.start_again()
        assert drive.listdir() == ["a"]
        drive.write_file("b", b"b")
        eventually(lambda: drive.sync() == 0, 40)
        assert (share.root / "b").read_bytes() == b"b"
