"""ASGIWebDAV under uvicorn: a server that decodes paths twice and lies about the length of a HEAD.

It ignores conditions, writes uploads in place, and compresses what it sends (as zstd, too) without a length.
Locks and properties are in its memory. Its log has neither Depth nor bytes; put a `Relay` in front where
requests are counted.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec

from tests.servers.base import MissingPart, Server


class AsgiWebDav(Server):
    name = "asgiwebdav"

    def __init__(self, *, username: str | None = None, password: str | None = None) -> None:
        super().__init__(username=username, password=password)
        if find_spec("asgi_webdav") is None or find_spec("uvicorn") is None:
            raise MissingPart("ASGIWebDAV (Python packages asgiwebdav and uvicorn, in requirements.lock)")

    def _command(self) -> list[str]:
        configuration = self.folder / "asgiwebdav.json"
        anybody = {"username": "anybody", "password": "", "permissions": ["+"]}
        users = [anybody]
        if self.username is not None:
            users = [{"username": self.username, "password": self.password or "", "permissions": ["+"]}]
        configuration.write_text(
            json.dumps(
                {
                    "account_mapping": users,
                    "anonymous": {"enable": self.username is None, "user": anybody},
                    "provider_mapping": [
                        {"prefix": "/", "uri": self.root.as_uri(), "ignore_property_extra": False}
                    ],
                    "hide_file_in_dir": {"enable": False},
                    "logging": {"level": "INFO"},
                }
            )
        )
        return [
            *(sys.executable, "-m", "asgi_webdav", "-H", "127.0.0.1", "-P", str(self.port)),
            *("-c", str(configuration)),
        ]
