"""What to do after a failure: a frozen policy, one decision function, and the reading of Retry-After.

Pure: the time left, the number of failures and the dice are arguments. The one loop that obeys is in
client.py, and only for requests that change nothing. Whether a failure may pass by itself is a
property of the error (`retry_helps`, errors.py), not a table here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from davfs.dav.dates import parse_date
from davfs.errors import DavfsError, ServerRefused

_LONGEST_RETRY_AFTER_S: Final = 86_400.0  # a server that says more than a day is not believed
_TOO_MANY_REQUESTS: Final = 429
_TOO_MANY_S: Final = 1.0  # 429 without Retry-After: 1, 2, 4 s, since it is our own haste that is refused


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential waits with jitter: 0.2, 0.4, 0.8 s ..., each shortened at random by up to a half."""

    attempts: int = 4
    first_wait_s: float = 0.2
    factor: float = 2.0
    longest_wait_s: float = 8.0

    def wait_s(self, error: DavfsError, *, failures: int, left_s: float, dice: float) -> float | None:
        """Seconds to wait before the next attempt, or None to give up with `error`.

        `failures` counts from 1, `left_s` is what remains of the deadline, `dice` is in [0, 1).
        A Retry-After is obeyed to the second or, when it does not fit, not waited for at all.
        """
        if not error.retry_helps or failures >= self.attempts:
            return None
        hasty = isinstance(error, ServerRefused) and error.status == _TOO_MANY_REQUESTS
        first_s = max(self.first_wait_s, _TOO_MANY_S) if hasty else self.first_wait_s
        planned_s = min(first_s * self.factor ** (failures - 1), self.longest_wait_s)
        wait_s = planned_s * (1.0 - dice / 2.0)
        asked_s = error.retry_after_s if isinstance(error, ServerRefused) else None
        if asked_s is not None:
            wait_s = max(wait_s, asked_s)
        return wait_s if wait_s < left_s else None


PATIENT: Final = RetryPolicy()
ONCE: Final = RetryPolicy(attempts=1)  # mounting: a wrong address must fail at once, not after retries


def retry_after_s(text: str | None, *, now_s: float) -> float | None:
    """Seconds of a Retry-After header (RFC 9110 10.2.3: a number, or a date against `now_s`)."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        wait_s = float(text[:12])
    else:
        date_s = parse_date(text)
        if date_s is None:
            return None
        wait_s = max(0.0, date_s - now_s)
    return wait_s if wait_s <= _LONGEST_RETRY_AFTER_S else None
