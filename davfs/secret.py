"""The one type that holds a password or a token, and the file that only its owner may read.

A secret never stands in argv, a log, a traceback or a message: it travels as `Secret`, whose repr and
str are stars, and every error here tells the cause without the content.
"""

from __future__ import annotations

import hmac
import os
import shlex
import stat
from pathlib import Path
from typing import Final

from davfs.errors import ConfigError

MAX_BYTES: Final = 64 * 1024  # bearer tokens run to kilobytes; no password needs more


class Secret:
    """A password or a token. Only `reveal` gives it away; printing, logging and pickling do not."""

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


def read_private(path: Path, what: str) -> Secret:
    """The content of a file that nobody else can read, without the line end. `what` begins the error."""
    try:
        # O_NONBLOCK: opening a FIFO must not hang the mount.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"{what} {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        check_private(path, os.fstat(descriptor), what)
        content = file.read(MAX_BYTES + 1)
    return decoded(content, f"{what} {path}")


def check_private(path: Path, found: os.stat_result, what: str) -> None:
    """ConfigError unless `found`, the status of `path`, is that of a file of this user (or root) alone."""
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{what} {path} is not a regular file")
    if found.st_mode & 0o077:
        raise ConfigError(f"{what} {path} can be read by others: chmod 600 {shlex.quote(str(path))}")
    if found.st_uid not in {0, os.geteuid()}:
        raise ConfigError(f"{what} {path} belongs to another user")


def decoded(content: bytes, source: str) -> Secret:
    """`content` without one line end. ConfigError when it is empty, far too long or no UTF-8."""
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{source}: too long for a password")
    text = content.removesuffix(b"\n").removesuffix(b"\r")
    if not text:
        raise ConfigError(f"{source}: it is empty")
    try:
        return Secret(text.decode("utf-8"))
    except UnicodeDecodeError:  # `from None`: the exception would carry the bytes
        raise ConfigError(f"{source}: it is not UTF-8 text") from None
