"""Load a CSV table row by row, and report the refused rows."""

import csv
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click

from cdb._exceptions import CdbPermanentError, NotAuthorised
from cdb.cli import printing

Row = dict[str, str]


class RefusedRow(Exception):
    """The reason why a row cannot be sent."""


@dataclass(frozen=True, slots=True)
class RowResult:
    """The result for the row in a line of a table: the service's answer, or why it was refused."""

    line: int
    answer: object | None
    refused: str | None


def write_rows(
    table: Path, columns: tuple[str, ...], write: Callable[[Row], object], name: str, *, done: str = "accepted"
) -> list[RowResult]:
    """Write the rows of a table in their order. Prints the reason for a refused row, and goes on.

    Stops at other errors, such as a server that does not answer: the command can be repeated. `name` formats the name
    of a row from its cells; `done` is the verb for the rows that were not refused.
    """
    rows, file = list(_rows(table, columns)), table.name
    loaded: list[RowResult] = []
    try:
        with printing.progress("rows") as progress:
            for line, row in progress.track(rows, description=printing.bar_description(file)):
                try:
                    loaded.append(RowResult(line, write(row), None))
                except NotAuthorised:
                    raise
                except (CdbPermanentError, RefusedRow) as error:
                    loaded.append(RowResult(line, None, str(error)))
                    printing.print_above_bar(progress, f"{file}:{line}: {name.format(**row)}: refused: {error}")
    finally:
        left, refused = len(rows) - len(loaded), _refused(loaded)
        undone = f", {left} not tried: repeat the command" if left else ""
        printing.print_note(f"{file}: {len(rows)} rows, {len(loaded) - refused} {done}, {refused} refused{undone}")
    return loaded


def _refused(loaded: list[RowResult]) -> int:
    return sum(row.refused is not None for row in loaded)


def exit_after_table(loaded: list[RowResult], *, as_json: bool) -> NoReturn:
    """Exit after a table, with status 1 when rows were refused."""
    if as_json:
        printing.print_json(loaded)
    sys.exit(1 if _refused(loaded) else 0)


def _rows(table: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, Row]]:
    """Read the rows with their line numbers; strips white space around cells. An absent cell is empty."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise click.UsageError(
                    f"{table}: there is no column {', '.join(missing)}; its first line must name the columns, with "
                    f"commas between: {','.join(columns)}"
                )
            for row in reader:
                yield reader.line_num, {key: (row[key] or "").strip() for key in row if key}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise click.UsageError(f"{table} cannot be read: {error}") from None
