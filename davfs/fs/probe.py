"""Finds out when the server is back: the one task that asks while nobody else may.

Owns the small question (PROPFIND Depth 0 of the root, with a short deadline), the connecting of a mount that
began without its server, and what is said of the link in the log. When the server answers again the uploads
are told. When to ask is decided by `dav.link`.
"""

from __future__ import annotations

import logging
import random

import trio

from davfs.dav.client import Client
from davfs.dav.link import Outage
from davfs.errors import DavfsError, LinkError, TimedOut
from davfs.fs.tree import Tree
from davfs.fs.upload import Uploads

log = logging.getLogger("davfs.link")


class Probe:
    def __init__(self, client: Client, tree: Tree, uploads: Uploads, *, timeout_s: float) -> None:
        self._client = client
        self._tree = tree
        self._uploads = uploads
        self._timeout_s = timeout_s
        self._told: Outage | None = None
        self._complaint = ""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. From now on requests may be refused while the server is away: somebody looks."""
        self._client.reach.link.guarded = True
        task_status.started()
        try:
            while True:
                news, due_s = self._client.reach.news, self._client.reach.link.next_probe_s
                self._tell()
                if due_s is not None and due_s <= trio.current_time():
                    await self._ask()
                    continue
                with trio.move_on_at(float("inf") if due_s is None else due_s):
                    await news.wait()
        finally:
            self._client.reach.link.guarded = False

    def hurry(self) -> None:
        """A person waits for the server: ask now."""
        self._client.reach.link.hurry(trio.current_time())
        self._client.reach.tell()

    async def _ask(self) -> None:
        link = self._client.reach.link
        patience_s = link.patience_s(self._timeout_s)
        if link.is_unproven:
            await self._connect(patience_s)
        else:
            await self._client.probe(patience_s)
        dice = random.random()  # noqa: S311 - it spreads the probes of many machines
        link.probed(trio.current_time(), dice=dice)

    async def _connect(self, patience_s: float) -> None:
        asked_s = trio.current_time()
        error: DavfsError = TimedOut(f"no answer within {patience_s:.0f} s")
        with trio.move_on_after(patience_s):
            try:
                self._tree.learn_root(await self._client.connect(), asked_s, itself=True)
            except DavfsError as failure:
                error = failure
            else:
                return
        self._client.reach.link.unproven(str(error), error.errno, trio.current_time())
        if not isinstance(error, LinkError) and str(error) != self._complaint:
            self._complaint = str(error)
            log.error("the server answers, but this share cannot be used: %s", error)

    def _tell(self) -> None:
        """Log that an outage began or ended, and wake what waits for its end."""
        outage = self._client.reach.link.outage
        if outage is not None and self._told is None:
            log.warning("no answer: %s; what is kept here is served, changes wait", outage.reason)
        elif outage is None and self._told is not None:
            away_s = trio.current_time() - self._told.since_s
            log.info("the server answers again, after %.0f s", away_s)
            self._uploads.link_is_up()
        self._told = outage

    def status(self) -> dict[str, object]:
        """The link, as JSON-able values."""
        link, now_s = self._client.reach.link, trio.current_time()
        if link.outage is None:
            return {"state": "up"}
        return {
            "state": "not connected yet" if link.is_unproven else "down",
            "down_for_s": round(now_s - link.outage.since_s, 1),
            "reason": link.outage.reason,
            "next_try_s": round(max(0.0, (link.next_probe_s or now_s) - now_s), 1),
        }
