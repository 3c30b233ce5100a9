"""Fixtures of the protocol tier: an authority for servers that speak TLS."""

from __future__ import annotations

import pytest

from tests.servers import Certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))
