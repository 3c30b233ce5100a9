"""Another WebDAV client, which knows nothing of davfs: what it sees is what the server has."""

from __future__ import annotations

import os
import time
from typing import Final, Self
from urllib.parse import quote, unquote_to_bytes, urlsplit

import httpx
from lxml import etree

_ASK_TYPE: Final = b'<propfind xmlns="DAV:"><prop><resourcetype/></prop></propfind>'
_MISSING: Final = frozenset({400, 404, 410})  # 400: lighttpd, of names that it does not take


class Rival:
    """Plain requests below `url`, which ends in a slash. Paths are relative, as the drive has them."""

    def __init__(self, url: str, account: tuple[str, str] | None = None) -> None:
        self.url = url
        self._http = httpx.Client(trust_env=False, timeout=30, auth=account)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def _ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None,
             fine: frozenset[int] = frozenset()) -> httpx.Response:  # fmt: skip
        url = self.url + quote(os.fsencode(path), safe="/")
        answer = self._http.request(
            method, url, headers={"Accept-Encoding": "identity"} | (headers or {}), content=body
        )
        if answer.status_code not in fine:
            answer.raise_for_status()
        return answer

    def get(self, path: str) -> bytes | None:
        """The bytes that the server has; None when it has no such file.

        lighttpd knows a file's size from up to a second ago, and breaks the connection when there is less.
        """
        for _ in range(12):
            try:
                answer = self._ask("GET", path, fine=_MISSING)
            except httpx.RemoteProtocolError:
                time.sleep(0.1)
            else:
                return None if answer.status_code in _MISSING else answer.content
        return None

    def put(self, path: str, data: bytes, mtime_s: int | None = None) -> None:
        """Stores a file, over another if there is one.

        X-OC-Mtime as sync clients send it: copyparty overwrites for nobody else.
        """
        headers = {"X-OC-Mtime": str(mtime_s)} if mtime_s is not None else {}
        self._ask("PUT", path, headers, data)

    def mkcol(self, path: str) -> None:
        self._ask("MKCOL", path.rstrip("/") + "/")

    def delete(self, path: str) -> None:
        self._ask("DELETE", path)

    def names(self, path: str = "") -> list[str]:
        """What the server lists in a folder.

        Only hrefs are asked for: WsgiDAV says 500 to displayname of a name with a control character.
        """
        folder = path.rstrip("/") + "/" if path else ""
        answer = self._ask("PROPFIND", folder, {"Depth": "1", "Content-Type": "application/xml"}, _ASK_TYPE)
        root = etree.fromstring(answer.content, etree.XMLParser(recover=True, resolve_entities=False))
        prefix = _decoded(urlsplit(self.url).path) + os.fsencode(folder)
        hrefs = (element.text or "" for element in root.iter("{DAV:}href"))
        below = (_decoded(urlsplit(href).path).removeprefix(prefix).strip(b"/") for href in hrefs)
        return sorted({os.fsdecode(name) for name in below if name and b"/" not in name})


def _decoded(path: str) -> bytes:
    return unquote_to_bytes(path)
