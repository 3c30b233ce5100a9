"""The table of docs/SERVERS.md: features by servers, as the run found them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.contract.candidates import CANDIDATES

WORKS: Final = "yes"
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "SERVERS.md"

_found: dict[tuple[str, str], str] = {}  # (feature, server) -> WORKS or the name of an errno


def note(server: str, feature: str, word: str) -> None:
    _found[feature, server] = word


def found() -> Mapping[tuple[str, str], str]:
    return _found


def features() -> list[str]:
    """In the order in which they were run."""
    return list(dict.fromkeys(feature for feature, _ in _found))


def feature_of(item: pytest.Item) -> str | None:
    """The row of the table: the mark's words, with the parameters where it has any."""
    mark = item.get_closest_marker("feature")
    if mark is None:
        return None
    words: str = mark.args[0]
    case = getattr(item, "callspec", None)
    parameters = case.params if case is not None else {}
    named = {name: str(value) for name, value in parameters.items() if name != "stage"}
    return words.format(*named.values(), **named)


def asked(items: Iterable[pytest.Item]) -> Iterator[str]:
    """The features that these tests are about."""
    yield from filter(None, map(feature_of, items))


def is_whole(config: pytest.Config) -> bool:
    """Whether nothing was left out by -k, -m, or a file named on the command line."""
    chosen_by = (config.option.keyword, config.option.markexpr, config.option.deselect)
    return not any(chosen_by) and all(Path(arg).name in {"contract", "tests"} for arg in config.args)


def rows() -> list[str]:
    """The table; a server that was not there leaves its cells open."""
    head = ["| through the mount |", *(f" {candidate.title} |" for candidate in CANDIDATES)]
    lines = ["".join(head), "|---" * (1 + len(CANDIDATES)) + "|"]
    for feature in features():
        cells = (_found.get((feature, candidate.name), "?") for candidate in CANDIDATES)
        lines.append(f"| {feature} | {' | '.join(cells)} |")
    return lines


def reasons() -> list[str]:
    """Why not, for each limit."""
    by_reason: dict[tuple[str, str, str], list[str]] = {}
    for candidate in CANDIDATES:
        for feature, limit in candidate.limits.items():
            by_reason.setdefault((candidate.title, limit.word, limit.reason), []).append(feature)
    return [
        f"- {title}, {number}: {'; '.join(features)}: {reason}"
        for (title, number, reason), features in by_reason.items()
    ]


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- table {name} -->\n", f"<!-- end of table {name} -->"


def published(name: str) -> list[str]:
    start, end = _marks(name)
    _, _, rest = DOCUMENT.read_text().partition(start)
    return rest.partition(end)[0].splitlines()


def published_cells() -> Mapping[tuple[str, str], str]:
    cells: dict[tuple[str, str], str] = {}
    for line in published("contract")[2:]:
        feature, *words = (cell.strip() for cell in line.strip("|").split("|"))
        cells |= {(feature, candidate.name): word for candidate, word in zip(CANDIDATES, words, strict=True)}
    return cells


def write(name: str, lines: list[str]) -> None:
    start, end = _marks(name)
    before, _, rest = DOCUMENT.read_text().partition(start)
    _, _, after = rest.partition(end)
    DOCUMENT.write_text(before + start + "".join(f"{line}\n" for line in lines) + end + after)
