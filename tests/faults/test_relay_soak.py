"""cp, git, sqlite and rsync on a mount whose line breaks all the time; then it heals, and nothing is lost.

The relay (trouble.py) resets, cuts, half-closes, stalls, drips, and puts garbage or another status in place
of an answer, by a seeded schedule: what a gateway says when it lost the answer (500, 502, 504), or wants us
to wait (408, 429, 503), and refusals of uploads that were stored all the same. No client can see through
another verb's 2xx or 4xx that is not true: "no such file" is believed.
Programs are repeated as a person would; a probe times every call it makes.

50 faults in the ordinary run; DAVFS_SOAK=1 makes it 1,000 on each server, and prints what happened.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.faults import oracle
from tests.faults.programs import Bench, Copy, Git, Program, Rsync, Sqlite, Stopped, same
from tests.mount.drivers import KernelDriver
from tests.servers import Relay, Server, Share
from tests.servers.trouble import KINDS, Fault

SOAK = os.environ.get("DAVFS_SOAK") == "1"
FAULTS = int(os.environ.get("DAVFS_FAULTS", "1000" if SOAK else "25"))  # on each of the two servers
PROGRAMS: list[type[Program]] = [Copy, Git, Sqlite, Rsync]
RUN_S = 1800.0 if SOAK else 60.0
HEAL_S = 120.0  # repeating what failed, with a line that works
TIMEOUT_S = 2.0
# A call waits for at most a few requests, each with its retry; far from the 30 s of a frozen desktop.
# fsync, and a rename that waits for the upload of its file, end when the attempt does.
CALL_BOUND_S = 30.0
STORY_LINES = 80
_PUT, _ASKING, _ANY = frozenset({"PUT"}), frozenset({"PROPFIND", "GET"}), frozenset[str]()
# Another status in place of the server's, for which methods, and its Retry-After. The server has done what it
# was asked each time: of a PUT that was "refused" the bytes are there.
STATUSES: list[tuple[int, frozenset[str], int | None]] = [
    *[(status, _ANY, None) for status in (500, 502, 504)] * 3,
    *[(status, _ASKING, 1) for status in (429, 503)],
    (408, _ASKING, None),
    *[(status, _PUT, 1) for status in (429, 503)],
    *[(status, _PUT, None) for status in (403, 404, 408, 409, 412, 423, 507)],
]
_NAMES = r"(?<=ourselves: ).+|(?<=other bytes: )\S+|[^/ ]+(?= differ)"
_WORKLOAD = Path(__file__).with_name("workload.py")

pytestmark = [pytest.mark.expects_warning(""), pytest.mark.timeout(RUN_S + HEAL_S + 400)]


def _fault(rng: random.Random) -> Fault:
    kind = rng.choice(KINDS)
    status, methods, retry_after_s = rng.choice(STATUSES)
    return Fault(
        kind,
        "down" if kind in {"garbage", "status"} else rng.choice(["up", "down"]),
        rng.choice([0, 0, 1, 50, 200, 300, 1000, 5000, 40_000, 200_000]),
        seconds=rng.choice([0.1, 1.0, 3.0]),
        status=status,
        methods=methods if kind == "status" else frozenset(),
        retry_after_s=retry_after_s,
    )


def _break(relay: Relay, count: int, seed: str, go_on: Callable[[], bool]) -> int:
    """Faults one after the other until so many happened; answers how many did."""
    rng = random.Random(seed)
    armed_s = 0.0
    while len(relay.happened) < count and go_on():
        if relay.waiting_faults == 0 or time.monotonic() - armed_s > 0.5:
            relay.arm(_fault(rng))
            armed_s = time.monotonic()
        time.sleep(rng.random() * 0.2)
    relay.disarm()
    return len(relay.happened)


class _Probe:
    """The workload of the kill test as a probe: it goes on after errors, and every call is timed."""

    def __init__(self, mount: Path, outside: Path, share: Share, seed: int) -> None:
        share.mkdir("w0")
        self.journal = outside / "probe.journal"
        orders = {
            "seed": seed,
            "root": str(mount),
            "journal": str(self.journal),
            "private": [[{}, ["w0"]]],
            "shared": [],
            "origin_s": time.monotonic(),
            "limit_s": RUN_S + HEAL_S,
            "persistent": True,
        }
        (outside / "probe.json").write_text(json.dumps(orders))
        self.process = subprocess.Popen(
            [sys.executable, str(_WORKLOAD), str(outside / "probe.json")], start_new_session=True
        )

    def end(self) -> bool:
        """False when it had to be left: it hangs in a call."""
        self.process.terminate()
        try:
            self.process.wait(CALL_BOUND_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def calls(self) -> list[oracle.Call]:
        return oracle.read_journal(self.journal).of(0)


def _check(drive: KernelDriver, share: Share, programs: list[Program], outside: Path) -> list[str]:
    """Mount, server's disk and what is outside are the same."""
    told = same(drive.mount.point, share.root, "mount against server")
    told = [one for one in told if oracle.HIDDEN_PREFIX not in one]
    for program in programs:
        told += [f"on the server: {one}" for one in program.check(share.root)]
        told += [f"on the mount: {one}" for one in program.check(drive.mount.point)]
    tree = oracle.read_tree(share.root)
    left = [path for path in (*tree.files, *tree.folders) if oracle.HIDDEN_PREFIX in path]
    sys.stdout.write(f"\nleft over on the server: {left}\n")
    return told


def _conflicts(drive: KernelDriver) -> list[str]:
    """As the log tells: rsync --delete, for one, removes the copies again."""
    told = [line.partition("our version is /")[2] for line in drive.mount.complaints() if "conflict:" in line]
    return [path for path in told if path]


def _report(name: str, relay: Relay, bench: Bench, programs: list[Program], calls: list[oracle.Call]) -> str:
    kinds = Counter(f"{one.fault.kind} {one.fault.direction}" for one in relay.happened)
    lines = [f"{name}: {len(relay.happened)} faults: {dict(sorted(kinds.items()))}"]
    lines.append("  cycles: " + ", ".join(f"{one.name} {one.cycles}" for one in programs))
    lines.append(f"  runs {dict(bench.runs)}, of them failed {dict(bench.failures)}")
    lines.append(f"  what they said: {dict(bench.errors.most_common(12))}")
    seconds: dict[str, list[float]] = {}
    errors: Counter[str] = Counter()
    for call in calls:
        if call.errno is not None:
            seconds.setdefault(call.name, []).append(call.seconds)
            if call.errno:
                errors[f"{call.name} {oracle.name_of(call.errno)}"] += 1
    return "\n".join(
        [*lines, *oracle.timings(seconds), f"  errors of the probe: {dict(errors.most_common(15))}"]
    )


@pytest.mark.parametrize("server", ["apache", "wsgidav"])
def test_programs_on_a_line_that_breaks(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, mount_of: Callable[..., KernelDriver]
) -> None:
    """After healing everything is there: on the mount, on the server, and as the programs made it."""
    one: Server = request.getfixturevalue(server)
    seed = int(os.environ.get("DAVFS_SEED", "4"))
    outside = tmp_path / "outside"
    outside.mkdir()
    with one.share() as share, Relay(share.url) as relay:
        drive = mount_of(share, url=relay.url, timeout=TIMEOUT_S, attr_timeout=1)
        bench = Bench(drive.mount.point, outside)
        programs: list[Program] = [make(bench, seed) for make in PROGRAMS]
        probe = _Probe(drive.mount.point, outside, share, seed)
        deadline = time.monotonic() + RUN_S
        try:
            for program in programs:
                program.start()
            happened = _break(
                relay,
                FAULTS,
                f"{seed}-{server}",
                lambda: time.monotonic() < deadline and drive.mount.process.poll() is None,
            )
        finally:
            relay.disarm()
            bench.stop.set()
            for program in programs:
                program.join()
            hangs = [] if probe.end() else ["the probe hangs"]
            if hangs or bench.hung:
                drive.mount.abort()
        findings = [*hangs, *(f"hung: {command}" for command in bench.hung)]
        report = _report(server, relay, bench, programs, probe.calls())
        assert not findings, f"{report}\n{findings}"
        findings += _healed(drive, bench, programs)
        findings += _check(drive, share, programs, outside)
        findings += _slow(probe.calls())
        findings += [f"conflict with ourselves: {path}" for path in _conflicts(drive)]
        names = {name for one in findings for name in re.findall(_NAMES, one)}
        findings += [line for name in sorted(names) for line in _story(relay, name)]
        findings += [line for line in drive.mount.complaints() if "Traceback" in line or "unexpected" in line]
        sys.stdout.write("\n".join(["", report, *findings, ""]))
        assert not findings, "\n".join([report, *findings])
        assert happened >= FAULTS


def _healed(drive: KernelDriver, bench: Bench, programs: list[Program]) -> list[str]:
    """Repeats what was interrupted, and waits until everything is on the server."""
    deadline = time.monotonic() + HEAL_S
    bench.stop.clear()
    time.sleep(TIMEOUT_S)  # what was told of the server while it was broken is believed for a second
    patience = threading.Timer(HEAL_S, bench.stop.set)
    patience.start()
    try:
        for program in programs:
            try:
                program.repair()
            except Stopped:
                return [f"{program.name} cannot be repaired: {dict(bench.errors.most_common(5))}"]
    finally:
        patience.cancel()
    while drive.sync(60) != 0:
        if time.monotonic() > deadline:
            status = drive.mount.davfs("status", str(drive.mount.point))
            return [f"davfs sync never ended well: {status.stdout}"]
    time.sleep(TIMEOUT_S)
    return []


def _story(relay: Relay, name: str) -> list[str]:
    """Requests on a file before it went wrong, and the faults that their connections had."""
    plain = re.sub(r" \(conflict [^)]*\)", "", name)
    about = [one for one in relay.exchanges if plain in unquote(f"{one.target} {one.destination}")]
    copied = [one.order for one in relay.exchanges if name in unquote(one.target)] if plain != name else []
    staged = {one.target for one in about if one.destination is not None}
    orders = {one.order for one in about}
    about = [one for one in relay.exchanges if one.order in orders or one.target in staged]
    there = [(float(one.order), one.status or 999, f"    {one.order} {one}") for one in about]
    carried = {one.connection for one in about}
    bad = [(one.order - 0.5, 999, f"    {one}") for one in relay.happened if one.connection in carried]
    lines = sorted(there + bad)
    if copied:
        return [line[2] for line in lines if line[0] <= copied[0]][-STORY_LINES:]
    near = {at + by for at, line in enumerate(lines) if line[1] >= 400 for by in range(-5, 6)}
    return [line[2] for at, line in enumerate(lines) if at in near][-STORY_LINES:]


def _slow(calls: list[oracle.Call]) -> list[str]:
    return [
        f"took {call.seconds:.1f} s: {call}"
        for call in calls
        if call.errno is not None and call.seconds > CALL_BOUND_S
    ]
