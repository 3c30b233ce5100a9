"""Series of small files that a program opens in order: which come next. Pure.

Two files opened one after the other, in an order that a program would choose, begin a series. The orders
are those of the listing (grep -r, os.walk, find), of the names (the shell's globs, git, rsync), of the names
without case (the shell in most locales), and of the inode numbers (cp -r, tar).

The window counts files that were asked for and not opened yet. It grows when the program has to wait and
shrinks when it passes by what was fetched; a series that leaves its order three times, or of which more than
a quarter was fetched for nothing, is over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

Key = tuple[int, str]  # number of the folder, name
Numbered = tuple[str, int]  # name, inode number

WINDOW_FIRST: Final = 4
WINDOW_MAX: Final = 64
GROWTH: Final = 4
BYTES_AHEAD_MAX: Final = 16 << 20
SLACK: Final = 8  # programs with many threads open a little out of order
STRIKES_MAX: Final = 3
WASTE_MAX: Final = 8
SORTED_MAX: Final = 20_000  # names; sorting more takes too long to be done on a guess
NEXT_WITHIN_S: Final = 2.0


class Order(Enum):
    LISTING = auto()
    NAME = auto()
    CASELESS = auto()
    NUMBER = auto()


def arranged(names: Sequence[Numbered], order: Order) -> list[str]:
    if order is Order.NAME:
        return sorted(name for name, _ in names)
    if order is Order.CASELESS:
        return sorted((name for name, _ in names), key=lambda name: (name.casefold(), name))
    if order is Order.NUMBER:
        return [name for name, _ in sorted(names, key=lambda pair: pair[1])]
    return [name for name, _ in names]


def order_of(first: str, second: str, names: Sequence[Numbered]) -> Order | None:
    """The order in which `second` comes right after `first`."""
    for order in Order if len(names) <= SORTED_MAX else (Order.LISTING,):
        line = arranged(names, order)
        try:
            at = line.index(first) + 1
        except ValueError:
            return None
        if at < len(line) and line[at] == second:
            return order
    return None


class _Phase(Enum):
    COMING = auto()
    LEFT_OUT = auto()  # too large, or here already: the program opens it, and nothing is fetched
    ASKED = auto()
    READY = auto()


@dataclass(slots=True)
class _File:
    serial: int
    phase: _Phase = _Phase.COMING
    size_bytes: int = 0

    @property
    def is_ahead(self) -> bool:
        return self.phase in {_Phase.ASKED, _Phase.READY}


class Series:
    """One series, over one folder or several that follow each other."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.window = WINDOW_FIRST
        self.folder = 0  # where the program is
        self._files: dict[Key, _File] = {}
        self._line: deque[Key] = deque()  # not opened, in order, as far as they are in `_files`
        self._next: deque[Key] = deque()  # not asked for yet
        self._serial = 0
        self._position = -1
        self._ahead = 0
        self._bytes = 0
        self._strikes = 0
        self._used = 0
        self._wasted = 0

    def __len__(self) -> int:
        return len(self._files)

    @property
    def is_over(self) -> bool:
        too_much_waste = self._wasted > WASTE_MAX and self._wasted * 3 > self._used
        return self._strikes >= STRIKES_MAX or too_much_waste

    @property
    def wants_more(self) -> bool:
        """Whether the next folder's files could be asked for."""
        return not self.is_over and len(self._next) == 0 and self._has_room

    @property
    def _has_room(self) -> bool:
        return self._ahead < self.window and self._bytes < BYTES_AHEAD_MAX

    @property
    def ahead(self) -> int:
        return self._ahead

    def extend(self, folder: int, names: Iterable[str]) -> None:
        """The files of a folder that comes next, in the order of the series."""
        for name in names:
            key = (folder, name)
            self._files[key] = _File(self._serial)
            self._line.append(key)
            self._next.append(key)
            self._serial += 1

    def opened(self, key: Key) -> None:
        file = self._files.get(key)
        if file is None:
            self._strikes += 1
            return
        self.folder = key[0]
        if file.serial > self._position + self.window + SLACK:
            self._strikes += 1
        else:
            self._strikes = 0
        if file.phase is not _Phase.READY and file.phase is not _Phase.LEFT_OUT:
            self.window = min(WINDOW_MAX, self.window * GROWTH)
        self._forget(key, file)
        self._used += 1
        self._position = max(self._position, file.serial)
        self._pass_by()

    def _pass_by(self) -> None:
        while self._line:
            file = self._files.get(self._line[0])
            if file is not None:
                if file.serial >= self._position - SLACK:
                    return
                if file.is_ahead:
                    self._wasted += 1
                    self.window = max(1, self.window // 2)
                self._forget(self._line[0], file)
            self._line.popleft()

    def _forget(self, key: Key, file: _File) -> None:
        if file.is_ahead:
            self._ahead -= 1
            self._bytes -= file.size_bytes
        del self._files[key]

    def next(self, size_of: Callable[[Key], int | None]) -> Key | None:
        """The file to ask for now, if there is room; it counts as asked for. `size_of` None: leave it out."""
        while self._next and self._has_room and not self.is_over:
            key = self._next.popleft()
            file = self._files.get(key)
            if file is None or file.serial < self._position:
                continue
            size_bytes = size_of(key)
            if size_bytes is None:
                file.phase = _Phase.LEFT_OUT
                continue
            file.phase, file.size_bytes = _Phase.ASKED, size_bytes
            self._ahead += 1
            self._bytes += size_bytes
            return key
        return None

    def arrived(self, key: Key) -> None:
        file = self._files.get(key)
        if file is not None and file.phase is _Phase.ASKED:
            file.phase = _Phase.READY

    def refused(self, key: Key) -> None:
        """It could not be asked for now."""
        file = self._files.get(key)
        if file is not None and file.phase is _Phase.ASKED:
            file.phase = _Phase.COMING
            self._ahead -= 1
            self._bytes -= file.size_bytes
            self._next.appendleft(key)

    def failed(self, key: Key) -> None:
        """The program will see for itself."""
        file = self._files.get(key)
        if file is not None and file.phase is _Phase.ASKED:
            file.phase = _Phase.LEFT_OUT
            self._ahead -= 1
            self._bytes -= file.size_bytes
