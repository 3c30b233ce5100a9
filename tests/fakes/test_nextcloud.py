"""The Nextcloud of the tests answers as the real one did: statuses, telling headers, and kinds of errors.

The captures are of Nextcloud 24 (tests/captures/nextcloud). What it does to files beyond one answer (in-place
overwrites, tags that stay) is held here too, as servers.md tells it.
"""

from __future__ import annotations

import base64
import http.client
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.nextcloud import PASSWORD, USER, Nextcloud

_CAPTURES = Path(__file__).parents[1] / "captures" / "nextcloud"
_FILES = "/remote.php/dav/files/alice"
_UPLOADS = "/remote.php/dav/uploads/alice"
_LOGIN = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
_TELLING = ("etag", "oc-etag", "oc-fileid", "x-oc-mtime", "dav", "www-authenticate", "content-range")
_TARGET = f"http://127.0.0.1:9065{_FILES}/probe/"


@pytest.fixture
def cloud() -> Iterator[Nextcloud]:
    with Nextcloud() as server:
        server.mkdir("probe/pf")
        server.mkdir("probe/pd")
        server.mkdir("probe/k")
        for name in ("c.txt", "m1.txt", "m2.txt", "r.bin", "l.txt", "p.txt", "old.txt"):
            server.put(f"probe/{name}", b"content of it")
        yield server


def _ask(
    cloud: Nextcloud, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(cloud.origin.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, path, body, _LOGIN | (headers or {}))
        answer = connection.getresponse()
        return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def _captured(name: str) -> tuple[int, set[str], str]:
    head, _, body = (_CAPTURES / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    lines = head.decode("latin-1").splitlines()
    headers = {line.partition(":")[0].lower() for line in lines[1:]}
    return int(lines[0].split()[1]), headers, _kind(body)


def _kind(body: bytes) -> str:
    found = re.search(rb"<s:exception>(.*?)</s:exception>", body)
    return found[1].decode() if found else ""


@pytest.mark.parametrize(
    ("name", "method", "path", "headers", "body"),
    [
        ("options-root", "OPTIONS", f"{_FILES}/", {}, b""),
        ("401-propfind", "PROPFIND", f"{_FILES}/", {"Depth": "0", "Authorization": ""}, b""),
        ("root-propfind", "PROPFIND", "/", {"Depth": "0"}, b""),
        ("legacy-webdav-propfind", "PROPFIND", "/remote.php/webdav/", {"Depth": "0"}, b""),
        ("propfind-404", "PROPFIND", f"{_FILES}/probe/pf/missing", {"Depth": "0"}, b""),
        ("put-new", "PUT", f"{_FILES}/probe/e.txt", {}, b"aaaa"),
        ("put-overwrite", "PUT", f"{_FILES}/probe/old.txt", {}, b"bbbb"),
        ("put-mtime", "PUT", f"{_FILES}/probe/e.txt", {"X-OC-Mtime": "1000000000"}, b"aaaa"),
        ("put-412", "PUT", f"{_FILES}/probe/c.txt", {"If-Match": '"nope"'}, b"two"),
        ("put-noparent", "PUT", f"{_FILES}/probe/nodir/x.txt", {}, b"x"),
        ("put-on-dir", "PUT", f"{_FILES}/probe/pd", {}, b"x"),
        ("put-content-range", "PUT", f"{_FILES}/probe/p.txt", {"Content-Range": "bytes 2-4/10"}, b"abc"),
        ("mkcol", "MKCOL", f"{_FILES}/probe/new/", {}, b""),
        ("mkcol-405", "MKCOL", f"{_FILES}/probe/k/", {}, b""),
        ("mkcol-409", "MKCOL", f"{_FILES}/probe/nok/k/", {}, b""),
        ("delete-404", "DELETE", f"{_FILES}/probe/missing", {}, b""),
        ("move", "MOVE", f"{_FILES}/probe/m1.txt", {"Destination": f"{_TARGET}m3.txt"}, b""),
        (
            "move-412",
            "MOVE",
            f"{_FILES}/probe/m1.txt",
            {"Destination": f"{_TARGET}m2.txt", "Overwrite": "F"},
            b"",
        ),
        ("lock-501", "LOCK", f"{_FILES}/probe/l.txt", {}, b""),
        ("get-range-416", "GET", f"{_FILES}/probe/r.bin", {"Range": "bytes=99999-"}, b""),
        ("chunk-1-mkcol", "MKCOL", f"{_UPLOADS}/id", {"Destination": f"{_TARGET}chunked.bin"}, b""),
    ],
)
def test_one_answer(
    cloud: Nextcloud, name: str, method: str, path: str, headers: dict[str, str], body: bytes
) -> None:
    """The same status, the same of the headers that tell something, the same exception."""
    status, told, answer = _ask(cloud, method, path, headers, body)
    wanted_status, wanted_headers, wanted_kind = _captured(name)
    assert status == wanted_status
    assert {header for header in _TELLING if header in told} == wanted_headers.intersection(_TELLING)
    if wanted_kind and _kind(answer):
        assert _kind(answer) == wanted_kind


def test_an_upload_in_parts(cloud: Nextcloud) -> None:
    """MKCOL, PUT, PUT, MOVE: the statuses and headers of the captured one, and the joined file."""
    target = {"Destination": f"{_TARGET}chunked.bin"}
    assert _ask(cloud, "MKCOL", f"{_UPLOADS}/id", target)[0] == _captured("chunk-1-mkcol")[0]
    assert _ask(cloud, "PUT", f"{_UPLOADS}/id/00002", target, b"second")[0] == _captured("chunk-2-put")[0]
    assert _ask(cloud, "PUT", f"{_UPLOADS}/id/00001", target, b"first ")[0] == 201
    _, _, listing = _ask(cloud, "PROPFIND", f"{_UPLOADS}/id", {"Depth": "1"})
    assert listing.count(b"<d:response>") == 4
    mtime = {"X-OC-Mtime": "1000000000", "OC-Total-Length": "12"}
    status, told, _ = _ask(cloud, "MOVE", f"{_UPLOADS}/id/.file", target | mtime)
    wanted_status, wanted_headers, _ = _captured("chunk-4-move")
    assert status == wanted_status
    assert {header for header in _TELLING if header in told} == wanted_headers.intersection(_TELLING)
    assert cloud.content("probe/chunked.bin") == b"first second"
    assert _ask(cloud, "PROPFIND", f"{_UPLOADS}/id", {"Depth": "0"})[0] == 404


def test_parts_that_do_not_add_up_are_refused(cloud: Nextcloud) -> None:
    """OC-Total-Length is compared, and the tag of the destination in If."""
    target = {"Destination": f"{_TARGET}c.txt"}
    _ask(cloud, "MKCOL", f"{_UPLOADS}/id", target)
    _ask(cloud, "PUT", f"{_UPLOADS}/id/00001", target, b"first")
    assert _ask(cloud, "MOVE", f"{_UPLOADS}/id/.file", target | {"OC-Total-Length": "6"})[0] == 400
    claim = {"If": f'<{_TARGET}c.txt> (["nope"])'}
    assert _ask(cloud, "MOVE", f"{_UPLOADS}/id/.file", target | claim)[0] == 412
    assert cloud.content("probe/c.txt") == b"content of it"


def test_a_cut_overwrite_tears_the_file_and_keeps_its_tag(cloud: Nextcloud) -> None:
    """servers.md 1: new bytes, cut to the old length, under the old tag."""
    before = cloud.file("probe/old.txt").etag
    host, _, port = cloud.origin.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        head = f"PUT {_FILES}/probe/old.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
        line.sendall((head + f"Authorization: {_LOGIN['Authorization']}\r\n\r\n" + "N" * 50).encode())
        line.shutdown(socket.SHUT_WR)
        line.recv(1)
    status, told, body = _ask(cloud, "GET", f"{_FILES}/probe/old.txt")
    assert (status, body) == (200, b"N" * len(b"content of it"))
    assert told["etag"] == f'"{before}"'


@pytest.mark.parametrize(
    ("name", "prop", "status"),
    [
        ("proppatch-dead", '<L:colour xmlns:L="urn:lab">blue</L:colour>', b"200"),
        ("proppatch-getlastmodified", "<D:getlastmodified>x</D:getlastmodified>", b"403"),
        ("proppatch-lastmodified_ns", "<D:lastmodified>1000000000</D:lastmodified>", b"200"),
    ],
)
def test_properties(cloud: Nextcloud, name: str, prop: str, status: bytes) -> None:
    """PROPPATCH as captured; a date that is set is the file's."""
    body = f'<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop>{prop}</D:prop></D:set></D:propertyupdate>'
    code, _, answer = _ask(cloud, "PROPPATCH", f"{_FILES}/probe/c.txt", {}, body.encode())
    assert code == _captured(name)[0]
    assert b"HTTP/1.1 " + status in answer
    assert b"HTTP/1.1 " + status in (_CAPTURES / f"{name}.http").read_bytes().partition(b"\r\n\r\n")[2]
    if name == "proppatch-lastmodified_ns":
        assert cloud.file("probe/c.txt").mtime_s == 1_000_000_000


def test_quota_is_told_before_the_body(cloud: Nextcloud) -> None:
    """507 in place of 100."""
    cloud.quota_bytes = 1000
    host, _, port = cloud.origin.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        head = f"PUT {_FILES}/probe/q.bin HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n"
        login = f"Authorization: {_LOGIN['Authorization']}\r\nExpect: 100-continue\r\n\r\n"
        line.sendall((head + login).encode())
        answer = line.recv(4096)
    assert answer.startswith(b"HTTP/1.1 %d" % _captured("put-507-quota")[0])


def test_tags_of_files_and_folders(cloud: Nextcloud) -> None:
    """A file's stays for the same size and second, a folder's changes with anything below it."""
    cloud.put("probe/pf/x", b"aaaa", mtime_s=1_000_000_000)
    file, folders = cloud.file("probe/pf/x").etag, [cloud.top.etag, cloud._folder(("probe", "pf")).etag]
    cloud.put("probe/pf/x", b"bbbb", mtime_s=1_000_000_000)
    assert cloud.file("probe/pf/x").etag == file
    assert cloud.top.etag not in folders
    assert cloud._folder(("probe", "pf")).etag not in folders


def test_maintenance_refuses_everything(cloud: Nextcloud) -> None:
    """503, in the words of the captured one."""
    cloud.in_maintenance = True
    status, _, body = _ask(cloud, "PROPFIND", f"{_FILES}/", {"Depth": "0"})
    wanted_status, _, wanted_kind = _captured("propfind-503-maintenance")
    assert (status, _kind(body)) == (wanted_status, wanted_kind)
