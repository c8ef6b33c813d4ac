"""Counts requests, durations and cache hits in memory that all workers share, and serves GET /metrics."""

import fcntl
import logging
import mmap
import os
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from time import perf_counter_ns

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cdb_server import __version__
from cdb_server.errors import RETRY_AFTER_SECONDS, Unavailable
from cdb_server.http.admission import ThreadPool
from cdb_server.http.protocol.request_rules import HttpError
from cdb_server.http.response_cache import EncodedResponse
from cdb_server.pages.views import PAGE_NAMES
from cdb_server.repository.reader import Reader
from cdb_server.soap import endpoint, legacy_operations, types

# Upper bounds of the buckets of durations, in nanoseconds; a last bucket holds what took longer.
DURATION_BOUNDS_NANOSECONDS = tuple(
    microseconds * 1_000
    for microseconds in (
        *(100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000),
        *(100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000),
    )
)

BUCKET_COUNT = len(DURATION_BOUNDS_NANOSECONDS) + 1

# Of an operation: the buckets of answers that were ready, of those that were found, and of what went wrong; the sum of
# all durations; then what went wrong, by outcome. What went well is in one bucket, and counted nowhere else.
CACHED_OFFSET, COMPUTED_OFFSET, FAILED_OFFSET, DURATION_SUM_OFFSET, OUTCOMES_OFFSET = (
    0,
    BUCKET_COUNT,
    2 * BUCKET_COUNT,
    3 * BUCKET_COUNT,
    3 * BUCKET_COUNT + 1,
)

# Of a row: whether it was ever used, answers that were not ready and might have been, and the first operation.
USED_FIELD, CACHE_MISSES_FIELD, OPERATIONS_OFFSET = 0, 1, 2

COUNTER_BYTES = 8


@dataclass(frozen=True)
class CounterLayout:
    """Where a row has what: `operations` and `outcomes` are all that are told apart, the last of each standing for any
    other."""

    operations: tuple[str, ...]
    outcomes: tuple[str, ...]

    @property
    def length(self) -> int:
        """Numbers in a row."""
        return OPERATIONS_OFFSET + len(self.operations) * self._operation_length

    def offsets(self) -> dict[str, int]:
        """Where the numbers of each operation begin."""
        return {name: OPERATIONS_OFFSET + at * self._operation_length for at, name in enumerate(self.operations)}

    @property
    def _operation_length(self) -> int:
        return OUTCOMES_OFFSET + len(self.outcomes)


class SharedCounters:
    """Made before the workers, which begin as copies of their parent: the same in all of them.

    Each number is written by one process alone, so that none is lost and there is no lock that a process could take
    with it. Whoever comes after one that died counts on in its row.
    """

    def __init__(self, layout: CounterLayout, rows: int) -> None:
        file = os.memfd_create("cdb-counts")
        os.ftruncate(file, layout.length * rows * COUNTER_BYTES)
        self._file = file
        self.layout = layout
        self._number_of_rows = rows
        self._numbers = memoryview(mmap.mmap(file, layout.length * rows * COUNTER_BYTES)).cast("Q")

    def row(self) -> "memoryview[int]":
        """This process's own, until it ends; for one thread."""
        *rows, last = self._rows()
        for number, row in enumerate(rows):
            try:
                # The kernel gives it back when the process ends, however that is.
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError:
                continue
            row[USED_FIELD] = 1
            return row
        # More processes than ever were meant, which share it and may miss some: better than not to serve.
        last[USED_FIELD] = 1
        return last

    def totals(self) -> list[int]:
        """The sums over all processes that ever were."""
        used = [row for row in self._rows() if row[USED_FIELD]]
        return [sum(numbers) for numbers in zip(*used, strict=True)] or [0] * self.layout.length

    def _rows(self) -> "Iterator[memoryview[int]]":
        length = self.layout.length
        return (self._numbers[at : at + length] for at in range(0, length * self._number_of_rows, length))


# The key of the request metrics in the state of the application's lifespan, where connections find them.
REQUEST_METRICS = "cdb.metrics"

# Where the application leaves, in a request's scope, which operation it is, or its answer by SOAP, which says it too.
OPERATION_KEY, ANSWER_KEY = "cdb.operation", "cdb.answer"

# By GET, beside the operations of SOAP.
PAYLOAD_OPERATION, CALIBRATION_OPERATION, WSDL_OPERATION, METRICS_OPERATION = (
    "payload",
    "calibration",
    "wsdl",
    "metrics",
)

# A request that was turned away before anybody looked what it asks for.
UNKNOWN_OPERATION = "-"

# Of HTTP's own answers, those that there are.
HTTP_ERROR_STATUSES = (400, 401, 403, 404, 405, 408, 413, 415, 416, 431, 500, 501, 503, 505)

OTHER_OUTCOME = "other"


def counter_layout() -> CounterLayout:
    """What is told apart: nothing that a caller could make up."""
    return CounterLayout(
        (
            *endpoint.operations(),
            *legacy_operations.legacy_operations(),
            PAYLOAD_OPERATION,
            CALIBRATION_OPERATION,
            WSDL_OPERATION,
            METRICS_OPERATION,
            *PAGE_NAMES,
            UNKNOWN_OPERATION,
        ),
        (*types.FAULT_NAMES, *map(str, HTTP_ERROR_STATUSES), OTHER_OUTCOME),
    )


class RequestMetrics:
    """What one worker counts. For the thread of its event loop alone."""

    def __init__(self, counts: SharedCounters) -> None:
        self._row = counts.row()
        self._offsets = counts.layout.offsets()
        self._unknown = self._offsets[counts.layout.operations[-1]]
        self._outcomes = {name: OUTCOMES_OFFSET + at for at, name in enumerate(counts.layout.outcomes)}
        self._other = self._outcomes[counts.layout.outcomes[-1]]

    def count_soap(self, ready: EncodedResponse, began: int) -> None:
        """Count an answer by SOAP to a request that `began` at an instant of perf_counter_ns."""
        took = perf_counter_ns() - began
        row = self._row
        try:
            place = self._offsets[ready.operation]
        except KeyError:
            place = self._unknown
        if ready.was_sent:
            kind = CACHED_OFFSET
        elif ready.fault:
            kind = FAILED_OFFSET
            row[place + self._outcomes.get(ready.fault, self._other)] += 1
        else:
            kind = COMPUTED_OFFSET
            ready.was_sent = True
            if ready.cacheability is not None:
                row[CACHE_MISSES_FIELD] += 1
        row[place + kind + bisect_left(DURATION_BOUNDS_NANOSECONDS, took)] += 1
        row[place + DURATION_SUM_OFFSET] += took

    def count_http(self, operation: str, status: int, began: int) -> None:
        """Count an answer by HTTP alone, as `answered`."""
        took = perf_counter_ns() - began
        place = self._offsets.get(operation, self._unknown)
        kind = COMPUTED_OFFSET
        if status >= 400:
            kind = FAILED_OFFSET
            self._row[place + self._outcomes.get(str(status), self._other)] += 1
        self._row[place + kind + bisect_left(DURATION_BOUNDS_NANOSECONDS, took)] += 1
        self._row[place + DURATION_SUM_OFFSET] += took

    def count_refusal(self, status: int) -> None:
        """Count what a connection turns away by itself."""
        self.count_http(UNKNOWN_OPERATION, status, perf_counter_ns())


log = logging.getLogger(__name__)

METRICS_PATH = "/metrics"

_SECOND = 1_000_000_000

_BOUNDS = (*(str(bound / _SECOND) for bound in DURATION_BOUNDS_NANOSECONDS), "+Inf")


def metrics_route(counts: SharedCounters, reader: Reader, threads: ThreadPool, *, writes: bool) -> Route:
    """The route; `writes` says whether there are any."""
    registry = CollectorRegistry()
    registry.register(_StateCollector(reader, writes=writes))
    registry.register(_RequestCollector(counts))

    async def endpoint(request: Request) -> Response:
        request.scope[OPERATION_KEY] = METRICS_OPERATION
        try:
            text = await threads.run(lambda: generate_latest(registry))
        except Unavailable as error:
            return HttpError(503, error.message, {"Retry-After": RETRY_AFTER_SECONDS}).response()
        return Response(text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4, "Cache-Control": "no-store"})

    return Route(METRICS_PATH, endpoint, methods=["GET"])


class _StateCollector(Collector):
    """How the server stands now. What it cannot tell is absent, as the lag is of a master."""

    def __init__(self, reader: Reader, *, writes: bool) -> None:
        self._reader = reader
        self._writes = writes

    def collect(self) -> Iterator[Metric]:
        """The families."""
        status = None
        try:
            status = self._reader.status()
        except Unavailable:
            pass
        except Exception:
            log.exception("what the server says of itself cannot be read")
        if self._writes:
            stopped = status is None or status.status != "OK"
            yield _gauge("cdb_writes_stopped", "1 while writes are refused, as the status says why", stopped)
        if status is None:
            yield _gauge("cdb_database_up", "Whether the database can be read", False)
            return
        yield _gauge("cdb_database_up", "Whether the database can be read", True)
        info = GaugeMetricFamily("cdb_info", "1, for what the labels say", labels=("role", "version"))
        info.add_metric((status.role, __version__), 1)
        yield info
        yield _gauge("cdb_serial", "Entries of the journal", status.serial)
        if status.lag_entries is not None:
            yield _gauge("cdb_mirror_lag_entries", "Entries known to exist and not here yet", status.lag_entries)
        if status.lag_seconds is not None:
            yield _gauge("cdb_mirror_lag_seconds", "Seconds since the master was last heard", status.lag_seconds)


class _RequestCollector(Collector):
    """What was counted since the server was started, by all its workers."""

    def __init__(self, counts: SharedCounters) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """The families."""
        requests = CounterMetricFamily("cdb_requests", "Requests answered", labels=("operation", "outcome"))
        durations = HistogramMetricFamily(
            "cdb_request_duration_seconds", "From a request's headers to its answer's", labels=("operation",)
        )
        totals = self._counts.totals()
        hits = 0
        for operation, place in self._counts.layout.offsets().items():
            ready, found, failed = (
                totals[place + kind : place + kind + BUCKET_COUNT]
                for kind in (CACHED_OFFSET, COMPUTED_OFFSET, FAILED_OFFSET)
            )
            hits += sum(ready)
            if well := sum(ready) + sum(found):
                requests.add_metric((operation, "ok"), well)
            for at, outcome in enumerate(self._counts.layout.outcomes, place + OUTCOMES_OFFSET):
                if totals[at]:
                    requests.add_metric((operation, outcome), totals[at])
            buckets = list(accumulate(map(sum, zip(ready, found, failed, strict=True))))
            if buckets[-1]:
                durations.add_metric(
                    (operation,),
                    list(zip(_BOUNDS, buckets, strict=True)),
                    totals[place + DURATION_SUM_OFFSET] / _SECOND,
                )
        yield requests
        yield durations
        yield CounterMetricFamily("cdb_cache_hits", "Answers that were ready", hits)
        yield CounterMetricFamily(
            "cdb_cache_misses", "Answers that could be kept, and were not ready", totals[CACHE_MISSES_FIELD]
        )


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value)
