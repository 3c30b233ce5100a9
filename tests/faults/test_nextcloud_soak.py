"""Random work on a Nextcloud whose connections break and whose answers get lost: nothing is torn, or lost.

A few seconds in the ordinary run; `DAVFS_SOAK` sets the seconds of a long one, `DAVFS_SEED` the dice.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.fakes.nextcloud import PASSWORD, USER, Nextcloud, Refused
from tests.mount.drivers import KernelDriver, mounted
from tests.mount.test_scenarios import eventually

SECONDS = float(os.environ.get("DAVFS_SOAK", "6"))
SEED = int(os.environ.get("DAVFS_SEED", "1"))
SIZES = (0, 1, 5_000, 70_000, 400_000, 3_000_000)
LARGE = 22 << 20


class Trouble:
    """Faults with a probability each, thrown by one die; off at the end."""

    def __init__(self, cloud: Nextcloud, dice: random.Random) -> None:
        self._dice = dice
        self.on = True
        self.thrown = 0
        cloud.cut = lambda _path, _taken: self._happens(0.01)
        cloud.lose = lambda method, _path: method != "PROPFIND" and self._happens(0.04)
        cloud.before = self._status

    def _happens(self, chance: float) -> bool:
        happens = self.on and self._dice.random() < chance
        self.thrown += happens
        return happens

    def _status(self, method: str, _path: str) -> int | None:
        if method not in {"PUT", "MOVE", "MKCOL"} or not self._happens(0.04):
            return None
        return self._dice.choice((500, 502, 503, 504, 423))


def _check_server(cloud: Nextcloud, versions: dict[str, set[bytes]]) -> None:
    """Every file is one of the versions that was written to its name."""
    for name in cloud.names():
        try:
            content = cloud.content(name)
        except Refused:
            continue
        assert "conflict" not in name
        assert content in versions[name], f"{name} is torn: {len(content)} bytes"


def _write(drive: KernelDriver, dice: random.Random, versions: dict[str, set[bytes]]) -> tuple[str, bytes]:
    name = f"file{dice.randrange(5)}"
    size = LARGE if dice.random() < 0.06 else dice.choice(SIZES)
    data = dice.randbytes(min(size, 1000)) * (size // 1000 or 1)
    versions.setdefault(name, {b""}).add(data)
    if dice.random() < 0.4:
        temporary = f".{name}.tmp"
        versions.setdefault(temporary, {b""}).add(data)
        drive.write_file(temporary, data)
        drive.rename(temporary, name)
    else:
        drive.write_file(name, data)
    return name, data


@pytest.mark.expects_warning("")
@pytest.mark.timeout(SECONDS + 200)
def test_random_work_on_a_bad_line(tmp_path: Path) -> None:
    """Whatever breaks, the server shows whole versions only, and in the end the last ones."""
    dice = random.Random(SEED)
    versions: dict[str, set[bytes]] = {}
    last: dict[str, bytes] = {}
    with Nextcloud() as cloud:
        trouble = Trouble(cloud, random.Random(SEED + 1))
        trouble.on = False
        options = {"password": (USER, PASSWORD), "timeout": 3, "attr_timeout": 2}
        with mounted(cloud.url, tmp_path / "m", tmp_path, **options) as drive:
            trouble.on = True
            end_s = time.monotonic() + SECONDS
            while time.monotonic() < end_s:
                try:
                    name, data = _write(drive, dice, versions)
                except OSError:
                    continue  # a rename whose MOVE was refused
                last[name] = data
                _check_server(cloud, versions)
                time.sleep(dice.random() * 0.3)
            trouble.on = False
            eventually(lambda: drive.sync() == 0, 120)
            _check_server(cloud, versions)
            for name, data in last.items():
                assert drive.read_file(name) == data
                assert cloud.content(name) == data
            eventually(lambda: not cloud.uploads, 60)
        assert trouble.thrown
