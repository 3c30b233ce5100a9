"""The client against scripted answers: what it sends, and what it makes of odd replies."""

from __future__ import annotations

import errno
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
import trio
from trio.testing import MockClock

from davfs import errors
from davfs.dav.client import Client, NotWebDav
from davfs.dav.resource import ROOT, DavPath, ETag, Validator
from davfs.dav.wire import Octets
from tests.unit.dav.script import BASE, FOLDER, Pieces, Script, failure, multistatus, response

FILE = ROOT.child("f")


async def _read(
    client: Client, *, start: int = 0, end: int | None = None, of: Validator | None = None
) -> bytes:
    async with client.get(FILE, start=start, end=end, expected=of) as download:
        return b"".join([piece async for piece in download])


# --- what goes out ---------------------------------------------------------------------------------


async def test_propfind_is_explicit() -> None:
    """Depth, gzip, a length and the needed properties; a folder's URL ends with '/'."""
    script = Script(multistatus(response("/dav/d/", FOLDER), response("/dav/d/a"), zipped=True))
    listing = await script.client().list(ROOT.child("d"))
    assert list(listing.members) == ["a"]
    (request,) = script.requests
    assert (request.method, str(request.url)) == ("PROPFIND", "https://server.example/dav/d/")
    assert request.headers["depth"] == "1"
    assert request.headers["accept-encoding"] == "gzip"
    assert request.headers["content-length"] == str(len(script.bodies[0]))
    assert "transfer-encoding" not in request.headers


async def test_put_announces_its_length() -> None:
    """Never chunked, an empty file included; conditions, time and identity are in the headers."""
    script = Script(httpx.Response(201, headers={"ETag": '"e1"', "X-OC-MTime": "accepted"}))
    client = script.client()
    result = await client.put(FILE, Octets(b""), if_none_match=True, mtime_s=700_000)
    again = await client.put(FILE, Octets(b"x" * 300_000), if_match=ETag("e0"))
    first, second = (request.headers for request in script.requests)
    assert (first["content-length"], first["if-none-match"], first["x-oc-mtime"]) == ("0", "*", "700000")
    assert (second["content-length"], second["if-match"]) == ("300000", '"e0"')
    assert "transfer-encoding" not in second
    assert second["accept-encoding"] == "identity"
    assert len(script.bodies[1]) == 300_000
    assert result.created
    assert again.etag == ETag("e1")
    assert (client.capabilities.put_etag, client.capabilities.takes_mtime) == (True, True)
    assert client.traffic.up_bytes == 300_000


async def test_nginx_takes_the_time_of_a_file_from_date() -> None:
    """And others X-OC-Mtime: no header of the one goes to the other."""
    for server, name, other in (("nginx/1.22.1", "date", "x-oc-mtime"), ("Apache", "x-oc-mtime", "date")):
        options = httpx.Response(200, headers={"DAV": "2", "Server": server})
        script = Script(multistatus(response("/dav/", FOLDER)), options, httpx.Response(201))
        client = script.client()
        await client.connect()
        await client.put(FILE, Octets(b"x"), mtime_s=700_000_000)
        assert name in script.requests[-1].headers
        assert other not in script.requests[-1].headers


@pytest.mark.parametrize(("dav", "etag"), [("1, 2", None), ("1, 3, extended-mkcol", ETag("e1"))])
async def test_a_tag_of_before_the_time_was_set(dav: str, etag: ETag | None) -> None:
    """rclone makes the tag of its answer before it applies X-OC-Mtime; sabre/dav's is the stored file's."""
    options = httpx.Response(200, headers={"DAV": dav})
    stored = httpx.Response(201, headers={"ETag": '"e1"'})
    client = Script(multistatus(response("/dav/", FOLDER)), options, stored).client()
    await client.connect()
    with_time = await client.put(FILE, Octets(b"x"), mtime_s=7)
    without = await client.put(FILE, Octets(b"x"))
    assert (with_time.etag, without.etag) == (etag, ETag("e1"))


@pytest.mark.parametrize("status", [400, 403, 409])
async def test_a_move_that_is_refused_because_the_name_is_taken(status: int) -> None:
    """copyparty says 400 to Overwrite: F of a taken name; if it is free, the refusal is what it is."""
    there = multistatus(response("/dav/b"))
    client = Script(httpx.Response(status), there).client()
    with pytest.raises(errors.PreconditionFailed):
        await client.move(FILE, ROOT.child("b"), is_collection=False, overwrite=False)
    client = Script(httpx.Response(status), httpx.Response(404)).client()
    with pytest.raises(errors.ServerRefused) as caught:
        await client.move(FILE, ROOT.child("b"), is_collection=False, overwrite=False)
    assert caught.value.status == status


@pytest.mark.parametrize(("overwrite", "header"), [(True, "T"), (False, "F")])
async def test_move_of_a_folder(overwrite: bool, header: str) -> None:
    """Both URLs end with '/', Destination is the user's URL, Overwrite is explicit."""
    script = Script(httpx.Response(201))
    await script.client().move(ROOT.child("a"), ROOT.child("b c"), is_collection=True, overwrite=overwrite)
    (request,) = script.requests
    assert str(request.url) == "https://server.example/dav/a/"
    assert request.headers["destination"] == "https://server.example/dav/b%20c/"
    assert request.headers["overwrite"] == header


async def test_moves_that_destroy_are_not_sent() -> None:
    """Onto itself is nothing to do, into itself is EINVAL; no request goes out."""
    script = Script(httpx.Response(201))
    client = script.client()
    await client.move(FILE, FILE, is_collection=False, overwrite=True)
    with pytest.raises(errors.PosixError, match="into itself"):
        await client.move(FILE, FILE.child("g"), is_collection=True, overwrite=True)
    assert script.requests == []


async def test_credentials_of_the_url_are_dropped() -> None:
    """What stood before '@' in the address is in no URL and no message."""
    script = Script(httpx.ConnectError("failed"))
    client = script.client(base="https://me:s3cret@server.example/dav")
    with pytest.raises(errors.Unreachable) as caught:
        await client.connect()
    assert "s3cret" not in str(caught.value) + client.url(ROOT) + str(script.requests[0].url)


async def test_a_weak_tag_stands_in_if() -> None:
    """It never matches in If-Match: it goes out in an If header, about the file's own URL."""
    script = Script(httpx.Response(204))
    await script.client().put(FILE, Octets(b""), if_match=ETag("e", weak=True))
    (request,) = script.requests
    assert "if-match" not in request.headers
    assert request.headers["if"] == f'<{request.url}> ([W/"e"])'


# --- GET -------------------------------------------------------------------------------------------

_VERSION = Validator(ETag("e"), None, 10)


def _part(text: str, body: bytes, **headers: str) -> httpx.Response:
    return httpx.Response(206, headers={"Content-Range": text, **headers}, stream=Pieces(body))


async def test_a_range_is_pinned() -> None:
    """Range clamped to the size, If-Match with the strong tag, identity; the Download says what comes."""
    script = Script(_part("bytes 4-9/10", b"456789", ETag='W/"e"'))
    async with script.client().get(FILE, start=4, end=99, expected=_VERSION) as download:
        assert (download.start, download.end, download.total_bytes, download.ranged) == (4, 10, 10, True)
        assert [piece async for piece in download] == [b"456789"]
    headers = script.requests[0].headers
    assert (headers["range"], headers["if-match"], headers["accept-encoding"]) == (
        "bytes=4-9",
        '"e"',
        "identity",
    )


async def test_no_if_match_with_a_weak_tag() -> None:
    """Apache and Tomcat answer 412 to it though nothing changed."""
    script = Script(_part("bytes 4-9/10", b"456789"))
    await _read(script.client(), start=4, of=Validator(ETag("e", weak=True), None, 10))
    assert "if-match" not in script.requests[0].headers


async def test_a_server_without_ranges() -> None:
    """200 to a range request is the whole file from 0, and said so."""
    script = Script(httpx.Response(200, content=b"0123456789"))
    async with script.client().get(FILE, start=4, end=6, expected=_VERSION) as download:
        assert (download.start, download.end, download.ranged) == (0, 10, False)


async def test_an_empty_file_without_a_length() -> None:
    """sabre sends no Content-Length for an empty file."""
    assert await _read(Script(httpx.Response(200, stream=Pieces())).client()) == b""
    assert await _read(Script(httpx.Response(200, stream=Pieces())).client(), of=Validator(None, 1, 0)) == b""


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(412), errors.StaleVersion),
        (httpx.Response(416), errors.StaleVersion),
        (_part("bytes 4-5/10", b"45", ETag='"other"'), errors.StaleVersion),
        (_part("bytes 4-5/11", b"45"), errors.StaleVersion),
        (httpx.Response(200, content=b"0123456789", headers={"ETag": '"other"'}), errors.StaleVersion),
        (httpx.Response(200, content=b"0123"), errors.StaleVersion),
        (_part("bytes 3-5/10", b"345"), errors.ProtocolError),
        (_part("bytes 4-6/10", b"456"), errors.ProtocolError),
        (_part("bytes 4-5/5", b"45"), errors.ProtocolError),
        (_part("", b"45"), errors.ProtocolError),
        (_part("bytes 4-5/10", b"45", **{"Content-Length": "7"}), errors.ProtocolError),
        (_part("bytes 5-4/10", b""), errors.ProtocolError),
        (_part("bytes 4-3/10", b""), errors.ProtocolError),
        (httpx.Response(404), errors.NotFound),
        (httpx.Response(403), errors.Forbidden),
        (httpx.Response(304), errors.ServerRefused),
        (
            httpx.Response(200, stream=Pieces(b"x"), headers={"Content-Encoding": "gzip"}),
            errors.ProtocolError,
        ),
    ],
)
async def test_answers_refused_before_a_byte(answer: httpx.Response, error: type[Exception]) -> None:
    """Another version is StaleVersion, another range ProtocolError; nothing is delivered."""
    with pytest.raises(error):
        async with Script(answer).client().get(FILE, start=4, end=6, expected=_VERSION):
            pytest.fail("opened")


async def test_a_part_that_nobody_asked_for() -> None:
    """206 to a GET of all of it."""
    with pytest.raises(errors.ProtocolError):
        await _read(Script(_part("bytes 0-9/10", b"0123456789")).client(), of=_VERSION)


async def test_a_range_that_never_was() -> None:
    """416 where no known size promises the range is the server's fault, or ours, but not a new version."""
    with pytest.raises(errors.ProtocolError):
        await _read(Script(httpx.Response(416)).client(), start=4)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (_part("bytes 4-7/10", b"45"), errors.Disconnected),
        (_part("bytes 4-7/10", b"45678"), errors.ProtocolError),
        (httpx.Response(200, stream=Pieces(b"0123")), errors.Disconnected),
        (httpx.Response(200, stream=Pieces(b"0123456789a")), errors.StaleVersion),
        (httpx.Response(200, stream=Pieces(b"0", httpx.ReadError("x"))), errors.Disconnected),
        (httpx.Response(200, stream=Pieces(b"0", httpx.ReadTimeout("x"))), errors.TimedOut),
    ],
)
async def test_bodies_that_break(answer: httpx.Response, error: type[Exception]) -> None:
    """A short, long or broken body ends with an error, never as if it were whole."""
    with pytest.raises(error):
        await _read(Script(answer).client(), start=4, end=8, of=_VERSION)


async def test_leaving_early_hangs_up() -> None:
    """The body is closed although it was not read to its end."""
    body = Pieces(b"0123", b"4567", b"89")
    async with Script(httpx.Response(200, stream=body)).client().get(FILE) as download:
        async for _ in download:
            break
    assert body.closed


# --- redirects -------------------------------------------------------------------------------------


def _to(place: str, status: int = 301) -> httpx.Response:
    return httpx.Response(status, headers={"Location": place})


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_the_missing_slash_is_followed(status: int) -> None:
    """Apache's 301 from 'a' to 'a/' keeps the method and the body."""
    script = Script(_to("/dav/a/", status), multistatus(response("/dav/a/", FOLDER)))
    assert (await script.client().stat(ROOT.child("a"))).is_collection
    assert script.methods == ["PROPFIND", "PROPFIND"]
    assert script.bodies[0] == script.bodies[1]


@pytest.mark.parametrize("verb", ["delete", "put", "get"])
async def test_a_file_that_became_a_folder(verb: str) -> None:
    """A redirect to the slash must not delete a tree or read an index page: EISDIR."""
    script = Script(_to("https://server.example/dav/f/"))
    client = script.client()
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "delete": lambda: client.delete(FILE, is_collection=False),
        "put": lambda: client.put(FILE, Octets(b"x")),
        "get": lambda: _read(client),
    }
    with pytest.raises(errors.PosixError, match="folder"):
        await calls[verb]()
    assert len(script.requests) == 1


async def test_object_storage_gets_no_secret() -> None:
    """A GET sent elsewhere keeps its Range and loses Authorization, Cookie and If-Match."""
    script = Script(
        _to("https://u:p@store.example/blob?sig=1", 302), _part("bytes 4-5/10", b"45", ETag='"theirs"')
    )
    client = script.client()
    assert await _read(client, start=4, end=6, of=_VERSION) == b"45"
    abroad = script.requests[1]
    assert str(abroad.url) == "https://store.example/blob?sig=1"
    assert abroad.headers["range"] == "bytes=4-5"
    assert not {"authorization", "cookie", "if-match"} & set(abroad.headers)


@pytest.mark.parametrize("place", ["http://store.example/x", "file:///etc/passwd", "/login", "http://[", ""])
async def test_redirects_that_are_not_followed(place: str) -> None:
    """From TLS to plain text, to another scheme, out of the share, or to nowhere."""
    script = Script(_to(place, 302))
    with pytest.raises(errors.ProtocolError):
        await _read(script.client())
    assert len(script.requests) <= 4


async def test_changes_stay_on_the_server() -> None:
    """Another host never gets a PUT; the error names the address to use."""
    script = Script(_to("https://new.example/dav/f", 308))
    with pytest.raises(NotWebDav, match=r"new\.example"):
        await script.client().put(FILE, Octets(b"x"))
    assert len(script.requests) == 1


async def test_redirects_in_circles_end() -> None:
    """Three are followed, then it is the server's fault."""
    script = Script(_to("/dav/f", 302))
    with pytest.raises(errors.ProtocolError, match="redirects"):
        await script.client().stat(FILE)
    assert len(script.requests) == 4


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"), [(404, errors.ParentMissing), (409, errors.ParentMissing), (507, errors.NoSpace)]
)
async def test_put_without_a_parent(status: int, error: type[Exception]) -> None:
    """404 and 409 both mean the folder (servers.md 27)."""
    with pytest.raises(error):
        await Script(httpx.Response(status)).client().put(FILE, Octets(b"x"))


async def test_207_is_not_success() -> None:
    """Every changing verb reads the 207 and raises the cause, not the 424 that follows from it."""
    script = Script(lambda _: multistatus(failure("/dav/f", 424), failure("/dav/f/x", 423)))
    client = script.client()
    for call in (
        client.put(FILE, Octets(b"x")),
        client.mkcol(FILE),
        client.delete(FILE, is_collection=True),
        client.move(FILE, ROOT.child("g"), is_collection=False, overwrite=True),
        client.copy(FILE, ROOT.child("g"), is_collection=False, overwrite=True),
    ):
        with pytest.raises(errors.Locked):
            await call


async def test_a_file_stored_in_part() -> None:
    """201 for two bytes of three, as the tag tells on a server whose tags end in the size: no success."""
    props = "<D:resourcetype/><D:getcontentlength>3</D:getcontentlength><D:getetag>7-1-3</D:getetag>"
    script = Script(
        multistatus(response("/dav/f", props)),
        httpx.Response(201, headers={"ETag": '"7-2-2"'}),
        httpx.Response(201, headers={"ETag": '"7-2-3"'}),
    )
    client = script.client()
    await client.stat(FILE)
    with pytest.raises(errors.Garbled):
        await client.put(FILE, Octets(b"abc"))
    await client.put(FILE, Octets(b"abc"))


async def test_a_file_stored_under_another_name() -> None:
    """copyparty answers an overwrite with 201 and a Location of its own invention."""
    answer = httpx.Response(201, headers={"Location": "https://server.example/dav/f-1795.txt"})
    with pytest.raises(errors.ProtocolError, match="instead"):
        await Script(answer).client().put(FILE, Octets(b"x"))


async def test_a_file_stored_without_its_blank() -> None:
    """copyparty strips blanks from the ends of names, as its Location says: such names are refused then."""
    answer = httpx.Response(201, headers={"Location": "https://server.example/dav/a"})
    client = Script(answer).client()
    with pytest.raises(errors.NotThatName):
        await client.put(ROOT.child("a "), Octets(b"x"))
    with pytest.raises(errors.UnstorableName):
        client.check_name(ROOT.child("b "), is_folder=False)


async def test_a_copy_of_a_young_version() -> None:
    """A weak tag of the source stands in If: Apache compares it weakly there, and in If-Match never."""
    script = Script(httpx.Response(201))
    tag = ETag("e", weak=True)
    await script.client().copy(FILE, ROOT.child("g"), is_collection=False, overwrite=False, if_match=tag)
    (request,) = script.requests
    assert "if-match" not in request.headers
    assert request.headers["if"] == f'<{request.url}> ([W/"e"])'


async def test_mkcol_of_what_exists() -> None:
    """405 is AlreadyExists, 409 ParentMissing."""
    with pytest.raises(errors.AlreadyExists):
        await Script(httpx.Response(405)).client().mkcol(FILE)
    with pytest.raises(errors.ParentMissing):
        await Script(httpx.Response(409)).client().mkcol(FILE)


async def test_a_207_that_says_404() -> None:
    """A Depth 0 answer whose one response is 404 is NotFound."""
    with pytest.raises(errors.NotFound):
        await Script(multistatus(failure("/dav/f", 404))).client().stat(FILE)


async def test_a_name_that_the_server_cannot_write() -> None:
    """libphodav answers with an empty href where a name holds '%': the one that was asked for."""
    size = "<D:resourcetype/><D:getcontentlength>3</D:getcontentlength>"
    found = await Script(multistatus(response("", size))).client().stat(ROOT.child("50%"))
    assert found.size_bytes == 3
    with pytest.raises(errors.ProtocolError):
        await Script(multistatus(response("/dav/other", size))).client().stat(ROOT.child("50%"))


async def test_a_folder_with_a_page_in_it() -> None:
    """Apache's 405 to PROPFIND of a folder with an index.html is EACCES, and says what to change there."""
    with pytest.raises(errors.NotDescribed, match="DirectoryIndex disabled") as caught:
        await Script(httpx.Response(405)).client().list(FILE)
    assert caught.value.errno == errno.EACCES


async def test_content_that_changes_while_it_is_sent() -> None:
    """A body longer or shorter than announced cuts the request."""

    class Lying(Octets):
        @property
        def size_bytes(self) -> int:
            return 5

    for data in (b"1234", b"123456"):
        with pytest.raises(errors.StaleVersion):
            await Script(httpx.Response(201)).client().put(FILE, Lying(data))


# --- connect ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (httpx.Response(200, html="<html>hello</html>"), NotWebDav, "WebDAV"),
        (httpx.Response(405), NotWebDav, "remote.php"),
        (httpx.Response(501), NotWebDav, "501"),
        (httpx.Response(207, stream=Pieces(b"<!DOCTYPE html><p>")), errors.ProtocolError, "multistatus"),
        (httpx.Response(401), errors.Unauthorized, "401"),
        (httpx.Response(404), errors.NotFound, "no such folder"),
        (httpx.Response(503), errors.Busy, "503"),
        (httpx.ConnectError("x"), errors.Unreachable, "no connection"),
        (httpx.ConnectTimeout("x"), errors.Unreachable, "in time"),
        (httpx.ReadTimeout("x"), errors.TimedOut, "waited"),
        (httpx.RemoteProtocolError("illegal status line"), errors.ProtocolError, "not HTTP"),
        (httpx.ReadError("the server closed the connection"), errors.Disconnected, "broke"),
        (multistatus(response("/dav", "<D:resourcetype/>")), errors.PosixError, "not a folder"),
        (multistatus(response("/inner/", FOLDER)), errors.ProtocolError, "/inner/"),
    ],
)
async def test_mounting_the_wrong_thing(
    answer: httpx.Response | Exception, error: type[Exception], text: str
) -> None:
    """Each mistake has its own error and words, and costs one request."""
    script = Script(answer)
    with pytest.raises(error, match=text):
        await script.client().connect()
    assert len(script.requests) == 1


async def test_an_unknown_certificate() -> None:
    """The text says 'certificate' and why."""
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    cause.verify_message = "self-signed certificate"
    error = httpx.ConnectError("x")
    error.__cause__ = cause
    with pytest.raises(errors.Unreachable, match="certificate is not trusted: self-signed"):
        await Script(error).client().connect()


async def test_options_may_be_filtered() -> None:
    """PROPFIND is enough to mount; OPTIONS adds what the server can do."""
    root = multistatus(response("/dav/", FOLDER))
    client = Script(root, httpx.Response(403)).client()
    assert (await client.connect()).is_collection
    assert not client.capabilities.locks
    client = Script(
        multistatus(response("/dav/", FOLDER)), httpx.Response(200, headers={"DAV": "1,2"})
    ).client()
    await client.connect()
    assert client.capabilities.locks
    assert client.request_counts == {"PROPFIND": 1, "OPTIONS": 1}


# --- time ------------------------------------------------------------------------------------------


def _ok(_: httpx.Request) -> httpx.Response:
    return multistatus(response("/dav/f"))


async def test_harmless_requests_are_repeated(autojump_clock: MockClock) -> None:
    """A dead keep-alive connection and a 503 with Retry-After cost a wait, no error."""
    busy = httpx.Response(503, headers={"Retry-After": "3"})
    script = Script(httpx.ReadError("x"), busy, _ok)
    begin = trio.current_time()
    await script.client().stat(FILE)
    assert len(script.requests) == 3
    assert 3 <= trio.current_time() - begin < 4


@pytest.mark.parametrize("verb", ["put", "mkcol", "delete", "move"])
async def test_changes_are_never_repeated(verb: str, autojump_clock: MockClock) -> None:
    """When the connection breaks nobody knows what happened: Disconnected, after one request."""
    script = Script(httpx.ReadError("the server closed the connection without an answer"))
    client = script.client()
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "put": lambda: client.put(FILE, Octets(b"x")),
        "mkcol": lambda: client.mkcol(FILE),
        "delete": lambda: client.delete(FILE, is_collection=False),
        "move": lambda: client.move(FILE, ROOT.child("g"), is_collection=False, overwrite=True),
    }
    with pytest.raises(errors.Disconnected):
        await calls[verb]()
    assert len(script.requests) == 1


async def test_metadata_ends_in_time(autojump_clock: MockClock) -> None:
    """A server that drips its answer for ever is TimedOut after `timeout_s` in all."""

    def drip(_: httpx.Request) -> httpx.Response:
        return httpx.Response(207, stream=Pieces(*(part for _ in range(1000) for part in (1.0, b" "))))

    begin = trio.current_time()
    with pytest.raises(errors.TimedOut):
        await Script(drip).client(timeout_s=5).stat(FILE)
    assert trio.current_time() - begin == pytest.approx(5)


async def test_a_long_listing_may_take_long(autojump_clock: MockClock) -> None:
    """A listing that keeps coming is not cut at `timeout_s`."""
    parts = [b'<D:multistatus xmlns:D="DAV:">', response("/dav/", FOLDER).encode()]
    parts += [response(f"/dav/{n}").encode() for n in range(20)]
    body = [one for part in [*parts, b"</D:multistatus>"] for one in (1.0, part)]
    listing = await Script(httpx.Response(207, stream=Pieces(*body))).client(timeout_s=5).list(ROOT)
    assert len(listing.members) == 20


class _Silent(httpx.AsyncBaseTransport):
    """Breaks after `seconds` the first time, and then is silent for ever."""

    def __init__(self, seconds: float) -> None:
        self._pauses = [seconds]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert request.method == "PROPFIND"
        if self._pauses:
            await trio.sleep(self._pauses.pop())
            raise httpx.ReadError("broke")
        await trio.sleep_forever()
        raise AssertionError("never")


async def test_a_listing_begins_in_time(autojump_clock: MockClock) -> None:
    """Tried again on another connection, it has what is left of `timeout_s`, not all of it again."""
    begin = trio.current_time()
    with pytest.raises(errors.TimedOut):
        await Client(_Silent(4), BASE, timeout_s=5).list(ROOT)
    assert trio.current_time() - begin == pytest.approx(5)


async def test_the_wait_after_a_large_body_grows() -> None:
    """Servers hash before they answer a PUT: half a second more for each MiB."""

    class Large:
        size_bytes = 0

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"x" * self.size_bytes

    body = Large()
    body.size_bytes = 4 * 1024 * 1024
    script = Script(httpx.Response(201))
    await script.client(timeout_s=30).put(FILE, body)
    assert script.requests[0].extensions["timeout"]["read"] == 32.0


async def test_a_cancelled_request_is_cancelled(autojump_clock: MockClock) -> None:
    """Cancellation passes through as itself, and closes the answer."""
    body = Pieces(b"0", 1000.0, b"1")
    with trio.move_on_after(1) as scope:
        await _read(Script(httpx.Response(200, stream=body)).client())
    assert scope.cancelled_caught
    assert body.closed


async def test_gzip_bombs_stay_small() -> None:
    """A megabyte of blanks from a kilobyte of gzip is parsed piece by piece, and refused."""
    bomb = gzip.compress(b'<D:multistatus xmlns:D="DAV:">' + b" " * 3_000_000)
    answer = httpx.Response(207, stream=Pieces(bomb), headers={"Content-Encoding": "gzip"})
    with pytest.raises(errors.ProtocolError):
        await Script(answer).client().list(ROOT)


async def test_an_encoding_nobody_asked_for() -> None:
    """Brotli where gzip was asked for is the server's fault."""
    answer = httpx.Response(207, stream=Pieces(b"x"), headers={"Content-Encoding": "br"})
    with pytest.raises(errors.ProtocolError, match="encoding"):
        await Script(answer).client().list(ROOT)


async def test_a_name_too_long_for_a_url() -> None:
    """httpx refuses URLs over 64 KiB: ENAMETOOLONG, before anything is sent."""
    path = DavPath(tuple("é" * 120 for _ in range(100)))
    with pytest.raises(errors.UriTooLong):
        await Script(httpx.Response(207)).client().stat(path)
