"""docs/performance.svg, by matplotlib, which only the benchmark's own environment has.

Reads what report.chart_panels made, as JSON, from its standard input; the argument is the file to write.
Imports nothing else of the benchmark: it runs on another Python installation.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

_COLOURS: Final = {"davfs": "#1b6ca8", "rclone": "#e08e2b", "davfs2": "#8a8a8a"}
_LEAST_S: Final = 0.005  # what is shorter is drawn as this
_BAR: Final = 0.26


def _panel(axes: Any, panel: dict[str, Any], most_s: float, *, labelled: bool) -> None:
    rows = panel["rows"]
    for place, peer in enumerate(_COLOURS):
        heights = [number + (place - 1) * _BAR for number in range(len(rows))]
        seconds = [row["seconds"].get(peer) for row in rows]
        axes.barh(
            heights, [max(one or 0, _LEAST_S) for one in seconds], _BAR, color=_COLOURS[peer], label=peer
        )
        for height, row, one in zip(heights, rows, seconds, strict=True):
            if one is None:
                said = "failed" if peer in row["seconds"] else "not measured"
                axes.text(_LEAST_S * 1.15, height, said, va="center", fontsize=6, color="#a02020")
    floors = [max(row["floor"], _LEAST_S) for row in rows]
    axes.scatter(
        floors, range(len(rows)), marker="|", s=220, color="black", linewidths=1.2, label="floor", zorder=3
    )
    axes.set_xscale("log")
    axes.set_xlim(_LEAST_S, most_s)
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(
        range(len(rows)), [row["title"] for row in rows] if labelled else [""] * len(rows), fontsize=8
    )
    axes.set_title(f"{panel['title']}: seconds", fontsize=9)
    axes.grid(axis="x", linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)


def _titles(panel: dict[str, Any]) -> list[str]:
    return [row["title"] for row in panel["rows"]]


def main() -> None:
    panels = json.load(sys.stdin)
    # Text as text, and nothing that differs between two runs on the same figures.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "davfs", "font.family": "sans-serif"})
    most_s = 1.3 * max(
        one or 0 for panel in panels for row in panel["rows"] for one in row["seconds"].values()
    )
    most = max(len(panel["rows"]) for panel in panels)
    figure, all_axes = plt.subplots(
        1, len(panels), figsize=(4 + 4 * len(panels), 1.2 + 0.42 * most), squeeze=False
    )
    for number, (axes, panel) in enumerate(zip(all_axes[0], panels, strict=True)):
        labelled = number == 0 or _titles(panel) != _titles(panels[0])
        _panel(axes, panel, most_s, labelled=labelled)
    handles, labels = all_axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(sys.argv[1], metadata={"Date": None})


if __name__ == "__main__":
    main()
