"""Apache httpd with mod_dav_fs, as a private instance.

The configuration follows Debian's defaults (event MPM, KeepAlive of 100 requests, mod_dir on) except
`DirectoryIndex disabled`: with an index, a folder that contains index.html answers 405 to PROPFIND.
Started by root, its workers are www-data, because httpd refuses to be root; hence `owner`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
from pathlib import Path

from tests.servers.base import MissingPart, Server, existing, program

_REALM = "davfs tests"
_USERS = ("www-data", "apache", "http", "nobody")  # Debian, Fedora, Arch
_MODULES = (
    "mpm_event", "authn_core", "authz_core", "authz_host", "authz_user", "authn_file", "auth_basic",
    "auth_digest", "dav", "dav_fs", "dir", "headers", "reqtimeout",
)  # fmt: skip
_MAYBE_BUILT_IN = ("log_config", "logio", "unixd")  # compiled in on Debian, modules elsewhere

_TEMPLATE = """\
ServerRoot "{folder}"
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
PidFile "{folder}/apache.pid"
DefaultRuntimeDir "{folder}"
{modules}
{user}
StartServers 1
ServerLimit 2
ThreadsPerChild 32
MaxRequestWorkers 64
MinSpareThreads 1
MaxSpareThreads 64
Timeout 60
KeepAlive On
MaxKeepAliveRequests {max_keepalive_requests}
KeepAliveTimeout {keepalive_timeout_s}
EnableSendfile Off
ErrorLog "{folder}/error.log"
LogLevel warn
BufferedLogs Off
LogFormat "%r\\t%{{Depth}}i\\t%>s\\t%I\\t%O\\t%{{Range}}i" davfs
CustomLog "{folder}/access.log" davfs
DavLockDB "{folder}/locks/DavLock"
DocumentRoot "{root}"
<Directory "/">
    AllowOverride None
    Require all denied
</Directory>
<Directory "{root}">
    Dav On
    Options None
    DirectoryIndex disabled
    {limit}
    {auth}
</Directory>
{extra}
"""


class Apache(Server):
    """`auth` is "basic" or "digest" and counts only with a username; `extra` ends the configuration."""

    name = "apache"

    def __init__(
        self,
        *,
        username: str | None = None,
        password: str | None = None,
        auth: str = "basic",
        nonce_lifetime_s: int = 300,
        max_keepalive_requests: int = 100,
        keepalive_timeout_s: int = 5,
        limit_request_body: int | None = None,
        extra: str = "",
    ) -> None:
        super().__init__(username=username, password=password)
        self._binary = program("apache2", "apache2") if _has("apache2") else program("httpd", "apache2")
        self._auth_scheme = auth
        self._nonce_lifetime_s = nonce_lifetime_s
        self._max_keepalive_requests = max_keepalive_requests
        self._keepalive_timeout_s = keepalive_timeout_s
        self._limit_request_body = limit_request_body
        self._extra = extra

    @property
    def owner(self) -> str | None:
        if os.geteuid() != 0:
            return None
        known = {entry.pw_name for entry in pwd.getpwall()}
        return next(name for name in _USERS if name in known)

    def _command(self) -> list[str]:
        (self.folder / "locks").mkdir(exist_ok=True)
        self.own(self.folder / "locks")
        configuration = self.folder / "apache.conf"
        configuration.write_text(
            _TEMPLATE.format(
                folder=self.folder,
                root=self.root,
                port=self.port,
                modules=_load_modules(),
                user=self._user_lines(),
                max_keepalive_requests=self._max_keepalive_requests,
                keepalive_timeout_s=self._keepalive_timeout_s,
                limit=""
                if self._limit_request_body is None
                else f"LimitRequestBody {self._limit_request_body}",
                auth=self._auth_lines(),
                extra=self._extra,
            )
        )
        return [self._binary, "-f", str(configuration), "-DFOREGROUND"]

    def _user_lines(self) -> str:
        if self.owner is None:
            return ""
        group = pwd.getpwnam(self.owner).pw_gid
        return f"User {self.owner}\nGroup #{group}"

    def _auth_lines(self) -> str:
        if self.username is None:
            return "Require all granted"
        users = self.folder / "users"
        lines = [f'AuthName "{_REALM}"', f'AuthUserFile "{users}"', "Require valid-user"]
        if self._auth_scheme == "basic":
            users.write_text(basic_line(self.username, self.password or ""))
            lines.append("AuthType Basic")
        else:
            users.write_text(_digest_line(self.username, self.password or ""))
            lines += [
                "AuthType Digest",
                "AuthDigestDomain /",
                f"AuthDigestNonceLifetime {self._nonce_lifetime_s}",
            ]
        return "\n    ".join(lines)


def basic_line(username: str, password: str) -> str:
    """A line of an htpasswd file, in the SHA-1 form that Apache and nginx both read."""
    digest = base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()
    return f"{username}:{{SHA}}{digest}\n"


def _digest_line(username: str, password: str) -> str:
    digest = hashlib.md5(f"{username}:{_REALM}:{password}".encode()).hexdigest()
    return f"{username}:{_REALM}:{digest}\n"


def _has(name: str) -> bool:
    try:
        program(name, "apache2")
    except MissingPart:
        return False
    return True


def _load_modules() -> str:
    folders = ["/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/lib/httpd/modules"]
    folder = existing(folders, "Apache's modules", "apache2")
    return "\n".join(
        [f"LoadModule {name}_module {_module(folder, name)}" for name in _MODULES]
        + [
            f"<IfModule !{name}_module>\nLoadModule {name}_module {folder}/mod_{name}.so\n</IfModule>"
            for name in _MAYBE_BUILT_IN
        ]
    )


def _module(folder: Path, name: str) -> Path:
    return existing([f"{folder}/mod_{name}.so"], f"mod_{name}", "apache2")
