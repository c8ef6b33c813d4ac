"""`python -m tests.benchmarks.loading DATABASE [--count N] [--size N]`: many calibrations into a new database, at once.

The journal is what the same writes, one by one, would have made of it: every digest is right, and `cdb-server verify`
finds nothing. What makes it fast is that many entries share a transaction, and many rows a statement; an entry that
brings a payload is appended as any other.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any

import click
from sqlalchemy import Connection

from cdb_server import journal
from cdb_server.database.transactions import Database
from cdb_server.model import Entry, NewCalibration
from cdb_server.repository.writer import append_entry
from cdb_server.schema import calibration, run
from cdb_server.schema import journal as journal_table
from tests.benchmarks.dataset import PAYLOADS, Stock

# What a transaction holds at most.
ENTRIES_AT_ONCE = 20_000
BYTES_AT_ONCE = 64 * 2**20

Proved = tuple[Entry, str, bytes | None]


def load(url: str, stock: Stock, progress: Callable[[int, int], None] = lambda done, of: None) -> None:
    """Make a database of a stock; `progress` is told entries done and of all."""
    Database.create(url)
    done, total = 0, stock.count + stock.runs
    with Database.open(url) as database:
        for portion in portions(proved(stock.entries())):
            with database.write() as connection:
                add(connection, portion)
            done += len(portion)
            progress(done, total)


def proved(entries: Iterable[tuple[Entry, bytes | None]]) -> Iterator[Proved]:
    """Each entry with its digest."""
    digest = journal.GENESIS
    for entry, data in entries:
        digest = journal.digest(digest, entry)
        yield entry, digest, data


def portions(entries: Iterable[Proved]) -> Iterator[list[Proved]]:
    """What goes into one transaction each."""
    portion: list[Proved] = []
    size = 0
    for proved in entries:
        portion.append(proved)
        size += len(proved[2] or b"")
        if len(portion) == ENTRIES_AT_ONCE or size > BYTES_AT_ONCE:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def add(connection: Connection, portion: list[Proved]) -> None:
    """Add entries that follow the last one of the journal. The caller holds the write lock."""
    rows: list[dict[str, Any]] = []
    calibrations: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    for entry, digest, data in portion:
        if data is not None:
            append_entry(connection, entry, digest, data)
            continue
        content = entry.content
        values = {field.name: getattr(content, field.name) for field in fields(content)}
        rows.append(
            {"serial": entry.serial, "kind": content.kind, "created": entry.created}
            | {"author": entry.author, "digest": digest}
        )
        if isinstance(content, NewCalibration):
            calibrations.append({"id": entry.serial, **values})
        else:
            runs.append({"serial": entry.serial, **values})
    for table, many in ((journal_table, rows), (calibration, calibrations), (run, runs)):
        if many:
            connection.execute(table.insert(), many)


@click.command()
@click.argument("url", metavar="DATABASE")
@click.option("--count", type=click.IntRange(100), default=100_000, show_default=True, help="How many calibrations.")
@click.option("--size", type=click.IntRange(1), default=1_000, show_default=True, help="Bytes of each payload.")
@click.option(
    "--payloads", type=click.IntRange(1), default=PAYLOADS, show_default=True, help="How many of them differ."
)
def main(url: str, count: int, size: int, payloads: int) -> None:
    """Load calibrations into a new database, named as CDB_DATABASE names one, and tell how long that took."""
    begun = time.monotonic()
    with click.progressbar(length=1, label="entries") as bar:

        def progress(done: int, of: int) -> None:
            bar.length = of
            bar.update(done - bar.pos)

        load(url, Stock(count, size, payloads), progress)
    took = time.monotonic() - begun
    click.echo(f"{count:,} calibrations of {size:,} bytes in {took:.0f} s, {count / took:,.0f} a second")


if __name__ == "__main__":
    main()
