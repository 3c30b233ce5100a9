"""`davfs status --watch`: the status again and again, until Ctrl-C or the end of the mount.

One question on the control socket for each mount and interval, over a connection that stays open; the daemon
answers from memory and asks its server nothing. Without a terminal: a plain line for each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Final

from davfs import control, mountpoint
from davfs.commands.drain import connect, find_mount
from davfs.commands.status import console_for_people, unanswered, view
from davfs.commands.words import clean, human_size
from davfs.exitcodes import CommandFailed, Exit, NoDaemon

ROWS: Final = 12  # of each list: what fits a terminal

Answer = Mapping[str, Any]


def watch(where: str | None, *, every_s: float) -> int:
    """The command. With a mount point it ends with the mount: raises NoDaemon."""
    with ExitStack() as stack:
        watched = Watched(where, stack)
        try:
            _draw(watched, every_s) if sys.stdout.isatty() else _write_lines(watched, every_s)
        except KeyboardInterrupt:
            return Exit.OK
    return Exit.OK


class Watched:
    """The mounts that are watched, with a connection to each, and what they said before."""

    def __init__(self, where: str | None, stack: ExitStack) -> None:
        self._only = None if where is None else find_mount(where)
        self._clients: dict[str, control.ControlClient] = {}
        self._before: dict[str, tuple[float, Answer]] = {}
        stack.callback(self._close)

    def answers(self) -> Iterator[tuple[Answer, str | None]]:
        """What each says now, and how fast it was since the last time."""
        if self._only is not None:
            yield self._with_rates(self._only.target, self._ask(self._only))
            return
        for mount in mountpoint.davfs_mounts():
            try:
                yield self._with_rates(mount.target, self._ask(mount))
            except (NoDaemon, CommandFailed) as error:
                yield unanswered(mount, error), None

    def _ask(self, mount: mountpoint.Mount) -> Answer:
        client = self._clients.pop(mount.target, None) or connect(mount)
        try:
            answer = client.ask("status", most=ROWS)
        except BaseException:
            client.close()
            raise
        self._clients[mount.target] = client
        return answer

    def _with_rates(self, target: str, answer: Answer) -> tuple[Answer, str | None]:
        now_s = time.monotonic()
        before = self._before.get(target)
        self._before[target] = now_s, answer
        return answer, None if before is None else rates(before[1], answer, now_s - before[0])

    def _close(self) -> None:
        for client in self._clients.values():
            client.close()


def rates(before: Answer, now: Answer, for_s: float) -> str | None:
    """Bytes a second both ways since `before`; None for another daemon, whose counters began again."""
    if for_s <= 0 or before.get("pid") != now.get("pid"):
        return None
    up, down = (_grown(before, now, key) / for_s for key in ("sent_bytes", "received_bytes"))
    return f"{human_size(up)}/s up, {human_size(down)}/s down"


def _grown(before: Answer, now: Answer, key: str) -> float:
    values = (before.get(key), now.get(key))
    old, new = (value if isinstance(value, int | float) else 0 for value in values)
    return max(0, new - old)


# --- on a terminal ----------------------------------------------------------------------------------


def _draw(watched: Watched, every_s: float) -> None:
    from rich.live import Live

    with Live(console=console_for_people(), auto_refresh=False, screen=True) as live:
        _repeat(lambda: live.update(picture(list(watched.answers()), every_s), refresh=True), every_s)


def picture(answers: list[tuple[Answer, str | None]], every_s: float) -> Any:
    """What a terminal shows."""
    from rich.console import Group
    from rich.text import Text

    views = [view(answer, rates, ROWS) for answer, rates in answers]
    foot = Text(f"every {every_s:g} s, Ctrl-C ends it", style="dim")
    return Group(*(views or [Text("no davfs mounts")]), foot)


def _repeat(step: Callable[[], None], every_s: float) -> None:
    """On a fixed beat: the time that a step takes is no part of the interval."""
    next_s = time.monotonic()
    while True:
        step()
        next_s = max(next_s + every_s, time.monotonic())
        time.sleep(next_s - time.monotonic())


# --- without one ------------------------------------------------------------------------------------


def _write_lines(watched: Watched, every_s: float) -> None:
    def write() -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        sys.stdout.write("".join(f"{at} {line(*each)}\n" for each in watched.answers()))
        sys.stdout.flush()

    _repeat(write, every_s)


def line(answer: Answer, now: str | None) -> str:
    """One mount in one line, the same words in the same order every time."""
    where = clean(str(answer.get("mountpoint")))
    if "no_answer" in answer:
        return f"{where} no answer: {clean(str(answer['no_answer']))}"
    link = answer.get("link")
    state = link.get("state") if isinstance(link, Mapping) else link
    transfers = answer.get("transfers")
    facts = [
        f"link {state}",
        f"pending {answer.get('pending_files')}",
        f"failed {answer.get('failed')}",
        f"conflicts {answer.get('conflict_files')}",
        f"transfers {len(transfers) if isinstance(transfers, list) else '-'}",
        now or "0 B/s up, 0 B/s down",
    ]
    return f"{where} {clean(', '.join(facts))}"
