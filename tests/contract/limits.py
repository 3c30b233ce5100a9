"""What a server cannot do, and what a program gets for it: data, which tests/contract/conftest.py asserts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


class Otherwise(Exception):
    """Raised by a test that found no error, but not what was wanted: in the words of the table."""


NOT_LISTED: Final = "not listed"
KEPT_BOTH: Final = "kept beside"


@dataclass(frozen=True)
class Limit:
    """`word` is the errno of the call that fails, before anything is stored; or the text of `Otherwise`."""

    word: str
    reason: str


LIMITS: Final[Mapping[str, Mapping[str, Limit]]] = {}
