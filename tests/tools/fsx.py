"""A file-system exerciser: random reads and writes of one file, checked against a copy in memory.

Does what fsx (the public one, from Apple, Linux and others) does, written anew: read, write, truncate,
mapped read, mapped write, close and open again, fsync, in random order, sizes and places, from a seed.
After each read, and of the size after each operation, what the file system says must be what the copy
says. At the first difference it prints the last operations and where the bytes differ, and ends with 1.
Run as a program on any file:

    python tests/tools/fsx.py [--operations N] [--seed S] [--length BYTES] [--no-mmap] FILE

Uses only the standard library, so that it runs anywhere.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import sys
from collections import deque
from collections.abc import Callable

_REMEMBERED = 40
_PIECE_MAX = 64 * 1024


class Mismatch(Exception):
    """The file system and the copy disagree."""


class Exerciser:
    """One run. `length` bounds the file's size."""

    def __init__(self, path: str, *, seed: int, length: int, use_mmap: bool) -> None:
        self._path = path
        self._random = random.Random(seed)
        self._length = length
        self.copy = bytearray()
        self._recent: deque[str] = deque(maxlen=_REMEMBERED)
        self.count = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        operations: list[tuple[Callable[[], None], int]] = [
            (self._read, 6),
            (self._write, 6),
            (self._append, 1),
            (self._truncate_by_handle, 1),
            (self._truncate_by_path, 1),
            (self._reopen, 1),
            (self._fsync, 1),
        ]
        if use_mmap:
            operations += [(self._map_read, 4), (self._map_write, 4)]
        self._operations = [operation for operation, weight in operations for _ in range(weight)]

    def run(self, operations: int) -> None:
        """Raises Mismatch, with the story so far."""
        self.exercise(operations)
        self._log("the whole file")
        self._compare(0, os.pread(self._fd, len(self.copy) + 1, 0), bytes(self.copy))
        os.close(self._fd)

    def exercise(self, operations: int) -> None:
        for _ in range(operations):
            self.count += 1
            self._random.choice(self._operations)()
            self._check_size()

    # --- operations

    def _read(self) -> None:
        start, size = self._extent_inside()
        self._log(f"read      {start:8d} {size:8d}")
        self._compare(start, os.pread(self._fd, size, start), bytes(self.copy[start : start + size]))

    def _write(self) -> None:
        start = self._random.randrange(self._length)
        self._write_at(start, self._piece(min(_PIECE_MAX, self._length - start)), "write")

    def _append(self) -> None:
        if len(self.copy) < self._length:
            self._write_at(len(self.copy), self._piece(min(4096, self._length - len(self.copy))), "append")

    def _write_at(self, start: int, data: bytes, name: str) -> None:
        self._log(f"{name:9s} {start:8d} {len(data):8d}")
        if os.pwrite(self._fd, data, start) != len(data):
            self._fail("a short write")
        self.copy.extend(bytes(max(0, start - len(self.copy))))
        self.copy[start : start + len(data)] = data

    def _truncate_by_handle(self) -> None:
        self._resize("ftruncate", lambda size: os.ftruncate(self._fd, size))

    def _truncate_by_path(self) -> None:
        self._resize("truncate", lambda size: os.truncate(self._path, size))

    def _resize(self, name: str, resize: Callable[[int], None]) -> None:
        size = self._random.randrange(self._length + 1)
        self._log(f"{name:9s} {len(self.copy):8d} -> {size}")
        resize(size)
        del self.copy[size:]
        self.copy.extend(bytes(size - len(self.copy)))

    def _map_read(self) -> None:
        start, size = self._extent_inside()
        if size:
            self._log(f"map read  {start:8d} {size:8d}")
            with mmap.mmap(self._fd, len(self.copy), access=mmap.ACCESS_READ) as window:
                self._compare(start, window[start : start + size], bytes(self.copy[start : start + size]))

    def _map_write(self) -> None:
        start, size = self._extent_inside()
        if size:
            data = self._piece(size)
            self._log(f"map write {start:8d} {len(data):8d}")
            with mmap.mmap(self._fd, len(self.copy)) as window:
                window[start : start + len(data)] = data
                if self._random.random() < 0.5:
                    window.flush()
            self.copy[start : start + len(data)] = data

    def _reopen(self) -> None:
        self._log("close, open")
        os.close(self._fd)
        self._fd = os.open(self._path, os.O_RDWR)

    def _fsync(self) -> None:
        self._log("fsync")
        os.fsync(self._fd)

    # --- what they need

    def _extent_inside(self) -> tuple[int, int]:
        if not self.copy:
            return 0, 0
        start = self._random.randrange(len(self.copy))
        return start, self._random.randint(1, min(_PIECE_MAX, len(self.copy) - start))

    def _piece(self, limit: int) -> bytes:
        return self._random.randbytes(self._random.randint(1, max(1, limit)))

    def _log(self, what: str) -> None:
        self._recent.append(f"{self.count:6d} {what}")

    # --- checks

    def _check_size(self) -> None:
        for name, found in (("fstat", os.fstat(self._fd)), ("stat", os.stat(self._path))):
            if found.st_size != len(self.copy):
                self._fail(f"{name} says {found.st_size} bytes, and it should be {len(self.copy)}")

    def _compare(self, start: int, found: bytes, wanted: bytes) -> None:
        if found == wanted:
            return
        if len(found) != len(wanted):
            self._fail(f"{len(found)} bytes came, and it should be {len(wanted)}")
        wrong = [at for at in range(len(found)) if found[at] != wanted[at]]
        at = wrong[0]
        self._fail(
            f"{len(wrong)} bytes differ, from {start + at} to {start + wrong[-1]}: "
            f"{found[at : at + 8].hex()} instead of {wanted[at : at + 8].hex()}"
        )

    def _fail(self, what: str) -> None:
        raise Mismatch("\n".join([*self._recent, f"operation {self.count}: {what}"]))


def main() -> int:
    parser = argparse.ArgumentParser(description="Random operations on one file, checked against memory.")
    parser.add_argument("file")
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--length", type=int, default=256 * 1024)
    parser.add_argument("--no-mmap", action="store_true")
    given = parser.parse_args()
    exerciser = Exerciser(given.file, seed=given.seed, length=given.length, use_mmap=not given.no_mmap)
    try:
        exerciser.run(given.operations)
    except (Mismatch, OSError) as failure:
        sys.stderr.write(f"seed {given.seed}, after {exerciser.count} operations:\n{failure}\n")
        return 1
    sys.stdout.write(f"{given.operations} operations, seed {given.seed}: no mismatch\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
