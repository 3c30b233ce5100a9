"""What the kernel is told of a node, and what it may ask to change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attributes:
    """struct stat, less what a share cannot have. `valid_s`: how long the kernel may keep it."""

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
