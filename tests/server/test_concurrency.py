"""Many writers at once on several worker processes: as if one after the other, in the order of the journal."""

import fcntl
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdb
from cdb_server import instants
from cdb_server.database.transactions import Database
from cdb_server.repository.reader import Reader
from tests import servers
from tests.crash.invariants import whole
from tests.crash.traffic import Acknowledged, Content, Write, microseconds, send, upload
from tests.fuzz import wire
from tests.server.oracle import Clock, Oracle
from tests.servers import Master

WRITERS = 64
EACH = 8
READERS = 4
MARCH = datetime(2016, 3, 1)
DEVICES = ("TOF1", "KL")
# Few, so that many writers send the same at the same time.
CONTENTS = [b"%d" % number for number in range(3)]
STARTS = [MARCH + timedelta(days=number) for number in range(3)]


@pytest.fixture
def four_workers(database_url: str, tmp_path: Path) -> Iterator[Master]:
    with servers.master(database_url, tmp_path, "--workers", "4") as running:
        yield running


def at_once(master: Master, works: list[list[Write]]) -> list[Acknowledged]:
    """What is answered when each list is written by a writer of its own, all from the same moment on."""
    ready = threading.Barrier(len(works))

    def work(writes: list[Write]) -> list[Acknowledged]:
        with wire.Peer(master.url) as peer:
            ready.wait()
            return [send(peer, write, (master.user, master.token)) for write in writes]

    with ThreadPoolExecutor(len(works)) as pool:
        return [answer for answers in pool.map(work, works) for answer in answers]


def stored_contents(url: str) -> dict[str, bytes]:
    """The payloads, from the database itself."""
    connection: Any = sqlite3.connect(url.removeprefix("sqlite:///")) if "sqlite" in url else psycopg.connect(url)
    with closing(connection):
        return dict(connection.execute("SELECT sha256, data FROM payload").fetchall())


def replayed(url: str, entries: dict[int, tuple[Content, int]]) -> Oracle:
    """The model after each entry of the journal in turn: each must have been needed there, and none be missing."""
    clock = Clock(datetime(1970, 1, 1, tzinfo=timezone.utc))
    oracle = Oracle(clock)
    payloads = stored_contents(url)
    for serial, ((kind, *values), created) in entries.items():
        clock.now = instants.from_microseconds(created)
        if kind == "calibration":
            device_name, calibration_type, valid_from, comment, _, sha256 = values
            start = instants.from_microseconds(int(str(valid_from)))
            said: Any = oracle.add_calibration(
                str(device_name), str(calibration_type), start, payloads[str(sha256)], str(comment), servers.USER
            )
            assert said.id == serial
        elif kind == "withdrawal":
            id, reason = values
            oracle.withdraw_calibration(int(str(id)), str(reason), servers.USER)
        else:
            number, *times = (int(str(value)) for value in values)
            start, stop = map(instants.from_microseconds, times)
            oracle.add_run(number, start, stop, servers.USER)
        assert oracle.created()[serial - 1 :] == [clock.now], f"entry {serial} was so already"
    clock.now = datetime.now(timezone.utc)
    return oracle


def test_many_writers_of_the_same_bytes_store_them_once(four_workers: Master) -> None:
    """Rule 9: 64 uploads of equal bytes for one device, type and valid_from give one calibration, and all its id."""
    master = four_workers
    write = upload("TOF1", "t0", MARCH, b"the same")
    answers = at_once(master, [[write] * 3] * WRITERS)
    assert set(answers) == {answers[0]}
    ledger, findings = whole(master.database, answers, {write.content})
    assert not findings, findings
    assert len(ledger.entries) == 1


def test_many_withdrawals_and_registrations_of_the_same_are_written_once(four_workers: Master) -> None:
    """Rule 9: a calibration is withdrawn once, however many do it; a run's times are registered once."""
    master = four_workers
    stored = upload("TOF1", "t0", MARCH, b"wrong")
    at_once(master, [[stored]])
    run = Write(("run", 7, microseconds(MARCH), microseconds(MARCH) + 1))
    withdrawal = Write(("withdrawal", 1, "wrong"))
    answers = at_once(master, [[run, withdrawal], [withdrawal, run]] * (WRITERS // 2))
    ledger, findings = whole(master.database, answers, {stored.content, run.content, withdrawal.content})
    assert not findings, findings
    assert len(ledger.entries) == 3


def watch(url: str, over: threading.Event) -> int:
    """Ask in turn what only grows, of workers as they come; how many answers were looked at."""
    clients = [cdb.Calibration(url), cdb.Calibration(url)]
    serial, looked = 0, 0
    known: dict[int, cdb.CalibrationRecord] = {}
    while not over.is_set():
        client = clients[looked % 2]
        status = client.get_status()
        assert status.serial >= serial
        serial = status.serial
        found = {record.id: record for record in client.get_history("TOF1", "t0")}
        # A calibration stays what it is, but for its end and its withdrawal; and that is not taken back.
        for id, record in known.items():
            now = found[id]
            assert now.withdrawn >= record.withdrawn
            assert replace(now, valid_until=None, withdrawn=False, withdrawn_at=None, withdrawn_reason=None) == replace(
                record, valid_until=None, withdrawn=False, withdrawn_at=None, withdrawn_reason=None
            )
        # Of one moment: of those that stand under one valid_from, the last alone is in force.
        standing = [record for record in found.values() if not record.withdrawn]
        for record in standing:
            later = [other for other in standing if other.valid_from == record.valid_from and other.id > record.id]
            assert (record.valid_until == record.valid_from) == bool(later)
        known = found
        looked += 1
    return looked


def test_writers_at_once_write_as_if_one_after_the_other(four_workers: Master) -> None:
    """64 writers on 4 processes, uploading, withdrawing and registering the same things: the journal has no gap, and
    replayed entry by entry in the plain model of the rules it gives the server's answers; none is refused."""
    master = four_workers
    shared = [upload(device, "t0", start, data) for device in DEVICES for start in STARTS for data in CONTENTS]
    shared += [Write(("withdrawal", id, "wrong")) for id in (1, 1, 2, 3, 5, 8)]
    shared += [Write(("run", 1 + n % 3, microseconds(MARCH) + n, microseconds(MARCH) + 10**6)) for n in range(9)]
    # So that there is what is withdrawn.
    first = [upload("TOF1", "t0", MARCH + timedelta(hours=number), b"first") for number in range(8)]
    acknowledged = at_once(master, [first])
    chance = random.Random(64)
    own = [upload("TOF1", "t0", MARCH + timedelta(minutes=1 + number), b"own") for number in range(WRITERS)]
    works = [[own[number], *chance.choices(shared, k=EACH - 1)] for number in range(WRITERS)]
    over = threading.Event()
    with ThreadPoolExecutor(READERS) as pool:
        watching = [pool.submit(watch, master.url, over) for _ in range(READERS)]
        try:
            acknowledged += at_once(master, works)
        finally:
            over.set()
        assert all(watcher.result() for watcher in watching)
    sent = {write.content for write in [*first, *shared, *own]}
    ledger, findings = whole(master.database, [a for a in acknowledged if a.content[0] != "run"], sent)
    # A run's earlier times may be registered again after others: the model says whether each entry was needed.
    findings.other = [found for found in findings.other if "('run'" not in found]
    assert not findings, findings
    assert all(answer.content in {content for content, _ in ledger.entries.values()} for answer in acknowledged)
    oracle = replayed(master.database, ledger.entries)
    with Database.open(master.database) as database:
        reader = Reader(database)
        assert reader.devices() == oracle.devices()
        for device in DEVICES:
            assert reader.history(device, "t0") == oracle.history(device, "t0")
        period = MARCH.replace(tzinfo=timezone.utc), MARCH.replace(year=2017, tzinfo=timezone.utc)
        assert reader.ids(*period) == oracle.ids(*period)
        assert reader.runs(*period) == oracle.runs(*period)


def test_a_process_that_has_written_lets_another_go_first(new_database_url: Callable[[str], str]) -> None:
    """SQLite alone would give its lock to whoever asks again first: the one that has just had it, for seconds."""
    url = new_database_url("sqlite")
    Database.create(url)
    # As two processes have it.
    with Database.open(url) as one, Database.open(url) as other, ThreadPoolExecutor(1) as pool:
        order = []

        def write() -> None:
            with other.write():
                order.append("other")

        with one.write():
            order.append("one")
            writing = pool.submit(write)
            folder = os.open(Path(url.removeprefix("sqlite:///")).parent, os.O_RDONLY)
            deadline = time.monotonic() + 3
            with suppress(BlockingIOError):
                # Until the other one waits for SQLite's lock, with nobody before it.
                while time.monotonic() < deadline:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    fcntl.flock(folder, fcntl.LOCK_UN)
            os.close(folder)
            assert time.monotonic() < deadline
        with one.write():
            order.append("one")
        writing.result()
        assert order == ["one", "other", "one"]
