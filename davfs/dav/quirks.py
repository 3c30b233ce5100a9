"""What this server can do, by evidence: the only module that knows servers by name.

`Capabilities` is frozen; every piece of evidence gives a new value. It starts from the OPTIONS answer
and learns from ordinary answers (does a PUT answer carry an ETag, has PROPFIND ETags). It never guesses
in the dangerous direction: what is unknown is None or 'unknown', and a rename that some server in the
field would send to the wrong name counts as unsafe until the server is one known to get it right.

The evidence behind each flag is in servers.md (numbers in the comments below). More probes (conditions,
partial writes, times) add fields here and nowhere else. Where a wrong yes would lose somebody's work (uploads
that replace the file whole, conditions that hold), only servers measured to do right get it: the tests of
tests/protocol/test_conditions.py ask every server that can be started.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal

from davfs.dav import microsoft
from davfs.dav.names import ALLOWING, CONTROLS, EXACT, NameRules, Spelling, differs_in_case_only, form_between
from davfs.dav.partial import PartialWay
from davfs.dav.properties import PERMISSIONS, PRIVILEGES
from davfs.dav.resource import ETag, Resource
from davfs.dav.times import WAYS, Way

Conditions = Literal["unknown", "honoured", "ignored"]
Condition = Literal["same", "absent"]  # If-Match; If-None-Match: *

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9._~-]+")
_CODED_URL_OR_TOKEN: Final = re.compile(r"<[^>]*>|[^,\s][^,]*")
# servers.md 2: WsgiDAV cuts Destination at %3F and %3B and drops control characters; MOVE to "a?b" then
# silently overwrites "a".
LIGHTTPD_PUT_NAME_MAX: Final = 245
_TAG_END: Final = re.compile(r".*-([0-9]{1,19})")
_CONTROLS: Final = frozenset(map(chr, range(0x20))) | {"\x7f"}
_CUT_CHARACTERS: Final = frozenset("?;") | _CONTROLS
SPOOLED_WHOLE_BYTES: Final = 64 * 1024
OTHER_TAGS_MAX: Final = 3
# What these cannot hold (servers.md, table 13). Bytes that are no UTF-8 end the connection on WsgiDAV, are
# 400 on lighttpd, and sabre/dav and ASGIWebDAV store other characters, as sabre/dav 1.8 on PHP 8 does with a
# byte order mark or a non-character; rclone writes pictures of control characters. Only who was seen to keep
# such bytes gets them.
_UNKNOWN_NAMES: Final = NameRules(utf8_only=True)
_LIGHTTPD_NAMES: Final = NameRules(CONTROLS, utf8_only=True, why="lighttpd")
_WSGIDAV_NAMES: Final = NameRules(utf8_only=True, why="WsgiDAV")
_NO_CHARACTERS: Final = frozenset("\ufeff\ufffe\uffff") | frozenset(map(chr, range(0xFDD0, 0xFDF0)))
_SABRE_NAMES: Final = NameRules(_NO_CHARACTERS, utf8_only=True, why="sabre/dav")
_RCLONE_NAMES: Final = NameRules(CONTROLS, why="rclone")
_NEXTCLOUD_NAMES: Final = NameRules(utf8_only=True, why="Nextcloud")  # the rest it tells: `cloud`
TIME_TELLS_S: Final = 60  # clocks differ
_WSGIDAV_METHODS: Final = frozenset(
    ["OPTIONS", "HEAD", "GET", "PROPFIND", "DELETE", "COPY", "MOVE", "PROPPATCH", "LOCK", "UNLOCK"]
)


def _size_in(etag: ETag) -> int | None:
    found = _TAG_END.fullmatch(etag.opaque)
    return int(found[1]) if found is not None else None


def _dav_classes(header: str) -> frozenset[str]:
    return frozenset(token.strip().lower() for token in _CODED_URL_OR_TOKEN.findall(header))


def _methods(header: str) -> frozenset[str]:
    return frozenset(token.strip().upper() for token in header.split(",") if token.strip())


@dataclass(frozen=True)
class Capabilities:
    """What is known of the server. Fields of type `bool | None`: None is not known yet.

    What follows from the fields is worked out once: each file that is made asks for a dozen of these.
    """

    server: str = ""  # its Server header, for people
    dav_classes: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    put_etag: bool | None = None
    etags_in_propfind: bool | None = None
    takes_mtime: bool | None = None  # answered 'X-OC-MTime: accepted' to a PUT (servers.md 39)
    put_sets_mtime: bool | None = None  # by what PROPFIND said after a PUT with another time than now
    time_way: Way | None = None  # of PROPPATCH: it set a time, and that was read back
    refused_ways: frozenset[Way] = frozenset()
    tags_end_in_size: bool | None = None
    other_tags: int = 0  # one after the other that did not
    conditions_seen: Conditions = "unknown"  # by its answers to conditional PUTs
    locks_refused: bool = False  # announced, but LOCK is answered with 405 or 501
    partial_put: PartialWay | Literal["unknown", "no"] = (
        "unknown"  # by a canary (`fs.partial`), once for a mount
    )
    decodes_twice: bool | None = None  # "%2541" in a URL is "A" there, not "%41"
    tree_tags_refuted: bool = False  # a folder changed and kept its tag
    lock_gone_after_move: bool | None = None  # by the answer to UNLOCK after a MOVE over the locked file
    destination: Literal["unknown", "address", "path", "neither"] = "unknown"  # which form of it was taken
    sharepoint: str = ""  # its version, where it is one
    authors_via: str = ""  # MS-Author-Via
    tells_case_apart: bool = False  # by a name that it did not find beside another case of it
    escapes_twice: bool = False  # IIS with allowDoubleEscaping: '+' and '%' are fine
    refused_names: NameRules = ALLOWING  # by its refusals, and by what it listed names as
    seen_spelling: Spelling = EXACT  # by names that it listed otherwise

    @classmethod
    def from_options(cls, headers: Mapping[str, str]) -> Capabilities:
        """From the headers of an OPTIONS answer (a case-insensitive mapping, repeated ones joined by ',')."""
        return cls(
            server=headers.get("server", "")[:200],
            dav_classes=_dav_classes(headers.get("dav", "")[:4096]),
            methods=_methods((headers.get("allow") or headers.get("public", ""))[:4096]),
            sharepoint=headers.get("microsoftsharepointteamservices", "")[:40].strip(),
            authors_via=headers.get("ms-author-via", "")[:200].upper(),
        )

    @cached_property
    def locks(self) -> bool:
        """RFC 4918 18.2; nginx says only '2'."""
        return "2" in self.dav_classes

    @cached_property
    def locks_usable(self) -> bool:
        """LOCK is worth a request: announced, and not refused yet."""
        return self.locks and not self.locks_refused

    @cached_property
    def move_ends_lock(self) -> bool | None:
        """MOVE over a locked file ends its lock too: UNLOCK is 409 then (WsgiDAV, table 10b)."""
        return True if self._is_wsgidav else self.lock_gone_after_move

    @cached_property
    def refreshes_untagged(self) -> bool:
        """A refresh must say `If: (<token>)`: lighttpd 1.4.69 answers 400 to the tagged form."""
        return self._is_lighttpd_dav or self.has_another_address

    @cached_property
    def claims_untagged(self) -> bool:
        """nginx compares the URL in If as it is written: never equal for a name that has to be encoded.

        Nor is it for who does not know the address that we know (rclone then says 412 to every token).
        """
        return self.is_nginx_dav or self.has_another_address

    # --- who it is, as far as it shows

    @cached_property
    def _is_apache_dav(self) -> bool:
        """mod_dav_fs: it alone names its property set."""
        return any("apache.org/dav/propset" in token for token in self.dav_classes)

    @cached_property
    def _is_sabre(self) -> bool:
        """sabre/dav, and what is built on it: Nextcloud, ownCloud, Baikal."""
        return "extended-mkcol" in self.dav_classes

    @cached_property
    def _is_lighttpd_dav(self) -> bool:
        """Its name alone may be that of a proxy: mod_webdav announces class 3."""
        return self._named("lighttpd") and "3" in self.dav_classes and not self._is_sabre

    @cached_property
    def _is_wsgidav(self) -> bool:
        """By its name, or as what it ships with calls itself: then by what it says a folder can do.

        It alone, of those measured, names GET and HEAD there, and neither PUT nor MKCOL.
        """
        return self._named("wsgidav") or (self._named("cheroot") and self.methods == _WSGIDAV_METHODS)

    @cached_property
    def profile(self) -> str:
        """Which of the servers that were measured it is treated as, for people."""
        known = {
            "Apache mod_dav": self._is_apache_dav,
            "Nextcloud or ownCloud": self._is_sabre and self.is_owncloud,
            "sabre/dav": self._is_sabre,
            "lighttpd mod_webdav": self._is_lighttpd_dav,
            "WsgiDAV": self._is_wsgidav,
            "nginx dav-ext": self.is_nginx_dav,
            "rclone serve": self._named("rclone"),
            "SharePoint": self.is_sharepoint,
            "IIS": self.is_iis,
        }
        return next((name for name, is_it in known.items() if is_it), "unknown")

    def _named(self, *names: str) -> bool:
        return self.server.lower().startswith(names)

    @cached_property
    def is_nginx_dav(self) -> bool:
        """nginx itself with dav-ext, not a proxy in front: it alone announces a single class."""
        return self._named("nginx") and self.dav_classes in ({"1"}, {"2"})

    @cached_property
    def is_sharepoint(self) -> bool:
        return bool(self.sharepoint)

    @cached_property
    def is_iis(self) -> bool:
        """WebDAV of IIS itself, not an application behind its name (sabre/dav under PHP)."""
        by_itself = "DAV" in self.authors_via and not self._is_sabre
        return self._named("microsoft-iis") and by_itself and not self.is_sharepoint

    @cached_property
    def extras(self) -> frozenset[str]:
        """Of `properties.EXTRAS`: what a listing of this server is worth asking for by its kind alone."""
        return microsoft.EXTRAS if self.is_iis or self.is_sharepoint else frozenset()

    # --- names

    @cached_property
    def names(self) -> NameRules:
        """What a new name must not be."""
        if self.is_sharepoint:
            rules = microsoft.sharepoint_names(self.sharepoint)
        elif self.is_iis:
            rules = microsoft.IIS_NAMES
        elif self.is_owncloud:
            rules = _NEXTCLOUD_NAMES
        elif self._is_sabre:
            rules = _SABRE_NAMES
        elif self._is_lighttpd_dav:
            rules = _LIGHTTPD_NAMES
        elif self._named("rclone"):
            rules = _RCLONE_NAMES
        else:
            keeps_bytes = self._is_apache_dav or self.is_nginx_dav
            rules = _WSGIDAV_NAMES if self._is_wsgidav else ALLOWING if keeps_bytes else _UNKNOWN_NAMES
        return rules if self.refused_names is ALLOWING else self.refused_names.combined(rules)

    @cached_property
    def spelling(self) -> Spelling:
        """Windows ignores case; Nextcloud and ownCloud turn all names into NFC (servers.md 22); rclone 1.75
        opens `é` in NFC for a PUT in NFD, and answers PROPFIND in the words of the question."""
        seen = self.seen_spelling
        ignores_case = seen.ignores_case or self.is_iis or self.is_sharepoint
        form = seen.form or ("NFC" if self.is_owncloud else None)
        return Spelling(ignores_case, form, ignores_form=self._named("rclone"))

    @cached_property
    def keeps_names(self) -> bool:
        """Known to list every name as it was made, or to refuse it: those that were measured (table 13)."""
        measured = self._is_apache_dav or self.is_nginx_dav or self._is_lighttpd_dav or self._is_wsgidav
        return (measured or self._named("rclone")) and self.spelling.form is None

    def filtered(self, name: str) -> NameRules | None:
        """What IIS objects to in a name, when it says 404 to a PUT into a folder that is there."""
        return microsoft.refused_twice_escaped(name) if self.is_iis and not self.escapes_twice else None

    def is_out_of_reach(self, name: str) -> bool:
        """A name that is listed, and that every request for it is refused."""
        return self.is_iis and not microsoft.TWICE_ESCAPED.isdisjoint(
            self.refused_names.characters & set(name)
        )

    def rewrites(self, name: str) -> bool:
        """Whether the server may store another file than it was sent (peers.md 28)."""
        return self.is_sharepoint and microsoft.rewrites(name)

    @cached_property
    def stores_no_empty_files(self) -> bool:
        """SharePoint says 200 to a PUT of nothing and makes nothing (servers.md, last part)."""
        return self.is_sharepoint

    @cached_property
    def hides_dot_names(self) -> bool:
        """PROPFIND leaves out names that begin with '.' (servers.md 17). A false yes costs one request.

        Also behind a proxy with a name of its own: of those measured, nginx alone announces a single class.
        """
        return self.is_nginx_dav or (self.profile == "unknown" and self.dav_classes in ({"1"}, {"2"}))

    @cached_property
    def reads_destination_whole(self) -> bool:
        """Known to take every encoded character in Destination (servers.md, table 13)."""
        return self._is_apache_dav or self._is_sabre or self.is_nginx_dav or self._named("lighttpd")

    # --- names

    @cached_property
    def makes_folders_again(self) -> bool:
        """MKCOL of a folder that is there says 201 (servers.md 27): who made it is not told."""
        return self._named("rclone")

    @cached_property
    def decodes_once(self) -> bool:
        """Known to: others are asked (`decodes_twice`) before a name with "%41" in it is stored."""
        return self.reads_destination_whole or self._is_wsgidav or self._named("rclone")

    def puts_name(self, name: str) -> bool:
        """Whether PUT takes it: lighttpd 1.4.69 appends to the name while it writes. MOVE takes it."""
        return not self._is_lighttpd_dav or len(os.fsencode(name)) <= LIGHTTPD_PUT_NAME_MAX

    # --- what an upload has to know

    @cached_property
    def whole_up_to_bytes(self) -> float:
        """A PUT up to this size is stored whole or not at all; a longer one that is cut off may leave half a
        file under its name (servers.md 1, table 7).

        No limit on Apache, nginx and lighttpd. sabre/dav is safe from a cut in the body where nginx spools
        for PHP, but a connection that ends between the last byte and the answer ends the FastCGI request
        midway: 72 of 96 bodies of 1 MB were torn, none up to 160 kB, which fit the socket between the two.
        Nextcloud and ownCloud (sabre/dav with access-control) overwrite in place; who is not known counts so.
        """
        if self._is_apache_dav or self.is_nginx_dav or self._is_lighttpd_dav or self.is_sharepoint:
            return float("inf")  # SharePoint keeps files in a database
        spooled_sabre = self._is_sabre and self._named("nginx") and "access-control" not in self.dav_classes
        return SPOOLED_WHOLE_BYTES if spooled_sabre else 0

    @cached_property
    def conditions(self) -> Conditions:
        """Whether If-Match and If-None-Match of a PUT hold (servers.md 7, table 5).

        'ignored' is never unlearned. rclone 1.60 shows no name, and its answers tell nothing: unknown.
        """
        if self.is_nginx_dav or self._named("rclone") or self.conditions_seen == "ignored":
            return "ignored"
        if self._is_apache_dav or self._is_sabre or self._is_lighttpd_dav or self._is_wsgidav:
            return "honoured"
        return self.conditions_seen

    @cached_property
    def put_if_match_trusted(self) -> bool:
        """A PUT with If-Match needs no look before it: it succeeds exactly when the tag is right.

        lighttpd 1.4.69 refuses the right tag of an aged file: safe, but only a look tells (table 5).
        """
        return self.conditions == "honoured" and not self._is_lighttpd_dav

    @cached_property
    def move_condition_honoured(self) -> bool:
        """`If: <destination> (["etag"])` on MOVE (table 5, last column).

        WsgiDAV and nginx ignore it; lighttpd refuses even the right tag, and so does rclone, which beside a
        lock token takes any.
        """
        return self._is_apache_dav or self._is_sabre

    def moves_onto_locked(self, name: str) -> bool:
        """MOVE with the token of the destination's lock works.

        lighttpd 1.4.69 answers 412 to every form, nginx 423 for a name that has to be encoded.
        """
        plain = _PLAIN_NAME.fullmatch(name) is not None
        unclaimed = self._is_lighttpd_dav or self.has_another_address
        return not (unclaimed or (self.is_nginx_dav and not plain))

    @cached_property
    def is_owncloud(self) -> bool:
        """Nextcloud or ownCloud: they announce classes of their own."""
        return any("nextcloud" in token or token.startswith(("nc-", "oc-")) for token in self.dav_classes)

    @cached_property
    def may_stage(self) -> bool:
        """Whether an upload may go to a temporary name and be moved over the old file.

        Not on Nextcloud and ownCloud: there its shares, versions and comments would go with the old one. They
        have a way of their own to replace a file whole, see `chunked`. Not on SharePoint for the same reason.
        """
        return not (self.is_owncloud or self.is_sharepoint)

    @cached_property
    def tags_cover_trees(self) -> bool:
        """A folder's tag changes with anything below it (servers.md 11), unless it was seen not to."""
        return self.is_owncloud and not self.tree_tags_refuted

    @cached_property
    def put_tag_is_final(self) -> bool:
        """Whether the ETag of an answer to a PUT with X-OC-Mtime is that of the stored file.

        rclone 1.75 makes it before it applies the time, and does not say that it does: the file has another
        one when the answer arrives. Who is not known counts so; a look then tells.
        """
        return self._is_sabre or self._is_apache_dav or self._is_lighttpd_dav or self._is_wsgidav

    @cached_property
    def mixes_versions(self) -> bool:
        """GET may say the tag and length of one version and send bytes of the next, cut to that length.

        rclone 1.75 stats a file and opens it later: 30 of 76,125 answers, while another client replaced the
        file by MOVE 55 times a second. Apache, nginx, lighttpd and sabre/dav send what they opened.
        """
        return self._named("rclone")

    @cached_property
    def puts_beside(self) -> bool:
        """PUT over a file may end under a name of the server's invention (copyparty, to who sends no time).

        It shows no name; it has no tags. MOVE replaces the file.
        """
        return self.profile == "unknown" and self.etags_in_propfind is False

    @cached_property
    def moves_folders_into_others(self) -> bool:
        """MOVE of a folder to a name that another folder has is done in spite of `Overwrite: F`, and what was
        in it is gone (copyparty, servers.md 3)."""
        return self.puts_beside

    @cached_property
    def coarse_tags(self) -> bool:
        """Whether a second write of the same size within one second may keep the tag (servers.md 9)."""
        fine = self._is_apache_dav or self._is_lighttpd_dav or self.is_iis or self.is_sharepoint
        return not fine  # IIS: units of 100 ns; SharePoint: a counter

    def stored_bytes(self, etag: ETag) -> int | None:
        """What the tag of a file that was just stored tells of its size."""
        return _size_in(etag) if self.tags_end_in_size else None

    @cached_property
    def weak_tag_in_if(self) -> bool:
        """`If: ([W/"..."])` compares weakly there (mod_dav; servers.md 10): it works for fresh files too."""
        return self._is_apache_dav

    @cached_property
    def way_of_parts(self) -> PartialWay:
        """How a part of a file is to be sent, if at all: PATCH where it is announced (servers.md 5)."""
        return "patch" if "sabredav-partialupdate" in self.dav_classes else "content_range"

    @cached_property
    def replaces_parts(self) -> bool:
        """A try has shown that it does."""
        return self.partial_put not in {"unknown", "no"}

    @cached_property
    def put_clears_executable(self) -> bool:
        """mod_dav_fs puts a new file in the place of the old one, without its mode bits."""
        return self._is_apache_dav

    @cached_property
    def told_permissions(self) -> frozenset[str]:
        """The properties that say what this account may do, where there is reason to ask.

        Nextcloud and ownCloud announce access-control too; their letters say more in fewer bytes.
        """
        if any("nextcloud" in token or token.startswith(("nc-", "oc-")) for token in self.dav_classes):
            return frozenset({PERMISSIONS})
        return frozenset({PRIVILEGES}) if "access-control" in self.dav_classes else frozenset()

    # --- times that programs set

    @cached_property
    def time_in_put(self) -> bool:
        """A PUT takes the time along. Without evidence: nginx by Date, rclone 1.75 by X-OC-Mtime."""
        if self.put_sets_mtime is not None:
            return self.put_sets_mtime
        return bool(self.takes_mtime) or self.is_nginx_dav or self._named("rclone")

    @cached_property
    def versions_by_time(self) -> bool:
        """The time of a file is all, or nearly all, that tells its versions: the server's own clock does it
        better than that of whoever wrote the file.
        """
        return self.is_nginx_dav or self._named("rclone") or self.etags_in_propfind is False  # copyparty

    def next_time_way(self, *, properties: bool) -> Way | None:
        """How to set a time by PROPPATCH: what worked, else what is worth a try; None where nothing is.

        `properties`: the dead property may be used. Where nothing but that works (servers.md 39, measured) no
        other way is tried.
        """
        if self.methods and "PROPPATCH" not in self.methods and not self._is_sabre:
            return None
        if self.time_way is not None:
            return self.time_way if properties or self.time_way != "property" else None
        real_ones = not (
            self._is_apache_dav or self._is_lighttpd_dav or self._is_wsgidav or self._named("rclone")
        ) and not (self._is_sabre and self.may_stage)
        worth = (way for way in WAYS if (properties if way == "property" else real_ones))
        return next((way for way in worth if way not in self.refused_ways), None)

    def learned_time(self, *, sent_s: int, found_s: int | None, now_s: float) -> Capabilities:
        """From what is said of a file right after a PUT that carried a time; one of now tells nothing."""
        if found_s is None or abs(sent_s - now_s) < TIME_TELLS_S:
            return self
        sets = found_s == sent_s
        return self if sets == self.put_sets_mtime else replace(self, put_sets_mtime=sets)

    def learned_time_way(self, way: Way, *, worked: bool) -> Capabilities:
        if worked:
            return replace(self, time_way=way)
        return replace(self, time_way=None, refused_ways=self.refused_ways | {way})

    def move_unsafe(self, name: str) -> bool:
        """True if MOVE to a place below or named `name` may end at another name on this server.

        Behind a proxy the Server header tells nothing, so only servers proved good are trusted.
        """
        if self.filtered(name) is not None:
            return True  # what IIS refuses in an URL it may take in Destination, and then nobody reaches it
        return not self.reads_destination_whole and not _CUT_CHARACTERS.isdisjoint(name)

    def _learned_tag(self, etag: ETag | None, size_bytes: int | None) -> Capabilities:
        """From a file that PROPFIND described: WsgiDAV's tags are inode-mtime-size. Other tags end it.

        One alone does not: tag and size of a file that is just being written are of two moments, and a broken
        line garbles (a soak with 1,000 faults stopped believing, and took halves of its own uploads for
        somebody else's: 13 conflicts with ourselves, a commit of git lost).
        """
        if etag is None or not size_bytes:
            return self
        if self.tags_end_in_size is False:
            return self
        said = _size_in(etag)
        if said == size_bytes:
            if self.tags_end_in_size and not self.other_tags:
                return self  # as after each listing of WsgiDAV's: to build and compare all this takes 12 us
            return replace(self, tags_end_in_size=True, other_tags=0)
        if self.other_tags + 1 == OTHER_TAGS_MAX:
            return replace(self, tags_end_in_size=False)
        return replace(self, other_tags=self.other_tags + 1)

    def learned_put(self, *, etag: bool, mtime_accepted: bool | None = None) -> Capabilities:
        """After a successful PUT; `mtime_accepted` is None when no time was sent."""
        takes_mtime = self.takes_mtime if mtime_accepted is None else mtime_accepted
        if etag == self.put_etag and takes_mtime == self.takes_mtime:
            return self
        return replace(self, put_etag=etag, takes_mtime=takes_mtime)

    def learned_propfind(self, file: Resource) -> Capabilities:
        """After a PROPFIND that described at least one file."""
        known = self._learned_tag(file.etag, file.size_bytes)
        file_etag = file.etag is not None
        return known if file_etag == known.etags_in_propfind else replace(known, etags_in_propfind=file_etag)

    def learned_conditional_put(self, status: int, condition: Condition | None) -> Capabilities:
        """From the answer: 412 is a condition honoured, an overwrite under If-None-Match: * one ignored.

        Success under If-Match says nothing: the tag may have been right.
        """
        if condition is not None and status == 412:
            seen: Conditions = "honoured"
        elif condition == "absent" and status in {200, 204}:
            seen = "ignored"
        else:
            return self
        return self if self.conditions_seen in {"ignored", seen} else replace(self, conditions_seen=seen)

    def learned_names(self, refused: NameRules) -> Capabilities:
        """After a refusal, or a look that found a name under another one."""
        rules = refused.combined(self.refused_names)
        return self if rules == self.refused_names else replace(self, refused_names=rules)

    def learned_case(self, *, apart: bool) -> Capabilities:
        """After a question about another case of a name that is there."""
        seen = replace(self.seen_spelling, ignores_case=not apart)
        return replace(self, tells_case_apart=apart, seen_spelling=seen)

    def learned_stored(self, name: str) -> Capabilities:
        """After a PUT to this very name."""
        return replace(self, escapes_twice=True) if self.filtered(name) is not None else self

    def learned_spelling(self, name: str, listed: str) -> Capabilities:
        """After it was asked for `name` and answered about `listed`."""
        form, seen = form_between(name, listed), self.seen_spelling
        if form:
            found = replace(seen, form=form)
        elif differs_in_case_only(name, listed):
            found = replace(seen, ignores_case=True)
        else:
            return self
        return self if found == seen else replace(self, seen_spelling=found)

    def learned_partial_put(self, *, works: bool) -> Capabilities:
        """From a file of our own that was changed in part and read back."""
        return replace(self, partial_put=self.way_of_parts if works else "no")

    def learned_decoding(self, *, twice: bool) -> Capabilities:
        return self if twice == self.decodes_twice else replace(self, decodes_twice=twice)

    def learned_tree_tags(self, *, refuted: bool) -> Capabilities:
        """After a folder was listed with the tag that it had, and with other members."""
        return self if refuted == self.tree_tags_refuted else replace(self, tree_tags_refuted=refuted)

    @property
    def has_another_address(self) -> bool:
        """A proxy in front speaks to it under another name or scheme: it takes ours for another server's."""
        return self.destination == "path"

    @property
    def has_no_move(self) -> bool:
        """Not through the proxy in front of it (mod_dav takes addresses only, and this is not its own)."""
        return self.destination == "neither"

    def learned_destination(self, form: Literal["address", "path", "neither"]) -> Capabilities:
        """After a MOVE or COPY. What worked stays: a refusal later on has another reason."""
        return self if self.destination in {"address", "path"} else replace(self, destination=form)

    def learned_lock(self, *, refused: bool) -> Capabilities:
        """After LOCK was answered with 405 or 501, whatever OPTIONS says."""
        return self if refused == self.locks_refused else replace(self, locks_refused=refused)

    def learned_move_over_lock(self, *, gone: bool) -> Capabilities:
        """From UNLOCK of a lock that had not run out, right after MOVE over its file."""
        return self if gone == self.lock_gone_after_move else replace(self, lock_gone_after_move=gone)
