"""A machine that has nothing: a root below an overlay, booted by its own systemd, without davfs.

The root is this machine's, without what may hold a davfs or a Python of a developer (/root, /home, the clone)
and with no service enabled; or that of DAVFS_CLEAN_ROOT, which clean-root beside this makes by debootstrap.
What the machine gets is in memory and goes with it. Its network is the host's, so that servers of the tests
are reached on loopback.

    with Booted(folder) as machine:
        machine.runs("systemctl is-system-running")

Takes root, namespaces, overlay, cgroup2 and systemd: `why_not()` says what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.mount.people import LET_GO
from tests.servers import MissingPart

SYSTEMD: Final = Path("/lib/systemd/systemd")
_BOOTS_WITHIN_S: Final = 150.0  # 3 s on an idle machine
_HIDDEN: Final = sorted(
    {"root", "home", "srv", "opt", "tmp", "var/tmp", "var/cache", "usr/local/lib", "mnt"}
    | {
        place.parts[1]
        for place in (Path(__file__), Path(sys.base_prefix))
        if place.parts[1] not in {"usr", "var"}
    }
)

# In its own cgroup, mount and PID namespace; $1: an empty folder, $2: one to share, $3: the root.
_BOOT: Final = (
    """
set -e; LET_GO
mount -t tmpfs tmpfs "$1"; cd "$1"; mkdir upper work root
mount -t overlay -o lowerdir="$3",upperdir=upper,workdir=work overlay root; cd root
mount -t proc proc proc; mount --bind proc/sys proc/sys; mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys; mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev; mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
for each in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "dev/${each%:*}" c 1 "${each#*:}"; done
mknod -m 666 dev/tty c 5 0; mknod -m 666 dev/fuse c 10 229; mknod dev/autofs c 10 235
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 tmpfs run
for each in HIDDEN; do [ ! -d "$each" ] || mount -t tmpfs -o mode=755 tmpfs "$each"; done
chmod 1777 tmp var/tmp; mkdir run/shared; mount --bind "$2" run/shared
rm -rf etc/systemd/system etc/systemd/user; mkdir -p etc/systemd/system
for each in systemd-journald-audit.socket systemd-modules-load.service modprobe@.service; do
    ln -s /dev/null "etc/systemd/system/$each" # the kernel is the host's
done
echo 'alice:x:12001:12001::/home/alice:/bin/sh' >>etc/passwd
mkdir -m 700 home/alice; chown 12001:12001 home/alice; : >etc/fstab; : >etc/machine-id
mount --make-rshared . # as container managers do; systemd hands credentials over by propagation
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=other chroot . SYSTEMD --unit=basic.target \\
    --show-status=0 --log-target=kmsg </dev/null >/dev/null 2>&1
""".replace("LET_GO", LET_GO)
    .replace("HIDDEN", " ".join(_HIDDEN))
    .replace("SYSTEMD", str(SYSTEMD))
)


def cgroup2() -> Path | None:
    """Where the unified hierarchy of cgroups is mounted."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return next((Path(line.split()[4]) for line in lines if " - cgroup2 " in line), None)


def why_not() -> str | None:
    """What is missing for a machine of its own; None if nothing is."""
    if os.geteuid() != 0:
        return "a machine of its own takes root"
    if not SYSTEMD.exists():
        return f"{SYSTEMD} is not installed"
    filesystems = Path("/proc/filesystems").read_text().split()
    missing = [each for each in ("overlay", "cgroup2", "fuse") if each not in filesystems]
    if missing or cgroup2() is None:
        return f"the kernel has no {', '.join(missing) or 'mounted cgroup2'}"
    return None


class Booted:
    """The machine, running. Raises MissingPart where it cannot be: in a container that may not mount."""

    def __init__(self, folder: Path) -> None:
        self.shared = folder / "shared"
        over = folder / "over"
        for made in (self.shared, over):
            made.mkdir()
        hierarchy = cgroup2()
        assert hierarchy is not None
        self._group = hierarchy / f"davfs-test-{uuid.uuid4().hex[:8]}"
        self._group.mkdir()
        base = os.environ.get("DAVFS_CLEAN_ROOT") or "/"
        enter = 'echo $$ >"$0/cgroup.procs"; exec "$@"'
        unshare = ["unshare", "--cgroup", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
        unshare += ["--propagation", "private"]
        boot = ["sh", "-c", _BOOT, "sh", str(over), str(self.shared), base]
        self._said = folder / "boot.log"
        with self._said.open("wb") as sink:
            self._outside = subprocess.Popen(
                ["sh", "-c", enter, str(self._group), *unshare, *boot], stdin=subprocess.DEVNULL, stderr=sink
            )
        self._pid = 0

    def __enter__(self) -> Self:
        deadline = time.monotonic() + _BOOTS_WITHIN_S
        while not self._is_up():
            if time.monotonic() > deadline or self._outside.poll() is not None:
                self.close()
                said = self._said.read_text().strip().splitlines()[-1:] or ["systemd did not start"]
                raise MissingPart(f"a machine of its own cannot be booted here ({said[0]})")
            time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_up(self) -> bool:
        with suppress(OSError, IndexError):
            children = Path(f"/proc/{self._outside.pid}/task/{self._outside.pid}/children").read_text()
            self._pid = int(children.split()[0])
            if Path(f"/proc/{self._pid}/comm").read_text() == "systemd\n":
                return self.runs("systemctl is-active basic.target").stdout == "active\n"
        return False

    def runs(self, script: str, *, timeout_s: float = 250) -> subprocess.CompletedProcess[str]:
        """A shell of root's on the machine."""
        into = ["nsenter", f"--target={self._pid}", "--mount", "--pid", "--uts", "--ipc", "--cgroup"]
        return subprocess.run(
            [*into, "--root", "--wd", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"},
        )

    def until(self, script: str, wanted: str, *, within_s: float = 60) -> str:
        """Runs `script` until its output holds `wanted`."""
        deadline = time.monotonic() + within_s
        while wanted not in (said := self.runs(script)).stdout:
            if time.monotonic() > deadline:
                raise AssertionError(f"{script}: no {wanted!r} in {said.stdout!r} {said.stderr!r}")
            time.sleep(0.2)
        return said.stdout

    def close(self) -> None:
        """The first process of a PID namespace takes all others with it."""
        self._outside.kill()
        self._outside.wait(20)
        deadline = time.monotonic() + 20
        while self._group.exists() and time.monotonic() < deadline:
            for folder in sorted(self._group.rglob("*/"), reverse=True):
                with suppress(OSError):
                    folder.rmdir()
            with suppress(OSError):
                self._group.rmdir()
            time.sleep(0.05)


def needed() -> str:
    """The reason to skip, for pytest."""
    return why_not() or ("" if shutil.which("nsenter") else "nsenter is not installed")
