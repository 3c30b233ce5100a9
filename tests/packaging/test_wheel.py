"""`pipx install .`: wheel and sdist, what is in them, and the commands of an environment of its own.

What pipx does is done by hand (venv, pip, the commands of the environment), from the wheels of the locked
requirements and without an index; with pipx itself where it is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

from davfs import __version__
from davfs.cli import _COMMAND_WORDS

REPO = Path(__file__).parents[2]
pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
_HELPERS = ("mount.fuse.davfs", "umount.fuse.davfs")
_BUILD = (
    "import sys; from setuptools import build_meta as backend;"
    " print(getattr(backend, 'build_' + sys.argv[1])(sys.argv[2]))"
)


def _tracked(below: str = "") -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", below or "."], cwd=REPO, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split("\0") if name and (REPO / name).is_file()]


def _built(kind: str, source: Path, into: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, kind, str(into)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return into / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From a clean copy: what is not tracked is not on anybody else's machine."""
    folder = tmp_path_factory.mktemp("sdist")
    for name in _tracked():
        target = folder / "clean" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPO / name, target)
    return _built("sdist", folder / "clean", folder)


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From the sdist, so that the sdist is known to be whole."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return _built("wheel", folder / f"davfs-{__version__}", folder)


def test_the_sdist(sdist: Path) -> None:
    """Sources, documents, units and licence; no tests, nothing built, nothing of a machine."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "requirements-run.lock"} <= names
    assert set(_tracked("davfs")) | set(_tracked("docs")) | set(_tracked("systemd")) <= names
    strangers = [name for name in names if re.match(r"tests|\.venv|dist|drive|.*\.(pyc|so|deb|whl)$", name)]
    assert not strangers


def test_the_wheel(wheel: Path) -> None:
    """The package, py.typed and the licence, and nothing else; pure Python; the commands are named."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        info = f"davfs-{__version__}.dist-info"
        metadata = message_from_string(archive.read(f"{info}/METADATA").decode())
        commands = archive.read(f"{info}/entry_points.txt").decode()
    assert {name for name in names if name.startswith("davfs/")} == set(_tracked("davfs"))
    assert "davfs/py.typed" in names
    assert {name for name in names if not name.startswith(("davfs/", f"{info}/"))} == set()
    assert f"{info}/licenses/LICENSE" in names
    assert metadata["Name"], metadata["Version"] == ("davfs", __version__)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert all(f"{command} = " in commands for command in ("davfs", *_HELPERS))


def _pinned(line: str) -> tuple[str, str]:
    """Name, in its normal form (PEP 503), and version."""
    name, _, version = line.partition("==")
    return re.sub(r"[-_.]+", "-", name).lower(), re.split(r"[ ;\\]", version)[0]


def _locked() -> dict[str, str]:
    lines = (REPO / "requirements-run.lock").read_text().splitlines()
    return dict(_pinned(line) for line in lines if re.match(r"\w", line))


@pytest.fixture(scope="module")
def wheels(package: Path) -> Path:
    """What davfs needs, built by scripts/build-deb from the lock file."""
    return next(folder for folder in (REPO / ".venv").glob("wheels-*") if (folder / "complete").exists())


@pytest.fixture(scope="module", params=["venv", *(["pipx"] if shutil.which("pipx") else [])])
def commands(
    request: pytest.FixtureRequest, wheel: Path, wheels: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of the commands of a fresh environment."""
    folder = tmp_path_factory.mktemp("installed")
    without_index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PIPX_HOME": str(folder / "pipx"),
        **without_index,
    }
    if request.param == "pipx":
        steps = [["pipx", "install", str(wheel)]]
        found = folder / ".local/bin"
    else:
        found = folder / "env/bin"
        steps = [
            [sys.executable, "-m", "venv", str(folder / "env")],
            [str(found / "python"), "-m", "pip", "install", "--quiet", "--no-compile", str(wheel)],
        ]
    for step in steps:
        done = subprocess.run(step, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return found


def _run(commands: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(commands / words[0]), *words[1:]],
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(home), "XDG_RUNTIME_DIR": str(home)},
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_command_answers(commands: Path, tmp_path: Path) -> None:
    """--version and every --help, with an empty home, which stays empty."""
    assert _run(commands, tmp_path, "davfs", "--version").stdout == f"davfs {__version__}\n"
    for words in [
        ("davfs",),
        *(("davfs", word) for word in sorted(_COMMAND_WORDS)),
        *((w,) for w in _HELPERS),
    ]:
        told = _run(commands, tmp_path, *words, "--help")
        assert (told.returncode, told.stderr) == (0, ""), words
        assert told.stdout.startswith("usage: "), words
    assert list(tmp_path.iterdir()) == []


def test_what_is_installed_is_what_is_locked(commands: Path) -> None:
    """Each requirement in the version of requirements-run.lock, and nothing that is not there."""
    if not (commands / "python").exists():
        return  # pipx keeps its environment to itself
    listed = subprocess.run(
        [str(commands / "python"), "-m", "pip", "list", "--format=freeze"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    installed = dict(_pinned(line) for line in listed.splitlines())
    for own in ("davfs", "pip", "setuptools"):
        installed.pop(own, None)
    assert installed == {name: _locked()[name] for name in installed}


@pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse cannot be opened")
def test_the_demo_of_what_was_installed(commands: Path, tmp_path: Path) -> None:
    """One command: a server, a mount, a file written and read; and nothing of it stays."""
    done = _run(commands, tmp_path, "davfs", "demo", "--run", "echo hello >new.txt && cat new.txt", "drive")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "hello"), done.stderr
    assert not (tmp_path / "drive").exists()
