"""Digest (RFC 7616): the arithmetic, and the life of one nonce.

`answer_to` picks a usable challenge; a `Nonce` counts its uses (nc) without gap or repetition, since Tomcat
answers 401 to a count that repeats or jumps (servers.md 33). Lanes share the nonce: one 401 serves them all.
Which 401 means what is decided in authenticator.py.

Only qop=auth and, for servers of 1997, none (RFC 2069); auth-int would need the whole body first.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from davfs.dav.auth.challenges import Challenge

_HASHES: Final = {"sha-512-256": "sha512_256", "sha-256": "sha256", "md5": "md5"}
_STRENGTH: Final = ("md5", "md5-sess", "sha-256", "sha-256-sess", "sha-512-256", "sha-512-256-sess")


def _digest(algorithm: str, text: str) -> str:
    name = _HASHES[algorithm.removesuffix("-sess")]
    return hashlib.new(name, text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()


def _algorithm(challenge: Challenge) -> str:
    return challenge.parameters.get("algorithm", "md5").lower()


def _qops(challenge: Challenge) -> set[str]:
    return {word.strip().lower() for word in challenge.parameters.get("qop", "").split(",") if word.strip()}


def _is_usable(challenge: Challenge) -> bool:
    algorithm = _algorithm(challenge)
    if challenge.scheme != "digest" or "nonce" not in challenge.parameters or algorithm not in _STRENGTH:
        return False
    name = _HASHES[algorithm.removesuffix("-sess")]
    qops = _qops(challenge)
    return name in hashlib.algorithms_available and (not qops or "auth" in qops)


def strongest(challenges: Iterable[Challenge]) -> Challenge | None:
    """The Digest challenge with the strongest algorithm that can be answered (RFC 7616 3.7)."""
    usable = [challenge for challenge in challenges if _is_usable(challenge)]
    return max(usable, key=lambda challenge: _STRENGTH.index(_algorithm(challenge)), default=None)


@dataclass(slots=True)
class Nonce:
    """A nonce of the server and how often it was used."""

    challenge: Challenge
    value: str
    born_s: float  # our clock: when the server gave it
    cnonce: str
    count: int = 0
    session_key: str = ""  # H(name:realm:password):nonce:cnonce of the first use, for the -sess algorithms

    @classmethod
    def of(cls, challenge: Challenge, now_s: float, *, cnonce: str | None = None) -> Nonce:
        return cls(challenge, challenge.parameters["nonce"], now_s, cnonce or secrets.token_hex(16))

    def successor(self, value: str, now_s: float) -> Nonce:
        """The nonce that the server announced by `nextnonce`."""
        return Nonce(self.challenge, value, now_s, secrets.token_hex(16))

    def header(self, username: str, password: str, method: str, target: str) -> str:
        """The Authorization for the next request; counts it."""
        self.count += 1
        parameters = self.challenge.parameters
        algorithm, qop = _algorithm(self.challenge), "auth" if _qops(self.challenge) else ""
        counted = f"{self.count:08x}"
        secret = self._secret(algorithm, username, password)
        action = _digest(algorithm, f"{method}:{target}")
        middle = f"{self.value}:{counted}:{self.cnonce}:auth" if qop else self.value
        fields = [
            *_name_fields(algorithm, username, parameters),
            ("realm", _quoted(parameters.get("realm", ""))),
            ("uri", _quoted(target)),
            *([("algorithm", parameters["algorithm"])] if "algorithm" in parameters else []),
            ("nonce", _quoted(self.value)),
            *([("nc", counted), ("cnonce", _quoted(self.cnonce)), ("qop", "auth")] if qop else []),
            ("response", _quoted(_digest(algorithm, f"{secret}:{middle}:{action}"))),
            *([("opaque", _quoted(parameters["opaque"]))] if "opaque" in parameters else []),
        ]
        return "Digest " + ", ".join(f"{name}={value}" for name, value in fields)

    def _secret(self, algorithm: str, username: str, password: str) -> str:
        if self.session_key:
            return self.session_key
        realm = self.challenge.parameters.get("realm", "")
        secret = _digest(algorithm, f"{username}:{realm}:{password}")
        if algorithm.endswith("-sess"):
            secret = _digest(algorithm, f"{secret}:{self.value}:{self.cnonce}")
        self.session_key = secret
        return secret


def _name_fields(algorithm: str, username: str, parameters: Mapping[str, str]) -> list[tuple[str, str]]:
    if parameters.get("userhash", "").lower() == "true":
        hashed = _digest(algorithm, f"{username}:{parameters.get('realm', '')}")
        return [("username", _quoted(hashed)), ("userhash", "true")]
    if username.isascii() and username.isprintable():
        return [("username", _quoted(username))]
    # username* is what RFC 7616 3.4 wants, but Apache and wsgidav only know username, as UTF-8 bytes
    if parameters.get("charset", "").lower() == "utf-8":
        return [("username*", f"UTF-8''{quote(username, safe='')}")]
    return [("username", _quoted(username))]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
