"""The cases in which other WebDAV mounts fail, each as one short story.

Stories that need no kernel run with both drivers (`drive`); those about working directories, programs,
mmap or two processes run on real mounts of all three servers (`kernel`), or of Apache alone where the
server plays no part.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.conftest import ATTR_TIMEOUT_S
from tests.mount.drivers import Driver, Hands, KernelDriver

NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL
OLD_MTIME_NS = 1_234_567_890_123_456_789
SEEN_WITHIN_S = 30.0  # what another client made, on a loaded machine; ATTR_TIMEOUT_S on any other


@contextmanager
def refused(*numbers: int) -> Iterator[None]:
    """The call ends with one of these errnos."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is checked
        yield
    names = [errno.errorcode[number] for number in numbers]
    assert errno.errorcode[caught.value.errno or 0] in names, caught.value


def expect(error: OSError, *numbers: int) -> None:
    """For a call that may be done or be refused: if refused, then with one of these."""
    assert error.errno in numbers, error


def eventually(check: Callable[[], bool], within_s: float) -> None:
    """Polls until it is true."""
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.05)


def foreign_write(drive: Driver, name: str, data: bytes, *, mtime_s: int | None = None) -> None:
    """What another client of the server does: a new file with the server's own owner."""
    path = drive.disk / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o666)
    if mtime_s is not None:
        os.utime(path, (mtime_s, mtime_s))
    owner = drive.disk.stat()
    os.chown(path, owner.st_uid, owner.st_gid)


# --- writes that are still on their way ------------------------------------------------------------------


def test_truncate_by_path_while_the_upload_is_pending(drive: Driver) -> None:
    """truncate(2) of a file that was just written cuts it, here at once and then on the server."""
    drive.write_file("a", b"0123456789")
    drive.truncate("a", 4)
    assert drive.stat("a").size == 4
    assert drive.read_file("a") == b"0123"
    assert drive.sync() == 0
    assert (drive.disk / "a").read_bytes() == b"0123"


def test_truncate_by_path_of_a_file_on_the_server(drive: Driver) -> None:
    """Cut and extended: what was cut off reads as zeros."""
    drive.write_file("a", b"0123456789")
    assert drive.sync() == 0
    drive.truncate("a", 3)
    drive.truncate("a", 6)
    assert drive.read_file("a") == b"012\0\0\0"
    assert drive.sync() == 0
    assert (drive.disk / "a").read_bytes() == b"012\0\0\0"


def test_truncate_to_an_absurd_size_is_refused_at_once(drive: Driver) -> None:
    """10^15 bytes are EFBIG now, not a hang."""
    drive.write_file("a", b"x")
    begun = time.monotonic()
    with refused(errno.EFBIG):
        drive.truncate("a", 10**15)
    assert time.monotonic() - begun < 10
    assert drive.stat("a").size == 1


def test_attributes_of_a_written_open_file(drive: Driver) -> None:
    """Size, mode and time of a file being written are the written ones, by path and by handle."""
    fd = drive.open("a", NEW_FILE, 0o640)
    drive.write(fd, b"x" * 5000)
    assert drive.stat("a").size == drive.fstat(fd).size == 5000
    assert drive.stat("a").permissions == 0o640
    drive.close(fd)
    assert drive.stat("a").size == 5000


def test_find_and_du_while_writes_are_pending(kernel: KernelDriver) -> None:
    """Walking a tree whose files are being sent shows all of them with their sizes."""
    for folder in range(4):
        kernel.mkdir(f"d{folder}")
        for number in range(10):
            kernel.write_file(f"d{folder}/{number}", b"x" * 3000)
    found = kernel.run(["find", ".", "-type", "f", "-size", "3000c"])
    assert len(found.splitlines()) == 40
    apparent = int(kernel.run(["du", "-sb", "--apparent-size", "."]).split()[0])
    assert apparent >= 40 * 3000
    assert kernel.sync() == 0


def test_fsync_means_on_the_server(drive: Driver) -> None:
    """When fsync returns, the server's disk has the bytes."""
    fd = drive.open("a", NEW_FILE)
    drive.write(fd, b"safe")
    drive.fsync(fd)
    assert (drive.disk / "a").read_bytes() == b"safe"
    drive.write(fd, b" and sound")
    drive.fsync(fd)
    assert (drive.disk / "a").read_bytes() == b"safe and sound"
    drive.close(fd)


# --- names and open files -------------------------------------------------------------------------


def test_rename_over_an_open_file_keeps_the_old_bytes_for_its_handle(drive: Driver) -> None:
    """The old handle reads the old file to its end, the name shows the new one."""
    drive.write_file("a", b"old bytes")
    assert drive.sync() == 0
    fd = drive.open("a")
    drive.write_file("b", b"new")
    drive.rename("b", "a")
    assert drive.read(fd) == b"old bytes"
    assert drive.read_file("a") == b"new"
    assert drive.fstat(fd).nlink == 0
    drive.close(fd)
    assert drive.listdir() == ["a"]
    assert drive.sync() == 0
    assert (drive.disk / "a").read_bytes() == b"new"


def test_rename_over_an_open_file_that_was_not_read_yet(drive: Driver) -> None:
    """Even what was never downloaded stays readable through the handle that had it open."""
    foreign_write(drive, "big", b"old" * 400_000)
    eventually(lambda: "big" in drive.listdir(), SEEN_WITHIN_S)
    fd = drive.open("big")
    drive.write_file("tmp", b"new")
    drive.rename("tmp", "big")
    assert drive.pread(fd, 6, 600_000) == b"oldold"
    drive.close(fd)
    assert drive.read_file("big") == b"new"


def test_an_open_file_follows_its_rename(drive: Driver) -> None:
    """Writes through a handle land under the new name, before and after the first upload."""
    fd = drive.open("a", NEW_FILE)
    drive.write(fd, b"one ")
    drive.rename("a", "b")
    drive.write(fd, b"two ")
    drive.fsync(fd)
    drive.rename("b", "c")
    drive.write(fd, b"three")
    drive.close(fd)
    assert drive.sync() == 0
    assert drive.listdir() == ["c"]
    assert (drive.disk / "c").read_bytes() == b"one two three"
    assert os.listdir(drive.disk) == ["c"]


def test_an_unlinked_open_file_goes_on_working(drive: Driver) -> None:
    """st_nlink is 0, reads and writes work, and nothing of it reaches the server."""
    drive.write_file("a", b"0123456789")
    assert drive.sync() == 0
    fd = drive.open("a", os.O_RDWR)
    drive.unlink("a")
    assert drive.fstat(fd).nlink == 0
    assert drive.listdir() == []
    drive.pwrite(fd, b"XY", 2)
    assert drive.pread(fd, 10, 0) == b"01XY456789"
    assert drive.fstat(fd).size == 10
    drive.close(fd)
    with refused(errno.ENOENT):
        drive.stat("a")
    assert drive.sync() == 0
    assert [name for name in os.listdir(drive.disk) if not name.startswith(".davfs-")] == []


def test_rmdir_of_a_folder_with_open_unlinked_files(drive: Driver) -> None:
    """The folder is empty to everyone, so it can go; the handle stays alive."""
    drive.mkdir("d")
    drive.write_file("d/sent", b"sent")
    assert drive.sync() == 0
    sent = drive.open("d/sent", os.O_RDWR)
    unsent = drive.open("d/unsent", NEW_FILE)
    drive.write(unsent, b"unsent")
    drive.unlink("d/sent")
    drive.unlink("d/unsent")
    drive.rmdir("d")
    assert drive.pread(sent, 10, 0) == b"sent"
    assert drive.pread(unsent, 10, 0) == b"unsent"
    drive.close(sent)
    drive.close(unsent)
    assert drive.sync() == 0
    assert not (drive.disk / "d").exists()


def test_rename_of_a_folder_with_unsent_files(drive: Driver) -> None:
    """Files that are not on the server yet arrive under the folder's new name, and only there."""
    drive.mkdir("d")
    drive.mkdir("d/e")
    for number in range(5):
        drive.write_file(f"d/e/{number}", b"%d" % number)
    fd = drive.open("d/open", NEW_FILE)
    drive.write(fd, b"open")
    drive.rename("d", "n")
    assert drive.read_file("n/e/3") == b"3"
    drive.write(fd, b" still")
    drive.close(fd)
    assert drive.sync() == 0
    assert sorted(p.name for p in (drive.disk / "n/e").iterdir()) == ["0", "1", "2", "3", "4"]
    assert (drive.disk / "n/open").read_bytes() == b"open still"
    assert not (drive.disk / "d").exists()


def test_a_working_directory_that_was_renamed(kernel: KernelDriver) -> None:
    """A program whose current folder is renamed goes on in it."""
    kernel.mkdir("old")
    kernel.write_file("old/f", b"here")
    program = kernel.another_program()
    program.call("chdir", kernel.at("old"))
    kernel.rename("old", "new")
    assert program.call("read_file", "f") == b"here"
    program.call("write_file", "g", b"made after")
    assert program.call("listdir", ".") == ["f", "g"]
    assert str(program.call("getcwd")).endswith("/new")
    program.call("chdir", "/")
    assert kernel.read_file("new/g") == b"made after"
    assert kernel.sync() == 0


def test_remove_a_tree_right_after_writing_it(kernel: KernelDriver) -> None:
    """rm -rf of what is still being sent leaves nothing, here and on the server."""
    for folder in ("d", "d/e"):
        kernel.mkdir(folder)
    for number in range(20):
        kernel.write_file(f"d/e/{number}", b"x" * 2000)
    kernel.run(["rm", "-rf", "d"])
    assert kernel.listdir() == []
    assert kernel.sync() == 0
    assert list(kernel.disk.iterdir()) == []


def test_rename_noreplace(drive: Driver) -> None:
    """RENAME_NOREPLACE moves to a free name and refuses a taken one, sent or unsent."""
    drive.write_file("a", b"a")
    drive.write_file("b", b"b")
    with refused(errno.EEXIST):
        drive.rename_noreplace("a", "b")
    assert drive.sync() == 0
    with refused(errno.EEXIST):
        drive.rename_noreplace("a", "b")
    drive.rename_noreplace("a", "c")
    assert drive.listdir() == ["b", "c"]
    assert drive.read_file("b") == b"b"
    assert drive.read_file("c") == b"a"


def test_rename_noreplace_onto_what_another_client_just_made(drive: Driver) -> None:
    """The name is taken on the server although we do not know it yet: still EEXIST, and it stays."""
    drive.write_file("a", b"ours")
    assert drive.sync() == 0
    drive.listdir()
    foreign_write(drive, "b", b"theirs")
    with refused(errno.EEXIST):
        drive.rename_noreplace("a", "b")
    assert (drive.disk / "b").read_bytes() == b"theirs"


def test_exchange_is_refused_or_done(kernel_apache: KernelDriver) -> None:
    """RENAME_EXCHANGE exchanges both names, or changes nothing."""
    kernel_apache.write_file("a", b"a")
    kernel_apache.write_file("b", b"b")
    try:
        kernel_apache.call("rename_exchange", kernel_apache.at("a"), kernel_apache.at("b"))
    except OSError as error:
        expect(error, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
        assert kernel_apache.read_file("a") == b"a"
    else:
        assert kernel_apache.read_file("a") == b"b"


# --- times, numbers, modes ------------------------------------------------------------------------


def test_the_time_of_a_new_file_is_right_at_once_and_its_upload_does_not_move_it(drive: Driver) -> None:
    """mtime is the time of the write, and stays so when the server gets the file."""
    before = time.time_ns()
    drive.write_file("a", b"x")
    shown = drive.stat("a").mtime_ns
    assert before - 50_000_000 <= shown <= time.time_ns()
    assert drive.sync() == 0
    assert drive.stat("a").mtime_ns == shown
    time.sleep(2 * ATTR_TIMEOUT_S + 0.2)
    drive.listdir()
    assert drive.stat("a").mtime_ns == shown


def test_a_time_that_a_program_set_keeps_its_nanoseconds(drive: Driver) -> None:
    """utimens before and after the upload, and the stamp survives both."""
    drive.write_file("a", b"x")
    drive.utime("a", OLD_MTIME_NS)
    assert drive.stat("a").mtime_ns == OLD_MTIME_NS
    assert drive.sync() == 0
    assert drive.stat("a").mtime_ns == OLD_MTIME_NS
    drive.utime("a", OLD_MTIME_NS + 1)
    time.sleep(2 * ATTR_TIMEOUT_S + 0.2)
    drive.listdir()
    assert drive.stat("a").mtime_ns == OLD_MTIME_NS + 1


def test_a_time_set_through_the_handle_survives_its_close(drive: Driver) -> None:
    """What rsync and cp do: write, futimens, close."""
    fd = drive.open("a", NEW_FILE)
    drive.write(fd, b"x" * 100)
    drive.futime(fd, OLD_MTIME_NS)
    drive.close(fd)
    assert drive.stat("a").mtime_ns == OLD_MTIME_NS
    assert drive.sync() == 0
    assert drive.stat("a").mtime_ns == OLD_MTIME_NS


def test_the_time_of_a_small_change_in_a_file_that_was_never_read(drive: Driver) -> None:
    """The upload fetches the bytes around the change first: that is no write, and moves no time stamp."""
    foreign_write(drive, "a", b"x" * 100_000, mtime_s=1_600_000_000)
    foreign_write(drive, "b", b"x" * 100_000, mtime_s=1_600_000_000)
    eventually(lambda: drive.listdir() == ["a", "b"], SEEN_WITHIN_S)
    for name in ("a", "b"):
        fd = drive.open(name, os.O_RDWR)
        drive.pwrite(fd, b"change", 50_000)
        if name == "b":
            drive.futime(fd, OLD_MTIME_NS)
        shown = drive.fstat(fd).mtime_ns
        time.sleep(0.02)
        drive.close(fd)
        assert drive.sync() == 0
        assert drive.stat(name).mtime_ns == shown


def test_inode_numbers_are_stable(drive: Driver) -> None:
    """Over an upload, a rename, a rename of the parent, and time."""
    drive.mkdir("d")
    drive.write_file("d/a", b"x")
    ino, folder_ino = drive.stat("d/a").ino, drive.stat("d").ino
    assert drive.sync() == 0
    assert drive.stat("d/a").ino == ino
    drive.rename("d/a", "d/b")
    assert drive.stat("d/b").ino == ino
    drive.rename("d", "e")
    assert (drive.stat("e").ino, drive.stat("e/b").ino) == (folder_ino, ino)
    time.sleep(2 * ATTR_TIMEOUT_S + 0.2)
    drive.listdir("e")
    assert (drive.stat("e").ino, drive.stat("e/b").ino) == (folder_ino, ino)


def test_chmod_can_be_read_back(drive: Driver) -> None:
    """The mode stays as set: before the upload, after it, and after a new listing."""
    drive.write_file("a", b"x")
    drive.chmod("a", 0o755)
    assert drive.stat("a").permissions == 0o755
    assert drive.sync() == 0
    assert drive.stat("a").permissions == 0o755
    drive.chmod("a", 0o600)
    time.sleep(2 * ATTR_TIMEOUT_S + 0.2)
    drive.listdir()
    assert drive.stat("a").permissions == 0o600


def test_a_program_on_the_drive_runs(kernel: KernelDriver) -> None:
    """./program, a script and a binary, right after they were written."""
    kernel.write_file("script", b"#!/bin/sh\necho from the drive\n")
    kernel.chmod("script", 0o755)
    assert kernel.run(["./script"]) == "from the drive\n"
    kernel.run(["cp", "/bin/true", "program"])
    kernel.run(["./program"])
    assert kernel.sync() == 0
    assert kernel.run(["./script"]) == "from the drive\n"


def test_times_and_modes_after_a_new_mount(kernel: KernelDriver, tmp_path: Path) -> None:
    """touch -d, read back by ls through the kernel."""
    kernel.write_file("a", b"x")
    kernel.run(["touch", "-d", "2001-02-03 04:05:06.789 UTC", "a"])
    assert kernel.run(["stat", "-c", "%.3Y", "a"]).strip() == "981173106.789"
    before = time.time_ns()
    kernel.run(["touch", "new"])
    assert before - 50_000_000 <= kernel.stat("new").mtime_ns <= time.time_ns()


def test_a_listing_names_itself_and_what_is_above(kernel_apache: KernelDriver) -> None:
    """`.` and `..` are folders, with the numbers that stat tells."""
    kernel_apache.run(["mkdir", "folder"])
    listed = kernel_apache.run(["ls", "-afi1F", "folder"]).split()
    numbers = kernel_apache.run(["stat", "-c", "%i", "folder", "."]).split()
    assert listed == [numbers[0], "./", numbers[1], "../"]


# --- programs that copy and build -----------------------------------------------------------------


def test_cp_p_and_cp_a(kernel: KernelDriver, tmp_path: Path) -> None:
    """cp -p and cp -a keep times and modes and say nothing."""
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    for name, mode in (("one", 0o644), ("sub/two", 0o750)):
        (source / name).write_bytes(name.encode() * 1000)
        (source / name).chmod(mode)
        os.utime(source / name, ns=(OLD_MTIME_NS, OLD_MTIME_NS))
    kernel.run(["cp", "-p", str(source / "one"), "copy"])
    kernel.run(["cp", "-a", str(source), "tree"])
    for name, original in (("copy", "one"), ("tree/one", "one"), ("tree/sub/two", "sub/two")):
        shown, wanted = kernel.stat(name), (source / original).stat()
        assert (shown.size, shown.mtime_ns) == (wanted.st_size, wanted.st_mtime_ns), name
        assert shown.permissions == stat.S_IMODE(wanted.st_mode), name
    assert kernel.sync() == 0
    assert kernel.stat("tree/sub/two").mtime_ns == OLD_MTIME_NS


def test_install(kernel: KernelDriver) -> None:
    """install sets the mode, with and without a folder to make."""
    kernel.run(["install", "-m", "0751", "/bin/true", "program"])
    kernel.run(["install", "-D", "-m", "0644", "/etc/hostname", "etc/deep/hostname"])
    assert kernel.stat("program").permissions == 0o751
    assert kernel.stat("etc/deep/hostname").permissions == 0o644
    assert kernel.sync() == 0


@pytest.mark.timeout(300)
def test_make_rebuilds_only_what_changed(kernel: KernelDriver) -> None:
    """make with gcc: a second run does nothing, a changed source rebuilds its own object only."""
    kernel.write_file("main.c", b"int two(void); int main(void) { return two() - 2; }\n")
    kernel.write_file("two.c", b"int two(void) { return 2; }\n")
    kernel.write_file(
        "Makefile",
        b"prog: main.o two.o\n\tgcc -o prog main.o two.o\n%.o: %.c\n\tgcc -c -o $@ $<\n",
    )
    assert kernel.run(["make"]).count("gcc") == 3
    kernel.run(["./prog"])
    assert kernel.sync() == 0
    assert "up to date" in kernel.run(["make"])
    kernel.write_file("two.c", b"int two(void) { return 1 + 1; }\n")
    rebuilt = kernel.run(["make"])
    assert "two.o" in rebuilt
    assert "-c -o main.o" not in rebuilt
    kernel.run(["./prog"])


@pytest.mark.timeout(300)
def test_git_branch_switching(kernel: KernelDriver) -> None:
    """Branches with different trees are switched to and fro, and the work tree is clean each time."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "gc.auto=0"]
    kernel.run(["git", "init", "-q", "-b", "main", "repo"])
    kernel.write_file("repo/a", b"one\n")
    kernel.write_file("repo/same", b"same\n")
    kernel.run([*git, "add", "."], cwd="repo")
    kernel.run([*git, "commit", "-q", "-m", "1"], cwd="repo")
    kernel.run([*git, "checkout", "-q", "-b", "other"], cwd="repo")
    kernel.mkdir("repo/d")
    kernel.write_file("repo/d/b", b"b\n")
    kernel.write_file("repo/a", b"two\n")
    kernel.run([*git, "add", "."], cwd="repo")
    kernel.run([*git, "commit", "-q", "-m", "2"], cwd="repo")
    for _ in range(2):
        kernel.run([*git, "checkout", "-q", "main"], cwd="repo")
        assert kernel.read_file("repo/a") == b"one\n"
        assert "d" not in kernel.listdir("repo")
        assert kernel.run([*git, "status", "--porcelain"], cwd="repo") == ""
        kernel.run([*git, "checkout", "-q", "other"], cwd="repo")
        assert kernel.read_file("repo/d/b") == b"b\n"
        assert kernel.run([*git, "status", "--porcelain"], cwd="repo") == ""
    kernel.run([*git, "fsck", "--strict"], cwd="repo")


# --- what cannot be -------------------------------------------------------------------------------


def test_names_that_are_too_long(drive: Driver) -> None:
    """A name of 256 bytes is ENAMETOOLONG in every call; one of 255 bytes works."""
    long = "n" * 256
    calls: list[Callable[[], object]] = [
        lambda: drive.stat(long),
        lambda: drive.open(long, NEW_FILE),
        lambda: drive.mkdir(long),
        lambda: drive.unlink(long),
        lambda: drive.rmdir(long),
        lambda: drive.rename(long, "a"),
    ]
    for call in calls:
        with refused(errno.ENAMETOOLONG):
            call()
    drive.write_file("n" * 255, b"fits")
    assert drive.sync() == 0
    assert drive.listdir() == ["n" * 255]
    with refused(errno.ENAMETOOLONG):
        drive.rename("n" * 255, long)


@pytest.mark.parametrize("call", ["link", "mkfifo", "mknod", "socket"])
def test_what_webdav_does_not_have_is_refused_politely(kernel_apache: KernelDriver, call: str) -> None:
    """Links, fifos, devices and sockets: EPERM or EOPNOTSUPP, never EIO."""
    kernel_apache.write_file("a", b"x")
    target = kernel_apache.at("new")
    arguments: dict[str, tuple[object, ...]] = {
        "link": ("link", kernel_apache.at("a"), target),
        "mkfifo": ("mkfifo", target),
        "mknod": ("mknod", target, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
        "socket": ("socket_at", target),
    }
    with refused(errno.EPERM, errno.EOPNOTSUPP):
        kernel_apache.call(*arguments[call])  # type: ignore[arg-type]
    assert kernel_apache.listdir() == ["a"]


def test_owners_cannot_be_changed(drive: Driver) -> None:
    """chown to what it is already is fine; to another user it is EPERM or EOPNOTSUPP."""
    drive.write_file("a", b"x")
    told = drive.stat("a")
    drive.chown("a", told.uid, told.gid)
    with refused(errno.EPERM, errno.EOPNOTSUPP):
        drive.chown("a", told.uid + 1, told.gid)


def test_a_share_mounted_read_only(
    apache_share: object, mount_of: Callable[..., KernelDriver], tmp_path: Path
) -> None:
    """ro: reading works, every change is EROFS and asks the server nothing."""
    share = apache_share
    share.write("a", b"x")  # type: ignore[attr-defined]
    drive = mount_of(share, ro=True)
    assert drive.read_file("a") == b"x"
    calls: list[Callable[[], object]] = [
        lambda: drive.write_file("a", b"y"),
        lambda: drive.mkdir("d"),
        lambda: drive.unlink("a"),
        lambda: drive.rename("a", "b"),
        lambda: drive.chmod("a", 0o600),
    ]
    for call in calls:
        with refused(errno.EROFS):
            call()


def test_other_users_are_kept_out(kernel_apache: KernelDriver) -> None:
    """Without allow_other nobody else sees the drive (as root: the kernel itself says so)."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    other = kernel_apache.another_program()
    other.call("seteuid", 65534)
    with refused(errno.EACCES):
        other.call("listdir", kernel_apache.at())


# --- other clients --------------------------------------------------------------------------------


def test_a_change_by_another_client_is_seen_within_the_time_out(drive: Driver) -> None:
    """New bytes, a new file and a removed one, each after the attribute time-out at the latest."""
    drive.write_file("changed", b"old")
    drive.write_file("removed", b"x")
    assert drive.sync() == 0
    assert drive.read_file("changed") == b"old"
    drive.listdir()
    foreign_write(drive, "changed", b"new and longer", mtime_s=int(time.time()) + 5)
    foreign_write(drive, "appeared", b"here")
    (drive.disk / "removed").unlink()
    time.sleep(ATTR_TIMEOUT_S + 0.5)
    assert drive.read_file("changed") == b"new and longer"
    assert drive.stat("changed").size == 14
    assert drive.listdir() == ["appeared", "changed"]
    assert drive.read_file("appeared") == b"here"
    with refused(errno.ENOENT):
        drive.stat("removed")


def test_one_open_file_is_one_version(drive: Driver) -> None:
    """A handle never mixes: after a foreign change it has old bytes or ESTALE; a new open has the new
    ones.
    """
    foreign_write(drive, "a", b"A" * 3_000_000, mtime_s=1_600_000_000)
    eventually(lambda: "a" in drive.listdir(), SEEN_WITHIN_S)
    fd = drive.open("a")
    assert drive.pread(fd, 10, 0) == b"A" * 10
    foreign_write(drive, "a", b"B" * 3_000_000, mtime_s=1_600_000_900)
    try:
        assert drive.pread(fd, 10, 2_900_000) == b"A" * 10
    except OSError as error:
        expect(error, errno.ESTALE, errno.EIO)
    drive.close(fd)
    time.sleep(ATTR_TIMEOUT_S + 0.5)
    data = drive.read_file("a")
    assert data == b"B" * 3_000_000


# --- files in detail ------------------------------------------------------------------------------


def test_o_excl(drive: Driver) -> None:
    """O_CREAT|O_EXCL makes a file once, whether its first maker sent it or not."""
    drive.close(drive.open("a", NEW_FILE))
    with refused(errno.EEXIST):
        drive.open("a", NEW_FILE)
    assert drive.sync() == 0
    with refused(errno.EEXIST):
        drive.open("a", NEW_FILE)
    assert (drive.disk / "a").read_bytes() == b""


def test_o_excl_on_what_another_client_made(drive: Driver) -> None:
    """A name that is taken on the server is not lost: EEXIST, or both versions are kept."""
    drive.listdir()
    foreign_write(drive, "a", b"theirs")
    time.sleep(ATTR_TIMEOUT_S + 0.5)
    with refused(errno.EEXIST):
        drive.open("a", NEW_FILE)
    assert (drive.disk / "a").read_bytes() == b"theirs"


def test_two_writers_append(drive: Driver) -> None:
    """Both handles append at the end as it is then."""
    one = drive.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    two = drive.open("log", os.O_WRONLY | os.O_APPEND)
    for number in range(20):
        drive.write(one if number % 2 else two, b"%02d\n" % number)
    drive.close(one)
    drive.close(two)
    assert drive.read_file("log") == b"".join(b"%02d\n" % number for number in range(20))
    assert drive.sync() == 0


def test_two_programs_append_at_once(kernel: KernelDriver) -> None:
    """Lines of two shells in one log are all there, none torn."""
    loop = 'i=0; while [ $i -lt 100 ]; do echo "$1 $i"; i=$((i+1)); done >> log'
    both = f"sh -c '{loop}' - a & sh -c '{loop}' - b & wait"
    kernel.run(["sh", "-c", both])
    lines = kernel.read_file("log").decode().splitlines()
    assert sorted(lines) == sorted(f"{who} {i}" for who in "ab" for i in range(100))


def test_two_handles_see_each_others_writes(drive: Driver) -> None:
    """A write through one handle is read through the other at once."""
    one = drive.open("a", NEW_FILE)
    two = drive.open("a", os.O_RDWR)
    drive.pwrite(one, b"hello world", 0)
    assert drive.pread(two, 20, 0) == b"hello world"
    drive.pwrite(two, b"HELLO", 0)
    assert drive.pread(one, 20, 0) == b"HELLO world"
    drive.ftruncate(one, 5)
    assert drive.fstat(two).size == 5
    drive.close(one)
    assert drive.pread(two, 20, 0) == b"HELLO"
    drive.close(two)
    assert drive.sync() == 0
    assert (drive.disk / "a").read_bytes() == b"HELLO"


def test_sparse_holes_read_as_zeros(drive: Driver) -> None:
    """A write far behind the end leaves zeros, here and on the server."""
    fd = drive.open("a", NEW_FILE)
    drive.pwrite(fd, b"start", 0)
    drive.pwrite(fd, b"end", 1_000_000)
    assert drive.pread(fd, 10, 500_000) == b"\0" * 10
    assert drive.fstat(fd).size == 1_000_003
    drive.close(fd)
    assert drive.sync() == 0
    assert (drive.disk / "a").read_bytes() == b"start" + b"\0" * 999_995 + b"end"


def test_a_small_change_in_a_large_file(drive: Driver) -> None:
    """Bytes that were never read come from the server when the whole file is sent again."""
    data = bytes(range(256)) * 12_000
    foreign_write(drive, "a", data)
    eventually(lambda: "a" in drive.listdir(), SEEN_WITHIN_S)
    fd = drive.open("a", os.O_RDWR)
    drive.pwrite(fd, b"CHANGED", 1_000_000)
    drive.close(fd)
    assert drive.sync() == 0
    assert (drive.disk / "a").read_bytes() == data[:1_000_000] + b"CHANGED" + data[1_000_007:]


def test_mmap(kernel: KernelDriver) -> None:
    """Mapped reads show written bytes, mapped writes reach the server."""
    kernel.write_file("a", b"x" * 10_000)
    fd = kernel.open("a", os.O_RDWR)
    assert kernel.call("mmap_read", fd, 5000, 4) == b"xxxx"
    kernel.call("mmap_write", fd, 5000, b"MAPPED")
    assert kernel.pread(fd, 6, 5000) == b"MAPPED"
    kernel.fsync(fd)
    kernel.close(fd)
    assert kernel.sync() == 0
    assert (kernel.disk / "a").read_bytes() == b"x" * 5000 + b"MAPPED" + b"x" * 4994


def test_a_reader_follows_a_writer_who_was_alone(kernel_apache: KernelDriver) -> None:
    """What is written past the kernel's pages shows to who opens the file meanwhile, byte by byte, mapped
    as well once the writer is gone; to who writes it anew too, and to a reader of that.
    """
    kernel = kernel_apache
    for flags in (os.O_WRONLY | os.O_CREAT | os.O_EXCL, os.O_WRONLY | os.O_TRUNC):
        writer, written = kernel.open("a", flags), b""
        reader = kernel.open("a")
        for size in (1, 4095, 4097, 100_000, 1 << 20, 3_000_001):
            piece = os.urandom(size)
            kernel.pwrite(writer, piece, len(written))
            written += piece
            assert kernel.pread(reader, 5_000_000, 0) == written
        with refused(errno.ENODEV):
            kernel.call("mmap_read", reader, 0, 1)
        kernel.pwrite(writer, b"changed", 5000)
        written = written[:5000] + b"changed" + written[5007:]
        assert kernel.pread(reader, 100, 4950) == written[4950:5050]
        kernel.close(writer)
        late = kernel.open("a")
        assert kernel.call("mmap_read", late, 0, len(written)) == written
        assert kernel.pread(reader, 100, 4950) == written[4950:5050]
        kernel.close(late)
        kernel.close(reader)
        assert kernel.sync() == 0
        assert (kernel.disk / "a").read_bytes() == written


def test_extended_attributes_describe_the_resource(drive: Driver) -> None:
    """user.davfs.url and user.davfs.state can be read, and are not listed: `rsync -X` would copy them. Others
    are ENODATA, of other kinds EOPNOTSUPP: `ls -l` asks for two of those of every file until it is told so.
    """
    drive.write_file("a", b"x")
    assert drive.sync() == 0
    assert drive.listxattr("a") == []
    assert drive.getxattr("a", "user.davfs.url").endswith(b"/a")
    assert drive.getxattr("a", "user.davfs.state") == b"clean"
    with refused(errno.ENODATA):
        drive.getxattr("a", "user.unknown")
    for name in ("security.selinux", "system.posix_acl_access"):
        with refused(errno.EOPNOTSUPP):
            drive.getxattr("a", name)


def test_what_davfs_tells_cannot_be_set(kernel_apache: KernelDriver) -> None:
    """EPERM, and EOPNOTSUPP for attributes of other kinds: cp -a stays quiet on both."""
    kernel_apache.write_file("a", b"x")
    with refused(errno.EPERM):
        kernel_apache.setxattr("a", "user.davfs.state", b"clean")
    for name in ("security.x", "trusted.x"):
        with refused(errno.EOPNOTSUPP):
            kernel_apache.setxattr("a", name, b"x")


def test_statvfs(drive: Driver) -> None:
    """df has numbers that make sense, also on servers that tell no quota."""
    space = drive.statvfs()
    assert 0 <= space.free_bytes <= space.total_bytes or space.total_bytes == 0


def test_reading_past_the_end(drive: Driver) -> None:
    """At and behind the end there is nothing; across it, what there is."""
    drive.write_file("a", b"0123456789")
    fd = drive.open("a")
    assert drive.pread(fd, 100, 5) == b"56789"
    assert drive.pread(fd, 100, 10) == b""
    assert drive.pread(fd, 100, 5000) == b""
    drive.close(fd)


def test_awkward_names(drive: Driver) -> None:
    """Spaces, percent signs, quotes, Unicode in both forms: made, listed, read, renamed, removed."""
    awkward = [
        "a b",
        "50%",
        "a%20b",
        "a+b",
        "a#b",
        "ü",
        "u\u0308",
        "日本",
        "a&b",
        "a'b",
        '"q"',
        "a;b",
        "[x]",
        "~t",
        "\\",
    ]
    for name in awkward:
        drive.write_file(name, name.encode())
    assert drive.sync() == 0
    assert drive.listdir() == sorted(awkward)
    for name in awkward:
        assert drive.read_file(name) == name.encode(), name
        assert (drive.disk / name).read_bytes() == name.encode()
    for name in awkward:
        drive.unlink(name)
    assert drive.listdir() == []


def test_empty_files_and_folders(drive: Driver) -> None:
    """An empty file arrives as an empty file, an empty folder as an empty folder."""
    drive.close(drive.open("empty", NEW_FILE))
    drive.mkdir("folder")
    assert drive.stat("empty").size == 0
    assert drive.read_file("empty") == b""
    assert drive.listdir("folder") == []
    assert drive.sync() == 0
    assert (drive.disk / "empty").read_bytes() == b""
    assert (drive.disk / "folder").is_dir()


def test_readers_never_miss_a_file_that_is_being_replaced(kernel: KernelDriver) -> None:
    """While an editor saves by write-and-rename, another program always finds one whole version."""
    versions = [b"%03d" % number * 1000 for number in range(12)]
    kernel.write_file("a", versions[0])
    assert kernel.sync() == 0
    reader: Hands = kernel.another_program()
    for version in versions[1:]:
        kernel.write_file("a.tmp", version)
        kernel.rename("a.tmp", "a")
        assert reader.call("read_file", kernel.at("a")) == version
    assert kernel.sync() == 0
    assert (kernel.disk / "a").read_bytes() == versions[-1]
    assert os.listdir(kernel.disk) == ["a"]
