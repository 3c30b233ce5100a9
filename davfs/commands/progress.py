"""How far the uploads are, on standard error: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Self

from davfs.commands.words import human_size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_EVERY_S: Final = 5.0


class UploadProgress:
    """Shown what the daemon answers to `progress`, twice a second."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._most_bytes = 0
        self._next_line_s = time.monotonic() + LINE_EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def watch(self, answer: Mapping[str, Any]) -> None:
        files, left_bytes = int(answer.get("files", 0)), bytes_left(answer)
        self._most_bytes = max(self._most_bytes, left_bytes)
        if not files:
            return
        text = in_words(answer)
        if sys.stderr.isatty():
            self._draw(left_bytes, text)
        elif time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + LINE_EVERY_S
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def _draw(self, left_bytes: int, text: str) -> None:
        if self._progress is None or self._task is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task(text, total=self._most_bytes)
            self._progress.start()
        sent = self._most_bytes - left_bytes
        self._progress.update(self._task, completed=sent, total=max(1, self._most_bytes), description=text)


def bytes_left(answer: Mapping[str, Any]) -> int:
    """What no connection has taken yet: a file that is being sent counts by its bytes, not as a whole."""
    return max(0, int(answer.get("bytes", 0)) - int(answer.get("out_bytes", 0)))


def in_words(answer: Mapping[str, Any]) -> str:
    """One line: how much is left, and how much of it does not get through."""
    files, stuck = int(answer.get("files", 0)), int(answer.get("stuck", 0))
    what = "1 file" if files == 1 else f"{files} files"
    trouble = f", {stuck} of them could not be sent yet" if stuck else ""
    left, size = bytes_left(answer), int(answer.get("bytes", 0))
    far = f"{human_size(left)} left" if left or not size else f"{human_size(size)} on the way"
    return f"sending: {what}, {far}{trouble}"
