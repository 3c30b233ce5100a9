"""Several users on one machine: a mount namespace of the test's own, and people who run commands in it.

The namespace shows what a test must not change on the machine itself: /dev/fuse for everybody (as udev makes
it; some machines without udev have it for root alone), an /etc/fuse.conf of the test's choice, and an
/etc/passwd with more people (fusermount3 mounts for nobody whom it does not find there). They start through
setpriv(1).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests import leaks

_REPO: Final = Path(__file__).parents[2]
ALICE: Final = 12001
BOB: Final = 12002
# In a namespace of one's own, first of all: a copy of another test's mount would keep it alive.
LET_GO: Final = (
    "for each in $(awk '/ - fuse/ && !/fusectl/ {print $5}' /proc/self/mountinfo); do umount -l $each; done;"
)
_PEOPLE: Final = {"alice": ALICE, "bob": BOB}


def opened_ways(over: Path, *needed: Path) -> str:
    """Shell lines that let every user reach these folders: one on the way may be root's alone (/root)."""
    closed = {
        next((each for each in reversed(place.parents) if not each.stat().st_mode & 0o001), None)
        for place in needed
    } - {None}
    held = [(place, over / f"way{number}") for number, place in enumerate(needed)]
    kept = [f" mkdir {aside}; mount --bind {place} {aside};" for place, aside in held]
    hidden = [f" mount -t tmpfs -o mode=755 tmpfs {each};" for each in closed]
    back = [f" mkdir -p {place}; mount --bind {aside} {place};" for place, aside in held]
    return "".join([*kept, *hidden, *back]) if closed else ""


class Machine:
    """A mount namespace, kept by one process; the kernel takes it away with the last one in it."""

    def __init__(self, fuse_conf: str = "") -> None:
        # Not below pytest's tmp_path: it is 0700, and every other session of pytest makes it so again.
        self.folder = folder = leaks.folder("people")
        over = folder / "over"
        over.mkdir()
        (folder / "fuse.conf").write_text(fuse_conf)
        entries = [f"{name}:x:{uid}:{uid}::{folder}/home{uid}:/bin/sh\n" for name, uid in _PEOPLE.items()]
        (folder / "passwd").write_text(Path("/etc/passwd").read_text() + "".join(entries))
        prepared = (
            f"set -e; {LET_GO} mount -t tmpfs -o mode=755 tmpfs {over}; mknod -m 666 {over}/fuse c 10 229;"
            f" mount --bind {over}/fuse /dev/fuse; mount --bind {folder}/fuse.conf /etc/fuse.conf;"
            f" mount --bind {folder}/passwd /etc/passwd;"
            f"{opened_ways(over, Path(sys.base_prefix), _REPO, folder)} echo ready; exec cat"
        )
        self._keeper = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", prepared],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == b"ready\n"

    def close(self) -> None:
        """Ends the mounts that are still there; their daemons end with them."""
        for place in reversed(self.mounted()):
            with suppress(subprocess.TimeoutExpired):
                self.enter(["umount", "-l", place])
        self._keeper.communicate(timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def mounted(self) -> list[str]:
        lines = Path(f"/proc/{self._keeper.pid}/mountinfo").read_text().splitlines()
        places = [line.split()[4] for line in lines if " - fuse.davfs " in line]
        return [place for place in places if place.startswith(f"{self.folder}/")]

    def enter(
        self, command: list[str], *, env: dict[str, str] | None = None, typed: str = "", timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt", *command],
            input=typed,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={"PATH": os.environ["PATH"], **(env or {})},
        )


class Person:
    """A user of the machine: a number, a home of mode 0700, and a mount point of his own."""

    def __init__(self, machine: Machine, uid: int) -> None:
        self.machine = machine
        self.uid = uid
        self.home = machine.folder / f"home{uid}"
        self.drive = self.place("drive")
        for made in (self.home, self.home / "run"):
            made.mkdir(mode=0o700)
            os.chown(made, uid, uid)

    def place(self, name: str) -> Path:
        """One more folder of this user's, where others get to."""
        made = self.machine.folder / f"{name}{self.uid}"
        made.mkdir()
        os.chown(made, self.uid, self.uid)
        return made

    def runs(self, *command: str, typed: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        """A command of this user, in a shell when it is one word; `more` goes into its environment."""
        start = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        argv = ["sh", "-c", command[0]] if len(command) == 1 else list(command)
        mark = {leaks.SESSION_VARIABLE: os.environ.get(leaks.SESSION_VARIABLE, "")}
        environ = {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home / "run"), "LC_ALL": "C.UTF-8"}
        around = {**environ, **mark, "PYTHONPATH": str(_REPO), **more}
        return self.machine.enter([*start, *argv], env=around, typed=typed)

    def davfs(self, *words: object) -> subprocess.CompletedProcess[str]:
        return self.runs(sys.executable, "-m", "davfs", *map(str, words))
