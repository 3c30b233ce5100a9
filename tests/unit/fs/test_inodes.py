"""The inode table: numbers that stay, nodes that go."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator

import pytest

from davfs.errors import PosixError
from davfs.fs import schema
from davfs.fs.database import Database
from davfs.fs.index import Numbers
from davfs.fs.inodes import ROOT_INO, InodeTable, Node
from davfs.fs.leaves import LEAVES_MAX


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    """The real table of numbers, in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(schema.ALL)
    yield connection
    connection.close()


@pytest.fixture
def table(db: sqlite3.Connection) -> InodeTable:
    return InodeTable(Numbers(Database(db)))


def remounted(db: sqlite3.Connection) -> InodeTable:
    return InodeTable(Numbers(Database(db)))


def seen(table: InodeTable, name: str, parent: Node | None = None, *, is_folder: bool = False) -> Node:
    """A look-up by the kernel."""
    node = table.child(parent or table.root, name, is_folder=is_folder)
    node.lookups += 1
    return node


def test_numbers_stay_after_a_forget_and_a_remount(table: InodeTable, db: sqlite3.Connection) -> None:
    """A file has the same number when the kernel asks again, and in the next mount."""
    folder = seen(table, "d", is_folder=True)
    file = seen(table, "f", folder)
    before = (folder.ino, file.ino)
    table.forget(file.ino, 1)
    table.forget(folder.ino, 1)
    for again in (table, remounted(db)):
        folder = seen(again, "d", is_folder=True)
        assert (folder.ino, seen(again, "f", folder).ino) == before


def test_numbers_stay_over_renames(table: InodeTable, db: sqlite3.Connection) -> None:
    """What is renamed, or is below it, keeps its number, over a forget and a remount too."""
    folder = seen(table, "d", is_folder=True)
    file, deep = seen(table, "f"), seen(table, "deep", folder)
    before = (folder.ino, file.ino, deep.ino)
    table.move(file, table.root, "g")
    table.move(folder, table.root, "e")
    assert str(deep.path) == "/e/deep"
    for ino in (deep.ino, file.ino, folder.ino):
        table.forget(ino, 1)
    for again in (table, remounted(db)):
        folder = seen(again, "e", is_folder=True)
        assert (folder.ino, seen(again, "g").ino, seen(again, "deep", folder).ino) == before


def test_renamed_there_and_back_leaves_no_exception(table: InodeTable, db: sqlite3.Connection) -> None:
    """A file that has its first name again needs no row for its number."""
    file = seen(table, "f")
    table.move(file, table.root, "g")
    table.move(file, table.root, "f")
    assert db.execute("SELECT COUNT(*) FROM numbers").fetchone() == (0,)


def test_an_unlinked_node_lives_while_it_is_open(table: InodeTable) -> None:
    """After unlink the node of a handle keeps its number; a new file of the name gets another."""
    old = seen(table, "f")
    table.pin(old)
    table.detach(old)
    new = seen(table, "f")
    assert table.get(old.ino) is old
    assert old.unlinked
    with pytest.raises(PosixError) as gone:
        _ = old.path
    assert gone.value.errno == errno.ENOENT
    assert new.ino != old.ino
    assert table.get(new.ino) is new


def test_a_salted_number_stays(table: InodeTable, db: sqlite3.Connection) -> None:
    """A file that had to take another number because its own was in use keeps it."""
    old = seen(table, "f")
    table.detach(old)
    number = seen(table, "f").ino
    table.forget(old.ino, 1)
    table.forget(number, 1)
    assert seen(table, "f").ino == number
    assert seen(remounted(db), "f").ino == number


def test_a_replaced_node_keeps_its_number_while_it_is_open(table: InodeTable) -> None:
    """rename over an open file: both nodes live on under their own numbers."""
    target, temporary = seen(table, "doc"), seen(table, "tmp")
    numbers = (target.ino, temporary.ino)
    assert table.move(temporary, table.root, "doc") is target
    assert (target.ino, temporary.ino) == numbers
    assert (table.get(target.ino), table.get(temporary.ino)) == (target, temporary)
    assert (target.unlinked, str(temporary.path)) == (True, "/doc")


def test_a_temporary_name_can_be_used_again(table: InodeTable, db: sqlite3.Connection) -> None:
    """An editor that saves a hundred times through one temporary name never meets its old numbers."""
    seen(table, "doc")
    for _ in range(100):
        temporary = seen(table, "tmp")
        replaced = table.move(temporary, table.root, "doc")
        assert replaced is not None
        assert table.get(temporary.ino) is temporary
        assert replaced.ino != temporary.ino
        table.forget(replaced.ino, 1)
    number = table.root.children["doc"].ino
    table.forget(number, 1)
    assert len(table) == 1
    assert seen(table, "tmp").ino != number
    assert seen(table, "doc").ino == number
    assert db.execute("SELECT COUNT(*) FROM numbers").fetchone()[0] <= 2


def test_a_name_of_another_kind_is_another_node(table: InodeTable) -> None:
    """A file that became a folder on the server is a new node, with a new number while the old one lives."""
    file = seen(table, "x")
    folder = seen(table, "x", is_folder=True)
    assert file.unlinked
    assert folder.ino != file.ino


def test_nothing_is_left_when_everything_is_forgotten(table: InodeTable) -> None:
    """Nodes go with the last look-up, pin and child; the root stays."""
    folder = seen(table, "d", is_folder=True)
    deep = seen(table, "e", folder, is_folder=True)
    file = seen(table, "f", deep)
    table.forget(folder.ino, 1)
    table.forget(deep.ino, 1)
    assert len(table) == 4
    table.pin(file)
    table.forget(file.ino, 1)
    assert len(table) == 4
    table.unpin(file)
    assert len(table) == 1
    assert table.root.children == {}


def test_a_removed_tree_goes_when_its_nodes_are_forgotten(table: InodeTable) -> None:
    """Nodes below a folder that was removed elsewhere are dropped like any other."""
    folder = seen(table, "d", is_folder=True)
    file = seen(table, "f", folder)
    table.detach(folder)
    table.forget(folder.ino, 1)
    assert table.find(file.ino) is file
    table.forget(file.ino, 1)
    assert len(table) == 1


def test_too_many_forgets_do_no_harm(table: InodeTable) -> None:
    """The root cannot be forgotten, and an unknown number is ignored."""
    table.forget(ROOT_INO, 1000)
    table.forget(12345, 1)
    assert table.get(ROOT_INO) is table.root


def test_an_unknown_number_is_estale(table: InodeTable) -> None:
    """A number that the kernel kept too long is ESTALE."""
    with pytest.raises(PosixError) as unknown:
        table.get(12345)
    assert unknown.value.errno == errno.ESTALE


def test_numbers_are_far_from_the_reserved_ones(table: InodeTable) -> None:
    """Numbers fit a signed 64-bit integer and are above the small ones, whatever the name."""
    for name in ("a", "\udcff", "x" * 255, "ä"):
        assert 1 << 16 <= seen(table, name).ino < 1 << 63


# --- leaves: files that only a listing has told the kernel of


def listed(table: InodeTable, name: str, parent: Node, size_bytes: int = 0) -> int:
    """The kernel takes a member from a listing."""
    number = table.leaf_number(parent, name)
    assert number is not None
    table.told(parent, name, number, size_bytes)
    return number


def test_a_listed_file_becomes_a_node_when_it_is_wanted(table: InodeTable) -> None:
    """By number or by name, with its look-ups and the size that was told."""
    folder = seen(table, "d", is_folder=True)
    numbers = [listed(table, name, folder, size) for name, size in (("a", 1), ("b", 2), ("c", 3), ("b", 4))]
    assert numbers[1] == numbers[3] == table.number_of(folder, "b")
    assert (len(table), folder.children) == (5, {})
    found = [table.get(numbers[0]), table.named(folder, "b"), table.child(folder, "c", is_folder=False)]
    assert [(one.ino, str(one.path), one.lookups, one.told_size) for one in found if one is not None] == [
        (numbers[0], "/d/a", 1, 1),
        (numbers[1], "/d/b", 2, 4),
        (numbers[2], "/d/c", 1, 3),
    ]
    assert [table.find(number) for number in numbers[:3]] == found
    assert table.named(folder, "z") is None


def test_listed_files_are_forgotten_by_their_counts(table: InodeTable) -> None:
    """A leaf goes with its last look-up, and with the last leaf the folder that the kernel has forgotten."""
    folder = seen(table, "d", is_folder=True)
    first = listed(table, "a", folder)
    second = listed(table, "b", folder)
    listed(table, "b", folder)
    table.forget(folder.ino, 1)
    table.forget(first, 1)
    table.forget(second, 0)
    table.forget(second, 1)
    assert sorted(table.kernel_has()) == sorted([ROOT_INO, second])
    assert table.get(folder.ino) is folder
    table.forget(second, 1)
    assert len(table) == 1
    with pytest.raises(PosixError):
        table.get(second)


def test_a_listed_file_that_is_a_node_counts_there(table: InodeTable) -> None:
    """What is a node already is told of as one."""
    file = seen(table, "f")
    assert table.leaf_number(table.root, "f") is None
    table.told(table.root, "f", file.ino, 0)
    table.forget(file.ino, 1)
    assert table.get(file.ino) is file
    table.forget(file.ino, 1)
    assert len(table) == 1


def test_leaves_follow_their_folder_and_go_out_of_the_way(table: InodeTable) -> None:
    """They keep their numbers when the folder is renamed; a file renamed over one replaces it."""
    folder = seen(table, "d", is_folder=True)
    numbers = [listed(table, name, folder) for name in "ab"]
    table.move(folder, table.root, "e")
    replaced = table.move(seen(table, "new"), folder, "b")
    assert replaced is not None
    assert (replaced.ino, replaced.unlinked, table.get(numbers[1])) == (numbers[1], True, replaced)
    assert str(table.get(numbers[0]).path) == "/e/a"
    assert {child.name for child in table.members(folder)} == {"a", "b"}


def test_a_leaf_of_another_kind_is_another_node(table: InodeTable) -> None:
    """A listed file that became a folder on the server is a new node."""
    number = listed(table, "x", table.root)
    folder = seen(table, "x", is_folder=True)
    assert folder.ino != number
    assert table.get(number).unlinked


def test_a_large_folder_has_only_so_many_leaves(table: InodeTable) -> None:
    """Beyond that its files are nodes at once; room comes when all leaves are gone."""
    folder = seen(table, "d", is_folder=True)
    numbers = [listed(table, f"f{count}", folder) for count in range(LEAVES_MAX)]
    assert table.leaf_number(folder, "f0") == numbers[0]
    assert table.leaf_number(folder, "more") is None
    for number in numbers:
        table.forget(number, 1)
    assert table.leaf_number(folder, "more") is not None
