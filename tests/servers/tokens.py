"""Bearer tokens of the tests: made here, checked in the server's process. They hold a name and an end."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time


def signed_token(key: str, expires_s: float, *, opaque: bool = False) -> str:
    """Valid until `expires_s` (unix time). A JWT (RFC 7519, HS256), or a text that tells a client nothing."""
    if opaque:
        content = _encoded(f"{expires_s:.3f}".encode())
        return f"{content}~{_signature(key, content)}"
    head = _encoded(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    content = f"{head}.{_encoded(json.dumps({'sub': 'ann', 'exp': expires_s}).encode())}"
    return f"{content}.{_signature(key, content)}"


def is_valid(key: str, token: str) -> bool:
    """Signed with `key`, and not yet at its end."""
    opaque = "~" in token
    content, _, signature = token.rpartition("~" if opaque else ".")
    if not hmac.compare_digest(_signature(key, content), signature):
        return False
    inner = _decoded(content if opaque else content.partition(".")[2])
    return time.time() < (float(inner) if opaque else json.loads(inner)["exp"])


def _signature(key: str, content: str) -> str:
    return _encoded(hmac.new(key.encode(), content.encode(), hashlib.sha256).digest())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
