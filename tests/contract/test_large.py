"""A large file, and the memory that it takes: 16 MiB in the ordinary run, 2 GiB with DAVFS_SOAK=1."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.contract.stage import Drive, Stage

SIZE: Final = 2 << 30 if os.environ.get("DAVFS_SOAK") == "1" else 16 << 20
MEMORY_MAX_BYTES: Final = 120 << 20
MANY_S: Final = 900.0


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A file that does not repeat itself, and its SHA-256."""
    path = tmp_path_factory.mktemp("large") / "large"
    summed = hashlib.sha256()
    block = bytearray(os.urandom(1 << 20))
    with path.open("wb") as sink:
        for number in range(SIZE >> 20):
            block[:8] = number.to_bytes(8, "big")
            sink.write(block)
            summed.update(block)
    yield path, summed.hexdigest()
    path.unlink()


@pytest.mark.feature("a large file, with little memory")
@pytest.mark.timeout(2 * MANY_S)
def test_a_large_file(stage: Stage, drive: Drive, large: tuple[Path, str]) -> None:
    """It arrives whole, another mount reads it whole, and neither daemon takes more than 120 MB."""
    path, digest = large
    begin_s = time.monotonic()
    drive.run(["dd", f"if={path}", "of=large", "bs=1M", "conv=fsync", "status=none"], timeout_s=MANY_S)
    written_s = time.monotonic() - begin_s
    assert drive.stat("large").size == SIZE
    other = stage.elsewhere(drive)
    begin_s = time.monotonic()
    found = other.run(["sha256sum", "large"], timeout_s=MANY_S).split()[0]
    read_s = time.monotonic() - begin_s
    peaks = [one.mount.peak_bytes() for one in (drive, other)]
    sys.stdout.write(
        f"\n{stage.candidate.title}: {SIZE >> 20} MiB written in {written_s:.0f} s, read in {read_s:.0f} s;"
        f" peaks {peaks[0] >> 20} MB and {peaks[1] >> 20} MB\n"
    )
    drive.unlink("large")
    assert found == digest
    assert max(peaks) < MEMORY_MAX_BYTES
