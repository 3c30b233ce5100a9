"""The fixtures of the suite: `drive`, an empty folder on each server in turn; `stage`, all there is of it.

A test is one feature (`@pytest.mark.feature("what a person can do")`); with parameters, one for each of
them. Where `limits` names the feature for the server, the call must fail with that errno.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.contract import matrix
from tests.contract.candidates import Candidate, Place, chosen, is_address_given
from tests.contract.limits import Otherwise
from tests.contract.stage import Drive, Stage
from tests.servers import MissingPart


@dataclass
class _Session:
    """All servers of this session. They are started in a row, their mounts at the same time."""

    stack: ExitStack = field(default_factory=ExitStack)
    stages: dict[str, Stage] = field(default_factory=dict)
    missing: dict[str, MissingPart] = field(default_factory=dict)
    threads: dict[str, threading.Thread] = field(default_factory=dict)

    def begin(self, candidate: Candidate, factory: pytest.TempPathFactory) -> None:
        try:
            place: Place = self.stack.enter_context(candidate.place())
        except MissingPart as part:
            self.missing[candidate.name] = part
            return

        def folder() -> Path:
            return factory.mktemp(f"contract-{candidate.name}")

        stage = self.stages[candidate.name] = Stage(candidate, place, folder)
        self.threads[candidate.name] = threading.Thread(target=stage.start)

    def end(self) -> None:
        """All mounts end at the same time: each has a listing or two to save."""
        with self.stack, ThreadPoolExecutor() as pool:
            for thread in self.threads.values():
                thread.join()
            for done in [pool.submit(stage.close) for stage in self.stages.values()]:
                done.result()


@pytest.fixture(scope="session")
def _session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Session]:
    wanted = {
        item.callspec.params["stage"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and "stage" in item.callspec.params
    }
    session = _Session()
    try:
        for candidate in chosen():
            if candidate.name in wanted:
                session.begin(candidate, tmp_path_factory)
        for thread in session.threads.values():
            thread.start()
        yield session
    finally:
        session.end()


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest, _session: _Session) -> Stage:
    """One server in turn."""
    if request.param in _session.missing:
        pytest.skip(str(_session.missing[request.param]))
    _session.threads[request.param].join()
    return _session.stages[request.param]


@pytest.fixture
def drive(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Drive]:
    """A new, empty folder of the mount."""
    seen = len(stage.complaints())
    one = stage.drive()
    yield one
    one.close_driver()
    announced = [mark.args[0] for mark in request.node.iter_markers("expects_warning")]
    _check_log(stage, seen, announced)


def _check_log(stage: Stage, seen: int, announced: list[str]) -> None:
    expected = (*stage.candidate.logs, *announced)
    surprises = [line for line in stage.complaints()[seen:] if not any(text in line for text in expected)]
    if surprises:
        pytest.fail("the daemon warned:\n" + "\n".join(surprises[:20]))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "stage" in metafunc.fixturenames:
        names = [candidate.name for candidate in chosen()]
        metafunc.parametrize("stage", names, indirect=True, scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The table is looked at when all the others were run, and not at all for a server that is not in it."""
    here = Path(__file__).parent
    if is_address_given():
        items[:] = [
            item for item in items if item.path not in (here / "test_matrix.py", here / "test_address.py")
        ]
    items.sort(key=lambda item: item.path == here / "test_matrix.py")


def _word(error: OSError | Otherwise) -> str:
    if isinstance(error, OSError):
        return errno.errorcode[error.errno or 0].replace("ENOTSUP", "EOPNOTSUPP")  # Linux has one for both
    return str(error)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Holds the table of limits true: the errno, and that the limit is still one."""
    feature = matrix.feature_of(pyfuncitem)
    if feature is None:
        return (yield)
    stage = pyfuncitem.funcargs["stage"]
    assert isinstance(stage, Stage)
    candidate = stage.candidate
    limit = candidate.limits.get(feature)
    try:
        result = yield
    except (OSError, Otherwise) as error:
        if limit is None or _word(error) != limit.word:
            raise
        matrix.note(candidate.name, feature, limit.word)
        return True
    if limit is not None:
        pytest.fail(f"{candidate.title} can do it after all: take {feature!r} out of limits.py")
    matrix.note(candidate.name, feature, matrix.WORKS)
    return result
