"""The date forms that servers write, read into whole seconds since 1970. Pure and total.

Takes RFC 1123 (`Sat, 21 Nov 2026 02:19:01 GMT`), the same with a numeric zone, a single-digit day
or without a weekday, RFC 850, asctime, and RFC 3339 with or without fractions. All of them come as
getlastmodified: libphodav writes RFC 3339 there (servers.md 18).
A date that cannot be read is None, never 1970 (peers.md, rule 1).
"""

from __future__ import annotations

import calendar
import re
from datetime import date
from functools import lru_cache
from typing import Final

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1
    )
}
_DAY: Final = r"(?P<day>\d{1,2})"
_MONTH: Final = r"(?P<month>[a-z]{3})"
_CLOCK: Final = r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,]\d+)?)?"
_ZONE: Final = r"(?P<zone>GMT|UTC|UT|Z|[+-]\d{2}:?\d{2})"
_FORMS: Final = tuple(
    re.compile(form, re.IGNORECASE | re.ASCII)
    for form in (
        # RFC 1123 and RFC 850 (dashes, two-digit year, long weekday)
        rf"(?:[a-z]+,?\s+)?{_DAY}[ -]{_MONTH}[ -](?P<year>\d{{4}}|\d{{2}})\s+{_CLOCK}(?:\s*{_ZONE})?",
        # asctime
        rf"[a-z]+\s+{_MONTH}\s+{_DAY}\s+{_CLOCK}\s+(?P<year>\d{{4}})",
        # RFC 3339
        rf"(?P<year>\d{{4}})-(?P<month>\d{{2}})-(?P<day>\d{{2}})[T ]\s*{_CLOCK}\s*(?:{_ZONE})?",
    )
)
_LONGEST: Final = 64  # no form is longer; what is longer is not a date


def _zone_offset_s(zone: str | None) -> int | None:
    if zone is None or zone[0] not in "+-":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    if hours > 23 or minutes > 59:
        return None
    return (hours * 3600 + minutes * 60) * (-1 if zone[0] == "-" else 1)


def _full_year(digits: str) -> int:
    year = int(digits)
    if len(digits) == 4:
        return year
    return year + (1900 if year >= 70 else 2000)  # RFC 850 dates end with the century of Unix time


def _month(text: str) -> int:
    return int(text) if text.isdigit() else _MONTHS.get(text.lower(), 0)


def _seconds(found: re.Match[str]) -> int | None:
    fields = found.groupdict()
    hour, minute, second = (int(fields[name] or 0) for name in ("hour", "minute", "second"))
    offset_s = _zone_offset_s(fields.get("zone"))
    if hour > 23 or minute > 59 or second > 60 or offset_s is None:  # :60 is a leap second
        return None
    try:
        day = date(_full_year(fields["year"]), _month(fields["month"]), int(fields["day"]))
    except ValueError:
        return None
    return calendar.timegm((day.year, day.month, day.day, hour, minute, second)) - offset_s


# Files of one folder share their seconds: a cache is a third cheaper over 100,000 entries.
@lru_cache(maxsize=4096)
def parse_date(text: str | None) -> int | None:
    """Seconds since 1970 (UTC), or None for what is no date. A missing zone is taken as UTC."""
    if text is None or len(text) > _LONGEST:
        return None
    text = text.strip()
    for form in _FORMS:
        found = form.fullmatch(text)
        if found is not None:
            return _seconds(found)
    return None
