"""What lies on the server before a measurement, and what must lie there after it.

Folders that are only read are made once for each run of the benchmark; those that are written to, anew for
each measurement. Everything is random bytes from a fixed seed, and years old: Apache's tags are weak for two
seconds after a change, which would measure the set-up and not the mount.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.servers.base import Server

KIB: Final = 1024
MIB: Final = 1024 * 1024
_REPO: Final = Path(__file__).parents[2]
_OLD_S: Final = 1_600_000_000
_GIT: Final = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
_WHO: Final = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "bench"), ("EMAIL", "bench@localhost"), ("DATE", f"{_OLD_S} +0000"))
}


@dataclass(frozen=True, slots=True)
class Scene:
    """A share of the server: its URL, its folder on disk; `reference`: what a writer must bring there."""

    url: str
    disk: Path
    reference: Path
    kept: bool  # others read it after us
    port: int  # of the server


class Scripted:
    """A module of ours as a process that says its port, answers what it is asked, and ends with its input."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=_REPO,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self.answer())

    def ask(self, word: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"ended: {self._process.args!r}")
        return line

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Fixtures:
    """Makes scenes on `server`; `folder` is for references. Sizes are divided by `shrink` in tests."""

    def __init__(self, server: Server, folder: Path, shrink: int = 1) -> None:
        self._server = server
        self._folder = folder
        self._shrink = shrink
        self._count = 0
        self._scripted: dict[str, Scripted] = {}

    def several(self, count: int) -> int:
        return max(2, count // self._shrink)

    def large(self, size: int) -> int:
        return max(64 * KIB, size // self._shrink)

    # --- scenes -----------------------------------------------------------------------------

    def kept(self, name: str, make: Callable[[Path], object]) -> Scene:
        """A share that is only read: made when first asked for."""
        disk = self._server.root / name
        if not disk.exists():
            disk.mkdir()
            make(disk)
            self._aged(disk)
        return Scene(f"{self._server.url}{name}/", disk, disk, kept=True, port=self._server.port)

    def fresh(self, make: Callable[[Path], object], reference: str = "") -> Scene:
        self._count += 1
        disk = self._server.root / f"scene{self._count}"
        disk.mkdir()
        make(disk)
        self._aged(disk)
        return Scene(
            f"{self._server.url}{disk.name}/",
            disk,
            self._folder / reference,
            kept=False,
            port=self._server.port,
        )

    def scripted(self, wide: int, files: int) -> Scene:
        """A share that million.py serves; there is no disk."""
        name = f"{wide}x{files}"
        if name not in self._scripted:
            self._scripted[name] = Scripted("tests.bench.million", "--wide", str(wide), "--files", str(files))
        port = self._scripted[name].port
        return Scene(f"http://127.0.0.1:{port}/", Path("/nonexistent"), self._folder, kept=True, port=port)

    def close(self) -> None:
        for one in self._scripted.values():
            one.stop()

    def reference(self, name: str, make: Callable[[Path], object]) -> Path:
        """A local folder, made when first asked for."""
        path = self._folder / name
        if not path.exists():
            path.mkdir(parents=True)
            make(path)
            _age(path)
        return path

    def remove(self, scene: Scene) -> None:
        if not scene.kept:
            shutil.rmtree(scene.disk, ignore_errors=True)

    def _aged(self, disk: Path) -> None:
        _age(disk)
        self._server.own(disk)


def _age(top: Path) -> None:
    for place in (*top.rglob("*"), top):
        if not place.is_symlink():
            os.utime(place, (_OLD_S, _OLD_S))


# --- contents ---------------------------------------------------------------------------------


def fill(path: Path, size: int) -> None:
    """Random bytes that depend on the name of the file and its folder."""
    source = random.Random(f"{path.parent.name}/{path.name}")
    with path.open("wb") as file:
        for begin in range(0, size, MIB):
            file.write(source.randbytes(min(MIB, size - begin)))


def files(folder: Path, count: int, size: int) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    for number in range(count):
        fill(folder / f"file{number:05}.dat", size)


def empty_files(folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    for number in range(count):
        (folder / f"file{number:06}.dat").touch()


def tree(top: Path, folders: int, count: int, size: int) -> None:
    for number in range(folders):
        files(top / f"folder{number:03}", count, size)


def repository(top: Path, folders: int, count: int) -> None:
    """A git repository with a work tree of text files and two commits."""
    tree(top, folders, count, 4 * KIB)
    _git(top, "init", "--quiet", "--initial-branch=main", "--template=")
    _git(top, "add", ".")
    _git(top, "commit", "--quiet", "--message=one")
    (top / "README").write_text("two\n")
    _git(top, "add", ".")
    _git(top, "commit", "--quiet", "--message=two")
    # As it lies on any machine after a while: one pack and not hundreds of loose objects.
    _git(top, "-c", "pack.threads=1", "gc", "--quiet")


def git_clone(source: Path, target: Path) -> None:
    _git(source, "clone", "--quiet", "--no-hardlinks", "--template=", str(source), str(target))


def _git(where: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-C", str(where), *arguments],
        env=os.environ | _GIT | _WHO,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=True,
    )


def archive(of: Path) -> Path:
    """A tar file beside the folder `of`, with what is in it."""
    path = of.with_suffix(".tar")
    if not path.exists():
        with tarfile.open(path, "w") as tar:
            for place in sorted(of.iterdir()):
                tar.add(place, arcname=place.name)
    return path


# --- what arrived -------------------------------------------------------------------------------


def wanted(reference: Path) -> Iterator[tuple[str, int]]:
    """The files of a folder by their relative names, with their sizes."""
    for place in sorted(reference.rglob("*")):
        if place.is_file():
            yield str(place.relative_to(reference)), place.stat().st_size
