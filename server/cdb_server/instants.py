"""Parses and formats instants: UTC datetimes, microseconds since 1970, and their text form (rule 1).

Rule 1: "Everything is UTC with microseconds. A time without offset is UTC. A time finer than a microsecond is refused,
never rounded (zeros beyond the sixth digit are not finer)."
"""

import functools
import re
from datetime import datetime, timedelta, timezone

UTC = timezone.utc

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MICROSECOND = timedelta(microseconds=1)

MIN_INSTANT = datetime(1, 1, 1, tzinfo=UTC)

# What the contract's type `instant` admits; whether the day exists is for datetime to say.
INSTANT_PATTERN = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6}0*)?(Z|[+\-][0-9]{2}:[0-9]{2})?"
)

_INSTANT = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})T([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(?:\.(\d{1,6})0*)?(?:Z|([+-])(\d{2}):(\d{2}))?",
    re.ASCII,
)


def parse(text: str) -> datetime:
    """The instant that an `xs:dateTime` spells, in UTC.

    Raises ValueError, with a sentence for the caller, when the text spells none, is finer than a microsecond, or lies
    outside the years 1 to 9999 once its offset is taken off.
    """
    match = _INSTANT.fullmatch(text.strip(" \t\r\n"))
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a time like 2016-03-01T08:00:00.000000Z, to the microsecond at most")
    year, month, day, hour, minute, second, fraction, sign, offset_hours, offset_minutes = match.groups()
    try:
        instant = datetime(
            int(year),
            int(month),
            int(day),
            int(hour),
            int(minute),
            int(second),
            int((fraction or "0").ljust(6, "0")),
            UTC,
        )
        if sign:
            # XML Schema: an offset lies between -14:00 and +14:00.
            offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes))
            if int(offset_minutes) > 59 or offset > timedelta(hours=14):
                raise ValueError("offset")
            instant += offset if sign == "-" else -offset
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:40]!r} is no instant of the years 1 to 9999") from None
    return instant


def format_instant(instant: datetime) -> str:
    """The text of an instant: `2016-03-01T08:00:00.000000Z`, always with six digits of fraction."""
    utc = instant if instant.tzinfo is UTC else instant.astimezone(UTC)
    return f"{utc.isoformat('T', 'microseconds')[:-6]}Z"


def to_microseconds(instant: datetime) -> int:
    """Microseconds since 1970-01-01T00:00:00Z, exact in the years 1 to 9999. Raises ValueError for a naive datetime."""
    if instant.tzinfo is None:
        raise ValueError(f"{instant} has no time zone")
    return (instant - EPOCH) // MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """The reverse of `to_microseconds`."""
    return EPOCH + timedelta(microseconds=microseconds)


def format_microseconds(microseconds: int) -> str:
    """As `spell`, of microseconds since 1970: for lists, without a datetime in between."""
    day, rest = divmod(microseconds, _MICROSECONDS_PER_DAY)
    minute, rest = divmod(rest, 60_000_000)
    second, micro = divmod(rest, 1_000_000)
    return f"{_date(day)}{_MINUTES[minute]}{_SECONDS[second]}{micro:06}Z"


_MICROSECONDS_PER_DAY = 24 * 60 * 60 * 1_000_000

_MINUTES = tuple(f"T{hour:02}:{minute:02}:" for hour in range(24) for minute in range(60))

_SECONDS = tuple(f"{second:02}." for second in range(60))


@functools.lru_cache(10_000)
def _date(day: int) -> str:
    return (EPOCH + timedelta(days=day)).date().isoformat()


def now() -> datetime:
    """The present instant by this machine's clock."""
    return datetime.now(UTC)
