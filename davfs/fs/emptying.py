"""rm -r: the listing that must come right before a folder's DELETE, asked for while its last member goes.

Who has removed all that is in a folder removes the folder next. The listing is asked for together with the
DELETE of the last member, and rmdir takes it if it came a moment ago: what somebody else puts there meanwhile
has the same moment to be overlooked as with a listing of rmdir's own, and the round trip is saved.
Nothing is asked for a folder from which one file was removed, nor for files that were never sent.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio

from davfs.errors import DavfsError
from davfs.fs.inodes import Node
from davfs.fs.tree import HIDDEN_PREFIX, Tree

log = logging.getLogger("davfs.namespace")

AHEAD_S: Final = 0.1  # how old a listing may be that was asked for before rmdir
MEMBERS_MAX: Final = 1000  # in a larger folder it is not looked for what is left


@dataclass(slots=True, eq=False)
class _Ahead:
    """A listing of a folder whose last member is being removed."""

    done: trio.Event = field(default_factory=trio.Event)
    answered_s: float | None = None


class Emptying:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._ahead: dict[int, _Ahead] = {}  # by the folder's number
        self._nursery: trio.Nursery | None = None

    def start(self, nursery: trio.Nursery) -> None:
        """From here on it may ask ahead."""
        self._nursery = nursery

    def removes(self, node: Node) -> None:
        """A DELETE of this is about to go out."""
        folder = node.parent
        if folder is None or self._nursery is None or folder.ino in self._ahead:
            return
        if self._is_last(folder, node):
            self._ahead[folder.ino] = ahead = _Ahead()
            self._nursery.start_soon(self._list, folder, ahead)

    def _is_last(self, folder: Node, last: Node) -> bool:
        """Whether nothing else is known in it, and others of its members were removed here."""
        known = self._tree.meta.known_folder(folder.ino)
        if folder.parent is None or known is None or not known.was_listed or len(known.entries) > MEMBERS_MAX:
            return False
        for name, entry in reversed(known.entries.items()):  # who removes all begins at the other end
            if entry.resource is not None and name != last.name and not name.startswith(HIDDEN_PREFIX):
                return False
        gone = any(entry.ours and entry.resource is None for entry in known.entries.values())
        return gone and self._tree.known_names(folder) == [last.name]

    async def _list(self, folder: Node, ahead: _Ahead) -> None:
        try:
            await self._tree.list_names(folder, now=True)
            ahead.answered_s = trio.current_time()
        except DavfsError as error:
            log.debug("%r was not listed ahead: %s", folder.name, error)
        except Exception:
            log.exception("listing %r ahead failed unexpectedly", folder.name)
        finally:
            ahead.done.set()
        await trio.sleep(AHEAD_S)
        if self._ahead.get(folder.ino) is ahead:
            del self._ahead[folder.ino]

    async def was_just_empty(self, folder: Node) -> bool:
        """Whether a listing shows nothing that is as new as the answer to the last DELETE, or nearly."""
        ahead = self._ahead.pop(folder.ino, None)
        if ahead is None:
            return False
        await ahead.done.wait()
        is_new = ahead.answered_s is not None and trio.current_time() - ahead.answered_s <= AHEAD_S
        return is_new and not self._tree.known_names(folder)

    async def making_way(self, folder: Node, move: Callable[[None], Awaitable[None]]) -> None:
        """Removes a folder that a listing just showed to be empty, for a MOVE to its name.

        copyparty has no MOVE over a folder (500). If the MOVE fails all the same, the folder is made again.
        """
        client, path = self._tree.client, folder.path
        await client.delete(path, is_collection=True)
        try:
            await move(None)
        except BaseException:
            with trio.CancelScope(shield=True), suppress(DavfsError):
                await client.mkcol(path)
            raise
