"""What the answer to a pre-flight says about the upload that would follow. Pure.

The pre-flight is a PROPFIND Depth 0 without a body (or HEAD) of the target, on the lane of the upload. From
it 412, 423, 507 and an overloaded server are known before the first byte of the body. It only ever forbids
what the server would refuse as well: a look that says nothing lets the upload go.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Final

from davfs.dav.hrefs import Share, shown
from davfs.dav.lanes import PreflightAnswer
from davfs.dav.locks import LockToken, active_locks
from davfs.dav.multistatus import Entry, Multistatus, sole_entry
from davfs.dav.quirks import Condition
from davfs.dav.resource import DavPath, ETag, Quota
from davfs.dav.retry import retry_after_s
from davfs.errors import (
    Locked,
    NoSpace,
    ParentMissing,
    PreconditionFailed,
    ProtocolError,
    ServerRefused,
    refused,
)

_LOCKED: Final = re.compile(rb"<(?:[A-Za-z0-9_.-]+:)?activelock[\s>/]")
_ABSENT: Final = frozenset({404, 410})


@dataclass(frozen=True, slots=True)
class UploadWish:
    """An upload as its preconditions see it."""

    path: DavPath
    size_bytes: int
    if_match: ETag | None = None
    if_none_match: bool = False
    lock_token: LockToken | None = None

    @property
    def is_conditional(self) -> bool:
        return self.if_match is not None or self.if_none_match

    @property
    def condition(self) -> Condition | None:
        """The one that an answer may tell of; a 412 under a lock may be about the lock."""
        if self.lock_token is not None:
            return None
        return "absent" if self.if_none_match else "same" if self.if_match is not None else None


def check_upload(share: Share, wish: UploadWish, answer: PreflightAnswer) -> None:
    """Raises PreconditionFailed, Locked, NoSpace, Busy or ServerFailure when the upload would."""
    where = shown(wish.path)
    if answer.status >= 500 and answer.status != 501:
        wait_s = retry_after_s(answer.headers.get("retry-after"), now_s=time.time())
        raise refused("PUT", answer.status, where, retry_after_s=wait_s)
    if answer.status in _ABSENT:
        if wish.if_match is not None:
            raise PreconditionFailed(f"PUT {where}: it is gone on the server", status=412)
        _check_folder(share, wish, answer.parent)
    elif answer.status == 207:
        _check_properties(_entry(share, wish.path, answer.body), wish, answer.body)
    elif 200 <= answer.status < 300:
        _check_version(ETag.parse(answer.headers.get("etag")), wish)


def allows_new(share: Share, wish: UploadWish, folder: PreflightAnswer) -> bool:
    """Whether its folder is there, and has room."""
    try:
        _check_folder(share, wish, folder)
    except ServerRefused:
        return False
    return folder.status == 207


def _check_folder(share: Share, wish: UploadWish, answer: PreflightAnswer | None) -> None:
    """A new file needs a folder, which knows the quota (RFC 4331 speaks of collections)."""
    where = shown(wish.path)
    if answer is None:
        return
    if answer.status in _ABSENT:
        raise ParentMissing(f"PUT {where}: its folder is gone on the server", status=409)
    entry = _entry(share, wish.path.parent, answer.body) if answer.status == 207 else None
    if entry is not None and entry.is_ok:
        _check_room(entry.quota, wish.size_bytes, where)


def _check_room(quota: Quota, wanted_bytes: int, where: str) -> None:
    free_bytes = quota.available_bytes
    if free_bytes is not None and wanted_bytes > free_bytes:
        raise NoSpace(f"PUT {where}: the server has {free_bytes} bytes left", status=507)


def _entry(share: Share, path: DavPath, body: bytes) -> Entry | None:
    document = Multistatus()
    try:
        entries = [*document.feed(body), *document.close()]
    except ProtocolError:
        return None
    return sole_entry(entries, share, path)


def _check_properties(entry: Entry | None, wish: UploadWish, body: bytes) -> None:
    where = shown(wish.path)
    if entry is None:
        return
    if entry.status in _ABSENT:
        if wish.if_match is not None:
            raise PreconditionFailed(f"PUT {where}: it is gone on the server", status=412)
        return
    if not entry.is_ok:
        return
    if _LOCKED.search(body) and not _is_ours(wish, body):
        raise Locked(f"PUT {where}: it is locked on the server", status=423)
    _check_version(entry.resource.etag, wish)
    _check_room(entry.quota, wish.size_bytes - (entry.resource.size_bytes or 0), where)


def _is_ours(wish: UploadWish, body: bytes) -> bool:
    """With a token of ours the lock is taken for ours, unless the answer shows others only."""
    if wish.lock_token is None:
        return False
    tokens = [lock.token for lock in active_locks(body)]
    return wish.lock_token in tokens or None in tokens  # sabre/dav 1.8 shows no tokens


def _check_version(found: ETag | None, wish: UploadWish) -> None:
    """Tags are compared without W/: Apache's lose it after two seconds (servers.md 10)."""
    where = shown(wish.path)
    if wish.if_none_match:
        raise PreconditionFailed(f"PUT {where}: it exists on the server", status=412)
    if wish.if_match is not None and found is not None and found.opaque != wish.if_match.opaque:
        raise PreconditionFailed(f"PUT {where}: it changed on the server", status=412)
