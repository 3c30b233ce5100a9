"""Programs whose purpose is to find a wrong byte: our fsx, and fio with verification."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.mount.drivers import KernelDriver

FSX = str(Path(__file__).with_name("fsx.py"))


def test_fsx_finds_a_wrong_byte(tmp_path: Path) -> None:
    """The exerciser itself: it passes on a real file system, and sees a change behind its back."""
    from tests.tools.fsx import Exerciser, Mismatch

    target = tmp_path / "file"
    Exerciser(str(target), seed=1, length=100_000, use_mmap=True).run(500)
    broken = Exerciser(str(target), seed=2, length=100_000, use_mmap=True)
    broken.exercise(20)
    broken.copy[:5] = b"WRONG"
    with pytest.raises(Mismatch, match="operation"):
        broken.run(500)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mmap", ["mmap", "no-mmap"])
def test_fsx(kernel_apache: KernelDriver, mmap: str) -> None:
    """10,000 operations on a mount of Apache, with and without mapped ones: no mismatch, and the same on
    the server.
    """
    options = [] if mmap == "mmap" else ["--no-mmap"]
    operations = 10_000 if mmap == "mmap" else 3_000
    said = kernel_apache.run(
        [sys.executable, FSX, "--operations", str(operations), "--seed", "7", *options, "file"], timeout_s=240
    )
    assert "no mismatch" in said
    shown = kernel_apache.read_file("file")
    assert kernel_apache.sync() == 0
    assert (kernel_apache.disk / "file").read_bytes() == shown


@pytest.mark.timeout(300)
def test_fsx_on_other_servers(kernel: KernelDriver) -> None:
    """500 operations on each server."""
    said = kernel.run([sys.executable, FSX, "--operations", "500", "--seed", "11", "file"], timeout_s=100)
    assert "no mismatch" in said
    assert kernel.sync() == 0
    assert (kernel.disk / "file").read_bytes() == kernel.read_file("file")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("pattern", ["rw=write", "rw=randwrite", "rw=randrw", "rw=randwrite ioengine=mmap"])
def test_fio_verifies(kernel_apache: KernelDriver, pattern: str) -> None:
    """fio writes blocks with checksums in them and reads them back: no error."""
    if shutil.which("fio") is None:
        pytest.skip("fio (Debian package fio)")
    job = [
        "fio", "--name=job", "--filename=data", "--size=16m", "--bsrange=4k-64k", "--verify=crc32c",
        "--verify_fatal=1", "--do_verify=1", "--end_fsync=1", "--randseed=1", "--output-format=json",
        "--thread", *(f"--{word}" for word in pattern.split()),
    ]  # fmt: skip
    said = kernel_apache.run(job, timeout_s=200)
    report = json.loads(said[said.index("{") :])
    assert [job["error"] for job in report["jobs"]] == [0]
    assert kernel_apache.sync() == 0
    assert (kernel_apache.disk / "data").read_bytes() == kernel_apache.read_file("data")
