"""sabre/dav under php-fpm behind nginx: a server that authenticates in the application, as all in PHP do.

nginx takes the whole body (and answers `Expect` with 100) before PHP sees the request, so that no refusal of
PHP's, be it 401, 412, 423 or 507, comes before the body. Debian's version is sabre/dav 1.8, whose Digest
never lets a nonce grow old. `quota_bytes` is told as quota-available-bytes and enforced with 507.
`partial_update`: with the plugin that takes PATCH of a range.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.servers.base import MissingPart, Server, existing, program
from tests.servers.child import Child

_SABRE = ["/usr/share/php/Sabre/autoload.php"]

_FPM = """\
[global]
pid = {folder}/fpm.pid
error_log = {folder}/fpm.log
daemonize = no
[davfs]
listen = {folder}/fpm.sock
listen.mode = 0666
{user}
pm = static
pm.max_children = 8
catch_workers_output = yes
php_admin_value[memory_limit] = 128M
php_admin_value[upload_tmp_dir] = {folder}/spool
php_admin_value[sys_temp_dir] = {folder}/spool
php_admin_value[error_log] = {folder}/php.log
php_admin_value[error_reporting] = 8191
php_admin_flag[display_errors] = off
"""

_NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
{user}
events {{ worker_connections 512; }}
http {{
    log_format davfs '$request\\t$http_depth\\t$status\\t$request_length\\t$bytes_sent\\t$http_range';
    access_log {folder}/access.log davfs;
    client_body_temp_path {folder}/spool/body;
    fastcgi_temp_path {folder}/spool/fastcgi;
    proxy_temp_path {folder}/spool/proxy;
    uwsgi_temp_path {folder}/spool/uwsgi;
    scgi_temp_path {folder}/spool/scgi;
    client_max_body_size {max_body};
    server {{
        listen 127.0.0.1:{port};
        location / {{
            fastcgi_pass unix:{folder}/fpm.sock;
            fastcgi_param SCRIPT_FILENAME {folder}/server.php;
            fastcgi_param SCRIPT_NAME "";
            fastcgi_param PATH_INFO $uri;
            fastcgi_param QUERY_STRING $query_string;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param REQUEST_URI $request_uri;
            fastcgi_param CONTENT_TYPE $content_type;
            fastcgi_param CONTENT_LENGTH $content_length;
            fastcgi_param SERVER_PROTOCOL $server_protocol;
            fastcgi_param REMOTE_ADDR $remote_addr;
            fastcgi_param SERVER_NAME $server_name;
            fastcgi_param SERVER_PORT $server_port;
        }}
    }}
}}
"""

_PHP = r"""<?php
require '{autoload}';
use Sabre\DAV;

class OneUser extends DAV\Auth\Backend\AbstractBasic {{
    protected function validateUserPass($name, $password) {{
        list($user, $wanted) = explode(':', trim(file_get_contents('{folder}/account')), 2);
        return $name === $user && hash_equals($wanted, $password);
    }}
}}

class OneUserDigest extends DAV\Auth\Backend\AbstractDigest {{
    public function getDigestHash($realm, $name) {{
        list($user, $wanted) = explode(':', trim(file_get_contents('{folder}/account')), 2);
        return $name === $user ? md5("$name:$realm:$wanted") : null;
    }}
}}

class Bounded extends DAV\FSExt\Directory {{
    public function getQuotaInfo() {{ return array(1, {quota}); }}
    public function getChild($name) {{
        $path = $this->path . '/' . $name;
        return is_dir($path) && $name != '.' && $name != '..' ? new Bounded($path) : parent::getChild($name);
    }}
}}

class Quota extends DAV\ServerPlugin {{
    public function initialize(DAV\Server $server) {{
        $server->subscribeEvent('beforeMethod', array($this, 'check'), 100);
    }}
    public function check($method, $uri) {{
        if ($method === 'PUT' && (int)$_SERVER['CONTENT_LENGTH'] > {quota})
            throw new DAV\Exception\InsufficientStorage('over quota');
    }}
}}

$server = new DAV\Server(new {directory}('{root}'));
$server->setBaseUri('/');
$auth = {auth};
if ($auth) $server->addPlugin(new DAV\Auth\Plugin($auth, 'davfs tests'));
$server->addPlugin(new DAV\Locks\Plugin(new DAV\Locks\Backend\File('{folder}/locks')));
{plugins}
$server->exec();
"""


class SabreDav(Server):
    """`auth` is "basic" or "digest", and counts only with a username."""

    name = "sabredav"

    def __init__(
        self,
        *,
        username: str | None = None,
        password: str | None = None,
        auth: str = "basic",
        quota_bytes: int | None = None,
        max_body: str = "0",
        partial_update: bool = False,
    ) -> None:
        super().__init__(username=username, password=password)
        self._nginx = program("nginx", "nginx-light")
        self._fpm_program = _php_fpm()
        self._autoload = existing(_SABRE, "sabre/dav", "php-sabre-dav")
        self._auth_scheme = auth
        self._quota_bytes = quota_bytes
        self._max_body = max_body
        self._partial_update = partial_update
        self._fpm: Child | None = None

    def stop(self) -> None:
        super().stop()
        if self._fpm is not None:
            self._fpm.stop()
            self._fpm = None

    def _is_busy(self) -> bool:
        return super()._is_busy() or (self._fpm is not None and self._fpm.is_busy)

    def set_password(self, password: str) -> None:
        """Another password for the same user, from now on."""
        self.password = password
        (self.folder / "account").write_text(f"{self.username}:{password}")

    def _start(self) -> None:
        (self.folder / "spool").mkdir(exist_ok=True)
        if self.username is not None:
            self.set_password(self.password or "")
        self._write_application()
        configuration = self.folder / "fpm.conf"
        # PHP refuses root unless asked twice: then it can write what the tests wrote.
        user = "user = root\ngroup = root" if os.geteuid() == 0 else ""
        configuration.write_text(_FPM.format(folder=self.folder, user=user))
        command = [self._fpm_program, "--nodaemonize", "--fpm-config", str(configuration)]
        command += ["--allow-to-run-as-root"] if os.geteuid() == 0 else []
        socket = self.folder / "fpm.sock"
        socket.unlink(missing_ok=True)
        self._fpm = Child("php-fpm", command, self.folder / "fpm-output.log", cwd=self.folder)
        self._fpm.wait_listening(socket, self.folder / "fpm.log")
        super()._start()

    def _write_application(self) -> None:
        kinds = {"basic": "new OneUser()", "digest": "new OneUserDigest()"}
        bounded = self._quota_bytes is not None
        plugins = ["new Quota()"] if bounded else []
        plugins += ["new DAV\\PartialUpdate\\Plugin()"] if self._partial_update else []
        (self.folder / "server.php").write_text(
            _PHP.format(
                autoload=self._autoload,
                folder=self.folder,
                root=self.root,
                quota=self._quota_bytes or 0,
                directory="Bounded" if bounded else r"DAV\FSExt\Directory",
                auth="null" if self.username is None else kinds[self._auth_scheme],
                plugins="\n".join(f"$server->addPlugin({plugin});" for plugin in plugins),
            )
        )

    def _command(self) -> list[str]:
        configuration = self.folder / "nginx.conf"
        configuration.write_text(
            _NGINX.format(
                folder=self.folder,
                port=self.port,
                user="user root;" if os.geteuid() == 0 else "",
                max_body=self._max_body,
            )
        )
        error_log = f"{self.folder}/error.log"
        return [self._nginx, "-p", str(self.folder), "-e", error_log, "-c", str(configuration)]


def _php_fpm() -> str:
    """Debian names the program with its version."""
    for folder in (Path("/usr/sbin"), Path("/usr/local/sbin")):
        found = sorted(folder.glob("php-fpm*"))
        if found:
            return str(found[-1])
    raise MissingPart("php-fpm (Debian package php-fpm)")
