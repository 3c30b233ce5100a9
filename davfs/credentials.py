"""Where the password comes from, and the one type that holds it.

Sources, the first that is there: `password_file`, `password_command`, the environment variable
DAVFS_PASSWORD, a prompt if somebody sits at a terminal. Runs before the process goes to the background,
because only then is there a terminal.

A password never stands in argv, in a log, in a traceback or in a message: it travels as `Secret`, whose
repr and str are stars, and every error here tells the cause without the content. DAVFS_PASSWORD is taken
out of the environment when read, so that no child process inherits it.
"""

from __future__ import annotations

import getpass
import hmac
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from davfs.config import Config
from davfs.errors import ConfigError
from davfs.options import HOW_TO_GIVE_CREDENTIALS

ENVIRONMENT_NAME: Final = "DAVFS_PASSWORD"
COMMAND_TIMEOUT_S: Final = 30.0
_MAX_BYTES: Final = (
    64 * 1024
)  # bearer tokens and Kerberos-like secrets run to kilobytes; no password needs more


class Secret:
    """A password. Only `reveal` gives it away; printing, logging and pickling do not."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        return self.__text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_bytes(self.reveal()), _bytes(other.reveal()))

    __hash__ = None  # type: ignore[assignment]  # a hash in a repr or a dict key would say something about it

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not written anywhere")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def password_for(config: Config, environ: MutableMapping[str, str] | None = None) -> Secret | None:
    """The password that goes with the config's user name; None when there is no user name.

    Raises ConfigError when a source fails, or when there is none and nobody to ask.
    """
    given = (os.environ if environ is None else environ).pop(ENVIRONMENT_NAME, None)
    if config.username is None:
        return None
    if config.password_file is not None:
        return from_file(Path(config.password_file))
    if config.password_command is not None:
        return from_command(config.password_command)
    return Secret(given) if given is not None else from_prompt(config)


def from_file(path: Path) -> Secret:
    """The content of a file that nobody else can read, without the line end."""
    try:
        # O_NONBLOCK: opening a FIFO must not hang the mount.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"password_file {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        _check_private(path, os.fstat(descriptor))
        content = file.read(_MAX_BYTES + 1)
    return _decoded(content, f"password_file {path}")


def _check_private(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"password_file {path} is not a regular file")
    if found.st_mode & 0o077:
        raise ConfigError(f"password_file {path} can be read by others: chmod 600 {shlex.quote(str(path))}")
    if found.st_uid not in {0, os.geteuid()}:
        raise ConfigError(f"password_file {path} belongs to another user")


def _decoded(content: bytes, source: str) -> Secret:
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{source}: too long for a password")
    text = content.removesuffix(b"\n").removesuffix(b"\r")
    if not text:
        raise ConfigError(f"{source}: it is empty")
    try:
        return Secret(text.decode("utf-8"))
    except UnicodeDecodeError:  # `from None`: the exception would carry the bytes
        raise ConfigError(f"{source}: it is not UTF-8 text") from None


def from_command(command: str, *, timeout_s: float = COMMAND_TIMEOUT_S) -> Secret:
    """The first line that `command` prints. Its own messages and questions go to the terminal."""
    try:
        argv = shlex.split(command)
    except ValueError:
        raise ConfigError("password_command: a quotation mark is not closed") from None
    if not argv:
        raise ConfigError("password_command is empty")
    first_line, separator, _ = _output_of(argv, timeout_s).partition(b"\n")
    return _decoded(first_line + separator, "the output of password_command")


def _output_of(argv: list[str], timeout_s: float) -> bytes:
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"password_command gave no answer within {timeout_s:g} s") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it cannot be run"
        raise ConfigError(f"password_command: {reason}") from None
    if done.returncode:
        raise ConfigError(f"password_command failed (exit status {done.returncode})")
    return done.stdout


def from_prompt(config: Config) -> Secret:
    """Asks at the terminal; ConfigError when there is none."""
    where = f"{config.username} at {urlsplit(config.url).hostname}"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError(f"no password for {where}: {HOW_TO_GIVE_CREDENTIALS}")
    try:
        return Secret(getpass.getpass(f"Password for {where}: ", stream=sys.stderr))
    except EOFError:
        raise ConfigError(f"no password given for {where}") from None
