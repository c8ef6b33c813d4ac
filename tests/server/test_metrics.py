"""GET /metrics: each request counted once, whichever worker answers it and whatever becomes of that worker."""

import asyncio
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

import cdb
from cdb_server import __version__
from cdb_server.database.transactions import CircuitBreaker, Database
from cdb_server.http.admission import ThreadPool
from cdb_server.http.metrics import (
    CACHE_MISSES_FIELD,
    DURATION_BOUNDS_NANOSECONDS,
    HTTP_ERROR_STATUSES,
    METRICS_PATH,
    SharedCounters,
    counter_layout,
    metrics_route,
)
from cdb_server.instants import UTC
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Writer
from tests import mirrors, servers, soap_proxy
from tests.crash.processes import peers
from tests.fuzz import wire
from tests.fuzz.schema import NAMESPACE
from tests.fuzz.structure import SOAP
from tests.servers import Master, until
from tests.test_layers import ROOT

DATA = b"1 2 3\n"
# The two counters of the ready answers.
HITS = ("hits", "misses")
# A sample: its name, and its labels with their values, by name.
Sample = tuple[str, tuple[tuple[str, str], ...]]


class Samples(dict[Sample, float]):
    """What a scrape gave."""

    def of(self, name: str, **labels: str) -> float:
        """A sample's value, 0 where there is none yet."""
        return self.get((name, tuple(sorted(labels.items()))), 0.0)

    def requests(self, operation: str, outcome: str = "ok") -> float:
        """How many there were."""
        return self.of("cdb_requests_total", operation=operation, outcome=outcome)

    def all(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The samples of a name, by their labels."""
        return {labels: value for (of, labels), value in self.items() if of == name}


def parsed(text: str) -> Samples:
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    return Samples(
        ((sample.name, tuple(sorted(sample.labels.items()))), sample.value)
        for family in families
        for sample in family.samples
    )


def scrape(url: str) -> Samples:
    """Over a new connection, which any worker may take."""
    answer = requests.get(f"{url}/metrics", headers={"Connection": "close"}, timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    return parsed(answer.text)


def counted(before: Samples, after: Samples, name: str = "cdb_requests_total") -> dict[tuple[str, ...], float]:
    """What was added, by the values of the labels; the scrapes themselves apart."""
    old, new = before.all(name), after.all(name)
    added = {tuple(value for _, value in labels): new[labels] - old.get(labels, 0.0) for labels in new}
    return {values: count for values, count in added.items() if count and "metrics" not in values}


def call(operation: str, arguments: str = "", path: str = wire.READING, **how: Any) -> bytes:
    body = (
        f'<s:Envelope xmlns:s="{SOAP}"><s:Body><{operation} xmlns="{NAMESPACE}">{arguments}</{operation}></s:Body>'
        "</s:Envelope>"
    )
    return wire.request(path, body.encode(), **how)


def current(device_name: str) -> bytes:
    return call(
        "get_current_calibration", f"<device_name>{device_name}</device_name><calibration_type>t0</calibration_type>"
    )


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A running master with two workers and one calibration, which only these tests ask."""
    folder = tmp_path_factory.mktemp("metrics")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder, "--max-payload", "1000") as running:
        writer = cdb.CalibrationSuperMouse(running.url, user=running.user, token=running.token)
        writer.add_calibration("TOF1", "t0", "2016-03-01", DATA)
        yield running


def test_every_scrape_reports_all_workers(master: Master) -> None:
    """Questions over many connections: whichever worker is scraped, all are counted, once each, and so are scrapes."""
    before = scrape(master.url)
    with peers(master) as by_worker:
        for peer, asked in zip(by_worker.values(), (30, 12), strict=True):
            for _ in range(asked):
                assert peer.ask(current("TOF1")).status == 200
    for _ in range(20):
        with wire.Peer(master.url) as peer:
            assert peer.ask(current("TOF1")).status == 200
    scrapes = [scrape(master.url) for _ in range(12)]
    for number, after in enumerate(scrapes, 1):
        added = counted(before, after)
        # Those by which the two workers were found.
        assert added.pop(("get_status", "ok")) >= 2
        assert added == {("get_current_calibration", "ok"): 62}
        assert after.requests("metrics") == before.requests("metrics") + number
        duration = {"name": "cdb_request_duration_seconds_count", "operation": "get_current_calibration"}
        assert after.of(**duration) - before.of(**duration) == 62
        # Each worker finds it once, if it had not before.
        hits, misses = (after.of(f"cdb_cache_{what}_total") - before.of(f"cdb_cache_{what}_total") for what in HITS)
        assert hits + misses == 62
        assert misses <= 2


def test_cache_hits_and_misses_are_counted(master: Master) -> None:
    """One connection, and so one worker: the first is a miss, the others are hits; a fault and what is never kept are
    neither."""
    question = call("get_calibration_for_id", "<id>1</id>", headers=[("CDB-Have", "nothing")])
    before = scrape(master.url)
    with wire.Peer(master.url) as peer:
        for _ in range(5):
            assert peer.ask(question).status == 200
        assert peer.ask(current("NOTHING")).status == 500
        assert peer.ask(call("get_status")).status == 200
    after = scrape(master.url)
    assert [after.of(f"cdb_cache_{what}_total") - before.of(f"cdb_cache_{what}_total") for what in HITS] == [4, 1]


def test_a_workers_counts_outlive_it(master: Master) -> None:
    """kill -9: what both had counted is there at once, and when another has come; no number ever falls."""
    with peers(master) as by_worker:
        for peer in by_worker.values():
            for _ in range(10):
                assert peer.ask(current("TOF1")).status == 200
        scrapes = [scrape(master.url)]
        victim = next(iter(by_worker))
        os.kill(victim, signal.SIGKILL)

    def again() -> Samples | None:
        # A connection that the victim had taken is lost.
        scrapes.append(scrape(master.url))
        now = master.workers()
        return scrapes[-1] if victim not in now and len(now) == 2 else None

    until(again)
    with peers(master) as by_worker:
        for peer in by_worker.values():
            assert peer.ask(current("TOF1")).status == 200
    scrapes.append(scrape(master.url))
    for earlier, later in pairwise(scrapes):
        for (name, labels), value in earlier.items():
            if name.endswith(("_total", "_bucket", "_count", "_sum")):
                assert later[name, labels] >= value, (name, labels)
    added = counted(scrapes[0], scrapes[-1])
    assert added.pop(("get_status", "ok")) >= 2
    assert added == {("get_current_calibration", "ok"): 2}


def authorised(master: Master) -> dict[str, Any]:
    return {"path": wire.WRITING, "credentials": (master.user, master.token)}


TOF1 = "<device_name>TOF1</device_name><calibration_type>t0</calibration_type>"
ADD_EQUAL = f"{TOF1}<valid_from>2016-03-01T00:00:00Z</valid_from><data>MSAyIDMK</data>"
FOREIGN_HEADER = (
    f'<s:Envelope xmlns:s="{SOAP}"><s:Header><a s:mustUnderstand="1"/></s:Header><s:Body/></s:Envelope>'.encode()
)
# What is sent, and how it is counted.
CASES: dict[str, tuple[Callable[[Master], bytes], str, str]] = {
    "a list": (lambda _: call("list_devices"), "list_devices", "ok"),
    "by spyne": (lambda _: call("get_status"), "get_status", "ok"),
    "a write": (lambda master: call("add_calibration", ADD_EQUAL, **authorised(master)), "add_calibration", "ok"),
    "the contract": (lambda _: wire.request(f"{wire.READING}?wsdl", method="GET"), "wsdl", "ok"),
    "a file by GET": (lambda _: wire.request(f"{wire.READING}/TOF1/t0", method="GET"), "calibration", "ok"),
    "part of a file": (
        lambda _: wire.request(f"{wire.READING}/TOF1/t0", method="GET", headers=[("Range", "bytes=0-1")]),
        "calibration",
        "ok",
    ),
    "nothing applies": (lambda _: current("NOTHING"), "get_current_calibration", "CalibrationNotFound"),
    "no such run": (lambda _: call("get_run", "<run_number>9</run_number>"), "get_run", "RunNotFound"),
    "no such payload": (
        lambda _: call("get_payload", f"<sha256>{'0' * 64}</sha256>"),
        "get_payload",
        "PayloadNotFound",
    ),
    "a wrong value": (lambda _: call("get_run", "<run_number>x</run_number>"), "get_run", "InvalidArgument"),
    "a missing argument": (lambda _: call("get_run"), "get_run", "MalformedRequest"),
    "too much": (
        lambda _: call("get_journal", "<after_serial>0</after_serial><limit>1001</limit>"),
        "get_journal",
        "TooLarge",
    ),
    "not reached": (
        lambda _: call("list_devices", "<as_of>2999-01-01T00:00:00Z</as_of>"),
        "list_devices",
        "AsOfNotReached",
    ),
    "not intact": (
        lambda master: call("add_calibration", f"{ADD_EQUAL}<sha256>{'0' * 64}</sha256>", **authorised(master)),
        "add_calibration",
        "Integrity",
    ),
    "no operation": (lambda _: call("make_coffee"), "-", "MalformedRequest"),
    "no XML": (lambda _: wire.request(wire.READING, b"x"), "-", "MalformedRequest"),
    "another SOAP": (
        lambda _: wire.request(wire.READING, b'<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"/>'),
        "-",
        "VersionMismatch",
    ),
    "not understood": (lambda _: wire.request(wire.READING, FOREIGN_HEADER), "-", "MustUnderstand"),
    "no token": (lambda _: call("add_calibration", ADD_EQUAL, path=wire.WRITING), "-", "401"),
    "no such file": (lambda _: wire.request(f"{wire.READING}/NOTHING/t0", method="GET"), "calibration", "404"),
    "no such payload by GET": (lambda _: wire.request(f"/cdb/v2/payload/{'0' * 64}", method="GET"), "payload", "404"),
    "a wrong question by GET": (
        lambda _: wire.request(f"{wire.READING}/TOF1/t0?x=1", method="GET"),
        "calibration",
        "400",
    ),
    "outside the file": (
        lambda _: wire.request(f"{wire.READING}/TOF1/t0", method="GET", headers=[("Range", "bytes=9-")]),
        "calibration",
        "416",
    ),
    "nothing there": (lambda _: wire.request("/cdb", method="GET"), "-", "404"),
    "a name made up": (lambda _: wire.request("/%22x%22,operation=%22y%22", method="GET"), "-", "404"),
    "not to be deleted": (lambda _: wire.request(wire.READING, method="DELETE"), "-", "405"),
    "no method at all": (lambda _: wire.request(f"{wire.READING}/TOF1/t0", method="PUT"), "-", "405"),
    "too long": (lambda _: wire.request(wire.READING, headers=[("Content-Length", "99999999")]), "-", "413"),
    "not XML by its type": (
        lambda _: wire.request(wire.READING, b"x", headers=[("Content-Type", "text/plain")]),
        "-",
        "415",
    ),
    "not HTTP": (lambda _: b"hello\r\n\r\n", "-", "400"),
    "no Host": (lambda _: b"GET / HTTP/1.1\r\n\r\n", "-", "400"),
    "a coding unknown": (
        lambda _: wire.request(
            wire.READING, headers=[("Content-Length", None), ("Transfer-Encoding", "gzip, chunked")]
        ),
        "-",
        "501",
    ),
    "another HTTP": (lambda _: b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", "-", "505"),
    "endless headers": (lambda _: b"GET / HTTP/1.1\r\nx: " + b"x" * 2**17, "-", "431"),
}


def test_every_outcome_has_its_name(master: Master) -> None:
    """Faults by their names, HTTP's own answers by their numbers; nothing that a caller sent is a label."""
    for case, (made, operation, outcome) in CASES.items():
        before = scrape(master.url)
        with wire.Peer(master.url) as peer:
            status = peer.ask(made(master)).status
        assert outcome in ("ok", str(status)) or status == 500, case
        assert counted(before, scrape(master.url)) == {(operation, outcome): 1}, case
    names = counter_layout()
    for labels in scrape(master.url).all("cdb_requests_total"):
        assert dict(labels)["operation"] in names.operations
        assert dict(labels)["outcome"] in ("ok", *names.outcomes)
    assert {int(outcome) for _, _, outcome in CASES.values() if outcome.isdigit()} <= set(HTTP_ERROR_STATUSES)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A running master with one worker and one entry, which nobody here may write to."""
    folder = tmp_path_factory.mktemp("closed")
    url = f"sqlite:///{folder}/cdb.sqlite"
    Database.create(url)
    with Database.open(url) as database:
        Writer(database).add_run(1, datetime(2016, 3, 1, tzinfo=UTC), None, author="alice")
    with servers.serving(url, folder, "", "--workers", "1", "--write-networks", "10.1.0.0/16") as running:
        yield running


def test_who_may_not_write_is_counted(closed: Master) -> None:
    """By a server with one worker as by one with two."""
    before = scrape(closed.url)
    with wire.Peer(closed.url) as peer:
        assert peer.ask(call("add_calibration", ADD_EQUAL, path=wire.WRITING)).status == 403
    assert counted(before, scrape(closed.url)) == {("-", "403"): 1}


def test_durations_are_a_histogram(master: Master) -> None:
    """Of each operation that was asked: as many as there were requests, in buckets from 100 µs to 5 s."""
    with wire.Peer(master.url) as peer:
        start = time.perf_counter()
        for _ in range(20):
            assert peer.ask(call("get_history", TOF1)).status == 200
        most = time.perf_counter() - start
    found = scrape(master.url)
    assert found.of("cdb_request_duration_seconds_count", operation="get_history") == 20
    assert 0 < found.of("cdb_request_duration_seconds_sum", operation="get_history") <= most
    buckets = {
        float(dict(labels)["le"]): value
        for labels, value in found.all("cdb_request_duration_seconds_bucket").items()
        if dict(labels)["operation"] == "get_history"
    }
    assert sorted(buckets) == [*(bound / 1e9 for bound in DURATION_BOUNDS_NANOSECONDS), float("inf")]
    assert (min(buckets), sorted(buckets)[-2]) == (0.0001, 5.0)
    counts = [buckets[bound] for bound in sorted(buckets)]
    assert counts == sorted(counts)
    assert counts[-1] == 20


def test_a_master_has_a_serial_and_no_lag(master: Master) -> None:
    """What there is of a mirror alone is absent, so that no alert compares it."""
    found = scrape(master.url)
    assert found.of("cdb_info", role="master", version=__version__) == 1
    assert found.of("cdb_serial") == cdb.Calibration(master.url).get_status().serial
    assert found.of("cdb_database_up") == 1
    assert found["cdb_writes_stopped", ()] == 0
    assert not [name for name, _ in found if "lag" in name]


def test_a_mirror_says_how_far_behind_it_is(closed: Master, tmp_path: Path) -> None:
    """Entries that it lacks, and seconds since its master was heard, which grow while the master is away."""
    mirror_url = f"sqlite:///{tmp_path}/mirror.sqlite"
    with (
        soap_proxy.soap_proxy(closed.url) as leading,
        mirrors.mirror(leading.url, mirror_url, tmp_path, "--workers", "1") as mirror,
    ):

        def caught_up() -> Samples | None:
            found = scrape(mirror.url)
            return found if found.of("cdb_serial") == 1 else None

        found = until(caught_up)
        assert found.of("cdb_info", role="mirror", version=__version__) == 1
        assert found["cdb_mirror_lag_entries", ()] == 0
        assert 0 <= found["cdb_mirror_lag_seconds", ()] < 30
        assert ("cdb_writes_stopped", ()) not in found
        leading.is_cut = True
        lag = scrape(mirror.url).of("cdb_mirror_lag_seconds")
        until(lambda: scrape(mirror.url).of("cdb_mirror_lag_seconds") > lag + 1.5)


def test_the_guide_names_every_metric_and_none_that_is_not(master: Master) -> None:
    """The table of docs/operations.md, and the expressions of its alerts."""
    guide = (ROOT / "docs" / "operations.md").read_text()
    table = re.findall(r"^\| `(cdb_[a-z_]+)` \|", guide, re.MULTILINE)
    told = {re.sub(r"_(bucket|sum|count)$", "", name) for name, _ in scrape(master.url)}
    assert set(table) == told | {"cdb_mirror_lag_entries", "cdb_mirror_lag_seconds"}
    assert set(re.findall(r"\bcdb_[a-z_]+\b", guide)) == set(table)


def hold(counts: SharedCounters, told: Connection) -> None:
    """A process that has a row until it is let go."""
    counts.row()[CACHE_MISSES_FIELD] = 1
    told.send(counts.totals()[CACHE_MISSES_FIELD])
    told.recv()


def beside_one_another() -> None:
    """A process without threads, and its copies, as a server and its workers are."""
    fork = multiprocessing.get_context("fork")
    counts = SharedCounters(counter_layout(), rows=3)
    counts.row()[CACHE_MISSES_FIELD] = 1
    holders = []
    for rows_used in (2, 3, 3):
        here, there = fork.Pipe()
        process = fork.Process(target=hold, args=(counts, there))
        process.start()
        assert here.recv() == rows_used
        holders.append((process, here))
    for process, here in holders:
        here.send(None)
        process.join()
        assert process.exitcode == 0
    assert counts.totals()[CACHE_MISSES_FIELD] == 3


def test_processes_beside_one_another_have_rows_of_their_own() -> None:
    """As while workers are replaced; one for which there is none left is served all the same."""
    process = multiprocessing.get_context("spawn").Process(target=beside_one_another)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_stopped_writes_and_a_lost_database_are_in_the_metrics(tmp_path: Path) -> None:
    """What was counted is told all the same."""
    url = f"sqlite:///{tmp_path}/cdb.sqlite"
    Database.create(url)
    counts, fuse = SharedCounters(counter_layout(), rows=2), CircuitBreaker()
    counts.row()
    with Database.open(url, circuit_breaker=fuse) as database, ThreadPool(1) as threads:
        route = metrics_route(counts, Reader(database), threads, writes=True)

        def told() -> Samples:
            sent: list[bytes] = []

            async def send(message: dict[str, object]) -> None:
                body = message.get("body", b"")
                assert isinstance(body, bytes)
                sent.append(body)

            scope = {"type": "http", "method": "GET", "path": METRICS_PATH, "headers": [], "query_string": b""}
            asyncio.run(route.app(scope, None, send))  # type: ignore[arg-type]  # it receives nothing
            return parsed(b"".join(sent).decode())

        assert told().of("cdb_writes_stopped") == 0
        fuse.trip()
        assert told().of("cdb_writes_stopped") == 1
        assert told().of("cdb_database_up") == 1
        (tmp_path / "cdb.sqlite").write_bytes(b"no database" * 10_000)
        found = told()
        assert found["cdb_database_up", ()] == 0
        assert found["cdb_writes_stopped", ()] == 1
        assert ("cdb_cache_hits_total", ()) in found
        assert ("cdb_serial", ()) not in found
