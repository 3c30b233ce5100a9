"""What a node looks like to programs: what the server says of it, joined with what only we know. No requests.

A file with unsent bytes has the size and time of the file on the cache disk; a version that was sent has the
server's, with the time that a program set on it. A link is a file whose property holds its target.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Final

from davfs.dav.attributes import target_of
from davfs.dav.properties import EXECUTABLE, LINK, OWN_EXECUTABLE
from davfs.dav.resource import Resource
from davfs.dav.times import NS
from davfs.fs.attributes import Attributes, ctime_ns, file_mtime_ns, folder_mtime_ns
from davfs.fs.inodes import Node, is_unsent
from davfs.fs.metadata import Entry, Folder, Metadata
from davfs.fs.owed import Owed
from davfs.fs.permissions import told_mode
from davfs.fs.settings import Settings
from davfs.fs.wishes import Wishes

OUTAGE_VALID_S: Final = 1.0  # how long the kernel may believe old ones while the server is away
_LINK_MODE: Final = stat.S_IFLNK | 0o777


class Appearance:
    """`is_away`: the server is known to be."""

    def __init__(
        self,
        meta: Metadata,
        owed: Owed,
        wishes: Wishes,
        settings: Settings,
        *,
        is_away: Callable[[], bool],
    ) -> None:
        self._meta = meta
        self._owed = owed
        self._wishes = wishes
        self._settings = settings
        self._is_away = is_away
        self._plain_mode = stat.S_IFREG | settings.file_mode

    def attributes(self, node: Node, folder: Folder | None, entry: Entry | None, now_s: float) -> Attributes:
        """`folder`: what is known of the one that it is in; `now_s` by trio's clock."""
        resource = entry.resource if entry is not None and entry.kept is None else None
        if resource is not None and self._is_plain(node, resource):
            mode, size, nlink = self._plain_mode, resource.size_bytes or 0, 1
            mtime_ns = changed_ns = accessed_ns = (resource.mtime_s or 0) * NS
        else:
            size, mtime_ns = self.size_and_mtime(node, entry)
            mode = self.permissions(node, entry) | (stat.S_IFDIR if node.is_folder else stat.S_IFREG)
            target = self.target(node, entry)
            if target is not None:
                mode, size = _LINK_MODE, len(target)
            changed_ns = ctime_ns(mtime_ns, node.ctime_ns, entry, is_folder=node.is_folder)
            accessed_ns, nlink = node.atime_ns or mtime_ns, 0 if node.unlinked else 1
        valid_s = self._valid_s(node, folder, entry, now_s)
        uid, gid = self._settings.uid, self._settings.gid
        return Attributes(node.ino, mode, size, mtime_ns, changed_ns, accessed_ns, nlink, uid, gid, valid_s)

    def of_plain_file(self, ino: int, folder: Folder, entry: Entry, now_s: float) -> Attributes:
        """`attributes` of a file without a node: `is_plain_file` said that there is no more to it."""
        resource = entry.resource
        assert resource is not None
        valid_s = self._left_s(folder, entry, now_s)
        mtime_ns = (resource.mtime_s or 0) * NS
        uid, gid, size = self._settings.uid, self._settings.gid, resource.size_bytes or 0
        return Attributes(ino, self._plain_mode, size, mtime_ns, mtime_ns, mtime_ns, 1, uid, gid, valid_s)

    def is_plain_file(self, entry: Entry) -> bool:
        return entry.kept is None and entry.resource is not None and self._is_plain_file(entry.resource)

    def _is_plain(self, node: Node, resource: Resource) -> bool:
        has_more = (
            node.is_folder or node.seldom is not None or node.content is not None or node.parent is None
        )
        return not has_more and self._is_plain_file(resource)

    def _is_plain_file(self, resource: Resource) -> bool:
        """A file of which nothing is known but its size and time: nearly all of nearly all listings."""
        return not (
            resource.is_collection
            or resource.extras
            or resource.executable
            or resource.mtime_s is None
            or self._plain_mode & 0o111
            or self._wishes
        )

    def _valid_s(self, node: Node, folder: Folder | None, entry: Entry | None, now_s: float) -> float:
        if node.parent is None:
            return self._settings.attr_timeout_min_s
        if is_unsent(node):
            return self._settings.attr_timeout_max_s
        return self._left_s(folder, entry, now_s)

    def _left_s(self, folder: Folder | None, entry: Entry | None, now_s: float) -> float:
        left_s = self._meta.left_s(folder, entry, now_s)
        return OUTAGE_VALID_S if left_s < OUTAGE_VALID_S and self._is_away() else left_s

    def permissions(self, node: Node, entry: Entry | None) -> int:
        mode = mode_set(node, entry)
        if mode is None:
            mode = self._settings.dir_mode if node.is_folder else self._settings.file_mode
        resource = entry.resource if entry is not None else None
        wished = self._wishes.changes_of(node) if len(self._wishes) else None
        if not wished and (resource is None or not (resource.executable or resource.extras or mode & 0o111)):
            return mode  # nearly all files of nearly all listings
        bit = wished.get(EXECUTABLE, wished.get(OWN_EXECUTABLE)) if wished else None
        return told_mode(mode, resource, is_folder=node.is_folder, wished=bit)

    def size_and_mtime(self, node: Node, entry: Entry | None) -> tuple[int, int]:
        content = node.content
        resource = entry.resource if entry is not None else None
        if content is not None and content.is_shown(known=resource is not None):
            return content.size_bytes, content.mtime_ns
        if resource is None:
            return node.last_size, node.last_mtime_ns
        if node.is_folder:
            assert entry is not None
            return 0, folder_mtime_ns(entry, node.last_mtime_ns)
        size = resource.size_bytes
        if size is None:
            size = content.size_bytes if content is not None else 0
        kept = entry.kept if entry is not None else None
        return size, file_mtime_ns(resource, kept, owed=bool(resource.extras) and node.ino in self._owed)

    def target(self, node: Node, entry: Entry | None) -> bytes | None:
        """Where this link points to; None for what is no link."""
        resource = entry.resource if entry is not None else None
        if resource is None or not resource.extras or node.is_folder or is_unsent(node):
            return None
        return link_target(resource) if self._settings.symlinks else None


def mode_set(node: Node, entry: Entry | None) -> int | None:
    """As programs set it; None if none did."""
    if node.seldom is not None and node.mode is not None:
        return node.mode
    return entry.kept.mode if entry is not None and entry.kept is not None else None


def link_target(resource: Resource) -> bytes | None:
    """The bytes of the file are the target too: of another size they are of one who did not see a link."""
    target = target_of(resource.extra(LINK))
    raw = os.fsencode(target) if target is not None else None
    return raw if raw is not None and resource.size_bytes == len(raw) else None
