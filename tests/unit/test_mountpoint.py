"""Checks of the mount point, and what mountinfo says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfs.exitcodes import MountPointError
from davfs.mountpoint import Mount, check_mountpoint, mount_at, mounts, parse_mountinfo, resolved

SAMPLE = (
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "90 22 0:50 / /home/me/my\\040drive rw,nosuid - fuse.davfs https://h/a\\040b/ rw,user_id=1000\n"
    "91 22 0:51 / /mnt rw - tmpfs tmpfs rw\n"
    "92 91 0:52 / /mnt rw - fuse.davfs https://h/ rw,user_id=0,group_id=0,default_permissions\n"
    "nonsense\n"
)


def test_mountinfo_is_read() -> None:
    """Escapes, the type and the owner are taken from each line; the topmost mount counts."""
    found = parse_mountinfo(SAMPLE)
    assert mount_at("/home/me/my drive", found) == Mount(
        "/home/me/my drive", "fuse.davfs", "https://h/a b/", 1000
    )
    assert mount_at("/mnt", found) == Mount("/mnt", "fuse.davfs", "https://h/", 0)
    assert mount_at("/nothing", found) is None
    assert not parse_mountinfo(SAMPLE)[0].is_davfs


@given(st.text())
def test_any_mountinfo_is_survived(text: str) -> None:
    """Lines that cannot be read are skipped."""
    parse_mountinfo(text)


def test_the_root_of_this_machine_is_mounted() -> None:
    """The real file is readable and lists /."""
    assert mount_at("/", mounts()) is not None


def test_links_are_resolved(tmp_path: Path) -> None:
    """A link to the mount point, and links above it, lead to the same name."""
    real = tmp_path / "real" / "drive"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "other").symlink_to(real)
    (tmp_path / "third").symlink_to("link/../real/./other")
    for spelling in ("real/drive", "link/drive", "link/other", "third", "real/../link/other/"):
        assert resolved(f"{tmp_path}/{spelling}") == str(real)


def test_a_mounted_name_is_not_looked_into(tmp_path: Path) -> None:
    """What is known to be a mount point is taken as it is, even where a link stands in its place."""
    link = tmp_path / "drive"
    link.symlink_to("/nowhere")
    assert resolved(str(link), targets={str(link)}) == str(link)
    assert resolved(str(link), targets=()) == "/nowhere"


def test_a_ring_of_links_is_told(tmp_path: Path) -> None:
    """Links that lead in a circle end in an error."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(MountPointError, match="symbolic links"):
        resolved(str(tmp_path / "a"))


def test_an_empty_folder_is_a_mount_point(tmp_path: Path) -> None:
    """The usual case passes."""
    check_mountpoint(str(tmp_path))


def test_what_cannot_be_a_mount_point_is_refused(tmp_path: Path) -> None:
    """Missing, a file, not empty or mounted already: each is told as what it is."""
    file = tmp_path / "file"
    file.touch()
    for path, reason in [
        (tmp_path / "none", "does not exist"),
        (file, "not a folder"),
        (tmp_path, "not empty"),
    ]:
        with pytest.raises(MountPointError, match=reason):
            check_mountpoint(str(path))
    with pytest.raises(MountPointError, match="mount point already"):
        check_mountpoint("/proc")
    check_mountpoint(str(tmp_path), nonempty=True)
