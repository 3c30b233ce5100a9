"""Going to the background: one fork, and a pipe over which the child says that the drive answers.

`run_in_background` returns in the parent only when the child is ready, or raises DaemonFailed with the
child's own line and exit code. A fork (not a second interpreter) is used so that the password, asked for at
the terminal by the parent, reaches the child in memory: it is never in argv, the environment or a file.

Must be called before any thread is started and before trio runs: fork copies only the calling thread, and
an epoll descriptor shared by two event loops breaks both.

The child is a session of its own, in /, with its standard streams on /dev/null or the log, and holds no
other descriptor of its parent: `$(davfs mount ...)` and `flock` scripts do not wait for it.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, NoReturn

from davfs.exitcodes import DaemonFailed, Exit, exit_code_for, root_failure

_log = logging.getLogger(__name__)

_ENDS_WITHIN_S: Final = 10.0  # after SIGTERM, before SIGKILL

Ready = Callable[[], None]
Body = Callable[[Ready], int]  # the daemon's life; calls its argument once when the drive answers


def one_line(error: BaseException) -> str:
    """What a person is told of `error`: one line, with the kind only when it was not raised on purpose."""
    from davfs.errors import DavfsError

    cause = root_failure(error)
    text = " ".join(str(cause).split())
    if isinstance(cause, DavfsError):
        return text or type(cause).__name__
    return f"unexpected {type(cause).__name__}: {text} (-o log_level=debug tells more)"


def run_in_background(
    body: Body,
    *,
    within_s: float,
    log_fd: int | None = None,
    debug: bool = False,
    same_group: bool = False,
) -> int:
    """Runs `body` in a child process; returns the child's pid when it is ready.

    `within_s` bounds the start as a whole: every step of it has its own, shorter time-out. With `same_group`
    the child makes its own session only when it is ready: autofs holds up every other process group.
    """
    read_fd, write_fd = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        _live(body, write_fd, log_fd, debug=debug, same_group=same_group)
    os.close(write_fd)
    try:
        return _wait_until_ready(pid, read_fd, within_s)
    except BaseException:
        _end(pid)
        raise
    finally:
        os.close(read_fd)


# --- the parent -------------------------------------------------------------------------------------


def _wait_until_ready(pid: int, read_fd: int, within_s: float) -> int:
    said = _read_report(read_fd, time.monotonic() + within_s)
    if said is None:
        raise DaemonFailed(f"the drive did not answer within {within_s:g} s", Exit.UNREACHABLE)
    if not said:
        raise DaemonFailed(f"the daemon ended at once ({_how_it_ended(pid)})", Exit.FAILURE)
    report = json.loads(said)
    if report.get("ready"):
        return pid
    if report.get("detail"):
        sys.stderr.write(report["detail"])
    raise DaemonFailed(report["text"], report["code"])


def _read_report(read_fd: int, deadline: float) -> bytes | None:
    """All of one line; b"" when the child ended without a word; None when the time is over."""
    said = b""
    while not said.endswith(b"\n"):
        readable, _, _ = select.select([read_fd], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            return None
        piece = os.read(read_fd, 65536)
        if not piece:
            return b""
        said += piece
    return said


def _how_it_ended(pid: int) -> str:
    with suppress(ChildProcessError):
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return f"signal {-code}" if code < 0 else f"exit status {code}"
    return "unknown"


def _end(pid: int) -> None:
    """Ends a child that failed or is no longer wanted, and waits for it: nothing may stay behind."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGTERM)
        if not _gone(pid, _ENDS_WITHIN_S):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _gone(pid: int, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# --- the child --------------------------------------------------------------------------------------


class _Report:
    """The child's end of the pipe: one message at most, and never a write to a number used again since."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def say(self, message: dict[str, object]) -> bool:
        """False when there is nobody to hear it: the parent is gone, or was told already."""
        if self._fd is None:
            return False
        fd, self._fd = self._fd, None
        try:
            os.write(fd, json.dumps(message).encode("ascii") + b"\n")
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def say_ready(self) -> None:
        if not self.say({"ready": True}):  # nobody waits any more: the mount was given up
            os.kill(os.getpid(), signal.SIGTERM)


def _live(body: Body, write_fd: int, log_fd: int | None, *, debug: bool, same_group: bool) -> NoReturn:
    """The child's whole life. Never returns: the parent's `finally` and atexit are not the child's."""
    code: int = Exit.FAILURE
    report = _Report(write_fd)
    try:
        if not same_group:
            os.setsid()
        _leave_the_terminal(write_fd, log_fd)
        code = body(partial(_ready, report, same_group=same_group))
        report.say({"text": f"the daemon ended at once (exit status {code})", "code": code})
    except BaseException as error:  # noqa: BLE001 - the last place that can tell it
        code = exit_code_for(error)
        detail = "".join(traceback.format_exception(error)) if debug else ""
        if not report.say({"text": one_line(error), "code": code, "detail": detail}):
            _log.error("the daemon ends: %s", one_line(error), exc_info=error if debug else None)
    finally:
        logging.shutdown()
        os._exit(code)


def _ready(report: _Report, *, same_group: bool) -> None:
    if same_group:
        os.setsid()
    report.say_ready()


def _leave_the_terminal(write_fd: int, log_fd: int | None) -> None:
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null if log_fd is None else log_fd, 1)
    os.dup2(null if log_fd is None else log_fd, 2)
    os.closerange(3, write_fd)
    os.closerange(write_fd + 1, os.sysconf("SC_OPEN_MAX"))
