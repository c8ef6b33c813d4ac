"""Every query is bounded by an index on both databases: no answer takes longer because the tables have grown.

Asserted of each statement that validity builds, as it stands and as of a serial half-way, and of the journal's, in a
large database:

- SQLite, planning as in service, without statistics: no table is scanned, but to take the first row along an index; and
  the work done, in steps of its virtual machine, goes with the rows answered, not with those stored.
- PostgreSQL, with fresh statistics, in a session as the server has it: no table is scanned, and the rows read, index
  entries included, go with those answered. The second is the stronger: to go along a whole index is no scan by name.
"""

import inspect
import random
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Executable, event, select

from cdb_server import instants, validity
from cdb_server.database.transactions import Database
from cdb_server.instants import UTC
from cdb_server.repository import journal_entries
from cdb_server.schema import calibration, journal

START = datetime(2010, 1, 1, tzinfo=UTC)
HOUR = 3_600_000_000  # microseconds
DEVICES, TYPES = [f"DEVICE{number}" for number in range(10)], ["cabling", "gain", "t0", "trigger", "tw"]
CALIBRATIONS, RUNS, WITHDRAWALS, PAYLOADS = 100_000, 20_000, 5_000, 1_000
SERIALS = CALIBRATIONS + RUNS + WITHDRAWALS
TABLES = ("journal", "payload", "calibration", "withdrawal", "run")

KEY = ("DEVICE3", "t0")
RARE = ("RARE", "t0")
# Uploaded again and again under one valid_from.
AGAIN = ("AGAIN", "t0")
MORNING = START + timedelta(days=2000)
EVENING = MORNING + timedelta(days=1)
LONG_BEFORE = MORNING - timedelta(days=500)


def questions(upto: int | None) -> dict[str, Executable]:
    """Statements by builder, as they are asked: `records` is narrowed in all the ways in which it is used."""
    id = calibration.c.id
    history = (calibration.c.device_name == RARE[0]) & (calibration.c.calibration_type == RARE[1])
    again = (calibration.c.device_name == AGAIN[0]) & (calibration.c.calibration_type == AGAIN[1])
    one = validity.in_force(*KEY, MORNING, upto)
    everywhere = validity.in_force_everywhere(MORNING, upto)
    during = validity.in_force_during(MORNING, EVENING, upto)
    start = validity.run_start(77, upto)
    records = validity.records(upto)
    return {
        "serial_as_of": validity.serial_as_of(MORNING),
        "in_force": select(one),
        "in_force_everywhere": everywhere,
        "in_force_during": during,
        "records": records.where(id == 7),
        "records, one": records.where(id == one),
        "records, everywhere": records.where(id.in_(everywhere)).order_by(id).limit(100_001),
        "records, during": records.where(id.in_(during)).order_by(id).limit(100_001),
        "records, for run": records.where(id == validity.in_force(*KEY, start, upto)),
        "records, everywhere for run": records.where(id.in_(validity.in_force_everywhere(start, upto))).order_by(id),
        "records, history": records.where(history).order_by(id).limit(100_001),
        "records, history of one valid_from": records.where(again).order_by(id).limit(100_001),
        "predecessor": records.where(id == validity.predecessor(*KEY, MORNING, 50_000, upto)),
        "successor": records.where(id == validity.successor(*KEY, MORNING, 50_000, upto)),
        "equal_calibration": validity.equal_calibration(*KEY, MORNING, f"{1:064x}"),
        "keys": validity.keys(upto).limit(100_001),
        "next_valid_from": validity.next_valid_from(*KEY, MORNING),
        "run_count": validity.run_count(MORNING, EVENING),
        "run_ranges": validity.run_ranges(MORNING, EVENING).limit(1_000),
        "in_force_at_steps": validity.in_force_at_steps(*KEY, LONG_BEFORE, MORNING, 240 * HOUR),
        "starting_between": validity.starting_between(*KEY, MORNING, EVENING).limit(301),
        "candidates": validity.candidates(*KEY, MORNING, upto).limit(5),
        "time_range": validity.time_range(),
        "time_range_of_key": validity.time_range_of_key(*KEY),
        "runs_by_start": validity.runs_by_start(MORNING, EVENING).limit(301),
        "runs_at_steps": validity.runs_at_steps(MORNING, EVENING, HOUR),
        "first_run_start": validity.first_run_start(),
        "run_start": select(start),
        "run_entry": validity.run_entry(77, upto),
        "journal": journal_entries.ENTRY_COLUMNS.where(journal.c.serial > SERIALS // 2).limit(1_000),
        "runs_starting": validity.runs_starting(MORNING, EVENING, upto).limit(100_001),
    }


each_question = pytest.mark.parametrize("question", questions(None))
each_upto = pytest.mark.parametrize("upto", [None, SERIALS // 2], ids=["now", "as_of"])


def rows() -> dict[str, list[tuple[object, ...]]]:
    """The rows of each table: ten thousand calibrations, then the rest and all else mixed."""
    chance = random.Random(20160301)
    first = instants.to_microseconds(START)
    early = ["calibration"] * 10_000
    late = ["calibration"] * (CALIBRATIONS - len(early)) + ["run"] * RUNS + ["withdrawal"] * WITHDRAWALS
    chance.shuffle(late)
    filled: dict[str, list[tuple[object, ...]]] = {table: [] for table in TABLES}
    filled["payload"] = [(f"{number:064x}", b"1 2 3\n") for number in range(PAYLOADS)]
    for serial, kind in enumerate(early + late, start=1):
        filled["journal"].append((serial, kind, first + serial * HOUR, "alice", f"{serial:064x}"))
        instant = first + chance.randrange(CALIBRATIONS) * HOUR
        number = len(filled[kind])
        if kind == "calibration":
            key = RARE if number % 5000 == 0 else (chance.choice(DEVICES), chance.choice(TYPES))
            if number % 200 == 1:
                key, instant = AGAIN, first
            filled[kind].append((serial, *key, instant, None, 6, f"{number % PAYLOADS:064x}"))
        elif kind == "run":
            filled[kind].append((serial, number * 9 // 10 + 1, instant, None))
        else:
            filled[kind].append((serial, filled["calibration"][2 * number + 1][0], "wrong cable"))
    return filled


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """A reading connection to a large SQLite database."""
    path = tmp_path_factory.mktemp("plans") / "cdb.sqlite"
    Database.create(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        for table, content in rows().items():
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(content[0]))})", content)
    connection.close()
    yield from reading(f"sqlite:///{path}")


@pytest.fixture(scope="module")
def postgresql(postgresql_cluster: str) -> Iterator[Connection]:
    """A reading connection to a large PostgreSQL database with statistics."""
    with psycopg.connect(postgresql_cluster, autocommit=True) as connection:
        connection.execute("CREATE DATABASE plans")
    url = postgresql_cluster.replace("/postgres?", "/plans?")
    Database.create(url)
    with psycopg.connect(url, autocommit=True) as connection:
        for table, content in rows().items():
            with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                for row in content:
                    copy.write_row(row)
        connection.execute("VACUUM ANALYZE")
    yield from reading(url)


def reading(url: str) -> Iterator[Connection]:
    database = Database.open(url)
    with database.read() as connection:
        yield connection
    database.close()


@contextmanager
def as_sent(connection: Connection) -> Iterator[list[tuple[str, Any]]]:
    """The statements and parameters that the driver gets in the block."""
    sent = []

    def keep(
        _connection: object, _cursor: object, statement: str, parameters: object, _context: object, _many: object
    ) -> None:
        sent.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", keep)
    yield sent
    event.remove(connection, "before_cursor_execute", keep)


def asked(connection: Connection, statement: Executable) -> tuple[int, tuple[str, Any]]:
    """How many rows a statement answers, and the statement as the driver got it."""
    with as_sent(connection) as sent:
        answered = len(connection.execute(statement).all())
    return answered, sent[0]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A node of PostgreSQL's plan and all below it."""
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


def test_every_builder_is_asked() -> None:
    """The questions here are those of all builders that there are."""
    public = {
        name
        for name, value in vars(validity).items()
        if inspect.isfunction(value) and value.__module__.startswith(validity.__name__) and not name.startswith("_")
    }
    assert {question.partition(",")[0] for question in questions(None)} - {"journal"} == public


@each_upto
@each_question
def test_sqlite_searches(sqlite: Connection, question: str, upto: int | None) -> None:
    """SQLite's plan scans no table: only what a subquery made, and an index from its beginning for its first row."""
    statement, parameters = asked(sqlite, questions(upto)[question])[1]
    plan = [row[3] for row in sqlite.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    made = r"(key_\w+|step|anon_\d+|CONSTANT ROW|\(subquery-\d+\))"
    first_row = {"SCAN first USING COVERING INDEX calibration_by_key"}
    if question == "first_run_start":
        first_row = {"SCAN run USING INDEX run_by_start"}
    elif question == "time_range":
        first_row = {f"SCAN {table} USING COVERING INDEX {table}_by_start" for table in ("calibration", "run")}
    scans = [line for line in plan if line.startswith("SCAN") and not re.fullmatch(f"SCAN {made}", line)]
    assert set(scans) <= first_row


@each_upto
@each_question
def test_sqlite_works_for_what_it_answers(sqlite: Connection, question: str, upto: int | None) -> None:
    """SQLite takes at most 500 steps for each row answered, where to pass over a table takes more than it has rows."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 10

    driver = sqlite.connection.driver_connection
    assert driver is not None
    driver.set_progress_handler(count, 10)
    answered, _ = asked(sqlite, questions(upto)[question])
    driver.set_progress_handler(None, 0)
    assert steps <= 500 * (answered + 1)


@each_upto
@each_question
def test_postgresql_searches(postgresql: Connection, question: str, upto: int | None) -> None:
    """PostgreSQL's plan scans no table, and it reads at most 10 rows, index entries included, for each row answered."""
    answered, (statement, parameters) = asked(postgresql, questions(upto)[question])
    explain = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}"
    plan = postgresql.exec_driver_sql(explain, parameters).scalar_one()[0]["Plan"]
    tables = [node for node in nodes(plan) if node.get("Relation Name") in TABLES]
    assert tables
    assert {node["Relation Name"] for node in tables if node["Node Type"] == "Seq Scan"} == set()
    read = sum(
        node["Actual Loops"]
        * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0))
        for node in tables
    )
    assert read <= 10 * (answered + 1)
