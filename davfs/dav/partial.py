"""A part of a file: PUT with Content-Range (Apache mod_dav), PATCH with X-Update-Range (sabre/dav). Pure.

RFC 9110 14.5 leaves Content-Range in a PUT to private agreement, and servers differ in the worst way
(servers.md 5): Apache and Tomcat replace the range, nginx, lighttpd and WsgiDAV refuse, rclone, copyparty and
four more replace the whole file by the fragment. So such a request goes only to temporary names of ours, and
`fs.partial` tries it first on a file of a few bytes.
"""

from __future__ import annotations

from typing import Final, Literal

PartialWay = Literal["content_range", "patch"]

_SABRE_TYPE: Final = "application/x-sabredav-partialupdate"


def part_request(
    way: PartialWay, start: int, size_bytes: int, total_bytes: int
) -> tuple[str, dict[str, str]]:
    """Method and headers that replace [start, start + size_bytes) of a file that then has `total_bytes`."""
    last = start + size_bytes - 1
    if way == "patch":
        return "PATCH", {"Content-Type": _SABRE_TYPE, "X-Update-Range": f"bytes={start}-{last}"}
    return "PUT", {"Content-Range": f"bytes {start}-{last}/{total_bytes}"}
