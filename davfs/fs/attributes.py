"""What the kernel is told of a node, and what it may ask to change."""

from __future__ import annotations

from typing import Final, NamedTuple

from davfs.dav.resource import Resource
from davfs.dav.times import kept_mtime_ns
from davfs.fs.index import LocalAttributes
from davfs.fs.metadata import Entry

_NS: Final = 1_000_000_000
OWN_CHANGE_S: Final = 2  # servers tell whole seconds, and a change shows when it is done


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


class Changes(NamedTuple):
    """A SETATTR request: None leaves a field as it is."""

    size_bytes: int | None = None
    mode: int | None = None
    mtime_ns: int | None = None
    atime_ns: int | None = None
    uid: int | None = None
    gid: int | None = None


class Opened(NamedTuple):
    """An open file. `keep_cache`: the kernel's pages of this file are still right. `direct`: this handle
    reads and writes past them (see `Handles.open_file`).
    """

    handle: int
    keep_cache: bool
    direct: bool = False


def file_mtime_ns(resource: Resource, kept: LocalAttributes | None, *, owed: bool = False) -> int:
    """The mtime a program set, as long as the server still holds the version it was set on.

    `owed`: the server has not been told yet. Else what another mount told it since counts.
    """
    told_ns = None if owed else kept_mtime_ns(resource)
    if told_ns is not None:
        return told_ns
    if kept is not None and kept.mtime_ns is not None and kept.version is not None:
        version, server_s = kept.version, resource.mtime_s
        retimed = None not in (version.mtime_s, server_s) and version.mtime_s != server_s  # the tag stayed
        if version.same_version(resource.validator) and not retimed:
            return kept.mtime_ns
    return (resource.mtime_s or 0) * _NS


def folder_mtime_ns(entry: Entry, last_ns: int) -> int:
    """A folder's mtime moves when a member comes or goes, not when a file in it is sent later.

    What a program set (or our last change here) holds until somebody else changes the folder: until the
    server's mtime is past our own last request there. Clocks may differ: then the server's shows.
    `last_ns`: what it was at our last change here.
    """
    resource, kept = entry.resource, entry.kept
    server_s = (resource.mtime_s if resource is not None else None) or 0
    if kept is not None and kept.mtime_ns is not None and kept.version is not None:
        if server_s <= max(kept.version.mtime_s or 0, entry.pushed_s) + OWN_CHANGE_S:
            return kept.mtime_ns
    elif entry.touched_ns and server_s <= entry.pushed_s + OWN_CHANGE_S:
        return entry.touched_ns
    told_ns = None if resource is None else kept_mtime_ns(resource)
    if told_ns is not None:
        return told_ns
    return max(server_s * _NS, last_ns, entry.touched_ns)


def ctime_ns(mtime_ns: int, changed_ns: int, entry: Entry | None, *, is_folder: bool) -> int:
    """When it was last changed here (`changed_ns`), else by what the server says: a program that gave a file
    an old mtime does not see its ctime go back with it when the kernel has forgotten the file.
    """
    if is_folder:
        return max(mtime_ns, changed_ns)
    if changed_ns or entry is None:
        return changed_ns or mtime_ns
    server_s = entry.resource.mtime_s if entry.resource is not None else None
    return max(mtime_ns, int(entry.pushed_s if server_s is None else server_s) * _NS)
