"""Log lines: one event, one line, whatever a file is called."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from davfs import logs
from davfs.errors import ConfigError


def test_a_name_in_a_log_line_breaks_no_line(tmp_path: Path) -> None:
    """Line ends, escape sequences and broken UTF-8 in a file name are written out."""
    path = tmp_path / "log"
    descriptor = logs.open_log(str(path))
    assert descriptor is not None
    handler = logs.to_file(descriptor)
    record = logging.LogRecord("davfs.x", logging.INFO, "", 0, "name %s", ("a\nb\x1b\udcff",), None)
    handler.handle(record)
    assert isinstance(handler, logging.StreamHandler)
    handler.stream.close()
    assert path.read_text("utf-8").endswith("INFO davfs.x: name a\\nb\\x1b\\udcff\n")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """The mount fails at once with the reason, not later in silence."""
    with pytest.raises(ConfigError, match="log_file"):
        logs.open_log(str(tmp_path / "none" / "log"))
