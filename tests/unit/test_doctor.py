"""What a report for a bug tells, and what it never tells."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfs.commands.doctor import _own_words, private_names, report
from davfs.commands.redaction import Redaction, without_credentials

OWN_WORDS = _own_words()
# A name in each place where one can stand; none of these words is one of davfs's own.
ANSWER: dict[str, Any] = {
    "version": "0.1.0",
    "url": "https://zebra.example:8443/remote.php/dav/files/wombat/Quokka%20Plans/",
    "user": "wombat",
    "mountpoint": "/home/numbat/Okapi",
    "pid": 12,
    "authentication": "accepted",
    "scheme": "basic",
    "link": {"state": "down", "down_for_s": 3.0, "reason": "PROPFIND /Tapir: connection refused"},
    "pending": [
        {
            "path": "/Ibex one.txt",
            "size": 5,
            "state": "refused",
            "errno": "EFBIG",
            "error": "PUT /Ibex one.txt: no",
        },
        {
            "path": "/Ibex two.txt",
            "size": 6,
            "state": "refused",
            "errno": "EFBIG",
            "error": "PUT /Ibex two.txt: no",
        },
    ],
    "pending_files": 2,
    "conflicts": ["/Jerboa (conflict numbat-pc 2026).txt"],
    "recovered": ["Kudu"],
    "locks": [{"path": "/Lemur", "refresh_s": 3}],
    "transfers": [{"path": "/Marten", "direction": "up", "size_bytes": 7, "left_bytes": 1}],
    "requests": {"PUT": 2},
    "server": "Apache/2.4.57 (Debian)",
    "server_profile": {"name": "Apache mod_dav", "conditions": "honoured", "locks": True},
    "settings": {
        "options": {
            "username": "wombat",
            "cache_dir": "/home/numbat/Nutria",
            "log_file": "/home/numbat/Ocelot.log",
            "password_file": "(given)",
            "cacert": "/home/numbat/Puma.pem",
            "lock": "auto",
            "timeout_s": 30.0,
            "kernel_flags": ["noexec"],
        },
        "capabilities": {"dav_classes": ["1", "<http://zebra.example/own>"], "methods": ["PUT"]},
    },
    "surprise": "Quoll",
    "more": {"Raccoon.txt": "Serval", "odd": ["Tayra"]},
}
NAMES = (
    *("zebra", "wombat", "quokka", "numbat", "okapi", "tapir", "ibex", "jerboa", "kudu", "lemur"),
    *("marten", "nutria", "ocelot", "puma", "quoll", "raccoon", "serval", "tayra"),
)


def redacted(answer: dict[str, Any], *log: str) -> str:
    return report({"kernel": "Linux"}, [answer], [log], Redaction(private_names([answer]), OWN_WORDS))


def test_the_names_are_none_of_our_own_words() -> None:
    """Else the tests below would show nothing."""
    assert not OWN_WORDS & set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_no_name_is_told(name: str) -> None:
    """Host, user, mount point, files that wait, conflict, move or are locked, options, keys nobody knows."""
    text = report({}, [ANSWER], [[]], None)
    assert name in text.lower()
    assert name not in redacted(ANSWER).lower()


def test_what_helps_is_told() -> None:
    """States, counts, sizes, errnos, options that are no names, what the server is and can do."""
    text = redacted(ANSWER)
    told = json.loads(text.split("== mount 1\n")[1].split("\n== ")[0])
    assert told["url"] == "https://(host):8443/remote.php/dav/files/…/…"
    assert told["pending"] == {
        "count": 2,
        "state": {"refused": 2},
        "errno": {"EFBIG": 2},
        "error": {"PUT (path): no": 2},
        "bytes": 11,
    }
    assert told["conflicts"] == {"count": 1}
    assert told["transfers"] == {"count": 1, "direction": {"up": 1}, "bytes": 7}
    assert told["link"]["reason"] == "PROPFIND (path): connection refused"
    assert told["server_profile"]["name"] == "Apache mod_dav"
    assert told["server"] == "Apache/2.4.57 (Debian)"
    assert told["settings"]["options"] == {
        **dict.fromkeys(("username", "cache_dir", "log_file", "password_file", "cacert"), "(given)"),
        "lock": "auto",
        "timeout_s": 30.0,
        "kernel_flags": ["noexec"],
    }


AT = "2026-11-21 12:04:24,185"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            f"{AT} WARNING davfs.upload: not sent: /Ibex a.txt: PUT /Ibex a.txt: answered 413; next try in 9",
            f"{AT} WARNING davfs.upload: not sent: (path): PUT (path): answered 413; next try in 9",
        ),
        (
            f"{AT} INFO davfs.mount: https://zebra.example/Quokka/ is mounted on /home/numbat/Okapi",
            f"{AT} INFO davfs.mount: (url) is mounted on (private)",
        ),
        (
            f"{AT} WARNING davfs.files: Kudu Lemur.txt is removed while it is open",
            f"{AT} WARNING davfs.files: ….txt is removed while it is open",
        ),
        (
            f"{AT} INFO davfs.link: 192.168.7.9 and fe80::1 refused",
            f"{AT} INFO davfs.link: (host) and (host) refused",
        ),
        (
            "2026-11-21T12:04:24+0100 numbat-pc davfs[12]: WARNING davfs.link: no answer: connection refused",
            "2026-11-21T12:04:24+0100 WARNING davfs.link: no answer: connection refused",
        ),
        (
            '  File "/home/numbat/lib/python3.11/site-packages/davfs/fs/tree.py", line 12, in find',
            '  File "davfs/fs/tree.py", line 12, in find',
        ),
        ('  File "/home/numbat/Okapi/x.py", line 1, in f', '  File "…", line 1, in f'),
        ("Traceback (most recent call last):", "Traceback (most recent call last):"),
        ("Serval: phone 5551234567", "…: …"),
    ],
)
def test_a_log_line_keeps_what_davfs_said(line: str, told: str) -> None:
    """Time, level, place and our own words stay; paths, addresses, names and long numbers go."""
    assert Redaction(private_names([ANSWER]), OWN_WORDS).log_line(line) == told


@given(
    st.text(alphabet="zqxjkvZQXJKV", min_size=7),
    st.sampled_from(["{}", "/a/{}.txt", "no {}: in", "{}.example"]),
)
def test_no_foreign_word_comes_through_a_message(word: str, where: str) -> None:
    """Whatever a server or a person calls something, it is none of our words."""
    assert word not in Redaction((), OWN_WORDS).message(where.format(word))


@pytest.mark.parametrize(
    "line",
    ["x https://me:hunter2@h/ y", "Authorization: Basic hunter2", "password=hunter2", "Cookie: a=hunter2"],
)
def test_a_report_in_full_has_no_credentials(line: str) -> None:
    """davfs logs none; what another library might log is hidden all the same."""
    assert "hunter2" not in without_credentials(line)
    assert "hunter2" not in report({}, [], [], None)
    assert "hunter2" not in report({}, [{}], [[line]], None)


def test_a_short_user_name_does_not_eat_words() -> None:
    """Names are replaced as words only."""
    assert Redaction(["a"], OWN_WORDS).text("a cat, A b") == "(private) cat, (private) b"
