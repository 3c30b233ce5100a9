"""What a mounted share may be told: a frozen value, built once by `davfs.config`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Settings:
    """Units are in the names; the defaults are those of the command line."""

    cache_dir: str
    cache_size_bytes: int = 10 * GIB
    attr_timeout_min_s: float = 3.0
    attr_timeout_max_s: float = 60.0
    write_back_s: float = 0.2  # how long a closed file waits for a rename or another write before it is sent
    open_flush_s: float = 30.0  # a file that stays open for writing is sent at least this often
    close_sync: bool = False
    uid: int = 0
    gid: int = 0
    file_mode: int = 0o644
    dir_mode: int = 0o755
    create_mask: int = 0o7777  # what programs may give to what they create
    connections: int = 16
    timeout_s: float = 30.0
    read_only: bool = False
    symlinks: bool = True  # where the server keeps what it takes
    lock: Literal["auto", "always", "never"] = "auto"
    partial_put: bool = False  # of a large file only what changed is sent, where the server can
    mtime: Literal["auto", "properties", "local"] = "auto"
