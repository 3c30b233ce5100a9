"""`davfs probe`: find out by trying what a server can do, and print it as a table or for programs.

With --write it makes one folder of its own in the share. Its name is noted here before it is made, and it is
removed at the end, also after Ctrl-C, SIGTERM or a failure; what a killed probe left is removed by the next
one. Standard output has the result alone; what is wrong is told on standard error.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from davfs.commands.mount import described, surroundings
from davfs.commands.words import clean
from davfs.config import Config, build
from davfs.connections import in_words, lanes_of
from davfs.credentials import Login, login_for
from davfs.dav.auth import build_auth
from davfs.dav.client import Client
from davfs.dav.findings import Evidence, Finding, judged, left_out
from davfs.dav.hrefs import Share, shown
from davfs.dav.probe import TIME_LIMIT_S, Probe, scratch_of
from davfs.dav.resource import ROOT, DavPath
from davfs.errors import ConfigError, DavfsError, TimedOut, refused
from davfs.exitcodes import CommandFailed, Exit
from davfs.service import credentials_of

_FORMAT: Final = 1  # of --json: a key may be added, none changes its sense
_PREFIX: Final = ".davfs-probe-"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class _Outcome:
    url: str
    findings: tuple[Finding, ...]
    requests: int
    left: str | None  # the URL of the folder that could not be removed
    error: DavfsError | None  # why not everything was asked


def probe(source: str, options: Iterable[str], *, write: bool, as_json: bool) -> int:
    """The command. Raises DavfsError after what was found is printed."""
    url, _, texts = described(source, "/", options)  # nothing is mounted
    config = build(url, "/", texts, surroundings())
    if write and config.read_only:
        raise ConfigError("--write and the option ro exclude each other")
    outcome = trio.run(partial(_asked, config, login_for(config), write=write))
    _write_json(outcome, write=write) if as_json else _show(outcome, write=write)
    if outcome.left is not None:
        raise CommandFailed(_left_text(outcome.left))
    if outcome.error is not None:
        raise outcome.error
    return Exit.OK


def _left_text(url: str) -> str:
    return f"the probe's folder could not be removed: {url} (the next `davfs probe --write` tries again)"


# --- on the wire ------------------------------------------------------------------------------------


async def _asked(config: Config, login: Login | None, *, write: bool) -> _Outcome:
    """Raises DavfsError when the share does not answer, KeyboardInterrupt when a signal ended it."""
    outcome: _Outcome | None = None
    failure: DavfsError | None = None
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:

            async def obey() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(obey)
            try:
                outcome = await _conversation(config, login, write=write)
            except DavfsError as error:
                failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if outcome is None:
        raise KeyboardInterrupt
    return outcome


async def _conversation(config: Config, login: Login | None, *, write: bool) -> _Outcome:
    auth = build_auth(
        config.auth, config.url, credentials_of(login), allow_plaintext=config.plaintext_auth_allowed
    )
    lanes = lanes_of(config, auth)
    client = Client(lanes, config.url, timeout_s=config.timeout_s)
    try:
        try:
            await client.connect()
        except DavfsError as failure:
            failure.args = (f"cannot ask {config.url}: {in_words(failure, config)}",)
            raise
        asking = Probe(lanes, config.url, timeout_s=config.timeout_s)
        scratch = ROOT.child(f"{_PREFIX}{secrets.token_hex(8)}")
        left: list[DavPath] = []
        error: DavfsError | None = None
        with trio.move_on_after(TIME_LIMIT_S) as limit:
            try:
                await asking.look()
                if write:
                    await _canaries(config, asking, scratch, left)
            except DavfsError as found:
                error = found
        if limit.cancelled_caught:
            error = TimedOut(f"not everything was asked within {TIME_LIMIT_S:.0f} s")
        scheme = "none" if auth.is_anonymous else auth.scheme_in_use
        share = Share.parse(config.url)
        evidence = Evidence(asking.answers, share, client.capabilities, scheme, scratch)
        where = client.url(left[0], is_collection=True) if left else None
        return _Outcome(config.url, judged(evidence), asking.requests, where, error)
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(2):
            await client.aclose()


async def _canaries(config: Config, asking: Probe, scratch: DavPath, left: list[DavPath]) -> None:
    """Raises DavfsError when the folder cannot be made."""
    notes = Path(config.cache_dir).parent / "probes" / Path(config.cache_dir).name
    for old in _abandoned(notes):
        if await asking.remove(ROOT.child(old.name)):
            old.unlink(missing_ok=True)
        else:
            sys.stderr.write(f"davfs: {_left_text(shown(ROOT.child(old.name)))}\n")
    with _noted(notes / scratch.name) as note:

        def ended(is_left: bool) -> None:
            if not is_left:
                note.unlink(missing_ok=True)
                return
            left.append(scratch)
            with suppress(OSError):  # told here too: after a signal nothing is printed any more
                sys.stderr.write(f"davfs: {_left_text(shown(scratch))}\n")

        async with scratch_of(asking, scratch, ended):
            await asking.write(scratch)
    made = asking.answers["mkcol"]
    if not made.is_ok:
        if made.status:
            raise refused("MKCOL", made.status, shown(scratch))
        raise TimedOut(made.line)


@contextmanager
def _noted(note: Path) -> Iterator[Path]:
    """A file with the folder's name, locked while this probe runs."""
    note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(note, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield note
    finally:
        os.close(descriptor)


def _abandoned(notes: Path) -> Iterator[Path]:
    """The notes of probes that were killed, or could not remove their folder."""
    for note in sorted(notes.glob(f"{_PREFIX}*")):
        with suppress(OSError), note.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield note


# --- what is printed --------------------------------------------------------------------------------


def _write_json(outcome: _Outcome, *, write: bool) -> None:
    result: dict[str, Any] = {
        "format": _FORMAT,
        "url": outcome.url,
        "write": write,
        "requests": outcome.requests,
        "complete": outcome.error is None,
        "left": outcome.left,
        "findings": [
            {
                "capability": each.capability,
                "found": each.found,
                "detail": each.detail,
                "meaning": each.meaning,
                "assumes": each.assumes or None,
                "evidence": list(each.evidence),
            }
            for each in outcome.findings
        ],
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


def _show(outcome: _Outcome, *, write: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, emoji=False, markup=False, width=None if sys.stdout.isatty() else 500)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("capability", "found", "evidence", "what it means"):
        table.add_column(title, overflow="fold")
    for each in outcome.findings:
        found = f"{each.found} ({each.detail})" if each.detail else each.found
        meaning = f"{each.meaning} [davfs assumes {each.assumes}]" if each.assumes else each.meaning
        evidence = ", ".join(each.evidence[-3:])
        table.add_row(each.capability.replace("_", " "), *map(clean, (found, evidence, meaning)))
    console.print(clean(outcome.url), style="bold")
    console.print(table)
    missing = left_out(outcome.findings)
    if missing and not write:
        console.print(f"{missing} more with --write, which tries them in a folder of its own")
