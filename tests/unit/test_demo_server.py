"""The demo's server: it answers, shares its samples, and dies with its starter."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import httpx

from davfs.demo import SAMPLES, DemoServer, fill


def test_the_samples_are_served_and_can_be_changed(tmp_path: Path) -> None:
    """PROPFIND, GET and PUT work without credentials; `stop` ends the process."""
    fill(tmp_path)
    server = DemoServer(tmp_path)
    try:
        with httpx.Client(base_url=server.url, trust_env=False) as http:
            assert http.request("PROPFIND", "/", headers={"Depth": "1"}).status_code == 207
            assert http.get("/data/planets.csv").text == SAMPLES["data/planets.csv"]
            assert http.put("/new.txt", content=b"x").status_code == 201
    finally:
        server.stop()
    assert (tmp_path / "new.txt").read_bytes() == b"x"
    assert server._process.returncode is not None


def test_a_folder_with_content_is_left_as_it_is(tmp_path: Path) -> None:
    """Samples go only into an empty folder."""
    (tmp_path / "mine").touch()
    fill(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_server_dies_with_its_starter(tmp_path: Path) -> None:
    """Even kill -9 of the demo leaves no server behind."""
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom davfs.demo import DemoServer\n"
        f"server = DemoServer(Path({str(tmp_path)!r}))\n"
        "print(server._process.pid, flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text("ascii")
    except OSError:
        return False
