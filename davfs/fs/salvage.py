"""After a daemon that did not end well: rows and files brought into line, and nothing unsent lost.

Runs at the start, before anything else uses the cache. What an unsent file says of itself (`record`) is taken
where the index is older than that, or is gone. Clean contents may be forgotten; a file of which nobody knows
whether it was sent goes to `recovered/` and is never deleted.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace

from davfs.fs.disk import CacheDisk
from davfs.fs.index import Index
from davfs.fs.record import Record, decode

log = logging.getLogger("davfs.content")


@dataclass(slots=True)
class Found:
    """One data file."""

    path: str
    generation: int
    record: Record | None
    unreadable: bool  # it has a record, which cannot be read


class Salvage:
    def __init__(self, index: Index, disk: CacheDisk, *, now_s: float) -> None:
        self._index = index
        self._disk = disk
        self._now_s = now_s
        # Removing a file takes its record away first, so a record without a row is of a lost row.
        # After a power loss the disk may have kept the one and not the other: a removed file must not
        # come back.
        self._believe_lost_rows = index.damage is not None or not index.lost_power
        self._unknown_is_clean = index.damage is None or disk.records_complete
        self._adopted = 0
        self._recovered: list[str] = []

    def run(self) -> int:
        """Returns how many bytes the kept files take on the disk."""
        rows = self._index.files_on_disk()
        found: dict[int, list[Found]] = {}
        for path, file in self._disk.files():
            if file is not None:
                found.setdefault(file[0], []).append(self._looked_at(path, file[1]))
            elif self._index.damage is None:
                os.unlink(path)
            else:
                self._recover(path)
        for content_id, files in found.items():
            self._settle(content_id, files, rows.get(content_id))
        if self._index.lost_power:
            self._index.distrust()
        elif self._adopted:
            self._index.forget_clean()  # their rows may be as old as those that were lost
        if self._index.lost_power or self._adopted:
            rows = self._index.files_on_disk()
        kept = self._remove_strays(found, rows)
        self._tell()
        return kept

    def _looked_at(self, path: str, generation: int) -> Found:
        if not self._index.unclean and self._index.damage is None:
            return Found(path, generation, None, unreadable=False)
        best: Record | None = None
        raws = self._disk.records(path)
        for raw in raws:
            try:
                record = decode(raw)
            except ValueError:
                continue
            if best is None or record.row.revision > best.row.revision:
                best = record
        return Found(path, generation, best, unreadable=bool(raws) and best is None)

    def _settle(self, content_id: int, files: list[Found], row: tuple[int, int, int] | None) -> None:
        """One content: its row, what its files say, and which of the two is newer."""
        newest = max(
            (one for one in files if one.record is not None),
            key=lambda one: (one.record.row.revision if one.record is not None else 0, one.generation),
            default=None,
        )
        if newest is not None and newest.record is not None and self._is_news(newest.record, row):
            self._adopt(content_id, newest, newest.record)
        elif row is not None and newest is not None and not row[2]:
            self._disk.remove_record(content_id, newest.generation)  # it was sent, and killed before this
        elif row is None:
            for one in files:
                if one.unreadable or one.record is not None or not self._unknown_is_clean:
                    self._recover(one.path)

    def _is_news(self, record: Record, row: tuple[int, int, int] | None) -> bool:
        if row is None:
            return self._believe_lost_rows
        return record.row.revision > row[1]

    def _adopt(self, content_id: int, found: Found, record: Record) -> None:
        size = os.stat(found.path).st_size
        row = replace(record.row, id=content_id, generation=found.generation, size=size)
        self._index.adopt(row, record.mode, now_s=self._now_s)
        self._adopted += 1

    def _recover(self, path: str) -> None:
        self._recovered.append(self._disk.recover(path))

    def _remove_strays(self, found: dict[int, list[Found]], rows: dict[int, tuple[int, int, int]]) -> int:
        """Files without a row: left by a crash between the two, or clean and forgotten."""
        kept = 0
        for content_id, files in found.items():
            wanted = rows.get(content_id)
            for one in files:
                if wanted is not None and wanted[0] == one.generation:
                    kept += os.stat(one.path).st_blocks * 512
                elif os.path.exists(one.path):
                    self._disk.remove(one.path)
        return kept

    def _tell(self) -> None:
        if self._index.lost_power:
            log.warning(
                "the machine went down while %s was in use: clean contents are dropped", self._index.folder
            )
        if self._index.damage is not None:
            log.warning(
                "the cache index in %s was damaged (%s) and is made again: %d unsent files were found",
                self._index.folder,
                self._index.damage,
                self._adopted,
            )
        elif self._adopted:
            log.warning("the cache index had lost %d unsent files, which are found again", self._adopted)
        for name in self._recovered:
            log.error("nobody knows whether this cached file was sent, or where it belongs: kept as %s", name)
