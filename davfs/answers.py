"""What the daemon of a mount answers on its control socket: one function for each command.

Each gets the request's object and returns a JSON-able object; a DavfsError becomes an error answer. No
request names a file on this machine: the daemon may be root, and whoever asks opens his files himself.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from davfs import __version__, control
from davfs.config import Config
from davfs.dav.auth import Authenticator, Credentials
from davfs.dav.client import Client
from davfs.dav.resource import ROOT
from davfs.errors import DavfsError
from davfs.exitcodes import CommandFailed
from davfs.fs.filesystem import Filesystem
from davfs.shutdown import Ending

SECRETIVE: Final = frozenset(
    {"password_file", "password_command", "token_file", "token_command", "client_cert_password_file"}
)

log = logging.getLogger("davfs.answers")


def handlers(
    config: Config, filesystem: Filesystem, client: Client, auth: Authenticator
) -> Mapping[str, control.Handler]:
    """The commands of one mount, by their names."""
    started = time.time()

    async def status(request: Mapping[str, Any]) -> Mapping[str, object]:
        most = request.get("most")
        return {
            "version": __version__,
            "url": config.url,
            "user": config.username,
            "mountpoint": config.mountpoint,
            "pid": os.getpid(),
            "uptime_s": round(time.time() - started, 1),
            "authentication": _authentication(auth),
            "scheme": auth.scheme_in_use,
            **filesystem.status(most if isinstance(most, int) and most >= 0 else None),
        }

    async def settings(_: Mapping[str, Any]) -> Mapping[str, object]:
        """For `davfs doctor`: how it was mounted, what the server announced. No secret, nor its source."""
        options = {name: _told(name, value) for name, value in asdict(config).items()}
        known = client.capabilities
        announced = {"dav_classes": sorted(known.dav_classes), "methods": sorted(known.methods)}
        return {"options": options, "capabilities": announced}

    async def sync(request: Mapping[str, Any]) -> Mapping[str, object]:
        return {"left": await filesystem.sync(control.requested_timeout_s(request))}

    async def refresh(_: Mapping[str, Any]) -> Mapping[str, object]:
        """`davfs status --refresh`: whoever asks next asks the server."""
        filesystem.refresh()
        return {}

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

    return {
        "status": status,
        "settings": settings,
        "sync": sync,
        "refresh": refresh,
        "credentials": credentials,
        **_unsent_answers(config, filesystem),
    }


def _unsent_answers(config: Config, filesystem: Filesystem) -> Mapping[str, control.Handler]:
    """`davfs pending`."""

    async def pending(request: Mapping[str, Any]) -> Mapping[str, object]:
        rows = filesystem.unsent.rows()
        most = request.get("most")
        return {
            "files": rows[:most] if isinstance(most, int) and most >= 0 else rows,
            "count": len(rows),
            "conflicts": filesystem.unsent.conflicts(),
            "cache_dir": config.cache_dir,
        }

    async def retry(request: Mapping[str, Any]) -> Mapping[str, object]:
        path = request.get("path")
        return {"count": filesystem.unsent.retry(None if path is None else _path(request))}

    async def discard(request: Mapping[str, Any]) -> Mapping[str, object]:
        return {"files": await filesystem.unsent.discard(_path(request))}

    async def unlock(request: Mapping[str, Any]) -> Mapping[str, object]:
        force = request.get("force") is True
        return {"owner": await filesystem.unsent.unlock(_path(request), force=force)}

    async def unsent_bytes(request: Mapping[str, Any]) -> control.FileAnswer:
        found = filesystem.unsent.unsent_bytes(_path(request))
        told = {"size": found.size_bytes, "mtime_ns": found.mtime_ns, "missing": found.missing}
        return control.FileAnswer(told, found.fd)

    return {
        "pending": pending,
        "retry": retry,
        "discard": discard,
        "unlock": unlock,
        "unsent_bytes": unsent_bytes,
    }


def last_answers(filesystem: Filesystem, ending: Ending) -> Mapping[str, control.Handler]:
    """What is answered until the very end, also after the kernel let go."""

    async def progress(_: Mapping[str, Any]) -> Mapping[str, object]:
        return {**filesystem.unsent.progress(), "phase": ending.phase}

    async def farewell(request: Mapping[str, Any]) -> Mapping[str, object]:
        return await ending.outcome(patient=request.get("patient") is not False)

    async def hand_over(_: Mapping[str, Any]) -> Mapping[str, object]:
        ending.hand_over()
        return {"phase": ending.phase}

    return {"progress": progress, "farewell": farewell, "hand_over": hand_over}


def _told(name: str, value: object) -> object:
    """A command line may hold the password itself."""
    if value is not None and name in SECRETIVE:
        return "(given)"
    return sorted(value) if isinstance(value, frozenset) else value


def _path(request: Mapping[str, Any]) -> str:
    path = request.get("path")
    if not isinstance(path, str):
        raise CommandFailed("needs a path in the drive")
    return path


def _authentication(auth: Authenticator) -> str:
    """For people and programs: `unauthenticated` is the state that only `davfs login` ends."""
    if auth.is_anonymous:
        return "anonymous"
    return "unauthenticated" if auth.state == "refused" else auth.state
