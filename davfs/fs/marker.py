"""Which of our dead properties are in use on this share, so that others pay nothing for them.

A property that most files lack costs bytes and time in every listing: a second propstat for each entry, and
on Apache a database that is opened. So the first davfs that sets one says so, before that, in a property of
the share's root (`properties.KEPT`, a list of words). The root is asked for it whenever it is asked about
itself: at connect, and behind other questions each LOOK_AGAIN_S; not in its listing, where all members would
be.

Invariants: a word is in use only if the server gave it back; a refusal holds for the whole mount.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from davfs.dav.client import Client
from davfs.dav.properties import KEPT, kept_extras, kept_text, kept_words
from davfs.dav.proppatch import PropertyChange
from davfs.dav.resource import ROOT, Resource
from davfs.errors import Busy, Locked, NoSpace, ServerRefused, Unauthorized
from davfs.fs.turns import Turns

log = logging.getLogger("davfs.marker")

LOOK_AGAIN_S: Final = 60.0  # when a mount that is in use notices at the latest that another one has begun
TRIES: Final = 3  # two that begin at the same moment, each with another word, overwrite each other


class Marker:
    """`widened` is called when another client has begun to use one: what is known is without it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._turns = Turns()
        self._looked_s = float("-inf")
        self.in_use: frozenset[str] = frozenset()
        self.refused = False  # this server keeps no dead properties, or not on this root
        self.widened: Callable[[], None] = lambda: None

    @property
    def is_old(self) -> bool:
        """Time to ask again; not at a server that would not have it."""
        return not self.refused and trio.current_time() - self._looked_s > LOOK_AGAIN_S

    def looks(self) -> None:
        """The root is being asked about: it is not time again, whatever comes of that."""
        self._looked_s = trio.current_time()

    def learn(self, root: Resource) -> None:
        """From an answer to Depth 0 at the root."""
        self._looked_s = trio.current_time()
        before, extras = self.in_use, self._client.extras
        self.in_use |= _words(root)
        self._client.extras |= kept_extras(self.in_use)
        if self.in_use != before and self._client.extras != extras:
            self.widened()

    async def begin(self, word: str) -> bool:
        """Before the first of `properties.KEPT_WORDS` is set: False where the server does not keep it.

        Raises LinkError and the like, when it may be asked again later.
        """
        async with self._turns.at(ROOT):
            for _ in range(TRIES):
                if word in self.in_use or self.refused:
                    break
                await self._write(word)
        return word in self.in_use

    async def _write(self, word: str) -> None:
        self.learn(await self._client.stat(ROOT))
        if word in self.in_use:
            return
        change = PropertyChange(KEPT, kept_text(self.in_use | {word}))
        try:
            outcome = await self._client.proppatch(ROOT, [change], is_collection=True)
            accepted = 200 <= outcome[KEPT] < 300
        except ServerRefused as error:
            if isinstance(error, Busy | Locked | NoSpace | Unauthorized):
                raise
            accepted = False  # rclone answers 500
        found = _words(await self._client.stat(ROOT)) if accepted else frozenset()
        if not found:
            log.info("this server keeps no properties of ours: what it cannot store is kept here")
            self.refused = True
            return
        self.in_use |= found
        self._client.extras |= kept_extras(found)


def _words(root: Resource) -> frozenset[str]:
    return kept_words(root.extra(KEPT))
