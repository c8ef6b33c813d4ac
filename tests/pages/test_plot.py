"""Where the marks of a plot stand, and what it says in words."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdb_server.pages.payload import plot
from cdb_server.pages.payload.plot import Plot, Series


def drawn(*values: float | None, signed: bool = False) -> Plot:
    labels = [str(number) for number in range(len(values))]
    found = plot.by_channel("gain", "channel", labels, [Series("", values)], signed=signed)
    assert found is not None
    return found


def test_marks_stand_where_their_values_are() -> None:
    """Each channel in the middle of its share of the width, the greatest value uppermost."""
    found = drawn(0, 5, 10)
    assert [(mark.x, mark.top, mark.bottom) for mark in found.series[0].marks] == [
        (16.67, 100.0, 100.0),
        (50.0, 50.0, 50.0),
        (83.33, 0.0, 0.0),
    ]
    assert [tick.text for tick in found.y_ticks] == ["0", "2", "4", "6", "8", "10"]
    assert [tick.text for tick in found.x_ticks] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("low", "high", "first", "last"),
    [
        (-76465.3, -47158.2, "\N{MINUS SIGN}80000", "\N{MINUS SIGN}40000"),
        (0.71, 1.28, "0.6", "1.4"),
        (1.0, 1.0, "0.4", "1.6"),
        (0.0, 0.0, "\N{MINUS SIGN}1.0", "1.0"),
        (-8.08e10, 2.7e9, "\N{MINUS SIGN}1.0e+11", "2.0e+10"),
        (1e-9, 4e-9, "1e\N{MINUS SIGN}09", "4e\N{MINUS SIGN}09"),
        (-0.0, 3.0, "0", "3"),
    ],
)
def test_ticks_are_round_numbers_around_the_values(low: float, high: float, first: str, last: str) -> None:
    """Of four channels as of a million, of ten digits as of none."""
    found = drawn(low, high)
    assert (found.y_ticks[0].text, found.y_ticks[-1].text) == (first, last)
    assert all(0 <= mark.top <= 100 for mark in found.series[0].marks)
    assert 2 <= len(found.y_ticks) <= 9


def test_a_difference_shows_where_nought_is() -> None:
    """Even where all are above it."""
    assert drawn(4, 5, signed=True).zero == 100.0
    assert drawn(400, 500).zero is None


def test_a_gap_is_left_for_what_is_not_known() -> None:
    """And nothing is drawn of nothing."""
    assert len(drawn(1, None, 3).series[0].marks) == 2
    assert plot.by_channel("gain", "channel", ["1"], [Series("", [None])]) is None


def test_many_channels_share_a_mark() -> None:
    """From the least of their values to the greatest; and the words say so."""
    found = drawn(*(float(n % 7) for n in range(8400)))
    assert found.channels_per_mark == 35
    assert len(found.series[0].marks) == plot.MAX_MARKS
    assert found.series[0].marks[0].text == "0 to 34: 0 to 6"


def test_what_is_shown_is_said_in_words() -> None:
    """For who does not see it."""
    series = [Series("12", [1, -2.5]), Series("7", [0, 1e6])]
    found = plot.by_channel("t0", "channel", ["a", "b"], series)
    assert found is not None
    assert found.text == "t0 by channel, 2 channels, 12: from \N{MINUS SIGN}2.5 to 1; 7: from 0 to 1e+06"
    assert found.series[1].marks[1].text == "b: 1e+06 (7)"


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.none(), min_size=1, max_size=600), st.booleans())
@example([0.0, 5e-323], False)
@example([5e-324, 5e-324], True)
@example([1e308, -1e308], False)
@example([1e308, 2e306] * 200, False)
@example([math.nextafter(1, 2), 1.0], False)
def test_no_numbers_break_it(values: list[float | None], signed: bool) -> None:
    """At the ends of what a float can hold, a plot or none; and what it draws lies within it."""
    labels = [str(number) for number in range(len(values))]
    found = plot.by_channel("gain", "channel", labels, [Series("", values)], signed=signed)
    if found is not None:
        marks = found.series[0].marks
        places = [place for mark in marks for place in (mark.x, mark.y, mark.top, mark.bottom)]
        assert all(0 <= place <= 100 for place in places)
        assert all(0 <= tick.at <= 100 for tick in [*found.x_ticks, *found.y_ticks])
        assert 2 <= len(found.y_ticks) <= 9
