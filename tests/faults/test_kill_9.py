"""`kill -9` of the daemon at named and at random points, under programs that write and a rival that edits.

Each round: mount, work, kill, remount with the same cache, compare (oracle.py). The programs' journal lies
outside the mount. 20 kills in the ordinary run; DAVFS_SOAK=1 makes it 312, spread over all points, and prints
where they fell. DAVFS_SEED=n repeats a run: the choices are then the same, the timing is the machine's.
DAVFS_POINTS=conflict takes only the points with that word in their names.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.faults import oracle
from tests.faults.killing import POINTS, Point, Shot
from tests.faults.rival import Put, Rival
from tests.mount.drivers import Hands, Hung, Mount
from tests.servers import Exchange, Relay, Server, Share
from tests.servers.meter import Moment
from tests.servers.relay import Verdict, Watch

SOAK = os.environ.get("DAVFS_SOAK") == "1"
KILLS = int(os.environ.get("DAVFS_KILLS", "156" if SOAK else "10"))  # on each of the two servers
CHOSEN = [point for point in POINTS if os.environ.get("DAVFS_POINTS", "") in point.name]
WORK_S = 2.5  # a point that does not come up in this time is given up, and the daemon killed anyhow
SHARED = ["s0", "s1", "s2"]
THREADS = 3
_WORKLOAD = Path(__file__).with_name("workload.py")

pytestmark = [pytest.mark.expects_warning(""), pytest.mark.timeout(90 + KILLS * 12)]


@dataclass(slots=True)
class _Run:
    """A share, its cache and what is known of both, over all rounds."""

    share: Share
    relay: Relay
    place: Path
    seed: int
    origin_s: float = field(default_factory=time.monotonic)
    folders: list[oracle.Folder] = field(default_factory=list)
    versions: oracle.Versions = field(default_factory=oracle.Versions)
    findings: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    round: int = 0
    told: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)  # temporary names of ours that stayed on the server
    windows: oracle.Windows = field(default_factory=lambda: oracle.Windows("/"))
    put: list[Put] = field(default_factory=list)  # what the rival did in this round
    taken: list[bytes] = field(default_factory=list)

    def start(self) -> None:
        self.folders = [oracle.Folder(f"w{number}") for number in range(THREADS)]
        for name in [*(folder.name for folder in self.folders), "shared"]:
            self.share.mkdir(name)

    def rng(self, what: str) -> random.Random:
        return random.Random(f"{self.seed}-{self.round}-{what}")

    def find(self, told: list[str], when: str) -> None:
        for one in told:
            if "(soft)" in one:
                self.notes[one.partition(" (soft)")[0].rpartition(": ")[2]] += 1
            elif one not in self.told:
                self.findings.append(f"round {self.round} {when}: {one}")
            self.told.add(one)

    def _temporary_names(self) -> list[str]:
        paths = self.share.root.rglob(f"{oracle.HIDDEN_PREFIX}*")
        return sorted(str(path.relative_to(self.share.root)) for path in paths)

    def server_tree(self) -> oracle.Trees:
        """What the server's disk has, when it has nothing left to do for the daemon that was killed."""
        tree = oracle.read_tree(self.share.root)
        hidden = {path for path in (*tree.files, *tree.folders) if oracle.HIDDEN_PREFIX in path}
        self.find([f"left over (soft): {path}" for path in sorted(hidden - self.hidden)], "on the server")
        self.hidden |= hidden
        return oracle.Trees(
            {path: data for path, data in tree.files.items() if path not in hidden}, tree.folders - hidden
        )

    # --- one round

    def kill(self, point: Point) -> None:
        """Mount, work, kill."""
        self.round += 1
        rng = self.rng("round")
        write_back = rng.choice([0, 0.2, 0.2, 1.5])
        mount = self._mount(write_back=write_back)
        rival = Rival(self.share, SHARED, self.origin_s, f"{self.seed}-{self.round}-rival")
        journal = self.place / f"journal{self.round}"
        self.windows = oracle.Windows(urlsplit(self.relay.url).path)
        shot = Shot(point, mount.pid, rng, self.windows.path_of, rival.collide)
        self.relay.watch = self._watch(shot)
        try:
            if point.place == "recovery":
                time.sleep(rng.random() * 0.3)
                shot.fire()
            else:
                self._work(mount, shot, rival, journal)
        finally:
            shot.end()
            mount.kill()
        fired = shot.fired.is_set() or oracle.read_journal(journal).shots > 0
        (self.points if fired else self.missed)[point.name] += 1
        self._after_kill(mount, journal)

    def _watch(self, shot: Shot) -> Watch:
        def watch(moment: Moment, one: Exchange) -> Verdict:
            verdict = shot.watch(moment, one)  # may let the rival in, before the request passes
            self.windows.note(moment, one)
            return verdict

        return watch

    def _work(self, mount: Mount, shot: Shot, rival: Rival, journal: Path) -> None:
        orders = {
            "seed": f"{self.seed}-{self.round}",
            "root": str(mount.point),
            "journal": str(journal),
            "private": [folder.orders() for folder in self.folders],
            "shared": SHARED,
            "origin_s": self.origin_s,
            "limit_s": WORK_S,
            "kill": shot.orders(),
        }
        told = self.place / "orders.json"
        told.write_text(json.dumps(orders))
        shot.cache = mount.cache
        if shot.point.place == "index" and not shot.point.collides:
            shot.watch_index(mount.cache)
        programs = subprocess.Popen([sys.executable, str(_WORKLOAD), str(told)], start_new_session=True)
        rival.start()
        try:
            if shot.point.place == "time" and not shot.point.collides:
                mount_ended = self._ended(mount, 0.1 + shot.rng.random() * WORK_S * 0.6)
                if not mount_ended:
                    shot.fire()
            self._ended(mount, WORK_S)
            mount.process.kill()
            mount.process.wait(10)
            programs.wait(20)
        finally:
            self.put, self.taken = rival.stop()
            if programs.poll() is None:
                mount.abort()
                programs.kill()
                programs.wait(10)

    def _ended(self, mount: Mount, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while mount.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        return mount.process.poll() is not None

    def _after_kill(self, mount: Mount, journal: Path) -> None:
        self._look_at_log(mount)
        history = oracle.read_journal(journal)
        for calls in history.calls.values():
            for call in calls:
                if call.returned:
                    self.seconds.setdefault(call.name, []).append(call.seconds)
        for number, folder in enumerate(self.folders):
            self.find(folder.replay(history.of(number)), "in the work")
        for one in self.put:
            blink = not one.must_be_seen and self.windows.cover(one.path, one.begun_s, one.done_s)
            self.versions.foreign(one.path, one.tag, in_a_blink=blink)
        self.find(self.versions.replay(history.of(THREADS)), "in the work")
        self.versions.taken(self.taken)
        self.put, self.taken = [], []
        self.relay.settle()
        self.share.server.settle()  # it ends what it was doing for the daemon
        server = self.server_tree()
        for folder in self.folders:
            self.find(folder.missing_fsynced(server.below(f"{folder.name}/")), "on the server after the kill")
        lost = self.versions.lost(server.below("shared/"), fsynced_only=True)
        self.find(lost, "fsynced, on the server after the kill")

    def _look_at_log(self, mount: Mount) -> None:
        text = mount.log.read_text(errors="replace")
        for line in text.splitlines():
            if "Traceback" in line or "unexpected" in line.lower() or " ERROR " in line:
                self.find([f"{line[24:]} ({mount.log.parent.name})"], "log")

    def _mount(self, **options: Any) -> Mount:
        folder = self.place / f"mount{self.round}"
        while folder.exists():
            folder = folder.with_name(f"{folder.name}x")
        folder.mkdir()
        return Mount(
            self.relay.url, folder, cache_dir=self.place / "cache", attr_timeout=1, timeout=5, **options
        )

    # --- after it

    def check(self) -> None:
        """Remount; everything is there, at once and after `davfs sync`, and the server has the same."""
        mount = self._mount()
        hands = Hands(Path("/"))
        try:
            shown = self._shown(hands, mount)
            for folder in self.folders:
                self.find(folder.compare(shown), "after the remount")
            began = time.monotonic()
            if mount.sync(30) != 0:
                status = mount.davfs("status", str(mount.point)).stdout
                self.find([f"davfs sync failed after {time.monotonic() - began:.1f} s: {status}"], "sync")
            self._check_server(hands, mount)
        finally:
            self._look_at_log(mount)
            try:
                mount.close(grace_s=20)
            except Hung as hung:
                self.find([f"the daemon did not end: {hung}"[:300]], "unmount")
            hands.close()

    def _shown(self, hands: Hands, mount: Mount) -> oracle.Trees:
        for _ in range(3):
            try:
                return oracle.Trees(*hands.call("read_tree", str(mount.point), timeout_s=60.0))
            except OSError as error:
                self.find([f"reading the tree: {error}"], "after the remount")
                time.sleep(0.5)
        raise AssertionError("the mount cannot be read")

    def _check_server(self, hands: Hands, mount: Mount) -> None:
        server = self.server_tree()
        for folder in self.folders:
            self.find(folder.compare(server), "on the server after sync")
        self.find([*oracle.mixtures(server.below("shared/"))], "on the server after sync")
        self.find(self.versions.lost(server.below("shared/")), "on the server after sync")
        self.find(self.versions.twice(server.below("shared/")), "on the server after sync")
        ours = [p for p in server.files if "(conflict" in p and not p.startswith("shared/")]
        self.find([f"conflict with ourselves: {path}" for path in ours], "on the server after sync")
        deadline = time.monotonic() + 5.0  # until the attribute time-out of what the rival did has passed
        while told := oracle.differences(server, self._shown(hands, mount)):
            if time.monotonic() > deadline:
                self.find(told, "mount against server")
                break
            time.sleep(0.3)
        while left := self._temporary_names():  # of the daemon that was killed, and of this one
            if time.monotonic() > deadline + 10.0:
                self.find([f"temporary name stays: {path}" for path in left], "mount against server")
                break
            time.sleep(0.3)

    def report(self) -> str:
        lines = [f"{self.share.name}, seed {self.seed}: {self.points.total()} kills at their point,"]
        lines += [f"  and {self.missed.total()} at the end of a round whose point did not come up"]
        for point in CHOSEN:
            lines.append(f"  {point.name:34} {self.points[point.name]:4} {self.missed[point.name]:4}")
        lines += oracle.timings(self.seconds)
        lines.append(
            f"  notes: {dict(self.notes)}; replaced unseen by a rename: {self.versions.unseen};"
            f" edits of the other client in the instant of an upload: {self.versions.blinks}"
        )
        return "\n".join([*lines, *self.findings])


@contextmanager
def _running(share: Share, place: Path, seed: int) -> Iterator[_Run]:
    with Relay(share.url) as relay:
        run = _Run(share, relay, place, seed)
        run.start()
        yield run


def _points(rng: random.Random, count: int) -> list[Point]:
    """Every point in turn, in another order each time round."""
    chosen: list[Point] = []
    while len(chosen) < count:
        chosen += rng.sample(CHOSEN, len(CHOSEN))
    return chosen[:count]


@pytest.mark.parametrize("server", ["apache", "wsgidav"])
def test_kill_9_anywhere(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """After kill -9 at any point everything acknowledged is there, at its path, and nobody's edit is lost."""
    one: Server = request.getfixturevalue(server)
    seed = int(os.environ.get("DAVFS_SEED", "4"))
    with one.share() as share, _running(share, tmp_path, seed) as run:
        for point in _points(random.Random(f"{seed}-{server}"), KILLS):
            run.kill(point)
            run.check()
        sys.stdout.write(f"\n{run.report()}\n")
        assert not run.findings, run.report()
