"""What is sent to a Nextcloud while a program goes on writing: the newest bytes arrive in the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from trio.testing import MockClock

from davfs.fs import chunks, delivery
from tests.fakes.davserver import FakeDav
from tests.unit.fs.rig import rig


async def test_a_write_while_the_checksum_is_made_is_sent_too(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checksum is of what is sent; what was written meanwhile counts as unsent, and follows."""
    server = FakeDav(root="/")
    async with rig(server, tmp_path) as parts:
        parts.client.capabilities = replace(
            parts.client.capabilities,
            dav_classes=frozenset({"1", "3", "extended-mkcol", "nextcloud-checksum-update"}),
        )
        content = parts.new_file("file", b"first", delay_s=60)
        plain = chunks.checksum_of
        writes = [b"SECON"]

        async def with_a_writer(fd: int, size: int, kind: str) -> str:
            if writes:
                await content.prepare_write()
                content.write(0, writes.pop())
            return await plain(fd, size, kind)

        monkeypatch.setattr(delivery, "checksum_of", with_a_writer)
        assert await parts.uploads.drain(60) == 0
        assert server.content("file") == b"SECON"
        assert not content.dirty
