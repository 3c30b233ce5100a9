"""At most so many bytes a second, shared by all transfers that go the same way. No lock, no task.

Who asks is given its turn: the time that its bytes take, after all that was asked for before. So the sum
keeps to the rate, however many share it, and an idle line saves nothing up. Only bodies of files wait here:
listings never do.
"""

from __future__ import annotations

from typing import Final

import trio

_TURNS_PER_S: Final = 16
# Servers give up on who sends nothing for 20 s (Apache's mod_reqtimeout): so turns are short.
_SMALLEST_BYTES: Final = 4 * 1024


class Pace:
    def __init__(self, bytes_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_s = 0.0  # when all that was asked for has had its time

    @property
    def piece_bytes(self) -> int:
        """What should be asked for at once, at most."""
        return max(_SMALLEST_BYTES, self._bytes_per_s // _TURNS_PER_S)

    async def spend(self, size_bytes: int) -> None:
        """Until these bytes had their time."""
        self._free_s = max(self._free_s, trio.current_time()) + size_bytes / self._bytes_per_s
        await trio.sleep_until(self._free_s)
