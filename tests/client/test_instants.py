"""Instants as people write them."""

from datetime import date, datetime, timedelta, timezone

import pytest

from cdb import InvalidArgument
from cdb._instants import format_instant, instant

UTC = timezone.utc


class Nanoseconds(datetime):
    """An instant finer than a microsecond, as some libraries have it."""

    nanosecond = 1


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2016-03-01", datetime(2016, 3, 1, tzinfo=UTC)),
        ("2016-03-01 08:00", datetime(2016, 3, 1, 8, tzinfo=UTC)),
        ("2016-03-01 08:00:00", datetime(2016, 3, 1, 8, tzinfo=UTC)),
        ("2016-03-01T08:00:00Z", datetime(2016, 3, 1, 8, tzinfo=UTC)),
        ("2016-03-01t08:00:00z", datetime(2016, 3, 1, 8, tzinfo=UTC)),
        (" 2016-03-01 08:00:00.1 ", datetime(2016, 3, 1, 8, 0, 0, 100000, tzinfo=UTC)),
        ("2016-03-01 08:00:00.123456", datetime(2016, 3, 1, 8, 0, 0, 123456, tzinfo=UTC)),
        ("2016-03-01 08:00:00.123456000", datetime(2016, 3, 1, 8, 0, 0, 123456, tzinfo=UTC)),
        ("2016-03-01 08:00:00 +02:00", datetime(2016, 3, 1, 6, tzinfo=UTC)),
        ("2016-03-01T08:00:00-0130", datetime(2016, 3, 1, 9, 30, tzinfo=UTC)),
        ("2016-03-01 08:00:00,123456", datetime(2016, 3, 1, 8, 0, 0, 123456, tzinfo=UTC)),
        ("2016-03-01 08:00:00+02", datetime(2016, 3, 1, 6, tzinfo=UTC)),
        ("2016-03-01 08:00 UTC", datetime(2016, 3, 1, 8, tzinfo=UTC)),
        ("0001-01-01", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31 23:59:59.999999", datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        (date(2016, 3, 1), datetime(2016, 3, 1, tzinfo=UTC)),
        (datetime(2016, 3, 1, 8), datetime(2016, 3, 1, 8, tzinfo=UTC)),
        (datetime(2016, 3, 1, 8, tzinfo=timezone(timedelta(hours=2))), datetime(2016, 3, 1, 6, tzinfo=UTC)),
    ],
)
def test_an_instant_is_taken_as_it_is_meant(written: str | date, meant: datetime) -> None:
    """Rule 1: everything is UTC with microseconds, and a time without offset is UTC."""
    read = instant("date", written)
    assert (read, read.utcoffset()) == (meant, timedelta(0))
    assert instant("date", format_instant(read)) == read


@pytest.mark.parametrize(
    "written",
    [
        "",
        "now",
        "2016",
        "2016-02-30",
        "2016-13-01",
        "2016-03-01 24:00:00",
        "2016-03-01 08:00:60",
        "2016-03-01 08:00:00.1234567",
        "0001-01-01 00:00:00 +01:00",
        "٢٠١٦-03-01",
        "2016-03-01 08:00:00 GMT",
        "2016-03-01 00:00:00 +14:01",
        "2016-03-01 00:00:00 +01:60",
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        Nanoseconds(2016, 3, 1),
        None,
        1456819200,
        b"2016-03-01",
    ],
)
def test_what_is_no_instant_is_refused_by_the_name_of_its_argument(written: object) -> None:
    """Rule 1: "A time finer than a microsecond is refused, never rounded"."""
    with pytest.raises(InvalidArgument, match=r"valid_from: .* is not a time") as refused:
        instant("valid_from", written)  # type: ignore[arg-type]  # what no caller may give
    assert refused.value.argument == "valid_from"
