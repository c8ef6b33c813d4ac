"""Lays out a plot of numbers by channel: marks, ticks, and its description in words.

Positions are percentages from the left and from the top, so that a plot is as wide as the page and its text as large
as any other.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

# From so many channels on, neighbours share a mark: their mean, and a line from the least to the greatest of them.
MAX_MARKS = 240

X_TICKS, Y_TICKS = 6, 5

MAX_TICK_CHARACTERS = 16

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers to be drawn, one for each channel; None leaves a gap."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """What is drawn for a channel, or for neighbouring ones: their mean at `y`, all of them from `top` to `bottom`.

    `text` says it in words.
    """

    x: float
    y: float
    top: float
    bottom: float
    text: str


@dataclass(frozen=True, slots=True)
class DrawnSeries:
    """A series as it is drawn."""

    name: str
    marks: Sequence[Mark]


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot, with what it shows in words. `zero` is where nought is, when it lies between; `gathered` is how many
    channels share a mark."""

    text: str
    x_name: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    zero: float | None
    channels_per_mark: int
    series: Sequence[DrawnSeries]


def by_channel(
    title: str, x_name: str, labels: Sequence[str], series: Sequence[Series], *, signed: bool = False
) -> Plot | None:
    """Values over the channels of these labels; None where there is none. A `signed` plot has nought in it."""
    known = [value for one in series for value in one.values if value is not None]
    if not known:
        return None
    low, high = min(known), max(known)
    if signed:
        low, high = min(low, 0.0), max(high, 0.0)
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    if not math.isfinite(high - low):
        return None
    spelled = _tick_texts(ticks)
    count = len(labels)
    gathered = max(1, math.ceil(count / MAX_MARKS))

    def y(value: float) -> float:
        # In this order: a hundred times the greatest numbers is infinite.
        return round(100 * ((high - value) / (high - low)), 2)

    def x(channel: float) -> float:
        return round(100 * (channel + 0.5) / count, 2)

    drawn = [
        DrawnSeries(
            one.name,
            [
                Mark(
                    x((start + stop - 1) / 2),
                    y(mean(some)),
                    y(max(some)),
                    y(min(some)),
                    _mark_text(one.name, labels, start, stop, some),
                )
                for start in range(0, count, gathered)
                for stop in [min(start + gathered, count)]
                for some in [[value for value in one.values[start:stop] if value is not None]]
                if some
            ],
        )
        for one in series
    ]
    places = sorted({round(at * (count - 1) / (X_TICKS - 1)) for at in range(X_TICKS)})
    return Plot(
        _plot_text(title, count, series),
        x_name,
        [Tick(x(at), _shortened(labels[at])) for at in places],
        [Tick(y(tick), text) for tick, text in zip(ticks, spelled, strict=True)],
        y(0.0) if low <= 0.0 <= high else None,
        gathered,
        drawn,
    )


def mean(values: Sequence[float]) -> float:
    """The mean of some numbers. Their sum may be more than a float holds."""
    return sum(value / len(values) for value in values)


def format_number(value: float) -> str:
    """A number to be read, with six digits."""
    return f"{value:.6g}".replace("-", MINUS)


def format_difference(value: float) -> str:
    """A difference to be read."""
    return f"{value:+.6g}".replace("-", MINUS)


def format_percent(share: float) -> str:
    """A share to be read."""
    return f"{100 * share:+.3g} %".replace("-", MINUS)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers over a range, which they enclose but for less than a step."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        # What is all but flat stands in the middle.
        wide = abs(low) / 2 or 1.0
        low, high = low - wide, high + wide
    rough = (high - low) / Y_TICKS
    # Below the least normal number there are too few digits for round ones.
    if not math.isfinite(rough) or rough < sys.float_info.min:
        return [low, high]
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next((one for one in (1, 2, 5) if one * power >= rough * 0.999), 10)
    return [step * at for at in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _tick_texts(ticks: Sequence[float]) -> list[str]:
    """The ticks as text, all with as many digits as tell them apart."""
    step = ticks[1] - ticks[0]
    greatest = max(map(abs, ticks))
    if greatest >= 1e7 or step < 1e-5:
        digits = max(0, math.floor(math.log10(greatest)) - math.floor(math.log10(step)))
        texts = [f"{tick:.{digits}e}" if tick else "0" for tick in ticks]
    else:
        digits = max(0, -math.floor(math.log10(step * 1.001)))
        texts = [f"{tick + 0.0:.{digits}f}" for tick in ticks]
    return [text.replace("-", MINUS) for text in texts]


def _shortened(label: str) -> str:
    return label if len(label) <= MAX_TICK_CHARACTERS else f"{label[: MAX_TICK_CHARACTERS - 1]}…"


def _mark_text(name: str, labels: Sequence[str], start: int, stop: int, values: Sequence[float]) -> str:
    channels = labels[start] if stop - start == 1 else f"{labels[start]} to {labels[stop - 1]}"
    low, high = min(values), max(values)
    spelled = format_number(low) if low == high else f"{format_number(low)} to {format_number(high)}"
    return f"{channels}: {spelled}{f' ({name})' if name else ''}"


def _plot_text(title: str, count: int, series: Sequence[Series]) -> str:
    ranges = []
    for one in series:
        known = [value for value in one.values if value is not None]
        if known:
            span = f"from {format_number(min(known))} to {format_number(max(known))}"
            ranges.append(f"{one.name}: {span}" if one.name else span)
    return f"{title} by channel, {count} channels, {'; '.join(ranges)}"
