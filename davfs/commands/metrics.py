"""`davfs status --metrics`: the status as Prometheus text (exposition format 0.0.4), one scrape's worth.

Pure. What a daemon of another version does not tell is left out, never made up. Names, units and types stay
as they are: dashboards and alerts are built on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

_MOST: Final = 1e18  # an exabyte; NaN is not below it either

Answer = Mapping[str, Any]
Labels = Mapping[str, str]
Sample = tuple[Labels, float]
Read = Callable[[Answer], Iterable[Sample]]


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: Literal["gauge", "counter"]
    help: str
    read: Read


def metrics(answers: Sequence[Answer]) -> str:
    """All mounts; each metric once, with its HELP and TYPE and a line for each mount."""
    return "".join(_family(metric, answers) for metric in METRICS)


def _family(metric: Metric, answers: Sequence[Answer]) -> str:
    lines = [
        f"{metric.name}{_labels({'mountpoint': str(answer.get('mountpoint', '')), **labels})} {value:.17g}\n"
        for answer in answers
        for labels, value in metric.read(answer)
    ]
    if not lines:
        return ""
    return f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n{''.join(lines)}"


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "}"


def escaped(value: str) -> str:
    """A label's value. Bytes that are no UTF-8 are written out: the format has no other characters."""
    text = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


# --- reading the answer -----------------------------------------------------------------------------


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST


def _value(key: str) -> Read:
    def read(answer: Answer) -> Iterator[Sample]:
        if _is_number(answer.get(key)):
            yield {}, answer[key]

    return read


def _each(key: str, label: str) -> Read:
    """A mapping of numbers: one sample for each."""

    def read(answer: Answer) -> Iterator[Sample]:
        found = answer.get(key)
        for name, value in found.items() if isinstance(found, Mapping) else ():
            if _is_number(value):
                yield {label: str(name)}, value

    return read


def _hits(which: str) -> Read:
    def read(answer: Answer) -> Iterator[Sample]:
        found = answer.get("hits")
        for kind, told in found.items() if isinstance(found, Mapping) else ():
            if isinstance(told, Mapping) and _is_number(told.get(which)):
                yield {"kind": str(kind)}, told[which]

    return read


def _transfers(key: str | None) -> Read:
    """Sums of the transfers each way; without a key, how many there are."""

    def read(answer: Answer) -> Iterator[Sample]:
        rows = answer.get("transfers")
        if not isinstance(rows, list):
            return
        for way in ("up", "down"):
            mine = [row for row in rows if isinstance(row, Mapping) and row.get("direction") == way]
            numbers = [1 if key is None else row.get(key) for row in mine]
            yield {"direction": way}, sum(each for each in numbers if each is not None and _is_number(each))

    return read


def _answers(answer: Answer) -> Iterator[Sample]:
    yield {}, 0 if "no_answer" in answer else 1


def _info(answer: Answer) -> Iterator[Sample]:
    profile = answer.get("server_profile")
    name = profile.get("name") if isinstance(profile, Mapping) else ""
    if "version" in answer:
        yield {"version": str(answer["version"]), "server": str(name)}, 1


def _link_up(answer: Answer) -> Iterator[Sample]:
    link = answer.get("link")
    if isinstance(link, Mapping):
        yield {}, 1 if link.get("state") == "up" else 0


def _link_down(answer: Answer) -> Iterator[Sample]:
    link = answer.get("link")
    if isinstance(link, Mapping):
        down = link.get("down_for_s", 0)
        yield {}, down if _is_number(down) else 0


METRICS: Final = (
    Metric("davfs_up", "gauge", "1 if the daemon of the mount answers.", _answers),
    Metric("davfs_info", "gauge", "Always 1; what the daemon and its server are.", _info),
    Metric("davfs_uptime_seconds", "gauge", "How long the daemon has run.", _value("uptime_s")),
    Metric("davfs_link_up", "gauge", "1 if the server can be reached.", _link_up),
    Metric("davfs_link_down_seconds", "gauge", "How long the server has been away; 0 if not.", _link_down),
    Metric("davfs_pending_files", "gauge", "Files that are not on the server.", _value("pending_files")),
    Metric("davfs_pending_bytes", "gauge", "Their sizes, added up.", _value("pending_bytes")),
    Metric("davfs_failed_files", "gauge", "Of them, those that could not be sent.", _value("failed")),
    Metric(
        "davfs_conflict_files", "gauge", "Conflict copies made since the start.", _value("conflict_files")
    ),
    Metric("davfs_recovered_files", "gauge", "Files kept without a known name.", _value("recovered_files")),
    Metric("davfs_sent_files_total", "counter", "Files that the server took.", _value("sent_files")),
    Metric("davfs_open_files", "gauge", "Open files and folders.", _value("open_files")),
    Metric("davfs_locks_held", "gauge", "WebDAV locks held on the server.", _value("locks_held")),
    Metric("davfs_cache_bytes", "gauge", "What the cache holds on disk.", _value("cache_bytes")),
    Metric("davfs_cache_limit_bytes", "gauge", "What it may hold.", _value("cache_limit_bytes")),
    Metric("davfs_known_entries", "gauge", "Names whose attributes are known.", _value("known_entries")),
    Metric("davfs_inodes", "gauge", "Entries of the inode table.", _value("inodes")),
    Metric("davfs_hits_total", "counter", "Answers that needed no request, by kind.", _hits("hits")),
    Metric("davfs_misses_total", "counter", "Answers that needed one, by kind.", _hits("misses")),
    Metric("davfs_requests_total", "counter", "Requests sent, by method.", _each("requests", "method")),
    Metric("davfs_sent_bytes_total", "counter", "Bytes of bodies sent.", _value("sent_bytes")),
    Metric("davfs_received_bytes_total", "counter", "Bytes of bodies received.", _value("received_bytes")),
    Metric("davfs_transfers", "gauge", "Files on their way, by direction.", _transfers(None)),
    Metric(
        "davfs_transfer_left_bytes", "gauge", "What is left of them, by direction.", _transfers("left_bytes")
    ),
)
