"""The line of Varnish: plain GET with a fixed as_of, which a cache may keep for ever."""

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

from tests.benchmarks import correctness, references, requests_sent
from tests.benchmarks.dataset import KEYS, Stock
from tests.benchmarks.harness import SQLITE, Bench, rates
from tests.benchmarks.load import Server, ask_often
from tests.benchmarks.ratios import Figure, at_least

# A farm's replay: so many jobs, each of one of so many runs, ask for everything that applies.
JOBS, RUNS = 1_000, 5


def varnish(bench: Bench) -> Iterator[Figure]:
    """Varnish before us, and before nginx with the same object; and which part of a farm's questions it answers."""
    stock = Stock(bench.small, 100_000)
    with ExitStack() as running:
        server = running.enter_context(bench.serve(SQLITE, stock))
        ours = running.enter_context(references.varnish(server))
        asked = stock.question(random.Random(1))
        question = requests_sent.plain(*asked, stock.as_of)
        expected = stock.data(stock.in_force(*asked))
        nginx = running.enter_context(references.nginx(stock, [("one", expected)]))
        its = running.enter_context(references.varnish(nginx))
        for cache, asking in ((ours, question), (its, requests_sent.static("one"))):
            # The second time from the cache.
            for _ in range(2):
                correctness.same(cache, asking, expected)
        title = "the same GET through Varnish, 100 kB, 16 connections"
        rounds = bench.alternate(
            title,
            {
                "Varnish before us": bench.loading(ours, question, 16),
                "Varnish before nginx": bench.loading(its, requests_sent.static("one"), 16),
            },
        )
        # "The cache's own speed", but for what chance does to two equal measurements.
        yield rates(title, rounds, "Varnish before us", "Varnish before nginx", at_least(0.9))

        def replayed() -> float:
            with references.varnish(server) as cache:
                farm = Server(cache.url, replace(stock, runs=RUNS), cache.processes)
                ask_often(farm, requests_sent.plain_for_runs(stock.as_of), JOBS * len(KEYS), connections=16)
                # As if no question more had been asked: those are hits, all of them.
                return 1 - cache.misses() / (JOBS * len(KEYS))

        title = f"hits in a replay of {JOBS:,} jobs, {RUNS} runs, {len(KEYS)} questions each"
        yield Figure(title, "all requests", bench.alternate(title, {"hits": replayed}).samples["hits"], at_least(0.99))
