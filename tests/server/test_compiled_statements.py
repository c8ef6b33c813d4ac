"""Prepared statements give what SQLAlchemy's own would, on both databases, and fail as those do."""

import itertools
import statistics
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import bindparam, exc, func, literal_column, null, select

from cdb_server.database import nonblocking
from cdb_server.database.nonblocking import NonblockingConnection, WouldBlock
from cdb_server.database.statements import CompiledStatement, RawConnection
from cdb_server.database.transactions import Database
from cdb_server.errors import Unavailable
from cdb_server.instants import MICROSECOND, UTC
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer
from cdb_server.schema import Instant, calibration, journal, payload, run

FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
MARCH = datetime(2016, 3, 1, 8, tzinfo=UTC)
STARTS = (FIRST, MARCH, MARCH + MICROSECOND, LAST)

_START = bindparam("start", type_=Instant)
# Each with its parameters' names and the values to try; a comment may hold what a driver takes for a parameter.
STATEMENTS: dict[str, tuple[Any, dict[str, tuple[Any, ...]]]] = {
    "instants": (
        select(run.c.start_time, run.c.stop_time).where(run.c.start_time >= _START).order_by(run.c.serial),
        {"start": (*STARTS, MARCH - timedelta(days=1))},
    ),
    "instants of another zone": (
        select(run.c.start_time).where(run.c.start_time == _START).order_by(run.c.serial),
        {"start": (MARCH.astimezone(),)},
    ),
    "no rows": (select(run.c.stop_time).where(run.c.run_number == bindparam("number")), {"number": (999,)}),
    "null": (select(null(), calibration.c.comment).order_by(calibration.c.id), {}),
    "aggregate of nothing": (
        select(func.max(run.c.stop_time), func.count()).where(run.c.run_number == bindparam("number")),
        {"number": (999, 1)},
    ),
    "text": (
        select(calibration.c.id, calibration.c.comment).where(calibration.c.comment == bindparam("comment")),
        {"comment": ("50 % %s ? :x %(x)s", "🎯", "", "'")},
    ),
    "percent in the statement": (
        select(calibration.c.id).where(calibration.c.comment.like("50 !% %", escape="!")).order_by(calibration.c.id),
        {},
    ),
    "the same parameter twice": (
        select(calibration.c.id).where((calibration.c.id == bindparam("id")) | (calibration.c.size == bindparam("id"))),
        {"id": (1, 3, 2**63 - 1)},
    ),
    "bytes": (select(payload.c.data).where(payload.c.sha256 == bindparam("sha256")), {"sha256": ("0" * 64,)}),
    "limit": (select(journal.c.created).order_by(journal.c.serial).limit(bindparam("limit")), {"limit": (0, 1, 99)}),
    "a constant": (select(literal_column("1"), calibration.c.valid_from).order_by(calibration.c.id).limit(3), {}),
}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with runs and calibrations at the ends of time, with and without what may be absent."""
    Database.create(database_url)
    with Database.open(database_url) as opened:
        writer = Writer(opened)
        for number, (start, stop) in enumerate(itertools.product(STARTS, (None, LAST)), 1):
            writer.add_run(number, start, stop, "daq")
        for start, comment in itertools.product(STARTS, (None, "50 % %s ? :x %(x)s", "🎯", "'")):
            data = repr((start, comment)).encode()
            upload = Upload.validated("TOF1", "t0", start, data, None, comment, max_payload=1000)
            writer.add_calibration(upload, "alice")
        yield opened


def test_rows_are_those_of_sqlalchemy(database: Database) -> None:
    """Instants, nulls, texts and numbers come and go as they do without preparing, the first time and the second."""
    for name, (statement, parameters) in STATEMENTS.items():
        prepared = CompiledStatement(statement)
        for values in itertools.product(*parameters.values()):
            given = dict(zip(parameters, values, strict=True))
            with database.read() as connection:
                expected = [tuple(row) for row in connection.execute(statement, given)]
                for _ in range(2):
                    assert prepared.rows(connection, **given) == expected, name
                assert prepared.row(connection, **given) == (expected[0] if expected else None), name
                assert prepared.value(connection, **given) == (expected[0][0] if expected else None), name


def test_what_fails_fails_as_it_does_with_sqlalchemy(database: Database) -> None:
    """The driver's error comes wrapped, so that Database makes it Unavailable, and the connection can be used again."""
    broken = CompiledStatement(select(literal_column("no_such_column")))
    with pytest.raises(Unavailable), database.read() as connection:
        broken.rows(connection)
    assert Reader(database).status().serial == 24


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_statement_given_up_at_any_step_is_wrapped(database: Database) -> None:
    """SQLite may fail at each row: "interrupted" while the later ones are fetched is the same error as at the first."""
    statement = CompiledStatement(select(journal.c.serial, journal.c.created))
    with database.connect() as connection:
        driver: Any = connection.connection.driver_connection
        held = RawConnection(driver, connection.dialect)
        whole = statement.rows(held)
        given_up = 0
        for last in itertools.count(1):
            steps = itertools.count(1)
            driver.set_progress_handler(lambda steps=steps, last=last: next(steps) == last, 1)
            try:
                rows = statement.rows(held)
            except exc.DBAPIError:
                given_up += 1
                continue
            assert rows == whole
            break
        driver.set_progress_handler(None, 0)
    # More steps than the first row takes.
    assert given_up > 3 * len(whole)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_read_interrupted_at_any_step_would_block(database: Database) -> None:
    """And the next one is answered: nothing stays open that would keep writers out."""
    glance = NonblockingConnection(database)
    reader = Reader(glance)
    whole = reader.ids(FIRST, LAST)
    held: Any = glance._raw
    for last in itertools.count(1, 7):
        steps = itertools.count(1)
        held.driver.set_progress_handler(lambda steps=steps, last=last: next(steps) == last, 1)
        try:
            assert reader.ids(FIRST, LAST) == whole
            break
        except WouldBlock:
            held.driver.set_progress_handler(None, 0)
            assert reader.journal_position().serial == 24
            assert not held.driver.in_transaction
    held.driver.set_progress_handler(None, 0)
    assert last > 100
    Writer(database).add_run(100, MARCH, None, "daq")
    assert reader.journal_position().serial == 25
    glance.close()


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_query_that_was_given_up_once_is_not_slower_for_ever(database: Database) -> None:
    """CPython before 3.12 takes a statement that failed between its rows for one under way, and compiles another.

    Given up at every seventh step, so between its rows too; then it takes what it took before.
    """
    glance = NonblockingConnection(database)
    reader = Reader(glance)
    driver: Any = glance._raw.driver

    def seconds() -> float:
        took = []
        for _ in range(100):
            began = time.perf_counter()
            reader.ids(FIRST, FIRST)
            took.append(time.perf_counter() - began)
        return statistics.median(took)

    seconds()
    before = seconds()
    for last in itertools.count(1, 7):
        steps = itertools.count(1)
        driver.set_progress_handler(lambda steps=steps, last=last: next(steps) == last, 1)
        try:
            reader.ids(FIRST, LAST)
            break
        except WouldBlock:
            continue
    driver.set_progress_handler(None, 0)
    seconds()
    assert seconds() < 1.5 * before


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_timed_out_read_holds_no_lock(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite asks whether to go on after so many steps of a statement in all its runs: of ROLLBACK at each 3,334th."""
    monkeypatch.setattr(nonblocking, "MAX_CPU_SECONDS", -1.0)
    glance = NonblockingConnection(database)
    reader = Reader(glance)
    driver: Any = glance._raw.driver
    late = 0
    for _ in range(4_000):
        try:
            reader.run(1)
        except WouldBlock:
            late += 1
        assert not driver.in_transaction
        assert glance.data_version()
    assert late
    Writer(database).add_run(100, MARCH, None, "daq")
    monkeypatch.undo()
    assert reader.journal_position().serial == 25
