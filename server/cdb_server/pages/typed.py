"""What people type into a form: run numbers and times as they write them. A ValueError says what is wrong with it."""

import re
from datetime import datetime, timedelta

from cdb_server import instants
from cdb_server.model import GREATEST_NUMBER

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MINUTE = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2})(Z|[+-]\d{2}:?\d{2})?", re.ASCII)


def instant(text: str) -> datetime:
    """`2016-03-01`, `2016-03-01 08:00`, `2016-03-01 08:00:00.5`, `2016-03-01T08:00:00Z`: in UTC, unless it says
    otherwise."""
    spelled = re.sub(r"\s*UTC$", "Z", text.strip(), flags=re.IGNORECASE)
    spelled = re.sub(r"^(\S{10})\s+", r"\1T", spelled)
    if _DAY.fullmatch(spelled):
        spelled += "T00:00:00"
    elif minute := _MINUTE.fullmatch(spelled):
        spelled = f"{minute[1]}:00{minute[2] or ''}"
    try:
        return instants.parse(spelled)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no time: write it as 2016-03-01 or 2016-03-01 08:00:00, in UTC") from None


def number(text: str) -> int:
    """A run number or an id."""
    digits = text.strip()
    if not digits.isascii() or not digits.isdigit() or not 1 <= int(digits[:20]) <= GREATEST_NUMBER:
        raise ValueError(f"{text[:40]!r} is no number: write digits alone, such as 7662")
    return int(digits)


def period(start: str, stop: str) -> tuple[datetime, datetime]:
    """Two times, the second one later."""
    first, last = instant(start), instant(stop)
    if last - first < timedelta(milliseconds=1):
        raise ValueError("the period ends before it begins: exchange its ends")
    return first, last
