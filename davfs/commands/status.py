"""`davfs status`: what the daemon says of its mount, for people (rich) or for programs (--json).

Keys the daemon of another version may add are shown as they are, so that nothing is hidden by an old client.
File names come from a server and are hostile: they are never read as markup, and control characters in them
are written out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from davfs import mountpoint
from davfs.commands.drain import connect, find_mount
from davfs.commands.words import clean, human_size, human_time
from davfs.exitcodes import CommandFailed, Exit, NoDaemon

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_FILE_LISTS: Final = ("pending", "failed", "conflicts")
_IN_HEADING: Final = frozenset({"url", "mountpoint"})
_MAX_ROWS: Final = 50
_COLUMNS: Final = ("path", "size", "state", "error")  # first; others follow as they come


def status(where: str | None, *, as_json: bool) -> int:
    """The command: of one mount, or of all. NO_DAEMON when one of them does not answer."""
    if where is not None:
        answer = _ask(find_mount(where))
        _write_json(answer) if as_json else _show([answer])
        return Exit.OK
    answers = [_ask_or_tell(mount) for mount in mountpoint.davfs_mounts()]
    _write_json(answers) if as_json else _show(answers)
    return Exit.NO_DAEMON if any("no_answer" in answer for answer in answers) else Exit.OK


def _ask(mount: mountpoint.Mount) -> dict[str, Any]:
    with connect(mount) as client:
        return client.ask("status")


def _ask_or_tell(mount: mountpoint.Mount) -> dict[str, Any]:
    try:
        return _ask(mount)
    except (NoDaemon, CommandFailed) as error:
        return {"url": mount.source, "mountpoint": mount.target, "no_answer": str(error)}


def _write_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


# --- for people -------------------------------------------------------------------------------------


def _show(answers: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console

    # Without a terminal lines are not broken: grep and awk read them.
    console = Console(highlight=False, emoji=False, markup=False, width=None if sys.stdout.isatty() else 500)
    if not answers:
        console.print("no davfs mounts")
    for answer in answers:
        show_one(answer, console)


def show_one(answer: Mapping[str, Any], console: Console) -> None:
    """One mount: a heading, a line for each fact, a table for each list of files."""
    console.print(clean(f"{answer.get('url', '?')} on {answer.get('mountpoint', '?')}"), style="bold")
    facts = {key: value for key, value in answer.items() if key not in _IN_HEADING}
    labels = {key: clean(_label(key)) for key in facts}
    width = max(map(len, labels.values()), default=0)
    for key, value in facts.items():
        listed = _is_file_list(key, value)
        console.print(f"  {labels[key]:<{width}}  {len(value) if listed else fact(key, value)}")
    for key in _FILE_LISTS:
        if facts.get(key) and _is_file_list(key, facts[key]):
            console.print(f"{key}:", style="bold")
            console.print(_file_table(facts[key]))


def _label(key: str) -> str:
    return _plain(key).removesuffix("_s").replace("_", " ")


def _is_file_list(key: str, value: object) -> bool:
    return key in _FILE_LISTS and isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _file_table(files: Sequence[Mapping[str, Any]]) -> Table:
    from rich.table import Table

    keys = list(dict.fromkeys(["path", *(key for each in files for key in each)]))
    keys.sort(key=lambda key: _COLUMNS.index(_plain(key)) if _plain(key) in _COLUMNS else len(_COLUMNS))
    table = Table(box=None, padding=(0, 1, 0, 2), pad_edge=True, show_header=True, header_style="dim")
    for key in keys:
        table.add_column(clean(_plain(key)), overflow="fold")
    for each in files[:_MAX_ROWS]:
        table.add_row(*(fact(key, each.get(key, "")) for key in keys))
    if len(files) > _MAX_ROWS:
        table.add_row(f"... and {len(files) - _MAX_ROWS} more (--json lists all)")
    return table


def _plain(key: str) -> str:
    return key.removesuffix("_bytes")


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
        case int() | float() if key.endswith("_bytes") or key in {"bytes", "size"}:
            return human_size(value)
        case int() | float() if key.endswith("_s"):
            return human_time(value)
    return clean(str(value))
