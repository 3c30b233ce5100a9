"""Names that a server lists and then refuses: IIS request filtering says 404 to them (404.11). Pure.

One 404 says nothing: the file may have been made afterwards. A name that was refused, listed since, and
refused again is out of reach.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from davfs.dav.resource import DavPath

MOST: Final = 1000


class Refusals:
    """404 answers to names that a filter may refuse."""

    def __init__(self) -> None:
        self._listed_since: dict[DavPath, bool] = {}

    def missing(self, path: DavPath) -> bool:
        """404 for `path`. True when a listing had it since the last one."""
        if len(self._listed_since) >= MOST:
            self._listed_since.clear()
        again = self._listed_since.get(path, False)
        self._listed_since[path] = False
        return again

    def listed(self, folder: DavPath, names: Container[str]) -> None:
        for path in self._listed_since:
            if path.parent == folder and path.name in names:
                self._listed_since[path] = True
