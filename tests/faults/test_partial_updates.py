"""`partial_put=auto`: of a large file only what changed goes up, and no trouble on the way tears the file.

Apache takes PUT with Content-Range, sabre/dav PATCH; rclone replaces the file by the part (servers.md 5).
sabre/dav 1.8 hashes a file to say its tag, 256 MiB in most of a second: DAVFS_SOAK=1 runs all of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.drivers import KernelDriver
from tests.mount.test_scenarios import eventually
from tests.servers import Exchange, MissingPart, Relay, SabreDav, Share
from tests.servers.meter import Moment
from tests.servers.relay import Verdict

MountOf = Callable[..., KernelDriver]
SIZE = 8 << 20
HEAD, TAIL = b"the head", b"the tail"
MORE = os.urandom(4096)
AGED_S = 100.0
SOAK = os.environ.get("DAVFS_SOAK") == "1"
KILLS = [("part", "half"), ("MOVE", "answer"), *([("MOVE", "request")] if SOAK else [])]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def patching() -> Iterator[SabreDav]:
    """sabre/dav with the plugin for PATCH."""
    try:
        server = SabreDav(partial_update=True)
    except MissingPart as part:
        pytest.skip(str(part))
    with server:
        yield server


@pytest.fixture(params=["apache", "patching"] if SOAK else ["apache"])
def in_parts(request: pytest.FixtureRequest) -> Iterator[Share]:
    """A share of a server that replaces parts of files."""
    with request.getfixturevalue(request.param).share() as share:
        yield share


@pytest.fixture(params=["apache", "patching"])
def any_in_parts(request: pytest.FixtureRequest) -> Iterator[Share]:
    """The same, also in the ordinary run."""
    with request.getfixturevalue(request.param).share() as share:
        yield share


def large(share: Share, size: int = SIZE) -> Path:
    """A sparse file that nobody here has read, and nobody has changed for a while."""
    share.write("large", HEAD)
    path = share.root / "large"
    with path.open("r+b") as file:
        file.truncate(size)
        file.seek(size - len(TAIL))
        file.write(TAIL)
    old_s = time.time() - AGED_S
    os.utime(path, (old_s, old_s))
    return path


def read(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def names(share: Share) -> list[str]:
    return sorted(name for name in os.listdir(share.root) if name != ".sabredav")  # what it keeps there


def append(drive: KernelDriver) -> None:
    fd = drive.open("large", os.O_WRONLY | os.O_APPEND)
    drive.write(fd, MORE)
    drive.fsync(fd)
    drive.close(fd)


def told(drive: KernelDriver) -> object:
    """What `davfs status` says."""
    answer = drive.mount.davfs("status", str(drive.mount.point), "--json")
    return json.loads(answer.stdout)["server_profile"]["partial_put"]


def is_part(one: Exchange) -> bool:
    return one.method in {"PUT", "PATCH"} and one.announced_bytes == len(MORE)


def bodies(relay: Relay) -> int:
    return sum(one.body_bytes for one in relay.exchanges if one.method in {"PUT", "PATCH"})


def test_an_append_to_a_large_file_sends_kilobytes(any_in_parts: Share, mount_of: MountOf) -> None:
    """4 KiB behind 256 MiB: less than 64 KiB up, nothing of the file down, again and again."""
    is_fast = any_in_parts.server.name == "apache"
    size, times = (256 if is_fast or SOAK else 16) << 20, 3 if is_fast else 1
    path = large(any_in_parts, size)
    with Relay(any_in_parts.url) as relay:
        drive = mount_of(any_in_parts, url=relay.url, partial_put="auto", lock="never")
        drive.stat("large")
        relay.forget()
        for count in range(times):
            append(drive)
            assert path.stat().st_size == size + (count + 1) * len(MORE)
        assert relay.bytes_up < 64 * 1024
        assert relay.bytes_down < 64 * 1024
        gets = [one.target for one in relay.exchanges if one.method == "GET"]
        assert not [target for target in gets if target.endswith("/large")]
        assert read(path, size - len(TAIL), 1 << 20) == TAIL + times * MORE
        assert read(path, 0, len(HEAD)) == HEAD
        fd = drive.open("large", os.O_RDONLY)  # what was never read is read from our own version
        assert drive.pread(fd, len(HEAD), 0) == HEAD
        assert drive.pread(fd, 1 << 20, size - len(TAIL)) == TAIL + times * MORE
        drive.close(fd)
        eventually(lambda: names(any_in_parts) == ["large"], 20)


def test_changes_inside_go_alone_too(in_parts: Share, mount_of: MountOf) -> None:
    """A file made here and then changed in three places: the places go up, and the file is right."""
    data = bytearray(os.urandom(16 << 20))
    with Relay(in_parts.url) as relay:
        drive = mount_of(in_parts, url=relay.url, partial_put="auto", lock="never")
        drive.write_file("large", bytes(data))
        assert drive.sync() == 0
        if in_parts.server.name != "apache":
            time.sleep(2.1)  # where tags have whole seconds, one has to be over
        relay.forget()
        fd = drive.open("large", os.O_RDWR)
        for at in (0, 5 << 20, len(data) - 10):
            data[at : at + len(MORE)] = MORE
            drive.pwrite(fd, MORE, at)
        drive.fsync(fd)
        drive.close(fd)
        assert bodies(relay) < 64 * 1024
        assert (in_parts.root / "large").read_bytes() == bytes(data)


def test_by_default_the_whole_file_goes(apache_share: Share, mount_of: MountOf) -> None:
    """Without the option no part is sent, nor tried."""
    path = large(apache_share)
    with Relay(apache_share.url) as relay:
        drive = mount_of(apache_share, url=relay.url)
        append(drive)
        assert bodies(relay) == SIZE + len(MORE)
        assert told(drive) == "never"
    assert read(path, SIZE - len(TAIL), 1 << 20) == TAIL + MORE


def test_a_server_that_replaces_the_file_by_the_part_is_found_out(
    rclone_share: Share, mount_of: MountOf
) -> None:
    """rclone ignores Content-Range: the try shows it, and files go up whole."""
    path = large(rclone_share)
    with Relay(rclone_share.url) as relay:
        drive = mount_of(rclone_share, url=relay.url, partial_put="auto", lock="never")
        for count in (1, 2):
            append(drive)
            assert read(path, 0, len(HEAD)) == HEAD
            assert read(path, SIZE - len(TAIL), 1 << 20) == TAIL + count * MORE
        parts = [one for one in relay.exchanges if one.method == "PUT" and one.body_bytes < 64]
        assert len(parts) <= 3  # the try, once
        assert told(drive) == "no"
        eventually(lambda: names(rclone_share) == ["large"], 20)


@pytest.mark.expects_warning("")
def test_a_cut_part_leaves_the_file_whole(in_parts: Share, mount_of: MountOf) -> None:
    """The connection breaks in, behind or after the part: the old file stands until the new one does."""
    path, cuts = large(in_parts), list[Moment]()

    def watch(now: Moment, one: Exchange) -> Verdict:
        if cuts and now == cuts[0] and is_part(one):
            del cuts[0]
            assert read(path, SIZE - len(TAIL), 1 << 20) == TAIL + done
            return "half" if now == "half" else "drop"
        return "pass"

    with Relay(in_parts.url, watch=watch) as relay:
        drive = mount_of(in_parts, url=relay.url, partial_put="auto", lock="never")
        moments: tuple[Moment, ...] = ("half", "sent", "answer")
        for moment in moments:
            done, cuts[:] = path.read_bytes()[SIZE:], [moment]
            fd = drive.open("large", os.O_WRONLY | os.O_APPEND)
            drive.write(fd, MORE)
            with contextlib.suppress(OSError):
                drive.fsync(fd)
            drive.close(fd)
            assert drive.sync() == 0
            assert read(path, SIZE - len(TAIL), 1 << 20) == TAIL + done + MORE
            assert not cuts
        assert bodies(relay) < 64 * 1024
        eventually(lambda: names(in_parts) == ["large"], 20)


@pytest.mark.expects_warning("")
@pytest.mark.parametrize(("method", "moment"), KILLS)
def test_kill_9_in_the_middle(
    in_parts: Share, mount_of: MountOf, tmp_path: Path, method: str, moment: Moment
) -> None:
    """Killed while the part goes up, before the MOVE or after it: the next mount has the file sent, once."""
    path, cache = large(in_parts), tmp_path / "kept"
    with Relay(in_parts.url) as relay:
        drive = mount_of(in_parts, url=relay.url, cache_dir=cache, partial_put="auto", lock="never")

        def watch(now: Moment, one: Exchange) -> Verdict:
            to_its_name = one.method == "MOVE" and (one.destination or "").endswith("/large")
            if now == moment and (to_its_name if method == "MOVE" else is_part(one)):
                drive.mount.kill()
                return "half" if moment == "half" else "drop"
            return "pass"

        relay.watch = watch
        fd = drive.open("large", os.O_WRONLY | os.O_APPEND)
        drive.write(fd, MORE)
        drive.close(fd)
        eventually(lambda: drive.mount.process.poll() is not None, 20)
        relay.watch = None
        assert path.stat().st_size in {SIZE, SIZE + len(MORE)}
        again = mount_of(in_parts, url=relay.url, cache_dir=cache, partial_put="auto", lock="never")
        assert again.sync() == 0
        assert read(path, 0, len(HEAD)) == HEAD
        assert read(path, SIZE - len(TAIL), 1 << 20) == TAIL + MORE
        assert path.stat().st_size == SIZE + len(MORE)
        eventually(lambda: names(in_parts) == ["large"], 20)


@pytest.mark.expects_warning("")
def test_a_foreign_change_under_a_partial_update_survives(in_parts: Share, mount_of: MountOf) -> None:
    """Somebody stores the file between our COPY and our MOVE: theirs keeps the name, ours is beside it."""
    path = large(in_parts)
    theirs = os.urandom(1000)

    def watch(now: Moment, one: Exchange) -> Verdict:
        if now == "request" and is_part(one):
            in_parts.write("large", theirs)
        return "pass"

    with Relay(in_parts.url, watch=watch) as relay:
        drive = mount_of(in_parts, url=relay.url, partial_put="auto", lock="never")
        assert drive.read_file("large").startswith(HEAD)
        fd = drive.open("large", os.O_WRONLY | os.O_APPEND)
        drive.write(fd, MORE)
        drive.close(fd)
        assert drive.sync() == 0
        assert path.read_bytes() == theirs
        (kept,) = [name for name in names(in_parts) if name != "large" and not name.startswith(".davfs-")]
        assert kept.startswith("large (conflict ")
        assert read(in_parts.root / kept, SIZE - len(TAIL), 1 << 20) == TAIL + MORE
        assert read(in_parts.root / kept, 0, len(HEAD)) == HEAD
