"""Why files could not be sent, and who was told: kept beside the journal, so that a restart forgets nothing.

The row of a content has the text of its last error; this table has what a program gets: the errno, whether
trying again helps, and whether anybody was told. An entry counts only as long as its content is unsent and
in error, so nothing has to be cleared when an upload succeeds.
"""

from __future__ import annotations

import errno
from dataclasses import replace

from davfs.errors import DavfsError, PosixError
from davfs.fs.content import Content
from davfs.fs.handles import OpenFile
from davfs.fs.index import Index
from davfs.fs.states import Failure, told_at_open

_TABLE = (
    "CREATE TABLE IF NOT EXISTS failures (content INTEGER PRIMARY KEY, errno INTEGER NOT NULL,"
    " text TEXT NOT NULL, passes INTEGER NOT NULL, written INTEGER NOT NULL, seen INTEGER NOT NULL)"
)


class Failures:
    def __init__(self, index: Index) -> None:
        self._index = index
        self._serial = 0
        self._known: dict[int, Failure] = {}  # by content id
        index.run(_TABLE)
        index.run(
            "DELETE FROM failures WHERE content NOT IN"
            " (SELECT id FROM contents WHERE written > acked OR unknown)"
        )
        for row in index.run("SELECT content, errno, text, passes, written, seen FROM failures").fetchall():
            self._known[row[0]] = Failure(
                self._next(), row[1], row[2], bool(row[3]), row[4], seen=bool(row[5])
            )

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def noted(self, content: Content, error: DavfsError) -> None:
        """An attempt to send it failed. The same again is no news."""
        before = self._known.get(content.id)
        written = content.life.written
        if before is not None and before.is_repeated_by(error, written):
            return
        self._keep(content, Failure(self._next(), error.errno, str(error), error.retry_helps, written))

    def of(self, content: Content) -> Failure | None:
        """Why this content is not on the server; None when nothing was tried in vain."""
        if not content.dirty or content.error is None:
            return None
        known = self._known.get(content.id)
        if known is None:  # a journal of an older version has no errno
            return Failure(0, errno.EIO, content.error, passes=True, written=content.life.written, seen=True)
        return known

    # --- telling programs

    def tell_at_open(self, content: Content) -> None:
        """Raises what nobody was told yet, once: for a program that is about to write."""
        failure = self.of(content)
        if failure is not None and failure.is_news_at_open():
            self._keep(content, replace(failure, seen=True))
            raise PosixError(failure.errno, f"an earlier change could not be sent: {failure.text}")

    def opened(self, file: OpenFile) -> None:
        file.told = told_at_open(self.of(file.content))

    def tell_at_close(self, file: OpenFile) -> None:
        """Raises what this handle's program was not told yet, once."""
        failure = self.of(file.content)
        if failure is not None and failure.serial > file.told and not failure.passes:
            self.told(file)
            raise PosixError(failure.errno, failure.text)

    def told(self, file: OpenFile) -> None:
        """This handle's program has got the errno."""
        failure = self.of(file.content)
        if failure is None:
            return
        file.told = failure.serial
        if not failure.seen and file.content.id in self._known:
            self._keep(file.content, replace(failure, seen=True))

    def _keep(self, content: Content, failure: Failure) -> None:
        self._known[content.id] = failure
        text = failure.text.encode("utf-8", "backslashreplace").decode()  # SQLite takes no lone surrogates
        self._index.run(
            "INSERT OR REPLACE INTO failures (content, errno, text, passes, written, seen)"
            " VALUES (?,?,?,?,?,?)",
            (content.id, failure.errno, text, int(failure.passes), failure.written, int(failure.seen)),
        )
