"""copyparty as it is shipped: a file server with WebDAV of its own making.

No ETags, no conditions, locks that are granted to everybody. It overwrites on PUT only for a client that
sends X-OC-Mtime (or with --daw); else it stores under a name of its own invention and answers 201. It bans
who asks for what is forbidden nine times, which the tests do: that is off.
Its log has neither status nor bytes; put a `Relay` in front where requests are counted.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from tests.servers.base import MissingPart, Server


class Copyparty(Server):
    name = "copyparty"

    def __init__(self, *, username: str | None = None, password: str | None = None) -> None:
        super().__init__(username=username, password=password)
        if find_spec("copyparty") is None:
            raise MissingPart("copyparty (Python package copyparty, in requirements.lock)")

    def _command(self) -> list[str]:
        who, account = "", []
        if self.username is not None:
            who, account = f",{self.username}", ["--usernames", "-a", f"{self.username}:{self.password}"]
        (self.folder / "state").mkdir(exist_ok=True)
        return [
            *("env", f"XDG_CONFIG_HOME={self.folder}/state", f"XDG_STATE_HOME={self.folder}/state"),
            *(sys.executable, "-m", "copyparty", "-i", "127.0.0.1", "-p", str(self.port), "--http-only"),
            *("-v", f"{self.root}::rwmda.{who}", *account),
            *("--hist", str(self.folder / "state"), "--no-thumb", "--no-dirsz"),
            *("--ban-404", "no", "--ban-403", "no", "--ban-422", "no", "--ban-url", "no", "--ban-pw", "no"),
        ]
