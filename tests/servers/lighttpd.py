"""lighttpd with mod_webdav, as a private instance; properties and locks in a SQLite database of its own.

It honours If-Match, but says 412 to the right tag of a file that is some seconds old (1.4.69), and grants
locks for 600 s whatever is asked. Never send it `Timeout: Infinite, Second-4100000000`: it spins for ever.
"""

from __future__ import annotations

from tests.servers.apache import basic_line
from tests.servers.base import Server, existing, program

_FOLDERS = ["/usr/lib/lighttpd", "/usr/lib64/lighttpd", "/usr/local/lib/lighttpd"]

_TEMPLATE = """\
server.modules = ( "mod_auth", "mod_authn_file", "mod_webdav", "mod_accesslog" )
server.document-root = "{root}"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{folder}/error.log"
server.upload-dirs = ( "{folder}/spool" )
server.follow-symlink = "disable"
accesslog.filename = "{folder}/access.log"
accesslog.format = "%r\\t%{{Depth}}i\\t%s\\t%I\\t%O\\t%{{Range}}i"
accesslog.escaping = "default"
mimetype.assign = ( "" => "application/octet-stream" )  # without a type there is no ETag
webdav.activate = "enable"
webdav.is-readonly = "disable"
webdav.sqlite-db-name = "{folder}/webdav.db"
{auth}
"""


class Lighttpd(Server):
    name = "lighttpd"

    def __init__(self, *, username: str | None = None, password: str | None = None) -> None:
        super().__init__(username=username, password=password)
        self._binary = program("lighttpd", "lighttpd")
        module = "mod_webdav.so"
        existing([f"{folder}/{module}" for folder in _FOLDERS], module, "lighttpd-mod-webdav")

    def _command(self) -> list[str]:
        (self.folder / "spool").mkdir(exist_ok=True)
        configuration = self.folder / "lighttpd.conf"
        configuration.write_text(
            _TEMPLATE.format(folder=self.folder, root=self.root, port=self.port, auth=self._auth_lines())
        )
        return [self._binary, "-D", "-f", str(configuration)]

    def _auth_lines(self) -> str:
        if self.username is None:
            return ""
        users = self.folder / "users"
        users.write_text(basic_line(self.username, self.password or ""))
        return (
            f'auth.backend = "htpasswd"\nauth.backend.htpasswd.userfile = "{users}"\n'
            'auth.require = ( "/" => ( "method" => "basic", "realm" => "davfs", "require" => "valid-user" ) )'
        )
