"""Times that programs set, on every server: what another mount without a cache finds there, without a kernel.

What a server cannot keep is data here, with the reason; docs/SERVERS.md says the same.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from davfs.fs.settings import Settings
from tests.mount.drivers import DirectDriver
from tests.servers import Share

OLD_NS: Final = 1_000_000_000_123_456_789
LATER_NS: Final = 1_200_000_000_987_654_321
SECOND: Final = 1_000_000_000
# Who sets the time of a file with its PUT, in whole seconds, and nothing afterwards.
WITH_PUT_ONLY: Final = {"nginx": "405 to PROPPATCH", "rclone": "PROPPATCH changes nothing, 500 for a folder"}


def drive_on(share: Share, cache: Path) -> DirectDriver:
    return DirectDriver(
        share.url, share.root, Settings(str(cache), mtime="properties", attr_timeout_max_s=1.0)
    )


def sent(drive: DirectDriver, name: str) -> None:
    """As cp -p writes a file."""
    fd = drive.open(name, os.O_WRONLY | os.O_CREAT)
    drive.write(fd, b"x")
    drive.futime(fd, OLD_NS)
    drive.close(fd)


def test_another_mount_finds_the_times(locking_share: Share, tmp_path: Path) -> None:
    """Of files that were sent with one, of one that was there, of a folder: as far as the server goes."""
    server = locking_share.name
    locking_share.write("there", b"x")
    ours = drive_on(locking_share, tmp_path / "ours")
    try:
        ours.mkdir("d")
        for name in ("d/a", "d/b"):
            sent(ours, name)
        ours.write_file("plain", b"x")
        ours.utime("there", LATER_NS)
        ours.utime("d", OLD_NS)
        assert ours.sync() == 0
        assert {ours.stat(name).mtime_ns for name in ("d", "d/a", "d/b")} == {OLD_NS}
    finally:
        ours.close_driver()
    theirs = drive_on(locking_share, tmp_path / "theirs")
    try:
        found = {name: theirs.stat(name).mtime_ns for name in ("d", "d/a", "d/b", "there")}
    finally:
        theirs.close_driver()
    if server in WITH_PUT_ONLY:
        assert {found[name] // SECOND for name in ("d/a", "d/b")} == {OLD_NS // SECOND}
    else:
        assert found == {"d": OLD_NS, "d/a": OLD_NS, "d/b": OLD_NS, "there": LATER_NS}


def test_times_cost_no_request_by_default(locking_share: Share, tmp_path: Path) -> None:
    """No PROPPATCH where the server has no time that can be set, or takes it with the PUT."""
    locking_share.write("there", b"x")
    drive = DirectDriver(locking_share.url, locking_share.root, Settings(str(tmp_path / "cache")))
    try:
        drive.mkdir("d")
        sent(drive, "d/a")
        sent(drive, "d/b")
        drive.utime("there", LATER_NS)
        drive.utime("d", OLD_NS)
        assert drive.sync() == 0
    finally:
        drive.close_driver()
    assert [str(one) for one in locking_share.log_requests() if one.method == "PROPPATCH"] == []


def test_a_change_by_another_client_has_its_own_time(share: Share, tmp_path: Path) -> None:
    """Whatever was set on the version before it, and although some servers keep the property."""
    ours = drive_on(share, tmp_path / "ours")
    try:
        sent(ours, "f")
        assert ours.sync() == 0
    finally:
        ours.close_driver()
    theirs = DirectDriver(share.url, share.root, Settings(str(tmp_path / "theirs")))
    try:
        theirs.write_file("f", b"longer")
        assert theirs.sync() == 0
    finally:
        theirs.close_driver()
    time.sleep(1.1)  # the listings that this cache keeps are too old to be believed
    again = drive_on(share, tmp_path / "ours")
    try:
        assert again.stat("f").mtime_ns > LATER_NS
    finally:
        again.close_driver()
