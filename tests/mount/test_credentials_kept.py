"""Passwords in a real mount: seen by nobody, changed without remounting, tried no more often than needed."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.mount.drivers import Mount
from tests.servers import Apache, Certificates, Relay, WsgiDav
from tests.servers.certificates import P12_PASSWORD

pytestmark = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse cannot be opened"
)

SECRET = "hunter2-Geheim&x"
CHANGED = "changed-Geheim&y"
SCHEMES = ("basic", "digest", "ntlm")


def _forms(secret: str) -> dict[str, bytes]:
    """How a password may show: plain, as Basic sends it, as NTLM hashes it, as a URL holds it."""
    return {
        "plain": secret.encode(),
        "base64": base64.b64encode(f"ann:{secret}".encode()).rstrip(b"="),
        "UTF-16": secret.encode("utf-16-le"),
        "quoted": quote(secret).encode(),
        "repr": repr(secret.encode())[2:-1].encode(),
    }


def _shown(place: str, content: bytes, secret: str = SECRET) -> list[str]:
    return [f"{place} shows it ({form})" for form, text in _forms(secret).items() if text in content]


def _files_below(*folders: Path) -> Iterator[Path]:
    return (path for folder in folders for path in folder.rglob("*") if path.is_file())


class Drive:
    """`davfs mount` in the background, with surroundings of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.point = folder / "mnt"
        self.cache = folder / "cache"
        self.log = folder / "davfs.log"
        self.point.mkdir()
        (folder / "config").mkdir()
        self.said = b""
        self.environ = os.environ | {
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "XDG_RUNTIME_DIR": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "HOME": str(folder),
            "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        }

    def davfs(self, *words: str, typed: str = "", **environ: str) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [sys.executable, "-m", "davfs", *words],
            env=self.environ | environ,
            input=typed.encode(),
            capture_output=True,
            cwd="/",
            timeout=60,
            check=False,
        )
        self.said += done.stdout + done.stderr
        return done

    def mount(self, url: str, *options: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
        return self.mount_plain(url, "username=ann", *options, **environ)

    def mount_plain(self, url: str, *options: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
        """Without a user name."""
        texts = [f"cache_dir={self.cache}", f"log_file={self.log}", "timeout=5", *options]
        return self.davfs("mount", url, str(self.point), "-o", ",".join(texts), **environ)

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.davfs("status", str(self.point), "--json").stdout)
        return answer

    def close(self) -> None:
        self.davfs("unmount", str(self.point), "--timeout", "0", "--force")


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    one = Drive(tmp_path)
    yield one
    one.close()


def _by_file(drive: Drive) -> tuple[str, dict[str, str]]:
    path = drive.folder / "secret-file"
    path.touch(0o600)
    path.write_text(SECRET + "\n")
    return f"password_file={path}", {}


def _by_command(drive: Drive) -> tuple[str, dict[str, str]]:
    option, _ = _by_file(drive)
    return f"password_command=cat {option.partition('=')[2]}", {}


def _by_environment(_: Drive) -> tuple[str, dict[str, str]]:
    return "ro=no", {"DAVFS_PASSWORD": SECRET}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("source", [_by_file, _by_command, _by_environment])
def test_the_password_is_seen_nowhere(
    drive: Drive, scheme: str, source: Callable[[Drive], tuple[str, dict[str, str]]]
) -> None:
    """Searched: argv and environment of the daemon, its debug log, all commands' output, the cache folder."""
    with Apache(username="ann", password=SECRET, auth=scheme) as server:
        option, environ = source(drive)
        done = drive.mount(server.url, option, "log_level=debug", **environ)
        assert done.returncode == 0, done.stderr
        (drive.point / "a.txt").write_text("content")
        assert (drive.point / "a.txt").read_text() == "content"
        assert drive.davfs("sync", str(drive.point)).returncode == 0
        status = drive.status()
        assert (status["authentication"], status["scheme"]) == ("accepted", scheme)
        process = Path("/proc", str(status["pid"]))
        found = [
            *_shown("argv", (process / "cmdline").read_bytes()),
            *_shown("the environment", (process / "environ").read_bytes()),
        ]
        server.stop()  # errors of every kind are logged too
        (drive.point / "b.txt").write_text("content")
        drive.davfs("sync", str(drive.point), "--timeout", "1")
        drive.davfs("status", str(drive.point))
        drive.close()
        _until(lambda: not process.exists())  # until then files of the cache come and go
        found += _shown("a command", drive.said)
        found += _shown("the log", drive.log.read_bytes())
        for path in _files_below(drive.cache):
            found += _shown(str(path), path.read_bytes())
    assert drive.log.stat().st_size > 100
    assert not found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_refused_password_is_told_without_it(drive: Drive, scheme: str) -> None:
    """Exit code 7 and one line; with log_level=debug a traceback, which does not show it either."""
    with Apache(username="ann", password="another", auth=scheme) as server:
        option, _ = _by_file(drive)
        quiet = drive.mount(server.url, option)
        assert quiet.returncode == 7
        reason = f"127.0.0.1 refused the user name or the password ({scheme})"
        assert quiet.stderr.decode() == f"davfs: cannot mount {server.url}: {reason}\n"
        loud = drive.mount(server.url, option, "log_level=debug")
        assert loud.returncode == 7
        assert b"Traceback" in loud.stderr + drive.log.read_bytes()
        assert not _shown("a command", drive.said)
        assert not _shown("the log", drive.log.read_bytes())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_changed_password_waits_for_login(drive: Drive, scheme: str) -> None:
    """unauthenticated, all queued and readable, no request; `davfs login` sends it without a remount."""
    with Apache(username="ann", password=SECRET, auth=scheme) as server, Relay(server.url) as relay:
        option, _ = _by_file(drive)
        assert drive.mount(relay.url, option, "attr_timeout=1").returncode == 0
        with (drive.point / "kept.txt").open("w") as file:
            server.set_password(CHANGED)
            relay.drop()  # what NTLM authenticated stays so until its connection ends
            file.write("kept")
        _until(lambda: drive.status()["authentication"] == "unauthenticated")
        asked = len(relay.exchanges)
        time.sleep(1.2)  # what is known of the folder is too old now
        with pytest.raises(PermissionError):  # the next writer is told, once
            (drive.point / "kept.txt").write_text("not accepted")
        for number in range(50):
            try:
                (drive.point / "kept.txt").write_text(f"kept {number}")
            except PermissionError:  # the one before was tried meanwhile, on a slow machine
                (drive.point / "kept.txt").write_text(f"kept {number}")
        assert (drive.point / "kept.txt").read_text() == "kept 49"
        with pytest.raises(PermissionError):
            (drive.point / "folder").mkdir()
        assert len(relay.exchanges) == asked, "\n".join(map(str, relay.exchanges[asked:]))
        status = drive.status()
        assert [each["path"] for each in status["pending"]] == ["/kept.txt"]
        wrong = drive.davfs("login", str(drive.point), typed="wrong\n")
        assert (wrong.returncode, b"refused" in wrong.stderr) == (7, True)
        assert not list(_files_below(drive.folder / "config"))
        right = drive.davfs("login", str(drive.point), typed=CHANGED + "\n")
        assert right.returncode == 0, right.stderr
        assert drive.davfs("sync", str(drive.point)).returncode == 0
        assert (server.root / "kept.txt").read_text() == "kept 49"
        assert drive.status()["authentication"] == "accepted"
        # A file of four bytes goes out with its request (habits.py): the one that met the change is lost.
        assert relay.wasted_bytes <= len("kept"), "\n".join(map(str, relay.exchanges))
        drive.close()
        assert drive.mount(relay.url).returncode == 0, "the kept login is used for the next mount"
        assert drive.davfs("logout", str(drive.point)).returncode == 0
        assert not list(_files_below(drive.folder / "config"))
        for secret in (SECRET, CHANGED):
            assert not _shown("a command", drive.said, secret)
            assert not _shown("the log", drive.log.read_bytes(), secret)


def _until(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


@pytest.mark.parametrize("scheme", ["digest", "ntlm"])
def test_cp_through_a_mount_is_paid_for_once(scheme: str, tmp_path: Path) -> None:
    """50 MB written by a program: no byte meets a refusal, on nonces that go stale and on fresh lanes."""
    size = 50_000_000
    with (
        Apache(username="ann", password=SECRET, auth=scheme, nonce_lifetime_s=1) as server,
        Relay(server.url) as relay,
    ):
        mount = Mount(relay.url, tmp_path, password=("ann", SECRET))
        try:
            time.sleep(2.2)
            relay.forget()
            subprocess.run(
                ["dd", "if=/dev/zero", f"of={mount.point}/large", "bs=1000000", "count=50", "status=none"],
                check=True,
                timeout=60,
            )
            assert mount.sync() == 0
        finally:
            mount.close()
        assert (server.root / "large").stat().st_size == size
        assert relay.wasted_bytes == 0, "\n".join(map(str, relay.exchanges))
        assert relay.bytes_up <= 1.01 * size


@pytest.mark.parametrize("form", ["PEM", "PKCS#12"])
def test_a_client_certificate_opens_the_share(drive: Drive, form: str) -> None:
    """A PKCS#12 file is opened with its password file; without a certificate the mount says why."""
    folder = drive.folder / "certificates"
    folder.mkdir()
    certificates = Certificates(folder)
    secret = drive.folder / "p12-password"
    secret.touch(0o600)
    secret.write_text(P12_PASSWORD)
    trust = f"cacert={certificates.ca}"
    shown = {
        "PEM": f"client_cert={certificates.client}",
        "PKCS#12": f"client_cert={certificates.client_p12},client_cert_password_file={secret}",
    }
    with Apache(certificates=certificates, client_certificate=True) as server:
        refused = drive.mount_plain(server.url, trust)
        assert (refused.returncode, b"certificate" in refused.stderr) == (6, True), refused.stderr
        assert drive.mount_plain(server.url, trust, shown[form]).returncode == 0
        (drive.point / "a.txt").write_text("content")
        assert drive.davfs("sync", str(drive.point)).returncode == 0
        assert (server.root / "a.txt").read_text() == "content"
        assert drive.status()["authentication"] == "anonymous"


def test_tokens_are_renewed_and_seen_nowhere(drive: Drive) -> None:
    """token_command is run again when the token ends; no token shows in argv, log, status or cache."""
    with WsgiDav(auth="bearer") as server:
        place = drive.folder / "token"
        place.touch(0o600)
        first = server.bearer_token(600, opaque=True)
        place.write_text(first)
        options = ("auth=bearer", f"token_command=cat {place}", "log_level=debug", "attr_timeout=0")
        assert drive.mount_plain(server.url, *options).returncode == 0
        status = drive.status()
        server.end_tokens()
        second = server.bearer_token(600, opaque=True)
        place.write_text(second)
        (drive.point / "a.txt").write_text("content")
        assert drive.davfs("sync", str(drive.point)).returncode == 0
        assert (server.root / "a.txt").read_text() == "content"
        argv = Path("/proc", str(status["pid"]), "cmdline").read_bytes()
        drive.close()
        _until(lambda: not Path("/proc", str(status["pid"])).exists())
        kept = [path.read_bytes() for path in (drive.log, *_files_below(drive.cache))]
        for content in (argv, drive.said, *kept):
            assert first.encode() not in content
            assert second.encode() not in content
