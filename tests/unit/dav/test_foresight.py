"""What the answer to a pre-flight forbids, and what it lets go."""

from __future__ import annotations

import httpx
import pytest

from davfs import errors
from davfs.dav.foresight import UploadWish, allows_new, check_upload
from davfs.dav.hrefs import Share
from davfs.dav.lanes import PreflightAnswer
from davfs.dav.resource import ROOT, ETag

_SHARE = Share.parse("https://server.example/dav/")
_FILE = ROOT.child("f")
_ONE, _TWO = ETag("1"), ETag("2")
_LOCK = "<D:lockdiscovery><D:activelock><D:locktype/></D:activelock></D:lockdiscovery>"


def _found(props: str = "", href: str = "/dav/f") -> PreflightAnswer:
    body = (
        f'<D:multistatus xmlns:D="DAV:"><D:response><D:href>{href}</D:href><D:propstat><D:prop>'
        f"<D:resourcetype/>{props}</D:prop></D:propstat></D:response></D:multistatus>"
    )
    return PreflightAnswer(207, httpx.Headers(), body.encode())


def _bare(status: int, parent: PreflightAnswer | None = None, **headers: str) -> PreflightAnswer:
    return PreflightAnswer(status, httpx.Headers(headers), b"", parent)


def _wish(size: int = 100, if_match: ETag | None = None, *, new: bool = False) -> UploadWish:
    return UploadWish(_FILE, size, if_match, new)


@pytest.mark.parametrize(
    ("wish", "answer", "error"),
    [
        (_wish(new=True), _found(), errors.PreconditionFailed),
        (_wish(if_match=_ONE), _found('<D:getetag>"2"</D:getetag>'), errors.PreconditionFailed),
        (_wish(if_match=_ONE), _bare(404), errors.PreconditionFailed),
        (_wish(if_match=_ONE), _bare(200, etag='"2"'), errors.PreconditionFailed),
        (_wish(new=True), _bare(200), errors.PreconditionFailed),
        (_wish(), _found(_LOCK), errors.Locked),
        (_wish(), _found("<D:quota-available-bytes>99</D:quota-available-bytes>"), errors.NoSpace),
        (_wish(new=True), _bare(404, _bare(404)), errors.ParentMissing),
        (
            _wish(new=True),
            _bare(404, _found("<D:quota-available-bytes>99</D:quota-available-bytes>", "/dav/")),
            errors.NoSpace,
        ),
        (_wish(), _bare(503), errors.Busy),
        (_wish(), _bare(500), errors.ServerFailure),
    ],
)
def test_refusals(wish: UploadWish, answer: PreflightAnswer, error: type[errors.DavfsError]) -> None:
    """412, 423, 507, 409 and overload are known before the body."""
    with pytest.raises(error):
        check_upload(_SHARE, wish, answer)


@pytest.mark.parametrize(
    ("wish", "answer"),
    [
        (_wish(), _found()),
        (_wish(new=True), _bare(404)),
        (_wish(new=True), _bare(404, _found(href="/dav/"))),
        (_wish(if_match=_ONE), _found('<D:getetag>W/"1"</D:getetag>')),
        (_wish(if_match=_ONE), _found()),
        (_wish(), _found("<D:lockdiscovery/>")),
        (_wish(), _found("<D:quota-available-bytes>-3</D:quota-available-bytes>")),
        (
            _wish(),
            _found(
                "<D:getcontentlength>50</D:getcontentlength><D:quota-available-bytes>99</D:quota-available-bytes>"
            ),
        ),
        (_wish(new=True), _found(href="/dav/another")),
        (_wish(), PreflightAnswer(207, httpx.Headers(), b"not XML")),
        (_wish(), _bare(403)),
        (_wish(), _bare(405)),
        (_wish(), _bare(501)),
    ],
)
def test_what_says_nothing_lets_it_go(wish: UploadWish, answer: PreflightAnswer) -> None:
    """The PUT decides: a look must never forbid what the server would allow."""
    check_upload(_SHARE, wish, answer)


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        (_found(href="/dav/"), True),
        (_found("<D:quota-available-bytes>100</D:quota-available-bytes>", "/dav/"), True),
        (_found("<D:quota-available-bytes>99</D:quota-available-bytes>", "/dav/"), False),
        (_bare(404), False),
        (_bare(200), False),
    ],
)
def test_a_folder_that_was_asked_before(folder: PreflightAnswer, allowed: bool) -> None:
    """It saves the question before the body only if it is there, and has room for what the file became."""
    assert allows_new(_SHARE, _wish(new=True), folder) is allowed
