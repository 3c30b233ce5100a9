"""The numbers behind `davfs status`: rates, time left, hit rates."""

from __future__ import annotations

from typing import Literal

import pytest

from davfs.fs.transfers import SHOWN_MAX, Hits, Moving, in_order


def moving(
    *, moved: int, for_s: float, left: int = 300, path: str = "/a", way: Literal["up", "down"] = "down"
) -> Moving:
    return Moving(path, way, 1000, 700, left, moved, for_s)


@pytest.mark.parametrize(
    ("moved", "for_s", "rate", "left_s"),
    [(200, 2.0, 100, 3.0), (0, 5.0, 0, None), (0, 0.0, 0, None), (100, 0.001, 0, None)],
)
def test_rate_and_time_left(moved: int, for_s: float, rate: int, left_s: float | None) -> None:
    """Bytes a second since it began; what has not begun, or only just, has no rate and no end."""
    told = moving(moved=moved, for_s=for_s).told()
    assert (told["rate_bytes_per_s"], told["left_s"]) == (rate, left_s)


def test_uploads_come_first_and_the_list_is_bounded() -> None:
    """What is not on the server yet matters most."""
    downs = [moving(moved=1, for_s=1, path=f"/{number:03}") for number in range(SHOWN_MAX)]
    rows = in_order([*downs, moving(moved=1, for_s=1, path="/z", way="up")])
    assert (rows[0]["path"], rows[1]["path"], len(rows)) == ("/z", "/000", SHOWN_MAX)


def test_a_hit_rate_is_a_share_of_one() -> None:
    """Nothing asked is no rate, not a rate of nothing."""
    hits = Hits()
    assert hits.told() == {"hits": 0, "misses": 0, "rate": None}
    for hit in (True, True, False):
        hits.note(hit=hit)
    assert hits.told() == {"hits": 2, "misses": 1, "rate": 0.6667}
