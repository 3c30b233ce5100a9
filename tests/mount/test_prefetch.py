"""What is fetched ahead of real programs, by the server's own access log: no more than without it, only
sooner.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from davfs.fs.walks import WINDOW_MAX
from tests.mount.drivers import KernelDriver
from tests.mount.test_scenarios import eventually
from tests.servers import Share

MountOf = Callable[..., KernelDriver]
OLD = (1_600_000_000, 1_600_000_000)  # what is old is believed for a minute, and not proved by its bytes


def make(share: Share, folders: int, files: int, size: int = 10) -> None:
    for folder in range(folders):
        for file in range(files):
            share.write(f"d{folder:03d}/f{file:03d}", b"%03d" % file + bytes(size - 3))


def age(folder: Path) -> None:
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            os.utime(f"{place}/{name}", OLD)
        os.utime(place, OLD)


def asked(share: Share) -> Counter[tuple[str, str | None]]:
    return Counter((request.method, request.depth) for request in share.log_requests())


def test_a_walk_is_one_request_for_each_folder(apache_share: Share, mount_of: MountOf) -> None:
    """find over 60 folders of 20 files, with the attributes of all: 61 PROPFINDs, each of another folder."""
    for folder in range(60):
        (apache_share.root / f"d{folder:03d}").mkdir()
        for file in range(20):
            (apache_share.root / f"d{folder:03d}/f{file}").touch()
    age(apache_share.root)
    drive = mount_of(apache_share)
    assert len(drive.run(["find", ".", "-printf", "%s %p\n"]).splitlines()) == 1 + 60 * 21
    listed = [request.path for request in apache_share.log_requests() if request.depth == "1"]
    assert len(listed) == len(set(listed)) == 61
    apache_share.forget_requests()
    drive.run(["find", ".", "-printf", "%s %p\n"])
    assert not asked(apache_share)


def test_a_walk_that_is_stopped(apache_share: Share, mount_of: MountOf) -> None:
    """find stopped at its tenth line: some folders were listed for nothing, and soon no more."""
    for folder in range(300):
        (apache_share.root / f"d{folder:03d}").mkdir()
    age(apache_share.root)
    drive = mount_of(apache_share)
    apache_share.forget_requests()  # what beginning a mount costs
    drive.run(["sh", "-c", "find d0* | head -10; true"])
    drive.run(["sh", "-c", "for d in d10 d11; do ls $d*; done"])
    asked_for: list[int] = []

    def asks_no_more() -> bool:
        time.sleep(1)
        asked_for.append(len(apache_share.log_requests()))
        return asked_for[-1] in asked_for[:-1]

    eventually(asks_no_more, 30)
    listed = [request.path for request in apache_share.log_requests() if request.depth == "1"]
    assert len(set(listed)) <= 1 + 100 + 20 + WINDOW_MAX  # the root, what the programs saw, and one window
    assert len(listed) - len(set(listed)) <= 1  # the root, if its time is over


def test_reading_a_tree_is_one_request_for_each_file(apache_share: Share, mount_of: MountOf) -> None:
    """grep -r over 8 folders of 10 files: 9 PROPFINDs and 80 GETs; again, none."""
    make(apache_share, 8, 10)
    age(apache_share.root)
    drive = mount_of(apache_share)
    apache_share.forget_requests()
    assert len(drive.run(["grep", "-rlaF", "00", "."]).splitlines()) == 80
    found = asked(apache_share)
    assert found.pop(("GET", None)) == 80
    assert found.pop(("PROPFIND", "1")) in {8, 9}  # the check that the mount answers may have listed the root
    assert not found
    apache_share.forget_requests()
    drive.run(["grep", "-rlaF", "00", "."])
    assert not asked(apache_share)


def test_one_open_in_a_folder_of_a_thousand(apache_share: Share, mount_of: MountOf) -> None:
    """Nothing else is fetched."""
    make(apache_share, 1, 1000)
    age(apache_share.root)
    drive = mount_of(apache_share)
    drive.run(["ls", "-l", "d000"])
    apache_share.forget_requests()
    assert drive.read_file("d000/f500").startswith(b"500")
    time.sleep(0.5)
    assert asked(apache_share) == {("GET", None): 1}


def test_copying_a_folder_reads_each_file_once(
    apache_share: Share, mount_of: MountOf, tmp_path: Path
) -> None:
    """cp -r opens by inode number, cat * by name, tar by listing: one GET for each file."""
    make(apache_share, 3, 40, 2000)
    age(apache_share.root)
    drive = mount_of(apache_share)
    drive.run(["find", "."])
    for command in (f"cp -r d000 {tmp_path}/copy", "cat d001/* | wc -c", "tar cf - d002 | wc -c"):
        apache_share.forget_requests()
        drive.run(["sh", "-c", command])
        time.sleep(0.3)
        assert asked(apache_share) == {("GET", None): 40}, command
    assert (tmp_path / "copy/f007").read_bytes()[:3] == b"007"
