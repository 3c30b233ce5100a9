"""A WebDAV server in memory, plugged in at the wire: an httpx transport.

It owns a tree of files and folders and answers PROPFIND (Depth 0 and 1), GET and HEAD (Range, If-Match,
If-None-Match, If-Range), PUT, MKCOL, DELETE, MOVE, COPY, PROPPATCH, OPTIONS, LOCK and UNLOCK as RFC 4918
and RFC 9110 ask. `tests/fakes/test_davserver.py` puts the same requests to it and to the real servers and
compares the answers: that is what makes it a verified fake.

What a test can turn: how ETags come (`etags`), whether conditions are honoured, whether it has locks, which
names are one name (`same_name`), the clock (`now_s`), the password, the quota, and faults (`inject`): a
delay, a status, a connection that breaks before or after the request took effect, one that takes effect late,
or twice, an answer that breaks off. `put`, `delete`, `mkdir`, `move` are the other client: they change the
tree at once and leave no line in the log.

Invariants: a request takes effect whole or not at all, in one step without a checkpoint; bodies are read as
httpx streams them and must have the length that Content-Length announced; every request is in `log`, every
change of the tree in `changes`, with the client that sent it (header X-Client).
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from email.utils import formatdate, parsedate_to_datetime
from typing import Literal, NamedTuple, TypeAlias, cast
from urllib.parse import quote, unquote_to_bytes, urlsplit

import httpx
import trio
from lxml import etree

ETags: TypeAlias = Literal["strong", "young", "coarse", "hidden", "none"]
"""strong: new for each write. young: the same, and weak for two seconds (Apache). coarse: of size and
second, as nginx makes them. hidden: coarse, and in GET only (nginx shows none in PROPFIND). none: no ETag
anywhere."""

PIECE_BYTES = 64 * 1024
YOUNG_S = 2.0
_DAV = "{DAV:}"


class Logged(NamedTuple):
    """One request as the server saw it."""

    method: str
    path: str
    depth: str | None
    status: int
    body_bytes: int


class Change(NamedTuple):
    """One change of the tree. `client` is "" for the test itself.

    `stored` is the content that a PUT, or MOVE or COPY of a file, brought to its place, `gone` what this
    change overwrote or removed. `late`: others may have come between what its client looked at and this.
    """

    at_s: float
    client: str
    method: str
    path: str
    destination: str = ""
    stored: bytes | None = None
    gone: tuple[bytes, ...] = ()
    late: bool = False


@dataclass(slots=True)
class Fault:
    """What shall go wrong with the next `times` requests of this method (and path, where given).

    `lost`: "before" breaks the connection with nothing done; "after" does it and loses the answer.
    `late_s`: the request takes effect that much later, by itself, its conditions checked then: instead of now
    with lost="before", once more otherwise (a proxy that repeats it).
    `cut_after_bytes` breaks the body of a GET's answer. `delay_s` is slept before anything else,
    `answer_delay_s` when it has taken effect.
    """

    method: str
    path: str | None = None
    times: int = 1
    delay_s: float = 0.0
    lost: Literal["before", "after"] | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after_bytes: int | None = None
    late_s: float | None = None
    answer_delay_s: float = 0.0

    def concerns(self, method: str, path: str) -> bool:
        return self.times > 0 and self.method == method and self.path in {None, path}


class Members(dict[str, "File | Folder"]):
    """A folder's members; names that `same_name` maps to one are one name, kept as first written."""

    def __init__(self, same_name: Callable[[str], str] | None = None) -> None:
        super().__init__()
        self._same_name = same_name

    def _stored(self, name: str) -> str:
        if self._same_name is None or super().__contains__(name):
            return name
        wanted = self._same_name(name)
        return next((one for one in self if self._same_name(one) == wanted), name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(self._stored(name))

    def __getitem__(self, name: str) -> File | Folder:
        return super().__getitem__(self._stored(name))

    def find(self, name: str) -> File | Folder | None:
        return super().get(self._stored(name))

    def __setitem__(self, name: str, node: File | Folder) -> None:
        super().__setitem__(self._stored(name), node)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(self._stored(name))


@dataclass(slots=True)
class File:
    content: bytes
    mtime_s: float
    created_s: float
    serial: int
    dead: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Folder:
    mtime_s: float
    created_s: float
    members: Members = field(default_factory=Members)
    dead: dict[str, str] = field(default_factory=dict)


Node: TypeAlias = File | Folder
Parts: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lock:
    """An exclusive write lock on one resource (and what is below it, when `deep`), until `ends_s`."""

    token: str
    parts: Parts
    deep: bool
    owner: str
    timeout_s: float
    ends_s: float  # of trio's clock


class Answer(Exception):
    """A final status, thrown from wherever it is known."""

    def __init__(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.content = content
        self.headers = headers or {}


class _Pieces(httpx.AsyncByteStream):
    """The body of an answer, in pieces; breaks off after `cut_after_bytes`."""

    def __init__(self, content: bytes, cut_after_bytes: int | None) -> None:
        self._content = content
        self._cut = cut_after_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._content if self._cut is None else self._content[: self._cut]
        for start in range(0, len(content), PIECE_BYTES):
            await trio.lowlevel.checkpoint()
            yield content[start : start + PIECE_BYTES]
        if self._cut is not None and self._cut < len(self._content):
            raise httpx.ReadError("the connection broke in the middle of the answer")


class FakeDav(httpx.AsyncBaseTransport):
    """The server; see the module's text. `root` is the URL path at which the share begins."""

    def __init__(
        self,
        *,
        root: str = "/",
        etags: ETags = "strong",
        conditions: bool = True,
        locks: bool = True,
        anonymous: bool = False,
        same_name: Callable[[str], str] | None = None,
        now_s: Callable[[], float] = time.time,
        account: tuple[str, str] | None = None,
        capacity_bytes: int | None = None,
    ) -> None:
        self.etags = etags
        self.conditions = conditions
        self.now_s = now_s
        self.account = account
        self.capacity_bytes = capacity_bytes
        self.most_lock_s = 3600.0  # what LOCK grants at most
        # What it takes itself for: another authority in Destination is 502, in If not its own (Go, WsgiDAV).
        self.authority: str | None = None
        self.takes_paths = True  # in Destination; else 400 (mod_dav)
        self.tells_owners = True
        # What a PUT with Content-Range does (servers.md 5); "replaces": the whole file, as rclone does.
        self.parts: Literal["refused", "replaces", "written", "ignored"] = "refused"
        self.more_classes = ""  # beside those of the DAV header
        self.longest_property: int | None = None  # what is longer is cut, as MySQL does
        self.headers: list[tuple[str, str, str]] = []  # method, If, Timeout: of requests that had one
        self.log: list[Logged] = []
        self.changes: list[Change] = []
        self.faults: list[Fault] = []
        self._same_name = same_name
        self._has_locks = locks
        self._anonymous = anonymous
        self._late: list[tuple[float, _Asked]] = []
        self._client = ""
        self._is_late = False
        self._root = _decoded(root)
        self._serials = itertools.count(1)
        self._top = self._new_folder()
        self._locks: list[Lock] = []
        self._methods = {
            "OPTIONS": self._options,
            "PROPFIND": self._propfind,
            "PROPPATCH": self._proppatch,
            "GET": self._get,
            "HEAD": self._get,
            "PUT": self._put,
            "MKCOL": self._mkcol,
            "DELETE": self._delete,
            "MOVE": self._move,
            "COPY": self._copy,
            "LOCK": self._lock,
            "UNLOCK": self._unlock,
        }
        if not locks:
            del self._methods["LOCK"], self._methods["UNLOCK"]

    def _new_folder(self) -> Folder:
        return Folder(self.now_s(), self.now_s(), Members(self._same_name))

    # The other client, and what tests look at.

    def put(self, path: str, content: bytes, *, mtime_s: float | None = None) -> None:
        """Create or replace a file at once; the folder must exist."""
        self._catch_up()
        self._store(_decoded(path, plain=True), content)
        if mtime_s is not None:
            self._at(_decoded(path, plain=True)).mtime_s = mtime_s

    def delete(self, path: str) -> None:
        self._catch_up()
        self._note("DELETE", _decoded(path, plain=True))
        self._remove(_decoded(path, plain=True))

    def mkdir(self, path: str) -> None:
        self._catch_up()
        self._make_folder(_decoded(path, plain=True))

    def move(self, source: str, target: str) -> None:
        self._catch_up()
        self._note("MOVE", _decoded(source, plain=True), _decoded(target, plain=True))
        self._rename(_decoded(source, plain=True), _decoded(target, plain=True))

    def content(self, path: str) -> bytes:
        self._catch_up()
        node = self._at(_decoded(path, plain=True))
        assert isinstance(node, File), path
        return node.content

    def properties(self, path: str) -> dict[str, str]:
        """The dead properties of a file or folder, to be looked at and changed: the server's own too."""
        self._catch_up()
        return self._at(_decoded(path, plain=True)).dead

    def tree(self) -> dict[str, bytes | None]:
        """Every path below the root: a file's content, None for a folder."""
        self._catch_up()
        return {
            "/".join(parts): node.content if isinstance(node, File) else None
            for parts, node in _walk((), self._top)
            if parts
        }

    def inject(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def requests(self, *methods: str) -> list[Logged]:
        """The log, or only these methods of it."""
        return [entry for entry in self.log if not methods or entry.method in methods]

    @property
    def late_s(self) -> float:
        """Until the last request that is under way takes effect."""
        return max((due_s - self.now_s() for due_s, _ in self._late), default=0.0)

    def _catch_up(self) -> None:
        """What takes effect late does so between two requests."""
        now_s = self.now_s()
        due = sorted((late for late in self._late if late[0] <= now_s), key=lambda late: late[0])
        self._late = [late for late in self._late if late[0] > now_s]
        for _, asked in due:
            self._client, self._is_late = asked.headers.get("x-client", ""), True
            try:
                self._methods[asked.method](asked)
            except Answer as answer:
                shown = "/" + "/".join(asked.parts)
                depth = asked.headers.get("depth")
                self.log.append(Logged(asked.method, shown, depth, answer.status, len(asked.body)))
        self._client, self._is_late = "", False

    def _note(self, method: str, parts: Parts, target: Parts = (), stored: bytes | None = None) -> None:
        """Before the change is made."""
        node = self._find(target or parts)
        source = self._find(parts)
        if target and isinstance(source, File):
            stored = source.content
        gone = [one.content for _, one in _walk((), node) if isinstance(one, File)] if node else []
        where = ("/".join(parts), "/".join(target))
        self.changes.append(
            Change(self.now_s(), self._client, method, *where, stored, tuple(gone), self._is_late)
        )

    @property
    def locks(self) -> list[Lock]:
        """Those that have not ended."""
        self._locks = [lock for lock in self._locks if lock.ends_s > trio.current_time()]
        return list(self._locks)

    def lock(self, path: str, owner: str) -> None:
        """The other client locks a file for good."""
        token = f"opaquelocktoken:{next(self._serials):08x}"
        self._locks.append(
            Lock(
                token,
                _decoded(path, plain=True),
                deep=False,
                owner=owner,
                timeout_s=3600,
                ends_s=float("inf"),
            )
        )

    def forget_locks(self) -> None:
        """As a server does that keeps them in memory, when it is started again."""
        self._locks.clear()

    # The wire.

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raw_path = request.url.raw_path.decode("ascii")
        shown = "/" + "/".join(_decoded(raw_path)[len(self._root) :])
        if "if" in request.headers or "timeout" in request.headers:
            conditions = (request.headers.get("if", ""), request.headers.get("timeout", ""))
            self.headers.append((request.method, *conditions))
        fault = self._fault_for(request.method, shown)
        if fault is not None and fault.delay_s:
            await trio.sleep(fault.delay_s)
        if fault is not None and fault.lost == "before":
            await self._repeat_late(request, fault)
            self.log.append(Logged(request.method, shown, request.headers.get("depth"), 0, 0))
            raise httpx.ReadError("the connection broke before the request took effect")
        body = b""
        try:
            self._catch_up()
            early = self._early_answer(request, fault)
            if early is None or "100-continue" not in request.headers.get("expect", ""):
                body = await _whole_body(request)
                self._catch_up()
            if early is not None:
                raise early
            self._is_late = fault is not None and fault.delay_s > 0
            self._answer(request, body)
        except Answer as answer:
            self._client, self._is_late = "", False
            self.log.append(
                Logged(request.method, shown, request.headers.get("depth"), answer.status, len(body))
            )
            if fault is not None:
                await self._repeat_late(request, fault)
                await trio.sleep(fault.answer_delay_s)
            if fault is not None and fault.lost == "after":
                raise httpx.ReadError("the connection broke before the answer came") from None
            return self._response(request, answer, fault)
        raise AssertionError("every method ends with an Answer")

    async def _repeat_late(self, request: httpx.Request, fault: Fault) -> None:
        if fault.late_s is not None:
            asked = _Asked(request, await _whole_body(request), self._root)
            self._late.append((self.now_s() + fault.late_s, asked))

    def _fault_for(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.concerns(method, path):
                fault.times -= 1
                return fault
        return None

    def _early_answer(self, request: httpx.Request, fault: Fault | None) -> Answer | None:
        """What can be said before the body has come."""
        if self.account is not None and request.headers.get("authorization") != _basic(self.account):
            return Answer(401, headers={"WWW-Authenticate": 'Basic realm="fake"'})
        if fault is not None and fault.status is not None:
            return Answer(fault.status, headers=fault.headers)
        if request.method == "PUT":
            try:
                self._check_put(_Asked(request, b"", self._root))
            except Answer as answer:
                return answer
        return None

    def _answer(self, request: httpx.Request, body: bytes) -> None:
        method = self._methods.get(request.method)
        if method is None:
            raise Answer(405, headers={"Allow": ", ".join(self._methods)})
        self._client = request.headers.get("x-client", "")
        method(_Asked(request, body, self._root))

    def _response(self, request: httpx.Request, answer: Answer, fault: Fault | None) -> httpx.Response:
        content = b"" if request.method == "HEAD" else answer.content
        headers = {
            "Date": formatdate(self.now_s(), usegmt=True),
            "Content-Length": str(len(answer.content)),
            **answer.headers,
        }
        if answer.status in {204, 304}:
            del headers["Content-Length"]
        cut = fault.cut_after_bytes if fault is not None else None
        return httpx.Response(answer.status, headers=headers, stream=_Pieces(content, cut), request=request)

    # The tree.

    def _at(self, parts: Parts) -> Node:
        node: Node = self._top
        for name in parts:
            if not isinstance(node, Folder) or name not in node.members:
                raise Answer(404)
            node = node.members[name]
        return node

    def _find(self, parts: Parts) -> Node | None:
        try:
            return self._at(parts)
        except Answer:
            return None

    def _folder_of(self, parts: Parts) -> Folder:
        folder = self._find(parts[:-1])
        if not parts or not isinstance(folder, Folder):
            raise Answer(409)
        return folder

    def _touch_folder_of(self, parts: Parts) -> None:
        self._folder_of(parts).mtime_s = self.now_s()

    def _store(self, parts: Parts, content: bytes) -> bool:
        """True when the file is new."""
        folder = self._folder_of(parts)
        self._note("PUT", parts, stored=content)
        old = folder.members.find(parts[-1])
        if isinstance(old, File):
            old.content, old.mtime_s, old.serial = content, self.now_s(), next(self._serials)
            return False
        folder.members[parts[-1]] = File(content, self.now_s(), self.now_s(), next(self._serials))
        folder.mtime_s = self.now_s()
        return True

    def _remove(self, parts: Parts) -> None:
        if not parts:
            raise Answer(403)
        self._at(parts)
        del self._folder_of(parts).members[parts[-1]]
        self._touch_folder_of(parts)
        self._locks = [lock for lock in self._locks if lock.parts[: len(parts)] != parts]

    def _make_folder(self, parts: Parts) -> None:
        self._note("MKCOL", parts)
        self._folder_of(parts).members[parts[-1]] = self._new_folder()
        self._touch_folder_of(parts)

    def _rename(self, source: Parts, target: Parts) -> None:
        node = self._at(source)
        folder = self._folder_of(target)
        self._remove(source)
        folder.members[target[-1]] = node
        self._touch_folder_of(target)

    def _etag(self, node: Node) -> str | None:
        if self.etags == "none" or isinstance(node, Folder):
            return None
        if self.etags in {"strong", "young"}:
            digest = hashlib.sha256(node.content[:1024]).hexdigest()[:8]
            weak = "W/" if self.etags == "young" and self.now_s() - node.mtime_s < YOUNG_S else ""
            return f'{weak}"{node.serial:x}-{len(node.content):x}-{digest}"'
        return f'"{int(node.mtime_s):x}-{len(node.content):x}"'

    # Conditions (RFC 9110 13, RFC 4918 10.4).

    def _check_conditions(self, asked: _Asked) -> None:
        if not self.conditions and asked.method not in {"GET", "HEAD"}:
            return
        node = self._find(asked.parts)
        tag = self._etag(node) if node is not None else None
        wanted = asked.headers.get("if-match")
        if wanted is not None and not _matches(wanted, tag, exists=node is not None):
            raise Answer(412)
        unwanted = asked.headers.get("if-none-match")
        if unwanted is not None and _matches(unwanted, tag, exists=node is not None, weak=True):
            raise Answer(304 if asked.method in {"GET", "HEAD"} else 412)
        since = asked.headers.get("if-unmodified-since")
        if since is not None and node is not None and int(node.mtime_s) > _seconds(since):
            raise Answer(412)

    def _check_locks(self, asked: _Asked, parts: Parts) -> None:
        """423 when a lock of another covers `parts`; the token in If opens it."""
        submitted = asked.headers.get("if", "")
        self._check_if(asked, parts)
        for lock in self.locks:
            below = lock.deep and parts[: len(lock.parts)] == lock.parts
            if (parts == lock.parts or below) and lock.token not in submitted:
                raise Answer(423)

    def _check_if(self, asked: _Asked, parts: Parts) -> None:
        """Of the lists of If about `parts` one must hold (RFC 4918 10.4); tags compare weakly, as mod_dav's.

        Each resource is asked about its own lists only (servers.md, table 5: MOVE and the destination's tag).
        """
        claims = list(asked.claims())
        strange = [url for url, _, _ in claims if url and urlsplit(url).netloc != self.authority]
        if self.authority is not None and claims and len(strange) == len(claims):
            raise Answer(412)
        lists = [claim.split() for _, about, claim in claims if about == parts]
        if lists and not any(all(self._claim_holds(one, parts) for one in claim) for claim in lists):
            raise Answer(412)

    def _claim_holds(self, claim: str, parts: Parts) -> bool:
        if claim.startswith("<"):
            return any(
                lock.token == claim.strip("<>") and parts[: len(lock.parts)] == lock.parts
                for lock in self.locks
            )
        node = self._find(parts)
        tag = self._etag(node) if node is not None else None
        wanted = claim.strip("[]")
        return not self.conditions or (
            tag is not None and tag.removeprefix("W/") == wanted.removeprefix("W/")
        )

    def _check_put(self, asked: _Asked) -> None:
        if "content-range" in asked.headers and self.parts == "refused":
            raise Answer(400)
        if "content-length" not in asked.headers:
            raise Answer(411)  # nginx and lighttpd take no chunked PUT either
        self._folder_of(asked.parts)
        if isinstance(self._find(asked.parts), Folder) or asked.slashed:
            raise Answer(405)
        self._check_conditions(asked)
        self._check_locks(asked, asked.parts)
        self._check_capacity(asked)

    def _check_capacity(self, asked: _Asked) -> None:
        old = self._find(asked.parts)
        freed = len(old.content) if isinstance(old, File) else 0
        needed = int(asked.headers["content-length"]) - freed
        if self.capacity_bytes is not None and self._used_bytes() + needed > self.capacity_bytes:
            raise Answer(507)

    def _used_bytes(self) -> int:
        return sum(len(node.content) for _, node in _walk((), self._top) if isinstance(node, File))

    # The methods. Each ends by raising its Answer.

    def _options(self, _asked: _Asked) -> None:
        raise Answer(200, headers=self.announced())

    def announced(self) -> dict[str, str]:
        """The headers of the OPTIONS answer: by them davfs takes it for a server of the same behaviour."""
        headers = {"Allow": ", ".join(self._methods), "MS-Author-Via": "DAV"}
        headers["DAV"] = "1, 2" if self._has_locks else "1"
        headers["DAV"] += self.more_classes
        if self._anonymous:
            return headers
        if self.conditions and self.etags in {"strong", "young"}:
            headers["DAV"] += ", <http://apache.org/dav/propset/fs/1>"
        elif self.conditions:  # as sabre/dav behind nginx: conditions hold, tags are coarse
            headers |= {"DAV": headers["DAV"] + ", extended-mkcol", "Server": "nginx"}
        return headers

    def _propfind(self, asked: _Asked) -> None:
        node = self._at(asked.parts)
        depth = asked.headers.get("depth", "infinity")
        if depth not in {"0", "1"}:
            raise Answer(403, _xml(_error("propfind-finite-depth")))
        nodes = [(asked.parts, node)]
        if depth == "1" and isinstance(node, Folder):
            nodes += [((*asked.parts, name), member) for name, member in node.members.items()]
        wanted = _wanted_properties(asked.body)
        answer = etree.Element(f"{_DAV}multistatus", nsmap={"D": "DAV:"})
        for parts, one in nodes:
            self._describe(answer, parts, one, wanted)
        raise Answer(207, _xml(answer), {"Content-Type": 'application/xml; charset="utf-8"'})

    def _describe(self, answer: etree._Element, parts: Parts, node: Node, wanted: list[str] | None) -> None:
        response = etree.SubElement(answer, f"{_DAV}response")
        etree.SubElement(response, f"{_DAV}href").text = self._href(parts, node)
        known = self._properties(node)
        if wanted is not None:
            held = [lock for lock in self.locks if lock.parts == parts]
            known[f"{_DAV}lockdiscovery"] = lambda: _active_locks(held, owners=self.tells_owners)
        missing = [name for name in wanted or [] if name not in known]
        for status, names in (("200 OK", wanted or list(known)), ("404 Not Found", missing)):
            shown = [name for name in names if (name in known) == status.startswith("200")]
            if not shown and not status.startswith("200"):
                continue
            propstat = etree.SubElement(response, f"{_DAV}propstat")
            prop = etree.SubElement(propstat, f"{_DAV}prop")
            for name in shown:
                prop.append(known.get(name, lambda name=name: etree.Element(name))())
            etree.SubElement(propstat, f"{_DAV}status").text = f"HTTP/1.1 {status}"

    def _properties(self, node: Node) -> dict[str, Callable[[], etree._Element]]:
        def text(name: str, value: str) -> None:
            known[name] = lambda: _leaf(name, value)

        known: dict[str, Callable[[], etree._Element]] = {}
        known[f"{_DAV}resourcetype"] = lambda: _resourcetype(isinstance(node, Folder))
        text(f"{_DAV}getlastmodified", formatdate(int(node.mtime_s), usegmt=True))
        text(f"{_DAV}creationdate", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(node.created_s)))
        if isinstance(node, File):
            text(f"{_DAV}getcontentlength", str(len(node.content)))
            text(f"{_DAV}getcontenttype", "application/octet-stream")
            tag = self._etag(node)
            if tag is not None and self.etags != "hidden":
                text(f"{_DAV}getetag", tag)
        elif self.capacity_bytes is not None:
            used = self._used_bytes()
            text(f"{_DAV}quota-available-bytes", str(max(0, self.capacity_bytes - used)))
            text(f"{_DAV}quota-used-bytes", str(used))
        for name, value in node.dead.items():
            text(name, value)
        return known

    def _href(self, parts: Parts, node: Node) -> str:
        path = "/" + "/".join(quote(os.fsencode(part)) for part in (*self._root, *parts))
        return path + "/" if isinstance(node, Folder) and path != "/" else path

    def _proppatch(self, asked: _Asked) -> None:
        node = self._at(asked.parts)
        self._check_locks(asked, asked.parts)
        changes = [
            (str(change.tag), str(el.tag), el.text or "")
            for change in _parse(asked.body)
            for el in change.iterfind("{DAV:}prop/*")
        ]
        refused = any(name.startswith(_DAV) for _, name, _ in changes)
        answer = etree.Element(f"{_DAV}multistatus", nsmap={"D": "DAV:"})
        response = etree.SubElement(answer, f"{_DAV}response")
        etree.SubElement(response, f"{_DAV}href").text = self._href(asked.parts, node)
        for kind, name, value in changes:
            status = "403 Forbidden" if name.startswith(_DAV) else "424 Failed Dependency"
            propstat = etree.SubElement(response, f"{_DAV}propstat")
            etree.SubElement(etree.SubElement(propstat, f"{_DAV}prop"), name)
            etree.SubElement(propstat, f"{_DAV}status").text = f"HTTP/1.1 {status if refused else '200 OK'}"
            if not refused and kind == f"{_DAV}set":
                node.dead[name] = value[: self.longest_property]
            elif not refused:
                node.dead.pop(name, None)
        raise Answer(207, _xml(answer), {"Content-Type": 'application/xml; charset="utf-8"'})

    def _get(self, asked: _Asked) -> None:
        node = self._at(asked.parts)
        self._check_conditions(asked)
        if isinstance(node, Folder):
            raise Answer(200, b"<html>a folder</html>", {"Content-Type": "text/html"})
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "Last-Modified": formatdate(int(node.mtime_s), usegmt=True),
        }
        tag = self._etag(node)
        if tag is not None:
            headers["ETag"] = tag
        extent = self._extent(asked, node, tag)
        if extent is None:
            raise Answer(200, node.content, headers)
        start, end = extent
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(node.content)}"
        raise Answer(206, node.content[start:end], headers)

    def _extent(self, asked: _Asked, node: File, tag: str | None) -> tuple[int, int] | None:
        """The half-open range asked for; None for the whole file (RFC 9110 14.2)."""
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.headers.get("range", ""))
        condition = asked.headers.get("if-range")
        if match is None or match.group() == "bytes=-":
            return None
        if condition is not None and condition not in {
            tag,
            formatdate(int(node.mtime_s), usegmt=True),
        }:
            return None
        total = len(node.content)
        first, last = match.groups()
        start = int(first) if first else max(0, total - int(last))
        end = min(total, int(last) + 1) if first and last else total
        if start >= total or start >= end:
            raise Answer(416, headers={"Content-Range": f"bytes */{total}"})
        return start, end

    def _put(self, asked: _Asked) -> None:
        self._check_put(asked)  # again: the tree may have changed while the body came
        created = self._store(asked.parts, self._whole(asked))
        headers = {}
        tag = self._etag(self._at(asked.parts))
        if tag is not None and self.etags == "strong":  # nginx, Apache and WsgiDAV send none here
            headers["ETag"] = tag
        raise Answer(201 if created else 204, headers=headers)

    def _whole(self, asked: _Asked) -> bytes:
        """What the file holds after a PUT, which may be one of a part."""
        if "content-range" not in asked.headers or self.parts == "replaces":
            return asked.body
        if self.parts == "ignored":
            raise Answer(204)
        start = int(asked.headers["content-range"].removeprefix("bytes ").partition("-")[0])
        node = self._find(asked.parts)
        old = node.content if isinstance(node, File) else b""
        return old[:start].ljust(start, b"\0") + asked.body + old[start + len(asked.body) :]

    def _mkcol(self, asked: _Asked) -> None:
        if asked.body:
            raise Answer(415)
        if not asked.parts or self._find(asked.parts) is not None:
            raise Answer(405)
        self._folder_of(asked.parts)
        self._check_locks(asked, asked.parts)
        self._make_folder(asked.parts)
        raise Answer(201)

    def _delete(self, asked: _Asked) -> None:
        self._at(asked.parts)
        self._check_conditions(asked)
        self._check_locks_below(asked, asked.parts)
        self._note("DELETE", asked.parts)
        self._remove(asked.parts)
        raise Answer(204)

    def _check_locks_below(self, asked: _Asked, parts: Parts) -> None:
        self._check_locks(asked, parts)
        for lock in self._locks:
            if lock.parts[: len(parts)] == parts:
                self._check_locks(asked, lock.parts)

    def _move(self, asked: _Asked) -> None:
        self._check_conditions(asked)
        self._check_locks_below(asked, asked.parts)
        target, created = self._checked_target(asked)
        self._note("MOVE", asked.parts, target)
        if not created:
            self._remove(target)
        self._rename(asked.parts, target)
        raise Answer(201 if created else 204)

    def _copy(self, asked: _Asked) -> None:
        self._check_conditions(asked)
        target, created = self._checked_target(asked)
        copied = self._copied(self._at(asked.parts), deep=asked.headers.get("depth") != "0")
        self._note("COPY", asked.parts, target)
        if not created:
            self._remove(target)
        self._folder_of(target).members[target[-1]] = copied
        self._touch_folder_of(target)
        raise Answer(201 if created else 204)

    def _copied(self, node: Node, *, deep: bool) -> Node:
        now_s = self.now_s()
        if isinstance(node, File):
            return File(node.content, now_s, now_s, next(self._serials), dict(node.dead))
        members = Members(self._same_name)
        for name, one in node.members.items() if deep else ():
            members[name] = self._copied(one, deep=True)
        return Folder(now_s, now_s, members, dict(node.dead))

    def _checked_target(self, asked: _Asked) -> tuple[Parts, bool]:
        """Where MOVE or COPY leads, and whether that name is free (RFC 4918 9.8.5, 9.9.4)."""
        self._at(asked.parts)
        self._check_authority(asked)
        target = asked.destination()
        if target[: len(asked.parts)] == asked.parts or asked.parts[: len(target)] == target:
            raise Answer(403)
        if self._find(target) is self._at(asked.parts):
            raise Answer(403)  # names that differ in case only (RFC 4918 9.9.4: the same resource)
        self._folder_of(target)
        free = self._find(target) is None
        if not free and asked.headers.get("overwrite", "T") == "F":
            raise Answer(412)
        self._check_locks_below(asked, target)
        return target, free

    def _check_authority(self, asked: _Asked) -> None:
        authority = urlsplit(asked.headers.get("destination", "")).netloc
        if not authority and not self.takes_paths:
            raise Answer(400)
        if authority and self.authority not in {None, authority}:
            raise Answer(502)

    def _lock(self, asked: _Asked) -> None:
        if not asked.body:
            self._refresh(asked)
        self._check_locks(asked, asked.parts)
        created = self._find(asked.parts) is None
        if created:
            self._store(asked.parts, b"")
        owner = "".join(_parse(asked.body).itertext()).strip()
        token = f"opaquelocktoken:{next(self._serials):08x}"
        timeout_s = self._granted_s(asked)
        ends_s = trio.current_time() + timeout_s
        lock = Lock(token, asked.parts, asked.headers.get("depth") != "0", owner, timeout_s, ends_s)
        self._locks.append(lock)
        raise Answer(201 if created else 200, _lockdiscovery(lock), {"Lock-Token": f"<{token}>"})

    def _refresh(self, asked: _Asked) -> None:
        for lock in self.locks:
            if lock.parts == asked.parts and lock.token in asked.headers.get("if", ""):
                timeout_s = self._granted_s(asked)
                self._locks.remove(lock)
                longer = replace(lock, timeout_s=timeout_s, ends_s=trio.current_time() + timeout_s)
                self._locks.append(longer)
                raise Answer(200, _lockdiscovery(longer))
        raise Answer(412)

    def _granted_s(self, asked: _Asked) -> float:
        wanted = re.fullmatch(r"Second-(\d+)", asked.headers.get("timeout", ""))
        return min(self.most_lock_s, float(wanted[1]) if wanted else self.most_lock_s)

    def _unlock(self, asked: _Asked) -> None:
        token = asked.headers.get("lock-token", "").strip("<> ")
        held = [lock for lock in self.locks if lock.token == token]
        if not held:
            raise Answer(409)
        self._locks.remove(held[0])
        raise Answer(204)


class _Asked:
    """One request, taken apart."""

    def __init__(self, request: httpx.Request, body: bytes, root: Parts) -> None:
        self.method = request.method
        self.headers = request.headers
        self.body = body
        self._root = root
        raw_path = request.url.raw_path.decode("ascii")
        self.slashed = raw_path.endswith("/")
        self.parts = self._below_root(raw_path)

    def destination(self) -> Parts:
        if "destination" not in self.headers:
            raise Answer(400)
        target = urlsplit(self.headers["destination"])
        return self._below_root(target.path)

    def claims(self) -> Iterator[tuple[str, Parts, str]]:
        """The lists of the If header, each with the resource that it is about, and how that is written."""
        for url, claim in re.findall(r"(?:<([^>]*)>\s*)?\(([^)]*)\)", self.headers.get("if", "")):
            yield url, self._below_root(urlsplit(url).path) if url else self.parts, claim

    def _below_root(self, raw_path: str) -> Parts:
        parts = _decoded(raw_path)
        if parts[: len(self._root)] != self._root:
            raise Answer(404)
        return parts[len(self._root) :]


def _decoded(path: str, *, plain: bool = False) -> Parts:
    """The decoded segments of a URL path; `plain` for a path that is not percent-encoded."""
    if plain:
        return tuple(part for part in path.split("/") if part)
    segments = path.partition("?")[0].split("/")
    names = tuple(os.fsdecode(unquote_to_bytes(part)) for part in segments if part)
    if any(name in {".", ".."} or "/" in name for name in names):
        raise Answer(400)
    return names


async def _whole_body(request: httpx.Request) -> bytes:
    """The body as httpx streams it, checked against Content-Length as h11 does."""
    body = bytearray()
    pieces = aiter(cast(AsyncIterable[bytes], request.stream))
    try:
        async for piece in pieces:
            await trio.lowlevel.checkpoint()
            body += piece
    finally:
        if isinstance(pieces, AsyncGenerator):  # cut off: else trio warns when it is collected
            await pieces.aclose()
    announced = request.headers.get("content-length")
    if announced is not None and int(announced) != len(body):
        raise httpx.LocalProtocolError(f"Content-Length {announced}, but {len(body)} bytes of body")
    return bytes(body)


def _walk(parts: Parts, node: Node) -> Iterator[tuple[Parts, Node]]:
    yield parts, node
    if isinstance(node, Folder):
        for name, member in node.members.items():
            yield from _walk((*parts, name), member)


def _basic(account: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(":".join(account).encode()).decode("ascii")


def _matches(condition: str, tag: str | None, *, exists: bool, weak: bool = False) -> bool:
    if condition.strip() == "*":
        return exists
    listed = {one.strip() for one in condition.split(",")}
    if weak and tag is not None:
        listed, tag = {one.removeprefix("W/") for one in listed}, tag.removeprefix("W/")
    return tag is not None and tag in listed and not tag.startswith("W/")


def _seconds(date: str) -> int:
    return int(parsedate_to_datetime(date).timestamp())


def _parse(body: bytes) -> etree._Element:
    try:
        return etree.fromstring(body, etree.XMLParser(resolve_entities=False, no_network=True))
    except etree.XMLSyntaxError:
        raise Answer(400) from None


def _wanted_properties(body: bytes) -> list[str] | None:
    """The qualified names asked for; None for all."""
    if not body:
        return None
    prop = _parse(body).find("{DAV:}prop")
    return None if prop is None else [str(el.tag) for el in prop]


def _leaf(name: str, value: str) -> etree._Element:
    element = etree.Element(name)
    element.text = value
    return element


def _resourcetype(is_folder: bool) -> etree._Element:
    element = etree.Element(f"{_DAV}resourcetype")
    if is_folder:
        etree.SubElement(element, f"{_DAV}collection")
    return element


def _error(condition: str) -> etree._Element:
    element = etree.Element(f"{_DAV}error", nsmap={"D": "DAV:"})
    etree.SubElement(element, f"{_DAV}{condition}")
    return element


def _lockdiscovery(lock: Lock) -> bytes:
    prop = etree.Element(f"{_DAV}prop", nsmap={"D": "DAV:"})
    prop.append(_active_locks([lock]))
    return _xml(prop)


def _active_locks(locks: list[Lock], *, owners: bool = True) -> etree._Element:
    discovery = etree.Element(f"{_DAV}lockdiscovery", nsmap={"D": "DAV:"})
    for lock in locks:
        _add_active(discovery, lock, owner=lock.owner if owners else "")
    return discovery


def _add_active(discovery: etree._Element, lock: Lock, *, owner: str) -> None:
    active = etree.SubElement(discovery, f"{_DAV}activelock")
    etree.SubElement(etree.SubElement(active, f"{_DAV}locktype"), f"{_DAV}write")
    etree.SubElement(etree.SubElement(active, f"{_DAV}lockscope"), f"{_DAV}exclusive")
    etree.SubElement(active, f"{_DAV}depth").text = "infinity" if lock.deep else "0"
    if owner:
        etree.SubElement(active, f"{_DAV}owner").text = owner
    etree.SubElement(active, f"{_DAV}timeout").text = f"Second-{int(lock.timeout_s)}"
    token = etree.SubElement(active, f"{_DAV}locktoken")
    etree.SubElement(token, f"{_DAV}href").text = lock.token


def _xml(element: etree._Element) -> bytes:
    return etree.tostring(element, xml_declaration=True, encoding="utf-8")
