"""The frozen `Config`: one mount, completely described, checked once before anything is touched.

Pure: no file is opened and no environment is read here; see options.py for the `-o` options and for
`Surroundings`. Every wrong input raises ConfigError with one line; no message ever repeats a URL, because
a password may stand in it.

Invariants of a `Config`: `url` is http(s), has a host, carries no credentials, query or fragment and ends
with a slash; every path is absolute; attr_timeout_min_s <= attr_timeout_max_s.
"""

from __future__ import annotations

import hashlib
import os.path
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from davfs.errors import ConfigError
from davfs.options import HOW_TO_GIVE_CREDENTIALS, Surroundings, read_options

if TYPE_CHECKING:  # at run time imported where used: `davfs --help` must not load the file system
    from davfs.fs.settings import Settings

LockPolicy = Literal["auto", "always", "never"]
TimePolicy = Literal["auto", "properties", "local"]
AuthScheme = Literal["auto", "basic", "digest", "ntlm", "negotiate", "bearer", "none"]
_OPEN_SCHEMES = frozenset({"basic", "digest", "bearer"})  # who listens can read, replay or guess the secret


@dataclass(frozen=True, slots=True)
class Config:
    """One mount, completely described."""

    url: str
    mountpoint: str
    cache_dir: str  # of this share alone: see `share_key`
    username: str | None
    password_file: str | None
    password_command: str | None
    auth: AuthScheme
    token_file: str | None
    token_command: str | None
    allow_plaintext_auth: bool
    cacert: str | None
    pin_sha256: str | None  # lower-case hexadecimal digits
    client_cert: str | None
    client_cert_password_file: str | None
    cache_size_bytes: int
    attr_timeout_min_s: float
    attr_timeout_max_s: float
    write_back_s: float
    close_sync: bool
    lock: LockPolicy
    partial_put: bool
    symlinks: bool
    mtime: TimePolicy
    uid: int
    gid: int
    umask: int | None  # None: 022 for what others made, and programs decide for what they create
    read_only: bool
    allow_other: bool
    allow_root: bool
    nonempty: bool
    timeout_s: float
    drain_timeout_s: float
    offline_ok: bool
    notify: bool
    connections: int
    limit_up_bytes_per_s: int | None
    limit_down_bytes_per_s: int | None
    log_level: str
    log_file: str | None
    kernel_flags: frozenset[str]  # of KERNEL_FLAGS

    @property
    def plaintext_auth_allowed(self) -> bool:
        """May Basic, Digest and bearer tokens be sent? Over TLS and to this machine always."""
        parts = urlsplit(self.url)
        return parts.scheme == "https" or self.allow_plaintext_auth or _is_loopback(parts.hostname or "")

    def settings(self) -> Settings:
        """The part of it that the file system layer needs."""
        from davfs.fs.settings import Settings

        umask = 0o022 if self.umask is None else self.umask
        return Settings(
            cache_dir=self.cache_dir,
            cache_size_bytes=self.cache_size_bytes,
            attr_timeout_min_s=self.attr_timeout_min_s,
            attr_timeout_max_s=self.attr_timeout_max_s,
            write_back_s=self.write_back_s,
            close_sync=self.close_sync,
            lock=self.lock,
            partial_put=self.partial_put,
            symlinks=self.symlinks,
            mtime=self.mtime,
            uid=self.uid,
            gid=self.gid,
            file_mode=0o666 & ~umask,
            dir_mode=0o777 & ~umask,
            create_mask=0o7777 & ~(self.umask or 0),
            connections=self.connections,
            timeout_s=self.timeout_s,
            read_only=self.read_only,
        )

    def fuse_options(self) -> frozenset[str]:
        """The options for libfuse's mount. `subtype` makes the type in mountinfo `fuse.davfs`."""
        escaped = self.url.replace("\\", "\\\\").replace(",", "\\,")
        wanted = {"allow_other": self.allow_other, "allow_root": self.allow_root, "ro": self.read_only}
        flags = {name for name, on in wanted.items() if on}
        return frozenset(
            {f"fsname={escaped}", "subtype=davfs", "default_permissions"} | flags | self.kernel_flags
        )


# --- SOURCE -----------------------------------------------------------------------------------------


def checked_url(source: str) -> str:
    """`source` in its normal form, ending with a slash, or ConfigError."""
    scheme = source.partition("://")[0].lower() if "://" in source else ""
    if scheme not in {"http", "https"}:
        raise ConfigError(_not_a_url(scheme))
    try:
        parts = urlsplit(source)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError("SOURCE is not a valid URL: check the host and the port") from None
    if "@" in parts.netloc:
        raise ConfigError(f"SOURCE must not hold a user name or a password: {HOW_TO_GIVE_CREDENTIALS}")
    if not host or not source.isprintable() or re.search(r"[\s\\]", parts.netloc) or port == 0:
        raise ConfigError("SOURCE is not a valid URL: it needs a host, as in https://host/folder")
    if "?" in source or "#" in source:
        raise ConfigError(
            "SOURCE must not hold ? or #: they are no part of a folder's address (write %3F or %23)"
        )
    return urlunsplit((scheme, _netloc(scheme, host, port), _url_path(parts.path), "", ""))


def _not_a_url(scheme: str) -> str:
    instead = {"dav": "http", "webdav": "http", "davs": "https", "webdavs": "https"}.get(scheme)
    if instead:
        return f"SOURCE starts with {scheme}://, write {instead}:// instead"
    return "SOURCE must be a URL that starts with http:// or https://"


def _netloc(scheme: str, host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port in {None, 80 if scheme == "http" else 443} else f"{name}:{port}"


def _url_path(path: str) -> str:
    """Encoded where it was not, and left alone where it was: the server's own spelling is kept."""
    once = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", path)
    encoded = quote(once, safe="/%:@!$&'()*+,;=~")
    if any(re.sub("%2e", ".", part, flags=re.IGNORECASE) in {".", ".."} for part in encoded.split("/")):
        raise ConfigError("SOURCE must not hold . or .. as a folder")
    return encoded if encoded.endswith("/") else encoded + "/"


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 6.3
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# --- all of it --------------------------------------------------------------------------------------


def share_key(url: str, username: str | None) -> str:
    """A folder name for what is kept of one share as seen by one user; the same at every mount."""
    host = re.sub(r"[^a-z0-9.-]", "_", (urlsplit(url).hostname or "").lower())[:64]
    digest = hashlib.sha256(f"{url}\0{username or ''}".encode("utf-8", "surrogateescape")).hexdigest()
    return f"{host}-{digest[:16]}"


def default_cache_root(around: Surroundings) -> str:
    """Where caches live when nothing is said. It holds unsent changes, so it must survive a reboot."""
    if around.uid == 0:
        return "/var/cache/davfs"
    configured = around.environ.get("XDG_CACHE_HOME", "")
    if configured.startswith("/"):  # the XDG specification: relative ones are to be ignored
        return str(Path(configured, "davfs"))
    if around.home:
        return str(Path(around.home, ".cache", "davfs"))
    return f"/var/tmp/davfs-{around.uid}"  # noqa: S108 - made 0700 by the content store, which refuses another owner's


def build(source: str, mountpoint: str, texts: Iterable[str], around: Surroundings) -> Config:
    """The Config for one mount. `mountpoint` should be resolved already; it is only made absolute here."""
    values = read_options(texts, around)
    url = checked_url(source)
    _check_together(values)
    root = values["cache_dir"] or default_cache_root(around)
    values["cache_dir"] = str(Path(root, share_key(url, values["username"])))
    values["uid"] = around.uid if values["uid"] is None else values["uid"]
    values["gid"] = around.gid if values["gid"] is None else values["gid"]
    config = Config(url=url, mountpoint=os.path.normpath(Path(around.cwd, mountpoint)), **values)
    if config.auth in _OPEN_SCHEMES and not config.plaintext_auth_allowed:
        raise ConfigError(
            f"auth={config.auth} over plain http shows the password to the network: "
            "use https, or allow_plaintext_auth"
        )
    if (config.pin_sha256 or config.client_cert) and not url.startswith("https:"):
        raise ConfigError("pin_sha256 and client_cert need an https address")
    return config


def _check_together(values: dict[str, Any]) -> None:
    _check_attr_timeouts(values)
    _check_credentials(values)
    _check_token(values)
    if values["client_cert_password_file"] and not values["client_cert"]:
        raise ConfigError("client_cert_password_file needs client_cert")
    if values["allow_other"] and values["allow_root"]:
        raise ConfigError("allow_other and allow_root exclude each other")


def _check_credentials(values: dict[str, Any]) -> None:
    sources = [name for name in ("password_file", "password_command") if values[name]]
    if len(sources) == 2:
        raise ConfigError("password_file and password_command exclude each other")
    if sources and not values["username"]:
        raise ConfigError(f"{sources[0]} needs username")
    if values["auth"] == "none" and values["username"]:
        raise ConfigError("auth=none sends no credentials, so it takes no username")
    if values["auth"] in {"basic", "digest", "ntlm"} and not values["username"]:
        raise ConfigError(f"auth={values['auth']} needs username")
    if ":" in (values["username"] or "") and values["auth"] == "basic":
        raise ConfigError("a username with a colon cannot be sent with auth=basic (RFC 7617)")


def _check_token(values: dict[str, Any]) -> None:
    sources = [name for name in ("token_file", "token_command") if values[name]]
    if len(sources) == 2:
        raise ConfigError("token_file and token_command exclude each other")
    if sources and values["auth"] not in {"auto", "bearer"}:
        raise ConfigError(f"{sources[0]} goes with auth=bearer")
    if sources and values["username"]:
        raise ConfigError(f"{sources[0]} and username exclude each other")


def _check_attr_timeouts(values: dict[str, Any]) -> None:
    longest_s = values["attr_timeout_max_s"]
    if values["attr_timeout_min_s"] is None:
        values["attr_timeout_min_s"] = min(3.0, longest_s)
    if values["attr_timeout_min_s"] > longest_s:
        raise ConfigError("attr_timeout_min must not be more than attr_timeout")
