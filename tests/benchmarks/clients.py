"""The line of the Python client: one call after another, beside zeep and suds-community as their guides have them."""

import base64
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from importlib.resources import as_file, files
from tempfile import TemporaryDirectory

import suds.client
import zeep

import cdb
from cdb_server.instants import format_instant
from tests.benchmarks.dataset import Stock
from tests.benchmarks.harness import SQLITE, Bench
from tests.benchmarks.load import Failure
from tests.benchmarks.ratios import Figure, at_most
from tests.benchmarks.requests_sent import NAMESPACE
from tests.fuzz import wire

# How long a client may take to have its code and its connection ready.
CALLS_BEFORE = 5

# Asks, and gives the bytes that came.
Call = Callable[[], bytes]


def python_client(bench: Bench) -> Iterator[Figure]:
    """The same question of 1 kB, one call at a time, as the clients are by default."""
    stock = Stock(bench.small, 1_000)
    asked = stock.question(random.Random(1))
    expected = stock.data(stock.in_force(*asked))
    with bench.serve(SQLITE, stock) as server, _cache_of_its_own():
        calls = {
            "cdb": _cdb(cdb.Calibration(server.url), *asked),
            "cdb, direct": _cdb(cdb.Calibration(server.url, direct=True), *asked),
            "zeep": _zeep(server.url, *asked),
            "suds": _suds(server.url, *asked),
        }
        for name, call in calls.items():
            for _ in range(CALLS_BEFORE):
                if call() != expected:
                    raise Failure(f"{name} gives other bytes than were stored")
        title = "one call of the Python client, 1 kB"
        rounds = bench.alternate(title, {name: partial(_timed, call, bench.seconds) for name, call in calls.items()})
    for ours, target in (("cdb", True), ("cdb, direct", False)):
        for reference, bound in (("zeep", 1.1), ("suds", 1)):
            yield Figure(
                title if target else f"{title}, without its cache",
                reference,
                rounds.ratios(ours, reference, float),
                at_most(bound) if target else None,
                {"ours_seconds": rounds.median(ours, float), "reference_seconds": rounds.median(reference, float)},
            )


def _timed(call: Call, seconds: float) -> float:
    """Seconds of a call, on average."""
    begun, calls = time.perf_counter(), 0
    while (took := time.perf_counter() - begun) < seconds:
        call()
        calls += 1
    return took / calls


def _cdb(client: cdb.Calibration, device_name: str, calibration_type: str, date: datetime) -> Call:
    return lambda: client.get_calibration_for_date(device_name, calibration_type, date).data


def _zeep(url: str, device_name: str, calibration_type: str, date: datetime) -> Call:
    with as_file(files("cdb.wsdl").joinpath("calibration.wsdl")) as wsdl:
        client = zeep.Client(str(wsdl))
    service = client.create_service(f"{{{NAMESPACE}}}CalibrationBinding", url + wire.READING)
    return lambda: service.get_calibration_for_date(device_name, calibration_type, date).data


def _suds(url: str, device_name: str, calibration_type: str, date: datetime) -> Call:
    client = suds.client.Client(f"{url}{wire.READING}?wsdl", cache=None, location=url + wire.READING)
    text = format_instant(date)
    return lambda: base64.b64decode(client.service.get_calibration_for_date(device_name, calibration_type, text).data)


@contextmanager
def _cache_of_its_own() -> Iterator[None]:
    """An empty cache, and none of the user's settings for a job."""
    kept = {
        name: os.environ.pop(name)
        for name in ("CDB_CACHE", "CDB_AS_OF", "CDB_LOCK", "CDB_OFFLINE")
        if name in os.environ
    }
    with TemporaryDirectory() as folder:
        os.environ["CDB_CACHE"] = folder
        try:
            yield
        finally:
            del os.environ["CDB_CACHE"]
            os.environ.update(kept)
