"""Whole trees proved unchanged by the tag of one folder, where a folder's tag covers all that is below it.

On Nextcloud and ownCloud a folder gets a new tag whenever anything below it changes (servers.md 11). So what
was listed of a folder still holds as long as the folder above says, in an answer that is fresh, the tag that
the folder had when it was listed; and that answer may itself be proved by the one above it. Nothing is asked
here: the kernel walks from the top, and the first question, about the root, makes the rest of the tree fresh
again. Where a tag has changed the folder is listed, so another client's change deep below costs the folders
on its path.

A proof is as old as the answer that it rests on. It compares the tags of two answers and needs no order in
time: a listing that missed a change has the tag of before it.

What changes behind the server's back (external storage that it has not scanned) changes no tag, so a listing
is believed on proofs for a quarter of an hour at most. And a folder that is listed again, with the tag it had
and other members, refutes all this for the rest of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from davfs.dav.client import Client
from davfs.fs.inodes import InodeTable
from davfs.fs.metadata import Entry, Metadata

DEEPEST: Final = 100  # levels that are climbed for one proof


class Subtrees:
    """`root` gives what is known of the mounted folder itself."""

    def __init__(self, client: Client, nodes: InodeTable, root: Callable[[], Entry | None]) -> None:
        self._client = client
        self._nodes = nodes
        self._root = root
        self._depth = 0

    @property
    def is_possible(self) -> bool:
        return self._client.capabilities.tags_cover_trees

    def proved_s(self, meta: Metadata, folder_ino: int, tag: str, now_s: float) -> float | None:
        """When the folder was last known to have this tag; None: that is not known, or long ago."""
        node = self._nodes.find(folder_ino)
        if node is None or node.unlinked or self._depth >= DEEPEST:
            return None
        if node.parent is None:
            entry = self._root()
            return entry.learned_s if _has_tag(entry, tag) and entry is not None else None
        self._depth += 1
        try:
            entry = meta.entry(node.parent.ino, node.name, now_s)
        finally:
            self._depth -= 1
        return meta.learned_s(node.parent.ino, node.name) if _has_tag(entry, tag) else None

    def refute(self) -> None:
        self._client.capabilities = self._client.capabilities.learned_tree_tags(refuted=True)


def _has_tag(entry: Entry | None, tag: str) -> bool:
    resource = entry.resource if entry is not None and not entry.ours else None
    return resource is not None and resource.etag is not None and resource.etag.opaque == tag
