"""WsgiDAV under cheroot, in a child process of its own Python.

The same server that `davfs demo` embeds, started by code that shares nothing with the demo, so that the
demo's tests and the contract suite do not prove each other. What runs in the child is wsgidav_child.py.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from tests.servers.base import MissingPart, Server
from tests.servers.tokens import signed_token


class WsgiDav(Server):
    """`auth` is "basic", "digest" or "bearer"; the first two count only with a username.

    With "bearer" every request needs a token that `bearer_token` made and that has not expired. cheroot
    answers `Expect` with 100 before the application sees the request: no refusal comes before the body.
    """

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
        self._token_key = secrets.token_hex(16)

    def bearer_token(self, lifetime_s: float, *, opaque: bool = False) -> str:
        """A token this server accepts for so long. A JWT tells its end, an opaque one does not."""
        return signed_token(self._token_key, time.time() + lifetime_s, opaque=opaque)

    def end_tokens(self) -> None:
        """All that were given out are refused from now on, whatever they say of their end."""
        self.stop()
        self._token_key = secrets.token_hex(16)
        self.start_again()

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
                    "token_key": self._token_key,
                }
            )
        )
        child = Path(__file__).with_name("wsgidav_child.py")
        return [sys.executable, str(child), str(configuration)]
