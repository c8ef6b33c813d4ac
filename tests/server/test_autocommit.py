"""A question of one statement on PostgreSQL goes without a transaction, which would take three times as long."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Barrier
from typing import Any

import psycopg
import pytest
from sqlalchemy import func, select, text

from cdb_server.database.statements import CompiledStatement
from cdb_server.database.transactions import Database
from cdb_server.errors import CalibrationNotFound, RunNotFound, Unavailable
from cdb_server.instants import UTC
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer
from cdb_server.schema import journal, run

MARCH = datetime(2016, 3, 1, 8, tzinfo=UTC)
THREADS = 3
ENTRIES = CompiledStatement(select(func.count()).select_from(journal))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with a calibration and a run."""
    Database.create(database_url)
    with Database.open(database_url, threads=THREADS) as opened:
        writer = Writer(opened)
        writer.add_calibration(Upload.validated("TOF1", "t0", MARCH, b"1", None, None, max_payload=10), "alice")
        writer.add_run(7662, MARCH, None, "daq")
        yield opened


def others(url: str, statement: str) -> list[Any]:
    """What another program is told by PostgreSQL."""
    with psycopg.connect(url, autocommit=True) as connection:
        return [value for (value,) in connection.execute(statement.encode())]


@pytest.mark.parametrize("backend", ["postgresql"])
def test_autocommit_leaves_no_transaction_open(database: Database, database_url: str) -> None:
    """No transaction is under way between two statements: each sees what was committed before it."""
    with database.read_statement() as connection:
        assert ENTRIES.value(connection) == 2
        states = f"SELECT state FROM pg_stat_activity WHERE query LIKE 'SELECT count(*)%{journal}%'"
        assert others(database_url, states) == ["idle"]
        Writer(database).add_run(7663, MARCH, None, "daq")
        assert ENTRIES.value(connection) == 3
    with database.read() as connection:
        assert ENTRIES.value(connection) == 3
        Writer(database).add_run(7664, MARCH, None, "daq")
        assert ENTRIES.value(connection) == 3


@pytest.mark.parametrize("backend", ["postgresql"])
def test_nothing_is_written(database: Database) -> None:
    """PostgreSQL itself refuses what would write."""
    write = CompiledStatement(run.insert())
    with pytest.raises(Unavailable) as caught, database.read_statement() as connection:
        write.execute(connection, serial=3, run_number=1, start_time=MARCH, stop_time=None)
    assert "read-only transaction" in str(caught.value.__cause__)
    assert Reader(database).status().serial == 2


@pytest.mark.parametrize("backend", ["postgresql"])
def test_what_the_server_ended_is_begun_again(database: Database, database_url: str) -> None:
    """A restart of PostgreSQL costs no reader an error, however many connections it ended; a bad statement is one."""
    together = Barrier(THREADS)
    sleep = CompiledStatement(select(func.pg_sleep(0.2)))

    def ask(_: int) -> None:
        together.wait(30)
        with database.read_statement() as connection:
            sleep.rows(connection)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(ask, range(THREADS)))
    asked = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ended = others(database_url, f"SELECT pg_terminate_backend(pid) {asked} AND query LIKE '%pg_sleep%'")
    assert ended == THREADS * [True]
    assert Reader(database).calibration_for_date("TOF1", "t0", MARCH).data == b"1"
    with pytest.raises(Unavailable), database.read_statement() as connection:
        CompiledStatement(text("SELECT nothing")).rows(connection)
    assert Reader(database).calibration_for_run("TOF1", "t0", 7662).data == b"1"


def test_what_is_missing_is_told(database: Database) -> None:
    """One statement finds nothing where there is no run, and where there is no calibration: which it was, is told."""
    reader = Reader(database)
    with pytest.raises(RunNotFound):
        reader.calibration_for_run("TOF1", "t0", 1)
    with pytest.raises(CalibrationNotFound, match="at the start of run 7662, 2016-03-01T08:00:00"):
        reader.calibration_for_run("TOF1", "tw", 7662)
    with pytest.raises(RunNotFound):
        reader.calibrations_for_run(1)
    Writer(database).withdraw_calibration(1, "wrong cable", "bob")
    assert reader.calibrations_for_run(7662) == []
