"""The body of an upload: its bytes, and its digest, which large ones only get when an answer did not come."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from davfs.fs.body import FileBody
from davfs.fs.content import FORK_MAX, new_digest

LARGE = FORK_MAX + 5


@contextmanager
def body_of(path: Path, size: int) -> Iterator[FileBody]:
    with path.open("wb") as sink:
        sink.write(b"begin")
        sink.truncate(size)
    with path.open("rb") as file:
        yield FileBody(file.fileno(), size)


async def test_a_small_body_is_summed_up_while_it_is_read(tmp_path: Path) -> None:
    """It may be forked and changed at any time: when its last piece is out, its digest is known."""
    with body_of(tmp_path / "f", 300_000) as body:
        assert body.fd is None
        data = b"".join([piece async for piece in body])
        assert body.is_out
        assert body.digest == new_digest(data).digest()


async def test_a_large_body_is_summed_up_when_it_is_asked_for(tmp_path: Path) -> None:
    """The kernel may send it; until all of it is out there is nothing that could have been stored."""
    with body_of(tmp_path / "f", LARGE) as body:
        assert body.fd == body.file
        body.sent_up_to(LARGE - 1)
        await body.sum_up()
        assert (body.is_out, body.digest) == (False, None)
        body.sent_up_to(LARGE)
        await body.sum_up()
        assert body.digest == new_digest((tmp_path / "f").read_bytes()).digest()


async def test_a_cancelled_upload_still_knows_what_it_sent(tmp_path: Path) -> None:
    """A program is about to write to the file: the digest is made before it may."""
    with body_of(tmp_path / "f", LARGE) as body:
        body.sent_up_to(LARGE)
        with trio.CancelScope() as scope:
            scope.cancel()
            await body.sum_up()
        assert body.digest is not None


async def test_a_file_that_cannot_be_read_has_no_digest(tmp_path: Path) -> None:
    """The failure of the upload is told, not that of the disk, and the outcome stays unknown."""
    with body_of(tmp_path / "f", LARGE) as body:
        body.sent_up_to(LARGE)
        os.truncate(tmp_path / "f", 10)
        await body.sum_up()
        assert body.digest is None
