"""The table: what is measured, what is aimed at, and where the floor is.

A `Row` is a line of the report. Its floor is `trips` dependent round trips (each starts when the one before
has been answered; what can go at once counts as one) plus its bytes over the bandwidth. `why` says how
the trips come about, for a mount that makes no mistake and keeps every promise of docs/SEMANTICS.md. A
`Workload` is what is done on one mount, for one row or several.

`targets`: the ratio to the best other mount in the same run, by round trip in ms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.bench import workloads as do
from tests.bench.fixtures import KIB, MIB, Fixtures, Scene
from tests.bench.measuring import Stage

RATE_MBIT: Final = 200.0


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    title: str
    trips: int
    why: str
    targets: Mapping[int, float] = field(default_factory=dict)
    up_bytes: int = 0
    down_bytes: int = 0
    most_up: int | None = None  # bytes beyond which the row misses its target
    most_down: int | None = None
    most_memory: int = 120 * 1000 * 1000
    count: int | None = None  # of what the time is also given for each

    def floor_s(self, rtt_ms: float, rate_mbit: float | None) -> float:
        wire_s = 0.0 if rate_mbit is None else (self.up_bytes + self.down_bytes) * 8 / (rate_mbit * 1e6)
        return self.trips * rtt_ms / 1000 + wire_s


@dataclass(frozen=True, slots=True)
class Workload:
    """`prepare` makes the share, `perform` measures; `rate_mbit` is the bandwidth that its rows speak of."""

    name: str
    rows: tuple[Row, ...]
    prepare: Callable[[Fixtures], Scene]
    perform: Callable[[Stage, Fixtures], None]
    rate_mbit: float | None = None
    group: str = "target"
    without: frozenset[str] = frozenset()  # peers that are not asked
    before: Callable[[Stage, Fixtures], None] | None = None  # on an earlier mount with the same cache


def _targets(at_20_ms: float, at_1_ms: float) -> dict[int, float]:
    return {20: at_20_ms, 1: at_1_ms}


WORKLOADS: Final = (
    Workload(
        "walk",
        (
            Row(
                "walk",
                "list + stat 200 x 20, cold",
                2,
                "the top; then its 200 folders at once",
                _targets(0.12, 0.5),
            ),
            Row("walk-again", "list + stat 200 x 20, warm", 0, "nothing is asked", _targets(0.5, 1.0)),
        ),
        do.walked,
        do.walk,
    ),
    Workload(
        "ls-10k",
        (
            Row(
                "ls-10k",
                "ls -l of 10,000, cold",
                1,
                "names and attributes come with the listing",
                _targets(0.7, 0.7),
            ),
            Row("ls-10k-again", "ls -l of 10,000, warm", 0, "nothing is asked"),
        ),
        *do.LS_10K,
    ),
    Workload(
        "read-small",
        (
            Row(
                "read-small",
                "read 400 files of 16 KiB, cold",
                2,
                "the listing; then all files at once",
                _targets(0.12, 0.5),
                down_bytes=400 * 16 * KIB,
            ),
            Row("read-small-again", "read 400 files of 16 KiB, warm", 0, "nothing is asked"),
        ),
        do.small,
        do.read_small,
    ),
    Workload(
        "first-4k",
        (Row("first-4k", "first 4 KiB of 512 MiB", 1, "one GET", _targets(1.0, 1.0), down_bytes=4 * KIB),),
        do.big,
        do.read_first,
    ),
    Workload(
        "read-512m",
        (
            Row("read-512m", "read 512 MiB, cold", 1, "one GET", _targets(0.8, 0.8), down_bytes=512 * MIB),
            Row("read-512m-again", "read 512 MiB, warm", 0, "nothing is asked", _targets(0.5, 0.5)),
            Row("read-512m-disk", "read 512 MiB, warm, the kernel's pages dropped", 0, "nothing is asked"),
        ),
        do.big,
        do.read_big,
    ),
    Workload(
        "random-4k",
        (
            Row(
                "random-4k",
                "100 random reads of 4 KiB in 512 MiB, 200 Mbit/s",
                100,
                "the program asks for one after the other",
                _targets(0.12, 0.12),
                down_bytes=400 * KIB,
                most_down=16_000_000,
            ),
        ),
        do.big,
        do.read_random,
        RATE_MBIT,
    ),
    Workload(
        "write-small",
        (
            Row(
                "write-small",
                "write 500 x 4 KiB, until durable",
                2,
                "the listing of the folder; then all PUTs at once",
                _targets(0.10, 0.2),
                up_bytes=500 * 4 * KIB,
            ),
            Row(
                "write-small-returns",
                "write 500 x 4 KiB, until the writer returns",
                1,
                "the listing of the folder: is the name free",
                _targets(0.15, 0.3),
            ),
        ),
        do.to_write,
        do.write_small,
    ),
    Workload(
        "write-256m",
        (
            Row(
                "write-256m",
                "write 256 MiB, until durable",
                2,
                "the listing of the folder; one PUT",
                _targets(1.0, 1.0),
                up_bytes=256 * MIB,
            ),
            Row(
                "write-256m-returns",
                "write 256 MiB, until the writer returns",
                1,
                "the listing of the folder",
            ),
        ),
        do.to_write_big,
        do.write_big,
    ),
    Workload(
        "saves",
        (
            Row(
                "saves",
                "100 editor saves, until durable",
                1,
                "the folder is listed already; all conditional PUTs at once",
                _targets(0.08, 0.3),
                up_bytes=100 * 20 * KIB,
            ),
            Row(
                "saves-returns",
                "100 editor saves, until the editor returns",
                0,
                "the folder is listed already",
            ),
        ),
        do.documents,
        do.save("saves", flush=False),
    ),
    Workload(
        "cp-128m",
        (
            Row(
                "cp-128m",
                "cp 128 MiB inside, 200 Mbit/s, until durable",
                2,
                "one GET; one COPY of what was read",
                _targets(0.55, 0.55),
                down_bytes=128 * MIB,
                most_up=1_000_000,
            ),
            Row(
                "cp-128m-returns",
                "cp 128 MiB inside, 200 Mbit/s, until cp returns",
                1,
                "one GET",
                down_bytes=128 * MIB,
            ),
        ),
        do.to_copy,
        do.copy,
        RATE_MBIT,
    ),
    Workload(
        "untar",
        (
            Row(
                "untar",
                "untar 300 files in 30 folders, until durable",
                32,
                "the listing; 30 MKCOL, written through one after the other; all PUTs at once",
                _targets(0.12, 0.3),
                up_bytes=300 * 8 * KIB,
            ),
            Row("untar-returns", "untar 300 files, until tar returns", 31, "the listing; 30 MKCOL"),
        ),
        do.to_unpack,
        do.unpack,
    ),
    Workload(
        "rm",
        (
            Row(
                "rm",
                "rm -r of 20 x 20 files",
                422,
                "the top; its folders at once; 420 DELETE, written through one after the other",
                _targets(0.9, 1.0),
            ),
        ),
        do.to_remove,
        do.remove,
    ),
    # --- without a target -------------------------------------------------------------------
    Workload(
        "saves-fsync",
        (
            Row(
                "saves-fsync",
                "100 editor saves with fsync, until durable",
                200,
                "fsync waits for the server, and so does the rename of what it has",
                up_bytes=100 * 20 * KIB,
            ),
            Row(
                "saves-fsync-returns",
                "100 editor saves with fsync, until the editor returns",
                200,
                "the same",
            ),
        ),
        do.documents,
        do.save("saves-fsync", flush=True),
        group="more",
    ),
    Workload(
        "append",
        (
            Row(
                "append",
                "append 4 KiB to 256 MiB, until durable",
                2,
                "a GET and a PUT of the whole: partial PUT is off unless asked for",
                up_bytes=256 * MIB,
                down_bytes=256 * MIB,
            ),
            Row(
                "append-returns",
                "append 4 KiB to 256 MiB, until the writer returns",
                0,
                "the file is listed already",
            ),
        ),
        do.to_append,
        do.append,
        group="more",
    ),
    Workload(
        "git-status",
        (
            Row(
                "git-status",
                "git status, 300 files in 30 folders, cold",
                9,
                "the work tree, .git, all folders; five files of .git in turn; then all files at once",
                down_bytes=300 * 4 * KIB,
            ),
            Row("git-status-again", "git status, warm", 0, "nothing is asked"),
        ),
        do.cloned,
        do.status,
        group="more",
    ),
    Workload(
        "git-clone",
        (
            Row(
                "git-clone",
                "git clone of 300 files into the mount, until durable",
                41,
                "the listing; 10 MKCOL for .git and 30 for the work tree; all PUTs at once",
                up_bytes=300 * 4 * KIB * 2,
            ),
            Row("git-clone-returns", "git clone, until git returns", 40, "the MKCOLs"),
        ),
        do.to_clone,
        do.clone,
        group="more",
    ),
    Workload(
        "rsync",
        (
            Row("rsync", "rsync -a of 1,000 unchanged files, cold", 2, "the top; its 20 folders at once"),
            Row("rsync-again", "rsync -a of 1,000 unchanged files, warm", 0, "nothing is asked"),
        ),
        do.synced,
        do.rsync,
        group="more",
    ),
    Workload(
        "grep",
        (
            Row(
                "grep",
                "grep -r over 1,000 files in 40 folders, cold",
                3,
                "the top; its folders at once; their files at once",
                down_bytes=1000 * 4 * KIB,
            ),
            Row("grep-again", "grep -r over 1,000 files, warm", 0, "nothing is asked"),
        ),
        do.grepped,
        do.grep,
        group="more",
    ),
    Workload(
        "beside",
        (
            Row(
                "walk-beside",
                "list + stat 50 x 20 while another program reads 64 MiB, 200 Mbit/s",
                2,
                "as without the other",
            ),
            Row(
                "both",
                "that walk and that reader, until both are done",
                2,
                "the link is the limit",
                down_bytes=64 * MIB,
            ),
        ),
        do.beside,
        do.walk_beside,
        RATE_MBIT,
        group="more",
    ),
    Workload(
        "remount",
        (
            Row("remount-walk", "list + stat 50 x 20, after a remount", 1, "is what was listed still right"),
            Row(
                "remount-read",
                "read 400 files of 16 KiB, after a remount",
                1,
                "the listing: are what we have the versions of today",
            ),
        ),
        do.known,
        do.come_back,
        group="more",
        before=do.see_all,
    ),
    Workload(
        "open-one",
        (
            Row(
                "open-one",
                "read one file of 16 KiB in a listed folder of 1,000",
                1,
                "one GET, and nothing that nobody asked for",
                down_bytes=16 * KIB,
                most_down=19_000,
            ),
        ),
        do.one_of_many,
        do.read_one,
        group="more",
    ),
    Workload(
        "ls-100k",
        (
            Row(
                "ls-100k",
                "ls -l of 100,000, cold",
                1,
                "names and attributes come with the listing",
                most_memory=300 * 1000 * 1000,
            ),
            Row(
                "ls-100k-again",
                "ls -l of 100,000, warm",
                0,
                "nothing is asked",
                most_memory=300 * 1000 * 1000,
            ),
        ),
        *do.LS_100K,
        group="deep",
    ),
    Workload(
        "walk-10k-files",
        (
            Row(
                "walk-10k-files", "list + stat 10,000 files in 100 folders", 3, "level by level", count=10_000
            ),
        ),
        do.ten_thousand,
        do.walk_ten_thousand,
        group="deep",
        without=frozenset({"davfs2"}),
    ),
    Workload(
        "walk-1m-files",
        (
            Row(
                "walk-1m-files",
                "list + stat 1,000,000 files in 10,000 folders",
                3,
                "level by level",
                most_memory=500 * 1000 * 1000,
                count=1_000_000,
            ),
        ),
        do.million,
        do.walk_million,
        group="deep",
        without=frozenset({"davfs2"}),  # its table is a list per name: it needs hours
    ),
)

ROWS: Final = {row.key: row for workload in WORKLOADS for row in workload.rows}
WORKLOAD_OF: Final = {row.key: workload for workload in WORKLOADS for row in workload.rows}


def chosen(names: str) -> list[Workload]:
    """By name or by group, in the order of the table. Raises ValueError for an unknown name."""
    wanted_names = set(names.split(","))
    known = {one.name for one in WORKLOADS} | {one.group for one in WORKLOADS} | {"all"}
    if unknown := wanted_names - known:
        raise ValueError(
            f"no such workload: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}"
        )
    return [one for one in WORKLOADS if {one.name, one.group, "all"} & wanted_names]
