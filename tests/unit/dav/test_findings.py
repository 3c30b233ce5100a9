"""Answers to findings: each word has answers that lead to it, and hostile answers lead to none that lies."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from davfs.dav.answered import Answer, listed, members, properties, statuses
from davfs.dav.canaries import CUT_OLD
from davfs.dav.findings import Evidence, Finding, judged, left_out
from davfs.dav.hrefs import Share
from davfs.dav.meanings import MEANINGS
from davfs.dav.quirks import Capabilities
from davfs.dav.resource import ROOT

SHARE = Share.parse("http://h/dav/")
SCRATCH = ROOT.child("scratch")
APACHE = Capabilities.from_options({"dav": "1,2, <http://apache.org/dav/propset/fs/1>"})
NGINX = Capabilities.from_options({"server": "nginx/1.22.1", "dav": "2"})
UNKNOWN = Capabilities.from_options({"dav": "1, 2"})


def response(href: str, props: str = "", status: str = "HTTP/1.1 200 OK") -> str:
    return (
        f"<D:response><D:href>/dav/{href}</D:href><D:propstat><D:prop>{props}</D:prop>"
        f"<D:status>{status}</D:status></D:propstat></D:response>"
    )


def multistatus(*responses: str) -> Answer:
    text = f'<D:multistatus xmlns:D="DAV:">{"".join(responses)}</D:multistatus>'
    return Answer("PROPFIND /x", 207, body=text.encode())


def described(props: str = "") -> Answer:
    return multistatus(response("x", f"<D:resourcetype/>{props}"))


def tagged(tag: str, modified: str = "Sat, 21 Nov 2026 02:19:01 GMT") -> Answer:
    return described(f"<D:getetag>{tag}</D:getetag><D:getlastmodified>{modified}</D:getlastmodified>")


def status(number: int, body: bytes = b"", **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer("VERB /x", number, named, body)


def found(
    capability: str, answers: Mapping[str, Answer], known: Capabilities = UNKNOWN, scheme: str = "none"
) -> Finding:
    evidence = Evidence(answers, SHARE, known, scheme, SCRATCH)
    return next(each for each in judged(evidence) if each.capability == capability)


CANARY = described('<c:canary xmlns:c="https://davfs.invalid/probe">x</c:canary>')
LOCK = (
    b'<D:prop xmlns:D="DAV:"><D:lockdiscovery><D:activelock><D:locktoken><D:href>urn:1</D:href></D:locktoken>'
    b"<D:timeout>%s</D:timeout><D:owner>%s</D:owner></D:activelock></D:lockdiscovery></D:prop>"
)


def lock(timeout: bytes = b"Second-600", owner: bytes = b"davfs probe") -> Answer:
    return status(200, LOCK % (timeout, owner), lock_token="<urn:1>")


@pytest.mark.parametrize(
    ("capability", "word", "answers"),
    [
        ("server", "unnamed", {"options": status(200)}),
        ("dav", "announced", {"options": status(200, dav="1")}),
        ("dav", "silent", {"options": status(405)}),
        ("connection", "closed", {"root": status(207, connection="close")}),
        ("clock", "unknown", {"root": status(207)}),
        ("clock", "off", {"root": status(207, date="Sat, 21 Nov 2026 02:19:01 GMT")}),
        ("quota", "told", {"root": described("<D:quota-available-bytes>7</D:quota-available-bytes>")}),
        ("quota", "unlimited", {"root": described("<D:quota-available-bytes>-3</D:quota-available-bytes>")}),
        ("quota", "silent", {"root": described("<D:quota-available-bytes>-2</D:quota-available-bytes>")}),
        (
            "privileges",
            "told",
            {
                "root": described(
                    "<D:current-user-privilege-set><D:privilege><D:read/></D:privilege>"
                    "</D:current-user-privilege-set>"
                )
            },
        ),
        ("depth_infinity", "no answer", {"deep": Answer("PROPFIND /", error="waited")}),
        ("depth_infinity", "answered", {"deep": described()}),
        ("depth_infinity", "one level", {"deep": described(), "mkcol_deep": status(201)}),
        ("ranges", "ignored", {"root": described(), "range": status(200)}),
        ("ranges", "refused", {"root": described(), "range": status(416)}),
        ("if_none_match", "unclear", {"if_none_match": status(500)}),
        ("if_match", "refuses all", {"if_match_wrong": status(412), "if_match_right": status(412)}),
        ("weak_tag_in_if", "refused", {"stat_fresh": tagged('W/"a"'), "if_weak": status(412)}),
        ("tag_ageing", "turns strong", {"stat_young": tagged('W/"a"'), "stat_aged": tagged('"a"')}),
        ("tag_ageing", "changes", {"stat_young": tagged('"a"'), "stat_aged": tagged('"b"')}),
        ("tag_ageing", "stays", {"stat_young": tagged("a"), "stat_aged": tagged("a")}),
        ("tag_of_second", "stays", {"second_1_stat": tagged('"a"'), "second_2_stat": tagged('W/"a"')}),
        (
            "tag_of_second",
            "unclear",
            {"second_1_stat": tagged('"a"', "Sat, 21 Nov 2026 02:19:02 GMT"), "second_2_stat": tagged('"a"')},
        ),
        ("expect", "in time", {"expect": status(409).with_body_told(0, "honoured")}),
        ("expect", "100 first", {"expect": status(409).with_body_told(9, "honoured")}),
        ("expect", "ignored", {"expect": status(409).with_body_told(9, "ignored")}),
        ("expect", "417", {"expect": status(409).with_body_told(9, "refused")}),
        ("missing_parent", "created", {"expect": status(201)}),
        ("cut_upload", "gone", {"cut": Answer("PUT /c"), "cut_after": status(404)}),
        ("cut_upload", "torn", {"cut": Answer("PUT /c"), "cut_after": status(200, b"nnn")}),
        ("cut_upload", "torn", {"cut": Answer("PUT /c"), "cut_after": status(200, b"n" * 1000)}),
        ("cut_upload", "whole", {"cut": Answer("PUT /c"), "cut_after": status(200, CUT_OLD)}),
        (
            "content_range_put",
            "no effect",
            {"content_range": status(204), "content_range_after": status(200, b"0123456789")},
        ),
        (
            "patch",
            "written",
            {
                "content_range": status(400),
                "patch": status(204),
                "patch_after": status(200, b"012XY56789"),
            },
        ),
        (
            "patch",
            "damages",
            {"content_range": status(400), "patch": status(204), "patch_after": status(200, b"XY")},
        ),
        ("locks", "refused", {"lock": status(501)}),
        ("locks", "decoration", {"lock": lock(), "lock_put": status(204)}),
        ("lock_timeout", "shorter", {"lock": lock(b"Second-60"), "lock_put": status(423)}),
        ("lock_timeout", "longer", {"lock": lock(b"Infinite"), "lock_put": status(423)}),
        ("lock_refresh", "refused", {"lock": lock(), "lock_refresh": status(412)}),
        ("lock_refresh", "another token", {"lock": lock(), "lock_refresh": status(200, lock_token="urn:2")}),
        ("lock_owner_kept", "no", {"lock": lock(), "lock_shown": lock(owner=b"")}),
        ("lock_on_free_name", "refused", {"lock_free": status(409)}),
        ("lock_after_move", "gone", {"lock_move": status(204), "lock_move_unlock": status(409)}),
        ("move_overwrite_f", "ignored", {"move_f": status(204)}),
        ("copy_overwrite_f", "unclear", {"copy_f": status(502)}),
        ("move_condition", "refuses all", {"move_if_wrong": status(412), "move_if_right": status(412)}),
        ("dead_properties", "refused", {"dead": status(405), "dead_stat": described()}),
        (
            "dead_properties",
            "changed",
            {"dead": status(207), "dead_stat": CANARY},
        ),
        ("case", "ignored", {"name_case": status(201), "case": described()}),
        ("unicode", "folded", {"name_umlaut": status(201), "unicode": described()}),
    ],
)  # fmt: skip
def test_answers_lead_to_the_word(capability: str, word: str, answers: dict[str, Answer]) -> None:
    """What was answered decides, whatever the server is called; the word has a meaning."""
    finding = found(capability, answers)
    assert finding.found == word
    assert finding.meaning == MEANINGS[capability][word]


@pytest.mark.parametrize(
    ("capability", "answers", "known", "text"),
    [
        ("if_none_match", {"if_none_match": status(204)}, APACHE, "conditions of PUT are honoured"),
        ("if_match", {"if_match_wrong": status(412)}, NGINX, "conditions of PUT are ignored"),
        (
            "if_match",
            {"if_match_wrong": status(412), "if_match_right": status(412)},
            APACHE,
            "the right tag is accepted",
        ),
        ("cut_upload", {"cut": Answer(""), "cut_after": status(200, b"n")}, APACHE, "whole or not at all"),
        ("cut_upload", {"cut": Answer(""), "cut_after": status(200, CUT_OLD)}, UNKNOWN, "the worse"),
        ("locks", {"lock": status(405)}, APACHE, "as OPTIONS announces"),
        ("locks", {"lock": lock(), "lock_put": status(423)}, Capabilities(), "announces none"),
        ("move_condition", {"move_if_wrong": status(204)}, APACHE, "MOVE compares tags"),
        (
            "weak_tag_in_if",
            {"stat_fresh": tagged('W/"a"'), "if_weak": status(412)},
            APACHE,
            "a weak tag works",
        ),
        (
            "tag_of_second",
            {"second_1_stat": tagged('"a"'), "second_2_stat": tagged('"a"')},
            APACHE,
            "a tag of its own",
        ),
        ("dot_names", {"dot": status(201), "scratch": multistatus(response("scratch/"))}, APACHE, "listed"),
        (
            "dot_names",
            {"dot": status(201), "scratch": multistatus(response("scratch/.dot"))},
            NGINX,
            "hidden",
        ),
    ],
)
def test_what_davfs_assumes_is_told_where_it_differs(
    capability: str, answers: dict[str, Answer], known: Capabilities, text: str
) -> None:
    """A finding against Capabilities says what a mount takes for granted."""
    assert text in found(capability, answers, known).assumes


def test_what_agrees_is_not_told() -> None:
    """Nothing is said of an assumption that holds."""
    assert found("if_none_match", {"if_none_match": status(412)}, APACHE).assumes == ""
    assert found("if_none_match", {"if_none_match": status(204)}, NGINX).assumes == ""


def test_each_way_to_set_a_time_is_recognised() -> None:
    """The time that a file has afterwards tells which way worked; a promise that is not kept is told."""
    taken = status(201, x_oc_mtime="accepted")
    by_date = described("<D:getlastmodified>Thu, 13 Sep 2001 01:46:40 GMT</D:getlastmodified>")
    answers = {"x_oc_mtime": taken, "put_date": status(201), "put_date_stat": by_date}
    finding = found("mtime", answers)
    assert finding.found == "settable"
    assert "put_date" in finding.detail
    assert "accepted" in finding.assumes


def test_names_that_went_elsewhere_are_told() -> None:
    """A name is right when it is listed as it is; a refusal and another place are told apart."""
    answers = {
        "moved_names": multistatus(
            response("scratch/v/"), response("scratch/v/a%2541b"), response("scratch/v/a")
        ),
        "move_name_percent": status(201),
        "move_name_question mark": status(201),
        "move_name_semicolon": status(412),
    }
    finding = found("move_names", answers, NGINX)
    assert finding.found == "some"
    assert finding.detail == "question mark (elsewhere), semicolon (412)"
    assert "question mark" in finding.assumes


def test_what_was_not_asked_is_not_found() -> None:
    """Without answers there are no findings, and the number of the missing ones is told."""
    assert judged(Evidence({}, SHARE, UNKNOWN)) == ()
    assert left_out(()) == len(MEANINGS)


def test_a_207_that_refuses_is_no_success() -> None:
    """A failure inside a 207 counts, and is shown in the evidence (servers.md 8)."""
    inner = multistatus(response("x", "<D:a/>", "HTTP/1.1 403 Forbidden"))
    assert not inner.is_ok
    assert inner.line == "PROPFIND /x 207 (403 inside)"
    assert multistatus(response("x", "<D:a/>")).is_ok


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff",
        b"<html><body>no",
        b'<!DOCTYPE x [<!ENTITY e "boom">]><D:multistatus xmlns:D="DAV:"><D:response>&e;</D:response>',
        b"<D:multistatus xmlns:D='DAV:'><D:response/></D:multistatus>",
        b"<D:multistatus xmlns:D='DAV:'><D:response><D:propstat><D:status>\xd9\xa3\xd9\xa3</D:status>",
    ],
)
def test_bodies_that_cannot_be_read_say_nothing(body: bytes) -> None:
    """No error and no property comes of garbage, whatever the question was."""
    answer = Answer("PROPFIND /", 207, body=body)
    assert properties(answer) == {}
    assert not statuses(body)
    assert all(not member for member in members(answer))
    listed(answer, SHARE)
    names = [
        *("options", "root", "listing", "deep", "put_new", "stat_young", "stat_aged", "lock", "lock_put"),
        *("lock_shown", "lock_refresh", "names", "names_control", "moved_names", "scratch", "dot", "cut"),
        *("cut_after", "dead", "dead_stat", "x_oc_mtime", "put_date", "expect", "if_none_match"),
    ]
    for finding in judged(Evidence(dict.fromkeys(names, answer), SHARE, UNKNOWN)):
        assert finding.found in MEANINGS[finding.capability]
