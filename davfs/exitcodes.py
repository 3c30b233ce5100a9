"""The exit codes of the `davfs` command, in one table, and which failure ends in which.

Scripts and systemd units act on these numbers: they never change their meaning. The text for
`davfs --help` is made from the same table. The failures below are those of the command line itself;
what the server or the wire did is told by the tree in errors.py and translated in `exit_code_for`.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import ClassVar

from davfs.errors import (
    ConfigError,
    DavfsError,
    Forbidden,
    LinkError,
    NotFound,
    ProtocolError,
    ServerRefused,
    Unauthorized,
    Unsupported,
)


class Exit(IntEnum):
    """What the caller is told, with the line that `davfs --help` shows."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Exit:
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    OK = 0, "done"
    FAILURE = 1, "anything else"
    USAGE = 2, "wrong usage, or an option that cannot be used"
    MOUNTPOINT = 3, "the mount point is missing, not a folder, not empty, in use or mounted already"
    FUSE = 4, "FUSE cannot be used: no /dev/fuse, no fusermount3, or no permission"
    UNREACHABLE = 5, "the server was not reached, or did not answer in time"
    TLS = 6, "no trusted connection: the certificate or the TLS handshake failed"
    AUTHENTICATION = 7, "the server refused the credentials (401), or this user (403)"
    NOT_WEBDAV = 8, "no WebDAV folder at this address"
    UNSENT = 9, "something is not on the server yet; nothing is lost"
    NO_DAEMON = 10, "not a davfs mount, or its daemon does not answer"


class CommandFailed(DavfsError):
    """A command could not do what was asked for, for a reason on this machine."""

    exit_code: ClassVar[Exit] = Exit.FAILURE


class MountPointError(CommandFailed):
    exit_code = Exit.MOUNTPOINT


class FuseUnavailable(CommandFailed):
    exit_code = Exit.FUSE


class Unsent(CommandFailed):
    """Something is not on the server; `details` are further lines that say what, and where it is kept."""

    exit_code = Exit.UNSENT

    def __init__(self, text: str, details: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.details = details


class NoDaemon(CommandFailed):
    exit_code = Exit.NO_DAEMON


class DaemonFailed(CommandFailed):
    """What the background process said before it ended: its line and its code, passed on."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def exit_code_for(error: BaseException) -> int:
    """The exit code for what ended a command."""
    cause = root_failure(error)
    match cause:
        case DaemonFailed():
            return cause.code
        case CommandFailed():
            return cause.exit_code
        case ConfigError():
            return Exit.USAGE
        case KeyboardInterrupt():
            return 130  # 128 + SIGINT, as shells count
    return _server_code(cause)


def _server_code(cause: BaseException) -> Exit:
    if any(isinstance(each, ssl.SSLError) for each in _chain(cause)):
        return Exit.TLS
    if isinstance(cause, LinkError):
        return Exit.UNREACHABLE
    if isinstance(cause, NotFound | ProtocolError | Unsupported):
        return Exit.NOT_WEBDAV
    if (
        isinstance(cause, ServerRefused) and cause.status == 405
    ):  # PROPFIND unknown: a web server without WebDAV
        return Exit.NOT_WEBDAV
    return Exit.AUTHENTICATION if isinstance(cause, Unauthorized | Forbidden) else Exit.FAILURE


def root_failure(error: BaseException) -> BaseException:
    """The failure that counts in what trio's nurseries raise: the first one of davfs, else the first."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    inner = [root_failure(each) for each in error.exceptions]
    return next((each for each in inner if isinstance(each, DavfsError)), inner[0])


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def table() -> str:
    """The codes as text, for `davfs --help`."""
    return "\n".join(f"  {code.value:>2}  {code.meaning}" for code in Exit)
