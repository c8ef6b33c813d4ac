"""The geometry of a timeline: where in a period something lies, as a share of the width, and which ticks divide it.

Everything horizontal is a percentage, so that a drawing is as wide as its place, and its text as large as all other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from cdb_server import instants
from cdb_server.model import Beginning, Extent, Lane, RunStart
from cdb_server.pages import words

LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=instants.UTC)
SHORTEST = timedelta(milliseconds=1)
_SECOND = timedelta(seconds=1)

# What may lie between two ticks: in months, or as a length of time; and how much of an instant's text tells them apart.
_MONTHS = (1, 3, 6, 12, 24, 60, 120, 240, 600, 1200, 2400, 6000, 12000, 24000, 60000)
_LENGTHS = (
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
    told: str


def period_around(extent: Extent | None, now: datetime) -> Extent:
    """The period in which all of it can be seen; the present too, where it is not far."""
    if extent is None:
        return around(now, timedelta(days=365))
    stop = extent.stop
    length = max(stop - extent.start, timedelta(days=1))
    if stop < now < stop + length / 4:
        stop = now
    return widened(Extent(extent.start, stop), length / 40)


def around(middle: datetime, length: timedelta) -> Extent:
    """A period of a length, as far as there is time."""
    return widened(Extent(middle, middle), length / 2)


def widened(period: Extent, by: timedelta) -> Extent:
    """A period that begins earlier and ends later; narrower, where `by` is negative."""
    return Extent(moved(period.start, -by), moved(period.stop, by))


def moved(at: datetime, by: timedelta) -> datetime:
    """Another instant, or the end of all time."""
    if by < timedelta(0):
        return instants.FIRST if at - instants.FIRST < -by else at + by
    return LAST if LAST - at < by else at + by


def place(period: Extent, at: datetime) -> float:
    """Where an instant lies, in percent of the period."""
    return (at - period.start) / (period.stop - period.start) * 100


def ticks(period: Extent, most: int = 8) -> list[Tick]:
    """At most so many instants that divide the period, at round times; fewer where their labels are long."""
    length = period.stop - period.start
    for each in _LENGTHS:
        digits = (
            10 if each >= timedelta(days=1) else 16 if each >= timedelta(minutes=1) else 19 if each >= _SECOND else 23
        )
        if length / each <= most * 8 // digits:
            at = [*_every(period, each)]
            break
    else:
        months = next((each for each in _MONTHS if length / timedelta(days=30.4 * each) <= most), _MONTHS[-1])
        digits = 4 if months % 12 == 0 else 7
        at = [*_every_months(period, months)]
    return [_tick(each, place(period, each), words.exact(each)[:digits].replace("T", " ")) for each in at]


def lane(drawn: Lane, period: Extent) -> DrawnLane:
    """A device and type."""
    if drawn.whole:
        bars, changes = tuple(_bars(drawn.in_force, period)), ""
    else:
        places = sorted({round(place(period, each.valid_from) * 10) for each in drawn.in_force})
        bars, changes = (), "".join(f"M{x} 0v1" for x in places if x > 0)
    first = place(period, drawn.in_force[0].valid_from) if drawn.in_force else 100.0
    return DrawnLane(
        bars,
        changes,
        _percent(max(0.0, first)),
        tuple(_mark(each, period, "withdrawn") for each in drawn.withdrawn),
        tuple(_mark(each, period, "superseded at once") for each in drawn.superseded),
        _told(drawn, period),
    )


def run_marks(runs: list[RunStart], period: Extent) -> list[Mark]:
    """The runs."""
    return [
        Mark(_percent(place(period, run.start_time)), f"run {run.run_number}, {words.second(run.start_time)}")
        for run in runs
    ]


def mark(at: datetime, period: Extent, title: str) -> Mark | None:
    """An instant, if it lies in the period."""
    return Mark(_percent(place(period, at)), title) if period.start <= at <= period.stop else None


def _tick(at: datetime, x: float, label: str) -> Tick:
    # A label at an end of the axis lies beside its tick, not half of it outside.
    return Tick(at, _percent(x), label, "start" if x < 4 else "end" if x > 96 else "middle")


def _bars(in_force: tuple[Beginning, ...], period: Extent) -> Iterator[Bar]:
    for number, each in enumerate(in_force):
        until = in_force[number + 1].valid_from if number + 1 < len(in_force) else None
        begin = max(0.0, place(period, each.valid_from))
        end = 100.0 if until is None else min(100.0, place(period, until))
        title = f"number {each.id}, from {words.instant(each.valid_from)}"
        if until is not None:
            title += f" until {words.instant(until)}"
        yield Bar(_percent(begin), _percent(end - begin), title, number % 2 == 1)


def _mark(each: Beginning, period: Extent, what: str) -> Mark:
    return Mark(
        _percent(place(period, each.valid_from)),
        f"number {each.id}, {what}, valid from {words.instant(each.valid_from)}",
    )


def _told(drawn: Lane, period: Extent) -> str:
    """The drawing in words, for whoever does not see it."""
    when = f"between {words.second(period.start)} and {words.second(period.stop)}"
    if not drawn.whole:
        return f"More calibrations were in force {when} than can be told apart."
    told = f"{words.count(len(drawn.in_force), 'calibration')} in force {when}"
    if drawn.withdrawn:
        told += f", {len(drawn.withdrawn)} withdrawn"
    if drawn.superseded:
        told += f", {len(drawn.superseded)} superseded at once"
    return f"{told}."


def _every(period: Extent, length: timedelta) -> Iterator[datetime]:
    number = -((instants.EPOCH - period.start) // length)
    # By lengths, for there may be no instant after the last one.
    while (since := number * length) <= period.stop - instants.EPOCH:
        yield instants.EPOCH + since
        number += 1


def _every_months(period: Extent, months: int) -> Iterator[datetime]:
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
