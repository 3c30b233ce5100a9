"""The connections that a `Config` describes: TLS, proxies, how many; for a mount and for `davfs probe`.

And what a person is told when the first one fails.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from davfs import __version__
from davfs.config import Config
from davfs.credentials import from_file
from davfs.dav.auth import Authenticator
from davfs.dav.lanes import Lanes, LaneSettings, Proxies, tls_context
from davfs.dav.redirects import NotWebDav
from davfs.errors import DavfsError, Disconnected, Forbidden, Unauthorized

METADATA_CONNECTIONS: Final = 8  # beyond those of the transfers, so that a listing never queues behind data


def lanes_of(config: Config, auth: Authenticator) -> Lanes:
    """Reads the client certificate's password. Raises ConfigError."""
    secret = config.client_cert_password_file
    password = None if secret is None else from_file(Path(secret), "client_cert_password_file").reveal()
    tls = tls_context(
        cacert=config.cacert,
        pin_sha256=config.pin_sha256,
        client_cert=config.client_cert,
        client_cert_password=password,
    )
    settings = LaneSettings(
        data_lanes=config.connections,
        metadata_lanes=METADATA_CONNECTIONS,
        tls=tls,
        pin_sha256=config.pin_sha256,
        proxies=Proxies.from_environment(os.environ),
        user_agent=f"davfs/{__version__}",
    )
    return Lanes(auth, settings)


def in_words(error: DavfsError, config: Config) -> str:
    """What ended the first contact, without the words of the wire, and what may help."""
    text = str(error).removeprefix("PROPFIND /: ").removeprefix("connect: ")
    hint = _hint(error, text, config)
    return f"{text} ({hint})" if hint else text


def _hint(error: DavfsError, text: str, config: Config) -> str:
    is_tls = config.url.startswith("https:")
    if isinstance(error, Unauthorized) and "answered 401" in text:
        return "it wants to know who you are: -o username=NAME"
    if isinstance(error, Forbidden):
        return "this user may not list it, or it is not the address for WebDAV"
    if isinstance(error, NotWebDav) and "answered 400" in text:
        return "or it is a file: a share is a folder"
    if "certificate is not trusted" in text and not config.pin_sha256:
        return "if it is one of your own: -o cacert=FILE, or pin_sha256=HEX"
    if is_tls and "WRONG_VERSION_NUMBER" in text:
        return "does it speak http there, without the s?"
    if not is_tls and isinstance(error, Disconnected):
        return "does it want https there?"
    return ""
