"""Where log lines go: the terminal, a file, or the system log when the daemon has neither.

Only davfs's own loggers follow `log_level`; libraries speak from WARNING up, because httpx and httpcore would
log every request and its headers. Control characters in a message (a file name may hold any) are escaped:
one event is one line, and no name can move the cursor of whoever reads the log.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
from pathlib import Path
from typing import Final

from davfs.errors import ConfigError

_SYSLOG: Final = Path("/dev/log")
_WITH_TIME: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_BARE: Final = "davfs[%(process)d]: %(levelname)s %(name)s: %(message)s"


class _OneLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))


def printable(text: str) -> str:
    """`text` with everything that is no visible character written as an escape."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def open_log(path: str | None) -> int | None:
    """The descriptor of the log file (0600, appended to), or ConfigError."""
    if path is None:
        return None
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"log_file {path}: {error.strerror}") from None


def start_logging(level: str, handler: logging.Handler) -> None:
    """Sends davfs's own lines from `level` up, and everybody's warnings, to `handler`."""
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("davfs").setLevel(level.upper())
    logging.captureWarnings(True)  # noqa: FBT003 - the standard library's signature


def to_terminal() -> logging.Handler:
    """Standard error: in the background that is the log file."""
    return _formatted(logging.StreamHandler(), _WITH_TIME)


def to_file(descriptor: int) -> logging.Handler:
    stream = os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")
    return _formatted(logging.StreamHandler(stream), _WITH_TIME)


def to_system() -> logging.Handler:
    """The system log, where there is one (containers have none)."""
    if not _SYSLOG.exists():
        return logging.NullHandler()
    facility = logging.handlers.SysLogHandler.LOG_DAEMON
    return _formatted(logging.handlers.SysLogHandler(address=str(_SYSLOG), facility=facility), _BARE)


def _formatted(handler: logging.Handler, layout: str) -> logging.Handler:
    handler.setFormatter(_OneLine(layout))
    return handler
