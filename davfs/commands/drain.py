"""`davfs sync` and `davfs unmount`: wait until the server has everything, bounded, and say what is left.

Unmounting never loses anything silently: what is not on the server within the time keeps the drive mounted
(exit code 9) unless --force is given, and even then the journal keeps it for the next mount.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from davfs import control, mountpoint
from davfs.exitcodes import MountPointError, NoDaemon, Unsent

DEFAULT_TIMEOUT_S: Final = 300.0
_DAEMON_ENDS_WITHIN_S: Final = 30.0
_FORCED_END_S: Final = 5.0
_GRACE_S: Final = 5.0  # for the answer to a sync that ran out of time

Watch = Callable[[Mapping[str, Any]], None]  # is shown the status while waiting


def _unwatched(_: Mapping[str, Any]) -> None:
    """Nobody looks."""


def find_mount(where: str) -> mountpoint.Mount:
    """The davfs mount at `where`, found without touching it. Raises NoDaemon when it is none."""
    target = mountpoint.resolved(where)
    found = mountpoint.mount_at(target, mountpoint.mounts())
    if found is None or not found.is_davfs:
        raise NoDaemon(f"{where} is not a davfs mount")
    return found


def connect(mount: mountpoint.Mount) -> control.ControlClient:
    """A connection to its daemon. Raises NoDaemon."""
    owner = os.geteuid() if mount.owner_uid is None else mount.owner_uid
    return control.connect(mount.target, owner, os.environ)


def wait_for_server(mount: mountpoint.Mount, timeout_s: float | None, watch: Watch = _unwatched) -> int:
    """Lets the daemon send everything; returns how many files are left after `timeout_s` (None: no limit)."""
    deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s + _GRACE_S
    with connect(mount) as syncing, connect(mount) as watching:
        syncing.send("sync", timeout_s=timeout_s)
        pause_s = 0.2
        while (result := syncing.answer(within_s=pause_s)) is None:
            if time.monotonic() > deadline:
                raise NoDaemon(f"the daemon of {mount.target} hangs")
            watch(watching.ask("status"))  # also notices a daemon that hangs
            pause_s = 0.5  # a status lists every pending file: not too often
        return int(result.get("left", 0))


def sync(where: str, *, timeout_s: float | None, watch: Watch = _unwatched) -> None:
    """The command. Raises Unsent when something is left."""
    mount = find_mount(where)
    left = wait_for_server(mount, timeout_s, watch)
    if left:
        raise Unsent(f"{_files(left)} not on the server yet: `davfs status {mount.target}` lists them")


def unmount(where: str, *, timeout_s: float | None, force: bool, watch: Watch = _unwatched) -> None:
    """The command. Raises Unsent, MountPointError (in use) or NoDaemon; the drive is then still mounted."""
    mount = find_mount(where)
    try:
        with connect(mount) as client:
            pid = client.peer_pid
    except NoDaemon:
        if not force:
            raise
        mountpoint.unmount(mount.target, lazy=True)
        return
    _unmount_served(mount, pid, timeout_s=timeout_s, force=force, watch=watch)


def _unmount_served(
    mount: mountpoint.Mount, pid: int, *, timeout_s: float | None, force: bool, watch: Watch
) -> None:
    with _process(pid) as process:
        left = 0 if force and timeout_s == 0 else wait_for_server(mount, timeout_s, watch)
        if left and not force:
            raise Unsent(
                f"{_files(left)} not on the server yet, so {mount.target} stays mounted: try again, "
                "or use --force (they are kept here and sent at the next mount)"
            )
        _let_go(mount.target, force=force)
        within_s = _FORCED_END_S if force else max(_DAEMON_ENDS_WITHIN_S, timeout_s or 0)
        if not _ended(process, within_s) and not force:
            raise Unsent(f"{mount.target} is unmounted, but its daemon (pid {pid}) is still sending")


def _let_go(target: str, *, force: bool) -> None:
    try:
        mountpoint.unmount(target)
    except MountPointError:
        if not force:
            raise
        mountpoint.unmount(target, lazy=True)


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count} files are"


@contextmanager
def _process(pid: int) -> Iterator[int | None]:
    """A descriptor that stands for the process itself: its number may be used again by another."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:  # ended already, or it lives in another PID namespace
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _ended(process: int | None, within_s: float) -> bool:
    return process is None or bool(select.select([process], [], [], within_s)[0])
