"""docs/SEMANTICS.md: every promise is numbered and names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from davfs.fs.states import State

_ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| (\d+) \| (.+) \| `([^`]+)` \|$", re.MULTILINE)
_PROMISES = _ROW.findall((_ROOT / "docs" / "SEMANTICS.md").read_text())


def test_promises_are_numbered_without_gaps() -> None:
    """A promise cannot be dropped without anybody noticing."""
    assert [int(number) for number, _, _ in _PROMISES] == list(range(1, len(_PROMISES) + 1))
    assert len(_PROMISES) >= 39


@pytest.mark.parametrize(("promise", "test"), [(promise, test) for _, promise, test in _PROMISES])
def test_a_promise_has_its_test(promise: str, test: str) -> None:
    """The test that a promise names is there."""
    file, _, name = test.partition("::")
    source = (_ROOT / file).read_text()
    assert re.search(rf"^(async )?def {re.escape(name)}\(", source, re.MULTILINE), promise


def test_the_states_are_those_of_the_program() -> None:
    """The table of states says what fs/states says."""
    table = [f"| `{state}` | {state.meaning} |" for state in State]
    lines = (_ROOT / "docs" / "SEMANTICS.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("| `")][: len(table)] == table
