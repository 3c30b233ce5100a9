"""The composition root: builds one mount from top to bottom, serves it, and takes it down again.

The only place that knows all parts. It owns the root nursery, the signals, readiness and the shutdown:
first the uploads, then the mount. After any failure nothing stays mounted.
"""

from __future__ import annotations

import logging
import os
import signal
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx
import trio

from davfs import __version__, control, fuse
from davfs.config import Config
from davfs.credentials import Secret
from davfs.dav.auth import build_auth
from davfs.dav.client import Client
from davfs.dav.resource import Resource
from davfs.errors import DavfsError, Unreachable
from davfs.exitcodes import Exit
from davfs.fs.content import ContentStore
from davfs.fs.filesystem import Filesystem
from davfs.fs.index import Index

log = logging.getLogger("davfs.mount")

METADATA_CONNECTIONS: Final = 8  # beyond those of the transfers, so that a listing never queues behind data
KEEPALIVE_S: Final = 4.0  # Apache closes idle connections after 5 s (servers.md 36): be earlier
DRAIN_S: Final = 300.0  # at a signal: how long uploads may take before the journal keeps the rest
ANSWER_S: Final = 20.0


async def serve(config: Config, password: Secret | None, *, ready: Callable[[], None]) -> int:
    """Mount and serve until unmounted or told to stop; the exit code. Raises DavfsError before `ready`."""
    index = Index(config.cache_dir)
    try:
        store = ContentStore(index, size_limit_bytes=config.cache_size_bytes)
        try:
            client = Client(_http_client(config, password), config.url, timeout_s=config.timeout_s)
            try:
                filesystem = Filesystem(client, store, config.settings())
                filesystem.learn_root(await _connected(client, config.url))
                return await _serve_share(config, filesystem, ready)
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(2):
                    await client.aclose()
        finally:
            store.close()
    finally:
        index.close()


async def _connected(client: Client, url: str) -> Resource:
    try:
        return await client.connect()
    except DavfsError as error:
        error.args = (f"cannot mount {url}: {error}",)
        raise


def _http_client(config: Config, password: Secret | None) -> httpx.AsyncClient:
    auth = build_auth(
        config.auth,
        config.url,
        config.username or "",
        password.reveal() if password is not None else "",
        allow_plaintext=config.plaintext_auth_allowed,
    )
    connections = config.connections + METADATA_CONNECTIONS
    return httpx.AsyncClient(
        auth=auth,
        verify=_trust(config),
        trust_env=True,
        headers={"User-Agent": f"davfs/{__version__}"},
        limits=httpx.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEPALIVE_S
        ),
        timeout=httpx.Timeout(config.timeout_s),
    )


def _trust(config: Config) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=config.cacert)
    except (OSError, ssl.SSLError) as error:
        raise Unreachable(f"cannot read the certificates in {config.cacert}: {error}") from error


async def _serve_share(config: Config, filesystem: Filesystem, ready: Callable[[], None]) -> int:
    async with trio.open_nursery() as background:
        left = await background.start(filesystem.run)
        if left:
            log.warning("%d files from the last run are not on the server yet: sending them", left)
        fuse.mount(filesystem, config.mountpoint, config.fuse_options())
        try:
            await _until_unmounted(config, filesystem, ready)
        finally:
            fuse.unmount()
        left = await _drain(filesystem)
        background.cancel_scope.cancel()
    return Exit.UNSENT if left else Exit.OK


async def _until_unmounted(config: Config, filesystem: Filesystem, ready: Callable[[], None]) -> None:
    async with trio.open_nursery() as nursery:
        handlers = _handlers(config, filesystem)
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


def _handlers(config: Config, filesystem: Filesystem) -> Mapping[str, control.Handler]:
    started = time.time()

    async def status(_: Mapping[str, Any]) -> Mapping[str, object]:
        return {
            "url": config.url,
            "user": config.username,
            "mountpoint": config.mountpoint,
            "pid": os.getpid(),
            "uptime_s": round(time.time() - started, 1),
            **filesystem.status(),
        }

    async def sync(request: Mapping[str, Any]) -> Mapping[str, object]:
        return {"left": await filesystem.sync(control.requested_timeout_s(request))}

    return {"status": status, "sync": sync}
