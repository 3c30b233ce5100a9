"""What each finding of `davfs probe` means for the user: the closed vocabulary of its answers. Data, pure.

`MEANINGS[capability][found]` is one sentence. Programs may rely on both words (docs/PROBE.md): a capability
may be added, and a word to one; none changes its sense.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MEANINGS: Final[Mapping[str, Mapping[str, str]]] = {
    # --- without --write
    "server": {
        "named": "For people; davfs trusts no name alone.",
        "unnamed": "The server does not say what it is: it is known by its answers only.",
    },
    "dav": {
        "announced": "The classes of WebDAV that the server says it has.",
        "silent": "OPTIONS announces no WebDAV: locks are not tried.",
    },
    "authentication": {
        "none": "Nobody is asked who he is.",
        "used": "Credentials are sent by this scheme.",
    },
    "connection": {
        "kept": "Requests follow each other on one connection.",
        "closed": "Each request needs a new connection: small files are slow.",
    },
    "clock": {
        "in step": "Times of files can be compared with the clock here.",
        "off": "Times that the server sets differ from the clock here; make and rsync may wonder.",
        "unknown": "The server tells no time: ages of files cannot be judged.",
    },
    "listing": {
        "complete": "Folders can be listed.",
        "broken": "The listing is not well-formed; davfs shows the part that can be read.",
    },
    "depth_infinity": {
        "refused": "Trees are listed folder by folder, as davfs always does.",
        "whole": "One request may list a whole tree; davfs does not need it.",
        "one level": "The server says yes and lists one level: never to be trusted. davfs does not ask.",
        "answered": "It is not refused; how deep it goes shows with --write.",
        "no answer": "The server did not answer in time; davfs never asks for it.",
    },
    "quota": {
        "told": "df shows the real space, and a full share is ENOSPC before the upload.",
        "unlimited": "The share has no limit that the server knows.",
        "silent": "df shows an invented size; a full server is noticed at the upload.",
    },
    "creationdate": {
        "told": "The server knows when something was made.",
        "silent": "There is no birth time.",
    },
    "privileges": {
        "told": "What may not be written could be shown as read-only.",
        "silent": "What may not be written is noticed when it is tried.",
    },
    "checksums": {
        "told": "The server knows checksums of contents.",
        "silent": "A content is verified by size, and by its tag.",
    },
    "uploads_in_parts": {
        "offered": "Large files are sent in parts, and every overwrite is put in place whole.",
        "none": "A file is sent whole.",
    },
    "compression": {
        "used": "Listings come compressed.",
        "not used": "Listings come as they are.",
    },
    "etags_in_listings": {
        "strong": "A change by others shows in a listing.",
        "weak": "A change by others shows in a listing; the tag is compared without its W/.",
        "none": "A change by others is noticed by time and size: one within a second can be missed.",
        "no file": "There was no file to look at; --write makes one.",
    },
    "folder_etags": {
        "told": "A folder has a tag.",
        "none": "A folder has no tag.",
    },
    "ranges": {
        "honoured": "Large files are read in parts.",
        "ignored": "Reading a part costs the whole file.",
        "refused": "Ranges are refused: files are read whole.",
        "no file": "There was no file to read; --write makes one.",
    },
    # --- uploads and conditions
    "etag_in_put": {
        "strong": "The version is known from the answer to an upload.",
        "weak": "The answer to an upload has a weak tag: it is asked again later.",
        "none": "After an upload one more request learns its version.",
    },
    "if_none_match": {
        "honoured": "A new file never replaces somebody else's.",
        "ignored": "davfs looks before it makes a file; where there are locks, under one.",
        "unclear": "The answer says neither.",
    },
    "if_match": {
        "honoured": "An upload never replaces a version it does not know.",
        "refuses all": "Even the right tag is refused: davfs looks first, then writes.",
        "ignored": "davfs looks before each overwrite; where there are locks, under one.",
        "unclear": "The answer says neither.",
    },
    "if_header": {
        "honoured": "A tag in If is compared.",
        "ignored": "A tag in If is not compared.",
        "unclear": "The answer says neither.",
    },
    "weak_tag_in_if": {
        "accepted": "A fresh file can be guarded too.",
        "refused": "A fresh file cannot be guarded by its weak tag: davfs looks, or waits.",
        "not needed": "Tags are strong from the start, or there is none.",
    },
    "tag_ageing": {
        "stays": "The tag of a file is the same after two seconds.",
        "turns strong": "The tag of a fresh file is weak and loses its W/ later: the same version.",
        "changes": "The tag changes with age alone: a file may be read again for nothing.",
        "none": "There is no tag.",
    },
    "tag_of_second": {
        "changes": "Two writes of one size within one second have different tags.",
        "stays": "Two writes of one size within one second look the same: davfs trusts tags after 2 s.",
        "none": "There is no tag: only the time tells, in whole seconds.",
        "unclear": "No two writes fell into one second.",
    },
    "expect": {
        "in time": "A refusal comes before the body: nothing is sent in vain.",
        "100 first": "The body is asked for before it is judged: davfs looks before large uploads.",
        "ignored": "The server does not answer Expect: davfs waits a second once, then sends.",
        "417": "The server refuses Expect: davfs does not use it.",
    },
    "missing_parent": {
        "refused": "An upload into a folder that is gone fails.",
        "created": "An upload makes missing folders: a removed one can come back.",
    },
    "cut_upload": {
        "whole": "An upload that breaks off leaves the old file.",
        "torn": "An upload that breaks off leaves half a file: davfs sends to a temporary name and moves it.",
        "gone": "An upload that breaks off takes the old file away: davfs uses a temporary name.",
    },
    "content_range_put": {
        "written": "A part of a file can be replaced by PUT with Content-Range (see partial_put).",
        "replaces": "PUT with Content-Range replaces the file by the part: davfs never sends it.",
        "refused": "PUT with Content-Range is refused: a change costs the whole file.",
        "no effect": "It was accepted, and changed nothing.",
    },
    "patch": {
        "written": "A part of a file can be replaced by PATCH (sabre/dav) (see partial_put).",
        "refused": "PATCH is announced, and refused.",
        "damages": "PATCH changed something else than was asked for: davfs never sends it.",
        "not announced": "The server does not announce PATCH.",
    },
    # --- locks
    "locks": {
        "enforced": "Nobody else can write a file that is locked.",
        "decoration": "Locks are granted, and hold nobody up.",
        "refused": "Locks are announced, and refused: davfs does without.",
        "none": "There are no locks.",
    },
    "lock_timeout": {
        "as asked": "A lock lasts as long as asked.",
        "shorter": "A lock ends earlier than asked: davfs refreshes it by what was granted.",
        "longer": "A lock lasts longer than asked, also after a crash.",
    },
    "lock_refresh": {
        "works": "A lock can be kept as long as a file is open.",
        "another token": "A refresh gives a new lock: the old one is not kept.",
        "refused": "A lock cannot be refreshed.",
    },
    "lock_token_shown": {
        "yes": "The server shows the locks of a file, tokens included.",
        "no": "The server shows a lock without its token.",
        "no locks": "The server does not show locks: who holds a file cannot be told.",
    },
    "lock_owner_kept": {
        "yes": "Who holds a file is told.",
        "no": "That a file is held is told, not by whom.",
    },
    "lock_on_free_name": {
        "empty file": "Locking a free name leaves an empty file; davfs removes it when nothing is written.",
        "nothing left": "Locking a free name leaves nothing.",
        "refused": "A free name cannot be locked.",
    },
    "lock_after_move": {
        "gone": "Moving a file over a locked one ends the lock.",
        "stays": "The lock stays where it is after a MOVE over its file; davfs gives it back.",
        "refused": "A locked file cannot be moved over, even with its token: davfs unlocks it first.",
    },
    # --- MOVE and COPY
    "move_overwrite_f": {
        "honoured": "A rename never replaces what it should not.",
        "ignored": "A rename replaces what is there: davfs looks first.",
        "unclear": "The answer says neither.",
    },
    "copy_overwrite_f": {
        "honoured": "A copy never replaces what it should not.",
        "ignored": "A copy replaces what is there.",
        "unclear": "The answer says neither.",
    },
    "move_condition": {
        "honoured": "MOVE over a file can be guarded by its tag.",
        "refuses all": "Even the right tag is refused: davfs looks first.",
        "ignored": "MOVE does not compare tags: davfs looks first; where there are locks, under one.",
        "unclear": "The answer says neither.",
    },
    # --- times and properties
    "mtime": {
        "settable": "cp -p and rsync -a keep times on the server.",
        "not settable": "It has its own times; davfs keeps others here, with mtime=properties there too.",
    },
    "dead_properties": {
        "kept": "Own attributes can be stored with a file.",
        "lost on copy": "Own attributes are stored, and lost by COPY.",
        "lost on move": "Own attributes are stored, and lost by MOVE.",
        "lost on overwrite": "Own attributes are stored, and lost when the file is written again.",
        "changed": "Own attributes come back changed.",
        "refused": "Own attributes cannot be stored.",
    },
    "executable": {
        "kept": "The server keeps the executable bit.",
        "refused": "The executable bit is kept only here.",
    },
    # --- names
    "dot_names": {
        "listed": "Names that begin with a dot are listed.",
        "hidden": "Names that begin with a dot are left out of listings: davfs asks for them one by one.",
    },
    "names": {
        "all": "Every name that was tried can be stored and is listed as it is.",
        "some": "Some names are refused, or come back changed.",
    },
    "move_names": {
        "all": "MOVE reaches every name that was tried.",
        "some": "MOVE puts some names elsewhere: davfs uploads these without MOVE.",
    },
    "longest_name": {
        "255": "Names may be as long as Linux allows.",
        "shorter": "Longer names are refused (ENAMETOOLONG or EIO at the upload).",
    },
    "case": {
        "distinguished": "A and a are two files.",
        "ignored": "A and a are one file.",
    },
    "unicode": {
        "kept apart": "The two Unicode spellings of a name (NFC, NFD) are two files.",
        "folded": "The two Unicode spellings of a name (NFC, NFD) are one file.",
    },
}
