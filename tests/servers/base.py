"""What every test server has in common: its folder, its life, its request log, and shares within it.

A `Server` is a context manager around one `Child`. A `Share` is a fresh folder of a running server, so that
one server process serves a whole session of tests without one test seeing another's files.

The access log of every server is written in one format, tab-separated:
    request line, Depth, status, bytes in, bytes out, Range
so that request counts can be asserted on the wire's own record and not on what the client believes it sent.
"""

from __future__ import annotations

import abc
import contextlib
import os
import pwd
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlsplit

from tests import leaks
from tests.servers.child import Child, PortTaken, free_port

_SETTLE_S = 0.02
_SETTLE_AT_MOST_S = 10.0  # for a server that always has something to do
_LOG_FIELDS = 6


class MissingPart(Exception):
    """A program that these tests need is not installed. The text says which and where it comes from."""


def program(name: str, package: str) -> str:
    """The full path of a server program; /usr/sbin is not on every user's PATH."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise MissingPart(f"{name} (Debian package {package})")
    return found


def existing(paths: list[str], what: str, package: str) -> Path:
    """The first of `paths` that exists."""
    for path in paths:
        if Path(path).exists():
            return Path(path)
    raise MissingPart(f"{what} (Debian package {package})")


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One line of the access log. `path` is as it stood on the wire.

    `bytes_in` and `bytes_out` include the headers on Apache and nginx, and are bodies alone on WsgiDAV.
    """

    method: str
    path: str
    depth: str | None
    status: int
    bytes_in: int
    bytes_out: int
    byte_range: str | None

    def __str__(self) -> str:
        depth = "" if self.depth is None else f" Depth {self.depth}"
        return f"{self.method} {self.path}{depth} {self.status}"


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _text(field: str) -> str | None:
    return None if field in {"", "-"} else field


def _parsed(line: str) -> LoggedRequest | None:
    fields = line.split("\t")
    words = fields[0].split(" ")
    if len(fields) != _LOG_FIELDS or len(words) < 2:
        return None  # a connection that broke before its request line
    _, depth, status, bytes_in, bytes_out, byte_range = fields
    return LoggedRequest(
        words[0],
        words[1],
        _text(depth),
        _number(status),
        _number(bytes_in),
        _number(bytes_out),
        _text(byte_range),
    )


class Server(abc.ABC):
    """One private server: `url` ends in a slash, `root` is the folder it serves.

    `username` and `password` are None for a server that asks for none.
    """

    name: str
    scheme = "http"

    def __init__(self, *, username: str | None = None, password: str | None = None) -> None:
        self.username = username
        self.password = password
        self.port = 0
        self._child: Child | None = None
        self._shares = 0

    @abc.abstractmethod
    def _command(self) -> list[str]:
        """Writes the configuration for `self.port` into `self.folder`; answers the command to run."""

    @property
    def owner(self) -> str | None:
        """The user that must own what is served, when the server gives up root. None: the tests' own user."""
        return None

    # --- life -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        # Not below pytest's tmp_path: that is 0700, and a server that gave up root could not enter it.
        self.folder = leaks.folder(self.name)
        self.root = self.folder / "root"
        self.root.mkdir()
        self.access_log = self.folder / "access.log"
        try:
            self.own(self.folder)
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        """Starts on a free port, or again on the port it had; a few tries, as ports are raced for."""
        again = self.port
        for attempt in range(4):
            self.port = again or free_port()
            self._child = Child(self.name, self._command(), self.folder / "output.log", cwd=self.folder)
            try:
                self._child.wait_listening(self.port, self.folder / "error.log")
            except PortTaken:
                if attempt == 3:
                    raise
                time.sleep(0.2)
            else:
                return

    def stop(self) -> None:
        """Ends the process; the files stay. `start_again` brings it back at the same URL."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def start_again(self) -> None:
        self._start()

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    # --- what it serves ---------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/"

    def own(self, path: Path) -> None:
        """Gives `path` and all below it to the server's user, so that the server may change it."""
        if self.owner is None:
            return
        user = pwd.getpwnam(self.owner)
        walk = os.walk(path)  # not rglob, which fails when a folder goes meanwhile
        below = (os.path.join(top, name) for top, folders, files in walk for name in (*folders, *files))
        for place in (str(path), *below):
            with contextlib.suppress(FileNotFoundError):  # a temporary file of the server's own
                os.chown(place, user.pw_uid, user.pw_gid, follow_symlinks=False)

    @contextlib.contextmanager
    def share(self) -> Iterator[Share]:
        """A fresh, empty folder of this server; removed afterwards."""
        self._shares += 1
        name = f"share{self._shares}"
        root = self.root / name
        root.mkdir()
        self.own(root)
        try:
            yield Share(self, f"{self.url}{name}/", root)
        finally:
            shutil.rmtree(root, ignore_errors=True)

    # --- what it was asked ------------------------------------------------------------------

    def log_requests(self) -> list[LoggedRequest]:
        """All requests since the start, in the order in which they were finished."""
        self.settle()
        if self._log_size() == 0:
            return []
        lines = self.access_log.read_text(errors="replace").splitlines()
        return [request for line in lines if (request := _parsed(line))]

    def settle(self) -> None:
        """Waits until the server has nothing to do and its log is quiet.

        A server logs after its answer is on the wire, Apache 12 ms later and on a loaded machine much later:
        no time tells that it is done, the state of its threads does.
        """
        deadline_s = time.monotonic() + _SETTLE_AT_MOST_S
        before: tuple[int, bool] | None = None
        while before != (now := (self._log_size(), self._is_busy())) or now[1]:
            if time.monotonic() > deadline_s:
                return
            before = now
            time.sleep(_SETTLE_S)

    def _is_busy(self) -> bool:
        return self._child is not None and self._child.is_busy

    def _log_size(self) -> int:
        return self.access_log.stat().st_size if self.access_log.exists() else 0


@dataclass(slots=True)
class Share:
    """One empty folder of a running server, for one test."""

    server: Server
    url: str
    root: Path
    _seen: int = 0

    @property
    def name(self) -> str:
        return self.server.name

    @property
    def username(self) -> str | None:
        return self.server.username

    @property
    def password(self) -> str | None:
        return self.server.password

    def log_requests(self) -> list[LoggedRequest]:
        """The requests on this share since `forget_requests`; paths are relative: "a.txt", "d/", ""."""
        return self._all()[self._seen :]

    def forget_requests(self) -> None:
        """What was asked so far no longer counts."""
        self._seen = len(self._all())

    def _all(self) -> list[LoggedRequest]:
        prefix = urlsplit(self.url).path
        return [
            replace(request, path=request.path[len(prefix) :])
            for request in self.server.log_requests()
            if (request.path + "/").startswith(prefix)
        ]

    def write(self, name: str, data: bytes) -> Path:
        """Puts a file on the server's disk behind the client's back; makes its folders."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.own()
        return path

    def mkdir(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        self.own()
        return path

    def own(self) -> None:
        """After changes on disk as root: lets the server change them too."""
        self.server.own(self.root)

    def url_of(self, name: str) -> str:
        """The URL of a file or folder; `name` is decoded, with "/" between segments."""
        return self.url + quote(os.fsencode(name), safe="/")
