"""A mount run by a service manager: what it is told of the mount, and `systemctl reload`.

SIGHUP reads the profile, the password and the log level again: the new password is used at once, and all that
waits is tried again. Everything else of a profile is read at the start. A reload that fails says why in the
log and in the status, and the mount goes on as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

import trio

from davfs.config import Config
from davfs.credentials import Login
from davfs.dav.auth import Authenticator, Credentials, Token, TokenSource
from davfs.errors import DavfsError
from davfs.fs.filesystem import Filesystem
from davfs.notify import Notifier
from davfs.shutdown import Ending

log = logging.getLogger("davfs.service")

_FAILURE_SHOWN_S: Final = 60.0


class Renewed(NamedTuple):
    """What a reload brings."""

    config: Config
    login: Login | None


class _Attached(NamedTuple):
    config: Config
    filesystem: Filesystem
    auth: Authenticator


class Service:
    """The part of one mount that its manager sees.

    `renew` reads profile and password again; it may block, and raises DavfsError.
    """

    def __init__(self, notifier: Notifier, renew: Callable[[], Renewed]) -> None:
        self._notifier = notifier
        self._renew = renew
        self._mount: _Attached | None = None
        self._asked = trio.Event()
        self._failed: tuple[str, float] = "", 0.0  # what a reload said, and until when it is shown

    def attach(self, config: Config, filesystem: Filesystem, auth: Authenticator) -> None:
        self._mount = _Attached(config, filesystem, auth)

    def ask_for_reload(self) -> None:
        self._asked.set()

    async def run(self, ending: Ending) -> None:
        """Until cancelled: status lines, the watchdog, reloads, and the word that the end has begun."""
        if self._mount is None:
            raise RuntimeError("a service runs what is attached")
        mount = self._mount
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                self._notifier.keep_telling, lambda: self._describe(mount, ending), mount.config.mountpoint
            )
            nursery.start_soon(self._say_stopping, ending)
            while True:
                await self._asked.wait()
                self._asked = trio.Event()
                await self._reload(mount)

    async def _say_stopping(self, ending: Ending) -> None:
        await ending.told.wait()
        self._notifier.stopping()

    async def _reload(self, mount: _Attached) -> None:
        self._notifier.reloading()
        try:
            renewed = await trio.to_thread.run_sync(self._renew, abandon_on_cancel=True)
            credentials = credentials_of(renewed.login)
            if credentials is not None and not mount.auth.is_anonymous:
                mount.auth.replace(credentials)
            logging.getLogger("davfs").setLevel(renewed.config.log_level.upper())
            mount.filesystem.unsent.retry(None)
            log.info("reloaded")
        except DavfsError as error:
            self._failed = f"reload failed: {error}", trio.current_time() + _FAILURE_SHOWN_S
            log.error("reload failed, the mount goes on as it was: %s", error)
        finally:
            self._notifier.ready()

    def _describe(self, mount: _Attached, ending: Ending) -> str:
        text, until = self._failed
        shown = [text] if trio.current_time() < until else []
        return "; ".join([*shown, *described(mount.filesystem, mount.auth, ending.phase)])


def described(filesystem: Filesystem, auth: Authenticator, phase: str) -> list[str]:
    """The state of a mount for `systemctl status`, most urgent first."""
    words = [] if phase == "mounted" else [phase]
    if auth.state == "refused":
        words.append("the server refuses the password (`davfs login`, or reload)")
    if filesystem.outage is not None:
        words.append(f"the server is away: {filesystem.outage}")
    unsent = filesystem.unsent.progress()
    if unsent["files"]:
        stuck = f", {unsent['stuck']} of them refused or failing" if unsent["stuck"] else ""
        words.append(f"{unsent['files']} files to send, {unsent['bytes']} bytes{stuck}")
    else:
        words.append("the server has everything")
    return words


def credentials_of(login: Login | None) -> Credentials | None:
    """What the authenticator needs of a login."""
    if login is None:
        return None
    password = login.password.reveal() if login.password is not None else ""
    return Credentials(login.username, password, token_source=_token_source(login))


def _token_source(login: Login) -> TokenSource | None:
    """A token is read from a file or a command: in a thread, as both may take their time."""
    reader = login.token
    if reader is None:
        return None

    async def ask() -> Token:
        return Token.parse((await trio.to_thread.run_sync(reader, abandon_on_cancel=True)).reveal())

    return ask
