"""A server with a mount of it, for all tests of one session; and what a test may do there.

pytest itself never touches the mount (see tests/mount/drivers.py): a mount that hangs is aborted, and the
next test gets a new one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tests.contract.candidates import Candidate, Place
from tests.contract.rival import Rival
from tests.mount.drivers import Hands, Hung, KernelDriver, Mount

GROUPS: Final = "abcdefghijklmnop"  # small folders: rclone reads all of them again for each one in a listing
FOLDERS_IN_GROUP: Final = 12
ATTR_TIMEOUT_S: Final = 0.5  # what another client changed is seen after this
SEEN_WITHIN_S: Final = 20.0  # on a loaded machine


class Drive(KernelDriver):
    """A folder of the mount. `there` is its path on the server, for `rival`.

    Unlike its base it borrows the process that makes the calls: there are a thousand tests.
    """

    def __init__(self, mount: Mount, hands: Hands, rival: Rival, there: str) -> None:
        self.mount = mount
        self.root = mount.point / there if there else mount.point
        self.hands = hands
        self.rival = rival
        self.there = there
        self._further = []
        self._open: set[int] = set()

    def close_driver(self) -> None:
        for fd in self._open:
            self.hands.call("close", fd)
        for hands in self._further:
            hands.close()

    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
        fd = super().open(path, flags, mode)
        self._open.add(fd)
        return fd

    def close(self, fd: int) -> None:
        self._open.discard(fd)
        super().close(fd)

    def write_all(self, fd: int, data: bytes) -> None:
        while data:
            data = data[self.write(fd, data) :]

    def store(self, path: str, data: bytes) -> None:
        """Writes a file; when this returns, the server has it."""
        fd = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            self.write_all(fd, data)
            self.fsync(fd)
        finally:
            self.close(fd)

    def send(self, path: str) -> None:
        """When this returns, the server has what was written to the file."""
        fd = self.open(path, os.O_RDWR)
        try:
            self.fsync(fd)
        finally:
            self.close(fd)

    # What is not asked through the mount.

    def on_server(self, path: str) -> bytes | None:
        return self.rival.get(self.server_path(path))

    def put_there(self, path: str, data: bytes) -> None:
        """Another client stores a file; its mtime is not that of anything written here."""
        self.rival.put(self.server_path(path), data, int(time.time()) + 5)

    def find_there(self, path: str, data: bytes) -> None:
        """Another client stores a file, and it is seen: its folder may have been listed ahead, as empty."""
        self.put_there(path, data)
        self.eventually(lambda: self._size_of(path) == len(data), f"{path} is not seen")

    def _size_of(self, path: str) -> int | None:
        try:
            return self.stat(path).size
        except FileNotFoundError:
            return None

    def server_path(self, path: str) -> str:
        return "/".join(part for part in (self.there, path) if part)

    def eventually(self, holds: Callable[[], bool], what: str, *, within_s: float = 30.0) -> None:
        deadline_s = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < deadline_s, what
            time.sleep(0.05)


class Stage:
    """A server, one mount of it, and a second one with a cache of its own where a test asks for it."""

    def __init__(self, candidate: Candidate, place: Place, folder: Callable[[], Path]) -> None:
        self.candidate = candidate
        self.place = place
        self._folder = folder
        self._stack = ExitStack()
        self.rival = self._stack.enter_context(Rival(place.url, place.account))
        self._mounts: dict[str, tuple[Mount, Hands]] = {}
        self._folders: list[str] = []
        # Made before the mount looks: what another client makes later is not seen at once.
        for group in GROUPS:
            self.rival.mkcol(group)
            for number in range(FOLDERS_IN_GROUP):
                self._folders.append(f"{group}/{number:02d}")
                self.rival.mkcol(self._folders[-1])
        self._folders.reverse()

    def _mounted(self, which: str, cache: Path | None = None) -> tuple[Mount, Hands]:
        known = self._mounts.get(which)
        if known is not None and known[0].process.poll() is None:
            return known
        options: dict[str, Any] = {"attr_timeout": ATTR_TIMEOUT_S}
        for option in filter(None, os.environ.get("DAVFS_CONTRACT_OPTIONS", "").split(",")):
            name, _, value = option.partition("=")
            options[name] = value or True
        if cache is not None:
            options["cache_dir"] = cache
        mount = Mount(self.place.url, self._folder(), password=self.place.account, **options)
        self._mounts[which] = (mount, Hands(Path("/")))
        return self._mounts[which]

    def start(self) -> None:
        """Mounts, unless it is mounted: for a thread that does it ahead."""
        self._mounted("first")

    def drive(self) -> Drive:
        """An empty folder, which the mount has not looked into."""
        mount, hands = self._mounted("first")
        return Drive(mount, hands, self.rival, self._folders.pop())

    def elsewhere(self, drive: Drive) -> Drive:
        """The same folder in a second mount, which shares nothing with the first but the server."""
        mount, hands = self._mounted("second")
        return Drive(mount, hands, self.rival, drive.there)

    def again(self, drive: Drive) -> Drive:
        """The same folder after the mount ended and began again, with the same cache."""
        mount, hands = self._mounts.pop("first")
        hands.close()
        mount.close()
        assert mount.process.returncode == 0, mount.log_text()
        mount, hands = self._mounted("first", mount.cache)
        return Drive(mount, hands, self.rival, drive.there)

    def complaints(self) -> list[str]:
        return [line for mount, _ in self._mounts.values() for line in mount.complaints()]

    def close(self) -> None:
        with self._stack:
            for mount, hands in self._mounts.values():
                self._stack.callback(hands.close)
                self._stack.callback(mount.close)


__all__ = ["ATTR_TIMEOUT_S", "SEEN_WITHIN_S", "Drive", "Hung", "Stage"]
