"""A scripted server with a tree of a million files: nothing on any disk, and hardly any work per answer.

    python -m tests.bench.million --wide 100 --files 100

serves a top with `wide` folders, each with `wide` folders, each with `files` files. It prints its port and
ends with its input. Answers are made from one prepared text per kind of folder, so that what is
measured is the mount: 10,000 listings of 100 files cost it about 3 s.
"""

from __future__ import annotations

import argparse
import re
import socketserver
import sys
import threading
from typing import Final

_FOLDER: Final = re.compile(r"^/(?:a\d{3}/?(?:b\d{3}/?)?)?$")
_FILE: Final = re.compile(r"^/a\d{3}/b\d{3}/file\d{4}\.dat$")
_SIZE: Final = 4096
_HEAD: Final = '<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus xmlns:D="DAV:">\n'
_TAIL: Final = "</D:multistatus>\n"
_DATE: Final = "Sun, 13 Sep 2020 12:26:40 GMT"
_AS_FOLDER: Final = "<D:resourcetype><D:collection/></D:resourcetype>"
_AS_FILE: Final = (
    f'<D:resourcetype/><D:getcontentlength>{_SIZE}</D:getcontentlength><D:getetag>"1"</D:getetag>'
)
_HERE: Final = "@"  # stands for the folder in a prepared listing; occurs nowhere else


def _response(href: str, kind: str) -> str:
    return (
        f"<D:response><D:href>{href}</D:href><D:propstat><D:prop>{kind}"
        f"<D:getlastmodified>{_DATE}</D:getlastmodified></D:prop>"
        "<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>\n"
    )


class _Tree:
    """The answers. `wide` folders in each of two levels, `files` in each folder of the second."""

    def __init__(self, wide: int, files: int) -> None:
        folders = [[f"{letter}{number:03}/" for number in range(wide)] for letter in "ab"]
        names = [f"file{number:04}.dat" for number in range(files)]
        self._listings = [
            self._prepared(folders[0], _AS_FOLDER),
            self._prepared(folders[1], _AS_FOLDER),
            self._prepared(names, _AS_FILE),
        ]

    @staticmethod
    def _prepared(names: list[str], kind: str) -> str:
        children = "".join(_response(_HERE + name, kind) for name in names)
        return _HEAD + _response(_HERE, _AS_FOLDER) + children + _TAIL

    def propfind(self, path: str, depth: str) -> str | None:
        if _FILE.match(path):
            return _HEAD + _response(path, _AS_FILE) + _TAIL
        if not _FOLDER.match(path):
            return None
        folder = path.rstrip("/") + "/"
        if depth == "0":
            return _HEAD + _response(folder, _AS_FOLDER) + _TAIL
        return self._listings[folder.count("/") - 1].replace(_HERE, folder)


class _Connection(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True
    wbufsize = -1
    tree: _Tree

    def handle(self) -> None:
        while line := self.rfile.readline():
            method, path, _ = line.decode("latin-1").split(" ", 2)
            size, depth = 0, "1"
            while (header := self.rfile.readline()) not in (b"\r\n", b""):
                name, _, value = header.lower().partition(b":")
                if name == b"content-length":
                    size = int(value)
                elif name == b"depth":
                    depth = value.strip().decode("latin-1")
            self.rfile.read(size)
            self._answer(method, path, depth)
            self.wfile.flush()

    def _answer(self, method: str, path: str, depth: str) -> None:
        if method == "OPTIONS":
            self._say("200 OK", b"", "DAV: 1\r\nAllow: OPTIONS, GET, HEAD, PROPFIND\r\n")
        elif method == "PROPFIND":
            text = self.tree.propfind(path, depth)
            if text is None:
                self._say("404 Not Found", b"")
            else:
                self._say("207 Multi-Status", text.encode(), "Content-Type: text/xml; charset=utf-8\r\n")
        elif method == "GET" and _FILE.match(path):
            self._say("200 OK", bytes(_SIZE), 'ETag: "1"\r\n')
        else:
            self._say("405 Method Not Allowed", b"")

    def _say(self, status: str, body: bytes, headers: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\nDate: {_DATE}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self.wfile.write(head.encode("latin-1"))
        self.wfile.write(body)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    parser = argparse.ArgumentParser(prog="million", description="A WebDAV share of very many files.")
    parser.add_argument("--wide", type=int, default=100)
    parser.add_argument("--files", type=int, default=100)
    given = parser.parse_args()
    _Connection.tree = _Tree(given.wide, given.files)
    with _Server(("127.0.0.1", 0), _Connection) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdout.write(f"{server.server_address[1]}\n")
        sys.stdout.flush()
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
