"""The Debian package, built once for all tests that install it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def package() -> Path:
    """`scripts/build-deb`'s."""
    built = subprocess.run(
        ["scripts/build-deb"], cwd=REPO, capture_output=True, text=True, timeout=500, check=False
    )
    assert built.returncode == 0, built.stderr
    return REPO / built.stdout.strip()
