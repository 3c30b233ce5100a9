"""Which authentication goes out, what an answer means for it, and what is never sent."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence

import httpx
import pytest

from davfs.dav.auth import (
    Authenticator,
    Credentials,
    Scheme,
    Standing,
    Step,
    Token,
    build_auth,
    check_plaintext,
)
from davfs.dav.auth.challenges import Challenge, parse_challenges
from davfs.dav.auth.digest import Nonce, strongest
from davfs.errors import ConfigError, Unauthorized

_ANN = Credentials("ann", "pw")
_BASIC = 'Basic realm="dav"'


def _digest(nonce: str = "n0", **more: str) -> str:
    extra = "".join(f", {name}={value}" for name, value in more.items())
    return f'Digest realm="dav", nonce="{nonce}", qop="auth", algorithm=MD5{extra}'


def _auth(scheme: Scheme, url: str = "https://h/", credentials: Credentials | None = _ANN) -> Authenticator:
    return build_auth(scheme, url, credentials)


def _headers(*challenges: str, **more: str) -> httpx.Headers:
    return httpx.Headers([*(("www-authenticate", text) for text in challenges), *more.items()])


# --- where a secret may go ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["https://example.org/", "http://127.0.0.1:8080/", "http://localhost/", "http://[::1]:80/"]
)
def test_where_a_password_may_go(url: str) -> None:
    """TLS and this machine."""
    check_plaintext(url, allow=False)


@pytest.mark.parametrize("scheme", ["basic", "digest", "bearer"])
def test_no_password_in_the_clear(scheme: Scheme) -> None:
    """Open schemes over plain http to another host are a ConfigError unless allowed."""
    with pytest.raises(ConfigError, match=r"example\.org") as caught:
        build_auth(scheme, "http://me:s3cret@example.org/", Credentials("me", "s3cret"))
    assert "s3cret" not in str(caught.value)
    assert build_auth(scheme, "http://example.org/", _ANN, allow_plaintext=True).state == "unknown"


def test_secrets_are_not_shown() -> None:
    """Neither by repr nor by str."""
    assert "pw" not in repr(_ANN)
    assert "s3cret" not in repr(Token("s3cret"))


@pytest.mark.parametrize(("scheme", "credentials"), [("none", _ANN), ("auto", None), ("auto", Credentials())])
def test_nothing_to_log_in_with(scheme: Scheme, credentials: Credentials | None) -> None:
    """Anonymous: no header, and a 401 is the answer."""
    session = _auth(scheme, credentials=credentials).session()
    assert session.header("GET", "/") == ""
    assert session.judge(401, _headers(_BASIC)) is Step.DONE
    assert session.standing() is Standing.PROVED


# --- what is chosen -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("challenges", "chosen"),
    [
        ([_BASIC], "basic"),
        ([_BASIC, _digest()], "digest"),
        ([f"{_BASIC}, {_digest()}"], "digest"),
        (["Negotiate", "NTLM", _BASIC], "ntlm"),
        (["Negotiate", _BASIC], "basic"),
        (["Negotiate"], "negotiate"),
        (['Digest realm="x", nonce="n", qop="auth-int"', _BASIC], "basic"),
        (['Digest realm="x", nonce="n", algorithm=ROT13', _BASIC], "basic"),
    ],
)
def test_the_strongest_offer_is_taken(challenges: list[str], chosen: str) -> None:
    """'auto' asks first; Negotiate without Kerberos only wraps NTLM, and comes last."""
    auth = _auth("auto")
    session = auth.session()
    assert session.header("PROPFIND", "/") == ""
    assert session.judge(401, _headers(*challenges)) is Step.AGAIN
    assert auth.scheme_in_use == chosen


@pytest.mark.parametrize("challenges", [[], ["Hoba"], ["OAuth x=1"]])
def test_no_usable_offer(challenges: list[str]) -> None:
    """The refusal says what the server offers, and nothing more is sent."""
    auth = _auth("auto")
    session = auth.session()
    session.header("PROPFIND", "/")
    assert session.judge(401, _headers(*challenges)) is Step.REFUSED
    with pytest.raises(Unauthorized, match="offers"):
        session.header("PROPFIND", "/")


@pytest.mark.parametrize("challenge", [_BASIC, _digest()])
def test_auto_does_not_fall_for_open_schemes_in_the_clear(challenge: str) -> None:
    """A challenge cannot talk the password out over plain http."""
    session = _auth("auto", "http://example.org/").session()
    session.header("PROPFIND", "/")
    with pytest.raises(ConfigError):
        session.judge(401, _headers(challenge))


# --- how often ------------------------------------------------------------------------------------


def _requests_until_refused(auth: Authenticator, challenges: Sequence[str]) -> int:
    session, count = auth.session(), 0
    while auth.state != "refused":
        session.header("PROPFIND", "/")
        count += 1
        session.judge(401, _headers(*challenges))
    return count


@pytest.mark.parametrize(
    ("scheme", "challenge", "count"),
    [("basic", _BASIC, 1), ("auto", _BASIC, 2), ("digest", _digest(), 2), ("auto", _digest(), 2)],
)
def test_wrong_credentials_are_sent_once(scheme: Scheme, challenge: str, count: int) -> None:
    """And by no lane again, until there are new ones."""
    auth = _auth(scheme)
    assert _requests_until_refused(auth, [challenge]) == count
    with pytest.raises(Unauthorized, match="refused the user name or the password") as caught:
        auth.session().header("PROPFIND", "/")
    assert "pw" not in str(caught.value).split()
    auth.replace(Credentials("ann", "right"))
    assert auth.state == "unknown"


def test_a_refusal_after_success_is_in_doubt_first() -> None:
    """A folder may be another's; for the root of the share there is no doubt."""
    auth = _auth("basic")
    session = auth.session()
    session.header("PROPFIND", "/")
    assert session.judge(207, None) is Step.DONE
    assert auth.state == "accepted"
    session.header("PROPFIND", "/private/")
    assert session.judge(401, _headers(_BASIC)) is Step.DOUBT
    assert auth.state == "accepted"
    session.header("PROPFIND", "/")
    assert session.judge(401, _headers(_BASIC), is_final=True) is Step.REFUSED


def test_sessions_end_with_their_credentials() -> None:
    """A lane that was authenticated as somebody else is of no use, and a late 401 refuses nobody."""
    auth = _auth("basic")
    session = auth.session()
    session.header("PROPFIND", "/")
    auth.replace(Credentials("bob", "pw"))
    assert not session.is_current
    assert session.judge(401, _headers(_BASIC)) is Step.NEW_LANE
    assert auth.state == "unknown"


# --- Digest ---------------------------------------------------------------------------------------

_MUFASA = {
    "realm": "http-auth@example.org",
    "qop": "auth, auth-int",
    "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
    "opaque": "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
}


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_rfc_7616(algorithm: str, response: str) -> None:
    """3.9.1, both algorithms."""
    challenge = Challenge("digest", {**_MUFASA, "algorithm": algorithm})
    nonce = Nonce.of(challenge, 0.0, cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
    header = nonce.header("Mufasa", "Circle of Life", "GET", "/dir/index.html")
    assert f'response="{response}"' in header
    assert f'opaque="{_MUFASA["opaque"]}"' in header
    assert "nc=00000001" in header
    assert "qop=auth," in header


def test_the_hashed_name_of_rfc_7616() -> None:
    """3.9.2 with the values of erratum 4897: SHA-512/256, not a cut SHA-512."""
    challenge = Challenge(
        "digest",
        {
            "realm": "api@example.org",
            "qop": "auth",
            "algorithm": "SHA-512-256",
            "nonce": "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
            "opaque": "HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS",
            "charset": "UTF-8",
            "userhash": "true",
        },
    )
    nonce = Nonce.of(challenge, 0.0, cnonce="NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v")
    header = nonce.header("Jäsøn Doe", "Secret, or not?", "GET", "/doe.json")
    assert 'username="793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b"' in header
    assert 'response="3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"' in header
    assert "userhash=true" in header


def test_the_example_of_rfc_2617() -> None:
    """And of RFC 2069 when the server knows no qop."""
    given = {
        "realm": "testrealm@host.com",
        "nonce": "dcd98b7102dd2f0e8b11d0f600bfb0c093",
        "qop": "auth,auth-int",
    }
    nonce = Nonce.of(Challenge("digest", given), 0.0, cnonce="0a4f113b")
    header = nonce.header("Mufasa", "Circle Of Life", "GET", "/dir/index.html")
    assert 'response="6629fae49393a05397450978507c4ef1"' in header
    old = Nonce.of(Challenge("digest", {name: given[name] for name in ("realm", "nonce")}), 0.0)
    header = old.header("Mufasa", "Circle Of Life", "GET", "/dir/index.html")
    assert 'response="670fd8c2df070c60b045671b8b24ff02"' in header
    assert "nc=" not in header


def test_names_in_utf_8() -> None:
    """Quoted as RFC 7616 3.4 wants where the server says UTF-8, as plain bytes where it says nothing."""
    given = {"realm": "r", "nonce": "n", "qop": "auth"}
    plain = Nonce.of(Challenge("digest", given), 0.0).header("Jäsøn", "x", "GET", "/")
    told = Nonce.of(Challenge("digest", {**given, "charset": "UTF-8"}), 0.0).header("Jäsøn", "x", "GET", "/")
    assert 'username="Jäsøn"' in plain
    assert "username*=UTF-8''J%C3%A4s%C3%B8n" in told


def test_the_strongest_of_two_digests() -> None:
    """Tomcat offers SHA-256 and MD5 in two headers."""
    two = parse_challenges(
        ['Digest realm="r", nonce="1", algorithm=MD5', 'Digest realm="r", nonce="2", algorithm=SHA-256']
    )
    best = strongest(two)
    assert best is not None
    assert best.parameters["nonce"] == "2"


def _counts(headers: list[str]) -> list[str]:
    return [header.partition("nc=")[2][:8] for header in headers]


def test_a_nonce_is_counted_without_gap_or_repetition() -> None:
    """By all lanes together."""
    auth = _auth("digest")
    lanes = [auth.session() for _ in range(3)]
    lanes[0].header("GET", "/")
    lanes[0].judge(401, _headers(_digest()))
    sent = [lane.header("GET", "/") for lane in (*lanes, *lanes)]
    assert _counts(sent) == [f"{number:08x}" for number in range(1, 7)]


def test_a_stale_nonce_is_no_refusal() -> None:
    """Nor is a 401 to a used nonce without the word stale: Tomcat's (servers.md 33)."""
    for again in (_digest("n1", stale="true"), _digest("n1")):
        auth = _auth("digest")
        session = auth.session()
        session.header("GET", "/")
        session.judge(401, _headers(_digest()))
        session.header("GET", "/")
        session.judge(207, httpx.Headers())
        session.header("GET", "/")
        assert session.judge(401, _headers(again)) is Step.AGAIN
        assert 'nonce="n1"' in session.header("GET", "/")


def test_the_next_nonce_is_used_next() -> None:
    """Authentication-Info: nextnonce."""
    session = _auth("digest").session()
    session.header("GET", "/")
    session.judge(401, _headers(_digest()))
    session.header("GET", "/")
    session.judge(207, httpx.Headers({"authentication-info": 'nextnonce="n9", qop=auth'}))
    header = session.header("GET", "/")
    assert 'nonce="n9"' in header
    assert "nc=00000001" in header


def test_a_nonce_that_may_be_used_once_is_used_once() -> None:
    """Apache with AuthDigestNonceLifetime 0: the next request asks for one, without a body."""
    session = _auth("digest").session()
    session.header("GET", "/")
    session.judge(401, _headers(_digest("n0")))
    session.header("GET", "/")
    session.judge(207, httpx.Headers())
    session.header("GET", "/")
    session.judge(401, _headers(_digest("n1", stale="true")))
    assert session.header("GET", "/").startswith("Digest")
    session.judge(207, httpx.Headers())
    assert session.expects_401
    assert session.standing() is Standing.UNPROVED
    assert session.header("GET", "/") == ""


# --- Bearer ---------------------------------------------------------------------------------------


def _jwt(claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.sig"


@pytest.mark.parametrize(
    ("text", "end_s"),
    [
        (_jwt({"exp": 1_800_000_000}), 1_800_000_000.0),
        (_jwt({"exp": "soon"}), None),
        (_jwt([1]), None),
        ("opaque", None),
        ("a.b.c", None),
        ("a.!!.c", None),
    ],
)
def test_when_a_token_ends(text: str, end_s: float | None) -> None:
    """A JWT tells; whatever else is text is a token that does not."""
    assert Token.parse(f" {text}\n") == Token(text, end_s)


def _tokens(*tokens: Token) -> tuple[Credentials, list[Token]]:
    left, given = list(tokens), []

    async def source() -> Token:
        given.append(left.pop(0) if len(left) > 1 else left[0])
        return given[-1]

    return Credentials(token_source=source), given


async def test_a_token_that_would_end_midway_is_renewed() -> None:
    """Before the upload, not after its 401."""
    credentials, given = _tokens(Token("old", expires_s=60.0 + time.time()), Token("new"))
    auth = _auth("bearer", credentials=credentials)
    session = auth.session()
    await auth.prepare()
    assert session.header("PUT", "/") == "Bearer old"
    session.judge(207, None)
    await auth.prepare(outlive_s=3600)
    assert session.header("PUT", "/") == "Bearer new"
    assert len(given) == 2


async def test_a_refused_token_is_renewed_once() -> None:
    """And a source that has nothing newer ends it."""
    credentials, given = _tokens(Token("old"), Token("old"))
    auth = _auth("bearer", credentials=credentials)
    session = auth.session()
    await auth.prepare()
    session.header("GET", "/")
    assert session.judge(401, _headers("Bearer")) is Step.AGAIN
    with pytest.raises(Unauthorized, match="token"):
        await auth.prepare()
    assert len(given) == 2


# --- NTLM -----------------------------------------------------------------------------------------


def test_ntlm_on_a_fresh_lane_starts_without_a_body() -> None:
    """The first leg is known beforehand to bring a 401; garbage from the server ends the handshake."""
    auth = _auth("ntlm")
    session = auth.session()
    assert session.next_is_leg
    assert session.standing() is Standing.FRESH_LANE
    header = session.header("PROPFIND", "/")
    assert header.startswith("NTLM TlRMTVNTUAAB")
    assert session.judge(401, _headers("NTLM !!!")) is Step.REFUSED
    assert auth.state == "refused"


def test_a_bound_lane_that_is_refused_is_given_up() -> None:
    """mod_auth_gssapi takes no second handshake on one connection: a 401 there takes another lane."""
    auth = _auth("ntlm")
    session = auth.session()
    session.header("PROPFIND", "/")
    assert session.judge(207, None) is Step.DONE
    assert session.header("PUT", "/f") == ""
    assert session.judge(401, _headers("NTLM")) is Step.NEW_LANE
    assert auth.state == "accepted"


@pytest.mark.parametrize(
    "token", ["", "AAAA", base64.b64encode(b"NTLMSSP\0\x02\0\0\0" + b"\xff" * 40).decode()]
)
def test_ntlm_answers_that_make_no_sense(token: str) -> None:
    """Refused after three legs at most, whatever the bytes."""
    auth = _auth("ntlm")
    session = auth.session()
    for _ in range(3):
        if auth.state != "refused":
            session.header("PROPFIND", "/")
            session.judge(401, _headers(f"NTLM {token}".strip()))
    assert auth.state == "refused"


# --- challenges -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "schemes"),
    [
        ([_BASIC], ["basic"]),
        (["Negotiate", "NTLM"], ["negotiate", "ntlm"]),
        (["Negotiate, NTLM, " + _BASIC], ["negotiate", "ntlm", "basic"]),
        (['Basic realm="a, Digest b", charset="UTF-8", Bearer'], ["basic", "bearer"]),
        (["NTLM TlRMTVNTUAACAAAA=="], ["ntlm"]),
        (
            ['Newauth realm="apps", type=1, title="Login to \\"apps\\"", Basic realm="simple"'],
            ["newauth", "basic"],
        ),
        ([""], []),
        ([",,,"], []),
        (["\x00\xff"], []),
        (['"'], []),
    ],
)
def test_challenges(headers: list[str], schemes: list[str]) -> None:
    """In one header or several, with commas in quotes, and nothing at all from garbage."""
    assert [challenge.scheme for challenge in parse_challenges(headers)] == schemes


def test_parameters_and_tokens() -> None:
    """Quoted, plain, escaped; a token68 with its padding."""
    first, second = parse_challenges(['Digest realm="a\\"b" , nonce=x,QOP="auth"', "Negotiate abc/+=="])
    assert first.parameters == {"realm": 'a"b', "nonce": "x", "qop": "auth"}
    assert second.token == "abc/+=="
