"""WsgiDAV under cheroot, in a child process of its own Python.

The same server that `davfs demo` embeds, started by code that shares nothing with the demo, so that the
demo's tests and the contract suite do not prove each other. What runs in the child is wsgidav_child.py.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.servers.base import MissingPart, Server


class WsgiDav(Server):
    """`auth` is "basic" or "digest", and counts only with a username."""

    name = "wsgidav"

    def __init__(
        self,
        *,
        username: str | None = None,
        password: str | None = None,
        auth: str = "basic",
        threads: int = 20,
    ) -> None:
        super().__init__(username=username, password=password)
        if find_spec("wsgidav") is None or find_spec("cheroot") is None:
            raise MissingPart("WsgiDAV (Python packages wsgidav and cheroot)")
        self._auth_scheme = auth
        self._threads = threads

    def _command(self) -> list[str]:
        configuration = self.folder / "wsgidav.json"
        configuration.write_text(
            json.dumps(
                {
                    "port": self.port,
                    "root": str(self.root),
                    "access_log": str(self.access_log),
                    "username": self.username,
                    "password": self.password,
                    "auth": self._auth_scheme,
                    "threads": self._threads,
                }
            )
        )
        child = Path(__file__).with_name("wsgidav_child.py")
        return [sys.executable, str(child), str(configuration)]
