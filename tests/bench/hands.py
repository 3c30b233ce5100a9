"""The programs that are timed, in a process of their own: a mount that hangs takes its users with it.

    python hands.py STEP JSON

prints one line of JSON: `begin_s` and `end_s` on the machine's monotonic clock, and what the step found. What
is written stands in memory before the clock starts; what was read is compared after it stopped.
Imports nothing of davfs and nothing of the tests.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PIECE = 1 << 20
Found = dict[str, Any]


class _Clock:
    def __init__(self) -> None:
        self.begin_s = self.end_s = 0.0

    def __enter__(self) -> None:
        self.begin_s = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.end_s = time.monotonic()


def _different(got: dict[str, bytes], reference: str) -> Found:
    bad = [name for name, data in got.items() if Path(reference, name).read_bytes() != data]
    return {"wrong": bad[:5], "wrong_count": len(bad), "count": len(got)}


def walk(clock: _Clock, root: str) -> Found:
    """Lists every folder and asks for the attributes of every name, as `find -ls` does."""
    folders = files = size = 0
    with clock:
        todo = [root]
        while todo:
            here = todo.pop()
            folders += 1
            for name in sorted(os.listdir(here), reverse=True):
                path = f"{here}/{name}"
                seen = os.lstat(path)
                if seen.st_mode & 0o170000 == 0o040000:
                    todo.append(path)
                else:
                    files += 1
                    size += seen.st_size
    return {"folders": folders, "files": files, "size": size}


def command(clock: _Clock, argv: list[str], cwd: str | None = None) -> Found:
    """An ordinary program, from its start to its end."""
    with clock:
        done = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    said = done.stderr.decode(errors="replace").strip()
    return {"status": done.returncode, "lines": done.stdout.count(b"\n"), "said": said[-500:]}


def read_files(clock: _Clock, folder: str, reference: str, only: list[str] | None = None) -> Found:
    """Every file of a folder, in the order of its listing, as `cat *` does."""
    got = {}
    with clock:
        for name in only or sorted(os.listdir(folder)):
            with open(f"{folder}/{name}", "rb", buffering=0) as file:
                got[name] = b"".join(iter(lambda file=file: file.read(_PIECE), b""))  # type: ignore[misc]
    return _different(got, reference)


def read_big(clock: _Clock, path: str, reference: str, drop_first: bool = False) -> Found:
    """A large file from its begin to its end. `drop_first`: the kernel's pages of it are dropped before."""
    size = os.stat(reference).st_size
    room = memoryview(bytearray(os.urandom(1) * size))  # touched: no page faults while the clock runs
    if drop_first:
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    at = 0
    with clock, open(path, "rb", buffering=0) as file:
        while count := file.readinto(room[at : at + _PIECE]):
            at += count
    wrong = 0
    with open(reference, "rb") as file:
        for begin in range(0, size, _PIECE):
            wrong += file.read(_PIECE) != room[begin : begin + _PIECE]
    return {"wrong_count": wrong + (at != size), "count": size // _PIECE}


def read_at(clock: _Clock, path: str, reference: str, count: int, size: int, first_at_begin: bool) -> Found:
    """`count` pieces, one after the other, at places that are the same for everyone."""
    choose = random.Random(20)
    pieces = os.stat(reference).st_size // size
    places = [choose.randrange(pieces) * size for _ in range(count)]
    if first_at_begin:
        places[0] = 0
    got = []
    with clock:
        file = os.open(path, os.O_RDONLY)
        got = [os.pread(file, size, place) for place in places]
        os.close(file)
    with open(reference, "rb") as truth:
        wrong = sum(
            os.pread(truth.fileno(), size, place) != data for place, data in zip(places, got, strict=True)
        )
    return {"wrong_count": wrong, "count": count}


def write_files(clock: _Clock, reference: str, folder: str) -> Found:
    """Every file of `reference`, written into `folder`; piece by piece where it is large."""
    sources = {name: Path(reference, name).read_bytes() for name in sorted(os.listdir(reference))}
    with clock:
        for name, data in sources.items():
            with open(f"{folder}/{name}", "wb", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view[:_PIECE]) :]
    return {"count": len(sources)}


def save(clock: _Clock, reference: str, folder: str, flush: bool) -> Found:
    """Each document as editors save it: a temporary file beside it, written whole and renamed over."""
    sources = {name: Path(reference, name).read_bytes() for name in sorted(os.listdir(reference))}
    with clock:
        for name, data in sources.items():
            temporary = f"{folder}/.{name}.new~"
            with open(temporary, "wb", buffering=0) as file:
                file.write(data)
                if flush:
                    os.fsync(file.fileno())
            os.rename(temporary, f"{folder}/{name}")
    return {"count": len(sources)}


def append(clock: _Clock, path: str, size: int) -> Found:
    """The same bytes as fixtures.py puts into its reference."""
    data = random.Random("appended").randbytes(size)
    with clock, open(path, "ab", buffering=0) as file:
        file.write(data)
    return {"count": 1}


def walk_beside(clock: _Clock, root: str, busy: list[str]) -> Found:
    """A walk while another program, `busy`, works on the same mount; it has a head start of 0.5 s."""
    start_s = time.monotonic()
    other = subprocess.Popen(busy, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    found = walk(clock, root)
    found["beside"] = other.poll() is None
    found["status"] = other.wait()
    found["both_s"] = time.monotonic() - start_s
    return found


_STEPS: dict[str, Callable[..., Found]] = {
    step.__name__: step
    for step in (walk, command, read_files, read_big, read_at, write_files, save, append, walk_beside)
}


def main() -> None:
    clock = _Clock()
    try:
        found = _STEPS[sys.argv[1]](clock, **json.loads(sys.argv[2]))
    except OSError as error:
        found = {"failed": f"{type(error).__name__}: {error.strerror}: {error.filename}"}
    sys.stdout.write(json.dumps(found | {"begin_s": clock.begin_s, "end_s": clock.end_s}) + "\n")


if __name__ == "__main__":
    main()
