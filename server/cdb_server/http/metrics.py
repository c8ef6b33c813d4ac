"""GET /metrics: what all workers counted, and how the server stands, for Prometheus."""

import logging
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cdb_server import __version__
from cdb_server.errors import Unavailable
from cdb_server.http import tally
from cdb_server.http.counts import BOUNDS, BUCKETS, FAILED, FOUND, MISSES, OUTCOMES, READY, SUM, Counts
from cdb_server.http.refusals import Refused
from cdb_server.http.threads import RETRY_SECONDS, Threads
from cdb_server.repository import Reader

log = logging.getLogger(__name__)

METRICS_PATH = "/metrics"
_SECOND = 1_000_000_000
_BOUNDS = (*(str(bound / _SECOND) for bound in BOUNDS), "+Inf")


def metrics_route(counts: Counts, reader: Reader, threads: Threads, *, writes: bool) -> Route:
    """The route; `writes` says whether there are any."""
    registry = CollectorRegistry()
    registry.register(_Standing(reader, writes=writes))
    registry.register(_Counted(counts))

    async def endpoint(request: Request) -> Response:
        request.scope[tally.OPERATION] = tally.METRICS
        try:
            text = await threads.do(lambda: generate_latest(registry))
        except Unavailable as error:
            return Refused(503, error.message, {"Retry-After": RETRY_SECONDS}).response()
        return Response(text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4, "Cache-Control": "no-store"})

    return Route(METRICS_PATH, endpoint, methods=["GET"])


class _Standing(Collector):
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


class _Counted(Collector):
    """What was counted since the server was started, by all its workers."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """The families."""
        requests = CounterMetricFamily("cdb_requests", "Requests answered", labels=("operation", "outcome"))
        durations = HistogramMetricFamily(
            "cdb_request_duration_seconds", "From a request's headers to its answer's", labels=("operation",)
        )
        totals = self._counts.totals()
        hits = 0
        for operation, place in self._counts.layout.places().items():
            ready, found, failed = (totals[place + kind : place + kind + BUCKETS] for kind in (READY, FOUND, FAILED))
            hits += sum(ready)
            if well := sum(ready) + sum(found):
                requests.add_metric((operation, "ok"), well)
            for at, outcome in enumerate(self._counts.layout.outcomes, place + OUTCOMES):
                if totals[at]:
                    requests.add_metric((operation, outcome), totals[at])
            buckets = list(accumulate(map(sum, zip(ready, found, failed, strict=True))))
            if buckets[-1]:
                durations.add_metric(
                    (operation,), list(zip(_BOUNDS, buckets, strict=True)), totals[place + SUM] / _SECOND
                )
        yield requests
        yield durations
        yield CounterMetricFamily("cdb_cache_hits", "Answers that were ready", hits)
        yield CounterMetricFamily("cdb_cache_misses", "Answers that could be kept, and were not ready", totals[MISSES])


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value)
