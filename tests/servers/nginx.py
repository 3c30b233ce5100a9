"""nginx with its own http_dav_module and the dav-ext module, as a private instance.

One worker, so that the access log is in the order of the answers. Its DAV is the weakest of the servers
here, which is why it is here: it honours no preconditions, has no ETag in listings, hides names that begin
with a dot, and needs a slash at the end of every folder's URL.
The files of a request body are kept on the file system of the share, as otherwise each PUT would be copied.
"""

from __future__ import annotations

import os

from tests.servers.apache import basic_line
from tests.servers.base import Server, existing, program

_MODULE = "ngx_http_dav_ext_module.so"
_PACKAGE = "libnginx-mod-http-dav-ext"
_FOLDERS = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"]

_TEMPLATE = """\
load_module {module};
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
{user}
events {{ worker_connections 512; }}
http {{
    default_type application/octet-stream;
    log_format davfs '$request\\t$http_depth\\t$status\\t$request_length\\t$bytes_sent\\t$http_range';
    access_log {folder}/access.log davfs;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/unused-proxy;
    fastcgi_temp_path {folder}/unused-fastcgi;
    uwsgi_temp_path {folder}/unused-uwsgi;
    scgi_temp_path {folder}/unused-scgi;
    client_max_body_size {max_body};
    keepalive_requests {keepalive_requests};
    keepalive_timeout {keepalive_timeout_s};
    dav_ext_lock_zone zone=davfs:10m timeout=60;
    server {{
        listen 127.0.0.1:{port};
        server_name 127.0.0.1;
        location / {{
            root {root};
            dav_methods PUT DELETE MKCOL COPY MOVE;
            dav_ext_methods PROPFIND OPTIONS LOCK UNLOCK;
            dav_ext_lock zone=davfs;
            dav_access user:rw group:r all:r;
            create_full_put_path off;
            min_delete_depth 0;
            {auth}
        }}
    }}
}}
"""


class Nginx(Server):
    name = "nginx"

    def __init__(
        self,
        *,
        username: str | None = None,
        password: str | None = None,
        max_body: str = "0",
        keepalive_requests: int = 1000,
        keepalive_timeout_s: int = 75,
    ) -> None:
        super().__init__(username=username, password=password)
        self._binary = program("nginx", "nginx-light")
        self._module = existing([f"{folder}/{_MODULE}" for folder in _FOLDERS], _MODULE, _PACKAGE)
        self._max_body = max_body
        self._keepalive_requests = keepalive_requests
        self._keepalive_timeout_s = keepalive_timeout_s

    def _command(self) -> list[str]:
        configuration = self.folder / "nginx.conf"
        configuration.write_text(
            _TEMPLATE.format(
                module=self._module,
                folder=self.folder,
                root=self.root,
                port=self.port,
                user="user root;" if os.geteuid() == 0 else "",
                max_body=self._max_body,
                keepalive_requests=self._keepalive_requests,
                keepalive_timeout_s=self._keepalive_timeout_s,
                auth=self._auth_lines(),
            )
        )
        # -e: without it nginx opens its compiled-in error log first, which an ordinary user may not
        return [
            self._binary,
            "-p",
            str(self.folder),
            "-e",
            f"{self.folder}/error.log",
            "-c",
            str(configuration),
        ]

    def _auth_lines(self) -> str:
        if self.username is None:
            return ""
        users = self.folder / "users"
        users.write_text(basic_line(self.username, self.password or ""))
        return f'auth_basic "davfs tests"; auth_basic_user_file {users};'
