"""Our temporary names on the server: noted before they are made, cleaned up after a crash.

A name of ours (`.davfs-*`) is a file that was set aside while it is open, or an upload that is not at its
name yet. Each is in the index before the request that makes it, and leaves the index after the answer that
says it is gone. What a daemon left behind is removed by the next one. Never sends a DELETE for a name that
is not noted here: what looks like ours may be another machine's, in use.
"""

from __future__ import annotations

import logging
from typing import Final

import trio

from davfs.dav.client import Client
from davfs.dav.hrefs import shown
from davfs.dav.resource import DavPath
from davfs.errors import DavfsError, NotFound
from davfs.fs.content import path_bytes, path_from_bytes
from davfs.fs.index import Index
from davfs.fs.strays import LATE_S
from davfs.fs.tree import HIDDEN_PREFIX

log = logging.getLogger("davfs.leftovers")

RETRY_MIN_S: Final = 2.0
RETRY_MAX_S: Final = 120.0


class Leftovers:
    def __init__(self, index: Index) -> None:
        self._index = index
        self._unwanted = {
            path_from_bytes(path) for (path,) in index.rows("SELECT path FROM leftovers") if path
        }  # of the last daemon: nothing of this one uses them
        # Not there yet is no proof that they never come: when to look for the last time.
        self._late: dict[DavPath, float] = {}
        self._wake = trio.Event()

    def note(self, path: DavPath) -> None:
        """Before it is made. Raises PosixError when that cannot be noted: then it must not be made."""
        if not path.name.startswith(HIDDEN_PREFIX):
            raise ValueError(f"{shown(path)} is not a temporary name of ours")
        self._index.run("INSERT OR IGNORE INTO leftovers (path) VALUES (?)", (path_bytes(path),))

    def forget(self, path: DavPath) -> None:
        """After it was removed or moved away, or was never made."""
        self._unwanted.discard(path)
        self._late.pop(path, None)
        self._index.run("DELETE FROM leftovers WHERE path=?", (path_bytes(path),))

    def moved(self, source: DavPath, destination: DavPath) -> None:
        """A folder was renamed: what of ours lies in it went along."""
        for (raw,) in self._index.rows("SELECT path FROM leftovers"):
            path = path_from_bytes(raw)
            if raw and path.is_within(source):
                now = DavPath(destination.parts + path.parts[len(source.parts) :])
                self._index.run("UPDATE leftovers SET path=? WHERE path=?", (path_bytes(now), raw))
                if path in self._late:
                    self._late[now] = self._late.pop(path)
                if path in self._unwanted:
                    self._unwanted.discard(path)
                    self.give_up(now)

    async def remove(self, client: Client, path: DavPath) -> None:
        """DELETE it; what cannot be removed now is tried again in the background, and by the next daemon."""
        try:
            await self._removed(client, path)
        except DavfsError as error:
            log.debug("%s cannot be removed now: %s", shown(path), error)
            self._unwanted.add(path)
            self._wake.set()

    def give_up(self, path: DavPath) -> None:
        """Whatever became of it, it is not wanted any more: removed in the background."""
        self._unwanted.add(path)
        self._wake.set()

    def may_appear(self, path: DavPath) -> None:
        """Asked for, and unanswered: removed if it is there; if not, it is looked for once more, later."""
        self._late[path] = trio.current_time() + LATE_S
        self.give_up(path)

    async def clean(self, client: Client) -> None:
        """For ever: what the last daemon left, and what could not be removed since."""
        delay_s = RETRY_MIN_S
        while True:
            self._wake = trio.Event()
            if await self._clean_once(client):
                with trio.move_on_at(min(self._late.values(), default=float("inf"))):
                    await self._wake.wait()
                self._unwanted.update(path for path in self._late if self._is_due(path))
                delay_s = RETRY_MIN_S
            await trio.sleep(delay_s)
            delay_s = min(RETRY_MAX_S, delay_s * 2)

    async def _clean_once(self, client: Client) -> bool:
        """Whether nothing is left that trying again can remove."""
        for path in list(self._unwanted):
            try:
                await self._removed(client, path)
            except DavfsError as error:
                if error.retry_helps:
                    return False
                log.info("%s is left on the server: %s", shown(path), error)
                self._unwanted.discard(path)  # stays noted: the next daemon tries
                self._late.pop(path, None)
        return True

    async def _removed(self, client: Client, path: DavPath) -> None:
        """Raises DavfsError when the name may still be there."""
        if not self._is_noted(path):
            self._unwanted.discard(path)
            return
        try:
            await client.delete(path, is_collection=False)
        except NotFound:
            log.debug("%s is gone already", shown(path))
            if path in self._late and not self._is_due(path):
                self._unwanted.discard(path)
                return
        self.forget(path)

    def _is_due(self, path: DavPath) -> bool:
        return self._late[path] <= trio.current_time()

    def _is_noted(self, path: DavPath) -> bool:
        return bool(self._index.rows("SELECT 1 FROM leftovers WHERE path=?", (path_bytes(path),)))
