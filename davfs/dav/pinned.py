"""One GET: the range that is asked for, the check that the answer is about it, and the bytes.

Promise 4 lives here: a Download never delivers bytes of another version, range or length than announced.
What can be seen in the head of the answer is refused before any byte (`checked_answer`, pure); what only the
body shows (too short, too long) ends the iteration with an error. Servers lie in all the ways checked
(servers.md 38): 206 for another range, past the end, with nothing in it, with several parts.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

from davfs.dav.dates import parse_date
from davfs.dav.resource import ETag, Validator
from davfs.dav.wire import Incoming, deadline
from davfs.errors import Disconnected, ProtocolError, StaleVersion

_CONTENT_RANGE: Final = re.compile(r"bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class RangeRequest:
    """Bytes [start, end) of the version `expected`; end None: to the end."""

    start: int
    end: int | None
    expected: Validator

    @classmethod
    def clamped(cls, start: int, end: int | None, expected: Validator | None) -> RangeRequest:
        """Cut to the known size: ASGIWebDAV answers 416 to an end past it. ValueError for an empty range."""
        expected = expected or Validator()
        size = expected.size_bytes
        if end is not None and size is not None:
            end = min(end, size)
        if start < 0 or (end is not None and end <= start and not (start == 0 and size == 0)):
            raise ValueError(f"not a range: {start}-{end} of {size}")
        return cls(start, end, expected)

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and (self.end is None or self.end == self.expected.size_bytes)

    def headers(self) -> dict[str, str]:
        """Range, pinned by If-Match where the tag is strong: a weak one never matches (RFC 9110 13.1.1)."""
        if self.is_whole:
            return {}
        last = "" if self.end is None else str(self.end - 1)
        headers = {"Range": f"bytes={self.start}-{last}"}
        if self.expected.if_match is not None:
            headers["If-Match"] = self.expected.if_match.header()
        return headers


@dataclass(frozen=True, slots=True)
class Answer:
    """What the head of an accepted GET answer promises."""

    start: int
    end: int | None  # one past the last byte; None: the body ends where it ends
    total_bytes: int | None
    validator: Validator
    ranged: bool
    proved: bool = True  # False: a part of a file, and nothing in the answer tells of which version


def checked_answer(
    status: int, headers: Mapping[str, str], wanted: RangeRequest, *, is_foreign: bool = False
) -> Answer:
    """Raises StaleVersion for another version, ProtocolError for an answer that contradicts the question.

    `is_foreign`: from object storage behind a redirect, whose tags and dates are not the share's.
    """
    if status == 416:
        raise _not_satisfiable(wanted)
    if status == 206:
        answer = _partial(headers, wanted)
    elif status in (200, 203, 204):
        answer = _whole(status, headers)
    else:
        raise ProtocolError(f"GET: the server answered {status}")
    validator = Validator(size_bytes=answer.total_bytes)
    if not is_foreign:
        etag, mtime_s = ETag.parse(headers.get("etag")), parse_date(headers.get("last-modified"))
        validator = Validator(etag, mtime_s, answer.total_bytes)
    _check_version(validator, wanted.expected)
    proved = is_foreign or not answer.ranged or _comparable(validator, wanted.expected)
    return Answer(answer.start, answer.end, answer.total_bytes, validator, answer.ranged, proved)


def _not_satisfiable(wanted: RangeRequest) -> Exception:
    size = wanted.expected.size_bytes
    if size is not None and wanted.start < size:
        return StaleVersion("the file on the server is shorter than it was")
    return ProtocolError("GET: the server has no such range")


def _length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else None


def _whole(status: int, headers: Mapping[str, str]) -> Answer:
    size = 0 if status == 204 else _length(headers)
    if size is None and headers.get("content-encoding", "identity").strip().lower() != "identity":
        # ASGIWebDAV compresses without a length; with a length (Apache's AddEncoding) it is the file itself
        raise ProtocolError("GET: the server compressed the content although that was not asked for")
    return Answer(0, size, size, Validator(), ranged=False)


def _partial(headers: Mapping[str, str], wanted: RangeRequest) -> Answer:
    text = headers.get("content-range", "")
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is None or wanted.is_whole:
        raise ProtocolError(f"GET: not the range that was asked for: {text[:80]!r}")
    start, end = int(found[1]), int(found[2]) + 1
    total = None if found[3] == "*" else int(found[3])
    length = _length(headers)
    past_wanted = wanted.end is not None and end > wanted.end
    past_total = total is not None and end > total
    is_other = start != wanted.start or end <= start or past_wanted or past_total
    if is_other or length not in (None, end - start):
        raise ProtocolError(f"GET: not the range that was asked for: {text[:80]!r}, {length} bytes")
    return Answer(start, end, total, Validator(), ranged=True)


def _comparable(found: Validator, expected: Validator) -> bool:
    """npm's webdav-server has tags in PROPFIND only, no dates, and `bytes 0-99/*`: a part tells nothing."""
    tags_known = found.etag is not None and expected.etag is not None
    return tags_known or (found.mtime_s is not None and expected.mtime_s is not None)


def _check_version(found: Validator, expected: Validator) -> None:
    """Tags are compared without W/: Apache's lose it after two seconds (servers.md 10)."""
    if found.etag is not None and expected.etag is not None and found.etag.opaque != expected.etag.opaque:
        raise StaleVersion("the file changed on the server")
    sizes_known = found.size_bytes is not None and expected.size_bytes is not None
    if sizes_known and found.size_bytes != expected.size_bytes:
        raise StaleVersion("the file changed its size on the server")
    tags_known = found.etag is not None and expected.etag is not None
    times_known = found.mtime_s is not None and expected.mtime_s is not None
    if not tags_known and times_known and found.mtime_s != expected.mtime_s:
        raise StaleVersion("the file changed its date on the server")


class Download:
    """One running GET. Iterate once; leaving early hangs up.

    Iteration raises Disconnected, TimedOut or ProtocolError when the body breaks, is short or is long,
    and StaleVersion when a body without a length turns out to be of another size than expected.
    """

    def __init__(
        self,
        answer: Answer,
        incoming: Incoming,
        expected: Validator,
        where: str,
        *,
        stall_s: float | None = None,
    ) -> None:
        self.start = answer.start
        self.end = answer.end
        self.total_bytes = answer.total_bytes
        self.validator = answer.validator
        self.ranged = answer.ranged
        self.proved = answer.proved
        self.checksum = None if answer.ranged else incoming.headers.get("oc-checksum")  # of the whole file
        self._incoming = incoming
        self._expected_end = expected.size_bytes
        self._where = where
        self._at = answer.start
        self._stall_s = stall_s  # where the connection itself has more patience

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._stall_s is None:
            piece = await self._incoming.receive_some()
        else:
            piece = await self._piece_in_time(self._stall_s)
        if piece is None:
            self._check_end()
            raise StopAsyncIteration
        self._at += len(piece)
        if self.end is not None and self._at > self.end:
            raise ProtocolError(f"GET {self._where}: more bytes than announced")
        if self.end is None and self._expected_end is not None and self._at > self._expected_end:
            raise StaleVersion(f"GET {self._where}: the file grew on the server")
        return piece

    async def _piece_in_time(self, stall_s: float) -> bytes | None:
        with deadline(stall_s, f"GET {self._where}"):
            return await self._incoming.receive_some()

    def _check_end(self) -> None:
        """A body without a length may have been cut: only a known size tells (RFC 9112 8)."""
        end = self.end if self.end is not None else self._expected_end
        if end is not None and self._at < end:
            raise Disconnected(f"GET {self._where}: {end - self._at} bytes are missing")
