"""What this server can do, by evidence: the only module that knows servers by name.

`Capabilities` is frozen; every piece of evidence gives a new value. It starts from the OPTIONS answer
and learns from ordinary answers (does a PUT answer carry an ETag, has PROPFIND ETags). It never guesses
in the dangerous direction: what is unknown is None or 'unknown', and a rename that some server in the
field would send to the wrong name counts as unsafe until the server is one known to get it right.

The evidence behind each flag is in servers.md (numbers in the comments below). More probes (conditions,
partial writes, times) add fields here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

Conditions = Literal["unknown", "honoured", "ignored"]

_CODED_URL_OR_TOKEN: Final = re.compile(r"<[^>]*>|[^,\s][^,]*")
# servers.md 2: WsgiDAV cuts Destination at %3F and %3B and drops control characters; MOVE to "a?b" then
# silently overwrites "a".
_CUT_CHARACTERS: Final = frozenset("?;") | frozenset(map(chr, range(0x20))) | {"\x7f"}


def _dav_classes(header: str) -> frozenset[str]:
    return frozenset(token.strip().lower() for token in _CODED_URL_OR_TOKEN.findall(header))


def _methods(header: str) -> frozenset[str]:
    return frozenset(token.strip().upper() for token in header.split(",") if token.strip())


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What is known of the server. Fields of type `bool | None`: None is not known yet."""

    server: str = ""  # its Server header, for people
    dav_classes: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    put_etag: bool | None = None
    etags_in_propfind: bool | None = None
    takes_mtime: bool | None = None  # answered 'X-OC-MTime: accepted' to a PUT (servers.md 39)
    conditions: Conditions = "unknown"
    writes_in_place: bool = False
    move_condition_honoured: bool = False

    @classmethod
    def from_options(cls, headers: Mapping[str, str]) -> Capabilities:
        """From the headers of an OPTIONS answer (a case-insensitive mapping, repeated ones joined by ',')."""
        return cls(
            server=headers.get("server", "")[:200],
            dav_classes=_dav_classes(headers.get("dav", "")[:4096]),
            methods=_methods(headers.get("allow", "")[:4096]),
        )

    @property
    def locks(self) -> bool:
        """RFC 4918 18.2; nginx says only '2'."""
        return "2" in self.dav_classes

    @property
    def is_nginx_dav(self) -> bool:
        """nginx itself with dav-ext, not a proxy in front: it alone announces a single class."""
        return self.server.lower().startswith("nginx") and self.dav_classes in ({"1"}, {"2"})

    @property
    def hides_dot_names(self) -> bool:
        """PROPFIND leaves out names that begin with '.' (servers.md 17). A false yes costs one request."""
        return self.is_nginx_dav

    @property
    def move_needs_slash(self) -> bool:
        """MOVE of a folder without '/' on both URLs is refused (servers.md 20). We always send it."""
        return self.is_nginx_dav

    @property
    def reads_destination_whole(self) -> bool:
        """Known to take every encoded character in Destination (servers.md, table 13)."""
        apache = any("apache.org/dav/propset" in token for token in self.dav_classes)
        sabre = "extended-mkcol" in self.dav_classes  # and Nextcloud, ownCloud
        return apache or sabre or self.is_nginx_dav or self.server.lower().startswith("lighttpd")

    @property
    def is_apache_dav(self) -> bool:
        return any("apache.org/dav/propset" in token for token in self.dav_classes)

    @property
    def is_nextcloud(self) -> bool:
        """Nextcloud and ownCloud: behind a file's name are its shares, versions and comments."""
        return any("nextcloud" in token or token.startswith(("nc-", "oc-")) for token in self.dav_classes)

    @property
    def may_stage(self) -> bool:
        """Whether an upload may go to a temporary name and be moved over the old file.

        Not on Nextcloud and ownCloud: there a MOVE replaces the file with all that hangs on it.
        """
        return not self.is_nextcloud

    @property
    def coarse_tags(self) -> bool:
        """Whether a second write of the same size within one second may keep the tag (servers.md 9)."""
        return not (self.is_apache_dav or self._is_lighttpd)

    @property
    def weak_tag_in_if(self) -> bool:
        """`If: ([W/"..."])` compares weakly there (mod_dav; servers.md 10): it works for fresh files too."""
        return self.is_apache_dav and "if" in self.methods

    @property
    def _is_lighttpd(self) -> bool:
        return self.server.lower().startswith("lighttpd")

    def move_unsafe(self, name: str) -> bool:
        """True if MOVE to a place below or named `name` may end at another name on this server.

        Behind a proxy the Server header tells nothing, so only servers proved good are trusted.
        """
        return not self.reads_destination_whole and not _CUT_CHARACTERS.isdisjoint(name)

    def learned_put(self, *, etag: bool, mtime_accepted: bool | None = None) -> Capabilities:
        """After a successful PUT; `mtime_accepted` is None when no time was sent."""
        takes_mtime = self.takes_mtime if mtime_accepted is None else mtime_accepted
        if etag == self.put_etag and takes_mtime == self.takes_mtime:
            return self
        return replace(self, put_etag=etag, takes_mtime=takes_mtime)

    def learned_propfind(self, *, file_etag: bool) -> Capabilities:
        """After a PROPFIND that described at least one file."""
        if file_etag == self.etags_in_propfind:
            return self
        return replace(self, etags_in_propfind=file_etag)
