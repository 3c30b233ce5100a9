"""The questions of `davfs probe` on the wire: one request after the other, and what came back.

Without `write` only what changes nothing: OPTIONS, PROPFIND, one range of an existing file. With it, canaries
in one folder of its own, which is removed at the end, after a cancellation too. What the answers mean is
`dav.findings`; here nothing is judged but what the next question needs (a tag, a token).

Invariants:
- At most MOST_REQUESTS requests, bodies of less than 1 MiB in all, TIME_LIMIT_S seconds.
- Nothing outside the scratch folder is written, moved or locked.
- Of an answer at most MOST_BODY_BYTES are read. `Timeout:` of LOCK is one value (servers.md 28).
- Only a server that cannot be reached, or that refuses the credentials, ends it; all else is an answer.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Final

import trio

from davfs.dav import answered, canaries, locks
from davfs.dav.answered import Answer
from davfs.dav.exchange import Exchange
from davfs.dav.hrefs import Share, shown
from davfs.dav.lanes import Lanes
from davfs.dav.request import PLAIN, XML, Request
from davfs.dav.resource import ROOT, DavPath
from davfs.dav.wire import Body, Octets, deadline
from davfs.errors import DavfsError, Unauthorized, Unreachable

MOST_REQUESTS: Final = 119  # those that remove the folder not counted
MOST_BODY_BYTES: Final = 256 * 1024
TIME_LIMIT_S: Final = 120.0
REMOVE_S: Final = 20.0
_REMOVAL_REQUESTS: Final = 8
_AGED_S: Final = 2.2  # servers.md 10: Apache's tags turn strong after 1 to 2 s
_DEEP_BYTES: Final = 16 * 1024
_ANSWER_S: Final = 15.0
_EXPECT_BYTES: Final = 66 * 1024  # above this the lanes ask with Expect
_CUT_BYTES: Final = 192 * 1024
_LOCK_S: Final = 600
_WRONG_TAG: Final = '"davfs-probe-no-such-tag"'
_OWNER: Final = "davfs probe"
_LOCKED: Final = ("l", "u")  # the files that are locked for a moment


@dataclass(slots=True)
class _CutShort:
    """A body that ends in the middle: the connection is cut there."""

    data: bytes
    size_bytes: int

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data
        await trio.sleep(0.3)  # the server has read what came: the cut is seen as one, not as a reset before


@dataclass(slots=True)
class _Counted:
    """A body that knows how much of it was taken."""

    data: bytes
    taken_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.taken_bytes = len(self.data)
        yield self.data


class Probe:
    """Asks one share. `answers` holds what came back, by the name of the question."""

    def __init__(self, wire: Lanes, base_url: str, *, timeout_s: float = _ANSWER_S) -> None:
        self._wire = wire
        self._share = Share.parse(base_url)
        self._longest_s = min(timeout_s, _ANSWER_S)
        self._exchange = Exchange(wire, self._share, self._longest_s, trio.current_time)
        self._scratch = ROOT
        self.answers: dict[str, Answer] = {}
        self.requests = 0
        self._most_requests = MOST_REQUESTS

    @property
    def up_bytes(self) -> int:
        """Bytes of bodies that were sent."""
        return self._exchange.traffic.up_bytes

    # --- one request --------------------------------------------------------------------------------

    async def _ask(
        self,
        name: str,
        method: str,
        path: DavPath,
        headers: Mapping[str, str] | None = None,
        body: bytes | Body | None = None,
        *,
        is_collection: bool = False,
        most_bytes: int = MOST_BODY_BYTES,
    ) -> Answer:
        """Sends it and keeps the answer under `name`; one that cannot be had is an answer too."""
        content = Octets(body) if isinstance(body, bytes) else body
        wanted = {**PLAIN, **(headers or {})}
        if content is not None or method == "PUT":
            wanted["Content-Length"] = str(0 if content is None else content.size_bytes)
        has_content = content is not None and content.size_bytes > 0
        request = Request(
            method, path, wanted, content if has_content else None, is_collection, is_probe=True
        )
        label = f"{method} {self._shown(path)}"
        if self.requests >= self._most_requests:
            answer = Answer(label, error="not asked: too many requests")
        else:
            self.requests += 1
            answer = await self._answered(request, label, most_bytes)
        self.answers[name] = answer
        return answer

    async def _answered(self, request: Request, label: str, most_bytes: int) -> Answer:
        sent_s = time.time()
        try:
            with deadline(self._longest_s, request.label):
                async with self._exchange.answer(request) as incoming:
                    text = await incoming.receive_small(most_bytes)
                    headers = {key.lower(): value for key, value in incoming.headers.items()}
                    return Answer(label, incoming.status, headers, text[:most_bytes], sent_s=sent_s)
        except (Unreachable, Unauthorized):
            raise
        except DavfsError as error:
            return Answer(label, error=str(error), sent_s=sent_s)

    def _shown(self, path: DavPath) -> str:
        """Below the scratch folder only what is in it; long names cut."""
        text = shown(path)
        if self._scratch is not ROOT and path.is_within(self._scratch):
            text = shown(DavPath(path.parts[len(self._scratch.parts) :]))
        return text if len(text) <= 40 else f"{text[:20]}...{text[-8:]}"

    # --- what changes nothing -----------------------------------------------------------------------

    async def look(self) -> None:
        """The questions that change nothing."""
        await self._ask("options", "OPTIONS", ROOT, is_collection=True)
        await self._stat("root", ROOT, is_collection=True)
        listing = await self._list("listing", ROOT)
        await self._deep("deep", ROOT)
        found = answered.small_file(listing, self._share)
        if found is not None:
            await self._range("range", found[0], found[1])

    async def _stat(self, name: str, path: DavPath, *, is_collection: bool = False) -> Answer:
        headers = {**XML, "Depth": "0"}
        return await self._ask(
            name, "PROPFIND", path, headers, canaries.QUESTION, is_collection=is_collection
        )

    async def _list(self, name: str, path: DavPath) -> Answer:
        headers = {**XML, "Depth": "1"}
        return await self._ask(name, "PROPFIND", path, headers, canaries.QUESTION, is_collection=True)

    async def _deep(self, name: str, path: DavPath) -> None:
        headers = {**XML, "Depth": "infinity"}
        await self._ask(
            name,
            "PROPFIND",
            path,
            headers,
            canaries.QUESTION,
            is_collection=True,
            most_bytes=_DEEP_BYTES,
        )

    async def _range(self, name: str, path: DavPath, size_bytes: int) -> None:
        last = min(size_bytes - 1, 19)
        await self._ask(name, "GET", path, {"Range": f"bytes=1-{last}"}, most_bytes=4096)

    # --- canaries -----------------------------------------------------------------------------------

    async def write(self, scratch: DavPath) -> None:
        """The questions that need a place to write, in `scratch`, which must not be there."""
        self._scratch = scratch
        made = await self._ask("mkcol", "MKCOL", scratch, is_collection=True)
        if not made.is_ok:
            return
        await self._put("put_new", "aged", b"aged!")
        aged_from_s = trio.current_time()
        await self._stat("stat_young", self._at("aged"))
        for part in self._parts():
            await part()
        await trio.sleep(max(0.0, aged_from_s + _AGED_S - trio.current_time()))
        await self._aged()

    def _parts(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        return (
            self._conditions,
            self._same_second,
            self._reading,
            self._expectation,
            self._locking,
            self._lock_and_move,
            self._lock_free_name,
            self._overwriting,
            self._cutting,
            self._times,
            self._properties,
            self._parts_of_files,
            self._names,
            self._moved_names,
        )

    def _at(self, *names: str) -> DavPath:
        return DavPath((*self._scratch.parts, *names))

    def _url(self, path: DavPath) -> str:
        return self._share.url(path)

    async def _put(self, name: str, file: str, data: bytes, **headers: str) -> Answer:
        wanted = {key.replace("_", "-"): value for key, value in headers.items()}
        return await self._ask(name, "PUT", self._at(file), wanted, data)

    async def _move(
        self,
        name: str,
        source: str,
        target: str,
        *,
        method: str = "MOVE",
        overwrite: str = "T",
        claim: str = "",
    ) -> Answer:
        headers = {"Destination": self._url(self._at(target)), "Overwrite": overwrite}
        if claim:
            headers["If"] = claim
        return await self._ask(name, method, self._at(source), headers)

    async def _conditions(self) -> None:
        await self._put("put_again", "a", b"one")
        await self._put("if_none_match", "a", b"two", If_None_Match="*")
        await self._put("if_match_wrong", "a", b"three", If_Match=_WRONG_TAG)
        await self._put("if_wrong", "a", b"four", If=f"<{self._url(self._at('a'))}> ([{_WRONG_TAG}])")
        await self._put("fresh", "a", b"five")
        tag = answered.tag_of(await self._stat("stat_fresh", self._at("a")))
        if tag is not None and tag.weak:
            claim = f"<{self._url(self._at('a'))}> ([{tag.header()}])"
            await self._put("if_weak", "a", b"six", If=claim)

    async def _same_second(self) -> None:
        """Two writes of one size within one second of the server's."""
        for _ in range(2):
            await self._put("second_1", "s", b"11111")
            before = await self._stat("second_1_stat", self._at("s"))
            await self._put("second_2", "s", b"22222")
            after = await self._stat("second_2_stat", self._at("s"))
            if answered.mtime_of(before) == answered.mtime_of(after):
                return

    async def _reading(self) -> None:
        await self._range("range", self._at("aged"), 5)
        await self._ask("mkcol_sub", "MKCOL", self._at("sub"), is_collection=True)
        await self._ask("mkcol_deep", "MKCOL", self._at("sub", "deep"), is_collection=True)
        await self._deep("deep", self._scratch)
        await self._put("dot", ".dot", b"x")
        await self._list("scratch", self._scratch)

    async def _expectation(self) -> None:
        """A body that is refused, as its folder is not there: does the refusal come before it?"""
        body = _Counted(bytes(_EXPECT_BYTES))
        answer = await self._ask("expect", "PUT", self._at("nowhere", "x"), body=body)
        habit = self._wire.expect.name.lower()
        self.answers["expect"] = answer.with_body_told(body.taken_bytes, habit)

    # --- locks --------------------------------------------------------------------------------------

    async def _lock(self, name: str, path: DavPath) -> locks.LockToken | None:
        body = locks.lock_body(_OWNER)
        headers = {**XML, "Depth": "0", "Timeout": locks.timeout_header(_LOCK_S)}
        return answered.token_of(await self._ask(name, "LOCK", path, headers, body))

    async def _unlock(self, name: str, path: DavPath, token: locks.LockToken) -> None:
        await self._ask(name, "UNLOCK", path, {"Lock-Token": token.coded})

    async def _locking(self) -> None:
        path = self._at("l")
        await self._put("lock_file", "l", b"locked")
        token = await self._lock("lock", path)
        if token is None:
            return
        try:
            await self._put("lock_put", "l", b"no token")
            body = locks.PROPFIND_LOCKS
            await self._ask("lock_shown", "PROPFIND", path, {**XML, "Depth": "0"}, body)
            refresh = {"Timeout": locks.timeout_header(_LOCK_S), "If": f"({token.coded})"}
            await self._ask("lock_refresh", "LOCK", path, refresh)
        finally:
            await self._unlock("unlock", path, token)

    async def _lock_and_move(self) -> None:
        path = self._at("l")
        if "unlock" not in self.answers:
            return
        await self._put("lock_move_source", "m", b"moved")
        token = await self._lock("lock_again", path)
        if token is not None:
            claim = f"<{self._url(path)}> ({token.coded})"
            await self._move("lock_move", "m", "l", claim=claim)
            await self._unlock("lock_move_unlock", path, token)

    async def _lock_free_name(self) -> None:
        path = self._at("u")
        if "unlock" not in self.answers:
            return
        token = await self._lock("lock_free", path)
        if token is not None:
            await self._unlock("lock_free_unlock", path, token)
            await self._stat("lock_free_left", path)

    # --- MOVE, COPY, a broken PUT -------------------------------------------------------------------

    async def _overwriting(self) -> None:
        await self._put("over_source", "o1", b"source")
        await self._put("over_target", "o2", b"target")
        await self._move("copy_f", "o1", "o2", method="COPY", overwrite="F")
        wrong = f"<{self._url(self._at('o2'))}> ([{_WRONG_TAG}])"
        moved = await self._move("move_f", "o1", "o2", overwrite="F")
        if moved.is_ok:
            await self._put("over_source", "o1", b"source")
        await self._move("move_if_wrong", "o1", "o2", claim=wrong)

    async def _cutting(self) -> None:
        await self._put("cut_before", "c", canaries.CUT_OLD)
        body = _CutShort(b"n" * (_CUT_BYTES // 2), _CUT_BYTES)
        answer = await self._ask("cut", "PUT", self._at("c"), body=body)
        if not answer.status:
            self.answers["cut"] = replace(answer, error="cut in the middle of the body")
        await trio.sleep(0.3)  # for the server to notice
        await self._ask("cut_after", "GET", self._at("c"), most_bytes=_CUT_BYTES)

    async def _aged(self) -> None:
        """What two seconds change, and the conditions that need a tag which holds."""
        path = self._at("aged")
        tag = answered.tag_of(await self._stat("stat_aged", path))
        if tag is None or tag.weak:
            return
        await self._put("if_match_right", "aged", b"again", If_Match=tag.header())
        over = answered.tag_of(await self._stat("stat_over", self._at("o2")))
        if self.answers["move_if_wrong"].status == 412 and over is not None and not over.weak:
            claim = f"<{self._url(self._at('o2'))}> ([{over.header()}])"
            await self._move("move_if_right", "o1", "o2", claim=claim)

    # --- times, properties, parts -------------------------------------------------------------------

    async def _times(self) -> None:
        """Each way has a time of its own, so that it is seen which one worked."""
        wanted_s = canaries.MTIMES["x_oc_mtime"]
        await self._put("x_oc_mtime", "t", b"t", X_OC_Mtime=str(wanted_s))
        await self._stat("x_oc_mtime_stat", self._at("t"))
        for way, wanted_s in canaries.PROPERTY_MTIMES:
            await self._proppatch(way, "t", canaries.mtime_property(way, wanted_s))
            await self._stat(f"{way}_stat", self._at("t"))
        date = formatdate(canaries.MTIMES["put_date"], usegmt=True)
        await self._put("put_date", "t2", b"t", Date=date)
        await self._stat("put_date_stat", self._at("t2"))

    async def _proppatch(self, name: str, file: str, prop: bytes) -> Answer:
        return await self._ask(name, "PROPPATCH", self._at(file), XML, canaries.property_update(prop))

    async def _properties(self) -> None:
        await self._put("prop_file", "p", b"p")
        await self._proppatch("executable", "p", canaries.EXECUTABLE_PROPERTY)
        await self._stat("executable_stat", self._at("p"))
        told = await self._proppatch("dead", "p", canaries.dead_property(canaries.DEAD_TEXT))
        read = await self._stat("dead_stat", self._at("p"))
        if not told.is_ok or answered.dead_text(read) is None:
            return
        await self._put("dead_put", "p", b"pp")
        await self._stat("dead_put_stat", self._at("p"))
        await self._move("dead_copy", "p", "p2", method="COPY")
        await self._stat("dead_copy_stat", self._at("p2"))
        await self._move("dead_move", "p", "p3")
        await self._stat("dead_move_stat", self._at("p3"))

    async def _parts_of_files(self) -> None:
        await self._put("part_before", "part", canaries.PART_OLD)
        await self._put("content_range", "part", b"XY", Content_Range="bytes 3-4/10")
        await self._ask("content_range_after", "GET", self._at("part"), most_bytes=4096)
        if not answered.announces_patch(self.answers["options"]):
            return
        await self._put("part_before", "part", canaries.PART_OLD)
        headers = {"Content-Type": "application/x-sabredav-partialupdate", "X-Update-Range": "bytes=3-4"}
        await self._ask("patch", "PATCH", self._at("part"), headers, b"XY")
        await self._ask("patch_after", "GET", self._at("part"), most_bytes=4096)

    # --- names --------------------------------------------------------------------------------------

    async def _names(self) -> None:
        """A folder for the names; the control character comes last, as it may break the listing."""
        await self._ask("mkcol_names", "MKCOL", self._at("n"), is_collection=True)
        for label, name in canaries.NAMES.items():
            await self._ask(f"name_{label}", "PUT", self._at("n", name), body=b"n")
        for size in canaries.NAME_SIZES:
            answer = await self._ask(f"length_{size}", "PUT", self._at("n", "n" * size), body=b"n")
            if answer.is_ok:
                break
        await self._list("names", self._at("n"))
        await self._stat("case", self._at("n", canaries.NAMES["case"].lower()))
        for _ in range(2):  # rclone folds them only while it has the folder in memory
            await self._stat("unicode", self._at("n", canaries.NFD_NAME))
        await self._ask("name_control", "PUT", self._at("n", canaries.CONTROL_NAME), body=b"n")
        await self._list("names_control", self._at("n"))

    async def _moved_names(self) -> None:
        await self._ask("mkcol_moved", "MKCOL", self._at("v"), is_collection=True)
        for label, name in canaries.MOVED_NAMES.items():
            await self._put("move_name_source", "v0", b"v")
            headers = {"Destination": self._url(self._at("v", name)), "Overwrite": "F"}
            await self._ask(f"move_name_{label}", "MOVE", self._at("v0"), headers)
        await self._list("moved_names", self._at("v"))

    # --- the end ------------------------------------------------------------------------------------

    async def remove(self, scratch: DavPath) -> bool:
        """Takes `scratch` away, with all that is in it; False when it may still be there. Never raises."""
        with trio.CancelScope(shield=True), trio.move_on_after(REMOVE_S):
            for wait_s in (0.0, 1.0, 3.0):
                await trio.sleep(wait_s)
                self._most_requests = self.requests + _REMOVAL_REQUESTS
                try:
                    await self._ask("removal", "DELETE", scratch, is_collection=True)
                    left = await self._stat("removed", scratch, is_collection=True)
                except DavfsError:
                    continue
                if left.status in (404, 410):
                    return True
                with suppress(DavfsError):
                    await self._unlock_all(scratch)
        return False

    async def _unlock_all(self, scratch: DavPath) -> None:
        """A probe that was killed between LOCK and UNLOCK: its folder cannot be removed so."""
        for name in _LOCKED:
            path = DavPath((*scratch.parts, name))
            body = locks.PROPFIND_LOCKS
            shown_locks = await self._ask("left_locks", "PROPFIND", path, {**XML, "Depth": "0"}, body)
            for lock in locks.active_locks(shown_locks.body):
                if lock.token is not None and lock.owner in (_OWNER, ""):  # nginx and lighttpd do not tell
                    await self._unlock("left_unlock", path, lock.token)


@asynccontextmanager
async def scratch_of(probe: Probe, scratch: DavPath, left: Callable[[bool], None]) -> AsyncIterator[None]:
    """While the block runs `scratch` may exist; afterwards `left(False)` says that it is gone."""
    try:
        yield
    finally:
        left(not await probe.remove(scratch))
