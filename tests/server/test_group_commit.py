"""Writes that wait are done in one transaction, and each is answered as if it had been alone."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdb_server.database.transactions import Database
from cdb_server.errors import CalibrationNotFound, Unavailable
from cdb_server.instants import UTC
from cdb_server.model import CalibrationRecord
from cdb_server.repository.group_commit import MAX_BATCH_BYTES, GroupCommit
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer
from tests import servers

MARCH = datetime(2016, 3, 1, tzinfo=UTC)
WAITING = 6
# Seconds, of those who wait for a lock that is not to be had.
PATIENCE = 0.3


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    Database.create(database_url)
    with Database.open(database_url) as opened:
        yield opened


def upload(data: bytes) -> Upload:
    return Upload.validated("TOF1", "t0", MARCH, data, None, None, max_payload=2 * MAX_BATCH_BYTES)


def transactions(url: str) -> int:
    """How many were committed that wrote: SQLite counts them in its file, PostgreSQL names one in each row."""
    if url.startswith("sqlite"):
        with Path(url.removeprefix("sqlite:///")).open("rb") as file:
            file.seek(24)
            return int.from_bytes(file.read(4), "big")
    with psycopg.connect(url) as connection:
        [(count,)] = connection.execute("SELECT count(DISTINCT xmin::text) FROM journal").fetchall()
    return int(count)


@contextmanager
def waiting(database: Database, works: Sequence[Callable[[], Any]]) -> Iterator[list[Future[Any]]]:
    """All are being done while another writer has the lock, which it gives up when the block ends."""
    with ThreadPoolExecutor(len(works)) as pool:
        with database.write():
            doing = [pool.submit(work) for work in works]
            yield doing
        for done in doing:
            done.exception()


def until(held: Callable[[], bool]) -> None:
    end = time.monotonic() + servers.PATIENCE
    while not held():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_waiting_writes_are_committed_in_one_transaction(database: Database, database_url: str) -> None:
    """And each gets its own answer."""
    writer = Writer(database)
    works = [partial(writer.add_calibration, upload(b"%d" % number), "alice") for number in range(WAITING)]
    before = transactions(database_url)
    with waiting(database, works) as doing:
        until(lambda: len(writer._group_commit._waiting) == WAITING)
    stored: list[CalibrationRecord] = [done.result() for done in doing]
    assert transactions(database_url) == before + 1
    assert sorted(record.id for record in stored) == list(range(1, WAITING + 1))
    reader = Reader(database)
    assert [reader.calibration_for_id(record.id).data for record in stored] == [b"%d" % n for n in range(WAITING)]


def test_a_refused_write_does_not_fail_the_group(database: Database, database_url: str) -> None:
    """The others are written, in one transaction."""
    writer = Writer(database)
    before = transactions(database_url)
    works: list[Callable[[], Any]] = [
        lambda: writer.add_calibration(upload(b"1"), "alice"),
        lambda: writer.withdraw_calibration(99, "wrong", "bob"),
        lambda: writer.add_run(1, MARCH, None, "daq"),
    ]
    with waiting(database, works) as (stored, refused, registered):
        until(lambda: len(writer._group_commit._waiting) == len(works))
    assert isinstance(refused.exception(), CalibrationNotFound)
    assert stored.result().author, registered.result().author == ("alice", "daq")
    assert transactions(database_url) == before + 1
    assert Reader(database).status().serial == 2


def test_a_writer_sees_its_own_journal_position(database: Database) -> None:
    """None before; after an upload that was there already, too."""
    writer = Writer(database)
    assert writer.last_position() is None
    for expected in (1, 1):
        writer.add_calibration(upload(b"1"), "alice")
        known = writer.last_position()
        assert known == Reader(database).journal_position()
        assert known is not None
        assert known.serial == expected


class Tried:
    """A resource whose transactions are told; its lock is had when `free` is set."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.committed: list[list[str]] = []

    @contextmanager
    def transaction(self) -> Iterator[list[str]]:
        assert self.free.wait(servers.PATIENCE)
        written: list[str] = []
        yield written
        self.committed.append(written)


def write(name: str) -> Callable[[list[str]], str]:
    def work(written: list[str]) -> str:
        written.append(name)
        return name

    return work


def test_a_failed_group_is_retried_one_by_one() -> None:
    """It is nobody else's failure, and leaves nothing."""
    tried = Tried()
    together = GroupCommit(tried.transaction, servers.PATIENCE)

    def fail(written: list[str]) -> str:
        written.append("half")
        raise ZeroDivisionError

    with ThreadPoolExecutor(3) as pool:
        doing = [pool.submit(together.commit, work, 0) for work in (write("first"), fail, write("last"))]
        until(lambda: len(together._waiting) == 3)
        tried.free.set()
    assert isinstance(doing[1].exception(), ZeroDivisionError)
    assert (doing[0].result(), doing[2].result()) == ("first", "last")
    assert sorted(tried.committed) == [["first"], ["last"]]


def test_a_write_past_its_deadline_is_not_retried() -> None:
    """A lock that is not to be had holds nobody longer than one alone."""
    begun = 0

    @contextmanager
    def transaction() -> Iterator[list[str]]:
        nonlocal begun
        begun += 1
        until(lambda: len(together._waiting) == 3)
        yield []
        time.sleep(PATIENCE)
        raise Unavailable("the database is busy")

    together = GroupCommit(transaction, PATIENCE)
    with ThreadPoolExecutor(3) as pool:
        doing = [pool.submit(together.commit, write(name), 0) for name in "abc"]
    assert all(isinstance(done.exception(), Unavailable) for done in doing)
    assert begun == 1


def test_a_large_write_is_committed_by_itself() -> None:
    """So that nobody's small write waits for more than one of them."""
    tried = Tried()
    together = GroupCommit(tried.transaction, servers.PATIENCE)
    with ThreadPoolExecutor(3) as pool:
        doing = [pool.submit(together.commit, write(f"{size}"), size) for size in (1, MAX_BATCH_BYTES, 2)]
        until(lambda: len(together._waiting) == 3)
        tried.free.set()
    assert {done.result() for done in doing} == {"1", "2", f"{MAX_BATCH_BYTES}"}
    assert [f"{MAX_BATCH_BYTES}"] in tried.committed


def test_a_write_that_waits_too_long_is_refused() -> None:
    """Later as little as then."""
    tried = Tried()
    together = GroupCommit(tried.transaction, 0.05)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(together.commit, write("first"), 0)
        until(lambda: len(together._waiting) == 1)
        with pytest.raises(Unavailable):
            together.commit(write("late"), 0)
        tried.free.set()
        assert first.result() == "first"
    assert tried.committed == [["first"]]
