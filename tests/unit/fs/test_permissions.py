"""What the account may not do is shown, and refused before anything is stored."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from davfs.dav.properties import OWN_EXECUTABLE, PERMISSIONS, PRIVILEGES
from davfs.dav.quirks import Capabilities
from davfs.dav.resource import Resource
from davfs.errors import DavfsError
from davfs.fs.permissions import Allowed, allowed, told_mode
from davfs.fs.settings import Settings
from tests.fakes.davserver import FakeDav
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.unit.fs.rig import URL

NEXTCLOUD = ", access-control, nextcloud-checksum-update"
READ = "{DAV:}read {DAV:}read-acl"


def told(name: str, text: str, *, executable: bool | None = None) -> Resource:
    return Resource(is_collection=False, extras=((name, text),), executable=executable)


@pytest.mark.parametrize(
    ("resource", "may"),
    [
        (None, Allowed()),
        (Resource(is_collection=True), Allowed()),
        (told(PERMISSIONS, "RGDNVW"), Allowed(files=False, folders=False)),
        (told(PERMISSIONS, "RGDNVCK"), Allowed(content=False)),
        (told(PERMISSIONS, "SMG"), Allowed(content=False, files=False, folders=False)),
        (told(PERMISSIONS, "GK"), Allowed(content=False, files=False)),
        (told(PERMISSIONS, ""), Allowed(content=False, files=False, folders=False)),
        (told(PRIVILEGES, ""), Allowed()),  # an empty set is no evidence
        (told(PRIVILEGES, "{DAV:}all"), Allowed()),
        (told(PRIVILEGES, f"{READ} {{DAV:}}write"), Allowed()),
        (told(PRIVILEGES, READ), Allowed(content=False, files=False, folders=False)),
        (told(PRIVILEGES, f"{READ} {{DAV:}}write-content"), Allowed(files=False, folders=False)),
        (told(PRIVILEGES, f"{READ} {{DAV:}}bind"), Allowed(content=False)),
    ],
)
def test_what_servers_say(resource: Resource | None, may: Allowed) -> None:
    """Letters of Nextcloud and ownCloud, privileges of RFC 3744; who says nothing refuses nothing."""
    assert allowed(resource) == may


@pytest.mark.parametrize(
    ("mode", "resource", "wished", "shown"),
    [
        (0o644, None, None, 0o644),
        (0o644, Resource(is_collection=False, executable=True), None, 0o755),
        (0o640, Resource(is_collection=False, executable=True), None, 0o750),
        (0o755, Resource(is_collection=False, executable=False), None, 0o644),
        (0o755, Resource(is_collection=False), None, 0o755),  # it does not say: as set here
        (0o755, Resource(is_collection=False, executable=False), "T", 0o755),
        (0o644, Resource(is_collection=False, executable=True), "F", 0o644),
        (0o644, told(OWN_EXECUTABLE, "T"), None, 0o755),
        (0o644, told(PERMISSIONS, "G"), None, 0o444),
        (0o755, told(PERMISSIONS, "G", executable=True), None, 0o555),
    ],
)
def test_the_mode_that_is_told(mode: int, resource: Resource | None, wished: str | None, shown: int) -> None:
    """What is set here, what the server says, and what is on its way, in one mode."""
    assert told_mode(mode, resource, is_folder=False, wished=wished) == shown


def test_folders_are_read_only_where_nothing_can_be_made() -> None:
    """Files or folders alone can be: then it stays writable, and the other kind is refused one by one."""
    for letters, shown in (("GCK", 0o755), ("GK", 0o755), ("GC", 0o755), ("GDNV", 0o555)):
        folder = Resource(is_collection=True, extras=((PERMISSIONS, letters),))
        assert told_mode(0o755, folder, is_folder=True, wished=None) == shown


def test_who_is_asked() -> None:
    """Only where the server announces that there is something to say."""
    for classes, asked in (
        ("1, 2", set()),
        ("1, 3, access-control", {PRIVILEGES}),
        (f"1, 3{NEXTCLOUD}", {PERMISSIONS}),
        ("1, 3, access-control, oc-resource-sharing", {PERMISSIONS}),
    ):
        assert Capabilities.from_options({"dav": classes}).told_permissions == asked


@asynccontextmanager
async def drive(server: FakeDav, folder: Path) -> AsyncIterator[Vfs]:
    async with running(server, URL, Settings(str(folder / "c"))) as fs:
        yield Vfs(fs)


async def errno_of(call: Any) -> int:
    with pytest.raises(DavfsError) as caught:
        await call
    return caught.value.errno


def shared(*, letters: bool) -> FakeDav:
    """A folder where nothing can be made, files to read and to write; by letters or by privileges."""
    server = FakeDav()
    server.more_classes = NEXTCLOUD if letters else ", access-control"
    name = PERMISSIONS if letters else PRIVILEGES
    server.mkdir("closed")
    server.put("closed/f", b"x")
    server.put("f", b"x")
    server.put("mine", b"x")
    for path, told_letters, privileges in (
        ("closed", "G", READ),
        ("closed/f", "G", READ),
        ("f", "GDNV", READ),
        ("mine", "GDNVW", f"{READ} {{DAV:}}write-content"),
        ("", "GDNVCK", "{DAV:}all"),
    ):
        server.properties(path)[name] = told_letters if letters else privileges
    return server


@pytest.mark.parametrize("letters", [True, False])
async def test_read_only_is_shown_and_meant(tmp_path: Path, autojump_clock: MockClock, letters: bool) -> None:
    """No w in the mode; EACCES for writing, creating, linking, moving in, before a request."""
    server = shared(letters=letters)
    async with drive(server, tmp_path) as vfs:
        await vfs.listdir("")
        await vfs.listdir("closed")
        assert (await vfs.stat("f")).permissions == 0o444
        assert (await vfs.stat("mine")).permissions == 0o644
        assert (await vfs.stat("closed")).permissions == 0o555
        before = server.tree()
        server.log.clear()
        assert await errno_of(vfs.open("f", os.O_WRONLY)) == errno.EACCES
        assert await errno_of(vfs.truncate("f", 0)) == errno.EACCES
        assert await errno_of(vfs.open("closed/new", os.O_WRONLY | os.O_CREAT)) == errno.EACCES
        assert await errno_of(vfs.mkdir("closed/new")) == errno.EACCES
        assert await errno_of(vfs.symlink("x", "closed/new")) == errno.EACCES
        assert await errno_of(vfs.rename("mine", "closed/new")) == errno.EACCES
        assert await errno_of(vfs.rename("mine", "f")) == errno.EACCES
        assert not server.requests("PUT", "MKCOL", "MOVE", "PROPPATCH", "LOCK")
        assert server.tree() == before
        fd = await vfs.open("f", os.O_RDONLY)
        assert await vfs.read(fd, 9) == b"x"
        await vfs.close(fd)
        fd = await vfs.open("mine", os.O_WRONLY | os.O_TRUNC)
        await vfs.write(fd, b"yy")
        await vfs.close(fd)
        assert await vfs.fs.sync() == 0
        assert (await vfs.stat("mine")).permissions == 0o644
    assert server.content("mine") == b"yy"


async def test_others_are_not_asked(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A server without the classes costs no byte more, whatever stands in its properties."""
    server = shared(letters=True)
    server.more_classes = ""
    async with drive(server, tmp_path) as vfs:
        await vfs.listdir("")
        assert (await vfs.stat("f")).permissions == 0o644
