"""What a server cannot do, and the errno that a program gets for it. Data: tests/contract/conftest.py asserts it."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Limit:
    """`number` is the errno of the call that fails; before it, nothing is stored."""

    number: int
    reason: str

    @property
    def errno_name(self) -> str:
        return errno.errorcode[self.number]


LIMITS: Final[Mapping[str, Mapping[str, Limit]]] = {}
