"""The tree as programs see it: nodes, joined with what the server says and what only we know.

Answers "what is this name", "what is in this folder", "what are its attributes", asking the server
only when nothing fresh is known, and once for all who ask the same at the same time. Unsent files
are part of the tree although no listing has them; what was unlinked here stays gone.

Shared state changes in synchronous methods only; whatever was read before an await is read again after it.
"""

from __future__ import annotations

import errno
import functools
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import trio

from davfs.dav.client import Client
from davfs.dav.properties import LINK
from davfs.dav.resource import ETag, Resource, Validator, is_name_short
from davfs.errors import LinkDown, LinkError, NotFound, PosixError, Unauthorized
from davfs.fs.appearance import Appearance, mode_set
from davfs.fs.attributes import Attributes
from davfs.fs.content import Content
from davfs.fs.index import LocalAttributes
from davfs.fs.inodes import InodeTable, Node, is_unsent
from davfs.fs.listings import Listings
from davfs.fs.marker import Marker
from davfs.fs.metadata import NEVER, Entry, Folder, Metadata
from davfs.fs.owed import Owed
from davfs.fs.questions import Ask, Key, Questions
from davfs.fs.settings import Settings
from davfs.fs.store import ContentStore
from davfs.fs.subtrees import Subtrees
from davfs.fs.unread import Unread
from davfs.fs.wishes import Wishes

HIDDEN_PREFIX: Final = ".davfs-"  # our own temporary names on the server
PATIENCE_S: Final = 3.0  # how long a program waits for names and attributes while old ones are known,
PATIENCE_SHARE: Final = 0.5  # but no longer than this part of the time-out
_ROOT_ITSELF: Final[Key] = (0, None)  # the key of the question about the root's own attributes


class Tree:
    def __init__(
        self, client: Client, store: ContentStore, settings: Settings, *, wall_s: Callable[[], float]
    ) -> None:
        self.client = client
        self.store = store
        self.settings = settings
        self.wall_s = wall_s
        self.nodes = InodeTable(store.index.numbers)
        self.listings = Listings(store.index, wall_s=wall_s, extras=lambda: client.extras)
        self.meta = Metadata(
            min_s=settings.attr_timeout_min_s,
            max_s=settings.attr_timeout_max_s,
            wall_s=wall_s,
            hidden=self.may_be_hidden,
            recall=self._recall,
            proofs=Subtrees(client, self.nodes, lambda: self._root),
            believable=self.listings.believable,
        )
        self.changed: Callable[[Node], None] = lambda _node: None  # a foreign change: the kernel must be told
        self.kernel_knows: Callable[[Node], Awaitable[None]] = _nobody_to_tell  # told, and told it was heard
        self.unread = Unread()
        self._root: Entry | None = None
        self.marker = Marker(client)
        self.marker.widened = self.meta.expire_all
        self.owed = Owed(client, store.index, self.nodes, settings)
        self.wishes = Wishes(store.index, self.nodes)
        self.appearance = Appearance(
            self.meta, self.owed, self.wishes, settings, is_away=lambda: self.refusal() is not None
        )
        # After an upload: (node, mode, what stood there) to what the server goes on to say beside the bytes.
        self.sent: Callable[[Node, int | None, Resource | None], Resource | None] = lambda *_: None
        self.questions = Questions()
        self.patience_s = min(PATIENCE_S, PATIENCE_SHARE * settings.timeout_s)

    def may_be_hidden(self, name: str) -> bool:
        """Whether a listing may leave out this name although it exists (nginx: names with a dot)."""
        return self.client.capabilities.hides_dot_names and name.startswith(".")

    def refusal(self) -> LinkDown | None:
        """While the server is known to be away: what a question would end with."""
        return self.client.reach.link.refusal()

    # --- names

    async def find(self, parent: Node, name: str, *, soon: bool = False) -> Node | None:
        """The node of this name, or None when there is nothing there. `soon`: see `entry`."""
        if not parent.is_folder:
            raise PosixError(errno.ENOTDIR)
        local = self._local_child(parent, name)
        if local is not None:
            return local
        entry = await self.entry(parent, name, soon=soon)
        local = self._local_child(parent, name)
        if local is not None:
            return local
        return self.adopt(parent, name, entry)

    def _local_child(self, parent: Node, name: str) -> Node | None:
        child = parent.children.get(name)
        return child if child is not None and is_unsent(child) else None

    def adopt(self, parent: Node, name: str, entry: Entry) -> Node | None:
        """Bring the table into line with what is known of this name."""
        child = self.nodes.named(parent, name)
        resource = entry.resource
        if resource is None:
            if child is not None:
                self.gone(child)
            return parent.children.get(name)  # a folder that holds unsent files stays
        if child is not None and child.is_folder != resource.is_collection:
            self.gone(child)
            if parent.children.get(name) is child:
                return child  # it holds what is not sent: whoever sends that makes way
        node = self.nodes.child(parent, name, is_folder=resource.is_collection)
        if entry.kept is not None and node.mode is None:
            node.mode = entry.kept.mode
        return node

    def gone(self, node: Node) -> None:
        """Somebody else removed it: open handles keep what is on disk, unsent files keep their path."""
        for child in self.nodes.members(node):
            self.gone(child)
        if node.children or is_unsent(node) or node.busy:
            return
        self.remember_last(node)
        self.changed(node)
        content = node.content
        node.lost = 1
        self.nodes.detach(node)
        if node.is_folder:
            self.meta.forget_folder(node.ino)
        elif content is not None:
            self.store.discard(content)

    async def entry(self, parent: Node, name: str, *, soon: bool = False) -> Entry:
        """What the server holds under this name; `resource` None for nothing.

        While the server is away: what was last known. With `soon` that is also better than waiting for a slow
        server, unless it is that there is nothing.
        """
        while True:
            known = self.meta.looked_up(parent.ino, name, trio.current_time())
            if known is not None:
                return known
            refusal = self.refusal()
            if refusal is not None:
                return self._last_known(parent, name, refusal)
            try:
                asked = await self._ask_for(parent, name, patiently=not soon)
            except LinkError as error:
                return (self._seen(parent, name) if soon else None) or self._last_known(parent, name, error)
            if asked is None:
                seen = self._seen(parent, name)
                if seen is not None:
                    return seen
                soon = False
            known = self._just_learned(parent, name) if asked else None
            if known is not None:
                return known

    def _seen(self, parent: Node, name: str) -> Entry | None:
        """What was there, however long ago."""
        self.meta.recall(parent.ino)
        last = self.meta.last_known(parent.ino, name)
        return last if last is not None and last.resource is not None else None

    def _last_known(self, parent: Node, name: str, error: LinkError) -> Entry:
        """While the server is known to be away; else, or if nothing is known, `error` is the answer."""
        if self.refusal() is None:
            raise error
        self.meta.recall(parent.ino)
        last = self.meta.last_known(parent.ino, name)
        if last is None:
            raise error
        return last

    def _just_learned(self, parent: Node, name: str) -> Entry | None:
        known = self.meta.stale_entry(parent.ino, name)
        if known is None and self.meta.folder(parent.ino).complete:
            return Entry(None, trio.current_time())
        return known

    async def _ask_for(self, parent: Node, name: str, *, patiently: bool) -> bool | None:
        """One look-up, as Depth 0 or as a listing; see `Questions` for what it returns."""
        # Who has lost patience goes on waiting for what was asked: another question answers no sooner.
        above = None if parent.parent is None else parent.parent.ino
        listing = not self.questions.is_out((parent.ino, name)) and (
            (
                self.questions.is_out((parent.ino, None))
                or self.meta.wants_listing(parent.ino, trio.current_time(), above)
                or self.client.capabilities.spelling.is_told_by_lists(name)
            )
            and not self.may_be_hidden(name)
        )
        # A listing that broke off is no answer about a name that it lacks.
        listing = listing and self.meta.folder(parent.ino).complete
        fetch = self._fetch_listing if listing else self._fetch_entry
        key = (parent.ino, None if listing else name)
        return await self._ask(key, functools.partial(fetch, parent, name), patiently=patiently)

    async def _ask(self, key: Key, ask: Ask, *, patiently: bool) -> bool | None:
        if patiently:
            return await self.questions.answered(key, ask)
        answer = await self.questions.answered_within(self.patience_s, key, ask)
        if answer is None:
            self.client.reach.doubt()
        return answer

    async def refreshed(self, node: Node) -> Entry:
        """The server's word on this node, asked now."""
        parent = node.parent
        if parent is None:
            raise PosixError(errno.ESTALE)
        name = node.name
        await self._fetch_entry(parent, name)
        return self.meta.stale_entry(parent.ino, name) or Entry(None, trio.current_time())

    async def list_names(self, node: Node, *, now: bool = False) -> list[str]:
        """The members of a folder, unsent ones included; with `now`, asked of the server now.

        Otherwise what was last known is better than waiting for a slow server, or than none at all.
        """
        asked, soon = False, not now
        while not (asked if now else self.meta.listing_is_fresh(node.ino, trio.current_time())):
            if soon and self.refusal() is not None and self._was_listed(node):
                break
            try:
                answer = await self._ask_for_listing(node, patiently=not soon)
            except LinkError:
                if now or not self._was_listed(node):
                    raise
                break
            if answer is None and self._was_listed(node):
                break
            asked, soon = bool(answer), soon and answer is not None
            if asked:
                break
        return self.known_names(node)

    def _was_listed(self, node: Node) -> bool:
        self.meta.recall(node.ino)
        return self.meta.was_listed(node.ino)

    async def _ask_for_listing(self, node: Node, *, patiently: bool) -> bool | None:
        ask = functools.partial(self._fetch_listing, node, "")
        return await self._ask((node.ino, None), ask, patiently=patiently)

    def known_names(self, node: Node) -> list[str]:
        names = [name for name in self.meta.names(node.ino) if not name.startswith(HIDDEN_PREFIX)]
        unsent = [name for name, one in node.children.items() if is_unsent(one)]
        known = set(names) if unsent else set()
        return names + [name for name in unsent if name not in known]

    def known_child(self, parent: Node, name: str) -> Node | None:
        """The node of a name that a listing just gave; no request."""
        local = self._local_child(parent, name)
        if local is not None:
            return local
        known = self.meta.stale_entry(parent.ino, name)
        return None if known is None else self.adopt(parent, name, known)

    def told_member(
        self, folder: Folder, parent: Node, name: str, now_s: float
    ) -> tuple[Node | None, Attributes] | None:
        """`known_child`, and what the kernel is told of it: for each name of a long listing. None: a leaf."""
        entry = folder.entries.get(name)
        if entry is not None and self.appearance.is_plain_file(entry):
            number = self.nodes.leaf_number(parent, name)
            if number is not None:
                return None, self.appearance.of_plain_file(number, folder, entry, now_s)
        node = self._local_child(parent, name) or (None if entry is None else self.adopt(parent, name, entry))
        if node is None:
            return None
        told = self.appearance.attributes(node, folder, entry, now_s)
        node.told_size = told.size_bytes
        return node, told

    async def list_ahead(self, node: Node) -> None:
        """For a program that is expected. Raises what became of it, NoLane above all."""
        ask = functools.partial(self._fetch_listing, node, "", ahead=True)
        await self.questions.ask_ahead((node.ino, None), ask)

    def _look_at_the_marker(self) -> None:
        """Behind other questions: programs deep below may never ask about the root itself."""
        if self.marker.is_old and self.refusal() is None:
            self.marker.looks()
            self.questions.begin(_ROOT_ITSELF, self._fetch_root)

    async def _fetch_listing(self, node: Node, _name: str, *, ahead: bool = False) -> None:
        self._look_at_the_marker()
        asked_s = trio.current_time()
        try:
            listing = await self.client.list(node.path, ahead=ahead)
        except NotFound:
            self.gone(node)
            raise
        if node is self.nodes.root:
            self.learn_root(listing.itself, asked_s)
        kept = self.store.index.locals_below(node.ino)
        members = {name: resource for name, resource in listing.members.items() if is_name_short(name)}
        self._notice_changes(node, members)
        self.meta.learn_listing(
            node.ino,
            listing.itself,
            members,
            (lambda name: kept.get(self.nodes.number_of(node, name))) if kept else (lambda _name: None),
            asked_s,
            complete=listing.complete and not listing.ignored,
            cost_s=trio.current_time() - asked_s,
        )

    def _notice_changes(self, folder: Node, members: dict[str, Resource]) -> None:
        """Tell the kernel of what changed under nodes that it knows. What we stored and the server lists in
        another Unicode form is one file, not two."""
        for name, other in self.meta.listed_otherwise(folder.ino, members):
            if (made := self.nodes.named(folder, name)) is not None:
                self.client.capabilities = self.client.capabilities.learned_spelling(name, other)
                self.moved(made, folder, other)
        if self.meta.known_folder(folder.ino) is not None:
            names = [name for name, child in folder.children.items() if not child.is_folder]
            for name in (*names, *(folder.leaves or ())):
                self._notice_change(folder, name, members.get(name))

    def _notice_change(self, folder: Node, name: str, now: Resource | None) -> None:
        before = self.meta.stale_entry(folder.ino, name)
        if before is None or before.resource is None or now is None:
            return
        if not before.resource.validator.same_version(now.validator):
            child = self.nodes.named(folder, name)
            if child is not None and not (child.is_folder or is_unsent(child)):
                self.changed_elsewhere(child)

    def changed_elsewhere(self, node: Node) -> None:
        """Somebody else writes to it: the kernel must be told, and our next overwrite takes more care."""
        node.foreign_s = trio.current_time()
        self.changed(node)

    async def _fetch_entry(self, parent: Node, name: str) -> None:
        self._look_at_the_marker()
        asked_s = trio.current_time()
        path, known = parent.path.child(name), parent.children.get(name)
        try:
            resource = await self.client.stat(path, is_collection=known is not None and known.is_folder)
        except NotFound:
            self.meta.learn(parent.ino, name, Entry(None, asked_s))
            return
        if resource.spelled is not None:  # it has no such name, but another one for what it found
            self.meta.learn(parent.ino, name, Entry(None, asked_s))
            name, resource = resource.spelled, resource._replace(spelled=None)
        kept = self.store.index.locals_of(self.nodes.number_of(parent, name))
        self._notice_change(parent, name, resource)
        self.meta.learn(parent.ino, name, Entry(resource, asked_s, kept))

    # --- attributes

    async def know(self, node: Node) -> None:
        """Until what is known of it is fresh. ENOENT when somebody else removed it."""
        if node.parent is None:
            if not node.unlinked:
                await self._refresh_root()
        elif not is_unsent(node):
            entry = await self.entry(node.parent, node.name, soon=True)
            self._still_there(node, entry)

    def _still_there(self, node: Node, entry: Entry) -> None:
        """ENOENT for a node that the server does not have any more, unless it is open."""
        if node.parent is None or is_unsent(node):
            return
        if self.adopt(node.parent, node.name, entry) is not node and not node.pins:
            raise PosixError(errno.ENOENT)

    async def _refresh_root(self) -> None:
        known, now_s = self._root, trio.current_time()
        if known is not None and now_s - known.learned_s < self.settings.attr_timeout_max_s:
            self._look_at_the_marker()
            return
        if self.refusal() is not None:
            self._root = known or self._recalled_root()
            return
        try:
            await self._ask(_ROOT_ITSELF, self._fetch_root, patiently=known is None)
        except (LinkError, Unauthorized):  # the way to what is not sent yet leads through the root
            if known is None:
                raise

    def _recalled_root(self) -> Entry:
        self.meta.recall(self.nodes.root.ino)
        folder = self.meta.known_folder(self.nodes.root.ino)
        resource = Resource(is_collection=True, mtime_s=folder.mtime_s if folder is not None else None)
        return Entry(resource, NEVER, self.store.index.locals_of(self.nodes.root.ino))

    async def _fetch_root(self) -> None:
        asked_s = trio.current_time()
        self.learn_root(await self.client.stat(self.nodes.root.path), asked_s, itself=True)

    def learn_root(self, resource: Resource, asked_s: float, *, itself: bool = False) -> None:
        """`itself`: from an answer to Depth 0, which tells of the marker too."""
        if itself:
            self.marker.learn(resource)
        before = self._root
        self._root = Entry(resource, asked_s, self.store.index.locals_of(self.nodes.root.ino))
        if before is not None:
            self._root.inherit(before)

    def told_attributes(self, node: Node) -> Attributes:
        """What is known, on its way to the kernel: it cuts reads at this size from now on."""
        told = self.known_attributes(node)
        node.told_size = told.size_bytes
        return told

    def known_attributes(self, node: Node) -> Attributes:
        """What is known now, without asking."""
        folder = self.meta.known_folder(node.parent.ino) if node.parent is not None else None
        entry = self.known_entry(node) if folder is None else folder.entries.get(node.name)
        return self.appearance.attributes(node, folder, entry, trio.current_time())

    def known_resource(self, node: Node) -> Resource | None:
        entry = self.known_entry(node)
        return None if entry is None else entry.resource

    def link_target(self, node: Node) -> bytes | None:
        """Where it points to, as far as is known; None for what is no link."""
        return self.appearance.target(node, self.known_entry(node))

    def known_entry(self, node: Node) -> Entry | None:
        if node.parent is not None:
            return self.meta.stale_entry(node.parent.ino, node.name)
        return None if node.unlinked else self._root

    # --- what only we know

    def _recall(self, ino: int) -> Folder | None:
        """What an earlier run knew of a folder."""
        node = self.nodes.find(ino)
        return None if node is None or node.unlinked else self.listings.recalled(node, self.nodes)

    def remember_last(self, node: Node) -> None:
        """Before a node leaves the tree: what fstat will go on saying."""
        entry = self.known_entry(node)
        node.last_size, node.last_mtime_ns = self.appearance.size_and_mtime(node, entry)
        node.mode = self.appearance.permissions(node, entry)
        node.ctime_ns = time.time_ns()

    def keep_mode(self, node: Node, mode: int) -> None:
        node.mode = mode
        self._keep(node, mode=mode)
        if node.content is not None:
            self.store.keep_mode(node.content, mode)

    def keep_mtime(self, node: Node, mtime_ns: int, version: Validator | None) -> None:
        """What utimensat set: holds for this version of a file; for a folder see `_folder_mtime`."""
        if node.is_folder:
            version = Validator(mtime_s=int(self.wall_s()))
        self._keep(node, mtime_ns=mtime_ns, version=version)

    def _keep(
        self,
        node: Node,
        *,
        mode: int | None = None,
        mtime_ns: int | None = None,
        version: Validator | None = None,
    ) -> None:
        if node.unlinked:
            return
        entry = self.known_entry(node)
        before = (entry.kept if entry is not None else None) or LocalAttributes(mode=node.mode)
        kept = LocalAttributes(
            mode if mode is not None else before.mode,
            mtime_ns if mtime_ns is not None else before.mtime_ns,
            version if version is not None else before.version,
        )
        parent_ino = node.parent.ino if node.parent is not None else 0
        self.store.index.save_locals(node.ino, parent_ino, kept)
        if entry is not None:
            entry.kept = kept

    def uploaded(self, node: Node, content: Content, etag: ETag | None, mtime_s: int | None) -> None:
        """The server holds our bytes: learn what it would say, and keep what it cannot."""
        self.unread.over(node.ino)
        if node.parent is None:
            return
        before = self.known_entry(node)
        told = self.sent(node, mode_set(node, before), before.resource if before is not None else None)
        version = Validator(etag, mtime_s, content.base_size)
        kept = LocalAttributes(node.mode, content.mtime_ns, version)
        if content.life.dirty:  # written again meanwhile: the numbers are not those of what was sent
            kept = LocalAttributes(node.mode)
        else:
            self.store.index.save_locals(node.ino, node.parent.ino, kept)
        resource = (told or Resource(is_collection=False))._replace(
            is_collection=False,
            size_bytes=content.base_size,
            mtime_s=mtime_s,
            etag=etag,
        )
        entry = Entry(resource, trio.current_time(), kept, ours=True, pushed_s=self.wall_s())
        entry.is_new, content.made_here = content.made_here, False
        self.meta.learn(node.parent.ino, node.name, entry)
        if not content.life.dirty:
            self.owed.stored(node, content.mtime_ns, resource)
        self.pushed(node.parent)

    def made_folder(self, parent: Node, name: str) -> Node:
        now_s = trio.current_time()
        resource = Resource(is_collection=True, mtime_s=int(self.wall_s()))
        is_new = not self.client.capabilities.makes_folders_again
        self.meta.learn(parent.ino, name, Entry(resource, now_s, None, ours=True, is_new=is_new))
        node = self.nodes.child(parent, name, is_folder=True)
        self.meta.learn_new_folder(node.ino, now_s)
        self.touched(parent)
        return node

    def removed(self, node: Node) -> None:
        """We removed it (server included): it lives on only for its handles."""
        parent, name = node.parent, node.name
        if parent is None:
            return
        self.remember_last(node)
        self.unread.over(node.ino)
        self.store.index.delete_locals(node.ino)
        self.wishes.forget(node)
        if node.is_folder:
            self.meta.forget_folder(node.ino)
        if node.content is not None:
            self.store.discard(node.content)
        self.nodes.detach(node)
        self.owed.forget(node)
        self.meta.learn(parent.ino, name, Entry(None, trio.current_time(), None, ours=True))
        self.touched(parent)

    def moved(self, node: Node, parent: Node, name: str) -> None:
        """We renamed it: everything known of it goes along."""
        old_parent, old_name = node.parent, node.name
        assert old_parent is not None
        now_s = trio.current_time()
        replaced = self.nodes.named(parent, name)
        over_link = False
        if replaced is not None and replaced is not node:
            over_link = self.link_target(replaced) is not None and self.link_target(node) is None
            self.removed(replaced)
        entry = self.meta.stale_entry(old_parent.ino, old_name)
        self.nodes.pin(node)
        self.nodes.move(node, parent, name)
        self.nodes.unpin(node)
        self.wishes.moved(node)
        if over_link:  # a PUT in its place leaves the property, and so does MOVE on lighttpd
            self.wishes.add(node, {LINK: None})
        self.meta.learn(old_parent.ino, old_name, Entry(None, now_s, None, ours=True))
        if entry is not None and entry.resource is not None:
            self.meta.learn(parent.ino, name, Entry(entry.resource, now_s, entry.kept, ours=True))
        elif node.content is None or not node.content.dirty:
            self.meta.expire(parent.ino, name)
        if entry is not None and entry.kept is not None:
            self.store.index.save_locals(node.ino, parent.ino, entry.kept)
        elif node.mode is not None:
            self.store.index.save_locals(node.ino, parent.ino, LocalAttributes(node.mode))
        self.owed.moved(node)
        node.ctime_ns = time.time_ns()
        self.touched(old_parent)
        self.touched(parent)

    def let_go(self, node: Node, content: Content) -> None:
        """One user less. What is clean and unused is closed; the index still has it."""
        self.store.release(content)
        if content.users <= 0 and node.content is content and not content.dirty:
            node.content = None

    def touched(self, folder: Node) -> None:
        """A member came or went."""
        folder.last_mtime_ns = folder.ctime_ns = time.time_ns()
        self.pushed(folder, touched_ns=folder.ctime_ns)

    def pushed(self, folder: Node, *, touched_ns: int = 0) -> None:
        """A file in it was sent: the server moves the folder's mtime, but here nothing came or went."""
        entry = self.known_entry(folder)
        if entry is None:
            return
        entry.touched_ns, entry.pushed_s = touched_ns or entry.touched_ns, self.wall_s()
        above_ino = folder.parent.ino if folder.parent else 0
        self.meta.changed.add(above_ino)
        if entry.kept is not None and entry.kept.mtime_ns is not None:
            version = Validator(mtime_s=int(entry.pushed_s))
            pushed = replace(entry.kept, version=version)
            entry.kept = LocalAttributes(entry.kept.mode) if touched_ns else pushed
            self.store.index.save_locals(folder.ino, above_ino, entry.kept)


async def _nobody_to_tell(_node: Node) -> None:
    """There is no kernel."""
