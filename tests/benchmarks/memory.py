"""The lines of memory: a server that has just begun, and a worker whose caches are full."""

from collections.abc import Iterator

from tests.benchmarks import correctness, requests_sent
from tests.benchmarks.dataset import Stock
from tests.benchmarks.harness import SQLITE, Bench
from tests.benchmarks.load import ask_often
from tests.benchmarks.processes import Memory
from tests.benchmarks.ratios import Figure, at_most

MB = 1_000_000
# Both in bytes.
EMPTY, FULL = 120 * MB, 200 * MB
# Questions that fill any cache: the answers to each kind are some 400 MB and 1.4 GB.
QUESTIONS = 10_000


def caches_empty(bench: Bench) -> Iterator[Figure]:
    """All processes of a server with two workers, once each has answered something: all its code is loaded then."""
    title = "memory of a server, 2 workers, caches empty"

    def measure() -> Memory:
        with bench.serve(SQLITE, Stock(bench.middle, 1_000)) as server:
            correctness.look_ups(server)
            return sum(server.processes.memory().values(), Memory(0, 0))

    rounds = bench.alternate(title, {"all processes": measure})
    measured = rounds.samples["all processes"]
    yield Figure(
        title,
        f"{EMPTY // MB} MB",
        # Workers are copies of their parent: what all share is there once, and is counted once.
        [memory.proportional / EMPTY for memory in measured],
        at_most(1),
        {
            "ours_memory": rounds.median("all processes", lambda memory: memory.resident),
            "proportional_memory": rounds.median("all processes", lambda memory: memory.proportional),
        },
    )


def caches_full(bench: Bench) -> Iterator[Figure]:
    """The largest worker, after questions by chance, and others again and again, of more than any cache holds."""
    title = "memory of a worker, caches full"

    def measure() -> Memory:
        with bench.serve(SQLITE, Stock(bench.middle, 100_000)) as server:
            for question in (requests_sent.RANDOM_DATES, requests_sent.REPEATED):
                ask_often(server, question, QUESTIONS, connections=16)
            used = server.processes.memory()
            return max((used[number] for number in server.workers()), key=lambda memory: memory.resident)

    rounds = bench.alternate(title, {"a worker": measure})
    measured = rounds.samples["a worker"]
    yield Figure(
        title,
        f"{FULL // MB} MB",
        [memory.resident / FULL for memory in measured],
        at_most(1),
        {
            "ours_memory": rounds.median("a worker", lambda memory: memory.resident),
            "proportional_memory": rounds.median("a worker", lambda memory: memory.proportional),
        },
    )
