"""`python -m tests.benchmarks.rows DATABASE`: what a row of a list costs above the bare query, in microseconds.

DATABASE is an SQLite file that tests.benchmarks.loading made, of some thousand calibrations at least. The whole answer
is made, up to its bytes; the bare query is the same statement, run and fetched by sqlite3. Medians of 31 rounds.
"""

import sqlite3
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from cdb_server.database.statements import CompiledStatement
from cdb_server.database.transactions import Database
from cdb_server.instants import format_instant
from cdb_server.repository import journal_entries, lookups
from cdb_server.repository.reader import Reader
from cdb_server.soap.operations import Calibration, OperationContext, fast_operations
from tests.benchmarks.bare_drivers import parameters
from tests.benchmarks.dataset import Stock

ROUNDS = 31


def bare(connection: sqlite3.Connection, statement: CompiledStatement, **values: Any) -> Callable[[], int]:
    """What runs a statement and tells how many rows it gave."""
    asked = parameters(statement, **values)
    return lambda: len(connection.execute(*asked).fetchall())


def seconds(work: Callable[[], object]) -> float:
    """How long it takes once."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@click.command()
@click.argument("database", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(database: Path) -> None:
    """Measure what a row costs above the bare query."""
    with Database.open(f"sqlite:///{database}") as opened, sqlite3.connect(database) as connection:
        last = Reader(opened).status().serial
        # Runs among them: the period is a little shorter than it says.
        stock = Stock(last, 1)
        start = stock.valid_from(last // 3)
        stop = start + timedelta(seconds=1000 * stock.step.total_seconds())
        operations = fast_operations(Calibration)
        context = OperationContext(Reader(opened).formatted(), None, 0, "", frozenset())
        for operation, given, statement, values in (
            (
                "get_ids",
                {"start_time": format_instant(start), "stop_time": format_instant(stop)},
                lambda: lookups.IN_FORCE_DURING[1](None),
                {"start": start, "stop": stop, "limit": 100_001},
            ),
            (
                "get_journal",
                {"after_serial": "0", "limit": "1000"},
                lambda: journal_entries._FORMATTED_AFTER,
                {"after_serial": 0, "limit": 1000},
            ),
        ):
            answered = lambda: operations[operation].answer(context, dict(given))  # noqa: E731, B023  # called within the loop
            answered()
            queried = bare(connection, statement(), **values)
            rows = queried()
            times = [(seconds(answered), seconds(queried)) for _ in range(ROUNDS)]
            above = statistics.median(whole - query for whole, query in times) / rows * 1e6
            query = statistics.median(query for _, query in times) / rows * 1e6
            click.echo(f"{operation}: {rows} rows, {above:.1f} µs a row above the query's {query:.1f}")


if __name__ == "__main__":
    main()
