"""Real WebDAV servers for the tests, each a private instance on loopback.

    with Apache() as server:              # or Lighttpd(), Nginx(), Rclone() ...
        httpx.put(server.url + "a.txt", content=b"x")
        assert [str(r) for r in server.log_requests()] == ["PUT /a.txt 201"]

Each instance lives in its own temporary folder (configuration, logs, lock database and the served
`root`), listens on a port of its own, runs in the foreground as a child of the tests and is ended by
its process id.
Nothing here reads or changes the configuration of a server that is installed on the machine.

A program that is not installed raises `MissingPart`; tests/conftest.py turns it into a loud skip.
`Relay` sits in front of any of them: latency, stalls, cuts, and which bytes met which answer (`Exchange`).
`Certificates` is an authority for those that speak TLS.
"""

from tests.servers.apache import Apache
from tests.servers.asgiwebdav import AsgiWebDav
from tests.servers.base import LoggedRequest, MissingPart, Server, Share
from tests.servers.certificates import Certificates
from tests.servers.copyparty import Copyparty
from tests.servers.iis import Iis, SharePoint
from tests.servers.lighttpd import Lighttpd
from tests.servers.meter import Exchange
from tests.servers.nginx import Nginx
from tests.servers.rclone import Rclone
from tests.servers.relay import Relay
from tests.servers.sabre import SabreDav
from tests.servers.wsgidav_server import WsgiDav

__all__ = [
    "Apache",
    "AsgiWebDav",
    "Certificates",
    "Copyparty",
    "Exchange",
    "Iis",
    "Lighttpd",
    "LoggedRequest",
    "MissingPart",
    "Nginx",
    "Rclone",
    "Relay",
    "SabreDav",
    "Server",
    "Share",
    "SharePoint",
    "WsgiDav",
]
