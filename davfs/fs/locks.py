"""LOCK: not used yet; where it will be taken is known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from davfs.dav.locks import LockToken
from davfs.dav.resource import DavPath


class Locks:
    def token_for(self, _path: DavPath) -> LockToken | None:
        """Of a lock that we hold."""
        return None

    @asynccontextmanager
    async def around(self, _path: DavPath) -> AsyncIterator[None]:
        """For a look and the change that follows it."""
        await trio.lowlevel.checkpoint()
        yield None
