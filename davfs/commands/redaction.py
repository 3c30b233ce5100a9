"""What a report of a bug may say: names of files, hosts and users go out of it, what helps stays in.

A whitelist: of an answer, numbers and the words of davfs's own tables stay, lists of files become counts, and
other texts are only said to be given. Of a log line stay the time, the level, the place, and those words that
davfs itself writes into messages. What a server or a person named is in none of them.

Pure: what is private and which words are davfs's own come as arguments.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

GIVEN: Final = "(given)"
# Texts that are one of a few of our own, or what a server says of its make.
_KEPT: Final = frozenset(
    {"version", "authentication", "scheme", "auth", "state", "direction", "errno", "lock", "log_level"}
    | {"server", "name", "conditions", "kernel_flags", "dav_classes", "methods"}
)
_MESSAGES: Final = frozenset({"error", "reason", "no_answer"})
_KNOWN_FOLDERS: Final = frozenset(["dav", "webdav", "remote.php", "files", "public.php", "seafdav"])
_KEY: Final = re.compile(r"[A-Za-z_]{1,40}")

_PATH: Final = re.compile(r"(?<![\w.])/.*?(?=: |; |$)")
_ADDRESS: Final = re.compile(r"[a-z]+://\S+", re.IGNORECASE)
_IP: Final = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|\[?[0-9a-fA-F]*:[0-9a-fA-F]*:[0-9a-fA-F:]*\]?")
_WORD: Final = re.compile(r"\w+")
_HIDDEN: Final = re.compile(r"…(?:[^\w:;,()]*…)+")
_LEVELS: Final = "DEBUG|INFO|WARNING|ERROR|CRITICAL"
_LOG_LINE: Final = re.compile(
    rf"(?P<time>\d{{4}}-[\d-]+[ T][\d:,.+-]+) (?:\S+ \S+\[\d+\]: )?(?:davfs\[\d+\]: )?"
    rf"(?P<level>{_LEVELS}) (?P<logger>davfs[\w.]*): (?P<text>.*)"
)
_FRAME: Final = re.compile(r'\s*File "(?P<file>[^"]*)", line (?P<line>\d+), in (?P<where>[\w<>.]+)')
_OUR_CODE: Final = re.compile(r".*/(?:site-packages|python3\.\d+)/|.*/(?=davfs/)")
_CREDENTIALS: Final = re.compile(r"(?i)(authorization|password|token|cookie)(\W{1,3}).*|(?<=://)[^/\s@]+@")


class Redaction:
    """`private` is replaced wherever it stands as a word; `own_words` are those of davfs's messages."""

    def __init__(self, private: Iterable[str], own_words: frozenset[str]) -> None:
        names = sorted({each for each in private if each}, key=len, reverse=True)
        either = "|".join(re.escape(each) for each in names)
        self._private = re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE) if names else None
        self._own_words = own_words

    def text(self, text: str) -> str:
        """The last sieve over everything: names that are known to be private."""
        return text if self._private is None else self._private.sub("(private)", text)

    def message(self, text: str) -> str:
        """One that davfs wrote: without addresses and paths, and of the rest only davfs's own words."""
        text = _PATH.sub("(path)", _ADDRESS.sub("(url)", self.text(text)))
        text = _IP.sub("(host)", text)
        return _HIDDEN.sub("…", _WORD.sub(self._own, text))

    def _own(self, found: re.Match[str]) -> str:
        word = found[0]
        if word.isascii() and (word.lower() in self._own_words or (word.isdigit() and len(word) <= 4)):
            return word
        return word if word in {"path", "url", "host", "private"} else "…"

    def log_line(self, line: str) -> str:
        """Time, level and place as they are; code lines of a traceback are only named."""
        frame, found = _FRAME.fullmatch(line), _LOG_LINE.fullmatch(line)
        if frame is not None:
            file = _OUR_CODE.sub("", frame["file"])
            return (
                f'  File "{"…" if file.startswith("/") else file}", line {frame["line"]}, in {frame["where"]}'
            )
        if found is None:
            return self.message(line)
        return f"{found['time']} {found['level']} {found['logger']}: {self.message(found['text'])}"

    def answer(self, answer: Mapping[str, Any]) -> dict[str, object]:
        """What a daemon said, JSON-able."""
        return {key: self._value(key, value) for key, value in answer.items() if _KEY.fullmatch(key)}

    def _value(self, key: str, value: object) -> object:
        match value:
            case None | bool() | int() | float():
                return value
            case str() if key == "url":
                return _address(value)
            case str() if key in _MESSAGES:
                return self.message(value)
            case str() if key in _KEPT:
                return self.text(value)
            case list():
                return self._listed(key, value)
            case dict():
                return self.answer(value)
        return GIVEN

    def _listed(self, key: str, rows: list[Any]) -> object:
        if key in _KEPT:
            return [self.text(each) for each in rows if isinstance(each, str)]
        return self._counted(rows)

    def _counted(self, rows: list[Any]) -> dict[str, object]:
        """How many files, in which states, and what was said of them: the commonest first."""
        files = [each for each in rows if isinstance(each, dict)]
        told: dict[str, object] = {"count": len(rows)}
        for key in ("state", "direction", "errno", "error"):
            found = Counter(str(self._value(key, each[key])) for each in files if each.get(key) is not None)
            if found:
                told[key] = dict(found.most_common(10))
        sizes = [each.get("size", each.get("size_bytes")) for each in files]
        if any(sizes):
            told["bytes"] = sum(size for size in sizes if isinstance(size, int))
        return told


def _address(url: str) -> str:
    """Scheme, port, and folders that many servers have; the rest is counted."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return GIVEN
    folders = [each if each.lower() in _KNOWN_FOLDERS else "…" for each in parts.path.split("/") if each]
    scheme = parts.scheme if parts.scheme in {"http", "https"} else "…"
    return f"{scheme}://(host){port}/{'/'.join(folders)}"


def without_credentials(line: str) -> str:
    """Of a line that is otherwise told in full. davfs writes none into its log; something else might."""
    return _CREDENTIALS.sub(lambda found: f"{found[1]}{found[2]}(hidden)" if found[1] else "(hidden)@", line)


def words_of(texts: Iterable[str]) -> frozenset[str]:
    """The words of our own messages."""
    return frozenset(word.lower() for text in texts for word in _WORD.findall(text) if not word.isdigit())
