"""Ordinary programs on a mount whose line is bad: they may fail, and are repeated as a person would.

Each runs in cycles until it is told to stop, in a thread of the tests with its programs as processes, and
keeps what it made outside the mount too, so that at the end both can be compared.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

RUN_TIMEOUT_S = 120.0
FIRST_TURN_S = 1_600_000_000  # the mtime of what the first turn makes
RSYNC_WAYS: tuple[tuple[str, ...], ...] = ((), ("--checksum",), ("--inplace",), ("--ignore-times",))
_ROWS = """\
import os, sqlite3, sys
path, log, first, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with open(log, "a", buffering=1) as done:
    db = sqlite3.connect(path, timeout=10)
    db.execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, data BLOB)")
    for number in range(first, first + count):
        with db:
            db.execute("INSERT OR REPLACE INTO rows VALUES (?, ?)", (number, str(number).encode() * 200))
        done.write(f"{number}\\n")
    db.close()
"""


class Stopped(Exception):
    """The run is over."""


class Hung(Exception):
    """A program did not end."""


class Bench:
    """Runs programs until they succeed; counts how often they failed."""

    def __init__(self, mount: Path, outside: Path) -> None:
        self.mount = mount
        self.outside = outside
        self.stop = threading.Event()
        self.failures: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.hung: list[str] = []

    def once(self, *command: str, cwd: Path | None = None) -> bool:
        """False when it failed."""
        self.runs[command[0]] += 1
        process = subprocess.Popen(
            command,
            cwd=cwd or self.outside,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=os.environ
            | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "LC_ALL": "C"},
            start_new_session=True,
        )
        try:
            _, said = process.communicate(timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.hung.append(" ".join(command))
            raise Hung(command) from None
        if process.returncode != 0:
            self.failures[command[0]] += 1
            last = said.strip().rpartition("\n")[2]
            self.errors[f"{command[0]}: {last.rpartition(': ')[2][:60]}"] += 1
        return process.returncode == 0

    def until_it_works(self, *command: str, cwd: Path | None = None) -> None:
        while not self.once(*command, cwd=cwd):
            if self.stop.wait(0.2):
                raise Stopped


class Program(threading.Thread):
    def __init__(self, bench: Bench, seed: int) -> None:
        super().__init__(name=type(self).__name__)
        self.bench = bench
        self.rng = random.Random(f"{seed}-{self.name}")
        self.cycles = 0
        self.interrupted = False

    def run(self) -> None:
        try:
            while not self.bench.stop.is_set():
                self.cycle()
                self.cycles += 1
                self.bench.stop.wait(0.05)
        except (Stopped, Hung):
            self.interrupted = True

    def cycle(self) -> None:
        raise NotImplementedError

    def repair(self) -> None:
        """After healing: what was interrupted is done again, and nothing else: that would hide a loss."""
        if self.interrupted:
            self.redo()

    def redo(self) -> None:
        self.cycle()

    def check(self, tree: Path) -> list[str]:
        """Findings in `tree`, the mount or the server's disk."""
        raise NotImplementedError


def make_tree(root: Path, rng: random.Random, count: int, turn: int) -> None:
    """Each turn has a time of its own: rsync takes the same size in the same second for the same file."""
    for number in range(count):
        path = root / rng.choice(["", "a", "b", "a/c"]) / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.choice([0, 1, 700, 5000, 60_000, 300_000]) + rng.randrange(3)))
        os.utime(path, (FIRST_TURN_S + 10 * turn,) * 2)


def same(one: Path, other: Path, name: str) -> list[str]:
    # .DAV: where mod_dav_fs keeps the executable bit
    command = ["diff", "-rq", "-x", ".davfs-*", "-x", ".DAV", str(one), str(other)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [f"{name}: {line}" for line in done.stdout.splitlines() + done.stderr.splitlines()]


class Copy(Program):
    """cp -r of a tree; the one before is removed."""

    def cycle(self) -> None:
        source, target = self._places(self.cycles)
        make_tree(source, self.rng, 25, self.cycles)
        self.bench.until_it_works("cp", "-rT", str(source), str(target))
        if self.cycles >= 2:
            old_source, old_target = self._places(self.cycles - 2)
            shutil.rmtree(old_source)
            self.bench.until_it_works("rm", "-rf", str(old_target))

    def _places(self, cycle: int) -> tuple[Path, Path]:
        return self.bench.outside / f"cp{cycle}", self.bench.mount / f"cp{cycle}"

    def redo(self) -> None:
        source, target = self._places(self.cycles)
        self.bench.until_it_works("cp", "-rT", str(source), str(target))
        for gone in self.bench.mount.glob("cp*"):
            if not (self.bench.outside / gone.name).exists():
                self.bench.until_it_works("rm", "-rf", str(gone))

    def check(self, tree: Path) -> list[str]:
        made, there = ({path.name for path in root.glob("cp*")} for root in (self.bench.outside, tree))
        told = [f"cp: {name} is on one side only" for name in made ^ there]
        for name in made & there:
            told += same(self.bench.outside / name, tree / name, "cp")
        return told


class Git(Program):
    """Commits in a repository on the mount, and the same files beside it outside."""

    def cycle(self) -> None:
        place = self.bench.mount / "git"
        if self.cycles == 0:
            self._git("init", "-q", str(place), cwd=self.bench.outside)
        for _ in range(3):
            name, data = f"f{self.rng.randrange(12)}", self.rng.randbytes(self.rng.choice([10, 3000, 50_000]))
            keep = self.bench.outside / "git" / name
            keep.parent.mkdir(exist_ok=True)
            keep.write_bytes(data)
            self.bench.until_it_works("cp", str(keep), str(place / name))
        self._commit()

    def _commit(self) -> None:
        place = self.bench.mount / "git"
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        self._git("add", "-A", cwd=place)
        self._git(*who, "commit", "-q", "--allow-empty", "-m", "x", cwd=place)

    def _git(self, *words: str, cwd: Path) -> None:
        while not self.bench.once("git", *words, cwd=cwd):
            if self.bench.stop.wait(0.2):
                raise Stopped
            self._unlock()

    def _unlock(self) -> None:
        """A git that failed may leave its lock; git itself says to remove it."""
        git = str(self.bench.mount / "git" / ".git")
        self.bench.once("sh", "-c", f"find '{git}' -name '*.lock' -delete")

    def redo(self) -> None:
        self._unlock()
        for keep in (self.bench.outside / "git").glob("*"):
            self.bench.until_it_works("cp", str(keep), str(self.bench.mount / "git" / keep.name))
        self._commit()

    def check(self, tree: Path) -> list[str]:
        done = subprocess.run(
            ["git", "-c", "safe.directory=*", "fsck", "--full", "--strict"],
            cwd=tree / "git",
            capture_output=True,
            text=True,
            check=False,
        )
        bad = [line for line in done.stdout.splitlines() if "dangling" not in line]
        told = [f"git fsck: {line}" for line in bad]
        if done.returncode != 0:
            told.append(f"git fsck ended with {done.returncode}: {done.stderr[-300:]}")
        for keep in (self.bench.outside / "git").glob("*"):
            there = tree / "git" / keep.name
            if not there.exists() or there.read_bytes() != keep.read_bytes():
                told.append(f"git: other bytes: {keep.name}")
        return told


class Sqlite(Program):
    """Transactions; what was committed is noted outside."""

    def cycle(self) -> None:
        self._insert(self.cycles * 10, 10)

    def _insert(self, first: int, count: int) -> None:
        place, log = self.bench.mount / "rows.sqlite", self.bench.outside / "rows.log"
        self.bench.until_it_works(sys.executable, "-c", _ROWS, str(place), str(log), str(first), str(count))

    def check(self, tree: Path) -> list[str]:
        copy = self.bench.outside / f"check-{abs(hash(tree))}.sqlite"
        for name in ("rows.sqlite", "rows.sqlite-journal"):
            if (tree / name).exists():
                shutil.copy(tree / name, copy.with_name(copy.name + name.removeprefix("rows.sqlite")))
        log = self.bench.outside / "rows.log"
        wanted = {int(line) for line in log.read_text().split()} if log.exists() else set()
        if not copy.exists():
            return [f"sqlite: no database, and {len(wanted)} rows were committed"] if wanted else []
        try:
            with sqlite3.connect(copy) as db:
                integrity = db.execute("PRAGMA integrity_check").fetchone()[0]
                there = {row[0] for row in db.execute("SELECT id FROM rows")}
        except sqlite3.DatabaseError as error:
            return [f"sqlite: {error}"]
        told = [] if integrity == "ok" else [f"sqlite: {integrity}"]
        if missing := wanted - there:
            told.append(f"sqlite: committed rows are missing: {sorted(missing)[:10]} of {len(wanted)}")
        return told


class Rsync(Program):
    """rsync -a of a changing tree to the mount, and back to another place."""

    def cycle(self) -> None:
        source = self.bench.outside / "rsync"
        make_tree(source, self.rng, 15, self.cycles)
        self._both_ways()

    def _both_ways(self) -> None:
        source, place = self.bench.outside / "rsync", self.bench.mount / "rsync"
        back = self.bench.outside / "rsync-back"
        how = RSYNC_WAYS[self.cycles % len(RSYNC_WAYS)]
        self.bench.until_it_works("rsync", "-a", *how, "--delete", "--timeout=60", f"{source}/", f"{place}/")
        self.bench.until_it_works("rsync", "-a", "--delete", "--timeout=60", f"{place}/", f"{back}/")

    def redo(self) -> None:
        self._both_ways()

    def check(self, tree: Path) -> list[str]:
        source, back = self.bench.outside / "rsync", self.bench.outside / "rsync-back"
        if not source.exists():
            return []
        return same(source, tree / "rsync", "rsync") + same(source, back, "rsync back")
