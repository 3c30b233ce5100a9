"""docs/ERRORS.md and davfs.errors say the same."""

from __future__ import annotations

import errno

import pytest

from davfs.errors import DavfsError, Disconnected, Garbled, ProtocolError, TimedOut, Unreachable, refused
from davfs.fs.retrying import next_try_s
from tests.faults.published import Row, rows

ROWS = rows()
_OTHERS: dict[str, DavfsError] = {
    "hang": TimedOut(""),
    "cut before": Disconnected(""),
    "garbage": Garbled(""),
}
_FIRST_WAIT_S = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0}
# What the file system makes of an error, beyond what the verb and the status say: it looks.
_DECIDED_ABOVE = {(verb, status) for status in (404, 409, 410, 412) for verb in ("PUT", "DELETE", "MOVE")} | {
    ("MKCOL", 405),
    ("GET", 416),
}


def error_of(verb: str, row: Row) -> DavfsError:
    if isinstance(row.answer, str):
        return _OTHERS[row.answer]
    if row.answer in (301, 302, 307, 308):
        return ProtocolError("")
    return refused(verb, row.answer, "/f")


def test_every_status_is_there_once() -> None:
    """Sixty answers, none twice."""
    answers = [row.answer for row in ROWS]
    assert len(answers) == len(set(answers))
    assert len(answers) >= 60


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_table_is_that_of_the_errors(row: Row) -> None:
    """The errno, whether it is asked again, and when an upload comes again."""
    for verb, number in row.errnos.items():
        if (verb, row.answer) not in _DECIDED_ABOVE:
            assert error_of(verb, row).errno == number, (verb, errno.errorcode[number])
    assert error_of("PROPFIND", row).retry_helps == row.again
    assert next_try_s(error_of("PUT", row), 1) == _FIRST_WAIT_S[row.upload]


@pytest.mark.parametrize("verb", ["GET", "PUT"])
def test_no_errno_that_programs_take_for_something_else(verb: str) -> None:
    """No errno of fsync is taken for "not needed", and none makes a program call again at once."""
    never = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EROFS, errno.EAGAIN, errno.EINTR}
    told = {refused(verb, status, "/f").errno for status in range(300, 1000)}
    assert told.isdisjoint(never)


def test_where_the_outcome_is_not_known() -> None:
    """A look follows where the server may have done it all the same, and only there."""
    unknown = {status for status in range(300, 1000) if refused("MOVE", status, "/f").outcome_unknown}
    assert unknown == set(range(500, 1000)) - {501, 503, 505, 507}
    assert TimedOut("").outcome_unknown
    assert Disconnected("").outcome_unknown
    assert ProtocolError("").outcome_unknown
    assert not Unreachable("").outcome_unknown
