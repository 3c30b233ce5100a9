"""Times that programs set, with ordinary tools: in this mount, after a remount, and in another mount.

With `mtime=properties` on every server that can be started. What one cannot keep is data here, with the
reason; docs/SERVERS.md says the same.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.mount.drivers import KernelDriver, mounted
from tests.servers import Server, Share

SOAK: Final = os.environ.get("DAVFS_SOAK") == "1"
# The others take 60 s more; tests/protocol/test_times.py asks them all, without a kernel.
SERVERS: Final = ("apache", "nginx", *(("lighttpd", "rclone", "sabredav", "wsgidav") if SOAK else ()))
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


def mount_on(share: Share, tmp_path: Path, name: str, **options: Any) -> AbstractContextManager[KernelDriver]:
    return mounted(share.url, tmp_path / name, share.root, **{"cache_dir": tmp_path / "cache", **options})


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


@pytest.fixture(params=SERVERS)
def tool_share(request: pytest.FixtureRequest) -> Iterator[Share]:
    server: Server = request.getfixturevalue(request.param)
    with server.share() as share:
        yield share


def used_tools(drive: KernelDriver, source: Path, archive: Path) -> None:
    for folder in ("copied", "unpacked", "project"):
        drive.mkdir(folder)
    drive.write_file("touched", b"x")
    drive.write_file("project/in", b"in")
    drive.write_file("project/Makefile", MAKEFILE.encode())
    assert drive.sync() == 0
    drive.run(["sh", "-c", f"cp -p {source}/f* copied/"])
    drive.run(["rsync", "-a", f"{source}/", "mirror/"])
    drive.run(["tar", "-xf", str(archive), "-C", "unpacked"])
    drive.run(["touch", "-d", f"@{LATER_NS // SECOND}.{LATER_NS % SECOND}", "touched"])
    drive.run(["make", "-C", "project"])


def test_tools_find_their_times_again(tool_share: Share, tmp_path: Path, source: Path, archive: Path) -> None:
    """cp -p, rsync -a, tar, touch -d, make: at once, from another mount without a cache, after a remount."""
    server = tool_share.name
    with mount_on(tool_share, tmp_path, "first", mtime="properties") as drive:
        used_tools(drive, source, archive)
        check(drive, source, archive, server, here=True)
        assert drive.sync() == 0
        check(drive, source, archive, server, here=True)
        with mount_on(tool_share, tmp_path, "second", cache_dir=tmp_path / "other") as another:
            check(another, source, archive, server, here=False)
    with mount_on(tool_share, tmp_path, "third") as again:
        check(again, source, archive, server, here=True)


def test_kill_9_forgets_no_time(apache_share: Share, tmp_path: Path) -> None:
    """Killed right after `touch -d`: the next mount of the cache tells the server."""
    with mount_on(apache_share, tmp_path, "first", mtime="properties") as drive:
        drive.write_file("f", b"x")
        assert drive.sync() == 0
        drive.run(["touch", "-d", f"@{LATER_NS // SECOND}.{LATER_NS % SECOND}", "f"])
        drive.mount.kill()
    with mount_on(apache_share, tmp_path, "second", mtime="properties") as drive:
        assert drive.stat("f").mtime_ns == LATER_NS
        assert drive.sync() == 0
    with mount_on(apache_share, tmp_path, "third", cache_dir=tmp_path / "other") as another:
        assert another.stat("f").mtime_ns == LATER_NS
