"""The tree of failures, and the only place where a failure becomes an errno.

    DavfsError
    ├── PosixError            the file system itself says no (ENOTEMPTY, EISDIR ...)
    │   └── CacheFull         the cache disk has no room: sending what is unsent makes some
    ├── ConfigError           bad option, bad profile: told at start, never to the kernel
    ├── BadName               a name this share cannot hold (EINVAL, ENAMETOOLONG, EILSEQ)
    ├── LinkError             the server was not reached, or did not answer in time
    │   ├── Unreachable       DNS, refused, TLS: nothing was sent
    │   │   └── LinkDown      known to be so: not even tried
    │   ├── Disconnected      broke midway: the outcome is unknown
    │   └── TimedOut          no answer within the deadline
    ├── ProtocolError         an answer that is not what the RFCs allow, or not WebDAV
    │   └── Garbled           bytes that are not HTTP: may pass
    │       └── Damaged       bytes of another checksum than was told
    ├── StaleVersion          the server's version is not the one this handle has open
    └── ServerRefused         a final status; one sub-class per meaning
        ├── Unauthorized      401, 407
        ├── Forbidden         403, 405, 451; 415 of a file: a kind that it does not take
        │   └── NotDescribed    405 to PROPFIND
        ├── NotThatName       stored, but under another name
        ├── NotFound          404, 410
        ├── AlreadyExists     405 on MKCOL, 412 on Overwrite: F
        ├── ParentMissing     409 where a parent is needed
        ├── PreconditionFailed 412
        ├── TooLarge          413
        ├── UriTooLong        414, 431
        ├── Locked            423, 424; 409 where no parent is needed (SharePoint: checked out)
        ├── Unsupported       501, 505, 415
        ├── Busy              425, 429, 502, 503, 509: a retry may help
        │   ├── NotItsAddress   502 to MOVE, and 400 to a path: Destination is not where it thinks it is
        │   └── ServerTimedOut  408, 504, 522, 524
        ├── NoSpace           507
        └── ServerFailure     500, all other 5xx, and statuses that do not exist (RFC 9110 15)

Each class says which errno a program gets, whether trying the same again later may help
(`retry_helps`), and at which level it is logged. Sources: RFC 9110 section 15, RFC 4918 section 11.

For want of success reading and writing are never EINVAL, EOPNOTSUPP, EROFS, ENOSYS, EAGAIN or EINTR:
programs take the first four from fsync(2) for "this file needs none" and go on (Emacs, dd, systemd), and
repeat the call at the last two. The table per status and verb is docs/ERRORS.md, and
tests/faults/test_status_table.py holds davfs to it.
"""

from __future__ import annotations

import errno
import logging
from typing import ClassVar, Final


class DavfsError(Exception):
    """Base of everything davfs raises on purpose. The text is one line for a person."""

    errno: int = errno.EIO
    retry_helps: ClassVar[bool] = False
    log_level: ClassVar[int] = logging.INFO

    @property
    def outcome_unknown(self) -> bool:
        """Whether the server may have done what was asked all the same: then it has to be looked up."""
        return False


class PosixError(DavfsError):
    """The answer POSIX asks for, decided by davfs itself (no fault of the server)."""

    log_level = logging.DEBUG

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text or errno.errorcode.get(code, str(code)))
        self.errno = code


class CacheFull(PosixError):
    """The cache disk is full of what is not on the server yet: sending that makes room."""

    retry_helps = True


class ConfigError(DavfsError):
    """An option, profile or command line that cannot be used. Exit code 2."""

    errno = errno.EINVAL


class BadName(DavfsError):
    """A name that the share or the protocol cannot hold."""

    errno = errno.EINVAL


class NameTooLong(BadName):
    errno = errno.ENAMETOOLONG


class UnstorableName(BadName):
    """This server does not take it, or would keep it under another name."""

    errno = errno.EILSEQ


class LinkError(DavfsError):
    """The server did not give an answer. What was asked may or may not have happened."""

    errno = errno.EIO
    retry_helps = True
    log_level = logging.WARNING

    @property
    def outcome_unknown(self) -> bool:
        return not isinstance(self, Unreachable)


class Unreachable(LinkError):
    """No connection: unknown host, refused, TLS failure. The request did not reach the server."""

    errno = errno.EHOSTUNREACH


class LinkDown(Unreachable):
    """The server has not answered lately, so this was not even tried; `code` is the errno of the outage.

    Logged once, when the outage begins: programs may ask thousands of times during it.
    """

    log_level = logging.DEBUG

    def __init__(self, text: str = "", *, code: int = errno.EHOSTUNREACH) -> None:
        super().__init__(text)
        self.errno = code


class Disconnected(LinkError):
    """The connection broke after the request was (perhaps) sent: the outcome is unknown."""

    errno = errno.EIO


class TimedOut(LinkError):
    errno = errno.ETIMEDOUT


class ProtocolError(DavfsError):
    """The answer is not HTTP, not XML, not WebDAV, or contradicts itself."""

    errno = errno.EIO
    log_level = logging.WARNING

    @property
    def outcome_unknown(self) -> bool:
        return True


class Garbled(ProtocolError):
    """Bytes that are not HTTP in place of an answer: a broken line or a proxy's hiccup passes."""

    retry_helps = True


class Damaged(Garbled):
    """Bytes that arrived do not have the checksum that was told beside them."""

    @property
    def outcome_unknown(self) -> bool:
        """The server that says so has not stored them."""
        return False


class StaleVersion(DavfsError):
    """The resource changed on the server under an open handle (promise 4: never mix versions)."""

    errno = errno.ESTALE


class ServerRefused(DavfsError):
    """The server answered with a final status other than success."""

    def __init__(self, text: str = "", *, status: int = 0, retry_after_s: float | None = None) -> None:
        super().__init__(text or f"the server answered {status}")
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def outcome_unknown(self) -> bool:
        """A 500 may come after the work was done, a 502 or 504 from a proxy that did not wait for the end.

        202: the server itself does not wait (ownCloud, which goes on joining the parts of a file).
        """
        return self.status == _ACCEPTED or (self.status >= 500 and self.status not in _NOTHING_DONE)


class Unauthorized(ServerRefused):
    errno = errno.EACCES
    log_level = logging.ERROR


class Forbidden(ServerRefused):
    errno = errno.EACCES


class NotDescribed(Forbidden):
    """405 to PROPFIND: a page is served in the folder's place. Somebody has to change that on the server."""

    log_level = logging.WARNING


class NotThatName(ServerRefused):
    """It was stored, but under another name, and is not shown as saved. Not EINVAL: fsync(2) tells it too."""

    errno = errno.EACCES


class NotFound(ServerRefused):
    errno = errno.ENOENT
    log_level = logging.DEBUG


class AlreadyExists(ServerRefused):
    errno = errno.EEXIST
    log_level = logging.DEBUG


class ParentMissing(ServerRefused):
    errno = errno.ENOENT


class PartsLost(ServerRefused):
    """What was never read here of a file is gone on the server; nothing was sent."""


class PreconditionFailed(ServerRefused):
    """412: what we believed of the target is no longer so."""

    errno = errno.ESTALE


class TooLarge(ServerRefused):
    errno = errno.EFBIG


class UriTooLong(ServerRefused):
    errno = errno.ENAMETOOLONG


class Locked(ServerRefused):
    errno = errno.EBUSY


class Unsupported(ServerRefused):
    errno = errno.EOPNOTSUPP


class Busy(ServerRefused):
    """The server, or a proxy before it, says: not now."""

    errno = errno.EBUSY
    retry_helps = True
    log_level = logging.WARNING


class NotItsAddress(Busy):
    """A proxy in front renames the server or ends TLS, and leaves Destination as it is: nothing was done."""

    @property
    def outcome_unknown(self) -> bool:
        return False


class ServerTimedOut(Busy):
    """The server gave up waiting: for us (408), or a proxy for the server behind it."""

    errno = errno.ETIMEDOUT


class NoSpace(ServerRefused):
    errno = errno.ENOSPC
    log_level = logging.WARNING


class ServerFailure(ServerRefused):
    errno = errno.EIO
    retry_helps = True
    log_level = logging.WARNING


_ACCEPTED: Final = 202
_NOTHING_DONE: Final = frozenset({501, 503, 505, 507})
_BY_STATUS: dict[int, type[ServerRefused]] = {
    401: Unauthorized,
    407: Unauthorized,
    403: Forbidden,
    405: Forbidden,
    451: Forbidden,
    404: NotFound,
    410: NotFound,
    409: Locked,
    412: PreconditionFailed,
    413: TooLarge,
    414: UriTooLong,
    415: Unsupported,
    431: UriTooLong,  # the longest header we send is Destination
    423: Locked,
    424: Locked,
    501: Unsupported,
    505: Unsupported,
    408: ServerTimedOut,
    504: ServerTimedOut,
    522: ServerTimedOut,  # these two from Cloudflare
    524: ServerTimedOut,
    425: Busy,
    429: Busy,
    502: Busy,
    503: Busy,
    509: Busy,  # bandwidth limit exceeded, of hosting firms
    507: NoSpace,
}
_BY_VERB: dict[tuple[str, int], type[ServerRefused]] = {
    ("PROPFIND", 405): NotDescribed,
    ("MKCOL", 405): AlreadyExists,  # RFC 4918 9.3.1: the name is taken
    ("PUT", 415): Forbidden,
    ("GET", 415): Forbidden,
    **{(verb, 409): ParentMissing for verb in ("PUT", "MKCOL", "MOVE", "COPY", "LOCK")},
    **{(verb, status): ServerRefused for verb in ("GET", "PUT") for status in (501, 505)},
}


def as_davfs_error(error: Exception) -> DavfsError:
    """For the edges of background tasks: a failure nobody foresaw, logged with its traceback, becomes EIO."""
    if isinstance(error, DavfsError):
        return error
    logging.getLogger("davfs").error("unexpected %s", type(error).__name__, exc_info=error)
    if isinstance(error, OSError) and error.errno:
        return PosixError(error.errno, str(error))
    return DavfsError(f"unexpected {type(error).__name__}: {error}")


def refused(method: str, status: int, where: str, *, retry_after_s: float | None = None) -> ServerRefused:
    """The error for a final `status` answered to `method` on `where` (a path, for the message)."""
    cls = _BY_VERB.get((method, status)) or _BY_STATUS.get(status)
    if cls is None:
        cls = ServerFailure if status >= 500 else ServerRefused
    return cls(f"{method} {where}: the server answered {status}", status=status, retry_after_s=retry_after_s)
