"""A walk through a tree much larger than what is kept of it: complete, in bounded memory, at a flat cost.

10,000 files in the ordinary run; DAVFS_SOAK=1 makes it 1,000,000 in 10,000 folders, and prints what it took.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.drivers import KernelDriver, mounted

SOAK = os.environ.get("DAVFS_SOAK") == "1"
FOLDERS, FILES = (10_000, 100) if SOAK else (100, 100)
PEAK_BYTES = 400_000_000 if SOAK else 120_000_000
SAMPLE_FOLDERS = 100  # the first 10,000 files
_REPO = Path(__file__).parents[2]


@pytest.fixture
def url() -> Iterator[str]:
    """A server of FOLDERS folders with FILES files each."""
    program = [
        sys.executable,
        "-m",
        "tests.fakes.wide_tree",
        "--folders",
        str(FOLDERS),
        "--files",
        str(FILES),
    ]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=_REPO)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/"
    finally:
        process.kill()
        process.communicate()


def cpu_s(drive: KernelDriver) -> float:
    fields = Path(f"/proc/{drive.mount.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
@pytest.mark.timeout(3000 if SOAK else 120)
def test_a_wide_tree_is_walked_completely(url: str, tmp_path: Path) -> None:
    """find with the attributes of all: every name once, below 400 MB, the last file as cheap as the first."""
    with mounted(url, tmp_path / "drive", tmp_path) as drive:
        begun_s, begun_cpu_s = time.monotonic(), cpu_s(drive)
        first = drive.run(["sh", "-c", "find d000[0-9][0-9] -printf '%s\\n' | wc -l"])
        sample_cpu_s = cpu_s(drive) - begun_cpu_s
        sizes = drive.run(["sh", "-c", "find . -type f -printf '%s\\n' | sort -u | wc -l"], timeout_s=3000)
        whole_cpu_s = cpu_s(drive) - begun_cpu_s
        assert int(first) == SAMPLE_FOLDERS * (FILES + 1)
        assert int(sizes) == FOLDERS * FILES  # each has a size of its own
        peak = drive.mount.peak_bytes()
        of_first, of_all = sample_cpu_s / (SAMPLE_FOLDERS * FILES), whole_cpu_s / (FOLDERS * FILES)
        if SOAK:
            sys.stdout.write(
                f"{FOLDERS * FILES} files in {time.monotonic() - begun_s:.0f} s, peak {peak / 1e6:.0f} MB,"
                f" CPU per file {of_first * 1e6:.0f} us of the first 10,000, {of_all * 1e6:.0f} us of all\n"
            )
        assert peak < PEAK_BYTES
        assert of_all < 2 * of_first  # in the ordinary run they are the same files, once more
        assert not drive.mount.complaints()
