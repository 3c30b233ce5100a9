"""What real servers say to a PUT into a folder that is gone, and that a file arrives all the same."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from davfs.dav.auth import build_auth
from davfs.dav.lanes import Lanes, LaneSettings
from davfs.fs.settings import Settings
from tests.mount.assembly import running
from tests.mount.vfs import Vfs
from tests.servers import Share


async def test_the_folder_is_made_again(locking_share: Share, tmp_path: Path) -> None:
    """Another client removed it before a new file in it was sent: fsync brings both.

    (Not one that nginx has had: its LOCK of a name without a folder is 409, and holds the name for 60 s.)
    """
    lanes = Lanes(build_auth("none", locking_share.url, None), LaneSettings())
    try:
        async with running(lanes, locking_share.url, Settings(str(tmp_path / "c"), write_back_s=60)) as fs:
            vfs = Vfs(fs)
            await vfs.mkdir("d")
            fd = await vfs.open("d/a", os.O_WRONLY | os.O_CREAT)
            await vfs.write(fd, b"new")
            shutil.rmtree(locking_share.root / "d")
            await vfs.fsync(fd)
            await vfs.close(fd)
    finally:
        await lanes.aclose()
    assert (locking_share.root / "d" / "a").read_bytes() == b"new"
