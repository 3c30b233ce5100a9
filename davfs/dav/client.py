"""One method per WebDAV verb, over an httpx transport that is given (davfs.dav.lanes, or a script).

Owns the meaning of requests and answers: which headers go out, which status is which error, that an answer
is about the version and the range that were asked for. It holds no inode, no cache, no credential, and starts
no task. Every failure leaves as a DavfsError (ValueError only for a caller's mistake); texts carry
paths, never credentials, never a query.

Invariants:
- Depth is 0 or 1, Overwrite is explicit, PUT has a Content-Length, folders end with '/', on every verb.
- Only requests that change nothing are repeated (PROPFIND, OPTIONS, opening a GET), by one loop.
  After Disconnected or TimedOut from another verb the outcome is unknown: the caller looks.
- A request for metadata ends within `timeout_s`; a transfer ends `timeout_s` after its last progress.
- No byte of another version, range or length than announced is delivered as if it were right.
- Credentials go to the origin of the share only.
"""

from __future__ import annotations

import errno
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Final, TypeVar

import httpx
import trio

from davfs.dav.foresight import UploadWish, check_upload
from davfs.dav.hrefs import Share, decode_href, shown
from davfs.dav.lanes import Preflight
from davfs.dav.multistatus import (
    PROPFIND_PREFLIGHT,
    PROPFIND_QUOTA,
    PROPFIND_RESOURCE,
    Entry,
    Listing,
    ListingBuilder,
    Multistatus,
    parse_failures,
    root_cause,
    sole_entry,
)
from davfs.dav.pinned import Answer, Download, RangeRequest, checked_answer
from davfs.dav.quirks import Capabilities
from davfs.dav.reach import Reach
from davfs.dav.redirects import NotWebDav, is_in_share, redirected
from davfs.dav.resource import ROOT, DavPath, ETag, Quota, Resource, Validator
from davfs.dav.retry import ONCE, PATIENT, RetryPolicy, retry_after_s
from davfs.dav.wire import Body, Incoming, Octets, Outgoing, deadline, translated
from davfs.errors import (
    DavfsError,
    LinkDown,
    NotFound,
    ParentMissing,
    PosixError,
    ProtocolError,
    ServerRefused,
    StaleVersion,
    UriTooLong,
    refused,
)

__all__ = ["Body", "Client", "Download", "Listing", "NotWebDav", "PutResult", "Traffic"]

T = TypeVar("T")

_ABROAD: Final = frozenset({"Range", "Accept-Encoding"})  # the only headers that another host gets
_REDIRECTS: Final = frozenset({301, 302, 307, 308})
_MOST_REDIRECTS: Final = 3
_SMALL_BODY_BYTES: Final = 1024 * 1024  # answers that are read whole: lists of failures
# A listing of 100,000 names is 50 MB: it may take longer than `timeout_s` while it keeps coming, and so may
# a server's work on a whole tree.
_LONG_FACTOR: Final = 10
# After the last byte some servers hash or scan before they answer (peers.md 29; Nextcloud's manual asks
# clients for ten minutes a gigabyte).
_SERVER_WORK_BYTES_PER_S: Final = 2 * 1024 * 1024
_BUFFERED_BYTES: Final = 8 * 1024 * 1024  # beyond what the kernel takes for a peer that is gone (tcp_wmem)
_CONNECT_TIMEOUT_S: Final = 15.0
_TRANSLATE: Final = {"Translate": "f"}  # IIS would run scripts instead of reading them
_XML: Final = {"Content-Type": "application/xml; charset=utf-8", "Accept-Encoding": "gzip", **_TRANSLATE}
_PLAIN: Final = {"Accept-Encoding": "identity", **_TRANSLATE}


_ASK_RESOURCE: Final = Octets(PROPFIND_RESOURCE)


@dataclass(frozen=True, slots=True)
class PutResult:
    created: bool  # 201
    etag: ETag | None  # from the answer


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of bodies, both ways, since the client was made."""

    up_bytes: int = 0
    down_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Request:
    """Everything about one request that survives a redirect and a repetition."""

    method: str
    path: DavPath
    headers: Mapping[str, str]
    content: Body | None = None
    is_collection: bool = False
    read_timeout_s: float | None = None
    preflight: Preflight | None = None
    is_probe: bool = False  # sent although the link is down

    @property
    def label(self) -> str:
        return f"{self.method} {shown(self.path)}"


class Client:
    """A WebDAV share at `base_url`. `timeout_s` bounds a metadata request, and each stall of a transfer."""

    def __init__(
        self,
        wire: httpx.AsyncBaseTransport,
        base_url: str,
        *,
        timeout_s: float = 30.0,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._wire = wire
        self._share = Share.parse(base_url)
        self._timeout_s = timeout_s
        self._clock = clock
        self._requests: Counter[str] = Counter()
        self._up_bytes = 0
        self._down_bytes = 0
        self.capabilities = Capabilities()
        self.reach = Reach(clock)

    # --- what callers ask of the wire ---------------------------------------------------------------

    async def connect(self) -> Resource:
        """Proves that the share answers, once and without repetition; learns its capabilities.

        Raises NotWebDav, Unauthorized, NotFound, Unreachable and the rest, each with a text for the person
        who typed the address.
        """
        root = await self._repeat(ONCE, "connect", self._describe_root)
        if not root.is_collection:
            raise PosixError(errno.ENOTDIR, f"{self.url(ROOT)} is a file on the server, not a folder")
        with suppress(ServerRefused):  # proxies filter OPTIONS; PROPFIND has answered, which is enough
            self.capabilities = await self._repeat(ONCE, "OPTIONS", self._options)
        self.reach.proven()
        return root

    async def probe(self, longest_s: float) -> None:
        """Asks for the root although the link is down. What it says does not matter: the link has noticed."""
        request = replace(self._root_request(), is_probe=True)
        with suppress(DavfsError):
            await self._repeat(ONCE, request.label, lambda: self._describe(request), longest_s=longest_s)

    async def stat(self, path: DavPath, *, is_collection: bool = False) -> Resource:
        """PROPFIND Depth 0. `is_collection` is a hint that saves Apache's redirect from 'a' to 'a/'."""
        request = self._propfind(path, "0", PROPFIND_RESOURCE, is_collection=is_collection)
        return (await self._repeat(PATIENT, request.label, lambda: self._describe(request))).resource

    async def list(self, path: DavPath) -> Listing:
        """PROPFIND Depth 1, parsed while it arrives. Raises NotFound, ProtocolError."""
        request = self._propfind(path, "1", PROPFIND_RESOURCE, is_collection=True)
        return await self._repeat(PATIENT, request.label, lambda: self._list(request), longest_s=self._long_s)

    async def quota(self) -> Quota:
        """RFC 4331, of the share's root."""
        request = self._propfind(ROOT, "0", PROPFIND_QUOTA, is_collection=True)
        return (await self._repeat(PATIENT, request.label, lambda: self._describe(request))).quota

    def get(
        self,
        path: DavPath,
        *,
        start: int = 0,
        end: int | None = None,
        expected: Validator | None = None,
    ) -> AbstractAsyncContextManager[Download]:
        """One running GET of bytes [start, end), pinned to `expected` where the server can.

        Raises StaleVersion before any byte when the answer shows another version. The server may deliver
        fewer bytes than asked (a short range) or, without ranges, all from 0: look at the Download.
        """
        return self._get(path, RangeRequest.clamped(start, end, expected))

    async def put(
        self,
        path: DavPath,
        body: Body,
        *,
        if_match: ETag | None = None,
        if_none_match: bool = False,
        mtime_s: int | None = None,
    ) -> PutResult:
        """Stores `body` at `path`. `if_match` must be strong (RFC 9110 13.1.1), else ValueError.

        A 404 can also mean "larger than IIS allows" (peers.md 19): ParentMissing with the parent
        present is that. Disconnected, TimedOut: the outcome is unknown.
        """
        headers = {
            **_PLAIN,
            "Content-Length": str(
                body.size_bytes
            ),  # always: chunked uploads end as empty files (peers.md 14)
            **_conditions(if_match, if_none_match=if_none_match),
        }
        if mtime_s is not None:
            headers["X-OC-Mtime"] = str(mtime_s)  # Nextcloud, copyparty; ignored elsewhere
        request = _Request(
            "PUT",
            path,
            headers,
            content=body,
            read_timeout_s=self._timeout_s + body.size_bytes / _SERVER_WORK_BYTES_PER_S,
        )
        request = replace(request, preflight=self._preflight(request, if_match, if_none_match=if_none_match))
        with self.reach.watched():
            async with self._answer(request) as answer:
                await self._check_put(request, answer)
            return self._learn_put(answer, mtime_sent=mtime_s is not None)

    async def mkcol(self, path: DavPath) -> None:
        """Raises AlreadyExists on 405; some servers say 403, 409 or 423, and rclone 201 (peers.md rule 5)."""
        await self._change(_Request("MKCOL", path, _PLAIN, is_collection=True))

    async def delete(self, path: DavPath, *, is_collection: bool, if_match: ETag | None = None) -> None:
        headers = {**_PLAIN, **_conditions(if_match)}
        request = _Request("DELETE", path, headers, is_collection=is_collection)
        await self._change(request, is_long=is_collection)

    async def move(self, src: DavPath, dst: DavPath, *, is_collection: bool, overwrite: bool) -> None:
        """Raises PreconditionFailed when `dst` exists and `overwrite` is False."""
        await self._transfer("MOVE", src, dst, is_collection=is_collection, overwrite=overwrite)

    async def copy(self, src: DavPath, dst: DavPath, *, is_collection: bool, overwrite: bool) -> None:
        await self._transfer("COPY", src, dst, is_collection=is_collection, overwrite=overwrite)

    def url(self, path: DavPath, *, is_collection: bool = False) -> str:
        """The address of `path`, without credentials."""
        return self._share.url(path, is_collection=is_collection)

    @property
    def request_counts(self) -> Mapping[str, int]:
        """Requests sent so far by method, those of an authentication handshake included."""
        return MappingProxyType(self._requests)

    @property
    def traffic(self) -> Traffic:
        return Traffic(self._up_bytes, self._down_bytes)

    async def aclose(self) -> None:
        await self._wire.aclose()

    # --- PROPFIND and OPTIONS -----------------------------------------------------------------------

    def _root_request(self) -> _Request:
        return self._propfind(ROOT, "0", PROPFIND_RESOURCE, is_collection=True)

    async def _describe_root(self) -> Resource:
        request = replace(self._root_request(), is_probe=True)
        try:
            return (await self._describe(request)).resource
        except NotFound as error:
            text = f"no such folder on the server: {self.url(ROOT)}"
            raise NotFound(text, status=error.status) from None
        except ServerRefused as error:
            if error.status in (400, 405, 501):
                raise NotWebDav(_not_webdav_text(self.url(ROOT), error.status)) from None
            raise

    async def _options(self) -> Capabilities:
        request = _Request("OPTIONS", ROOT, _PLAIN, is_collection=True, is_probe=True)
        async with self._answer(request) as answer:
            if not 200 <= answer.status < 300:
                raise self._refusal(request, answer)
            return Capabilities.from_options(answer.headers)

    def _propfind(self, path: DavPath, depth: str, body: bytes, *, is_collection: bool) -> _Request:
        headers = {**_XML, "Depth": depth, "Content-Length": str(len(body))}
        return _Request("PROPFIND", path, headers, Octets(body), is_collection)

    async def _describe(self, request: _Request) -> Entry:
        entries: list[Entry] = []
        await self._parse(request, entries.extend)
        return self._own_entry(entries, request)

    async def _list(self, request: _Request) -> Listing:
        builder = ListingBuilder(self._share, request.path)
        document = await self._parse(request, builder.extend)
        if builder.refused_status is not None:
            raise refused("PROPFIND", builder.refused_status, shown(request.path))
        listing = builder.build(complete=document.complete)
        self._learn_listing(listing)
        return listing

    async def _parse(self, request: _Request, take: Callable[[Iterable[Entry]], None]) -> Multistatus:
        """Sends a PROPFIND and hands over the entries of its answer while they come."""
        document = Multistatus()
        async with self._answer(request) as answer:
            self._check_multistatus(request, answer)
            while not document.stopped and (piece := await answer.receive_decoded()) is not None:
                take(document.feed(piece))
            take(document.close())
        return document

    def _own_entry(self, entries: Sequence[Entry], request: _Request) -> Entry:
        entry = sole_entry(entries, self._share, request.path)
        if entry is None:
            hrefs = [href for entry in entries for href in entry.hrefs]
            about = f"; it speaks of {hrefs[0][:200]!r}" if hrefs else ""
            raise ProtocolError(f"{request.label}: the answer says nothing about it{about}")
        if not entry.is_ok:
            raise refused("PROPFIND", entry.status, shown(request.path))
        if not entry.resource.is_collection and request.content == _ASK_RESOURCE:
            self.capabilities = self.capabilities.learned_propfind(file_etag=entry.resource.etag is not None)
        return entry

    def _learn_listing(self, listing: Listing) -> None:
        files = (member for member in listing.members.values() if not member.is_collection)
        first = next(files, None)
        if first is not None:
            self.capabilities = self.capabilities.learned_propfind(file_etag=first.etag is not None)

    def _check_multistatus(self, request: _Request, answer: Incoming) -> None:
        if answer.status == 207:
            return
        if 200 <= answer.status < 300:  # an HTML page: the server took PROPFIND for GET
            raise NotWebDav(_not_webdav_text(self.url(ROOT), answer.status))
        raise self._refusal(request, answer)

    # --- GET ----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _get(self, path: DavPath, wanted: RangeRequest) -> AsyncIterator[Download]:
        request = _Request("GET", path, {**_PLAIN, **wanted.headers()})
        opening = partial(self._open_get, request, wanted)
        incoming, answer = await self._repeat(PATIENT, request.label, opening)
        try:
            with self.reach.watched():
                yield Download(answer, incoming, wanted.expected, shown(path))
        finally:
            await incoming.close()

    async def _open_get(self, request: _Request, wanted: RangeRequest) -> tuple[Incoming, Answer]:
        incoming = await self._send(request)
        try:
            return incoming, self._accepted(request, incoming, wanted)
        except DavfsError:
            await incoming.finish()
            raise

    def _accepted(self, request: _Request, incoming: Incoming, wanted: RangeRequest) -> Answer:
        if incoming.status == 412:
            raise StaleVersion(f"{request.label}: changed on the server")
        if not 200 <= incoming.status < 300 and incoming.status != 416:
            raise self._refusal(request, incoming)
        is_foreign = not is_in_share(self._share, incoming.url)
        return checked_answer(incoming.status, incoming.headers, wanted, is_foreign=is_foreign)

    # --- verbs that change something ----------------------------------------------------------------

    async def _transfer(
        self, method: str, src: DavPath, dst: DavPath, *, is_collection: bool, overwrite: bool
    ) -> None:
        if src == dst:  # deletes the file on copyparty and ASGIWebDAV (servers.md 2)
            return
        if is_collection and dst.is_within(src):  # destroys the tree on nginx
            raise PosixError(errno.EINVAL, f"cannot {method.lower()} {shown(src)} into itself")
        headers = {
            **_PLAIN,
            "Destination": self.url(dst, is_collection=is_collection),
            "Overwrite": "T" if overwrite else "F",
        }
        request = _Request(method, src, headers, is_collection=is_collection)
        await self._change(request, is_long=is_collection or method == "COPY")

    async def _change(self, request: _Request, *, is_long: bool = False) -> None:
        """Sends it once. `is_long`: the server may have to work on a whole tree before it answers."""
        longest_s = self._long_s if is_long else self._timeout_s
        with self.reach.watched(), deadline(longest_s, request.label):
            async with self._answer(replace(request, read_timeout_s=longest_s)) as answer:
                await self._check_change(request, answer)

    async def _check_change(self, request: _Request, answer: Incoming) -> None:
        if answer.status == 207:
            await self._raise_failures(request, answer)
        elif not 200 <= answer.status < 300:
            raise self._refusal(request, answer)

    async def _raise_failures(self, request: _Request, answer: Incoming) -> None:
        """207 is how many servers refuse a change (servers.md 8)."""
        document = bytearray()
        while len(document) < _SMALL_BODY_BYTES and (piece := await answer.receive_decoded()) is not None:
            document += piece
        failures = parse_failures(bytes(document))
        if not failures:
            return
        status, href = root_cause(failures).status, root_cause(failures).href
        where = shown(DavPath(decode_href(href) or request.path.parts))
        kind = type(refused(request.method, status, where))
        raise kind(f"{request.label}: {len(failures)} failed, {where} with {status}", status=status)

    async def _check_put(self, request: _Request, answer: Incoming) -> None:
        if answer.status in (404, 409):
            raise ParentMissing(
                f"{request.label}: the server answered {answer.status}, the folder may be missing",
                status=answer.status,
            )
        await self._check_change(request, answer)
        location = decode_href(answer.headers.get("location", ""))
        own = (*self._share.base, *request.path.parts)
        if answer.status == 201 and location is not None and location != own:
            # copyparty without --daw never overwrites: it invents another name (servers.md 6)
            other = shown(DavPath(location))
            raise ProtocolError(f"{request.label}: the server stored it as {other} instead")

    def _learn_put(self, answer: Incoming, *, mtime_sent: bool) -> PutResult:
        etag = ETag.parse(answer.headers.get("etag"))
        accepted = answer.headers.get("x-oc-mtime", "").lower() == "accepted" if mtime_sent else None
        self.capabilities = self.capabilities.learned_put(etag=etag is not None, mtime_accepted=accepted)
        return PutResult(answer.status == 201, etag)

    # --- sending ------------------------------------------------------------------------------------

    @property
    def _long_s(self) -> float:
        return self._timeout_s * _LONG_FACTOR

    async def _repeat(
        self,
        policy: RetryPolicy,
        label: str,
        attempt: Callable[[], Awaitable[T]],
        *,
        longest_s: float | None = None,
    ) -> T:
        """The one retry loop: `attempt` until it answers, the policy gives up, or the deadline passes."""
        started = self._clock()
        failures = 0
        while True:
            left_s = started + self._timeout_s - self._clock()
            try:
                with self.reach.watched(), self.reach.asking(), deadline(longest_s or left_s, label):
                    return await attempt()
            except DavfsError as error:
                if failures == 0 and isinstance(error, LinkDown):
                    raise  # known to be down; only who found that out tries again for a moment
                failures += 1
                left_s = started + self._timeout_s - self._clock()
                dice = random.random()  # noqa: S311 - it spreads retries, it hides nothing
                wait_s = policy.wait_s(error, failures=failures, left_s=left_s, dice=dice)
                if wait_s is None:
                    raise
            await trio.sleep(wait_s)

    @asynccontextmanager
    async def _answer(self, request: _Request) -> AsyncIterator[Incoming]:
        """The answer to `request`; afterwards its connection is free again."""
        incoming = await self._send(request)
        try:
            yield incoming
        except DavfsError:
            await incoming.finish()
            raise
        except BaseException:
            await incoming.close()
            raise
        await incoming.finish()

    async def _send(self, request: _Request) -> Incoming:
        """The final answer, after redirects. The caller finishes it."""
        url = self.url(request.path, is_collection=request.is_collection)
        for _ in range(_MOST_REDIRECTS + 1):
            incoming = await self._send_once(request, url)
            if incoming.status not in _REDIRECTS:
                return incoming
            location = incoming.headers.get("location", "")
            await incoming.finish()
            url = redirected(
                self._share,
                request.label,
                request.method,
                str(incoming.url),
                location,
                is_collection=request.is_collection,
            )
        raise ProtocolError(f"{request.label}: more than {_MOST_REDIRECTS} redirects")

    async def _send_once(self, request: _Request, url: str) -> Incoming:
        if not request.is_probe:
            self.reach.check()
        sent: Sequence[str] = [request.method]
        try:
            address = httpx.URL(url)
            with translated(request.label):
                response = await self._exchange(request, address)
            sent = response.extensions.get("davfs_sent", sent)
        except httpx.InvalidURL:  # httpx takes 65,536 characters
            raise UriTooLong(f"{request.label}: the address is too long", status=414) from None
        finally:
            self._requests.update(sent)
        self.reach.answered()
        return Incoming(response, address, request.label, self._count_down)

    async def _exchange(self, request: _Request, url: httpx.URL) -> httpx.Response:
        extensions = {"timeout": self._timeouts(request), "davfs_preflight": request.preflight}
        if not is_in_share(self._share, url):
            # Object storage behind a redirected GET: no credentials, no cookies, no validators of ours
            kept = {name: text for name, text in request.headers.items() if name in _ABROAD}
            bare = httpx.Request("GET", url, headers=kept, extensions=extensions)
            return await self._wire.handle_async_request(bare)
        built = httpx.Request(request.method, url, headers=request.headers, extensions=extensions)
        if request.content is None:
            return await self._wire.handle_async_request(built)
        is_large = request.content.size_bytes > _BUFFERED_BYTES
        count = self._count_up_large if is_large else self._count_up
        built.stream = outgoing = Outgoing(request.content, count)
        try:
            return await self._wire.handle_async_request(built)
        finally:
            await outgoing.aclose()

    def _timeouts(self, request: _Request) -> dict[str, float]:
        return {
            "connect": min(_CONNECT_TIMEOUT_S, self._timeout_s),
            "read": request.read_timeout_s or self._timeout_s,
            "write": self._timeout_s,
            "pool": self._timeout_s,
        }

    def _preflight(self, request: _Request, if_match: ETag | None, *, if_none_match: bool) -> Preflight:
        """What is checked before the body, when the wire finds that a look is worth it."""
        wish = UploadWish(
            request.path, request.content.size_bytes if request.content else 0, if_match, if_none_match
        )
        folder = httpx.URL(self.url(request.path.parent, is_collection=True))
        return Preflight(
            partial(check_upload, self._share, wish), wish.is_conditional, PROPFIND_PREFLIGHT, folder
        )

    def _refusal(self, request: _Request, answer: Incoming) -> ServerRefused:
        wait_s = retry_after_s(answer.headers.get("retry-after"), now_s=time.time())
        return refused(request.method, answer.status, shown(request.path), retry_after_s=wait_s)

    def _count_up(self, size_bytes: int) -> None:
        self._up_bytes += size_bytes

    def _count_up_large(self, size_bytes: int) -> None:
        """Somebody takes these bytes: more of them than fit into the buffers of a dead connection."""
        self._up_bytes += size_bytes
        self.reach.progressed()

    def _count_down(self, size_bytes: int) -> None:
        self._down_bytes += size_bytes
        self.reach.progressed()


def _conditions(if_match: ETag | None, *, if_none_match: bool = False) -> dict[str, str]:
    """The precondition headers of a change. A weak tag never matches, so sending one is a mistake."""
    if if_match is not None and if_match.weak:
        raise ValueError("a weak ETag cannot stand in If-Match")
    headers = {}
    if if_match is not None:
        headers["If-Match"] = if_match.header()
    if if_none_match:
        headers["If-None-Match"] = "*"
    return headers


def _not_webdav_text(url: str, status: int) -> str:
    text = f"{url} does not speak WebDAV: it answered {status} to PROPFIND"
    if status == 405:  # servers.md E and 21
        text += " (Nextcloud: add /remote.php/dav/files/USER/; Apache: set DirectoryIndex disabled)"
    return text
