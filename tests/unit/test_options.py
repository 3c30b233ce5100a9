"""The options of -o: splitting, reading, refusing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfs.errors import ConfigError
from davfs.options import (
    IGNORED,
    OPTIONS,
    Surroundings,
    join_options,
    options_help,
    read_options,
    split_options,
)

AROUND = Surroundings(
    environ={},
    cwd="/place/dir",
    uid=1000,
    gid=1001,
    home="/home/me",
    user_id={"alice": 7}.__getitem__,
    group_id={"staff": 8}.__getitem__,
)

names = st.text(st.characters(codec="utf-8", exclude_characters="=\\, \t\n"), min_size=1).filter(
    lambda text: text == text.strip()
)
values = st.none() | st.text()


def refusal_of(texts: list[str]) -> str:
    """The line of the ConfigError; empty when they are accepted."""
    try:
        read_options(texts, AROUND)
    except ConfigError as error:
        return str(error)
    return ""


@given(st.lists(st.tuples(names, values)))
def test_split_is_the_inverse_of_join(pairs: list[tuple[str, str | None]]) -> None:
    """Whatever stands in a value, commas and backslashes included, comes back after escaping."""
    assert split_options(join_options(pairs)) == pairs


@given(st.lists(st.text(), max_size=4))
def test_any_text_is_read_or_refused_in_one_line(texts: list[str]) -> None:
    """Garbage raises ConfigError with a single line, and nothing else."""
    assert "\n" not in refusal_of(texts)


@given(st.sampled_from(OPTIONS), st.text())
def test_a_bad_value_names_its_option_and_is_not_repeated(option: object, text: str) -> None:
    """A refused value is told by the option's name; the value may be a secret in the wrong place."""
    name = option.name  # type: ignore[attr-defined]
    marked = f"zq{text}zq"
    refusal = refusal_of([join_options([(name, marked)])])
    assert not refusal or name in refusal
    assert marked not in refusal


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("cache_size=1M", "cache_size_bytes", 2**20),
        ("cache_size=1.5GiB", "cache_size_bytes", 3 * 2**29),
        ("cache_size=2097152", "cache_size_bytes", 2**21),
        ("attr_timeout=5m", "attr_timeout_max_s", 300.0),
        ("write_back=500ms", "write_back_s", 0.5),
        ("write_back=0", "write_back_s", 0.0),
        ("close=sync", "close_sync", True),
        ("sync", "close_sync", True),
        ("close=sync,close=async", "close_sync", False),
        ("ro", "read_only", True),
        ("ro,rw", "read_only", False),
        ("ro=no", "read_only", False),
        ("allow_other", "allow_other", True),
        ("umask=077", "umask", 0o077),
        ("uid=alice", "uid", 7),
        ("uid=12", "uid", 12),
        ("gid=staff", "gid", 8),
        ("cacert=~/ca.pem", "cacert", "/home/me/ca.pem"),
        ("log_file=../x.log", "log_file", "/place/x.log"),
        (r"password_command=pass a\,b", "password_command", "pass a,b"),
        ("password_command=get key=value", "password_command", "get key=value"),
        ("limit_up=500K", "limit_up_bytes_per_s", 512_000),
        ("limit_down=1.5MiB/s", "limit_down_bytes_per_s", 1_572_864),
        ("noexec,nosuid,exec", "kernel_flags", frozenset({"nosuid"})),
        (",,noatime,", "kernel_flags", frozenset({"noatime"})),
    ],
)
def test_a_good_value_is_read(text: str, field: str, value: object) -> None:
    """Each kind of option takes the spellings that its help promises; the last word counts."""
    assert read_options([text], AROUND)[field] == value


@pytest.mark.parametrize(
    "text",
    [
        "cache_size=10X",
        "cache_size=0",
        "cache_size=-1G",
        "cache_size",
        "attr_timeout=nan",
        "attr_timeout=inf",
        "attr_timeout=-1",
        "timeout=0",
        "connections=0",
        "connections=65",
        "connections=²",
        "limit_up=0",
        "limit_up=15K",
        "limit_down=2Mbit",
        "umask=9",
        "umask=7777",
        "uid=nobody-here",
        "uid=4294967295",
        "auth=oauth",
        "close=maybe",
        "ro=perhaps",
        "username=",
        "username=a\nb",
        "cacert=",
        "log_level=loud",
        "noexec=1",
    ],
)
def test_a_bad_value_is_refused(text: str) -> None:
    """A value outside its range or kind is a ConfigError that names the option."""
    with pytest.raises(ConfigError, match=text.partition("=")[0]):
        read_options([text], AROUND)


def test_what_fstab_writes_is_accepted() -> None:
    """Everything mount(8), fstab(5) and systemd add for themselves changes nothing."""
    text = ",".join(
        [*sorted(IGNORED), "user=me", "comment=hi", "x-systemd.automount", "X-mount.mkdir", "dev", "suid"]
    )
    assert read_options([text], AROUND) == read_options([], AROUND)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("usrname=x", "username"), ("cache-size=1G", "cache_size"), ("allowother", "allow_other")],
)
def test_an_unknown_option_names_the_nearest(wrong: str, right: str) -> None:
    """A misspelt option is refused with the one that was meant."""
    with pytest.raises(ConfigError, match=f"did you mean '{right}'"):
        read_options([wrong], AROUND)


@pytest.mark.parametrize("text", ["password=hunter2", "pass=hunter2", "Password=hunter2"])
def test_a_password_in_the_options_is_refused_and_not_repeated(text: str) -> None:
    """`ps` shows the options to everybody, so a password among them is refused, silently about its text."""
    with pytest.raises(ConfigError, match="never given as an option") as caught:
        read_options([text], AROUND)
    assert "hunter2" not in str(caught.value)


def test_help_has_a_line_for_every_option() -> None:
    """The help is made from the table, so it cannot forget an option."""
    heads = [line.split()[0].partition("=")[0] for line in options_help().splitlines() if line[2] != " "]
    assert heads == [option.name for option in OPTIONS]
