"""How a status looks to a person."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from davfs.commands.metrics import METRICS, escaped, metrics
from davfs.commands.progress import in_words
from davfs.commands.status import fact, show_one
from davfs.commands.watch import line, rates
from davfs.commands.words import human_size, human_time

BARS = str.maketrans("━╸╺", "   ")
STATUS = {
    "url": "https://h/dav/",
    "mountpoint": "/mnt",
    "pid": 12,
    "uptime_s": 3725.2,
    "link": "up",
    "cache": {"bytes": 1536, "files": 2},
    "requests": {"PROPFIND": 3, "GET": 1},
    "pending": [{"path": "/a[red]\x1b[2J", "size": 2048, "state": "dirty", "error": None}],
    "failed": [],
    "surprise_bytes": 2**20,
    "later": {"deep": {"er": True}},
}


def shown(status: Mapping[str, object]) -> str:
    out = io.StringIO()
    show_one(status, Console(file=out, width=200, markup=False, highlight=False, emoji=False))
    return out.getvalue()


def test_the_facts_are_told_in_words() -> None:
    """Sizes, times and counts are readable, and keys nobody knew are shown too."""
    text = shown(STATUS)
    for part in (
        "https://h/dav/ on /mnt",
        "1 h 2 min 5 s",
        "bytes 1.5 KiB",
        "PROPFIND 3, GET 1",
        "pending   1 ",
        "2.0 KiB",
    ):
        assert part in text
    assert "surprise  1.0 MiB" in text
    assert "deep er yes" in text


def test_a_hostile_name_moves_no_cursor() -> None:
    """A file name is neither markup nor a control sequence."""
    text = shown(STATUS)
    assert "/a[red]\\x1b[2J" in text
    assert "\x1b" not in text


def test_a_long_list_is_cut_and_says_so() -> None:
    """People see the first fifty; programs use --json."""
    many = {"pending": [{"path": f"/{index}", "size": 1} for index in range(60)]}
    assert "pending  60" in shown(many)
    assert "10 more" in shown(many)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


NOW: dict[str, Any] = {
    "version": "0.1.0",
    "url": "https://h/dav/",
    "user": "me",
    "mountpoint": "/mnt",
    "pid": 12,
    "uptime_s": 61.0,
    "authentication": "accepted",
    "scheme": "digest",
    "link": {"state": "down", "down_for_s": 75.0, "reason": "refused\x1b[2J", "next_try_s": 2.0},
    "pending": [{"path": "/a", "size": 2048, "state": "failed", "error": "no"}],
    "pending_files": 1200,
    "pending_bytes": 4096,
    "failed": 1,
    "conflicts": ["/a (conflict)"],
    "conflict_files": 1,
    "recovered": [],
    "recovered_files": 0,
    "transfers": [
        {
            "path": "/big",
            "direction": "up",
            "size_bytes": 4096,
            "done_bytes": 1024,
            "left_bytes": 3072,
            "rate_bytes_per_s": 1024,
            "left_s": 3.0,
        }
    ],
    "sent_files": 7,
    "open_files": 2,
    "locks": [{"path": "/doc", "refresh_s": 60}],
    "locks_held": 1,
    "known_entries": 5,
    "inodes": 6,
    "cache_bytes": 2**20,
    "cache_limit_bytes": 2**22,
    "hits": {
        "names": {"hits": 3, "misses": 1, "rate": 0.75},
        "opens": {"hits": 0, "misses": 0, "rate": None},
    },
    "requests": {"GET": 1, "PROPFIND": 3},
    "sent_bytes": 4096,
    "received_bytes": 10240,
    "server": "Apache/2.4",
    "server_profile": {
        "name": "Apache mod_dav",
        "conditions": "honoured",
        "locks": True,
        "stores_whole": True,
    },
}


def test_everything_is_told_in_a_line_of_its_own() -> None:
    """Link, server, cache, hit rates, transfers with rate and time left, what is unsent, conflicts, locks."""
    lines = [" ".join(each.translate(BARS).split()) for each in shown(NOW).splitlines()]
    for wanted in (
        "link down for 1 min 15 s: refused\\x1b[2J; next try in 2 s",
        "server Apache/2.4, as Apache mod_dav: conditions honoured, locks, uploads stored whole",
        "user me, digest, accepted",
        "daemon pid 12, for 1 min 1 s, davfs 0.1.0",
        "hits names 75.0% of 4, opens -",
        "traffic 4.0 KiB sent, 10.0 KiB received",
        "requests PROPFIND 3, GET 1",
        "pending 1,200 files, 4.0 KiB, 1 of them failed",
        "conflicts 1",
        "open 2 files, 1 locks held; 5 names known, 6 inodes",
        "path direction size done left rate left",
        "/big up 4.0 KiB 1.0 KiB 3.0 KiB 1.0 KiB/s 3 s",
        "/a 2.0 KiB failed no",
        "... and 1,199 more (--json lists all)",
        "/a (conflict)",
        "/doc 1 min",
    ):
        assert wanted in lines, lines
    assert any("1.0 MiB of 4.0 MiB, 25%" in each for each in lines)


# --- --watch


def test_rates_are_what_was_added_since_the_last_time() -> None:
    """Of the same daemon; a new one has counters that begin again."""
    later = {**NOW, "sent_bytes": 4096 + 2048, "received_bytes": 10240}
    assert rates(NOW, later, 2.0) == "1.0 KiB/s up, 0 B/s down"
    assert rates(NOW, {**later, "pid": 13}, 2.0) is None
    assert rates({}, {}, 1.0) == "0 B/s up, 0 B/s down"


def test_a_line_says_the_same_words_every_time() -> None:
    """Without a terminal: one plain line for each mount, also for one whose daemon is gone."""
    text = "/mnt link down, pending 1200, failed 1, conflicts 1, transfers 1, 0 B/s up, 0 B/s down"
    assert line(NOW, None) == text
    assert line({"mountpoint": "/mnt", "no_answer": "it ended\n"}, None) == "/mnt no answer: it ended\\n"


# --- --metrics

_SAMPLE = re.compile(
    r'(?P<name>[a-z_]+)\{mountpoint="(?P<mount>(?:[^"\\\n]|\\[\\"n])*)"'
    r'(?:,[a-z]+="(?:[^"\\\n]|\\[\\"n])*")*\} (?P<value>-?[0-9.e+]+)'
)


def samples(text: str) -> list[tuple[str, str, float]]:
    """The text as Prometheus reads it: HELP, TYPE, then the lines of that metric only."""
    found, name = [], ""
    for each in text.removesuffix("\n").split("\n"):
        if each.startswith("# HELP "):
            name = each.split()[2]
        elif each.startswith("# TYPE "):
            assert each.split()[2:] in ([name, "gauge"], [name, "counter"])
            assert name.endswith("_total") == each.endswith("counter")
        else:
            sample = _SAMPLE.fullmatch(each)
            assert sample, each
            assert sample["name"] == name
            found.append((name, sample["mount"], float(sample["value"])))
    return found


def test_metrics_of_two_mounts() -> None:
    """Every metric has a line for each mount that tells it; a dead daemon is only `davfs_up 0`."""
    dead = {"mountpoint": "/dead", "no_answer": "it ended"}
    found = samples(metrics([NOW, dead]))
    assert [each for each in found if each[1] == "/dead"] == [("davfs_up", "/dead", 0)]
    assert {each.name for each in METRICS} == {each[0] for each in found}
    told = {name: value for name, mount, value in found if mount == "/mnt"}
    assert (told["davfs_up"], told["davfs_link_up"], told["davfs_link_down_seconds"]) == (1, 0, 75)
    assert (told["davfs_pending_files"], told["davfs_cache_limit_bytes"]) == (1200, 2**22)
    text = metrics([NOW])
    assert 'davfs_hits_total{mountpoint="/mnt",kind="names"} 3\n' in text
    assert 'davfs_requests_total{mountpoint="/mnt",method="PROPFIND"} 3\n' in text
    assert 'davfs_transfer_left_bytes{mountpoint="/mnt",direction="up"} 3072\n' in text


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_mount_point_is_a_label(mount: str) -> None:
    """Quotes, backslashes, newlines and bytes that are no UTF-8 leave one line that can be read back."""
    where = os.fsdecode(mount.encode("utf-8", "surrogatepass"))
    ((_, label, value),) = samples(metrics([{"mountpoint": where, "no_answer": ""}]))
    assert value == 0
    assert label == escaped(where)
    label.encode("utf-8")


@given(st.dictionaries(st.sampled_from([*NOW, "x"]), json_values))
def test_any_answer_makes_metrics(answer: dict[str, object]) -> None:
    """An answer of another version is left out where it is not understood; it is never a failure."""
    metrics([answer])
    shown(answer)
    line(answer, None)
    rates(answer, NOW, 1.0)


@given(st.text(), json_values)
def test_any_value_can_be_shown(key: str, value: object) -> None:
    """Whatever another version of the daemon says, it becomes text without control characters."""
    assert fact(key, value).isprintable()


@given(st.dictionaries(st.sampled_from(["pending", "failed", "x", "a_s"]), json_values))
def test_any_status_can_be_shown(status: dict[str, object]) -> None:
    """The command does not fail on what it does not expect."""
    shown(status)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**40, "5.0 TiB")]
)
def test_sizes(size: int, text: str) -> None:
    """Binary units with one digit."""
    assert human_size(size) == text


@pytest.mark.parametrize(("duration_s", "text"), [(0.25, "0.25 s"), (61, "1 min 1 s"), (90000, "1 d 1 h")])
def test_times(duration_s: float, text: str) -> None:
    """The units that are there, the largest first."""
    assert human_time(duration_s) == text


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"files": 1, "bytes": 2048}, "sending: 1 file, 2.0 KiB left"),
        ({"files": 1, "bytes": 2048, "out_bytes": 1024}, "sending: 1 file, 1.0 KiB left"),
        ({"files": 1, "bytes": 2048, "out_bytes": 2048}, "sending: 1 file, 2.0 KiB on the way"),
        (
            {"files": 3, "bytes": 0, "stuck": 2},
            "sending: 3 files, 0 B left, 2 of them could not be sent yet",
        ),
    ],
)
def test_the_progress_is_one_line(answer: Mapping[str, object], text: str) -> None:
    """How much is left, and how much of it is in trouble."""
    assert in_words(answer) == text
