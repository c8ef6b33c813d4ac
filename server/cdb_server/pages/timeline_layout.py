"""Lays out timelines: the shown period and its navigation links, bars, marks and axis ticks.

Everything horizontal is a percentage, so that a drawing is as wide as its place, and its text as large as all other.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from cdb_server import arguments, instants
from cdb_server.model import Lane, RunStart, TimelinePoint, TimeRange
from cdb_server.pages import context

MAX_INSTANT = datetime(9999, 12, 31, 23, 59, 59, tzinfo=instants.UTC)

MIN_PERIOD = timedelta(milliseconds=1)

_SECOND = timedelta(seconds=1)

# What may lie between two ticks: in months, or as a length of time; and how much of an instant's text tells them apart.
_TICK_MONTHS = (1, 3, 6, 12, 24, 60, 120, 240, 600, 1200, 2400, 6000, 12000, 24000, 60000)

_TICK_STEPS = (
    *(timedelta(milliseconds=each) for each in (1, 10, 100)),
    *(timedelta(seconds=each) for each in (1, 5, 15, 60, 300, 900, 3600, 10800, 21600, 43200)),
    *(timedelta(days=each) for each in (1, 2, 5, 10)),
)


@dataclass(frozen=True, slots=True)
class Bar:
    """A calibration in force: from x on, so wide, both in percent; what it is; whether its shade is the second."""

    x: str
    width: str
    title: str
    second: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """An instant: where, in percent, and what happened."""

    x: str
    title: str


@dataclass(frozen=True, slots=True)
class Tick:
    """An instant of the axis, and its label."""

    at: datetime
    x: str
    label: str
    anchor: str


@dataclass(frozen=True, slots=True)
class DrawnLane:
    """One device and type. Where there are too many to tell apart, `changes` holds the path of their boundaries, in
    thousandths of the width, in place of `bars`; `told` says it all in words."""

    bars: tuple[Bar, ...]
    changes: str
    changes_from: str
    withdrawn: tuple[Mark, ...]
    superseded: tuple[Mark, ...]
    description: str


def default_period(extent: TimeRange | None, now: datetime) -> TimeRange:
    """The period in which all of it can be seen; the present too, where it is not far."""
    if extent is None:
        return period_of(now, timedelta(days=365))
    stop = extent.stop
    length = max(stop - extent.start, timedelta(days=1))
    if stop < now < stop + length / 4:
        stop = now
    return widen(TimeRange(extent.start, stop), length / 40)


def period_of(middle: datetime, length: timedelta) -> TimeRange:
    """A period of a length, as far as there is time."""
    return widen(TimeRange(middle, middle), length / 2)


def widen(period: TimeRange, by: timedelta) -> TimeRange:
    """A period that begins earlier and ends later; narrower, where `by` is negative."""
    return TimeRange(shift(period.start, -by), shift(period.stop, by))


def shift(at: datetime, by: timedelta) -> datetime:
    """Another instant, or the end of all time."""
    if by < timedelta(0):
        return instants.MIN_INSTANT if at - instants.MIN_INSTANT < -by else at + by
    return MAX_INSTANT if MAX_INSTANT - at < by else at + by


def percent_of(period: TimeRange, at: datetime) -> float:
    """Where an instant lies, in percent of the period."""
    return (at - period.start) / (period.stop - period.start) * 100


def ticks(period: TimeRange, most: int = 8) -> list[Tick]:
    """At most so many instants that divide the period, at round times; fewer where their labels are long."""
    length = period.stop - period.start
    for each in _TICK_STEPS:
        digits = (
            10 if each >= timedelta(days=1) else 16 if each >= timedelta(minutes=1) else 19 if each >= _SECOND else 23
        )
        if length / each <= most * 8 // digits:
            at = [*_every(period, each)]
            break
    else:
        months = next((each for each in _TICK_MONTHS if length / timedelta(days=30.4 * each) <= most), _TICK_MONTHS[-1])
        digits = 4 if months % 12 == 0 else 7
        at = [*_every_months(period, months)]
    return [_tick(each, percent_of(period, each), context.format_exact(each)[:digits].replace("T", " ")) for each in at]


def draw_lane(drawn: Lane, period: TimeRange) -> DrawnLane:
    """A device and type."""
    if drawn.complete:
        bars, changes = tuple(_bars(drawn.in_force, period)), ""
    else:
        places = sorted({round(percent_of(period, each.valid_from) * 10) for each in drawn.in_force})
        bars, changes = (), "".join(f"M{x} 0v1" for x in places if x > 0)
    first = percent_of(period, drawn.in_force[0].valid_from) if drawn.in_force else 100.0
    return DrawnLane(
        bars,
        changes,
        _percent(max(0.0, first)),
        tuple(_mark(each, period, "withdrawn") for each in drawn.withdrawn),
        tuple(_mark(each, period, "superseded at once") for each in drawn.superseded),
        _description(drawn, period),
    )


def run_marks(runs: list[RunStart], period: TimeRange) -> list[Mark]:
    """The runs."""
    return [
        Mark(
            _percent(percent_of(period, run.start_time)),
            f"run {run.run_number}, {context.format_to_second(run.start_time)}",
        )
        for run in runs
    ]


def mark(at: datetime, period: TimeRange, title: str) -> Mark | None:
    """An instant, if it lies in the period."""
    return Mark(_percent(percent_of(period, at)), title) if period.start <= at <= period.stop else None


def _tick(at: datetime, x: float, label: str) -> Tick:
    # A label at an end of the axis lies beside its tick, not half of it outside.
    return Tick(at, _percent(x), label, "start" if x < 4 else "end" if x > 96 else "middle")


def _bars(in_force: tuple[TimelinePoint, ...], period: TimeRange) -> Iterator[Bar]:
    for number, each in enumerate(in_force):
        until = in_force[number + 1].valid_from if number + 1 < len(in_force) else None
        begin = max(0.0, percent_of(period, each.valid_from))
        end = 100.0 if until is None else min(100.0, percent_of(period, until))
        title = f"number {each.id}, from {context.format_for_page(each.valid_from)}"
        if until is not None:
            title += f" until {context.format_for_page(until)}"
        yield Bar(_percent(begin), _percent(end - begin), title, number % 2 == 1)


def _mark(each: TimelinePoint, period: TimeRange, what: str) -> Mark:
    return Mark(
        _percent(percent_of(period, each.valid_from)),
        f"number {each.id}, {what}, valid from {context.format_for_page(each.valid_from)}",
    )


def _description(drawn: Lane, period: TimeRange) -> str:
    """The drawing in words, for whoever does not see it."""
    when = f"between {context.format_to_second(period.start)} and {context.format_to_second(period.stop)}"
    if not drawn.complete:
        return f"More calibrations were in force {when} than can be told apart."
    told = f"{context.format_count(len(drawn.in_force), 'calibration')} in force {when}"
    if drawn.withdrawn:
        told += f", {len(drawn.withdrawn)} withdrawn"
    if drawn.superseded:
        told += f", {len(drawn.superseded)} superseded at once"
    return f"{told}."


def _every(period: TimeRange, length: timedelta) -> Iterator[datetime]:
    number = -((instants.EPOCH - period.start) // length)
    # By lengths, for there may be no instant after the last one.
    while (since := number * length) <= period.stop - instants.EPOCH:
        yield instants.EPOCH + since
        number += 1


def _every_months(period: TimeRange, months: int) -> Iterator[datetime]:
    since = (period.start.year * 12 + period.start.month - 1) // months * months
    for month in range(since, 12 * 10_000, months):
        # There is no year 0.
        at = datetime(max(1, month // 12), month % 12 + 1, 1, tzinfo=instants.UTC)
        if at > period.stop:
            return
        if at >= period.start and month >= 12:
            yield at


def _percent(number: float) -> str:
    return f"{number:.2f}%"


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """The `period` that is shown; what was typed, and what was wrong with it; whether it is all there is to see."""

    period: TimeRange
    start: str
    stop: str
    problem: str
    is_everything: bool


def window_from_query(asked: Mapping[str, str], extent: TimeRange | None, now: datetime) -> TimeWindow:
    """The period between `from` and `to`; all of the extent, where they are not given or wrong. One alone is enough."""
    everything = default_period(extent, now)
    start, stop = asked.get("from", "").strip(), asked.get("to", "").strip()
    if not start and not stop:
        return TimeWindow(everything, "", "", "", is_everything=True)
    try:
        first, last = arguments.parse_typed_period(
            start or context.format_exact(everything.start), stop or context.format_exact(everything.stop)
        )
    except ValueError as error:
        return TimeWindow(everything, start, stop, str(error), is_everything=True)
    return TimeWindow(TimeRange(first, last), start, stop, "", is_everything=False)


def navigation(look: TimeWindow) -> list[tuple[str, str]]:
    """From here: labels, and the queries that show them."""
    period = look.period
    length = period.stop - period.start
    beside = {
        "Earlier": TimeRange(shift(period.start, -length / 2), shift(period.stop, -length / 2)),
        "Later": TimeRange(shift(period.start, length / 2), shift(period.stop, length / 2)),
        "Closer": widen(period, -length / 4),
        "Further": widen(period, length / 2),
    }
    return [
        (label, period_query(each))
        for label, each in beside.items()
        if each.stop - each.start >= MIN_PERIOD and each != period
    ]


def tick_links(period: TimeRange, ticks: list[Tick]) -> list[tuple[str, str]]:
    """What lies between the ticks, each by its label."""
    ends = [*(tick.at for tick in ticks), period.stop]
    return [
        (tick.label, period_query(TimeRange(tick.at, stop)))
        for tick, stop in zip(ticks, ends[1:], strict=True)
        if stop - tick.at >= MIN_PERIOD
    ]


def period_query(period: TimeRange) -> str:
    """The query of a period."""
    return urlencode({"from": context.format_exact(period.start), "to": context.format_exact(period.stop)})
