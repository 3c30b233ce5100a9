"""A Nextcloud (or ownCloud 10) on loopback: a real HTTP server in threads of the test process.

It does what was measured on Nextcloud 24 (servers.md 1, 9, 17, 22, 31, 34, 39, E; the captures in
tests/captures/nextcloud) and what the developer manual says of chunked upload v2:
- A new file is spooled. **An overwrite is written in place**: cut off, it leaves the old ETag, size and date
  while GET serves the new bytes, cut to the old length; while it runs, GET and PUT of the file are 423.
- A file's ETag is of (file id, second, size), so a rewrite of the same size and second keeps it. A change
  gives all folders above it new ETags. Names are composed (NFC).
- `MKCOL /remote.php/dav/uploads/USER/ID`, `PUT ID/00001` ..., `MOVE ID/.file`, the last with conditions and
  an ETag in its answer, and as slow as `assembly_s`; a proxy that gives up after `proxy_s` answers 504.
  `strict`: as with object storage, chunks of at least 5 MB, names from 1 to 10000, a Destination each time.
- OC-Checksum is kept and told in GET; `verifies` as ownCloud does: 400 for other bytes.
- Names that the capabilities forbid are refused; so are `.htaccess`, `*.part`, and more than 228 bytes.
- Quota is 507, before the body where Expect asks; LOCK is 501; maintenance is 503 for everything.

`put`, `delete`, `mkdir` are the other client. `log` has every request. Faults are attributes.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import socket
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit
from xml.sax.saxutils import escape

from lxml import etree

USER: Final = "alice"
PASSWORD: Final = "secret"
FILES: Final = ("remote.php", "dav", "files", USER)
UPLOADS: Final = ("remote.php", "dav", "uploads", USER)
WEBDAV: Final = ("remote.php", "webdav")
NAME_MAX: Final = 228
CHUNK_MIN: Final = 5_000_000
CLASSES: Final = {
    "nextcloud": "1, 3, extended-mkcol, access-control, calendarserver-principal-property-search,"
    " nextcloud-checksum-update, nc-calendar-search, nc-enable-birthday-calendar",
    "owncloud": "1, 3, extended-mkcol, access-control, calendarserver-principal-property-search,"
    " oc-resource-sharing, oc-calendar-webcal-1",
    "sabre": "1, 3, extended-mkcol, access-control",
}
_PIECE: Final = 64 * 1024
_DAV: Final = "{DAV:}"
_PROTECTED: Final = {f"{_DAV}{name}" for name in ("getlastmodified", "getcontentlength", "resourcetype")}


class Asked(NamedTuple):
    """One request, when it was answered."""

    method: str
    path: str  # decoded, from the root of the host
    depth: str | None
    status: int
    headers: dict[str, str]
    body_bytes: int
    had_session: bool


@dataclass
class File:
    number: int
    content: bytes = b""
    size: int = 0
    mtime_s: int = 0
    etag: str = ""
    checksum: str = ""
    is_locked: bool = False
    dead: dict[str, str] = field(default_factory=dict)

    def settle(self, mtime_s: int, checksum: str) -> None:
        self.size, self.mtime_s, self.checksum = len(self.content), mtime_s, checksum
        self.etag = hashlib.md5(f"{self.number} {mtime_s} {self.size}".encode()).hexdigest()


@dataclass
class Folder:
    etag: str = ""
    mtime_s: int = 0
    members: dict[str, File | Folder] = field(default_factory=dict)
    dead: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    def __init__(self, status: int, kind: str = "", text: str = "", etag: str | None = None) -> None:
        self.status, self.kind, self.text, self.etag = status, kind, text, etag


class Cut(Exception):
    """The body ended before its length."""


class Nextcloud:
    """The server; `url` is the share that a person would give."""

    name = "nextcloud"

    def __init__(self, *, kind: str = "nextcloud") -> None:
        self.kind = kind
        self.log: list[Asked] = []
        self.answering = 0  # requests that came and are not answered yet
        self.top = Folder()
        self.uploads: dict[str, dict[str, bytes]] = {}
        self.destinations: dict[str, str] = {}
        self.serials = itertools.count(1)
        self.state = threading.RLock()
        self.quota_bytes: int | None = None
        self.forbidden_characters = "\\/"
        self.forbidden_names = [".htaccess"]
        self.tells_capabilities = True
        self.strict = False
        self.verifies = kind == "owncloud"
        self.largest_put: int | None = None
        self.assembly_s = 0.0
        self.proxy_s: float | None = None
        self.unfinished_status = 504  # 202: the server itself says that it goes on (ownCloud)
        self.in_maintenance = False
        self.tags_cover_trees = True
        self.damage: Callable[[str, bytes], bytes] = lambda _path, data: data  # on the way to the server
        self.before: Callable[[str, str], int | None] = lambda _method, _path: None  # a status instead
        self.lose: Callable[[str, str], bool] = lambda _method, _path: False  # done, but no answer
        self.piece_s = 0.0  # for each 64 KiB of a body
        self.cut: Callable[[str, int], bool] = lambda _path, _taken: False  # hang up in the midst of a body
        self.connections: set[socket.socket] = set()
        self._touch_all(())

    # --- life

    def __enter__(self) -> Self:
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.cloud = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._http.server_close()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.origin}/{'/'.join(FILES)}/"

    @property
    def legacy_url(self) -> str:
        return f"{self.origin}/{'/'.join(WEBDAV)}/"

    def hang_up(self) -> None:
        """All connections break now."""
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    # --- the other client, and what tests look at

    def put(self, path: str, content: bytes, *, mtime_s: int | None = None, checksum: str = "") -> None:
        with self.state:
            self._store(_parts(path), content, mtime_s or int(time.time()), checksum)

    def mkdir(self, path: str) -> None:
        with self.state:
            folder = self.top
            for name in _parts(path):
                folder = folder.members.setdefault(name, Folder())  # type: ignore[assignment]
            self._touch_all(_parts(path))

    def delete(self, path: str) -> None:
        with self.state:
            *above, name = _parts(path)
            del self._folder(above).members[name]
            self._touch_all(above)

    def content(self, path: str) -> bytes:
        with self.state:
            node = self.at(_parts(path))
            assert isinstance(node, File), path
            return node.content

    def file(self, path: str) -> File:
        node = self.at(_parts(path))
        assert isinstance(node, File), path
        return node

    def names(self, path: str = "") -> list[str]:
        return sorted(self._folder(_parts(path)).members)

    def requests(self, *methods: str) -> list[Asked]:
        return [one for one in self.log if not methods or one.method in methods]

    def brief(self, *methods: str) -> list[str]:
        """The requests as 'METHOD path', chunk folders without their names."""
        found = []
        for one in self.requests(*methods):
            parts = _parts(one.path)
            if parts[: len(UPLOADS)] == UPLOADS:
                where = "/".join(["uploads", *parts[len(UPLOADS) + 1 :]])
            else:
                where = "/".join(parts[len(FILES) :] if parts[: len(FILES)] == FILES else parts)
            found.append(f"{one.method} {where}")
        return found

    # --- the tree

    def at(self, parts: tuple[str, ...] | list[str]) -> File | Folder:
        node: File | Folder = self.top
        for name in parts:
            if not isinstance(node, Folder) or name not in node.members:
                raise Refused(404, "Sabre\\DAV\\Exception\\NotFound", "not found")
            node = node.members[name]
        return node

    def _folder(self, parts: tuple[str, ...] | list[str], status: int = 409) -> Folder:
        try:
            node = self.at(parts)
        except Refused:
            raise Refused(status) from None
        if not isinstance(node, Folder):
            raise Refused(409)
        return node

    def _touch_all(self, parts: tuple[str, ...] | list[str]) -> None:
        """New tags for the folder and all above it."""
        folder, changed = self.top, [self.top]
        for name in parts:
            node = folder.members[name]
            if not isinstance(node, Folder):
                break
            folder = node
            changed.append(folder)
        for one in changed if self.tags_cover_trees else changed[-1:]:
            one.etag, one.mtime_s = f"{next(self.serials):013x}", int(time.time())

    def _store(self, parts: tuple[str, ...], content: bytes, mtime_s: int, checksum: str) -> File:
        *above, name = parts
        folder = self._folder(above, 404)
        file = folder.members.get(name)
        if not isinstance(file, File):
            file = folder.members[name] = File(next(self.serials))
        file.content = content
        file.settle(mtime_s, checksum)
        self._touch_all(above)
        return file

    @property
    def used_bytes(self) -> int:
        return sum(len(node.content) for node in _walk(self.top) if isinstance(node, File))

    def check_room(self, size: int) -> None:
        if self.quota_bytes is not None and size > self.quota_bytes - self.used_bytes:
            kind = "Sabre\\DAV\\Exception\\InsufficientStorage"
            raise Refused(507, kind, f"Insufficient space in //q.bin, {size} required")

    def check_name(self, name: str) -> None:
        kind = "OCA\\DAV\\Connector\\Sabre\\Exception\\InvalidPath"
        if name in self.forbidden_names:
            raise Refused(
                403, "OCP\\Files\\ForbiddenException", f'"{name}" is a forbidden file or folder name.'
            )
        unfit = len(os.fsencode(name)) > NAME_MAX or not _is_utf8(name)
        if unfit or any(letter in name for letter in self.forbidden_characters):
            raise Refused(400, kind, "File name contains at least one invalid character")
        if name.endswith(".part"):
            raise Refused(423, "OCA\\DAV\\Connector\\Sabre\\Exception\\FileLocked", "locked")

    def capabilities(self) -> dict[str, Any]:
        files = {
            "bigfilechunking": True,
            "blacklisted_files": [".htaccess"],
            "forbidden_filenames": self.forbidden_names,
            "forbidden_filename_basenames": [],
            "forbidden_filename_characters": list(self.forbidden_characters),
            "forbidden_filename_extensions": [".part", ".filepart"],
        }
        told = {
            "dav": {"chunking": "1.0"},
            "checksums": {"supportedTypes": ["SHA1"], "preferredUploadType": "SHA1"},
            "files": files,
        }
        return {"ocs": {"meta": {"statuscode": 200}, "data": {"capabilities": told}}}


class _Http(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64
    cloud: Nextcloud

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.cloud.connections.add(self.connection)

    def finish(self) -> None:
        self.server.cloud.connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        """The log is the server's own."""

    # --- one request

    def handle_expect_100(self) -> bool:
        """The final status instead of 100, as mod_php behind Apache gives it."""
        self._prepare()
        self._count(1)
        try:
            self._check_early()
        except Refused as refused:
            self.close_connection = True
            self._refuse(refused)
            self._count(-1)
            return False
        try:
            super().handle_expect_100()
            self.wfile.flush()
        except OSError:  # the client has gone
            self._count(-1)
            raise
        return True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _prepare(self) -> None:
        self.cloud = self.server.cloud
        self.parts = _decoded(urlsplit(self.path).path)
        self.asked = _parts(unquote_to_bytes(urlsplit(self.path).path).decode("utf-8", "surrogateescape"))
        self.length = int(self.headers.get("Content-Length") or 0)
        self.taken = 0

    def _serve(self) -> None:
        self._prepare()
        if not self.headers.get("Expect"):  # else it was counted before 100
            self._count(1)
        try:
            self._serve_one()
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        with self.cloud.state:
            self.cloud.answering += more

    def _serve_one(self) -> None:
        try:
            self._check_early()
            handler = getattr(self, f"_{self.command.lower()}", None)
            if handler is None:
                raise Refused(501, "Sabre\\DAV\\Exception\\NotImplemented", "There was no plugin")
            handler()
        except Refused as refused:
            self._drain()
            self._refuse(refused)
        except Cut:
            self.close_connection = True
            self._note(0)

    def _check_early(self) -> None:
        cloud, command = self.cloud, self.command
        if cloud.in_maintenance:
            self.close_connection = True
            kind = "OCA\\DAV\\Exception\\ServerMaintenanceMode"
            raise Refused(503, kind, "System is in maintenance mode.")
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != wanted:
            raise Refused(401, "Sabre\\DAV\\Exception\\NotAuthenticated", "No public access")
        status = cloud.before(command, "/" + "/".join(self.parts))
        if status is not None:
            raise Refused(status)
        if command == "PUT":
            if cloud.largest_put is not None and self.length > cloud.largest_put:
                raise Refused(413)
            cloud.check_room(self.length)
        if command in {"PUT", "MOVE", "MKCOL"} and self._in(FILES) is None and self._in(WEBDAV) is None:
            total = int(self.headers.get("OC-Total-Length") or 0)
            cloud.check_room(total if command != "MOVE" else 0)

    def _in(self, base: tuple[str, ...]) -> tuple[str, ...] | None:
        return self.parts[len(base) :] if self.parts[: len(base)] == base else None

    def _place(self) -> tuple[str, ...]:
        place = self._in(FILES)
        place = place if place is not None else self._in(WEBDAV)
        if place is None:
            raise Refused(405 if not self.parts else 404)
        return place

    def _answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        if self.cloud.lose(self.command, "/" + "/".join(self.parts)):
            self.close_connection = True
            self._note(status)
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        if "ETag" in (headers or {}) and status < 400:
            self.send_header("OC-ETag", (headers or {})["ETag"])
        if "oc_session" not in self.headers.get("Cookie", ""):
            self.send_header("Set-Cookie", "oc_session=1; path=/; HttpOnly; SameSite=Lax")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(body)))
        self._note(status)
        self.end_headers()
        if self.command != "HEAD":
            with suppress(OSError):
                self.wfile.write(body)

    def version_string(self) -> str:
        return "Apache/2.4.71 (Debian)"

    def _note(self, status: int) -> None:
        path = "/" + "/".join(self.parts)
        headers = {name.lower(): text for name, text in self.headers.items()}
        session = "oc_session" in headers.get("cookie", "")
        self.cloud.log.append(
            Asked(self.command, path, headers.get("depth"), status, headers, self.taken, session)
        )

    def _refuse(self, refused: Refused) -> None:
        body = (
            '<?xml version="1.0" encoding="utf-8"?>\n<d:error xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns">'
            f"\n  <s:exception>{escape(refused.kind)}</s:exception>\n"
            f"  <s:message>{escape(refused.text)}</s:message>"
            "\n</d:error>\n"
        )
        headers = {"Content-Type": "application/xml; charset=utf-8"}
        if refused.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="Nextcloud", charset="UTF-8"'
        if refused.etag is not None:
            headers["ETag"] = f'"{refused.etag}"'
        if self.command == "PROPFIND" and self._in(FILES) and refused.status == 404:
            headers["DAV"] = CLASSES[self.cloud.kind]
        with suppress(OSError):
            self._answer(refused.status, headers, body.encode())

    # --- bodies

    def _pieces(self) -> Iterator[bytes]:
        while self.taken < self.length:
            try:
                piece = self.rfile.read1(min(_PIECE, self.length - self.taken))
            except OSError:
                piece = b""
            if not piece:
                raise Cut
            self.taken += len(piece)
            if self.cloud.cut("/" + "/".join(self.parts), self.taken):
                self.connection.shutdown(socket.SHUT_RDWR)
                raise Cut
            if self.cloud.piece_s:
                time.sleep(self.cloud.piece_s)
            yield piece

    def _drain(self) -> None:
        if self.headers.get("Expect") and not self.taken:
            self.close_connection = True  # it was told before the body
            return
        with suppress(Cut):
            for _ in self._pieces():
                pass

    def _body(self) -> bytes:
        return self.cloud.damage("/" + "/".join(self.parts), b"".join(self._pieces()))

    # --- verbs

    def _options(self) -> None:
        allow = "OPTIONS, GET, HEAD, DELETE, PROPFIND, PUT, PROPPATCH, COPY, MOVE, REPORT"
        self._answer(200, {"DAV": CLASSES[self.cloud.kind], "Allow": allow, "MS-Author-Via": "DAV"})

    def _get(self) -> None:
        cloud = self.cloud
        if self.parts == ("ocs", "v2.php", "cloud", "capabilities"):
            if not cloud.tells_capabilities or self.headers.get("OCS-APIRequest") != "true":
                raise Refused(404)
            self._answer(200, {"Content-Type": "application/json"}, json.dumps(cloud.capabilities()).encode())
            return
        with cloud.state:
            file = cloud.at(self._place())
            if isinstance(file, Folder):
                raise Refused(405)
            if file.is_locked:
                raise Refused(423, "OCA\\DAV\\Connector\\Sabre\\Exception\\FileLocked", "is locked")
            content, headers = file.content[: file.size], self._tags(file)
        if file.checksum:
            headers["OC-Checksum"] = file.checksum
        wanted = self.headers.get("Range", "")
        if not wanted.startswith("bytes=") or "," in wanted:
            self._answer(200, headers, content)
            return
        first, _, last = wanted[6:].partition("-")
        start, end = int(first), min(int(last or len(content)) + 1, len(content))
        if start >= len(content):
            raise Refused(416, etag=file.etag)
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        self._answer(206, headers, content[start:end])

    _head = _get

    def _tags(self, file: File) -> dict[str, str]:
        return {"ETag": f'"{file.etag}"', "Last-Modified": formatdate(file.mtime_s, usegmt=True)}

    def _put(self) -> None:
        if self._in(UPLOADS) is not None:
            self._put_chunk()
            return
        cloud, place = self.cloud, self._place()
        if self.headers.get("Content-Range"):
            raise Refused(
                400, "Sabre\\DAV\\Exception\\BadRequest", "Content-Range on PUT requests are forbidden."
            )
        with cloud.state:
            folder = cloud._folder(place[:-1], 404)
            cloud.check_name(place[-1])
            old = folder.members.get(place[-1])
            if isinstance(old, Folder):
                raise Refused(409)
            self._check_conditions(old)
            if old is not None and old.is_locked:
                raise Refused(423)
            if old is not None:
                old.is_locked = True
        try:
            if old is None:
                body = self._body()  # spooled
                with cloud.state:
                    self._check_conditions(folder.members.get(place[-1]))  # type: ignore[arg-type]
            else:
                body = self._written_in_place(old)
            self._check_sum(body)
        finally:
            if old is not None:
                old.is_locked = False
        with cloud.state:
            file = cloud._store(place, body, self._mtime_s(), self.headers.get("OC-Checksum", ""))
        headers = {"ETag": f'"{file.etag}"', "OC-FileId": f"{file.number:08d}oc"}
        self._answer(204 if old else 201, headers | self._mtime_header())

    def _written_in_place(self, old: File) -> bytes:
        """What a cut leaves behind: new bytes, and the old tag, size and date."""
        written = bytearray()
        for piece in self._pieces():
            written += piece
            old.content = bytes(written)
        return self.cloud.damage("/" + "/".join(self.parts), bytes(written))

    def _mtime_s(self) -> int:
        return int(self.headers.get("X-OC-Mtime") or time.time())

    def _mtime_header(self) -> dict[str, str]:
        return {"X-OC-MTime": "accepted"} if self.headers.get("X-OC-Mtime") else {}

    def _check_sum(self, body: bytes) -> None:
        kind, _, wanted = self.headers.get("OC-Checksum", "").partition(":")
        if self.cloud.verifies and kind == "SHA1" and hashlib.sha1(body).hexdigest() != wanted:
            text = "The computed checksum does not match the one received from the client."
            raise Refused(400, "Sabre\\DAV\\Exception\\BadRequest", text)

    def _check_conditions(self, old: File | None) -> None:
        wanted, kind = self.headers.get("If-Match"), "Sabre\\DAV\\Exception\\PreconditionFailed"
        if wanted and (old is None or wanted not in {"*", f'"{old.etag}"'}):
            raise Refused(412, kind, "An If-Match header was specified", old.etag if old else None)
        claim = self.headers.get("If", "")
        if "[" in claim and (
            old is None or claim[claim.index("[") + 1 : claim.index("]")] != f'"{old.etag}"'
        ):
            raise Refused(412, kind, "An If header was specified", old.etag if old else None)
        if self.headers.get("If-None-Match") == "*" and old is not None:
            raise Refused(412, kind, "An If-None-Match header was specified", old.etag)

    def _mkcol(self) -> None:
        cloud, upload = self.cloud, self._in(UPLOADS)
        with cloud.state:
            if upload is not None:
                if len(upload) != 1 or upload[0] in cloud.uploads:
                    raise Refused(405)
                cloud.uploads[upload[0]] = {}
                cloud.destinations[upload[0]] = self.headers.get("Destination", "")
            else:
                place = self._place()
                if not place or place[-1] in cloud._folder(place[:-1]).members:
                    raise Refused(405)
                cloud.check_name(place[-1])
                cloud.mkdir("/".join(place))
        number = {} if upload is not None else {"OC-FileId": f"{next(cloud.serials):08d}oc"}
        self._answer(201, number)

    def _delete(self) -> None:
        cloud, upload = self.cloud, self._in(UPLOADS)
        with cloud.state:
            if upload is not None:
                if upload[0] not in cloud.uploads:
                    raise Refused(404)
                del cloud.uploads[upload[0]]
            else:
                node = cloud.at(self._place())
                self._check_conditions(node if isinstance(node, File) else None)
                cloud.delete("/".join(self._place()))
        self._answer(204)

    def _move(self) -> None:
        upload = self._in(UPLOADS)
        if upload is not None:
            self._assemble(upload)
            return
        cloud, place, target = self.cloud, self._place(), self._target()
        with cloud.state:
            node = cloud.at(place)
            cloud.check_name(target[-1])
            existed = self._check_target(target)
            cloud.delete("/".join(place))
            cloud._folder(target[:-1]).members[target[-1]] = node
            cloud._touch_all(target[:-1])
        tag = (
            {"ETag": f'"{node.etag}"', "OC-FileId": f"{node.number:08d}oc"} if isinstance(node, File) else {}
        )
        self._answer(204 if existed else 201, tag)

    def _copy(self) -> None:
        cloud, target = self.cloud, self._target()
        with cloud.state:
            node = cloud.at(self._place())
            if isinstance(node, Folder):
                raise Refused(501)
            existed = self._check_target(target)
            cloud._store(target, node.content, int(time.time()), "")
        self._answer(204 if existed else 201)

    def _target(self) -> tuple[str, ...]:
        address = urlsplit(self.headers.get("Destination", ""))
        parts = _decoded(address.path)
        base = FILES if self._in(UPLOADS) is not None or self._in(FILES) is not None else WEBDAV
        if parts[: len(base)] != base or len(parts) == len(base):
            raise Refused(403, "Sabre\\DAV\\Exception\\Forbidden", "Destination out of base URI")
        return parts[len(base) :]

    def _check_target(self, target: tuple[str, ...]) -> bool:
        old = self.cloud._folder(target[:-1]).members.get(target[-1])
        if self.headers.get("Overwrite") == "F" and old is not None:
            raise Refused(
                412, "Sabre\\DAV\\Exception\\PreconditionFailed", "The destination node already exists"
            )
        claim = self.headers.get("If", "")
        if "[" in claim:
            if old is None:
                raise Refused(404)  # sabre looks for the node that the tag is about
            tag = claim[claim.index("[") + 1 : claim.index("]")]
            if isinstance(old, Folder) or tag != f'"{old.etag}"' or self._url_in(claim) != target:
                raise Refused(412, "Sabre\\DAV\\Exception\\PreconditionFailed", "An If header")
        return old is not None

    def _url_in(self, claim: str) -> tuple[str, ...]:
        path = urlsplit(claim[claim.index("<") + 1 : claim.index(">")]).path
        return _decoded(path)[len(FILES) :]

    # --- chunks

    def _put_chunk(self) -> None:
        cloud, (number, name) = self.cloud, self._in(UPLOADS) or ()
        if number not in cloud.uploads:
            raise Refused(
                404 if cloud.kind == "nextcloud" else 409, "Sabre\\DAV\\Exception\\NotFound", "gone"
            )
        if cloud.strict and (
            not self.headers.get("Destination") or not name.isdigit() or not 1 <= int(name) <= 10000
        ):
            raise Refused(400, "Sabre\\DAV\\Exception\\BadRequest", "Invalid chunk name")
        body = self._body()
        with cloud.state:
            if number not in cloud.uploads:
                raise Refused(404)
            cloud.uploads[number][name] = body
        self._answer(201)

    def _assemble(self, upload: tuple[str, ...]) -> None:
        cloud = self.cloud
        if upload[1:] != (".file",) or upload[0] not in cloud.uploads:
            raise Refused(404, "Sabre\\DAV\\Exception\\NotFound", "File not found: .file")
        target = self._target()
        with cloud.state:
            cloud.check_name(target[-1])
            existed = self._check_target(target)
            chunks = cloud.uploads[upload[0]]
            names = sorted(chunks, key=lambda name: (len(name), name))
            body = b"".join(chunks[name] for name in names)
            wanted = self.headers.get("OC-Total-Length")
            if wanted is not None and int(wanted) != len(body):
                raise Refused(400, "Sabre\\DAV\\Exception\\BadRequest", f"Chunks do not sum up to {wanted}")
            if cloud.strict and any(len(chunks[name]) < CHUNK_MIN for name in names[:-1]):
                raise Refused(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum")
            cloud.check_room(len(body))
            self._check_sum(body)
            old = cloud._folder(target[:-1]).members.get(target[-1])
            if isinstance(old, File):
                if old.is_locked:
                    raise Refused(423)
                old.is_locked = True
        done: list[File] = []
        work = threading.Thread(target=self._finish_assembly, args=(upload[0], target, body, old, done))
        work.start()
        work.join(cloud.proxy_s)
        if work.is_alive():  # the proxy gives up, the server goes on
            self._answer(self.cloud.unfinished_status)
            work.join()
            return
        headers = {"ETag": f'"{done[0].etag}"', "OC-FileId": f"{done[0].number:08d}oc"} if done else {}
        self._answer(204 if existed else 201, headers | self._mtime_header())

    def _finish_assembly(
        self, upload: str, target: tuple[str, ...], body: bytes, old: File | Folder | None, done: list[File]
    ) -> None:
        time.sleep(self.cloud.assembly_s)
        with self.cloud.state:
            done.append(self.cloud._store(target, body, self._mtime_s(), self.headers.get("OC-Checksum", "")))
            self.cloud.uploads.pop(upload, None)
            if isinstance(old, File):
                old.is_locked = False

    # --- PROPFIND

    def _propfind(self) -> None:
        asked = self._body()
        depth = self.headers.get("Depth")
        upload = self._in(UPLOADS)
        with self.cloud.state:
            if upload is not None:
                entries = list(self._described_upload(upload, depth))
            else:
                place = self._place()
                node = self.cloud.at(place)
                if isinstance(node, File) and node.is_locked and node.size == 0:
                    raise Refused(404)
                entries = [self._described(self.asked, node, asked)]  # sabre/dav echoes the path
                if depth == "1" and isinstance(node, Folder):
                    entries += [
                        self._described((*self.asked, name), child, asked)
                        for name, child in node.members.items()
                    ]
        body = (
            '<?xml version="1.0"?>\n<d:multistatus xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns"'
            ' xmlns:oc="http://owncloud.org/ns" xmlns:nc="http://nextcloud.org/ns">'
            + "".join(entries)
            + "</d:multistatus>"
        )
        headers = {"Content-Type": "application/xml; charset=utf-8", "DAV": CLASSES[self.cloud.kind]}
        self._answer(207, headers, body.encode())

    def _described_upload(self, upload: tuple[str, ...], depth: str | None) -> Iterator[str]:
        chunks = self.cloud.uploads.get(upload[0]) if upload else None
        if chunks is None:
            raise Refused(404)
        yield _response(
            (*UPLOADS, *upload), "<d:resourcetype><d:collection/></d:resourcetype>", is_folder=True
        )
        if depth != "1":
            return
        for name, data in [*chunks.items(), (".file", b"".join(chunks.values()))]:
            size = f"<d:getcontentlength>{len(data)}</d:getcontentlength>"
            yield _response((*UPLOADS, *upload, name), f"<d:resourcetype/>{size}")

    def _described(self, parts: tuple[str, ...], node: File | Folder, asked: bytes) -> str:
        date = f"<d:getlastmodified>{formatdate(node.mtime_s, usegmt=True)}</d:getlastmodified>"
        tag = f"<d:getetag>&quot;{node.etag}&quot;</d:getetag>"
        text = date + tag
        if isinstance(node, Folder):
            text += "<d:resourcetype><d:collection/></d:resourcetype>"
            if b"quota-available" in asked:
                free = (
                    -3 if self.cloud.quota_bytes is None else self.cloud.quota_bytes - self.cloud.used_bytes
                )
                text += f"<d:quota-available-bytes>{free}</d:quota-available-bytes>"
                text += f"<d:quota-used-bytes>{self.cloud.used_bytes}</d:quota-used-bytes>"
        else:
            text += f"<d:resourcetype/><d:getcontentlength>{node.size}</d:getcontentlength>"
            if b"checksums" in asked and node.checksum:
                text += f"<oc:checksums><oc:checksum>{node.checksum}</oc:checksum></oc:checksums>"
        text += "".join(_element(tag, value) for tag, value in node.dead.items() if _is_asked(tag, asked))
        if b"current-user-principal" in asked:
            text += (
                "<d:current-user-principal><d:href>/remote.php/dav/principals/users/alice/</d:href>"
                "</d:current-user-principal>"
            )
        return _response(parts, text, is_folder=isinstance(node, Folder))

    def _proppatch(self) -> None:
        """Dead properties are kept, `lastmodified` in seconds sets the date, `getlastmodified` is refused."""
        wanted, cloud = etree.fromstring(self._body()), self.cloud
        answers: dict[int, list[str]] = {200: [], 403: []}
        with cloud.state:
            place = self._place()
            node = cloud.at(place)
            for change in wanted:
                for prop in change.iterfind(f"{_DAV}prop/*"):
                    tag, text = str(prop.tag), prop.text or ""
                    refused = tag in _PROTECTED
                    answers[403 if refused else 200].append(_element(tag))
                    if tag == f"{_DAV}lastmodified" and isinstance(node, File):
                        node.settle(int(text), node.checksum)
                        cloud._touch_all(place[:-1])
                    elif change.tag == f"{_DAV}remove":
                        node.dead.pop(tag, None)
                    elif not refused:
                        node.dead[tag] = text
        blocks = "".join(
            f"<d:propstat><d:prop>{''.join(props)}</d:prop>"
            f"<d:status>HTTP/1.1 {status} {'OK' if status == 200 else 'Forbidden'}</d:status></d:propstat>"
            for status, props in answers.items()
            if props
        )
        body = (
            '<?xml version="1.0"?>\n<d:multistatus xmlns:d="DAV:">'
            f"<d:response><d:href>{escape(self.path)}</d:href>{blocks}</d:response></d:multistatus>"
        )
        self._answer(207, {"Content-Type": "application/xml; charset=utf-8"}, body.encode())


def _element(tag: str, text: str = "") -> str:
    space, _, name = tag[1:].partition("}") if tag.startswith("{") else ("", "", tag)
    return f'<x1:{name} xmlns:x1="{escape(space)}">{escape(text)}</x1:{name}>'


def _response(parts: tuple[str, ...], properties: str, *, is_folder: bool = False) -> str:
    href = "/" + "/".join(quote_from_bytes(os.fsencode(part)) for part in parts) + ("/" if is_folder else "")
    return (
        f"<d:response><d:href>{href}</d:href><d:propstat><d:prop>{properties}</d:prop>"
        "<d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>"
    )


def _is_asked(tag: str, asked: bytes) -> bool:
    """Dead properties are told to who names them."""
    return (
        any(prop.tag == tag for prop in etree.fromstring(asked).iterfind(f"{_DAV}prop/*")) if asked else False
    )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decoded(path: str) -> tuple[str, ...]:
    """Composed forms only: Nextcloud knows no others."""
    name = unquote_to_bytes(path).decode("utf-8", "surrogateescape")
    return _parts(unicodedata.normalize("NFC", name))


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)


def _walk(folder: Folder) -> Iterator[File | Folder]:
    for node in folder.members.values():
        yield node
        if isinstance(node, Folder):
            yield from _walk(node)


@contextmanager
def nextcloud(kind: str = "nextcloud") -> Iterator[Nextcloud]:
    with Nextcloud(kind=kind) as cloud:
        yield cloud
