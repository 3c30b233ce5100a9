"""What is known of the share, and how long it may be believed.

For each folder (by inode number, so a renamed folder keeps what is known of it) the entries that were
seen, each with its age, and whether the whole folder was listed. A fresh listing answers "no such name" by
itself. Entries live between `attr_timeout_min_s` and `attr_timeout_max_s`, as NFS's do: a tenth of the
time since the resource last changed. Bounded by the number of entries, least recently used folder first.

Own changes are learned, not dropped, so a program's next question costs no request. What an earlier run knew
comes through `recall`, as old as it is: served without asking within the time-outs, and later only while the
server is away; it never makes a name absent as long as the server can be asked. `changed` and `forgotten`
name the folders that differ from what is kept on disk, `believable` those that only the disk knows, lately.
What is too old may be made fresh again by a proof (see `subtrees`).
Synchronous, no I/O; the clocks come as arguments: `now_s` monotonic, `wall_s` since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from cachetools import LRUCache

from davfs.dav.names import other_form
from davfs.dav.resource import Resource
from davfs.fs.index import LocalAttributes
from davfs.fs.transfers import Hits

COST_FACTOR: Final = 3
NEXT_WITHIN_S: Final = 2.0  # a program goes from one folder to the next faster than a person
TRUST_S: Final = 900.0  # a listing is believed on proofs for so long: not all that changes may change a tag
NEVER: Final = float("-inf")  # the age of what must be asked before it is believed
ENTRIES_MAX: Final = 160_000  # about 460 bytes each


@dataclass(slots=True)
class Entry:
    """One name. `resource` None: known to be absent."""

    resource: Resource | None
    learned_s: float
    kept: LocalAttributes | None = None
    ours: bool = False  # learned from our own change, not from a listing
    touched_ns: int = 0  # of a folder: when a member came or went here
    pushed_s: float = 0.0  # wall time of our last request that changed it on the server
    patched_s: float = NEVER  # when we last set properties of it
    is_new: bool = False  # made by us a moment ago: it has no properties but those that we gave it

    def inherit(self, before: Entry) -> None:
        """What only we know of a folder outlives a new answer; so do properties that we set since."""
        if self.resource is not None and before.resource is not None and before.patched_s > self.learned_s:
            ours = before.resource
            self.resource = self.resource._replace(executable=ours.executable, extras=ours.extras)
            self.patched_s = before.patched_s
        if self.resource is not None and self.resource.is_collection:
            self.touched_ns = max(self.touched_ns, before.touched_ns)
            self.pushed_s = max(self.pushed_s, before.pushed_s)


@dataclass(slots=True)
class Folder:
    entries: dict[str, Entry] = field(default_factory=dict)
    listed_s: float | None = None
    complete: bool = True  # the listing can be trusted to name everything
    mtime_s: int | None = None
    changed_s: float | None = None  # when we last saw (or made) a change in it
    cost_s: float = 0.0  # how long the listing took
    tag: str | None = None  # its own, in the listing
    proved_s: float = NEVER  # when the folder was known to have that tag still
    misses: int = 0  # single look-ups since the last listing
    misses_since_s: float = 0.0
    looked_below_s: float = NEVER  # when a folder in it was last listed because of look-ups
    recalled: bool = False  # there is nothing more of it on disk
    earlier: bool = False  # the listing is of an earlier mount

    @property
    def was_listed(self) -> bool:
        return self.listed_s is not None


class Proofs(Protocol):
    """Who knows that a folder still has the tag it was listed with, and all below it is as it was then."""

    @property
    def is_possible(self) -> bool: ...
    def proved_s(self, meta: Metadata, folder_ino: int, tag: str, now_s: float) -> float | None: ...
    def refute(self) -> None: ...


class Metadata:
    """`hidden` tells which names a listing may leave out although they exist."""

    def __init__(
        self,
        *,
        min_s: float,
        max_s: float,
        wall_s: Callable[[], float],
        hidden: Callable[[str], bool] = lambda _name: False,
        recall: Callable[[int], Folder | None] = lambda _ino: None,
        proofs: Proofs | None = None,
        believable: set[int] | None = None,
    ) -> None:
        self._min_s = min(min_s, max_s)
        self._max_s = max_s
        self._wall_s = wall_s
        self._hidden = hidden
        self._recall = recall
        self._proofs = proofs
        self.hits = Hits()
        self.changed: set[int] = set()
        self.forgotten: set[int] = set()
        self._believable = set() if believable is None else believable
        self._folders: LRUCache[int, Folder] = LRUCache(ENTRIES_MAX, getsizeof=lambda f: len(f.entries) + 1)
        self._latest: tuple[int, Folder | None] = (0, None)  # what was looked for last: see `known_folder`

    # --- asking

    def looked_up(self, folder_ino: int, name: str, now_s: float) -> Entry | None:
        """`entry`, for who asks the server otherwise: counted."""
        known = self.entry(folder_ino, name, now_s)
        self.hits.note(hit=known is not None)
        return known

    def entry(self, folder_ino: int, name: str, now_s: float) -> Entry | None:
        """What is known and fresh; None: ask the server."""
        folder = self._known(folder_ino)
        if folder is None:
            return None
        entry = folder.entries.get(name)
        if entry is not None:
            fresh = self.left_s(folder, entry, now_s) > 0 or (
                self._is_proved(folder_ino, folder, now_s) and self.left_s(folder, entry, now_s) > 0
            )
            return entry if fresh else None
        tells_absence = folder.complete and not folder.earlier and not self._hidden(name)
        # A proof vouches for what is there: that a name is missing is asked when the listing itself is old.
        if tells_absence and self._is_listing_fresh(folder, folder.listed_s, now_s):
            return Entry(None, folder.listed_s or now_s)
        return None

    def _known(self, folder_ino: int) -> Folder | None:
        """Also what only the disk knows, if that may still be believed."""
        if folder_ino in self._believable:
            self.recall(folder_ino)
        return self.known_folder(folder_ino)

    def stale_entry(self, folder_ino: int, name: str) -> Entry | None:
        """What was last known, however old."""
        folder = self.known_folder(folder_ino)
        return None if folder is None else folder.entries.get(name)

    def last_known(self, folder_ino: int, name: str) -> Entry | None:
        """The same; absent only by a look-up, or by a listing that named everything."""
        folder = self.known_folder(folder_ino)
        if folder is None:
            return None
        entry = folder.entries.get(name)
        if entry is None and folder.listed_s is not None and folder.complete and not self._hidden(name):
            return Entry(None, folder.listed_s)
        return entry

    def was_listed(self, folder_ino: int) -> bool:
        folder = self.known_folder(folder_ino)
        return folder is not None and folder.was_listed

    def listed_s(self, folder_ino: int) -> float | None:
        """When its listing was asked for."""
        folder = self.known_folder(folder_ino)
        return None if folder is None else folder.listed_s

    def known_folder(self, folder_ino: int) -> Folder | None:
        """One request asks for the same folder two to six times, and so does the next one: the LRU cache, in
        Python, takes 0.6 us for each. `_latest` is its most recently used one, so that order stays right.
        """
        latest = self._latest
        if latest[0] != folder_ino:
            self._latest = latest = (folder_ino, self._folders.get(folder_ino))
        return latest[1]

    def recall(self, folder_ino: int) -> None:
        """Fill up, once, what is known of one that this run has not listed with what an earlier run knew.

        100,000 members take 0.4 to 1 s, so only for who has nobody else to ask, or where there are few.
        """
        self._believable.discard(folder_ino)
        folder = self.known_folder(folder_ino)
        if folder_ino in self.forgotten or (folder is not None and (folder.recalled or folder.was_listed)):
            return
        found = self._recall(folder_ino)
        if found is None:
            if folder is not None:
                folder.recalled = True
            return
        if folder is not None:
            found.entries.update(folder.entries)
            found.changed_s = max(
                (s for s in (folder.changed_s, found.changed_s) if s is not None), default=None
            )
        found.recalled = found.earlier = True
        self._store(folder_ino, found)

    def left_s(self, folder: Folder | None, entry: Entry | None, now_s: float) -> float:
        """How long the answer may still be believed (for the kernel's own time-outs)."""
        if folder is None or entry is None:
            return self._min_s
        until_s = _learned_s(folder, entry) + self._lifetime_s(entry.resource, folder, now_s)
        return until_s - now_s if until_s > now_s else 0.0

    def learned_s(self, folder_ino: int, name: str) -> float:
        """When this was last known to be so."""
        folder = self.known_folder(folder_ino)
        entry = folder.entries.get(name) if folder is not None else None
        return NEVER if folder is None or entry is None else _learned_s(folder, entry)

    def _is_proved(self, folder_ino: int, folder: Folder, now_s: float) -> bool:
        """Whether there is a newer proof that it is as it was listed."""
        if self._proofs is None or folder.tag is None or folder.listed_s is None or not folder.complete:
            return False
        if now_s - folder.listed_s > TRUST_S or not self._proofs.is_possible:
            return False
        proved_s = self._proofs.proved_s(self, folder_ino, folder.tag, now_s)
        if proved_s is None or proved_s <= max(folder.proved_s, folder.listed_s):
            return False
        folder.proved_s = proved_s
        return True

    def listing_is_fresh(self, folder_ino: int, now_s: float) -> bool:
        folder = self._known(folder_ino)
        if folder is None or folder.listed_s is None:
            return False
        known_s = max(folder.listed_s, folder.proved_s)
        if self._is_listing_fresh(folder, known_s, now_s):
            return True
        proved = self._is_proved(folder_ino, folder, now_s)
        return proved and self._is_listing_fresh(folder, folder.proved_s, now_s)

    def _is_listing_fresh(self, folder: Folder, known_s: float | None, now_s: float) -> bool:
        return known_s is not None and now_s - known_s < self._folder_lifetime_s(folder, now_s)

    def names(self, folder_ino: int) -> list[str]:
        """The members as last known, in listing order."""
        folder = self.known_folder(folder_ino)
        if folder is None:
            return []
        return [name for name, entry in folder.entries.items() if entry.resource is not None]

    def folder(self, folder_ino: int) -> Folder:
        folder = self.known_folder(folder_ino)
        if folder is None:
            folder = Folder()
            self._folders[folder_ino] = folder
            self._latest = (folder_ino, folder)
        return folder

    def wants_listing(self, folder_ino: int, now_s: float, above_ino: int | None = None) -> bool:
        """Whether the next question about this folder is better asked as Depth 1.

        Small known folders always; others from the second single look-up within one time-out, so
        that one `stat` in a folder of 100,000 costs one small answer, and a walk costs one listing. Of a
        program that had to be given the listing next door a moment ago (rsync, git: they look up every name,
        and list nothing) the first look-up is evidence enough.
        """
        folder = self.folder(folder_ino)
        above = None if above_ino is None else self.known_folder(above_ino)
        if folder.listed_s is not None and len(folder.entries) <= 256:
            return True
        if now_s - folder.misses_since_s > self._max_s:
            folder.misses, folder.misses_since_s = 0, now_s
        folder.misses += 1
        wants = folder.misses > 1 + len(folder.entries) // 10_000
        if not wants and folder.listed_s is None and above is not None:
            wants = now_s - above.looked_below_s <= NEXT_WITHIN_S
        if wants and above is not None:
            above.looked_below_s = now_s
        return wants

    # --- learning

    def learn_listing(
        self,
        folder_ino: int,
        itself: Resource,
        members: dict[str, Resource],
        kept_of: Callable[[str], LocalAttributes | None],
        asked_s: float,
        *,
        complete: bool = True,
        cost_s: float = 0.0,
    ) -> None:
        """A listing asked for at `asked_s`, that took `cost_s`: newer own changes and hidden names stay."""
        before = self._known(folder_ino) or Folder()
        folder = Folder(
            listed_s=asked_s, complete=complete, mtime_s=itself.mtime_s, changed_s=before.changed_s
        )
        folder.cost_s = cost_s
        folder.tag = itself.etag.opaque if itself.etag is not None else None
        folder.looked_below_s = before.looked_below_s
        for name, resource in members.items():
            folder.entries[name] = Entry(resource, asked_s, kept_of(name))
            known = before.entries.get(name)
            if known is not None:
                folder.entries[name].inherit(known)
        changed = False
        for name, entry in before.entries.items():
            newer = entry.ours and entry.learned_s >= asked_s
            seen = entry.resource is not None and entry.learned_s > NEVER
            if newer or (name not in members and seen and self._hidden(name)):
                folder.entries[name] = entry
            elif name not in members and entry.resource is not None:
                changed = True
        if self._proofs is not None and self._proofs.is_possible and _contradict(before, folder):
            self._proofs.refute()
        self.changed.add(folder_ino)
        if before.listed_s is not None and (changed or len(before.entries) != len(folder.entries)):
            folder.changed_s = asked_s
        self._store(folder_ino, folder)

    def listed_otherwise(self, folder_ino: int, members: Mapping[str, Resource]) -> list[tuple[str, str]]:
        """(name that we stored, the other Unicode form of it that has appeared with the same version)."""
        folder, found = self.known_folder(folder_ino) or Folder(), []
        for name, entry in folder.entries.items():
            if name.isascii() or name in members or not entry.ours or entry.resource is None:
                continue
            other = other_form(name, members)
            if other is not None and other not in folder.entries:
                same = entry.resource.validator.same_version(members[other].validator)
                if same or (entry.resource.is_collection and members[other].is_collection):
                    found.append((name, other))
        return found

    def learn(self, folder_ino: int, name: str, entry: Entry) -> None:
        """One name, looked up or changed by us. An own change after the question was asked stays."""
        self._known(folder_ino)
        folder = self.folder(folder_ino)
        before = folder.entries.get(name)
        if before is not None and before.ours and not entry.ours and before.learned_s >= entry.learned_s:
            return
        if before is not None:
            entry.inherit(before)
        folder.entries[name] = entry
        if before is None:
            self._store(folder_ino, folder)  # it is larger now
        self.forgotten.discard(folder_ino)
        if entry.resource is not None or before is not None:
            self.changed.add(folder_ino)
        if entry.ours:
            folder.changed_s = entry.learned_s

    def learn_new_folder(self, ino: int, now_s: float) -> None:
        """A folder we just made is empty: no listing needed."""
        self._believable.discard(ino)
        self._store(ino, Folder(listed_s=now_s, changed_s=now_s))
        self.changed.add(ino)

    def keep(self, folder_ino: int, name: str, kept: LocalAttributes) -> None:
        entry = self.stale_entry(folder_ino, name)
        if entry is not None:
            entry.kept = kept

    def expire(self, folder_ino: int, name: str | None = None) -> None:
        """Believe nothing of this name (or of the whole folder) without asking."""
        folder = self._known(folder_ino)
        self.changed.add(folder_ino)
        if folder is None:
            return
        if name is None:
            folder.listed_s = None
            for entry in folder.entries.values():
                entry.learned_s = NEVER
        elif name in folder.entries:
            folder.entries[name].learned_s = NEVER
        else:
            folder.listed_s = None

    def expire_all(self) -> None:
        """Of nothing that this run knows is enough known any more; kept rows tell what they asked for."""
        for folder_ino in list(self._folders):
            self.expire(folder_ino)

    def doubt_all(self) -> None:
        """Nor of what an earlier run knew."""
        self._believable.clear()
        self.expire_all()

    def forget_folder(self, folder_ino: int) -> None:
        self._believable.discard(folder_ino)
        self._folders.pop(folder_ino, None)
        self._latest = (folder_ino, None)
        self.changed.add(folder_ino)
        self.forgotten.add(folder_ino)

    def entries_count(self) -> int:
        return int(self._folders.currsize)

    def _store(self, ino: int, folder: Folder) -> None:
        self._folders.pop(ino, None)
        self._latest = (ino, folder)
        self.forgotten.discard(ino)
        if len(folder.entries) + 1 <= self._folders.maxsize:
            self._folders[ino] = folder
        else:  # larger than the whole cache: kept alone
            self._folders.clear()
            self._folders = LRUCache(
                len(folder.entries) + ENTRIES_MAX, getsizeof=lambda f: len(f.entries) + 1
            )
            self._folders[ino] = folder

    # --- lifetimes

    def longest_s(self, folder: Folder) -> float:
        """No listing of this folder is believed longer."""
        return self._clamp(self._max_s, folder)

    def _lifetime_s(self, resource: Resource | None, folder: Folder, now_s: float) -> float:
        if resource is None or resource.mtime_s is None:
            return self._folder_lifetime_s(folder, now_s)
        return self._clamp((self._wall_s() - resource.mtime_s) / 10, folder)

    def _folder_lifetime_s(self, folder: Folder, now_s: float) -> float:
        if folder.mtime_s is None:
            return self._clamp(0, folder)
        still_s = self._wall_s() - folder.mtime_s
        if folder.changed_s is not None:
            still_s = min(still_s, now_s - folder.changed_s)
        return self._clamp(still_s / 10, folder)

    def _clamp(self, seconds: float, folder: Folder) -> float:
        """At least three times what the listing took: else a folder of 100,000 is old when it arrives."""
        least_s = COST_FACTOR * folder.cost_s
        if least_s <= self._max_s <= seconds:
            return self._max_s  # most of what is looked at has been still for long
        return max(self._min_s, min(self._max_s, seconds), least_s)


def _learned_s(folder: Folder, entry: Entry) -> float:
    """A proof is of the whole folder as it was listed; what was learned since would have changed its tag."""
    learned_s = entry.learned_s
    return folder.proved_s if NEVER < learned_s < folder.proved_s else learned_s


def _contradict(before: Folder, now: Folder) -> bool:
    """Whether a folder has kept its tag, but not its members."""
    if before.tag is None or before.tag != now.tag or not (before.complete and now.complete):
        return False
    seen = {name: entry.resource.etag for name, entry in now.entries.items() if entry.resource is not None}
    known = {name: entry for name, entry in before.entries.items() if not entry.ours}
    return any(
        entry.resource.etag != seen.get(name)
        for name, entry in known.items()
        if entry.resource is not None and entry.resource.etag is not None
    )
