"""The command line as a user meets it: one line, one exit code, quickly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from davfs import cli


def davfs(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "davfs", *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
        env={**os.environ, **environ},
    )


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, text: str) -> None:
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.startswith("davfs: ")
    assert done.stderr.count("\n") == 1
    assert text in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["mout"], 2, "did you mean 'mount'?"),
        (["mount"], 2, "SOURCE"),
        (["mount", "http://h/"], 2, "MOUNTPOINT"),
        (["mount", "http://u:hunter2@h/", "/mnt"], 2, "must not hold a user name"),
        (["mount", "http://h/", "/mnt", "-o", "usrname=x"], 2, "did you mean 'username'?"),
        (["mount", "http://h/", "/mnt", "--password", "hunter2"], 2, "more words"),
        (["http://h/", "/mnt", "-o", "password=hunter2"], 2, "never given as an option"),
        (["-o", "nonsense", "http://h/", "/mnt"], 2, "unknown option 'nonsense'"),
        (["http://h/", "/no/such/folder"], 3, "does not exist"),
        (["http://h/", "/proc"], 3, "mount point already"),
        (["http://h/", "/etc"], 3, "not empty"),
        (["http://h/", "/etc/passwd"], 3, "not a folder"),
        (["unmount", "/etc"], 10, "not a davfs mount"),
        (["umount", "/no/such/folder"], 10, "not a davfs mount"),
        (["sync", "/proc"], 10, "not a davfs mount"),
        (["sync", "/proc", "--timeout", "nan"], 2, "seconds"),
        (["status", "/etc"], 10, "not a davfs mount"),
    ],
)
def test_a_failure_is_one_line_and_a_code(words: list[str], code: int, text: str) -> None:
    """Wrong usage, mount points and missing daemons: told without a traceback, and without the password."""
    done = davfs(*words)
    assert_one_line(done, code, text)
    assert "hunter2" not in done.stderr


def test_without_a_terminal_a_missing_password_is_told(tmp_path: Path) -> None:
    """A service that has no password does not wait for one."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("needs /dev/fuse")
    assert_one_line(davfs("http://127.0.0.1:9/", str(tmp_path), "-o", "username=u"), 2, "DAVFS_PASSWORD")


def test_no_home_is_no_trouble(tmp_path: Path) -> None:
    """A service without HOME gets as far as anybody: here to the folder that is missing."""
    assert_one_line(
        davfs("http://h/", str(tmp_path / "none"), HOME="", XDG_CACHE_HOME=""), 3, "does not exist"
    )


def test_status_without_mounts() -> None:
    """`davfs status --json` is a list, whatever is mounted."""
    done = davfs("status", "--json")
    assert done.stderr == ""
    assert isinstance(json.loads(done.stdout), list)


def test_version_and_help() -> None:
    """The help lists the commands and every exit code."""
    assert davfs("--version").stdout == "davfs 0.1.0\n"
    text = davfs("--help").stdout
    for word in ("mount", "unmount", "sync", "status", "doctor", "demo", "  10  not a davfs mount"):
        assert word in text
    assert davfs().stdout == text
    for command in ("mount", "unmount", "sync", "status", "doctor", "demo"):
        assert davfs(command, "--help").returncode == 0


def test_help_loads_nothing_heavy() -> None:
    """`davfs --help` is as quick as Python: trio, httpx, rich and lxml stay out."""
    script = (
        "import sys\nfrom davfs.cli import main\n"
        "try:\n    main(['mount', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'trio', 'httpx', 'rich', 'lxml', 'pyfuse3', 'wsgidav', 'cachetools'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (["http://h/", "/mnt", "-o", "ro"], ["mount", "http://h/", "/mnt", "-o", "ro"]),
        (["-o", "ro", "http://h/", "/mnt"], ["mount", "-o", "ro", "http://h/", "/mnt"]),
        (["mount", "http://h/", "/mnt"], ["mount", "http://h/", "/mnt"]),
        (["umount", "/mnt"], ["umount", "/mnt"]),
        ([], ["--help"]),
    ],
)
def test_the_form_of_mount_8(words: list[str], result: list[str]) -> None:
    """What mount(8) calls is `davfs mount` without the word."""
    assert cli._with_command(words) == result
