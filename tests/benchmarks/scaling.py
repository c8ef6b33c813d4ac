"""Lines that ask whether cost grows: with the number of calibrations, and with the rows of an answer."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from tests.benchmarks import bare_drivers, correctness, references, requests_sent
from tests.benchmarks.dataset import KEYS, Stock
from tests.benchmarks.harness import BACKENDS, SQLITE, Bench, Served, beside, rates
from tests.benchmarks.load import Load, Question
from tests.benchmarks.ratios import Figure, at_least

KB = 1_000
SIZE = KB
CONNECTIONS = 16
# As many as upload.
WRITERS = 4


class _Work(NamedTuple):
    """What shall cost the same among many calibrations as among few."""

    name: str
    # Bytes of each payload; a list brings none.
    size: int
    check: Callable[[Served], None]
    question: Callable[[Served], Question]
    writing: bool = False


def _look_up(_: Served) -> Question:
    return requests_sent.RANDOM_DATES


def _list(_: Served) -> Question:
    return requests_sent.LISTS_OF_100


def _upload(server: Served) -> Question:
    return requests_sent.upload(server.stock, server.token)


_WORKS = (
    _Work("look-up of 1 kB", KB, correctness.look_ups, _look_up),
    _Work("look-up of 100 kB", 100 * KB, correctness.look_ups, _look_up),
    _Work("listing of 100", KB, correctness.lists, _list),
    _Work("upload of 1 kB", KB, correctness.look_ups, _upload, writing=True),
    _Work("upload of 100 kB", 100 * KB, correctness.look_ups, _upload, writing=True),
)


def flatness(bench: Bench) -> Iterator[Figure]:
    """The same work on the largest database and on the smallest, each on its own server.

    On the largest first about all that it holds, then about as many neighbours as the smallest holds.
    """
    for kind in BACKENDS:
        target = at_least(0.9) if kind == SQLITE else None
        for work in _WORKS:
            few, many = Stock(bench.small, work.size), Stock(bench.large, work.size)
            least, greatest = (f"N = {stock.count:,}" for stock in (few, many))
            among = f"{greatest}, among {few.count:,}"
            with ExitStack() as running:
                small, large = (
                    running.enter_context(bench.serve(kind, stock, writing=work.writing)) for stock in (few, many)
                )
                neighbours = replace(large, stock=replace(many, among=few.count))
                servers = {least: small, greatest: large, among: neighbours}
                for server in servers.values():
                    work.check(server)
                connections = WRITERS if work.writing else CONNECTIONS
                contenders = {
                    name: bench.loading_warm(server, work.question(server), connections)
                    for name, server in servers.items()
                }
                # Not what it costs to fill the server's own caches, which the first round would measure.
                for asking in contenders.values():
                    asking()
                rounds = bench.alternate(f"{work.name}{beside(kind)}", contenders)
            yield rates(f"{work.name} at {greatest}{beside(kind)}", rounds, greatest, least, target)
            yield rates(f"{work.name} at {among}{beside(kind)}", rounds, among, least)


def query_alone(bench: Bench) -> Iterator[Figure]:
    """The same as flatness, without the service: its statements, said to SQLite by the driver in two processes."""
    few, many = Stock(bench.small, SIZE), Stock(bench.large, SIZE)
    least, greatest = (f"N = {stock.count:,}" for stock in (few, many))
    stocks = {least: few, greatest: many, f"{greatest}, among {few.count:,}": replace(many, among=few.count)}
    for what, lists in (("look-up", False), ("listing of 100", True)):
        title = f"the query of a {what} alone"
        contenders = {
            name: partial(bare_drivers.alone, bench.database(SQLITE, stock), stock, lists, 2, bench.seconds)
            for name, stock in stocks.items()
        }
        rounds = bench.alternate(title, contenders)
        for name in list(stocks)[1:]:
            yield rates(f"{title}, {name}", rounds, name, least)


def listing(bench: Bench) -> Iterator[Figure]:
    """Lists of 100 rows, each of another period, of the largest database; bare spyne lists 100 rows from memory."""
    stock = Stock(bench.large, SIZE)
    with ExitStack() as running:
        ours = {kind: running.enter_context(bench.serve(kind, stock)) for kind in BACKENDS}
        for server in ours.values():
            correctness.lists(server)
        spyne = running.enter_context(references.spyne(stock))
        title = f"get_ids with 100 rows, N = {stock.count:,}"
        contenders = {
            kind: bench.loading(server, requests_sent.LISTS_OF_100, CONNECTIONS) for kind, server in ours.items()
        }
        contenders["bare spyne"] = bench.loading(spyne, requests_sent.LISTS_OF_100, CONNECTIONS)
        rounds = bench.alternate(title, contenders)
    for kind in BACKENDS:
        yield rates(title + beside(kind), rounds, kind, "bare spyne", at_least(2) if kind == SQLITE else None)


def run_in_one_call(bench: Bench) -> Iterator[Figure]:
    """Everything that applies to a run, of all 50 devices and types, in one call, and each in a call of its own."""
    stock = Stock(bench.middle, SIZE)
    for kind in BACKENDS:
        title = f"get_calibrations_for_run, {len(KEYS)} keys in one call{beside(kind)}"
        with bench.serve(kind, stock) as server:
            correctness.runs(server)
            rounds = bench.alternate(
                title,
                {
                    "in one call": bench.loading(server, requests_sent.FOR_RUNS_ALL, CONNECTIONS),
                    "a call each": bench.loading(server, requests_sent.FOR_RUNS_ONE, CONNECTIONS),
                },
            )
        yield Figure(
            title,
            "a call each",
            tuple(len(KEYS) * ratio for ratio in rounds.ratios("in one call", "a call each", lambda load: load.rate)),
            at_least(10) if kind == SQLITE else None,
            {
                "ours_keys a second": len(KEYS) * rounds.median("in one call", lambda load: load.rate),
                "reference_keys a second": rounds.median("a call each", lambda load: load.rate),
            },
        )


def bare_query(bench: Bench) -> Iterator[Figure]:
    """Dates by chance, beside what the drivers alone take for the bare query in two processes."""
    stock = Stock(bench.middle, SIZE)
    for kind in BACKENDS:
        title = f"random dates, N = {stock.count:,}, 1 kB{beside(kind)}"
        reference = f"the bare query, {kind}"
        with bench.serve(kind, stock) as server:
            correctness.look_ups(server)
            contenders: dict[str, Callable[[], Load]] = {
                kind: bench.loading(server, requests_sent.RANDOM_DATES, CONNECTIONS),
                reference: partial(bare_drivers.look_ups, bench.database(kind, stock), stock, 2, bench.seconds),
            }
            rounds = bench.alternate(title, contenders)
        yield rates(title, rounds, kind, reference)
