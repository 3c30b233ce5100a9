"""The connections that a `Config` describes: TLS, proxies, how many; for a mount and for `davfs probe`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from davfs import __version__
from davfs.config import Config
from davfs.credentials import from_file
from davfs.dav.auth import Authenticator
from davfs.dav.lanes import Lanes, LaneSettings, Proxies, tls_context

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
