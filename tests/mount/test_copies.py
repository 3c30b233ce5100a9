"""`cp` within a mount: the server copies, and nothing goes up."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import pytest

from tests.mount.drivers import KernelDriver
from tests.servers import Exchange, Relay, Share
from tests.servers.meter import Moment
from tests.servers.relay import Verdict

MountOf = Callable[..., KernelDriver]
LONG_AGO = (1_600_000_000, 1_600_000_000)
BYTES = os.urandom(8 << 20)
COPYING = {"apache", "wsgidav"}  # nginx shows no tags in PROPFIND: nothing proves which version it copied


def sent(share: Share) -> Counter[str]:
    return Counter(request.method for request in share.log_requests() if request.method != "PROPFIND")


def test_cp_sends_no_body(share: Share, mount_of: MountOf) -> None:
    """8 MiB: bytes down once, a COPY, a MOVE, and less than 16 KiB up; where tags prove nothing, a PUT."""
    os.utime(share.write("source", BYTES), LONG_AGO)
    with Relay(share.url) as relay:
        drive = mount_of(share, url=relay.url)
        drive.listdir()
        share.forget_requests()
        down, up = relay.bytes_down, relay.bytes_up
        drive.run(["cp", "source", "copy"])
        assert drive.sync() == 0
        down, up = relay.bytes_down - down, relay.bytes_up - up
    assert (share.root / "copy").read_bytes() == BYTES
    assert sorted(os.listdir(share.root)) == ["copy", "source"]
    assert down < len(BYTES) + 64_000
    requests = sent(share)
    if share.server.name in COPYING:
        assert up < 16_384
        assert (requests["COPY"], requests["MOVE"], requests["PUT"]) == (1, 1, 0)
    else:
        assert (requests["COPY"], requests["PUT"]) == (0, 1)


@pytest.mark.parametrize("server", ["apache", "wsgidav"])
def test_a_source_that_changes_meanwhile_is_not_copied(
    server: str, mount_of: MountOf, request: pytest.FixtureRequest
) -> None:
    """Somebody stores another version while `cp` runs: the copy holds what `cp` read."""
    share: Share = request.getfixturevalue(f"{server}_share")
    os.utime(share.write("source", BYTES), LONG_AGO)

    def meddle(moment: Moment, exchange: Exchange) -> Verdict:
        if exchange.method == "COPY" and moment == "request":
            (share.root / "source").write_bytes(BYTES[::-1])
        return "pass"

    with Relay(share.url, watch=meddle) as relay:
        drive = mount_of(share, url=relay.url)
        drive.listdir()
        share.forget_requests()
        drive.run(["cp", "source", "copy"])
        assert drive.sync() == 0
    assert (share.root / "copy").read_bytes() == BYTES
    assert sent(share)["COPY"] == 1
    assert sorted(os.listdir(share.root)) == ["copy", "source"]


@pytest.mark.expects_warning("conflict")
def test_a_copy_over_a_file_somebody_else_made(apache_share: Share, mount_of: MountOf) -> None:
    """The name was taken on the server while `cp` ran: both files survive."""
    os.utime(apache_share.write("source", BYTES), LONG_AGO)

    def meddle(moment: Moment, exchange: Exchange) -> Verdict:
        if exchange.method == "COPY" and moment == "request":
            apache_share.write("copy", b"theirs")
        return "pass"

    with Relay(apache_share.url, watch=meddle) as relay:
        drive = mount_of(apache_share, url=relay.url)
        drive.listdir()
        drive.run(["cp", "source", "copy"])
        assert drive.sync() == 0
    kept = sorted((apache_share.root / name).stat().st_size for name in os.listdir(apache_share.root))
    assert kept == [len(b"theirs"), len(BYTES), len(BYTES)]
    assert (apache_share.root / "copy").read_bytes() == b"theirs"
