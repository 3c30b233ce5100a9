"""What will be asked next, fetched before it is asked: the folders of a walk, small files in order.

The decisions are in `walks` and `series`; here they meet the tree and the wire. Listings go through the
single flight of `questions`, files through that of `download`, so that a program that comes meanwhile waits
for what is on its way; if that fails, the program asks for itself. Nothing is fetched that no program showed
signs of wanting, no lane is taken that is not to spare (`dav.lanes.pool`), and nobody ever waits here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

import trio

from davfs.dav.resource import DavPath
from davfs.dav.wire import NoLane
from davfs.errors import as_davfs_error
from davfs.fs.content import Content
from davfs.fs.files import Files
from davfs.fs.inodes import Node
from davfs.fs.series import NEXT_WITHIN_S, WINDOW_MAX, Key, Numbered, Series, arranged, order_of
from davfs.fs.tree import HIDDEN_PREFIX, Tree
from davfs.fs.walks import Listings, Path, Walk

WALKS_MAX: Final = 8
FOLDERS_MAX: Final = 256  # of series, and with a first open that may begin one
AHEAD_MAX: Final = 32
GROW_AFTER: Final = 8  # rounds without a refusal, until one more is tried
HELD_MAX: Final = 2 * WINDOW_MAX
NAMES_MAX: Final = 200_000  # of all series: about 250 bytes each
TRIES_MAX: Final = 8  # pairs of opens in one folder that were in no order: then it is left alone


class Allotment:
    """How many requests ahead may be under way: what the lanes were last seen to have to spare, and a little
    more now and then. Asking for a lane that is not there costs nearly as much as a request.
    """

    def __init__(self) -> None:
        self._most = float(AHEAD_MAX)
        self._busy = 0

    @property
    def is_used_up(self) -> bool:
        return self._busy >= int(self._most)

    def begin(self) -> None:
        self._busy += 1

    def end(self, *, refused: bool) -> None:
        self._busy -= 1
        if refused:
            self._most = float(max(1, self._busy))
        else:
            self._most = min(AHEAD_MAX, self._most + 1 / (GROW_AFTER * self._most))


class Prefetch:
    def __init__(self, tree: Tree, files: Files) -> None:
        self._tree = tree
        self._files = files
        self._listings = Listings()
        self._walks: dict[int, Walk] = {}  # by the number of the folder where they began
        self._series: dict[int, Series] = {}  # by the number of each folder that they cover
        self._places: dict[int, Path] = {}  # where these folders are, below the root
        self._opened: dict[int, tuple[str, float, int]] = {}  # the last open in a folder, and how many pairs
        self._held: dict[int, tuple[Node, Content]] = {}  # by file: fetched, and kept open until it is opened
        self._allotment = Allotment()
        self._held_up: dict[
            object, Callable[[], None]
        ] = {}  # walks and series that would go on with more lanes
        self._nursery: trio.Nursery | None = None

    def start(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    # --- walks

    def comes_to(self, node: Node, program: int) -> None:
        """A program is about to list this folder."""
        if self._nursery is None or node.parent is None or self._tree.refusal() is not None:
            return
        found = self._walk_with(node)
        if found is None:
            above = node.parent
            walk = self._listings.begins(
                above.ino,
                node.name,
                program,
                functools.partial(self._subfolders, above),
                trio.current_time(),
            )
            if walk is None:
                return
            self._walks.pop(above.ino, None)
            self._walks[above.ino] = walk
            if len(self._walks) > WALKS_MAX:
                del self._walks[next(iter(self._walks))]
            walk.learned((), self._subfolders(above), 0, first=node.name)
            found = above, walk, (node.name,)
        root, walk, path = found
        self._listings.went_down(node.parent.ino, node.name, trio.current_time())
        walk.visited(path)
        self._go_on(root, walk)

    def has_listed(self, node: Node, program: int) -> None:
        """The listing is here."""
        if self._nursery is None:
            return
        self._listings.listed(node.ino, program, trio.current_time())
        found = self._walk_with(node)
        if found is not None:
            root, walk, path = found
            self._learn(walk, path, node)
            self._go_on(root, walk)

    def looks_into(self, node: Node) -> None:
        """A program looks up a name in this folder: on a walk, that is a visit."""
        if self._walks and self._walk_with(node) is not None:
            self.comes_to(node, 0)

    def was_listed(self, node: Node) -> None:
        """For the sake of look-ups: the same evidence of a walk, by a program that lists nothing itself."""
        self.comes_to(node, 0)
        self.has_listed(node, 0)

    def is_busy_in(self, node: Node) -> None:
        self._listings.active(node.ino, trio.current_time())

    def _walk_with(self, node: Node) -> tuple[Node, Walk, Path] | None:
        """The innermost walk in which this folder is expected."""
        path: Path = ()
        root: Node | None = node
        while root is not None:
            walk = self._walks.get(root.ino)
            if walk is not None and path and walk.knows(path):
                return root, walk, path
            path = (root.name, *path)
            root = root.parent
        return None

    def _subfolders(self, node: Node) -> list[str]:
        folder = self._tree.meta.known_folder(node.ino)
        if folder is None:
            return []
        return [
            name
            for name, entry in folder.entries.items()
            if entry.resource is not None
            and entry.resource.is_collection
            and not name.startswith(HIDDEN_PREFIX)
        ]

    def _learn(self, walk: Walk, path: Path, node: Node) -> None:
        folder = self._tree.meta.known_folder(node.ino)
        if folder is not None:
            walk.learned(path, self._subfolders(node), len(folder.entries))

    def _go_on(self, root: Node, walk: Walk) -> None:
        nursery = self._nursery
        while nursery is not None:
            if self._allotment.is_used_up:
                self._held_up[walk] = functools.partial(self._go_on, root, walk)
                return
            path = walk.next()
            if path is None:
                return
            node = self._node_at(root, path)
            if node is None:
                walk.failed(path)
            elif self._tree.meta.listing_is_fresh(node.ino, trio.current_time()):
                self._learn(walk, path, node)
                self._tree.nodes.release(node)
            else:
                self._tree.nodes.pin(node)
                self._allotment.begin()
                nursery.start_soon(self._fetch_folder, root, walk, path, node)

    def _node_at(self, root: Node, path: Path) -> Node | None:
        """The folder's node, made if need be: pin or release it. None if it is not there any more."""
        if root.unlinked:
            return None
        node = root
        for name in path:
            entry = self._tree.meta.stale_entry(node.ino, name)
            if entry is None or entry.resource is None or not entry.resource.is_collection:
                self._tree.nodes.release(node)
                return None
            node = self._tree.nodes.child(node, name, is_folder=True)
        return node

    async def _fetch_folder(self, root: Node, walk: Walk, path: Path, node: Node) -> None:
        refused = False
        try:
            await self._tree.list_ahead(node)
        except NoLane:
            refused = True
            walk.refused(path)
        except Exception as error:  # noqa: BLE001 - the edge of a task: nobody waits for it
            as_davfs_error(error)
            walk.failed(path)
        else:
            self._learn(walk, path, node)
        finally:
            self._tree.nodes.unpin(node)
            self._allotment.end(refused=refused)
        if not refused:
            self._go_on(root, walk)
            self._resume()

    def _resume(self) -> None:
        """There is a lane again. Who was held up first goes first."""
        held_up, self._held_up = self._held_up, {}
        for go_on in held_up.values():
            go_on()

    # --- small files

    def opens(self, node: Node) -> None:
        """A program is about to open this file, and to read it."""
        folder = node.parent
        if self._nursery is None or folder is None or self._tree.refusal() is not None:
            return
        now_s = trio.current_time()
        self._listings.active(folder.ino, now_s)
        series = self._series.get(folder.ino)
        if series is None:
            series = self._begun(folder, node.name, now_s)
        else:
            series.opened((folder.ino, node.name))
        if series is not None and series.is_over:
            self._drop(series)
        elif series is not None:
            self._fetch_files(series)

    def has_opened(self, node: Node) -> None:
        self._let_go(node.ino)

    def _hold(self, node: Node, content: Content) -> None:
        """Closing it and opening it again costs as much as fetching it."""
        self._let_go(node.ino)
        self._held[node.ino] = node, content
        if len(self._held) > HELD_MAX:
            self._let_go(next(iter(self._held)))

    def _let_go(self, ino: int) -> None:
        held = self._held.pop(ino, None)
        if held is not None:
            self._tree.let_go(*held)

    def _begun(self, folder: Node, name: str, now_s: float) -> Series | None:
        before, before_s, tries = self._opened.pop(folder.ino, ("", float("-inf"), 0))
        series = None
        if before and before != name and now_s - before_s <= NEXT_WITHIN_S and tries < TRIES_MAX:
            names = self._files_in(folder)
            order = order_of(before, name, names)
            tries += 1
            if order is not None:
                line = arranged(names, order)
                series = Series(order)
                series.folder = folder.ino
                series.extend(folder.ino, line[line.index(name) + 1 :])
                self._put(folder, series)
                return series
        self._opened[folder.ino] = name, now_s, tries
        if len(self._opened) > FOLDERS_MAX:
            del self._opened[next(iter(self._opened))]
        return None

    def _put(self, folder: Node, series: Series) -> None:
        self._series.pop(folder.ino, None)
        self._series[folder.ino] = series
        self._places[folder.ino] = folder.path.parts
        while len(self._series) > FOLDERS_MAX or (len(self._series) > 1 and self._names() > NAMES_MAX):
            oldest = next(iter(self._series))
            del self._series[oldest], self._places[oldest]

    def _names(self) -> int:
        return sum(map(len, set(self._series.values())))

    def _drop(self, series: Series) -> None:
        for ino in [ino for ino, one in self._series.items() if one is series]:
            del self._series[ino], self._places[ino]

    def _files_in(self, folder: Node) -> list[Numbered]:
        """Names and numbers of the files, in listing order; nothing if the listing is not fresh."""
        if not self._tree.meta.listing_is_fresh(folder.ino, trio.current_time()):
            return []
        known = self._tree.meta.known_folder(folder.ino)
        assert known is not None
        return [
            (name, self._tree.nodes.number_of(folder, name))
            for name, entry in known.entries.items()
            if entry.resource is not None and not entry.resource.is_collection
        ]

    def _fetch_files(self, series: Series) -> None:
        nursery = self._nursery
        while nursery is not None:
            if self._allotment.is_used_up:
                self._held_up[series] = functools.partial(self._fetch_files, series)
                return
            key = series.next(self._size_of)
            if key is not None:
                node = self._file_node(key)
                if node is None:
                    series.failed(key)
                    continue
                self._tree.nodes.pin(node)
                self._allotment.begin()
                nursery.start_soon(self._fetch_file, series, key, node)
            elif not series.wants_more or not self._extended(series):
                return

    def _extended(self, series: Series) -> bool:
        """The files of the next folder of the walk that the program is on, if its listing is here."""
        for root_ino, walk in self._walks.items():
            root = self._tree.nodes.find(root_ino)
            at = root.at(DavPath(walk.last)) if root is not None and walk.is_sure else None
            if root is None or at is None or at.ino != series.folder:
                continue
            for path in walk.coming():
                node = self._node_at(root, path)
                if node is None:
                    continue
                is_new = node.ino not in self._series
                if is_new:
                    self._put(node, series)
                    series.extend(node.ino, arranged(self._files_in(node), series.order))
                self._tree.nodes.release(node)
                if is_new:
                    return True
        return False

    def _file_node(self, key: Key) -> Node | None:
        """Made if need be: pin or release it."""
        folder = self._tree.nodes.find(key[0])
        if folder is None:  # listed ahead: nobody refers to it yet
            folder = self._node_at(self._tree.nodes.root, self._places.get(key[0], ()))
        if folder is None or folder.unlinked or folder.ino != key[0]:
            return None
        node = self._tree.known_child(folder, key[1])
        if node is None:
            self._tree.nodes.release(folder)
        return node

    def _size_of(self, key: Key) -> int | None:
        node = self._file_node(key)
        if node is None or node.is_folder:
            return None
        try:
            return self._files.ahead_bytes(node)
        finally:
            self._tree.nodes.release(node)

    async def _fetch_file(self, series: Series, key: Key, node: Node) -> None:
        refused = False
        try:
            content = await self._files.fetch_ahead(node)
        except NoLane:
            refused = True
            series.refused(key)
        except Exception as error:  # noqa: BLE001 - the edge of a task: nobody waits for it
            as_davfs_error(error)
            series.failed(key)
        else:
            if content is not None:
                self._hold(node, content)
            series.arrived(key)
        finally:
            self._tree.nodes.unpin(node)
            self._allotment.end(refused=refused)
        if not refused:
            self._fetch_files(series)
            self._resume()
