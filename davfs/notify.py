"""systemd is told how the mount is: READY=1, STATUS=, WATCHDOG=1, RELOADING=1, STOPPING=1 (sd_notify(3)).

Does nothing where no NOTIFY_SOCKET was given. The variables are taken out of the environment, so that a
`password_command` cannot speak for us.

The watchdog is fed only while the drive answers statfs within its time: the daemon never asks the server for
that, so a server that is away does not get the service restarted, and a daemon that hangs does.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Final

import trio

from davfs.logs import printable

log = logging.getLogger("davfs.notify")

STATUS_EVERY_S: Final = 2.0
STATUS_CHARACTERS: Final = 200


class Notifier:
    """The line to the service manager, or none."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environ)
        self._said = ""

    def __bool__(self) -> bool:
        return bool(self._address)

    def say(self, **words: object) -> None:
        """Sends `KEY=value` lines; a manager that does not listen is no trouble of the mount."""
        if not self._address:
            return
        text = "\n".join(f"{key}={value}" for key, value in words.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.settimeout(0)
                line.sendto(text.encode(errors="backslashreplace"), self._address)
        except OSError as error:
            log.debug("the service manager was not told %s: %s", text, error)

    def status(self, text: str) -> None:
        """One line for `systemctl status`; nothing is sent when it says the same as before."""
        line = printable(text)[:STATUS_CHARACTERS]
        if line != self._said:
            self._said = line
            self.say(STATUS=line)

    def reloading(self) -> None:
        """Until the next `ready`. MONOTONIC_USEC is what Type=notify-reload asks for."""
        self.say(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)

    def ready(self) -> None:
        self.say(READY=1)

    def stopping(self) -> None:
        self.say(STOPPING=1)

    async def keep_telling(self, describe: Callable[[], str], mountpoint: str) -> None:
        """Status lines, and the watchdog's food; until cancelled."""
        if not self._address:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_status, describe)
            if self.watchdog_s is not None:
                nursery.start_soon(self._feed, mountpoint, self.watchdog_s)

    async def _tell_status(self, describe: Callable[[], str]) -> None:
        while True:
            self.status(describe())
            await trio.sleep(STATUS_EVERY_S)

    async def _feed(self, mountpoint: str, within_s: float) -> None:
        while True:
            with trio.move_on_after(within_s / 3) as patience:
                await trio.to_thread.run_sync(os.statvfs, mountpoint, abandon_on_cancel=True)
            if not patience.cancelled_caught:
                self.say(WATCHDOG=1)
            await trio.sleep(within_s / 3)


def _watchdog_s(environ: MutableMapping[str, str]) -> float | None:
    """WATCHDOG_USEC, where it is meant for this process (sd_watchdog_enabled(3))."""
    period, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if not period.isdecimal() or (pid and pid != str(os.getpid())):
        return None
    return int(period) / 1e6 or None
