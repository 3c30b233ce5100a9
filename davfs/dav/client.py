"""One method per WebDAV verb, over an httpx transport that is given (davfs.dav.lanes, or a script).

Owns the meaning of requests and answers: which headers go out, which status is which error, that an answer
is about the version and the range that were asked for. Sending is `dav.exchange`. It holds no inode, no
cache, no credential, and starts no task. Every failure leaves as a DavfsError (ValueError only for a
caller's mistake); texts carry paths, never credentials, never a query.

Invariants:
- Depth is 0 or 1, Overwrite is explicit, PUT has a Content-Length, folders end with '/', on every verb.
- Only requests that change nothing are repeated (PROPFIND, OPTIONS, opening a GET), by one loop.
  After Disconnected or TimedOut from another verb the outcome is unknown: the caller looks.
- A request for metadata ends within `timeout_s`; a transfer ends `timeout_s` after its last progress, and so
  does a listing, whose answer begins within `timeout_s`, however many connections that takes. The first byte
  of a large file may take longer, by its size: some servers sum it up.
- No byte of another version, range or length than announced is delivered as if it were right.
- Credentials go to the origin of the share only.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Final

import httpx
import trio

from davfs.dav import locks, microsoft, properties, times
from davfs.dav.changing import SMALL_BODY_BYTES, Changing
from davfs.dav.dates import parse_date
from davfs.dav.foresight import UploadWish, allows_new, check_upload
from davfs.dav.hrefs import decoded_again, shown
from davfs.dav.lanes import PARENT_FROM_BYTES, Preflight, PreflightAnswer
from davfs.dav.limits import UploadLimit
from davfs.dav.multistatus import (
    PROPFIND_PREFLIGHT,
    PROPFIND_QUOTA,
    Entry,
    Listing,
    ListingBuilder,
    Multistatus,
    entries_of,
    sole_entry,
    spelled_name,
)
from davfs.dav.names import odd_in
from davfs.dav.pace import Pace
from davfs.dav.partial import PartialWay, part_request
from davfs.dav.pinned import Answer, Download, RangeRequest, checked_answer
from davfs.dav.quirks import Capabilities
from davfs.dav.reach import Reach
from davfs.dav.redirects import NotWebDav, is_in_share, not_webdav, with_hint
from davfs.dav.refusals import check_location, check_stored
from davfs.dav.request import PLAIN as _PLAIN
from davfs.dav.request import PutResult, Traffic, if_header
from davfs.dav.request import Request as _Request
from davfs.dav.request import conditions as _conditions
from davfs.dav.resource import ROOT, DavPath, ETag, Quota, Resource, Validator
from davfs.dav.retry import ONCE, PATIENT
from davfs.dav.wire import Body, Incoming, Octets, checksum_of
from davfs.errors import (
    DavfsError,
    NotFound,
    NotThatName,
    ParentMissing,
    PosixError,
    ProtocolError,
    ServerRefused,
    StaleVersion,
    refused,
)

__all__ = ["Body", "Client", "Download", "Listing", "NotWebDav", "PutResult", "Traffic"]

_SLICE_BYTES: Final = 64 * 1024
YOUNG_S: Final = 2.0  # a second of the server's, told in whole ones, and one for the way
AHEAD_S: Final = 86_400.0  # a date further ahead is no clock's: a change now would show
IN_USE_S: Final = 60.0  # since its last change: a file that somebody may be writing again and again
# After the last byte some servers hash or scan before they answer (peers.md 29; Nextcloud's manual asks
# clients for ten minutes a gigabyte).
_SERVER_WORK_BYTES_PER_S: Final = 2 * 1024 * 1024
# Before the first byte of a part sabre/dav 1.8 makes two MD5s of the whole file: 6 s for 2 GiB on a machine
# that has nothing else to do.
_SUMMED_BYTES_PER_S: Final = 16 * 1024 * 1024
LARGE_BYTES: Final = 128 * 1024 * 1024


class Client(Changing):
    """A WebDAV share at `base_url`. `timeout_s` bounds a metadata request, and each stall of a transfer."""

    def __init__(
        self,
        wire: httpx.AsyncBaseTransport,
        base_url: str,
        *,
        timeout_s: float = 30.0,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        super().__init__(wire, base_url, timeout_s=timeout_s, clock=clock)
        self._clock = clock
        self._clock_ahead_s = 0.0  # the server's clock against ours
        self.upload_limit = UploadLimit()
        self.extras: frozenset[str] = frozenset()  # of `properties.EXTRAS`: what listings ask for beside

    # --- what callers ask of the wire ---------------------------------------------------------------

    async def connect(self) -> Resource:
        """Proves that the share answers, once and without repetition; learns its capabilities.

        Raises NotWebDav, Unauthorized, NotFound, Unreachable and the rest, each with a text for the person
        who typed the address.
        """
        root = await self._exchange.repeat(ONCE, "connect", self._describe_root)
        if not root.is_collection:
            raise PosixError(errno.ENOTDIR, f"{self.url(ROOT)} is a file on the server, not a folder")
        with suppress(ServerRefused):  # proxies filter OPTIONS; PROPFIND has answered, which is enough
            self.capabilities = await self._exchange.repeat(ONCE, "OPTIONS", self._options)
            self.extras |= self.capabilities.extras
        self.extras |= self.capabilities.told_permissions
        self.reach.proven()
        return root

    async def probe(self, longest_s: float) -> None:
        """Asks for the root although the link is down. What it says does not matter: the link has noticed."""
        request = self._propfind(ROOT, "0", self._asked(), is_collection=True)
        request = replace(request, is_probe=True)
        with suppress(DavfsError):
            await self._exchange.repeat(
                ONCE, request.label, lambda: self._describe(request), longest_s=longest_s
            )

    async def stat(self, path: DavPath, *, is_collection: bool = False) -> Resource:
        """PROPFIND Depth 0. `is_collection` is a hint that saves Apache's redirect from 'a' to 'a/'."""
        if path == ROOT:
            request = self._root_request()
        else:
            request = self._propfind(path, "0", self._asked(), is_collection=is_collection)
        return (await self._exchange.repeat(PATIENT, request.label, lambda: self._describe(request))).resource

    async def properties_of(
        self, path: DavPath, names: Iterable[str], *, is_collection: bool = False
    ) -> Mapping[str, str]:
        """The texts of those that it has. Raises ProtocolError when all of them are more than 1 MiB."""
        request = self._propfind(path, "0", properties.propfind_of(names), is_collection=is_collection)
        _, _, body = await self._ask(PATIENT, request, fine=(207,))
        return properties.texts_of(body, shorter_than=SMALL_BODY_BYTES)

    async def look(self, path: DavPath, size_bytes: int, lock_token: locks.LockToken | None) -> Resource:
        """`stat` before a large upload over it: also raises what that would end with, Locked or NoSpace."""
        request = self._propfind(path, "0", PROPFIND_PREFLIGHT, is_collection=False)
        status, headers, body = await self._ask(PATIENT, request, fine=(207,))
        document = Multistatus()
        entry = self._own_entry([*document.feed(body), *document.close()], request)
        wish = UploadWish(path, size_bytes, lock_token=lock_token)
        check_upload(self._share, wish, PreflightAnswer(status, headers, body))
        return entry.resource

    async def look_at_folder(self, folder: DavPath) -> PreflightAnswer | None:
        """What `put` of a large new file would ask its folder first; None: it would not ask.

        Nobody waits for it: NoLane when no connection is to spare.
        """
        if not self._exchange.asks_folders:
            return None
        request = self._propfind(folder, "0", PROPFIND_PREFLIGHT, is_collection=True)
        return PreflightAnswer(*await self._ask(ONCE, replace(request, is_ahead=True), fine=(207,)))

    async def list(self, path: DavPath, *, ahead: bool = False) -> Listing:
        """PROPFIND Depth 1, parsed while it arrives. Raises NotFound, ProtocolError.

        `ahead`: nobody waits for it. It is not repeated, and NoLane at once when no connection is to spare.
        """
        answer_by_s = self._clock() + self._timeout_s
        request = self._propfind(
            path, "1", self._asked(), is_collection=True, answer_by_s=answer_by_s, is_ahead=ahead
        )
        policy = ONCE if ahead else PATIENT
        return await self._exchange.repeat(
            policy, request.label, lambda: self._list(request), longest_s=self._exchange.long_s
        )

    async def quota(self, folder: DavPath = ROOT) -> Quota:
        """RFC 4331."""
        request = self._propfind(folder, "0", PROPFIND_QUOTA, is_collection=True)
        return (await self._exchange.repeat(PATIENT, request.label, lambda: self._describe(request))).quota

    def get(
        self,
        path: DavPath,
        *,
        start: int = 0,
        end: int | None = None,
        expected: Validator | None = None,
        ahead: bool = False,
    ) -> AbstractAsyncContextManager[Download]:
        """One running GET of bytes [start, end), pinned to `expected` where the server can.

        Raises StaleVersion before any byte when the answer shows another version. The server may deliver
        fewer bytes than asked (a short range) or, without ranges, all from 0: look at the Download.
        `ahead`: as for `list`.
        """
        wanted = RangeRequest.clamped(start, end, expected)
        return _Get(partial(self._get, path, wanted, is_ahead=ahead), self.reach)

    async def put(
        self,
        path: DavPath,
        body: Body,
        *,
        if_match: ETag | None = None,
        if_none_match: bool = False,
        mtime_s: int | None = None,
        lock_token: locks.LockToken | None = None,
        is_known: bool = False,
        is_new: bool = False,
        folder: PreflightAnswer | None = None,
    ) -> PutResult:
        """Stores `body` at `path`, while the server holds `if_match`.

        `is_known`: what is there was looked at a moment ago (`look`). `is_new`: nobody else has this name.
        `folder`: what `look_at_folder` said a moment ago; only a yes is believed.
        A weak tag never holds in If-Match (RFC 9110 13.1.1): it goes out as `If: <url> (["tag"])`, for
        servers of which `capabilities.weak_tag_in_if` is known.
        A 404 can also mean "larger than IIS allows" (peers.md 19): ParentMissing with the parent
        present is that. Disconnected, TimedOut: the outcome is unknown.
        """
        weak_tag = if_match if if_match is not None and if_match.weak else None
        headers = {
            **_PLAIN,
            "Content-Length": str(body.size_bytes),  # always: chunked ones end as empty files (peers.md 14)
            **_conditions(None if weak_tag else if_match, if_none_match=if_none_match),
        }
        if lock_token is not None or weak_tag is not None:
            headers |= if_header((self._tagged(path), lock_token, weak_tag))
        if mtime_s is not None:  # ignored where it is not known
            headers |= times.put_headers(mtime_s, by_date=self.capabilities.is_nginx_dav)
        if (checksum := checksum_of(body)) is not None:
            headers["OC-Checksum"] = checksum
        wish = UploadWish(path, body.size_bytes, if_match, if_none_match, lock_token)
        preflight = self._preflight(wish, is_known=is_known, is_new=is_new)
        if folder is not None and allows_new(self._share, wish, folder):
            preflight = replace(preflight, folder=None)
        request = _Request(
            "PUT",
            path,
            headers,
            content=body,
            read_timeout_s=self._timeout_s + body.size_bytes / _SERVER_WORK_BYTES_PER_S,
            preflight=preflight,
        )
        with self.reach.watched():
            async with self._exchange.answer(request) as answer:
                self.capabilities = self.capabilities.learned_conditional_put(answer.status, wish.condition)
                await self._check_put(request, answer)
                self.upload_limit = self.upload_limit.stored(body.size_bytes)
                self.capabilities = self.capabilities.learned_stored(path.name)
            return self._learn_put(request, answer, mtime_sent=mtime_s is not None)

    async def put_part(
        self, path: DavPath, part: Body, way: PartialWay, *, start: int, total_bytes: int
    ) -> None:
        """Replaces a part of a temporary file of ours, from `start` on; it then has `total_bytes`.

        Never of another file: some servers replace the whole by the part (servers.md 5), and all that do it
        right do it in place (Apache 2.4: of a body cut at 40 % those 40 % were in the file).
        """
        method, range_headers = part_request(way, start, part.size_bytes, total_bytes)
        headers = {**_PLAIN, "Content-Length": str(part.size_bytes), **range_headers}
        # sabre/dav 1.8 hashes the whole file before it answers
        longest_s = self._timeout_s + total_bytes / _SERVER_WORK_BYTES_PER_S
        request = _Request(method, path, headers, content=part, read_timeout_s=longest_s)
        preflight = self._preflight(UploadWish(path, part.size_bytes), is_known=False, is_new=True)
        with self.reach.watched():
            async with self._exchange.answer(replace(request, preflight=preflight)) as answer:
                await self._check_change(request, answer)

    def is_young(self, version: Validator) -> bool:
        """Whether a change of the same size now might leave `version` the same: tags of whole seconds.

        By the server's own clock (Date), as its answers to PROPFIND tell it; RFC 9110 8.8.2.2.
        """
        return self.capabilities.coarse_tags and -AHEAD_S < self.age_s(version) < YOUNG_S

    def age_s(self, version: Validator) -> float:
        """By the server's own clock; 0 when it does not tell."""
        return 0 if version.mtime_s is None else time.time() + self._clock_ahead_s - version.mtime_s

    def may_be_mixed(self, version: Validator) -> bool:
        """Whether a GET of `version` is to be looked at again: a server that mixes, a file in use."""
        return self.capabilities.mixes_versions and self.age_s(version) < IN_USE_S

    def limit(self, *, up_bytes_per_s: int | None, down_bytes_per_s: int | None) -> None:
        """Bodies of files go no faster than this, all of them together; None: as fast as they can."""
        self._exchange.pace_up = None if up_bytes_per_s is None else Pace(up_bytes_per_s)
        self._exchange.pace_down = None if down_bytes_per_s is None else Pace(down_bytes_per_s)

    def check_name(self, path: DavPath, *, is_folder: bool) -> None:
        """Raises BadName or NameTooLong when the server is known not to hold the name."""
        self.cloud.names.check(path.name)
        self.capabilities.names.check(self._share.base, path.parts, is_folder=is_folder)

    @property
    def request_counts(self) -> Mapping[str, int]:
        """Requests sent so far by method, those of an authentication handshake included."""
        return self._exchange.request_counts

    @property
    def traffic(self) -> Traffic:
        return self._exchange.traffic

    async def aclose(self) -> None:
        await self._exchange.aclose()

    # --- PROPFIND and OPTIONS -----------------------------------------------------------------------

    def _root_request(self) -> _Request:
        """The root alone is asked which of our properties are in use (not its listing: see fs.marker), and
        for what may be all that tells folders, before it is known who answers."""
        asked = properties.propfind(self.extras | {properties.KEPT, properties.IS_COLLECTION})
        return self._propfind(ROOT, "0", asked, is_collection=True)

    async def _describe_root(self) -> Resource:
        request = replace(self._root_request(), is_probe=True)
        try:
            return (await self._describe(request)).resource
        except NotFound as error:
            text = f"no such folder on the server: {self.url(ROOT)}"
            raise NotFound(text, status=error.status) from None
        except ServerRefused as error:
            if error.status in (400, 405, 501):
                raise not_webdav(self.url(ROOT), error.status) from None
            raise

    async def _options(self) -> Capabilities:
        request = _Request("OPTIONS", ROOT, _PLAIN, is_collection=True, is_probe=True)
        async with self._exchange.answer(request) as answer:
            if not 200 <= answer.status < 300:
                raise self._refusal(request, answer)
            return Capabilities.from_options(answer.headers)

    def _asked(self) -> bytes:
        return properties.propfind(self.extras)

    async def _describe(self, request: _Request) -> Entry:
        entries: list[Entry] = []
        await self._parse(request, entries.extend)
        return self._own_entry(entries, request)

    async def _list(self, request: _Request) -> Listing:
        builder = ListingBuilder(self._share, request.path)
        complete = await self._parse(request, builder.extend)
        if builder.refused_status is not None:
            raise refused("PROPFIND", builder.refused_status, shown(request.path))
        listing = builder.build(complete=complete)
        self._learn_listing(listing)
        self._filtered.leave_out(self.capabilities, request.path, listing.members)
        return listing

    async def _parse(self, request: _Request, take: Callable[[Iterable[Entry]], None]) -> bool:
        """Sends a PROPFIND and hands over the entries of its answer while they come. False: it broke off."""
        async with self._exchange.answer(request) as answer:
            self._check_multistatus(request, answer)
            self._learn_clock(answer)
            piece = answer.take_whole()
            if piece is not None and (entries := entries_of(piece)) is not None:
                take(entries)
                return True
            document = Multistatus()
            piece = piece or await answer.receive_decoded()
            while not document.stopped and piece is not None:
                for start in range(0, len(piece), _SLICE_BYTES):
                    if start:  # 3 ms of parsing at a time, with everything else in between
                        await trio.lowlevel.checkpoint()
                    take(document.feed(piece[start : start + _SLICE_BYTES]))
                piece = await answer.receive_decoded()
            take(document.close())
            return document.complete

    def _learn_clock(self, answer: Incoming) -> None:
        date_s = parse_date(answer.headers.get("date"))
        if date_s is not None:
            self._clock_ahead_s = date_s - time.time()

    def _own_entry(self, entries: Sequence[Entry], request: _Request) -> Entry:
        entry = sole_entry(entries, self._share, request.path)
        if entry is None:
            hrefs = [href for entry in entries for href in entry.hrefs]
            if hrefs and self._share.path_of(hrefs[0]) == decoded_again(request.path) != request.path:
                self.capabilities = self.capabilities.learned_decoding(twice=True)
                raise NotFound(f"{request.label}: the server took it for another name", status=404)
            about = f"; it speaks of {hrefs[0][:200]!r}" if hrefs else ""
            raise ProtocolError(f"{request.label}: the answer says nothing about it{about}")
        if not entry.is_ok:
            raise refused("PROPFIND", entry.status, shown(request.path))
        if not entry.resource.is_collection and request.content == Octets(self._asked()):
            self.capabilities = self.capabilities.learned_propfind(entry.resource)
        spelled = spelled_name(entry, self._share, request.path)
        if spelled is None:
            return entry
        self.capabilities = self.capabilities.learned_spelling(request.path.name, spelled)
        return entry._replace(resource=entry.resource._replace(spelled=spelled))

    def _learn_listing(self, listing: Listing) -> None:
        files = (member for member in listing.members.values() if not member.is_collection)
        first = next(files, None)
        if first is not None:
            self.capabilities = self.capabilities.learned_propfind(first)

    def _check_multistatus(self, request: _Request, answer: Incoming) -> None:
        if answer.status == 207:
            return
        if 200 <= answer.status < 300:  # an HTML page: the server took PROPFIND for GET
            raise not_webdav(self.url(ROOT), answer.status)
        raise with_hint(self._refusal(request, answer))

    # --- GET ----------------------------------------------------------------------------------------

    async def _get(self, path: DavPath, wanted: RangeRequest, *, is_ahead: bool) -> tuple[Incoming, Download]:
        size, opening_s, stall_s = wanted.expected.size_bytes or 0, None, None
        if size >= LARGE_BYTES:
            opening_s, stall_s = self._timeout_s + size / _SUMMED_BYTES_PER_S, self._timeout_s
        headers = {**_PLAIN, **wanted.headers()}
        request = _Request("GET", path, headers, read_timeout_s=opening_s, is_ahead=is_ahead)
        opening = partial(self._open_get, request, wanted)
        policy = ONCE if is_ahead else PATIENT
        incoming, answer = await self._exchange.repeat(policy, request.label, opening, longest_s=opening_s)
        return incoming, Download(answer, incoming, wanted.expected, shown(path), stall_s=stall_s)

    async def _open_get(self, request: _Request, wanted: RangeRequest) -> tuple[Incoming, Answer]:
        incoming = await self._exchange.send(request)
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
        is_foreign = not (incoming.is_ours or is_in_share(self._share, httpx.URL(incoming.url)))
        return checked_answer(incoming.status, incoming.headers, wanted, is_foreign=is_foreign)

    async def _check_put(self, request: _Request, answer: Incoming) -> None:
        if answer.status == 413 and request.content is not None and not self.capabilities.is_owncloud:
            self.upload_limit = self.upload_limit.refused(request.content.size_bytes, self._clock())
        if answer.status in (404, 409) and not microsoft.says_more(answer.headers):
            text = f"{request.label}: the server answered {answer.status}, the folder may be missing"
            raise ParentMissing(text, status=answer.status)
        await self._check_change(request, answer)
        if answer.status == 201:
            try:
                check_location(self._share, request, answer.headers.get("location", ""))
            except NotThatName:
                self.capabilities = self.capabilities.learned_names(odd_in(request.path.name))
                raise

    def _learn_put(self, request: _Request, answer: Incoming, *, mtime_sent: bool) -> PutResult:
        etag = ETag.parse(answer.headers.get("etag"))
        accepted = answer.headers.get("x-oc-mtime", "").lower() == "accepted" if mtime_sent else None
        self.capabilities = self.capabilities.learned_put(etag=etag is not None, mtime_accepted=accepted)
        check_stored(request, self.capabilities.stored_bytes(etag) if etag is not None else None)
        is_final = not mtime_sent or self.capabilities.put_tag_is_final
        return PutResult(answer.status == 201, etag if is_final else None)

    def _preflight(self, wish: UploadWish, *, is_known: bool, is_new: bool) -> Preflight:
        """What is checked before the body, when the wire finds that a look is worth it."""
        is_long = wish.size_bytes >= PARENT_FROM_BYTES  # a short one is sent before its folder is asked about
        folder = httpx.URL(self.url(wish.path.parent, is_collection=True)) if is_long else None
        judge = partial(check_upload, self._share, wish)
        return Preflight(judge, wish.is_conditional, PROPFIND_PREFLIGHT, folder, is_known, is_new)


class _Get(AbstractAsyncContextManager[Download]):
    """Opened on the way in, hung up on the way out. As a generator it would cost 5 us more."""

    def __init__(self, opening: Callable[[], Awaitable[tuple[Incoming, Download]]], reach: Reach) -> None:
        self._opening = opening
        self._reach = reach

    async def __aenter__(self) -> Download:
        self._incoming, download = await self._opening()
        self._watched = self._reach.watched()
        self._watched.__enter__()
        return download

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._watched.__exit__(kind, error, trace)
        finally:
            await self._incoming.close()
