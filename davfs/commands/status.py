"""`davfs status`: what the daemon says of its mount, for people, for programs (--json) and for Prometheus.

Keys the daemon of another version may add are shown as they are, so that nothing is hidden by an old client.
File names come from a server and are hostile: they are never read as markup, and control characters in them
are written out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from davfs import mountpoint
from davfs.commands.drain import connect, find_mount
from davfs.commands.words import clean, human_size, human_time
from davfs.exitcodes import CommandFailed, Exit, NoDaemon

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

Answer = Mapping[str, Any]

_LISTS: Final = ("transfers", "pending", "conflicts", "recovered", "locks")  # each a table of its own
_NAMES: Final = frozenset({"conflicts", "recovered"})  # of which the rows are names only
_IN_HEADING: Final = frozenset({"url", "mountpoint"})
_MAX_ROWS: Final = 50
_COLUMNS: Final = ("path", "direction", "size", "done", "state", "error")  # first; others follow as they come
_BAR_CELLS: Final = 24
_MOST: Final = 1e18  # no size, count or time is more; NaN is not below it either


def status(where: str | None, *, as_json: bool, as_metrics: bool) -> int:
    """The command: of one mount, or of all. NO_DAEMON when one of them does not answer."""
    answers = [ask(find_mount(where))] if where is not None else ask_all()
    if as_json:
        _write_json(answers[0] if where is not None else answers)
    elif as_metrics:
        from davfs.commands.metrics import metrics

        sys.stdout.write(metrics(answers))
    else:
        _show(answers)
    return Exit.NO_DAEMON if any("no_answer" in answer for answer in answers) else Exit.OK


def refresh(where: str | None) -> None:
    """Of one mount, or of all that answer: what other clients changed is seen at the next look."""
    for mount in [find_mount(where)] if where is not None else mountpoint.davfs_mounts():
        try:
            with connect(mount) as client:
                client.ask("refresh")
        except (NoDaemon, CommandFailed):  # another user's, dead, or of an older version
            if where is not None:
                raise


def ask(mount: mountpoint.Mount) -> dict[str, Any]:
    with connect(mount) as client:
        return client.ask("status")


def ask_all() -> list[dict[str, Any]]:
    """Of every mount; one that does not answer has the key `no_answer` instead."""
    return [_ask_or_tell(mount) for mount in mountpoint.davfs_mounts()]


def _ask_or_tell(mount: mountpoint.Mount) -> dict[str, Any]:
    try:
        return ask(mount)
    except (NoDaemon, CommandFailed) as error:
        return unanswered(mount, error)


def unanswered(mount: mountpoint.Mount, error: Exception) -> dict[str, Any]:
    return {"url": mount.source, "mountpoint": mount.target, "no_answer": str(error)}


def _write_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


# --- for people -------------------------------------------------------------------------------------


def console_for_people() -> Console:
    from rich.console import Console

    # Without a terminal lines are not broken: grep and awk read them.
    return Console(highlight=False, emoji=False, markup=False, width=None if sys.stdout.isatty() else 500)


def _show(answers: Sequence[Answer]) -> None:
    console = console_for_people()
    if not answers:
        console.print("no davfs mounts")
    for answer in answers:
        show_one(answer, console)


def show_one(answer: Answer, console: Console) -> None:
    console.print(view(answer))


def view(answer: Answer, rates: str | None = None, most: int = _MAX_ROWS) -> RenderableType:
    """One mount: a heading, a line for each fact, a table for each list. `rates`: of the last moment."""
    from rich.console import Group
    from rich.text import Text

    heading = clean(f"{answer.get('url', '?')} on {answer.get('mountpoint', '?')}")
    tables = [
        part
        for key in _LISTS
        if (rows := _rows(key, answer.get(key)))
        for part in (Text(f"{key}:", style="bold"), _table(rows, most, _count(answer, key, rows)))
    ]
    return Group(Text(heading, style="bold"), _facts(answer, rates), *tables)


def _facts(answer: Answer, rates: str | None) -> Table:
    from rich.table import Table

    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    told: set[str] = set(_IN_HEADING)
    for label, keys, line in _LINES:
        value = line(answer) if keys[0] in answer else None
        if value is not None:
            told.update(keys)
            facts.add_row(f"  {label}", _with(value, rates if label == "traffic" else None))
    for key, value in answer.items():
        if key not in told:
            rows = _rows(key, value)
            facts.add_row(f"  {clean(_label(key))}", str(len(rows)) if rows else fact(key, value))
    return facts


def _with(value: RenderableType, more: str | None) -> RenderableType:
    return f"{value}, now {more}" if more and isinstance(value, str) else value


def _link(answer: Answer) -> RenderableType | None:
    from rich.text import Text

    link = answer.get("link")
    if not isinstance(link, Mapping) or not isinstance(link.get("state"), str):
        return None
    if link["state"] == "up":
        return Text("up", style="green")
    since, again = _number(link.get("down_for_s")), _number(link.get("next_try_s"))
    told = f"{link['state']} for {human_time(since)}: {link.get('reason')}; next try in {human_time(again)}"
    return Text(clean(told), style="bold red")


def _server(answer: Answer) -> str | None:
    profile = answer.get("server_profile")
    if not isinstance(profile, Mapping):
        return None
    able = [
        f"conditions {profile.get('conditions')}",
        "locks" if profile.get("locks") else "no locks",
        "uploads stored whole" if profile.get("stores_whole") else "uploads by way of a temporary name",
    ]
    return clean(f"{answer.get('server') or 'no name'}, as {profile.get('name')}: {', '.join(able)}")


def _user(answer: Answer) -> str | None:
    parts = (answer.get("user"), answer.get("scheme"), answer.get("authentication"))
    return clean(", ".join(str(part) for part in parts if part)) or None


def _daemon(answer: Answer) -> str | None:
    version = f", davfs {answer['version']}" if "version" in answer else ""
    up = human_time(_number(answer.get("uptime_s")))
    return clean(f"pid {answer.get('pid')}, for {up}{version}")


def _cache(answer: Answer) -> RenderableType | None:
    used, limit = _number(answer.get("cache_bytes")), _number(answer.get("cache_limit_bytes"))
    if limit <= 0:
        return None
    return bar(used, limit, f"{human_size(used)} of {human_size(limit)}, {used / limit:.0%}")


def bar(done: float, total: float, words: str, *, cells: int = _BAR_CELLS) -> RenderableType:
    """A share as a picture, and in words."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    line = Table.grid(padding=(0, 1))
    line.add_row(ProgressBar(total=max(1.0, total), completed=done, width=cells), words)
    return line


def _hits(answer: Answer) -> str | None:
    hits = answer.get("hits")
    if not isinstance(hits, Mapping) or not all(isinstance(each, Mapping) for each in hits.values()):
        return None
    return clean(", ".join(f"{kind} {_share(each)}" for kind, each in hits.items())) or None


def _share(told: Answer) -> str:
    asked = _number(told.get("hits")) + _number(told.get("misses"))
    return f"{_number(told.get('rate')):.1%} of {asked:,.0f}" if asked else "-"


def _traffic(answer: Answer) -> str | None:
    sent, received = _number(answer.get("sent_bytes")), _number(answer.get("received_bytes"))
    return f"{human_size(sent)} sent, {human_size(received)} received"


def _requests(answer: Answer) -> str | None:
    requests = answer.get("requests")
    if not isinstance(requests, Mapping):
        return None
    most = sorted(requests.items(), key=lambda each: -_number(each[1]))
    return clean(", ".join(f"{method} {_number(count):,.0f}" for method, count in most)) or "none"


def _pending(answer: Answer) -> RenderableType | None:
    from rich.text import Text

    files, failed = _number(answer.get("pending_files")), _number(answer.get("failed"))
    size = human_size(_number(answer.get("pending_bytes")))
    if not files:
        return f"nothing; {_number(answer.get('sent_files')):,.0f} files sent"
    trouble = f", {failed:,.0f} of them failed" if failed else ""
    return Text(f"{files:,.0f} files, {size}{trouble}", style="red" if failed else "yellow")


def _kept(answer: Answer) -> RenderableType | None:
    from rich.text import Text

    conflicts, recovered = _number(answer.get("conflict_files")), _number(answer.get("recovered_files"))
    found = f", {recovered:,.0f} recovered without their names" if recovered else ""
    return Text(f"{conflicts:,.0f}{found}", style="yellow" if conflicts or recovered else "")


def _uses(answer: Answer) -> str | None:
    opened, locks = _number(answer.get("open_files")), _number(answer.get("locks_held"))
    known, nodes = _number(answer.get("known_entries")), _number(answer.get("inodes"))
    return f"{opened:,.0f} files, {locks:,.0f} locks held; {known:,.0f} names known, {nodes:,.0f} inodes"


# What is told in one line, from these keys, of a daemon that tells the first; else they are shown one by one.
_LINES: Final[Sequence[tuple[str, tuple[str, ...], Callable[[Answer], RenderableType | None]]]] = (
    ("link", ("link",), _link),
    ("server", ("server_profile", "server"), _server),
    ("user", ("user", "scheme", "authentication"), _user),
    ("daemon", ("pid", "uptime_s", "version"), _daemon),
    ("cache", ("cache_bytes", "cache_limit_bytes"), _cache),
    ("hits", ("hits",), _hits),
    ("traffic", ("sent_bytes", "received_bytes"), _traffic),
    ("requests", ("requests",), _requests),
    ("pending", ("pending_files", "pending_bytes", "failed", "sent_files", "pending"), _pending),
    ("conflicts", ("conflict_files", "recovered_files", "conflicts", "recovered"), _kept),
    ("open", ("open_files", "locks_held", "known_entries", "inodes", "locks"), _uses),
    ("transfers", ("transfers",), lambda answer: str(len(_rows("transfers", answer.get("transfers"))))),
)


def _number(value: object) -> float:
    return value if isinstance(value, int | float) and abs(value) < _MOST else 0.0


def _label(key: str) -> str:
    return _plain(key).removesuffix("_s").replace("_", " ")


def _rows(key: str, value: object) -> list[Answer]:
    """The rows of a list that is shown as a table; empty if it is none."""
    if key not in _LISTS or not isinstance(value, list):
        return []
    if key in _NAMES and all(isinstance(each, str) for each in value):
        return [{"path": each} for each in value]
    return value if all(isinstance(each, dict) for each in value) else []


def _count(answer: Answer, key: str, rows: Sequence[Answer]) -> int:
    """How many there are: the daemon may have been asked for a few."""
    counted = {"pending": "pending_files", "conflicts": "conflict_files", "locks": "locks_held"}
    return max(len(rows), int(_number(answer.get(counted.get(key, "recovered_files"), 0))))


def _table(rows: Sequence[Answer], most: int, count: int) -> Table:
    from rich.table import Table

    keys = list(dict.fromkeys(["path", *(key for each in rows for key in each)]))
    keys.sort(key=lambda key: _COLUMNS.index(_plain(key)) if _plain(key) in _COLUMNS else len(_COLUMNS))
    table = Table(box=None, padding=(0, 1, 0, 2), pad_edge=True, show_header=True, header_style="dim")
    for key in keys:
        table.add_column(clean(_label(key)), overflow="fold", justify=_side(key, rows))
    for each in rows[:most]:
        table.add_row(*(_cell(key, each) for key in keys))
    if count > len(rows[:most]):
        table.add_row(f"... and {count - len(rows[:most]):,} more (--json lists all)")
    return table


def _cell(key: str, row: Answer) -> RenderableType:
    words, size = fact(key, row.get(key, "")), _number(row.get("size_bytes"))
    if key == "done_bytes" and size > 0:
        return bar(_number(row.get(key)), size, words, cells=12)
    return words


def _side(key: str, rows: Iterable[Answer]) -> Any:
    return "right" if any(isinstance(each.get(key), int | float) for each in rows) else "left"


def _plain(key: str) -> str:
    return key.removesuffix("_per_s").removesuffix("_bytes")


def fact(key: str, value: object) -> str:
    """One value in words: sizes and times by the unit in their key, the rest as it is."""
    match value:
        case dict():
            return (
                ", ".join(f"{clean(_plain(name))} {fact(name, each)}" for name, each in value.items())
                or "none"
            )
        case list() | tuple():
            return ", ".join(fact(key, each) for each in value) or "none"
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int() | float() if key.endswith("_bytes_per_s"):
            return f"{human_size(value)}/s"
        case int() | float() if key.endswith("_bytes") or key in {"bytes", "size"}:
            return human_size(value)
        case int() | float() if key.endswith("_s"):
            return human_time(value)
    return clean(str(value))
