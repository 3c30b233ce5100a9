"""Programs that people run on a drive."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.contract.stage import Drive, Stage

MTIME_NS = 1_234_567_890_000_000_000
_GIT_ENV = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree on this machine's disk, with times of its own."""
    root = tmp_path / "source"
    for number in range(12):
        path = root / f"sub {number % 3}" / f"file-{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(number).randbytes(number * 997))
        os.utime(path, ns=(MTIME_NS, MTIME_NS + number * 10**9))
    (root / "run.sh").write_text("#!/bin/sh\necho it runs\n")
    (root / "run.sh").chmod(0o755)
    for folder in (root, *root.glob("sub*")):
        os.utime(folder, ns=(MTIME_NS, MTIME_NS))
    return root


def _bytes_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.feature("cp -p")
def test_cp_p(drive: Drive, source: Path) -> None:
    """Bytes, mode and times are those of the original."""
    drive.run(["cp", "-p", str(source / "run.sh"), str(source / "sub 1" / "file-4.txt"), "."])
    assert drive.stat("file-4.txt").mtime_ns == MTIME_NS + 4 * 10**9
    assert drive.stat("run.sh").mode & 0o777 == 0o755
    assert drive.run(["./run.sh"]) == "it runs\n"
    drive.send("file-4.txt")
    assert drive.stat("file-4.txt").mtime_ns == MTIME_NS + 4 * 10**9
    assert drive.on_server("file-4.txt") == (source / "sub 1" / "file-4.txt").read_bytes()


@pytest.mark.feature("rsync -a, and again: nothing to do")
def test_rsync_twice(drive: Drive, source: Path) -> None:
    """The second run transfers nothing, by size and time as well as by checksum."""
    command = ["rsync", "-a", "--out-format=%n", f"{source}/", "copy/"]
    assert "run.sh" in drive.run(command)
    assert drive.run(command) == ""
    assert drive.run([*command, "--checksum"]) == ""
    files, _ = drive.call("read_tree", drive.at("copy"))
    assert files == _bytes_of(source)


@pytest.mark.feature("tar, there and back")
def test_tar(drive: Drive, source: Path, tmp_path: Path) -> None:
    """What is unpacked on the drive and packed there again is what it was, times and modes included."""
    archive = tmp_path / "a.tar"
    drive.run(["tar", "-C", str(source), "-cf", str(archive), "."])
    drive.mkdir("t")
    drive.run(["tar", "-C", "t", "-xf", str(archive)])
    drive.run(["tar", "-C", "t", "-df", str(archive)])
    files, _ = drive.call("read_tree", drive.at("t"))
    assert files == _bytes_of(source)


@pytest.mark.feature("git init, commit, fsck")
def test_git(drive: Drive) -> None:
    """A repository on the drive is sound, and so is a clone of it."""
    drive.mkdir("repo")

    def git(*words: str) -> str:
        return drive.run(["git", "-c", "core.fsync=none", *words], cwd="repo", env=_GIT_ENV)

    git("init", "-q", "-b", "main")
    for number in range(2):
        drive.write_file(f"repo/file{number}", b"%d\n" % number * 2000)
        git("add", ".")
        git("commit", "-q", "-m", f"commit {number}")
    git("fsck", "--full", "--strict")
    assert git("status", "--porcelain") == ""
    assert len(git("log", "--oneline").splitlines()) == 2


@pytest.mark.feature("sqlite3 with a rollback journal")
def test_sqlite(drive: Drive, tmp_path: Path) -> None:
    """A database is filled, changed and sound; the server has all of it."""
    sql = (
        "PRAGMA journal_mode=DELETE; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500)"
        " INSERT INTO t SELECT i, hex(randomblob(40)) FROM n; UPDATE t SET b='x' WHERE a%2;"
    )
    drive.run(["sqlite3", "a.db", sql])
    check = "PRAGMA integrity_check; SELECT count(*) FROM t WHERE b='x';"
    assert drive.run(["sqlite3", "a.db", check]).split() == ["ok", "250"]
    drive.send("a.db")
    copy = tmp_path / "copy.db"
    copy.write_bytes(drive.on_server("a.db") or b"")
    assert drive.run(["sqlite3", str(copy), check]).split() == ["ok", "250"]
    assert drive.rival.names(drive.there) == ["a.db"]


@pytest.mark.feature("sed -i, mv, cp, grep -r")
def test_shell_tools(drive: Drive) -> None:
    """An afternoon's work in a shell ends with the files that it should."""
    script = """
        mkdir -p d/e; echo one > d/a; cp d/a d/e/b; sed -i s/one/two/ d/e/b; mv d/e/b 'd/e/c d'
        cat d/a >> 'd/e/c d'; touch d/new; test -e d/new
    """
    drive.run(["sh", "-ec", script])
    found = drive.run(["grep", "-rc", "two", "d"]).splitlines()
    assert sorted(found) == ["d/a:0", "d/e/c d:1", "d/new:0"]
    drive.send("d/e/c d")
    assert drive.on_server("d/e/c d") == b"two\none\n"


@pytest.mark.feature("all is on the server at the end")
def test_the_servers_own_view(stage: Stage, drive: Drive, source: Path) -> None:
    """After a tree was copied and `davfs sync` said 0, plain GETs and another mount find each byte of it."""
    drive.run(["cp", "-r", str(source), "tree"])
    assert drive.sync() == 0
    wanted = _bytes_of(source)
    for name, data in wanted.items():
        assert drive.on_server(f"tree/{name}") == data, name
    files, _ = drive.call("read_tree", stage.elsewhere(drive).at("tree"))
    assert files == wanted
