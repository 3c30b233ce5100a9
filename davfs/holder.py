"""Who has the cache folder of a share: told to the mount that cannot have it.

A daemon signs the folder that it has locked; the lock itself (fs/index) is the truth, the signature says
only whom to ask. So a mount right after `umount`, while the old daemon still sends, takes the journal over;
and one that must be refused is told by whom.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from davfs import control
from davfs.errors import ConfigError
from davfs.exitcodes import CommandFailed, NoDaemon

_FILE: Final = "holder.json"
_ANSWER_S: Final = 3.0


def sign(cache_dir: str, mountpoint: str) -> None:
    """Say who has locked this folder."""
    signature = {"pid": os.getpid(), "mountpoint": mountpoint}
    Path(cache_dir, _FILE).write_text(json.dumps(signature), encoding="ascii")


def folders_of(root: Path, mountpoint: str) -> list[Path]:
    """The cache folders that were used last for this mount point: `root` holds them, or is one."""
    with suppress(OSError):
        folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
        return [folder for folder in folders if _signature(str(folder)).get("mountpoint") == mountpoint]
    return []


def hands_over(cache_dir: str) -> bool:
    """Whether the daemon that has the folder was unmounted: it is asked to stop sending, and will end."""
    mountpoint = _signature(cache_dir).get("mountpoint")
    if not isinstance(mountpoint, str):
        return False
    try:
        with control.connect(mountpoint, os.geteuid(), os.environ, within_s=_ANSWER_S) as client:
            return client.ask("hand_over", within_s=_ANSWER_S).get("phase") == "unmounted"
    except (NoDaemon, CommandFailed):
        return False


def explained(error: ConfigError, cache_dir: str) -> ConfigError:
    """The refusal of a folder that is locked, with who has it and what he does."""
    if not isinstance(error.__cause__, BlockingIOError):
        return error
    signature = _signature(cache_dir)
    pid, mountpoint = signature.get("pid"), signature.get("mountpoint")
    if not signature:
        return error
    return type(error)(
        f"{error} (pid {pid}) for {mountpoint}: one more mount of a share takes -o cache_dir=DIR"
    )


def _signature(cache_dir: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(cache_dir, _FILE).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
