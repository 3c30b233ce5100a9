"""What the daemon of a mount answers on its control socket: one function for each command.

Each gets the request's object and returns a JSON-able object; a DavfsError becomes an error answer. No
request names a file on this machine: the daemon may be root, and whoever asks opens his files himself.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from davfs import control
from davfs.config import Config
from davfs.dav.auth import Authenticator, Credentials
from davfs.dav.client import Client
from davfs.dav.resource import ROOT
from davfs.errors import DavfsError
from davfs.exitcodes import CommandFailed
from davfs.fs.filesystem import Filesystem

log = logging.getLogger("davfs.answers")


def handlers(
    config: Config, filesystem: Filesystem, client: Client, auth: Authenticator
) -> Mapping[str, control.Handler]:
    """The commands of one mount, by their names."""
    started = time.time()

    async def status(_: Mapping[str, Any]) -> Mapping[str, object]:
        return {
            "url": config.url,
            "user": config.username,
            "mountpoint": config.mountpoint,
            "pid": os.getpid(),
            "uptime_s": round(time.time() - started, 1),
            "authentication": _authentication(auth),
            "scheme": auth.scheme_in_use,
            **filesystem.status(),
        }

    async def sync(request: Mapping[str, Any]) -> Mapping[str, object]:
        return {"left": await filesystem.sync(control.requested_timeout_s(request))}

    async def credentials(request: Mapping[str, Any]) -> Mapping[str, object]:
        """`davfs login`: tries the new password once; if the server takes it, all that waits is sent."""
        password = request.get("password")
        if config.username is None or not isinstance(password, str) or not password:
            raise CommandFailed("this mount has no user name, so that a password is of no use to it")
        auth.replace(Credentials(config.username, password))
        try:
            await client.stat(ROOT, is_collection=True)
        except DavfsError as error:  # refused: the state tells; away: it is tried when the server is back
            log.info("after new credentials: %s", error)
        if auth.state != "refused":
            await filesystem.sync(0)  # waits for nothing, and starts every upload
        return {"authentication": _authentication(auth)}

    return {"status": status, "sync": sync, "credentials": credentials}


def _authentication(auth: Authenticator) -> str:
    """For people and programs: `unauthenticated` is the state that only `davfs login` ends."""
    if auth.is_anonymous:
        return "anonymous"
    return "unauthenticated" if auth.state == "refused" else auth.state
