"""Which period a timeline shows, by what the address asks; and the addresses of the periods beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from cdb_server.model import Extent
from cdb_server.pages import drawing, typed, words


@dataclass(frozen=True, slots=True)
class Look:
    """The `period` that is shown; what was typed, and what was wrong with it; whether it is all there is to see."""

    period: Extent
    start: str
    stop: str
    wrong: str
    whole: bool


def looked_at(asked: Mapping[str, str], extent: Extent | None, now: datetime) -> Look:
    """The period between `from` and `to`; all of the extent, where they are not given or wrong. One alone is enough."""
    everything = drawing.period_around(extent, now)
    start, stop = asked.get("from", "").strip(), asked.get("to", "").strip()
    if not start and not stop:
        return Look(everything, "", "", "", whole=True)
    try:
        first, last = typed.period(start or words.exact(everything.start), stop or words.exact(everything.stop))
    except ValueError as error:
        return Look(everything, start, stop, str(error), whole=True)
    return Look(Extent(first, last), start, stop, "", whole=False)


def ways(look: Look) -> list[tuple[str, str]]:
    """From here: labels, and the queries that show them."""
    period = look.period
    length = period.stop - period.start
    beside = {
        "Earlier": Extent(drawing.moved(period.start, -length / 2), drawing.moved(period.stop, -length / 2)),
        "Later": Extent(drawing.moved(period.start, length / 2), drawing.moved(period.stop, length / 2)),
        "Closer": drawing.widened(period, -length / 4),
        "Further": drawing.widened(period, length / 2),
    }
    return [
        (label, query(each))
        for label, each in beside.items()
        if each.stop - each.start >= drawing.SHORTEST and each != period
    ]


def parts(period: Extent, ticks: list[drawing.Tick]) -> list[tuple[str, str]]:
    """What lies between the ticks, each by its label."""
    ends = [*(tick.at for tick in ticks), period.stop]
    return [
        (tick.label, query(Extent(tick.at, stop)))
        for tick, stop in zip(ticks, ends[1:], strict=True)
        if stop - tick.at >= drawing.SHORTEST
    ]


def query(period: Extent) -> str:
    """The query of a period."""
    return urlencode({"from": words.exact(period.start), "to": words.exact(period.stop)})
