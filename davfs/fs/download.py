"""Making bytes present: one request for each missing extent, however many wait for it.

`ensure` returns when an extent is on disk. A small file comes whole in one GET; a larger one in windows
that start where the reader is, double while it reads on, and shrink back when it jumps. Windows
ahead of the reader run in parallel. Readers are served as the bytes arrive, not when a window ends. Every
GET says which version it wants; an answer of another one is StaleVersion before a byte is used (promise 4).

Only this module starts transfers from the server; the nursery is given by `Filesystem.run`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

import trio
from cachetools import LRUCache

from davfs.dav.client import LARGE_BYTES, Client
from davfs.dav.hrefs import shown
from davfs.dav.owncloud import best_checksum, new_sum
from davfs.dav.resource import DavPath, Validator
from davfs.errors import (
    Damaged,
    DavfsError,
    Disconnected,
    LinkDown,
    NotFound,
    PosixError,
    ProtocolError,
    ServerRefused,
    StaleVersion,
    as_davfs_error,
)
from davfs.fs.content import Content
from davfs.fs.store import ContentStore

WHOLE_MAX: Final = 512 * 1024  # up to here a file is fetched whole: one request, no ranges
WINDOW_MIN: Final = 256 * 1024
PIECE_MIN: Final = 64 * 1024  # for a read that goes on from nothing: at 200 Mbit/s it takes 3 ms on the line
WINDOW_MAX: Final = 16 << 20
WINDOWS_AHEAD: Final = 3
DOUBTED_MAX: Final = 1 << 20  # of what a server may have mixed: held back until it was looked at again
DOUBT_AFTER_S: Final = 5.0
SLOW_S: Final = 1.0  # a server that takes so long before the first byte is asked seldom, and for much:
SLOW_FACTOR: Final = 16
SLOW_AHEAD: Final = 2
HANG_UP_MIN: Final = 1 << 20  # what is less than that comes, and its connection is kept
ATTEMPTS_MAX: Final = 3
PAUSE_S: Final = 1.0  # between two windows of one reader: for the rate they are still one
COURSES_MAX: Final = 256
JOIN_MAX: Final = 2 << 20  # a running GET this far behind a reader is worth waiting for


@dataclass(slots=True)
class ReadAhead:
    """What one handle reads: where the next sequential read would start, and how far to look ahead."""

    next_offset: int = 0
    window: int = WINDOW_MIN

    def reads(self, start: int, end: int) -> bool:
        """Note a read; True when it goes on from the ones before.

        The kernel sends the pieces of its own read-ahead in any order, so near is as good as exact.
        """
        sequential = -JOIN_MAX <= start - self.next_offset <= WINDOW_MIN
        if sequential:
            if start + self.window // 2 >= self.next_offset:
                # How much the kernel asks for at once says how far it has come to believe in the reader.
                self.window = min(max(self.window * 2, 2 * (end - start)), WINDOW_MAX)
            self.next_offset = max(self.next_offset, end)
        else:
            self.window = WINDOW_MIN
            self.next_offset = end
        return sequential


@dataclass(slots=True, eq=False)
class Transfer:
    """One running GET: it delivers [at, end)."""

    content: Content
    at: int
    end: int
    error: DavfsError | None = None
    done: bool = False
    ahead: bool = False  # nobody has asked for it yet: its failure is nobody's
    is_all: bool = False  # the server knows no ranges: what is far off comes no sooner by another
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    waiting: dict[trio.Event, int] = field(default_factory=dict)  # who waits, and until which byte has come

    def wake(self) -> None:
        """Those who have what they wait for. Each piece comes to 100 us for a reader that is woken for it."""
        for event, end in self.waiting.items():
            if self.at >= end or self.done:
                event.set()


@dataclass(slots=True)
class _Course:
    """Transfers of one file that follow each other, however many windows they are: for the rate."""

    begun_s: float
    before_bytes: int  # what was here when it began
    ended_s: float  # of the last one that ended while no other ran
    opening_s: float = 0.0  # how long the server took before the first byte, the last time


class Downloads:
    def __init__(
        self,
        client: Client,
        store: ContentStore,
        *,
        connections: int,
        timeout_s: float = 30.0,
        cache_bytes: int = WINDOW_MAX * 8,
    ) -> None:
        self._client = client
        self._store = store
        self._timeout_s = timeout_s
        # What is fetched ahead must stay well below what the cache may hold: see Content.drop_lower_half.
        self._most_ahead = max(WINDOW_MIN, cache_bytes // 8)
        self._window_max = min(WINDOW_MAX, self._most_ahead)
        self._ahead = trio.CapacityLimiter(max(1, connections // 2))
        self._demand = trio.CapacityLimiter(connections)
        self._running: dict[int, list[Transfer]] = {}
        self._courses: LRUCache[int, _Course] = LRUCache(COURSES_MAX)  # by content id
        self._sizing: dict[int, trio.Event] = {}
        self._nursery: trio.Nursery | None = None

    def start(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    async def ensure(
        self,
        content: Content,
        path: Callable[[], DavPath],
        start: int,
        end: int,
        *,
        least: int = WINDOW_MIN,
        for_upload: bool = False,
    ) -> None:
        """Until [start, end) is present. Raises what the transfer met; StaleVersion when the file changed.

        `least`: so many bytes are asked for at once, if they are missing. `for_upload`: nobody else will find
        out what became of an upload without an answer.

        A transfer that broke midway goes on where it broke, as long as each attempt brings something;
        without progress for `timeout_s` it is over.
        """
        failures, progressed_s = 0, trio.current_time()
        while gaps := content.missing(start, end):
            if content.turning:
                await content.progress.park()
                continue
            gap_start, gap_end = gaps[0]
            before, source, acked = content.present.total_bytes, content.source, content.life.acked
            asked = _now(path)
            try:
                transfer = self._covering(content, gap_start)
                if transfer is None:
                    widened = self._widened(content, gap_start, gap_end, least)
                    transfer = self._begin(content, path, gap_start, widened, self._demand)
                await self._progress(content, transfer, gap_start, gap_end)
            except DavfsError as error:
                is_ours = _is_turning(content) or content.source != source or content.life.acked > acked
                if isinstance(error, StaleVersion) and not (is_ours or for_upload):
                    is_ours = await self._turns_out_ours(content, acked)
                if isinstance(error, StaleVersion) and is_ours:
                    continue  # ours is there by now
                if isinstance(error, NotFound) and _now(path) != asked:
                    continue  # a rename was faster
                failures += 1
                if content.present.total_bytes > before:
                    failures, progressed_s = 0, trio.current_time()
                waited_s = trio.current_time() - progressed_s
                # A refusal was repeated by the client already, as often as it helps and Retry-After allows.
                final = isinstance(error, ServerRefused | LinkDown) or not error.retry_helps
                if final or failures >= ATTEMPTS_MAX or waited_s >= self._timeout_s:
                    raise
                await trio.sleep(0.1 * 2**failures)

    async def _turns_out_ours(self, content: Content, acked: int) -> bool:
        """Whether the other version is what an upload without an answer has stored: see `partial`."""
        with trio.move_on_after(self._timeout_s):
            while content.life.unknown and content.life.acked == acked:
                await content.progress.park()
        return content.life.acked > acked  # a conflict copy begins at 0

    async def fetch_ahead(self, content: Content, path: Callable[[], DavPath]) -> None:
        """All of a small file, for a program that is expected, if there is a lane to spare.

        Raises what the transfer met: NoLane, StaleVersion and the rest. Whoever opens the file meanwhile
        waits for this transfer.
        """
        if content.complete or content.id in self._running:
            return
        transfer = self._noted(content, 0, content.size_bytes, ahead=True)
        await self._run(content, path, transfer, self._demand)
        if transfer.error is not None:
            raise transfer.error

    async def ensure_whole(self, content: Content, path: Callable[[], DavPath]) -> None:
        """All of it, several windows at a time. Until then the cache limit does not take any of it away."""
        content.held += 1
        try:
            await self._ensure_whole(content, path)
        finally:
            content.held -= 1

    async def _ensure_whole(self, content: Content, path: Callable[[], DavPath]) -> None:
        at = 0
        while not content.complete:
            gaps = content.missing(at, content.size_bytes)
            if not gaps:
                at = 0
                continue
            start, window = gaps[0][0], self._window(content, self._window_max)
            self._look_ahead(content, path, start, window)
            at = min(start + window, gaps[0][1])
            await self.ensure(content, path, start, at, for_upload=True)

    async def fetch_of_unknown_size(self, content: Content, path: Callable[[], DavPath]) -> None:
        """The whole file, for servers that do not say its size: the size is what came."""
        while content.base is not None and content.base.size_bytes is None:
            running = self._sizing.get(content.id)
            if running is not None:
                await running.wait()
                continue
            self._sizing[content.id] = done = trio.Event()
            try:
                await self._fetch_to_the_end(content, path, content.base)
            finally:
                del self._sizing[content.id]
                done.set()

    async def _fetch_to_the_end(self, content: Content, path: Callable[[], DavPath], base: Validator) -> None:
        content.forget_bytes()
        try:
            async with self._demand, self._client.get(path(), expected=base) as download:
                async for chunk in download:
                    content.append_downloaded(chunk)
        except BaseException:
            content.forget_bytes()
            raise
        content.rebase(replace(base, size_bytes=content.size_bytes))

    def read_ahead(self, content: Content, path: Callable[[], DavPath], ahead: ReadAhead, start: int) -> None:
        """Start what a sequential reader at `start` wants now and next, the first as one. Never waits."""
        if content.complete or content.size_bytes <= WHOLE_MAX:
            return
        window = self._window(content, ahead.window)
        at = self._next_uncovered(content, start)
        if at < min(ahead.next_offset, content.base_size):
            end = min(at + window, content.missing(at, content.size_bytes)[0][1])
            self._begin(content, path, at, self._until_running(content, at, end), self._demand)
        self._look_ahead(content, path, ahead.next_offset, window)

    def _window(self, content: Content, wanted: int) -> int:
        """How much is asked for at once: a server that is slow to begin does the same work for each request.

        sabre/dav 1.8 makes two MD5s of the whole file for each part of it: 128 parts of 2 GiB took
        longer than a quarter of an hour, and many of them at once longer than any patience.
        """
        slow = min(wanted * SLOW_FACTOR, self._most_ahead)
        return slow if self._is_slow(content) else min(wanted, self._window_max)

    def _is_slow(self, content: Content) -> bool:
        course = self._courses.get(content.id)
        return course is not None and course.opening_s > SLOW_S

    def _look_ahead(self, content: Content, path: Callable[[], DavPath], at: int, window: int) -> None:
        size = min(content.size_bytes, content.base_size)
        limit, count = min(size, at + window * 2), SLOW_AHEAD if self._is_slow(content) else WINDOWS_AHEAD
        while at < limit and len(self._running_of(content)) < count:
            at = self._next_uncovered(content, at)
            if at >= limit or at + window // 2 > limit < size:  # many short requests cost more than few
                return
            end = min(at + window, content.missing(at, content.size_bytes)[0][1])
            end = self._until_running(content, at, end)
            at = self._begin(content, path, at, end, self._ahead).end

    def _next_uncovered(self, content: Content, at: int) -> int:
        """The first byte from `at` that is neither present nor on its way."""
        moved = True
        while moved:
            moved = False
            run = content.present.run_from(at)
            if run > at:
                at, moved = run, True
            for transfer in self._running_of(content):
                if transfer.at <= at < transfer.end:
                    at, moved = transfer.end, True
        return at

    def _widened(self, content: Content, start: int, end: int, least: int) -> int:
        """Where a transfer that begins at the gap [start, end) ends, so that it brings `least`."""
        if end - start < least:
            end = max(end, content.missing(start, start + least)[0][1])
        return self._until_running(content, start, end)

    def _until_running(self, content: Content, start: int, end: int) -> int:
        """The end, or where another transfer has begun: nothing is fetched twice."""
        running = self._running_of(content)
        return min([one.at for one in running if start < one.at < one.end] + [end])

    def _covering(self, content: Content, at: int) -> Transfer | None:
        for transfer in self._running_of(content):
            is_near = transfer.is_all or at - transfer.at <= max(JOIN_MAX, WINDOW_MAX)
            if transfer.at <= at < transfer.end and is_near:
                return transfer
        return None

    def _running_of(self, content: Content) -> list[Transfer]:
        """Those that will bring something: not those that are being hung up."""
        return [one for one in self._running.get(content.id, ()) if not one.scope.cancel_called]

    def _begin(
        self,
        content: Content,
        path: Callable[[], DavPath],
        start: int,
        end: int,
        limiter: trio.CapacityLimiter,
    ) -> Transfer:
        assert self._nursery is not None
        transfer = self._noted(content, start, end)
        self._nursery.start_soon(self._run, content, path, transfer, limiter)
        return transfer

    def _noted(self, content: Content, start: int, end: int, *, ahead: bool = False) -> Transfer:
        if content.base_size <= WHOLE_MAX and len(content.present) == 0:
            start, end = 0, content.base_size
        elif self._client.may_be_mixed(content.source or Validator()):
            end = min(end, start + DOUBTED_MAX)
        transfer = Transfer(content, start, end, ahead=ahead)
        self._course_of(content)
        self._running.setdefault(content.id, []).append(transfer)
        self._store.acquire(content)
        return transfer

    async def _run(
        self, content: Content, path: Callable[[], DavPath], transfer: Transfer, limiter: trio.CapacityLimiter
    ) -> None:
        """The task of one transfer. Its failure belongs to those who wait for it."""
        try:
            with transfer.scope:
                async with limiter:
                    await self._fetch(content, path, transfer)
            if transfer.scope.cancelled_caught:
                transfer.error = Disconnected("nobody wanted it any more")
        except Exception as error:  # noqa: BLE001 - one file's trouble must not take the mount down
            transfer.error = as_davfs_error(error)
        finally:
            transfer.done = True
            running = self._running[content.id]
            running.remove(transfer)
            if not running:
                del self._running[content.id]
                if (course := self._courses.get(content.id)) is not None:
                    course.ended_s = trio.current_time()
            transfer.wake()
            self._store.release(content)

    async def _fetch(self, content: Content, path: Callable[[], DavPath], transfer: Transfer) -> None:
        whole = transfer.at == 0 and transfer.end >= content.base_size
        source, acked = content.source or Validator(), content.life.acked
        doubted = transfer.end - transfer.at <= DOUBTED_MAX and self._client.may_be_mixed(source)
        mixes = self._client.capabilities.mixes_versions and content.base_size > WHOLE_MAX
        held: list[bytes] = []
        begun_s = trio.current_time()
        async with self._client.get(
            path(),
            start=transfer.at,
            end=None if whole else transfer.end,
            expected=content.source,
            ahead=transfer.ahead,
        ) as download:
            self._course_of(content).opening_s = trio.current_time() - begun_s
            if not download.proved:  # the server has opened the file, nothing of it was used yet
                await self._look_again(path(), source)
            transfer.at = download.start
            if not download.ranged:
                transfer.end, transfer.is_all = content.base_size, True
                doubted = doubted and content.base_size <= DOUBTED_MAX
            is_same = content.life.acked == acked
            if is_same and content.base is not None and content.base.etag is None and not content.life.dirty:
                content.base = replace(content.base, etag=download.validator.etag)  # nginx: ETag in GET only
            told = best_checksum(download.checksum) if content.base_size <= WINDOW_MAX else None
            holds_all = doubted or told is not None
            async for chunk in download:
                if not holds_all:
                    _take(content, transfer, held, acked)
                held.append(chunk)
                if not (holds_all or mixes):
                    _take(content, transfer, held, acked)
        if told is not None:
            _check_sum(held, *told, where=shown(path()))
        if doubted or (mixes and _completes(content, transfer, held)):
            await self._look_again(path(), download.validator)
        _take(content, transfer, held, acked)
        if transfer.at < min(transfer.end, content.base_size):
            raise Disconnected(f"the answer ended at byte {transfer.at} of {transfer.end}")

    async def _look_again(self, path: DavPath, version: Validator) -> None:
        """Raises StaleVersion unless the file is still the version that a GET said it brought."""
        try:
            now = await self._client.stat(path)
        except NotFound as error:
            raise StaleVersion("the file went away while it was read") from error
        if not now.validator.same_version(version):
            raise StaleVersion("the file changed on the server while it was read")

    async def _progress(self, content: Content, transfer: Transfer, start: int, end: int) -> None:
        """Wait until this transfer has brought what it brings of [start, end), or ended."""
        end = min(end, transfer.end)
        if not transfer.done:
            await self._arrival(content, transfer, end)
        if transfer.ahead and transfer.error is not None:
            return  # who waits asks for himself
        if transfer.error is not None and content.missing(start, end):
            raise transfer.error
        if transfer.done and content.missing(start, start + 1):
            if transfer.at > start:  # a cache of a few MiB, and many who read ahead in it: asked for again
                raise Disconnected("the cache had no room to keep what came until it was read")
            raise ProtocolError("the server did not deliver what was asked for")

    async def _arrival(self, content: Content, transfer: Transfer, end: int) -> None:
        transfer.waiting[event := trio.Event()] = end
        try:
            while not event.is_set():
                # A large file is given more time than a server that is away deserves.
                with trio.move_on_after(DOUBT_AFTER_S if content.base_size >= LARGE_BYTES else inf) as wait:
                    await event.wait()
                if wait.cancelled_caught:
                    self._client.reach.doubt()
        finally:
            del transfer.waiting[event]

    def running(self) -> Iterator[tuple[list[Transfer], float, int]]:
        """The transfers of each file of which any runs; since when one follows the other; what came since."""
        for transfers in self._running.values():
            course, present = self._course_of(transfers[0].content), transfers[0].content.present
            yield transfers, course.begun_s, max(0, present.total_bytes - course.before_bytes)

    def _course_of(self, content: Content) -> _Course:
        now_s, course = trio.current_time(), self._courses.get(content.id)
        is_over = content.id not in self._running and course is not None and now_s > course.ended_s + PAUSE_S
        if course is None or is_over:
            course = self._courses[content.id] = _Course(now_s, content.present.total_bytes, now_s)
        return course

    def nobody_reads(self, content: Content) -> None:
        """The last handle is closed: what is far from done is hung up on. Never waits."""
        if not content.held:
            for transfer in self._running.get(content.id, ()):
                if transfer.end - transfer.at > HANG_UP_MIN:
                    transfer.scope.cancel()


def _now(path: Callable[[], DavPath]) -> DavPath | None:
    """None: it has no name any more."""
    with suppress(PosixError):
        return path()
    return None


def _take(content: Content, transfer: Transfer, held: list[bytes], acked: int) -> None:
    """These bytes are the version's, unless an upload has made another one of it since they were asked for.

    What programs wrote then is in no gap, but may be dropped from a cache that is full, and become one.
    """
    if content.life.acked != acked:
        raise StaleVersion("ours is there by now")
    for chunk in held:
        content.fill(transfer.at, chunk)
        transfer.at += len(chunk)
    held.clear()
    transfer.wake()


def _completes(content: Content, transfer: Transfer, held: list[bytes]) -> bool:
    """Whether these are the last bytes that were missing."""
    end = transfer.at + sum(map(len, held))
    gaps = content.missing(0, content.size_bytes)
    return bool(gaps) and all(transfer.at <= gap[0] and gap[1] <= end for gap in gaps)


def _is_turning(content: Content) -> bool:
    """By its own upload; read again after every await."""
    return content.turning


def _check_sum(chunks: list[bytes], kind: str, digest: str, *, where: str) -> None:
    """A file that came whole, with its checksum: nobody sees a byte of it that does not fit."""
    summed = new_sum(kind)
    for chunk in chunks:
        summed.update(chunk)
    if summed.hexdigest() != digest:
        raise Damaged(f"{where}: its bytes do not have the checksum that came with them: damaged")
