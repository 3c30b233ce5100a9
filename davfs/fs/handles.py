"""The table of open files: which handle is which version of which node."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from davfs.errors import PosixError
from davfs.fs.content import Content
from davfs.fs.download import ReadAhead
from davfs.fs.inodes import Node
from davfs.fs.permissions import has_set_id


@dataclass(slots=True, eq=False)
class OpenFile:
    """One open(2). It stays with its content: one open file is one version (promise 4)."""

    number: int
    node: Node
    content: Content
    flags: int
    ahead: ReadAhead = field(default_factory=ReadAhead)
    wrote: bool = False
    told: int = 0  # up to which failure its program was told: see states.Failure
    discarded: bool = False  # a person gave up its unsent bytes
    direct: bool = False  # past the kernel's pages

    @property
    def readable(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def writable(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY


@dataclass(slots=True, eq=False)
class OpenFolder:
    """One opendir(3): the names as they were, so that offsets stay right while files come and go."""

    number: int
    node: Node
    names: list[str]


class Handles:
    def __init__(self) -> None:
        self._next = 1
        self._files: dict[int, OpenFile] = {}
        self._folders: dict[int, OpenFolder] = {}

    def open_file(self, node: Node, content: Content, flags: int, *, is_empty: bool = False) -> OpenFile:
        """`is_empty`: made or emptied by this very open, so the kernel has no page of it.

        Who only writes such a file, and is alone with it, does so past the kernel's pages: a copy less
        (0.2 ms a MiB) and, before each write, a question less (security.capability: half of the requests).
        As long as that goes on, whoever opens the file too reads and writes past them: a page would stay as
        it was when something is written directly (kernels before 6.6), or is read just then (before 6.19).
        See ADR 0028.
        """
        others = [other for other in self._files.values() if other.node is node]
        file = OpenFile(self._number(), node, content, flags)
        is_first = is_empty and not file.readable and not others and not has_set_id(node.mode)
        file.direct = is_first or any(other.direct and other.writable for other in others)
        self._files[file.number] = file
        return file

    def open_folder(self, node: Node, names: list[str]) -> OpenFolder:
        folder = OpenFolder(self._number(), node, names)
        self._folders[folder.number] = folder
        return folder

    def file(self, number: int) -> OpenFile:
        try:
            return self._files[number]
        except KeyError:
            raise PosixError(errno.EBADF) from None

    def folder(self, number: int) -> OpenFolder:
        try:
            return self._folders[number]
        except KeyError:
            raise PosixError(errno.EBADF) from None

    def close_file(self, number: int) -> OpenFile:
        file = self.file(number)
        del self._files[number]
        return file

    def close_folder(self, number: int) -> OpenFolder:
        folder = self.folder(number)
        del self._folders[number]
        return folder

    def of(self, content: Content) -> Iterator[OpenFile]:
        return (file for file in list(self._files.values()) if file.content is content)

    def has_writer(self, content: Content) -> bool:
        return any(file.writable for file in self.of(content))

    def __len__(self) -> int:
        return len(self._files)

    def _number(self) -> int:
        self._next += 1
        return self._next
