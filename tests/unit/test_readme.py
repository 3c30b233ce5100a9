"""The README: its figures are those of docs/PERFORMANCE.md, and its links lead somewhere."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import pytest

_REPO: Final = Path(__file__).parents[2]
_README: Final = _REPO / "README.md"
_HEAD: Final = "<!-- table figures: written by tests/unit/test_readme.py from docs/PERFORMANCE.md -->\n"
_END: Final = "<!-- end of table figures -->\n"
# The best and the worst: a choice that left out the latter would be advertising.
_ROWS: Final = (
    "list + stat 200 x 20, cold",
    "read 400 files of 16 KiB, cold",
    "first 4 KiB of 512 MiB",
    "read 512 MiB, cold",
    "write 500 x 4 KiB, until durable",
    "write 500 x 4 KiB, until the writer returns",
    "write 256 MiB, until durable",
    "100 editor saves, until durable",
    "100 editor saves with fsync, until the editor returns",
    "cp 128 MiB inside, 200 Mbit/s, until durable",
    "untar 300 files in 30 folders, until durable",
    "rm -r of 20 x 20 files",
    "append 4 KiB to 256 MiB, until durable",
    "git status, 300 files in 30 folders, cold",
)


def _measured() -> dict[str, list[str]]:
    """Each row of the first table of figures, that of 20 ms: work -> floor, davfs, rclone, davfs2 ..."""
    text = (_REPO / "docs" / "PERFORMANCE.md").read_text()
    table = text.split("### Round trip of 20 ms", 1)[1].split("What it cost", 1)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line
    ]
    return {row[0]: row[1:] for row in rows}


def _bold_best(figures: list[str]) -> list[str]:
    def seconds(figure: str) -> float:
        return float(figure) if re.fullmatch(r"[\d.]+", figure) else float("inf")

    best = min(map(seconds, figures))
    return [f"**{figure}**" if seconds(figure) == best else figure for figure in figures]


def _figures() -> str:
    measured = _measured()
    lines = ["| work | davfs | davfs2 | rclone |", "|---|---|---|---|"]
    for work in _ROWS:
        _, davfs, rclone, davfs2 = measured[work][:4]
        lines.append(f"| {work} | {' | '.join(_bold_best([davfs, davfs2, rclone]))} |")
    return "\n".join(lines) + "\n"


def test_the_figures_are_the_measured_ones() -> None:
    """The table is that of docs/PERFORMANCE.md; DAVFS_WRITE_DOCS=1 writes it anew."""
    text = _README.read_text()
    before, rest = text.split(_HEAD)
    shown, after = rest.split(_END)
    if os.environ.get("DAVFS_WRITE_DOCS") == "1":
        shown = _figures()
        _README.write_text(before + _HEAD + shown + _END + after)
    assert shown == _figures(), "DAVFS_WRITE_DOCS=1 writes it anew"


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(
    "document",
    [_README, *sorted((_REPO / "docs").glob("*.md"))],
    ids=lambda path: str(path.relative_to(_REPO)),
)
def test_links_lead_somewhere(document: Path) -> None:
    """Each relative link names a file that is there, and each anchor a heading in it."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        file = (document.parent / name) if name else document
        assert file.exists(), f"{document.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), flags=re.MULTILINE)
            assert anchor in map(_anchor, headings), f"{document.name}: {target}"
