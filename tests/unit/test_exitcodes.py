"""Which failure ends in which exit code."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from davfs import errors
from davfs.errors import refused
from davfs.exitcodes import (
    DaemonFailed,
    Exit,
    FuseUnavailable,
    MountPointError,
    NoDaemon,
    Unsent,
    exit_code_for,
    table,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("x"), 2),
        (MountPointError("x"), 3),
        (FuseUnavailable("x"), 4),
        (errors.Unreachable("x"), 5),
        (errors.TimedOut("x"), 5),
        (refused("PROPFIND", 401, "/"), 7),
        (refused("PROPFIND", 403, "/"), 7),
        (refused("PROPFIND", 404, "/"), 8),
        (refused("PROPFIND", 405, "/"), 8),
        (refused("PROPFIND", 501, "/"), 8),
        (errors.ProtocolError("x"), 8),
        (Unsent("x"), 9),
        (NoDaemon("x"), 10),
        (DaemonFailed("x", 7), 7),
        (refused("PROPFIND", 500, "/"), 1),
        (ValueError("x"), 1),
        (KeyboardInterrupt(), 130),
        (ExceptionGroup("", [ValueError(), ExceptionGroup("", [errors.Unreachable("x")])]), 5),
    ],
)
def test_each_failure_has_its_code(error: BaseException, code: int) -> None:
    """Scripts act on these numbers; also out of a nursery's group."""
    assert exit_code_for(error) == code


def test_a_tls_failure_is_told_apart() -> None:
    """An Unreachable that was caused by TLS is no matter of the network."""
    error = errors.Unreachable("x")
    error.__cause__ = OSError()
    error.__cause__.__context__ = ssl.SSLCertVerificationError()
    assert exit_code_for(error) == Exit.TLS


def test_the_table_lists_every_code_once() -> None:
    """The numbers of the help are those of the program."""
    assert [int(line.split()[0]) for line in table().splitlines()] == list(range(11))


def test_the_document_has_the_same_table() -> None:
    """docs/EXITCODES.md says what the code says."""
    document = (Path(__file__).parents[2] / "docs" / "EXITCODES.md").read_text()
    rows = [line for line in document.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert rows == [f"| {int(code)} | {code.meaning} |" for code in Exit]
