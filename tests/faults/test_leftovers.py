"""Nothing of ours stays on the server, whatever becomes of the daemon; and what is others' is left alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.drivers import KernelDriver
from tests.mount.test_scenarios import eventually
from tests.servers import Share

MountOf = Callable[..., KernelDriver]
pytestmark = [pytest.mark.expects_warning(""), pytest.mark.timeout(300)]


def test_a_file_set_aside_at_kill_9_is_removed_by_the_next_mount(
    apache_share: Share, mount_of: MountOf, tmp_path: Path
) -> None:
    """A large open file that was removed is kept on the server under a hidden name: after a crash it goes."""
    theirs = ".davfs-8899aabbccddeeff"
    with open(apache_share.write("large", b""), "r+b") as file:
        file.truncate(40_000_000)
    apache_share.write(theirs, b"of another machine")
    first = mount_of(apache_share, cache_dir=tmp_path / "kept")
    fd = first.open("large")
    assert first.pread(fd, 10, 0) == bytes(10)
    first.unlink("large")
    (aside,) = (name for name in os.listdir(apache_share.root) if name not in {theirs, "large"})
    assert aside.startswith(".davfs-")
    assert first.pread(fd, 10, 39_000_000) == bytes(10)
    assert first.listdir() == []
    first.mount.kill()
    second = mount_of(apache_share, cache_dir=tmp_path / "kept")
    eventually(lambda: os.listdir(apache_share.root) == [theirs], 20)
    assert second.listdir() == []
