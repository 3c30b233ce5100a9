"""Fixtures of the mount tier: `drive` (both drivers), `kernel` (a real mount only), `mount_of` (its own
mount).

One mount per server serves the whole session, and each test gets a fresh folder in it: a mount takes a
second to start, and there are hundreds of tests. A test that counts requests, sets options or kills the
daemon makes its own with `mount_of`. What the daemon logged as a warning during a test fails that test,
unless announced with `expects_warning`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from davfs.fs.settings import Settings
from tests.mount.drivers import DirectDriver, Driver, KernelDriver, Mount, mounted
from tests.servers import Server, Share

MountOf: TypeAlias = Callable[..., KernelDriver]

SERVERS = ("apache", "nginx", "wsgidav")
ATTR_TIMEOUT_S = 1.0  # of the shared mounts: what another client changed is then seen after a second


class _SharedMounts:
    """One mount per server, made at first use, and made again when a test took it down."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._folder = folder
        self._mounts: dict[str, tuple[Mount, Share]] = {}
        self._stack = ExitStack()

    def on(self, server: Server) -> tuple[Mount, Share]:
        known = self._mounts.get(server.name)
        if known is not None and known[0].process.poll() is None:
            return known
        share = known[1] if known is not None else self._stack.enter_context(server.share())
        mount = Mount(share.url, self._folder(), attr_timeout=ATTR_TIMEOUT_S)
        self._mounts[server.name] = (mount, share)
        return mount, share

    def close(self) -> None:
        with self._stack, ExitStack() as stack:
            for mount, _ in self._mounts.values():
                stack.callback(mount.close)


@pytest.fixture(scope="session")
def shared_mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_SharedMounts]:
    mounts = _SharedMounts(lambda: tmp_path_factory.mktemp("mount"))
    yield mounts
    mounts.close()


def _announced(request: pytest.FixtureRequest) -> list[str]:
    return [mark.args[0] for mark in request.node.iter_markers("expects_warning")]


def _check_log(mount: Mount, seen: int, request: pytest.FixtureRequest) -> None:
    surprises = [
        line for line in mount.complaints()[seen:] if not any(text in line for text in _announced(request))
    ]
    if surprises:
        pytest.fail("the daemon warned, and the test did not announce it:\n" + "\n".join(surprises[:20]))


def _on_shared_mount(server: str, request: pytest.FixtureRequest) -> Iterator[KernelDriver]:
    mounts: _SharedMounts = request.getfixturevalue("shared_mounts")
    mount, share = mounts.on(request.getfixturevalue(server))
    base = uuid.uuid4().hex[:8]
    seen = len(mount.complaints())
    driver = KernelDriver(mount, share.root / base, base)
    try:
        driver.mkdir("")
        yield driver
    finally:
        driver.close_driver()
    _check_log(mount, seen, request)


def _direct(share: Share, tmp_path: Path) -> Iterator[DirectDriver]:
    settings = Settings(
        cache_dir=str(tmp_path / "direct-cache"),
        attr_timeout_min_s=ATTR_TIMEOUT_S,
        attr_timeout_max_s=ATTR_TIMEOUT_S,
    )
    driver = DirectDriver(share.url, share.root, settings)
    try:
        yield driver
    finally:
        driver.close_driver()


@pytest.fixture(params=["direct-wsgidav", *(f"kernel-{name}" for name in SERVERS)])
def drive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    """An empty folder of a share: through Filesystem alone, and through a real mount on each server."""
    kind, _, server = str(request.param).partition("-")
    if kind == "direct":
        yield from _direct(request.getfixturevalue(f"{server}_share"), tmp_path)
    else:
        yield from _on_shared_mount(server, request)


@pytest.fixture(params=SERVERS)
def kernel(request: pytest.FixtureRequest) -> Iterator[KernelDriver]:
    """An empty folder in a real mount, on each server in turn."""
    yield from _on_shared_mount(str(request.param), request)


@pytest.fixture
def kernel_apache(request: pytest.FixtureRequest) -> Iterator[KernelDriver]:
    """An empty folder in a real mount of Apache, for what does not depend on the server."""
    yield from _on_shared_mount("apache", request)


@pytest.fixture
def mount_of(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MountOf]:
    """Makes a mount of a share with options of its own; all end with the test."""
    with ExitStack() as stack:
        drivers: list[KernelDriver] = []

        def make(share: Share, *, url: str | None = None, **options: Any) -> KernelDriver:
            folder = tmp_path / f"mount{len(drivers)}"
            driver = stack.enter_context(mounted(url or share.url, folder, share.root, **options))
            drivers.append(driver)
            return driver

        yield make
    for driver in drivers:
        _check_log(driver.mount, 0, request)
