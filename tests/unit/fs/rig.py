"""The parts of `davfs.fs` put together without `Filesystem`, over a server in memory and a real cache folder.

`open_store` is what a daemon does at start; `crashed` is what the disk holds if the daemon is killed now.
`Rig` is everything up to the uploads. Nothing here decides anything: it only wires, and reads back.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import trio

from davfs.dav.client import Client
from davfs.dav.quirks import Capabilities
from davfs.dav.resource import DavPath, ETag, Validator
from davfs.fs.chunks import Chunks
from davfs.fs.conflict import Conflicts
from davfs.fs.content import Content
from davfs.fs.download import Downloads
from davfs.fs.guard import Guard
from davfs.fs.handles import Handles
from davfs.fs.index import Index
from davfs.fs.inodes import Node
from davfs.fs.leftovers import Leftovers
from davfs.fs.locks import Locks
from davfs.fs.settings import GIB, Settings
from davfs.fs.store import ContentStore
from davfs.fs.tree import Tree
from davfs.fs.upload import Uploads

URL = "http://fake.example/"


def open_store(
    folder: Path, *, limit_bytes: int = GIB, now_s: Callable[[], float] = time.time
) -> ContentStore:
    return ContentStore(Index(str(folder)), size_limit_bytes=limit_bytes, now_s=now_s)


def close_store(store: ContentStore) -> None:
    store.close()
    store.index.close()


@contextmanager
def opened(
    folder: Path, *, limit_bytes: int = GIB, now_s: Callable[[], float] = time.time
) -> Iterator[ContentStore]:
    store = open_store(folder, limit_bytes=limit_bytes, now_s=now_s)
    try:
        yield store
    finally:
        close_store(store)


@contextmanager
def crashed(folder: Path) -> Iterator[ContentStore]:
    """The store that the next daemon opens, if this one were killed now."""
    copy = folder.with_name(folder.name + "-after-the-crash")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("reserve"))
    with opened(copy) as store:
        yield store
    shutil.rmtree(copy)


def version(size: int, tag: str = "one") -> Validator:
    return Validator(ETag(tag), 1_000_000, size)


def at(path: str) -> DavPath:
    return DavPath(tuple(part for part in path.split("/") if part))


def drop(store: ContentStore, content: Content) -> None:
    """The last user lets go."""
    store.release(content)


@dataclass(slots=True)
class Rig:
    client: Client
    store: ContentStore
    tree: Tree
    downloads: Downloads
    uploads: Uploads
    settings: Settings

    def node(self, path: str) -> Node:
        """The node of a file, with its folders; no request."""
        node = self.tree.nodes.root
        parts = at(path).parts
        for name in parts[:-1]:
            node = self.tree.nodes.child(node, name, is_folder=True)
        return self.tree.nodes.child(node, parts[-1], is_folder=False)

    def new_file(self, path: str, data: bytes, *, delay_s: float = 0.0) -> Content:
        """What create and write do; the handle stays open."""
        node = self.node(path)
        content = self.store.create(node.ino, node.path, size=0, base=None)
        self._hold(node, content)
        content.mark_written()
        content.write(0, data)
        self.uploads.schedule(node, content, delay_s)
        return content

    def _hold(self, node: Node, content: Content) -> None:
        """As an open handle does."""
        self.store.acquire(content)
        self.tree.nodes.pin(node)
        node.content = content

    async def opened_file(self, path: str) -> Content:
        """What open does: the version that the server has now, nothing of it present yet."""
        node = self.node(path)
        resource = await self.client.stat(node.path)
        assert resource.size_bytes is not None
        content = self.store.create(node.ino, node.path, size=resource.size_bytes, base=resource.validator)
        self._hold(node, content)
        return content

    async def overwritten_file(self, path: str, data: bytes, *, delay_s: float = 0.0) -> Content:
        """What open with O_TRUNC and write do; the handle stays open."""
        content = await self.opened_file(path)
        content.truncate(0)
        content.write(0, data)
        self.uploads.schedule(self.node(path), content, delay_s)
        return content

    async def read(self, content: Content, start: int, end: int) -> bytes:
        await self.downloads.ensure(content, lambda: at(path_of(content)), start, end)
        return await content.read(start, end - start)


def path_of(content: Content) -> str:
    return content.path.replace(b"\0", b"/").decode("utf-8", "surrogateescape")


@asynccontextmanager
async def rig(
    server: httpx.AsyncBaseTransport,
    folder: Path,
    *,
    connections: int = 4,
    write_back_s: float = 0.0,
    recover: bool = False,
    partial_put: bool = False,
) -> AsyncIterator[Rig]:
    settings = Settings(
        str(folder), connections=connections, write_back_s=write_back_s, partial_put=partial_put
    )
    with opened(folder) as store:
        client = Client(server, URL)
        announced = getattr(server, "announced", None)
        if announced is not None:  # what connecting would have learned
            client.capabilities = Capabilities.from_options(httpx.Headers(announced()))
        tree = Tree(client, store, settings, wall_s=time.time)
        downloads = Downloads(client, store, connections=connections)
        handles = Handles()
        conflicts = Conflicts(tree, downloads, handles)
        guard = Guard(client, Locks(client, store.index, handles, settings.lock))
        uploads = Uploads(
            tree,
            downloads,
            conflicts,
            guard,
            Leftovers(store.index),
            Chunks(client, guard, store.index, connections=connections),
            settings,
        )
        async with trio.open_nursery() as nursery:
            downloads.start(nursery)
            if recover:
                uploads.recover()
            nursery.start_soon(uploads.run, nursery)
            yield Rig(client, store, tree, downloads, uploads, settings)
            nursery.cancel_scope.cancel()
