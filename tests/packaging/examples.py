"""The examples in README.md and docs/: found, told apart, and run.

An example is a fenced block. Its language says what is done with it:

    sh      run by `sh -e`, in the order of the document, in a home of the document's own; each must succeed
    toml    a profile: read as davfs reads it; kept as ~/.config/davfs/cloud.toml for the blocks that follow
    fstab   each line is read as mount.fuse.davfs would
    text    not an example: what a program prints, a drawing

A block that cannot be run says so in the line above: `<!-- not run: REASON -->`. Any other language needs
that. Indented blocks whose lines are all commands are `sh`, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPO: Final = Path(__file__).parents[2]
RUNNABLE: Final = ("sh", "toml", "fstab")
_NOT_RUN: Final = re.compile(r"<!-- not run: (\S.{9,}) -->")
# What begins a line that a person would type.
COMMANDS: Final = re.compile(
    r"\$ |(sudo |scripts/)?(davfs|mount|umount|systemctl|pipx|apt(-get)?|mkdir|demo|test|install|bench)\b"
)


@dataclass(frozen=True)
class Example:
    """One block. `reason`: why it is not run; None when it is."""

    document: str
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def name(self) -> str:
        return f"{self.document}:{self.line}"


def documents() -> list[Path]:
    return [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]


def examples(document: Path) -> Iterator[Example]:
    """All blocks of a document, in order."""
    name, before, open_at = str(document.relative_to(REPO)), "", 0
    block: list[str] = []
    language = ""
    indented: list[str] = []
    for number, line in enumerate([*document.read_text().splitlines(), ""], 1):
        fence = re.fullmatch(r"```(\w*)", line)
        if fence and not open_at:
            open_at, language, block = number, fence[1], []
        elif fence:
            reason = _NOT_RUN.fullmatch(before)
            yield Example(name, open_at, language, "\n".join(block) + "\n", reason and reason[1])
            open_at, before = 0, ""
        elif open_at:
            block.append(line)
        elif line.startswith("    ") and (indented or not before):
            indented.append(line[4:])
        else:
            if indented and all(COMMANDS.match(each) for each in indented):
                yield Example(name, number - len(indented), "sh", "\n".join(indented) + "\n", None)
            indented, before = [], line
