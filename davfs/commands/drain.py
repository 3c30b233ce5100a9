"""`davfs sync` and `davfs unmount`: wait until the server has everything, bounded, and say what is left.

Unmounting never loses anything silently: what is not on the server within the time keeps the drive mounted
(exit code 9) unless --force is given, and even then the journal keeps it for the next mount. The exit code
is 0 only if the daemon, at its very end, says that the server has everything.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from davfs import control, mountpoint
from davfs.commands.words import clean
from davfs.exitcodes import MountPointError, NoDaemon, Unsent

DEFAULT_TIMEOUT_S: Final = 300.0
_DAEMON_ENDS_WITHIN_S: Final = 30.0
_FORCED_END_S: Final = 5.0
LISTED_MAX: Final = 20
_GRACE_S: Final = 5.0  # for the answer to a sync that ran out of time

Watch = Callable[[Mapping[str, Any]], None]  # is shown the progress while waiting


def _unwatched(_: Mapping[str, Any]) -> None:
    """Nobody looks."""


def find_mount(where: str) -> mountpoint.Mount:
    """The davfs mount at `where`, found without touching it. Raises NoDaemon when it is none.

    Also one that was unmounted, as long as its daemon is still sending.
    """
    target = mountpoint.resolved(where)
    found = mountpoint.mount_at(target, mountpoint.mounts())
    if found is not None and found.is_davfs:
        return found
    unmounted = mountpoint.Mount(target, mountpoint.FSTYPE, "", None)
    try:
        connect(unmounted).close()
    except NoDaemon:
        raise NoDaemon(f"{where} is not a davfs mount") from None
    return unmounted


def connect(mount: mountpoint.Mount) -> control.ControlClient:
    """A connection to its daemon. Raises NoDaemon."""
    owner = os.geteuid() if mount.owner_uid is None else mount.owner_uid
    return control.connect(mount.target, owner, os.environ)


def wait_for_server(mount: mountpoint.Mount, timeout_s: float | None, watch: Watch = _unwatched) -> int:
    """Lets the daemon send everything; returns how many files are left after `timeout_s` (None: no limit)."""
    with connect(mount) as syncing:
        syncing.send("sync", timeout_s=timeout_s)
        result = _awaited(mount, syncing, None if timeout_s is None else timeout_s + _GRACE_S, watch)
    if result is None:
        raise NoDaemon(f"the daemon of {mount.target} hangs")
    return int(result.get("left", 0))


def _awaited(
    mount: mountpoint.Mount, asked: control.ControlClient, within_s: float | None, watch: Watch
) -> dict[str, Any] | None:
    """The answer to what was asked, with the progress shown meanwhile; None when it does not come in time."""
    deadline = float("inf") if within_s is None else time.monotonic() + within_s
    result = asked.answer(within_s=0.2)
    if result is not None:
        return result
    try:
        with connect(mount) as watching:
            while (result := asked.answer(within_s=0.5)) is None:
                if time.monotonic() > deadline:
                    return None
                watch(watching.ask("progress"))  # also notices a daemon that hangs
    except NoDaemon:
        return asked.answer(within_s=0.5)  # its last word may be here already
    return result


def sync(where: str, *, timeout_s: float | None, watch: Watch = _unwatched) -> None:
    """The command. Raises Unsent when something is left."""
    mount = find_mount(where)
    left = wait_for_server(mount, timeout_s, watch)
    if left:
        raise Unsent(f"{_files(left)} not on the server yet", what_is_left(mount))


def what_is_left(mount: mountpoint.Mount) -> list[str]:
    """Which files are not on the server, why, and where they are kept: the first ones, a line each."""
    with connect(mount) as client:
        answer = client.ask("pending", most=LISTED_MAX)
    lines = [_line(each) for each in answer.get("files", [])]
    return _closed_list(lines, int(answer.get("count", 0)), answer.get("cache_dir"))


def _line(file: Mapping[str, Any]) -> str:
    why = f": {file['error']}" if file.get("error") else ""
    return f"  {clean(str(file.get('path')))}  ({file.get('state')}{clean(why)})"


def _closed_list(lines: list[str], count: int, cache_dir: object) -> list[str]:
    more = [f"  ... and {count - len(lines)} more"] if count > len(lines) else []
    return [*lines, *more, f"kept in {cache_dir or '?'}"]


def unmount(where: str, *, timeout_s: float | None, force: bool, watch: Watch = _unwatched) -> None:
    """The command. Raises Unsent, MountPointError (in use) or NoDaemon.

    Without `force` the drive is then still mounted. It returns only when the server has everything.
    """
    mount = find_mount(where)
    try:
        with connect(mount) as client:
            pid = client.peer_pid
    except NoDaemon:
        if not force or os.geteuid() not in {0, mount.owner_uid}:
            raise
        mountpoint.unmount(mount.target, lazy=True)
        return
    _unmount_served(mount, pid, timeout_s=timeout_s, force=force, watch=watch)


def _unmount_served(
    mount: mountpoint.Mount, pid: int, *, timeout_s: float | None, force: bool, watch: Watch
) -> None:
    with _process(pid) as process:
        # A daemon that the kernel has let go is sending already, and ends when it is done.
        unmounted = not mountpoint.is_davfs(mount.target)
        skipped = unmounted or (force and timeout_s == 0)
        left = 0 if skipped else wait_for_server(mount, timeout_s, watch)
        if left and not force:
            raise Unsent(
                f"{_files(left)} not on the server yet, so {mount.target} stays mounted: try again, "
                "or use --force (they are kept here and sent at the next mount)",
                what_is_left(mount),
            )
        within_s = _FORCED_END_S if force else max(_DAEMON_ENDS_WITHIN_S, timeout_s or 0)
        with connect(mount) as last:
            last.send("farewell", patient=not force)
            if not unmounted:
                _let_go(mount.target, force=force)
            farewell = _awaited(mount, last, within_s, watch)
        if farewell is None:
            raise Unsent(
                f"{mount.target} is unmounted, but its daemon (pid {pid}) is still sending",
                what_is_left(mount),
            )
        _ended(process, within_s)
        _check(mount, farewell)


def _check(mount: mountpoint.Mount, farewell: Mapping[str, Any]) -> None:
    """What the daemon said at its very end: it counts also what was written at the last moment."""
    left = int(farewell.get("left", 0))
    if left:
        lines = [f"  {clean(str(path))}" for path in farewell.get("files", [])]
        raise Unsent(
            f"{mount.target} is unmounted; {_files(left)} not on the server, the next mount goes on sending",
            _closed_list(lines, left, farewell.get("cache_dir")),
        )


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
