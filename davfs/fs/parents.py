"""The folder of an unsent file is gone on the server: it is made again, for an edit wins over a removal.

What a PUT into a folder that is gone ends with: 409 on most, 404 on rclone, Nextcloud and sabre/dav 1.8, 500
on nginx; where a file has the folder's name also 400 on Apache (servers.md 27, table 6).
"""

from __future__ import annotations

from typing import Final, NoReturn

import trio

from davfs.dav.client import Client
from davfs.dav.hrefs import shown
from davfs.dav.resource import DavPath, Resource
from davfs.errors import AlreadyExists, DavfsError, Forbidden, NotFound, ServerRefused, TooLarge
from davfs.fs.conflict import Conflicts
from davfs.fs.inodes import Node
from davfs.fs.tree import Tree

_ABOUT_FOLDERS: Final = frozenset({404, 409, 410})  # the others have other reasons more often
MAY_MEAN_NO_FOLDER: Final = _ABOUT_FOLDERS | {400, 500}


async def make_parents(
    tree: Tree, conflicts: Conflicts, node: Node, sent_to: DavPath, size: int, error: ServerRefused
) -> None:
    """After a PUT of `size` bytes was refused. Raises what that means, if no folder is missing.

    It may have another name than `sent_to` by now: another file of its folder has made way.
    """
    missing = await _missing(tree, conflicts, node, error)
    if not missing:
        if node.path != sent_to:
            return
        if error.status not in _ABOUT_FOLDERS:
            raise error
        _refused_in_place(tree.client, node, size, error.status)
    for folder in reversed(missing):
        try:
            await tree.client.mkcol(folder.path)
        except AlreadyExists:
            continue


async def _missing(tree: Tree, conflicts: Conflicts, node: Node, error: ServerRefused) -> list[Node]:
    """The folders above that the server does not have (any more), the innermost first."""
    missing: list[Node] = []
    folder = node.parent
    while folder is not None and folder.parent is not None:
        path = folder.path
        try:
            found: Resource | None = await tree.client.stat(path)
        except NotFound:
            found = None
        except DavfsError:
            raise error from None
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
    return missing


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
