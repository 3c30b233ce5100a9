"""The composition root: builds one mount from top to bottom, serves it, and takes it down again.

The only place that knows all parts. It owns the root nursery, the signals, readiness and the shutdown:
first the uploads, then the mount. After any failure nothing stays mounted.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import trio

from davfs import __version__, control, fuse
from davfs.config import Config
from davfs.credentials import Login, from_file
from davfs.dav.auth import Authenticator, Credentials, Token, TokenSource, build_auth
from davfs.dav.client import Client
from davfs.dav.lanes import Lanes, LaneSettings, Proxies, tls_context
from davfs.dav.resource import ROOT
from davfs.errors import DavfsError, LinkError, TimedOut
from davfs.exitcodes import CommandFailed, Exit
from davfs.fs.content import ContentStore
from davfs.fs.filesystem import Filesystem
from davfs.fs.index import Index

log = logging.getLogger("davfs.mount")

METADATA_CONNECTIONS: Final = 8  # beyond those of the transfers, so that a listing never queues behind data
DRAIN_S: Final = 300.0  # at a signal: how long uploads may take before the journal keeps the rest
ANSWER_S: Final = 20.0
OFFLINE_START_S: Final = 5.0  # with offline=ok: how long the mount waits for the server before it goes on


async def serve(config: Config, login: Login | None, *, ready: Callable[[], None]) -> int:
    """Mount and serve until unmounted or told to stop; the exit code. Raises DavfsError before `ready`."""
    index = Index(config.cache_dir)
    try:
        store = ContentStore(index, size_limit_bytes=config.cache_size_bytes)
        try:
            auth = build_auth(
                config.auth, config.url, _credentials(login), allow_plaintext=config.plaintext_auth_allowed
            )
            client = Client(_lanes(config, auth), config.url, timeout_s=config.timeout_s)
            try:
                filesystem = Filesystem(client, store, config.settings())
                await _connect(config, client, filesystem)
                handlers = _handlers(config, filesystem, client, auth)
                return await _serve_share(config, filesystem, handlers, ready)
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(2):
                    await client.aclose()
        finally:
            store.close()
    finally:
        index.close()


async def _connect(config: Config, client: Client, filesystem: Filesystem) -> None:
    """With offline=ok a server that cannot be reached is no obstacle: then it is looked for all the time."""
    longest_s = min(config.timeout_s, OFFLINE_START_S) if config.offline_ok else float("inf")
    error: LinkError = TimedOut(f"no answer within {longest_s:.0f} s")
    with trio.move_on_after(longest_s):
        try:
            filesystem.learn_root(await client.connect())
        except DavfsError as failure:
            if not (config.offline_ok and isinstance(failure, LinkError)):
                failure.args = (f"cannot mount {config.url}: {failure}",)
                raise
            error = failure
        else:
            return
    log.warning("%s is mounted without its server (%s): what is kept here is served", config.url, error)
    client.reach.link.unproven(str(error), error.errno, trio.current_time())


def _credentials(login: Login | None) -> Credentials | None:
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


def _lanes(config: Config, auth: Authenticator) -> Lanes:
    secret = config.client_cert_password_file
    password = None if secret is None else from_file(Path(secret), "client_cert_password_file").reveal()
    tls = tls_context(
        cacert=config.cacert,
        pin_sha256=config.pin_sha256,
        client_cert=config.client_cert,
        client_cert_password=password,
    )
    settings = LaneSettings(
        data_lanes=config.connections,
        metadata_lanes=METADATA_CONNECTIONS,
        tls=tls,
        pin_sha256=config.pin_sha256,
        proxies=Proxies.from_environment(os.environ),
        user_agent=f"davfs/{__version__}",
    )
    return Lanes(auth, settings)


async def _serve_share(
    config: Config,
    filesystem: Filesystem,
    handlers: Mapping[str, control.Handler],
    ready: Callable[[], None],
) -> int:
    async with trio.open_nursery() as background:
        left = await background.start(filesystem.run)
        if left:
            log.warning("%d files from the last run are not on the server yet: sending them", left)
        fuse.mount(filesystem, config.mountpoint, config.fuse_options())
        try:
            await _until_unmounted(config, filesystem, handlers, ready)
        finally:
            fuse.unmount()
        left = await _drain(filesystem)
        background.cancel_scope.cancel()
    return Exit.UNSENT if left else Exit.OK


async def _until_unmounted(
    config: Config,
    filesystem: Filesystem,
    handlers: Mapping[str, control.Handler],
    ready: Callable[[], None],
) -> None:
    async with trio.open_nursery() as nursery:
        path = control.socket_path(config.mountpoint, os.geteuid(), os.environ)
        await nursery.start(control.serve_control, path, handlers)
        nursery.start_soon(_stop_at_signal, filesystem)
        nursery.start_soon(_announce, config, ready)
        await fuse.handle_requests(filesystem)
        nursery.cancel_scope.cancel()


async def _announce(config: Config, ready: Callable[[], None]) -> None:
    """Ready means: the drive answers a program."""
    with trio.fail_after(ANSWER_S):
        await trio.to_thread.run_sync(os.stat, config.mountpoint, abandon_on_cancel=True)
    log.info("%s is mounted on %s", config.url, config.mountpoint)
    ready()


async def _stop_at_signal(filesystem: Filesystem) -> None:
    """SIGTERM or SIGINT: the uploads first, while the drive still answers; a second signal stops at once."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            log.info("got %s: finishing the uploads", signal.Signals(number).name)
            break
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hurry, signals, nursery.cancel_scope)
            await filesystem.sync(DRAIN_S, patient=False)
            nursery.cancel_scope.cancel()
        fuse.stop()


async def _hurry(signals: Any, scope: trio.CancelScope) -> None:
    async for _ in signals:
        log.warning("stopping at once; what is not on the server stays in the journal")
        scope.cancel()
        return


async def _drain(filesystem: Filesystem) -> int:
    """After the kernel let go (umount): send what is left, bounded; the journal keeps the rest."""
    left = len(filesystem.pending_paths())
    if left:
        log.info("unmounted; %d files are still being sent", left)
        left = await filesystem.sync(DRAIN_S, patient=False)
    if left:
        log.error("%d files are not on the server; the next mount resumes them", left)
    return left


def _handlers(
    config: Config, filesystem: Filesystem, client: Client, auth: Authenticator
) -> Mapping[str, control.Handler]:
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
