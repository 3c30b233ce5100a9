"""Large files: what is asked for, and how much comes, by the relay's and the server's own count."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.drivers import KernelDriver
from tests.mount.test_scenarios import eventually
from tests.servers import Relay, Share

MountOf = Callable[..., KernelDriver]
MIB = 1 << 20


def large_file(share: Share, size: int) -> Path:
    """Long unchanged, so that its tag is proof; sparse, so that it costs no disk."""
    path = share.write("large", b"")
    os.truncate(path, size)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    return path


def test_the_first_bytes_are_one_request(share: Share, mount_of: MountOf) -> None:
    """Of a listed file of 512 MiB: opening it and reading 4 KiB is one GET, with one answer to wait for."""
    large_file(share, 512 * MIB)
    drive = mount_of(share)
    drive.listdir()
    share.forget_requests()
    fd = drive.open("large")
    assert drive.pread(fd, 4096, 0) == bytes(4096)
    drive.close(fd)
    assert [request.method for request in share.log_requests()] == ["GET"]


def test_random_reads_bring_little(apache_share: Share, mount_of: MountOf) -> None:
    """100 reads of 4 KiB in 512 MiB: one GET each, and less than 16 MB down."""
    large_file(apache_share, 512 * MIB)
    dice = random.Random(5)
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url)
        drive.listdir()
        fd = drive.open("large")
        before = relay.bytes_down
        apache_share.forget_requests()
        for _ in range(100):
            assert drive.pread(fd, 4096, dice.randrange(512 * MIB - 4096)) == bytes(4096)
        drive.close(fd)
        assert relay.bytes_down - before < 16_000_000
    assert len(apache_share.log_requests()) <= 110


def test_limits_hold_for_each_way(apache_share: Share, mount_of: MountOf) -> None:
    """3 MiB at 2 MiB/s take a second and a half, down and up, and arrive whole."""
    data = os.urandom(3 * MIB)
    apache_share.write("theirs", data)
    drive = mount_of(apache_share, limit_down="2M", limit_up="2M")
    begun_s = time.monotonic()
    assert drive.read_file("theirs") == data
    read_s, begun_s = time.monotonic() - begun_s, time.monotonic()
    fd = drive.open("ours", os.O_WRONLY | os.O_CREAT)
    drive.write(fd, data)
    drive.fsync(fd)
    written_s = time.monotonic() - begun_s
    drive.close(fd)
    assert (read_s > 1.4, written_s > 1.4) == (True, True)
    assert (apache_share.root / "ours").read_bytes() == data


def test_a_sequential_read_brings_every_byte_once(apache_share: Share, mount_of: MountOf) -> None:
    """96 MiB in order: no byte twice, in few requests; read again, from the kernel's pages: none."""
    data = os.urandom(96 * MIB)
    os.utime(apache_share.write("data", data), (1_600_000_000, 1_600_000_000))
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url)
        drive.listdir()
        apache_share.forget_requests()
        before = relay.bytes_down
        drive.run(["cmp", "data", str(apache_share.root / "data")])
        assert relay.bytes_down - before < len(data) + 64_000
        assert len(apache_share.log_requests()) < 24
        apache_share.forget_requests()
        drive.run(["cmp", "data", str(apache_share.root / "data")])
        assert apache_share.log_requests() == []


def test_a_reader_that_stops_early_stops_the_transfer(apache_share: Share, mount_of: MountOf) -> None:
    """4 MiB of 512 are read and the file is closed: what was on its way is hung up on."""
    large_file(apache_share, 512 * MIB)
    with Relay(apache_share.url, latency_s=0.02) as relay:
        drive = mount_of(apache_share, url=relay.url)
        drive.listdir()
        before = relay.bytes_down
        drive.run(["head", "-c", str(4 * MIB), "large"])
        time.sleep(1)
        assert relay.bytes_down - before < 48 * MIB
        fd = drive.open("large")
        assert drive.pread(fd, 4096, 400 * MIB) == bytes(4096)
        drive.close(fd)


def test_the_kernel_reads_ahead_a_mebibyte(apache_share: Share, mount_of: MountOf) -> None:
    """Its own 128 KiB come with the first answer of the mount: ours stay."""
    drive = mount_of(apache_share)
    device = os.stat(drive.mount.point).st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    if not os.access(setting, os.W_OK):
        pytest.skip("only root may widen the kernel's read-ahead")
    eventually(lambda: setting.read_text().strip() == "1024", 20)  # when the mount says that it is ready
