"""The suite on an address that a person gives: a server of which nothing is known."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import Lighttpd, Server


@pytest.mark.timeout(300)
def test_any_address(tmp_path: Path) -> None:
    """With DAVFS_CONTRACT_URL and an account it runs there, in a folder of its own, and leaves nothing."""
    with Lighttpd(username="me", password="a secret") as server, server.share() as share:
        found = _run(server, share.url, tmp_path, "tests/contract/test_attributes.py")
        assert found.returncode == 0, found.stdout[-4000:]
        assert " passed" in found.stdout
        wrong = _run(server, f"{share.url}none/", tmp_path, "tests/contract/test_attributes.py", "-x")
        assert wrong.returncode != 0
        assert list(share.root.iterdir()) == []


def _run(server: Server, url: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    given = {"URL": url, "USER": server.username or "", "PASSWORD": server.password or ""}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--basetemp={folder}/inner",
            *words,
        ],
        env=os.environ | {f"DAVFS_CONTRACT_{name}": value for name, value in given.items()},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
