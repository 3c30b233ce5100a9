"""Which names a server cannot hold, and which are one to it."""

from __future__ import annotations

import errno
import os
import unicodedata
from dataclasses import replace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfs.dav.filtered import Refusals
from davfs.dav.microsoft import IIS_NAMES, sharepoint_names
from davfs.dav.names import (
    ALLOWING,
    FORMS,
    NameRules,
    Spelling,
    form_between,
    is_respelled,
    may_be_respelled,
    odd_in,
    of_lists,
    other_form,
)
from davfs.dav.quirks import Capabilities
from davfs.dav.resource import ROOT, DavPath, Resource
from davfs.errors import BadName, NameTooLong

NFD, NFC = "Zoe\u0308", "Zo\u00eb"
NEW, OLD = sharepoint_names("16.0.0.10417"), sharepoint_names("15.0.0.4701")


def capabilities(**headers: str) -> Capabilities:
    return Capabilities.from_options(httpx.Headers({k.replace("_", "-"): v for k, v in headers.items()}))


NEXTCLOUD = capabilities(server="Apache", dav="1, 3, extended-mkcol, nextcloud-checksum-update")
IIS = capabilities(server="Microsoft-IIS/10.0", ms_author_via="DAV", dav="1,2,3")
SHAREPOINT = capabilities(
    server="Microsoft-IIS/10.0", microsoftsharepointteamservices="16.0.0.10417", ms_author_via="MS-FP/4.0,DAV"
)


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        *((IIS_NAMES, name) for name in ("a:b", "a\\b", "a?", 'a"b', "tab\t", "end.", "end ", "CON")),
        (IIS_NAMES, "lpt1.txt"),
        (IIS_NAMES, os.fsdecode(b"\xff")),
        *((NEW, name) for name in (" first", "~$doc.docx", "Desktop.INI", "a_VTI_b", "a|b", ".lock", "end ")),
        *((OLD, name) for name in ("a#b", "50%", "a&b", "~x", "{x}", ".hidden", "a..b", "page_files")),
        (of_lists(names=[".htaccess"], why="it"), ".HTAccess"),
        (of_lists(stems=["CON"], why="it"), "con.tar.gz"),
        (of_lists(extensions=["part", ".filepart"], why="it"), "film.PART"),
        (of_lists(characters=["*", "?/"], why="it"), "a?"),
    ],
)
def test_refused(rules: NameRules, name: str) -> None:
    """EINVAL, with a text that has the server and the name in one printable line."""
    with pytest.raises(BadName) as caught:
        rules.check((), (name,))
    assert caught.value.errno == errno.EILSEQ
    assert rules.why in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("rules", [ALLOWING, IIS_NAMES, NEW, OLD])
@pytest.mark.parametrize("name", ["a b.txt", "console", "Zo\u00eb.docx", "files", "x" * 128, "日本語"])
def test_taken(rules: NameRules, name: str) -> None:
    """Ordinary names are, everywhere."""
    rules.check(("dav", "share"), (name,))


def test_lengths() -> None:
    """Windows counts UTF-16, paths count from the server's root, an URL as it is written."""
    NEW.check(("s",), ("d" * 200, "f" * 196))
    with pytest.raises(NameTooLong):
        NEW.check(("s",), ("d" * 200, "f" * 199))
    OLD.check((), ("f" * 128,))
    with pytest.raises(NameTooLong, match="129 characters"):
        OLD.check((), ("f" * 129,))
    with pytest.raises(NameTooLong, match="130 characters"):
        replace(OLD, longest_bytes=1000).check((), ("\U0001f600" * 65,))
    with pytest.raises(NameTooLong, match="of path"):
        OLD.check(("s",) * 100, ("d" * 30, "f" * 30))
    IIS_NAMES.check((), ("é" * 100,) * 6)
    with pytest.raises(NameTooLong, match="of URL"):
        IIS_NAMES.check((), ("é" * 100,) * 7)
    with pytest.raises(NameTooLong):
        NameRules(longest_bytes=143).check((), ("x" * 144,))


def test_extensions_are_of_files() -> None:
    """A folder may be called `site.part`."""
    rules = of_lists(extensions=["part"], why="it")
    rules.check((), ("a.part",), is_folder=True)
    rules.check((), (".part",))


@given(st.text(min_size=1, max_size=20).filter(lambda name: "/" not in name and "\0" not in name))
def test_combined_forbids_what_either_does(name: str) -> None:
    """Rules can be put together in any order."""

    def refuses(rules: NameRules) -> bool:
        try:
            rules.check((), (name,))
        except BadName:
            return True
        return False

    either = refuses(IIS_NAMES) or refuses(NEW)
    assert refuses(IIS_NAMES.combined(NEW)) == refuses(NEW.combined(IIS_NAMES)) == either


def test_spelling() -> None:
    """One key for what is one name, and nothing folded on a server that keeps all apart."""
    exact, windows, nextcloud = Spelling(), Spelling(ignores_case=True), Spelling(form="NFC")
    assert exact.key("A") != exact.key("a")
    assert exact.of(NFD) == NFD
    assert exact.is_exact
    assert windows.key("READ.ME") == windows.key("Read.me")
    assert windows.of("READ.ME") == "READ.ME"
    assert nextcloud.of(NFD) == NFC
    assert nextcloud.key(NFD) == nextcloud.key(NFC)
    assert not exact.is_told_by_lists(NFD)
    assert windows.is_told_by_lists("a")
    assert nextcloud.is_told_by_lists(NFD)
    assert not nextcloud.is_told_by_lists("a")


def test_other_spellings() -> None:
    """What a listing may have in place of a name."""
    assert form_between(NFD, NFC) == "NFC"
    assert form_between(NFC, NFD) == "NFD"
    assert form_between("a", "a") is None
    assert form_between("a", "A") is None
    assert other_form(NFD, {NFC, "x"}) == NFC
    assert other_form(NFD, {NFD}) is None
    assert is_respelled("end. ", "end")
    assert is_respelled("End", "end")
    assert not is_respelled("end", "end")
    assert not is_respelled("end", "other")
    assert not may_be_respelled("Zo\u00eb.txt")
    assert not may_be_respelled(".hidden")
    for odd in ("end.", " first", "end ", NFD, "tab\t", os.fsdecode(b"\xff")):
        assert may_be_respelled(odd)
    assert odd_in("end.").trailing == (".",)
    assert odd_in(" x").leading == (" ",)
    assert odd_in("a\x01b").characters == {"\x01"}
    assert odd_in(os.fsdecode(b"\xff")).utf8_only


@pytest.mark.parametrize(
    ("known", "why", "refused", "taken"),
    [
        (IIS, "IIS", "a:b", "a#b"),
        (SHAREPOINT, "SharePoint", "~$x", "a#b"),
        (capabilities(server="lighttpd/1.4.69", dav="1,2,3"), "lighttpd", "a\tb", "a:b"),
        (capabilities(server="rclone/v1.75.2", dav="1, 2"), "rclone", "a\tb", "a:b"),
        (NEXTCLOUD, "Nextcloud", os.fsdecode(b"\xff"), "a:b"),
        (capabilities(server="WsgiDAV/4.4.0"), "WsgiDAV", os.fsdecode(b"\xff"), "a\tb"),
    ],
)  # fmt: skip
def test_by_evidence(known: Capabilities, why: str, refused: str, taken: str) -> None:
    """The server's headers decide which rules hold."""
    known.names.check((), (taken,))
    with pytest.raises(BadName, match=why):
        known.names.check((), (refused,))


def test_unknown_servers_refuse_little_until_they_do() -> None:
    """Bytes that are no UTF-8, and what was refused or listed otherwise from then on; the rest is fine."""
    known = Capabilities()
    assert known.names == NameRules(utf8_only=True)
    assert not known.keeps_names
    learned = known.learned_names(odd_in("end."))
    with pytest.raises(BadName):
        learned.names.check((), ("other.",))
    learned.names.check((), ("other",))
    assert learned.learned_names(odd_in("end.")) is learned
    assert known.learned_spelling(NFD, NFC).spelling.form == "NFC"
    assert known.learned_spelling("a", "A").spelling.ignores_case
    assert known.learned_spelling("a.", "a") is known
    assert known.learned_case(apart=True).tells_case_apart


def test_who_is_windows() -> None:
    """WebDAV of IIS and SharePoint ignore case; an application on IIS is what it says it is."""
    assert IIS.profile == "IIS"
    assert SHAREPOINT.profile == "SharePoint"
    assert IIS.spelling.ignores_case
    assert SHAREPOINT.spelling.ignores_case
    sabre = capabilities(server="Microsoft-IIS/10.0", dav="1, 3, extended-mkcol", ms_author_via="DAV")
    assert sabre.profile == "sabre/dav"
    assert not sabre.spelling.ignores_case
    assert capabilities(server="Microsoft-IIS/10.0").profile == "unknown"
    assert not SHAREPOINT.may_stage
    assert capabilities(public="OPTIONS, PUT").methods == {"OPTIONS", "PUT"}


def test_double_escaping() -> None:
    """'+' and '%' are suspect on IIS alone, until one was stored; out of reach is what was refused."""
    assert IIS.filtered("a+b") is not None
    assert IIS.move_unsafe("100%")
    assert IIS.filtered("ab") is None
    assert SHAREPOINT.filtered("a+b") is None
    assert not IIS.is_out_of_reach("a+b")
    filtered = IIS.filtered("a+b")
    assert filtered is not None
    assert IIS.learned_names(filtered).is_out_of_reach("100%")
    assert IIS.learned_stored("a+b").filtered("100%") is None
    assert IIS.learned_stored("plain") is IIS


def test_a_name_is_out_of_reach_when_it_is_listed_between_two_refusals() -> None:
    """A file that was made after the first 404 is none; what is out of reach is listed no more."""
    refusals, path, file = Refusals(), ROOT.child("a+b"), Resource(is_collection=False)
    refusals.leave_out(IIS, ROOT, {"a+b": file})
    for folder in (None, None, DavPath(("d",)), ROOT):
        if folder is not None:
            refusals.leave_out(IIS, folder, {"a+b": file})
        learned = refusals.missing(IIS, path)
        assert learned.is_out_of_reach("a+b") == (folder == ROOT)
    members = {"a+b": file, "100%": file, "plain": file}
    refusals.leave_out(learned, ROOT, members)
    assert list(members) == ["plain"]
    assert refusals.missing(SHAREPOINT, path) is SHAREPOINT


@given(st.text(max_size=30))
def test_normal_forms_are_found_again(name: str) -> None:
    """Whatever the form: the key of a server with one form is that of the name it lists."""
    for spelling in (Spelling(form="NFC"), Spelling(form="NFD"), Spelling(ignores_form=True)):
        assert spelling.key(name) == spelling.key(spelling.of(name))
        one, other = (unicodedata.normalize(form, name) for form in FORMS)
        assert spelling.key(one) == spelling.key(other)
