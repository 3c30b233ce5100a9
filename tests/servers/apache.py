"""Apache httpd with mod_dav_fs, as a private instance.

The configuration follows Debian's defaults (event MPM, KeepAlive of 100 requests, mod_dir on) except
`DirectoryIndex disabled`: with an index, a folder that contains index.html answers 405 to PROPFIND.
Started by root, its workers are www-data, because httpd refuses to be root; hence `owner`.

Authentication: Basic, Digest (with the life of a nonce), and NTLM through mod_auth_gssapi and gss-ntlmssp,
where a connection and not a request is authenticated. That one offers Negotiate and NTLM; Negotiate wraps
NTLM, as there is no Kerberos here. Over TLS it can ask for a client certificate.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
from pathlib import Path

from tests.servers.base import MissingPart, Server, existing, program
from tests.servers.certificates import Certificates

_REALM = "davfs tests"
_USERS = ("www-data", "apache", "http", "nobody")  # Debian, Fedora, Arch
_MODULES = (
    "mpm_event", "authn_core", "authz_core", "authz_host", "authz_user", "authn_file", "auth_basic",
    "auth_digest", "dav", "dav_fs", "dir", "headers", "reqtimeout",
)  # fmt: skip
_MAYBE_BUILT_IN = ("log_config", "logio", "unixd")  # compiled in on Debian, modules elsewhere

NTLM_DOMAIN = "LAB"
_NTLM_MECHANISM = "/etc/gss/mech.d/mech.ntlmssp.conf"

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
    """`auth` is "basic", "digest" or "ntlm" and counts only with a username; `extra` ends the configuration.

    `nonce_lifetime_s`: mod_auth_digest answers 401 with stale=true for an older one. With
    `certificates` it speaks TLS, and `client_certificate` demands one of the same authority.
    """

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
        certificates: Certificates | None = None,
        client_certificate: bool = False,
        extra: str = "",
    ) -> None:
        super().__init__(username=username, password=password)
        self._binary = program("apache2", "apache2") if _has("apache2") else program("httpd", "apache2")
        self._auth_scheme = auth
        self._nonce_lifetime_s = nonce_lifetime_s
        self._max_keepalive_requests = max_keepalive_requests
        self._keepalive_timeout_s = keepalive_timeout_s
        self._limit_request_body = limit_request_body
        self._certificates = certificates
        self._client_certificate = client_certificate
        self.scheme = "http" if certificates is None else "https"
        self._extra = extra
        if auth == "ntlm":
            existing([_NTLM_MECHANISM], "the GSSAPI mechanism NTLMSSP", "gss-ntlmssp")

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
                modules=_load_modules(self._further_modules()),
                user=self._user_lines(),
                max_keepalive_requests=self._max_keepalive_requests,
                keepalive_timeout_s=self._keepalive_timeout_s,
                limit=""
                if self._limit_request_body is None
                else f"LimitRequestBody {self._limit_request_body}",
                auth=self._auth_lines(),
                extra="\n".join([*self._tls_lines(), self._extra]),
            )
        )
        # gss-ntlmssp takes its accounts from the file that this variable names; gssntlmssp(8)
        accounts = f"NTLM_USER_FILE={self.folder}/ntlm-users"
        return ["env", accounts, self._binary, "-f", str(configuration), "-DFOREGROUND"]

    def set_password(self, password: str) -> None:
        """Another password for the same user, from now on: the server reads its file at each request.

        gss-ntlmssp reads its file at each handshake.
        """
        self.password = password
        self._auth_lines()

    def _further_modules(self) -> list[str]:
        gssapi = ["auth_gssapi"] if self.username is not None and self._auth_scheme == "ntlm" else []
        return gssapi + (["socache_shmcb", "ssl"] if self._certificates is not None else [])

    def _tls_lines(self) -> list[str]:
        if self._certificates is None:
            return []
        lines = [
            "SSLEngine On",
            f'SSLCertificateFile "{self._certificates.server}"',
            f'SSLCertificateKeyFile "{self._certificates.server_key}"',
            "SSLProtocol -all +TLSv1.2 +TLSv1.3",
            f'SSLSessionCache "shmcb:{self.folder}/sessions(512000)"',
        ]
        if self._client_certificate:
            lines += ["SSLVerifyClient require", f'SSLCACertificateFile "{self._certificates.ca}"']
        return lines

    def _user_lines(self) -> str:
        if self.owner is None:
            return ""
        group = pwd.getpwnam(self.owner).pw_gid
        return f"User {self.owner}\nGroup #{group}"

    def _auth_lines(self) -> str:
        if self.username is None:
            return "Require all granted"
        password = self.password or ""
        if self._auth_scheme == "ntlm":
            accounts = self.folder / "ntlm-users"
            accounts.write_text(f"{NTLM_DOMAIN}:{self.username}:{password}\n")
            lines = [
                "AuthType GSSAPI",
                "GssapiAllowedMech ntlmssp",
                "GssapiConnectionBound On",
                "GssapiUseSessions Off",
            ]
        elif self._auth_scheme == "digest":
            (self.folder / "users").write_text(_digest_line(self.username, password))
            lines = [
                "AuthType Digest",
                "AuthDigestDomain /",
                f"AuthDigestNonceLifetime {self._nonce_lifetime_s}",
                f'AuthUserFile "{self.folder}/users"',
            ]
        else:
            (self.folder / "users").write_text(basic_line(self.username, password))
            lines = ["AuthType Basic", f'AuthUserFile "{self.folder}/users"']
        return "\n    ".join([*lines, f'AuthName "{_REALM}"', "Require valid-user"])


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


def _load_modules(further: list[str]) -> str:
    folders = ["/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/lib/httpd/modules"]
    folder = existing(folders, "Apache's modules", "apache2")
    return "\n".join(
        [f"LoadModule {name}_module {_module(folder, name)}" for name in (*_MODULES, *further)]
        + [
            f"<IfModule !{name}_module>\nLoadModule {name}_module {folder}/mod_{name}.so\n</IfModule>"
            for name in _MAYBE_BUILT_IN
        ]
    )


def _module(folder: Path, name: str) -> Path:
    package = "libapache2-mod-auth-gssapi" if name == "auth_gssapi" else "apache2"
    return existing([f"{folder}/mod_{name}.so"], f"mod_{name}", package)
