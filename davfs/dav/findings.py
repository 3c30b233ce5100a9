"""What the answers to `davfs probe`'s questions mean: a finding for each capability. Pure.

A finding rests on answers that were seen, never on a name, and says where `quirks.Capabilities` takes
something else for granted. Where the questions were not asked there is no finding. The words and what they
mean for the user are in `dav.meanings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from davfs.dav import locks
from davfs.dav.answered import (
    Answer,
    dead_text,
    listed,
    members,
    mtime_of,
    properties,
    tag_in,
    tag_of,
    token_of,
)
from davfs.dav.canaries import (
    CHECKSUMS,
    CONTROL_NAME,
    CUT_OLD,
    DEAD_TEXT,
    EXECUTABLE,
    MOVED_NAMES,
    MTIMES,
    NAME_SIZES,
    NAMES,
    PART_NEW,
    PART_OLD,
    PRIVILEGES,
)
from davfs.dav.dates import parse_date
from davfs.dav.hrefs import Share
from davfs.dav.meanings import MEANINGS
from davfs.dav.owncloud import account_of, is_legacy
from davfs.dav.quirks import Capabilities
from davfs.dav.resource import ROOT, DavPath, ETag

_IN_STEP_S: Final = 3.0


# --- what it means ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """One capability. `found` is a word of `dav.meanings`; `detail` is for people; `assumes` is what davfs
    takes for granted where that differs from what was found, else empty."""

    capability: str
    found: str
    evidence: tuple[str, ...]
    detail: str = ""
    assumes: str = ""

    @property
    def meaning(self) -> str:
        return MEANINGS[self.capability][self.found]


@dataclass(frozen=True, slots=True)
class Evidence:
    """All answers of one probe, and what davfs takes the server for."""

    answers: Mapping[str, Answer]
    share: Share
    known: Capabilities
    scheme: str = "none"
    scratch: DavPath = ROOT

    def has(self, *names: str) -> bool:
        return all(name in self.answers for name in names)

    def __getitem__(self, name: str) -> Answer:
        return self.answers[name]

    def lines(self, *names: str) -> tuple[str, ...]:
        return tuple(self.answers[name].line for name in names if name in self.answers)

    def find(
        self, capability: str, found: str, *names: str, detail: str = "", assumes: str | None = None
    ) -> Finding:
        return Finding(capability, found, self.lines(*names), detail, assumes or "")


_Rule = Callable[[Evidence], Finding | None]
_RULES: list[tuple[tuple[str, ...], _Rule]] = []


def _needs(*names: str) -> Callable[[_Rule], _Rule]:
    def keep(rule: _Rule) -> _Rule:
        _RULES.append((names, rule))
        return rule

    return keep


def judged(evidence: Evidence) -> tuple[Finding, ...]:
    """All that can be told, in the order of the table."""
    found = (rule(evidence) for names, rule in _RULES if evidence.has(*names))
    return tuple(finding for finding in found if finding is not None)


# --- what changes nothing


@_needs("options")
def _server(e: Evidence) -> Finding:
    name = e["options"].headers.get("server", "")[:200]
    return e.find("server", "named" if name else "unnamed", "options", detail=name)


@_needs("options")
def _dav(e: Evidence) -> Finding:
    header = e["options"].headers.get("dav", "")[:400]
    return e.find("dav", "announced" if header else "silent", "options", detail=header)


@_needs("root")
def _authentication(e: Evidence) -> Finding:
    found = "none" if e.scheme == "none" else "used"
    return e.find("authentication", found, "root", detail=e.scheme if found == "used" else "")


@_needs("root")
def _connection(e: Evidence) -> Finding:
    header = e["root"].headers.get("connection", "")
    closed = "close" in header.lower()
    detail = f"Connection: {header}" if header else ""
    return e.find("connection", "closed" if closed else "kept", "root", detail=detail[:80])


@_needs("root")
def _clock(e: Evidence) -> Finding:
    date_s = parse_date(e["root"].headers.get("date"))
    if date_s is None:
        return e.find("clock", "unknown", "root")
    ahead_s = date_s - e["root"].sent_s
    if abs(ahead_s) <= _IN_STEP_S:
        return e.find("clock", "in step", "root")
    return e.find("clock", "off", "root", detail=f"{ahead_s:+.0f} s")


@_needs("listing")
def _listing(e: Evidence) -> Finding:
    name = "names_control" if e.has("names_control") else "listing"
    complete = listed(e[name], e.share)[1] or len(e[name].body) > 200_000  # what was not read is not judged
    return e.find("listing", "complete" if complete else "broken", name)


@_needs("deep")
def _depth_infinity(e: Evidence) -> Finding:
    answer = e["deep"]
    if not answer.status:
        return e.find("depth_infinity", "no answer", "deep")
    if answer.status != 207:
        return e.find("depth_infinity", "refused", "deep")
    if not e.has("mkcol_deep"):
        return e.find("depth_infinity", "answered", "deep")
    places, _ = listed(answer, e.share)
    is_whole = any(path.name == "deep" for path in places)
    return e.find("depth_infinity", "whole" if is_whole else "one level", "deep")


@_needs("root")
def _quota(e: Evidence) -> Finding:
    text = properties(e["root"]).get("{DAV:}quota-available-bytes", "").strip()
    if text in {"-3", "-2", "-1"}:  # Nextcloud: unlimited, unknown, not computed
        return e.find("quota", "unlimited" if text == "-3" else "silent", "root", detail=text)
    told = text.isascii() and text.isdigit()
    return e.find("quota", "told" if told else "silent", "root", detail=f"{text[:20]} bytes" if told else "")


def _told(e: Evidence, capability: str, *tags: str) -> Finding:
    """Whether the root or the canary has one of these properties."""
    for name in ("stat_young", "root"):
        found = properties(e[name]) if e.has(name) else {}
        if tag := next((tag for tag in tags if found.get(tag)), None):
            return e.find(capability, "told", name, detail=found[tag][:60])
    return e.find(capability, "silent", "stat_young", "root")


@_needs("root")
def _creationdate(e: Evidence) -> Finding:
    return _told(e, "creationdate", "{DAV:}creationdate")


@_needs("root")
def _privileges(e: Evidence) -> Finding:
    return _told(e, "privileges", *PRIVILEGES)


@_needs("root")
def _checksums(e: Evidence) -> Finding:
    return _told(e, "checksums", CHECKSUMS)


@_needs("options")
def _uploads_in_parts(e: Evidence) -> Finding:
    has_place = account_of(e.share) is not None or is_legacy(e.share)
    return e.find("uploads_in_parts", "offered" if e.known.is_owncloud and has_place else "none", "options")


@_needs("listing")
def _compression(e: Evidence) -> Finding:
    coding = e["listing"].headers.get("content-encoding", "")
    return e.find("compression", "used" if coding else "not used", "listing", detail=coding[:20])


def _strength(tag: ETag | None) -> str:
    return "none" if tag is None else "weak" if tag.weak else "strong"


@_needs("listing")
def _etags(e: Evidence) -> Finding:
    name = "stat_aged" if e.has("stat_aged") else "listing"
    files = members(e[name])
    if not files:
        return e.find("etags_in_listings", "no file", name)
    tag = tag_in(files[0])
    return e.find("etags_in_listings", _strength(tag), name, detail=tag.header()[:60] if tag else "")


@_needs("root")
def _folder_etags(e: Evidence) -> Finding:
    tag = tag_of(e["root"])
    return e.find("folder_etags", "told" if tag else "none", "root", detail=tag.header()[:60] if tag else "")


@_needs("root")
def _ranges(e: Evidence) -> Finding:
    if not e.has("range"):
        return Finding("ranges", "no file", ())
    answer = e["range"]
    detail = answer.headers.get("content-range", "")[:60]
    found = {206: "honoured", 200: "ignored"}.get(answer.status, "refused")
    return e.find("ranges", found, "range", detail=detail)


# --- uploads and conditions


@_needs("put_new")
def _etag_in_put(e: Evidence) -> Finding:
    tag = ETag.parse(e["put_new"].headers.get("etag"))
    return e.find("etag_in_put", _strength(tag), "put_new", detail=tag.header()[:60] if tag else "")


def _condition(answer: Answer) -> str:
    return "honoured" if answer.status == 412 else "ignored" if answer.is_ok else "unclear"


def _assumed_conditions(e: Evidence, found: str) -> str:
    known = e.known.conditions
    seen = "honoured" if found == "refuses all" else found
    return f"conditions of PUT are {known}" if {known, seen} == {"honoured", "ignored"} else ""


@_needs("if_none_match")
def _if_none_match(e: Evidence) -> Finding:
    found = _condition(e["if_none_match"])
    assumes = _assumed_conditions(e, found)
    return e.find("if_none_match", found, "if_none_match", assumes=assumes)


@_needs("if_match_wrong")
def _if_match(e: Evidence) -> Finding:
    found = _condition(e["if_match_wrong"])
    if found == "honoured" and e.has("if_match_right") and e["if_match_right"].status == 412:
        found = "refuses all"
    assumes = _assumed_conditions(e, found)
    if found == "refuses all" and e.known.put_if_match_trusted:
        assumes = "If-Match with the right tag is accepted"
    return e.find("if_match", found, "if_match_wrong", "if_match_right", assumes=assumes)


@_needs("if_wrong")
def _if_header(e: Evidence) -> Finding:
    return e.find("if_header", _condition(e["if_wrong"]), "if_wrong")


@_needs("stat_fresh")
def _weak_tag_in_if(e: Evidence) -> Finding:
    if not e.has("if_weak"):
        return e.find("weak_tag_in_if", "not needed", "stat_fresh")
    found = "accepted" if e["if_weak"].is_ok else "refused"
    assumes = "a weak tag works in If" if found == "refused" and e.known.weak_tag_in_if else ""
    return e.find("weak_tag_in_if", found, "if_weak", assumes=assumes)


@_needs("stat_young", "stat_aged")
def _tag_ageing(e: Evidence) -> Finding:
    young, aged = tag_of(e["stat_young"]), tag_of(e["stat_aged"])
    if young is None or aged is None:
        found = "none"
    elif young == aged:
        found = "stays"
    else:
        found = "turns strong" if young.opaque == aged.opaque and young.weak else "changes"
    tags = [tag.header()[:40] for tag in (young, aged) if tag is not None]
    return e.find("tag_ageing", found, "stat_young", "stat_aged", detail=", then ".join(tags))


@_needs("second_1_stat", "second_2_stat")
def _tag_of_second(e: Evidence) -> Finding:
    names = ("second_1", "second_1_stat", "second_2", "second_2_stat")
    before, after = tag_of(e["second_1_stat"]), tag_of(e["second_2_stat"])
    if before is None or after is None:
        return e.find("tag_of_second", "none", *names)
    if before.opaque != after.opaque:
        return e.find("tag_of_second", "changes", *names)
    if mtime_of(e["second_1_stat"]) != mtime_of(e["second_2_stat"]):
        return e.find("tag_of_second", "unclear", *names)
    assumes = "" if e.known.coarse_tags else "each write has a tag of its own"
    return e.find("tag_of_second", "stays", *names, assumes=assumes)


@_needs("expect")
def _expect(e: Evidence) -> Finding | None:
    answer = e["expect"]
    if answer.is_ok or not answer.status:
        return None  # the folder was made: nothing was refused
    if not answer.body_taken_bytes:
        found = "in time"
    else:
        found = {"refused": "417", "ignored": "ignored"}.get(answer.expect, "100 first")
    return e.find("expect", found, "expect", detail=f"{answer.body_taken_bytes or 0} bytes of the body sent")


@_needs("expect")
def _missing_parent(e: Evidence) -> Finding:
    return e.find("missing_parent", "created" if e["expect"].is_ok else "refused", "expect")


@_needs("cut", "cut_after")
def _cut_upload(e: Evidence) -> Finding:
    after = e["cut_after"]
    found = "gone" if after.status != 200 else "whole" if after.body == CUT_OLD else "torn"
    detail = f"{len(after.body)} bytes afterwards" if after.status == 200 else ""
    safe_bytes = e.known.whole_up_to_bytes
    if found != "whole" and safe_bytes > 0:
        assumes = "uploads are stored whole or not at all"
    elif found == "whole" and safe_bytes == 0:
        assumes = (
            "the worse, half a file: it trusts only servers that were measured, and uses a temporary name"
        )
    else:
        assumes = ""
    return e.find("cut_upload", found, "cut", "cut_after", detail=detail, assumes=assumes)


@_needs("content_range", "content_range_after")
def _content_range(e: Evidence) -> Finding:
    content = e["content_range_after"].body
    if content == PART_NEW:
        found = "written"
    elif content == PART_OLD:
        found = "no effect" if e["content_range"].is_ok else "refused"
    else:
        found = "replaces"
    return e.find("content_range_put", found, "content_range", "content_range_after")


@_needs("content_range")
def _patch(e: Evidence) -> Finding:
    if not e.has("patch", "patch_after"):
        return e.find("patch", "not announced", "options")
    content = e["patch_after"].body
    found = "written" if content == PART_NEW else "refused" if content == PART_OLD else "damages"
    return e.find("patch", found, "patch", "patch_after")


# --- locks


@_needs("lock")
def _locks(e: Evidence) -> Finding:
    announced = e.known.locks
    if token_of(e["lock"]) is None:
        found = "refused" if announced else "none"
        return e.find("locks", found, "lock", assumes="locks, as OPTIONS announces them" if announced else "")
    found = "enforced" if e.has("lock_put") and e["lock_put"].status == 423 else "decoration"
    assumes = "" if announced else "no locks: OPTIONS announces none"
    return e.find("locks", found, "lock", "lock_put", assumes=assumes)


@_needs("lock", "lock_put")
def _lock_timeout(e: Evidence) -> Finding | None:
    answer = e["lock"]
    shown_s = [lock.timeout_s for lock in locks.active_locks(answer.body)]
    granted_s = locks.parse_timeout_s(answer.headers.get("timeout")) or (shown_s[0] if shown_s else None)
    if granted_s is None:
        return None
    found = "as asked" if 595 <= granted_s <= 605 else "shorter" if granted_s < 595 else "longer"
    detail = f"600 s asked, {'no end' if granted_s == locks.NEVER_S else f'{granted_s:.0f} s'} granted"
    return e.find("lock_timeout", found, "lock", detail=detail)


@_needs("lock", "lock_refresh")
def _lock_refresh(e: Evidence) -> Finding:
    again = e["lock_refresh"]
    token = token_of(again)
    found = (
        "refused" if not again.is_ok else "works" if token in (None, token_of(e["lock"])) else "another token"
    )
    return e.find("lock_refresh", found, "lock_refresh")


@_needs("lock", "lock_shown")
def _lock_token_shown(e: Evidence) -> Finding:
    shown_locks = list(locks.active_locks(e["lock_shown"].body))
    token = token_of(e["lock"])
    found = "yes" if any(lock.token == token for lock in shown_locks) else "no" if shown_locks else "no locks"
    return e.find("lock_token_shown", found, "lock_shown")


@_needs("lock", "lock_shown")
def _lock_owner(e: Evidence) -> Finding:
    owners = [lock.owner for lock in locks.active_locks(e["lock_shown"].body)]
    kept = "davfs probe" in owners
    return e.find("lock_owner_kept", "yes" if kept else "no", "lock_shown")


@_needs("lock_free")
def _lock_free(e: Evidence) -> Finding:
    if token_of(e["lock_free"]) is None:
        return e.find("lock_on_free_name", "refused", "lock_free")
    stays = e.has("lock_free_left") and e["lock_free_left"].status == 207
    names = ("lock_free", "lock_free_unlock", "lock_free_left")
    return e.find("lock_on_free_name", "empty file" if stays else "nothing left", *names)


@_needs("lock_move", "lock_move_unlock")
def _lock_after_move(e: Evidence) -> Finding:
    if not e["lock_move"].is_ok:
        assumes = "a locked file can be moved over" if e.known.moves_onto_locked("l") else ""
        return e.find("lock_after_move", "refused", "lock_move", assumes=assumes)
    found = "stays" if e["lock_move_unlock"].is_ok else "gone"
    known = e.known.move_ends_lock
    differs = known is not None and known != (found == "gone")
    assumes = f"the lock {'ends' if known else 'stays'} there" if differs else ""
    return e.find("lock_after_move", found, "lock_move", "lock_move_unlock", assumes=assumes)


# --- MOVE and COPY


@_needs("move_f")
def _move_f(e: Evidence) -> Finding:
    return e.find("move_overwrite_f", _condition(e["move_f"]), "move_f")


@_needs("copy_f")
def _copy_f(e: Evidence) -> Finding:
    return e.find("copy_overwrite_f", _condition(e["copy_f"]), "copy_f")


@_needs("move_if_wrong")
def _move_condition(e: Evidence) -> Finding:
    found = _condition(e["move_if_wrong"])
    if found == "honoured" and e.has("move_if_right") and e["move_if_right"].status == 412:
        found = "refuses all"
    refuted = e.known.move_condition_honoured and found != "honoured"
    assumes = "MOVE compares tags" if refuted else ""
    return e.find("move_condition", found, "move_if_wrong", "move_if_right", assumes=assumes)


# --- times and properties


@_needs("x_oc_mtime", "put_date")
def _mtime(e: Evidence) -> Finding:
    ways = [
        way
        for way, wanted_s in MTIMES.items()
        if e.has(f"{way}_stat") and mtime_of(e[f"{way}_stat"]) == wanted_s
    ]
    accepted = e["x_oc_mtime"].headers.get("x-oc-mtime", "").lower() == "accepted"
    detail = ", ".join(ways) + ("; X-OC-MTime: accepted" if accepted else "")
    refuted = accepted and "x_oc_mtime" not in ways
    assumes = "the time was taken: the answer says accepted" if refuted else ""
    if e.known.time_in_put and not {"x_oc_mtime", "put_date"}.intersection(ways):
        assumes = assumes or "a PUT sets the time of the file"
    return e.find("mtime", "settable" if ways else "not settable", *MTIMES, detail=detail, assumes=assumes)


@_needs("dead", "dead_stat")
def _dead_properties(e: Evidence) -> Finding:
    text = dead_text(e["dead_stat"])
    if not e["dead"].is_ok or text is None:
        return e.find("dead_properties", "refused", "dead", "dead_stat")
    later = {
        "lost on overwrite": "dead_put_stat",
        "lost on copy": "dead_copy_stat",
        "lost on move": "dead_move_stat",
    }
    lost = [word for word, name in later.items() if e.has(name) and dead_text(e[name]) != text]
    found = lost[0] if lost else "kept" if text == DEAD_TEXT else "changed"
    return e.find(
        "dead_properties", found, "dead", "dead_put", "dead_copy", "dead_move", detail=", ".join(lost)
    )


@_needs("executable", "executable_stat")
def _executable(e: Evidence) -> Finding:
    kept = properties(e["executable_stat"]).get(EXECUTABLE) == "T"
    return e.find("executable", "kept" if kept else "refused", "executable")


# --- names


def _listed_names(e: Evidence, name: str, *folder: str) -> set[str]:
    places, _ = listed(e[name], e.share)
    above = DavPath((*e.scratch.parts, *folder))
    return {path.name for path in places if path != above and path.parent == above}


@_needs("dot", "scratch")
def _dot_names(e: Evidence) -> Finding | None:
    if not e["dot"].is_ok:
        return None
    found = "listed" if ".dot" in _listed_names(e, "scratch") else "hidden"
    differs = e.known.hides_dot_names != (found == "hidden")
    assumes = f"they are {'hidden' if e.known.hides_dot_names else 'listed'}" if differs else ""
    return e.find("dot_names", found, "dot", "scratch", assumes=assumes)


def _wrong(e: Evidence, prefix: str, wanted: Mapping[str, str], there: set[str]) -> Sequence[str]:
    """Which names went wrong, and how."""
    wrong = []
    for label, name in wanted.items():
        answer = e.answers.get(f"{prefix}{label}")
        if answer is None:
            continue
        if not answer.is_ok:
            wrong.append(f"{label} ({answer.status or 'no answer'})")
        elif name not in there:
            wrong.append(f"{label} (elsewhere)")
    return wrong


@_needs("names", "names_control")
def _names(e: Evidence) -> Finding:
    there = _listed_names(e, "names", "n") | _listed_names(e, "names_control", "n")
    wanted = {**NAMES, "control": CONTROL_NAME}
    wrong = _wrong(e, "name_", wanted, there)
    return e.find("names", "some" if wrong else "all", "names", "names_control", detail=", ".join(wrong))


@_needs("moved_names")
def _moved_names(e: Evidence) -> Finding:
    wrong = _wrong(e, "move_name_", MOVED_NAMES, _listed_names(e, "moved_names", "v"))
    at_risk = [label for label, name in MOVED_NAMES.items() if not e.known.move_unsafe(name)]
    refuted = [label for label in at_risk if f"{label} (elsewhere)" in wrong]
    assumes = f"MOVE is right for {', '.join(refuted)}" if refuted else ""
    if not wrong and len(at_risk) < len(MOVED_NAMES):
        assumes = "the worse: it trusts MOVE to ? and ; only on servers that were measured"
    return e.find(
        "move_names", "some" if wrong else "all", "moved_names", detail=", ".join(wrong), assumes=assumes
    )


@_needs("names")
def _longest_name(e: Evidence) -> Finding:
    there = {len(name) for name in _listed_names(e, "names", "n") if set(name) == {"n"}}
    tried = [size for size in NAME_SIZES if e.has(f"length_{size}")]
    best = max(there, default=0)
    found = "255" if best == 255 else "shorter"
    names = [f"length_{size}" for size in tried]
    return e.find("longest_name", found, *names, detail="" if best == 255 else f"at least {best} bytes")


@_needs("name_case", "case")
def _case(e: Evidence) -> Finding:
    ignored = e["name_case"].is_ok and e["case"].status == 207
    return e.find("case", "ignored" if ignored else "distinguished", "case")


@_needs("name_umlaut", "unicode")
def _unicode(e: Evidence) -> Finding:
    folded = e["name_umlaut"].is_ok and e["unicode"].status == 207
    return e.find("unicode", "folded" if folded else "kept apart", "unicode")


def left_out(found: Sequence[Finding]) -> int:
    """How many capabilities were not asked about."""
    return len(MEANINGS) - len({finding.capability for finding in found})
