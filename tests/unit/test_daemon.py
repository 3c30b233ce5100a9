"""Going to the background: readiness, failures, and what the child keeps of its parent.

Each case runs in a fresh interpreter: forking from the test runner, which has threads, would test something
that davfs never does.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

PRELUDE = """
import os, signal, sys, time
from davfs.daemon import run_in_background, one_line
from davfs.exitcodes import DaemonFailed
from davfs.errors import Unreachable

def attempt(body, **options):
    try:
        pid = run_in_background(body, within_s=options.pop("within_s", 20), **options)
    except DaemonFailed as error:
        print("failed", error.code, error)
    else:
        print("ready", pid)
"""


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_parent_returns_when_the_child_is_ready(tmp_path: Path) -> None:
    """Ready comes back with the pid of a process that lives on, alone in its session, in /."""
    facts = tmp_path / "facts"
    script = f"""
def body(ready):
    ready()
    fds = os.listdir("/proc/self/fd")
    facts = [os.getsid(0) == os.getpid(), os.getcwd(), fds, os.readlink("/proc/self/fd/1")]
    with open({str(facts)!r}, "w") as file:
        file.write(repr(facts))
    return 0
extra = os.open("/", os.O_RDONLY)
os.set_inheritable(extra, True)
attempt(body)
"""
    assert run(script).startswith("ready ")
    deadline = time.monotonic() + 10
    while not (facts.exists() and facts.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    alone, folder, descriptors, output = eval(facts.read_text())
    assert alone
    assert folder == "/"
    assert output == "/dev/null"
    assert len(descriptors) <= 5  # 0, 1, 2, /dev/null, and the listing's own


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise Unreachable('no such host')", "failed 5 no such host"),
        ("raise BaseExceptionGroup('', [Unreachable('in a group')])", "failed 5 in a group"),
        ("raise ValueError('odd')", "failed 1 unexpected ValueError: odd"),
        ("return 7", "failed 7 the daemon ended at once (exit status 7)"),
        ("os.kill(os.getpid(), 9)", "failed 1 the daemon ended at once (signal 9)"),
        ("sys.exit(3)", "failed 1 unexpected SystemExit: 3"),
    ],
)
def test_a_child_that_fails_is_told_in_its_own_words(body: str, said: str) -> None:
    """The line and the exit code of the child become those of the command."""
    assert run(f"def body(ready):\n    {body}\nattempt(body)").startswith(said)


def test_a_child_that_never_answers_is_ended() -> None:
    """The start has a limit; afterwards the child is gone, even if it ignores SIGTERM."""
    script = """
import davfs.daemon
davfs.daemon._ENDS_WITHIN_S = 0.2
def body(ready):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
attempt(body, within_s=0.3)
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("nobody left")
"""
    assert run(script).splitlines() == ["failed 5 the drive did not answer within 0.3 s", "nobody left"]


def test_a_daemon_whose_parent_is_gone_gives_up(tmp_path: Path) -> None:
    """When nobody waits for the answer any more, the child ends as if it were told to."""
    mark = tmp_path / "mark"
    script = f"""
def body(ready):
    def told(*_):
        open({str(mark)!r}, "w").close()
        os._exit(0)
    signal.signal(signal.SIGTERM, told)
    while os.getppid() == parent:
        time.sleep(0.01)
    ready()
    time.sleep(60)
parent = os.getpid()
real_fork = os.fork
def fork():
    pid = real_fork()
    if pid:
        os._exit(0)
    return pid
os.fork = fork
attempt(body)
"""
    run(script)
    deadline = time.monotonic() + 10
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert mark.exists()


def test_what_the_child_prints_goes_to_the_log_file(tmp_path: Path) -> None:
    """Standard error of the daemon is the log file that the parent opened."""
    log = tmp_path / "log"
    script = f"""
fd = os.open({str(log)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def body(ready):
    os.write(2, b"a word")
    return 1
attempt(body, log_fd=fd)
"""
    run(script)
    assert log.read_text() == "a word"
