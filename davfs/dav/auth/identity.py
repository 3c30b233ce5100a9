"""Who we are to the server: frozen values that hold a secret and do not show it.

A token knows when it ends, if anybody does: RFC 6750 tokens are opaque, but many are JWTs, whose payload
carries `exp` (RFC 7519 4.1.4). The signature is none of our business; the date is only used to ask for a
new token early, so a wrong one costs a request, not safety.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

Scheme = Literal["auto", "basic", "digest", "ntlm", "negotiate", "bearer", "none"]


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token. `expires_s` is unix time; None: unknown."""

    text: str = field(repr=False)
    expires_s: float | None = None

    @classmethod
    def parse(cls, text: str) -> Token:
        """The token in `text`, with its end if it is a JWT that tells."""
        text = text.strip()
        return cls(text, _jwt_end_s(text))


TokenSource = Callable[[], Awaitable[Token]]


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a password, or a source of tokens; all empty: a Kerberos ticket, or anonymous."""

    username: str = ""
    password: str = field(default="", repr=False)
    token_source: TokenSource | None = field(default=None, repr=False)


def _jwt_end_s(text: str) -> float | None:
    parts = text.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    end_s = claims.get("exp") if isinstance(claims, dict) else None
    return float(end_s) if isinstance(end_s, int | float) and 0 < end_s < 1e11 else None
