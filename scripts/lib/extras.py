"""Writes what is made from the command line itself: manual pages and shell completion.

    python scripts/lib/extras.py FOLDER

FOLDER then has davfs.1, davfs.toml.5, and the completions davfs (bash), _davfs (zsh), davfs.fish. The sources
are the parser behind `--help`, the table of options and the table of exit codes: they cannot disagree.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

from davfs import __version__, profiles
from davfs.cli import EPILOG_EXAMPLES, MOUNT_NOTES, command_line
from davfs.exitcodes import Exit
from davfs.options import OPTIONS


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "davfs.1").write_text(command_page())
    (folder / "davfs.toml.5").write_text(profile_page())
    for shell, name in (("bash", "davfs"), ("zsh", "_davfs"), ("fish", "davfs.fish")):
        (folder / name).write_text(shtab.complete(_completed(command_line()), shell=shell))


def _completed(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Where a path stands, the shell completes paths."""
    for action in parser._actions:
        if action.dest in {"mountpoint", "share"}:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.dest in {"target", "path", "paths"}:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif isinstance(action, argparse._SubParsersAction):
            for sub in dict.fromkeys(action.choices.values()):
                _completed(sub)
    return parser


# --- davfs(1) ---------------------------------------------------------------------------------------


def command_page() -> str:
    data = {"project_name": "davfs", "version": __version__, "manual_title": "User Commands"}
    page = str(Manpage(command_line(), {**data, "description": "mount a WebDAV share as a local drive"}))
    return (
        page.rstrip()
        + "\n"
        + "".join(
            [
                _section(
                    "Options of -o", [_text("They are the keys of a profile as well: see davfs.toml(5).")]
                ),
                _section("Passwords", [_text(paragraph) for paragraph in MOUNT_NOTES.split("\n\n")]),
                _section("Exit status", [_item(str(code.value), code.meaning) for code in Exit]),
                _section(
                    "Examples",
                    [".nf\n", *(f"{_escaped(line.strip())}\n" for line in EPILOG_EXAMPLES), ".fi\n"],
                ),
                _section("See also", [_text("davfs.toml(5), mount(8), umount(8), fusermount3(1)")]),
            ]
        )
    )


# --- davfs.toml(5) ----------------------------------------------------------------------------------


def profile_page() -> str:
    today = datetime.now(UTC).date().isoformat()
    example = 'url = "https://cloud.example/dav"\nmountpoint = "~/cloud"\nusername = "me"\n'
    about = (profiles.__doc__ or "").split("\n\n")[-1]
    own = [
        _item("url", "the share, an http:// or https:// address; needed"),
        _item("mountpoint", "the folder it appears in, unless the command line names one"),
    ]
    return f'.TH DAVFS.TOML 5 "{today}" "davfs {__version__}" "File Formats"\n' + "".join(
        [
            _section("Name", ["davfs.toml \\- a profile: one mount, described in a file\n"]),
            _section("Synopsis", [_text(f"~/.config/davfs/NAME.toml, {profiles.SYSTEM_FOLDER}/NAME.toml")]),
            _section(
                "Description", [_text("`davfs mount NAME` mounts what the profile says."), _text(about)]
            ),
            _section("Example", [".nf\n", _escaped(example), ".fi\n"]),
            _section("Keys", [*own, *(_item(option.name, option.described) for option in OPTIONS)]),
            _section("See also", [_text("davfs(1)")]),
        ]
    )


# --- roff -------------------------------------------------------------------------------------------


def _section(title: str, parts: Iterable[str]) -> str:
    return f".SH {title.upper()}\n" + "".join(parts)


def _text(text: str) -> str:
    return f".PP\n{_escaped(' '.join(text.split()))}\n"


def _item(head: str, text: str) -> str:
    return f".TP\n.B {_escaped(head)}\n{_escaped(' '.join(text.split()))}\n"


def _escaped(text: str) -> str:
    """Backslashes and hyphens as they are, and no line begins with a request."""
    return re.sub(r"^([.'])", r"\\&\1", text.replace("\\", "\\e").replace("-", "\\-"), flags=re.MULTILINE)


if __name__ == "__main__":
    main()
