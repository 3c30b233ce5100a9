"""A WebDAV server of a tree that is on no disk: so many folders of so many files, made up at each PROPFIND.

For walks too large for a real server's disk: a listing of 100 files costs it half a millisecond. Run it as a
program; its first line of output is its port. All files are old, so their listings are believed for a minute.
"""

from __future__ import annotations

import argparse
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

_HEAD = b'<?xml version="1.0" encoding="utf-8"?><D:multistatus xmlns:D="DAV:">'
_RESPONSE = (
    "<D:response><D:href>{href}</D:href><D:propstat><D:prop><D:resourcetype>{kind}</D:resourcetype>"
    "<D:creationdate>2020-11-21T02:19:00Z</D:creationdate><D:getcontentlength>{size}</D:getcontentlength>"
    "<D:getlastmodified>Sat, 21 Nov 2020 02:19:{second:02d} GMT</D:getlastmodified>"
    '<D:getetag>"{size:x}-5b491bf{size:07x}"</D:getetag></D:prop>'
    "<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
)


def response(href: str, number: int, *, is_folder: bool) -> bytes:
    kind = "<D:collection/>" if is_folder else ""
    return _RESPONSE.format(href=href, kind=kind, size=number, second=number % 60).encode()


class WideTree(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folders: ClassVar[int]
    files: ClassVar[int]

    def do_OPTIONS(self) -> None:
        self._answer(200, b"")

    def do_PROPFIND(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = [part for part in self.path.split("/") if part]
        is_folder = len(parts) < 2
        body = [_HEAD, response(self.path, 0, is_folder=is_folder)]
        if self.headers.get("Depth") == "1" and is_folder:
            body += self._members(parts)
        body.append(b"</D:multistatus>")
        self._answer(207, b"".join(body))

    def _members(self, parts: list[str]) -> list[bytes]:
        if not parts:
            return [response(f"/d{number:05d}/", number, is_folder=True) for number in range(self.folders)]
        first = int(parts[0][1:]) * self.files
        return [
            response(f"/{parts[0]}/file-{number:08d}.txt", number, is_folder=False)
            for number in range(first, first + self.files)
        ]

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("DAV", "1")
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not to stderr."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="wide_tree")
    parser.add_argument("--folders", type=int, required=True)
    parser.add_argument("--files", type=int, required=True)
    given = parser.parse_args()
    WideTree.folders, WideTree.files = given.folders, given.files
    server = ThreadingHTTPServer(("127.0.0.1", 0), WideTree)
    server.daemon_threads = True
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
