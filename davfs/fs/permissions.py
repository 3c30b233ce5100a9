"""What the account may do, as far as the server says, and the mode that programs are told. Pure.

Nextcloud and ownCloud say it in letters (`oc:permissions`): W write to this file, C make files here, K make
folders here, and others. Servers with access control say it in RFC 3744's privileges. Who says nothing
refuses nothing: then the server's 403 is what tells.
"""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass
from typing import Final

from davfs.dav.microsoft import is_read_only
from davfs.dav.properties import OWN_EXECUTABLE, PERMISSIONS, PRIVILEGES
from davfs.dav.resource import Resource
from davfs.errors import PosixError

SET_ID: Final = stat.S_ISUID | stat.S_ISGID
_ALL: Final = frozenset({"{DAV:}all", "{DAV:}write"})


@dataclass(frozen=True, slots=True)
class Allowed:
    """`content`: of a file, to write to it. `files`, `folders`: of a folder, to make some in it."""

    content: bool = True
    files: bool = True
    folders: bool = True


_EVERYTHING: Final = Allowed()


def allowed(resource: Resource | None) -> Allowed:
    if resource is None or not resource.extras:
        return _EVERYTHING
    if is_read_only(resource):
        return Allowed(content=False)
    letters = resource.extra(PERMISSIONS)
    if letters is not None:
        return Allowed("W" in letters, "C" in letters, "K" in letters)
    told = frozenset((resource.extra(PRIVILEGES) or "").split())
    if not told or told & _ALL:
        return _EVERYTHING
    members = "{DAV:}bind" in told
    return Allowed("{DAV:}write-content" in told, members, members)


def check_writing(resource: Resource | None, name: str) -> None:
    """Raises PosixError(EACCES) before anything is stored."""
    _check(allowed(resource).content, f"writing to {name!r}")


def check_making(folder: Resource | None, name: str, *, is_folder: bool = False) -> None:
    """The same of a file, link or folder that is to be in this one."""
    may = allowed(folder)
    _check(may.folders if is_folder else may.files, f"making something in {name!r}")


def _check(may: bool, what: str) -> None:
    if not may:
        raise PosixError(errno.EACCES, f"{what}: the server says that this account may not")


def is_executable(resource: Resource | None) -> bool | None:
    """None: the server does not say."""
    if resource is None:
        return None
    if resource.executable is not None or not resource.extras:
        return resource.executable
    return {"T": True, "F": False}.get(resource.extra(OWN_EXECUTABLE) or "")


def told_mode(mode: int, resource: Resource | None, *, is_folder: bool, wished: str | None) -> int:
    """The permission bits, given those that are known here.

    The server's executable bit counts, for another client may have set it, unless ours is to come: `wished`.
    """
    if not is_folder:
        executable = is_executable(resource) if wished is None else wished == "T"
        if executable and not mode & 0o111:
            mode |= (mode & 0o444) >> 2
        elif executable is False:
            mode &= ~0o111
    if resource is not None and resource.extras:
        may = allowed(resource)
        if not ((may.files or may.folders) if is_folder else may.content):
            mode &= ~0o222
    return mode


def has_set_id(mode: int | None) -> bool:
    """Whether it runs as somebody else: then a write takes that from it, which the kernel sees to where it
    keeps pages of the file."""
    return mode is not None and bool(mode & SET_ID)
