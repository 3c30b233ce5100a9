"""The cache disk: what a write survives, what is evicted, what is copied before it changes."""

from __future__ import annotations

import ctypes
import errno
import os
import resource as limits
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from davfs.dav.resource import DavPath
from davfs.errors import DavfsError, PosixError
from davfs.fs.content import FILE_SIZE_MAX, Content, path_bytes, path_from_bytes
from davfs.fs.index import CacheUnusable
from davfs.fs.lifecycle import Step, next_step
from davfs.fs.store import USED_S, ContentStore
from tests.unit.fs.rig import at, close_store, crashed, drop, open_store, opened, version

KIB = 1024


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(folder: Path) -> Iterator[ContentStore]:
    with opened(folder) as store:
        yield store


def new_file(store: ContentStore, data: bytes = b"", *, ino: int = 5, name: str = "a") -> Content:
    content = store.create_unsent(ino, at(name), base=None, mode=None)
    store.acquire(content)
    if data:
        content.write(0, data)
    return content


def cached_file(store: ContentStore, size: int, *, ino: int = 5, name: str = "a") -> Content:
    content = store.create(ino, at(name), size=size, base=version(size))
    store.acquire(content)
    return content


def on_disk(content: Content) -> bytes:
    return os.pread(content.fd, content.size_bytes + 1, 0)


def acknowledge(content: Content) -> None:
    content.life = content.life.put_begins().put_succeeded()
    content.base, content.base_size = version(content.size_bytes), content.size_bytes
    content.save()


def only_unfinished(store: ContentStore) -> Content:
    (content,) = store.unfinished()
    return content


# --- what survives kill -9 ------------------------------------------------------------------------


def test_written_bytes_size_and_mtime_survive_a_kill(store: ContentStore, folder: Path) -> None:
    """What write acknowledged is there after kill -9, with its size and its mtime, and is still unsent."""
    content = new_file(store, b"hello")
    content.write(5, b" world")
    content.set_mtime(1_234_567_890_123_456_789)
    with crashed(folder) as after:
        found = only_unfinished(after)
        assert (on_disk(found), found.size_bytes) == (b"hello world", 11)
        assert found.mtime_ns == 1_234_567_890_123_456_789
        assert found.complete
        assert found.dirty


def test_cutting_and_growing_survive_a_kill(store: ContentStore, folder: Path) -> None:
    """A file that was cut and grown again has zeros there after kill -9 too."""
    content = new_file(store, b"0123456789")
    content.truncate(4)
    content.truncate(8)
    with crashed(folder) as after:
        assert on_disk(only_unfinished(after)) == b"0123\0\0\0\0"


def test_closing_what_is_noted_already_commits_nothing(store: ContentStore, folder: Path) -> None:
    """A file that was just sent is closed without another commit."""
    content = new_file(store, b"hello")
    acknowledge(content)
    log = folder / "index.db-wal"
    before = log.stat().st_size
    drop(store, content)
    assert content.closed
    assert log.stat().st_size == before


def test_an_empty_new_file_survives_a_kill(store: ContentStore, folder: Path) -> None:
    """A file that was only created is still to be sent after kill -9."""
    new_file(store)
    with crashed(folder) as after:
        assert only_unfinished(after).size_bytes == 0


def test_the_base_version_of_an_unsent_change_survives_a_kill(store: ContentStore, folder: Path) -> None:
    """After kill -9 an unsent change still knows which version of the server's copy it was made on."""
    content = cached_file(store, 10)
    content.write(3, b"xy")
    with crashed(folder) as after:
        found = only_unfinished(after)
        assert found.base == version(10)
        assert found.missing(0, 10) == [(0, 3), (5, 10)]


def test_a_running_upload_is_remembered_as_unknown(store: ContentStore, folder: Path) -> None:
    """A PUT that was running at kill -9 has an unknown outcome afterwards."""
    content = new_file(store, b"hello")
    content.life = content.life.put_begins()
    content.save()
    with crashed(folder) as after:
        assert only_unfinished(after).life.unknown


def test_an_acknowledged_file_is_clean_after_a_kill(store: ContentStore, folder: Path) -> None:
    """What the server acknowledged is not sent again after kill -9, and is read from the cache."""
    acknowledge(new_file(store, b"hello"))
    with crashed(folder) as after:
        assert after.unfinished() == []
        kept = after.cached(5)
        assert kept is not None
        assert on_disk(kept) == b"hello"


def test_a_change_during_an_upload_stays_unsent_after_a_kill(store: ContentStore, folder: Path) -> None:
    """Bytes written while a PUT ran are unsent after its acknowledgement, and after kill -9."""
    content = new_file(store, b"hello")
    content.life = content.life.put_begins()
    content.write(0, b"J")
    content.life = content.life.put_succeeded()
    content.save()
    with crashed(folder) as after:
        found = only_unfinished(after)
        assert on_disk(found) == b"Jello"
        assert not found.life.unknown


def test_a_write_during_an_upload_still_counts_after_a_kill(store: ContentStore, folder: Path) -> None:
    """Bytes newer than a PUT of unknown outcome stay unsent even if that PUT turns out to have arrived."""
    content = new_file(store, b"hello")
    content.life = content.life.put_begins()
    content.save()
    content.write(0, b"J")
    with crashed(folder) as after:
        assert only_unfinished(after).life.found_unapplied().dirty


def test_what_was_downloaded_is_never_more_after_a_kill_than_before(
    store: ContentStore, folder: Path
) -> None:
    """A file that was partly fetched at kill -9 is not taken for complete: its gaps would read as zeros."""
    content = cached_file(store, 10)
    content.fill(0, b"abcd")
    with crashed(folder) as after:
        kept = after.cached(5)
        assert kept is None or kept.missing(4, 10) == [(4, 10)]


def test_a_write_after_the_last_download_survives_a_kill(store: ContentStore, folder: Path) -> None:
    """A write into a file that downloads had completed is not overwritten by one after kill -9."""
    content = cached_file(store, 10)
    content.write(0, b"XX")
    content.fill(0, b"a" * 10)
    content.write(5, b"YY")
    with crashed(folder) as after:
        found = only_unfinished(after)
        found.fill(0, b"a" * 10)
        assert on_disk(found) == b"XXaaaYYaaa"


def free_descriptors() -> list[int]:
    taken = {int(fd) for fd in os.listdir("/proc/self/fd")}
    return [number for number in range(max(taken) + 20) if number not in taken]


def test_too_few_descriptors_lose_no_unsent_file(store: ContentStore, folder: Path) -> None:
    """More unsent files than the process may open are all still in the journal after a start."""
    for number in range(30):
        new_file(store, b"x", ino=100 + number, name=f"f{number}")
    soft, hard = limits.getrlimit(limits.RLIMIT_NOFILE)
    with crashed(folder) as after:
        limits.setrlimit(limits.RLIMIT_NOFILE, (free_descriptors()[10], hard))
        try:
            after.unfinished()
        except DavfsError:
            pass
        finally:
            limits.setrlimit(limits.RLIMIT_NOFILE, (soft, hard))
        assert len(after.index.unfinished()) == 30


# --- bytes from two sides -------------------------------------------------------------------------


def test_downloads_never_overwrite_what_a_program_wrote(store: ContentStore) -> None:
    """Downloaded bytes go into the gaps around a program's bytes."""
    content = cached_file(store, 10)
    content.write(4, b"XY")
    content.fill(0, b"0123456789")
    assert on_disk(content) == b"0123XY6789"


def test_downloads_do_not_go_past_the_base(store: ContentStore) -> None:
    """A server that sends more than the version has does not lengthen the file."""
    content = cached_file(store, 4)
    content.fill(0, b"0123456789")
    assert on_disk(content) == b"0123"


def test_cut_and_grown_again_reads_zeros_and_fetches_nothing(store: ContentStore) -> None:
    """truncate to 3 and then to 10 leaves zeros from 3 on, none of which is asked of the server."""
    content = cached_file(store, 10)
    content.truncate(3)
    content.truncate(10)
    assert content.missing(0, 10) == [(0, 3)]
    content.fill(0, b"0123456789")
    assert on_disk(content) == b"012" + b"\0" * 7


def test_a_write_past_the_end_leaves_zeros_and_fetches_nothing(store: ContentStore) -> None:
    """The hole before a write past the end reads as zeros."""
    content = cached_file(store, 2)
    content.write(6, b"x")
    assert content.missing(0, 7) == [(0, 2)]
    content.fill(0, b"ab")
    assert on_disk(content) == b"ab\0\0\0\0x"


def test_a_cut_to_nothing_needs_no_download(store: ContentStore) -> None:
    """Opening with O_TRUNC makes a file complete."""
    content = cached_file(store, 10)
    content.truncate(0)
    assert content.complete


def test_a_download_leaves_the_mtime_of_a_changed_file(store: ContentStore) -> None:
    """The rest of a partly written file may be fetched without moving the mtime that a program set."""
    content = cached_file(store, 10)
    content.write(0, b"X")
    content.set_mtime(1_234_567_890_000_000_000)
    content.fill(0, b"0123456789")
    assert content.mtime_ns == 1_234_567_890_000_000_000


async def test_reads_end_where_the_file_ends(store: ContentStore) -> None:
    """A read past the end is short, and one beyond it is empty, as read(2) is."""
    content = new_file(store, b"hello")
    assert await content.read(3, 100) == b"lo"
    assert await content.read(5, 1) == b""
    assert await content.read(50, 1) == b""


async def test_large_reads_are_exact(store: ContentStore) -> None:
    """A read too large to be done inline returns the same bytes."""
    data = os.urandom(600 * KIB)
    content = new_file(store, data)
    assert await content.read(1, 500 * KIB) == data[1 : 1 + 500 * KIB]


@pytest.mark.parametrize("size", [FILE_SIZE_MAX + 1, 1 << 62])
def test_a_file_larger_than_any_disk_is_efbig(store: ContentStore, size: int) -> None:
    """Writing or growing beyond 8 TiB fails at once, and changes nothing."""
    content = new_file(store, b"hello")
    with pytest.raises(PosixError) as growing:
        content.truncate(size)
    with pytest.raises(PosixError) as writing:
        content.write(size, b"x")
    assert (growing.value.errno, writing.value.errno) == (errno.EFBIG, errno.EFBIG)
    assert on_disk(content) == b"hello"


@pytest.mark.parametrize("size", [1 << 62, 1 << 63, 10**18])
def test_an_absurd_size_from_the_server_is_an_error(store: ContentStore, size: int) -> None:
    """A server that announces an exabyte causes a DavfsError, not an exception of another kind."""
    with pytest.raises(DavfsError):
        store.create(5, at("a"), size=size, base=version(size))


# --- while an upload reads ------------------------------------------------------------------------


async def test_an_upload_keeps_the_bytes_it_began_with(store: ContentStore, folder: Path) -> None:
    """A write during an upload goes to a copy: the upload goes on reading the old bytes."""
    content = new_file(store, b"old bytes")
    content.set_mtime(1_234_567_890_000_000_001)
    content.readers += 1
    reader = os.dup(content.fd)
    await content.prepare_write()
    assert content.mtime_ns == 1_234_567_890_000_000_001
    content.write(0, b"NEW")
    assert os.pread(reader, 100, 0) == b"old bytes"
    assert on_disk(content) == b"NEW bytes"
    os.close(reader)
    with crashed(folder) as after:
        assert on_disk(only_unfinished(after)) == b"NEW bytes"


async def test_a_copy_of_a_partial_file_has_the_same_gaps(store: ContentStore) -> None:
    """Copying a partly fetched file keeps what is present, and what is still to be fetched."""
    content = cached_file(store, 10)
    content.write(4, b"XY")
    content.readers += 1
    await content.prepare_write()
    content.fill(0, b"0123456789")
    assert on_disk(content) == b"0123XY6789"


async def test_only_one_file_is_left_after_a_copy(store: ContentStore, folder: Path) -> None:
    """The old file goes when its copy is in the index."""
    content = new_file(store, b"hello")
    for _ in range(3):
        content.readers += 1
        await content.prepare_write()
    assert len(data_files(folder)) == 1


async def test_a_large_file_is_not_copied_but_its_upload_stopped(
    store: ContentStore, autojump_clock: trio.testing.MockClock
) -> None:
    """A write into a large file that is being sent waits until the upload was told to stop."""
    content = new_file(store)
    content.truncate((32 << 20) + 1)
    content.readers += 1
    asked: list[Content] = []

    def stop(one: Content) -> None:
        asked.append(one)

    store.stop_upload = stop
    async with trio.open_nursery() as nursery:
        nursery.start_soon(content.prepare_write)
        await trio.testing.wait_all_tasks_blocked()
        assert asked == [content]
        content.readers -= 1
        content.progress.unpark_all()
    assert content.generation == 0


# --- eviction -------------------------------------------------------------------------------------


def data_files(folder: Path) -> list[str]:
    return [name for _, _, names in os.walk(folder / "data") for name in names]


def blocks(folder: Path) -> int:
    """What `du` says."""
    return sum(path.stat().st_blocks * 512 for path in (folder / "data").glob("*/*"))


class Ticks:
    """A clock that goes on each time it is asked, by as much as use is noted to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        self.now_s += USED_S
        return self.now_s


def fetched(store: ContentStore, ino: int, size: int = 64 * KIB) -> Content:
    content = cached_file(store, size, ino=ino, name=str(ino))
    content.fill(0, b"x" * size)
    return content


def test_the_least_recently_used_goes_first(folder: Path) -> None:
    """Above the size limit the clean files go that were used longest ago."""
    with opened(folder, limit_bytes=300 * KIB, now_s=Ticks()) as store:
        for ino in (11, 12, 13, 14):
            drop(store, fetched(store, ino))
        again = store.cached(11)
        assert again is not None
        store.acquire(again)
        drop(store, again)
        drop(store, fetched(store, 15))
        left = [ino for ino in (11, 12, 13, 14, 15) if store.index.content_of(ino) is not None]
        assert 12 not in left
        assert {11, 15} <= set(left)
        assert store.bytes_on_disk == blocks(folder) <= 300 * KIB


def test_unsent_and_open_files_are_never_evicted(folder: Path) -> None:
    """A limit of nothing removes clean, closed files only."""
    with opened(folder, limit_bytes=0) as store:
        unsent = new_file(store, b"precious" * KIB, ino=11, name="unsent")
        drop(store, unsent)
        is_open = fetched(store, 12)
        drop(store, fetched(store, 13))
        assert store.index.content_of(13) is None
        assert store.evict(force=True) is False
        assert on_disk(unsent) == b"precious" * KIB
        assert on_disk(is_open) == b"x" * 64 * KIB


def test_an_evicted_file_leaves_nothing(folder: Path) -> None:
    """Eviction removes the row and the file, and the count of bytes follows."""
    with opened(folder, limit_bytes=0) as store:
        drop(store, fetched(store, 11))
        assert store.bytes_on_disk == 0
        assert data_files(folder) == []


def test_many_open_files_do_not_stop_eviction(folder: Path) -> None:
    """Clean closed files are found for eviction behind any number of older open ones."""
    with opened(folder, limit_bytes=0, now_s=Ticks()) as store:
        for ino in range(100, 360):
            cached_file(store, 0, ino=ino, name=str(ino)).save()
        drop(store, fetched(store, 11))
        assert store.index.content_of(11) is None


def test_the_count_of_bytes_is_right_after_a_kill(store: ContentStore, folder: Path) -> None:
    """What was on disk at kill -9 counts against the limit afterwards."""
    fetched(store, 11, KIB * KIB)
    with crashed(folder) as after:
        kept = after.cached(11)
        if kept is not None:
            after.acquire(kept)
            drop(after, kept)
        assert after.bytes_on_disk == blocks(Path(after.index.folder))


def test_discarded_while_open_is_read_until_closed(store: ContentStore, folder: Path) -> None:
    """An unlinked file keeps its bytes for its handles, and nothing of it is left when they close."""
    content = new_file(store, b"hello")
    store.discard(content)
    assert store.index.content_of(5) is None
    assert not content.dirty
    content.write(5, b"!")
    assert on_disk(content) == b"hello!"
    drop(store, content)
    assert data_files(folder) == []
    assert store.bytes_on_disk == 0


# --- opening the cache folder ---------------------------------------------------------------------


def test_two_daemons_on_one_cache_are_refused(store: ContentStore, folder: Path) -> None:
    """The second daemon is told that the cache folder is in use."""
    with pytest.raises(CacheUnusable, match="in use"):
        open_store(folder)


def test_the_folder_is_free_again_after_a_close(folder: Path) -> None:
    """A daemon that ended leaves the cache to the next one."""
    close_store(open_store(folder))
    close_store(open_store(folder))


def test_strays_are_removed(folder: Path) -> None:
    """Data files without a row, older copies and foreign files go at the next start; the others stay."""
    with opened(folder) as store:
        drop(store, new_file(store, b"mine"))
    (name,) = data_files(folder)
    place = next((folder / "data").glob(f"*/{name}")).parent
    for stray in ("999.0", f"{name.partition('.')[0]}.7", "notes.txt", "x.y"):
        (place / stray).write_bytes(b"stray")
    with opened(folder) as store:
        assert data_files(folder) == [name]
        assert on_disk(only_unfinished(store)) == b"mine"


def test_a_clean_row_without_its_file_is_only_a_miss(folder: Path) -> None:
    """Somebody cleared the data folder: what was cached is fetched again."""
    with opened(folder) as store:
        drop(store, fetched(store, 11))
    for name in data_files(folder):
        next((folder / "data").glob(f"*/{name}")).unlink()
    with opened(folder) as store:
        assert store.cached(11) is None


def test_an_error_text_may_hold_any_file_name(store: ContentStore) -> None:
    """The reason why a file was not sent is kept although the name in it is not UTF-8."""
    content = new_file(store, b"x")
    content.error = "PUT /\udcff: refused"
    try:
        content.save()
    finally:
        content.error = None


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(st.lists(names.filter(lambda name: name not in {".", ".."}), max_size=4).map(tuple))
def test_paths_survive_the_index(parts: tuple[str, ...]) -> None:
    """Any path reads back from the index as it was."""
    path = DavPath(parts)
    assert path_from_bytes(path_bytes(path)) == path


# --- a full disk ----------------------------------------------------------------------------------


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 2 MiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"davfs-test", os.fsencode(place), b"tmpfs", 0, b"size=2m"):
        pytest.skip("a full disk can be tried by root only: cannot mount a tmpfs")
    try:
        yield place
    finally:
        assert libc.umount2(os.fsencode(place), 2) == 0


def written_until_enospc(content: Content, data: bytes) -> int:
    """How many bytes were acknowledged."""
    for count in range(1000):
        try:
            content.write(count * len(data), data)
        except PosixError as error:
            if error.errno == errno.ENOSPC:
                return count * len(data)
            raise
    raise AssertionError("a disk of 2 MiB is never full")


def fill_up(place: Path) -> None:
    """Until not one block is free."""
    with open(place / "filler", "wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(b"x" * 4096)


def make_many(store: ContentStore) -> None:
    for number in range(2000):
        new_file(store, b"x", ino=100 + number, name=f"f{number}")


def test_a_full_disk_first_costs_clean_data(tiny_disk: Path) -> None:
    """Writing on a full cache disk succeeds while there is clean data to evict."""
    with opened(tiny_disk / "cache") as store:
        drop(store, fetched(store, 11, KIB * KIB))
        content = new_file(store, b"", ino=12, name="new")
        data = os.urandom(64 * KIB)
        for piece in range(20):
            content.write(piece * len(data), data)
        assert store.index.content_of(11) is None
        assert on_disk(content) == data * 20


def test_a_full_disk_is_enospc_and_loses_nothing(tiny_disk: Path) -> None:
    """When only unsent data is left, a write is ENOSPC, and all that was acknowledged is there."""
    with opened(tiny_disk / "cache") as store:
        drop(store, fetched(store, 11, 512 * KIB))
        content = new_file(store, b"", ino=12, name="new")
        data = os.urandom(64 * KIB)
        written = written_until_enospc(content, data)
        assert store.index.content_of(11) is None
        assert (content.size_bytes, content.dirty) == (written, True)
        assert on_disk(content) == data * (written // len(data))
        drop(store, content)
    with opened(tiny_disk / "cache") as store:
        found = only_unfinished(store)
        assert os.pread(found.fd, written, 0) == data * (written // len(data))


def test_a_refused_write_leaves_no_bytes_behind(tiny_disk: Path) -> None:
    """After ENOSPC the file on disk is as long as what was acknowledged, so a later hole reads as zeros."""
    with opened(tiny_disk / "cache") as store:
        content = new_file(store, b"start", ino=12, name="new")
        with pytest.raises(PosixError):
            content.write(5, b"x" * (4 << 20))
        assert os.fstat(content.fd).st_size == 5


def test_a_disk_too_full_for_the_index_is_enospc(tiny_disk: Path) -> None:
    """A new file on a disk without a free block is a DavfsError, not one of SQLite's or the OS's."""
    with opened(tiny_disk / "cache") as store:
        fill_up(tiny_disk)
        with pytest.raises(DavfsError) as refused:
            make_many(store)
        assert refused.value.errno == errno.ENOSPC


async def test_a_disk_too_full_for_a_copy_is_enospc(tiny_disk: Path) -> None:
    """A write that needs a copy of a file in transfer fails with ENOSPC, and the file is as it was."""
    with opened(tiny_disk / "cache") as store:
        content = new_file(store, b"x" * 1200 * KIB)
        content.readers += 1
        with pytest.raises(PosixError) as refused:
            await content.prepare_write()
        assert refused.value.errno == errno.ENOSPC
        assert on_disk(content) == b"x" * 1200 * KIB
        assert len(data_files(tiny_disk / "cache")) == 1


# --- power loss


def _next_boot(folder: Path) -> None:
    """As if the machine had started again since the cache was last opened."""
    mark = folder / "boot"
    if mark.read_text().strip() != "closed":
        mark.write_text("another boot".ljust(64))


@pytest.mark.expects_warning("the machine went down")
def test_after_a_power_loss_clean_contents_are_not_believed(store: ContentStore, folder: Path) -> None:
    """Their rows may claim bytes that never reached the disk and would read as zeros."""
    content = cached_file(store, 10)
    content.fill(0, b"0123456789")
    content.save()
    copy = _copy_of(folder)
    _next_boot(copy)
    with opened(copy) as after:
        assert after.cached(content.ino) is None


@pytest.mark.expects_warning("the machine went down")
def test_after_a_power_loss_only_what_programs_wrote_is_kept(store: ContentStore, folder: Path) -> None:
    """Downloaded parts of a partly written file are fetched again, from the version that they are of; but our
    bytes may be gone too, so the file has no base: it goes beside the server's version, never over it.
    """
    content = cached_file(store, 20)
    content.fill(0, b"0123456789")
    content.write(5, b"wrote")
    content.truncate(18)
    copy = _copy_of(folder)
    _next_boot(copy)
    with opened(copy) as after:
        kept = only_unfinished(after)
        assert kept.missing(0, 18) == [(0, 5), (10, 18)]
        assert (kept.base, kept.source) == (None, version(20))
        assert next_step(kept.life, kept.base, None, our_sizes={18}).step is Step.PUT_NEW
        kept.fill(0, b"ABCDEFGHIJKLMNOPQRST")
        assert on_disk(kept) == b"ABCDEwroteKLMNOPQR"


@pytest.mark.expects_warning("the machine went down")
def test_after_a_power_loss_a_cut_end_is_fetched_again(store: ContentStore, folder: Path) -> None:
    """A partly written file whose end did not reach the disk keeps its size."""
    content = cached_file(store, 100)
    content.write(5, b"wrote")
    copy = _copy_of(folder)
    os.truncate(copy / Path(store.disk.file_name(content.id, 0)).relative_to(folder), 8)
    _next_boot(copy)
    with opened(copy) as after:
        kept = only_unfinished(after)
        assert kept.size_bytes == 100
        assert kept.missing(0, 100) == [(0, 5), (8, 100)]


@pytest.mark.expects_warning("")
def test_after_a_power_loss_a_record_without_a_row_is_not_sent(store: ContentStore, folder: Path) -> None:
    """It may be of a file that was removed: kept in recovered/, and told."""
    content = new_file(store, b"perhaps removed")
    copy = _copy_of(folder)
    database = sqlite3.connect(copy / "index.db", isolation_level=None)
    database.execute("DELETE FROM contents WHERE id=?", (content.id,))
    database.close()
    _next_boot(copy)
    with opened(copy) as after:
        assert after.unfinished() == []
        (kept,) = after.recovered
        assert Path(kept).read_bytes() == b"perhaps removed"


@pytest.mark.expects_warning("the machine went down")
def test_after_a_power_loss_unsent_contents_overwrite_nothing(store: ContentStore, folder: Path) -> None:
    """What was not sent is kept and queued, but has no base: it is never put over the server's version."""
    content = cached_file(store, 4)
    content.fill(0, b"base")
    content.write(0, b"mine")
    copy = _copy_of(folder)
    _next_boot(copy)
    with opened(copy) as after:
        kept = only_unfinished(after)
        assert kept.base is None
        assert next_step(kept.life, kept.base, None, our_sizes={4}).step is Step.PUT_NEW


def test_a_power_loss_after_a_clean_end_costs_nothing(folder: Path) -> None:
    """The end of a mount flushes the cache disk."""
    with opened(folder) as store:
        content = cached_file(store, 4)
        content.fill(0, b"base")
        content.save()
    _next_boot(folder)
    with opened(folder) as after:
        assert after.cached(content.ino) is not None


def _copy_of(folder: Path) -> Path:
    copy = folder.with_name(folder.name + "-power")
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("reserve"))
    return copy


def test_reading_a_kept_version_again_writes_nothing(folder: Path) -> None:
    """Opened and closed within seconds of its last use: the index is read, and not changed."""
    with opened(folder, limit_bytes=300 * KIB) as store:
        drop(store, fetched(store, 11))
        again = store.cached(11)
        assert again is not None
        store.acquire(again)
        before = store.index.rows("SELECT total_changes()")
        drop(store, again)
        assert store.index.rows("SELECT total_changes()") == before
        assert store.index.content_of(11) is not None
