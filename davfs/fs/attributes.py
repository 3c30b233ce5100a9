"""What the kernel is told of a node, and what it may ask to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from davfs.dav.resource import Resource
from davfs.fs.index import LocalAttributes

_NS: Final = 1_000_000_000


class Attributes(NamedTuple):
    """struct stat, less what a share cannot have. `valid_s`: how long the kernel may keep it.

    One is made for each entry of each listing: a tuple takes a third of the time of a frozen dataclass.
    """

    ino: int
    mode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    atime_ns: int
    nlink: int
    uid: int
    gid: int
    valid_s: float


@dataclass(frozen=True, slots=True)
class Changes:
    """A SETATTR request: None leaves a field as it is."""

    size_bytes: int | None = None
    mode: int | None = None
    mtime_ns: int | None = None
    atime_ns: int | None = None
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file. `keep_cache`: the kernel's pages of this file are still right."""

    handle: int
    keep_cache: bool


def file_mtime_ns(resource: Resource, kept: LocalAttributes | None) -> int:
    """The mtime a program set, as long as the server still holds the version it was set on."""
    of_this_version = (
        kept is not None and kept.version is not None and kept.version.same_version(resource.validator)
    )
    if of_this_version and kept is not None and kept.mtime_ns is not None:
        return kept.mtime_ns
    return (resource.mtime_s or 0) * _NS
