"""One lock on the server: taken, known again by our id, given back. `locks` has the policy and the task.

Invariants: a row is in the index before its LOCK is sent, and goes after UNLOCK was answered: whatever
happens between is found again by the next run, by token, or by our id in the owner's text. Only an empty file
that our own LOCK made is ever removed here, under that lock, when nothing was sent to it.
"""

from __future__ import annotations

import getpass
import logging
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

from davfs.dav.client import Client
from davfs.dav.hrefs import shown
from davfs.dav.locks import NEVER_S, ActiveLock, GrantedLock, LockToken
from davfs.dav.resource import DavPath, Validator
from davfs.errors import DavfsError, Locked, NotFound, TimedOut
from davfs.fs.content import new_digest
from davfs.fs.index import Index
from davfs.fs.inodes import Node
from davfs.fs.strays import Strays
from davfs.fs.tokens import Tokens
from davfs.fs.turns import Turns

log = logging.getLogger("davfs.locks")

# A LOCK whose answer is lost blocks the name where the server shows no owner (nginx, lighttpd) or no token
# (rclone): so the first one is short. Whoever needs it longer asks for more while it runs.
LOCK_FIRST_S: Final = 60.0
LOCK_TIMEOUT_S: Final = 600.0  # after a crash of the machine the name is free again by then
FIRST_REFRESH_S: Final = 10.0
DOUBT_S: Final = 1800.0  # how long a lock of which we were not told may last: sabre/dav grants no less
RETRY_S: Final = 10.0  # a refresh or an UNLOCK that found no server
ANSWER_S: Final = 1.0  # how long whoever gives up an upload waits for the answer to its LOCK
NOTHING: Final = new_digest().digest()  # of the empty file that a LOCK makes
OWNER_MARK: Final = "(davfs "
UNKNOWN_HOLDER: Final = "somebody else (the server does not say who)"


@dataclass(slots=True, eq=False)
class Held:
    """One lock of ours. `due_s` is when something must be done about it."""

    path: DavPath
    token: LockToken
    due_s: float
    node: Node | None = None  # the open file it is for; None: of an earlier run, or around one request
    users: int = 0  # `around` blocks that run now
    made: Validator | None = None  # the empty file that the LOCK made
    ending: bool = False  # to be given back
    found: bool = False  # a row of an earlier run, not proved yet
    moved_over: bool = False  # by a MOVE that may have ended it


class Grants:
    def __init__(self, client: Client, index: Index) -> None:
        self._client = client
        self._tokens = Tokens(index)
        self._held: dict[DavPath, Held] = {}
        self._unanswered: dict[DavPath, float] = {}  # rows without a token: is there a lock? When to ask
        self._doubtful: dict[DavPath, float] = {}  # may be locked by a LOCK of ours without an answer; until
        self._holders: dict[DavPath, str] = {}  # of foreign locks that stood in the way
        self._unrefreshed: set[DavPath] = set()  # lost because the server refused to refresh them
        self._refreshes = True  # no: it refuses that of locks that it still has (npm, libphodav)
        self.strays = Strays()  # what may still land, by name; uploads note theirs here too
        self._turns = Turns()
        self._wake = trio.Event()
        self.owner = f"{_user()}@{socket.gethostname()} {OWNER_MARK}{self._tokens.own_id})"

    # --- taking

    async def _take(self, path: DavPath, node: Node | None) -> Held:
        """LOCK now, unless it is held. Raises Locked with the holder in its text."""
        async with self._turns.at(path):
            held = self._held.get(path)
            if held is not None:
                held.node, held.ending = node or held.node, False
                return held
            self._tokens.note(path)
            return await self._answered(path, node)

    async def _answered(self, path: DavPath, node: Node | None) -> Held:
        """Whoever gives up the upload waits for the answer to its LOCK, but not long: the file may be gone,
        and LOCK make an empty one in its place. That goes again, and the lock with it.
        """
        told: Held | DavfsError | None = None
        try:
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope(shield=True)
                nursery.start_soon(_end_soon, scope)
                with scope:
                    try:
                        told = await self._asked(path, node)
                    except DavfsError as error:
                        told = error
                nursery.cancel_scope.cancel()
        except BaseException:
            if isinstance(told, Held):
                await self._take_back(told)
            raise
        assert told is not None
        if isinstance(told, DavfsError):
            raise told
        return told

    async def _take_back(self, held: Held) -> None:
        held.ending, held.due_s = True, trio.current_time()
        with trio.move_on_after(ANSWER_S, shield=True) as scope:
            await self._remove_made(held)
            await self._unlock(held)
        if scope.cancelled_caught:
            self._may_have_made(held.path)
            self._wake.set()

    async def _asked(self, path: DavPath, node: Node | None) -> Held:
        try:
            lock = await self._locked(path)
        except (DavfsError, trio.Cancelled) as error:
            if isinstance(error, DavfsError) and not error.outcome_unknown:
                self._tokens.forget(path)
            else:  # the row stays: there may be a lock
                self._unanswered[path] = trio.current_time() + RETRY_S
                self._doubtful[path] = trio.current_time() + DOUBT_S
                self._may_have_made(path)
                self._wake.set()
            raise
        return await self._keep(path, lock, node)

    def _may_have_made(self, path: DavPath) -> None:
        """An empty file there may be one that a LOCK of ours made: known like a PUT that nobody answered."""
        self.strays.note(path, 0, NOTHING, trio.current_time())

    async def _locked(self, path: DavPath) -> GrantedLock:
        try:
            first_s = LOCK_FIRST_S if self._refreshes else LOCK_TIMEOUT_S
            return await self._client.lock(path, self.owner, first_s)
        except Locked as error:
            locks = await self._client.active_locks(path)
            mine = self._mine(locks)
            if mine is not None:
                self._refreshes = self._refreshes and path not in self._unrefreshed
                self._may_have_made(path)
                return mine
            self._holders[path] = locks[0].owner or UNKNOWN_HOLDER if locks else UNKNOWN_HOLDER
            text = f"{shown(path)} is locked by {self._holders[path]}"
            raise Locked(text, status=error.status) from None
        except DavfsError as error:
            if not error.outcome_unknown or isinstance(error, TimedOut):
                raise
            with suppress(DavfsError):
                mine = self._mine(await self._client.active_locks(path))
                if mine is not None:
                    self._may_have_made(path)
                    return mine
            raise

    def is_ours(self, lock: ActiveLock) -> bool:
        """By the id in the owner's text."""
        return self._tokens.own_id in lock.owner

    def _mine(self, locks: Iterable[ActiveLock]) -> GrantedLock | None:
        """A lock that we took and do not know of: its answer was lost. Nobody else has our id."""
        for lock in locks:
            if lock.token is not None and self.is_ours(lock):
                return GrantedLock(lock.token, lock.timeout_s)
        return None

    async def _keep(self, path: DavPath, lock: GrantedLock, node: Node | None) -> Held:
        first_s = FIRST_REFRESH_S if lock.timeout_s <= LOCK_FIRST_S else NEVER_S
        next_s = min(lock.timeout_s / 2, first_s) if self._refreshes else lock.timeout_s
        due_s = trio.current_time() + next_s
        self._unrefreshed.discard(path)
        held = Held(path, lock.token, due_s, node)
        self._tokens.save(path, lock.token, made=lock.created)
        self._held[path] = held
        self._holders.pop(path, None)
        self._doubtful.pop(path, None)
        self._wake.set()
        if lock.created:
            await self._note_made(held)
        return held

    async def _note_made(self, held: Held) -> None:
        try:
            found = await self._client.stat(held.path)
        except DavfsError as error:
            log.info("%s was made by LOCK, and cannot be looked at: %s", shown(held.path), error)
            self._may_have_made(held.path)
            return
        held.made = found.validator if found.size_bytes == 0 else None

    # --- giving back

    async def _release(self, held: Held) -> None:
        """UNLOCK. Without an answer it is tried again; until then the token stays known."""
        held.ending = True
        async with self._turns.at(held.path):
            if not held.ending or self._held.get(held.path) is not held:
                return  # wanted again, or gone
            await self._unlock(held)

    async def _unlock(self, held: Held) -> None:
        fresh = held.moved_over and trio.current_time() < held.due_s < NEVER_S
        try:
            gone = not await self._client.unlock(held.path, held.token)
        except DavfsError as error:
            if error.retry_helps:
                held.due_s = trio.current_time() + RETRY_S
                self._wake.set()
                return
            log.info("UNLOCK of %s: %s", shown(held.path), error)
        else:
            if fresh:
                server = self._client.capabilities
                self._client.capabilities = server.learned_move_over_lock(gone=gone)
        self._drop(held)

    async def _remove_made(self, held: Held) -> bool:
        """The empty file that our LOCK made, if it still is that: nobody else can write under our lock."""
        made, held.made = held.made, None
        if made is None:
            return False
        try:
            found = await self._client.stat(held.path)
            if found.size_bytes == 0 and made.same_version(found.validator):
                await self._client.delete(held.path, is_collection=False, lock_token=held.token)
                return True
        except NotFound:
            return True
        except DavfsError as error:
            log.info("%s: the empty file that LOCK made stays: %s", shown(held.path), error)
            self._may_have_made(held.path)
        return False

    def _drop(self, held: Held) -> None:
        if self._held.get(held.path) is held:
            del self._held[held.path]
            self._tokens.forget(held.path)

    async def _look_for_unanswered(self, path: DavPath) -> bool:
        """A LOCK without an answer, of now or of an earlier run: ours is known by the id in its owner.
        True when there was one, and it is given back."""
        async with self._turns.at(path):
            self._unanswered.pop(path, None)
            if path in self._held:
                return False
            try:
                mine = self._mine(await self._client.active_locks(path))
            except DavfsError as error:
                if error.retry_helps:
                    self._unanswered[path] = trio.current_time() + RETRY_S
                    return False
                mine = None
            if mine is None:  # none, or a server that does not say: it ends by itself
                self._tokens.forget(path)
                return False
            held = await self._keep(path, mine, None)
        await self._release(held)
        return path not in self._held


async def _end_soon(scope: trio.CancelScope) -> None:
    """Ends what runs in a shielded scope a moment after this is cancelled."""
    try:
        await trio.sleep_forever()
    finally:
        scope.deadline = trio.current_time() + ANSWER_S


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for this user
        return "somebody"
