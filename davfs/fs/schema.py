"""The tables of the index, and the steps from each older format to the next. Constants only.

A change of a table here is a new version: raise `VERSION`, append the step from the one before to `STEPS`,
and put the SQL that made the old tables into the test of the migration. Tables of other modules are their own
(CREATE TABLE IF NOT EXISTS), and hold nothing that would be lost for good.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 2

CONTENTS: Final = """
CREATE TABLE contents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ino INTEGER NOT NULL,
    path BLOB NOT NULL,
    generation INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL,
    base_size INTEGER NOT NULL DEFAULT 0,
    present BLOB,
    base_known INTEGER NOT NULL DEFAULT 0,
    etag TEXT, etag_weak INTEGER, mtime_s INTEGER, validator_size INTEGER,
    written INTEGER NOT NULL DEFAULT 0,
    sent INTEGER NOT NULL DEFAULT 0,
    acked INTEGER NOT NULL DEFAULT 0,
    unknown INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    unanswered BLOB NOT NULL DEFAULT x'',
    used_at REAL NOT NULL DEFAULT 0,
    own BLOB,
    base_digest BLOB,
    revision INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX contents_ino ON contents (ino);
CREATE INDEX contents_used ON contents (used_at);
"""

LEFTOVERS: Final = """
CREATE TABLE leftovers (path BLOB PRIMARY KEY) WITHOUT ROWID;
"""

ALL: Final = f"""
{CONTENTS}
CREATE TABLE locals (
    ino INTEGER PRIMARY KEY,
    parent INTEGER NOT NULL,
    mode INTEGER,
    mtime_ns INTEGER,
    etag TEXT, etag_weak INTEGER, mtime_s INTEGER, validator_size INTEGER
);
CREATE INDEX locals_parent ON locals (parent);
CREATE TABLE numbers (
    serial INTEGER PRIMARY KEY AUTOINCREMENT,
    parent INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER NOT NULL,
    UNIQUE (parent, name)
);
{LEFTOVERS}
"""

STEPS: Final = {
    1: f"""
    ALTER TABLE contents ADD COLUMN own BLOB;
    ALTER TABLE contents ADD COLUMN base_digest BLOB;
    ALTER TABLE contents ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
    {LEFTOVERS}
    """,
}


def migration(version: int) -> str:
    """One transaction from this version (0: an empty database) to the newest."""
    steps = [ALL] if version == 0 else [STEPS[number] for number in range(version, VERSION)]
    return f"BEGIN IMMEDIATE; {' '.join(steps)} PRAGMA user_version={VERSION}; COMMIT;"
