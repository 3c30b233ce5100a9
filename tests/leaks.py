"""What a test session left behind: processes and FUSE mounts.

A daemon that forked away is no longer a child of the tests, so processes are known by a variable
in their environment that the session sets before it starts anything.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

SESSION_VARIABLE = "DAVFS_TEST_SESSION"
_GRACE_S = 30.0  # a process that was told to end needs a moment, and on a loaded machine several seconds


def prefix() -> str:
    """What the names begin with of temporary folders outside pytest's own that this session makes."""
    return f"davfs-{os.environ.get(SESSION_VARIABLE, 'none')[:8]}-"


def folder(purpose: str) -> Path:
    """Such a folder, which every user may enter: pytest's own are for one user alone."""
    made = Path(tempfile.mkdtemp(prefix=f"{prefix()}{purpose}-"))
    made.chmod(0o755)
    return made


def mounts() -> set[str]:
    """The mount points of all FUSE file systems."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    split = [line.partition(" - ") for line in lines]
    return {
        left.split()[4] for left, _, right in split if right.startswith("fuse") and "fusectl" not in right
    }


def processes() -> list[str]:
    """Processes of this test session that still run after a grace: "pid command"."""
    deadline = time.monotonic() + _GRACE_S
    while (found := _running()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _running() -> list[str]:
    mark = f"{SESSION_VARIABLE}={os.environ.get(SESSION_VARIABLE)}".encode()
    return [
        f"{entry.name} {_command(entry)}"
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and int(entry.name) != os.getpid() and mark in _environment(entry)
    ]


def _environment(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:  # it ended, or is another user's
        return []


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "(ended)"
