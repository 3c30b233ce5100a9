"""What Microsoft's servers say, in words and errors."""

from __future__ import annotations

import errno

import httpx
import pytest

from davfs.dav import microsoft, properties
from davfs.dav.hrefs import Share
from davfs.dav.redirects import LoginPage, redirected
from davfs.dav.resource import ETag, Resource
from davfs.errors import Forbidden, Locked, NoSpace, ServerRefused, UriTooLong

SHARE = Share.parse("https://host/sites/team/Documents/")


def explained(status: int, name: str, text: str) -> ServerRefused:
    return microsoft.explained(httpx.Headers({name: text}), "PUT", status, "/a.txt", retry_after_s=None)


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (409, 0x0009000E, Locked, "checked out or locked"),
        (403, 0x00090075, Locked, "checked out first"),
        (403, 0x0009006F, Forbidden, "blocked"),
        (400, 0x00090070, Forbidden, "does not take this name"),
        (400, 0x00090068, UriTooLong, "too long"),
        (403, 0x00090063, NoSpace, "quota"),
        (403, 0x00960004, Forbidden, "virus"),
        (507, 0x0009006F, NoSpace, "blocked"),
    ],
)
def test_extended_errors(status: int, code: int, kind: type[ServerRefused], words: str) -> None:
    """The code of [MS-WDV] decides where the status is vague, and both are told."""
    error = explained(status, "X-MSDAVEXT_Error", f"{code}; It%20is%20so%2E")
    assert type(error) is kind
    for part in (words, "It is so.", str(status)):
        assert part in str(error)


@pytest.mark.parametrize("header", ["", "x", "12345678901; x", "-1; x", "1" * 5000, "99; \r\n\x00%0a"])
def test_garbled_extended_errors(header: str) -> None:
    """The status counts; the text is one printable line in any case."""
    error = microsoft.explained({"x-msdavext_error": header}, "GET", 403, "/a", retry_after_s=None)
    assert type(error) is Forbidden
    assert str(error).isprintable()


def test_forms_login() -> None:
    """SharePoint's 403 to a client without its cookies says what to do."""
    text = "917656; Access+denied.+Before+opening+files+in+this+location%2c+you+must+first+browse"
    for error in (
        explained(403, "X-MSDAVEXT_Error", text),
        explained(403, "X-Forms_Based_Auth_Required", "https://x/"),
    ):
        assert "cookies" in str(error)
        assert error.errno == errno.EACCES


@pytest.mark.parametrize(
    "target",
    [
        "https://login.microsoftonline.com/common/oauth2/authorize?x=y",
        "https://host/_layouts/15/Authenticate.aspx?Source=%2F",
        "https://host/sites/team/Documents/_forms/default.aspx",
        "https://adfs.host.example/adfs/ls/",
    ],
)
def test_redirects_to_login_pages(target: str) -> None:
    """Never followed, whatever the verb; the text names no query."""
    here = SHARE.origin + "/sites/team/Documents/"
    for method in ("GET", "PROPFIND", "PUT"):
        with pytest.raises(LoginPage, match="cookies") as caught:
            redirected(SHARE, method, method, here, target, is_collection=True)
        assert "?" not in str(caught.value)
        assert caught.value.errno == errno.EACCES


def test_folder_with_such_a_name() -> None:
    """Within a folder that is called so, a redirect is a redirect."""
    here = "https://host/sites/team/Documents/_forms/a"
    assert redirected(SHARE, "", "PROPFIND", here, here + "/", is_collection=False) == here + "/"


@pytest.mark.parametrize(
    ("attributes", "hidden", "words", "read_only"),
    [
        ("00000020", "0", "", False),
        ("00000001", None, "readonly", True),
        ("00000023", "0", "readonly hidden", True),
        ("00000004", "True", "hidden system", False),
        (None, "1", "hidden", False),
        ("zzz", "t", "hidden", False),
        ("123456789", "", "", False),
        ("", None, "", False),
    ],
)
def test_attributes(attributes: str | None, hidden: str | None, words: str, *, read_only: bool) -> None:
    """Eight hexadecimal digits, and `ishidden` in the forms that are about."""
    told = ((properties.WIN32_ATTRIBUTES, attributes), (properties.IS_HIDDEN, hidden))
    extras = tuple((name, text) for name, text in told if text is not None)
    file = Resource(is_collection=False, extras=extras)
    assert microsoft.attribute_words(file) == words
    assert microsoft.is_read_only(file) == read_only
    assert not microsoft.is_read_only(Resource(is_collection=True, extras=extras))


def test_documents() -> None:
    """A higher number of the same item is what SharePoint made of it; another item is somebody else's."""
    assert microsoft.rewrites("Report.DOCX")
    assert not microsoft.rewrites("report.pdf")
    one, two, other = (ETag(text) for text in ("{A-1},1", "{a-1},2", "{B-2},1"))
    assert microsoft.same_document(one, two)
    assert microsoft.same_document(None, two)
    assert not microsoft.same_document(one, other)


def test_hrefs_in_the_servers_own_case() -> None:
    """SharePoint writes the folders above the share as it likes."""
    path = SHARE.path_of("https://HOST/Sites/Team/documents/a%20b/c.txt")
    assert path is not None
    assert path.parts == ("a b", "c.txt")
    assert SHARE.path_of("https://host/sites/other/Documents/a") is None
