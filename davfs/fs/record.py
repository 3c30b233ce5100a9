"""What a data file says of itself: the journal row of an unsent content, small enough for an attribute. Pure.

The index is the journal; the record is what the journal can be made from again when the index is damaged,
lost, or older than the files. `revision` counts the commits of a row: a record with a higher one than its row
is of a commit that the index has lost. Size and mtime are those of the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from davfs.dav.resource import ETag, Validator
from davfs.fs.index import ContentRow

VERSION: Final = 1
_SUM_BYTES: Final = 8
# version, flags, ino, generation, base_size, written, sent, acked, revision, mode, mtime_s, validator_size
_HEAD: Final = struct.Struct("<BBQIQQQQQiqq")
_LENGTH: Final = struct.Struct("<I")
_UNKNOWN, _BASE, _SOURCE, _TAG, _WEAK, _PARTIAL, _OWN, _DIGEST = (1 << bit for bit in range(8))


@dataclass(frozen=True, slots=True)
class Record:
    row: ContentRow  # `id` and `size` are those of the file, which this does not know: 0
    mode: int | None


def encode(row: ContentRow, mode: int | None) -> bytes:
    source = row.source
    etag = source.etag if source is not None else None
    flags = (
        (row.unknown and _UNKNOWN)
        | (row.base is not None and _BASE)
        | (source is not None and _SOURCE)
        | (etag is not None and _TAG)
        | (etag is not None and etag.weak and _WEAK)
        | (row.present is not None and _PARTIAL)
        | (row.own is not None and _OWN)
        | (row.base_digest is not None and _DIGEST)
    )
    head = _HEAD.pack(
        VERSION,
        flags,
        row.ino,
        row.generation,
        row.base_size,
        row.written,
        row.sent,
        row.acked,
        row.revision,
        -1 if mode is None else mode,
        _or_less(source.mtime_s if source is not None else None),
        _or_less(source.size_bytes if source is not None else None),
    )
    tag = etag.opaque.encode("utf-8", "surrogateescape") if etag is not None else b""
    parts = (row.path, tag, row.present or b"", row.own or b"", row.unanswered, row.base_digest or b"")
    body = head + b"".join(_LENGTH.pack(len(part)) + part for part in parts)
    return body + blake2b(body, digest_size=_SUM_BYTES).digest()


def decode(raw: bytes) -> Record:
    """Raises ValueError on bytes that `encode` cannot have written."""
    body = raw[:-_SUM_BYTES]
    if (
        len(raw) < _HEAD.size + _SUM_BYTES
        or blake2b(body, digest_size=_SUM_BYTES).digest() != raw[-_SUM_BYTES:]
    ):
        raise ValueError("the record is damaged")
    version, flags, ino, generation, base_size, written, sent, acked, revision, mode, mtime_s, size = (
        _HEAD.unpack_from(body)
    )
    if version != VERSION:
        raise ValueError(f"a record of format {version}")
    path, tag, present, own, unanswered, digest = _parts(body[_HEAD.size :])
    etag = ETag(tag.decode("utf-8", "surrogateescape"), bool(flags & _WEAK)) if flags & _TAG else None
    source = Validator(etag, _or_none(mtime_s), _or_none(size)) if flags & _SOURCE else None
    row = ContentRow(
        id=0,
        ino=ino,
        path=path,
        generation=generation,
        size=0,
        base_size=base_size,
        present=present if flags & _PARTIAL else None,
        base=source if flags & _BASE else None,
        written=written,
        sent=sent,
        acked=acked,
        unknown=bool(flags & _UNKNOWN),
        unanswered=unanswered,
        own=own if flags & _OWN else None,
        source=source,
        base_digest=digest if flags & _DIGEST else None,
        revision=revision,
    )
    return Record(row, None if mode < 0 else mode)


def _parts(raw: bytes) -> list[bytes]:
    parts, at = [], 0
    while at + _LENGTH.size <= len(raw):
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        parts.append(raw[at : at + length])
        at += length
    if len(parts) != 6 or at != len(raw):
        raise ValueError("the record is damaged")
    return parts


def _or_less(value: int | None) -> int:
    return -(1 << 63) if value is None else value


def _or_none(value: int) -> int | None:
    return None if value == -(1 << 63) else value
