"""The Config of one mount: the URL, defaults that depend on the surroundings, what excludes what."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfs.config import Config, build, checked_url, share_key
from davfs.errors import ConfigError
from davfs.options import OPTIONS
from tests.unit.test_options import AROUND


def config_for(*options: str, source: str = "https://host/dav") -> Config:
    return build(source, "/mnt", options, AROUND)


def test_every_field_has_its_option() -> None:
    """The table of options and the fields of Config are the same list."""
    from_options = [option.field for option in OPTIONS]
    assert sorted([*from_options, "url", "mountpoint", "kernel_flags"]) == sorted(
        f.name for f in fields(Config)
    )


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("https://host", "https://host/"),
        ("HTTPS://Host/DAV", "https://host/DAV/"),
        ("http://host:80/a/", "http://host/a/"),
        ("https://host:80/a", "https://host:80/a/"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x/"),
        ("http://h/My Files/ü", "http://h/My%20Files/%C3%BC/"),
        ("http://h/a%20b/100%", "http://h/a%20b/100%25/"),
        ("http://h/remote.php/dav/files/me@x.org", "http://h/remote.php/dav/files/me@x.org/"),
    ],
)
def test_a_source_is_brought_to_normal_form(source: str, url: str) -> None:
    """Scheme and host in lower case, no default port, encoded once, a slash at the end."""
    assert checked_url(source) == url
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "source",
    [
        "",
        "host/dav",
        "ftp://host/",
        "davs://host/",
        "https://",
        "https:///path",
        "http://h:99999/",
        "http://h:x/",
        "http://h:0/",
        "http://h/?a=b",
        "http://h/#x",
        "http://h/?",
        "http://h/a/../b",
        "http://h/%2e%2E/",
        "http://[::1/",
        "http://a b/",
        "http://h\\x/",
        "http://h/a\nb",
    ],
)
def test_a_source_that_is_no_folder_is_refused(source: str) -> None:
    """What is not the http(s) URL of a folder is refused in one line."""
    with pytest.raises(ConfigError, match="SOURCE") as caught:
        checked_url(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source", ["https://me:hunter2@host/", "https://hunter2@host/", "https://:hunter2@h:1/"]
)
def test_credentials_in_the_source_are_refused_and_not_repeated(source: str) -> None:
    """A URL with credentials would stand in `ps`; the message says how to give them, not what they are."""
    with pytest.raises(ConfigError, match="username=NAME") as caught:
        checked_url(source)
    assert "hunter2" not in str(caught.value)


@given(st.text())
def test_any_source_is_normal_or_refused(source: str) -> None:
    """Normal form is a fixed point, and no text raises anything but ConfigError."""
    try:
        url = checked_url(f"http://{source}")
    except ConfigError:
        return
    assert checked_url(url) == url


@pytest.mark.parametrize(
    ("changes", "folder"),
    [
        ({}, "/home/me/.cache/davfs"),
        ({"environ": {"XDG_CACHE_HOME": "/xdg"}}, "/xdg/davfs"),
        ({"environ": {"XDG_CACHE_HOME": "relative"}}, "/home/me/.cache/davfs"),
        ({"home": None}, "/var/tmp/davfs-1000"),
        ({"uid": 0, "environ": {"XDG_CACHE_HOME": "/xdg"}}, "/var/cache/davfs"),
    ],
)
def test_the_cache_stands_where_the_user_keeps_caches(changes: dict[str, object], folder: str) -> None:
    """XDG for users, /var/cache for root, and a place that survives a reboot without a home."""
    around = replace(AROUND, **changes)  # type: ignore[arg-type]
    config = build("https://host/dav", "/mnt", [], around)
    assert config.cache_dir == f"{folder}/{share_key('https://host/dav/', None)}"


def test_each_share_and_user_has_its_own_cache_folder() -> None:
    """The same share is found again at every mount; another user or folder gets another one."""
    keys = [share_key(url, user) for url in ("https://h/a/", "https://h/b/") for user in (None, "x", "y")]
    assert len(set(keys)) == 6
    assert share_key("https://h/a/", "x") == keys[1]
    assert config_for("cache_dir=/c").cache_dir.startswith("/c/host-")


def test_attr_timeouts_stay_in_order() -> None:
    """A short attr_timeout also shortens the minimum; a minimum above it is refused."""
    assert config_for("attr_timeout=1").attr_timeout_min_s == 1.0
    assert config_for().attr_timeout_min_s == 3.0
    with pytest.raises(ConfigError, match="attr_timeout_min"):
        config_for("attr_timeout=5,attr_timeout_min=6")


@pytest.mark.parametrize(
    "options",
    [
        "username=u,password_file=/f,password_command=c",
        "password_file=/f",
        "auth=none,username=u",
        "auth=digest",
        "auth=ntlm",
        "token_file=/f,token_command=c",
        "token_file=/f,auth=basic,username=u",
        "token_file=/f,username=u",
        "client_cert_password_file=/f",
        "allow_other,allow_root",
        "username=a:b,auth=basic",
    ],
)
def test_what_excludes_each_other_is_refused(options: str) -> None:
    """Options that contradict each other are told at start, not discovered at the server."""
    with pytest.raises(ConfigError):
        config_for(options)


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("https://host/", True),
        ("http://host/", False),
        ("http://127.0.0.1/", True),
        ("http://[::1]/", True),
        ("http://localhost/", True),
        ("http://127.0.0.1.example/", False),
        ("http://192.168.0.1/", False),
    ],
)
def test_a_password_goes_in_the_clear_only_to_this_machine(source: str, allowed: bool) -> None:
    """Basic over plain http needs a loopback address or the user's word."""
    assert config_for("username=u", source=source).plaintext_auth_allowed is allowed
    assert config_for("username=u,allow_plaintext_auth", source=source).plaintext_auth_allowed


@pytest.mark.parametrize("options", ["username=u,auth=basic", "username=u,auth=digest", "auth=bearer"])
def test_an_open_scheme_over_plain_http_is_refused_at_once(options: str) -> None:
    """With the scheme given there is nothing to wait for: the refusal comes before the network."""
    with pytest.raises(ConfigError, match="allow_plaintext_auth"):
        config_for(options, source="http://host/")


@pytest.mark.parametrize("option", ["client_cert=/f", f"pin_sha256={'0' * 64}"])
def test_certificates_need_tls(option: str) -> None:
    """A pin that protects nothing would give false comfort."""
    with pytest.raises(ConfigError, match="https"):
        config_for(option, source="http://host/")
    assert config_for(option, source="https://host/").url == "https://host/"


def test_a_fingerprint_may_have_colons() -> None:
    """As openssl prints it."""
    given = "AB:" * 31 + "AB"
    assert config_for(f"pin_sha256={given}", source="https://host/").pin_sha256 == "ab" * 32
    with pytest.raises(ConfigError, match="64"):
        config_for("pin_sha256=abc", source="https://host/")


def test_settings_carry_the_modes_from_umask() -> None:
    """The file system layer gets modes, not the umask; only a given one narrows what programs create."""
    assert config_for().settings().create_mask == 0o7777
    assert config_for("umask=027").settings().create_mask == 0o7750
    settings = config_for("umask=027,ro,close=sync").settings()
    assert (settings.file_mode, settings.dir_mode) == (0o640, 0o750)
    assert settings.read_only
    assert settings.close_sync


def test_fuse_options_escape_the_source() -> None:
    """libfuse splits at commas, so those of the URL are escaped; the type becomes fuse.davfs."""
    options = config_for("ro,nosuid,allow_other", source="https://h/a,b").fuse_options()
    assert options >= {r"fsname=https://h/a\,b/", "subtype=davfs", "ro", "nosuid", "allow_other"}
