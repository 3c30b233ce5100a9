"""`davfs demo`: a server of its own, mounted; nothing to configure and nothing left behind.

Order of life: share folder, server, mount point, mount, then a command or a wait for Ctrl-C; and back in
the reverse order, so that the server outlives the last upload. A signal during any step unwinds the steps
taken; a second one while unwinding stops waiting for uploads.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from davfs import mountpoint
from davfs.commands import drain
from davfs.commands.mount import checked_config, run_in_background
from davfs.daemon import one_line
from davfs.demo import DemoServer, fill
from davfs.errors import DavfsError
from davfs.exitcodes import CommandFailed, Exit, MountPointError
from davfs.options import join_options

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_EVERY_S: Final = 0.5


class Asked(BaseException):
    """A signal asked for the end. No Exception: nothing on the way may swallow it."""


def _raise_asked(*_: object) -> None:
    raise Asked


def demo(where: str, *, command: str | None, share: str | None) -> int:
    """The command. With `command` its exit status counts, else the code of the demo itself."""
    with _signals_ask():
        try:
            with ExitStack() as steps:
                drive = _set_up(steps, where, share)
                return _run(command, drive) if command is not None else _wait(drive)
        except Asked:
            return Exit.OK


def _set_up(steps: ExitStack, where: str, share: str | None) -> str:
    """Every step with its undoing; returns the mounted folder."""
    folder = _share_folder(steps, share)
    try:
        server = DemoServer(folder)
    except OSError as error:
        raise CommandFailed(str(error)) from error
    steps.callback(server.stop)
    cache = steps.enter_context(
        tempfile.TemporaryDirectory(prefix="davfs-demo-cache-", ignore_cleanup_errors=True)
    )
    _make_mountpoint(steps, where)
    config = checked_config(server.url, where, [join_options([("cache_dir", cache)])])
    run_in_background(config, None)
    steps.callback(_leave, config.mountpoint)
    _tell(f"{folder} is served at {server.url} and mounted on {config.mountpoint}\n")
    return config.mountpoint


def _share_folder(steps: ExitStack, share: str | None) -> Path:
    if share is None:
        temporary = tempfile.TemporaryDirectory(prefix="davfs-demo-", ignore_cleanup_errors=True)
        folder = Path(steps.enter_context(temporary))
    else:
        folder = Path(share).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fill(folder)
    except OSError as error:
        raise CommandFailed(f"{folder}: {error.strerror}") from None
    return folder


def _make_mountpoint(steps: ExitStack, where: str) -> None:
    try:
        Path(where).mkdir(parents=True)
    except FileExistsError:
        return  # it is not ours to remove
    except OSError as error:
        raise MountPointError(f"{where}: {error.strerror}") from None
    path = Path(where).absolute()

    def remove() -> None:
        with suppress(OSError):
            path.rmdir()

    steps.callback(remove)


def _tell(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


# --- the drive is there -----------------------------------------------------------------------------


def _wait(drive: str) -> int:
    _tell("Ctrl-C ends the demo.\n")
    while mountpoint.is_davfs(drive):  # somebody else may unmount it
        time.sleep(_LOOK_EVERY_S)
    return Exit.OK


def _run(command: str, drive: str) -> int:
    """Runs `command` in the drive; its exit status, 128 + n when signal n ended it, as in a shell."""
    child = subprocess.Popen(["/bin/sh", "-c", command], cwd=drive)
    try:
        status = _wait_for_child(child)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    return status if status >= 0 else 128 - status


def _wait_for_child(child: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return child.wait()
        except Asked:
            # A terminal's Ctrl-C has reached it already; `kill` of the demo alone has not.
            child.send_signal(signal.SIGTERM)


# --- and back ---------------------------------------------------------------------------------------


def _leave(drive: str) -> None:
    """Unmounts when everything is on the server; after a second signal or a failure, at once."""
    if not mountpoint.is_davfs(drive):
        return
    try:
        drain.unmount(drive, timeout_s=drain.DEFAULT_TIMEOUT_S, force=False)
    except (Asked, DavfsError) as error:
        os.chdir("/")
        if isinstance(error, DavfsError):
            sys.stderr.write(f"davfs: {one_line(error)}\n")
        drain.unmount(drive, timeout_s=0, force=True)


@contextmanager
def _signals_ask() -> Iterator[None]:
    before = {number: signal.signal(number, _raise_asked) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
