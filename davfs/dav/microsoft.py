"""What Microsoft's servers say and want: IIS WebDAV and SharePoint. Pure.

None of them can be run here: the sources are [MS-WDV], [MS-WDVME] and [MS-WEBDAVE], the documents of IIS
request filtering and of SharePoint's limits, and issue trackers (servers.md, last part; peers.md 19 and 28).
Which server it is, `dav.quirks` decides by its headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_plus, urlsplit

from davfs.dav import properties
from davfs.dav.names import CONTROLS, NameRules
from davfs.dav.resource import ETag, Resource
from davfs.errors import ServerRefused, refused

# What a listing of theirs is asked for beside.
EXTRAS: Final = frozenset(
    {properties.IS_COLLECTION, properties.IS_HIDDEN, properties.WIN32_MTIME, properties.WIN32_ATTRIBUTES}
)

# --- names

_DEVICES: Final = frozenset(
    ["con", "prn", "aux", "nul", *(f"{one}{n}" for one in ("com", "lpt") for n in range(1, 10))]
)
_WINDOWS: Final = frozenset('<>:"|?*\\') | CONTROLS
# NTFS through http.sys. Windows drops dots and blanks at the end. `maxUrl` is 4,096 as shipped.
IIS_NAMES: Final = NameRules(
    characters=_WINDOWS,
    trailing=(".", " "),
    stems=_DEVICES,
    utf8_only=True,
    longest_units=255,
    longest_url=4096,
    why="IIS",
)
# allowDoubleEscaping=false, as shipped: 404.11. Learned, since many set it to true for WebDAV.
TWICE_ESCAPED: Final = frozenset("+%")
# SharePoint Online and 2019: 400 characters of path, '#' and '%' allowed.
_SHAREPOINT_NEW: Final = NameRules(
    characters=_WINDOWS,
    leading=(" ", "~$"),
    trailing=(".", " "),
    names=frozenset({".lock", "desktop.ini"}),
    stems=_DEVICES - {"com", "lpt"},
    parts=("_vti_",),
    utf8_only=True,
    longest_units=255,
    longest_path=400,
    why="SharePoint",
)
# Up to 2016: 128 characters of a name, 260 of the path.
_SHAREPOINT_OLD: Final = NameRules(
    characters=frozenset("~#%&{}"),
    leading=(".",),
    trailing=(".files", "_files", "-files", "_file"),
    parts=("..",),
    longest_units=128,
    longest_path=260,
    why="SharePoint",
).combined(_SHAREPOINT_NEW)
_BUILD_OF_2019: Final = 10_000


def sharepoint_names(version: str) -> NameRules:
    """By `MicrosoftSharePointTeamServices: 16.0.0.10417` (2019, Online), 16.0.0.4351 (2016), 15 ..."""
    numbers = [int(one) for one in version.split(".") if one.isascii() and one.isdigit()]
    is_new = bool(numbers) and numbers[0] >= 16 and max(numbers[2:], default=0) >= _BUILD_OF_2019
    return _SHAREPOINT_NEW if is_new else _SHAREPOINT_OLD


def refused_twice_escaped(name: str) -> NameRules | None:
    """After a 404 to a PUT into a folder that is there: what request filtering may have objected to."""
    if TWICE_ESCAPED.isdisjoint(name):
        return None
    return NameRules(characters=TWICE_ESCAPED, why="IIS request filtering (404.11)")


# --- office files

# SharePoint writes the properties of the library into these when they are stored (peers.md 28).
_REWRITTEN: Final = (
    *(".doc", ".docm", ".docx", ".dot", ".dotm", ".dotx", ".ppt", ".pptm", ".pptx", ".pot", ".potm"),
    *(".potx", ".pps", ".ppsm", ".ppsx", ".xls", ".xlsb", ".xlsm", ".xlsx", ".xlt", ".xltm", ".xltx"),
    *(".one", ".pub", ".vsd", ".vsdx", ".xsn", ".infopathxml", ".xml", ".htm", ".html", ".aspx", ".master"),
)


def rewrites(name: str) -> bool:
    """Whether SharePoint may store another file than it was sent."""
    return name.casefold().endswith(_REWRITTEN)


def same_document(sent: ETag | None, found: ETag | None) -> bool:
    """Whether both tags are of one item, `"{GUID},7"`: what SharePoint made of it has a higher number."""
    if sent is None or found is None:
        return True  # no tag in the answer to PUT: nothing contradicts
    one, _, _ = sent.opaque.rpartition(",")
    other, _, _ = found.opaque.rpartition(",")
    return one.casefold() == other.casefold()


# --- errors

_FORMS_CODE: Final = 0x000E0098
_TEXT_MAX: Final = 300
_VAGUE: Final = frozenset({400, 403, 404, 409, 500})  # where the code says more
# [MS-WDV], product behaviour 17, and what each means in HTTP's words.
_MEANING: Final[Mapping[int, tuple[int, str]]] = {
    0x0009000E: (423, "it is checked out or locked"),
    0x00090075: (423, "it has to be checked out first"),
    0x0009006F: (403, "files of this type are blocked"),
    0x0006000A: (414, "the request is too long"),
    _FORMS_CODE: (403, "it wants a login with cookies, in a browser"),
    0x00960004: (403, "it has a virus"),
    0x00960009: (403, "it has a virus"),
    0x00960008: (403, "it had a virus and was deleted"),
    0x00090070: (403, "it does not take this name"),
    0x00090071: (403, "the name is reserved"),
    0x00090068: (414, "the address is too long"),
    0x00090063: (507, "the site is over its quota"),
}


@dataclass(frozen=True, slots=True)
class ExtendedError:
    """`X-MSDAVEXT_Error: 589838; The%20file%20...` ([MS-WDV] 2.2.3). The text may be anybody's: one line."""

    code: int
    text: str

    @property
    def words(self) -> str:
        _, meaning = _MEANING.get(self.code, (0, ""))
        told = self.text or meaning or "no text"
        return f"{told} (0x{self.code:08X})" if told == meaning or not meaning else f"{meaning}: {told}"


def says_more(headers: Mapping[str, str]) -> bool:
    """Whether the code of the answer has a meaning of its own."""
    told = extended_error(headers)
    return told is not None and told.code in _MEANING


def extended_error(headers: Mapping[str, str]) -> ExtendedError | None:
    """Apache's mod_dav sends it as well (MSext): it is read whoever answers."""
    number, _, text = headers.get("x-msdavext_error", "")[: 4 * _TEXT_MAX].partition(";")
    number = number.strip()
    if not (number.isascii() and number.isdigit() and len(number) <= 10):
        return None
    line = "".join(c if c.isprintable() else " " for c in unquote_plus(text.strip()))
    return ExtendedError(int(number), line[:_TEXT_MAX])


def explained(
    headers: Mapping[str, str], method: str, status: int, where: str, *, retry_after_s: float | None
) -> ServerRefused:
    """The refusal for a final status: by the extended error where that says more than the status."""
    told, wants_login = extended_error(headers), login_text(headers)
    is_vague = told is not None and status in _VAGUE
    meant, _ = _MEANING.get(told.code, (status, "")) if told is not None and is_vague else (status, "")
    error = refused(method, meant, where, retry_after_s=retry_after_s)
    if wants_login is not None:
        error.args = (f"{method} {where}: {wants_login}",)
    elif told is not None:
        error.args = (f"{method} {where}: the server answered {status}: {told.words}",)
    return error


# --- login pages

_LOGIN_HOSTS: Final = ("login.microsoftonline.", "login.windows.net", "login.live.com", "adfs.", "sts.")
_LOGIN_PATHS: Final = ("/_layouts/", "/_forms/", "/_login/", "/adfs/", "/_trust/", "/owa/auth", "/my.policy")
_NO_COOKIES: Final = (
    "wants a login in a browser (cookies or claims), which davfs cannot do: the site must allow"
    " Basic, NTLM or Negotiate for WebDAV"
)


def login_text(headers: Mapping[str, str]) -> str | None:
    """SharePoint's answer to a client without its cookie: 403 with `X-Forms_Based_Auth_Required`."""
    told = extended_error(headers)
    is_form = "x-forms_based_auth_required" in headers or (told is not None and told.code == _FORMS_CODE)
    return f"the server {_NO_COOKIES}" if is_form else None


def redirect_text(address: str) -> str | None:
    """What to tell of a redirect that leads to a login page of theirs; None for any other."""
    parts = urlsplit(address)
    host, path = (parts.hostname or "").casefold(), parts.path.casefold()
    if not (host.startswith(_LOGIN_HOSTS) or any(one in path for one in _LOGIN_PATHS)):
        return None
    return f"the server {_NO_COOKIES} (it leads to {parts.scheme}://{parts.netloc}{parts.path[:120]})"


# --- Win32 attributes

_READ_ONLY, _HIDDEN, _SYSTEM = 0x1, 0x2, 0x4


def attributes(resource: Resource) -> int:
    """`Win32FileAttributes`, eight hexadecimal digits ([MS-WDVME]); 0 where nothing is said."""
    told = dict(resource.extras)
    text = told.get(properties.WIN32_ATTRIBUTES, "").strip()
    known = int(text, 16) if 0 < len(text) <= 8 and all(c in "0123456789abcdefABCDEF" for c in text) else 0
    return known | (_HIDDEN if properties.is_true(told.get(properties.IS_HIDDEN)) else 0)


def is_read_only(resource: Resource) -> bool:
    """Of a file: Windows gives the bit another meaning on folders."""
    return not resource.is_collection and bool(attributes(resource) & _READ_ONLY)


def attribute_words(resource: Resource) -> str:
    """For `user.davfs.win32`: as `attrib` would say it, "" for none."""
    bits = attributes(resource)
    named = ((_READ_ONLY, "readonly"), (_HIDDEN, "hidden"), (_SYSTEM, "system"))
    return " ".join(word for bit, word in named if bits & bit)
