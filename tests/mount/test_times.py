"""Times that programs set, with ordinary tools: in this mount, after a remount, and in another mount.

With `mtime=properties` on every server that can be started. What one cannot keep is data here, with the
reason; docs/SERVERS.md says the same.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.mount.drivers import KernelDriver, mounted
from tests.servers import Share

MountOf = Callable[..., KernelDriver]
OLD_NS: Final = 1_000_000_000_123_456_789
LATER_NS: Final = 1_200_000_000_987_654_321
SECOND: Final = 1_000_000_000
# Who sets the time of a file with its PUT: whole seconds, and nothing afterwards (no PROPPATCH that does it).
WITH_PUT_ONLY: Final = {"nginx": "405 to PROPPATCH", "rclone": "PROPPATCH changes nothing, 500 for a folder"}


def tree_at(folder: Path) -> Path:
    """Files and folders with old times, with nanoseconds."""
    for number in range(4):
        for place in (folder, folder / "sub"):
            place.mkdir(parents=True, exist_ok=True)
            file = place / f"f{number}"
            file.write_bytes(b"x" * (100 + number))
            os.utime(file, ns=(OLD_NS, OLD_NS + number * SECOND))
    for place in (folder / "sub", folder):
        os.utime(place, ns=(OLD_NS, OLD_NS))
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tree_at(tmp_path / "source")


@pytest.fixture
def archive(source: Path, tmp_path: Path) -> Path:
    made = tmp_path / "tree.tar"
    subprocess.run(["tar", "--format=posix", "-cf", made, "-C", source, "."], check=True, timeout=30)
    return made


@pytest.fixture
def mounts(locking_share: Share, tmp_path: Path) -> Iterator[Callable[..., KernelDriver]]:
    with ExitStack() as stack:

        def mount(name: str, cache: str, **options: object) -> KernelDriver:
            folder = tmp_path / name
            return stack.enter_context(
                mounted(
                    locking_share.url,
                    folder,
                    locking_share.root,
                    cache_dir=tmp_path / cache,
                    mtime="properties",
                    **options,
                )
            )

        yield mount


def same_time(found_ns: int, wanted_ns: int, server: str, *, here: bool) -> bool:
    """To the nanosecond, or to the second where the server's own time of the file was set."""
    exact = here or server not in WITH_PUT_ONLY
    return found_ns == wanted_ns if exact else found_ns // SECOND == wanted_ns // SECOND


def check(drive: KernelDriver, source: Path, archive: Path, server: str, *, here: bool) -> None:
    """Everything is as the programs left it, as far as the server can tell it."""
    for name in ("copied/f1", "mirror/f1", "mirror/sub/f2", "unpacked/f3"):
        wanted_ns = OLD_NS + int(name[-1]) * SECOND
        assert same_time(drive.stat(name).mtime_ns, wanted_ns, server, here=here), name
    if here or server not in WITH_PUT_ONLY:
        for name in ("mirror", "mirror/sub", "unpacked/sub"):
            assert drive.stat(name).mtime_ns == OLD_NS, name
        assert drive.stat("touched").mtime_ns == LATER_NS
        assert drive.run(["tar", "--compare", "-f", str(archive), "-C", "unpacked"]) == ""
    again = drive.run(["rsync", "-a", "--itemize-changes", "--omit-dir-times", f"{source}/", "mirror/"])
    assert again == ""
    assert "up to date" in drive.run(["make", "-C", "project"])


MAKEFILE: Final = "out: in\n\tcp in out\n\techo made >> log\n"


def test_tools_find_their_times_again(
    locking_share: Share, mounts: MountOf, source: Path, archive: Path
) -> None:
    """cp -p, rsync -a, tar, touch -d, make: at once, from another mount without a cache, after a remount."""
    server = locking_share.name
    drive = mounts("first", "cache")
    drive.mkdir("copied")
    drive.mkdir("unpacked")
    drive.mkdir("project")
    drive.write_file("touched", b"x")
    drive.write_file("project/in", b"in")
    drive.write_file("project/Makefile", MAKEFILE.encode())
    assert drive.sync() == 0
    drive.run(["sh", "-c", f"cp -p {source}/f* copied/"])
    drive.run(["rsync", "-a", f"{source}/", "mirror/"])
    drive.run(["tar", "-xf", str(archive), "-C", "unpacked"])
    drive.run(["touch", "-d", f"@{LATER_NS // SECOND}.{LATER_NS % SECOND}", "touched"])
    drive.run(["make", "-C", "project"])
    check(drive, source, archive, server, here=True)
    assert drive.sync() == 0
    check(drive, source, archive, server, here=True)
    check(mounts("second", "other-cache"), source, archive, server, here=False)
    drive.mount.close()
    check(mounts("third", "cache"), source, archive, server, here=True)
