"""What all lanes share of the authentication, and what each lane has of it.

The `Authenticator` holds the credentials and the method, chosen at the first challenge when the scheme is
`auto`: Kerberos where it is possible, NTLM, Digest, Basic, as far as the options allow. Its state is

    unknown  -> accepted       an answer other than 401 to a request with credentials
    unknown  -> refused        these credentials are wrong: nothing is sent any more
    accepted -> refused        wrong at the share's root too (a 401 for one folder is that folder's)
    any      -> unknown        `replace` brought new credentials

A `Session` is of one lane: it dies with the connection, and with the credentials it was made for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import httpx
import trio

from davfs.dav.auth.challenges import Challenge, parse_challenges, parse_parameters
from davfs.dav.auth.digest import strongest
from davfs.dav.auth.handshake import HandshakeFailed, kerberos_is_here
from davfs.dav.auth.identity import Credentials, Scheme
from davfs.dav.auth.methods import Basic, Bearer, Bound, Digest, LaneState, Method, Standing, Step
from davfs.dav.auth.plaintext import OPEN_SCHEMES, check_plaintext, may_go_open
from davfs.errors import ConfigError, Unauthorized

State = Literal["unknown", "accepted", "refused"]

_PORTS: Final = {"http": 80, "https": 443}
_NO_INFO: Final[dict[str, str]] = {}


class Origin(NamedTuple):
    """Where a connection leads, and where credentials may go."""

    scheme: str
    host: str
    port: int


def origin_of(url: httpx.URL) -> Origin:
    return Origin(url.scheme, url.host, url.port or _PORTS.get(url.scheme, 0))


class Authenticator:
    """Shared by all lanes. `url` is the share's root: credentials go to its origin only."""

    def __init__(
        self, scheme: Scheme, url: httpx.URL, credentials: Credentials | None, *, allow_plaintext: bool
    ) -> None:
        self.url = url
        self.origin = origin_of(url)
        self.generation = 0
        self._scheme = scheme
        self._may_go_open = may_go_open(str(url), allow_plaintext)
        self._credentials = credentials
        self._method = self._configured()
        self._state: State = "unknown"
        self._reason = ""
        self._was_answered = False
        self.gate = trio.Lock()  # at first contact one request goes first, so that a wrong password goes once

    @property
    def state(self) -> State:
        return self._state

    @property
    def scheme_in_use(self) -> str:
        return self._method.name if self._method is not None else ""

    @property
    def is_anonymous(self) -> bool:
        return self._credentials is None or self._scheme == "none"

    @property
    def needs_gate(self) -> bool:
        """Nothing is known of the server yet, or of new credentials."""
        return self._state == "unknown" and not self._was_answered and not self.is_anonymous

    def replace(self, credentials: Credentials) -> None:
        """New credentials for a mount in use. Lanes that were authenticated with the old ones are closed."""
        self.generation += 1
        self._credentials = credentials
        self._method = self._configured()
        self._state, self._reason, self._was_answered = "unknown", "", False

    def refuse(self, reason: str) -> None:
        self._state, self._reason = "refused", reason

    def check(self) -> None:
        """Raises Unauthorized when these credentials are known to be wrong: they are not sent again."""
        if self._state == "refused":
            raise Unauthorized(self._reason, status=401)

    def session(self, binding: bytes | None = None) -> Session:
        """For a new connection. `binding`: tls-server-end-point data (RFC 5929)."""
        return Session(self, binding)

    @property
    def renews(self) -> bool:
        """Whether `prepare` has anything to do: tokens are fetched."""
        return self._credentials is not None and self._credentials.token_source is not None

    async def prepare(self, outlive_s: float = 0.0) -> None:
        """Before a request that takes `outlive_s` seconds: asks for a new token when there is need."""
        method, credentials = self._method, self._credentials
        if not isinstance(method, Bearer) or credentials is None or credentials.token_source is None:
            return
        if not method.needs_token(time.time(), outlive_s):
            return
        token = await credentials.token_source()
        if token.text == method.refused_text and self._state == "unknown":
            self.refuse(f"{self.origin.host} refused the token, and there is no newer one")
            self.check()
        method.take(token)

    # --- for the sessions ---------------------------------------------------------------------------

    def choose(self, challenges: Sequence[Challenge]) -> bool:
        """Settles on the strongest usable offer; False when there is none. Raises ConfigError."""
        if self._method is None and not self.is_anonymous:
            self._method = self._best(challenges)
        return self._method is not None

    def note_answer(self, *, with_credentials: bool) -> None:
        self._was_answered = True
        if with_credentials and self._state == "unknown":
            self._state = "accepted"

    @property
    def method(self) -> Method | None:
        return self._method

    def refusal_text(self, challenges: Sequence[Challenge]) -> str:
        where = self.origin.host
        offers = ", ".join(sorted({challenge.scheme for challenge in challenges}))
        if self._method is None or (challenges and self._method.name not in offers):
            return f"{where} offers no authentication that can be used here (it offers: {offers or 'none'})"
        return f"{where} refused the user name or the password ({self._method.name})"

    def _configured(self) -> Method | None:
        """The method when it needs no challenge to be chosen."""
        if self._credentials is None:
            return None
        if self._scheme == "auto":
            is_bearer = self._credentials.token_source is not None and self._may_go_open
            return Bearer() if is_bearer else None
        return self._made(self._scheme)

    def _made(self, scheme: Scheme) -> Method | None:
        credentials = self._credentials or Credentials()
        if scheme == "basic":
            return Basic(credentials)
        if scheme == "digest":
            return Digest(credentials)
        if scheme == "bearer":
            return Bearer()
        if scheme in ("ntlm", "negotiate"):
            return Bound(scheme, credentials, self.origin.host)
        return None

    def _best(self, challenges: Sequence[Challenge]) -> Method | None:
        offered = {challenge.scheme for challenge in challenges}
        if strongest(challenges) is None:
            offered.discard("digest")
        usable: list[Scheme] = [
            *(("negotiate",) if kerberos_is_here() else ()),
            "ntlm",
            "digest",
            "basic",
            "negotiate",  # without Kerberos it only wraps NTLM: the last resort
        ]
        for scheme in usable:
            if scheme in offered and (self._may_go_open or scheme not in OPEN_SCHEMES):
                return self._made(scheme)
        if offered & OPEN_SCHEMES:
            check_plaintext(str(self.url), allow=False)
        return None


class Session:
    """The authentication of one lane. `header` for each request, then `judge` for its answer."""

    def __init__(self, shared: Authenticator, binding: bytes | None) -> None:
        self._shared = shared
        self._generation = shared.generation
        self._lane = LaneState(binding)

    @property
    def is_current(self) -> bool:
        return self._generation == self._shared.generation

    @property
    def is_slow(self) -> bool:
        """May `header` wait for a Kerberos server?"""
        method = self._shared.method
        return method is not None and method.name == "negotiate" and not self._lane.is_bound

    @property
    def next_is_leg(self) -> bool:
        """Must the next request be one without a body, whose answer is only the server's token?"""
        method = self._shared.method
        return method is not None and method.is_bound and method.expects_401(self._lane)

    @property
    def expects_401(self) -> bool:
        """Will the next request only bring a challenge? Then it needs no body, however small."""
        method = self._shared.method
        return self._shared.needs_gate if method is None else method.expects_401(self._lane)

    @property
    def reads_answers(self) -> bool:
        """Does an accepted answer say anything to `judge`? Digest looks for the next nonce."""
        method = self._shared.method
        return method is not None and method.name == "digest"

    def standing(self) -> Standing:
        shared = self._shared
        if shared.is_anonymous:
            return Standing.PROVED
        if shared.method is None:  # auto, and the server has not asked so far
            return Standing.UNPROVED if shared.needs_gate else Standing.PROVED
        if shared.state != "accepted":
            return Standing.FRESH_LANE if shared.method.is_bound else Standing.UNPROVED
        return shared.method.standing(self._lane, time.monotonic())

    def header(self, verb: str, target: str) -> str:
        """The Authorization of the next request, '' for none. Raises Unauthorized."""
        self._shared.check()
        method = self._shared.method
        if method is None:
            return ""
        try:
            self._lane.sent = method.header(self._lane, verb, target, time.monotonic())
        except HandshakeFailed as error:
            self._shared.refuse(str(error))
            raise Unauthorized(str(error), status=401) from None
        return self._lane.sent

    def judge(self, status: int, headers: httpx.Headers | None, *, is_final: bool = False) -> Step:
        """What the answer means. `headers` may be None unless status is 401 or Digest is in use.

        `is_final`: a 401 is not in doubt, the request was for the root of the share.
        """
        if status != 401:
            self._accept(headers)
            return Step.DONE
        challenges = parse_challenges(headers.get_list("www-authenticate")) if headers is not None else []
        if self._shared.is_anonymous or not self.is_current:
            return Step.DONE if self._shared.is_anonymous else Step.NEW_LANE
        return self._after_401(challenges, is_final=is_final)

    def _accept(self, headers: httpx.Headers | None) -> None:
        shared, method = self._shared, self._shared.method
        used = method is not None and (bool(self._lane.sent) or self._lane.is_bound)
        if self.is_current:
            shared.note_answer(with_credentials=used)
        if method is not None and used:
            text = headers.get("authentication-info") if headers is not None else None
            method.on_accepted(self._lane, parse_parameters(text) if text else _NO_INFO, time.monotonic())

    def _after_401(self, challenges: Sequence[Challenge], *, is_final: bool) -> Step:
        shared = self._shared
        try:
            is_usable = shared.choose(challenges)
        except ConfigError as error:
            shared.refuse(str(error))
            raise
        step = Step.REFUSED
        if is_usable and shared.method is not None:
            try:
                step = shared.method.on_401(self._lane, challenges, time.monotonic())
            except HandshakeFailed:
                step = Step.REFUSED
        self._lane.sent = ""
        if step is not Step.REFUSED:
            return step
        if shared.state == "accepted" and not is_final:
            return Step.DOUBT
        shared.refuse(shared.refusal_text(challenges))
        return Step.REFUSED


def build_auth(
    scheme: Scheme, url: str, credentials: Credentials | None, *, allow_plaintext: bool = False
) -> Authenticator:
    """The authentication for the share at `url`. Raises ConfigError for a secret in the clear."""
    if credentials is not None and not credentials.username and credentials.token_source is None:
        credentials = Credentials() if scheme == "negotiate" else None
    if scheme in OPEN_SCHEMES and credentials is not None:
        check_plaintext(url, allow_plaintext)
    if scheme == "none":
        credentials = None
    parsed = httpx.URL(url).copy_with(username="", password="", query=None, fragment=None)
    return Authenticator(scheme, parsed, credentials, allow_plaintext=allow_plaintext)
