"""Where the daemon is killed: named points, without a line of test code in the product.

- On the wire: the relay sees the n-th PUT, MOVE ... and kills before the bytes pass (or half of them, or
  all), or when the server has answered and the answer is not yet relayed.
- At a call: the workload kills right after the n-th `write` (fsync, rename ...) returned, or some
  microseconds after it began.
- In the index: a thread watches the write-ahead log of the database and kills when it changes.
- At any time, in the work and in the recovery after the kill before.
- In a conflict: another client edits the file that is being sent, right before the request that looks for
  that (`collides`), and the kill comes at one of the requests or commits that follow.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.servers.meter import Exchange, Moment
from tests.servers.relay import Verdict

_SHARED = re.compile(r"shared/s\d")

Place = Literal["wire", "call", "index", "time", "recovery"]


@dataclass(frozen=True, slots=True)
class Point:
    """One place; `most` bounds which of its occurrences it is."""

    name: str
    place: Place
    most: int = 4
    moment: Moment = "request"
    verdict: Verdict = "drop"
    matches: Callable[[Exchange, Exchange | None], bool] = lambda _one, _before: True
    call: str = ""
    when: str = "after"
    delay_s: float = 0.0
    collides: bool = False  # counts only what follows an edit of the other client under our upload


def _is(*methods: str) -> Callable[[Exchange, Exchange | None], bool]:
    return lambda one, _: one.method in methods


def _to_conflict_copy(one: Exchange, _: Exchange | None) -> bool:
    """On a server that cannot promise a free name it goes to a temporary one first, as any upload."""
    return one.method == "PUT" and ("conflict" in one.target or "/.davfs-" in one.target)


def _verifies(one: Exchange, before: Exchange | None) -> bool:
    return one.method == "PROPFIND" and before is not None and before.method in {"PUT", "MOVE", "UNLOCK"}


def _refused(one: Exchange, _: Exchange | None) -> bool:
    return one.method in {"PUT", "MOVE"} and one.status == 412


def _moves_beside(one: Exchange, _: Exchange | None) -> bool:
    return one.method == "MOVE" and "conflict" in (one.destination or "")


def _looks_for_free_name(one: Exchange, _: Exchange | None) -> bool:
    return one.method == "PROPFIND" and "conflict" in one.target


def _any(_one: Exchange, _before: Exchange | None) -> bool:
    return True


def _in_conflict(
    name: str, matches: Callable[[Exchange, Exchange | None], bool], most: int = 1, place: Place = "wire"
) -> tuple[Point, ...]:
    """The request does not arrive, and its answer is not heard."""
    return (
        Point(f"{name}, before", place, most, "request", "drop", matches, collides=True),
        Point(f"{name}, not heard", place, most, "answer", "drop", matches, collides=True),
    )


POINTS = (
    Point("PUT, before its head", "wire", 8, "request", "drop", _is("PUT")),
    Point("PUT, half of its body", "wire", 6, "half", "half", _is("PUT")),
    Point("PUT, all sent", "wire", 8, "sent", "pass", _is("PUT")),
    Point("PUT, answered, not heard", "wire", 8, "answer", "drop", _is("PUT")),
    Point("verify, before", "wire", 4, "request", "drop", _verifies),
    Point("verify, answered, not heard", "wire", 4, "answer", "drop", _verifies),
    Point("MOVE, before", "wire", 3, "request", "drop", _is("MOVE", "COPY")),
    Point("MOVE, all sent", "wire", 3, "sent", "pass", _is("MOVE", "COPY")),
    Point("MOVE, answered, not heard", "wire", 3, "answer", "drop", _is("MOVE", "COPY")),
    Point("DELETE, answered, not heard", "wire", 2, "answer", "drop", _is("DELETE")),
    Point("MKCOL, answered, not heard", "wire", 1, "answer", "drop", _is("MKCOL")),
    Point("LOCK, all sent", "wire", 3, "sent", "pass", _is("LOCK")),
    Point("LOCK, answered, not heard", "wire", 3, "answer", "drop", _is("LOCK")),
    Point("UNLOCK, before", "wire", 3, "request", "drop", _is("UNLOCK")),
    Point("UNLOCK, answered, not heard", "wire", 3, "answer", "drop", _is("UNLOCK")),
    Point("conflict, refusal not heard", "wire", 1, "answer", "drop", _refused, collides=True),
    *_in_conflict("conflict, any request", _any, 8),
    *_in_conflict("conflict, look-up", _is("PROPFIND"), 3),
    *_in_conflict("conflict, compare", _is("GET")),
    *_in_conflict("conflict, free name", _looks_for_free_name),
    *_in_conflict("conflict copy, PUT", _to_conflict_copy, 2),
    Point("conflict copy, half of its body", "wire", 2, "half", "half", _to_conflict_copy, collides=True),
    Point("conflict copy, all sent", "wire", 2, "sent", "pass", _to_conflict_copy, collides=True),
    *_in_conflict("conflict, MOVE beside", _moves_beside),
    Point("conflict, index commit", "index", 12, collides=True),
    Point("conflict, any time", "time", delay_s=0.15, collides=True),
    Point("write returned", "call", 30, call="write"),
    Point("create returned", "call", 10, call="create"),
    Point("truncate returned", "call", 3, call="truncate"),
    Point("fsync returned", "call", 6, call="fsync"),
    Point("rename returned", "call", 8, call="rename"),
    Point("unlink returned", "call", 4, call="unlink"),
    Point("close returned", "call", 20, call="close"),
    Point("edit returned", "call", 5, call="edit"),
    Point("in write", "call", 30, call="write", when="during", delay_s=0.0005),
    Point("in rename", "call", 8, call="rename", when="during", delay_s=0.004),
    Point("in fsync", "call", 6, call="fsync", when="during", delay_s=0.008),
    Point("in unlink", "call", 4, call="unlink", when="during", delay_s=0.004),
    Point("index commit", "index", 150),
    Point("any time", "time"),
    Point("in recovery", "recovery"),
)


@dataclass(slots=True)
class Shot:
    """One kill, armed: which occurrence of its point, and whether it came.

    `collide(path, size)` is the edit of the other client; `path_of` makes a path of a request's target.
    """

    point: Point
    pid: int
    rng: random.Random
    path_of: Callable[[str], str]
    collide: Callable[[str, int | None], None]
    cache: Path | None = None
    fired: threading.Event = field(default_factory=threading.Event)
    _left: int = 0
    _before: dict[int, Exchange] = field(default_factory=dict)  # the last request of each connection
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _collided: set[str] = field(default_factory=set)
    _staged_bytes: int | None = None  # of the last upload to a temporary name

    def __post_init__(self) -> None:
        self._left = self.rng.randint(1, self.point.most)

    def orders(self) -> dict[str, Any] | None:
        """For the workload, when it is the workload that kills."""
        if self.point.place != "call":
            return None
        return {
            "pid": self.pid,
            "call": self.point.call,
            "when": self.point.when,
            "count": self._left,
            "delay_s": self.rng.random() * self.point.delay_s,
        }

    def watch(self, moment: Moment, one: Exchange) -> Verdict:
        """For the relay."""
        before = self._before.get(one.connection)
        if moment == "answer":
            self._before[one.connection] = one
        if self.fired.is_set():
            return "pass"
        if self.point.collides and moment == "request":
            self._let_the_other_in(one)
        if self.point.place != "wire" or moment != self.point.moment:
            return "pass"
        if not self.point.matches(one, before) or (self.point.collides and not self._in_conflict(one)):
            return "pass"
        self._left -= 1
        if self._left:
            return "pass"
        self.fire()
        return self.point.verdict

    def _let_the_other_in(self, one: Exchange) -> None:
        """An edit under our upload, before the request that must notice it: half the time of equal size."""
        path = self.path_of(one.target)
        if one.method == "PUT" and path.startswith("shared/.davfs-"):
            self._staged_bytes = one.announced_bytes
        if one.method == "MOVE" and one.destination is not None and one.names_version:
            path = self.path_of(one.destination)
        elif one.method != "LOCK" and not (one.method == "PUT" and one.names_version):
            return
        if not _SHARED.fullmatch(path) or self.rng.random() < 0.3:
            return
        size = one.announced_bytes if one.method == "PUT" else self._staged_bytes
        with contextlib.suppress(OSError):
            self.collide(path, size if self.rng.random() < 0.5 else None)
        first, self._collided = not self._collided, {*self._collided, path}
        if first and self.point.place == "index" and self.cache is not None:
            self.watch_index(self.cache)
        elif first and self.point.place == "time":
            self._thread = threading.Thread(target=self._wait, args=(self.rng.random() * self.point.delay_s,))
            self._thread.start()

    def _in_conflict(self, one: Exchange) -> bool:
        """Whether this may be a step of the handling of a conflict that we caused."""
        path = self.path_of(one.target)
        about = path + (one.destination or "")
        staged = path.startswith("shared/.davfs-")
        return path in self._collided or bool(self._collided and (staged or "conflict" in about))

    def _wait(self, delay_s: float) -> None:
        if not self._over.wait(delay_s):
            self.fire()

    def watch_index(self, cache: Path) -> None:
        """Kills when the write-ahead log changes for the n-th time from now."""
        self._thread = threading.Thread(target=self._poll, args=(cache,), name="index watcher")
        self._thread.start()

    def _poll(self, cache: Path) -> None:
        while not (logs := list(cache.rglob("index.db-wal"))) and not self._over.is_set():
            time.sleep(0.001)
        seen = 0
        while self._left and not self._over.is_set():
            now = logs[0].stat().st_mtime_ns
            if now != seen:
                seen = now
                self._left -= 1
            time.sleep(0)
        if not self._over.is_set():
            self.fire()

    def fire(self) -> None:
        self.fired.set()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
