"""Lines of one look-up each: the same question, dates by chance, many connections."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from tests.benchmarks import correctness, references, requests_sent
from tests.benchmarks.dataset import Stock
from tests.benchmarks.harness import BACKENDS, POSTGRESQL, SQLITE, Bench, beside, rates
from tests.benchmarks.load import Load, Question, Server
from tests.benchmarks.ratios import Figure, at_least, at_most

KB = 1_000


def _one(stock: Stock) -> Question:
    return requests_sent.for_date(*stock.question(random.Random(1)))


def same_question(bench: Bench) -> Iterator[Figure]:
    """One question again and again, as a farm asks it; nginx serves the bytes of the answer as a file."""
    for size, target in ((100 * KB, at_least(0.8)), (KB, at_least(0.5))):
        stock = Stock(bench.small, size)
        with ExitStack() as running:
            ours = {kind: running.enter_context(bench.serve(kind, stock)) for kind in BACKENDS}
            nginx, question = _static(running, ours[SQLITE], stock)
            correctness.same(ours[POSTGRESQL], question, correctness.answer(ours[SQLITE], question))
            for connections in (16, 1):
                title = f"same question, {size // KB} kB, {_connections(connections)}"
                contenders = {kind: bench.loading(server, question, connections) for kind, server in ours.items()}
                contenders["nginx"] = bench.loading(nginx, requests_sent.static("one"), connections)
                rounds = bench.alternate(title, contenders)
                yield rates(title, rounds, SQLITE, "nginx", target if connections == 16 else None)
                yield rates(title + beside(POSTGRESQL), rounds, POSTGRESQL, "nginx")


def random_dates(bench: Bench) -> Iterator[Figure]:
    """Every question another, caches empty at the begin of each round; nginx serves the same bytes, 10,000 answers."""
    stock = Stock(bench.middle, 100 * KB)
    with ExitStack() as running:
        with bench.serve(SQLITE, stock) as server:
            correctness.look_ups(server)
            bench.tell(f"{stock.answers:,} answers for nginx")
            nginx = running.enter_context(references.nginx(stock, _every_answer(server, stock)))
        spyne = running.enter_context(references.spyne(stock))
        for connections in (16, 1):
            title = f"random dates, N = {stock.count:,}, {stock.size // KB} kB, {_connections(connections)}"
            contenders: dict[str, Callable[[], Load]] = {
                **{kind: partial(_cold, bench, kind, stock, connections) for kind in BACKENDS},
                "nginx": bench.loading(nginx, requests_sent.STATIC_ANSWERS, connections),
                "bare spyne": bench.loading(spyne, requests_sent.RANDOM_DATES, connections),
            }
            rounds = bench.alternate(title, contenders)
            many = connections == 16
            for kind in BACKENDS:
                held = many and kind == SQLITE
                yield rates(title + beside(kind), rounds, kind, "nginx", at_least(0.3) if held else None)
                yield rates(title + beside(kind), rounds, kind, "bare spyne", at_least(2.5) if held else None)
                yield Figure(
                    f"99th percentile of {title}{beside(kind)}",
                    "bare spyne",
                    rounds.ratios(kind, "bare spyne", lambda load: load.p99),
                    at_most(0.25) if held else None,
                    {
                        "ours_p99": rounds.median(kind, lambda load: load.p99),
                        "reference_p99": rounds.median("bare spyne", lambda load: load.p99),
                    },
                )


def connections(bench: Bench) -> Iterator[Figure]:
    """The same question, hot: on a new connection for every call, and on 256 connections."""
    for size in (100 * KB, KB):
        stock = Stock(bench.small, size)
        with ExitStack() as running:
            server = running.enter_context(bench.serve(SQLITE, stock))
            nginx, question = _static(running, server, stock)
            static = requests_sent.static("one")
            for what, number, headers in (
                ("a new connection for every call", 16, {"Connection": "close"}),
                ("256 connections", 256, {}),
            ):
                title = f"{what}, {size // KB} kB"
                ours = replace(question, headers={**question.headers, **headers})
                its = replace(static, headers=headers)
                rounds = bench.alternate(
                    title,
                    {
                        SQLITE: bench.loading(server, ours, number),
                        "nginx": bench.loading(nginx, its, number),
                    },
                )
                yield rates(title, rounds, SQLITE, "nginx", at_least(0.7) if size == 100 * KB else None)


def _cold(bench: Bench, kind: str, stock: Stock, connections: int) -> Load:
    with bench.serve(kind, stock) as server:
        correctness.look_ups(server)
        return bench.loading(server, requests_sent.RANDOM_DATES, connections)()


def _every_answer(server: Server, stock: Stock) -> Iterator[tuple[str, bytes]]:
    for number in range(1, stock.answers + 1):
        yield str(number), correctness.answer(server, requests_sent.for_date(*stock.answered(number)))


def _static(running: ExitStack, server: Server, stock: Stock) -> tuple[Server, Question]:
    """nginx with the bytes of an answer, which was checked, and the question."""
    correctness.look_ups(server)
    question = _one(stock)
    expected = correctness.answer(server, question)
    nginx = running.enter_context(references.nginx(stock, [("one", expected)]))
    correctness.same(nginx, requests_sent.static("one"), expected)
    # Both workers.
    for _ in range(8):
        correctness.same(server, question, expected)
    return nginx, question


def _connections(number: int) -> str:
    return "1 connection" if number == 1 else f"{number} connections"
