"""Fixtures and rules for all tiers.

Fixtures: `apache`, `nginx`, `wsgidav` (one server process each per session); `share` (a fresh folder on
each of the three, so that a test runs three times); `apache_share`, `nginx_share`, `wsgidav_share`. Further
servers, not part of `share`: `rclone`, `rclone_share`; `locking_share` is a folder on each server that has
locks, sabre/dav and lighttpd among them.

Rules, for every test:
- A skip means that a part is missing on this machine. The end of the run lists them; with
  DAVFS_REQUIRE_ALL=1 they are failures.
- A WARNING or worse from davfs fails the test, unless announced: `@pytest.mark.expects_warning("text")`.
- No process and no mount that the tests started may outlive the session.
"""

from __future__ import annotations

import logging
import os
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from tests import leaks, threads
from tests.servers import Apache, Lighttpd, MissingPart, Nginx, Rclone, SabreDav, Server, Share, WsgiDav

_HERE = Path(__file__).parent
_TIERS = {"fakes", "unit", "property", "protocol", "faults", "mount", "tools", "packaging", "contract"}
_SERVERS: dict[str, type[Server]] = {"apache": Apache, "nginx": Nginx, "wsgidav": WsgiDav}
_FURTHER: dict[str, type[Server]] = {"lighttpd": Lighttpd, "rclone": Rclone, "sabredav": SabreDav}
_missing: dict[str, int] = {}  # reason -> number of tests that wanted it
_leaked: list[str] = []
_mounts_before: set[str] = set()

# A loaded two-core machine is slow at times, which says nothing of the property: no deadline per example.
# The same examples each time: a run tells of the change that is tested and not of its luck. To search for new
# ones: DAVFS_HYPOTHESIS=search, or thorough.
settings.register_profile(
    "davfs",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "search",
    settings.get_profile("davfs"),
    derandomize=False,
    database=DirectoryBasedExampleDatabase(".hypothesis"),
)
settings.register_profile("thorough", settings.get_profile("search"), max_examples=2000)
_PROFILE = os.environ.get("DAVFS_HYPOTHESIS", "davfs")
settings.load_profile(_PROFILE)


def _all_required() -> bool:
    return os.environ.get("DAVFS_REQUIRE_ALL") == "1"


@pytest.fixture(scope="session", autouse=True)
def _clocks_wait_for_threads() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio.to_thread, "run_sync", threads.run_sync)
        yield


@pytest.fixture(autouse=True)
def _same_order_of_tasks() -> None:
    """trio runs what may run in a random order: here in the same one each time, but in a search."""
    if _PROFILE == "davfs" and os.environ.get("DAVFS_SOAK") != "1":
        trio._core._run._r.seed(4)


# --- servers --------------------------------------------------------------------------------------


def _served(name: str) -> Iterator[Server]:
    try:
        server = (_SERVERS | _FURTHER)[name]()
    except MissingPart as part:
        pytest.skip(str(part))
    with server:
        yield server


@pytest.fixture(scope="session")
def apache() -> Iterator[Server]:
    yield from _served("apache")


@pytest.fixture(scope="session")
def nginx() -> Iterator[Server]:
    yield from _served("nginx")


@pytest.fixture(scope="session")
def wsgidav() -> Iterator[Server]:
    yield from _served("wsgidav")


@pytest.fixture(scope="session")
def rclone() -> Iterator[Server]:
    yield from _served("rclone")


@pytest.fixture(scope="session")
def lighttpd() -> Iterator[Server]:
    yield from _served("lighttpd")


@pytest.fixture(scope="session")
def sabredav() -> Iterator[Server]:
    yield from _served("sabredav")


@pytest.fixture(params=sorted(_SERVERS))
def share(request: pytest.FixtureRequest) -> Iterator[Share]:
    """A fresh, empty folder on each real server in turn."""
    server: Server = request.getfixturevalue(request.param)
    with server.share() as one:
        yield one


@pytest.fixture(params=sorted(_SERVERS | _FURTHER))
def locking_share(request: pytest.FixtureRequest) -> Iterator[Share]:
    """A fresh, empty folder on each real server with locks in turn: all that can be started."""
    server: Server = request.getfixturevalue(request.param)
    with server.share() as one:
        yield one


@pytest.fixture
def apache_share(apache: Server) -> Iterator[Share]:
    with apache.share() as one:
        yield one


@pytest.fixture
def nginx_share(nginx: Server) -> Iterator[Share]:
    with nginx.share() as one:
        yield one


@pytest.fixture
def wsgidav_share(wsgidav: Server) -> Iterator[Share]:
    with wsgidav.share() as one:
        yield one


@pytest.fixture
def rclone_share(rclone: Server) -> Iterator[Share]:
    with rclone.share() as one:
        yield one


# --- tiers ----------------------------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        tier = item.path.relative_to(_HERE).parts[0]
        if tier in _TIERS:
            item.add_marker(tier)


# --- no warning that nobody announced -------------------------------------------------------------


@pytest.fixture(autouse=True)
def _quiet_log(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails the test when davfs logged a warning that it did not announce."""
    yield
    announced = [mark.args[0] for mark in request.node.iter_markers("expects_warning")]
    surprises = [
        f"{record.levelname} {record.name}: {record.getMessage()}"
        for record in caplog.get_records("call")
        if record.levelno >= logging.WARNING
        and record.name.split(".")[0] == "davfs"
        and not any(text in record.getMessage() for text in announced)
    ]
    if surprises:
        pytest.fail("davfs warned, and the test did not announce it:\n" + "\n".join(surprises), pytrace=False)


# --- loud skips -----------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """A test that starts a server of its own needs no skip of its own."""
    try:
        return (yield)
    except MissingPart as part:
        pytest.skip(str(part))


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(report.longrepr)


def _count_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Notes a skip, and makes it a failure when everything is required."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = _reason(report)
    _missing[reason] = _missing.get(reason, 0) + 1
    if _all_required():
        report.outcome = "failed"
        report.longrepr = f"missing, and DAVFS_REQUIRE_ALL=1: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _count_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _count_skip(report)
    return report


# --- nothing outlives the session ------------------------------------------------------------------


def pytest_sessionstart() -> None:
    os.environ[leaks.SESSION_VARIABLE] = uuid.uuid4().hex
    _as_on_any_machine()
    _mounts_before.update(leaks.mounts())


def _as_on_any_machine() -> None:
    """What the tests compare is the same for whoever runs them: words of programs, modes, no proxy."""
    os.environ["LC_ALL"] = "C.UTF-8"
    os.environ.pop("LANGUAGE", None)
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost,::1"
    os.umask(0o022)


def _is_ours(place: str, session: pytest.Session) -> bool:
    """Whether this session made the mount: other sessions and other people mount at the same time.

    Ours are below pytest's folder, or below one of `leaks.folder`; and a daemon of ours is a process left
    behind, wherever its mount is.
    """
    factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    return place.startswith((f"{factory.getbasetemp()}/", f"{tempfile.gettempdir()}/{leaks.prefix()}"))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    _leaked.extend(f"process {process}" for process in leaks.processes())
    _leaked.extend(
        f"mount {place}" for place in sorted(leaks.mounts() - _mounts_before) if _is_ours(place, session)
    )
    if _leaked and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _leaked:
        terminalreporter.section("left behind by these tests", red=True)
        for line in _leaked:
            terminalreporter.line(line)
    if _missing:
        terminalreporter.section("missing on this machine, not tested", yellow=True)
        for reason, count in sorted(_missing.items()):
            terminalreporter.line(f"{count:4d} x {reason}")
    _tell_script()


def _tell_script() -> None:
    """scripts/test runs several tiers and lists at its end what was missing in any of them."""
    target = os.environ.get("DAVFS_MISSING_FILE")
    if target and _missing:
        with Path(target).open("a") as sink:
            sink.writelines(f"{reason}\n" for reason in _missing)
