"""`davfs pending`: what is not on the server yet, and what to do about it.

`list` works without a daemon too: it then reads the journal, and changes nothing.

Nothing is discarded without a yes, and what is discarded is named. `save-as` writes as whoever runs it: the
daemon, which may be root, passes an open descriptor of the unsent bytes over its socket and never learns the
name of the copy. (Reading through the mount would need the server where bytes are missing, and a mount that
answers.)
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from davfs import holder, mountpoint
from davfs.commands.drain import connect, find_mount
from davfs.commands.mount import surroundings
from davfs.commands.words import clean, human_size, human_time
from davfs.config import default_cache_root
from davfs.errors import ConfigError
from davfs.exitcodes import CommandFailed, Exit, NoDaemon
from davfs.fs import journal

_WITHIN_S: Final = 30.0  # a discard waits for the upload that it stops
_SHOWN: Final = 20
_COPY_BYTES: Final = 1 << 20


def list_pending(where: str, *, cache_dir: str | None, as_json: bool) -> int:
    """`list`: 0 whatever is there; --json is an object with `files`, `conflicts`, `cache_dir` and `daemon`.

    Without a daemon the journal itself is read: `cache_dir` says where, if the mount had that option.
    """
    answer: Mapping[str, Any]
    try:
        with connect(find_mount(where)) as client:
            answer = {**client.ask("pending", within_s=_WITHIN_S), "daemon": True}
    except NoDaemon as error:
        answer = _journal_of(where, cache_dir, error)
    if as_json:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return Exit.OK
    if not answer["daemon"]:
        told = f"this is what its journal says, in {answer['cache_dir']}; the next mount sends it"
        told = told if answer["files"] else "its journal was read"
        sys.stderr.write(f"davfs: no daemon serves {where}: {told}\n")
    for each in answer.get("files", []):
        sys.stdout.write(_line(each) + "\n")
    for each in answer.get("conflicts", []):
        sys.stdout.write(f"{each.get('state')}  {clean(str(each.get('path')))}\n")
    if not answer.get("files"):
        sys.stdout.write("the server has everything\n" if answer["daemon"] else "nothing is unsent there\n")
    return Exit.OK


def _journal_of(where: str, cache_dir: str | None, error: NoDaemon) -> dict[str, Any]:
    """The same answer from the cache folder. Raises `error` when there is none for this mount point."""
    root = Path(cache_dir) if cache_dir is not None else Path(default_cache_root(surroundings()))
    folders = holder.folders_of(root, mountpoint.resolved(where))
    found = {str(folder): journal.unsent(folder) for folder in folders}
    if not found:
        text = f"{error}, and no cache in {root} was used for it: --cache-dir says where the mount has its"
        raise NoDaemon(text) from error
    used = [folder for folder, files in found.items() if files] or list(found)
    files = [file for folder in used for file in found[folder]]
    return {
        "files": files,
        "count": len(files),
        "conflicts": [],
        "cache_dir": ", ".join(used),
        "daemon": False,
    }


def _line(file: Mapping[str, Any]) -> str:
    state, path = str(file.get("state")), clean(str(file.get("path")))
    line = f"{state}  {path}  {human_size(int(file.get('size', 0)))}"
    if file.get("error"):
        line += f"  {clean(str(file['error']))}"
        if state != "sending" and file.get("next_try_s") is not None:
            line += f" (next try in {human_time(float(file.get('next_try_s', 0)))})"
    return line


def retry(where: str, paths: Sequence[str]) -> int:
    """`retry`: now, also what would wait an hour. Returns at once: `davfs sync` waits."""
    mount = find_mount(where)
    wanted: list[str | None] = [*in_drive(mount, where, paths)] or [None]
    with connect(mount) as client:
        count = sum(int(client.ask("retry", path=path).get("count", 0)) for path in wanted)
    sys.stdout.write(f"trying again: {_files(count)}\n")
    return Exit.OK


def discard(where: str, paths: Sequence[str], *, yes: bool) -> int:
    """`discard`: gives up unsent changes, after a yes. Raises CommandFailed when the answer is no."""
    mount = find_mount(where)
    inside = in_drive(mount, where, paths)
    with connect(mount) as client:
        if not yes:
            _confirm([each for path in inside for each in _unsent_at(client.ask("pending"), path)])
        for path in inside:
            for each in client.ask("discard", within_s=_WITHIN_S, path=path).get("files", []):
                sys.stdout.write(_discarded(each) + "\n")
    return Exit.OK


def _unsent_at(answer: Mapping[str, Any], path: str) -> list[Mapping[str, Any]]:
    wanted = "/" + "/".join(part for part in path.split("/") if part not in {"", "."})
    found = [each for each in answer.get("files", []) if f"{each['path']}/".startswith(f"{wanted}/")]
    if not found:
        raise CommandFailed(f"{clean(path)}: nothing there waits to be sent")
    return found


def _confirm(files: Sequence[Mapping[str, Any]]) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError("say --yes: discard throws away what was never sent, and there is nobody to ask")
    for each in files[:_SHOWN]:
        sys.stderr.write(f"  {clean(str(each['path']))}  {human_size(int(each.get('size', 0)))}\n")
    if len(files) > _SHOWN:
        sys.stderr.write(f"  ... and {len(files) - _SHOWN} more\n")
    sys.stderr.write(f"Throw away the unsent changes of {_files(len(files))} for good? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise CommandFailed("nothing was discarded")


def _discarded(file: Mapping[str, Any]) -> str:
    text = f"discarded: {clean(str(file.get('path')))}, {human_size(int(file.get('size', 0)))}"
    if file.get("may_have_arrived"):
        return f"{text}; it was being sent, so the server may have it"
    return f"{text}; " + (
        "the server never had this file" if file.get("gone") else "the server's version is shown again"
    )


def unlock(where: str, paths: Sequence[str], *, force: bool) -> int:
    """`unlock`: a lock on the server that stands in the way goes; somebody else's only with `force`."""
    mount = find_mount(where)
    inside = in_drive(mount, where, paths)
    with connect(mount) as client:
        for path in inside:
            owner = client.ask("unlock", within_s=_WITHIN_S, path=path, force=force).get("owner")
            told = (
                f"was locked by {clean(str(owner))}"
                if owner
                else "was not locked, as far as the server tells"
            )
            sys.stdout.write(f"{clean(path)} {told}\n")
    return Exit.OK


def save_as(where: str, path: str, target: str, *, force: bool) -> int:
    """`save-as`: a copy of the unsent bytes, also while the server is away.

    Raises CommandFailed when the target exists or bytes are missing, unless `force`.
    """
    mount = find_mount(where)
    (inside,) = in_drive(mount, where, [path])
    with connect(mount) as client:
        answer, source = client.ask_for_file("unsent_bytes", path=inside)
    try:
        missing = [(int(start), int(end)) for start, end in answer.get("missing", [])]
        if missing:
            _tell_missing(inside, missing, force=force)
        _copy(source, Path(target), int(answer["size"]), force=force)
    finally:
        os.close(source)
    with suppress(OSError):
        os.utime(target, ns=(int(answer["mtime_ns"]), int(answer["mtime_ns"])))
    return Exit.OK


def _tell_missing(path: str, missing: Sequence[tuple[int, int]], *, force: bool) -> None:
    """A change in the middle of a file that was never read whole: the rest is on the server only."""
    ranges = ", ".join(f"{start}-{end - 1}" for start, end in missing[:_SHOWN])
    more = " and more" if len(missing) > _SHOWN else ""
    text = f"{clean(path)}: bytes {ranges}{more} are only on the server"
    if not force:
        raise CommandFailed(f"{text}: --force writes zeros for them")
    sys.stderr.write(f"davfs: {text}: zeros stand for them\n")


def _copy(source: int, target: Path, size_bytes: int, *, force: bool) -> None:
    """All of it or nothing: with `force` what was there is replaced in one step."""
    written = target.with_name(f".{target.name}.{os.getpid()}.part") if force else target
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        sink = os.open(written, flags, 0o666)
    except FileExistsError:
        raise CommandFailed(f"{target} exists: --force replaces it") from None
    try:
        _copy_bytes(source, sink, size_bytes)
        if force:
            written.replace(target)
    except BaseException:
        with suppress(OSError):
            written.unlink()
        raise
    finally:
        os.close(sink)


def _copy_bytes(source: int, sink: int, size_bytes: int) -> None:
    at = 0
    while at < size_bytes and (piece := os.pread(source, min(_COPY_BYTES, size_bytes - at), at)):
        at += len(piece)
        while piece:
            piece = piece[os.write(sink, piece) :]
    os.ftruncate(sink, size_bytes)
    os.fsync(sink)


def in_drive(mount: mountpoint.Mount, where: str, paths: Sequence[str]) -> list[str]:
    """Paths as the daemon knows them: given relative to the mount point, or as paths under it.

    Without looking at the drive, which may hang. Raises CommandFailed for the drive itself.
    """
    roots = [f"{os.path.abspath(root).rstrip('/')}/" for root in (mount.target, where)]  # noqa: PTH100
    inside = []
    for path in paths:
        root = next((root for root in roots if f"{os.path.normpath(path)}/".startswith(root)), "")
        within = os.path.normpath(path)[len(root) :] if root else os.path.normpath(path.lstrip("/") or ".")
        if within in {"", "."} or within.startswith(".."):
            raise CommandFailed(f"{clean(path)} is no file or folder in {mount.target}")
        inside.append(within)
    return inside


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
