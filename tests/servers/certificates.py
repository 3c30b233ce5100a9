"""A certificate authority of one test session, made by the `openssl` program: trusted by nobody else.

It signs one certificate for the servers on loopback and one for a client, the latter also as PKCS#12 with a
password. Everything ends after a day; nothing of it is kept in the repository.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from tests.servers.base import program

P12_PASSWORD: Final = "p12 secret"
CLIENT_NAME: Final = "davfs test client"

_SERVER_EXTENSIONS: Final = """\
subjectAltName = IP:127.0.0.1, IP:::1, DNS:localhost
extendedKeyUsage = serverAuth
keyUsage = digitalSignature
authorityKeyIdentifier = keyid
"""
_CLIENT_EXTENSIONS: Final = """\
extendedKeyUsage = clientAuth
keyUsage = digitalSignature
authorityKeyIdentifier = keyid
"""


class Certificates:
    """The files of one authority, in `folder`. `client` holds certificate and key in one PEM file."""

    def __init__(self, folder: Path) -> None:
        self._openssl = program("openssl", "openssl")
        self._folder = folder
        self.ca, self._ca_key = folder / "ca.pem", folder / "ca.key"
        self._make_authority()
        self.server, self.server_key = self._issue("server", "127.0.0.1", _SERVER_EXTENSIONS)
        self.client_certificate, self.client_key = self._issue("client", CLIENT_NAME, _CLIENT_EXTENSIONS)
        self.client = folder / "client-both.pem"
        self.client.write_bytes(self.client_certificate.read_bytes() + self.client_key.read_bytes())
        self.client.chmod(0o600)
        self.client_p12 = folder / "client.p12"
        self._run(
            "pkcs12", "-export", "-in", self.client_certificate, "-inkey", self.client_key,
            "-out", self.client_p12, "-passout", f"pass:{P12_PASSWORD}",
        )  # fmt: skip
        self.client_p12.chmod(0o600)

    def _run(self, *words: str | Path) -> None:
        done = subprocess.run([self._openssl, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"openssl {words[0]}: {done.stderr}")

    def _make_authority(self) -> None:
        # OpenSSL 3.0's own configuration marks a self-signed one as an authority (basicConstraints CA:TRUE).
        self._run(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "1", "-subj", "/CN=davfs test authority",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout", self._ca_key, "-out", self.ca,
        )  # fmt: skip

    def _issue(self, name: str, common_name: str, extensions: str) -> tuple[Path, Path]:
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        request, wanted = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        wanted.write_text(extensions)
        self._run(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", f"/CN={common_name}", "-keyout", key, "-out", request,
        )  # fmt: skip
        self._run(
            "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._ca_key, "-CAcreateserial",
            "-days", "1", "-extfile", wanted, "-out", certificate,
        )  # fmt: skip
        return certificate, key
