"""One class per scheme: what goes with a request, and what a 401 to it means. No I/O.

A method is shared by all lanes; what belongs to one connection stands in its `LaneState`. `on_401` answers
AGAIN (there is a better header now), NEW_LANE (this connection is spoilt) or REFUSED (these credentials are
wrong). Each method says AGAIN a bounded number of times in a row, so that wrong credentials cost
1 request (Basic), 2 (Digest, Bearer that renews) or 3 (NTLM), and never a loop.
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from davfs.dav.auth.challenges import Challenge
from davfs.dav.auth.digest import Nonce, strongest
from davfs.dav.auth.handshake import Handshake
from davfs.dav.auth.identity import Credentials, Token

_TRUSTED_NONCE_S: Final = 60.0  # until more is known. Apache's default is 300 s, tests and banks have less
_RENEW_MARGIN_S: Final = 30.0  # clocks differ, and the request has to arrive
_ENOUGH_STALE: Final = 0.8
_SINGLE_USE_S: Final = 0.9  # younger than the shortest lifetime that can be configured


class Step(enum.Enum):
    """What to do after an answer."""

    DONE = enum.auto()  # it is the answer
    AGAIN = enum.auto()  # ask again on this lane
    NEW_LANE = enum.auto()  # this lane is spoilt; ask again on another
    DOUBT = enum.auto()  # refused here, but these credentials were good before: find out
    REFUSED = enum.auto()  # these credentials are wrong


class Standing(enum.Enum):
    """May a body go out with the next request on a lane?"""

    PROVED = enum.auto()  # with credentials that the server took before, or needs none
    UNPROVED = enum.auto()  # never accepted yet
    FRESH_LANE = enum.auto()  # the scheme is bound to the connection, and this one is new
    OLD_NONCE = enum.auto()  # accepted, but the nonce may have gone stale


@dataclass(slots=True)
class LaneState:
    """What one connection knows of its authentication."""

    binding: bytes | None = None
    handshake: Handshake | None = None
    is_bound: bool = False
    sent: str = ""  # the header of the last request ('' for none)
    sent_nonce: Nonce | None = None
    sent_count: int = 0
    sent_token: str = ""


class Method(Protocol):
    name: str
    is_bound: bool  # authentication belongs to the connection

    def header(self, lane: LaneState, verb: str, target: str, now_s: float) -> str: ...

    def on_401(self, lane: LaneState, challenges: Sequence[Challenge], now_s: float) -> Step: ...

    def on_accepted(self, lane: LaneState, info: dict[str, str], now_s: float) -> None: ...

    def standing(self, lane: LaneState, now_s: float) -> Standing: ...

    def expects_401(self, lane: LaneState) -> bool: ...


class Basic:
    """RFC 7617, in UTF-8."""

    name = "basic"
    is_bound = False

    def __init__(self, credentials: Credentials) -> None:
        pair = f"{credentials.username}:{credentials.password}".encode("utf-8", "surrogateescape")
        self._header = "Basic " + base64.b64encode(pair).decode("ascii")

    def header(self, lane: LaneState, verb: str, target: str, now_s: float) -> str:  # noqa: ARG002
        return self._header

    def on_401(self, lane: LaneState, challenges: Sequence[Challenge], now_s: float) -> Step:  # noqa: ARG002
        return Step.REFUSED if lane.sent else Step.AGAIN

    def on_accepted(self, lane: LaneState, info: dict[str, str], now_s: float) -> None:
        pass

    def standing(self, lane: LaneState, now_s: float) -> Standing:  # noqa: ARG002
        return Standing.PROVED

    def expects_401(self, lane: LaneState) -> bool:  # noqa: ARG002
        return False


class Digest:
    """RFC 7616: one nonce for all lanes, renewed by whoever is told."""

    name = "digest"
    is_bound = False

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._nonce: Nonce | None = None
        self._trusted_s = _TRUSTED_NONCE_S
        self._is_single_use = False  # Apache's AuthDigestNonceLifetime 0
        self._stale_s = float("inf")  # the youngest age at which a nonce was found stale

    def header(self, lane: LaneState, verb: str, target: str, now_s: float) -> str:  # noqa: ARG002
        lane.sent_nonce = self._nonce
        if self._nonce is None or self._is_spent:
            return ""
        text = self._nonce.header(self._credentials.username, self._credentials.password, verb, target)
        lane.sent_count = self._nonce.count
        return text

    def on_401(self, lane: LaneState, challenges: Sequence[Challenge], now_s: float) -> Step:
        offer, sent = strongest(challenges), lane.sent_nonce if lane.sent else None
        if offer is None:
            return Step.REFUSED
        is_stale = offer.parameters.get("stale", "").lower() == "true"
        if sent is not None and is_stale:
            self._learn_stale(now_s - sent.born_s, lane.sent_count)
        if sent is None and self._nonce is not None and self._nonce.count == 0:
            return Step.AGAIN  # another lane was told a fresh one meanwhile
        if sent is None or sent is self._nonce:
            self._nonce = Nonce.of(offer, now_s)
        # Servers that never say stale answer 401 to an old nonce or count as well: only the first
        # use of a nonce proves that the name or the password is wrong
        return Step.REFUSED if sent is not None and lane.sent_count == 1 and not is_stale else Step.AGAIN

    @property
    def _is_spent(self) -> bool:
        return self._is_single_use and self._nonce is not None and self._nonce.count > 0

    def _learn_stale(self, age_s: float, count: int) -> None:
        if count == 2 and age_s < _SINGLE_USE_S:
            self._is_single_use = True
            return
        self._stale_s = min(self._stale_s, age_s)
        self._trusted_s = min(self._trusted_s, self._stale_s * _ENOUGH_STALE)

    def on_accepted(self, lane: LaneState, info: dict[str, str], now_s: float) -> None:
        sent = lane.sent_nonce
        if sent is None:
            return
        age_s = now_s - sent.born_s
        if self._trusted_s < age_s < self._stale_s * _ENOUGH_STALE:
            self._trusted_s = age_s
        following = info.get("nextnonce")
        if following and following != sent.value and sent is self._nonce:
            self._nonce = sent.successor(following, now_s)

    def standing(self, lane: LaneState, now_s: float) -> Standing:  # noqa: ARG002
        if self._nonce is None or self._is_spent:
            return Standing.UNPROVED
        is_old = now_s - self._nonce.born_s > self._trusted_s
        return Standing.OLD_NONCE if is_old else Standing.PROVED

    def expects_401(self, lane: LaneState) -> bool:  # noqa: ARG002
        return self._nonce is None or self._is_spent


class Bearer:
    """RFC 6750. The token itself is fetched by Authenticator.prepare, which may wait."""

    name = "bearer"
    is_bound = False

    def __init__(self) -> None:
        self._token: Token | None = None
        self.refused_text = ""  # the token that the server refused

    def needs_token(self, wall_s: float, outlive_s: float) -> bool:
        """Is a new token wanted before a request that takes `outlive_s`?"""
        if self._token is None or self._token.text == self.refused_text:
            return True
        end_s = self._token.expires_s
        return end_s is not None and end_s < wall_s + outlive_s + _RENEW_MARGIN_S

    def take(self, token: Token) -> None:
        self._token = token

    def header(self, lane: LaneState, verb: str, target: str, now_s: float) -> str:  # noqa: ARG002
        lane.sent_token = self._token.text if self._token is not None else ""
        return f"Bearer {lane.sent_token}" if lane.sent_token else ""

    def on_401(self, lane: LaneState, challenges: Sequence[Challenge], now_s: float) -> Step:  # noqa: ARG002
        if not lane.sent:
            return Step.AGAIN
        if self._token is not None and lane.sent_token == self._token.text:
            if self.refused_text:  # the renewed one was refused as well
                return Step.REFUSED
            self.refused_text = lane.sent_token
        return Step.AGAIN

    def on_accepted(self, lane: LaneState, info: dict[str, str], now_s: float) -> None:  # noqa: ARG002
        self.refused_text = ""

    def standing(self, lane: LaneState, now_s: float) -> Standing:  # noqa: ARG002
        return Standing.PROVED

    def expects_401(self, lane: LaneState) -> bool:  # noqa: ARG002
        return False


class Bound:
    """NTLM or Negotiate: a handshake per connection."""

    is_bound = True

    def __init__(self, scheme: Literal["ntlm", "negotiate"], credentials: Credentials, host: str) -> None:
        self.name: str = scheme
        self._scheme: Literal["ntlm", "negotiate"] = scheme
        self._credentials = credentials
        self._host = host

    def header(self, lane: LaneState, verb: str, target: str, now_s: float) -> str:  # noqa: ARG002
        if lane.is_bound:
            return ""
        if lane.handshake is None:
            lane.handshake = Handshake(self._scheme, self._credentials, self._host, lane.binding)
        return lane.handshake.header()

    def on_401(self, lane: LaneState, challenges: Sequence[Challenge], now_s: float) -> Step:  # noqa: ARG002
        if lane.is_bound:
            return Step.NEW_LANE
        if lane.handshake is None:
            is_offered = any(challenge.scheme == self.name for challenge in challenges)
            return Step.AGAIN if is_offered else Step.REFUSED
        token = next((one.token for one in challenges if one.scheme == self.name and one.token), "")
        if not token:
            return Step.REFUSED
        lane.handshake.take(token)
        return Step.AGAIN

    def on_accepted(self, lane: LaneState, info: dict[str, str], now_s: float) -> None:  # noqa: ARG002
        lane.is_bound = lane.is_bound or lane.handshake is not None
        lane.handshake = None

    def standing(self, lane: LaneState, now_s: float) -> Standing:  # noqa: ARG002
        return Standing.PROVED if lane.is_bound else Standing.FRESH_LANE

    def expects_401(self, lane: LaneState) -> bool:
        return not lane.is_bound and (lane.handshake is None or not lane.handshake.started)
