"""Which properties a listing asks for: those of every server, and extras that are worth their bytes. Pure.

Names are in Clark notation, `{namespace}name`. An extra is asked for only where it is of use on this server
(`Client.extras`): one that no file has still costs a second propstat in each response of a listing. What a
server said of extras is in `Resource.extras`, as text; their meaning is with the modules that need them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from lxml import etree

from davfs.dav.documents import root_of
from davfs.errors import ProtocolError

OWN: Final = "urn:davfs:"  # the namespace of dead properties that davfs itself sets
EXTRA_TEXT_MAX: Final = 4096  # characters of one that are kept: PATH_MAX, the longest that any of them needs

# Apache tells the bit itself; all that keep dead properties take one of this name too (servers.md, table 12).
EXECUTABLE: Final = "{http://apache.org/dav/props/}executable"
# getcontenttype is not asked for: no program sees it, and Apache and wsgidav guess it file by file. Nor is
# creationdate: 60 bytes of each entry that nothing reads.
ALWAYS: Final = (
    "{DAV:}resourcetype",
    "{DAV:}getcontentlength",
    "{DAV:}getlastmodified",
    "{DAV:}getetag",
    EXECUTABLE,
)
MTIME: Final = f"{{{OWN}}}mtime"
LINK: Final = f"{{{OWN}}}symlink"
OWN_EXECUTABLE: Final = f"{{{OWN}}}executable"
XATTRS: Final = f"{{{OWN}}}xattrs"  # which attributes a file has: see `attributes.Inventory`
# On the share's root, a list of words: which dead properties some davfs has set below it. See `fs.marker`.
KEPT: Final = f"{{{OWN}}}kept"
# What a word there is about, and the property that listings then ask for (None: asked file by file).
KEPT_WORDS: Final[Mapping[str, str | None]] = {
    "mtime": MTIME,
    "symlink": LINK,
    "executable": OWN_EXECUTABLE,
    "xattr": XATTRS,
}
PRIVILEGES: Final = "{DAV:}current-user-privilege-set"  # RFC 3744
PERMISSIONS: Final = "{http://owncloud.org/ns}permissions"
WIN32_MTIME: Final = "{urn:schemas-microsoft-com:}Win32LastModifiedTime"
WIN32_ATTRIBUTES: Final = "{urn:schemas-microsoft-com:}Win32FileAttributes"
IS_HIDDEN: Final = "{DAV:}ishidden"
IS_COLLECTION: Final = "{DAV:}iscollection"
# Every extra that the parser keeps, whoever asks for it.
EXTRAS: Final = frozenset(
    {
        MTIME,
        LINK,
        OWN_EXECUTABLE,
        XATTRS,
        KEPT,
        PRIVILEGES,
        PERMISSIONS,
        WIN32_MTIME,
        WIN32_ATTRIBUTES,
        IS_HIDDEN,
        IS_COLLECTION,
    }
)


@lru_cache(maxsize=64)
def propfind(extras: frozenset[str] = frozenset()) -> bytes:
    """The body of a PROPFIND for what a listing needs."""
    return propfind_of((*ALWAYS, *sorted(extras)))


def propfind_of(names: Iterable[str]) -> bytes:
    root = etree.Element("{DAV:}propfind", nsmap={"D": "DAV:"})
    prop = etree.SubElement(root, "{DAV:}prop")
    for name in names:
        namespace = etree.QName(name).namespace
        etree.SubElement(prop, name, nsmap={None: namespace} if namespace and namespace != "DAV:" else None)
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + etree.tostring(root)


def is_true(text: str | None) -> bool:
    """`iscollection` and `ishidden`: 1, true, True, t."""
    return text is not None and text.strip().casefold() in {"1", "true", "t", "-1"}


def kept_words(text: str | None) -> frozenset[str]:
    """What the value of KEPT says; words of newer versions stay in it."""
    return frozenset((text or "").split())


def kept_text(words: frozenset[str]) -> str:
    return " ".join(sorted(words))


def kept_extras(words: frozenset[str]) -> frozenset[str]:
    """What listings ask for where these are in use."""
    found = (KEPT_WORDS.get(word) for word in words)
    return frozenset(name for name in found if name is not None)


def texts_of(body: bytes, *, shorter_than: int) -> dict[str, str]:
    """The properties that a 207 to Depth 0 gives, with their texts; nothing from an answer that is none.

    Raises ProtocolError for one that may have been cut, because it was read up to this length only.
    """
    if len(body) >= shorter_than:
        raise ProtocolError(f"more than {shorter_than} bytes of properties")
    root = root_of(body)
    found: dict[str, str] = {}
    for propstat in root.iterfind("{DAV:}response/{DAV:}propstat") if root is not None else ():
        status = (propstat.findtext("{DAV:}status") or "200").split()
        if any(word.startswith("2") and len(word) == 3 for word in status):
            for value in propstat.iterfind("{DAV:}prop/*"):
                if isinstance(value.tag, str):
                    found[value.tag] = value.text or ""
    return found


def extra_text(element: etree._Element) -> str:
    """What an extra says: its text, or the names of its innermost elements (privileges, kinds)."""
    if len(element) == 0:
        text = element.text or ""
    else:
        leaves = (one.tag for one in element.iterdescendants() if len(one) == 0)
        text = " ".join(tag for tag in leaves if isinstance(tag, str))
    return text[:EXTRA_TEXT_MAX]
