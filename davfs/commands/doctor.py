"""`davfs doctor`: a report to attach to a bug: versions, machine, options, status, the last log lines.

It goes to standard output and nowhere else. No password, token or command that gives one is ever in it;
names of files, hosts and users only with --full. What is left out is decided in `redaction`.
"""

from __future__ import annotations

import ast
import getpass
import json
import os
import platform
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import davfs
from davfs import mountpoint
from davfs.commands.drain import connect, find_mount
from davfs.commands.redaction import Redaction, without_credentials, words_of
from davfs.commands.status import unanswered
from davfs.commands.words import clean
from davfs.exitcodes import CommandFailed, Exit, NoDaemon

LIBRARIES: Final = (
    *("pyfuse3", "trio", "httpx", "httptools", "lxml"),
    *("cachetools", "cryptography", "pyspnego", "rich", "keyring"),
)
LOG_LINES: Final = 60
_LOG_BYTES: Final = 64 * 1024
_COMMAND_S: Final = 10.0
# What OpenSSL and the resolver say, beyond the texts of errno.
_OTHER_WORDS: Final = (
    "certificate verify failed self signed unable to get local issuer expired hostname mismatch is not valid"
    " for unknown host name or service not known Traceback most recent call last handshake failure"
)
_ABOUT: Final = (
    "# davfs doctor: read this before you send it. Names of files, hosts and users are left out.\n",
    "# davfs doctor --full: this names files, hosts and users. Passwords and tokens are left out.\n",
)

Answer = Mapping[str, Any]


def doctor(where: str | None, *, full: bool) -> int:
    """The command: of one mount, or of all, also of those whose daemon does not answer."""
    mounts = [find_mount(where)] if where is not None else mountpoint.davfs_mounts()
    told = [_asked(mount) for mount in mounts]
    redaction = None if full else Redaction(private_names(told), _own_words())
    sys.stdout.write(report(machine(), told, [_log_of(each) for each in told], redaction))
    return Exit.OK


def _asked(mount: mountpoint.Mount) -> dict[str, Any]:
    """The status, with `settings`: options and what the server announced."""
    try:
        with connect(mount) as client:
            status = client.ask("status")
            with suppress(CommandFailed):  # a daemon of an older version
                status["settings"] = client.ask("settings")
            return status
    except (NoDaemon, CommandFailed) as error:
        return unanswered(mount, error)


# --- the report -------------------------------------------------------------------------------------


def report(
    about: Mapping[str, str],
    answers: Sequence[Answer],
    logs: Sequence[Sequence[str]],
    redaction: Redaction | None,
) -> str:
    """`redaction` None: in full."""
    parts = [_section("machine", (f"{key}: {value}" for key, value in about.items()))]
    for number, (answer, log) in enumerate(zip(answers, logs, strict=True), 1):
        told = answer if redaction is None else redaction.answer(answer)
        lines = [without_credentials(each) if redaction is None else redaction.log_line(each) for each in log]
        body = json.dumps(told, indent=1, default=str, ensure_ascii=redaction is None)
        parts.append(_section(f"mount {number}", body.split("\n")))
        parts.append(_section(f"log of mount {number}", lines or ["(none to be found)"]))
    if not answers:
        parts.append(_section("mounts", ["none"]))
    text = "".join(parts)
    return _ABOUT[redaction is None] + (text if redaction is None else redaction.text(text))


def _section(title: str, lines: Iterator[str] | Sequence[str]) -> str:
    return f"\n== {title}\n" + "".join(f"{clean(each)}\n" for each in lines)


def private_names(answers: Sequence[Answer]) -> list[str]:
    """What must not be in a report even where nobody expects it."""
    from urllib.parse import unquote, urlsplit

    names = [socket.gethostname(), os.environ.get("HOME", ""), _login_name()]
    for answer in answers:
        names += [str(answer.get("mountpoint") or ""), str(answer.get("user") or "")]
        parts = urlsplit(str(answer.get("url") or ""))
        names += [parts.hostname or "", parts.path.strip("/"), unquote(parts.path.strip("/"))]
        settings = answer.get("settings")
        options = settings.get("options") if isinstance(settings, Mapping) else None
        given = {**options, "url": None} if isinstance(options, Mapping) else {}
        names += [value for value in given.values() if isinstance(value, str) and "/" in value]
    public = {"", "/", "root", "/root", "localhost", "dav", "webdav", "davfs"}
    return [name for name in names if name not in public]


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's made-up uid
        return ""


def _own_words() -> frozenset[str]:
    """From the texts in davfs's own code, and the messages of the system."""
    texts = [os.strerror(number) for number in range(1, 134)]
    for path in Path(davfs.__file__).parent.rglob("*.py"):
        texts += _texts_in(ast.parse(path.read_bytes()))
    return words_of([*texts, _OTHER_WORDS])


def _texts_in(tree: ast.AST) -> Iterator[str]:
    """The texts that a module may print: all but its docstrings."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


# --- the machine ------------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """Versions and what of the machine matters to a mount."""
    return {
        "davfs": davfs.__version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "libraries": ", ".join(f"{name} {_version(name)}" for name in LIBRARIES),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "?") if _has_os_release() else "?",
        "fusermount3": _said(["fusermount3", "--version"]) or "missing",
        "/dev/fuse": "usable" if os.access("/dev/fuse", os.R_OK | os.W_OK) else "not usable",
        "user_allow_other": _yes(_has_line("/etc/fuse.conf", "user_allow_other")),
        "systemd": _yes(Path("/run/systemd/system").exists()),
        "root": _yes(os.geteuid() == 0),
        "open files": " of ".join(str(each) for each in resource.getrlimit(resource.RLIMIT_NOFILE)),
        "encoding": sys.getfilesystemencoding(),
    }


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _has_os_release() -> bool:
    return any(Path(path).exists() for path in ("/etc/os-release", "/usr/lib/os-release"))


def _has_line(path: str, wanted: str) -> bool:
    try:
        return wanted in Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return False


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_COMMAND_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


# --- the log ----------------------------------------------------------------------------------------


def _log_of(answer: Answer) -> list[str]:
    """The last lines, from the mount's log file or the journal; none where neither can be read."""
    settings = answer.get("settings")
    options = settings.get("options") if isinstance(settings, Mapping) else None
    log_file = options.get("log_file") if isinstance(options, Mapping) else None
    if log_file:
        return _last_lines(str(log_file))
    if "pid" not in answer:
        return []
    question = ["journalctl", "-q", "--no-pager", "-o", "short-iso", "-n", str(LOG_LINES)]
    return _said([*question, f"_PID={answer['pid']}"]).splitlines()


def _last_lines(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []
