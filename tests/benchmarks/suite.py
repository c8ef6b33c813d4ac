"""All lines that are measured, by name: those with a target, and what stands beside them."""

from collections.abc import Callable, Iterator

from tests.benchmarks import clients, lookups, memory, pages, scaling, uploads, varnish
from tests.benchmarks.harness import Bench
from tests.benchmarks.ratios import Figure

LINES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "same-question": lookups.same_question,
    "random-dates": lookups.random_dates,
    "bare-query": scaling.bare_query,
    "flatness": scaling.flatness,
    "query-alone": scaling.query_alone,
    "upload": uploads.durable_upload,
    "run-in-one-call": scaling.run_in_one_call,
    "connections": lookups.connections,
    "memory": memory.caches_empty,
    "listing": scaling.listing,
    "varnish": varnish.varnish,
    "python-client": clients.python_client,
    "memory-full": memory.caches_full,
    "pages": pages.pages,
}
