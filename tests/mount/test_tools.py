"""Ordinary programs at work on a real mount of each server; afterwards the server's disk is what the
mount showed.
"""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import tarfile
from pathlib import Path

import pytest

from tests.mount.drivers import KernelDriver

GIT = [
    "git",
    "-c",
    "user.name=t",
    "-c",
    "user.email=t@example.org",
    "-c",
    "gc.auto=0",
    "-c",
    "safe.directory=*",
]
_OWN = ".davfs-"  # names of davfs itself on a server; nothing may be left of them


def make_tree(top: Path, *, files: int = 300) -> None:
    """Folders three deep, files from empty to 200 KB, awkward names, old time stamps, some executable."""
    chance = random.Random(5)
    folders = [
        top,
        *(top / f"dir {n}" for n in range(5)),
        *(top / "dir 0" / f"sub-{n}" / "deep" for n in range(5)),
    ]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        name = f"{chance.choice(['file', 'Ünï cödé', 'a+b', '50%', 'x#y', 'q&a'])} {number}.dat"
        path = chance.choice(folders) / name
        path.write_bytes(chance.randbytes(chance.choice([0, 1, 100, 4096, 5000, 20_000, 200_000])))
        path.chmod(0o755 if number % 10 == 0 else 0o644)
        os.utime(path, ns=(time_ns := 1_500_000_000_000_000_000 + chance.randrange(10**17), time_ns))


def sums(top: Path) -> dict[str, str]:
    """Every file below, by relative name, with its checksum; folders as "". Not Apache's own."""
    found = {}
    for path in (path for path in top.rglob("*") if ".DAV" not in path.parts):
        name = str(path.relative_to(top))
        found[name] = "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def shown_sums(drive: KernelDriver, path: str = ".") -> dict[str, str]:
    """The same through the mount, by programs: find and sha256sum."""
    folders = drive.run(["find", path, "-mindepth", "1", "-type", "d", "-printf", "%P\\0"]).split("\0")
    found = dict.fromkeys((name for name in folders if name), "")
    lines = drive.run(["find", ".", "-type", "f", "-exec", "sha256sum", "-z", "{}", "+"], cwd=path).split(
        "\0"
    )
    for line in lines:
        if line:
            digest, _, name = line.partition("  ")
            found[name.removeprefix("./")] = digest
    return found


def check_server(drive: KernelDriver) -> None:
    """After a sync, what the mount shows is what stands on the server's disk."""
    assert drive.sync(60) == 0
    on_disk = sums(drive.disk)
    assert [name for name in on_disk if _OWN in name] == []
    assert shown_sums(drive) == on_disk


@pytest.mark.timeout(300)
def test_cp_r_in_and_out(kernel: KernelDriver, tmp_path: Path) -> None:
    """300 files copied in, and out again: equal checksums everywhere."""
    make_tree(tmp_path / "tree")
    kernel.run(["cp", "-r", str(tmp_path / "tree"), "tree"], timeout_s=120)
    wanted = sums(tmp_path / "tree")
    assert shown_sums(kernel, "tree") == wanted
    check_server(kernel)
    kernel.run(["cp", "-r", "tree", str(tmp_path / "back")], timeout_s=120)
    assert sums(tmp_path / "back") == wanted


@pytest.mark.timeout(300)
def test_a_second_rsync_transfers_nothing(kernel: KernelDriver, tmp_path: Path) -> None:
    """rsync -a, then again: no file, no attribute to change; and the same in the other direction."""
    source, back = tmp_path / "tree", tmp_path / "back"
    make_tree(source, files=150)
    rsync = ["rsync", "-a", "--no-owner", "--no-group"]
    kernel.run([*rsync, f"{source}/", "tree/"], timeout_s=120)
    assert kernel.run([*rsync, "-i", f"{source}/", "tree/"]) == ""
    check_server(kernel)
    again = kernel.run([*rsync, "-i", f"{source}/", "tree/"])
    assert again == "", again
    kernel.run([*rsync, "tree/", str(back)], timeout_s=120)
    assert kernel.run([*rsync, "-i", "tree/", str(back)]) == ""
    assert sums(back) == sums(source)
    changed = next(path for path in sorted(source.rglob("*")) if path.is_file())
    changed.write_bytes(b"changed")
    assert len(kernel.run([*rsync, "-i", f"{source}/", "tree/"]).splitlines()) == 1


@pytest.mark.timeout(300)
def test_tar(kernel: KernelDriver, tmp_path: Path) -> None:
    """Unpack with its times and modes, compare, and pack again."""
    make_tree(tmp_path / "tree", files=100)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "tree", "tree")
    kernel.run(["tar", "xf", str(tmp_path / "a.tar")])
    assert kernel.run(["tar", "df", str(tmp_path / "a.tar")]) == ""  # contents, times, modes
    check_server(kernel)
    assert kernel.run(["tar", "df", str(tmp_path / "a.tar")]) == ""
    kernel.run(["tar", "czf", "b.tar.gz", "tree"])
    kernel.run(["tar", "dzf", "b.tar.gz"])
    check_server(kernel)


@pytest.mark.timeout(300)
def test_git(kernel: KernelDriver, tmp_path: Path) -> None:
    """init, add, commit, gc, fsck, and clone, all inside the mount."""
    kernel.run(["git", "init", "-q", "-b", "main", "repo"])
    make_tree(tmp_path / "tree", files=60)
    kernel.run(["cp", "-r", str(tmp_path / "tree"), "repo/tree"])
    kernel.run([*GIT, "add", "-A"], cwd="repo")
    kernel.run([*GIT, "commit", "-q", "-m", "one"], cwd="repo")
    kernel.write_file("repo/more", b"more\n")
    kernel.run([*GIT, "add", "-A"], cwd="repo")
    kernel.run([*GIT, "commit", "-q", "-m", "two"], cwd="repo")
    assert kernel.run([*GIT, "status", "--porcelain"], cwd="repo") == ""
    kernel.run([*GIT, "gc", "-q"], cwd="repo", timeout_s=120)
    kernel.run([*GIT, "fsck", "--strict"], cwd="repo")
    kernel.run([*GIT, "clone", "-q", "repo", "clone"], timeout_s=120)
    kernel.run([*GIT, "fsck", "--strict"], cwd="clone")
    assert sums(tmp_path / "tree") == shown_sums(kernel, "clone/tree")
    check_server(kernel)


def test_vim(kernel: KernelDriver) -> None:
    """A save over an existing file, with backup and swap file as vim has them by default; and of a new
    file.
    """
    kernel.write_file("text", b"one\ntwo\n")
    kernel.chmod("text", 0o640)
    assert kernel.sync() == 0
    vim = ["vim", "-u", "NONE", "-i", "NONE", "-N", "-es", "-c", "set backupskip="]  # its default spares /tmp
    kernel.run([*vim, "-c", "%s/one/ONE/", "-c", "x", "text"])
    assert kernel.read_file("text") == b"ONE\ntwo\n"
    assert kernel.stat("text").permissions == 0o640
    kernel.run([*vim, "-c", "set backup backupcopy=no", "-c", "%s/two/TWO/", "-c", "x", "text"])
    kernel.run([*vim, "-c", "normal inew", "-c", "x", "new"])
    assert kernel.read_file("text") == b"ONE\nTWO\n"
    assert kernel.listdir() == ["new", "text", "text~"]
    check_server(kernel)


def test_sed_i(kernel: KernelDriver) -> None:
    """sed -i, with and without a backup, five times in a row."""
    kernel.write_file("text", b"number 0\n")
    for number in range(5):
        kernel.run(["sed", "-i", f"s/{number}/{number + 1}/", "text"])
        assert kernel.read_file("text") == b"number %d\n" % (number + 1)
    kernel.run(["sed", "-i.bak", "s/5/five/", "text"])
    assert kernel.listdir() == ["text", "text.bak"]
    check_server(kernel)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("journal", ["delete", "truncate", "wal"])
def test_sqlite(kernel: KernelDriver, journal: str) -> None:
    """create, insert in transactions, read, integrity_check; the file on the server is a whole database."""
    for number in range(3):
        commands = (
            f"PRAGMA journal_mode={journal}; CREATE TABLE IF NOT EXISTS t(a INTEGER, b TEXT); BEGIN; "
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500) "
            f"INSERT INTO t SELECT i, hex(randomblob(20)) FROM n; COMMIT; DELETE FROM t WHERE a = {number};"
        )
        kernel.run(["sqlite3", "data.db", commands])
    said = kernel.run(["sqlite3", "data.db", "SELECT count(*) FROM t; PRAGMA integrity_check;"])
    assert said.split() == ["1495", "ok"]
    check_server(kernel)
    with sqlite3.connect(f"file:{kernel.disk / 'data.db'}?immutable=1", uri=True) as there:
        assert there.execute("SELECT count(*) FROM t").fetchone() == (1495,)
        assert there.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    there.close()


def test_mv(kernel: KernelDriver) -> None:
    """Files and folders, into folders, over files, several at once, and out of the mount."""
    kernel.run(["sh", "-c", "mkdir a b && for i in 1 2 3; do echo $i > a/$i; done"])
    kernel.run(["mv", "a/1", "a/2", "b"])
    kernel.run(["mv", "-f", "a/3", "b/1"])
    kernel.run(["mv", "b", "a/c"])
    kernel.run(["mv", "-T", "a", "z"])
    assert kernel.listdir("z/c") == ["1", "2"]
    assert kernel.read_file("z/c/1") == b"3\n"
    check_server(kernel)


def test_rm_r(kernel: KernelDriver, tmp_path: Path) -> None:
    """A whole tree, sent and unsent."""
    make_tree(tmp_path / "tree", files=80)
    kernel.run(["cp", "-r", str(tmp_path / "tree"), "sent"])
    assert kernel.sync() == 0
    kernel.run(["cp", "-r", str(tmp_path / "tree"), "unsent"])
    kernel.run(["rm", "-r", "sent", "unsent"])
    assert kernel.listdir() == []
    check_server(kernel)


def test_find_du_df(kernel: KernelDriver, tmp_path: Path) -> None:
    """find finds what is there, du adds it up, df has a line for the mount."""
    make_tree(tmp_path / "tree", files=80)
    kernel.run(["cp", "-r", str(tmp_path / "tree"), "tree"])
    files = [path for path in (tmp_path / "tree").rglob("*") if path.is_file()]
    assert len(kernel.run(["find", "tree", "-type", "f"]).splitlines()) == len(files)
    total = sum(path.stat().st_size for path in files)
    assert int(kernel.run(["du", "-sb", "tree"]).split()[0]) >= total
    on_disk = int(kernel.run(["du", "-s", "--block-size=1", "tree"]).split()[0])
    assert total <= on_disk < 2 * total + 5_000_000
    assert str(kernel.mount.point) in kernel.run(["df", "-P", "."])
    newest = kernel.run(["find", "tree", "-type", "f", "-newermt", "2020-01-01", "-size", "-1"])
    assert set(newest.splitlines()) <= {f"tree/{path.relative_to(tmp_path / 'tree')}" for path in files}


def test_a_new_mount_shows_the_same(wsgidav_share: object, mount_of: object, tmp_path: Path) -> None:
    """Times, modes and contents after unmount and mount, with the cache kept, are the ones before."""
    make_tree(tmp_path / "tree", files=40)
    cache = tmp_path / "kept-cache"
    first = mount_of(wsgidav_share, cache_dir=cache)  # type: ignore[operator]
    first.run(["cp", "-a", f"{tmp_path / 'tree'}/.", "."])
    listing = ["find", ".", "-type", "f", "-printf", "%P %s %m %T@ %i\\n"]
    before = sorted(first.run(listing).splitlines())
    first.mount.close()
    second = mount_of(wsgidav_share, cache_dir=cache)  # type: ignore[operator]
    assert sorted(second.run(listing).splitlines()) == before
    assert shown_sums(second) == sums(tmp_path / "tree")
