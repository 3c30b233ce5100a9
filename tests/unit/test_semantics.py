"""The tables of docs/SEMANTICS.md and docs/CONFLICTS.md: every row names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from davfs.fs.states import State

_ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| (\d+) \| (.+) \| `([^`]+)` \|$", re.MULTILINE)
_PROMISES = _ROW.findall((_ROOT / "docs" / "SEMANTICS.md").read_text())
_CONFLICTS = re.findall(
    r"^\| (.+) \| `([^`]+)` \|$", (_ROOT / "docs" / "CONFLICTS.md").read_text(), re.MULTILINE
)
_CONFLICT_TESTS = "tests/faults/test_conflicts.py"
_TEST = re.compile(r"((?:^@.+\n|^    .+\n|^\)\n)*)^async def (test_\w+)\(", re.MULTILINE)


def test_promises_are_numbered_without_gaps() -> None:
    """A promise cannot be dropped without anybody noticing."""
    assert [int(number) for number, _, _ in _PROMISES] == list(range(1, len(_PROMISES) + 1))
    assert len(_PROMISES) >= 39


@pytest.mark.parametrize(
    ("promise", "test"), [(promise, test) for _, promise, test in _PROMISES] + _CONFLICTS
)
def test_a_promise_has_its_test(promise: str, test: str) -> None:
    """The test that a promise names is there."""
    file, _, name = test.partition("::")
    source = (_ROOT / file).read_text()
    assert re.search(rf"^(async )?def {re.escape(name)}\(", source, re.MULTILINE), promise


def test_every_conflict_that_is_tested_is_in_the_table() -> None:
    """And those that do not hold yet say so there."""
    tested = {name: "xfail" in marks for marks, name in _TEST.findall((_ROOT / _CONFLICT_TESTS).read_text())}
    rows = {test.partition("::")[2]: row for row, test in _CONFLICTS if test.startswith(_CONFLICT_TESTS)}
    assert tested == {name: "not yet" in row for name, row in rows.items()}
    assert len(tested) >= 25


def test_the_states_are_those_of_the_program() -> None:
    """The table of states says what fs/states says."""
    table = [f"| `{state}` | {state.meaning} |" for state in State]
    lines = (_ROOT / "docs" / "SEMANTICS.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("| `")][: len(table)] == table
