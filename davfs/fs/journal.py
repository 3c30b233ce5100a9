"""The journal read while no daemon serves it: what is unsent in a cache folder, and why.

Changes nothing in the folder, takes no lock (a mount may begin meanwhile), and needs neither event loop nor
server. A damaged index is left to the next mount, which makes it again from what each file says of itself
(`salvage`).
"""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from davfs.errors import PosixError
from davfs.fs.database import NAME
from davfs.fs.states import Failure, state_of

_WAITS_MS: Final = 2000
_UNSENT: Final = (
    "SELECT id, generation, path, size, attempts, error FROM contents WHERE written > acked OR unknown"
    " ORDER BY id"
)
_FAILURES: Final = "SELECT content, errno, text, passes FROM failures"


def unsent(folder: Path) -> list[dict[str, object]]:
    """A row for each unsent file, as `Pendings.rows` has them. Raises PosixError when it cannot be read."""
    if not (folder / NAME).exists():
        return []
    try:
        with closing(_opened(folder)) as db:
            failures = _failures(db)
            return [_row(folder, row, failures.get(row[0])) for row in db.execute(_UNSENT)]
    except sqlite3.Error as error:
        raise PosixError(errno.EIO, f"the cache index in {folder} cannot be read ({error})") from error


def _opened(folder: Path) -> sqlite3.Connection:
    """Without a log there is nothing but the file itself: so that no empty log is made beside it."""
    log = folder / f"{NAME}-wal"
    how = "mode=ro" if log.exists() else "immutable=1"
    db = sqlite3.connect(f"file:{quote(os.fsencode(folder / NAME))}?{how}", uri=True)
    db.execute(f"PRAGMA busy_timeout={_WAITS_MS}")
    return db


def _failures(db: sqlite3.Connection) -> dict[int, Failure]:
    with suppress(sqlite3.OperationalError):  # no such table: nothing has failed yet
        return {
            content: Failure(0, number, text, bool(passes), 0)
            for content, number, text, passes in db.execute(_FAILURES)
        }
    return {}


def _row(folder: Path, row: Any, failure: Failure | None) -> dict[str, object]:
    content_id, generation, raw, size, attempts, error = row
    if error is None:
        failure = None  # of an earlier version
    file = folder / "data" / f"{content_id & 0xFF:02x}" / f"{content_id}.{generation}"
    with suppress(OSError):
        size = file.stat().st_size  # the row is not saved with each write
    return {
        "path": "/" + os.fsdecode(bytes(raw).replace(b"\0", b"/")),
        "size": size,
        "state": state_of(dirty=True, sending=False, failure=failure, is_conflict_copy=False),
        "attempts": attempts,
        "error": error,
        "errno": errno.errorcode.get(failure.errno) if failure is not None else None,
        "next_try_s": None,
    }
