"""What must be true after a kill, from the journal of the workload (workload.py).

`Folder` is the model of one thread's own folder: it replays the calls that returned, and knows the one that
is in doubt. What a mount or a server's disk shows must be the state before that call or after it.
`Versions` follows the files that two clients edit: a version may only go when who replaced it had seen it.

Findings are sentences; an oracle never raises for what it finds, and goes on from what is really there, so
that one run tells all. "(soft)" marks what is told and counted, and fails nothing.
"""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from tests.faults.workload import TAKEN_AWAY, data_of, tag_of
from tests.servers.meter import Exchange, Moment

PAGE_BYTES = 4096
HIDDEN_PREFIX = ".davfs-"
MOD_DAV_OWN = ".DAV"  # where Apache keeps properties; it shows it to nobody


def digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def name_of(number: int) -> str:
    return errno.errorcode.get(number, "ok" if number == 0 else str(number))


# --- what was done ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Call:
    thread: int
    number: int
    name: str
    path: str
    arguments: list[Any]
    errno: int | None = None  # None: it never returned
    seconds: float = 0.0
    answer: Any = None

    @property
    def returned(self) -> bool:
        return self.errno == 0

    @property
    def is_odd(self) -> bool:
        """An error that is not that of a dead mount; a file may be taken away under an open handle."""
        shared = self.path.startswith("shared/")
        taken = shared and self.name in {"open", "look"} and self.errno in TAKEN_AWAY
        made = shared and self.name == "replace" and self.errno == errno.EEXIST  # by the rival, just now
        return not (self.errno in {0, None} or self.answer is True or taken or made)

    def __str__(self) -> str:
        end = "in flight" if self.errno is None else name_of(self.errno)
        return f"#{self.number} {self.name} {self.path} {self.arguments} ({end})"


class History(NamedTuple):
    """The journal of one round: the calls of each thread, and whether a kill was noted in it."""

    calls: dict[int, list[Call]]
    shots: int

    def of(self, thread: int) -> list[Call]:
        return self.calls.get(thread, [])

    def slowest(self) -> list[Call]:
        every = [call for calls in self.calls.values() for call in calls if call.errno is not None]
        return sorted(every, key=lambda call: -call.seconds)


def read_journal(place: Path) -> History:
    calls: dict[int, list[Call]] = {}
    shots = 0
    for line in place.read_text().splitlines() if place.exists() else []:
        thread, number, what, *rest = json.loads(line)
        if what == "kill":
            shots += 1
        elif what == "begin":
            calls.setdefault(thread, []).append(Call(thread, number, rest[0], rest[1], rest[2:]))
        else:
            call = calls[thread][-1]
            call.errno, call.seconds, call.answer = rest
    return History(calls, shots)


def timings(seconds: dict[str, list[float]]) -> list[str]:
    """One line for each kind of call."""
    lines = []
    for name, took in sorted(seconds.items()):
        took.sort()
        high_s = took[int(len(took) * 0.999)]
        lines.append(f"  {name:10} {len(took):7} calls, 99.9 %: {high_s:.3f} s, max {took[-1]:.3f} s")
    return lines


# --- trees -------------------------------------------------------------------------------------------


class Trees(NamedTuple):
    """What is below a folder: relative paths of files with their bytes, and of folders."""

    files: dict[str, bytes]
    folders: set[str]

    def below(self, prefix: str) -> Trees:
        return Trees(
            {path: data for path, data in self.files.items() if path.startswith(prefix)},
            {path for path in self.folders if path.startswith(prefix)},
        )


def read_tree(root: Path) -> Trees:
    files: dict[str, bytes] = {}
    folders: set[str] = set()
    for at, names, leaves in os.walk(root, onerror=_fail):
        names[:] = [name for name in names if name != MOD_DAV_OWN]
        here = Path(at)
        folders |= {str((here / name).relative_to(root)) for name in names}
        for leaf in leaves:
            files[str((here / leaf).relative_to(root))] = (here / leaf).read_bytes()
    return Trees(files, folders)


def _fail(error: OSError) -> None:
    raise error


def differences(wanted: Trees, found: Trees) -> list[str]:
    told = [f"missing: {path}" for path in sorted(wanted.files.keys() - found.files.keys())]
    told += [f"extra: {path}" for path in sorted(found.files.keys() - wanted.files.keys())]
    told += [f"missing folder: {path}" for path in sorted(wanted.folders - found.folders)]
    told += [f"extra folder: {path}" for path in sorted(found.folders - wanted.folders)]
    told += [
        f"other bytes: {path} ({len(wanted.files[path])} wanted, {len(found.files[path])} found)"
        for path in sorted(wanted.files.keys() & found.files.keys())
        if wanted.files[path] != found.files[path]
    ]
    return told


def _is_between(now: bytes, old: bytes, new: bytes) -> bool:
    """Whether each page is that of before a write or of after it."""
    return all(
        now[at : at + PAGE_BYTES] in (old[at : at + PAGE_BYTES], new[at : at + PAGE_BYTES])
        for at in range(0, max(len(now), len(old)), PAGE_BYTES)
    )


# --- one thread's folder -----------------------------------------------------------------------------


@dataclass(slots=True)
class File:
    content: bytes = b""
    before: bytes = b""  # the content of the state before
    states: list[bytes] = field(default_factory=lambda: [digest(b"")])  # digests, oldest first
    fsynced: int | None = None  # which of the states the server had at the last fsync

    def becomes(self, content: bytes) -> None:
        self.before, self.content = self.content, content
        self.states.append(digest(content))


class Folder:
    """The model of what one thread made. Paths are relative to the share."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.files: dict[str, File] = {}
        self.folders = {name}
        self._before: Folder | None = None
        self.doubt: Call | None = None

    def orders(self) -> tuple[dict[str, int], list[str]]:
        """What the workload must know to go on from here."""
        return {path: len(file.content) for path, file in self.files.items()}, sorted(self.folders)

    def replay(self, calls: Iterable[Call]) -> list[str]:
        """Applies what returned, and the call in doubt last, on a copy. Answers the errors of no kill."""
        told = []
        self._before, self.doubt = None, None
        for call in calls:
            if not call.returned:
                self._before, self.doubt = copy.deepcopy(self), call
                if call.is_odd:
                    told.append(f"{self.name}: unexpected error: {call}")
                if call.name == "fsync":
                    break
            elif call.name == "write" and call.answer is not None and call.answer < call.arguments[1]:
                # Cut short by the kill: what came after may have been accepted, and nobody was told.
                self._before, self.doubt = copy.deepcopy(self), call
                self._apply(call)
                break
            self._apply(call)
        return told

    def _apply(self, call: Call) -> None:
        match call.name:
            case "create":
                self.files[call.path] = File()
            case "write":
                offset, size, tag = call.arguments
                data = data_of(tag, size)
                file = self.files[call.path]
                old = file.content.ljust(offset, b"\0")
                file.becomes(old[:offset] + data + old[offset + len(data) :])
            case "truncate":
                size = call.arguments[0]
                file = self.files[call.path]
                file.becomes(file.content[:size].ljust(size, b"\0"))
            case "fsync":
                file = self.files[call.path]
                file.fsynced = len(file.states) - 1
            case "rename":
                self.files[call.arguments[0]] = self.files.pop(call.path)
            case "unlink":
                del self.files[call.path]
            case "mkdir":
                self.folders.add(call.path)
            case "rmdir":
                self.folders.discard(call.path)

    def _tree(self) -> Trees:
        return Trees({path: file.content for path, file in self.files.items()}, set(self.folders))

    def compare(self, shown: Trees) -> list[str]:
        """Findings. The model is from now on what is shown."""
        found = Trees(shown.below(f"{self.name}/").files, shown.below(f"{self.name}/").folders | {self.name})
        after = differences(self._tree(), found)
        if not after:
            told = []
        elif self._before is None:
            told = after
        else:
            before = differences(self._before._tree(), found)
            if not before or self._torn_write(found):
                told = []
            elif self._torn_rename(found):
                told = [f"torn rename (soft): {self.doubt}"]
            else:
                told = min(before, after, key=len)
        told = [f"{self.name}: {one}{self._known(one, found)}" for one in told]
        if told and self.doubt is not None and "(soft)" not in told[0]:
            told.append(f"{self.name}: in doubt was {self.doubt}")
        self._take(found)
        return told

    def _known(self, finding: str, found: Trees) -> str:
        """Which earlier state of the file it is."""
        path = finding.partition(": ")[2].partition(" (")[0]
        file = self.files.get(path)
        if file is None or path not in found.files:
            return ""
        states = [at for at, state in enumerate(file.states) if state == digest(found.files[path])]
        return f" [state {states or 'unknown'} of {len(file.states) - 1}, fsynced {file.fsynced}]"

    def _torn_write(self, found: Trees) -> bool:
        """The write in doubt may have arrived page by page."""
        if self.doubt is None or self.doubt.name != "write" or self._before is None:
            return False
        path = self.doubt.path
        others = Trees({**self._tree().files, path: b""}, self.folders)
        if path not in found.files or differences(others, Trees({**found.files, path: b""}, found.folders)):
            return False
        return _is_between(found.files[path], self._before.files[path].content, self.files[path].content)

    def _torn_rename(self, found: Trees) -> bool:
        """The MOVE was done and nobody noted it: both names exist, the new one with a state of ours."""
        if self.doubt is None or self.doubt.name != "rename" or self._before is None:
            return False
        old, new = self.doubt.path, self.doubt.arguments[0]
        file = self._before.files[old]
        if found.files.get(old) != file.content or digest(found.files.get(new, b"?")) not in file.states:
            return False
        wanted = self._before._tree()
        wanted.files[new] = found.files[new]
        return not differences(wanted, found)

    def _take(self, found: Trees) -> None:
        known = {**(self._before.files if self._before is not None else {}), **self.files}
        files: dict[str, File] = {}
        for path, content in found.files.items():
            file = files[path] = copy.deepcopy(known.get(path)) or File()
            if file.content != content:
                file.becomes(content)
                file.fsynced = None
        self.files, self.folders = files, set(found.folders)
        self._before, self.doubt = None, None

    def missing_fsynced(self, server: Trees) -> list[str]:
        """Right after the kill: what fsync returned for, or something newer, is on the server."""
        told = []
        doubted = {self.doubt.path, *map(str, self.doubt.arguments[:1])} if self.doubt is not None else set()
        renaming = self.doubt is not None and self.doubt.name in {"rename", "unlink"}
        for path, file in self.files.items():
            if file.fsynced is None or (renaming and path in doubted):
                continue
            held = server.files.get(path)
            if held is None:
                told.append(f"{self.name}: fsynced, and not on the server: {path}")
            elif digest(held) not in file.states[file.fsynced :] and path not in doubted:
                if file.fsynced < len(file.states) - 1 and _is_between(held, file.before, file.content):
                    continue  # sent while the last write was under way: under load it comes in two requests
                told.append(
                    f"{self.name}: fsynced, and the server has other bytes: {path}"
                    f" ({len(held)} bytes there, {len(file.content)} here)"
                )
        return told


# --- the files that two clients edit -------------------------------------------------------------------


@dataclass(slots=True)
class Version:
    tag: int
    path: str
    ours: bool
    certain: bool = True  # False: the call was in doubt
    fsynced: bool = False
    gone: bool = False  # rightly: replaced by who had seen it
    in_a_blink: bool = False  # put while an upload of ours was on its way, or right before: see Uploads


class Versions:
    def __init__(self) -> None:
        self._versions: dict[int, Version] = {}
        self._newest: dict[str, int] = {}  # path -> our newest version there
        self.unseen = 0  # foreign versions that a rename over them replaced
        self.blinks = 0  # foreign versions lost in the instant that no condition covers
        self.by_rename: set[str] = set()

    def replay(self, calls: Iterable[Call]) -> list[str]:
        told = []
        look: Call | None = None
        self.by_rename = set()
        for call in calls:
            if call.is_odd:
                told.append(f"shared: unexpected error: {call}")
            if call.name == "look":
                look = call
            elif call.name == "edit" and look is not None and look.answer[0] is None and look.answer[1]:
                told.append(f"shared: read bytes that are no version of anybody: {look} {look.answer}")
            if call.name in {"edit", "replace"}:
                self._ours(call)
            elif call.name == "fsync" and call.returned and call.path in self._newest:
                self._versions[self._newest[call.path]].fsynced = True
        return told

    def _ours(self, call: Call) -> None:
        tag, _, seen = call.arguments
        before = self._newest.get(call.path)
        if before is not None:
            self._versions[before].gone = True
        if seen in self._versions:
            self._versions[seen].gone = True
        if call.name == "replace":
            self.by_rename.add(call.path)
        self._versions[tag] = Version(tag, call.path, ours=True, certain=call.returned)
        self._newest[call.path] = tag

    def foreign(self, path: str, tag: int, *, in_a_blink: bool) -> None:
        self._versions[tag] = Version(tag, path, ours=False, in_a_blink=in_a_blink)

    def taken(self, contents: Iterable[bytes]) -> None:
        """What the other client found in the place where it put its own."""
        for content in contents:
            tag = tag_of(content)
            if tag in self._versions:
                self._versions[tag].gone = True

    def twice(self, server: Trees) -> list[str]:
        """A version that stands under two names: we sent our own a second time, as a conflict copy."""
        places: dict[int, list[str]] = {}
        for path, content in sorted(server.files.items()):
            tag = tag_of(content)
            if tag is not None and not path.endswith(".tmp"):
                places.setdefault(tag, []).append(path)
        return [f"shared: version {tag} stands at {where}" for tag, where in places.items() if len(where) > 1]

    def lost(self, server: Trees, *, fsynced_only: bool = False) -> list[str]:
        """Findings; call it with what the server's disk has below `shared`."""
        present = {tag_of(content) for content in server.files.values()}
        told = []
        for one in self._versions.values():
            if one.gone or not one.certain or one.tag in present or (fsynced_only and not one.fsynced):
                continue
            if not one.ours and one.path in self.by_rename:
                self.unseen += 1
            elif one.in_a_blink:
                self.blinks += 1
            else:
                whose = "our" if one.ours else "the other client's"
                told.append(f"shared: {whose} version {one.tag} of {one.path} is nowhere")
            one.gone = not fsynced_only
        return told


@dataclass(slots=True)
class Window:
    """One upload as the relay saw it: what another client does in it, the server itself does not notice.

    From the look-up before, when the PUT has no condition, else from the PUT's head; until its answer.
    """

    path: str
    begun_s: float
    done_s: float


class Windows:
    """Gathers the windows of one mount's uploads; told by the relay's watch."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._asked: dict[str, float] = {}
        self._looked: dict[str, float] = {}
        self._windows: list[Window] = []
        self._open: dict[tuple[int, int], list[Window]] = {}  # by connection and order of their request

    def path_of(self, target: str) -> str:
        return unquote(urlsplit(target).path).removeprefix(self._prefix)

    def note(self, moment: Moment, one: Exchange) -> None:
        path = self.path_of(one.target)
        now_s = time.monotonic()
        key = (one.connection, one.order)
        if one.method not in {"PUT", "MOVE", "COPY", "DELETE"}:
            if moment == "request":
                self._asked[path] = now_s
            elif moment == "answer":
                self._looked[path] = self._asked.get(path, now_s)  # the server looked no earlier than that
        elif moment == "request":
            self._open[key] = [self._opened(path, now_s, is_guarded=one.is_conditional)]
            if one.destination is not None:
                to = self.path_of(one.destination)
                self._open[key].append(self._opened(to, now_s, is_guarded=one.names_version))
        elif moment == "answer":
            for window in self._open.pop(key, ()):
                window.done_s = now_s

    def _opened(self, path: str, now_s: float, *, is_guarded: bool) -> Window:
        """`is_guarded`: the server itself looks whether it is the version that we know, when this comes."""
        window = Window(path, now_s if is_guarded else self._looked.get(path, now_s), now_s + 1.0)
        self._windows.append(window)
        return window

    def cover(self, path: str, begun_s: float, done_s: float) -> bool:
        slack_s = 0.01
        return any(
            one.path == path and one.begun_s - slack_s <= done_s and begun_s <= one.done_s + slack_s
            for one in self._windows
        )


def mixtures(tree: Trees) -> list[str]:
    """Shared files that are no version of anybody. An empty one was made and not written yet."""
    return [
        f"shared: no version of anybody: {path} ({len(content)} bytes)"
        for path, content in tree.files.items()
        if content and tag_of(content) is None and not path.endswith(".tmp")
    ]
