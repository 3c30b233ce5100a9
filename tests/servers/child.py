"""A server program as a child process: started in the foreground, awaited, ended by its process id.

The child leads a session of its own, so that ending its process group ends its workers and nothing
else. It is asked to end when the tests die (setpriv --pdeathsig), because a killed pytest runs no clean-up.
A start that fails says what the program said.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

START_TIMEOUT_S = 90.0  # a cold Python on a busy two-core machine needs 3 s; never wait for ever
STOP_TIMEOUT_S = 5.0


class StartFailed(Exception):
    """The program ended, or did not listen in time. The text holds what it printed."""


class PortTaken(StartFailed):
    """Somebody else took the port between our choice and the program's bind."""


def free_port() -> int:
    """A loopback port that was free a moment ago. The caller tries again on `PortTaken`.

    Below those that the kernel gives to connections: a server that stops and comes back finds its port free,
    whoever has connected meanwhile.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        port = random.randrange(min(10_000, lowest - 1), lowest) if lowest > 1025 else 0
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found: int = probe.getsockname()[1]
            return found
    raise StartFailed("no free port was found")


def _connected(port: int | Path) -> socket.socket:
    if isinstance(port, int):
        return socket.create_connection(("127.0.0.1", port), timeout=1)
    with contextlib.ExitStack() as unless_connected:
        one = unless_connected.enter_context(socket.socket(socket.AF_UNIX))
        one.connect(os.fspath(port))
        unless_connected.pop_all()
        return one


def _dies_with_us() -> list[str]:
    # PR_SET_PDEATHSIG is bound to the *thread* that forks: only the main thread lives as long as the tests.
    if sys.platform == "linux" and threading.current_thread() is threading.main_thread():
        setpriv = shutil.which("setpriv")
        if setpriv:
            return [setpriv, "--pdeathsig", "TERM"]
    return []


class Child:
    """One running program. `output` is the file with its standard output and error."""

    def __init__(self, name: str, command: list[str], output: Path, *, cwd: Path | None = None) -> None:
        self.name = name
        self.output = output
        with output.open("wb") as sink:
            self.process = subprocess.Popen(
                [*_dies_with_us(), *command],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_listening(self, port: int | Path, *further_logs: Path) -> None:
        """Returns when the child accepts connections at the TCP port, or at the Unix socket.

        Raises StartFailed with its output otherwise.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise self._failure(f"ended with status {self.process.returncode}", further_logs)
            with contextlib.suppress(OSError), _connected(port):
                if self.process.poll() is None:
                    return
            time.sleep(0.02)
        self.stop()
        raise self._failure(f"did not listen on {port} within {START_TIMEOUT_S:.0f} s", further_logs)

    def _failure(self, what: str, further_logs: tuple[Path, ...]) -> StartFailed:
        said = "\n".join(
            log.read_text(errors="replace")[-4000:] for log in (self.output, *further_logs) if log.exists()
        )
        kind = PortTaken if "address already in use" in said.lower() else StartFailed
        return kind(f"{self.name} {what}:\n{' '.join(map(str, self.process.args))}\n{said}")  # type: ignore[arg-type]

    @property
    def is_busy(self) -> bool:
        """Whether one of its threads, or of its workers', has something to do at this moment."""
        return any(_is_busy(process) for process in _session(self.pid))

    def stop(self) -> None:
        """Ends the program and its workers; harmless when it has ended already."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_TIMEOUT_S)
                break
        with contextlib.suppress(ProcessLookupError):  # a worker that outlived its master
            os.killpg(self.pid, signal.SIGKILL)


def _session(leader: int) -> Iterator[Path]:
    """The processes in the session of this one, as folders of /proc."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                if int(_stat(process)[3]) == leader:
                    yield process


def _is_busy(process: Path) -> bool:
    with contextlib.suppress(OSError):
        return any(_stat(thread)[0] in {"R", "D"} for thread in (process / "task").iterdir())
    return False


def _stat(place: Path) -> list[str]:
    """state, parent, group, session, ...: what stands behind the name in proc_pid_stat(5)."""
    return (place / "stat").read_text().rpartition(")")[2].split()
