"""One measurement: a fresh mount behind a fresh line, a program in its hands, and what that cost.

`Stage` is one mount of one peer for one workload; each call of `measure` gives one sample per row. The clock
is the program's own; a row that counts until everything has arrived ends when the server's disk has every
byte. Requests, bytes, processor time and memory are taken when the line has become quiet, so that what
follows the last byte (verification, unlocking, prefetch that nobody asked for) is counted too.

What fails is a result: a sample without seconds, and a note that says why. Bytes are compared each time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, Self

from tests.bench.fixtures import Scene, Scripted, wanted
from tests.bench.peers import Mounted
from tests.bench.profiling import Profiler

STEP_LIMIT_S: Final = 180.0
_STUCK_S: Final = 15.0  # nothing arrives, nothing moves: rclone's second try comes after 10 s
_POLL_S: Final = 0.005
_MOMENTS: Final = 10
_QUIET_S: Final = 0.4
_QUIET_LIMIT_S: Final = 10.0
_HANDS: Final = Path(__file__).with_name("hands.py")


@dataclass(slots=True)
class Sample:
    """One row, once. `seconds` is None when it was not done; `note` says why."""

    seconds: float | None
    requests: dict[str, int] = field(default_factory=dict)
    connections: int = 0
    up_bytes: int = 0
    down_bytes: int = 0
    cpu_s: float | None = None  # None: another row of the same mount has it
    peak_bytes: int = 0
    note: str = ""
    resident: list[int] = field(default_factory=list)  # bytes, at even intervals, where it was watched

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Failed(Exception):
    """This mount cannot go on. The text is the note of the row."""


# --- the line ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counts:
    requests: dict[str, int]
    connections: int
    up: int
    down: int


class LineProcess:
    """line.py as a child, for the length of a block."""

    def __init__(self, to_port: int, *, rtt_ms: float, rate_mbit: float | None) -> None:
        self._arguments = ["--to", f"127.0.0.1:{to_port}", "--rtt-ms", str(rtt_ms)]
        if rate_mbit is not None:
            self._arguments += ["--rate-mbit", str(rate_mbit)]

    def __enter__(self) -> Self:
        self._process = Scripted("tests.bench.line", *self._arguments)
        self.port = self._process.port
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def counts(self) -> Counts:
        return Counts(**json.loads(self._process.ask("counts")))

    def quiet(self) -> Counts:
        """Waits until nothing passes any more."""
        deadline = time.monotonic() + _QUIET_LIMIT_S
        seen = self.counts()
        since = time.monotonic()
        while (now := time.monotonic()) - since < _QUIET_S and now < deadline:
            time.sleep(0.05)
            if (counts := self.counts()) != seen:
                seen, since = counts, time.monotonic()
        return seen


# --- the daemon -------------------------------------------------------------------------------


class Daemon:
    """What the kernel says of a process."""

    def __init__(self, pid: int) -> None:
        self._proc = Path("/proc") / str(pid)

    def cpu_s(self) -> float:
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        ticks: int = os.sysconf("SC_CLK_TCK")
        return (int(fields[11]) + int(fields[12])) / ticks

    def forget_peak(self) -> None:
        (self._proc / "clear_refs").write_text("5")  # proc(5): resets VmHWM

    def peak_bytes(self) -> int:
        return self._memory("VmHWM")

    def resident_bytes(self) -> int:
        return self._memory("VmRSS")

    def _memory(self, name: str) -> int:
        for line in (self._proc / "status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        return 0


# --- what must be on the server's disk ----------------------------------------------------------


class Goal(Protocol):
    """A state of the server's disk."""

    def reached(self) -> bool: ...
    def left(self) -> int: ...
    def verdict(self) -> str: ...


class Arrived:
    """Every file of `reference` lies below `disk`. Sizes are polled; bytes are compared at the end.

    The files of `own` differ from mount to mount (git notes times and inode numbers): there must be one.
    """

    def __init__(self, reference: Path, disk: Path, own: frozenset[str] = frozenset()) -> None:
        self._reference = reference
        self._disk = disk
        self._own = own
        self._all = [(name, None if name in own else size) for name, size in wanted(reference)]
        self._left = deque(self._all)

    def _is_there(self, name: str, size: int | None) -> bool:
        try:
            found = os.stat(self._disk / name).st_size
        except OSError:
            return False
        return found > 0 if size is None else found == size

    def reached(self) -> bool:
        # In order, and no further than the first that is missing: one stat per poll.
        while self._left and self._is_there(*self._left[0]):
            self._left.popleft()
        return not self._left

    def left(self) -> int:
        return sum(not self._is_there(*one) for one in self._all)

    def verdict(self) -> str:
        missing = self.left()
        if missing:
            return f"{missing} of {len(self._all)} never arrived"
        wrong = sum(not self._is_equal(name) for name, size in self._all if size is not None)
        return f"{wrong} of {len(self._all)} wrong" if wrong else ""

    def _is_equal(self, name: str) -> bool:
        with (self._reference / name).open("rb") as one, (self._disk / name).open("rb") as other:
            while piece := one.read(1 << 20):
                if piece != other.read(1 << 20):
                    return False
            return not other.read(1)


class Gone:
    """Nothing lies at `place` any more."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def reached(self) -> bool:
        return not self._place.exists()

    def left(self) -> int:
        return sum(1 for _ in self._place.rglob("*")) + 1 if self._place.exists() else 0

    def verdict(self) -> str:
        return f"{self.left()} are still there" if self.left() else ""


# --- one mount --------------------------------------------------------------------------------


class Stage:
    """One mount of one peer. `samples` are what was measured on it, by row."""

    def __init__(
        self, scene: Scene, line: LineProcess, mounted: Mounted, profiler: Profiler | None = None
    ) -> None:
        self.disk = scene.disk
        self.reference = scene.reference
        self.mnt = mounted.place
        self.samples: dict[str, Sample] = {}
        self._line = line
        self._profiler = profiler
        self._pid = mounted.pid
        self._daemon = Daemon(mounted.pid)

    def look(self, *names: str) -> None:
        """Lists the top of the drive, and these folders: what a person saw before the work begins."""
        for name in ("", *names):
            # Names only: davfs2 lists each folder whose attributes are asked for.
            self.do("command", argv=["ls", str(self.mnt / name)])

    def do(self, step: str, **arguments: Any) -> None:
        """A step that nobody measures."""
        self._step(step, _Waiting(None, self._line), **arguments)
        self._line.quiet()

    def measure(
        self,
        row: str,
        step: str,
        *,
        goal: Goal | None = None,
        returns: str | None = None,
        both: str | None = None,
        expect: dict[str, Any] | None = None,
        limit_s: float = STEP_LIMIT_S,
        watch: bool = False,
        **arguments: Any,
    ) -> None:
        """`returns`: the row for the time until the program is done, when `row` waits for a goal.

        `watch`: the daemon's memory is noted as time goes.
        """
        before = self._line.counts()
        self._daemon.forget_peak()
        cpu_s = self._daemon.cpu_s()
        waiting = _Waiting(goal, self._line, limit_s, self._daemon if watch else None)
        with contextlib.ExitStack() as watched:
            if self._profiler is not None:
                watched.enter_context(self._profiler.watching(self._pid, row))
            found = self._step(step, waiting, **arguments)
        after = self._line.quiet()
        sample = Sample(
            _seconds(found, waiting),
            {
                name: more
                for name, count in after.requests.items()
                if (more := count - before.requests.get(name, 0))
            },
            after.connections - before.connections,
            after.up - before.up,
            after.down - before.down,
            round(self._daemon.cpu_s() - cpu_s, 2),
            self._daemon.peak_bytes(),
            "; ".join(filter(None, [_complaint(found, expect or {}), waiting.verdict()])),
            waiting.resident,
        )
        if sample.note:
            sample.seconds = None
        self.samples[row] = sample
        if returns is not None:
            self.samples[returns] = Sample(found["end_s"] - found["begin_s"])
        if both is not None:
            self.samples[both] = Sample(found["both_s"])

    def _step(self, step: str, waiting: _Waiting, **arguments: Any) -> dict[str, Any]:
        command = [sys.executable, "-I", str(_HANDS), step, json.dumps(arguments)]
        hands = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            waiting.wait(hands)
            said = hands.stdout.read() if hands.stdout else ""
        except subprocess.TimeoutExpired:
            self._release(hands)
            raise Failed(f"not done after {waiting.limit_s:.0f} s") from None
        except BaseException:  # Ctrl-C: it has a session of its own, and does not hear it
            self._release(hands)
            raise
        finally:
            if hands.stdout:
                hands.stdout.close()
        if not said:
            raise Failed(f"{step} ended with status {hands.returncode}")
        found: dict[str, Any] = json.loads(said)
        if "failed" in found:
            raise Failed(found["failed"])
        return found

    def _release(self, hands: subprocess.Popen[str]) -> None:
        """Ends a program that a mount holds: it may not even die before the daemon does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(hands.pid, signal.SIGKILL)
        try:
            hands.wait(2)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            hands.wait(10)


class _Waiting:
    """Waits for a program, and then for the goal; notes the memory of `watched`."""

    def __init__(
        self,
        goal: Goal | None,
        line: LineProcess,
        limit_s: float = STEP_LIMIT_S,
        watched: Daemon | None = None,
    ) -> None:
        self._goal = goal
        self._line = line
        self.limit_s = limit_s
        self._watched = watched
        self._seen: list[tuple[float, int]] = []
        self.reached_s = 0.0

    @property
    def resident(self) -> list[int]:
        """What was seen of the memory, at most so often that a table holds it."""
        step = max(1, len(self._seen) // _MOMENTS)
        return [size for _, size in self._seen[::step]]

    def wait(self, hands: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + self.limit_s
        if self._goal is None and self._watched is None:
            hands.wait(self.limit_s)
            return
        while hands.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(hands.args, self.limit_s)
            self._watch()
            if self._goal is not None:
                self._look()
            time.sleep(_POLL_S)
        if self._goal is not None:
            self._wait_for_goal()

    def _watch(self) -> None:
        now = time.monotonic()
        if self._watched is not None and (not self._seen or now - self._seen[-1][0] > 0.5):
            self._seen.append((now, self._watched.resident_bytes()))

    def _look(self) -> bool:
        assert self._goal is not None
        if not self.reached_s and self._goal.reached():
            self.reached_s = time.monotonic()
        return bool(self.reached_s)

    def _wait_for_goal(self) -> None:
        """Until it is reached, or nothing has moved for a while."""
        deadline = time.monotonic() + STEP_LIMIT_S
        moved, moved_s, asked_s = None, time.monotonic(), 0.0
        while not self._look() and (now := time.monotonic()) < deadline and now - moved_s < _STUCK_S:
            time.sleep(_POLL_S)
            if now - asked_s > 0.5:
                asked_s = now
                counts = self._line.counts()
                if (state := (counts.up, counts.down)) != moved:
                    moved, moved_s = state, now

    def verdict(self) -> str:
        return self._goal.verdict() if self._goal is not None else ""


def _seconds(found: dict[str, Any], waiting: _Waiting) -> float:
    # A goal may be reached before the program returns: its end counts then.
    seconds: float = max(found["end_s"], waiting.reached_s) - found["begin_s"]
    return seconds


def _complaint(found: dict[str, Any], expect: dict[str, Any]) -> str:
    if found.get("wrong_count"):
        return f"{found['wrong_count']} of {found['count']} read wrong"
    if found.get("status"):
        return f"status {found['status']}: {found.get('said', '')}".strip()
    other = {name: found.get(name) for name, value in expect.items() if found.get(name) != value}
    return ", ".join(f"{name}: {value} instead of {expect[name]}" for name, value in other.items())


@contextlib.contextmanager
def interrupted_as_exit() -> Iterator[None]:
    """SIGTERM ends the block in order, so that mounts and processes are cleaned up."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
