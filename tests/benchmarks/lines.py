"""All lines that are measured, by name: those with a target, and what stands beside them."""

from collections.abc import Callable, Iterator

from tests.benchmarks import caching, clients, memory, pages, reading, scaling, uploads
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Figure

LINES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "same-question": reading.same_question,
    "random-dates": reading.random_dates,
    "bare-query": scaling.bare_query,
    "flatness": scaling.flatness,
    "query-alone": scaling.query_alone,
    "upload": uploads.durable_upload,
    "run-in-one-call": scaling.run_in_one_call,
    "connections": reading.connections,
    "memory": memory.caches_empty,
    "listing": scaling.listing,
    "varnish": caching.varnish,
    "python-client": clients.python_client,
    "memory-full": memory.caches_full,
    "pages": pages.pages,
}
