"""What TLS trusts and shows: the system's authorities or given ones, a pinned certificate, our own.

A pin names one certificate by the SHA-256 of its DER form, as browsers and `openssl x509 -fingerprint
-sha256` show it. It replaces the check of names and authorities, so that a self-signed server can be used
safely; the comparison happens after each handshake, before anything is sent (`check_pin`).

Only http/1.1 is offered: NTLM does not work over h2, and one lane is one request at a time.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import ssl
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from davfs.errors import ConfigError

_PEM: Final = b"-----BEGIN "
_WEAK_HASHES: Final = ("md5", "sha1")


def tls_context(
    *,
    cacert: str | None = None,
    pin_sha256: str | None = None,
    client_cert: str | None = None,
    client_cert_password: str | None = None,
) -> ssl.SSLContext:
    """Raises ConfigError for files that cannot be used. Reads them now."""
    try:
        context = ssl.create_default_context(cafile=cacert)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot read the certificates in {cacert}: {_reason(error)}") from None
    if pin_sha256 is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # check_pin decides
    context.set_alpn_protocols(["http/1.1"])
    if client_cert is not None:
        _load_client_cert(context, client_cert, client_cert_password)
    return context


def _load_client_cert(context: ssl.SSLContext, path: str, password: str | None) -> None:
    try:
        is_pem = _PEM in Path(path).read_bytes()
        if is_pem:  # without a password OpenSSL would ask at the terminal, where nobody may sit
            context.load_cert_chain(path, password=lambda: password or "")
        else:
            _load_pkcs12(context, Path(path).read_bytes(), password)
    except (OSError, ssl.SSLError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"client_cert {path} cannot be used: {_reason(error)}") from None


def _load_pkcs12(context: ssl.SSLContext, content: bytes, password: str | None) -> None:
    """ssl reads PEM files only: it gets one in memory, encrypted, that nobody else can open."""
    key, certificate, others = pkcs12.load_key_and_certificates(
        content, password.encode() if password is not None else None
    )
    if key is None or certificate is None:
        raise ValueError("it holds no key or no certificate")
    passphrase = secrets.token_bytes(32).hex()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.encode()),
    )
    for one in (certificate, *others):
        pem += one.public_bytes(serialization.Encoding.PEM)
    descriptor = os.memfd_create("davfs-client-cert", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=passphrase)


def check_pin(certificate: bytes | None, pin_sha256: str) -> None:
    """Raises ssl.SSLCertVerificationError when `certificate` (DER) is not the pinned one."""
    found = hashlib.sha256(certificate or b"").hexdigest()
    if not hmac.compare_digest(found, pin_sha256.lower()):
        error = ssl.SSLCertVerificationError(f"the certificate's fingerprint is {found}, not the pinned one")
        error.verify_message = f"its fingerprint is {found}, not the pinned one"
        raise error


def end_point_binding(certificate: bytes | None) -> bytes | None:
    """tls-server-end-point (RFC 5929 4.1): binds NTLM and Negotiate to this server's certificate."""
    if certificate is None:
        return None
    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return None
    weak = algorithm is None or algorithm.name in _WEAK_HASHES
    digest = hashes.Hash(hashes.SHA256() if weak or algorithm is None else algorithm)
    digest.update(certificate)
    return b"tls-server-end-point:" + digest.finalize()


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "wrong password, or not a certificate")
    if isinstance(error, OSError):
        return error.strerror or "it cannot be read"
    return "wrong password, or not a certificate"
