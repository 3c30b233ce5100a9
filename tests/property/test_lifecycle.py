"""`next_step` against a model server that applies, loses or delays each PUT, while another client edits.

`Uploader` is `upload._settle` without its I/O: it does what each step says and tells the life what came of
it. `Server` is one name on a server with strong ETags and conditional PUT. A history is a list of moves:
the program writes, the other client writes or deletes, the uploader takes a turn with some luck, a delayed
PUT lands, the daemon is killed. At the end luck is perfect, and everything must come to rest.

Invariants: the other client's version is overwritten only by a PUT made in its knowledge; ours is at the
name or in a conflict copy; a conflict needs another client; a turn with perfect luck ends within
upload.STEPS_MAX steps.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from davfs.dav.resource import ETag, Resource, Validator
from davfs.fs.delivery import STEPS_MAX
from davfs.fs.lifecycle import Life, LookedUp, Next, Step, next_step

Luck: TypeAlias = Literal["answered", "lost", "applied", "delayed", "killed"]
Move: TypeAlias = (
    tuple[Literal["write", "theirs", "delete", "land", "kill"], int] | tuple[Literal["turn"], Luck]
)


class Stored(NamedTuple):
    serial: int
    data: bytes
    is_theirs: bool


@dataclass(frozen=True)
class Put:
    data: bytes
    if_match: ETag | None
    is_new: bool
    seen: int  # serial of the version it was made in the knowledge of; 0: nothing


class Refused(Exception):
    """412."""


class Lost(Exception):
    """The connection broke: nobody knows."""


@dataclass
class Server:
    stored: Stored | None = None
    serials: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    lost_updates: list[bytes] = field(default_factory=list)

    def resource(self) -> Resource | None:
        if self.stored is None:
            return None
        return Resource(
            is_collection=False,
            size_bytes=len(self.stored.data),
            mtime_s=self.stored.serial,
            etag=ETag(str(self.stored.serial)),
        )

    def apply(self, put: Put) -> Validator:
        """Raises Refused when a precondition does not hold."""
        tag = None if self.stored is None else ETag(str(self.stored.serial))
        if (put.is_new and tag is not None) or (put.if_match is not None and put.if_match != tag):
            raise Refused
        before = self.stored
        if before is not None and before.is_theirs and before.serial != put.seen:
            self.lost_updates.append(before.data)
        self.stored = Stored(next(self.serials), put.data, is_theirs=False)
        resource = self.resource()
        assert resource is not None
        return resource.validator

    def edited(self, data: bytes | None) -> None:
        """By the other client, who always looks first."""
        self.stored = None if data is None else Stored(next(self.serials), data, is_theirs=True)


@dataclass
class Uploader:
    server: Server
    data: bytes
    base: Validator | None
    life: Life = field(default_factory=Life)
    arrived: bytes | None = None  # what the server is known to have had
    sent: list[bytes] = field(default_factory=list)  # what unanswered PUTs carried
    row: Life = field(default_factory=Life)  # as committed to the journal
    delayed: list[Put] = field(default_factory=list)
    conflicts: list[bytes] = field(default_factory=list)

    def write(self, data: bytes) -> None:
        """Commits the row when the file was clean, as Content.write does."""
        was_dirty = self.life.dirty
        self.data, self.life = data, self.life.wrote()
        if not was_dirty:
            self.row = self.life

    def our_sizes(self) -> set[int]:
        return {len(self.data), *map(len, self.sent)}

    def turn(self, luck: Luck) -> None:
        """What `_settle` does, with this luck for its first PUT; raises Lost."""
        found: LookedUp | None = None
        for _ in range(STEPS_MAX):
            todo = next_step(self.life, self.base, found, our_sizes=self.our_sizes())
            if todo.step is Step.NOTHING:
                return
            if todo.step is Step.LOOK_UP:
                found = LookedUp(self.server.resource())
            elif todo.step in {Step.PUT_NEW, Step.PUT_OVER}:
                found = self._put(todo, luck)
                if found is None:
                    return
                luck = "answered"
            elif todo.step is Step.COMPARE and self._is_ours(found):
                found = None
            else:
                self._keep_both()
                return
        raise AssertionError("no end of it")

    def _put(self, todo: Next, luck: Luck) -> LookedUp | None:
        self.committed(self.life.put_begins())
        seen = int(self.base.etag.opaque) if self.base is not None and self.base.etag is not None else 0
        put = Put(self.data, todo.if_match, todo.step is Step.PUT_NEW, seen)
        if luck == "delayed":
            self.delayed.append(put)
        try:
            version = self._sent_to_server(put, luck)
        except Lost:
            self.sent.append(put.data)  # after a kill: before the first write, see Content.note_unanswered
            raise
        except Refused:
            self.committed(self.life.put_refused())
            return LookedUp(self.server.resource())
        self.base, self.sent, self.arrived = version, [], put.data
        self.committed(self.life.put_succeeded())
        return None

    def _sent_to_server(self, put: Put, luck: Luck) -> Validator:
        if luck in {"delayed", "lost"}:
            raise Lost
        try:
            version = self.server.apply(put)
        except Refused:
            if luck == "answered":
                raise
            raise Lost from None
        if luck != "answered":
            raise Lost
        return version

    def _is_ours(self, found: LookedUp | None) -> bool:
        assert found is not None
        assert found.resource is not None
        assert self.server.stored is not None
        if self.server.stored.data == self.data:
            self.committed(Life(self.life.written, self.life.written, self.life.written))
        elif self.server.stored.data in self.sent:
            self.committed(self.life.found_unapplied())
        else:
            return False
        self.base, self.sent, self.arrived = found.resource.validator, [], self.server.stored.data
        return True

    def _keep_both(self) -> None:
        """Ours goes to a name of its own, where nobody disturbs it."""
        self.conflicts.append(self.data)
        self.committed(Life())

    def land(self) -> None:
        if self.delayed:
            try:
                self.server.apply(self.delayed.pop(0))
            except Refused:
                return

    def killed(self) -> None:
        """Back to the counters of the journal row. The bytes on disk may be newer than an unanswered PUT."""
        self.committed(self.row.wrote() if self.row.unknown else self.row)

    def committed(self, life: Life) -> None:
        self.life = self.row = life


lucks = st.sampled_from(["answered", "lost", "applied", "delayed", "killed"])
prompt = st.tuples(st.just("turn"), st.sampled_from(["answered", "lost", "applied"]))
late = st.tuples(st.just("turn"), st.sampled_from(["answered", "lost", "applied", "delayed"]))
turns = st.tuples(st.just("turn"), lucks)
own = st.tuples(st.just("write"), st.integers(0, 3))
foreign = st.tuples(st.sampled_from(["theirs", "theirs", "delete"]), st.integers(0, 3))
luckless = st.tuples(st.sampled_from(["land", "kill"]), st.just(0))


STARTS_WITH_FILE = True


def text(who: str, number: int, size: int) -> bytes:
    """Different bytes each time, of few different sizes."""
    return f"{who}{number:04d}".encode() + b"." * size


def played(history: list[Move], *, starts_with_file: bool, writes_while_unknown: bool = True) -> Uploader:
    server = Server()
    if starts_with_file:
        server.edited(text("base", 0, 0))
    resource = server.resource()
    me = Uploader(server, b"", resource.validator if resource is not None else None)
    me.write(text("ours", 0, 0))
    for number, (move, how) in enumerate(history, start=1):
        if me.conflicts:
            break
        if move == "write" and isinstance(how, int) and (writes_while_unknown or not me.life.unknown):
            me.write(text("ours", number, how))
        elif move == "theirs" and isinstance(how, int):
            server.edited(text("them", number, how))
        elif move == "delete":
            server.edited(None)
        elif move == "turn" and not isinstance(how, int):
            try:
                me.turn(how)
            except Lost:
                continue
        elif move == "land":
            me.land()
        elif move == "kill":
            me.killed()
    while me.delayed and not me.conflicts:
        me.land()
    me.turn("answered")
    return me


def survivors(me: Uploader) -> list[bytes]:
    return [*me.conflicts, *([me.server.stored.data] if me.server.stored is not None else [])]


@settings(max_examples=1500)
@given(st.lists(own | foreign | turns | turns | luckless, max_size=14), st.booleans())
def test_nobody_loses_an_update(history: list[Move], starts_with_file: bool) -> None:
    """The work of others is replaced only in its knowledge, and ours has reached the server."""
    me = played(history, starts_with_file=starts_with_file)
    assert me.server.lost_updates == []
    assert not me.life.dirty
    assert me.data in survivors(me) or me.data == me.arrived


@settings(max_examples=1000)
@given(st.lists(own | turns | turns | luckless, max_size=14), st.booleans())
def test_no_conflict_with_ourselves_when_writes_wait_for_answers(
    history: list[Move], starts_with_file: bool
) -> None:
    """Lost and late PUTs alone never make a conflict, if nothing is written while an outcome is unknown."""
    me = played(history, starts_with_file=starts_with_file, writes_while_unknown=False)
    assert me.conflicts == []
    assert survivors(me) == [me.data]


@settings(max_examples=1000)
@given(st.lists(own | prompt | prompt | luckless, max_size=14), st.booleans())
def test_no_conflict_with_ourselves_after_lost_answers(history: list[Move], starts_with_file: bool) -> None:
    """When only we write there is no conflict, whichever answers are lost, and whenever we write."""
    me = played(history, starts_with_file=starts_with_file)
    assert me.conflicts == []
    assert survivors(me) == [me.data]


@settings(max_examples=1000)
@example(
    [("turn", "delayed"), ("write", 1), ("turn", "lost"), ("land", 0), ("turn", "answered")], STARTS_WITH_FILE
)
@given(st.lists(own | late | late | luckless, max_size=14), st.booleans())
def test_no_conflict_with_ourselves_after_late_puts(history: list[Move], starts_with_file: bool) -> None:
    """Nor when a PUT lands long after we gave it up."""
    me = played(history, starts_with_file=starts_with_file)
    assert me.conflicts == []
    assert survivors(me) == [me.data]


@settings(max_examples=1000)
@example([("turn", "killed"), ("kill", 0), ("write", 1)], STARTS_WITH_FILE)
@given(st.lists(own | turns | turns | luckless, max_size=14), st.booleans())
def test_no_conflict_with_ourselves_after_a_kill(history: list[Move], starts_with_file: bool) -> None:
    """Nor when the daemon is killed during a PUT, and a program writes before the server can be asked."""
    me = played(history, starts_with_file=starts_with_file)
    assert me.conflicts == []
    assert survivors(me) == [me.data]


moves_of_life = st.lists(
    st.sampled_from(["wrote", "put_begins", "put_succeeded", "put_refused", "found_unapplied"]), max_size=20
)


@given(moves_of_life)
def test_the_counters_keep_their_order(moves: list[str]) -> None:
    """written >= sent >= acked after any sequence of events."""
    life = Life()
    for move in moves:
        life = getattr(life, move)()
        assert life.written >= life.sent >= life.acked >= 0


def test_a_clean_file_needs_nothing() -> None:
    """Nothing is asked of the server for a file that it has."""
    assert next_step(Life(3, 3, 3), None, None, our_sizes={0}).step is Step.NOTHING


@pytest.mark.parametrize(
    ("base", "unknown", "step", "tag"),
    [
        (None, False, Step.PUT_NEW, None),
        (None, True, Step.LOOK_UP, None),
        (Validator(ETag("a"), 1, 2), False, Step.PUT_OVER, ETag("a")),
        (Validator(ETag("a"), 1, 2), True, Step.LOOK_UP, None),
        (Validator(ETag("a", weak=True), 1, 2), False, Step.PUT_OVER, None),
        (Validator(None, 1, 2), False, Step.PUT_OVER, None),
    ],
)
def test_the_first_step(base: Validator | None, unknown: bool, step: Step, tag: ETag | None) -> None:
    """Only an unknown outcome is looked up first: an overwrite has its look in `guard`, if it needs one."""
    life = Life(1, 1 if unknown else 0, 0, unknown)
    assert next_step(life, base, None, our_sizes={2}) == Next(step, tag)


def test_a_folder_in_our_place_is_a_conflict() -> None:
    """Somebody made a folder of the name of an unsent file: ours is kept beside it."""
    found = LookedUp(Resource(is_collection=True))
    assert next_step(Life(1), None, found, our_sizes={0}).step is Step.CONFLICT
