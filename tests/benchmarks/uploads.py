"""The line of uploads: whole calibrations through the service, and the same bytes inserted by the drivers alone."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from tests.benchmarks import bare_drivers, correctness, requests_sent
from tests.benchmarks.dataset import Stock
from tests.benchmarks.harness import BACKENDS, Bench, Served, beside, rates
from tests.benchmarks.load import Failure, Load
from tests.benchmarks.ratios import Figure, at_least

CLIENTS = 4


def durable_upload(bench: Bench) -> Iterator[Figure]:
    """100 kB, 4 clients: each upload is on disk when it is acknowledged, as each bare insert is."""
    stock = Stock(bench.small, 100_000)
    for kind in BACKENDS:
        title = f"durable upload of 100 kB, {CLIENTS} clients{beside(kind)}"
        reference = f"bare inserts, {kind}"
        with ExitStack() as running:
            server = running.enter_context(bench.serve(kind, stock, writing=True))
            rounds = bench.alternate(
                title,
                {
                    kind: partial(_uploads, bench, server),
                    reference: partial(bare_drivers.inserts, bench.empty(kind), stock.size, CLIENTS, bench.seconds),
                },
            )
        yield rates(title, rounds, kind, reference, at_least(0.5))


def _uploads(bench: Bench, server: Served) -> Load:
    before = correctness.serial(server)
    load = bench.loading(server, requests_sent.upload(server.stock, server.token), CLIENTS)()
    stored = correctness.serial(server) - before
    # Those under way at the end are stored, and wrk does not wait for their answers.
    if not load.requests <= stored <= load.requests + CLIENTS:
        raise Failure(f"{load.requests} uploads were acknowledged, and {stored} are stored")
    return load
