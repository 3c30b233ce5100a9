"""`with refused(errno.EEXIST):` what is in it fails with that errno, and with no other."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator


@contextlib.contextmanager
def refused(number: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != number:
            found = errno.errorcode.get(error.errno or 0, "no errno")
            raise AssertionError(f"{found}, not {errno.errorcode[number]}: {error}") from error
    else:
        raise AssertionError(f"it worked; {errno.errorcode[number]} was expected")
