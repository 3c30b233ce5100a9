"""Profiles: a mount described in a TOML file, so that `davfs mount NAME` and a systemd unit need no more.

    ~/.config/davfs/NAME.toml    the user's (XDG_CONFIG_HOME is obeyed); looked at first
    /etc/davfs/NAME.toml         the machine's

    url = "https://cloud.example/dav"
    mountpoint = "~/cloud"
    username = "me"
    cache_size = "20G"
    allow_other = true

Every option of `-o` is a key of the same name. What the command line says comes after it and counts. A
relative path is meant from the profile's own folder. A profile may name commands that are run and files that
are read with this user's rights: so one that somebody else could write is refused. No message repeats a
value.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from davfs.errors import ConfigError
from davfs.options import KERNEL_FLAGS, OPTIONS, Surroundings, join_options, unknown_option

SYSTEM_FOLDER: Final = Path("/etc/davfs")
MAX_BYTES: Final = 64 * 1024
_OWN_KEYS: Final = ("url", "mountpoint")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:-]{0,99}", re.ASCII)
_OPTION_NAMES: Final = frozenset(option.name for option in OPTIONS) | KERNEL_FLAGS
_PATHS: Final = frozenset(option.name for option in OPTIONS if option.is_path)


@dataclass(frozen=True, slots=True)
class Profile:
    """What one file says. `options` is one text in the form of `-o`."""

    path: Path
    url: str
    mountpoint: str | None
    options: str


def is_name(source: str) -> bool:
    """Can `source` be a profile's name (and not a URL or a path)?"""
    return _NAME.fullmatch(source) is not None


def folders(around: Surroundings) -> tuple[Path, ...]:
    """Where profiles are looked for, in this order."""
    configured = around.environ.get("XDG_CONFIG_HOME", "")
    own = configured if configured.startswith("/") else around.home and str(Path(around.home, ".config"))
    return (Path(own, "davfs"), SYSTEM_FOLDER) if own else (SYSTEM_FOLDER,)


def names(around: Surroundings) -> list[str]:
    """The profiles that are there, for completion and for hints."""
    found = (path.stem for folder in folders(around) for path in sorted(folder.glob("*.toml")))
    return list(dict.fromkeys(name for name in found if is_name(name)))


def load(name: str, around: Surroundings) -> Profile:
    """The profile called `name`. Raises ConfigError when there is none, or it cannot be used."""
    for folder in folders(around):
        path = folder / f"{name}.toml"
        try:
            content = _read(path, around.uid)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        return parse(path, content)
    raise ConfigError(_not_found(name, around))


def _not_found(name: str, around: Surroundings) -> str:
    import difflib

    near = difflib.get_close_matches(name, names(around), n=1)
    places = " or ".join(str(folder / f"{name}.toml") for folder in folders(around))
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"there is no profile {name!r} ({places}), and it is no URL either{hint}"


def _read(path: Path, uid: int) -> str:
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{path} is not a regular file")
        if found.st_uid not in {0, uid} or found.st_mode & 0o022:
            raise ConfigError(f"{path} can be changed by others: it must be yours, or root's, and chmod go-w")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_BYTES // 1024} KiB")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8") from None


def parse(path: Path, text: str) -> Profile:
    """Pure. What `text`, found at `path`, says; ConfigError names the key that is wrong."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"at line \d+, column \d+|at end of document", str(error))
        raise ConfigError(f"{path} is not valid TOML ({where[0] if where else 'see toml.io'})") from None
    for key in values:
        if key not in _OPTION_NAMES and key not in _OWN_KEYS:
            raise ConfigError(f"{path}: {unknown_option(key, 'entry', [*_OPTION_NAMES, *_OWN_KEYS])}")
    own = {key: _own_text(path, key, values) for key in _OWN_KEYS}
    if own["url"] is None:
        raise ConfigError(f"{path}: url is missing")
    texts = [
        (key, _text(path, key, value))
        for key, value in values.items()
        if key not in _OWN_KEYS and not (key in KERNEL_FLAGS and value is False)
    ]
    return Profile(path, own["url"], own["mountpoint"], join_options(texts))


def _own_text(path: Path, key: str, values: Mapping[str, object]) -> str | None:
    value = values.get(key)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{path}: {key} needs a text in quotation marks")
    return _anchored(path, value) if value and key == "mountpoint" else value


def _anchored(path: Path, value: str) -> str:
    """`value` as a path from the profile's folder; ~ is left to who reads it."""
    return value if value.startswith("~") else str(path.parent / value)


def _text(path: Path, key: str, value: object) -> str | None:
    """As `-o` writes it. TOML has types of its own; `umask = "022"` stays a text, as octal 022 is no TOML."""
    if key in KERNEL_FLAGS:
        if value is not True:
            raise ConfigError(f"{path}: {key} needs true or false")
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "umask" and isinstance(value, int):  # 0o022 in TOML is the number 18
        return f"{value:o}" if 0 <= value <= 0o777 else "invalid"
    if key in _PATHS and isinstance(value, str):
        return _anchored(path, value)
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    raise ConfigError(f"{path}: {key} needs a text, a number, or true or false")
