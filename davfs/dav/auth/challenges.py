"""WWW-Authenticate headers -> challenges (RFC 9110 11.6.1). Pure and lenient.

The grammar is ambiguous on purpose of nobody: one header may hold several challenges separated by the same
commas that separate parameters, several headers may come, and Negotiate carries a bare token. What cannot
be read is skipped: an unreadable challenge is one that is not offered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PIECE: Final = re.compile(
    rf"""\s*+,?\s*+(?:  # possessive: 60,000 blanks took a minute of trying where to part them
        (?P<name>{_WORD})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]+(?=\s*(?:,|$))))
      | (?P<scheme>{_WORD})(?=\s|,|$)(?:[ ]+(?P<token68>[A-Za-z0-9._~+/-]+=*)(?=\s*(?:,|$)))?
    )""",
    re.VERBOSE,
)
_LONGEST: Final = 64 * 1024  # Kerberos tokens with many groups run to 12 kB and more


@dataclass(frozen=True, slots=True)
class Challenge:
    """One offer. `scheme` and the names of parameters are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    token: str = ""


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges in order; the first of a repeated parameter counts."""
    return [challenge for text in headers for challenge in _parse(text[:_LONGEST])]


def parse_parameters(text: str) -> dict[str, str]:
    """The parameters of a header without a scheme (Authentication-Info)."""
    found = _parse("info " + text[:_LONGEST])
    return dict(found[0].parameters) if found else {}


def _parse(text: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str], str]] = []
    at = 0
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None or piece.end() == at:
            at = _next_comma(text, at)
            continue
        at = piece.end()
        if piece["scheme"]:
            found.append((piece["scheme"].lower(), {}, piece["token68"] or ""))
        elif found:
            value = piece["plain"]
            if value is None:
                value = re.sub(r"\\(.)", r"\1", piece["quoted"] or "")
            found[-1][1].setdefault(piece["name"].lower(), value)
    return [Challenge(scheme, parameters, token) for scheme, parameters, token in found]


def _next_comma(text: str, at: int) -> int:
    comma = text.find(",", at + 1)
    return len(text) if comma < 0 else comma
