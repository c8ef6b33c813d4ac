"""How pages spell things: instants, ages, sizes, numbers. Plain functions, the filters of the templates."""

import json
import re
from datetime import datetime, timedelta
from urllib.parse import quote

from cdb_server import instants

_UNITS = (
    ("year", timedelta(days=365.2425)),
    ("month", timedelta(days=30.436875)),
    ("day", timedelta(days=1)),
    ("hour", timedelta(hours=1)),
    ("minute", timedelta(minutes=1)),
    ("second", timedelta(seconds=1)),
)

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")


def instant(at: datetime) -> str:
    """`2016-03-01 08:00:00`, in UTC; microseconds only where there are any."""
    text = instants.spell(at)[:-1].replace("T", " ")
    return text.removesuffix(".000000")


def second(at: datetime) -> str:
    """The same to the second, where finer is of no use."""
    return instant(at.replace(microsecond=0))


def exact(at: datetime) -> str:
    """The contract's spelling, for addresses and for `<time datetime>`."""
    return instants.spell(at)


def age(passed: timedelta | float) -> str:
    """A length of time in words, in its two greatest units at most: `3 years`, `1 day 4 hours`, `a moment`."""
    left = passed if isinstance(passed, timedelta) else timedelta(seconds=passed)
    for at, (unit, length) in enumerate(_UNITS):
        if left >= length:
            number = left // length
            told = count(number, unit)
            # Beyond ten of a unit, and below the minute, nobody wants to know it finer.
            if number < 10 and unit != "minute" and at + 1 < len(_UNITS):
                smaller, length_of_smaller = _UNITS[at + 1]
                rest = (left - number * length) // length_of_smaller
                told += f" {count(rest, smaller)}" if rest else ""
            return told
    return "a moment"


def size(size_bytes: int) -> str:
    """`0 bytes`, `912 bytes`, `12.3 kB`, `1.2 MB`."""
    if size_bytes < 1000:
        return count(size_bytes, "byte")
    if size_bytes < 999_950:
        return f"{size_bytes / 1000:.1f} kB"
    return f"{size_bytes / 1_000_000:.1f} MB"


def count(number: int, of: str = "") -> str:
    """`1,234`; of what: `1 run`, `2 runs`, `2 entries`."""
    if not of:
        return f"{number:,}"
    if number != 1:
        of = f"{of[:-1]}ies" if of.endswith("ry") else f"{of}s"
    return f"{number:,} {of}"


def segment(text: str) -> str:
    """A name as one segment of an address."""
    return quote(text, safe="")


def printable(text: str) -> str:
    """A text out of JSON as it may stand on a page: control characters and halves of characters spelled as in JSON."""
    return _UNPRINTABLE.sub(lambda found: json.dumps(found[0])[1:-1], text)
