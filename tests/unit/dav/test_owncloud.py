"""What Nextcloud and ownCloud tell: accounts by address, name rules, checksums, refusals; parts of a file."""

from __future__ import annotations

import errno
import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfs.dav.chunked import LARGEST_PART, MOST_PARTS, SMALLEST_PART, part_size, parts_of
from davfs.dav.hrefs import Share
from davfs.dav.owncloud import (
    NameRules,
    Refusal,
    Told,
    account_of,
    best_checksum,
    capabilities_url,
    is_legacy,
    new_sum,
    parse_checksums,
)
from davfs.dav.resource import DavPath
from davfs.errors import BadName, NameTooLong

PRINCIPAL = "/nc/remote.php/dav/principals/users/alice%40example.org/"


def share(path: str) -> Share:
    return Share.parse(f"https://cloud.example{path}")


def told(files: Mapping[str, object]) -> Told:
    document = {"ocs": {"data": {"capabilities": {"files": files}}}}
    return Told.parse(json.dumps(document).encode())


# --- accounts


@pytest.mark.parametrize("root", ["", "/nc", "/a/b"])
def test_the_share_names_its_user(root: str) -> None:
    """The uploads stand beside the files, wherever the server's root is."""
    account = account_of(share(f"{root}/remote.php/dav/files/alice%40example.org/Sub"))
    assert account is not None
    assert account.upload("id", "00001") == (
        f"https://cloud.example{root}/remote.php/dav/uploads/alice%40example.org/id/00001"
    )
    assert account.upload("id").endswith("/id/")
    assert account.destination(DavPath(("a b",))) == (
        f"https://cloud.example{root}/remote.php/dav/files/alice%40example.org/Sub/a%20b"
    )


def test_the_old_address_needs_the_principal() -> None:
    """/remote.php/webdav/ is the same tree as /remote.php/dav/files/USER/."""
    old = share("/nc/remote.php/webdav/Sub")
    assert is_legacy(old)
    assert account_of(old) is None
    account = account_of(old, PRINCIPAL)
    assert account is not None
    assert account.destination(DavPath(("f",))) == (
        "https://cloud.example/nc/remote.php/dav/files/alice%40example.org/Sub/f"
    )


@pytest.mark.parametrize(
    "path",
    ["/", "/public.php/webdav/", "/remote.php/dav/files", "/remote.php/dav/spaces/x/", "/dav/files/a/"],
)
def test_other_addresses_have_no_account(path: str) -> None:
    """Public shares, spaces, and any other server."""
    assert account_of(share(path), PRINCIPAL) is None
    assert not is_legacy(share(path))


@pytest.mark.parametrize("principal", [None, "", "/", "../..", "/principals/groups/x/", "garbage"])
def test_a_principal_that_names_no_user(principal: str | None) -> None:
    """Then there is no place for uploads."""
    assert account_of(share("/remote.php/webdav/"), principal) is None


def test_the_capabilities_stand_at_the_root_of_the_server() -> None:
    """Of either address; of no other."""
    wanted = "https://cloud.example/nc/ocs/v2.php/cloud/capabilities?format=json"
    assert capabilities_url(share("/nc/remote.php/dav/files/alice/x")) == wanted
    assert capabilities_url(share("/nc/remote.php/webdav/")) == wanted
    assert capabilities_url(share("/webdav/")) is None


# --- names


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("a:b", errno.EINVAL),
        (".htaccess", errno.EACCES),
        (".HTaccess", errno.EACCES),
        ("film.part", errno.EACCES),
        ("con.txt", errno.EACCES),
        ("con", errno.EACCES),
        ("x" * 256, errno.ENAMETOOLONG),
        ("contract.txt", None),
        ("part", None),
    ],
)
def test_names_by_the_capabilities(name: str, number: int | None) -> None:
    """Characters, whole names, names without their suffix, suffixes."""
    rules = told(
        {
            "forbidden_filenames": [".htaccess"],
            "forbidden_filename_basenames": ["con"],
            "forbidden_filename_characters": ["\\", "/", ":"],
            "forbidden_filename_extensions": [".part", ".filepart"],
        }
    ).names
    if number is None:
        rules.check(name)
        return
    with pytest.raises(BadName) as caught:
        rules.check(name)
    assert caught.value.errno == number


def test_names_by_older_capabilities() -> None:
    """Nextcloud 24: a list, and a regular expression of which one form is known."""
    files = {"blacklisted_files": [".htaccess"], "blacklisted_files_regex": "\\.(part|filepart)$"}
    rules = told(files).names
    assert rules.endings == (".part", ".filepart")
    assert rules.names == {".htaccess"}
    assert told({"blacklisted_files_regex": "(a+)+$"}).names.endings == ()


@given(
    st.binary(max_size=300) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)
)
def test_any_document_is_read(body: bytes | str) -> None:
    """What is not understood is not told."""
    data = body if isinstance(body, bytes) else body.encode("utf-8", "replace")
    assert Told.parse(data) == Told()


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "forbidden_filenames",
                "forbidden_filename_characters",
                "bigfilechunking",
                "blacklisted_files_regex",
            ]
        ),
        st.none() | st.text() | st.lists(st.none() | st.text() | st.integers()),
    )
)
def test_any_lists_are_read(files: dict[str, object]) -> None:
    """Lists of other things than texts, and no lists at all."""
    told(files).names.check("harmless")


def test_a_refusal_teaches_the_narrowest_reason() -> None:
    """One odd character: that one. A long name: its length. Else this very name."""
    rules = NameRules().after_refusal("a:b")
    with pytest.raises(BadName):
        rules.check("c:d")
    rules.check("c?d")
    rules = NameRules().after_refusal("x" * 229)
    with pytest.raises(NameTooLong):
        rules.check("y" * 229)
    rules.check("y" * 228)
    rules = NameRules().after_refusal("a:b?")
    rules.check("c:d")
    with pytest.raises(BadName):
        rules.check("a:b?")
    rules.check("a:b")


# --- checksums and refusals


def test_checksums_are_read_as_servers_write_them() -> None:
    """Several in one header, any case, unknown kinds; the strongest that is known counts."""
    text = "sha1:2FD4E1C67A2D28FCED849EE1BB76E7391B93EB12 MD5:9e107d9d372bb6826bd81d3542a419d6 FOO:1 junk"
    assert parse_checksums(text) == {
        "SHA1": "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
        "MD5": "9e107d9d372bb6826bd81d3542a419d6",
    }
    assert best_checksum(text) == ("SHA1", "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12")
    assert best_checksum(None) is None
    assert best_checksum("SHA1:") is None


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        ("SHA1", "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12"),
        ("MD5", "9e107d9d372bb6826bd81d3542a419d6"),
        ("ADLER32", "5bdc0fda"),
    ],
)
def test_sums_are_the_published_ones(kind: str, digest: str) -> None:
    """The quick brown fox."""
    summed = new_sum(kind)
    summed.update(b"The quick brown fox jumps over ")
    summed.update(b"the lazy dog")
    assert summed.hexdigest() == digest


def test_real_refusals_are_understood() -> None:
    """Captured from Nextcloud 24, and one of ownCloud's words."""
    folder = Path(__file__).parents[2] / "captures" / "nextcloud"
    head, _, body = (folder / "propfind-503-maintenance.http").read_bytes().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503")
    assert Refusal.parse(body).is_maintenance
    said = Refusal(
        "Sabre\\DAV\\Exception\\BadRequest", "The computed checksum does not match the one received"
    )
    assert said.is_checksum
    assert not said.is_name
    assert Refusal("OCA\\DAV\\Connector\\Sabre\\Exception\\InvalidPath").is_name
    assert Refusal.parse(b"<!DOCTYPE x><x/>") == Refusal()
    assert Refusal.parse(b"\xff<") == Refusal()


# --- parts


@given(st.integers(1, 1 << 43), st.integers(1, 64), st.integers(1, LARGEST_PART))
def test_parts_cover_the_file(size: int, lanes: int, most: int) -> None:
    """Without gaps, at most 10,000, none but the last smaller than 5 MiB."""
    part_bytes = part_size(size, lanes=lanes, most=most)
    assert part_bytes >= SMALLEST_PART
    assert -(-size // part_bytes) <= MOST_PARTS
    if size < 1 << 36:
        parts = parts_of(size, part_bytes)
        assert parts[0].start == 0
        assert parts[-1].end == size
        assert all(one.end == two.start for one, two in itertools.pairwise(parts))
        assert [part.number for part in parts] == list(range(1, len(parts) + 1))


def test_names_of_parts_sort_as_their_numbers() -> None:
    """Nextcloud without object storage joins them in the order of their names."""
    parts = parts_of(MOST_PARTS, 1)
    assert sorted(part.name for part in parts) == [part.name for part in parts]
