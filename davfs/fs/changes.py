"""Which bytes of a file programs changed since the version on the server that it is based on. Pure.

For partial updates. Kept in memory only: of a file that the last daemon left unsent nobody knows, and it is
sent whole. So is one whose base became another on any way but an acknowledged upload: the extents belong to
one version, and count for no other.
"""

from __future__ import annotations

from typing import Final

from davfs.dav.resource import Validator
from davfs.fs.ranges import RangeSet

EXTENTS_MAX: Final = 4096  # a file with more is sent whole, so no more need be remembered


class Changes:
    def __init__(self) -> None:
        self._base: Validator | None = None  # None: not known what the extents differ from
        self._sent = _Noted()  # before the last upload began
        self._since = _Noted()  # and after

    def restart(self, base: Validator | None) -> None:
        """Right now the file is `base`, byte for byte."""
        self._base, self._sent, self._since = base, _Noted(), _Noted()

    def note(self, start: int, end: int) -> None:
        """A program wrote [start, end), or cut it off."""
        self._since.add(start, end)

    def sending(self) -> None:
        """What is noted from now on is not part of the upload that begins."""
        self._sent.take(self._since)
        self._since = _Noted()

    def acknowledged(self, version: Validator) -> None:
        """What was there when the upload began is now `version`."""
        self._base, self._sent = version, _Noted()

    def since(self, base: Validator) -> RangeSet | None:
        """All that differs from `base`; None: not known."""
        if self._base is None or self._base != base:
            return None
        changed = _Noted()
        changed.take(self._sent)
        changed.take(self._since)
        return None if changed.too_many else changed.extents


class _Noted:
    """Extents, while there are few."""

    def __init__(self) -> None:
        self.extents = RangeSet()
        self.too_many = False

    def add(self, start: int, end: int) -> None:
        if self.too_many:
            return
        self.extents.add(start, end)
        if len(self.extents) > EXTENTS_MAX:
            self.extents, self.too_many = RangeSet(), True

    def take(self, other: _Noted) -> None:
        self.too_many = self.too_many or other.too_many
        for start, end in other.extents:
            self.add(start, end)
