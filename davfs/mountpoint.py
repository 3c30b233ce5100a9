"""The mount point: which mounts exist, may this folder become one, and how it is let go.

What is mounted is read from /proc/self/mountinfo, never by touching the place: a mount whose daemon hangs
or died would hang or fail the command that is meant to help (`davfs status`, `davfs unmount`). For the
same reason a path is resolved step by step here and not by `os.path.realpath`.

Checks raise MountPointError (exit code 3) or FuseUnavailable (4), each with what to do about it.
"""

from __future__ import annotations

import errno
import os
import pwd
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from davfs.exitcodes import FuseUnavailable, MountPointError

FSTYPE: Final = "fuse.davfs"
_AUTOFS: Final = "autofs"
_MOUNTINFO: Final = Path("/proc/self/mountinfo")
_DEVICE: Final = Path("/dev/fuse")
_UNMOUNT_TIMEOUT_S: Final = 30.0
_ANSWER_WITHIN_S: Final = 2.0
_MAX_LINKS: Final = 40  # the kernel's own limit (path_resolution(7))


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo, as far as davfs asks."""

    target: str
    fstype: str
    source: str
    owner_uid: int | None  # FUSE's user_id=: who mounted it

    @property
    def is_davfs(self) -> bool:
        return self.fstype == FSTYPE


# --- reading mountinfo ------------------------------------------------------------------------------


def parse_mountinfo(text: str) -> list[Mount]:
    """The mounts of a mountinfo text (proc_pid_mountinfo(5)), in order; lines it cannot read are skipped."""
    return [mount for line in text.splitlines() if (mount := _parse_line(line)) is not None]


def _parse_line(line: str) -> Mount | None:
    left, separator, right = line.partition(" - ")
    before, after = left.split(" "), right.split(" ")
    if not separator or len(before) < 5 or len(after) < 3:
        return None
    owner = re.search(r"(?:^|,)user_id=(\d+)", after[2])
    return Mount(_unescaped(before[4]), after[0], _unescaped(after[1]), int(owner[1]) if owner else None)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def mounts() -> list[Mount]:
    """What is mounted now, as this process sees it."""
    return parse_mountinfo(os.fsdecode(_MOUNTINFO.read_bytes()))


def mount_at(target: str, found: Iterable[Mount]) -> Mount | None:
    """The mount that is on top at `target`; None when there is none."""
    return next((mount for mount in reversed(list(found)) if mount.target == target), None)


def davfs_mounts() -> list[Mount]:
    """All davfs mounts, each place once."""
    found = mounts()
    targets = dict.fromkeys(mount.target for mount in found if mount.is_davfs)
    tops = [mount_at(target, found) for target in targets]
    return [mount for mount in tops if mount is not None and mount.is_davfs]


def is_davfs(target: str) -> bool:
    mount = mount_at(target, mounts())
    return mount is not None and mount.is_davfs


def is_automounted(target: str) -> bool:
    """Does autofs wait there for a mount (x-systemd.automount)?

    Until mount(8) returns, the kernel lets nobody by but the process group that systemd started.
    """
    return any(mount.target == target and mount.fstype == _AUTOFS for mount in mounts())


# --- resolving --------------------------------------------------------------------------------------


def resolved(path: str, targets: Collection[str] | None = None) -> str:
    """`path` without symbolic links, found without looking into a mount that stands at its end.

    Links in the folders above are resolved as usual; the last part is read as a link only when nothing
    is mounted there.
    """
    known = {mount.target for mount in mounts()} if targets is None else targets
    current = os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps `..`, Path.resolve looks at the end
    for _ in range(_MAX_LINKS):
        if current in known:
            return current
        parent, name = os.path.split(current)
        if name in {"", ".", ".."}:
            return os.path.realpath(current)
        current = str(Path(os.path.realpath(parent), name))
        link = None if current in known else _link_target(current)
        if link is None:
            return current
        current = str(Path(current).parent / link)
    raise MountPointError(f"{path}: too many symbolic links")


def _link_target(path: str) -> str | None:
    try:
        return os.readlink(path)  # noqa: PTH115 - surrogates and no normalisation wanted
    except OSError:
        return None


# --- may it be mounted here? ------------------------------------------------------------------------


def check_mountpoint(path: str, *, nonempty: bool = False) -> None:
    """Raises MountPointError unless `path` (resolved) is a folder that a share can be mounted on.

    Only mountinfo says whether something is mounted: a differing st_dev, the usual test, is also that of
    a btrfs subvolume, which may well be a mount point.
    """
    taken = mount_at(path, mounts())
    if taken is not None and taken.fstype == _AUTOFS:
        return  # it is there to be mounted on; to look into it would ask for this very mount
    if taken is not None:
        _refuse_mounted(path, taken)
    try:
        found = Path(path).stat()
    except OSError as error:
        raise MountPointError(_why_not(path, error)) from None
    if not stat.S_ISDIR(found.st_mode):
        raise MountPointError(f"{path} is not a folder")
    if not nonempty:
        _check_empty(path)
    if os.geteuid() != 0 and not os.access(path, os.W_OK):  # what fusermount3 will ask for
        raise MountPointError(f"{path}: you must be able to write to the folder to mount on it")


def heal(path: str) -> bool:
    """Takes away a davfs mount whose daemon died ("Transport endpoint is not connected"); was there one?

    Nothing is lost by it: what was not sent is in the journal. Another user's dead mount stays, and
    `check_mountpoint` says so; a mount whose daemon hangs is not dead.
    """
    healed = False
    while (taken := mount_at(path, mounts())) is not None and taken.is_davfs and is_dead(path):
        try:
            unmount(path, lazy=True)
        except MountPointError:
            break
        healed = True
    return healed


def _refuse_mounted(path: str, mount: Mount) -> None:
    if not mount.is_davfs:
        raise MountPointError(f"{path} is a mount point already ({mount.fstype})")
    if is_dead(path):
        raise MountPointError(
            f"{path} holds a mount whose daemon has died: clean up with `fusermount3 -u {path}`"
        )
    raise MountPointError(f"{path} is mounted already ({mount.source}): `davfs unmount {path}` ends it")


def is_dead(path: str) -> bool:
    """True when the daemon behind a FUSE mount is gone (ENOTCONN, "Transport endpoint is not connected").

    A daemon that hangs is not dead; it gets two seconds to answer, in a thread that may be left behind.
    """
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(_statfs_errno(path)), daemon=True)
    thread.start()
    thread.join(_ANSWER_WITHIN_S)
    return errno.ENOTCONN in answers


def _statfs_errno(path: str) -> int:
    try:
        os.statvfs(path)  # not stat, which the kernel may answer from its cache
    except OSError as error:
        return error.errno or 0
    return 0


def _why_not(path: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"{path} does not exist: make the folder first"
    if error.errno == errno.ENOTCONN:
        return f"{path} holds a mount whose daemon has died: clean up with `fusermount3 -u {path}`"
    return f"{path}: {error.strerror}"


def _check_empty(path: str) -> None:
    try:
        with os.scandir(path) as entries:
            first = next(entries, None)
    except OSError as error:
        raise MountPointError(f"{path}: {error.strerror}") from None
    if first is not None:
        raise MountPointError(f"{path} is not empty: what it holds would be hidden (-o nonempty allows it)")


def check_fuse(*, allow_other: bool = False) -> None:
    """Raises FuseUnavailable unless this user can make a FUSE mount."""
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise FuseUnavailable("fusermount3 is missing: install the package fuse3")
    try:
        os.close(os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise FuseUnavailable(f"{_DEVICE} is missing: load the kernel module (modprobe fuse)") from None
    except OSError as error:
        raise FuseUnavailable(f"{_DEVICE} cannot be opened: {error.strerror}") from None
    if os.geteuid() != 0 and not _has_a_name(os.getuid()):
        raise FuseUnavailable(
            f"fusermount3 mounts for no user without an entry in /etc/passwd, and uid {os.getuid()} has none"
        )
    if allow_other and os.geteuid() != 0 and not _others_allowed():
        raise FuseUnavailable("allow_other needs the line user_allow_other in /etc/fuse.conf")


def _has_a_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:  # a container's made-up uid
        return False
    return True


def _others_allowed() -> bool:
    try:
        lines = Path("/etc/fuse.conf").read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


# --- letting go -------------------------------------------------------------------------------------


def unmount(path: str, *, lazy: bool = False) -> None:
    """Unmounts `path`; lazy: detaches it now, and it ends when the last program lets go.

    Raises MountPointError when it is in use or cannot be unmounted.
    """
    program = shutil.which("fusermount3") if os.geteuid() else None
    # As root umount(8), without its helper, which would come back here: it also keeps libmount's table.
    argv = [program, "-u"] if program else ["umount", "--internal-only"]
    argv += ["-z" if program else "-l"] if lazy else []
    try:
        done = subprocess.run(
            [*argv, "--", path],
            capture_output=True,
            timeout=_UNMOUNT_TIMEOUT_S,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MountPointError(f"{path} was not unmounted: {error}") from None
    if done.returncode:
        raise MountPointError(_unmount_failure(path, done.stderr.decode("utf-8", "replace")))


def _unmount_failure(path: str, said: str) -> str:
    if "busy" in said:
        return f"{path} is in use: close what is open there (`fuser -vm {path}` lists it), then try again"
    last = said.strip().splitlines()[-1:] or ["no reason given"]
    return f"{path} was not unmounted: {last[0]}"
