"""The desktop is told what a person must know: conflict copies, refused files, a refused password.

Only where there is a session bus (DBUS_SESSION_BUS_ADDRESS) and a program that speaks to it: notify-send,
else gdbus. Both belong to desktops; nothing is required. At most one notification a minute for each mount:
what happens meanwhile is told together. What passes by itself, as a server that is away, is not worth one.

A desktop that does not answer is no trouble of the mount: the program is ended after five seconds.
"""

from __future__ import annotations

import html
import json
import logging
import shutil
import subprocess
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

import trio

from davfs.fs.filesystem import Filesystem
from davfs.fs.states import State
from davfs.logs import printable

log = logging.getLogger("davfs.desktop")

LOOK_EVERY_S: Final = 2.0
QUIET_S: Final = 60.0  # between two notifications
_ENDS_WITHIN_S: Final = 5.0
_NAMED_MAX: Final = 3
_CHARACTERS_MAX: Final = 120  # of one name


class Notice(NamedTuple):
    """One notification; `text` is plain."""

    title: str
    text: str


class Trouble(NamedTuple):
    """What is worth telling, as it is now."""

    conflicts: Collection[str]
    refused: Collection[str]
    locked_out: bool  # the server refuses the password


class News:
    """What was told, and when the next may be. Pure: the time comes in."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._told = Trouble(frozenset(), frozenset(), locked_out=False)
        self._next_s = float("-inf")

    def of(self, now: Trouble, now_s: float) -> Notice | None:
        """What nobody was told yet; None when there is nothing, or when it is too early."""
        if now_s < self._next_s:
            return None
        lines = [
            *_line("somebody else changed it too; yours is", _new(now.conflicts, self._told.conflicts)),
            *_line("refused by the server, kept here:", _new(now.refused, self._told.refused)),
        ]
        if now.locked_out and not self._told.locked_out:
            lines.append(f"The server refuses the password: davfs login {self._place}")
        self._told = now
        if not lines:
            return None
        self._next_s = now_s + QUIET_S
        return Notice(f"davfs: {self._place}", "\n".join(lines))


def _new(now: Collection[str], told: Collection[str]) -> list[str]:
    return sorted(set(now).difference(told))


def _line(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(name[:_CHARACTERS_MAX] for name in names[:_NAMED_MAX])
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return [f"{what[0].upper()}{what[1:]} {shown}{more}"]


# --- the session bus ----------------------------------------------------------------------------------


def speaker(environ: Mapping[str, str]) -> Callable[[Notice], list[str]] | None:
    """How to say a notice: the command for it. None where there is nobody to tell."""
    if not environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return None
    path = environ.get("PATH")
    if shutil.which("notify-send", path=path):
        return _notify_send
    return _gdbus if shutil.which("gdbus", path=path) else None


def _body(notice: Notice) -> str:
    """The body is markup (Desktop Notifications Specification), and names may hold anything."""
    return html.escape("\n".join(printable(line) for line in notice.text.split("\n")), quote=False)


def _notify_send(notice: Notice) -> list[str]:
    options = ["--app-name=davfs", "--icon=folder-remote", "--urgency=normal"]
    return ["notify-send", *options, "--", printable(notice.title), _body(notice)]


def _gdbus(notice: Notice) -> list[str]:
    to = "org.freedesktop.Notifications"
    call = ["gdbus", "call", "--session", f"--dest={to}", "--object-path=/org/freedesktop/Notifications"]
    title, body = _quoted(printable(notice.title)), _quoted(_body(notice))
    words = ['"davfs"', "uint32 0", '"folder-remote"', title, body, "@as []", "@a{sv} {}", "int32 -1"]
    return [*call, f"--method={to}.Notify", "--", *words]


def _quoted(text: str) -> str:
    """As GVariant's text form writes a string: a name must not be read as anything else."""
    return json.dumps(text, ensure_ascii=False)


async def say(command: list[str]) -> None:
    """Runs it; a desktop that is gone or hangs is noted in the log, and that is all."""
    try:
        with trio.fail_after(_ENDS_WITHIN_S):
            done = await trio.run_process(
                command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        if done.returncode:
            log.info("%s ended with %d", command[0], done.returncode)
    except (OSError, trio.TooSlowError) as error:
        log.info("%s could not tell the desktop: %s", command[0], error)


async def keep_telling(
    filesystem: Filesystem,
    locked_out: Callable[[], bool],
    place: str,
    speak: Callable[[Notice], list[str]],
) -> None:
    """Until cancelled."""
    news = News(place)
    while True:
        notice = news.of(_trouble(filesystem, locked_out()), trio.current_time())
        if notice is not None:
            await say(speak(notice))
        await trio.sleep(LOOK_EVERY_S)


def _trouble(filesystem: Filesystem, locked_out: bool) -> Trouble:
    """The rows only where something is stuck: there may be 100,000 that wait."""
    unsent = filesystem.unsent
    rows = unsent.rows() if unsent.progress()["stuck"] else []
    refused = frozenset(str(row["path"]) for row in rows if row["state"] == State.REFUSED)
    conflicts = frozenset(str(row["path"]) for row in unsent.conflicts())
    return Trouble(conflicts, refused, locked_out)
