"""All lines that are measured, by name: those of the issue's table, and what stands beside them."""

from collections.abc import Callable, Iterator

from tests.benchmarks import reading
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Figure

LINES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "same-question": reading.same_question,
    "random-dates": reading.random_dates,
    "connections": reading.connections,
}
