"""Properties to the server: at once for who waits, in the background for what is wished.

One PROPPATCH for all that is wished of a file, a moment after the last change: `cp -a` and `git checkout` set
several things of many files. The executable bit costs requests only where it differs from what the server
has; a server that does not keep it is found out once, by reading back, and not asked again.

Invariants: nothing is sent about a file whose bytes are not on the server yet, or whose name is changing; a
property counts as stored only if the server said so, and of a server's first ones, and of each longer than
any before, only if it gave it back.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import trio

from davfs.dav.attributes import XATTR_NAMESPACE, Inventory, decoded_name, xattr_property
from davfs.dav.hrefs import shown
from davfs.dav.properties import EXECUTABLE, EXTRAS, LINK, MTIME, OWN_EXECUTABLE, XATTRS
from davfs.dav.proppatch import PropertyChange
from davfs.dav.resource import DavPath, Resource
from davfs.errors import (
    Locked,
    NoSpace,
    NotFound,
    PosixError,
    ServerRefused,
    Unauthorized,
    Unsupported,
    as_davfs_error,
    refused,
)
from davfs.fs.inodes import Node, is_unsent
from davfs.fs.locks import Locks
from davfs.fs.metadata import Entry
from davfs.fs.permissions import is_executable
from davfs.fs.tree import Tree
from davfs.fs.turns import Turns
from davfs.fs.wishes import Wish

log = logging.getLogger("davfs.properties")

GATHER_S: Final = 0.3  # what else a program sets on the same file goes along
AT_ONCE: Final = 4
RETRY_S: Final = 5.0
RETRY_MAX_S: Final = 30.0
JUST_SENT_S: Final = 5.0  # nobody else has seen what we made yet
SHORT: Final = 200  # characters: any column of a database has room for so many
WAIT_S: Final = 20.0  # how long `fsync` waits for it

Texts = Mapping[str, str | None]


class Pushes:
    def __init__(self, tree: Tree, locks: Locks) -> None:
        self._tree = tree
        self._client = tree.client
        self._locks = locks
        self._keeps_executable: bool | None = None  # None: not tried yet
        self._executable = EXECUTABLE
        self._read_back: dict[bool, int] = {}  # the longest text that came back: of folders, of files
        self._turns = Turns()
        self._rested, self._hurry = trio.Event(), trio.Event()
        self._running: list[tuple[Node, trio.Event]] = []
        # After the inventory of a file was changed that others may change too: what came, what went.
        self.inventory_changed: Callable[[Node, frozenset[str], frozenset[str]], None] = lambda *_: None

    # --- the executable bit

    def mode_changed(self, node: Node, mode: int) -> None:
        """A program set it. Of an unsent file `uploaded` says it once it is sent."""
        if node.is_folder or node.unlinked or is_unsent(node) or self._keeps_executable is False:
            return
        wanted = "T" if mode & 0o100 else "F"
        entry = self._tree.known_entry(node)
        known = is_executable(entry.resource) if entry is not None else None
        if (wanted == "T") != bool(known) or self._executable in self._tree.wishes.changes_of(node):
            self._tree.wishes.add(node, {self._executable: wanted})

    def uploaded(self, node: Node, mode: int | None, before: Resource | None) -> Resource | None:
        """After an upload over `before`: what the server goes on to say of the bit is right, or is wished.

        `mode` as programs set it, None if none did. Apache makes a new file of each PUT, without the bit.
        Returns what is known of the file's properties.
        """
        if self._tree.wishes.of(node) is not None:
            self._tree.wishes.wake.set()
        known = is_executable(before)
        kept = None if before is None else _properties_kept(before)
        if kept is not None and self._client.capabilities.put_clears_executable:
            kept = kept._replace(executable=False)
        wanted = bool(known) if mode is None else bool(mode & 0o100)
        now = is_executable(kept)
        if wanted != bool(now) and self._keeps_executable is not False:
            self._tree.wishes.add(node, {self._executable: "T" if wanted else "F"})
        return kept

    # --- what is wished

    async def run(self) -> None:
        """The task that sends what is wished, until cancelled."""
        wishes, delay_s = self._tree.wishes, RETRY_S
        while True:
            wishes.wake, self._hurry = trio.Event(), trio.Event()
            await self._send_all()
            is_done = not any(map(self._may_be_sent, wishes.all()))
            delay_s = RETRY_S if is_done else min(RETRY_MAX_S, delay_s * 2)
            self._rested.set()
            self._rested = trio.Event()
            with trio.move_on_after(float("inf") if is_done else delay_s):
                await wishes.wake.wait()
            with trio.move_on_after(GATHER_S):
                await self._hurry.wait()

    async def _send_all(self) -> None:
        if self._tree.refusal() is not None:
            return
        slots = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            for wish in filter(self._may_be_sent, self._tree.wishes.all()):
                nursery.start_soon(self._send, wish, slots)

    def _may_be_sent(self, wish: Wish) -> bool:
        return not (wish.refused or is_unsent(wish.node))

    async def _send(self, wish: Wish, slots: trio.CapacityLimiter) -> None:
        async with slots:
            node = wish.node
            if _is_moving(node) or not self._may_be_sent(wish):
                return
            try:
                with self._under_way(node):
                    await self._try(wish, node)
            except Exception as failure:  # noqa: BLE001 - one file's trouble must not end the task
                error = as_davfs_error(failure)
                if not (error.retry_helps or isinstance(error, Locked | Unauthorized)):
                    wish.refused = True
                    log.warning("%s keeps its attributes here only: %s", node.name, error)
            finally:
                wish.tries += 1

    @contextmanager
    def _under_way(self, node: Node) -> Iterator[None]:
        one = (node, trio.Event())
        self._running.append(one)
        try:
            yield
        finally:
            self._running.remove(one)
            one[1].set()

    async def _try(self, wish: Wish, node: Node) -> None:
        if node.unlinked:
            self._tree.wishes.forget(node)
            return
        path = node.path
        try:
            await self._pay(node, dict(wish.changes))
        except NotFound:
            has_its_name = node.parent is None or node.path == path
            if has_its_name and not _is_moving(node):  # somebody else removed it
                self._tree.wishes.forget(node)

    async def _pay(self, node: Node, changes: dict[str, str | None]) -> None:
        begun_s = trio.current_time()
        bit = {name: changes[name] for name in (EXECUTABLE, OWN_EXECUTABLE) if name in changes}
        others = {name: value for name, value in changes.items() if name not in bit}
        if bit and not (others and self._keeps_executable and self._executable in bit):  # else all in one
            if self._keeps_executable is not False:
                await self._store_executable(node, next(iter(bit.values())) == "T")
            if self._is_still(node, begun_s):
                self._tree.wishes.fulfilled(node, bit)
            bit = {}
        if others and await self.store(node, {**others, **bit}):
            self._tree.wishes.fulfilled(node, changes)

    async def _store_executable(self, node: Node, executable: bool) -> None:
        """Raises what may pass; a server that does not keep the bit is not asked again."""
        entry = self._tree.known_entry(node)
        if entry is not None and entry.resource is not None and entry.resource.executable is not None:
            self._keeps_executable = True  # it tells: Apache
        try:
            await self._patch(node, {self._executable: "T" if executable else "F"})
        except ServerRefused as error:
            if self._keeps_executable or error.retry_helps or isinstance(error, NotFound | NoSpace):
                raise
            self._no_executable(str(error))
            return
        if self._keeps_executable is None:
            found = await self._client.properties_of(node.path, [self._executable])
            if found.get(self._executable) == ("T" if executable else "F"):
                self._keeps_executable = True
            elif self._executable == EXECUTABLE and await self._tree.marker.begin("executable"):
                self._executable = OWN_EXECUTABLE
                await self._store_executable(node, executable)
            else:
                self._no_executable("it is not read back")

    def _no_executable(self, why: str) -> None:
        log.info("this server does not keep the executable bit, which is kept here: %s", why)
        self._keeps_executable = False

    async def settle(self, node: Node) -> None:
        """What is wished for this file is stored, or cannot be had now."""
        wish = self._tree.wishes.of(node)
        if wish is not None:
            await self._tried([wish], WAIT_S)

    async def drain(self, limit_s: float) -> None:
        """The same for all of them."""
        await self._tried(list(self._tree.wishes.all()), limit_s)

    async def _tried(self, wishes: list[Wish], limit_s: float) -> None:
        before = [(wish, wish.tries) for wish in wishes if self._may_be_sent(wish)]
        with trio.move_on_after(limit_s):
            while any(
                self._tree.wishes.of(wish.node) is wish and wish.tries == tries for wish, tries in before
            ):
                if self._tree.refusal() is not None:
                    return
                self._tree.wishes.wake.set()
                self._hurry.set()
                await self._rested.wait()

    async def out_of_the_way(self, *names: tuple[Node, str]) -> None:
        """Until no PROPPATCH of these runs: their names are about to change, and mean other files then."""
        for folder, name in names if self._running else ():
            about_to_change = folder.children.get(name)
            for node, is_done in list(self._running):
                if about_to_change is not None and node.is_within(about_to_change):
                    await is_done.wait()

    def must_wait(self, node: Node) -> bool:
        """What is set now is to be sent later: the bytes are not there, or a name above is changing."""
        return is_unsent(node) or _is_moving(node) or self._tree.wishes.of(node) is not None

    # --- storing

    async def store(self, node: Node, changes: Texts) -> bool:
        """These properties of this file, and the inventory of its attributes, in one PROPPATCH.

        Raises what stands in the way; then nothing is stored. False: meanwhile a body took the place of the
        file, perhaps without them.
        """
        begun_s = trio.current_time()
        with self._under_way(node):
            async with self._turns.at(node.path):
                await self._store(node, dict(changes))
        return self._is_still(node, begun_s)

    async def _store(self, node: Node, texts: dict[str, str | None]) -> None:
        begun_s, is_shared = trio.current_time(), False
        added, removed = xattrs_in(texts)
        if added or removed:
            known = self._tree.known_entry(node)
            is_shared = known is None or not _nobody_else_knows(known)
            resource = await self._now(node) if known is None or is_shared else known.resource
            inventory = _inventory_of(resource).changed(added, removed)
            if not inventory.fits:
                raise PosixError(errno.ENOSPC, "too many attributes: their names do not fit one property")
            texts[XATTRS] = inventory.text()
        await self._patch(node, texts)
        if self._is_still(node, begun_s):
            await self._compare(node, {name: text for name, text in texts.items() if text is not None})
        if is_shared:
            self.inventory_changed(node, added, removed)

    def _is_still(self, node: Node, since_s: float) -> bool:
        """Whether it is the file that it was then: nothing of it is unsent, nor was sent since."""
        entry = self._tree.known_entry(node)
        return not (is_unsent(node) or (entry is not None and entry.ours and entry.learned_s > since_s))

    async def list_again(self, node: Node, doubtful: frozenset[str]) -> bool:
        """Which of these attributes the file has is told by their values, and so its inventory is to say.

        True: it did not, or its name is changing.
        """
        if _is_moving(node):
            return True
        with self._under_way(node):
            return await self._list_again(node, doubtful)

    async def _list_again(self, node: Node, doubtful: frozenset[str]) -> bool:
        async with self._turns.at(node.path):
            tags = {xattr_property(name): name for name in doubtful}
            found = await self._client.properties_of(node.path, tags, is_collection=node.is_folder)
            there = frozenset(tags[tag] for tag in found if tag in tags)
            inventory = _inventory_of(await self._now(node))
            added, removed = there - inventory.names, (doubtful - there) & inventory.names
            if added or removed:
                await self._patch(node, {XATTRS: inventory.changed(added, removed).text()})
        return bool(added or removed)

    async def store_at(self, path: DavPath, texts: Texts) -> None:
        """The same of a name that no program knows. Raises ServerRefused when one of them is refused."""
        changes = [PropertyChange(name, value) for name, value in texts.items()]
        outcome = await self._client.proppatch(path, changes, lock_token=self._locks.token_for(path))
        _raise_for(outcome, path)

    async def _now(self, node: Node) -> Resource:
        return await self._client.stat(node.path, is_collection=node.is_folder)

    async def _patch(self, node: Node, texts: Texts) -> None:
        path = node.path
        outcome = await self._client.proppatch(
            path,
            [PropertyChange(name, value) for name, value in texts.items()],
            is_collection=node.is_folder,
            lock_token=self._locks.token_for(path),
        )
        _raise_for(outcome, path)
        entry = self._tree.known_entry(node)
        if entry is not None and entry.resource is not None:
            entry.resource = with_properties(entry.resource, texts)
            entry.patched_s = trio.current_time()
            if node.parent is not None:
                self._tree.meta.changed.add(node.parent.ino)

    async def _compare(self, node: Node, texts: Mapping[str, str]) -> None:
        """One longer than any that this server has given back: it may have been cut (MySQL: at 255)."""
        longest = max(map(len, texts.values()), default=0)
        if longest <= self._read_back.get(node.is_folder, 0):
            return
        found = await self._client.properties_of(node.path, texts, is_collection=node.is_folder)
        if all(found.get(name) == text for name, text in texts.items()):
            self._read_back[node.is_folder] = max(SHORT, longest)
            return
        spoilt = {name: None for name, text in texts.items() if name != XATTRS and found.get(name) != text}
        await self._patch(node, spoilt)
        if not found:
            raise Unsupported(f"{shown(node.path)}: the server does not keep properties", status=501)
        raise NoSpace(f"{shown(node.path)}: the server does not keep properties of this size", status=507)


def xattrs_in(texts: Texts) -> tuple[frozenset[str], frozenset[str]]:
    """The attributes that are set, and that are removed."""
    added: set[str] = set()
    removed: set[str] = set()
    for tag, text in texts.items():
        namespace, _, coded = tag[1:].partition("}")
        name = decoded_name(coded) if namespace == XATTR_NAMESPACE else None
        if name is not None:
            (removed if text is None else added).add(name)
    return frozenset(added), frozenset(removed)


def _inventory_of(resource: Resource | None) -> Inventory:
    return Inventory.parse(resource.extra(XATTRS) if resource is not None else None)


def _is_moving(node: Node) -> bool:
    """Its name, or one above it, is about to change, or has changed on the server already."""
    above: Node | None = node
    while above is not None and not above.busy:
        above = above.parent
    return above is not None


def _nobody_else_knows(entry: Entry) -> bool:
    """It was made here a moment ago: it has the properties that we know."""
    return entry.is_new and trio.current_time() - entry.learned_s < JUST_SENT_S


def _raise_for(outcome: Mapping[str, int], path: DavPath) -> None:
    """The cause, if anything failed: 424 only says that another one did."""
    failed = [status for status in outcome.values() if not 200 <= status < 300]
    if failed:
        status = next((each for each in failed if each != 424), 424)
        raise refused("PROPPATCH", status, shown(path))


def with_properties(resource: Resource, texts: Texts) -> Resource:
    """What the server says of it after these were set."""
    extras = tuple((name, text) for name, text in resource.extras if name not in texts)
    extras += tuple((name, text) for name, text in texts.items() if text is not None and name in EXTRAS)
    bit = texts.get(EXECUTABLE)
    return resource._replace(extras=extras, executable=bit == "T" if bit is not None else resource.executable)


def _properties_kept(before: Resource) -> Resource:
    """What other bytes under the same name leave as it was: not the time, and it is no link any more."""
    extras = tuple((name, text) for name, text in before.extras if name not in {LINK, MTIME})
    return before._replace(extras=extras)
