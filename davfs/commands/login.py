"""`davfs login` and `davfs logout`: keep a password for a share, and tell it to the mounts that wait for it.

The password is asked for at the terminal, or read as the first line of standard input; it is no argument. A
mount of the share (or of a folder below it) by the same user gets it over its control socket, which only this
user and root can open. When the server refuses it there, nothing is kept.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from davfs import logins, mountpoint
from davfs.commands.drain import connect, find_mount
from davfs.commands.mount import surroundings
from davfs.config import checked_url
from davfs.credentials import ask_person
from davfs.errors import ConfigError, Unauthorized
from davfs.exitcodes import CommandFailed, Exit, NoDaemon
from davfs.secret import MAX_BYTES, Secret, decoded

_ANSWER_S: Final = 120.0  # the mount asks its server before it answers


def login(target: str, username: str | None) -> int:
    """The command. `target` is a URL or a mount point. Raises Unauthorized when a mount's server says no."""
    url, known = _share(target)
    username = username or known or _asked_name(url)
    password = _typed(f"{username} at {url}")
    for mount in _mounts_below(url, username):
        _tell(mount, password)
    place = _logins().keep(url, username, password)
    sys.stdout.write(f"the password of {username} for {url} is kept in {place}\n")
    return Exit.OK


def logout(target: str, username: str | None) -> int:
    """The command: forgets what `login` kept. A mount that is there goes on with what it has."""
    url, known = _share(target)
    username = username or known or _asked_name(url)
    if not _logins().forget(url, username):
        raise CommandFailed(f"no password of {username} for {url} is kept")
    sys.stdout.write(f"the password of {username} for {url} is forgotten\n")
    return Exit.OK


def _logins() -> logins.Logins:
    around = surroundings()
    return logins.Logins(logins.folder(around.environ, around.home))


def _share(target: str) -> tuple[str, str | None]:
    """The URL of the share in its normal form, and the user name where a mount of it knows one."""
    if "://" in target:
        url = checked_url(target)
        users = {user for mount in _mounts(url) if (user := _status(mount).get("user"))}
        return url, str(users.pop()) if len(users) == 1 else None
    try:
        mount = find_mount(target)
    except NoDaemon as error:
        raise NoDaemon(f"{error}, and no address: that begins with https://") from None
    return mount.source, _status(mount).get("user")


def _mounts(url: str) -> Iterator[mountpoint.Mount]:
    return (mount for mount in mountpoint.davfs_mounts() if mount.source.startswith(url))


def _mounts_below(url: str, username: str) -> Iterator[mountpoint.Mount]:
    return (mount for mount in _mounts(url) if _status(mount).get("user") == username)


def _status(mount: mountpoint.Mount) -> Mapping[str, Any]:
    try:
        with connect(mount) as client:
            return client.ask("status")
    except (NoDaemon, CommandFailed):  # another user's, or its daemon has died: not ours to tell
        return {}


def _tell(mount: mountpoint.Mount, password: Secret) -> None:
    with connect(mount) as client:
        answer = client.ask("credentials", within_s=_ANSWER_S, password=password.reveal())
    if answer.get("authentication") == "unauthenticated":
        raise Unauthorized(
            f"the server refused this password for {mount.target}; nothing is kept", status=401
        )
    sys.stdout.write(f"{mount.target} uses it\n")


def _asked_name(url: str) -> str:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError("say for whom: --username NAME")
    sys.stderr.write(f"User name for {url}: ")
    sys.stderr.flush()
    name = sys.stdin.readline().rstrip("\r\n")
    if not name or not name.isprintable():
        raise ConfigError("no user name given")
    return name


def _typed(where: str) -> Secret:
    if sys.stdin.isatty():
        return ask_person(where)
    return decoded(_first_line(sys.stdin.fileno()), "standard input")


def _first_line(descriptor: int) -> bytes:
    """Unbuffered, so that no buffer of Python's keeps a copy longer than needed."""
    content = bytearray()
    while b"\n" not in content and len(content) <= MAX_BYTES:
        piece = os.read(descriptor, 4096)
        if not piece:
            break
        content += piece
    line, newline, _ = bytes(content).partition(b"\n")
    return line + newline
