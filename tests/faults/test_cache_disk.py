"""A cache disk of a few MB under a real mount: refused in time, nothing lost, and well again afterwards."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.drivers import KernelDriver
from tests.mount.test_scenarios import eventually
from tests.servers import Relay, Share

MountOf = Callable[..., KernelDriver]
pytestmark = [pytest.mark.expects_warning(""), pytest.mark.timeout(300)]
AWAY = {"timeout": 2, "attr_timeout_min": 100, "attr_timeout": 100}  # the empty folder stays known
ENOUGH = 3000  # more files, or 100 KB pieces, than the disk can hold


def written_until_full(drive: KernelDriver, data: bytes) -> dict[str, bytes]:
    """Files that were accepted whole, until ENOSPC; the one that was refused is removed."""
    accepted: dict[str, bytes] = {}
    for number in range(ENOUGH):
        name = f"f{number}"
        try:
            drive.write_file(name, data)
            accepted[name] = data
        except OSError as error:
            assert error.errno == errno.ENOSPC, error  # noqa: PT017 - and the names are what is wanted
            if name in drive.listdir():
                drive.unlink(name)
            return accepted
    raise AssertionError("a disk of 6 MiB is never full")


def on_the_server(share: Share) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in share.root.iterdir()}


@pytest.mark.parametrize("size", [400_000, 100_000])
def test_full_of_unsent_data_until_the_server_is_back(
    apache_share: Share, tiny_disk: Path, mount_of: MountOf, size: int
) -> None:
    """ENOSPC before a write is accepted; then all that was accepted arrives, and writing works again."""
    with Relay(apache_share.url) as relay:
        drive = mount_of(
            apache_share,
            url=relay.url,
            timeout=2,
            attr_timeout_min=100,
            attr_timeout=100,
            cache_dir=tiny_disk / "cache",
        )
        relay.refuse()
        accepted = written_until_full(drive, b"x" * size)
        assert len(accepted) > 5
        assert drive.read_file("f0") == accepted["f0"]
        relay.accept()
        eventually(lambda: drive.sync() == 0, 60)
        assert on_the_server(apache_share) == accepted
        drive.write_file("after", b"y" * 1_000_000)
        assert drive.sync() == 0
        assert (apache_share.root / "after").read_bytes() == b"y" * 1_000_000


def test_full_of_unsent_data_at_kill_9(apache_share: Share, tiny_disk: Path, mount_of: MountOf) -> None:
    """A daemon that is killed on a full disk is followed by one that sends everything."""
    with Relay(apache_share.url) as relay:
        first = mount_of(
            apache_share,
            url=relay.url,
            timeout=2,
            attr_timeout_min=100,
            attr_timeout=100,
            cache_dir=tiny_disk / "cache",
        )
        relay.refuse()
        accepted = written_until_full(first, b"x" * 100_000)
        first.mount.kill()
        relay.accept()
        second = mount_of(apache_share, url=relay.url, cache_dir=tiny_disk / "cache")
        eventually(lambda: second.sync() == 0, 60)
        assert on_the_server(apache_share) == accepted


def test_clean_data_makes_room_for_unsent(apache_share: Share, tiny_disk: Path, mount_of: MountOf) -> None:
    """What was read is evicted before a write is refused, although the cache has not reached its size."""
    apache_share.write("read", os.urandom(3_500_000))
    drive = mount_of(apache_share, cache_dir=tiny_disk / "cache", write_back=60)
    drive.read_file("read")
    drive.write_file("written", b"w" * 4_000_000)
    assert drive.sync() == 0
    assert (apache_share.root / "written").read_bytes() == b"w" * 4_000_000


def test_unsent_data_may_exceed_the_size_of_the_cache(
    apache_share: Share, tmp_path: Path, mount_of: MountOf
) -> None:
    """`cache_size` bounds what can be fetched again: unsent data exceeds it, clean data is at zero then."""
    apache_share.write("read", b"r" * 900_000)
    drive = mount_of(apache_share, cache_dir=tmp_path / "small", cache_size="1M", write_back=60)
    drive.read_file("read")
    for number in range(4):
        drive.write_file(f"w{number}", b"w" * 1_000_000)
    kept = [path.stat().st_size for path in (tmp_path / "small").glob("**/data/*/*")]
    assert kept == [1_000_000] * 4
    assert drive.sync() == 0
    told = drive.mount.davfs("status", str(drive.mount.point), "--json")
    assert json.loads(told.stdout)["cache_bytes"] <= 1 << 20
    assert len(on_the_server(apache_share)) == 5
