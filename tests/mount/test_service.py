"""A mount run by a service manager: the notify protocol on a real socket, reload, stop, SIGKILL and restart.

There is no systemd where these tests run, so that they are the manager: they start what the unit's ExecStart
says, in an environment as systemd makes it, and listen on NOTIFY_SOCKET.
"""

from __future__ import annotations

import configparser
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from davfs import mountpoint
from davfs.demo import DemoServer

UNITS = Path(__file__).parents[2] / "systemd"
pytestmark = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse cannot be opened"
)


class Unit:
    """The service `davfs@work` and its manager."""

    def __init__(self, folder: Path) -> None:
        self.share, self.place, self.home = folder / "share", folder / "drive", folder / "home"
        for made in (self.share, self.place, self.home):
            made.mkdir()
        self.server = DemoServer(self.share)
        self.profile = self.home / ".config" / "davfs" / "work.toml"
        self.profile.parent.mkdir(parents=True)
        self.write_profile()
        self.said: list[str] = []
        self._listen = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._address = str(folder / "notify")
        self._listen.bind(self._address)
        self.process: subprocess.Popen[bytes] | None = None

    def write_profile(self, *more: str) -> None:
        lines = [
            f'url = "{self.server.url}"',
            f'mountpoint = "{self.place}"',
            f'cache_dir = "{self.home}/cache"',
            "timeout = 3",
            *more,
        ]
        self.profile.write_text("\n".join(lines) + "\n")
        self.profile.chmod(0o600)

    def start(self, *, watchdog_s: float | None = None) -> None:
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.home), "NOTIFY_SOCKET": self._address}
        if watchdog_s is not None:
            environ["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        self.said.clear()
        with (self.home / "journal").open("ab") as journal:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "davfs", *_exec_start("davfs-user@.service", "work")],
                env=environ,
                cwd=UNITS.parent,
                stdin=subprocess.DEVNULL,
                stderr=journal,
            )

    @property
    def journal(self) -> str:
        return (self.home / "journal").read_text()

    def hears(self, word: str, within_s: float = 30) -> str:
        """Waits for a message that holds `word`; each message is heard once, in any order."""
        deadline = time.monotonic() + within_s
        while not (found := [message for message in self.said if word in message]):
            self._listen.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                self.said.append(self._listen.recv(4096).decode())
            except TimeoutError:
                raise AssertionError(f"{word!r} was not said; {self.said}; {self.journal}") from None
        self.said.remove(found[0])
        return found[0]

    def is_silent(self, for_s: float) -> bool:
        """Says nothing more, apart from what is on its way already."""
        self._listen.settimeout(for_s)
        try:
            for _ in range(20):
                self._listen.recv(4096)
        except TimeoutError:
            return True
        return False

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def server_is_silent(self) -> None:
        """From now on; what is in the drive was listed before."""
        os.listdir(self.place)
        self.server._process.send_signal(signal.SIGSTOP)

    def ends(self, within_s: float = 30) -> int:
        assert self.process is not None
        return self.process.wait(within_s)

    def close(self) -> None:
        self.server._process.send_signal(signal.SIGCONT)
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        mountpoint.heal(str(self.place))
        self._listen.close()
        self.server.stop()


def _unit(name: str) -> configparser.RawConfigParser:
    read = configparser.RawConfigParser(strict=False)
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read(UNITS / name)
    return read


def _exec_start(unit: str, instance: str) -> list[str]:
    program, *words = _unit(unit)["Service"]["ExecStart"].replace("%i", instance).split()
    assert os.path.basename(program) == "davfs"
    return words


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[Unit]:
    made = Unit(tmp_path)
    yield made
    made.close()


def test_a_day_of_the_service(unit: Unit) -> None:
    """READY only when the drive answers, the state in STATUS, STOPPING, and at its end the server has all."""
    unit.start()
    unit.hears("READY=1")
    assert mountpoint.is_davfs(str(unit.place))
    unit.hears("STATUS=the server has everything")
    (unit.place / "report.txt").write_text("written")
    unit.signal(signal.SIGTERM)
    unit.hears("STOPPING=1")
    assert unit.ends() == 0
    assert (unit.share / "report.txt").read_text() == "written"
    assert not mountpoint.is_davfs(str(unit.place))


def test_a_failed_start_is_never_ready(unit: Unit) -> None:
    """Without its server the unit fails with the exit code for that, and has not said READY."""
    unit.server.stop()
    unit.start()
    assert unit.ends() == 5
    with pytest.raises(AssertionError):
        unit.hears("READY=1", within_s=0.1)


def test_the_watchdog_is_fed_while_the_server_is_away(unit: Unit) -> None:
    """What counts is that the drive answers: a silent server does not get the service killed."""
    unit.start(watchdog_s=1.5)
    unit.hears("READY=1")
    unit.hears("WATCHDOG=1")
    unit.server_is_silent()
    (unit.place / "unsent.txt").write_text("waits")
    for _ in range(6):
        unit.hears("WATCHDOG=1")
    unit.hears("the server is away")


def test_a_hanging_daemon_is_not_fed(unit: Unit) -> None:
    """The daemon that does not answer the kernel says nothing, so that systemd ends it."""
    unit.start(watchdog_s=1.0)
    unit.hears("WATCHDOG=1")
    unit.signal(signal.SIGSTOP)
    assert unit.is_silent(2)
    unit.signal(signal.SIGCONT)
    unit.hears("WATCHDOG=1")


def test_reload_reads_the_profile_again(unit: Unit) -> None:
    """SIGHUP: RELOADING, then READY; the log level counts at once; a bad profile changes nothing."""
    unit.start()
    unit.hears("READY=1")
    unit.write_profile('log_level = "info"')
    unit.signal(signal.SIGHUP)
    assert "MONOTONIC_USEC=" in unit.hears("RELOADING=1")
    unit.hears("READY=1")
    assert "reloaded" in unit.journal
    unit.write_profile('log_levl = "info"')
    unit.signal(signal.SIGHUP)
    unit.hears("READY=1")
    unit.hears("reload failed")
    assert "did you mean 'log_level'" in unit.journal
    assert os.listdir(unit.place) == os.listdir(unit.share)
    unit.signal(signal.SIGTERM)
    assert unit.ends() == 0


def test_killed_and_restarted(unit: Unit) -> None:
    """SIGKILL with a file unsent: the next start heals the mount point, and the server gets the file."""
    unit.start()
    unit.hears("READY=1")
    unit.server_is_silent()
    (unit.place / "unsent.txt").write_text("survives")
    unit.signal(signal.SIGKILL)
    unit.ends()
    with pytest.raises(OSError, match="not connected"):
        os.statvfs(unit.place)
    unit.server._process.send_signal(signal.SIGCONT)
    unit.start()
    unit.hears("READY=1")
    assert (unit.place / "unsent.txt").read_text() == "survives"
    unit.hears("STATUS=the server has everything")
    assert (unit.share / "unsent.txt").read_text() == "survives"


def test_a_stop_that_runs_out_of_time_leaves_the_rest_to_the_journal(unit: Unit) -> None:
    """The server is away at the stop: it ends in drain_timeout with status 9, and the next start sends."""
    unit.write_profile("drain_timeout = 1")
    unit.start()
    unit.hears("READY=1")
    unit.server_is_silent()
    (unit.place / "unsent.txt").write_text("later")
    unit.signal(signal.SIGTERM)
    assert unit.ends() == 9
    assert not mountpoint.is_davfs(str(unit.place))
    unit.server._process.send_signal(signal.SIGCONT)
    unit.start()
    unit.hears("STATUS=the server has everything")
    assert (unit.share / "unsent.txt").read_text() == "later"


def test_the_units_leave_enough_time() -> None:
    """systemd kills after TimeoutStopSec: the default drain_timeout fits in; the start's limit as well."""
    from davfs.options import OPTIONS

    drain = next(option for option in OPTIONS if option.name == "drain_timeout")
    for name in ("davfs@.service", "davfs-user@.service"):
        service = _unit(name)["Service"]
        assert int(service["TimeoutStopSec"]) > float(drain.default or 0) + 15
        assert service["Type"] == "notify"
        assert service["KillMode"] == "mixed"
        for private in ("ProtectSystem", "PrivateTmp", "PrivateMounts", "ReadOnlyPaths", "ProtectHome"):
            assert private not in service, f"{private} would hide the drive in a mount namespace"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", ["davfs@.service", "examples/mnt-dav.mount", "examples/mnt-dav.automount"])
def test_systemd_understands_the_units(name: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing; program and manual page, not installed here, are replaced."""
    text = (UNITS / name).read_text().replace("/usr/bin/davfs", shutil.which("true") or "/bin/true")
    (tmp_path / "mnt-dav.mount").write_text((UNITS / "examples" / "mnt-dav.mount").read_text())
    place = tmp_path / Path(name).name.replace("@.", "@work.")
    place.write_text(text.replace("Documentation=man:davfs(1)\n", ""))
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(place)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
