"""LOCK: not used yet; where it will be taken is known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from davfs.dav.resource import DavPath


class Locks:
    @asynccontextmanager
    async def around(self, _path: DavPath) -> AsyncIterator[None]:
        """For a look and the change that follows it."""
        await trio.lowlevel.checkpoint()
        yield None
