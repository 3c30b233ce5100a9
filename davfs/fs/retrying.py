"""When an upload that failed is tried again by itself. Pure.

Four classes of failure, told by the error alone:

- it passes by itself (no connection, time-outs, 5xx, 425, 429): after 1 s, doubling to 60 s;
- somebody else can make it pass (locked, full, credentials, an answer that is none, this machine's disk):
  after 60 s, doubling to 15 minutes;
- a refusal of this file (403, 413, 414, 415, 400 ...): after an hour, then every 6 hours. The same bytes get
  the same answer, and may be a gigabyte each time; but servers are repaired too, so it is never "never";
- any of them with Retry-After: not before that, and a refusal of this file then counts as one that passes.

An edit, `davfs pending retry`, `davfs sync`, `davfs login` and a new mount try at once: the queue's business.
"""

from __future__ import annotations

from typing import Final

from davfs.errors import (
    DavfsError,
    Locked,
    NoSpace,
    PosixError,
    ProtocolError,
    ServerRefused,
    Unauthorized,
)

SOON_S: Final = 1.0
SOON_MAX_S: Final = 60.0
LATER_S: Final = 60.0
LATER_MAX_S: Final = 900.0
HOPELESS_S: Final = 3600.0
HOPELESS_MAX_S: Final = 6 * 3600.0
LONGEST_SPREAD_S: Final = 240.0  # after Retry-After: 3600 the files of a folder come within a minute

# ProtocolError: a proxy's error page, the login page of a hotel. PosixError: the cache disk.
_PASSED_BY_OTHERS: Final = (Locked, NoSpace, Unauthorized, ProtocolError, PosixError)


def next_try_s(error: DavfsError, attempts: int, *, dice: float = 0.0) -> float:
    """Seconds until the next try, after `attempts` (from 1) that failed, the last one with `error`.

    `dice` in [0, 1) prolongs the wait by up to a quarter, so that files that failed together do not come back
    together. Retry-After is waited for to its end; the wire believes at most a day of it.
    """
    asked_s = error.retry_after_s if isinstance(error, ServerRefused) else None
    planned_s = max(_planned_s(error, attempts, asked=asked_s is not None), asked_s or 0.0)
    return planned_s + dice / 4.0 * min(planned_s, LONGEST_SPREAD_S)


def _planned_s(error: DavfsError, attempts: int, *, asked: bool) -> float:
    doublings = min(max(attempts, 1) - 1, 20)
    if error.retry_helps:
        return min(SOON_MAX_S, SOON_S * 2.0**doublings)
    if asked or isinstance(error, _PASSED_BY_OTHERS):
        return min(LATER_MAX_S, LATER_S * 2.0**doublings)
    return HOPELESS_S if attempts <= 1 else HOPELESS_MAX_S
