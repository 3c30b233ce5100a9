"""What is not on the server, for a person: list it, try it again, give it up, take a copy of it.

Reads the queue of `Uploads` and the table of failures; decides nothing about sending. Giving up a change is
the only operation of davfs that throws away what a program wrote, so it happens only on a person's word, path
by path. The file is then as if the server's version had been renamed over ours: programs that have ours open
go on reading it, and are told ESTALE when they write or fsync.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import trio

from davfs.dav.resource import DavPath, checked_name
from davfs.errors import LinkDown, Locked, PosixError
from davfs.fs.content import Content
from davfs.fs.failures import Failures
from davfs.fs.grants import UNKNOWN_HOLDER
from davfs.fs.handles import Handles
from davfs.fs.inodes import Node
from davfs.fs.locks import Locks
from davfs.fs.metadata import Entry
from davfs.fs.queue import Pending
from davfs.fs.states import State, state_of
from davfs.fs.tree import Tree
from davfs.fs.upload import Uploads

MISSING_MAX: Final = 100  # extents that are told one by one


@dataclass(frozen=True, slots=True)
class UnsentBytes:
    """A descriptor of the unsent version, and what of it is not on this machine."""

    fd: int
    size_bytes: int
    mtime_ns: int
    missing: list[tuple[int, int]]


class Pendings:
    def __init__(
        self,
        tree: Tree,
        uploads: Uploads,
        handles: Handles,
        failures: Failures,
        locks: Locks,
        renamed: Callable[[Node, str], None],
    ) -> None:
        self._tree = tree
        self._uploads = uploads
        self._handles = handles
        self._failures = failures
        self._locks = locks
        self._renamed = renamed  # the kernel must be told: this name of this folder is another file now

    # --- looking

    def rows(self, most: int | None = None) -> list[dict[str, object]]:
        """One row for each unsent file, or for the first `most`."""
        now_s = trio.current_time()
        return [self._row(item, now_s) for item in islice(self._named(), most)]

    def counts(self) -> dict[str, object]:
        """How many there are: the same that `rows` tells, without a row for each of 100,000."""
        items = list(self._named())
        return {
            "pending_files": len(items),
            "pending_bytes": sum(item.content.size_bytes for item in items),
            "failed": sum(
                1 for item in items if item.running is None and self._failures.of(item.content) is not None
            ),
        }

    def conflicts(self) -> list[dict[str, object]]:
        """The copies beside somebody else's version, made since the start."""
        return [{"path": path, "state": State.CONFLICT} for path in self._uploads.conflicts]

    def paths(self) -> list[str]:
        return [str(item.node.path) for item in self._named()]

    def progress(self) -> dict[str, int]:
        """Few numbers, for whoever asks twice a second."""
        items = self._uploads.pending()
        return {
            "files": len(items),
            "bytes": sum(item.content.size_bytes for item in items),
            "out_bytes": self._uploads.out_bytes,
            "sending": sum(1 for item in items if item.running is not None),
            "stuck": sum(1 for item in items if item.failed is not None),
            "sent_files": self._uploads.sent_files,
        }

    def state(self, node: Node) -> State:
        content = node.content
        dirty = content is not None and content.dirty
        return state_of(
            dirty=dirty,
            sending=dirty
            and any(item.content is content and item.running for item in self._uploads.pending()),
            failure=self._failures.of(content) if content is not None else None,
            is_conflict_copy=not node.is_folder and str(node.path) in self._uploads.conflicts,
        )

    def _named(self) -> Iterator[Pending]:
        return (item for item in self._uploads.pending() if not item.node.unlinked)

    def _row(self, item: Pending, now_s: float) -> dict[str, object]:
        content = item.content
        failure = self._failures.of(content)
        sending = item.running is not None
        state = state_of(dirty=True, sending=sending, failure=failure, is_conflict_copy=False)
        return {
            "path": str(item.node.path),
            "size": content.size_bytes,
            "state": state,
            "attempts": content.attempts,
            "error": content.error,
            "errno": errno.errorcode.get(failure.errno) if failure is not None else None,
            "next_try_s": 0.0 if sending else round(max(0.0, item.due_s - now_s), 1),
        }

    def _at(self, path: str) -> list[Pending]:
        """The unsent file of this path, or all that are below this folder. Raises PosixError(ENOENT)."""
        wanted = _parsed(path).parts
        if not wanted:
            raise PosixError(errno.EINVAL, "say which file or folder: not the whole drive")
        found = [item for item in self._named() if item.node.path.parts[: len(wanted)] == wanted]
        if not found:
            raise PosixError(errno.ENOENT, f"{path}: nothing there waits to be sent")
        return found

    # --- doing

    def retry(self, path: str | None) -> int:
        """Try it now, also what would wait an hour; returns how many files."""
        found = self._at(path) if path is not None else list(self._named())
        for item in found:
            self._uploads.retry(item)
        return len(found)

    async def discard(self, path: str) -> list[dict[str, object]]:
        """Give up the unsent changes of a file, or below a folder; one row for each that was given up."""
        rows = []
        for item in self._at(path):
            if item.node.unlinked:  # removed while another one was being given up
                continue
            row = {"path": str(item.node.path), "size": item.content.size_bytes}
            with self._tree.nodes.held(item.node):
                await self._uploads.abandon(item.content)
                if _still_unsent(item):
                    where, parent = item.node.path, item.node.parent
                    told = self._give_up(item.node, item.content)
                    never_sent = not (item.content.life.acked or told["may_have_arrived"])
                    if await self._locks.discarded(where, item.node, never_sent=never_sent):
                        told["gone"] = True
                        self._show_anew(parent, where.name)
                    rows.append({**row, **told})
        return rows

    def _give_up(self, node: Node, content: Content) -> dict[str, object]:
        parent, name = node.parent, node.name
        assert parent is not None
        # Without a base the server never had it, unless a PUT of it may have arrived.
        never_sent = content.base is None and not content.life.unknown and not content.life.acked
        told: dict[str, object] = {"gone": never_sent, "may_have_arrived": content.life.unknown}
        self._uploads.delivery.gave_up(node.path, content)  # its parts on the server are not wanted any more
        self._tree.owed.forget(node)
        for file in self._handles.of(content):
            file.discarded = True
        content.held += 1  # its handles go on reading: what is here must stay
        self._tree.remember_last(node)
        self._tree.store.discard(content)
        node.content = None if content.closed else node.content
        self._tree.nodes.detach(node)
        if never_sent:
            self._tree.store.index.delete_locals(node.ino)
            self._tree.meta.learn(parent.ino, name, Entry(None, trio.current_time(), None, ours=True))
            self._tree.touched(parent)
            self._renamed(parent, name)
        else:
            self._show_anew(parent, name)
        return told

    def _show_anew(self, parent: Node | None, name: str) -> None:
        """Under this name is what the server says."""
        if parent is not None:
            self._tree.meta.expire(parent.ino, name)
            self._renamed(parent, name)

    async def unlock(self, path: str, *, force: bool) -> str | None:
        """Take away the lock on a file; whose it was, None when the server shows none.

        Raises Locked for somebody else's, unless `force`, and for one that cannot be named (sabre/dav 1.8).
        """
        where = _parsed(path)
        if self._locks.token_for(where) is not None:
            await self._locks.give_up(where)
            if self._locks.token_for(where) is None:
                return self._locks.owner
            raise LinkDown(f"{path}: the server did not answer; the lock is given back when it does")
        lock = next(iter(await self._tree.client.active_locks(where)), None)
        if lock is None:
            return None
        owner = lock.owner or UNKNOWN_HOLDER
        if not (force or self._locks.is_ours(lock)):
            raise Locked(f"{path} is locked by {owner}: --force takes that away")
        if lock.token is None:
            raise Locked(
                f"{path} is locked by {owner}, and the server does not show the token: it must run out"
            )
        await self._tree.client.unlock(where, lock.token)
        return owner

    def unsent_bytes(self, path: str) -> UnsentBytes:
        """For a copy elsewhere: never asks the server. The caller closes the descriptor."""
        wanted = _parsed(path).parts
        item = next((item for item in self._named() if item.node.path.parts == wanted), None)
        if item is None:
            raise PosixError(errno.ENOENT, f"{path}: nothing there waits to be sent")
        content = item.content
        fd = os.open(f"/proc/self/fd/{content.fd}", os.O_RDONLY | os.O_CLOEXEC)
        missing = content.missing(0, content.size_bytes)
        return UnsentBytes(fd, content.size_bytes, content.mtime_ns, missing[:MISSING_MAX])


def _still_unsent(item: Pending) -> bool:
    """It may have arrived, or been removed or replaced, while its upload was being stopped."""
    return item.content.dirty and item.node.content is item.content and not item.node.unlinked


def _parsed(path: str) -> DavPath:
    """A path of the share as a person writes it."""
    parsed = DavPath()
    for part in path.split("/"):
        if part not in {"", "."}:
            parsed = parsed.child(checked_name(part))
    return parsed
