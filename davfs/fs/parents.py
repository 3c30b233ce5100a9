"""The folder of an unsent file is gone on the server: it is made again, for an edit wins over a removal."""

from __future__ import annotations

from typing import NoReturn

import trio

from davfs.dav.client import Client
from davfs.dav.hrefs import shown
from davfs.dav.resource import DavPath, Resource
from davfs.errors import AlreadyExists, Forbidden, NotFound, TooLarge
from davfs.fs.conflict import Conflicts
from davfs.fs.inodes import Node
from davfs.fs.tree import Tree


async def make_parents(
    tree: Tree, conflicts: Conflicts, node: Node, sent_to: DavPath, size: int, status: int
) -> None:
    """After 404 or 409 (`status`) to a PUT of `size` bytes. Raises what it means when nothing is missing.

    It may have another name than `sent_to` by now: another file of its folder has made way.
    """
    missing: list[Node] = []
    folder = node.parent
    while folder is not None and folder.parent is not None:
        path = folder.path
        try:
            found: Resource | None = await tree.client.stat(path)
        except NotFound:
            found = None
        if folder.path != path:
            continue
        if found is None:
            missing.append(folder)
            folder = folder.parent
            continue
        if not found.is_collection:
            await conflicts.make_way(folder)
            missing.append(folder)
        break
    if node.path != sent_to and not missing:
        return
    if not missing:
        _refused_in_place(tree.client, node, size, status)
    for folder in reversed(missing):
        try:
            await tree.client.mkcol(folder.path)
        except AlreadyExists:
            continue


def _refused_in_place(client: Client, node: Node, size: int, status: int) -> NoReturn:
    """The folder is there: more than IIS allows (peers.md 19), or a bad name."""
    text = f"PUT {shown(node.path)}: the server answered {status}"
    filtered = client.capabilities.filtered(node.name)
    if filtered is not None:
        client.capabilities = client.capabilities.learned_names(filtered)
        raise Forbidden(f"{text}: {filtered.why} does not take '+' and '%' in a name", status=status)
    if client.upload_limit.is_too_large(status, size):
        client.upload_limit = client.upload_limit.refused(size, trio.current_time())
        raise TooLarge(f"{text} to {size} bytes: too large", status=status)
    raise Forbidden(f"{text} although the folder exists", status=status)
