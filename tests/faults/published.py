"""docs/ERRORS.md as a table: what is published there is what the tests expect."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VERBS: Final = ("PROPFIND", "GET", "PUT", "DELETE", "MKCOL", "MOVE")
_MANNERS: Final = {
    "none in time": "hang",
    "the connection breaks": "cut before",
    "what is not HTTP": "garbage",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One answer of the server. `errnos` by verb; 0 is success."""

    answer: int | str  # a status, or a manner of `Trouble`
    errnos: dict[str, int]
    again: bool
    upload: str  # "seconds", "minutes", "hours"

    def __str__(self) -> str:
        return str(self.answer)


def _answers(text: str) -> list[int | str]:
    if text in _MANNERS:
        return [_MANNERS[text]]
    return [int(number) for number in re.findall(r"\d{3}", text)]


def _number(name: str) -> int:
    return 0 if name == "0" else int(getattr(errno, name))


def rows() -> list[Row]:
    document = (Path(__file__).parents[2] / "docs" / "ERRORS.md").read_text()
    table: list[Row] = []
    for line in document.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 9 or cells[0].startswith(("---", "the server")):
            continue
        errnos = dict(zip(VERBS, map(_number, cells[1:7]), strict=True))
        table += [Row(answer, errnos, cells[7] == "yes", cells[8]) for answer in _answers(cells[0])]
    return table
