"""The options of `-o`: one table, and how their text is read.

`OPTIONS` is the single source for every option: its name, how its text is read, its default and its help.
The parser, `davfs mount --help` and the manual page are all made from it, so they cannot disagree.

Pure: what the surroundings say (environment, working directory, user) arrives as a `Surroundings` value.
Every wrong input raises ConfigError with one line that names the option; no message repeats a value,
which may be a password in the wrong place.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from davfs.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the process stands in, as far as the options depend on it."""

    environ: Mapping[str, str]
    cwd: str
    uid: int
    gid: int
    home: str | None  # None: the user has no home folder (system users, broken containers)
    user_id: Callable[[str], int]  # by name; KeyError when there is none
    group_id: Callable[[str], int]


# --- reading the text of one value -------------------------------------------------------------------

Reader = Callable[[str, Surroundings], object]  # raises ValueError with the end of the sentence

_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SECONDS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
SLOWEST_BYTES_PER_S: Final = 16 * 1024  # with less, sixteen transfers at once would each look dead
_TRUE: Final = frozenset({"", "yes", "true", "on", "1"})
_FALSE: Final = frozenset({"no", "false", "off", "0"})


def _text(text: str, _: Surroundings) -> str:
    if not text or not text.isprintable():
        raise ValueError("needs a text without control characters")
    return text


def _path(text: str, around: Surroundings) -> str:
    if not text or "\0" in text:
        raise ValueError("needs a path")
    if (text == "~" or text.startswith("~/")) and around.home is None:
        raise ValueError("uses ~, but this user has no home folder")
    return expanded(text, around)


def expanded(path: str, around: Surroundings) -> str:
    """`path` made absolute; ~ is the home folder, where there is one."""
    if (path == "~" or path.startswith("~/")) and around.home is not None:
        path = around.home + path[1:]
    return os.path.normpath(Path(around.cwd, path))


def _size(text: str, _: Surroundings) -> int:
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,3})?)([KMGT]?)(?:i?B)?", text, re.IGNORECASE | re.ASCII)
    if match is None:
        raise ValueError("needs a size such as 512M or 10G")
    size_bytes = int(float(match[1]) * _UNITS[match[2].upper()])
    if not 2**20 <= size_bytes <= 2**60:
        raise ValueError("needs a size between 1M and 1048576T")
    return size_bytes


def _rate(text: str, _: Surroundings) -> int:
    size = re.fullmatch(r"(\d{1,15}(?:\.\d{1,3})?)([KMGT]?)(?:i?B)?(?:/s)?", text, re.IGNORECASE | re.ASCII)
    bytes_per_s = int(float(size[1]) * _UNITS[size[2].upper()]) if size is not None else 0
    if not SLOWEST_BYTES_PER_S <= bytes_per_s <= 2**40:
        raise ValueError("needs bytes a second, such as 500K or 2M, and at least 16K")
    return bytes_per_s


def _seconds(low_s: float, high_s: float) -> Reader:
    def read(text: str, _: Surroundings) -> float:
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?|\.\d{1,6})(ms|s|m|h|)", text, re.ASCII)
        if match is None:
            raise ValueError("needs seconds, such as 30 or 0.5 (or 500ms, 5m, 1h)")
        value_s = float(match[1]) * _SECONDS[match[2]]
        if not low_s <= value_s <= high_s:
            raise ValueError(f"needs {low_s:g} to {high_s:g} seconds")
        return value_s

    return read


def _integer(low: int, high: int) -> Reader:
    def read(text: str, _: Surroundings) -> int:
        if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or not low <= int(text) <= high:
            raise ValueError(f"needs a whole number from {low} to {high}")
        return int(text)

    return read


def _octal(text: str, _: Surroundings) -> int:
    if not re.fullmatch(r"(0o)?[0-7]{1,4}", text) or int(text, 8) > 0o777:
        raise ValueError("needs an octal number such as 022")
    return int(text, 8)


def _choice(*words: str) -> Reader:
    def read(text: str, _: Surroundings) -> str:
        if text not in words:
            raise ValueError(f"needs one of: {', '.join(words)}")
        return text

    return read


def _fingerprint(text: str, _: Surroundings) -> str:
    digits = text.replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError("needs the 64 hexadecimal digits of a SHA-256 fingerprint")
    return digits


def _flag(text: str, _: Surroundings) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError("is a switch: it takes no value (or yes, no)")


def _close(text: str, around: Surroundings) -> bool:
    return _choice("async", "sync")(text, around) == "sync"


def _partial_put(text: str, around: Surroundings) -> bool:
    return _choice("auto", "never")(text, around) == "auto"


def _symlinks(text: str, around: Surroundings) -> bool:
    return _choice("auto", "never")(text, around) == "auto"


def _offline(text: str, around: Surroundings) -> bool:
    return _choice("ok", "no")(text, around) == "ok"


def _notify(text: str, around: Surroundings) -> bool:
    return _choice("auto", "never")(text, around) == "auto"


def _account(kind: str) -> Reader:
    def read(text: str, around: Surroundings) -> int:
        if (
            re.fullmatch(r"\d{1,10}", text, re.ASCII) and int(text) < 2**32 - 1
        ):  # -1 means "leave it" to chown(2)
            return int(text)
        try:
            return around.user_id(text) if kind == "user" else around.group_id(text)
        except (KeyError, ValueError):
            raise ValueError(f"needs the number or name of a {kind} of this machine") from None

    return read


# --- the table --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Option:
    """One `-o` option. `default` is read by `read` like a given text; None leaves the field None."""

    name: str
    field: str  # of Config
    read: Reader
    default: str | None
    metavar: str  # "" marks a switch
    help: str
    default_help: str = ""  # what --help says when the default depends on the surroundings

    @property
    def is_switch(self) -> bool:
        return not self.metavar

    @property
    def is_path(self) -> bool:
        return self.read is _path

    @property
    def described(self) -> str:
        """The help with the default, for a person."""
        default = self.default_help or ("" if self.is_switch else self.default or "")
        return self.help + (f" (default: {default})" if default else "")


OPTIONS: Final[tuple[Option, ...]] = (
    Option("username", "username", _text, None, "NAME", "the user name on the server", "anonymous"),
    Option(
        "password_file",
        "password_file",
        _path,
        None,
        "FILE",
        "a file only you can read that holds the password",
    ),
    Option(
        "password_command",
        "password_command",
        _text,
        None,
        "COMMAND",
        "a command whose first line is the password",
    ),
    Option(
        "auth",
        "auth",
        _choice("auto", "basic", "digest", "ntlm", "negotiate", "bearer", "none"),
        "auto",
        "SCHEME",
        "auto (the strongest the server offers), basic, digest, ntlm, negotiate, bearer or none",
    ),
    Option(
        "token_file",
        "token_file",
        _path,
        None,
        "FILE",
        "a file only you can read that holds a bearer token; read again when the token expires",
    ),
    Option(
        "token_command",
        "token_command",
        _text,
        None,
        "COMMAND",
        "a command that prints a bearer token; run again when the token expires",
    ),
    Option(
        "allow_plaintext_auth",
        "allow_plaintext_auth",
        _flag,
        "no",
        "",
        "send the password over plain http to another machine (anyone on the way can read it)",
    ),
    Option(
        "cacert", "cacert", _path, None, "FILE", "trust the certificates in this PEM file", "the system's"
    ),
    Option(
        "pin_sha256",
        "pin_sha256",
        _fingerprint,
        None,
        "HEX",
        "accept exactly the server certificate with this SHA-256 fingerprint, whoever signed it",
    ),
    Option(
        "client_cert",
        "client_cert",
        _path,
        None,
        "FILE",
        "show this certificate to the server: PEM with its private key, or PKCS#12",
    ),
    Option(
        "client_cert_password_file",
        "client_cert_password_file",
        _path,
        None,
        "FILE",
        "a file only you can read that holds the password of client_cert",
    ),
    Option(
        "cache_dir",
        "cache_dir",
        _path,
        None,
        "DIR",
        "where contents and unsent changes are kept; each share gets its own folder in it",
        "~/.cache/davfs, for root /var/cache/davfs",
    ),
    Option(
        "cache_size", "cache_size_bytes", _size, "10G", "SIZE", "how much of the disk the contents may take"
    ),
    Option(
        "attr_timeout",
        "attr_timeout_max_s",
        _seconds(0, 86400),
        "60",
        "SECONDS",
        "believe names and attributes that have long been still for so long",
    ),
    Option(
        "attr_timeout_min",
        "attr_timeout_min_s",
        _seconds(0, 86400),
        None,
        "SECONDS",
        "the same for what has changed lately",
        "3, or attr_timeout if that is less",
    ),
    Option(
        "write_back",
        "write_back_s",
        _seconds(0, 3600),
        "0.2",
        "SECONDS",
        "wait so long after the last close before a file is sent, 0.3 s more while programs write; up to 1 s,"
        " new files over 32 MiB and what was renamed over a file need not",
    ),
    Option(
        "close",
        "close_sync",
        _close,
        "async",
        "WHEN",
        "async: close returns at once; sync: when the server has the file",
    ),
    Option(
        "lock",
        "lock",
        _choice("auto", "always", "never"),
        "auto",
        "WHEN",
        "auto: lock on the server what stays open for writing; always: at open, which fails while"
        " somebody else holds the lock; never",
    ),
    Option(
        "partial_put",
        "partial_put",
        _partial_put,
        "never",
        "WHEN",
        "auto: of a large file send only what changed, where a try on the server shows that it can;"
        " the server then copies the file for each update; never: always the whole file",
    ),
    Option(
        "symlinks",
        "symlinks",
        _symlinks,
        "auto",
        "WHEN",
        "auto: where the server keeps properties, a small file whose property holds the target; never: links"
        " are not made, and those that others made are small files",
    ),
    Option(
        "mtime",
        "mtime",
        _choice("auto", "properties", "local"),
        "auto",
        "HOW",
        "times that programs set are kept here, and: auto: on servers that can set the time of a file;"
        " properties: on all others that keep properties too, one request for each; local: with uploads only",
    ),
    Option("uid", "uid", _account("user"), None, "USER", "the owner of all files", "who mounts"),
    Option("gid", "gid", _account("group"), None, "GROUP", "the group of all files", "of who mounts"),
    Option(
        "umask",
        "umask",
        _octal,
        None,
        "OCTAL",
        "the permissions that files and folders do not have",
        "022, and programs decide for what they create",
    ),
    Option("ro", "read_only", _flag, "no", "", "change nothing on the server (rw: the opposite)"),
    Option("allow_other", "allow_other", _flag, "no", "", "let other users of this machine use the drive"),
    Option("allow_root", "allow_root", _flag, "no", "", "let root use the drive"),
    Option("nonempty", "nonempty", _flag, "no", "", "mount over a folder that is not empty"),
    Option(
        "timeout",
        "timeout_s",
        _seconds(0.1, 3600),
        "30",
        "SECONDS",
        "how long the server may keep a program waiting",
    ),
    Option(
        "drain_timeout",
        "drain_timeout_s",
        _seconds(0, 86400),
        "60",
        "SECONDS",
        "at SIGTERM or Ctrl-C, send for no longer than this; systemd kills after TimeoutStopSec=90",
    ),
    Option(
        "offline",
        "offline_ok",
        _offline,
        "no",
        "WHEN",
        "ok: mount although the server is away, with what the cache holds; no: fail",
    ),
    Option(
        "notify",
        "notify",
        _notify,
        "auto",
        "WHEN",
        "auto: tell the desktop, where there is one, of conflict copies and of what the server refused;"
        " never",
    ),
    Option("connections", "connections", _integer(1, 64), "16", "COUNT", "transfers at the same time"),
    Option(
        "limit_up",
        "limit_up_bytes_per_s",
        _rate,
        None,
        "SIZE",
        "send no more of files than this in a second, all uploads together",
        "no limit",
    ),
    Option(
        "limit_down",
        "limit_down_bytes_per_s",
        _rate,
        None,
        "SIZE",
        "fetch no more of files than this in a second, all downloads together; listings are not held up",
        "no limit",
    ),
    Option(
        "log_level",
        "log_level",
        _choice("debug", "info", "warning", "error"),
        "warning",
        "LEVEL",
        "debug, info, warning or error",
    ),
    Option(
        "log_file",
        "log_file",
        _path,
        None,
        "FILE",
        "where to log",
        "the system log; with --foreground the terminal",
    ),
)

KERNEL_FLAGS: Final = frozenset({"noexec", "nosuid", "nodev", "noatime"})
_KERNEL_OPPOSITES: Final = {"exec": "noexec", "suid": "nosuid", "dev": "nodev", "atime": "noatime"}

# mount(8) and fstab(5) write these for themselves, for systemd or for the kernel's own file systems.
# The helper mount.fuse3 adds `dev,suid` on its own, hence the opposites above.
IGNORED: Final = frozenset(
    {
        "defaults",
        "auto",
        "noauto",
        "user",
        "nouser",
        "users",
        "owner",
        "group",
        "nofail",
        "_netdev",
        "comment",
    }
    | {
        "async",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "lazytime",
        "nolazytime",
        "diratime",
    }
    | {"nodiratime", "iversion", "noiversion", "silent", "loud", "mand", "nomand"}
)
_SAME_AS: Final = {"rw": ("ro", "no"), "sync": ("close", "sync")}
_PASSWORD_WORDS: Final = frozenset({"password", "passwd", "pass", "secret"})
_BY_NAME: Final = {option.name: option for option in OPTIONS}

HOW_TO_GIVE_CREDENTIALS: Final = (
    "give the name as -o username=NAME, the password as password_file=FILE or password_command=COMMAND, "
    "in the environment as DAVFS_PASSWORD, with `davfs login URL`, or at the prompt"
)


# --- -o a=b,c ---------------------------------------------------------------------------------------


def split_options(text: str) -> list[tuple[str, str | None]]:
    r"""`a=b,c,d=x\,y` as pairs; None where no `=` stands. A backslash protects a comma or a backslash."""
    pieces = re.findall(r"(?:\\[\\,]|[^,])+", text)
    return [_pair(re.sub(r"\\([\\,])", r"\1", piece)) for piece in pieces]


def _pair(piece: str) -> tuple[str, str | None]:
    name, equals, value = piece.partition("=")
    return name.strip(), value if equals else None


def join_options(pairs: Iterable[tuple[str, str | None]]) -> str:
    """The inverse of `split_options`."""
    return ",".join(_escaped(name if value is None else f"{name}={value}") for name, value in pairs)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(",", "\\,")


def _read(option: Option, text: str | None, around: Surroundings) -> object:
    if text is None and not option.is_switch:
        raise ConfigError(f"option {option.name!r} needs a value: {option.name}={option.metavar}")
    try:
        return option.read(text or "", around)
    except ValueError as error:
        raise ConfigError(f"option {option.name!r} {error}") from None


def unknown_option(name: str, kind: str, known: Iterable[str]) -> str:
    """What to say of a name that is none of `known`; `kind` is what it should have been."""
    if (
        name.lower() in _PASSWORD_WORDS
    ):  # `ps` and backups show it to others: so it is refused, never repeated
        return f"a password is never given as an {kind}, where others can see it: {HOW_TO_GIVE_CREDENTIALS}"
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "`davfs mount --help` lists them"
    return f"unknown {kind} {name[:40]!r}: {hint}"


def _given(texts: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    for text in texts:
        for name, value in split_options(text):
            if name in _SAME_AS and value is None:
                yield _SAME_AS[name]
            elif name not in IGNORED and not name.lower().startswith("x-"):
                yield name, value


def read_options(texts: Iterable[str], around: Surroundings) -> dict[str, Any]:
    """The Config fields that the texts of all `-o` decide; the last word counts. Raises ConfigError."""
    found = {o.field: None if o.default is None else _read(o, o.default, around) for o in OPTIONS}
    flags: set[str] = set()
    for name, value in _given(texts):
        if name in KERNEL_FLAGS and value is None:
            flags.add(name)
        elif name in _KERNEL_OPPOSITES and value is None:
            flags.discard(_KERNEL_OPPOSITES[name])
        elif name in _BY_NAME:
            found[_BY_NAME[name].field] = _read(_BY_NAME[name], value, around)
        elif name:
            known = [*_BY_NAME, *KERNEL_FLAGS, *IGNORED, *_SAME_AS]
            raise ConfigError(unknown_option(name, "option", known))
    return {**found, "kernel_flags": frozenset(flags)}


def options_help() -> str:
    """The table of options as text, for `davfs mount --help`."""
    return "\n".join(_help_lines(option) for option in OPTIONS)


def _help_lines(option: Option) -> str:
    import textwrap

    head = option.name if option.is_switch else f"{option.name}={option.metavar}"
    lines = textwrap.wrap(option.described, 66)
    return "\n".join([f"  {head:<28}{lines[0]}", *(" " * 30 + line for line in lines[1:])])
