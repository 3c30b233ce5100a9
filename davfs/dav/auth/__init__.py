"""Authentication: which header goes with the next request, and what an answer means for it.

No module here does I/O. An `Authenticator` is shared by all lanes of a mount and knows the credentials, the
scheme in use and whether the server took them; each lane has a `Session` of its own, which writes the
Authorization header of its next request and judges each answer. davfs.dav.lanes carries the requests.

What never happens: a password or token in a message or repr; Basic, Digest or a token over plain http to
another machine without the user's word; a second round with credentials that were refused (servers lock
accounts), until `replace` brings new ones; credentials for another host than the share's.
"""

from davfs.dav.auth.authenticator import Authenticator, Origin, Session, build_auth, origin_of
from davfs.dav.auth.identity import Credentials, Scheme, Token, TokenSource
from davfs.dav.auth.methods import Standing, Step
from davfs.dav.auth.plaintext import check_plaintext

__all__ = [
    "Authenticator",
    "Credentials",
    "Origin",
    "Scheme",
    "Session",
    "Standing",
    "Step",
    "Token",
    "TokenSource",
    "build_auth",
    "check_plaintext",
    "origin_of",
]
