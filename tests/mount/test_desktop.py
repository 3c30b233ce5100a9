"""What a desktop sees: the drive in file managers, and notifications over the session bus."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.mount.conftest import MountOf
from tests.servers import Share

_FAKE = """#!/bin/sh
printf '%s|' "$@" >>"{said}"
echo >>"{said}"
"""


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a `notify-send` in PATH was called with, a line each; a session bus is announced."""
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "notify-send"
    program.write_text(_FAKE.format(said=tmp_path / "said"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/no-bus")
    return tmp_path / "said"


def _until_said(said: Path, word: str) -> str:
    deadline = time.monotonic() + 30
    while word not in (text := said.read_text() if said.exists() else ""):
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
    return text


def _conflict(share: Share, drive: Path) -> None:
    """Somebody else's version comes between ours and the server."""
    (drive / "plan.txt").write_text("first")
    with (drive / "plan.txt").open("a") as file:
        os.fsync(file.fileno())
        (share.root / "plan.txt").write_text("by somebody else, meanwhile")
        file.write("ours")


@pytest.mark.expects_warning("conflict")
def test_a_conflict_is_told_to_the_desktop(apache_share: Share, mount_of: MountOf, said: Path) -> None:
    """Once, through notify-send, with the copy's name."""
    drive = mount_of(apache_share, write_back="0.1")
    _conflict(apache_share, drive.mount.point)
    told = _until_said(said, "Somebody else changed it too; yours is /plan (conflict ")
    assert told.count("\n") == 1
    assert f"|--|davfs: {drive.mount.point}|" in told


@pytest.mark.expects_warning("conflict")
def test_notify_never(apache_share: Share, mount_of: MountOf, said: Path) -> None:
    """Switched off, nothing is said, although there is a bus."""
    drive = mount_of(apache_share, write_back="0.1", notify="never")
    _conflict(apache_share, drive.mount.point)
    drive.sync()
    deadline = time.monotonic() + 20
    while not list(apache_share.root.glob("plan (conflict *")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2.5)  # longer than the desktop's look
    assert not said.exists()


@pytest.mark.skipif(shutil.which("gio") is None, reason="gio is not installed (libglib2.0-bin)")
def test_file_managers_list_the_drive(apache_share: Share, mount_of: MountOf, tmp_path: Path) -> None:
    """GLib, which most file managers ask, shows a drive in the home folder by its name."""
    drive = mount_of(apache_share)
    place = drive.mount.point
    listed = subprocess.run(
        ["gio", "mount", "--list"],
        env={**os.environ, "HOME": str(place.parent), "GIO_USE_VOLUME_MONITOR": "unix", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout
    assert f"{place.name} -> file://{place}" in listed
    shown = subprocess.run(
        ["findmnt", "-no", "SOURCE,FSTYPE", str(place)], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == [apache_share.url, "fuse.davfs"]
