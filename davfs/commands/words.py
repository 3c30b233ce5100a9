"""Sizes, times and names in words for a person.

File names come from a server and are hostile: control characters in them are written out.
"""

from __future__ import annotations

import os

from davfs.logs import printable


def human_size(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def human_time(duration_s: float) -> str:
    minutes, seconds = divmod(int(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count)[:20] or f"{duration_s:.3g} s"


def clean(text: str) -> str:
    """`text` of a server's, safe to print: control characters and bytes that are no UTF-8 are escaped."""
    return printable(os.fsencode(text).decode("utf-8", "backslashreplace"))
