"""`davfs probe` on every server that can be started: what it finds, and that it leaves nothing behind.

The matrix is data here, with the reason of each exception. docs/SERVERS.md and the words of docs/PROBE.md
are written from it where DAVFS_WRITE_DOCS=1.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trio

from davfs.config import share_key
from davfs.dav.auth import build_auth
from davfs.dav.client import Client
from davfs.dav.findings import Evidence, Finding, judged
from davfs.dav.hrefs import Share as WireShare
from davfs.dav.lanes import Lanes, LaneSettings
from davfs.dav.meanings import MEANINGS
from davfs.dav.probe import MOST_REQUESTS, Probe, scratch_of
from davfs.dav.resource import ROOT
from tests.servers import Share

_DOCS: Final = Path(__file__).parents[2] / "docs"
_SERVERS: Final = ("apache", "nginx", "lighttpd", "sabredav", "wsgidav", "rclone")
_TITLES: Final = ("Apache", "nginx + dav-ext", "lighttpd", "sabre/dav (PHP)", "WsgiDAV", "rclone")
_SAFE: Final = {"OPTIONS", "PROPFIND", "GET"}


@dataclass(frozen=True)
class Row:
    """What is expected of one capability. `or_else`: another word that a slow machine may give."""

    common: str
    but: Mapping[str, str] = field(default_factory=dict)
    why: str = ""
    or_else: Mapping[str, str] = field(default_factory=dict)

    def on(self, server: str) -> str:
        return self.but.get(server, self.common)


_EACH_UNCLEAR: Final = dict.fromkeys(_SERVERS, "unclear")
MATRIX: Final[Mapping[str, Row]] = {
    "server": Row("named", why="sabre/dav shows the name of the nginx in front of PHP"),
    "dav": Row("announced"),
    "authentication": Row("none"),
    "connection": Row("kept"),
    "clock": Row("in step", or_else=dict.fromkeys(_SERVERS, "off")),
    "listing": Row("complete", why="as davfs reads it: a control character is no XML on nginx and WsgiDAV"),
    "depth_infinity": Row(
        "refused",
        {"sabredav": "one level", "wsgidav": "whole", "rclone": "whole"},
        "sabre/dav 1.8 and 4 answer 207 with Depth 1 only",
    ),
    "quota": Row("silent", {"sabredav": "told", "wsgidav": "told"}),
    "creationdate": Row("silent", {"apache": "told", "wsgidav": "told"}),
    "privileges": Row("silent"),
    "checksums": Row("silent"),
    "uploads_in_parts": Row("none"),
    "compression": Row("not used", {"rclone": "used"}),
    "etags_in_listings": Row("strong", {"nginx": "none"}, "nginx has tags only in GET and HEAD"),
    "folder_etags": Row("none", {"apache": "told", "lighttpd": "told"}, "of the folder's own mtime"),
    "ranges": Row("honoured"),
    "etag_in_put": Row("strong", {"apache": "none", "nginx": "none"}),
    "if_none_match": Row("honoured", {"nginx": "ignored", "rclone": "ignored"}),
    "if_match": Row(
        "honoured",
        {"nginx": "ignored", "rclone": "ignored"},
        "lighttpd 1.4.69 refuses the right tag of a file that is some more seconds old",
        or_else={"lighttpd": "refuses all"},
    ),
    "if_header": Row(
        "honoured", {"nginx": "ignored", "wsgidav": "ignored"}, "rclone takes any tag beside a lock token"
    ),
    "weak_tag_in_if": Row("not needed", {"apache": "accepted"}, or_else={"apache": "not needed"}),
    "tag_ageing": Row(
        "stays",
        {"apache": "turns strong", "nginx": "none"},
        "mod_dav: a file younger than one to two seconds has a weak tag",
        or_else={"apache": "stays"},
    ),
    "tag_of_second": Row(
        "changes",
        {"nginx": "none", "wsgidav": "stays"},
        "WsgiDAV's tags hold whole seconds and the size",
        or_else=_EACH_UNCLEAR,
    ),
    "expect": Row(
        "in time",
        {"nginx": "100 first", "sabredav": "100 first", "wsgidav": "100 first"},
        "for a missing folder; nginx is in time with 401 and 423",
    ),
    "missing_parent": Row("refused", why="409; nginx 500, sabre/dav 1.8 404"),
    "cut_upload": Row("whole", {"wsgidav": "torn", "rclone": "torn"}, "both write in place"),
    "content_range_put": Row("refused", {"apache": "written", "rclone": "replaces"}),
    "patch": Row(
        "refused",
        {"nginx": "not announced"},
        "Allow names PATCH where it cannot be had; sabre/dav has it with a plug-in",
    ),
    "locks": Row("enforced"),
    "lock_timeout": Row(
        "as asked", {"nginx": "shorter", "sabredav": "longer"}, "nginx: 60 s as configured; sabre/dav: 1800 s"
    ),
    "lock_refresh": Row("works"),
    "lock_token_shown": Row("yes", {"sabredav": "no", "rclone": "no locks"}),
    "lock_owner_kept": Row("yes", {"nginx": "no", "lighttpd": "no", "rclone": "no"}),
    "lock_on_free_name": Row("empty file", {"apache": "nothing left"}, "Apache has lock-null entries"),
    "lock_after_move": Row("stays", {"wsgidav": "gone", "lighttpd": "refused"}),
    "move_overwrite_f": Row("honoured"),
    "copy_overwrite_f": Row("honoured"),
    "move_condition": Row(
        "honoured",
        {"nginx": "ignored", "wsgidav": "ignored", "lighttpd": "refuses all", "rclone": "refuses all"},
    ),
    "mtime": Row(
        "not settable",
        {"nginx": "settable", "rclone": "settable"},
        "nginx by Date on PUT; rclone 1.75 by X-OC-Mtime",
    ),
    "dead_properties": Row("kept", {"nginx": "refused", "rclone": "refused"}),
    "executable": Row("kept", {"nginx": "refused", "rclone": "refused"}, "as a dead property, but on Apache"),
    "dot_names": Row("listed", {"nginx": "hidden"}),
    "names": Row(
        "all",
        {"lighttpd": "some", "rclone": "some"},
        "a control character: lighttpd 400, rclone lists another one",
    ),
    "move_names": Row("all", {"wsgidav": "some"}, "WsgiDAV cuts Destination at ? and ;"),
    "longest_name": Row("255", {"lighttpd": "shorter"}, "245: it appends to the name while it writes"),
    "case": Row("distinguished"),
    "unicode": Row(
        "kept apart",
        {"rclone": "folded"},
        "rclone 1.75 finds one spelling by the other, once it has the folder in memory",
        {"rclone": "kept apart"},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Probed:
    findings: dict[str, Finding]
    requests: int
    up_bytes: int
    left: list[bool]


async def probed(url: str, *, write: bool) -> Probed:
    lanes = Lanes(build_auth("none", url, None), LaneSettings())
    client = Client(lanes, url)
    left: list[bool] = []
    try:
        await client.connect()
        probe = Probe(lanes, url)
        scratch = ROOT.child(".davfs-probe-test")
        await probe.look()
        if write:
            async with scratch_of(probe, scratch, left.append):
                await probe.write(scratch)
        evidence = Evidence(probe.answers, WireShare.parse(url), client.capabilities, scratch=scratch)
        found = {each.capability: each for each in judged(evidence)}
        return Probed(found, probe.requests, probe.up_bytes, left)
    finally:
        await client.aclose()


# --- the matrix -----------------------------------------------------------------------------------

_measured: dict[str, dict[str, Finding]] = {}


@pytest.fixture(scope="module", autouse=True)
def _tables() -> Iterator[None]:
    """Writes the documents at the end, where that is asked for and every server was there."""
    yield
    if os.environ.get("DAVFS_WRITE_DOCS") == "1" and set(_measured) == set(_SERVERS):
        _write_table("SERVERS.md", "servers", _matrix_rows())
        _write_table("SERVERS.md", "reasons", _reason_rows())
        _write_table("PROBE.md", "meanings", _meaning_rows())


def _matrix_rows() -> list[str]:
    head = [f"| capability | {' | '.join(_TITLES)} |", "|---" * (1 + len(_TITLES)) + "|"]
    return head + [
        f"| {name} | {' | '.join(row.on(server) for server in _SERVERS)} |" for name, row in MATRIX.items()
    ]


def _reason_rows() -> list[str]:
    return [f"- {name}: {row.why}" for name, row in MATRIX.items() if row.why]


def _meaning_rows() -> list[str]:
    head = ["| capability | found | what it means |", "|---|---|---|"]
    return head + [
        f"| {capability} | {found} | {text} |"
        for capability, words in MEANINGS.items()
        for found, text in words.items()
    ]


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- table {name} -->\n", f"<!-- end of table {name} -->"


def _write_table(document: str, name: str, rows: list[str]) -> None:
    start, end = _marks(name)
    before, _, rest = (_DOCS / document).read_text().partition(start)
    _, _, after = rest.partition(end)
    (_DOCS / document).write_text(before + start + "".join(f"{row}\n" for row in rows) + end + after)


def _published(document: str, name: str) -> list[str]:
    start, end = _marks(name)
    _, _, rest = (_DOCS / document).read_text().partition(start)
    return rest.partition(end)[0].splitlines()


def test_the_matrix_names_every_capability() -> None:
    """A capability that is added gets a row, with words that it knows."""
    assert list(MATRIX) == list(MEANINGS)
    for name, row in MATRIX.items():
        words = {row.common, *row.but.values(), *row.or_else.values()}
        assert words <= set(MEANINGS[name]), name
        assert set(row.but) | set(row.or_else) <= set(_SERVERS), name


def test_the_documents_are_those_of_the_matrix() -> None:
    """docs/SERVERS.md and docs/PROBE.md say what is asserted here."""
    assert _published("SERVERS.md", "servers") == _matrix_rows()
    assert _published("SERVERS.md", "reasons") == _reason_rows()
    assert _published("PROBE.md", "meanings") == _meaning_rows()


@pytest.mark.timeout(300)  # rclone took 20 s on an idle machine and 47 s on a busy one, the others 3 s
async def test_what_is_found_on_each_server(locking_share: Share) -> None:
    """Every finding is the one of the matrix, within the bounds, and the share is as empty as before.

    What Capabilities takes for granted is what is found, or worse: nothing that davfs relies on is refuted.
    """
    server = locking_share.name
    done = await probed(locking_share.url, write=True)
    _measured[server] = done.findings
    wrong = [
        f"{name}: not {row.on(server)!r}, but {done.findings.get(name, 'no finding')}"
        for name, row in MATRIX.items()
        if name not in done.findings
        or done.findings[name].found not in (row.on(server), row.or_else.get(server))
    ]
    assert not wrong, "\n".join(wrong)
    refuted = [each for each in done.findings.values() if each.assumes and "the worse" not in each.assumes]
    assert not refuted
    assert done.requests <= MOST_REQUESTS
    assert done.up_bytes < 1024 * 1024
    assert done.left == [False]
    assert list(locking_share.root.iterdir()) == []


async def test_without_write_nothing_is_changed(locking_share: Share) -> None:
    """Only OPTIONS, PROPFIND and GET are sent; what is there serves for tags and ranges."""
    locking_share.write("a.txt", b"here before")
    os.utime(locking_share.root / "a.txt", (1_700_000_000, 1_700_000_000))
    done = await probed(locking_share.url, write=False)
    assert {request.method for request in locking_share.log_requests()} <= _SAFE
    assert [path.name for path in locking_share.root.iterdir()] == ["a.txt"]
    assert (locking_share.root / "a.txt").read_bytes() == b"here before"
    assert done.findings["ranges"].found == MATRIX["ranges"].on(locking_share.name)
    tags = MATRIX["etags_in_listings"].on(locking_share.name)
    assert done.findings["etags_in_listings"].found == tags
    assert not {"locks", "if_match", "cut_upload"} & set(done.findings)


# --- an end before the end ------------------------------------------------------------------------


async def test_a_cancelled_probe_removes_its_folder(locking_share: Share) -> None:
    """Wherever it is stopped, the folder is gone afterwards."""
    lanes = Lanes(build_auth("none", locking_share.url, None), LaneSettings())
    probe = Probe(lanes, locking_share.url)
    scratch = ROOT.child(".davfs-probe-test")
    left: list[bool] = []
    try:
        with trio.move_on_after(0.5):
            async with scratch_of(probe, scratch, left.append):
                await probe.write(scratch)
    finally:
        await lanes.aclose()
    assert left == [False]
    assert list(locking_share.root.iterdir()) == []


# --- the command ----------------------------------------------------------------------------------


def _command(url: str, cache: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "davfs", "probe", url, "-o", f"cache_dir={cache}", *words]


def run(url: str, cache: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(url, cache, *words), capture_output=True, text=True, timeout=200, check=False
    )


def _interrupted(share: Share, cache: Path, number: signal.Signals) -> tuple[int, str]:
    """A probe that gets a signal once its folder is there: its exit status and its standard error."""
    with subprocess.Popen(
        _command(share.url, cache, "--write"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        _folder_of(share)
        child.send_signal(number)
        _, text = child.communicate(timeout=60)
        return child.returncode, text


def _result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_the_result_for_programs(apache_share: Share, tmp_path: Path) -> None:
    """--json has the documented keys, one finding for each capability, and no other output."""
    done = run(apache_share.url, tmp_path, "--write", "--json")
    result = _result(done)
    assert list(result) == ["format", "url", "write", "requests", "complete", "left", "findings"]
    assert (result["format"], result["write"], result["complete"], result["left"]) == (1, True, True, None)
    assert {each["capability"] for each in result["findings"]} == set(MEANINGS)
    keys = ["capability", "found", "detail", "meaning", "assumes", "evidence"]
    assert all(list(each) == keys for each in result["findings"])
    assert done.stderr == ""


def test_the_table_for_people(wsgidav_share: Share, tmp_path: Path) -> None:
    """Capability, word, statuses and meaning stand in one line; without --write it says what is missing."""
    done = run(wsgidav_share.url, tmp_path, "--write")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("cut upload"))
    assert "torn" in line
    assert "GET /c 200" in line
    assert MEANINGS["cut_upload"]["torn"] in line
    assert "more with --write" in run(wsgidav_share.url, tmp_path).stdout


def test_a_folder_that_cannot_be_removed_is_told(apache_share: Share, tmp_path: Path) -> None:
    """Somebody locks the probe's folder: the result is printed, the address told, the code is 1."""
    with subprocess.Popen(
        _command(apache_share.url, tmp_path, "--write", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        name = _folder_of(apache_share)
        _lock(f"{apache_share.url}{name}/")
        out, err = child.communicate(timeout=100)
    assert child.returncode == 1
    assert json.loads(out)["left"] == f"{apache_share.url}{name}/"
    assert f"{apache_share.url}{name}/" in err
    assert [note.name for note in tmp_path.glob("probes/*/*")] == [name]


def _folder_of(share: Share) -> str:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        for path in share.root.iterdir():
            return path.name
        time.sleep(0.02)
    raise AssertionError("the probe made no folder")


def _lock(url: str, owner: str = "somebody") -> None:
    body = (
        '<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype>'
        f"<owner>{owner}</owner></lockinfo>"
    )
    headers = {"Depth": "0", "Timeout": "Second-600"}
    with httpx.Client(trust_env=False) as http:
        assert http.request("LOCK", url, content=body, headers=headers).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(apache_share: Share, tmp_path: Path, number: signal.Signals) -> None:
    """After Ctrl-C or SIGTERM the folder is removed, the exit status is 130."""
    assert _interrupted(apache_share, tmp_path, number) == (130, "davfs: interrupted\n")
    assert list(apache_share.root.iterdir()) == []


def test_the_next_probe_removes_what_a_killed_one_left(apache_share: Share, tmp_path: Path) -> None:
    """The folder is noted before it is made; only what is noted is removed."""
    apache_share.mkdir(".davfs-probe-of-somebody-else")
    with subprocess.Popen(
        _command(apache_share.url, tmp_path, "--write"), stdout=subprocess.DEVNULL
    ) as child:
        deadline_s = time.monotonic() + 60
        while len(list(apache_share.root.iterdir())) < 2 and time.monotonic() < deadline_s:
            time.sleep(0.02)
        child.kill()
    assert len(list(apache_share.root.iterdir())) == 2
    _result(run(apache_share.url, tmp_path, "--write", "--json"))
    assert [path.name for path in apache_share.root.iterdir()] == [".davfs-probe-of-somebody-else"]


def test_a_lock_that_a_killed_probe_left_is_taken_away(apache_share: Share, tmp_path: Path) -> None:
    """A DELETE of the folder is refused while a file in it is locked: the next probe unlocks its own."""
    name = ".davfs-probe-0123"
    apache_share.write(f"{name}/l", b"locked")
    _lock(apache_share.url_of(f"{name}/l"), "davfs probe")
    notes = tmp_path / "probes" / share_key(apache_share.url, None)
    notes.mkdir(parents=True)
    (notes / name).touch()
    _result(run(apache_share.url, tmp_path, "--write", "--json"))
    assert list(apache_share.root.iterdir()) == []
    assert list(notes.iterdir()) == []
