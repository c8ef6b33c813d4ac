"""Parse and format times: text, dates and datetimes to UTC, and to the contract's or a person's notation."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta, timezone

from cdb._exceptions import InvalidArgument

# What methods accept as an instant: an aware datetime, a naive one (UTC), a date (its first instant), or text.
Instant = datetime | date | str

_TEXT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ]+(\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,6})0*)?)?)?"
    r"\s*(?:(Z|UTC)|([+-])(\d\d)(?::?(\d\d))?)?",
    re.ASCII | re.IGNORECASE,
)


def instant(argument: str, value: Instant) -> datetime:
    """Convert an instant to an aware datetime in UTC; an error names the `argument`.

    Text is ISO 8601 as people write it: `2016-03-01`, `2016-03-01 08:00`, `2016-03-01T08:00:00.123456Z`, `… +02:00`,
    `… UTC`. A time without offset is UTC. Raises InvalidArgument when it is none of these or finer than a microsecond.
    """
    try:
        if getattr(value, "nanosecond", 0):
            raise ValueError("finer than a microsecond")
        if isinstance(value, datetime):
            return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day, tzinfo=timezone.utc)
        if isinstance(value, str):
            return _parse_text(value)
        raise TypeError(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgument(
            f"{argument}: {str(value)[:60]!r} is not a time: write it like 2016-03-01, '2016-03-01 08:00:00' or "
            "2016-03-01T08:00:00.123456Z, in UTC and to the microsecond at most",
            argument=argument,
        ) from None


def format_instant(value: datetime) -> str:
    """Format an aware datetime as the contract does: `2016-03-01T08:00:00.000000Z`."""
    return f"{value.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _parse_text(text: str) -> datetime:
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    year, month, day, hour, minute, second, fraction, _, sign, hours, minutes = match.groups(default="0")
    date_and_time = (int(part) for part in (year, month, day, hour, minute, second, fraction.ljust(6, "0")))
    local = datetime(*date_and_time, tzinfo=timezone.utc)  # type: ignore[misc, arg-type]  # mypy cannot count them
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    if int(minutes) > 59 or offset > timedelta(hours=14):
        raise ValueError(text)
    return local + offset if sign == "-" else local - offset


def display_instant(value: datetime) -> str:
    """Format an instant for people: `2016-03-01 08:00:00`, UTC, with a fraction only if it is not zero."""
    utc = value.astimezone(timezone.utc)
    fraction = f".{utc.microsecond:06}" if utc.microsecond else ""
    return f"{utc.year:04}-{utc:%m-%d %H:%M:%S}{fraction}"
