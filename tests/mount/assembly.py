"""Builds a `Filesystem` over any client, with a real content store, and runs it for the length of a block.

The one place in the tests that repeats what the composition root does; it adds nothing of its own.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import trio

from davfs.dav.client import Client
from davfs.errors import LinkError
from davfs.fs.filesystem import Filesystem
from davfs.fs.index import Index
from davfs.fs.settings import Settings
from davfs.fs.store import ContentStore


@asynccontextmanager
async def running(
    wire: httpx.AsyncBaseTransport,
    url: str,
    settings: Settings,
    *,
    now_s: Callable[[], float] = time.time,
    offline: bool = False,
) -> AsyncIterator[Filesystem]:
    """A connected file system; with `offline` perhaps not yet. It is stopped without a drain: see `sync`."""
    client = Client(wire, url, timeout_s=settings.timeout_s)
    Path(settings.cache_dir).mkdir(parents=True, exist_ok=True)
    store = ContentStore(Index(settings.cache_dir), size_limit_bytes=settings.cache_size_bytes, now_s=now_s)
    fs = Filesystem(client, store, settings, now_s=now_s)
    try:
        fs.learn_root(await client.connect())
    except LinkError as error:
        if not offline:
            raise
        client.reach.link.unproven(str(error), error.errno, trio.current_time())
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(fs.run)
            nursery.start_soon(_ignore_invalidations, fs)
            try:
                yield fs
            finally:
                nursery.cancel_scope.cancel()
    finally:
        store.close()
        store.index.close()


async def _ignore_invalidations(fs: Filesystem) -> None:
    async for told in fs.invalidations:
        told.delivered.set()
