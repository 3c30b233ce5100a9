"""Profiles: where they are found, what they may say, and how what is wrong is told."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from davfs.commands.mount import described
from davfs.config import build
from davfs.errors import ConfigError
from davfs.options import OPTIONS, Surroundings
from davfs.profiles import folders, is_name, load, names, parse
from tests.unit.test_options import AROUND

HERE = Path("/etc/davfs/work.toml")
MINIMAL = 'url = "https://host/dav"\n'


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    """A user whose configuration is in a folder of this test."""
    return replace(AROUND, environ={"XDG_CONFIG_HOME": str(tmp_path)}, uid=os.getuid())


def write(tmp_path: Path, text: str, name: str = "work", mode: int = 0o600) -> Path:
    path = tmp_path / "davfs" / f"{name}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_every_option_is_a_key() -> None:
    """What `-o` takes a profile takes too, with TOML's own types."""
    text = MINIMAL + (
        'mountpoint = "~/cloud"\nusername = "me, myself"\ncache_size = "20G"\nallow_other = true\n'
        "ro = false\n"
        'attr_timeout = 7.5\nconnections = 4\numask = 0o027\nnoexec = true\npassword_file = "secret"\n'
    )
    profile = parse(HERE, text)
    config = build(profile.url, "/mnt", [profile.options], AROUND)
    assert (config.username, config.cache_size_bytes, config.allow_other) == ("me, myself", 20 * 2**30, True)
    assert (config.read_only, config.attr_timeout_max_s, config.connections) == (False, 7.5, 4)
    assert (config.umask, config.kernel_flags) == (0o027, frozenset({"noexec"}))
    assert (config.password_file, profile.mountpoint) == ("/etc/davfs/secret", "~/cloud")


@pytest.mark.parametrize("option", [option.name for option in OPTIONS])
def test_no_option_is_forgotten(option: str) -> None:
    """A key of each option's name is never unknown."""
    parse(HERE, f"{MINIMAL}{option} = true\n" if option == "ro" else f'{MINIMAL}{option} = "1"\n')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "url is missing"),
        (MINIMAL + 'usrname = "me"', "did you mean 'username'"),
        (MINIMAL + 'mountpont = "/x"', "did you mean 'mountpoint'"),
        (MINIMAL + 'password = "hunter2"', "a password is never given"),
        (MINIMAL + "[share]\n", "unknown entry 'share'"),
        (MINIMAL + "username = [1]\n", "username needs a text"),
        (MINIMAL + 'noexec = "x"\n', "noexec needs true or false"),
        ("url = 3\n", "url needs a text"),
        ("url = hunter2\n", "not valid TOML (at line 1, column"),
        ("url", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(text: str, said: str) -> None:
    """The file and the key are named, the nearest known one too; no value is repeated."""
    with pytest.raises(ConfigError) as caught:
        parse(HERE, text)
    assert str(HERE) in str(caught.value)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_wrong_value_is_told_as_of_an_option() -> None:
    """A value that cannot be read names its option."""
    profile = parse(HERE, MINIMAL + "umask = 99999\n")
    with pytest.raises(ConfigError, match="'umask' needs an octal number"):
        build(profile.url, "/mnt", [profile.options], AROUND)


def test_the_users_own_comes_first(tmp_path: Path, around: Surroundings) -> None:
    """~/.config/davfs is looked at before /etc/davfs, and XDG_CONFIG_HOME is obeyed."""
    assert [str(folder) for folder in folders(replace(around, environ={}))] == [
        f"{AROUND.home}/.config/davfs",
        "/etc/davfs",
    ]
    assert folders(around)[0] == tmp_path / "davfs"
    write(tmp_path, MINIMAL)
    assert load("work", around).url == "https://host/dav"
    assert "work" in names(around)


def test_a_name_that_is_not_there_is_told(tmp_path: Path, around: Surroundings) -> None:
    """Where it was looked for, and which name is near."""
    write(tmp_path, MINIMAL)
    with pytest.raises(ConfigError, match=r"no profile 'wrk' .*wrk\.toml or /etc/davfs.*did you mean 'work'"):
        load("wrk", around)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_profile_that_others_can_write_is_refused(tmp_path: Path, around: Surroundings, mode: int) -> None:
    """Whoever can write it could have commands run by this user."""
    write(tmp_path, MINIMAL, mode=mode)
    with pytest.raises(ConfigError, match="can be changed by others"):
        load("work", around)


def test_a_profile_of_somebody_else_is_refused(tmp_path: Path, around: Surroundings) -> None:
    """Only root's and one's own are read."""
    path = write(tmp_path, MINIMAL, mode=0o644)
    stranger = replace(around, uid=os.getuid() + 1)
    if os.getuid() == 0:
        os.chown(path, 4242, -1)
    with pytest.raises(ConfigError, match="can be changed by others"):
        load("work", stranger)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xff", "not UTF-8"), (b"#" * 70000, "larger than"), (None, "not a regular file")],
)
def test_odd_files_are_refused(
    tmp_path: Path, around: Surroundings, content: bytes | None, said: str
) -> None:
    """Bounded, text, and a file."""
    path = write(tmp_path, "")
    if content is None:
        path.unlink()
        path.symlink_to("/dev/null")
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load("work", around)


@pytest.mark.parametrize(
    ("word", "yes"),
    [("work", True), ("a.b-c@d", True), ("", False), ("a/b", False), ("..", False), ("https://h/", False)],
)
def test_a_name_is_no_path(word: str, *, yes: bool) -> None:
    """A profile's name leads out of no folder."""
    assert is_name(word) is yes


def test_the_command_line_comes_after_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mount point and options that are given count; a missing mount point is told."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    write(tmp_path, MINIMAL + 'mountpoint = "drive"\nconnections = 3\n')
    source, where, options = described("work", None, ["connections=5"])
    assert (source, where) == ("https://host/dav", str(tmp_path / "davfs" / "drive"))
    assert build(source, where, options, AROUND).connections == 5
    assert described("work", "/mnt/other", [])[1] == "/mnt/other"
    write(tmp_path, MINIMAL)
    with pytest.raises(ConfigError, match="names no mountpoint"):
        described("work", None, [])
    with pytest.raises(ConfigError, match="say where"):
        described("https://host/", None, [])
