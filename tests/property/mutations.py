"""Answers of real servers, changed as a broken or hostile server might. Seeded: each can be made again.

`Mutator.body` and `Mutator.headers` change one answer in one to four ways: bytes flipped, cut, doubled and
moved; elements doubled, nested, emptied and filled; DTDs and entities; other encodings; numbers and dates
that programs stumble over; names and values that are too long.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Sequence
from typing import Final

Headers = list[tuple[bytes, bytes]]

# Long runs of one character, on which a regular expression may spend the square of their length.
RUNS: Final = tuple(bytes([one]) * 40_000 for one in b' \t-%0/=,";\\<>&.a:')
# No mutation makes a body longer.
MOST_BYTES: Final = 300_000 if os.environ.get("DAVFS_SOAK") == "1" else 50_000
_ELEMENT: Final = re.compile(rb"<([A-Za-z_][\w:.-]{0,40})(?:\s[^<>]*)?>([^<>]*)</\1>")
_TEXT: Final = re.compile(rb">([^<>]+)<")
_TAG: Final = re.compile(rb"</?[A-Za-z_][^<>]*>")
_NUMBER: Final = re.compile(rb"\d+")

# Numbers as str.isdigit, int and float read them, or do not.
NUMBERS: Final = tuple(
    text.encode()
    for text in (
        "0",
        "-1",
        "-2",
        "-3",
        "+1",
        " 7 ",
        "1e9",
        "0x10",
        "1_000",
        "nan",
        "inf",
        "-inf",
        "1.5",
        "٣",
        "²",
        "１２",
        "9" * 19,
        "9" * 20,
        "9" * 400,
        "1" * 5000,
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "",
        "-",
        "00000000000000000000000001",
        "12\x00",
        "4294967296",
    )
)
DATES: Final = tuple(
    text.encode()
    for text in (
        "Sat, 21 Nov 2026 02:19:01 GMT",
        "Sat, 31 Feb 2026 02:19:01 GMT",
        "Sun, 00 Jan 0000 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:60 GMT",
        "Saturday, 21-Nov-26 02:19:01 GMT",
        "Sat Nov 21 02:19:01 2026",
        "2026-11-21T02:19:01Z",
        "2026-11-21T02:19:01.999999999999999999999999+99:99",
        "0000-00-00T00:00:00Z",
        "9999-12-31T23:59:59-23:59",
        "Sat, 21 Nov 2026 99:99:99 GMT",
        "yesterday",
        "-1",
        "Sat, 21 Nov 2026 02:19:01 +9999",
        "Sat, " + "2" * 60 + " Nov 2026",
        "٢١ Nov 2026 02:19:01 GMT",
    )
)
TAGS: Final = tuple(
    text.encode()
    for text in (
        '""',
        '"',
        "W/",
        'W/""',
        'w/"a"',
        '"a"b"',
        "*",
        '"\x7f"',
        '"é"',
        '"' + "x" * 9000 + '"',
        "W/W/W/",
        '"a", "b"',
    )
)
RANGES: Final = (
    b"bytes 0-99/10240",
    b"bytes 99-0/10240",
    b"bytes 0-99999999999999999999/1",
    b"bytes */10240",
    b"bytes 0-0/*",
    b"bytes 0-99/-1",
    b"octets 0-99/100",
    b"bytes 0-99/99",
    b"bytes\t0-99/10240",
    b"bytes 0-99",
    "bytes ٠-٩/١٠".encode(),
)
PLACES: Final = (
    b"http://127.0.0.1:9001/probe/",
    b"/probe/../../etc/passwd",
    b"http://[::1",
    b"http://[::1]:99999/",
    b"//h/x",
    b"http://h:port/",
    b"javascript:1",
    b"file:///etc/passwd",
    b"http://\xff/",
    b"http://user:pw@h/",
    b"?",
    b"#",
    b"%",
    b"/probe/%",
    b"/probe/%zz",
    b"/probe/%00",
    b"/probe/%2F",
    b"/probe/%c3",
    b"/probe/" + b"a" * 9000,
    b"\\\\h\\x",
    b"http://xn--a/",
    b"http://" + b"a" * 300 + b"/",
    b"/probe/" + b"../" * 3000,
    b"/" * 5000,
    b"https://h/",
    "http://ⓗ/".encode(),
    b"/probe/\xed\xa0\x80",
    b"http://h/\x00",
    b"http://h /",
    b"ht\ntp://h/",
)
CHALLENGES: Final = (
    b'Digest realm="a", nonce="b", qop="auth", algorithm=MD5',
    b"Digest",
    b'Digest nonce="',
    b"Digest nonce=a, qop=auth-int",
    b'Digest realm="r", nonce="n", algorithm=SHA-512-256-sess, qop="auth,,,"',
    b"NTLM TlRMTVNTUAACAAAA",
    b"NTLM !!!!",
    b"NTLM TlRMTVNTUAACAAAA" + b"A" * 4000,
    b"Negotiate " + b"Y" * 70000,
    b"Negotiate oYIBAQ==",
    b"Basic",
    b'Basic realm="\\',
    b"Basic " * 3000,
    b"," * 20000,
    b"a=" * 20000,
    b'a="' + b"\\a" * 30000,
    b'Digest realm="' + b"\xff" * 50 + b'"',
    b"Bearer a b c",
    b"Negotiate, NTLM, Basic realm=x, Digest nonce=y",
    b"a" * 60000,
    b"a " * 30000,
    b'"' * 20000,
    b"= = = =",
    b"Digest " + b"x=y," * 15000,
    b'Digest realm="\xc3\xa9", nonce="x", userhash=true, charset=UTF-8',
    b"Basic realm=" + b'"a",' * 9000,
)
WORDS: Final = (
    b"\0",
    b"\r\n",
    b"\n",
    b"\t",
    b" ",
    b",",
    b";",
    b'"',
    b"<",
    b">",
    b"&",
    b"]]>",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"%00",
    b"%2F",
    b"..",
    b"&#0;",
    b"&#x1F600;",
    b"&#xD800;",
    b"&amp;amp;",
    b"&undefined;",
    b"&#99999999999;",
)
DTDS: Final = (
    b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">]>',
    b'<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
    b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd">',
    b'<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>',
    b"<!DOCTYPE a [<!ENTITY a0 'aaaaaaaaaa'>"
    + b"".join(b"<!ENTITY a%d '%s'>" % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 12))
    + b"]>",
    b"<!DOCTYPE a [<!ENTITY a '" + b"a" * 100_000 + b"'><!ENTITY b '" + b"&a;" * 200 + b"'>]>",
    b'<!DOCTYPE a [<!ATTLIST D:response x CDATA "y">]>',
    b"<!DOCTYPE",
)
REFERENCES: Final = (b"&a;", b"&a11;", b"&b;", b"&a;" * 1000, b"&b;" * 100)
ENCODINGS: Final = ("utf-16", "utf-16-le", "utf-32", "utf-7", "latin-1", "cp1252", "cp037", "shift_jis")
DECLARED: Final = (
    b"utf-16",
    b"UTF-8",
    b"iso-8859-1",
    b"ebcdic-cp-us",
    b"x-none",
    b"utf-32",
    b"'",
    b"a" * 400,
    b"\xff",
)


class Mutator:
    """`others`: bodies of other answers, to splice with."""

    def __init__(self, seed: int, others: Sequence[bytes]) -> None:
        self.dice = random.Random(seed)
        self._others = others

    def body(self, data: bytes) -> bytes:
        for _ in range(self.dice.choice([1, 1, 2, 4])):
            data = self.dice.choice(self._changes)(self, data)[:MOST_BYTES]
        return data

    def headers(self, headers: Headers) -> Headers:
        found = list(headers)
        for _ in range(self.dice.choice([1, 2, 4])):
            at = self.dice.randrange(len(found) + 1)
            if self.dice.random() < 0.1:
                found.insert(at, self._header_with_run())
            elif at == len(found) or self.dice.random() < 0.4:
                found.insert(at, self._header())
            elif self.dice.random() < 0.1:
                del found[at]
            else:
                name, value = found[at]
                found[at] = name, self._value(name.lower(), value)
        return found

    def _header_with_run(self) -> tuple[bytes, bytes]:
        name = self.dice.choice([*_VALUES, b"dav", b"allow"])
        old = self.dice.choice([b"", b"Basic", *_VALUES.get(name, ())])
        return name, self._spliced(old, self.dice.choice(RUNS)) + self.dice.choice([b"", b"\x01"])

    def _header(self) -> tuple[bytes, bytes]:
        name = self.dice.choice(
            [*_VALUES, b"dav", b"allow", b"server", b"content-encoding", b"authentication-info"]
        )
        return name, self._value(name, b"")

    def _value(self, name: bytes, old: bytes) -> bytes:
        kinds = _VALUES.get(name)
        if kinds is not None and self.dice.random() < 0.7:
            return self.dice.choice(kinds)
        how = self.dice.randrange(5)
        if how == 0:
            return old * self.dice.choice([2, 100, 3000]) if len(old) < 100 else old + old
        if how == 1:
            return old + b"," + old
        if how == 2:
            return self.dice.randbytes(self.dice.randrange(30))
        if how == 3:
            return self._spliced(old, self.dice.choice(WORDS))
        return self.dice.choice([*NUMBERS, *CHALLENGES, *PLACES, *DATES, *TAGS])

    def _at(self, data: bytes) -> int:
        return self.dice.randrange(len(data) + 1)

    def _spliced(self, data: bytes, new: bytes, removed: int = 0) -> bytes:
        at = self._at(data)
        return data[:at] + new + data[at + removed :]

    # --- of bytes

    def _flip(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self.dice.choice([1, 1, 3, 30])):
            if changed:
                changed[self.dice.randrange(len(changed))] ^= 1 << self.dice.randrange(8)
        return bytes(changed)

    def _cut(self, data: bytes) -> bytes:
        at = self._at(data)
        return self.dice.choice([data[:at], data[at:], data[:at] + data[at + self.dice.randrange(80) :]])

    def _double(self, data: bytes) -> bytes:
        start, end = sorted((self._at(data), self._at(data)))
        times = self.dice.choice([1, 1, 5, 300])
        return self._spliced(data, data[start : min(end, start + 400)] * times)

    def _insert(self, data: bytes) -> bytes:
        new = self.dice.choice([*WORDS, *NUMBERS, self.dice.randbytes(self.dice.randrange(1, 20))])
        return self._spliced(data, new, self.dice.choice([0, 0, len(new)]))

    def _splice(self, data: bytes) -> bytes:
        other = self.dice.choice(self._others)
        return data[: self._at(data)] + other[self._at(other) :]

    # --- of elements

    def _elements(self, data: bytes) -> list[re.Match[bytes]]:
        return list(_ELEMENT.finditer(data, 0, 40_000))

    def _element_doubled(self, data: bytes) -> bytes:
        found = self._elements(data)
        if not found:
            return data
        one, place = self.dice.choice(found), self.dice.choice(found)
        times = self.dice.choice([1, 2, 50, 3000])
        return data[: place.end()] + one[0] * times + data[place.end() :]

    def _element_nested(self, data: bytes) -> bytes:
        found = self._elements(data)
        if not found:
            return data
        one, depth = self.dice.choice(found), self.dice.choice([1, 3, 100, 300, 5000])
        open_tag, close_tag = b"<" + one[1] + b">", b"</" + one[1] + b">"
        nested = open_tag * depth + one[0] + close_tag * self.dice.choice([depth, depth, 0])
        return data[: one.start()] + nested + data[one.end() :]

    def _text_replaced(self, data: bytes) -> bytes:
        found = list(_TEXT.finditer(data, 0, 40_000))
        if not found:
            return data
        one = self.dice.choice(found)
        kinds: tuple[Sequence[bytes], ...] = (
            NUMBERS,
            DATES,
            TAGS,
            PLACES,
            WORDS,
            REFERENCES,
            (b"x" * 200_000,),
            RUNS,
        )
        new = self.dice.choice(self.dice.choice(kinds))
        return data[: one.start(1)] + new + data[one.end(1) :]

    def _number_replaced(self, data: bytes) -> bytes:
        found = list(_NUMBER.finditer(data, 0, 40_000))
        if not found:
            return data
        one = self.dice.choice(found)
        return data[: one.start()] + self.dice.choice(NUMBERS) + data[one.end() :]

    def _tag_changed(self, data: bytes) -> bytes:
        found = list(_TAG.finditer(data, 0, 40_000))
        if not found:
            return data
        one = self.dice.choice(found)
        new = self.dice.choice(
            (
                b"",
                b"<" + b"n" * self.dice.choice([300, 60_000]) + b">",
                one[0][:-1] + b' xmlns:D="urn:other">',
                one[0][:-1] + b' xmlns="DAV:">',
                one[0][:-1] + b"".join(b' a%d="b"' % n for n in range(2000)) + b">",
                one[0][:-1] + b' a="' + b"v" * 90_000 + b'">',
                b"<![CDATA[" + one[0] + b"]]>",
                b"<!--" + one[0] + b"-->",
                b"<?pi " + b"p" * 5000 + b"?>" + one[0],
                one[0].upper(),
                one[0].replace(b"D:", b"").replace(b"d:", b""),
            )
        )
        return data[: one.start()] + new + data[one.end() :]

    # --- of the document

    def _dtd(self, data: bytes) -> bytes:
        head = data.find(b"?>") + 2 if data.startswith(b"<?xml") else 0
        data = data[:head] + self.dice.choice(DTDS) + data[head:]
        return self._text_with_reference(data)

    def _text_with_reference(self, data: bytes) -> bytes:
        found = list(_TEXT.finditer(data, 0, 40_000))
        if not found:
            return data
        one = self.dice.choice(found)
        return data[: one.start(1)] + self.dice.choice(REFERENCES) + data[one.end(1) :]

    def _encoded(self, data: bytes) -> bytes:
        text = data.decode("utf-8", "replace")
        return text.encode(self.dice.choice(ENCODINGS), "replace")

    def _declared(self, data: bytes) -> bytes:
        declared = b'<?xml version="1.0" encoding="' + self.dice.choice(DECLARED) + b'"?>'
        end = data.find(b"?>") + 2 if data.startswith(b"<?xml") else 0
        return declared + data[end:]

    _changes: Sequence[Callable[[Mutator, bytes], bytes]] = (
        _flip,
        _cut,
        _double,
        _insert,
        _splice,
        _element_doubled,
        _element_nested,
        _text_replaced,
        _text_replaced,
        _number_replaced,
        _tag_changed,
        _dtd,
        _encoded,
        _declared,
    )


_VALUES: Final[dict[bytes, Sequence[bytes]]] = {
    b"content-length": NUMBERS,
    b"content-range": RANGES,
    b"date": DATES,
    b"last-modified": DATES,
    b"retry-after": (*NUMBERS, *DATES),
    b"etag": TAGS,
    b"location": PLACES,
    b"lock-token": (
        b"<>",
        b"<",
        b"<opaquelocktoken:a>",
        b"<" + b"a" * 9000 + b">",
        b"<a> <b>",
        b"\xff",
        b"<\r>",
    ),
    b"timeout": (
        b"Infinite",
        b"Second-",
        b"Second-99999999999999999999",
        b"Second--1",
        b"Infinite, Second-1",
        *NUMBERS,
    ),
    b"www-authenticate": CHALLENGES,
    b"transfer-encoding": (b"chunked", b"gzip", b"chunked, chunked", b"identity"),
    b"connection": (b"close", b"keep-alive", b"upgrade"),
    b"keep-alive": (b"timeout=", b"timeout=-1, max=x", "timeout=٣".encode(), b"timeout=" + b"9" * 40),
}
