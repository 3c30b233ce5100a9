"""The control socket: how `davfs status`, `sync` and `unmount` talk to the daemon of one mount.

A unix stream socket; one JSON object a line, both ways:

    -> {"command": "sync", "timeout_s": 5}
    <- {"ok": true, "result": {"left": 0}}        or        {"ok": false, "error": "one line"}

The socket's name is made from the mount point's path alone, so that a client finds it without touching the
mount (a hung mount must not hang the command that looks at it). It stands in a folder of mode 0700 that
belongs to the user who mounted, and both ends check who the other is (SO_PEERCRED): only that user and root
are served. Lines are bounded; what is not a request gets an error answer and never ends the daemon.

The server is async (trio, in the daemon); the client is plain and blocking, with a deadline on every call.
trio is imported where the server starts, so that the client commands need not pay for it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import stat
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from davfs.errors import DavfsError
from davfs.exitcodes import CommandFailed, NoDaemon

if TYPE_CHECKING:
    import trio

MAX_LINE_BYTES: Final = 64 * 1024  # of a request
MAX_ANSWER_BYTES: Final = 64 * 2**20  # a status with 100,000 pending files is some 20 MB
_REQUEST_WITHIN_S: Final = 60.0  # a connection that says nothing is closed
_MAX_SOCKET_PATH: Final = 100  # sun_path holds 108 bytes (unix(7))
_PEER: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """A result that comes with an open file (SCM_RIGHTS); the descriptor is closed here when it is sent."""

    result: Mapping[str, object]
    fd: int


Handler = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, object] | FileAnswer]]


# --- where the socket stands ------------------------------------------------------------------------


def socket_path(mountpoint: str, uid: int, environ: Mapping[str, str]) -> Path:
    """Where the daemon of user `uid` listens for `mountpoint` (resolved: see mountpoint.resolved).

    The folder is made, private to the user. Raises CommandFailed when there is no place for it.
    """
    folders = _folders(uid, environ)
    usable = next((folder for folder in folders if _made_private(folder, uid)), None)
    if usable is None:
        raise CommandFailed(
            f"{folders[-1]} must be a folder of this user alone (mode 0700): remove what is there"
        )
    return usable / _socket_name(mountpoint)


def socket_candidates(mountpoint: str, owner_uid: int, environ: Mapping[str, str]) -> list[Path]:
    """Where it may be: cron, sudo and ssh give the same user different environments."""
    return [folder / _socket_name(mountpoint) for folder in _folders(owner_uid, environ)]


def _socket_name(mountpoint: str) -> str:
    return hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:32] + ".sock"


def _folders(uid: int, environ: Mapping[str, str]) -> list[Path]:
    fallback = Path(f"/tmp/davfs-{uid}")  # noqa: S108 - ownership and mode are verified on both ends
    if uid == 0:
        return [Path("/run/davfs"), fallback]
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    given = [Path(runtime, "davfs")] if runtime.startswith("/") and uid == os.geteuid() else []
    usual = Path(f"/run/user/{uid}")
    login = [usual / "davfs"] if usual.is_dir() else []
    short = [folder for folder in given + login if len(os.fsencode(folder)) + 38 < _MAX_SOCKET_PATH]
    return [*dict.fromkeys(short), fallback]


def _made_private(folder: Path, uid: int) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return _is_private(folder, uid)


def _is_private(folder: Path, uid: int) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077


# --- the server -------------------------------------------------------------------------------------


async def serve_control(
    path: Path,
    handlers: Mapping[str, Handler],
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """Answers requests at `path` until cancelled; the socket is removed then.

    A handler gets the request's object and returns the result; a DavfsError becomes an error answer.
    """
    import trio

    listener, identity = _listen(path)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, lambda stream: _converse(stream, handlers), [listener])
            task_status.started()
    finally:
        _remove(path, identity)


def _listen(path: Path) -> tuple[trio.SocketListener, os.stat_result]:
    import trio

    if not _made_private(path.parent, os.geteuid()):
        raise CommandFailed(f"{path.parent} must be a folder of this user alone (mode 0700)")
    if _answers(path):
        raise CommandFailed("another davfs daemon already serves this mount point")
    path.unlink(missing_ok=True)
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        plain.bind(os.fsencode(path))
        path.chmod(0o600)
        plain.listen(16)
        return trio.SocketListener(trio.socket.from_stdlib_socket(plain)), path.lstat()
    except BaseException:
        plain.close()
        raise


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fsencode(path))
        except TimeoutError:
            return True  # it listens, and is busy
        except OSError:
            return False
        return True


def _remove(path: Path, identity: os.stat_result) -> None:
    try:
        if os.path.samestat(path.lstat(), identity):  # never another daemon's
            path.unlink()
    except OSError:
        _log.debug("the control socket was gone already")


async def _converse(stream: trio.SocketStream, handlers: Mapping[str, Handler]) -> None:
    import trio

    async with stream:
        if _peer(stream.socket)[1] not in {0, os.geteuid()}:
            return
        try:
            await _answer_all(stream, handlers)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            _log.debug("a control client left before its answer")


async def _answer_all(stream: trio.SocketStream, handlers: Mapping[str, Handler]) -> None:
    import trio

    buffer = bytearray()
    while True:
        line: bytes | None = None
        with trio.move_on_after(_REQUEST_WITHIN_S):
            line = await _next_line(stream, buffer)
        if line is None:
            return
        await _send(stream, await _answer(line, handlers))
        if len(line) > MAX_LINE_BYTES:  # where the next request starts is not known
            return


async def _send(stream: trio.SocketStream, answer: dict[str, object] | FileAnswer) -> None:
    if not isinstance(answer, FileAnswer):
        await stream.send_all(_encoded(answer))
        return
    line = _encoded({"ok": True, "result": dict(answer.result)})
    try:  # the descriptor travels with the first bytes
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", answer.fd))]
        sent = await stream.socket.sendmsg([line], rights)
    finally:
        os.close(answer.fd)
    await stream.send_all(line[sent:])


async def _next_line(stream: trio.SocketStream, buffer: bytearray) -> bytes | None:
    """The next line; None at the end; everything there is, without its end, when it is too long."""
    while b"\n" not in buffer and len(buffer) <= MAX_LINE_BYTES:
        piece = await stream.receive_some(MAX_LINE_BYTES)
        if not piece:
            return None
        buffer += piece
    line, _, rest = bytes(buffer).partition(b"\n")
    buffer[:] = rest
    return line


async def _answer(line: bytes, handlers: Mapping[str, Handler]) -> dict[str, object] | FileAnswer:
    try:
        request = _parse_request(line)
        handler = handlers.get(str(request.get("command")))
        if handler is None:
            raise CommandFailed("unknown command: this daemon may be of another version")
        result = await handler(request)
        return result if isinstance(result, FileAnswer) else {"ok": True, "result": dict(result)}
    except DavfsError as error:
        return {"ok": False, "error": str(error)}
    except Exception:  # one bad answer must not end the mount  # noqa: BLE001
        _log.exception("a control command failed")
        return {"ok": False, "error": "internal error: see the log"}


def _parse_request(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise CommandFailed("the request is too long")
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise CommandFailed("the request is not JSON") from None
    if not isinstance(request, dict):
        raise CommandFailed("the request is not a JSON object")
    return request


def _encoded(message: Mapping[str, object]) -> bytes:
    # ASCII only: file names may hold surrogates, which UTF-8 cannot carry.
    return json.dumps(message, default=str).encode("ascii") + b"\n"


def _peer(connection: Any) -> tuple[int, int]:
    """pid and uid at the other end."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    pid, uid, _ = _PEER.unpack(packed)
    return pid, uid


def requested_timeout_s(request: Mapping[str, Any]) -> float | None:
    """`timeout_s` of a request: seconds, or None for as long as it takes."""
    value = request.get("timeout_s")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise CommandFailed("timeout_s must be a number of seconds")
    return float(value)


# --- the client -------------------------------------------------------------------------------------


class ControlClient:
    """One connection to the daemon of a mount. Every call ends within its time-out."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()
        self._files: list[int] = []  # descriptors that came and were not taken yet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._socket.close()
        while self._files:
            os.close(self._files.pop())

    def close(self) -> None:
        self.__exit__()

    @property
    def peer_pid(self) -> int:
        """The daemon's process; 0 when it lives in another PID namespace."""
        return _peer(self._socket)[0]

    def ask(self, command: str, *, within_s: float = 5.0, **arguments: object) -> dict[str, Any]:
        """The result of `command`; NoDaemon when nothing comes in time, CommandFailed when it says no."""
        self.send(command, **arguments)
        result = self.answer(within_s=within_s)
        if result is None:
            raise NoDaemon(f"the daemon did not answer within {within_s:g} s")
        return result

    def ask_for_file(
        self, command: str, *, within_s: float = 5.0, **arguments: object
    ) -> tuple[dict[str, Any], int]:
        """The result, and the descriptor that came with it: the caller closes it."""
        result = self.ask(command, within_s=within_s, **arguments)
        if not self._files:
            raise NoDaemon("the daemon's answer makes no sense")
        return result, self._files.pop()

    def send(self, command: str, **arguments: object) -> None:
        try:
            self._socket.sendall(_encoded({"command": command, **arguments}))
        except OSError:
            raise NoDaemon("the daemon ended or hangs") from None

    def answer(self, *, within_s: float) -> dict[str, Any] | None:
        """The result of what was sent; None when it is not there within the time (ask again later)."""
        deadline = time.monotonic() + within_s
        while b"\n" not in self._buffer:
            piece = self._receive(deadline - time.monotonic())
            if piece is None:
                return None
            self._buffer += piece
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer[:] = rest
        return _result(line)

    def _receive(self, within_s: float) -> bytes | None:
        if within_s <= 0 and self._buffer:
            return None
        self._socket.settimeout(max(within_s, 0.001))
        try:
            piece, files, _, _ = socket.recv_fds(self._socket, 2**20, 1, socket.MSG_CMSG_CLOEXEC)
            self._files += files
        except TimeoutError:
            return None
        except OSError:
            piece = b""
        if not piece:
            raise NoDaemon("the daemon ended before it answered")
        if len(self._buffer) > MAX_ANSWER_BYTES:
            raise NoDaemon("the daemon's answer has no end")
        return piece


def _result(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
        ok, content = message["ok"], message.get("result") or {}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise NoDaemon("the daemon's answer makes no sense") from None
    if not ok:
        raise CommandFailed(str(message.get("error", "the daemon refused")))
    if not isinstance(content, dict):
        raise NoDaemon("the daemon's answer makes no sense")
    return content


def connect(
    mountpoint: str, owner_uid: int, environ: Mapping[str, str], *, within_s: float = 5.0
) -> ControlClient:
    """A connection to the daemon that user `owner_uid` runs for `mountpoint` (resolved). Raises NoDaemon."""
    for path in socket_candidates(mountpoint, owner_uid, environ):
        connection = _connected(path, owner_uid, within_s)
        if connection is not None:
            return ControlClient(connection)
    if os.geteuid() not in {0, owner_uid}:
        raise NoDaemon(f"{mountpoint} was mounted by another user (uid {owner_uid})")
    raise NoDaemon(
        f"no daemon answers for {mountpoint}: it ended or was killed. "
        f"`fusermount3 -u {mountpoint}` cleans up; what was not sent is sent at the next mount"
    )


def _connected(path: Path, owner_uid: int, within_s: float) -> socket.socket | None:
    if not _is_private(path.parent, owner_uid):
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(within_s)
    try:
        connection.connect(os.fsencode(path))
        if _peer(connection)[1] == owner_uid:
            return connection
    except OSError:
        _log.debug("nothing listens at %s", path)
    connection.close()
    return None
