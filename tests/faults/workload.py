"""The programs on the mount, as one process: what it does it writes down first, and again when it returned.

Run as a script with one JSON file (`orders` in `main`); imports nothing of davfs and nothing of the tests.
Three threads have a folder each to themselves, `w0` to `w2`: create, append, overwrite in the middle,
truncate, mmap, fsync, write a temporary file and rename it over, rename, unlink, mkdir, rmdir. A fourth edits
the files in `shared`, which another client edits too: it reads a version, and writes one of its own over it.

The journal is a file outside the mount, one JSON list per line, in the order of each thread:
    [thread, number, "begin", call, path, arguments ...]
    [thread, number, "end", errno or 0, seconds, what was read]
A thread ends at its first error, so at most one call of each is in doubt. Data is made from a tag, so that
who reads the journal can make it again.

With `kill` it kills the daemon itself: right after the n-th call of a kind returned, or so many
microseconds after it began.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TAKEN_AWAY = {errno.ENOENT, errno.ESTALE}  # by the other client, right under an open handle
WRITE_MAX = 100_000  # one FUSE request: what is in doubt after a kill is one write, not a part of it
FILES_MAX = 9


def data_of(tag: int, size: int) -> bytes:
    return random.Random(tag).randbytes(size)


def version_of(tag: int, size: int) -> bytes:
    """The content of a shared file: it names itself, and every byte of it can be checked."""
    head = f"version {tag} {size}\n".encode()
    return head + data_of(tag, max(0, size - len(head)))


def tag_of(content: bytes) -> int | None:
    """Which version these bytes are; None when they are none, or not the whole of one."""
    head = _words(content)
    if not head:
        return None
    tag, size = int(head[1]), int(head[2])
    return tag if size == len(content) and version_of(tag, size) == content else None


def _words(content: bytes) -> list[bytes]:
    words = content[:60].partition(b"\n")[0].split(b" ")
    return words if len(words) == 3 and words[0] == b"version" else []


class _Ended(Exception):
    """A call failed: this thread is done."""


class Journal:
    def __init__(self, path: str, kill: dict[str, Any] | None) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._kill = kill
        self._lock = threading.Lock()
        self.stop = threading.Event()

    def line(self, *fields: object) -> None:
        os.write(self._fd, (json.dumps(fields) + "\n").encode())

    def began(self, call: str) -> None:
        if self._due(call, "during") and self._kill is not None:
            timer = threading.Timer(self._kill["delay_s"], self._shoot)
            timer.daemon = True
            timer.start()

    def returned(self, call: str) -> None:
        if self._due(call, "after"):
            self._shoot()

    def _due(self, call: str, when: str) -> bool:
        with self._lock:
            if self._kill is None or self._kill["call"] != call or self._kill["when"] != when:
                return False
            self._kill["count"] -= 1
            return bool(self._kill["count"] == 0)

    def _shoot(self) -> None:
        if self._kill is not None:
            self.line(-1, 0, "kill", time.monotonic())
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._kill["pid"], signal.SIGKILL)


class _Hand:
    """One thread's calls, each written down before and after."""

    def __init__(self, number: int, root: str, journal: Journal, rng: random.Random) -> None:
        self.number = number
        self.root = root
        self.journal = journal
        self.rng = rng
        self._calls = 0

    def call(self, name: str, path: str, act: Callable[[], Any], *arguments: object) -> Any:
        if self.journal.stop.is_set():
            raise _Ended(None)
        self._calls += 1
        number = self._calls
        self.journal.line(self.number, number, "begin", name, path, *arguments)
        self.journal.began(name)
        begun = time.monotonic()
        try:
            answer = act()
        except OSError as error:
            took_s = time.monotonic() - begun
            self.journal.line(self.number, number, "end", error.errno or -1, took_s, self._is_dead())
            raise _Ended(error.errno) from None
        took_s = time.monotonic() - begun
        self.journal.returned(name)
        # The kill comes before this line: what returned is acknowledged, also when nobody wrote that down,
        # and a line that is missing only makes the check of this call weaker. So it is written either way.
        told = answer if isinstance(answer, int) or name == "look" else None
        self.journal.line(self.number, number, "end", 0, took_s, told)
        return answer

    def _is_dead(self) -> bool:
        """Whether the error was that of a mount without a daemon; mmap has other words for it (EINVAL)."""
        try:
            os.statvfs(self.root)
        except OSError:
            return True
        return False

    def at(self, path: str) -> str:
        return f"{self.root}/{path}"

    def open(self, path: str, flags: int, name: str = "open") -> int:
        return int(self.call(name, path, lambda: os.open(self.at(path), flags, 0o644)))

    def close(self, path: str, fd: int) -> None:
        self.call("close", path, lambda: os.close(fd))

    def pwrite(self, path: str, fd: int, offset: int, size: int) -> None:
        tag = self.rng.getrandbits(48)
        data = data_of(tag, size)
        self.call("write", path, lambda: os.pwrite(fd, data, offset), offset, size, tag)

    def fsync(self, path: str, fd: int) -> None:
        self.call("fsync", path, lambda: os.fsync(fd))


class Private(_Hand):
    """Does what it likes in its own folder. `files` and `folders` are what is there, with sizes."""

    def __init__(
        self, files: dict[str, int], folders: list[str], *, is_persistent: bool = False, **given: Any
    ) -> None:
        super().__init__(**given)
        self.is_persistent = is_persistent  # goes on after an error, as a person would
        self.files = files
        self.folders = folders
        self._serial = self.rng.getrandbits(40)

    def run(self) -> None:
        acts = [
            self._create, self._create, self._append, self._append, self._overwrite, self._overwrite,
            self._cut, self._save, self._save, self._save, self._rename, self._rename, self._unlink,
            self._mkdir, self._rmdir, self._map, self._sync, self._read,
        ]  # fmt: skip
        while True:
            try:
                if len(self.files) < 3:
                    self._create()
                elif len(self.files) > FILES_MAX:
                    self._unlink()
                else:
                    self.rng.choice(acts)()
            except _Ended as ended:
                if not self.is_persistent or ended.args[0] is None:
                    raise
                self._look_around()
            if self.rng.random() < 0.2:
                time.sleep(self.rng.random() * 0.1)

    def _look_around(self) -> None:
        """After an error: what is there now. Tries until the mount says it."""
        while True:
            try:
                names = self.call("walk", self.folders[0], lambda: _walked(self.at(self.folders[0])))
                sizes = {
                    os.path.relpath(f"{at}/{leaf}", self.root): os.stat(f"{at}/{leaf}").st_size
                    for at, _, leaves in names
                    for leaf in leaves
                }
            except (_Ended, OSError) as error:
                if isinstance(error, _Ended) and error.args[0] is None:
                    raise
                time.sleep(0.2)
                continue
            self.files = sizes
            self.folders = [os.path.relpath(at, self.root) for at, _, _ in names]
            if self.folders:
                return

    def _new_name(self) -> str:
        self._serial += 1
        return f"{self.rng.choice(self.folders)}/f{self._serial:x}"

    def _size(self) -> int:
        return self.rng.choice([1, 100, 4096, 5000, 30_000, WRITE_MAX])

    def _some(self) -> str:
        return self.rng.choice(sorted(self.files))

    def _create(self) -> None:
        path = self._new_name()
        fd = self.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, "create")
        self.files[path] = 0
        for _ in range(self.rng.choice([0, 1, 1, 2, 6])):
            self._write_at(path, fd, self.files[path])
        if self.rng.random() < 0.3:
            self.fsync(path, fd)
        self.close(path, fd)

    def _write_at(self, path: str, fd: int, offset: int) -> None:
        size = self._size()
        self.pwrite(path, fd, offset, size)
        self.files[path] = max(self.files[path], offset + size)

    def _append(self) -> None:
        path = self._some()
        fd = self.open(path, os.O_RDWR)
        for _ in range(self.rng.choice([1, 3])):
            self._write_at(path, fd, self.files[path])
        if self.rng.random() < 0.3:
            self.fsync(path, fd)
        self.close(path, fd)

    def _overwrite(self) -> None:
        path = self._some()
        fd = self.open(path, os.O_RDWR)
        self._write_at(path, fd, self.rng.randrange(self.files[path] + 5000))
        if self.rng.random() < 0.3:
            self.fsync(path, fd)
            self._write_at(path, fd, self.rng.randrange(self.files[path] + 1))
        self.close(path, fd)

    def _cut(self) -> None:
        path = self._some()
        size = self.rng.randrange(self.files[path] + 1000)
        self.call("truncate", path, lambda: os.truncate(self.at(path), size), size)
        self.files[path] = size

    def _save(self) -> None:
        """As editors do: write a temporary file, perhaps fsync it, rename it over."""
        path = self._some()
        self._serial += 1
        other = f"{path[:80]}.{self._serial:x}.tmp"
        fd = self.open(other, os.O_RDWR | os.O_CREAT | os.O_EXCL, "create")
        self.files[other] = 0
        self._write_at(other, fd, 0)
        if self.rng.random() < 0.3:
            self.fsync(other, fd)
        self.close(other, fd)
        self._move(other, path)

    def _rename(self) -> None:
        old = self._some()
        self._move(old, self._some() if self.rng.random() < 0.3 else self._new_name())

    def _move(self, old: str, new: str) -> None:
        if old != new:
            self.call("rename", old, lambda: os.rename(self.at(old), self.at(new)), new)
            self.files[new] = self.files.pop(old)

    def _unlink(self) -> None:
        path = self._some()
        self.call("unlink", path, lambda: os.unlink(self.at(path)))
        del self.files[path]

    def _mkdir(self) -> None:
        if len(self.folders) < 4:
            self._serial += 1
            path = f"{self.folders[0]}/d{self._serial:x}"
            self.call("mkdir", path, lambda: os.mkdir(self.at(path)))
            self.folders.append(path)

    def _rmdir(self) -> None:
        empty = [one for one in self.folders[1:] if not any(f.startswith(f"{one}/") for f in self.files)]
        if empty:
            path = empty[0]
            self.call("rmdir", path, lambda: os.rmdir(self.at(path)))
            self.folders.remove(path)

    def _map(self) -> None:
        path = self._some()
        if not self.files[path]:
            return
        fd = self.open(path, os.O_RDWR)
        offset = self.rng.randrange(self.files[path])
        size = min(self._size(), self.files[path] - offset)
        tag = self.rng.getrandbits(48)
        self.call("write", path, lambda: _write_mapped(fd, offset, data_of(tag, size)), offset, size, tag)
        self.close(path, fd)

    def _sync(self) -> None:
        path = self._some()
        fd = self.open(path, os.O_RDWR)
        self.fsync(path, fd)
        self.close(path, fd)

    def _read(self) -> None:
        path = self._some()
        self.call("read", path, lambda: len(Path(self.at(path)).read_bytes()))


def _walked(root: str) -> list[tuple[str, list[str], list[str]]]:
    def fail(error: OSError) -> None:
        raise error

    return list(os.walk(root, onerror=fail))


def _write_mapped(fd: int, offset: int, data: bytes) -> None:
    with mmap.mmap(fd, 0) as window:
        window[offset : offset + len(data)] = data
        window.flush()


class Editor(_Hand):
    """Edits files that another client edits too: reads one version, writes the next.

    Sizes grow with the time, for both clients: one write replaces the whole, and no two versions have
    the same size, which servers with tags of whole seconds could not tell apart (SEMANTICS.md).
    """

    def __init__(self, names: list[str], origin_s: float, **given: Any) -> None:
        super().__init__(**given)
        self._names = names
        self._origin_s = origin_s

    def run(self) -> None:
        while True:
            path = f"shared/{self.rng.choice(self._names)}"
            try:
                self._replace(path) if self.rng.random() < 0.3 else self._edit(path)
            except _Ended as ended:
                if ended.args[0] not in TAKEN_AWAY:
                    raise
            time.sleep(self.rng.random() * 0.15)

    def _version(self) -> tuple[int, int]:
        return self.rng.getrandbits(48), size_now(self._origin_s, ours=True)

    def _edit(self, path: str) -> None:
        fd = self.open(path, os.O_RDWR | os.O_CREAT)
        try:
            self._edit_open(path, fd)
        except _Ended:
            with contextlib.suppress(OSError):
                os.close(fd)
            raise
        self.close(path, fd)

    def _edit_open(self, path: str, fd: int) -> None:
        seen, found, *_ = self.call("look", path, lambda: _looked(os.pread(fd, 1 << 20, 0)))
        if seen is None and found and self._is_dead():
            raise _Ended(None)  # the kill came in the middle of the read, and cut it short
        tag, size = self._version()
        self.call("edit", path, lambda: os.pwrite(fd, version_of(tag, size), 0), tag, size, seen)
        if self.rng.random() < 0.3:
            self.fsync(path, fd)

    def _replace(self, path: str) -> None:
        tag, size = self._version()
        other = f"{path}.{tag:x}.tmp"
        fd = self.open(other, os.O_RDWR | os.O_CREAT | os.O_EXCL, "create")
        self.call("fill", other, lambda: os.pwrite(fd, version_of(tag, size), 0))
        if self.rng.random() < 0.3:
            self.fsync(other, fd)  # the rename over is then a MOVE
        self.close(other, fd)
        self.call("replace", path, lambda: os.rename(self.at(other), self.at(path)), tag, size, None)


def _looked(content: bytes) -> list[int | None]:
    """Which version it is, how many bytes there were, how many its head says."""
    return [tag_of(content), len(content), *(int(word) for word in _words(content)[2:])]


def size_now(origin_s: float, *, ours: bool) -> int:
    return 200 + 2 * int((time.monotonic() - origin_s) * 250) + (0 if ours else 1)


def _thread(hand: Private | Editor) -> threading.Thread:
    def run() -> None:
        with contextlib.suppress(_Ended):
            hand.run()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def main() -> None:
    orders = json.loads(Path(sys.argv[1]).read_text())
    journal = Journal(orders["journal"], orders.get("kill"))
    hands: list[Private | Editor] = []
    for number, (files, folders) in enumerate(orders["private"]):
        rng = random.Random(f"{orders['seed']}-{number}")
        persistent = orders.get("persistent", False)
        hands.append(
            Private(
                files,
                folders,
                is_persistent=persistent,
                number=number,
                root=orders["root"],
                journal=journal,
                rng=rng,
            )
        )
    if orders["shared"]:
        rng = random.Random(f"{orders['seed']}-shared")
        number = len(hands)
        hands.append(
            Editor(
                orders["shared"],
                orders["origin_s"],
                number=number,
                root=orders["root"],
                journal=journal,
                rng=rng,
            )
        )
    threads = [_thread(hand) for hand in hands]
    deadline = time.monotonic() + orders["limit_s"]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    journal.stop.set()


if __name__ == "__main__":
    main()
