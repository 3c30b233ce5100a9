"""Walks through the tree: who is on one, and which folders come next. Pure.

A program that lists a folder and then what is below it is walking: find, ls -R, du, grep -r, rsync and git
all go depth first, the members of a folder in listing order or by name. `Walk` holds that order as keys,
tuples of positions on the way down: their order is the order of the visits, whenever a listing arrives.

How far it looks ahead is a window on folders that were asked for and not visited yet. It grows only when the
program had to wait, and only a visit makes room in it, so a walk that stops leaves at most a window behind.
What the program passes by (find -prune, .git) makes it smaller.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

Path = tuple[str, ...]  # names below the folder where the walk began
Key = tuple[int, ...]

WINDOW_FIRST: Final = 8
WINDOW_MIN: Final = 2
WINDOW_MAX: Final = 64
ENTRIES_AHEAD_MAX: Final = 50_000  # members of folders that were fetched and not visited: some 20 MB
CANDIDATES_MAX: Final = 20_000  # of a folder with more sub-folders the walk begins anew on the way
PASSED_MAX: Final = 256  # programs with many threads visit a little out of order
FAILURES_MAX: Final = 3
SURE_VISITS: Final = 3
SOON_S: Final = 0.25  # a program goes from one folder to the next faster than a person
NEXT_WITHIN_S: Final = 2.0
SEEN_MAX: Final = 256


@dataclass(slots=True)
class _Ahead:
    """A folder that was asked for and not visited. `entries` None: its listing is on its way."""

    entries: int | None = None


class Walk:
    """One walk. Nothing is known of a path any more once it was visited and its sub-folders are known."""

    def __init__(self, *, by_name: bool = False, is_sure: bool = True) -> None:
        self._by_name = by_name
        self._is_sure = is_sure
        self.last: Path = ()  # where the program is
        self.window = WINDOW_FIRST
        self._keys: dict[Path, Key] = {(): ()}
        self._waiting: list[tuple[Key, Path]] = []  # a heap: not asked for yet
        self._ahead: dict[Path, _Ahead] = {}
        self._visited: set[Path] = set()  # and its sub-folders are not known yet
        self._passed: dict[Path, None] = {}
        self._position: Key = ()
        self._entries = 0
        self._used = 0
        self._missed = 0
        self._failures = 0

    def knows(self, path: Path) -> bool:
        return path in self._keys

    @property
    def is_sure(self) -> bool:
        """One program, or three folders in a row: then files may be fetched beyond the folder it is in."""
        return self._is_sure or self._used >= SURE_VISITS

    @property
    def ahead(self) -> int:
        """How many folders were asked for that the program has not come to."""
        return len(self._ahead)

    def learned(self, path: Path, subfolders: Sequence[str], entries: int, *, first: str = "") -> None:
        """What is in a folder, asked for by whomever. `first`: where the program begins there."""
        key = self._keys.get(path)
        if key is None:
            return
        ahead = self._ahead.get(path)
        if ahead is not None and ahead.entries is None:
            ahead.entries = entries
            self._entries += entries
            self._failures = 0
        elif path in self._visited:
            self._visited.discard(path)
            del self._keys[path]
        names = sorted(subfolders) if self._by_name else subfolders
        if first in names:
            names = names[names.index(first) :]
        for at, name in enumerate(names[: CANDIDATES_MAX - len(self._keys)]):
            below = (*path, name)
            if below not in self._keys:
                self._keys[below] = (*key, at)
                heapq.heappush(self._waiting, ((*key, at), below))

    def visited(self, path: Path) -> None:
        """The program has come to this folder."""
        key = self._keys.get(path)
        if key is None:
            return
        self.last = path
        ahead = self._ahead.pop(path, None)
        has_waited = ahead is None or ahead.entries is None
        if has_waited:
            self._passed.pop(path, None)
            self._visited.add(path)
        elif ahead is not None and ahead.entries is not None:
            self._entries -= ahead.entries
            del self._keys[path]
        self._used += 1
        missed = False
        if key > self._position:
            self._position = key
            missed = self._pass_by()
        if has_waited and not missed:
            self.window = min(WINDOW_MAX, self.window * 2)

    def _pass_by(self) -> bool:
        """What lies before the program's position was fetched for nothing. Whether there was any."""
        missed = False
        for path in [path for path in self._ahead if self._keys[path] < self._position]:
            entries = self._ahead.pop(path).entries
            self._entries -= entries or 0
            self._passed[path] = None
            self._missed += 1
            missed = True
        while len(self._passed) > PASSED_MAX:
            path = next(iter(self._passed))
            del self._passed[path]
            self._keys.pop(path, None)
        if self._missed > WINDOW_FIRST and self._missed * 2 > self._used:
            self.window = max(WINDOW_MIN, self.window // 2)
            self._used = self._missed = 0
        return missed

    def next(self) -> Path | None:
        """The folder to ask for now, if there is room; it counts as asked for."""
        if self._failures >= FAILURES_MAX:
            return None
        if len(self._ahead) >= self.window or self._entries >= ENTRIES_AHEAD_MAX:
            return None
        while self._waiting:
            key, path = heapq.heappop(self._waiting)
            if self._keys.get(path) != key or path in self._visited or path in self._ahead:
                continue
            if key < self._position:  # the program did not want it
                del self._keys[path]
                continue
            self._ahead[path] = _Ahead()
            return path
        return None

    def refused(self, path: Path) -> None:
        """It could not be asked for now."""
        if self._ahead.pop(path, None) is not None:
            heapq.heappush(self._waiting, (self._keys[path], path))

    def failed(self, path: Path) -> None:
        self._failures += 1
        self._ahead.pop(path, None)
        self._visited.discard(path)
        self._keys.pop(path, None)

    def coming(self) -> list[Path]:
        """The folders ahead whose listings are here, in the order of the visits."""
        ready = [path for path, ahead in self._ahead.items() if ahead.entries is not None]
        return sorted(ready, key=self._keys.__getitem__)


@dataclass(slots=True)
class _Seen:
    """A folder that a program has listed. `child`: the last one below it that was listed."""

    program: int
    at_s: float
    child: str = ""
    child_s: float = float("-inf")


class Listings:
    """What was listed lately: the evidence that somebody is walking."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}

    def listed(self, folder: int, program: int, now_s: float) -> None:
        self._seen.pop(folder, None)
        self._seen[folder] = _Seen(program, now_s)
        if len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]

    def went_down(self, above: int, name: str, now_s: float) -> None:
        """In a walk that is known."""
        seen = self._seen.get(above)
        if seen is not None:
            seen.child, seen.child_s = name, now_s

    def active(self, folder: int, now_s: float) -> None:
        """A program is still busy in it: it reads the listing, or a file."""
        seen = self._seen.get(folder)
        if seen is not None:
            seen.at_s = now_s

    def begins(
        self, above: int, name: str, program: int, siblings_of: Callable[[], Sequence[str]], now_s: float
    ) -> Walk | None:
        """The walk that listing `name` below `above` is part of, if it is the first sign of one.

        The same program, at once; or by whomever (`for d in *; do ls $d; done`, many threads) the next
        sibling.
        """
        seen = self._seen.get(above)
        if seen is None:
            return None
        before = seen.child if now_s - seen.child_s <= NEXT_WITHIN_S else ""
        seen.child, seen.child_s = name, now_s
        at_once = program != 0 and program == seen.program and now_s - seen.at_s <= SOON_S
        siblings = siblings_of() if at_once or before else []
        if name not in siblings:
            return None
        follows = [_follows(before, name, order) for order in (siblings, sorted(siblings))]
        if not at_once and not any(follows):
            return None
        by_name = follows[1] and not follows[0] if before else name == min(siblings) != siblings[0]
        return Walk(by_name=by_name, is_sure=at_once)


def _follows(before: str, name: str, order: Sequence[str]) -> bool:
    if not before or before not in order:
        return False
    at = order.index(before) + 1
    return at < len(order) and order[at] == name
