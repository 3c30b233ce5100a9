"""Names that a server lists and then refuses: IIS request filtering says 404 to them (404.11). Pure.

One 404 says nothing: the file may have been made afterwards. A name that was refused, listed since, and
refused again is out of reach, and is listed no more: nobody could open it.
"""

from __future__ import annotations

from typing import Final

from davfs.dav.quirks import Capabilities
from davfs.dav.resource import DavPath, Resource

MOST: Final = 1000


class Refusals:
    """404 answers to names that a filter may refuse."""

    def __init__(self) -> None:
        self._listed_since: dict[DavPath, bool] = {}

    def missing(self, server: Capabilities, path: DavPath) -> Capabilities:
        """404 for `path`: what that tells of the server."""
        filtered = server.filtered(path.name)
        if filtered is None:
            return server
        if len(self._listed_since) >= MOST:
            self._listed_since.clear()
        again = self._listed_since.get(path, False)
        self._listed_since[path] = False
        return server.learned_names(filtered) if again else server

    def leave_out(self, server: Capabilities, folder: DavPath, members: dict[str, Resource]) -> None:
        """Takes what is out of reach from a listing."""
        for path in self._listed_since:
            if path.parent == folder and path.name in members:
                self._listed_since[path] = True
        for name in filter(server.is_out_of_reach, list(members) if server.is_iis else ()):
            del members[name]
