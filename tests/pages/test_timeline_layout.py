"""The geometry of timelines, at its boundaries."""

from datetime import datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdb_server.instants import MICROSECOND, MIN_INSTANT, UTC
from cdb_server.model import Lane, TimelinePoint, TimeRange
from cdb_server.pages import timeline_layout

START, STOP = datetime(2016, 1, 1, tzinfo=UTC), datetime(2017, 1, 1, tzinfo=UTC)
YEAR = TimeRange(START, STOP)


def lane(*in_force: datetime, whole: bool = True) -> timeline_layout.DrawnLane:
    began = tuple(TimelinePoint(number, at) for number, at in enumerate(in_force, 1))
    return timeline_layout.draw_lane(Lane("TOF1", "t0", began, (), (), whole), YEAR)


def test_bars_follow_each_other_without_a_gap_and_the_last_reaches_the_end() -> None:
    """Half-open intervals: each ends where the next one begins; the first is cut where the period begins."""
    middle = START + (STOP - START) / 2
    bars = lane(START - timedelta(days=1000), middle).bars
    assert [(bar.x, bar.width, bar.second) for bar in bars] == [("0.00%", "50.00%", False), ("50.00%", "50.00%", True)]
    assert "until 2016-07-02 00:00:00" in bars[0].title
    assert "until" not in bars[1].title


def test_an_empty_lane_has_no_bars_and_says_so() -> None:
    """No calibration is none in force, also in words."""
    drawn = lane()
    assert drawn.bars == ()
    assert drawn.description == "0 calibrations in force between 2016-01-01 00:00:00 and 2017-01-01 00:00:00."


def test_too_many_are_drawn_as_their_changes_once_a_thousandth() -> None:
    """Two changes within a thousandth of the width are one stroke."""
    drawn = lane(START, START + timedelta(days=100), START + timedelta(days=100, minutes=1), whole=False)
    assert drawn.bars == ()
    assert drawn.changes == "M273 0v1"
    assert drawn.description.startswith("More calibrations")


INSTANTS = st.datetimes(timezones=st.just(UTC))


@given(INSTANTS, st.timedeltas(MICROSECOND, timedelta(days=3_000_000)), st.integers(3, 12))
@example(datetime(9999, 12, 13, tzinfo=UTC), timedelta(days=12), 3)
@example(datetime(2000, 1, 1, tzinfo=UTC), timedelta(days=1_826_213), 3)
def test_ticks_lie_within_any_period_in_order_and_are_few(start: datetime, length: timedelta, most: int) -> None:
    """From a microsecond to all of time: no more than asked, and the one that a rounding of months may add."""
    stop = timeline_layout.shift(start, length)
    if stop <= start:
        return
    found = timeline_layout.ticks(TimeRange(start, stop), most)
    at = [tick.at for tick in found]
    assert at == sorted(set(at))
    assert all(start <= each <= stop for each in at)
    assert len(at) <= most + 2
    assert len({tick.label for tick in found}) == len(at)


def test_ticks_have_labels_as_long_as_they_differ() -> None:
    """Years, months, days, minutes."""
    for days, label in (
        (3000, "2018"),
        (365, "2016-01"),
        (365, "2016-04"),
        (20, "2016-01-05"),
        (1, "2016-01-01 06:00"),
    ):
        labels = [tick.label for tick in timeline_layout.ticks(TimeRange(START, START + timedelta(days=days)))]
        assert label in labels, labels


@pytest.mark.parametrize("start", [MIN_INSTANT, START, timeline_layout.MAX_INSTANT - timedelta(seconds=1)])
def test_no_way_leads_out_of_time(start: datetime) -> None:
    """Earlier than the year 1 and later than 9999 there is nothing to look at, and no error."""
    look = timeline_layout.window_from_query(
        {"from": start.isoformat(), "to": (start + timedelta(seconds=1)).isoformat()}, None, START
    )
    assert look.period.start == start
    for _, query in timeline_layout.navigation(look):
        assert query.startswith("from=")


def test_one_end_of_a_period_is_enough_and_a_wrong_one_is_told() -> None:
    """What is not typed is where everything begins or ends; what cannot be read is said, and everything shown."""
    extent = TimeRange(START, STOP)
    everything = timeline_layout.window_from_query({}, extent, STOP)
    assert everything.is_everything
    assert everything.period.start < START
    assert everything.period.stop > STOP
    later = timeline_layout.window_from_query({"from": "2016-06-01"}, extent, STOP)
    assert later.period == TimeRange(datetime(2016, 6, 1, tzinfo=UTC), everything.period.stop)
    for wrong in ({"from": "yesterday"}, {"from": "2016-06-01", "to": "2016-06-01"}, {"to": "1999-01-01"}):
        look = timeline_layout.window_from_query(wrong, extent, STOP)
        assert look.problem
        assert look.period == everything.period
