"""Our temporary names on the server. Not kept over a crash yet."""

from __future__ import annotations

from contextlib import suppress

from davfs.dav.client import Client
from davfs.dav.resource import DavPath
from davfs.errors import DavfsError
from davfs.fs.index import Index


class Leftovers:
    def __init__(self, index: Index) -> None:
        self._index = index
        self._names: set[DavPath] = set()

    def note(self, path: DavPath) -> None:
        """Before it is made."""
        self._names.add(path)

    def forget(self, path: DavPath) -> None:
        """After it was moved or removed."""
        self._names.discard(path)

    async def remove(self, client: Client, path: DavPath) -> None:
        with suppress(DavfsError):
            await client.delete(path, is_collection=False)
            self.forget(path)
