"""What a server cannot do, and what a program gets for it: data, which tests/contract/conftest.py asserts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


class Otherwise(Exception):
    """Raised by a test that found no error, but not what was wanted: in the words of the table."""


NOT_LISTED: Final = "not listed"
KEPT_HERE: Final = "kept here"
ONE_FILE: Final = "one file"


@dataclass(frozen=True)
class Limit:
    """`word` is the errno of the call that fails, before anything is stored; or the text of `Otherwise`."""

    word: str
    reason: str


_NO_UTF8: Final = "a name with invalid UTF-8"


def _no_properties(reason: str) -> dict[str, Limit]:
    return {
        **dict.fromkeys(["extended attributes of programs", "symbolic links"], Limit("EOPNOTSUPP", reason)),
        "another mount sees chmod +x": Limit(KEPT_HERE, reason),
    }


LIMITS: Final[Mapping[str, Mapping[str, Limit]]] = {
    "nginx": {
        **_no_properties("it answers 405 to PROPPATCH"),
        **dict.fromkeys(
            [
                "a name with a leading dot",
                "a name with .htaccess",
                "hidden files are listed by another mount",
            ],
            Limit(
                NOT_LISTED,
                "PROPFIND leaves them out; by name they open, and the mount that made them lists them",
            ),
        ),
    },
    "lighttpd": {
        **dict.fromkeys(
            [f"a name with {kind}" for kind in ("tabulator", "new line", "control character", "DEL")],
            Limit("EILSEQ", "it answers 400"),
        ),
        _NO_UTF8: Limit("EILSEQ", "it answers 400"),
    },
    "sabredav": {
        **dict.fromkeys(
            [f"a name with {kind}" for kind in ("byte order mark", "U+FFFE")],
            Limit(
                "EILSEQ",
                "sabre/dav 1.8 on PHP 8 takes it for ISO-8859-1, and lists a name that cannot be opened",
            ),
        ),
        _NO_UTF8: Limit("EILSEQ", "it is taken for ISO-8859-1: the name listed cannot be opened"),
    },
    "wsgidav": {_NO_UTF8: Limit("EILSEQ", "it breaks the connection")},
    "rclone": {
        **_no_properties("it says yes to PROPPATCH, and keeps nothing"),
        "names that differ in Unicode form only": Limit(
            ONE_FILE, "it finds one spelling by the other, and keeps the one that a file was made in"
        ),
        **dict.fromkeys(
            [f"a name with {kind}" for kind in ("tabulator", "new line", "control character", "DEL")],
            Limit("EILSEQ", "it lists pictures of control characters (U+2409)"),
        ),
    },
    "copyparty": {
        **_no_properties("it keeps no properties of others"),
        _NO_UTF8: Limit("EILSEQ", "it shows no name of its own: who is not known may change such names"),
    },
    "asgiwebdav": {
        **dict.fromkeys(
            [
                "a name with %20, as it stands",
                "a name with %2F, as it stands",
                "rename to a name with blank, %, #, &, +",
            ],
            Limit("EILSEQ", "it decodes URLs twice: the name would be somebody else's"),
        ),
        _NO_UTF8: Limit("EILSEQ", "it stores other characters"),
    },
}
