"""Which name is meant, and whether a new one can be: what stands between a program's name and the server's.

- A server with one Unicode form for all names (Nextcloud: NFC) gets and lists that form: a program finds its
  file by either, as on HFS+.
- On a server without case (IIS, SharePoint) a name is only what the server lists. Another case of it is not
  found, and cannot be made: EEXIST, instead of a second view of the same file with metadata of its own. So
  `a.txt` can be renamed to `A.txt`, which the kernel would take for a link to itself if both could be found.
- What the server is known not to hold is refused before anything is made or sent (`dav.names`). Whether one
  that nobody knows decodes URLs twice is asked once, with one PROPFIND, when the first name with "%41" in it
  comes along. Such a server (ASGIWebDAV) keeps "a%20b" as "a b", which may be somebody's file.

Shared state changes in synchronous methods only.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from davfs.dav.client import Client
from davfs.dav.hrefs import decoded_again, shown
from davfs.dav.names import (
    FORMS,
    NameRules,
    Spelling,
    differs_in_case_only,
    form_between,
    may_be_respelled,
    odd_in,
    other_form,
)
from davfs.dav.resource import DavPath, Resource, checked_name
from davfs.errors import (
    AlreadyExists,
    Busy,
    DavfsError,
    Forbidden,
    NameTooLong,
    NotFound,
    NotThatName,
    PosixError,
    PreconditionFailed,
    ProtocolError,
    ServerRefused,
    Unauthorized,
    UnstorableName,
)
from davfs.fs.content import Content, path_bytes
from davfs.fs.guard import Guard, Known
from davfs.fs.inodes import Node, is_unsent
from davfs.fs.metadata import Folder
from davfs.fs.tree import Tree

log = logging.getLogger("davfs.names")

# eCryptfs holds 143 bytes, the least in the field; what is longer is asked about once before it is made.
LONG_NAME: Final = 143
FEW: Final = 5000  # names of a folder that are compared for case on a server that nobody knows


@lru_cache(maxsize=4)
def _caseless(spelling: Spelling) -> Spelling:
    return replace(spelling, ignores_case=True)


def kept_name(tree: Tree, name: str, members: Collection[str]) -> str | None:
    """Under which name the server has what was just made as `name`: `members` is the folder's new listing.

    None: under none that is the same one. What was unusual about it is refused from then on.
    """
    if name in members:
        return name
    client, other = tree.client, other_form(name, members)
    if other is not None:
        client.capabilities = client.capabilities.learned_spelling(name, other)
    else:
        client.capabilities = client.capabilities.learned_names(odd_in(name))
    return other


def is_doubtful(tree: Tree, name: str) -> bool:
    """Whether the server may list it under another name than it was sent to."""
    server = tree.client.capabilities
    return not server.keeps_names and may_be_respelled(name) and not tree.may_be_hidden(name)


async def stored_as(tree: Tree, node: Node, content: Content) -> Resource | None:
    """What was just stored, and is not there under its name. In another Unicode form it is the same file.

    Raises NotThatName for any other name."""
    parent = node.parent
    if parent is None:
        return None
    members = (await tree.client.list(parent.path)).members
    name = kept_name(tree, node.name, members)
    if name is None:
        content.life = content.life.put_refused()
        content.save()
        raise NotThatName(f"PUT {shown(node.path)}: the server stored it under another name", status=403)
    if name != node.name and node.parent is parent and node.content is content:
        with tree.store.atomically():
            tree.moved(node, parent, name)
            content.path = path_bytes(node.path)
            content.save()
    return members[name]


async def name_after(tree: Tree, folder: Node, name: str) -> str:
    """`name`, or what the server has made of it. Raises UnstorableName when that is another name.

    Nothing else: what was asked for is done.
    """
    if not is_doubtful(tree, name):
        return name
    try:
        listing = await tree.client.list(folder.path)
    except DavfsError:  # then a later listing tells
        tree.meta.expire(folder.ino)
        return name
    kept = kept_name(tree, name, listing.members) if listing.complete else name
    if kept is None:
        tree.meta.expire(folder.ino)
        raise UnstorableName(f"{shown(folder.path.child(name))}: the server has it under another name")
    return kept


def raise_if_filtered(client: Client, error: DavfsError, name: str) -> None:
    """404 for what is to be made in a folder that is there: IIS does not take the name."""
    filtered = client.capabilities.filtered(name)
    if filtered is not None:
        client.capabilities = client.capabilities.learned_names(filtered)
        raise UnstorableName(f"{filtered.why} does not take {name!r}: {error}") from None


async def move(
    guard: Guard,
    tree: Tree,
    source: DavPath,
    destination: DavPath,
    over: Known | None,
    *,
    is_collection: bool,
) -> None:
    """`guard.move`, also where source and destination are one name to the server."""
    try:
        await guard.move(source, destination, over, is_collection=is_collection)
    except (PreconditionFailed, AlreadyExists, Forbidden):
        if over is not None or not await respell(
            guard, tree, source, destination, is_collection=is_collection
        ):
            raise


async def respell(
    guard: Guard, tree: Tree, source: DavPath, destination: DavPath, *, is_collection: bool
) -> bool:
    """A rename of the spelling only, where the server takes both for one name: by way of a third one.

    Not a hidden name: if it ends here, nothing removes it. False: that is not what stood in the way.
    """
    one, other = source.name, destination.name
    if source.parent != destination.parent or not (
        differs_in_case_only(one, other) or form_between(one, other)
    ):
        return False
    if other in (await tree.client.list(source.parent)).members:
        return False
    between = source.parent.child(f"renaming {secrets.token_hex(4)} {other}"[:50])
    await guard.move(source, between, None, is_collection=is_collection)
    try:
        await guard.move(between, destination, None, is_collection=is_collection)
    except DavfsError as error:
        log.warning("%s: its name is %s until it is renamed back: %s", shown(source), shown(between), error)
        await guard.move(between, source, None, is_collection=is_collection)
        raise
    tree.client.capabilities = tree.client.capabilities.learned_spelling(one, other)
    return True


@dataclass(slots=True)
class _Keys:
    """The names of one folder by `Spelling.key`; may name some that are gone."""

    of: Folder
    names: dict[str, str] = field(default_factory=dict)


class Spellings:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._keys: dict[int, _Keys] = {}  # of folders in which something is being made
        self._proved = LONG_NAME  # bytes of the longest name that the server has understood

    def known(self, folder: Node, name: str) -> str:
        """The name under which the server has, or would have, what a program calls `name`."""
        name = checked_name(name)
        spelling = self._tree.client.capabilities.spelling
        if name.isascii() or not (spelling.form or spelling.ignores_form) or self._is_there(folder, name):
            return name
        forms = (unicodedata.normalize(form, name) for form in FORMS)
        there = next((one for one in forms if self._is_there(folder, one)), None)
        return checked_name(there or spelling.of(name))

    async def find(self, folder: Node, name: str) -> Node | None:
        """For a look-up: also by another Unicode form, where the server has just shown that it has one."""
        name = self.known(folder, name)
        node = await self._tree.find(folder, name, soon=True)
        other = self.known(folder, name) if node is None else name
        return node if other == name else await self._tree.find(folder, other, soon=True)

    async def new(
        self, folder: Node, name: str, *, is_folder: bool = False, renamed: str | None = None
    ) -> str:
        """The name for what is to be made, or to be moved there.

        Raises UnstorableName, NameTooLong, and EEXIST for another spelling of what is there already, unless
        that is `renamed` of the same folder."""
        if folder.unlinked or not folder.is_folder:
            return checked_name(name)  # who makes it says what is wrong
        if self._tree.client.capabilities.spelling.is_told_by_lists(name):
            await self._tree.list_names(folder)
        name = self.known(folder, name)
        if self._is_there(folder, name):
            return name
        client, path = self._tree.client, folder.path.child(name)
        client.check_name(path, is_folder=is_folder)
        if "%" in name and decoded_again(path).name != name and await self._decodes_twice(folder.path):
            raise UnstorableName(f"{shown(path)}: this server would keep it as {shown(decoded_again(path))}")
        rival = self._rival(folder, name)
        if rival not in {None, renamed} and await self._is_one_name(folder, name):
            raise PosixError(errno.EEXIST, f"{shown(path)}: on this server that is {rival!r}")
        await self._try_long(folder, name)
        return name

    def _is_there(self, folder: Node, name: str) -> bool:
        child = folder.children.get(name)
        if child is not None and is_unsent(child):
            return True
        entry = self._tree.meta.stale_entry(folder.ino, name)
        return entry is not None and entry.resource is not None

    async def _is_one_name(self, folder: Node, name: str) -> bool:
        """Whether the server takes it for the other case of it that is there: asked once, the first time."""
        client = self._tree.client
        if client.capabilities.spelling.ignores_case:
            return True
        try:
            found = await client.stat(folder.path.child(name))
        except NotFound:
            client.capabilities = client.capabilities.learned_case(apart=True)
            return False
        if found.spelled is None:  # it is there by now, or the answer is in the words of the question
            apart = name in await self._tree.list_names(folder, now=True)
            client.capabilities = client.capabilities.learned_case(apart=apart)
        return client.capabilities.spelling.ignores_case

    def _rival(self, folder: Node, name: str) -> str | None:
        """Another case of the name that is there already, on a server that may not tell them apart."""
        listed, server = self._tree.meta.folder(folder.ino), self._tree.client.capabilities
        if not server.spelling.ignores_case and (server.tells_case_apart or len(listed.entries) > FEW):
            return None
        spelling = _caseless(server.spelling)
        keys = self._keys.get(folder.ino)
        if keys is None or keys.of is not listed:
            if len(self._keys) > 64:
                self._keys.clear()
            keys = self._keys[folder.ino] = _Keys(listed)
            for one in self._tree.known_names(folder):
                keys.names[spelling.key(one)] = one
        key = spelling.key(name)
        found = keys.names.get(key)
        if found is not None and found != name and self._is_there(folder, found):
            return found
        keys.names[key] = name
        return None

    async def _decodes_twice(self, folder: DavPath) -> bool:
        """`folder` is there: is it also there by the name with its first byte encoded?"""
        client = self._tree.client
        server = client.capabilities
        if server.decodes_once:
            return False
        if server.decodes_twice is None and folder.parts:
            first, *rest = os.fsencode(folder.name)
            coded = folder.parent.child(f"%{first:02X}{os.fsdecode(bytes(rest))}"[:200])
            try:
                await client.stat(coded)
            except (NotFound, ProtocolError) as error:
                twice = client.capabilities.decodes_twice or isinstance(error, ProtocolError)
            else:
                twice = True
            client.capabilities = client.capabilities.learned_decoding(twice=twice)
        return bool(client.capabilities.decodes_twice)

    async def _try_long(self, folder: Node, name: str) -> None:
        """A server that cannot hold so long a name refuses even the question."""
        size = len(os.fsencode(name))
        if size <= self._proved:
            return
        client = self._tree.client
        try:
            await client.stat(folder.path.child(name))
        except NotFound:
            pass
        except (Unauthorized, Busy):
            return
        except ServerRefused as error:
            client.capabilities = client.capabilities.learned_names(NameRules(longest_bytes=size - 1))
            raise NameTooLong(f"a name of {size} bytes: {error}") from None
        self._proved = size
