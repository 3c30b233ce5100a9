"""`scripts/bench mounts`: all chosen rows, lines and peers, in turns, and the report of it.

Rounds come outermost and peers innermost: what disturbs the machine for a while disturbs all, and a run that
is stopped has whole rounds. Results are saved after each measurement. A peer that needed more than
`_PATIENCE_S` for a workload, or failed, is not asked for another round of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.bench import report
from tests.bench.fixtures import Fixtures
from tests.bench.measuring import Failed, LineProcess, Sample, Stage, interrupted_as_exit
from tests.bench.peers import PASSWORD, USERNAME, Davfs, Davfs2, MountFailed, Peer, PeerMissing, Rclone
from tests.bench.profiling import Profiler
from tests.bench.results import Key, Results
from tests.bench.table import Workload, chosen
from tests.servers import Apache

_REPO: Final = Path(__file__).parents[2]
_PATIENCE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. `rates` None: each workload at its own."""

    workloads: Sequence[Workload]
    rtts_ms: Sequence[float]
    rates_mbit: Sequence[float | None] | None
    peers: Sequence[Peer]
    rounds: int
    run: str
    profiler: Profiler | None = None

    def __iter__(self) -> Iterator[tuple[Workload, float, float | None, Peer]]:
        for turn in range(self.rounds):
            for workload in self.workloads:
                for rate_mbit in self.rates_mbit or [workload.rate_mbit]:
                    for rtt_ms in self.rtts_ms:
                        first = turn % len(self.peers)
                        for peer in (*self.peers[first:], *self.peers[:first]):
                            if peer.name in workload.without:
                                continue
                            yield workload, rtt_ms, rate_mbit, peer


def run(plan: Plan, results: Results, json_path: Path, *, shrink: int = 1) -> None:
    """Measures everything of `plan` into `results`."""
    versions = {peer.name: peer.version for peer in plan.peers}
    results.runs[plan.run] = machine() | {"versions": versions}
    with _bench(shrink) as (fixtures, folder):
        given_up: set[tuple[str, float, float | None, str]] = set()
        for number, (workload, rtt_ms, rate_mbit, peer) in enumerate(plan):
            if (workload.name, rtt_ms, rate_mbit, peer.name) in given_up:
                continue
            begin_s = time.monotonic()
            samples = _measured(
                workload, rtt_ms, rate_mbit, peer, fixtures, folder / f"m{number}", plan.profiler
            )
            for row, sample in samples.items():
                results.add(Key(row, rtt_ms, rate_mbit, peer.name), plan.run, versions[peer.name], sample)
            results.save(json_path)
            _tell(workload, rtt_ms, rate_mbit, peer, samples, time.monotonic() - begin_s)
            if any(one.seconds is None or one.seconds > _PATIENCE_S for one in samples.values()):
                given_up.add((workload.name, rtt_ms, rate_mbit, peer.name))


@contextlib.contextmanager
def _bench(shrink: int) -> Iterator[tuple[Fixtures, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="davfs-bench-"))
    folder.chmod(0o755)  # davfs2's daemon gives up root and must still get to its cache
    try:
        with (
            Apache(username=USERNAME, password=PASSWORD) as server,
            contextlib.closing(Fixtures(server, folder / "reference", shrink)) as fixtures,
        ):
            yield fixtures, folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measured(
    workload: Workload,
    rtt_ms: float,
    rate_mbit: float | None,
    peer: Peer,
    fixtures: Fixtures,
    folder: Path,
    profiler: Profiler | None,
) -> dict[str, Sample]:
    """A sample for each row of the workload; those that could not be measured say why."""
    scene = workload.prepare(fixtures)
    samples: dict[str, Sample] = {}
    note = ""
    try:
        with LineProcess(scene.port, rtt_ms=rtt_ms, rate_mbit=rate_mbit) as line:
            url = scene.url.replace(f":{scene.port}/", f":{line.port}/")
            for perform in filter(None, (workload.before, workload.perform)):
                with peer.mounted(url, folder) as mounted:
                    stage = Stage(scene, line, mounted, profiler if peer.name == "davfs" else None)
                    samples = stage.samples
                    stage.look()
                    perform(stage, fixtures)
    except (Failed, MountFailed, OSError) as failure:
        note = str(failure)
    finally:
        fixtures.remove(scene)
        shutil.rmtree(folder, ignore_errors=True)
    for row in workload.rows:
        samples.setdefault(row.key, Sample(None, note=note or "not measured"))
    return samples


def _tell(
    workload: Workload,
    rtt_ms: float,
    rate_mbit: float | None,
    peer: Peer,
    samples: dict[str, Sample],
    took_s: float,
) -> None:
    line = f"{rtt_ms:g} ms" + ("" if rate_mbit is None else f", {rate_mbit:g} Mbit/s")
    found = ", ".join(
        f"{name} {one.seconds:.3f} s" if one.seconds is not None else f"{name}: {one.note}"
        for name, one in samples.items()
    )
    sys.stderr.write(
        f"{time.strftime('%H:%M:%S')} {workload.name} at {line}, {peer.name}: {found} ({took_s:.0f} s)\n"
    )
    sys.stderr.flush()


# --- what it runs on ----------------------------------------------------------------------------


def machine() -> dict[str, object]:
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    apache = shutil.which("apache2", path="/usr/sbin:/usr/bin") or "httpd"
    said = subprocess.run([apache, "-v"], capture_output=True, text=True, check=False).stdout
    return {
        "begun": datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(memory_kib / 1024 / 1024),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "apache": said.partition("Apache/")[2].split(" ")[0],
        "load": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


# --- the command --------------------------------------------------------------------------------


def _numbers(text: str) -> list[float]:
    return [float(one) for one in text.split(",")]


def _rates(text: str) -> list[float | None]:
    return [None if one == "none" else float(one) for one in text.split(",")]


def _peers(names: str, rclone: Path, tree: Path, options: str) -> list[Peer]:
    """Those that are installed; what is missing is said, and then missing in the tables."""
    peers: list[Peer] = []
    for name in names.split(","):
        try:
            if name == "davfs":
                peers.append(Davfs(tree, options))
            elif name == "rclone":
                peers.append(Rclone(rclone))
            elif name == "davfs2":
                peers.append(Davfs2())
            else:
                raise SystemExit(f"no such peer: {name}")
        except PeerMissing as missing:
            sys.stderr.write(f"not measured: {missing}\n")
    return peers


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench mounts", description=__doc__.split("\n")[0])
    parser.add_argument("--workloads", default="target", help="names or groups: target, more, deep, all")
    parser.add_argument("--rtt", default="20,1", type=_numbers, help="round trips in ms (default: 20,1)")
    parser.add_argument("--rate", type=_rates, help="Mbit/s, or none (default: what each row says)")
    parser.add_argument("--peers", default="davfs,rclone,davfs2")
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument(
        "--out", default=_REPO / "docs", type=Path, help="the folder of the report (default: docs)"
    )
    parser.add_argument(
        "--json", type=Path, help="results, merged into what is there (default: OUT/performance.json)"
    )
    parser.add_argument("--tree", default=_REPO, type=Path, help="measure the davfs of this work tree")
    parser.add_argument("--options", default="", help="further -o options for davfs, to try something")
    parser.add_argument("--shrink", default=1, type=int, help="divide all sizes, to try the benchmark itself")
    parser.add_argument("--rclone", default=Path(sys.executable).with_name("rclone"), type=Path)
    parser.add_argument(
        "--profile", type=Path, help="only what davfs' time goes to, by row; samples into this folder"
    )
    parser.add_argument("--py-spy", default=Path(sys.executable).with_name("py-spy"), type=Path)
    parser.add_argument("--chart-python", help="a Python with matplotlib; without one no chart is drawn")
    parser.add_argument("--report-only", action="store_true", help="measure nothing, write the report anew")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    given = _arguments(argv)
    for folder in filter(None, (given.out, given.profile)):
        folder.mkdir(parents=True, exist_ok=True)
    kept = given.profile or given.out  # seconds of a run that is watched are no figures
    json_path = given.json or kept / "performance.json"
    results = Results.load(json_path)
    profiler = Profiler(given.py_spy, given.profile) if given.profile else None
    if not given.report_only:
        name = datetime.now(tz=UTC).strftime("%Y%m%d-%H%M%S")
        plan = Plan(
            chosen(given.workloads),
            given.rtt,
            given.rate,
            _peers(given.peers, given.rclone, given.tree.resolve(), given.options),
            given.rounds,
            name,
            profiler,
        )
        begin_s = time.monotonic()
        try:
            with interrupted_as_exit():
                run(plan, results, json_path, shrink=given.shrink)
        finally:
            results.runs.get(name, {})["minutes"] = round((time.monotonic() - begin_s) / 60, 1)
            results.save(json_path)
    if profiler is None:
        _report(results, given.out, given.chart_python)
    else:
        report.write_costs(profiler.found(), given.out / "PERFORMANCE.md")
    return 0


def _report(results: Results, folder: Path, chart_python: str | None) -> None:
    svg = folder / "performance.svg"
    if chart_python and (panels := report.chart_panels(results)):
        command = [chart_python, "-I", str(Path(__file__).with_name("chart.py")), str(svg)]
        subprocess.run(command, input=json.dumps(panels), text=True, check=True)
    report.write(results, folder / "PERFORMANCE.md", chart=svg.exists())
