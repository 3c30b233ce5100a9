"""The process behind wsgidav_server.py: reads one JSON file, serves until it is ended.

Run as a script; of the tests it imports the token check alone. Properties and locks are on, in memory. Every
request leaves one line in the access log, in the format that tests/servers/base.py reads, written before the
connection is free again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cheroot import wsgi
from wsgidav.wsgidav_app import WsgiDAVApp

# A script does not know where its package starts.
sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.servers.tokens import is_valid

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class _CountingInput:
    """wsgi.input that knows how much of the body was read."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self.count = 0

    def read(self, *args: int) -> bytes:
        data: bytes = self._body.read(*args)
        self.count += len(data)
        return data

    def readline(self, *args: int) -> bytes:
        data: bytes = self._body.readline(*args)
        self.count += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


class _Logger:
    """WSGI middleware: one line per request, when its answer is complete."""

    def __init__(self, app: Callable[[Environ, StartResponse], Any], log_path: str) -> None:
        self._app = app
        # O_APPEND and one write(2) per line: threads do not mix their lines
        self._log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        body = environ["wsgi.input"] = _CountingInput(environ["wsgi.input"])
        status = "500"
        asked = _asked(environ)

        def remember(line: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            nonlocal status
            status = line.partition(" ")[0]
            return start_response(line, headers, exc_info)

        sent = 0
        try:
            for chunk in self._app(environ, remember):
                sent += len(chunk)
                yield chunk
        finally:
            line, depth, byte_range = asked
            fields = (line, depth, status, str(body.count), str(sent), byte_range)
            os.write(self._log, ("\t".join(fields) + "\n").encode(errors="replace"))


class _BearerOnly:
    """WSGI middleware: RFC 6750. Looks at the token before anything else, as gateways do."""

    def __init__(self, app: Callable[[Environ, StartResponse], Any], key: str) -> None:
        self._app = app
        self._key = key

    def __call__(self, environ: Environ, start_response: StartResponse) -> Any:
        scheme, _, token = environ.pop("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "bearer" and is_valid(self._key, token):
            return self._app(environ, start_response)
        error = ', error="invalid_token"' if token else ""
        challenge = f'Bearer realm="davfs tests"{error}'
        start_response("401 Unauthorized", [("WWW-Authenticate", challenge), ("Content-Length", "0")])
        return [b""]


def _asked(environ: Environ) -> tuple[str, str, str]:
    """Request line, Depth and Range, taken before WsgiDAV fills in defaults of its own (Depth: 0 on GET)."""
    target = environ.get("REQUEST_URI") or environ["PATH_INFO"]
    if isinstance(target, bytes):
        target = target.decode("latin-1")
    line = f"{environ['REQUEST_METHOD']} {target} HTTP/1.1"
    return line, environ.get("HTTP_DEPTH", "-"), environ.get("HTTP_RANGE", "-")


def _configuration(given: dict[str, Any]) -> dict[str, Any]:
    users: dict[str, Any] | bool = True
    if given["username"] is not None:
        users = {given["username"]: {"password": given["password"]}}
    digest = given["auth"] == "digest"
    return {
        "provider_mapping": {"/": {"root": given["root"], "readonly": False}},
        "simple_dc": {"user_mapping": {"*": users}},
        "http_authenticator": {
            "domain_controller": None,
            "accept_basic": not digest,
            "accept_digest": digest,
            "default_to_digest": digest,
        },
        "property_manager": True,
        "lock_storage": True,
        "dir_browser": {"enable": False},
        "verbose": 1,
    }


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text())
    dav = WsgiDAVApp(_configuration(given))
    guarded = _BearerOnly(dav, given["token_key"]) if given["auth"] == "bearer" else dav
    app = _Logger(guarded, given["access_log"])
    server = wsgi.Server(("127.0.0.1", given["port"]), app, numthreads=given["threads"])
    server.shutdown_timeout = 1
    try:
        server.start()
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    main()
