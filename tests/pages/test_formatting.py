"""How pages spell things, and how they read what people type."""

from datetime import datetime, timedelta

import pytest

from cdb_server import arguments
from cdb_server.instants import UTC
from cdb_server.pages import context

AT = datetime(2016, 3, 1, 8, tzinfo=UTC)


def test_an_instant_shows_microseconds_only_where_it_has_some() -> None:
    """Whole seconds are whole seconds."""
    assert context.format_for_page(AT) == "2016-03-01 08:00:00"
    assert context.format_for_page(AT.replace(microsecond=20)) == "2016-03-01 08:00:00.000020"
    assert context.format_to_second(AT.replace(microsecond=20)) == "2016-03-01 08:00:00"
    assert context.format_exact(AT) == "2016-03-01T08:00:00.000000Z"


@pytest.mark.parametrize(
    ("passed", "told"),
    [
        (timedelta(0), "a moment"),
        (timedelta(microseconds=999_999), "a moment"),
        (timedelta(seconds=1), "1 second"),
        (timedelta(seconds=59), "59 seconds"),
        (timedelta(minutes=3, seconds=20), "3 minutes"),
        (timedelta(hours=1), "1 hour"),
        (timedelta(hours=1, minutes=1), "1 hour 1 minute"),
        (timedelta(days=2, hours=5), "2 days 5 hours"),
        (timedelta(days=40), "1 month 9 days"),
        (timedelta(days=800), "2 years 2 months"),
        (timedelta(days=5000), "13 years"),
        (timedelta(days=-1), "a moment"),
        (12.5, "12 seconds"),
    ],
)
def test_an_age_is_told_in_its_two_greatest_units(passed: timedelta | float, told: str) -> None:
    """As people say it."""
    assert context.format_age(passed) == told


def test_sizes_and_counts() -> None:
    """One of a thing is singular."""
    assert [context.format_size(each) for each in (0, 1, 999, 1000, 999_949, 999_950)] == [
        "0 bytes",
        "1 byte",
        "999 bytes",
        "1.0 kB",
        "999.9 kB",
        "1.0 MB",
    ]
    assert [context.format_count(1, "entry"), context.format_count(2000, "entry"), context.format_count(0, "run")] == [
        "1 entry",
        "2,000 entries",
        "0 runs",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "2016-03-01 08:00",
        " 2016-03-01T08:00:00Z ",
        "2016-03-01 08:00:00 UTC",
        "2016-03-01  08:00:00.000",
        "2016-03-01 10:00+02:00",
    ],
)
def test_a_time_is_read_as_people_write_it(text: str) -> None:
    """Without an offset it is UTC."""
    assert arguments.parse_typed_instant(text) == AT
    assert arguments.parse_typed_instant("2016-03-01") == AT.replace(hour=0)


@pytest.mark.parametrize("text", ["", "yesterday", "1.3.2016", "2016-02-30", "2016-03-01 08:00:00.0000001", "2016"])
def test_what_is_no_time_is_told_how_to_write_one(text: str) -> None:
    """Finer than a microsecond is refused, never rounded."""
    with pytest.raises(ValueError, match="write it as"):
        arguments.parse_typed_instant(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "7.5", "run 7", "9" * 30, "٣"])
def test_what_is_no_run_number_is_told_so(text: str) -> None:
    """From 1 on, in 63 bits, in ASCII."""
    with pytest.raises(ValueError, match="digits alone"):
        arguments.parse_typed_number(text)
    assert arguments.parse_typed_number(" 7662 ") == 7662
