"""Extended attributes and link targets as texts of properties: what goes out comes back, and nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfs.dav import proppatch
from davfs.dav.attributes import (
    INVENTORY_MAX,
    TARGET_MAX_BYTES,
    Inventory,
    decoded_name,
    encoded_name,
    target_of,
    target_text,
    value_of,
    value_text,
    xattr_property,
)
from davfs.dav.documents import root_of
from davfs.dav.proppatch import PropertyChange

raw_names = st.binary(min_size=1, max_size=250).filter(lambda raw: b"\0" not in raw)
names = raw_names.map(lambda raw: "user." + raw.decode("utf-8", "surrogateescape"))
targets = st.binary(min_size=1, max_size=300).filter(lambda raw: b"\0" not in raw)


def through_xml(name: str, text: str) -> tuple[str, str]:
    """What a server reads out of a PROPPATCH."""
    root = root_of(proppatch.body([PropertyChange(name, text)]))
    assert root is not None
    return str(root[0][0][0].tag), root[0][0][0].text or ""


@given(names, st.binary(max_size=400))
def test_any_attribute_comes_back(name: str, value: bytes) -> None:
    """Every name of bytes and every value, through XML, with the spaces at its ends."""
    tag, text = through_xml(xattr_property(name), value_text(value))
    assert tag == xattr_property(name)
    assert decoded_name(tag.partition("}")[2]) == name
    assert value_of(text) == value
    assert text == text.strip()
    assert text


def test_all_bytes_come_back() -> None:
    """The 256 of them, and the empty value, which lighttpd does not keep as it is."""
    for value in (bytes(range(256)), b"", b"base64:AA==", b" x", b"x\n", b"\xef\xbf\xbe"):
        assert value_of(through_xml("{urn:x}a", value_text(value))[1]) == value


@pytest.mark.parametrize(
    ("name", "coded"),
    [
        ("user.colour", "colour"),
        ("user.xdg.origin.url", "xdg.origin.url"),
        ("user.a_b", "a_b"),
        ("user.a_xb", "a_x5F_xb"),
        ("user.1st", "_x31_st"),
        ("user.a b", "a_x20_b"),
        ("user.\udcff", "_xFF_"),
    ],
)
def test_plain_names_stay_readable(name: str, coded: str) -> None:
    """Other clients see the name itself where XML has it."""
    assert encoded_name(name) == coded
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9._-]*", coded)


@given(st.text(max_size=300))
def test_foreign_names_are_names_of_ours_or_none(coded: str) -> None:
    """What another client writes is never two names for one attribute."""
    name = decoded_name(coded)
    assert name is None or (
        encoded_name(name) == coded and len(name.encode("utf-8", "surrogateescape")) <= 255
    )


@given(st.text(max_size=200))
def test_foreign_values_are_bytes_or_none(text: str) -> None:
    """Broken base64 is no value; nothing raises."""
    assert isinstance(value_of(text), bytes | None)


@given(st.frozensets(names, max_size=5), names)
def test_an_inventory_names_what_there_is(held: frozenset[str], name: str) -> None:
    """It comes back as it was, and each change gives it another serial."""
    first = Inventory().changed(held, frozenset())
    assert Inventory.parse(first.text()) == first
    second = first.changed(frozenset({name}), frozenset())
    assert second.names == held | {name}
    assert second.serial != first.serial
    assert second.changed(frozenset(), frozenset({name})).names == held - {name}


def test_an_inventory_is_bounded() -> None:
    """Listings keep so many characters of it: what does not fit is refused before it is set."""
    many = frozenset(f"user.{number:0200}" for number in range(21))
    assert not Inventory().changed(many, frozenset()).fits
    assert Inventory().changed(frozenset({"user.a"}), frozenset()).fits
    assert Inventory.parse(None) == Inventory()
    assert Inventory.parse("") == Inventory()
    assert INVENTORY_MAX <= 4096


@given(targets)
def test_any_target_comes_back(raw: bytes) -> None:
    """Every target that symlink(2) takes, through XML."""
    target = raw.decode("utf-8", "surrogateescape")
    assert target_of(through_xml("{urn:x}a", target_text(target))[1]) == target


@pytest.mark.parametrize("text", [None, "", "a%00b", "x" * (TARGET_MAX_BYTES + 1)])
def test_what_is_no_target(text: str | None) -> None:
    """NUL, nothing, and more than PATH_MAX would make a link that no system call can read."""
    assert target_of(text) is None


def test_targets_are_not_judged() -> None:
    """Up, absolute, dangling: shown as they are; only the kernel follows them."""
    for target in ("../../etc/passwd", "/", "a//b/", "~/x", "100%", "ä ö"):
        assert target_of(target_text(target)) == target
    assert target_text("../a b/ä") == "../a b/ä"
