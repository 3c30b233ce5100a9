"""The control socket, with real sockets."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from davfs import control
from davfs.errors import PosixError
from davfs.exitcodes import CommandFailed, NoDaemon


async def _status(_: Mapping[str, Any]) -> dict[str, object]:
    return {"pending": [], "name": "\udcff"}


async def _sync(request: Mapping[str, Any]) -> dict[str, object]:
    await trio.sleep(control.requested_timeout_s(request) or 0)
    return {"left": 2}


async def _refuse(_: Mapping[str, Any]) -> dict[str, object]:
    raise PosixError(5, "told so")


async def _break(_: Mapping[str, Any]) -> dict[str, object]:
    raise ValueError("a bug")


HANDLERS = {"status": _status, "sync": _sync, "refuse": _refuse, "break": _break}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path / "x.sock"


def dial(path: Path) -> control.ControlClient:
    connection = control._connected(path, os.geteuid(), 5.0)
    assert connection is not None
    return control.ControlClient(connection)


def raw(path: Path, *lines: bytes) -> list[dict[str, Any]]:
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(b"".join(lines))
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answers:
            return [json.loads(line) for line in answers]


async def in_thread(function: Any, *arguments: Any, **named: Any) -> Any:
    return await trio.to_thread.run_sync(partial(function, *arguments, **named))


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_file_comes_with_its_answer(path: Path, nursery: trio.Nursery) -> None:
    """The descriptor is the client's to close, or is closed with the connection; the server keeps none."""
    shared = path.with_name("bytes")
    shared.write_bytes(b"unsent")

    async def file(_: Mapping[str, Any]) -> control.FileAnswer:
        return control.FileAnswer({"size": 6, "long": "x" * 100_000}, os.open(shared, os.O_RDONLY))

    await nursery.start(partial(control.serve_control, path, {**HANDLERS, "file": file}))

    def talk() -> None:
        with dial(path) as client:
            answer, fd = client.ask_for_file("file")
            with os.fdopen(fd, "rb") as unsent:
                assert (answer["size"], unsent.read()) == (6, b"unsent")
            assert client.ask("file")["size"] == 6
            assert client.ask("status")["pending"] == []
        with dial(path) as client, pytest.raises(NoDaemon):
            client.ask_for_file("status")

    before = _open_files()
    await in_thread(talk)
    with trio.fail_after(20):  # the server's end of a connection is closed a moment later
        while _open_files() != before:
            await trio.sleep(0.01)


async def test_questions_are_answered(path: Path, nursery: trio.Nursery) -> None:
    """Several questions on one connection, surrogates in names included."""
    await nursery.start(partial(control.serve_control, path, HANDLERS))

    def talk() -> None:
        with dial(path) as client:
            assert client.ask("status") == {"pending": [], "name": "\udcff"}
            assert client.ask("sync", timeout_s=0) == {"left": 2}
            assert client.peer_pid == os.getpid()

    await in_thread(talk)
    nursery.cancel_scope.cancel()


async def test_a_refusal_comes_back_as_its_line(path: Path, nursery: trio.Nursery) -> None:
    """What a handler raises on purpose, and an unknown command, reach the person who asked."""
    await nursery.start(partial(control.serve_control, path, HANDLERS))

    def talk() -> None:
        with dial(path) as client:
            for command, text in [("refuse", "told so"), ("nothing", "unknown command")]:
                with pytest.raises(CommandFailed, match=text):
                    client.ask(command)
            with pytest.raises(CommandFailed, match="number of seconds"):
                client.ask("sync", timeout_s="soon")

    await in_thread(talk)
    nursery.cancel_scope.cancel()


@pytest.mark.expects_warning("a control command failed")
async def test_a_bug_in_a_handler_does_not_end_the_daemon(path: Path, nursery: trio.Nursery) -> None:
    """An unexpected exception is logged and answered; the next question works."""
    await nursery.start(partial(control.serve_control, path, HANDLERS))

    def talk() -> None:
        with dial(path) as client:
            with pytest.raises(CommandFailed, match="internal error"):
                client.ask("break")
            client.ask("status")

    await in_thread(talk)
    nursery.cancel_scope.cancel()


async def test_nonsense_is_answered_with_an_error(path: Path, nursery: trio.Nursery) -> None:
    """No JSON, no object, deep nesting, a line without end: an error answer each, and the daemon lives."""
    await nursery.start(partial(control.serve_control, path, HANDLERS))
    lines = [b"\xff\n", b"[]\n", b"[" * 50_000 + b"\n", b'{"command": []}\n', b'{"command": "status"}\n']
    answers = await in_thread(raw, path, *lines)
    assert [answer["ok"] for answer in answers] == [False] * 4 + [True]
    answers = await in_thread(raw, path, b"x" * (control.MAX_LINE_BYTES + 1))
    assert [answer["ok"] for answer in answers] == [False]
    await in_thread(raw, path, b'{"command"')
    nursery.cancel_scope.cancel()


async def test_a_slow_answer_can_be_polled(path: Path, nursery: trio.Nursery) -> None:
    """`answer` returns None while a sync runs, and its result later; others are served meanwhile."""
    done = trio.Event()

    async def sync(_: Mapping[str, Any]) -> dict[str, object]:
        await done.wait()
        return {"left": 2}

    await nursery.start(partial(control.serve_control, path, {**HANDLERS, "sync": sync}))

    def talk() -> None:
        with dial(path) as slow, dial(path) as quick:
            slow.send("sync")
            assert slow.answer(within_s=0.05) is None
            assert quick.ask("status")["pending"] == []
            trio.from_thread.run_sync(done.set)
            assert slow.answer(within_s=5) == {"left": 2}

    await in_thread(talk)
    nursery.cancel_scope.cancel()


async def test_a_daemon_that_hangs_does_not_hang_the_client(path: Path) -> None:
    """A socket on which nobody answers ends in NoDaemon within the time-out."""
    with closing(socket.socket(socket.AF_UNIX)) as silent:
        silent.bind(str(path))
        silent.listen(1)

        def talk() -> None:
            with dial(path) as client, pytest.raises(NoDaemon, match="did not answer"):
                client.ask("status", within_s=0.1)

        await in_thread(talk)


async def test_the_socket_is_private_and_goes_with_the_daemon(path: Path) -> None:
    """Mode 0600 while it serves; afterwards nothing is there."""
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(control.serve_control, path, HANDLERS))
        assert (await trio.Path(path).stat()).st_mode & 0o777 == 0o600
        nursery.cancel_scope.cancel()
    assert not await trio.Path(path).exists()


async def test_a_dead_socket_is_replaced_and_a_live_one_is_not(path: Path, nursery: trio.Nursery) -> None:
    """After kill -9 the next daemon takes the place; a second daemon for one mount point is refused."""
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
    await nursery.start(partial(control.serve_control, path, HANDLERS))
    with pytest.raises(CommandFailed, match="another davfs daemon"):
        control._listen(path)
    await in_thread(lambda: dial(path).__exit__(None, None, None))
    nursery.cancel_scope.cancel()


def test_a_folder_that_others_can_write_is_not_trusted(tmp_path: Path) -> None:
    """Neither end uses a socket in a folder that somebody else could have prepared."""
    tmp_path.chmod(0o777)
    path = tmp_path / "x.sock"
    with closing(socket.socket(socket.AF_UNIX)) as foreign:
        foreign.bind(str(path))
        foreign.listen(1)
        assert control._connected(path, os.geteuid(), 1.0) is None
    with pytest.raises(CommandFailed, match="0700"):
        control._listen(path)


def test_without_a_daemon_the_client_says_how_to_clean_up() -> None:
    """No socket anywhere for this mount point: NoDaemon, with the command that helps."""
    with pytest.raises(NoDaemon, match="fusermount3 -u /no/such/mount"):
        control.connect("/no/such/mount", os.geteuid(), {})


def test_socket_names_fit_and_differ() -> None:
    """Whatever the mount point's length, the name is short, and one for each place."""
    names = {control._socket_name(path) for path in ("/a", "/b", "/" + "x" * 4000, "/\udcff")}
    assert len(names) == 4
    long = control.socket_candidates("/a", 1, {"XDG_RUNTIME_DIR": "/" + "x" * 90})
    assert all(len(str(path)) < 108 for path in long)


@given(st.binary())
def test_any_answer_is_read_or_refused(line: bytes) -> None:
    """A broken daemon makes the client fail with a DavfsError, not with a traceback."""
    with suppress(CommandFailed):
        control._result(line)
