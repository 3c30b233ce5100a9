"""The test servers themselves: each starts, serves, logs, and can be slowed and cut by the relay."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.servers import Apache, Lighttpd, Nginx, Rclone, Relay, Server, Share, WsgiDav


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10) as client:
        yield client


def test_put_get_and_listing_are_served_and_logged(share: Share, http: httpx.Client) -> None:
    """PUT, GET and PROPFIND work on an empty share, and the log has exactly them, in order."""
    assert http.put(share.url + "a.txt", content=b"hello").status_code == 201
    assert (share.root / "a.txt").read_bytes() == b"hello"
    assert http.get(share.url + "a.txt", headers={"Range": "bytes=1-2"}).content == b"el"
    listing = http.request("PROPFIND", share.url, headers={"Depth": "1"})
    assert listing.status_code == 207
    assert "a.txt" in listing.text
    requests = share.log_requests()
    assert [str(request) for request in requests] == [
        "PUT a.txt 201",
        "GET a.txt 206",
        "PROPFIND  Depth 1 207",
    ]
    assert requests[0].bytes_in >= 5
    assert requests[1].byte_range == "bytes=1-2"


def test_names_in_the_log_are_as_on_the_wire(share: Share, http: httpx.Client) -> None:
    """The log keeps percent encoding, so that what was sent can be asserted."""
    assert http.put(share.url_of("a b é%.txt"), content=b"x").status_code == 201
    assert [request.path for request in share.log_requests()] == ["a%20b%20%C3%A9%25.txt"]
    assert (share.root / "a b é%.txt").exists()


def test_log_can_be_forgotten(share: Share, http: httpx.Client) -> None:
    """forget_requests starts a new count."""
    http.request("MKCOL", share.url + "d/")
    share.forget_requests()
    http.request("DELETE", share.url + "d/")
    assert [request.method for request in share.log_requests()] == ["DELETE"]


def test_server_may_change_what_a_test_put_on_its_disk(share: Share, http: httpx.Client) -> None:
    """Files written behind the server's back can be replaced and removed through it."""
    share.write("d/a.txt", b"old")
    assert http.put(share.url + "d/a.txt", content=b"new").status_code == 204
    assert http.put(share.url + "d/b.txt", content=b"new").status_code == 201
    assert http.delete(share.url + "d/").status_code == 204
    assert not (share.root / "d").exists()


def test_locks_work(locking_share: Share, http: httpx.Client) -> None:
    """LOCK is on everywhere: a PUT without the token is refused with 423."""
    share = locking_share
    http.put(share.url + "a.txt", content=b"x")
    body = (
        '<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
        "<D:locktype><D:write/></D:locktype></D:lockinfo>"
    )
    answer = http.request(
        "LOCK", share.url + "a.txt", content=body, headers={"Depth": "0", "Timeout": "Second-60"}
    )
    assert answer.status_code == 200
    assert http.put(share.url + "a.txt", content=b"y").status_code == 423
    token = {"Lock-Token": answer.headers["Lock-Token"]}
    assert http.request("UNLOCK", share.url + "a.txt", headers=token).status_code == 204


@pytest.mark.parametrize("kind", [Apache, Lighttpd, Nginx, Rclone, WsgiDav])
def test_password_is_asked_for(kind: type[Server], http: httpx.Client) -> None:
    """A server with a password refuses without and with a wrong one."""
    with kind(username="ann", password="secret") as server:
        assert http.request("PROPFIND", server.url, headers={"Depth": "0"}).status_code == 401
        wrong = http.request("PROPFIND", server.url, headers={"Depth": "0"}, auth=("ann", "wrong"))
        assert wrong.status_code == 401
        right = http.request("PROPFIND", server.url, headers={"Depth": "0"}, auth=("ann", "secret"))
        assert right.status_code == 207


def test_rclone_serves_logs_and_ignores_conditions(rclone_share: Share, http: httpx.Client) -> None:
    """rclone serve webdav: what is on its disk is listed at once, and a wrong If-Match overwrites."""
    rclone_share.write("a.txt", b"hello")
    listing = http.request("PROPFIND", rclone_share.url, headers={"Depth": "1"})
    assert "a.txt" in listing.text
    put = http.put(rclone_share.url + "a.txt", content=b"other", headers={"If-Match": '"no such"'})
    assert put.status_code == 201
    assert (rclone_share.root / "a.txt").read_bytes() == b"other"
    asked = [(request.method, request.path) for request in rclone_share.log_requests()]
    assert asked == [("PROPFIND", ""), ("PUT", "a.txt")]


@pytest.mark.parametrize("kind", [Apache, WsgiDav])
def test_digest_is_asked_for(kind: type[Apache | WsgiDav], http: httpx.Client) -> None:
    """A server with Digest accepts a digest answer and no Basic one."""
    with kind(username="ann", password="secret", auth="digest") as server:
        digest = httpx.DigestAuth("ann", "secret")
        assert http.put(server.url + "a", content=b"x", auth=digest).status_code == 201
        assert http.put(server.url + "a", content=b"x", auth=("ann", "secret")).status_code == 401


def test_server_comes_back_at_the_same_url(http: httpx.Client) -> None:
    """stop and start_again keep URL and files: how an outage is tested."""
    with WsgiDav() as server:
        http.put(server.url + "a", content=b"x")
        server.stop()
        with pytest.raises(httpx.TransportError):
            http.get(server.url + "a")
        server.start_again()
        assert http.get(server.url + "a").content == b"x"


def test_relay_adds_latency_and_counts(wsgidav_share: Share) -> None:
    """A request on an open connection takes one round trip more; bytes are counted both ways."""
    with Relay(wsgidav_share.url, latency_s=0.1) as relay, httpx.Client(timeout=10) as http:
        assert http.put(relay.url + "a", content=b"x" * 100_000).status_code == 201
        took_s = []
        for _ in range(20):  # on a loaded machine most of them take longer, not all
            before = time.perf_counter()
            assert len(http.get(relay.url + "a").content) == 100_000
            took_s.append(time.perf_counter() - before)
            if took_s[-1] < 0.2:
                break
        assert 0.1 <= min(took_s) < 0.2
        assert relay.bytes_up >= 100_000
        assert relay.bytes_down >= 100_000
        assert relay.connections == 1


def test_relay_cuts_an_answer(apache_share: Share) -> None:
    """cut_after breaks the connection after so many bytes; the next request is whole again."""
    apache_share.write("big", b"x" * 1_000_000)
    with Relay(apache_share.url) as relay, httpx.Client(timeout=10) as http:
        relay.cut_after(down=50_000)
        with pytest.raises(httpx.TransportError):
            http.get(relay.url + "big")
        assert len(http.get(relay.url + "big").content) == 1_000_000


def test_relay_stalls_drops_and_refuses(nginx_share: Share) -> None:
    """stall holds every byte back, drop and refuse break connections, and each ends."""
    nginx_share.write("a", b"x")
    with Relay(nginx_share.url) as relay, httpx.Client(timeout=10) as http:
        assert http.get(relay.url + "a").content == b"x"
        relay.stall()
        with pytest.raises(httpx.TimeoutException):
            http.get(relay.url + "a", timeout=0.5)
        relay.resume()
        assert http.get(relay.url + "a").content == b"x"
        relay.drop()
        relay.refuse()
        with pytest.raises(httpx.TransportError):
            http.get(relay.url + "a")
        relay.accept()
        assert http.get(relay.url + "a").content == b"x"


class _LogsLate(Server):
    """Works for half a second between its answer and its log, as any server may on a loaded machine."""

    name = "late"

    def _command(self) -> list[str]:
        program = f"""
import socket, time
listener = socket.create_server(("127.0.0.1", {self.port}))
while True:
    one = listener.accept()[0]
    if not one.recv(65536):  # who looks whether somebody listens
        continue
    one.sendall(b"HTTP/1.1 204 X\\r\\nConnection: close\\r\\n\\r\\n")
    one.close()
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
    with open({str(self.access_log)!r}, "a") as log:
        log.write("GET /a HTTP/1.1\\t-\\t204\\t0\\t0\\t-\\n")
"""
        return [sys.executable, "-c", program]


def test_the_log_is_waited_for() -> None:
    """Whoever has the answer finds the request in the log, however much later the server writes it."""
    with _LogsLate() as server:
        assert httpx.get(server.url + "a", trust_env=False).status_code == 204
        assert [str(request) for request in server.log_requests()] == ["GET /a 204"]


def test_the_record_of_a_relay_is_waited_for() -> None:
    """An answer that overtakes the body: the body is counted all the same, as it was sent before."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answers_at_once() -> None:
            one, _ = listener.accept()
            with one:
                one.recv(65536)
                one.sendall(b"HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n")
                while one.recv(65536):
                    pass

        serving = threading.Thread(target=answers_at_once)
        serving.start()
        to = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with Relay(to, latency_s=0.4) as relay, socket.create_connection(("127.0.0.1", relay.port)) as wire:
            wire.sendall(b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n")
            time.sleep(0.9)  # a round trip for the connection, and the answer is on its way
            wire.sendall(bytes(1000))
            assert wire.recv(65536).startswith(b"HTTP/1.1 403")
            (one,) = relay.exchanges
            assert (one.status, one.body_bytes, relay.wasted_bytes) == (403, 1000, 1000)
        serving.join()
