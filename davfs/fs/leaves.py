"""The files of one folder that the kernel knows from a listing, and that nobody has used since.

A walk through a million files makes the kernel remember all of them, and a node for each takes 330 bytes, the
most of it for what is never asked. A leaf is what may not be lost of such a file: its name, its inode number,
how often the kernel has looked it up, and the size that it was told; 210 bytes with all that finds it. It is
made a node (`InodeTable`) as soon as anybody wants one. There are only so many in a folder, as a leaf is
looked for by its number from the first to the last.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

LEAVES_MAX: Final = 1_000  # 10 us to look for one


class Leaves:
    __slots__ = ("_at", "_lookups", "_names", "_numbers", "_sizes")

    def __init__(self) -> None:
        self._at: dict[str, int] = {}
        self._names: list[str] = []  # with those that are gone, until all are
        self._numbers = array("q")
        self._sizes = array("q")
        self._lookups = array("I")

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, name: str) -> bool:
        return name in self._at

    def __iter__(self) -> Iterator[str]:
        return iter(self._at)

    @property
    def is_full(self) -> bool:
        return len(self._names) >= LEAVES_MAX

    def number_of(self, name: str) -> int | None:
        at = self._at.get(name)
        return None if at is None else self._numbers[at]

    def name_of(self, number: int) -> str:
        return self._names[self._numbers.index(number)]

    def tell(self, name: str, number: int, size_bytes: int) -> None:
        """The kernel was told of it, once more."""
        at = self._at.get(name)
        if at is None:
            self._at[name] = len(self._names)
            self._names.append(name)
            self._numbers.append(number)
            self._sizes.append(size_bytes)
            self._lookups.append(1)
        else:
            self._sizes[at] = size_bytes
            self._lookups[at] += 1

    def forget(self, number: int, count: int) -> bool:
        """Whether that were all of its look-ups: then it is gone."""
        at = self._numbers.index(number)
        if self._lookups[at] > count:
            self._lookups[at] -= count
            return False
        self.take(self._names[at])
        return True

    def take(self, name: str) -> tuple[int, int, int]:
        """It is no leaf any more. Its number, its look-ups, and the size that the kernel was told."""
        at = self._at.pop(name)
        found = self._numbers[at], self._lookups[at], self._sizes[at]
        self._numbers[at] = 0
        if not self._at:
            for column in (self._names, self._numbers, self._sizes, self._lookups):
                del column[:]
        return found
