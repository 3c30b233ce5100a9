"""The table of docs/SERVERS.md is what the run found. Runs last."""

from __future__ import annotations

import os

import pytest

from tests.contract import matrix
from tests.contract.candidates import CANDIDATES


def test_every_limit_is_a_feature(request: pytest.FixtureRequest) -> None:
    """A limit of something that no test asks for would never be found wrong."""
    asked = set(matrix.asked(request.session.items))
    for candidate in CANDIDATES:
        unknown = set(candidate.limits) - asked
        if matrix.is_whole(request.config):
            assert not unknown, candidate.name


def test_the_table_is_what_was_found(request: pytest.FixtureRequest) -> None:
    """Cell by cell, for all that ran; and the table has no row that is no feature."""
    found = matrix.found()
    asked = set(matrix.asked(request.session.items))
    whole = matrix.is_whole(request.config) and len(found) == len(CANDIDATES) * len(asked)
    if whole and os.environ.get("DAVFS_WRITE_DOCS") == "1":
        matrix.write("contract", matrix.rows())
        matrix.write("limits", matrix.reasons())
    published = matrix.published_cells()
    wrong = {cell: (published.get(cell), word) for cell, word in found.items() if published.get(cell) != word}
    assert not wrong, "DAVFS_WRITE_DOCS=1 writes it anew"
    assert matrix.published("limits") == matrix.reasons()
    if whole:
        assert matrix.published("contract") == matrix.rows()
