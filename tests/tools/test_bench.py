"""scripts/bench measures what it says: its line delays and counts, its table has all rows, its runs merge."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.bench import report
from tests.bench.costs import costs
from tests.bench.measuring import LineProcess, Sample
from tests.bench.results import Key, Results
from tests.servers import Server, Share

_REPO = Path(__file__).parents[2]
_BODY = b"b" * 300_000


def _asked(wire: socket.socket, request: bytes) -> int:
    """The bytes of one whole answer, which has a Content-Length."""
    wire.sendall(request)
    got = b""
    while b"\r\n\r\n" not in got:
        got += wire.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    [length] = [int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:"]
    while len(body) < length:
        body += wire.recv(65536)
    assert len(body) == length
    return len(head) + 4 + length


def _request(method: str, share: Share, name: str, body: bytes = b"") -> bytes:
    path = urlsplit(share.url_of(name)).path
    return f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_the_line_counts_requests_connections_and_bytes_exactly(apache_share: Share) -> None:
    """Two connections, an upload and downloads of 300 kB: every request and every byte is counted."""
    share = apache_share
    requests = [_request("PUT", share, "a", _BODY), _request("GET", share, "a"), _request("GET", share, "a")]
    again = _request("GET", share, "a")
    with LineProcess(share.server.port, rtt_ms=0, rate_mbit=None) as line:
        with socket.create_connection(("127.0.0.1", line.port)) as one:
            down = sum(_asked(one, request) for request in requests)
        with socket.create_connection(("127.0.0.1", line.port)) as other:
            down += _asked(other, again)
        counts = line.quiet()
    assert counts.requests == {"PUT": 1, "GET": 3}
    assert counts.connections == 2
    assert counts.up == sum(map(len, requests)) + len(again)
    assert counts.down == down
    assert (share.root / "a").read_bytes() == _BODY


def test_the_line_takes_its_time(apache_share: Share) -> None:
    """A request takes a round trip, the first of a connection two, and bytes what the bandwidth says."""
    apache_share.write("a", _BODY)
    small, large = _request("OPTIONS", apache_share, ""), _request("GET", apache_share, "a")
    with (
        LineProcess(apache_share.server.port, rtt_ms=40, rate_mbit=8) as line,
        socket.create_connection(("127.0.0.1", line.port)) as wire,
    ):
        moments = [time.monotonic()]
        for request in (small, small, large):
            _asked(wire, request)
            moments.append(time.monotonic())
    first, second, third = (end - begin for begin, end in itertools.pairwise(moments))
    assert first >= 0.080
    assert second >= 0.040
    assert third >= 0.040 + len(_BODY) * 8 / 8e6 - 0.010  # its last turn of 16 KiB may be under way at once


def _bench(out: Path, *arguments: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Runs it at 1 ms on small sizes; the cells of its results by row and peer."""
    command = [
        sys.executable,
        "-m",
        "tests.bench",
        "mounts",
        "--out",
        str(out),
        "--rtt",
        "1",
        "--rounds",
        "1",
    ]
    done = subprocess.run(
        [*command, "--shrink", "100", *arguments],
        cwd=_REPO,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cells = json.loads((out / "performance.json").read_text())["cells"]
    return {(cell["row"], cell["peer"]): cell for cell in cells}


@pytest.mark.slow
def test_mounts_are_compared_and_runs_merge(apache: Server, tmp_path: Path) -> None:
    """Two workloads give a table with both mounts; a run of one more workload keeps the other rows."""
    first = _bench(tmp_path, "--workloads", "write-small,read-small", "--peers", "davfs,rclone")
    rclone = {"rclone"} if Path(sys.executable).with_name("rclone").exists() else set()
    rows = {"write-small", "write-small-returns", "read-small", "read-small-again"}
    assert set(first) == {(row, peer) for row in rows for peer in {"davfs"} | rclone}
    [written] = first["write-small", "davfs"]["samples"]
    assert written["note"] == ""
    assert written["requests"]["PUT"] == 5
    assert written["up_bytes"] > 5 * 4096
    assert written["peak_bytes"] > 0
    [read] = first["read-small", "davfs"]["samples"]
    assert read["requests"] == {"PROPFIND": 1, "GET": 4}

    second = _bench(tmp_path, "--workloads", "open-one", "--peers", "davfs")
    assert set(second) == set(first) | {("open-one", "davfs")}
    assert second["write-small", "davfs"] == first["write-small", "davfs"]
    text = (tmp_path / "PERFORMANCE.md").read_text()
    assert "| write 500 x 4 KiB, until durable |" in text
    assert "| read one file of 16 KiB in a listed folder of 1,000 |" in text


def _results(**seconds: list[float | None]) -> Results:
    results = Results()
    for peer, rounds in seconds.items():
        for one in rounds:
            sample = Sample(one, note="" if one is not None else "1 of 100 never arrived", cpu_s=0.5)
            results.add(Key("saves", 20, None, peer), "run", "1.0", sample)
    return results


def _only(results: Results) -> report.Verdict:
    [[verdict]] = report.verdicts(results).values()
    return verdict


def test_the_ratio_is_to_the_best_of_those_that_did_it() -> None:
    """A mount that failed in any round is faster than nobody, and its failure stands in the report."""
    results = _results(davfs=[2.0, 1.0, 9.0], rclone=[0.1, 0.1, None], davfs2=[20.0, 22.0, 21.0])
    verdict = _only(results)
    assert verdict.best_other == "davfs2"
    assert verdict.ratio == pytest.approx(2 / 21)
    assert list(verdict.objections()) == ["1.2 times the target"]
    text = "\n".join(report.lines(results, chart=False))
    assert "rclone, 100 editor saves, until durable, 20 ms: 1 of 100 never arrived" in text


def test_a_failure_of_ours_is_no_target_reached() -> None:
    """Our own failure is shown as one, whatever the others did."""
    assert list(_only(_results(davfs=[1.0, None], rclone=[5.0])).objections()) == ["failed"]


def test_results_of_another_run_replace_only_their_own_cells(tmp_path: Path) -> None:
    """What was saved is read back, and a new run starts its cells anew."""
    results = _results(davfs=[2.0, 3.0], rclone=[5.0])
    results.save(tmp_path / "r.json")
    loaded = Results.load(tmp_path / "r.json")
    loaded.add(Key("saves", 20, None, "davfs"), "later", "1.1", Sample(1.0))
    verdict = _only(loaded)
    assert verdict.seconds("davfs") == 1.0
    assert verdict.seconds("rclone") == 5.0
    assert not verdict.same_run


def test_samples_are_told_by_part_and_function(tmp_path: Path) -> None:
    """C code counts for the function that called it, waiting for nothing; rows without samples say so."""
    loop = "main (davfs/cli.py:35);unrolled_run (trio/_core/_run.py:2712)"
    found = costs(
        [
            f"{loop};Uploads._work (davfs/fs/upload.py:219);Index.run (davfs/fs/index.py:90) 30",
            f"{loop};async_wrapper.<locals>.wrapper (_pyfuse3.py:56) 50",
            f"{loop};Lane.send (davfs/dav/lanes/lane.py:101);checkpoint (trio/_core/_run.py:9) 20",
            "main (davfs/cli.py:35);run (trio/_core/_run.py:1);EpollIOManager.get_events (trio/x.py:2) 900",
        ]
    )
    assert (found.work_s, found.waiting) == (0.4, 900)
    assert found.parts == {"records": 30, "kernel's requests": 50, "event loop": 20}

    page = tmp_path / "PERFORMANCE.md"
    page.write_text("# Before\n")
    for _ in range(2):
        report.write_costs({"walk": found, "rm": costs([f"{loop};f (davfs/cli.py:1) 3"])}, page)
    text = page.read_text()
    assert text.startswith("# Before\n")
    assert text.count("| list + stat 200 x 20, cold | 0.40 | 50 % |") == 1
    assert "`pyfuse3` 50 %; `Index.run` 30 %; `checkpoint` 20 %" in text
    assert "Too short to say (below 0.1 s at work): rm -r of 20 x 20 files." in text
