"""`davfs pending` and deferred errors on a real mount, over Apache behind a relay."""

from __future__ import annotations

import errno
import json
import os
import pty
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mount.conftest import MountOf
from tests.mount.drivers import KernelDriver
from tests.mount.test_scenarios import eventually
from tests.servers import Apache, Relay, Share

pytestmark = [pytest.mark.expects_warning(""), pytest.mark.timeout(300)]
LIMIT_BYTES = 100_000


@pytest.fixture
def small_share() -> Iterator[Share]:
    """A share that refuses bodies of more than 100 kB with 413."""
    with Apache(limit_request_body=LIMIT_BYTES) as server, server.share() as share:
        yield share


def pending(drive: KernelDriver, *words: str) -> subprocess.CompletedProcess[str]:
    return drive.mount.davfs("pending", str(drive.mount.point), *words)


def listed(drive: KernelDriver) -> dict[str, Any]:
    answer = pending(drive, "list", "--json")
    assert answer.returncode == 0, answer.stderr
    rows: list[dict[str, Any]] = json.loads(answer.stdout)["files"]
    return {row["path"]: row for row in rows}


def refused_file(drive: KernelDriver, path: str, data: bytes) -> None:
    drive.write_file(path, data)
    eventually(lambda: listed(drive)[f"/{path}"]["state"] == "refused", 20)


def raises(number: int) -> Any:
    return pytest.raises(OSError, match=os.strerror(number))


def test_a_refused_file_is_listed_with_its_state_everywhere(small_share: Share, mount_of: MountOf) -> None:
    """The list, the status and the attribute say the same word, and why."""
    drive = mount_of(small_share)
    refused_file(drive, "large", b"x" * 200_000)
    row = listed(drive)["/large"]
    assert (row["size"], row["errno"], row["attempts"]) == (200_000, "EFBIG", 1)
    assert "413" in row["error"]
    assert row["next_try_s"] > 60
    status = json.loads(drive.mount.davfs("status", str(drive.mount.point), "--json").stdout)
    assert [each["state"] for each in status["pending"]] == ["refused"]
    assert drive.getxattr("large", "user.davfs.state") == b"refused"
    assert b"413" in drive.getxattr("large", "user.davfs.error")
    for_people = pending(drive, "list").stdout
    assert for_people.startswith("refused  /large  195.3 KiB  PUT /large: the server answered 413 (next try")


def test_retry_tries_what_would_wait_an_hour(small_share: Share, mount_of: MountOf) -> None:
    """A file that the server takes after all is sent by `retry`, not in an hour."""
    if small_share.server.owner is None:
        pytest.skip("needs a server with a user of its own (root)")
    folder = small_share.mkdir("there")
    drive = mount_of(small_share)
    drive.listdir("there")
    os.chown(folder, 0, 0)
    folder.chmod(0o700)  # 403
    refused_file(drive, "there/a", b"a")
    folder.chmod(0o755)
    small_share.own()
    done = pending(drive, "retry", drive.at("there/a"))
    assert (done.returncode, done.stdout) == (0, "trying again: 1 file\n")
    eventually(lambda: listed(drive) == {}, 20)
    assert (small_share.root / "there/a").read_bytes() == b"a"
    assert pending(drive, "retry").stdout == "trying again: 0 files\n"
    assert pending(drive, "list").stdout == "the server has everything\n"


def test_discard_shows_the_servers_version_again(small_share: Share, mount_of: MountOf) -> None:
    """The change is given up, only after a yes; a new file disappears; open handles keep their bytes."""
    small_share.write("old", b"theirs")
    drive = mount_of(small_share)
    fd = drive.open("old", os.O_RDWR)
    drive.write(fd, b"x" * 300_000)
    with raises(errno.EFBIG):
        drive.fsync(fd)
    refused_file(drive, "new", b"y" * 200_000)  # smaller than what is known to be too large
    unasked = pending(drive, "discard", "old")
    assert (unasked.returncode, "--yes" in unasked.stderr) == (2, True)
    assert set(listed(drive)) == {"/old", "/new"}

    done = pending(drive, "discard", "--yes", "old", drive.at("new"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "discarded: /old, 293.0 KiB; the server's version is shown again",
        "discarded: /new, 195.3 KiB; the server never had this file",
    ]
    eventually(lambda: drive.listdir() == ["old"], 30)
    eventually(lambda: drive.read_file("old") == b"theirs", 30)
    assert drive.stat("old").size == 6
    with raises(errno.ENOENT):
        drive.stat("new")
    assert drive.pread(fd, 400_000, 0) == b"x" * 300_000
    with raises(errno.ESTALE):
        drive.pwrite(fd, b"more", 0)
    with raises(errno.ESTALE):
        drive.fsync(fd)
    drive.close(fd)
    assert listed(drive) == {}
    drive.write_file("new", b"fits")
    assert drive.sync() == 0
    assert (small_share.root / "old").read_bytes() == b"theirs"
    assert (small_share.root / "new").read_bytes() == b"fits"


@pytest.mark.parametrize(("said", "left"), [("y", []), ("", ["/f"])])
def test_discard_asks_on_a_terminal(
    small_share: Share, mount_of: MountOf, said: str, left: list[str]
) -> None:
    """It names what would be lost, and nothing but a yes is a yes."""
    drive = mount_of(small_share)
    refused_file(drive, "f", b"x" * 200_000)
    ours, theirs = pty.openpty()
    try:
        words = [*drive.mount.command[:3], "pending", str(drive.mount.point), "discard", "f"]
        process = subprocess.Popen(
            words,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=drive.mount._environment,
            start_new_session=True,
        )
        text = b""
        while b"[y/N]" not in text:
            text += os.read(ours, 4096)
        os.write(ours, f"{said}\n".encode())
        assert process.wait(30) == (1 if left else 0)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"/f  195.3 KiB" in text
    assert list(listed(drive)) == left


@pytest.mark.parametrize("path", ["nothing", ".", "..", "../f", "/etc/passwd", "f/below"])
def test_a_path_that_is_not_unsent_is_an_error(small_share: Share, mount_of: MountOf, path: str) -> None:
    """Of every action: exit code 1, and nothing happens."""
    drive = mount_of(small_share)
    refused_file(drive, "f", b"x" * 200_000)
    target = drive.mount.log.with_name("copy")
    for words in (("retry", path), ("discard", "--yes", path), ("save-as", path, str(target))):
        failed = pending(drive, *words)
        assert (failed.returncode, failed.stderr.count("\n")) == (1, 1), failed.stderr
    assert list(listed(drive)) == ["/f"]
    assert not target.exists()


def test_save_as_copies_unsent_bytes_while_the_server_is_away(
    apache_share: Share, mount_of: MountOf, tmp_path: Path
) -> None:
    """The bytes, the size and the time; never over a file that exists, unless told to."""
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url, timeout=2)
        drive.listdir()
        relay.stall()
        data = os.urandom(3_000_000)
        drive.write_file("report", data)
        target = tmp_path / "copy"
        done = pending(drive, "save-as", "report", str(target))
        assert done.returncode == 0, done.stderr
        assert target.read_bytes() == data
        assert target.stat().st_mtime_ns == drive.stat("report").mtime_ns
        target.write_bytes(b"mine")
        again = pending(drive, "save-as", "report", str(target))
        assert (again.returncode, "exists" in again.stderr) == (1, True)
        assert target.read_bytes() == b"mine"
        assert pending(drive, "save-as", "report", str(target), "--force").returncode == 0
        assert target.read_bytes() == data
        assert sorted(path.name for path in tmp_path.glob("*copy*")) == ["copy"]
        relay.resume()
        relay.drop()


def test_save_as_says_which_bytes_are_only_on_the_server(
    apache_share: Share, mount_of: MountOf, tmp_path: Path
) -> None:
    """A change in a large file that was not read: fails, and with --force has zeros there."""
    apache_share.write("big", b"b" * 4_000_000)
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url, timeout=2)
        drive.listdir()
        fd = drive.open("big", os.O_RDWR)
        relay.refuse()
        drive.pwrite(fd, b"MINE", 2_000_000)
        target = tmp_path / "copy"
        failed = pending(drive, "save-as", "big", str(target))
        assert failed.returncode == 1
        assert "-1999999, 2000004-3999999 are only on the server" in failed.stderr
        assert not target.exists()
        assert pending(drive, "save-as", "big", str(target), "--force").returncode == 0
        head = target.read_bytes().partition(b"MINE")[0]
        assert target.read_bytes() == head + b"MINE" + bytes(1_999_996)
        assert len(head) == 2_000_000
        assert head.rstrip(b"\0").strip(b"b") == b""  # what was fetched at open, then zeros
        relay.accept()
        drive.close(fd)
        eventually(lambda: drive.sync() == 0, 30)
    assert (apache_share.root / "big").read_bytes() == b"b" * 2_000_000 + b"MINE" + b"b" * 1_999_996


def test_conflict_copies_are_listed(apache_share: Share, mount_of: MountOf) -> None:
    """They are on the server, and a person has to look at them."""
    apache_share.write("f.txt", b"base")
    os.utime(apache_share.root / "f.txt", (1_700_000_000, 1_700_000_000))
    drive = mount_of(apache_share)
    fd = drive.open("f.txt", os.O_RDWR)
    drive.pwrite(fd, b"ours", 0)
    apache_share.write("f.txt", b"theirs")
    drive.close(fd)
    assert drive.sync() == 0
    (copy,) = [name for name in drive.listdir() if "conflict" in name]
    assert pending(drive, "list").stdout == f"conflict  /{copy}\nthe server has everything\n"
    assert drive.getxattr(copy, "user.davfs.state") == b"conflict"
    assert drive.getxattr("f.txt", "user.davfs.state") == b"clean"


# --- deferred errors --------------------------------------------------------------------------------


def test_a_refusal_is_told_once_to_the_next_writer(small_share: Share, mount_of: MountOf) -> None:
    """close said yes before the server said no: the next open for writing fails once; reading never does."""
    drive = mount_of(small_share)
    refused_file(drive, "f", b"x" * 200_000)
    assert drive.read_file("f") == b"x" * 200_000
    with raises(errno.EFBIG):
        drive.open("f", os.O_WRONLY | os.O_TRUNC)
    assert drive.read_file("f") == b"x" * 200_000
    drive.write_file("f", b"fits")
    assert drive.sync() == 0
    drive.write_file("f", b"fits too")
    assert drive.sync() == 0
    assert (small_share.root / "f").read_bytes() == b"fits too"


def test_close_sync_tells_it_at_close(small_share: Share, mount_of: MountOf) -> None:
    """With close=sync the program that wrote is told, so the next one is not."""
    drive = mount_of(small_share, close="sync")
    fd = drive.open("f", os.O_WRONLY | os.O_CREAT)
    drive.write(fd, b"x" * 200_000)
    with raises(errno.EFBIG):
        drive.close(fd)
    drive.close(drive.open("f", os.O_RDONLY))
    drive.write_file("f", b"fits")
    assert (small_share.root / "f").read_bytes() == b"fits"


def test_a_failure_nobody_saw_survives_kill_9(small_share: Share, mount_of: MountOf, tmp_path: Path) -> None:
    """The next daemon tells the errno to the next writer, whatever it has tried since."""
    first = mount_of(small_share, cache_dir=tmp_path / "kept")
    refused_file(first, "f", b"x" * 200_000)
    first.mount.kill()
    second = mount_of(small_share, cache_dir=tmp_path / "kept")
    assert second.read_file("f") == b"x" * 200_000
    with raises(errno.EFBIG):
        second.open("f", os.O_WRONLY)
    second.close(second.open("f", os.O_WRONLY))


def test_while_the_server_is_away_files_can_be_edited_again_and_again(
    apache_share: Share, mount_of: MountOf
) -> None:
    """A line that is down is no reason to refuse an open: what is written is queued."""
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url, timeout=2)
        drive.listdir()
        drive.write_file("f", b"zero")
        assert drive.sync() == 0
        fd = drive.open("f", os.O_RDWR)
        relay.refuse()
        drive.pwrite(fd, b"one", 0)
        drive.close(fd)
        eventually(lambda: listed(drive)["/f"]["state"] == "failed", 20)
        begun = time.monotonic()
        drive.write_file("f", b"two")
        assert time.monotonic() - begun < 10
        relay.accept()
        eventually(lambda: drive.sync() == 0, 30)
    assert (apache_share.root / "f").read_bytes() == b"two"


@pytest.mark.parametrize("killed", [True, False])
def test_the_journal_is_listed_without_a_daemon(
    small_share: Share, mount_of: MountOf, *, killed: bool
) -> None:
    """After `kill -9`, and after a forced unmount: what is unsent, why, and that no daemon said it."""
    drive = mount_of(small_share)
    refused_file(drive, "large", b"x" * 200_000)
    if killed:
        drive.mount.kill()
    else:
        drive.mount.davfs("unmount", str(drive.mount.point), "--force", "--timeout", "0")
        drive.mount.process.wait(20)
    elsewhere = pending(drive, "list")
    assert (elsewhere.returncode, "--cache-dir" in elsewhere.stderr) == (10, True)
    found = pending(drive, "list", "--cache-dir", str(drive.mount.cache))
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("refused  /large  195.3 KiB  PUT /large: the server answered 413")
    assert "no daemon serves" in found.stderr
    answer = json.loads(pending(drive, "list", "--json", "--cache-dir", str(drive.mount.cache)).stdout)
    assert [row["errno"] for row in answer["files"]] == ["EFBIG"]
    assert answer["daemon"] is False
    assert Path(answer["cache_dir"]).parent == drive.mount.cache


def test_unlock_on_a_real_server(apache_share: Share, mount_of: MountOf) -> None:
    """Who had it is told; a second time there is none."""
    apache_share.write("doc", b"old")
    drive = mount_of(apache_share, lock="always")
    fd = drive.open("doc", os.O_RDWR)
    first = pending(drive, "unlock", "doc")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("doc was locked by ")
    assert "was not locked" in pending(drive, "unlock", "doc").stdout
    drive.close(fd)
