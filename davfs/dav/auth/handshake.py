"""NTLM and Negotiate (RFC 4559, MS-NTHT): one handshake, which belongs to one connection.

pyspnego does the cryptography: NTLM in pure Python, Kerberos where the `gssapi` package and a ticket are.
A handshake is legs of opaque tokens: ours, the server's, ours. After the last one the connection itself is
authenticated, and later requests on it carry no header.

Never more than three legs of ours. Whatever pyspnego raises leaves as HandshakeFailed.
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
import struct
from typing import Final, Literal

import spnego
from spnego.channel_bindings import GssChannelBindings
from spnego.exceptions import NegotiateOptions, SpnegoError

from davfs.dav.auth.identity import Credentials

_MOST_LEGS: Final = 3


class HandshakeFailed(Exception):
    """The handshake cannot go on. The text is for a person and holds no secret."""


def kerberos_is_here() -> bool:
    return importlib.util.find_spec("gssapi") is not None


class Handshake:
    """One attempt on one connection. `binding` is the tls-server-end-point data (RFC 5929), or None."""

    def __init__(
        self, scheme: Literal["ntlm", "negotiate"], credentials: Credentials, host: str, binding: bytes | None
    ) -> None:
        self.scheme = scheme
        self.legs = 0
        self._next: bytes | None = None  # our next token, when the server's is known
        bound = None if binding is None else GssChannelBindings(application_data=binding)
        pure = NegotiateOptions.use_ntlm if scheme == "ntlm" else NegotiateOptions.none
        try:
            self._context = spnego.client(
                credentials.username or None,
                credentials.password or None,
                hostname=host,
                service="HTTP",
                channel_bindings=bound,
                protocol=scheme,
                options=pure,
            )
        except (SpnegoError, ValueError, ImportError, OSError) as error:
            raise HandshakeFailed(f"{scheme} cannot start here: {type(error).__name__}") from None

    @property
    def started(self) -> bool:
        return self.legs > 0

    def take(self, token: str) -> None:
        """The server's token, in base64. Raises HandshakeFailed when there is nothing to say to it."""
        if self.legs >= _MOST_LEGS or self._context.complete:
            raise HandshakeFailed(f"{self.scheme}: the server is not content with the last leg")
        try:
            self._next = self._step(base64.b64decode(token, validate=True))
        except binascii.Error:
            raise HandshakeFailed(f"the server's {self.scheme} token cannot be read") from None

    def header(self) -> str:
        """The next leg. The first may talk to a Kerberos server: not for the event loop."""
        token = self._step(None) if self._next is None else self._next
        self.legs += 1
        self._next = None
        name = "NTLM" if self.scheme == "ntlm" else "Negotiate"
        return f"{name} {base64.b64encode(token).decode('ascii')}"

    def _step(self, token: bytes | None) -> bytes:
        try:
            answer = self._context.step(token)
        except (SpnegoError, ValueError, OSError, LookupError, struct.error) as error:
            raise HandshakeFailed(f"{self.scheme} failed: {type(error).__name__}") from None
        if not answer:
            raise HandshakeFailed(f"{self.scheme}: the server is not content with the last leg")
        return answer
