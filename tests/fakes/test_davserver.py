"""What makes FakeDav a verified fake: the same requests to it, to Apache and to WsgiDAV, the same answers
asked of all.

Only behaviour that davfs relies on is compared. Where real servers differ among themselves (servers.md)
the fake may be any of them, and the test names the set. What only the fake has (faults, its log, the
other client) is tested last.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import httpx
import pytest
import trio
from lxml import etree

from tests.fakes.davserver import Change, FakeDav, Fault, Logged
from tests.servers import Share

FAKE_URL = "http://fake.test/share/"
NS = {"D": "DAV:"}
LOCK_BODY = (
    b'<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
    b"<D:locktype><D:write/></D:locktype><D:owner>me</D:owner></D:lockinfo>"
)


class Dav(NamedTuple):
    """A server under test."""

    http: httpx.AsyncClient
    url: str

    async def ask(
        self, method: str, path: str = "", content: bytes | None = None, **headers: str
    ) -> httpx.Response:
        """Header names with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.request(method, self.url + path, content=content, headers=named)

    async def to(self, method: str, source: str, target: str, **headers: str) -> int:
        answer = await self.ask(method, source, None, Destination=self.url + target, **headers)
        return answer.status_code

    async def names(self, path: str = "", depth: str = "1") -> list[str]:
        answer = await self.ask("PROPFIND", path, Depth=depth)
        assert answer.status_code == 207
        root = httpx.URL(self.url).path
        hrefs = etree.fromstring(answer.content).iterfind(".//D:href", NS)
        return sorted((href.text or "").removeprefix(root) for href in hrefs)


@pytest.fixture(params=["fake", "apache", "wsgidav"])
async def dav(request: pytest.FixtureRequest) -> AsyncIterator[Dav]:
    if request.param == "fake":
        async with httpx.AsyncClient(transport=FakeDav(root="/share")) as http:
            yield Dav(http, FAKE_URL)
    else:
        share: Share = request.getfixturevalue(f"{request.param}_share")
        async with httpx.AsyncClient(timeout=20) as http:
            yield Dav(http, share.url)


async def test_put_and_get(dav: Dav) -> None:
    """201 for a new file, 204 for an old one, and GET gives the last bytes with length and type."""
    assert (await dav.ask("PUT", "a", b"one")).status_code == 201
    assert (await dav.ask("PUT", "a", b"two!")).status_code == 204
    got = await dav.ask("GET", "a")
    assert (got.status_code, got.content, got.headers["content-length"]) == (200, b"two!", "4")
    assert "last-modified" in got.headers
    head = await dav.ask("HEAD", "a")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "4")


async def test_what_is_missing(dav: Dav) -> None:
    """404 of a missing name; 409 of a PUT, MKCOL or MOVE into a missing folder."""
    for method in ("GET", "HEAD", "DELETE"):
        assert (await dav.ask(method, "no")).status_code == 404
    assert (await dav.ask("PROPFIND", "no", Depth="0")).status_code == 404
    assert await dav.to("MOVE", "no", "a") == 404
    assert (await dav.ask("PUT", "no/a", b"x")).status_code in {403, 409}
    assert (await dav.ask("MKCOL", "no/a/")).status_code == 409
    await dav.ask("PUT", "a", b"x")
    assert await dav.to("MOVE", "a", "no/a") in {409, 500}  # Apache: 500


async def test_ranges(dav: Dav) -> None:
    """206 with Content-Range for the middle, the end and a suffix; 416 behind the end."""
    await dav.ask("PUT", "a", bytes(range(100)))
    for wanted, start, end in (("bytes=10-19", 10, 20), ("bytes=90-200", 90, 100), ("bytes=-5", 95, 100)):
        got = await dav.ask("GET", "a", Range=wanted)
        assert got.status_code == 206
        assert got.content == bytes(range(start, end))
        assert got.headers["content-range"] == f"bytes {start}-{end - 1}/100"
    assert (await dav.ask("GET", "a", Range="bytes=100-")).status_code == 416
    assert (await dav.ask("GET", "a", Range="nonsense")).status_code in {200, 400, 416}


async def test_conditions(dav: Dav) -> None:
    """If-Match with a wrong tag and If-None-Match: * on an existing file are 412, and change nothing."""
    assert (await dav.ask("PUT", "a", b"new", If_None_Match="*")).status_code == 201
    assert (await dav.ask("PUT", "a", b"no", If_None_Match="*")).status_code == 412
    assert (await dav.ask("PUT", "a", b"no", If_Match='"wrong"')).status_code == 412
    assert (await dav.ask("GET", "a", If_Match='"wrong"')).status_code == 412
    assert (await dav.ask("GET", "a")).content == b"new"


async def test_the_right_tag_is_a_match(dav: Dav) -> None:
    """If-Match with the tag of GET is done; If-None-Match with it is 304."""
    await dav.ask("PUT", "a", b"one")
    while (tag := (await dav.ask("GET", "a")).headers["etag"]).startswith("W/"):
        await trio.sleep(0.2)  # Apache's is weak for two seconds: not for If-Match
    assert (await dav.ask("GET", "a", If_None_Match=tag)).status_code == 304
    assert (await dav.ask("PUT", "a", b"three", If_Match=tag)).status_code == 204
    assert (await dav.ask("PUT", "a", b"four", If_Match=tag)).status_code == 412
    assert (await dav.ask("GET", "a")).content == b"three"


async def test_propfind(dav: Dav) -> None:
    """Depth 0 is the thing itself, Depth 1 with its members; folders end in a slash; asked for: told or
    404.
    """
    await dav.ask("MKCOL", "d/")
    await dav.ask("PUT", "d/a b", b"12345")
    assert await dav.names("d/", "0") == ["d/"]
    assert await dav.names("d/") == ["d/", "d/a%20b"]
    assert await dav.names("") == ["", "d/"]
    body = (
        b'<?xml version="1.0"?><propfind xmlns="DAV:"><prop><getcontentlength/><resourcetype/>'
        b'<x:unknown xmlns:x="urn:x"/></prop></propfind>'
    )
    answer = await dav.ask("PROPFIND", "d/a%20b", body, Depth="0")
    parsed = etree.fromstring(answer.content)
    assert parsed.findtext(".//D:getcontentlength", namespaces=NS) == "5"
    assert parsed.find(".//D:collection", NS) is None
    by_status = {
        (propstat.findtext("D:status", namespaces=NS) or "").split()[1]: propstat
        for propstat in parsed.iterfind(".//D:propstat", NS)
    }
    assert set(by_status) == {"200", "404"}
    assert by_status["404"].find(".//{urn:x}unknown") is not None


async def test_mkcol_and_delete(dav: Dav) -> None:
    """405 where something is, 415 with a body; DELETE takes all that is below."""
    assert (await dav.ask("MKCOL", "d/")).status_code == 201
    assert (await dav.ask("MKCOL", "d/")).status_code == 405
    assert (await dav.ask("MKCOL", "e/", b"body")).status_code == 415
    await dav.ask("PUT", "d/a", b"x")
    assert (await dav.ask("DELETE", "d/")).status_code == 204
    assert (await dav.ask("GET", "d/a")).status_code == 404


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
async def test_move_and_copy(dav: Dav, method: str) -> None:
    """201 to a free name, 204 over an existing one, 412 with Overwrite: F; MOVE takes the source away."""
    for name in "abc":
        await dav.ask("PUT", name, name.encode())
    assert await dav.to(method, "a", "new", Overwrite="F") == 201
    assert await dav.to(method, "b", "c", Overwrite="F") == 412
    assert await dav.to(method, "b", "c", Overwrite="T") == 204
    assert (await dav.ask("GET", "c")).content == b"b"
    assert (await dav.ask("GET", "b")).status_code == (404 if method == "MOVE" else 200)
    assert await dav.to(method, "c", "c", Overwrite="T") == 403


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
async def test_move_and_copy_of_a_folder(dav: Dav, method: str) -> None:
    """With all below it; over another folder with Overwrite: T that one is gone whole; into itself 403 or
    409.
    """
    for folder in ("a", "b"):
        await dav.ask("MKCOL", f"{folder}/")
        await dav.ask("PUT", f"{folder}/{folder}", b"x")
    assert await dav.to(method, "a/", "a/in/", Overwrite="T") in {403, 409}
    assert await dav.to(method, "a/", "b/", Overwrite="F") == 412
    assert await dav.to(method, "a/", "b/", Overwrite="T") == 204
    assert await dav.names("b/") == ["b/", "b/a"]


async def test_a_locked_file(dav: Dav) -> None:
    """LOCK keeps others out with 423; the token lets in; UNLOCK ends it."""
    await dav.ask("PUT", "a", b"x")
    locked = await dav.ask("LOCK", "a", LOCK_BODY, Depth="0", Timeout="Second-600")
    assert locked.status_code == 200
    token = locked.headers["lock-token"]
    assert token.strip("<>") in locked.text
    assert (await dav.ask("LOCK", "a", LOCK_BODY, Depth="0")).status_code == 423
    assert (await dav.ask("PUT", "a", b"y")).status_code == 423
    assert (await dav.ask("PUT", "a", b"z", If=f"({token})")).status_code == 204
    assert (await dav.ask("LOCK", "a", If=f"({token})", Timeout="Second-600")).status_code == 200
    assert (await dav.ask("UNLOCK", "a", Lock_Token=token)).status_code == 204
    assert (await dav.ask("PUT", "a", b"y")).status_code == 204


async def test_options(dav: Dav) -> None:
    """DAV: 1 and 2, and the methods."""
    answer = await dav.ask("OPTIONS")
    assert answer.status_code == 200
    assert {"1", "2"} <= {word.strip() for word in answer.headers["dav"].split(",")}


async def test_proppatch(dav: Dav) -> None:
    """A dead property is kept; one of DAV: is refused, and then the other is not kept either."""
    await dav.ask("PUT", "a", b"x")

    def body(extra: bytes = b"") -> bytes:
        return (
            b'<?xml version="1.0"?><propertyupdate xmlns="DAV:"><set><prop><c xmlns="urn:x">blue</c>'
            + extra
            + b"</prop></set></propertyupdate>"
        )

    asked = b'<?xml version="1.0"?><propfind xmlns="DAV:"><prop><c xmlns="urn:x"/></prop></propfind>'
    refused = await dav.ask("PROPPATCH", "a", body(b"<getetag>1</getetag>"))
    assert refused.status_code == 207
    assert "200 OK" not in refused.text
    assert "blue" not in (await dav.ask("PROPFIND", "a", asked, Depth="0")).text
    assert (await dav.ask("PROPPATCH", "a", body())).status_code == 207
    assert "blue" in (await dav.ask("PROPFIND", "a", asked, Depth="0")).text


# --- what only the fake has ---------------------------------------------------------------------------------


async def test_faults_before_and_after_the_effect() -> None:
    """A PUT lost before changes nothing; one lost after has taken effect; both look the same to the
    client.
    """
    server = FakeDav()
    async with httpx.AsyncClient(transport=server) as http:
        for lost, expected in (("before", {}), ("after", {"a": b"x"})):
            server.inject(Fault("PUT", lost=lost))  # type: ignore[arg-type]
            with pytest.raises(httpx.ReadError):
                await http.put("http://fake.test/a", content=b"x")
            assert server.tree() == expected


async def test_a_status_a_cut_and_the_log() -> None:
    """An injected status has no effect on the tree; a cut GET breaks midway; all is in the log."""
    server = FakeDav()
    server.inject(Fault("PUT", status=503, headers={"Retry-After": "1"}))
    server.inject(Fault("GET", cut_after_bytes=3))
    async with httpx.AsyncClient(transport=server) as http:
        refused = await http.put("http://fake.test/a", content=b"12345")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        server.put("a", b"12345")
        with pytest.raises(httpx.ReadError):
            await http.get("http://fake.test/a")
        assert (await http.get("http://fake.test/a")).content == b"12345"
    assert server.log == [
        Logged("PUT", "/a", None, 503, 5),
        Logged("GET", "/a", None, 200, 0),
        Logged("GET", "/a", None, 200, 0),
    ]


async def test_a_body_that_is_not_as_long_as_announced() -> None:
    """Too short a body is an error of the client, as with h11; a chunked PUT is 411."""
    server = FakeDav()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"12"

    async with httpx.AsyncClient(transport=server) as http:
        with pytest.raises(httpx.LocalProtocolError):
            await http.put("http://fake.test/a", content=pieces(), headers={"Content-Length": "5"})
        assert (await http.put("http://fake.test/a", content=pieces())).status_code == 411
    assert server.tree() == {}


async def test_password_and_quota() -> None:
    """401 without the password, 507 beyond the capacity, and the quota is told."""
    server = FakeDav(account=("me", "secret"), capacity_bytes=10)
    async with httpx.AsyncClient(transport=server) as http:
        assert (await http.put("http://fake.test/a", content=b"x")).status_code == 401
        http.auth = httpx.BasicAuth("me", "secret")
        assert (await http.put("http://fake.test/a", content=b"12345678")).status_code == 201
        assert (await http.put("http://fake.test/b", content=b"12345678")).status_code == 507
        told = await http.request("PROPFIND", "http://fake.test/", headers={"Depth": "0"})
        assert "<D:quota-available-bytes>2</D:quota-available-bytes>" in told.text


async def test_a_put_that_takes_effect_late() -> None:
    """A late PUT is applied when its time has come, by its conditions; a repeated one a second time."""
    clock = [0.0]
    server = FakeDav(now_s=lambda: clock[0])
    server.inject(Fault("PUT", lost="before", late_s=5))
    server.inject(Fault("PUT", late_s=5))
    async with httpx.AsyncClient(transport=server) as http:
        with pytest.raises(httpx.ReadError):
            await http.put("http://fake.test/a", content=b"late", headers={"If-None-Match": "*"})
        assert (await http.put("http://fake.test/b", content=b"twice")).status_code == 201
    server.put("b", b"between")
    assert (server.tree(), server.late_s) == ({"b": b"between"}, 5.0)
    clock[0] = 5.0
    assert server.tree() == {"a": b"late", "b": b"twice"}
    assert [(entry.path, entry.status) for entry in server.log[-2:]] == [("/a", 201), ("/b", 204)]


async def test_a_late_put_meets_what_came_meanwhile() -> None:
    """If-None-Match: * of a late PUT is checked when it takes effect."""
    clock = [0.0]
    server = FakeDav(now_s=lambda: clock[0])
    server.inject(Fault("PUT", lost="before", late_s=5))
    async with httpx.AsyncClient(transport=server) as http:
        with pytest.raises(httpx.ReadError):
            await http.put("http://fake.test/a", content=b"late", headers={"If-None-Match": "*"})
    server.put("a", b"newer")
    clock[0] = 5.0
    assert server.tree() == {"a": b"newer"}


async def test_conditions_may_mean_nothing() -> None:
    """As on nginx and rclone: a PUT with a wrong tag is stored."""
    server = FakeDav(conditions=False)
    async with httpx.AsyncClient(transport=server) as http:
        server.put("a", b"old")
        answer = await http.put("http://fake.test/a", content=b"new", headers={"If-Match": '"wrong"'})
    assert (answer.status_code, server.content("a")) == (204, b"new")


async def test_young_tags_are_weak() -> None:
    """As Apache's: weak for two seconds, no match for If-Match then, and the same text afterwards."""
    clock = [0.0]
    server = FakeDav(etags="young", now_s=lambda: clock[0])
    async with httpx.AsyncClient(transport=server) as http:
        server.put("a", b"old")
        young = (await http.get("http://fake.test/a")).headers["etag"]
        refused = await http.put("http://fake.test/a", content=b"new", headers={"If-Match": young})
        clock[0] = 3.0
        aged = (await http.get("http://fake.test/a")).headers["etag"]
        stored = await http.put("http://fake.test/a", content=b"new", headers={"If-Match": aged})
    assert (young, refused.status_code, stored.status_code) == (f"W/{aged}", 412, 204)


async def test_names_that_are_one_name() -> None:
    """A server that does not tell case apart keeps the name as first written; MOVE between the two is 403."""
    server = FakeDav(same_name=str.casefold)
    server.put("Name", b"one")
    async with httpx.AsyncClient(transport=server) as http:
        assert (await http.get("http://fake.test/NAME")).content == b"one"
        assert (await http.put("http://fake.test/name", content=b"two")).status_code == 204
        to = {"Destination": "http://fake.test/name", "Overwrite": "T"}
        assert (await http.request("MOVE", "http://fake.test/Name", headers=to)).status_code == 403
    assert server.tree() == {"Name": b"two"}


async def test_the_log_of_changes() -> None:
    """Each change with the client that made it, what it brought and what it overwrote."""
    server = FakeDav(now_s=lambda: 7.0)
    server.put("a", b"one")
    async with httpx.AsyncClient(transport=server, headers={"X-Client": "me"}) as http:
        await http.put("http://fake.test/b", content=b"two")
        await http.request("MOVE", "http://fake.test/b", headers={"Destination": "http://fake.test/a"})
        await http.delete("http://fake.test/a")
    assert server.changes == [
        Change(7.0, "", "PUT", "a", "", b"one"),
        Change(7.0, "me", "PUT", "b", "", b"two"),
        Change(7.0, "me", "MOVE", "b", "a", b"two", (b"one",)),
        Change(7.0, "me", "DELETE", "a", gone=(b"two",)),
    ]
