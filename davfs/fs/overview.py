"""What is told of the inside of a share: transfers, hit rates, what the wire did, what the server is.

Reads the parts of a share and changes none of them; asks the server nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import trio

from davfs.errors import DavfsError
from davfs.fs.body import OnItsWay
from davfs.fs.content import Content, path_from_bytes
from davfs.fs.download import Downloads, Transfer
from davfs.fs.files import Files
from davfs.fs.transfers import Moving, in_order
from davfs.fs.tree import Tree
from davfs.fs.upload import Uploads


class Overview:
    def __init__(
        self, tree: Tree, files: Files, downloads: Downloads, uploads: Uploads, *, partial_put: bool
    ) -> None:
        self._tree = tree
        self._partial_put = partial_put  # whether it is wanted
        self._files = files
        self._downloads = downloads
        self._uploads = uploads

    def transfers(self) -> list[dict[str, object]]:
        """One row for each file whose bytes are on their way."""
        return in_order(self._moving(trio.current_time()))

    def _moving(self, now_s: float) -> Iterator[Moving]:
        for running, begun_s, arrived in self._downloads.running():
            yield self._down(running, arrived, now_s - begun_s)
        for one in self._uploads.delivery.on_their_way():
            yield self._up(one, now_s)

    def _down(self, running: list[Transfer], arrived: int, for_s: float) -> Moving:
        """Several windows of one file are one row."""
        content = running[0].content
        return Moving(
            self._path_of(content),
            "down",
            content.size_bytes,
            done_bytes=content.present.total_bytes,
            left_bytes=sum(max(0, one.end - one.at) for one in running),
            moved_bytes=arrived,
            for_s=for_s,
        )

    def _path_of(self, content: Content) -> str:
        """Where it is now; of what was removed or replaced meanwhile, where it was."""
        node = self._tree.nodes.find(content.ino)
        with suppress(DavfsError):
            if node is not None and node.content is content:
                return str(node.path)
        return str(path_from_bytes(content.path))

    def _up(self, one: OnItsWay, now_s: float) -> Moving:
        size, sent = one.body.size_bytes, one.body.sent_bytes
        return Moving(self._path_of(one.content), "up", size, sent, size - sent, sent, now_s - one.begun_s)

    def hits(self) -> dict[str, object]:
        """How often no request was needed: for names and attributes, to open a file, to read of it."""
        return {
            "names": self._tree.meta.hits.told(),
            "opens": self._files.opens.told(),
            "reads": self._files.reads.told(),
        }

    def wire(self) -> dict[str, object]:
        client = self._tree.client
        server, traffic = client.capabilities, client.traffic
        return {
            "requests": dict(client.request_counts),
            "sent_bytes": traffic.up_bytes,
            "received_bytes": traffic.down_bytes,
            "server": server.server,
            "server_profile": {
                "name": server.profile,
                "conditions": server.conditions,
                "locks": server.locks_usable,
                "stores_whole": server.whole_up_to_bytes > 0,
                "etag_after_put": server.put_etag,
                "etag_in_listings": server.etags_in_propfind,
                "takes_mtime": server.takes_mtime,
                "partial_put": server.partial_put if self._partial_put else "never",
                "put_sets_mtime": server.put_sets_mtime,
                "time_way": server.time_way,
            },
        }
