"""errors.py: the one vocabulary of failure."""

from __future__ import annotations

import errno

import pytest

from davfs.errors import DavfsError, NotFound, PosixError, as_davfs_error


def test_a_known_failure_stays_what_it_is() -> None:
    """Nothing is logged or wrapped for a failure that was foreseen."""
    error = NotFound()
    assert as_davfs_error(error) is error


@pytest.mark.expects_warning("unexpected OSError")
def test_a_failing_disk_keeps_its_errno() -> None:
    """An OSError that nobody caught tells a program what it was."""
    error = as_davfs_error(OSError(errno.EROFS, "read-only"))
    assert isinstance(error, PosixError)
    assert error.errno == errno.EROFS


@pytest.mark.expects_warning("unexpected ZeroDivisionError")
def test_a_fault_of_ours_is_eio() -> None:
    """It does not take the mount down, and the log has its traceback."""
    error = as_davfs_error(ZeroDivisionError("oops"))
    assert type(error) is DavfsError
    assert error.errno == errno.EIO
