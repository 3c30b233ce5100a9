"""The verbs that change names, properties and locks; what all verbs have in common.

`Client` adds reading and PUT. Each request here is sent once: after Disconnected or TimedOut the outcome is
unknown, and the caller looks. Overwrite is explicit, Depth is 0, folders end with '/'.
"""

from __future__ import annotations

import errno
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import httpx

from davfs.dav import locks, proppatch
from davfs.dav.cloud import Cloud
from davfs.dav.exchange import Exchange
from davfs.dav.filtered import Refusals
from davfs.dav.hrefs import Share, shown
from davfs.dav.quirks import Capabilities
from davfs.dav.refusals import raise_failures, refusal
from davfs.dav.request import PLAIN as _PLAIN
from davfs.dav.request import XML as _XML
from davfs.dav.request import Request as _Request
from davfs.dav.request import conditions as _conditions
from davfs.dav.request import destination, if_header
from davfs.dav.resource import DavPath, ETag, Resource
from davfs.dav.retry import ONCE, PATIENT, RetryPolicy
from davfs.dav.wire import Incoming, Octets, deadline
from davfs.errors import DavfsError, NotFound, NotItsAddress, PosixError, PreconditionFailed, ServerRefused

SMALL_BODY_BYTES: Final = 1024 * 1024  # answers that are read whole: lists of failures
_BY_DEADLINE: Final = math.inf  # of the wire: `_change` bounds all of it, and nobody looks twice
_MAY_MEAN_ELSEWHERE: Final = frozenset({400, 502})  # to MOVE and COPY: Destination is not ours
_ABOUT_THE_TARGET: Final = frozenset({412, 423, 424})
_MAY_MEAN_TAKEN: Final = frozenset({400, 403, 405, 409})


class Changing(ABC):
    def __init__(
        self,
        wire: httpx.AsyncBaseTransport,
        base_url: str,
        *,
        timeout_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._share = Share.parse(base_url)
        self._timeout_s = timeout_s
        self.capabilities = Capabilities()
        self._filtered = Refusals()
        self._exchange = Exchange(wire, self._share, timeout_s, clock)
        self.reach = self._exchange.reach
        self.cloud = Cloud(self._exchange, self._share, timeout_s)

    @abstractmethod
    async def stat(self, path: DavPath, *, is_collection: bool = False) -> Resource:
        """PROPFIND Depth 0. Raises NotFound."""

    async def has(self, path: DavPath) -> bool:
        with suppress(NotFound):
            await self.stat(path)
            return True
        return False

    def url(self, path: DavPath, *, is_collection: bool = False) -> str:
        """The address of `path`, without credentials."""
        return self._share.url(path, is_collection=is_collection)

    # --- names

    async def mkcol(self, path: DavPath) -> None:
        """Raises AlreadyExists on 405; some servers say 403, 409 or 423, and rclone 201 (peers.md rule 5)."""
        await self._change(_Request("MKCOL", path, _PLAIN, is_collection=True, read_timeout_s=_BY_DEADLINE))

    async def delete(
        self,
        path: DavPath,
        *,
        is_collection: bool,
        if_match: ETag | None = None,
        lock_token: locks.LockToken | None = None,
    ) -> None:
        headers = {**_PLAIN, **_conditions(if_match)}
        if lock_token is not None:
            headers |= if_header((self._tagged(path, is_collection=is_collection), lock_token, None))
        request = _Request("DELETE", path, headers, is_collection=is_collection, read_timeout_s=_BY_DEADLINE)
        await self._change(request)  # of a folder only when it is empty, so it takes no longer than any other

    async def move(
        self,
        src: DavPath,
        dst: DavPath,
        *,
        is_collection: bool,
        overwrite: bool,
        lock_token: locks.LockToken | None = None,
        dest_lock_token: locks.LockToken | None = None,
        dest_if_match: ETag | None = None,
    ) -> None:
        """Raises PreconditionFailed when `dst` exists and `overwrite` is False, or it has another tag.

        The tag is sent only where `capabilities.move_condition_honoured`: elsewhere the caller looks first.
        A lock never moves along, and rclone cannot MOVE a locked file at all: UNLOCK before.
        """
        sent_tag = dest_if_match if self.capabilities.move_condition_honoured else None
        claims = if_header(
            (self.url(src, is_collection=is_collection), lock_token, None),
            (self.url(dst, is_collection=is_collection), dest_lock_token, sent_tag),
        )
        await self._transfer("MOVE", src, dst, claims, is_collection=is_collection, overwrite=overwrite)

    async def copy(
        self,
        src: DavPath,
        dst: DavPath,
        *,
        is_collection: bool,
        overwrite: bool,
        if_match: ETag | None = None,
        dest_lock_token: locks.LockToken | None = None,
    ) -> None:
        """`if_match` is about `src`: Apache, lighttpd and WsgiDAV look at it, nginx, rclone and sabre/dav 1.8
        do not. A weak one goes out as in `put`.
        """
        weak_tag = if_match if if_match is not None and if_match.weak else None
        claims = if_header(
            (self._tagged(src, is_collection=is_collection), None, weak_tag),
            (self.url(dst, is_collection=is_collection), dest_lock_token, None),
        )
        wanted = {**claims, **_conditions(None if weak_tag else if_match)}
        await self._transfer("COPY", src, dst, wanted, is_collection=is_collection, overwrite=overwrite)

    async def _transfer(
        self,
        method: str,
        src: DavPath,
        dst: DavPath,
        claims: Mapping[str, str],
        *,
        is_collection: bool,
        overwrite: bool,
    ) -> None:
        if src == dst:  # deletes the file on copyparty and ASGIWebDAV (servers.md 2)
            return
        if is_collection and dst.is_within(src):  # destroys the tree on nginx
            raise PosixError(errno.EINVAL, f"cannot {method.lower()} {shown(src)} into itself")
        request = _Request(method, src, {**_PLAIN, **claims}, is_collection=is_collection)
        is_long = is_collection or method == "COPY"
        try:
            await self._carry(request, dst, overwrite=overwrite, is_long=is_long)
        except ServerRefused as error:
            # copyparty says 400 for 412 to Overwrite: F (servers.md 4)
            if not overwrite and error.status in _MAY_MEAN_TAKEN and await self.has(dst):
                raise PreconditionFailed(f"{error}: {shown(dst)} is there", status=412) from error
            doubted = self.capabilities.destination in {"unknown", "neither"}
            if not (doubted and error.status in _MAY_MEAN_ELSEWHERE and await self._is_still_there(src)):
                raise
            await self._carry_by_path(request, dst, error, overwrite=overwrite, is_long=is_long)

    async def _carry(
        self, request: _Request, dst: DavPath, *, overwrite: bool, is_long: bool, by_path: bool = False
    ) -> None:
        place = self._share.href if by_path or self.capabilities.has_another_address else self.url
        there = destination(place(dst, is_collection=request.is_collection), overwrite=overwrite)
        await self._change(replace(request, headers={**request.headers, **there}), is_long=is_long)
        form = self.capabilities.learned_destination
        self.capabilities = form("path" if by_path else "address")

    async def _carry_by_path(
        self, request: _Request, dst: DavPath, error: ServerRefused, *, overwrite: bool, is_long: bool
    ) -> None:
        """Behind a proxy that speaks to it under another name, or ends TLS, a server takes the address that
        we know for another server's (table 11a: 502 or 400). Most then take the path alone (peers.md 25).

        Where that does not help either, the first refusal counts: it may have been about something else.
        """
        try:
            await self._carry(request, dst, overwrite=overwrite, is_long=is_long, by_path=True)
        except ServerRefused as again:
            if again.status in _ABOUT_THE_TARGET and await self._is_still_there(request.path):
                self.capabilities = self.capabilities.learned_destination("path")  # it has read where to
                raise
            if (error.status, again.status) == (502, 400):  # mod_dav, which takes no path
                self.capabilities = self.capabilities.learned_destination("neither")
                hint = f"a proxy in front of it has to change Destination too, from {self._share.origin}"
                raise NotItsAddress(f"{error} ({hint})", status=error.status) from again
            raise error from again

    async def _is_still_there(self, path: DavPath) -> bool:
        try:
            return await self.has(path)
        except DavfsError:
            return False

    # --- properties and locks: davfs.dav.locks has what the answers mean

    async def proppatch(
        self,
        path: DavPath,
        changes: Sequence[proppatch.PropertyChange],
        *,
        is_collection: bool = False,
        lock_token: locks.LockToken | None = None,
        if_tag: ETag | None = None,
        ahead: bool = False,
    ) -> Mapping[str, int]:
        """Sets and removes properties: the status of each. Raises ServerRefused for the whole.

        `if_tag`: while it has this tag, where the server looks (sabre/dav, Apache). `ahead`: as for `list`.
        """
        body = proppatch.body(changes)
        tag = if_tag if self.capabilities.move_condition_honoured else None
        claim = if_header((self._tagged(path, is_collection=is_collection), lock_token, tag))
        headers = {**_XML, "Content-Length": str(len(body)), **claim}
        request = _Request("PROPPATCH", path, headers, Octets(body), is_collection, is_ahead=ahead)
        with self.reach.watched(), deadline(self._timeout_s, request.label):
            status, _, answer = await self._ask(ONCE, request, fine=(207,))
        return proppatch.outcome(changes, status, answer)

    async def lock(self, path: DavPath, owner: str, timeout_s: float) -> locks.GrantedLock:
        """A lock on a file, or on a free name: then the server makes the file. Raises Locked."""
        body = locks.lock_body(owner)
        headers = {**_XML, "Depth": "0", "Content-Length": str(len(body))}
        return await self._lock(_Request("LOCK", path, headers, Octets(body)), timeout_s)

    async def refresh_lock(
        self, path: DavPath, token: locks.LockToken, timeout_s: float
    ) -> locks.GrantedLock:
        """Another `timeout_s`. PreconditionFailed, NotFound, Locked: it is lost.

        nginx gives a new lock instead, and makes the file if it is gone: compare token and `created`.
        """
        url = None if self.capabilities.refreshes_untagged else self.url(path)
        request = _Request("LOCK", path, {**_XML, **if_header((url, token, None))})
        return await self._lock(request, timeout_s, held=token)

    async def _lock(
        self, request: _Request, timeout_s: float, *, held: locks.LockToken | None = None
    ) -> locks.GrantedLock:
        headers = {**request.headers, "Timeout": locks.timeout_header(timeout_s)}
        try:
            answer = await self._ask(ONCE, replace(request, headers=headers))
        except ServerRefused as error:
            if error.status in (405, 501):
                self.capabilities = self.capabilities.learned_lock(refused=True)
            raise
        return locks.granted(*answer, asked_s=timeout_s, held=held)

    async def unlock(self, path: DavPath, token: locks.LockToken) -> bool:
        """False: it was gone already (400, 404, 409, 412: peers.md, rule 7)."""
        request = _Request("UNLOCK", path, {**_PLAIN, "Lock-Token": token.coded})
        status, _, _ = await self._ask(ONCE, request, fine=(400, 404, 409, 412))
        return status < 300

    async def active_locks(self, path: DavPath) -> Sequence[locks.ActiveLock]:
        """What the server tells of the locks on a file; nothing on rclone. Raises NotFound."""
        request = self._propfind(path, "0", locks.PROPFIND_LOCKS, is_collection=False)
        _, _, body = await self._ask(PATIENT, request, fine=(207,))
        return tuple(locks.active_locks(body))

    # --- what the verbs have in common

    def _propfind(
        self,
        path: DavPath,
        depth: str,
        body: bytes,
        *,
        is_collection: bool,
        answer_by_s: float | None = None,
        is_ahead: bool = False,
    ) -> _Request:
        headers = {**_XML, "Depth": depth, "Content-Length": str(len(body))}
        return _Request(
            "PROPFIND",
            path,
            headers,
            Octets(body),
            is_collection,
            answer_by_s=answer_by_s,
            is_ahead=is_ahead,
        )

    def _tagged(self, path: DavPath, *, is_collection: bool = False) -> str | None:
        """What a list of If is about; None where the server understands it only without that."""
        return None if self.capabilities.claims_untagged else self.url(path, is_collection=is_collection)

    async def _change(self, request: _Request, *, is_long: bool = False) -> None:
        """Sends it once. `is_long`: the server may have to work on a whole tree before it answers."""
        longest_s = self._exchange.long_s if is_long else self._timeout_s
        if is_long:
            request = replace(request, read_timeout_s=longest_s)
        with self.reach.watched(), deadline(longest_s, request.label):
            async with self._exchange.answer(request) as answer:
                await self._check_change(request, answer)

    async def _ask(
        self, policy: RetryPolicy, request: _Request, *, fine: tuple[int, ...] = ()
    ) -> tuple[int, Mapping[str, str], bytes]:
        """A short answer, read whole: status, headers, body. A status in `fine` is no refusal."""

        async def attempt() -> tuple[int, Mapping[str, str], bytes]:
            async with self._exchange.answer(request) as answer:
                if answer.status not in fine:
                    await self._check_change(request, answer)
                return answer.status, answer.headers, await answer.receive_small(SMALL_BODY_BYTES)

        return await self._exchange.repeat(policy, request.label, attempt)

    async def _check_change(self, request: _Request, answer: Incoming) -> None:
        if answer.status == 207:
            raise_failures(request, await answer.receive_small(SMALL_BODY_BYTES))
        elif not 200 <= answer.status < 300:
            if self.capabilities.is_owncloud:
                await self.cloud.judge(request, answer)
            raise self._refusal(request, answer)

    def _refusal(self, request: _Request, answer: Incoming) -> ServerRefused:
        if answer.status == 404:
            self.capabilities = self._filtered.missing(self.capabilities, request.path)
        return refusal(request, answer.status, answer.headers, is_owncloud=self.capabilities.is_owncloud)
