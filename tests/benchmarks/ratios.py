"""Figures: a ratio to a reference measured in the same run, round by round, and whether it holds its target."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Target:
    """A bound to be held."""

    bound: float
    at_least: bool

    def holds(self, ratio: float) -> bool:
        """Whether a ratio lies on the right side; the bound itself does."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


def at_least(bound: float) -> Target:
    """More is better."""
    return Target(bound, at_least=True)


def at_most(bound: float) -> Target:
    """Less is better."""
    return Target(bound, at_least=False)


@dataclass(frozen=True)
class Figure:
    """What was measured: `ratios` of ours to the reference, one a round; `details` are the absolute values, by name.

    Without a target it stands beside, for comparison.
    """

    name: str
    reference: str
    ratios: Sequence[float]
    target: Target | None = None
    details: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.ratios:
            raise ValueError(f"{self.name}: nothing was measured")

    @property
    def ratio(self) -> float:
        """The median of all rounds: what is held against the target."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the greatest of all rounds."""
        return min(self.ratios), max(self.ratios)

    @property
    def holds(self) -> bool | None:
        """Whether the target is held; None without one."""
        return None if self.target is None else self.target.holds(self.ratio)


@dataclass(frozen=True)
class Rounds(Generic[Sample]):
    """What each contender measured, one sample a round."""

    samples: Mapping[str, Sequence[Sample]]

    @classmethod
    def alternating(
        cls, rounds: int, contenders: Mapping[str, Callable[[], Sample]], tell: Callable[[int, str, Sample], None]
    ) -> "Rounds[Sample]":
        """Let each measure in turn, again and again, so that what else the machine does falls on all alike."""
        samples: dict[str, list[Sample]] = {name: [] for name in contenders}
        for number in range(rounds):
            for name, measure in contenders.items():
                samples[name].append(measure())
                tell(number, name, samples[name][-1])
        return cls(samples)

    def ratios(self, ours: str, reference: str, value: Callable[[Sample], float]) -> tuple[float, ...]:
        """Ours to the reference's, round by round."""
        pairs = zip(self.samples[ours], self.samples[reference], strict=True)
        return tuple(value(our) / value(its) for our, its in pairs)

    def median(self, name: str, value: Callable[[Sample], float]) -> float:
        """The median of one contender's values."""
        return statistics.median(map(value, self.samples[name]))
