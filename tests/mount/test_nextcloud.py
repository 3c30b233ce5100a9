"""Nextcloud and ownCloud: parts, checksums, tags of whole trees, names; on a faithful server."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

from davfs.dav.auth import Credentials
from davfs.fs.settings import Settings
from tests.fakes.nextcloud import PASSWORD, USER, Nextcloud
from tests.mount.drivers import DirectDriver, KernelDriver, mounted
from tests.mount.test_scenarios import eventually

MountOn = Callable[..., KernelDriver]
DirectOn = Callable[..., DirectDriver]
MB = 1 << 20

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def cloud() -> Iterator[Nextcloud]:
    with Nextcloud() as server:
        yield server


@pytest.fixture
def mount_on(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MountOn]:
    """Mounts of a Nextcloud; what the daemon warned of without being announced fails the test."""
    with ExitStack() as stack:
        drivers: list[KernelDriver] = []

        def make(server: Nextcloud, *, url: str | None = None, **options: object) -> KernelDriver:
            folder = tmp_path / f"mount{len(drivers)}"
            options.setdefault("cache_dir", tmp_path / "cache")
            drive = stack.enter_context(
                mounted(url or server.url, folder, tmp_path, password=(USER, PASSWORD), **options)
            )
            drivers.append(drive)
            return drive

        yield make
    announced = [mark.args[0] for mark in request.node.iter_markers("expects_warning")]
    for drive in drivers:
        lines = drive.mount.complaints()
        assert not [line for line in lines if not any(text in line for text in announced)]


@pytest.fixture
def direct_on(tmp_path: Path) -> Iterator[DirectOn]:
    """The same without a kernel, which takes a second less to start."""
    with ExitStack() as stack:

        def make(
            server: Nextcloud, *, url: str | None = None, attr_timeout: float = 1.0, timeout: float = 30.0
        ) -> DirectDriver:
            settings = Settings(
                cache_dir=str(tmp_path / "direct-cache"),
                attr_timeout_min_s=attr_timeout,
                attr_timeout_max_s=attr_timeout,
                timeout_s=timeout,
            )
            credentials = Credentials(USER, PASSWORD)
            drive = DirectDriver(url or server.url, tmp_path, settings, credentials=credentials)
            stack.callback(drive.close_driver)
            return drive

        yield make


def _error_of(attempt: Callable[[], object]) -> int | None:
    try:
        attempt()
    except OSError as error:
        return error.errno
    return None


def _parts_noted(folder: Path) -> int:
    """How many parts the journal of the daemon says that the server has."""
    (index,) = folder.rglob("index.db")
    with closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT COUNT(*) FROM chunked_parts").fetchone()[0])


def sha1(data: bytes) -> str:
    return f"SHA1:{hashlib.sha1(data).hexdigest()}"


def test_a_large_file_goes_in_parts(cloud: Nextcloud, mount_on: MountOn) -> None:
    """MKCOL, parts of one size, one MOVE that takes the date and the checksum along."""
    data = os.urandom(45 * MB)
    drive = mount_on(cloud)
    cloud.log.clear()
    drive.write_file("large", data)
    drive.utime("large", 1_000_000_000_000_000_000)
    assert drive.sync() == 0
    assert cloud.content("large") == data
    assert cloud.file("large").checksum == sha1(data)
    assert cloud.file("large").mtime_s == 1_000_000_000
    parts = cloud.requests("PUT")
    assert [one.body_bytes for one in sorted(parts, key=lambda one: one.path)] == [10 * MB] * 4 + [5 * MB]
    assert cloud.brief("MKCOL", "MOVE", "DELETE") == ["MKCOL uploads", "MOVE uploads/.file"]
    assert cloud.requests("MOVE")[0].headers["overwrite"] == "F"
    assert all(one.headers["oc-total-length"] == str(len(data)) for one in parts)
    assert not cloud.uploads


# --- parts ---------------------------------------------------------------------------------------------


def test_object_storage_takes_the_parts_too(cloud: Nextcloud, direct_on: DirectOn) -> None:
    """Numbers from 1, each part but the last of 5 MB at least, the Destination with every request."""
    cloud.strict = True
    data = os.urandom(23 * MB)
    drive = direct_on(cloud)
    drive.write_file("large", data)
    assert drive.sync() == 0
    assert cloud.content("large") == data


def test_the_old_address_finds_the_user(cloud: Nextcloud, direct_on: DirectOn) -> None:
    """/remote.php/webdav/ does not name the user: the principal does, once."""
    first, second = os.urandom(300), os.urandom(400)
    cloud.put("file", first)
    drive = direct_on(cloud, url=cloud.legacy_url)
    for data in (second, first):
        drive.write_file("file", data)
        assert drive.sync() == 0
        assert cloud.content("file") == data
    assert len([one for one in cloud.requests("MOVE") if "uploads" in one.path]) == 2
    mounted_at = "/remote.php/webdav/file"
    assert all(not one.path.startswith(mounted_at) for one in cloud.requests("PUT"))


def test_an_overwrite_is_three_requests(cloud: Nextcloud, direct_on: DirectOn) -> None:
    """A folder, one part, a MOVE that says which version it may replace; its answer has the new tag."""
    cloud.put("file", os.urandom(2 * MB), mtime_s=1_000_000_000)
    drive = direct_on(cloud)
    drive.read_file("file")
    tag = cloud.file("file").etag
    cloud.log.clear()
    data = os.urandom(MB // 2)
    drive.write_file("file", data)
    assert drive.sync() == 0
    assert cloud.content("file") == data
    changes = cloud.brief("MKCOL", "PUT", "MOVE", "DELETE")
    assert changes == ["MKCOL uploads", "PUT uploads/00001", "MOVE uploads/.file"]
    claim = cloud.requests("MOVE")[0].headers["if"]
    assert claim == f'<{cloud.url}file> (["{tag}"])'
    assert not cloud.brief("PROPFIND", "GET")


@pytest.mark.expects_warning("")
def test_a_cut_overwrite_leaves_the_old_file_whole(cloud: Nextcloud, mount_on: MountOn) -> None:
    """A PUT over a file writes in place there: nothing of ours is under the name before all of it came."""
    old, new = os.urandom(300_000), os.urandom(3 * MB)
    cloud.put("file", old)
    drive = mount_on(cloud, timeout=2)
    cuts = iter([100_000, 2_900_000])
    torn: list[bytes] = []
    limit: list[int] = [next(cuts)]

    def cut(path: str, taken: int) -> bool:
        is_cut = "00001" in path and taken >= limit[0]
        if is_cut:
            limit[0] = next(cuts, 1 << 40)
        return is_cut

    cloud.cut = cut
    fd = drive.open("file", os.O_WRONLY | os.O_TRUNC)
    drive.write(fd, new)
    for _ in range(4):
        try:
            drive.fsync(fd)
        except OSError:
            torn.append(cloud.content("file"))
        else:
            break
    drive.close(fd)
    eventually(lambda: drive.sync() == 0, 30)
    assert torn == [old, old]
    assert cloud.content("file") == new


@pytest.mark.expects_warning("")
def test_an_upload_goes_on_after_kill_9(cloud: Nextcloud, mount_on: MountOn, tmp_path: Path) -> None:
    """The parts that the server has are not sent again by the next daemon."""
    data = os.urandom(50 * MB)
    drive = mount_on(cloud)
    held = threading.Event()

    def hold(method: str, path: str) -> int | None:
        if method == "PUT" and path.endswith("/00004"):
            held.wait(30)
        return None

    cloud.before = hold
    drive.write_file("large", data)
    eventually(lambda: _parts_noted(tmp_path) == 4, 30)  # the server has them before their answers are heard
    drive.mount.kill()
    held.set()
    cloud.before = lambda _method, _path: None
    eventually(lambda: cloud.answering == 0, 30)
    cloud.log.clear()
    (name,) = cloud.uploads
    again = mount_on(cloud)
    assert again.sync() == 0
    assert cloud.content("large") == data
    assert again.read_file("large") == data
    assert [one.path.rpartition("/")[2] for one in cloud.requests("PUT")] in (["00004"], [])
    assert cloud.brief("MKCOL") == []
    assert name in cloud.requests("MOVE")[0].path


@pytest.mark.expects_warning("")
def test_what_was_written_after_a_part_was_sent_is_not_mixed_in(cloud: Nextcloud, mount_on: MountOn) -> None:
    """The file changes, the daemon is killed: parts of before are not joined with those of after."""
    data = os.urandom(50 * MB)
    drive = mount_on(cloud)
    held = threading.Event()

    def hold(method: str, path: str) -> int | None:
        if method == "PUT" and path.endswith("/00005"):
            held.wait(30)
        return None

    cloud.before = hold
    fd = drive.open("large", os.O_RDWR | os.O_CREAT)
    for start in range(0, len(data), MB):
        drive.write(fd, data[start : start + MB])
    drive.close(fd)
    eventually(lambda: sum(map(len, cloud.uploads.values())) == 4, 30)
    fd = drive.open("large", os.O_RDWR)
    drive.pwrite(fd, b"changed", 5)
    drive.mount.kill()
    held.set()
    cloud.before = lambda _method, _path: None
    again = mount_on(cloud)
    assert again.sync() == 0
    assert cloud.content("large") == data[:5] + b"changed" + data[12:]
    eventually(lambda: not cloud.uploads, 20)


@pytest.mark.expects_warning("")
def test_a_proxy_that_gives_up_during_the_assembly(cloud: Nextcloud, mount_on: MountOn) -> None:
    """504 while the server joins the parts: it is looked, the MOVE is not sent again, nothing fails."""
    data = os.urandom(21 * MB)
    cloud.assembly_s, cloud.proxy_s = 3.0, 0.3
    drive = mount_on(cloud, timeout=5)
    fd = drive.open("large", os.O_WRONLY | os.O_CREAT)
    drive.write(fd, data)
    drive.fsync(fd)
    drive.close(fd)
    assert cloud.content("large") == data
    assert len(cloud.requests("MOVE")) == 1
    assert [one.status for one in cloud.requests("MOVE")] == [504]
    assert not cloud.uploads


@pytest.mark.expects_warning("")
def test_a_server_that_goes_on_in_the_background(direct_on: DirectOn) -> None:
    """202 to the MOVE (ownCloud): the file is waited for, the MOVE is not sent again."""
    with Nextcloud(kind="owncloud") as cloud:
        cloud.put("f", b"old", mtime_s=1_000_000_000)
        drive = direct_on(cloud)
        cloud.assembly_s, cloud.proxy_s, cloud.unfinished_status = 1.5, 0.1, 202
        fd = drive.open("f", os.O_WRONLY | os.O_TRUNC)
        drive.write(fd, b"newer")
        drive.fsync(fd)
        drive.close(fd)
        assert cloud.content("f") == b"newer"
        assert [one.status for one in cloud.requests("MOVE")] == [202]
        assert drive.listdir() == ["f"]


@pytest.mark.expects_warning("")
def test_the_answer_to_the_move_is_lost(cloud: Nextcloud, mount_on: MountOn) -> None:
    """The file is there: found, by its checksum, without a second MOVE and without fetching it."""
    old, data = os.urandom(22 * MB), os.urandom(22 * MB)
    cloud.put("large", old, mtime_s=1_000_000_000)
    drive = mount_on(cloud)
    lost = iter([True])
    cloud.lose = lambda method, _path: method == "MOVE" and next(lost, False)
    fd = drive.open("large", os.O_WRONLY | os.O_TRUNC)
    drive.write(fd, data)
    drive.fsync(fd)
    drive.close(fd)
    assert cloud.content("large") == data
    assert len(cloud.requests("MOVE")) == 1
    assert cloud.brief("GET") == ["GET ocs/v2.php/cloud/capabilities"]
    assert "conflict" not in str(drive.listdir())


@pytest.mark.expects_warning("conflict")
def test_another_client_comes_between_parts_and_move(cloud: Nextcloud, direct_on: DirectOn) -> None:
    """The MOVE is refused: theirs keeps the name, ours stands beside it."""
    cloud.put("file", b"base" * 1000, mtime_s=1_000_000_000)
    drive = direct_on(cloud)
    ours = os.urandom(2 * MB)

    def between(method: str, path: str) -> int | None:
        if method == "MOVE" and cloud.content("file") != b"theirs":
            cloud.put("file", b"theirs")
        return None

    drive.read_file("file")
    cloud.before = between
    drive.write_file("file", ours)
    assert drive.sync() == 0
    assert cloud.content("file") == b"theirs"
    (copy,) = [name for name in cloud.names() if "conflict" in name]
    assert cloud.content(copy) == ours
    eventually(lambda: not cloud.uploads, 20)


def test_parts_become_smaller_where_a_proxy_wants_that(cloud: Nextcloud, direct_on: DirectOn) -> None:
    """413 to a part, or to a whole file: smaller parts, from then on for every file."""
    cloud.largest_put = 6 * MB
    data = os.urandom(25 * MB)
    drive = direct_on(cloud)
    for name in ("first", "second"):
        drive.write_file(name, data)
        assert drive.sync() == 0
        assert cloud.content(name) == data
    drive.write_file("medium", data[: 12 * MB])
    assert drive.sync() == 0
    assert cloud.content("medium") == data[: 12 * MB]
    seconds = [one for one in cloud.requests("PUT") if one.headers.get("destination", "").endswith("second")]
    assert all(one.status == 201 for one in seconds)
    eventually(lambda: not cloud.uploads, 20)


@pytest.mark.expects_warning("room")
def test_no_room_is_told_before_a_byte_is_sent(cloud: Nextcloud, direct_on: DirectOn) -> None:
    """A large file that does not fit: ENOSPC, and no part was sent."""
    cloud.quota_bytes = 25 * MB
    drive = direct_on(cloud)
    cloud.put("theirs", os.urandom(10 * MB))
    fd = drive.open("large", os.O_WRONLY | os.O_CREAT)
    drive.write(fd, os.urandom(22 * MB))
    assert _error_of(lambda: drive.fsync(fd)) == errno.ENOSPC
    assert cloud.requests("PUT") == []
    drive.close(fd)


def test_a_removed_file_leaves_no_parts(cloud: Nextcloud, direct_on: DirectOn) -> None:
    """rm while its parts are on their way: the folder of the upload goes too."""
    drive = direct_on(cloud)
    cloud.piece_s = 0.02
    drive.write_file("large", os.urandom(30 * MB))
    eventually(lambda: bool(cloud.uploads), 20)
    drive.unlink("large")
    cloud.piece_s = 0
    eventually(lambda: not cloud.uploads, 40)
    assert cloud.names() == []


def test_without_a_place_for_parts_files_are_sent_whole(cloud: Nextcloud, direct_on: DirectOn) -> None:
    """A server that refuses the folder of an upload gets one PUT, this time and from then on."""
    cloud.before = lambda method, path: 404 if method == "MKCOL" and "/uploads/" in path else None
    drive = direct_on(cloud)
    data = os.urandom(21 * MB)
    for name in ("first", "second"):
        drive.write_file(name, data)
        assert drive.sync() == 0
        assert cloud.content(name) == data
    assert cloud.brief("MKCOL", "PUT") == ["MKCOL uploads", "PUT first", "PUT second"]


# --- checksums -----------------------------------------------------------------------------------------


def test_bytes_that_arrive_damaged_are_sent_again(direct_on: DirectOn) -> None:
    """ownCloud compares the checksum that goes along: 400, and the next try succeeds, small and in parts."""
    with Nextcloud(kind="owncloud") as cloud:
        damaged: set[str] = set()

        def damage(path: str, data: bytes) -> bytes:
            if path.endswith(("small", "00002")) and path.rpartition("/")[2] not in damaged:
                damaged.add(path.rpartition("/")[2])
                return b"?" + data[1:]
            return data

        cloud.damage = damage
        drive = direct_on(cloud)
        large = os.urandom(25 * MB)
        drive.write_file("small", b"0123456789")
        drive.write_file("large", large)
        assert drive.sync() == 0
        assert damaged == {"small", "00002"}
        assert cloud.content("small") == b"0123456789"
        assert cloud.content("large") == large


@pytest.mark.expects_warning("damaged")
def test_bytes_that_always_arrive_damaged_are_an_error(direct_on: DirectOn) -> None:
    """fsync says EIO, and the file stays here, unsent and whole."""
    with Nextcloud(kind="owncloud") as cloud:
        cloud.damage = lambda path, data: b"?" + data[1:] if path.endswith("file") else data
        drive = direct_on(cloud)
        fd = drive.open("file", os.O_WRONLY | os.O_CREAT)
        drive.write(fd, b"0123456789")
        assert _error_of(lambda: drive.fsync(fd)) == errno.EIO
        assert drive.read_file("file") == b"0123456789"
        cloud.damage = lambda _path, data: data
        drive.fsync(fd)
        drive.close(fd)
        assert cloud.content("file") == b"0123456789"


@pytest.mark.expects_warning("")
def test_a_torn_file_is_never_read_as_whole(cloud: Nextcloud, direct_on: DirectOn) -> None:
    """GET serves bytes that do not have the checksum of the version: EIO after a few tries, no wrong byte."""
    data = b"0123456789" * 100
    cloud.put("file", data, checksum=sha1(data))
    cloud.put("other", data, checksum=sha1(data))
    cloud.file("file").content = b"N" * 500 + data[500:]
    drive = direct_on(cloud)
    assert _error_of(lambda: drive.read_file("file")) == errno.EIO
    assert drive.read_file("other") == data
    cloud.put("file", data, mtime_s=1_000_000_000, checksum=sha1(data))
    eventually(lambda: _read(drive, "file") == data, 20)


def _read(drive: DirectDriver, name: str) -> bytes | None:
    try:
        return drive.read_file(name)
    except OSError:
        return None


# --- the rest ------------------------------------------------------------------------------------------


def test_reading_waits_while_somebody_writes(cloud: Nextcloud, direct_on: DirectOn) -> None:
    """423 to a GET means that a PUT of the file runs: it is asked again, and the program sees no error."""
    cloud.put("file", b"content")
    drive = direct_on(cloud)
    cloud.file("file").is_locked = True

    def until_the_third(method: str, path: str) -> int | None:
        if len([one for one in cloud.requests("GET") if one.path.endswith("/file")]) == 2:
            cloud.file("file").is_locked = False
        return None

    cloud.before = until_the_third
    assert drive.read_file("file") == b"content"
    assert next(one for one in cloud.requests("GET") if one.path.endswith("/file")).status == 423


@pytest.mark.expects_warning("")
def test_maintenance_is_an_outage(cloud: Nextcloud, mount_on: MountOn) -> None:
    """503 with Nextcloud's words: what is known is served, what is written is kept and sent afterwards."""
    cloud.put("file", b"content")
    drive = mount_on(cloud, attr_timeout=1, timeout=3)
    assert drive.read_file("file") == b"content"
    assert drive.listdir() == ["file"]
    cloud.in_maintenance = True
    time.sleep(1.2)
    assert drive.listdir() == ["file"]
    drive.write_file("new", b"written meanwhile")
    assert drive.stat("file").size == 7
    cloud.in_maintenance = False
    eventually(lambda: drive.sync() == 0, 30)
    assert cloud.content("new") == b"written meanwhile"


def test_names_that_the_server_forbids(cloud: Nextcloud, direct_on: DirectOn) -> None:
    """A clear errno at create, mkdir and rename, before anything is sent."""
    cloud.forbidden_characters = '\\/:*?"<>|'
    drive = direct_on(cloud)
    eventually(lambda: bool(cloud.requests("GET")), 30)
    time.sleep(0.2)
    cloud.log.clear()
    drive.write_file("plain", b"x")
    assert drive.sync() == 0
    cloud.log.clear()
    for name, number in {
        "a:b": errno.EINVAL,
        "what?": errno.EINVAL,
        "back\\slash": errno.EINVAL,
        ".htaccess": errno.EACCES,
        "film.part": errno.EACCES,
    }.items():
        assert _error_of(partial(drive.write_file, name, b"x")) == number
        assert _error_of(partial(drive.mkdir, name)) == number
        assert _error_of(partial(drive.rename, "plain", name)) == number
    assert cloud.brief("PUT", "MKCOL", "MOVE") == []
    assert cloud.names() == ["plain"]


@pytest.mark.expects_warning("not sent")
def test_names_are_learned_from_a_refusal(cloud: Nextcloud, direct_on: DirectOn) -> None:
    """A server that tells nothing refuses one name with a colon: the next one is not even sent."""
    cloud.tells_capabilities = False
    cloud.forbidden_characters = "\\/:"
    drive = direct_on(cloud)
    fd = drive.open("a:b", os.O_WRONLY | os.O_CREAT)
    drive.write(fd, b"x")
    assert _error_of(lambda: drive.fsync(fd)) == errno.EACCES  # EINVAL would mean "needs none" to some
    drive.close(fd)
    fd = drive.open("x" * 240, os.O_WRONLY | os.O_CREAT)
    drive.write(fd, b"x")
    assert _error_of(lambda: drive.fsync(fd)) == errno.ENAMETOOLONG
    drive.close(fd)
    assert _error_of(lambda: drive.mkdir("y" * 241)) == errno.ENAMETOOLONG
    drive.mkdir("e\u0301")  # it makes the composed form of it: one folder, found by either
    assert "\u00e9" in drive.listdir()
    assert drive.stat("e\u0301")[0] == drive.stat("\u00e9")[0]
    assert _error_of(lambda: drive.write_file("c:d", b"x")) == errno.EINVAL
    drive.rename("a:b", "a-b")
    drive.unlink("x" * 240)
    assert drive.sync() == 0
    assert cloud.content("a-b") == b"x"


def test_cookies_are_kept(cloud: Nextcloud, direct_on: DirectOn) -> None:
    """With a session a request costs the server a tenth (servers.md 34): all but the first few have it."""
    drive = direct_on(cloud)
    for number in range(20):
        drive.write_file(f"file{number}", b"x")
    assert drive.sync() == 0
    assert len([one for one in cloud.log if not one.had_session]) <= 3


# --- tags of whole trees -------------------------------------------------------------------------------


def _walk(drive: KernelDriver) -> int:
    found = drive.run(["find", ".", "-type", "f"], timeout_s=60)
    return len(found.split())


@pytest.fixture
def wide(cloud: Nextcloud) -> Nextcloud:
    """200 folders below ten, with two files each."""
    for number in range(200):
        cloud.mkdir(f"d{number % 10}/s{number}")
        cloud.put(f"d{number % 10}/s{number}/a", b"a", mtime_s=1_000_000_000)
        cloud.put(f"d{number % 10}/s{number}/b", b"b", mtime_s=1_000_000_000)
    return cloud


def test_one_request_proves_a_tree_unchanged(wide: Nextcloud, mount_on: MountOn) -> None:
    """A walk of 210 folders after the time-outs: one PROPFIND instead of 211."""
    drive = mount_on(wide, attr_timeout=2)
    assert _walk(drive) == 400
    cold = len(wide.requests("PROPFIND"))
    time.sleep(2.5)
    wide.log.clear()
    begun_s = time.monotonic()
    assert _walk(drive) == 400
    proofs_most = 1 + (time.monotonic() - begun_s) / 2  # on a slow machine the walk outlives one
    assert cold >= 211
    asked = [one.path for one in wide.requests("PROPFIND")]
    assert set(asked) == {"/remote.php/dav/files/alice"}
    assert len(asked) <= proofs_most


def test_a_change_deep_below_is_seen_along_its_path(wide: Nextcloud, mount_on: MountOn) -> None:
    """The folders above the change are listed, and no other."""
    drive = mount_on(wide, attr_timeout=2)
    assert _walk(drive) == 400
    wide.put("d3/s33/new", b"new")
    time.sleep(2.5)
    wide.log.clear()
    begun_s = time.monotonic()
    assert _walk(drive) == 401
    assert drive.read_file("d3/s33/new") == b"new"
    proofs_most = 2 + (time.monotonic() - begun_s) / 2  # the mounted folder itself, and then its members
    asked = wide.brief("PROPFIND")
    assert [one for one in asked if one != "PROPFIND "] == ["PROPFIND d3", "PROPFIND d3/s33"]
    assert 2 <= asked.count("PROPFIND ") <= proofs_most


def test_an_own_change_is_not_hidden_by_a_proof(wide: Nextcloud, mount_on: MountOn) -> None:
    """What was written and removed here is so after the next walk, and another's change beside it shows."""
    drive = mount_on(wide, attr_timeout=2)
    _walk(drive)
    drive.write_file("d1/s11/a", b"ours")
    drive.unlink("d1/s11/b")
    assert drive.sync() == 0
    wide.put("d1/s11/c", b"theirs")
    time.sleep(2.5)
    assert _walk(drive) == 400
    assert drive.read_file("d1/s11/a") == b"ours"
    assert sorted(drive.listdir("d1/s11")) == ["a", "c"]
