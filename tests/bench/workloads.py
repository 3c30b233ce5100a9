"""What is done for each row: `prepare` makes the share, `perform` measures on one mount of it.

The top of the drive has been listed before the clock starts, as somebody who works there has seen it. Every
result is compared: bytes read, names listed, and what lies on the server's disk in the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.bench.fixtures import (
    KIB,
    MIB,
    Fixtures,
    Scene,
    archive,
    empty_files,
    files,
    fill,
    git_clone,
    repository,
    tree,
    wanted,
)
from tests.bench.measuring import Arrived, Gone, Stage

# --- listing ----------------------------------------------------------------------------------


def walked(at: Fixtures) -> Scene:
    return at.kept("walked", lambda disk: tree(disk / "tree", at.several(200), 20, 100))


def walk(stage: Stage, at: Fixtures) -> None:
    folders = at.several(200)
    expect = {"folders": folders + 1, "files": folders * 20, "size": folders * 2000}
    for row in ("walk", "walk-again"):
        stage.measure(row, "walk", expect=expect, root=f"{stage.mnt}/tree")


def _ls(count: int, row: str) -> tuple[Callable[[Fixtures], Scene], Callable[[Stage, Fixtures], None]]:
    def prepare(at: Fixtures) -> Scene:
        return at.kept(f"flat{count}", lambda disk: empty_files(disk / "flat", at.several(count)))

    def perform(stage: Stage, at: Fixtures) -> None:
        expect = {"lines": at.several(count) + 1}  # and "total 0"
        for name in (row, f"{row}-again"):
            stage.measure(name, "command", expect=expect, argv=["ls", "-l", f"{stage.mnt}/flat"])

    return prepare, perform


LS_10K = _ls(10_000, "ls-10k")
LS_100K = _ls(100_000, "ls-100k")

# --- very many: served by million.py, as no disk is wanted for that ---------------------------


def _many(wide: int, row: str) -> tuple[Callable[[Fixtures], Scene], Callable[[Stage, Fixtures], None]]:
    def prepare(at: Fixtures) -> Scene:
        return at.scripted(max(2, at.several(wide)), 100)

    def perform(stage: Stage, at: Fixtures) -> None:
        folders = max(2, at.several(wide))
        files = folders * folders * 100
        expect = {"folders": folders * folders + folders + 1, "files": files, "size": files * 4096}
        stage.measure(row, "walk", expect=expect, limit_s=1200, watch=True, root=str(stage.mnt))

    return prepare, perform


ten_thousand, walk_ten_thousand = _many(10, "walk-10k-files")
million, walk_million = _many(100, "walk-1m-files")

# --- reading ----------------------------------------------------------------------------------


def small(at: Fixtures) -> Scene:
    return at.kept("small", lambda disk: files(disk / "docs", at.several(400), 16 * KIB))


def read_small(stage: Stage, at: Fixtures) -> None:
    for row in ("read-small", "read-small-again"):
        stage.measure(
            row,
            "read_files",
            expect={"count": at.several(400)},
            folder=f"{stage.mnt}/docs",
            reference=f"{stage.disk}/docs",
        )


def one_of_many(at: Fixtures) -> Scene:
    return at.kept("many", lambda disk: files(disk / "docs", at.several(1000), 16 * KIB))


def read_one(stage: Stage, _: Fixtures) -> None:
    stage.look("docs")
    stage.measure(
        "open-one",
        "read_files",
        folder=f"{stage.mnt}/docs",
        reference=f"{stage.disk}/docs",
        only=["file00001.dat"],
    )


def big(at: Fixtures) -> Scene:
    return at.kept("big", lambda disk: fill(disk / "big.bin", at.large(512 * MIB)))


def read_first(stage: Stage, _: Fixtures) -> None:
    stage.measure("first-4k", "read_at", count=1, size=4 * KIB, first_at_begin=True, **big_file(stage))


def read_big(stage: Stage, _: Fixtures) -> None:
    stage.measure("read-512m", "read_big", **big_file(stage))
    stage.measure("read-512m-again", "read_big", **big_file(stage))
    stage.measure("read-512m-disk", "read_big", drop_first=True, **big_file(stage))


def read_random(stage: Stage, _: Fixtures) -> None:
    stage.measure("random-4k", "read_at", count=100, size=4 * KIB, first_at_begin=False, **big_file(stage))


def big_file(stage: Stage) -> dict[str, Any]:
    return {"path": f"{stage.mnt}/big.bin", "reference": f"{stage.disk}/big.bin"}


def grepped(at: Fixtures) -> Scene:
    return at.kept("grepped", lambda disk: tree(disk / "tree", at.several(40), 25, 4 * KIB))


def grep(stage: Stage, _: Fixtures) -> None:
    # Status 1 of grep is "nothing found"; a file that could not be read would be 2.
    search = f'grep -r -a -c NOWHERE-IN-RANDOM-BYTES "{stage.mnt}/tree"; [ $? = 1 ]'
    count = sum(1 for _ in wanted(stage.disk))
    for row in ("grep", "grep-again"):
        stage.measure(row, "command", expect={"lines": count}, argv=["sh", "-c", search])


def beside(at: Fixtures) -> Scene:
    def make(disk: Path) -> None:
        tree(disk / "tree", at.several(50), 20, 100)
        fill(disk / "big.bin", at.large(64 * MIB))

    return at.kept("beside", make)


def walk_beside(stage: Stage, at: Fixtures) -> None:
    folders = at.several(50)
    stage.measure(
        "walk-beside",
        "walk_beside",
        both="both",
        expect={"folders": folders + 1, "files": folders * 20},
        root=f"{stage.mnt}/tree",
        busy=["cmp", f"{stage.mnt}/big.bin", f"{stage.disk}/big.bin"],
    )


def known(at: Fixtures) -> Scene:
    def make(disk: Path) -> None:
        tree(disk / "tree", at.several(50), 20, 100)
        files(disk / "docs", at.several(400), 16 * KIB)

    return at.kept("known", make)


def see_all(stage: Stage, _: Fixtures) -> None:
    stage.do("walk", root=f"{stage.mnt}/tree")
    stage.do("read_files", folder=f"{stage.mnt}/docs", reference=f"{stage.disk}/docs")


def come_back(stage: Stage, at: Fixtures) -> None:
    folders = at.several(50)
    expect = {"folders": folders + 1, "files": folders * 20}
    stage.measure("remount-walk", "walk", expect=expect, root=f"{stage.mnt}/tree")
    stage.measure("remount-read", "read_files", folder=f"{stage.mnt}/docs", reference=f"{stage.disk}/docs")


# --- writing ----------------------------------------------------------------------------------


def to_write(at: Fixtures) -> Scene:
    at.reference("to-write", lambda folder: files(folder, at.several(500), 4 * KIB))
    return at.fresh(lambda disk: (disk / "out").mkdir(), "to-write")


def write_small(stage: Stage, _: Fixtures) -> None:
    _write(stage, "write-small")


def to_write_big(at: Fixtures) -> Scene:
    at.reference("to-write-big", lambda folder: fill(folder / "big.bin", at.large(256 * MIB)))
    return at.fresh(lambda disk: (disk / "out").mkdir(), "to-write-big")


def write_big(stage: Stage, _: Fixtures) -> None:
    _write(stage, "write-256m")


def _write(stage: Stage, row: str) -> None:
    stage.measure(
        row,
        "write_files",
        goal=Arrived(stage.reference, stage.disk / "out"),
        returns=f"{row}-returns",
        reference=str(stage.reference),
        folder=f"{stage.mnt}/out",
    )


def documents(at: Fixtures) -> Scene:
    # Each is longer than before, so that its arrival can be seen by its size.
    at.reference("documents", lambda folder: files(folder, at.several(100), 20 * KIB))
    return at.fresh(lambda disk: files(disk / "docs", at.several(100), 16 * KIB), "documents")


def save(row: str, *, flush: bool) -> Callable[[Stage, Fixtures], None]:
    def perform(stage: Stage, _: Fixtures) -> None:
        stage.look("docs")
        stage.measure(
            row,
            "save",
            goal=Arrived(stage.reference, stage.disk / "docs"),
            returns=f"{row}-returns",
            reference=str(stage.reference),
            folder=f"{stage.mnt}/docs",
            flush=flush,
        )

    return perform


def to_copy(at: Fixtures) -> Scene:
    reference = at.reference("to-copy", lambda folder: fill(folder / "copy.bin", at.large(128 * MIB)))
    return at.fresh(
        lambda disk: (disk / "big.bin").write_bytes((reference / "copy.bin").read_bytes()), "to-copy"
    )


def copy(stage: Stage, _: Fixtures) -> None:
    stage.measure(
        "cp-128m",
        "command",
        goal=Arrived(stage.reference, stage.disk),
        returns="cp-128m-returns",
        argv=["cp", f"{stage.mnt}/big.bin", f"{stage.mnt}/copy.bin"],
    )


def to_unpack(at: Fixtures) -> Scene:
    archive(at.reference("to-unpack", lambda folder: tree(folder, at.several(30), 10, 8 * KIB)))
    return at.fresh(lambda disk: (disk / "out").mkdir(), "to-unpack")


def unpack(stage: Stage, _: Fixtures) -> None:
    stage.measure(
        "untar",
        "command",
        goal=Arrived(stage.reference, stage.disk / "out"),
        returns="untar-returns",
        argv=["tar", "-xf", str(archive(stage.reference)), "--no-same-owner", "-C", f"{stage.mnt}/out"],
    )


def to_remove(at: Fixtures) -> Scene:
    return at.fresh(lambda disk: tree(disk / "tree", at.several(20), 20, 1 * KIB))


def remove(stage: Stage, _: Fixtures) -> None:
    stage.measure("rm", "command", goal=Gone(stage.disk / "tree"), argv=["rm", "-r", f"{stage.mnt}/tree"])


def to_append(at: Fixtures) -> Scene:
    before = at.large(256 * MIB)

    def longer(folder: Path) -> None:
        fill(folder / "log.bin", before)
        with (folder / "log.bin").open("ab") as file:
            file.write(_appended())

    reference = at.reference("appended", longer)

    def make(disk: Path) -> None:
        with (reference / "log.bin").open("rb") as file:
            (disk / "log.bin").write_bytes(file.read(before))

    return at.fresh(make, "appended")


def _appended() -> bytes:
    return random.Random("appended").randbytes(4 * KIB)


def append(stage: Stage, _: Fixtures) -> None:
    stage.measure(
        "append",
        "append",
        goal=Arrived(stage.reference, stage.disk),
        returns="append-returns",
        path=f"{stage.mnt}/log.bin",
        size=4 * KIB,
    )


# --- ordinary programs ------------------------------------------------------------------------

_GIT_SAFE: Final = ["git", "-c", "safe.directory=*", "-c", "core.untrackedCache=false", "-C"]


def _source(at: Fixtures) -> Path:
    return at.reference("repository", lambda folder: repository(folder, at.several(30), 10))


def cloned(at: Fixtures) -> Scene:
    source = _source(at)
    return at.fresh(lambda disk: git_clone(source, disk / "work"), "cloned")


def status(stage: Stage, _: Fixtures) -> None:
    command = [*_GIT_SAFE, f"{stage.mnt}/work", "status", "--porcelain"]
    for row in ("git-status", "git-status-again"):
        stage.measure(row, "command", expect={"lines": 0}, argv=command)


def to_clone(at: Fixtures) -> Scene:
    source = _source(at)
    at.reference("cloned", lambda folder: git_clone(source, folder / "work"))
    return at.fresh(lambda disk: (disk / "out").mkdir(), "cloned")


# Times and inode numbers, what the file system can, and who cloned when: they differ by nature.
_GIT_OWN: Final = frozenset(
    f"work/.git/{name}"
    for name in (
        "index",
        "config",
        "logs/HEAD",
        "logs/refs/heads/main",
        "logs/refs/remotes/origin/HEAD",
    )
)


def clone(stage: Stage, _: Fixtures) -> None:
    source = stage.reference.with_name("repository")
    options = ["-c", "core.logAllRefUpdates=true", "clone", "--quiet", "--no-hardlinks", "--template="]
    stage.measure(
        "git-clone",
        "command",
        goal=Arrived(stage.reference, stage.disk / "out", own=_GIT_OWN),
        returns="git-clone-returns",
        argv=["git", *options, str(source), f"{stage.mnt}/out/work"],
    )


def synced(at: Fixtures) -> Scene:
    def make(top: Path) -> None:
        tree(top / "tree", at.several(20), 50, 2 * KIB)

    at.reference("synced", make)
    return at.fresh(make, "synced")


def rsync(stage: Stage, _: Fixtures) -> None:
    # -i names what is sent or changed: nothing may be.
    command = ["rsync", "-a", "-i", f"{stage.reference}/tree/", f"{stage.mnt}/tree/"]
    for row in ("rsync", "rsync-again"):
        stage.measure(row, "command", expect={"lines": 0}, argv=command)
