"""The other client: edits files of the share on the server's own disk.

It puts each version in place with renameat2(RENAME_EXCHANGE), so it knows exactly which version it replaced:
that one it has seen, and every other one must survive. Where the name is free it creates, with
RENAME_NOREPLACE. Now and then it takes a file away.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
import time
from pathlib import Path
from typing import NamedTuple

from tests.faults.workload import size_now, version_of
from tests.mount.hands import rename_exchange, rename_noreplace
from tests.servers import Share


class Put(NamedTuple):
    path: str
    tag: int
    begun_s: float
    done_s: float
    must_be_seen: bool = False  # it came before the request that looks, or that names a version


class Rival:
    """Runs in a thread between `start` and `stop`; then says what it did."""

    def __init__(self, share: Share, names: list[str], origin_s: float, seed: str) -> None:
        self._share = share
        self._names = names
        self._origin_s = origin_s
        self._rng = random.Random(seed)
        self._stop = threading.Event()
        self._turn = threading.Lock()  # `collide` comes from the relay's thread
        self._bench = (
            share.root.parent / f"rival-{share.root.name}"
        )  # the same file system, not served as share
        self._bench.mkdir(exist_ok=True)
        self._serial = itertools.count()
        self._taken: list[Path] = []
        self._put: list[Put] = []
        self._thread = threading.Thread(target=self._run, name="rival")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> tuple[list[Put], list[bytes]]:
        """What it put, and the contents that it replaced or took away."""
        with self._turn:
            self._stop.set()
        self._thread.join()
        contents = [place.read_bytes() for place in self._taken]
        for place in self._taken:
            place.unlink()
        return self._put, contents

    def _run(self) -> None:
        while not self._stop.wait(0.02 + self._rng.random() * 0.4):
            path = f"shared/{self._rng.choice(self._names)}"
            place = self._share.root / path
            with contextlib.suppress(FileNotFoundError, FileExistsError), self._turn:
                if self._rng.random() < 0.15:
                    aside = self._bench / f"taken{next(self._serial)}"
                    place.rename(aside)
                    self._taken.append(aside)
                else:
                    self._edit(path, place, size_now(self._origin_s, ours=False))

    def collide(self, path: str, size: int | None) -> None:
        """An edit right now, of this size if given: a request that is held back meanwhile must see it."""
        with self._turn:
            if self._stop.is_set():
                return  # what it replaces has been counted
            size = size or size_now(self._origin_s, ours=False)
            self._edit(path, self._share.root / path, size, must_be_seen=True)

    def _edit(self, path: str, place: Path, size: int, *, must_be_seen: bool = False) -> None:
        tag = self._rng.getrandbits(48)
        mine = self._bench / f"mine{next(self._serial)}"
        mine.write_bytes(version_of(tag, size))
        mine.chmod(0o666)
        owner = self._share.root.stat()
        os.chown(mine, owner.st_uid, owner.st_gid)
        begun_s = time.monotonic()
        if place.exists():
            rename_exchange(str(mine), str(place))
            self._taken.append(mine)
        else:
            rename_noreplace(str(mine), str(place))
        self._put.append(Put(path, tag, begun_s, time.monotonic(), must_be_seen))
