"""docs/OPTIONS.md is made from the table behind `davfs mount --help`; DAVFS_WRITE_DOCS=1 writes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from davfs.options import IGNORED, KERNEL_FLAGS, OPTIONS, Option

_PAGE: Final = Path(__file__).parents[2] / "docs" / "OPTIONS.md"
_GROUPS: Final = {
    "Who you are": (
        "username password_file password_command auth token_file token_command allow_plaintext_auth",
        "All sources of a password and their order: [AUTHENTICATION.md](AUTHENTICATION.md).",
    ),
    "Which server": (
        "cacert pin_sha256 client_cert client_cert_password_file",
        "Which to choose: [SECURING.md](SECURING.md).",
    ),
    "Cache": (
        "cache_dir cache_size attr_timeout attr_timeout_min",
        "",
    ),
    "Writing": (
        "write_back close lock mtime symlinks partial_put",
        "What happens when two write: [EDITING-TOGETHER.md](EDITING-TOGETHER.md).",
    ),
    "Who may use the drive": (
        "uid gid umask ro allow_other allow_root nonempty",
        "[USERS.md](USERS.md).",
    ),
    "When the server is slow or away": (
        "timeout drain_timeout offline connections limit_up limit_down",
        "[OFFLINE.md](OFFLINE.md).",
    ),
    "What is told": ("log_level log_file notify", "[DESKTOP.md](DESKTOP.md), [STATUS.md](STATUS.md)."),
}
_HEAD: Final = """\
# Every option

Written by `tests/unit/test_options_page.py` (`DAVFS_WRITE_DOCS=1`) from the table that `davfs mount --help`
and the manual page davfs.toml(5) are made from.

The same names are used everywhere: `-o NAME=VALUE,...` on the command line and in fstab, `NAME = VALUE` in a
profile ([SERVICE.md](SERVICE.md#profiles)). On the command line a comma in a value is written `\\,` and a
backslash `\\\\`. Switches take no value (`ro`, in a profile `ro = true`). Sizes are `512M`, `10G`; times are
seconds, or `500ms`, `5m`, `1h`. Of an option that is given twice the last one counts, and the command line
comes after the profile.
"""
_PROFILE: Final = """\
## Only in a profile

| key | |
|---|---|
| `url` | the share, an `http://` or `https://` address; needed |
| `mountpoint` | the folder it appears in, unless the command line names one |
"""


def _cells(option: Option) -> str:
    shown = option.name if option.is_switch else f"{option.name}={option.metavar}"
    default = option.default_help or ("off" if option.is_switch else option.default or "")
    return f"| `{shown}` | {option.help.replace('|', chr(92) + '|')} | {default} |"


def _table(title: str, options: list[Option], more: str) -> str:
    rows = [f"## {title}", "", "| option | what it does | default |", "|---|---|---|", *map(_cells, options)]
    return "\n".join([*rows, *(["", more] if more else [])]) + "\n"


def _page() -> str:
    by_name = {option.name: option for option in OPTIONS}
    parts = [_HEAD]
    for title, (names, more) in _GROUPS.items():
        parts.append(_table(title, [by_name.pop(name) for name in names.split()], more))
    if by_name:
        parts.append(_table("Further", list(by_name.values()), ""))
    flags, passed = (
        ", ".join(f"`{flag}`" for flag in sorted(KERNEL_FLAGS)),
        ", ".join(f"`{word}`" for word in sorted(IGNORED)),
    )
    parts += [
        _PROFILE,
        f"""\
## Of mount(8) and fstab(5)

{flags} go to the kernel, and their opposites are understood.
`rw` is the opposite of `ro`, `sync` is `close=sync`.

Accepted without effect on davfs, because mount(8), systemd or the desktop act on them: all that begins with
`x-`, and {passed}.
""",
    ]
    return "\n".join(parts)


def test_the_page_of_options_is_current() -> None:
    """Every option with its help and default, as `--help` tells it."""
    if os.environ.get("DAVFS_WRITE_DOCS") == "1":
        _PAGE.write_text(_page())
    assert _PAGE.read_text() == _page(), "DAVFS_WRITE_DOCS=1 writes it anew"
