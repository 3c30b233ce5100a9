"""How an overwrite is made conditional: the decision as tables, and what it protects."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from davfs.dav.quirks import Capabilities
from davfs.dav.resource import ETag, Validator
from davfs.fs.guard import LONG_BODY, SMALL_NEW, Known, needs_look, needs_staging
from davfs.fs.inodes import ROOT_INO
from davfs.fs.renames import Rename
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav, Fault
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL, at

warns = pytest.mark.expects_warning


def server(dav: str, name: str = "") -> Capabilities:
    return Capabilities.from_options(httpx.Headers({"DAV": dav, "Server": name, "Allow": "PUT"}))


APACHE = server("1,2, <http://apache.org/dav/propset/fs/1>", "Apache/2.4.71 (Debian)")
NGINX = server("2", "nginx/1.22.1")
SABRE = server("1, 3, extended-mkcol, 2, sabredav-partialupdate", "nginx/1.22.1")
NEXTCLOUD = server("1, 3, extended-mkcol, access-control, nextcloud-checksum-update", "Apache/2.4.71")
WSGIDAV = server("1,2", "WsgiDAV/4.4.0 Cheroot/11.1.2 Python/3.11.7")
UNKNOWN = server("1, 2")
IN_PLACE = replace(UNKNOWN, conditions_seen="honoured")

STRONG = Known(Validator(ETag("v1"), None, 4))
WEAK = Known(Validator(ETag("v1", weak=True), None, 4))
UNTAGGED = Known(Validator(None, 1_700_000_000, 4))


@pytest.mark.parametrize(
    ("who", "size", "new", "staged"),
    [
        (APACHE, 100, True, False),
        (APACHE, LONG_BODY, True, True),  # conditions are checked long before the body is stored
        (APACHE, LONG_BODY, False, False),
        (SABRE, 64 * 1024, False, False),
        (SABRE, 64 * 1024 + 1, False, True),  # a connection that ends before the answer tears it
        (SABRE, 64 * 1024 + 1, True, True),
        (NGINX, 100, True, True),  # nothing but MOVE with Overwrite: F can tell that the name is free
        (NGINX, 100, False, False),
        (WSGIDAV, SMALL_NEW, True, False),
        (WSGIDAV, SMALL_NEW + 1, True, True),
        (WSGIDAV, 1, False, True),  # a cut PUT would leave half of ours over the old file
        (WSGIDAV, 0, False, False),
        (UNKNOWN, 1, True, True),
        (UNKNOWN, 1, False, True),
        (NEXTCLOUD, LONG_BODY, False, False),  # shares and versions hang on the file
        (NEXTCLOUD, LONG_BODY, True, False),
    ],
)
def test_what_is_staged(who: Capabilities, size: int, *, new: bool, staged: bool) -> None:
    """By what is known of the server, and what a cut or late PUT would do there."""
    assert needs_staging(who, size=size, new=new) is staged


@pytest.mark.parametrize(
    ("who", "over", "size", "looks"),
    [
        (APACHE, STRONG, 100, False),
        (APACHE, WEAK, 100, False),  # `If: (["tag"])` compares weakly there
        (APACHE, UNTAGGED, 100, True),
        (APACHE, STRONG, LONG_BODY, True),
        (APACHE, replace(STRONG, contended=True), 100, True),
        (SABRE, STRONG, 100, False),
        (SABRE, WEAK, 100, True),
        (SABRE, replace(STRONG, digest=b"d"), 100, True),
        (NGINX, STRONG, 100, True),
        (UNKNOWN, STRONG, 100, True),
    ],
)
def test_what_is_looked_at_before(who: Capabilities, over: Known, size: int, *, looks: bool) -> None:
    """A condition alone will do where it is honoured, can prove the version, and nobody else writes."""
    assert needs_look(who, over, size=size) is looks


async def written(vfs: Vfs, name: str, data: bytes) -> None:
    fd = await vfs.open(name, os.O_RDWR | os.O_CREAT)
    await vfs.write(fd, data)
    await vfs.close(fd)


async def content_of(vfs: Vfs) -> bytes:
    fd = await vfs.open("doc")
    try:
        return await vfs.pread(fd, 100, 0)
    finally:
        await vfs.close(fd)


@warns("conflict")
async def test_another_change_of_the_same_second_and_size_is_not_overwritten(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The tag is the same, the bytes are not: both versions survive."""
    fake = FakeDav(etags="coarse", now_s=lambda: 1_700_000_000.5)
    async with running(fake, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", os.O_RDWR | os.O_CREAT)
        await vfs.write(fd, b"ours 1")
        await vfs.fsync(fd)
        fake.put("/doc", b"theirs")
        await vfs.pwrite(fd, b"ours 2", 0)
        await vfs.close(fd)
        assert await fs.sync(60) == 0
    assert fake.content("/doc") == b"theirs"
    assert sorted(data for data in fake.tree().values() if data is not None) == [b"ours 2", b"theirs"]


async def contended(fake: FakeDav, vfs: Vfs, size: int) -> int:
    """A file of `size` bytes, sent after somebody else's change of it was noticed; open for writing."""
    for data in (b"base", b"theirs"):
        fake.put("/doc", data, mtime_s=1_600_000_000 + len(data))
        await vfs.fs.lookup(ROOT_INO, "doc")  # as the kernel does, which remembers it
        assert await content_of(vfs) == data
    fd = await vfs.open("doc", os.O_RDWR | os.O_TRUNC)
    await vfs.write(fd, b"1" * size)
    await vfs.fsync(fd)
    return fd


@warns("conflict")
async def test_a_large_file_that_others_change_too_is_compared(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Above 1 MiB as well, once somebody else was seen to change it."""
    fake = FakeDav(etags="coarse", now_s=lambda: 1_700_000_000.5)
    size = 2_000_000
    async with running(
        fake, URL, Settings(str(tmp_path / "c"), attr_timeout_min_s=0, attr_timeout_max_s=0)
    ) as fs:
        vfs = Vfs(fs)
        fd = await contended(fake, vfs, size)
        fake.put("/doc", b"T" * size)
        await vfs.pwrite(fd, b"2", 0)
        await vfs.close(fd)
        assert await fs.sync(60) == 0
    assert fake.content("/doc") == b"T" * size
    assert sorted(data[:2] for data in fake.tree().values() if data is not None) == [b"21", b"TT"]


async def test_our_own_upload_of_a_file_that_others_change_too_is_read_anew(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Changed in the second of our upload, with the same size: the next open shows what is there."""
    fake = FakeDav(etags="coarse", now_s=lambda: 1_700_000_000.5)
    async with running(
        fake, URL, Settings(str(tmp_path / "c"), attr_timeout_min_s=0, attr_timeout_max_s=0)
    ) as fs:
        vfs = Vfs(fs)
        await vfs.close(await contended(fake, vfs, 50))
        fake.put("/doc", b"T" * 50)
        assert await content_of(vfs) == b"T" * 50


async def test_our_own_upload_is_not_fetched_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The common case: nobody else was seen there, and reading what we wrote costs no GET."""
    fake = FakeDav(etags="coarse")
    async with running(
        fake, URL, Settings(str(tmp_path / "c"), attr_timeout_min_s=0, attr_timeout_max_s=0)
    ) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", os.O_RDWR | os.O_CREAT)
        await vfs.write(fd, b"ours")
        await vfs.fsync(fd)
        await vfs.close(fd)
        assert await content_of(vfs) == b"ours"
        assert fake.requests("GET") == []


async def test_a_file_that_was_read_too_soon_is_fetched_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Read within the second of its last change: the next open does not believe the same tag."""
    fake = FakeDav(etags="coarse")
    fake.put("/doc", b"first.")
    changed_s = fake.now_s()
    async with running(
        fake, URL, Settings(str(tmp_path / "c"), attr_timeout_min_s=0, attr_timeout_max_s=0)
    ) as fs:
        vfs = Vfs(fs)
        assert await content_of(vfs) == b"first."
        fake.put("/doc", b"second", mtime_s=changed_s)
        assert await content_of(vfs) == b"second"


@warns("not sent")
async def test_a_staged_upload_that_fails_leaves_nothing_behind(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The old file is as it was, the temporary one goes, and the new one arrives when the server is well."""
    fake = FakeDav(conditions=False)
    fake.put("/doc", b"old")
    async with running(fake, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        fake.inject(Fault("MOVE", status=500))
        fd = await vfs.open("doc", os.O_RDWR)
        await vfs.write(fd, b"new")
        await vfs.close(fd)
        await trio.sleep(0.5)
        assert fake.content("/doc") == b"old"
        assert await fs.sync(60) == 0
        await trio.sleep(10)
    assert fake.tree() == {"doc": b"new"}


@warns("not sent")
async def test_a_staged_upload_whose_move_was_not_heard_of_is_recognised(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The answer to MOVE is lost after it was done: the file there is ours, and no conflict."""
    fake = FakeDav(conditions=False)
    fake.put("/doc", b"old")
    async with running(fake, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        fake.inject(Fault("MOVE", lost="after"))
        fd = await vfs.open("doc", os.O_RDWR)
        await vfs.write(fd, b"new")
        await vfs.close(fd)
        assert await fs.sync(60) == 0
        await trio.sleep(10)
    assert fake.tree() == {"doc": b"new"}


@warns("not sent")
async def test_a_put_that_lands_late_is_put_right(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One PUT is given up, the next acknowledged, then the first lands over it: the newest is sent again."""
    fake = FakeDav(etags="strong")
    fake.put("/doc", b"old")
    async with running(fake, URL, Settings(str(tmp_path / "c"), timeout_s=5)) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", os.O_RDWR)
        fake.inject(Fault("PUT", lost="before"))
        await vfs.write(fd, b"first body")
        await vfs.close(fd)
        await trio.sleep(0.5)
        fd = await vfs.open("doc", os.O_RDWR)
        await vfs.write(fd, b"the newest")
        await vfs.fsync(fd)
        await vfs.close(fd)
        fake.put("/doc", b"first body")  # as Apache stores what it checked a minute ago
        await trio.sleep(120)
        assert await fs.sync(60) == 0
    assert fake.tree() == {"doc": b"the newest"}


@warns("not sent")
async def test_fsync_looks_whether_an_unanswered_put_has_landed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """It lands right after the newer one was stored: when fsync returns, the newest is there again."""
    fake = FakeDav(etags="strong")
    fake.put("/doc", b"old")
    async with running(fake, URL, Settings(str(tmp_path / "c"), timeout_s=5)) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("doc", os.O_RDWR)
        fake.inject(Fault("PUT", lost="before"))
        await vfs.write(fd, b"first body")
        await vfs.close(fd)
        await trio.sleep(0.5)
        fd = await vfs.open("doc", os.O_RDWR)
        await vfs.write(fd, b"the newest")
        fake.inject(Fault("PUT", answer_delay_s=2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(vfs.fsync, fd)
            await trio.sleep(1)
            assert fake.content("/doc") == b"the newest"
            fake.put("/doc", b"first body")  # as Apache does with what it checked before
        assert fake.content("/doc") == b"the newest"
        await trio.sleep(100)
        await vfs.pwrite(fd, b"the second", 0)
        before = len(fake.requests("PROPFIND"))
        await vfs.fsync(fd)
        assert len(fake.requests("PROPFIND")) == before  # long ago: nothing is asked
        await vfs.close(fd)
    assert fake.tree() == {"doc": b"the second"}


@warns("not sent")
@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_a_put_of_a_file_that_is_gone_lands_late(
    tmp_path: Path, autojump_clock: MockClock, how: str
) -> None:
    """It was given up, the name has another file by the time it lands: ours all the same, no conflict."""
    fake = FakeDav(etags="strong")
    if how == "replaced":
        fake.put("/doc", b"old")
    async with running(fake, URL, Settings(str(tmp_path / "c"), timeout_s=5, write_back_s=0.3)) as fs:
        vfs = Vfs(fs)
        fake.inject(Fault("PUT", lost="before", late_s=1e6))  # the body went out
        await written(vfs, "doc", b"the first body")
        await trio.sleep(0.5)
        if how == "removed":
            await vfs.unlink("doc")
            await written(vfs, "doc", b"the newest")
        else:
            await written(vfs, "temporary", b"the newest")
            await vfs.rename("temporary", "doc")
        fake.put("/doc", b"the first body")  # as Apache stores what it checked a minute ago
        assert await fs.sync(60) == 0
    assert fake.tree() == {"doc": b"the newest"}


@warns("not sent")
async def test_a_rename_over_what_landed_late(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The file that is renamed is on the server, and so is, by now, what was sent before: no conflict."""
    fake = FakeDav(etags="strong")
    fake.put("/doc", b"old")
    async with running(fake, URL, Settings(str(tmp_path / "c"), timeout_s=5)) as fs:
        vfs = Vfs(fs)
        await written(vfs, "temporary", b"the newest")
        assert await fs.sync(60) == 0
        fake.inject(Fault("PUT", status=403, late_s=1e6))  # it is stored all the same
        await written(vfs, "doc", b"the first body")
        await trio.sleep(0.5)
        fake.put("/doc", b"the first body")
        await vfs.rename("temporary", "doc")
        assert await fs.sync(60) == 0
    assert fake.tree() == {"doc": b"the newest"}


@warns("not sent")
async def test_a_rename_of_what_landed_late(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A PUT that was refused is there all the same: replaced and renamed here, it is still ours."""
    fake = FakeDav(etags="strong")
    fake.put("/temporary", b"old")
    async with running(fake, URL, Settings(str(tmp_path / "c"), timeout_s=5, write_back_s=1.0)) as fs:
        vfs = Vfs(fs)
        fake.inject(Fault("PUT", status=403, late_s=1e6))
        await written(vfs, "temporary", b"the first body")
        await trio.sleep(1.5)
        fake.put("/temporary", b"the first body")
        await written(vfs, "newer", b"the newest")
        await vfs.rename("newer", "temporary")
        await vfs.rename("temporary", "doc")
        assert await fs.sync(60) == 0
    assert fake.tree() == {"doc": b"the newest"}


@warns("not sent")
@pytest.mark.parametrize("part", [b"", b"the fir", b"the first body"])
async def test_a_part_of_a_new_file_is_ours(tmp_path: Path, autojump_clock: MockClock, part: bytes) -> None:
    """A server that writes in place keeps what it got of a PUT; the file was edited before the next one."""
    fake = FakeDav(etags="strong")
    async with running(fake, URL, Settings(str(tmp_path / "c"), timeout_s=5)) as fs:
        vfs = Vfs(fs)
        fs._client.capabilities = IN_PLACE
        fake.inject(Fault("PUT", lost="before", late_s=1e6))  # the body went out
        await written(vfs, "doc", b"the first body")
        await trio.sleep(0.5)
        fake.put("/doc", part)
        await written(vfs, "doc", b"and the newest")
        assert await fs.sync(60) == 0
    assert fake.tree() == {"doc": b"and the newest"}


@warns("conflict")
@warns("not sent")
@pytest.mark.parametrize(("there", "conflicts"), [(b"", 0), (b"the fir", 0), (b"theirs", 1)])
async def test_a_part_of_a_new_file_is_ours_also_after_a_kill(
    tmp_path: Path, autojump_clock: MockClock, there: bytes, conflicts: int
) -> None:
    """Killed in the middle of a direct PUT: only the file itself tells the next run what it was sending."""
    fake = FakeDav(anonymous=True)
    async with running(fake, URL, Settings(str(tmp_path / "c"), timeout_s=5)) as fs:
        fs._client.capabilities = IN_PLACE
        fake.inject(Fault("PUT", lost="before", late_s=1e6, delay_s=3))
        await written(Vfs(fs), "doc", b"the first body")
        await trio.sleep(1)
        shutil.copytree(tmp_path / "c", tmp_path / "killed")
    fake.put("/doc", there)
    async with running(fake, URL, Settings(str(tmp_path / "killed"), timeout_s=5)) as fs:
        assert await fs.sync(60) == 0
        assert len(fs._uploads.conflicts) == conflicts
    assert b"the first body" in fake.tree().values()
    assert (there in fake.tree().values()) == bool(conflicts)


@warns("conflict")
@warns("not sent")
async def test_another_beginning_is_somebody_elses(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Shorter than what we sent, and not a part of it: both survive."""
    fake = FakeDav(etags="strong")
    async with running(fake, URL, Settings(str(tmp_path / "c"), timeout_s=5)) as fs:
        vfs = Vfs(fs)
        fs._client.capabilities = IN_PLACE
        fake.inject(Fault("PUT", lost="before", late_s=1e6))
        await written(vfs, "doc", b"the first body")
        await trio.sleep(0.5)
        fake.put("/doc", b"theirs")
        assert await fs.sync(60) == 0
    assert fake.content("/doc") == b"theirs"
    assert sorted(data for data in fake.tree().values() if data is not None) == [b"the first body", b"theirs"]


@warns("not sent")
@pytest.mark.parametrize("moved", [True, False])
async def test_a_daemon_killed_during_a_rename_asks_what_became_of_it(
    tmp_path: Path, autojump_clock: MockClock, *, moved: bool
) -> None:
    """Killed between the server's MOVE and our note of it: unsent bytes go to where the file is now."""
    fake = FakeDav()
    fake.put("/a", b"base")
    tag = (fake._etag(fake._at(("a",))) or "").strip('"')
    fake.inject(Fault("PUT", times=1000, status=507))
    async with running(fake, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("a", os.O_RDWR)
        await vfs.write(fd, b"ours")
        await vfs.close(fd)
        await trio.sleep(1)
        fs._namespace._renames.begin(Rename(at("/a"), at("/b"), Validator(ETag(tag), None, 4)))
    if moved:
        fake.move("/a", "/b")
    fake.faults.clear()
    async with running(fake, URL, Settings(str(tmp_path / "c"))) as fs:
        assert await fs.sync(60) == 0
        assert fs._namespace._renames.left == []
    assert fake.tree() == {"b" if moved else "a": b"ours"}


@warns("not sent")
@pytest.mark.parametrize("moved", [True, False])
async def test_a_daemon_killed_during_a_rename_over_unsent_bytes(
    tmp_path: Path, autojump_clock: MockClock, *, moved: bool
) -> None:
    """If the server had done it, the bytes that it replaced are given up; else they are sent."""
    fake = FakeDav()
    fake.put("/a", b"other")
    fake.put("/b", b"base")
    tag = (fake._etag(fake._at(("a",))) or "").strip('"')
    fake.inject(Fault("PUT", times=1000, status=507))
    async with running(fake, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        fd = await vfs.open("b", os.O_RDWR)
        await vfs.write(fd, b"ours")
        await vfs.close(fd)
        await trio.sleep(1)
        (unsent,) = fs._uploads.pending()
        rename = Rename(at("/a"), at("/b"), Validator(ETag(tag), None, 5), replaces=unsent.content.id)
        fs._namespace._renames.begin(rename)
    if moved:
        fake.delete("/b")
        fake.move("/a", "/b")
    fake.faults.clear()
    async with running(fake, URL, Settings(str(tmp_path / "c"))) as fs:
        assert await fs.sync(60) == 0
    assert fake.tree() == ({"b": b"other"} if moved else {"a": b"other", "b": b"ours"})


async def test_a_removal_waits_for_a_body_that_is_on_its_way(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A PUT given up when its body is out would be stored after the DELETE, and bring the file back."""
    fake = FakeDav()
    async with running(fake, URL, Settings(str(tmp_path / "c"))) as fs:
        vfs = Vfs(fs)
        fake.inject(Fault("PUT", answer_delay_s=3))
        fd = await vfs.open("f", os.O_WRONLY | os.O_CREAT)
        await vfs.write(fd, b"short-lived")
        await vfs.close(fd)
        await trio.sleep(1)
        begun_s = trio.current_time()
        await vfs.unlink("f")
        assert trio.current_time() - begun_s >= 1.5
        changes = [entry.method for entry in fake.log if entry.method in {"PUT", "DELETE"}]
    assert changes == ["PUT", "DELETE"]
    assert fake.tree() == {}
