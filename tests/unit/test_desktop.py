"""Notifications: what is told, how often, and how a name that holds markup or quotes is said."""

from __future__ import annotations

from pathlib import Path

from davfs.desktop import QUIET_S, News, Notice, Trouble, speaker

NOTHING = Trouble((), (), locked_out=False)


def test_a_conflict_is_told_once() -> None:
    """Each copy once; nothing is told while nothing happens."""
    news = News("/drive")
    assert news.of(NOTHING, 0) is None
    now = Trouble(["a (conflict h 2026-01-31 120000).txt"], (), locked_out=False)
    told = news.of(now, 1)
    assert told == Notice(
        "davfs: /drive", "Somebody else changed it too; yours is a (conflict h 2026-01-31 120000).txt"
    )
    assert news.of(now, QUIET_S * 9) is None


def test_at_most_one_a_minute() -> None:
    """What happens within the minute is told together after it, with the first names and a count."""
    news = News("/drive")
    assert news.of(Trouble((), ["0"], locked_out=False), 0) is not None
    later = Trouble(["c"], [str(number) for number in range(6)], locked_out=True)
    assert news.of(later, QUIET_S - 1) is None
    told = news.of(later, QUIET_S)
    assert told is not None
    assert told.text.splitlines() == [
        "Somebody else changed it too; yours is c",
        "Refused by the server, kept here: 1, 2, 3 and 2 more",
        "The server refuses the password: davfs login /drive",
    ]


def test_what_is_refused_again_is_told_again() -> None:
    """A file that was sent meanwhile and is refused anew is news."""
    news = News("/drive")
    refused = Trouble((), ["a"], locked_out=False)
    assert news.of(refused, 0) is not None
    assert news.of(NOTHING, QUIET_S) is None
    assert news.of(refused, QUIET_S * 2) is not None


def test_names_are_neither_markup_nor_options_nor_values(tmp_path: Path) -> None:
    """Angle brackets, quotes, control characters and a leading hyphen stay what they are."""
    notice = Notice("davfs: -x", 'Refused: <b>"a"&\x1b[31m')
    for program in ("gdbus", "notify-send"):
        (tmp_path / program).write_text("")
        (tmp_path / program).chmod(0o755)
        speak = speaker({"DBUS_SESSION_BUS_ADDRESS": "unix:path=/x", "PATH": str(tmp_path)})
        assert speak is not None
        command = speak(notice)
        assert command[0] == program
        words = command[command.index("--") + 1 :]
        assert "<b>" not in " ".join(words)
        assert "\x1b" not in " ".join(words)
    assert words[0] == "davfs: -x"


def test_without_a_session_or_a_program_nothing_is_said(tmp_path: Path) -> None:
    """No bus: nobody is told, whatever is installed; a bus alone is not enough either."""
    assert speaker({"PATH": "/usr/bin:/bin"}) is None
    assert speaker({"DBUS_SESSION_BUS_ADDRESS": "unix:path=/x", "PATH": str(tmp_path)}) is None
