"""Which names a server cannot hold, and which names are one name to it. Pure.

`NameRules` are what is known before a request, so that a program gets its errno before it has written a byte:
EILSEQ for a name that the server refuses, drops a part of or would list as another one, ENAMETOOLONG for one
that is too long. Rules come by evidence (`dav.quirks`: servers that were measured or that document it), from
refusals met on the way, and from servers that tell them (`of_lists`, `combined`). They are about names that
are to be made: whatever a server lists can be opened by the name it lists.

`Spelling` is how a server tells names apart: by case or not, by Unicode form or not.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal
from urllib.parse import quote_from_bytes

from davfs.errors import NameTooLong, UnstorableName

Form = Literal["NFC", "NFD"]

FORMS: Final[tuple[Form, ...]] = ("NFC", "NFD")
CONTROLS: Final = frozenset(map(chr, range(1, 0x20))) | {"\x7f"}
# What several servers were seen to drop from the ends of a name (IIS, SharePoint, copyparty).
STRIPPED: Final = ". "
_SURROGATES: Final = range(0xDC80, 0xDD00)  # bytes that are no UTF-8, as Python holds them


@dataclass(frozen=True, slots=True)
class NameRules:
    """What a new name must not be. Texts are compared without case; an empty rule forbids nothing."""

    characters: frozenset[str] = frozenset()
    leading: tuple[str, ...] = ()
    trailing: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()  # whole names, case folded
    stems: frozenset[str] = frozenset()  # what stands before the first dot, case folded
    parts: tuple[str, ...] = ()  # anywhere in the name, case folded
    extensions: frozenset[str] = frozenset()  # with the dot, case folded: of files, not of folders
    utf8_only: bool = False
    longest_bytes: int = 255
    longest_units: int | None = None  # UTF-16 code units of a name, as Windows counts
    longest_segment: int | None = None  # characters of a name as it stands in the URL
    longest_path: int | None = None  # characters of the decoded path from the server's root
    longest_url: int | None = None  # characters of the path as it stands in the URL
    why: str = "this server"

    def check(self, base: Sequence[str], parts: Sequence[str], *, is_folder: bool = False) -> None:
        """For the last of `parts`, below `base` of the server. Raises UnstorableName, NameTooLong."""
        name = parts[-1]
        if self is not ALLOWING and self != ALLOWING:
            self._check_length(base, parts)
            found = self._objection(name, is_folder=is_folder)
            if found is not None:
                raise UnstorableName(f"{_shown(name)}: {self.why} does not take {found}")

    def _check_length(self, base: Sequence[str], parts: Sequence[str]) -> None:
        name, whole = parts[-1], [*base, *parts]
        limits: list[tuple[int | None, int, str]] = [
            (self.longest_bytes, len(os.fsencode(name)), "bytes"),
            (self.longest_units, _units(name), "characters"),
        ]
        if self.longest_segment is not None:
            limits.append((self.longest_segment, len(_encoded(name)), "characters when encoded"))
        if self.longest_path is not None:
            limits.append((self.longest_path, sum(_units(one) + 1 for one in whole), "characters of path"))
        if self.longest_url is not None:
            limits.append((self.longest_url, sum(len(_encoded(one)) + 1 for one in whole), "bytes of URL"))
        for most, have, unit in limits:
            if most is not None and have > most:
                raise NameTooLong(f"{_shown(name)[:80]}: {have} {unit}, and {self.why} takes {most}")

    def _objection(self, name: str, *, is_folder: bool) -> str | None:
        """What is wrong with `name`, in words; None if nothing is."""
        folded = name.casefold()
        bad = next((c for c in name if c in self.characters), None)
        if bad is not None:
            return f"{_character(bad)} in a name"
        if self.utf8_only and any(ord(c) in _SURROGATES for c in name):
            return "a name that is not UTF-8"
        begin = next((one for one in self.leading if folded.startswith(one)), None)
        if begin is not None:
            return f"a name that begins with {begin!r}"
        end = next((one for one in self.trailing if folded.endswith(one)), None)
        if end is not None:
            return f"a name that ends in {end!r}"
        if folded in self.names or folded.partition(".")[0] in self.stems:
            return "this name"
        part = next((one for one in self.parts if one in folded), None)
        if part is not None:
            return f"{part!r} in a name"
        extension = PurePosixPath(folded).suffix
        if not is_folder and extension and extension in self.extensions:
            return f"files that end in {extension!r}"
        return None

    def combined(self, other: NameRules) -> NameRules:
        """What either forbids."""
        return NameRules(
            self.characters | other.characters,
            tuple(dict.fromkeys(self.leading + other.leading)),
            tuple(dict.fromkeys(self.trailing + other.trailing)),
            self.names | other.names,
            self.stems | other.stems,
            tuple(dict.fromkeys(self.parts + other.parts)),
            self.extensions | other.extensions,
            self.utf8_only or other.utf8_only,
            min(self.longest_bytes, other.longest_bytes),
            _least(self.longest_units, other.longest_units),
            _least(self.longest_segment, other.longest_segment),
            _least(self.longest_path, other.longest_path),
            _least(self.longest_url, other.longest_url),
            self.why if self.why != ALLOWING.why else other.why,
        )


ALLOWING: Final = NameRules()


def of_lists(
    *,
    characters: Iterable[str] = (),
    names: Iterable[str] = (),
    stems: Iterable[str] = (),
    extensions: Iterable[str] = (),
    why: str,
) -> NameRules:
    """Rules that a server tells as lists, in any case; an extension with or without its dot."""
    dotted = (one if one.startswith(".") else f".{one}" for one in extensions if one)
    return NameRules(
        characters=frozenset("".join(characters)) - {"/", "\0"},
        names=frozenset(one.casefold() for one in names),
        stems=frozenset(one.casefold() for one in stems),
        extensions=frozenset(one.casefold() for one in dotted),
        why=why,
    )


# --- one name or two


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a server tells names apart. `form`: the Unicode form it gives to all names.

    Without one it may still find a name by its other forms, and keep the one it was made in (rclone 1.75).
    """

    ignores_case: bool = False
    form: Form | None = None
    ignores_form: bool = False

    def of(self, name: str) -> str:
        """How the server will list a name that is made now. Case is kept by all of them."""
        return unicodedata.normalize(self.form, name) if self.form and not name.isascii() else name

    def key(self, name: str) -> str:
        """Equal for names that are one name on the server."""
        folds = (self.form or self.ignores_form) and not name.isascii()
        one = unicodedata.normalize("NFC", name) if folds else name
        return one.casefold() if self.ignores_case else one

    @property
    def is_exact(self) -> bool:
        return not (self.ignores_case or self.form or self.ignores_form)

    def is_told_by_lists(self, name: str) -> bool:
        """Whether only a listing tells if there is this very name: a look-up may answer about another one, in
        the words of the question."""
        return self.ignores_case or (not self.is_exact and not name.isascii())


EXACT: Final = Spelling()


def is_respelled(name: str, other: str) -> bool:
    """Whether a server that is given `name` may be listing it as `other`."""
    return name != other and _bare(name) == _bare(other)


def form_between(name: str, other: str) -> Form | None:
    """The Unicode form that made `other` of `name`; None if it was not that."""
    if name == other:
        return None
    return next((form for form in FORMS if other == unicodedata.normalize(form, name)), None)


def differs_in_case_only(name: str, other: str) -> bool:
    return name != other and name.casefold() == other.casefold()


def may_be_respelled(name: str) -> bool:
    """Whether some server in the field would list it under another name: then one look is due after it was
    made, where the server is not known to keep it."""
    return name[:1] == " " or name[-1:] in STRIPPED or _is_unusual(name)


def _is_unusual(name: str) -> bool:
    """Not in NFC, not UTF-8, or with control characters."""
    if name.isascii():
        return not CONTROLS.isdisjoint(name)
    return not (unicodedata.is_normalized("NFC", name) and name.isprintable())


def other_form(name: str, listed: Container[str]) -> str | None:
    """`name` in another Unicode form, if that is what `listed` has of it."""
    forms = (unicodedata.normalize(form, name) for form in FORMS)
    return next((one for one in forms if one != name and one in listed), None)


def odd_in(name: str) -> NameRules:
    """What is unusual about a name that the server did not keep: taken for the cause."""
    return NameRules(
        characters=frozenset(c for c in name if not (c.isprintable() or ord(c) in _SURROGATES)),
        leading=(" ",) if name[:1] == " " else (),
        trailing=(name[-1],) if name[-1:] in STRIPPED else (),
        utf8_only=any(ord(c) in _SURROGATES for c in name),
    )


def _bare(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().lstrip(" ").rstrip(STRIPPED)


# --- words and numbers


def _units(name: str) -> int:
    return len(name.encode("utf-16-le", "surrogatepass")) // 2


def _encoded(name: str) -> str:
    return quote_from_bytes(os.fsencode(name), safe="")


def _least(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)


def _character(one: str) -> str:
    return repr(one) if one.isprintable() else f"the character {ord(one):#x}"


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)
