"""How a mount ends: what is unsent is sent first, bounded, and what is left is told.

A signal (systemd stop, reboot, Ctrl-C) finds the drive mounted: it goes on answering while the uploads
finish, for at most `drain_timeout`, which must be less than the time after which systemd kills
(TimeoutStopSec, 90 s). A second signal ends it at once. `umount` and `fusermount3 -u` let the kernel go
first: the daemon, which nobody waits for then, goes on sending for up to five minutes, answers on its control
socket, says in the log what it does, and hands the journal over to the next mount of the share.
What is left at the end stays in the journal: the next mount sends
it, and the exit code is 9. SIGKILL costs nothing but the politeness.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping
from typing import Final

import trio

from davfs.fs.filesystem import Filesystem
from davfs.logs import printable

log = logging.getLogger("davfs.shutdown")

UNMOUNTED_LIMIT_S: Final = 300.0
SILENT_S: Final = 2.0  # an end that takes no longer is not worth a line
REPORT_EVERY_S: Final = 10.0
NAMED_MAX: Final = 20
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ANSWERS_S: Final = 0.1  # for the last answers on the control socket


class Ending:
    """The end of one mount: who asked for it, how long it may take, and what came of it."""

    def __init__(
        self,
        filesystem: Filesystem,
        *,
        cache_dir: str,
        limit_s: float,
        on_hangup: Callable[[], None] | None = None,
    ) -> None:
        self._filesystem = filesystem
        self._cache_dir = cache_dir
        self._limit_s = limit_s
        self._on_hangup = on_hangup  # a service reloads; without one SIGHUP is the terminal's end
        self._scope = trio.CancelScope()  # the running drain; its deadline is the limit
        self._deadline_s = float("inf")
        self._tried: frozenset[str] = frozenset()
        self._asked = 0
        self._sent_unmounted = False
        self._handed_over = False
        self._finished = trio.Event()
        self._left: list[str] = []
        self._impatient = trio.Event()  # somebody waits for the end
        self.told = trio.Event()  # a signal came
        self.phase = "mounted"

    async def obey_signals(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The first signal sets the limit, the second one ends everything; until cancelled.

        After that they do nothing: `systemctl stop` unmounts and sends SIGTERM at once, and a daemon that is
        killed while it closes its cache leaves one that looks as after a crash.
        """
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)  # what the receiver puts back
        try:
            with trio.open_signal_receiver(*_SIGNALS) as signals:
                task_status.started()
                async for came in signals:
                    self._obey(signal.Signals(came))
        finally:
            for (
                number
            ) in _SIGNALS:  # the interpreter, when it ends, puts back the default instead of a function
                signal.signal(number, signal.SIG_IGN)

    def _obey(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP and self._on_hangup is not None:
            self._on_hangup()
        elif not self.told.is_set():
            log.info("got %s: finishing the uploads, for at most %g s", number.name, self._limit_s)
            self._limit(self._limit_s)
            self.told.set()
            self._impatient.set()
        else:
            log.warning("got %s again: stopping at once", number.name)
            self._limit(0)

    def _limit(self, within_s: float) -> None:
        self._deadline_s = min(self._deadline_s, trio.current_time() + within_s)
        self._scope.deadline = min(self._scope.deadline, self._deadline_s)

    async def send_while_mounted(self) -> None:
        """After a signal: the drive still answers meanwhile."""
        self.phase = "stopping"
        await self._send(patient=False)

    def hand_over(self) -> None:
        """Another mount of the share wants the cache, and goes on with the journal itself."""
        if self.phase == "unmounted":
            log.warning("a new mount takes over what is not sent yet")
            self._handed_over = True
            self._limit(0)

    async def send_the_rest(self) -> int:
        """After the kernel let go; returns how many files are left, and has told which."""
        self.phase = "unmounted"
        self._limit(UNMOUNTED_LIMIT_S)
        if frozenset(self._filesystem.pending_paths()) - self._tried:
            self._sent_unmounted = True
            await self._send_patiently()
        self._left = self._filesystem.pending_paths()
        if self._left and not self._handed_over:
            named = ", ".join(printable(path) for path in self._left[:NAMED_MAX])
            more = "" if len(self._left) <= NAMED_MAX else f" and {len(self._left) - NAMED_MAX} more"
            log.error(
                "%d files are not on the server; they are kept in %s, and the next mount sends them: %s%s",
                len(self._left),
                self._cache_dir,
                named,
                more,
            )
        await self._say_goodbye()
        return len(self._left)

    async def _send_patiently(self) -> None:
        """Nobody waits, so what may pass is waited for; from a signal or --force on somebody does."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_when_impatient, nursery.cancel_scope)
            await self._send(patient=True)
            nursery.cancel_scope.cancel()
        if self._impatient.is_set():
            await self._send(patient=False)

    async def _stop_when_impatient(self, scope: trio.CancelScope) -> None:
        await self._impatient.wait()
        scope.cancel()

    async def _send(self, *, patient: bool) -> None:
        """Not patient: each file is tried once, because somebody waits for the end."""
        with trio.CancelScope(deadline=self._deadline_s) as self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._report)
                await self._filesystem.sync(None, patient=patient)
                nursery.cancel_scope.cancel()
        self._tried = frozenset(self._filesystem.pending_paths())

    async def _report(self) -> None:
        await trio.sleep(SILENT_S)
        while True:
            now = self._filesystem.unsent.progress()
            if now["files"]:
                log.warning("%s: still sending %d files, %d bytes", self.phase, now["files"], now["bytes"])
            await trio.sleep(REPORT_EVERY_S)

    # --- whoever waits for the end

    async def outcome(self, *, patient: bool) -> Mapping[str, object]:
        """Answered when the end is there: how many files are left, and where they are kept."""
        if not patient:
            self._impatient.set()
        self._asked += 1
        await self._finished.wait()
        return {"left": len(self._left), "files": self._left[:NAMED_MAX], "cache_dir": self._cache_dir}

    async def _say_goodbye(self) -> None:
        self._finished.set()
        if self._asked or self._sent_unmounted:
            await trio.sleep(ANSWERS_S)
