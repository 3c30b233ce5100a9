"""Slots of the lanes: what is fetched ahead takes only what is to spare, and never makes anybody wait."""

from __future__ import annotations

import httpx
import pytest

from davfs.dav.lanes.errand import Kind
from davfs.dav.lanes.pool import Pool, Slot


async def ahead(pool: Pool) -> list[Slot]:
    """As many as there are to spare; the next one is refused at once."""
    slots: list[Slot] = []
    while len(slots) < 100:
        try:
            slots.append(await pool.slot("ahead", 60))
        except httpx.PoolTimeout:
            break
    return slots


async def fill(pool: Pool, kind: Kind, count: int) -> list[Slot]:
    return [await pool.slot(kind, 0) for _ in range(count)]


async def test_half_of_the_lanes_at_most() -> None:
    """8 of 16 and 4 of 8 when nothing else is going on; given back, they are there again."""
    pool = Pool({"data": 16, "metadata": 8})
    slots = await ahead(pool)
    assert len(slots) == 12
    for slot in slots:
        slot.release()
    assert len(await ahead(pool)) == 12


async def test_programs_find_the_other_half_free() -> None:
    """While all that may be fetched ahead is on its way, 8 transfers and 4 questions begin at once."""
    pool = Pool({"data": 16, "metadata": 8})
    await ahead(pool)
    await fill(pool, "data", 8)
    await fill(pool, "metadata", 4)


async def test_a_slot_at_once_or_not() -> None:
    """Where all are taken there is none at once; who waits gets the first that is given back."""
    pool = Pool({"data": 1, "metadata": 1})
    slot = pool.slot_at_once("data")
    assert slot is not None
    assert pool.slot_at_once("data") is None
    slot.release()
    await pool.slot("data", 0)
    with pytest.raises(httpx.PoolTimeout):
        await pool.slot("data", 0)


async def test_where_half_is_in_use_nothing_is_fetched_ahead() -> None:
    """Transfers and questions of programs come first."""
    pool = Pool({"data": 16, "metadata": 8})
    await fill(pool, "data", 8)
    assert len(await ahead(pool)) == 4
    pool = Pool({"data": 1, "metadata": 1})
    assert len(await ahead(pool)) == 0
