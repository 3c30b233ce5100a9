"""The process behind iis.py: IIS WebDAV or SharePoint as documents and trackers describe them, on a folder.

Run as a script with one JSON file; nothing of davfs or of the tests is imported. What it does wrong is on
purpose, and what those servers do: names without case, dots and blanks cut off the end, 404 for what request
filtering does not like, MOVE onto the same file with Overwrite: T destroys it, SharePoint writes into office
files. Sources: servers.md (last part), peers.md 19 and 28, [MS-WDV], [MS-WDVME], [MS-WEBDAVE].
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import sys
import threading
import time
import unicodedata
import uuid
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit
from xml.etree import ElementTree as ET

HEADERS_MAX = 16 * 1024  # http.sys: MaxRequestBytes
URL_MAX = 4096  # maxUrl
WINDOWS = set('<>:"|?*\\') | {chr(one) for one in range(32)} | {"\x7f"}
OFFICE = (".docx", ".xlsx", ".pptx", ".doc", ".xls")
BLOCKED = (".exe", ".aspx")
HIDDEN_SEGMENTS = {"web.config", "bin", "app_data", "app_code"}
SCRIPTS = (".asp", ".aspx", ".php")
Z = "{urn:schemas-microsoft-com:}"


class Refused(Exception):
    """`status` and headers of an answer without a body worth reading."""

    def __init__(self, status: int, text: str = "", *, code: int | None = None, **headers: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if code is not None:
            self.headers["X-MSDAVEXT_Error"] = f"{code}; {quote(text)}"


class Tree:
    """The folder that is served; what the disk cannot hold of it is in memory. One lock for all."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.root = os.fsencode(settings["root"])
        self.is_sharepoint: bool = settings["kind"] == "sharepoint"
        self.is_plain: bool = settings["kind"] == "plain"
        self.settings = settings
        self.lock = threading.RLock()
        self.guids: dict[bytes, str] = {}
        self.versions: dict[bytes, tuple[int, int]] = {}  # counter, mtime_ns it is for
        self.dead: dict[bytes, dict[str, str]] = {}
        self.locks: dict[bytes, tuple[str, float, str]] = {}  # token, until, owner

    def resolve(self, parts: list[bytes]) -> bytes:
        """The place of a path, in the spelling of the disk as far as it exists."""
        here = self.root
        for part in parts:
            there, wanted = os.path.join(here, part), os.fsdecode(part).casefold()
            if self.settings["fold_case"] and not os.path.lexists(there) and os.path.isdir(here):
                same = (one for one in os.listdir(here) if os.fsdecode(one).casefold() == wanted)
                there = os.path.join(here, next(same, part))
            here = there
        return here

    def touch(self, place: bytes) -> None:
        mtime = os.stat(place).st_mtime_ns
        count, _ = self.versions.get(place, (0, 0))
        self.versions[place] = (count + 1, mtime)

    def etag(self, place: bytes) -> str:
        mtime = os.stat(place).st_mtime_ns
        if not self.is_sharepoint:
            return f'"{mtime // 100:x}:0"'
        count, known = self.versions.get(place, (1, mtime))
        if known != mtime:
            count += 1
        self.versions[place] = (count, mtime)
        guid = self.guids.setdefault(place, f"{{{str(uuid.uuid4()).upper()}}}")
        return f'"{guid},{count}"'

    def rename(self, source: bytes, target: bytes) -> None:
        os.rename(source, target)
        for table in self._tables():
            if source in table:
                table[target] = table.pop(source)

    def _tables(self) -> tuple[dict[bytes, Any], ...]:
        return self.guids, self.versions, self.dead

    def forget(self, place: bytes) -> None:
        for table in (*self._tables(), self.locks):
            table.pop(place, None)

    def held(self, place: bytes) -> tuple[str, float, str] | None:
        found = self.locks.get(place)
        if found is not None and found[1] < time.time():
            del self.locks[place]
            return None
        return found


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server_version = "Microsoft-IIS/10.0"
    sys_version = ""
    tree: Tree
    settings: dict[str, Any]
    log: int

    def version_string(self) -> str:
        return self.server_version if not self.tree.is_plain else "Sundry/1.0"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        del format, args

    # --- one request

    def handle_one_request(self) -> None:
        self.received = self.sent = 0
        self.status = 0
        super().handle_one_request()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def answer(self) -> None:
        try:
            with self.tree.lock:
                self._bounded()
                self._noted()
                self._let_in()
                method = getattr(self, f"on_{self.command.lower()}", None)
                if method is None:
                    raise Refused(405)
                method()
        except Refused as refused:
            if int(self.headers.get("content-length", "0")) > self.received:
                self.close_connection = True
            page = f"<html><body>{html.escape(refused.text)}</body></html>".encode()
            self.reply(refused.status, page, {"Content-Type": "text/html", **refused.headers})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        fields = (
            self.requestline,
            self.headers.get("depth", "-"),
            str(self.status),
            str(self.received),
            str(self.sent),
            self.headers.get("range", "-"),
        )
        os.write(self.log, ("\t".join(fields) + "\n").encode(errors="replace"))

    def _bounded(self) -> None:
        if len(self.requestline) + sum(len(k) + len(v) + 4 for k, v in self.headers.items()) > HEADERS_MAX:
            self.close_connection = True
            raise Refused(400, "Bad Request - Request Too Long")

    def _noted(self) -> None:
        """Which requests came without `Translate: f`: of scripts they would get what the script prints."""
        if self.headers.get("translate", "").lower() != "f":
            with Path(self.settings["untranslated"]).open("a") as file:
                file.write(f"{self.command}\n")

    def _let_in(self) -> None:
        way = self.settings["login"]
        if way == "redirect":
            source = quote(self.path, safe="")
            raise Refused(302, Location=f"{self.home}/_layouts/15/Authenticate.aspx?Source={source}")
        if way == "online":
            raise Refused(302, Location="https://login.microsoftonline.com/common/oauth2/authorize")
        if way == "forms":
            text = (
                "Access denied. Before opening files in this location, you must first browse to the web site"
                " and select the option to login automatically."
            )
            raise Refused(
                403, text, code=917656, X_Forms_Based_Auth_Required=f"{self.home}/_login/default.aspx"
            )

    @property
    def home(self) -> str:
        return f"http://{self.headers.get('host', '127.0.0.1')}"

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.send_response(status)
        if self.settings["kind"] == "sharepoint":
            self.send_header("MicrosoftSharePointTeamServices", self.settings["version"])
            self.send_header("X-MS-InvokeApp", "1; RequireReadOnly")
            self.send_header("SPRequestGuid", str(uuid.uuid4()))
        for n in range(self.settings["fat"]):
            self.send_header(f"X-Fat-{n}", "x" * 1000)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.sent = len(body)

    # --- names

    def place(self, url: str | None = None) -> bytes:
        """The place on disk that an URL means. Raises Refused for what request filtering does not like."""
        raw = urlsplit(url or self.path).path if url or "?" not in self.path else self.path
        if len(raw) > URL_MAX:
            raise Refused(404, "HTTP Error 404.14 - Not Found")
        parts = [unquote_to_bytes(one) for one in raw.split("/") if one]
        kept = [self._kept(part) for part in parts]
        if self.tree.is_sharepoint and sum(len(one.decode()) + 1 for one in kept) > 400:
            raise Refused(400, "The URL is too long", code=0x00090068)
        return self.tree.resolve(kept)

    def _kept(self, part: bytes) -> bytes:
        """The name that is made of it."""
        if self.tree.is_plain:
            form, name = self.settings["form"], os.fsdecode(part)
            name = unicodedata.normalize(form, name) if form else name
            return os.fsencode(name.strip(self.settings["strip"]) if self.settings["strip"] else name)
        try:
            return self._checked(part.decode()).encode()
        except UnicodeDecodeError:
            raise Refused(400, "Bad Request - Invalid URL") from None

    def _checked(self, name: str) -> str:
        if self.tree.is_sharepoint:
            bad = not WINDOWS.isdisjoint(name) or name != name.strip(" ") or name.endswith(".")
            if bad or name.startswith("~$") or "_vti_" in name.lower() or name.lower() == "desktop.ini":
                raise Refused(
                    400, f"The file or folder name {name} contains invalid characters", code=0x00090070
                )
            return name
        if not WINDOWS.isdisjoint(name):
            raise Refused(400, "Bad Request - Invalid URL")
        if not self.settings["double_escaping"] and not {"+", "%"}.isdisjoint(name):
            raise Refused(404, "HTTP Error 404.11 - Not Found")
        if name.lower() in HIDDEN_SEGMENTS:
            raise Refused(404, "HTTP Error 404.8 - Not Found")
        return name.rstrip(". ")

    def existing(self) -> bytes:
        place = self.place()
        if not os.path.lexists(place):
            raise Refused(404)
        return place

    def href(self, place: bytes) -> str:
        """SharePoint writes UTF-8 as it is, and no slash after a folder."""
        path = os.fsdecode(place[len(self.tree.root) :])
        if self.tree.is_plain:
            return quote(os.fsencode(path)) + "/" * (os.path.isdir(place) and path != "/")
        is_folder = os.path.isdir(place)
        if self.tree.is_sharepoint:
            return self.home + quote(path, safe="/" + "".join(c for c in path if ord(c) > 127))
        return self.home + quote(os.fsencode(path)) + ("/" if is_folder and path else "" if path else "/")

    # --- locks and conditions

    def check_lock(self, place: bytes) -> None:
        held = self.tree.held(place)
        if held is None or held[0] in self.headers.get("if", "") + self.headers.get("lock-token", ""):
            return
        left = f"Second-{int(held[1] - time.time())}"
        text = f"The file is locked for exclusive use by {held[2]}"
        raise Refused(423, text, code=0x0009000E, X_MSDAVEXT_LockTimeout=left)

    def check_conditions(self, place: bytes) -> None:
        exists = os.path.lexists(place)
        wanted, unwanted = self.headers.get("if-match"), self.headers.get("if-none-match")
        if wanted is not None and not (exists and wanted in {"*", self.tree.etag(place)}):
            raise Refused(412)
        if unwanted == "*" and exists:
            raise Refused(412)

    def body(self) -> bytes:
        size = int(self.headers.get("content-length", "0"))
        data = self.rfile.read(size)
        self.received = len(data)
        if len(data) != size:
            raise BrokenPipeError
        return data

    # --- verbs

    def on_options(self) -> None:
        verbs = "OPTIONS, TRACE, GET, HEAD, POST, PROPFIND, PROPPATCH, MKCOL, PUT, DELETE, COPY, MOVE, LOCK"
        verbs += ", UNLOCK"
        headers = {"Public": verbs, "DAV": "1,2,3", "MS-Author-Via": "DAV", "Accept-Ranges": "bytes"}
        if self.tree.is_plain:
            headers = {"Allow": verbs, "DAV": "1,2"}
        if self.tree.is_sharepoint:
            headers |= {"DAV": "1,2", "MS-Author-Via": "MS-FP/4.0,DAV", "Allow": verbs, "X-MSDAVEXT": "1"}
            del headers["Public"]
        self.reply(200, b"", headers)

    def on_get(self) -> None:
        place = self.existing()
        if os.path.isdir(place):
            raise Refused(403, "HTTP Error 403.14 - Forbidden")
        if self.headers.get("translate", "").lower() != "f" and os.fsdecode(place).endswith(SCRIPTS):
            self.reply(200, b"what the script prints", {"Content-Type": "text/html"})
            return
        data = Path(os.fsdecode(place)).read_bytes()
        tag = self.tree.etag(place)
        headers = {"ETag": tag, "Last-Modified": formatdate(os.stat(place).st_mtime, usegmt=True)}
        if self.headers.get("if-match", tag) not in {tag, "*"}:
            raise Refused(412)
        if self.headers.get("if-none-match") == tag:
            self.reply(304, b"", headers)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if wanted is None or self.headers.get("if-range", tag) != tag:
            self.reply(200, data, headers)
            return
        start, end = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
        if start >= len(data):
            raise Refused(416, Content_Range=f"bytes */{len(data)}")
        self.reply(
            206, data[start : end + 1], {**headers, "Content-Range": f"bytes {start}-{end}/{len(data)}"}
        )

    on_head = on_get

    def on_put(self) -> None:
        size = int(self.headers.get("content-length", "0"))
        if size > self.settings["max_body"]:
            raise Refused(404, "HTTP Error 404.13 - Not Found")
        place = self.place()
        name = os.fsdecode(os.path.basename(place)).lower()
        if not os.path.isdir(os.path.dirname(place)):
            raise Refused(409)
        if os.path.isdir(place):
            raise Refused(409)
        self.check_lock(place)
        self.check_conditions(place)
        if self.tree.is_sharepoint and name.endswith(BLOCKED):
            raise Refused(
                403, "The following file(s) have been blocked by the administrator", code=0x0009006F
            )
        if self.tree.is_sharepoint and name.startswith("checkedout"):
            raise Refused(409, "The file is checked out for editing by LAB\\bob.", code=0x0009000E)
        data, is_new = self.body(), not os.path.lexists(place)
        if self.tree.is_sharepoint and not data and is_new:
            self.reply(200)
            return
        self._store(place, data)
        headers = {"Location": self.href(place)} if is_new and not self.tree.is_plain else {}
        if self.tree.is_sharepoint:
            headers["ETag"] = self.tree.etag(place)
            if name.endswith(OFFICE) and data and self.settings["rewrites"]:
                self._store(place, data + b"<SharePoint properties>")
        self.reply(201 if is_new else 200 if self.tree.is_sharepoint else 204, b"", headers)

    def _store(self, place: bytes, data: bytes) -> None:
        with open(place, "wb") as file:
            file.write(data)
        self.tree.touch(place)

    def on_mkcol(self) -> None:
        place = self.place()
        if os.path.lexists(place):
            raise Refused(405)
        if not os.path.isdir(os.path.dirname(place)):
            raise Refused(409)
        os.mkdir(place)
        self.reply(201)

    def on_delete(self) -> None:
        place = self.existing()
        self.check_lock(place)
        self.check_conditions(place)
        self._remove(place)
        self.reply(204)

    def _remove(self, place: bytes) -> None:
        shutil.rmtree(place) if os.path.isdir(place) else os.unlink(place)
        self.tree.forget(place)

    def _transfer(self) -> tuple[bytes, bytes, bool]:
        source = self.existing()
        target = self.place(self.headers.get("destination", ""))
        wanted = unquote_to_bytes(urlsplit(self.headers["destination"]).path.rstrip("/").rpartition("/")[2])
        if not os.path.isdir(os.path.dirname(target)):
            raise Refused(409)
        exists = os.path.lexists(target)
        self.check_lock(target)
        if exists and self.headers.get("overwrite", "T") == "F":
            raise Refused(412)
        if exists:  # the same file by another case included: it is gone then
            self._remove(target)
            if not os.path.lexists(source):
                raise Refused(404, "the source was the target")
        # What is made has the spelling that was asked for.
        return source, os.path.join(os.path.dirname(target), self._kept(wanted)), exists

    def on_move(self) -> None:
        self.check_lock(self.existing())
        source, target, existed = self._transfer()
        self.tree.rename(source, target)
        self.reply(204 if existed else 201)

    def on_copy(self) -> None:
        source, target, existed = self._transfer()
        if os.path.isdir(source):
            shutil.copytree(os.fsdecode(source), os.fsdecode(target))
        else:
            shutil.copy(source, target)
        self.reply(204 if existed else 201)

    def on_lock(self) -> None:
        body, place = self.body(), self.place()
        asked = re.match(r"Second-(\d+)", self.headers.get("timeout", ""))
        until = time.time() + min(int(asked[1]) if asked else 180, 3600)
        held, is_new = self.tree.held(place), not os.path.lexists(place)
        if not body:
            if held is None or held[0] not in self.headers.get("if", ""):
                raise Refused(412)
            self.tree.locks[place] = (held[0], until, held[2])
        else:
            self.check_lock(place)
            if held is not None:
                raise Refused(423)
            if is_new:
                if not os.path.isdir(os.path.dirname(place)):
                    raise Refused(409)
                self._store(place, b"")
            owner = re.search(rb"<(?:\w+:)?owner[^>]*>(.*?)</(?:\w+:)?owner>", body, re.DOTALL)
            text = re.sub(r"<[^>]*>", "", owner[1].decode()) if owner else ""
            self.tree.locks[place] = (f"opaquelocktoken:{uuid.uuid4()}20261121T", until, text)
        token = self.tree.locks[place][0]
        answer = f'<?xml version="1.0"?><D:prop xmlns:D="DAV:">{self._discovery(place)}</D:prop>'
        self.reply(
            201 if is_new else 200, answer.encode(), {"Lock-Token": f"<{token}>", "Content-Type": "text/xml"}
        )

    def on_unlock(self) -> None:
        place = self.existing()
        held = self.tree.held(place)
        if held is None or held[0] not in self.headers.get("lock-token", ""):
            raise Refused(409)
        del self.tree.locks[place]
        self.reply(204)

    def _discovery(self, place: bytes) -> str:
        held = self.tree.held(place)
        if held is None:
            return "<D:lockdiscovery/>"
        left = int(held[1] - time.time())
        return (
            "<D:lockdiscovery><D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:exclusive/>"
            f"</D:lockscope><D:depth>0</D:depth><D:owner>{html.escape(held[2])}</D:owner>"
            f"<D:timeout>Second-{left}</D:timeout><D:locktoken><D:href>{held[0]}</D:href></D:locktoken>"
            "</D:activelock></D:lockdiscovery>"
        )

    # --- properties

    def on_propfind(self) -> None:
        asked = [one.tag for one in ET.fromstring(self.body() or b"<a><b/></a>")[0]]
        place, depth = self.existing(), self.headers.get("depth", "infinity")
        if depth == "infinity":
            raise Refused(403)
        if depth == "1" and self.tree.is_sharepoint and not os.path.isdir(place):
            raise Refused(404)
        members = [place]
        if depth == "1" and os.path.isdir(place):
            members += sorted(os.path.join(place, one) for one in os.listdir(place))
        answers = [self._described(one, asked, is_asked=not n) for n, one in enumerate(members)]
        text = (
            '<?xml version="1.0" encoding="utf-8"?><D:multistatus xmlns:D="DAV:"'
            f' xmlns:Z="urn:schemas-microsoft-com:">{"".join(answers)}</D:multistatus>'
        )
        self.reply(207, text.encode("utf-8", "replace"), {"Content-Type": "text/xml"})

    def _described(self, place: bytes, asked: list[str], *, is_asked: bool) -> str:
        known, there, missing = self._properties(place), "", ""
        for tag in asked:
            namespace, _, name = tag[1:].partition("}")
            if tag in known:
                there += f'<x:{name} xmlns:x="{namespace}">{known[tag]}</x:{name}>'
            else:
                missing += f'<x:{name} xmlns:x="{namespace}"/>'
        # IIS answers about what it was asked for in the words of who asked.
        echo = is_asked and self.settings["echo"]
        href = html.escape(self.home + self.path if echo else self.href(place))
        lost = (
            f"<D:propstat><D:prop>{missing}</D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>"
        )
        return (
            f"<D:response><D:href>{href}</D:href><D:propstat><D:prop>{there}</D:prop>"
            f"<D:status>HTTP/1.1 200 OK</D:status></D:propstat>{lost if missing else ''}</D:response>"
        )

    def _properties(self, place: bytes) -> dict[str, str]:
        found, is_folder = os.stat(place), os.path.isdir(place)
        stamp = formatdate(found.st_mtime, usegmt=True)
        attributes = int(self.tree.dead.get(place, {}).get(f"{Z}Win32FileAttributes", "0"), 16)
        if is_folder:
            attributes |= 0x10
        flag = ("1", "0") if self.settings["flags"] == "1" else ("True", "False")
        known = {
            "{DAV:}displayname": html.escape(os.fsdecode(os.path.basename(place))),
            "{DAV:}getlastmodified": stamp,
            "{DAV:}creationdate": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(found.st_mtime)),
            "{DAV:}iscollection": flag[not is_folder],
            "{DAV:}ishidden": flag[not attributes & 2],
            "{DAV:}lockdiscovery": self._discovery(place)[
                len("<D:lockdiscovery>") : -len("</D:lockdiscovery>")
            ]
            if self.tree.held(place)
            else "",
            f"{Z}Win32LastModifiedTime": stamp,
            f"{Z}Win32CreationTime": stamp,
            f"{Z}Win32LastAccessTime": stamp,
            f"{Z}Win32FileAttributes": f"{attributes:08X}",
            "{DAV:}getetag": self.tree.etag(place),
        }
        if self.settings["resourcetype"]:
            known["{DAV:}resourcetype"] = "<D:collection/>" if is_folder else ""
        if not is_folder:
            known["{DAV:}getcontentlength"] = str(found.st_size)
        for tag, text in self.tree.dead.get(place, {}).items():
            known.setdefault(tag, html.escape(text))
        return known

    def on_proppatch(self) -> None:
        document, place = ET.fromstring(self.body()), self.existing()
        self.check_lock(place)
        done = ""
        for change in document:
            for prop in change:
                for one in prop:
                    self._set(place, one.tag, one.text or "", is_set=change.tag == "{DAV:}set")
                    namespace, _, name = one.tag[1:].partition("}")
                    done += f'<x:{name} xmlns:x="{namespace}"/>'
        text = (
            f'<D:multistatus xmlns:D="DAV:"><D:response><D:href>{html.escape(self.href(place))}</D:href>'
            f"<D:propstat><D:prop>{done}</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
            "</D:response></D:multistatus>"
        )
        self.reply(207, text.encode(), {"Content-Type": "text/xml"})

    def _set(self, place: bytes, tag: str, text: str, *, is_set: bool) -> None:
        if tag == f"{Z}Win32LastModifiedTime" and is_set:
            stamp = parsedate_to_datetime(text).timestamp()
            os.utime(place, (stamp, stamp))
        elif is_set:
            self.tree.dead.setdefault(place, {})[tag] = text
        else:
            self.tree.dead.get(place, {}).pop(tag, None)


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    Handler.settings = settings
    Handler.tree = Tree(settings)
    Handler.log = os.open(settings["access_log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    server = ThreadingHTTPServer(("127.0.0.1", settings["port"]), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
