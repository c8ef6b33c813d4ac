"""The commands that write: one thing, or a table of them."""

import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from cdb._exceptions import CdbPermanentError, NotAuthorised
from cdb.calibration import CalibrationSuperMouse
from cdb.cli import shared
from cdb.records import CalibrationRecord

Row = dict[str, str]


class RefusedRow(Exception):
    """A row that cannot be sent."""


@click.command()
@click.argument("device_name", metavar="[DEVICE]", required=False)
@click.argument("calibration_type", metavar="[TYPE]", required=False)
@click.argument("file", metavar="[FILE]", type=click.Path(path_type=Path), required=False)
@click.option("--valid-from", type=shared.Time(), help="The instant from which it applies.")
@click.option("--comment", help="What later readers should know.")
@click.option(
    "--from",
    "table",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="CSV",
    help="Store every row of a table with the columns device_name, calibration_type, valid_from, file (relative to the "
    "table) and perhaps comment.",
)
@shared.writer
def add(
    device_name: str | None,
    calibration_type: str | None,
    file: Path | None,
    valid_from: Any,
    comment: str | None,
    table: Path | None,
    server: str,
    client_cert: str | None,
    user: str | None,
    token: str | None,
) -> None:
    """Store FILE as a calibration and print its id; or, with --from, every row of a table.

    To store again what is stored writes nothing, so that a command that failed can be repeated.
    """
    client = CalibrationSuperMouse(server, user=user, token=token, client_cert=client_cert)
    if table is not None:
        if any(value is not None for value in (device_name, valid_from, comment)):
            raise click.UsageError("--from says all: leave the rest out")

        def store(row: Row) -> None:
            if not row["file"]:
                raise RefusedRow("file is empty")
            data = _content(table.parent / row["file"])
            client.add_calibration(
                row["device_name"], row["calibration_type"], row["valid_from"], data, row.get("comment") or None
            )

        columns = ("device_name", "calibration_type", "valid_from", "file")
        _load(table, columns, store, "{device_name} {calibration_type} {valid_from}")
        return
    if device_name is None or calibration_type is None or file is None:
        raise click.UsageError("name DEVICE, TYPE and FILE, or give --from")
    if valid_from is None:
        raise click.UsageError("say with --valid-from from when it applies")
    try:
        data = _content(file)
    except RefusedRow as error:
        raise click.UsageError(str(error)) from None
    stored = client.add_calibration(device_name, calibration_type, valid_from, data, comment)
    click.echo(stored.id)
    _say_what_is_in_force(client, stored)


@click.command()
@click.argument("id", type=int)
@click.option("--reason", required=True, help="Why; kept for all later readers.")
@shared.writer
def withdraw(id: int, reason: str, server: str, client_cert: str | None, user: str | None, token: str | None) -> None:
    """Withdraw the calibration ID, stored by mistake: the one before it applies again."""
    withdrawn = CalibrationSuperMouse(server, user=user, token=token, client_cert=client_cert).withdraw_calibration(
        id, reason
    )
    click.echo(f"{id} is withdrawn: {withdrawn.withdrawn_reason}", err=True)


@click.command("add")
@click.argument("run_number", metavar="[N]", type=int, required=False)
@click.option("--start", type=shared.Time(), help="When the run began.")
@click.option("--stop", type=shared.Time(), help="When it ended, if that was recorded.")
@click.option(
    "--from",
    "table",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="CSV",
    help="Register every row of a table with the columns run_number, start_time and stop_time, which may be empty.",
)
@shared.writer
def add_run(
    run_number: int | None,
    start: Any,
    stop: Any,
    table: Path | None,
    server: str,
    client_cert: str | None,
    user: str | None,
    token: str | None,
) -> None:
    """Register the times of run N, or correct them; or, with --from, every row of a table."""
    client = CalibrationSuperMouse(server, user=user, token=token, client_cert=client_cert)
    if table is not None:
        if any(value is not None for value in (run_number, start, stop)):
            raise click.UsageError("--from says all: leave the rest out")

        def register(row: Row) -> None:
            if not row["run_number"].isascii() or not row["run_number"].isdigit():
                raise RefusedRow(f"run_number {row['run_number']!r} is not a whole number")
            if not row["start_time"]:
                raise RefusedRow(f"run {row['run_number']} has no start_time")
            client.add_run(int(row["run_number"]), row["start_time"], row["stop_time"] or None)

        _load(table, ("run_number", "start_time", "stop_time"), register, "run {run_number}")
        return
    if run_number is None or start is None:
        raise click.UsageError("name the run N and its --start, or give --from")
    run = client.add_run(run_number, start, stop)
    click.echo(f"run {run.run_number} is registered", err=True)


def _load(table: Path, columns: tuple[str, ...], write: Callable[[Row], object], name: str) -> None:
    """Write the rows of a table in their order. A row that is refused is told with its reason, and the rest goes on.

    What no row is to blame for, such as a server that does not answer, ends it: it can be repeated from the start.
    `name` makes the name of a row out of its cells.
    """
    rows = list(_rows(table, columns))
    accepted = refused = 0
    try:
        with _progress() as progress:
            for line, row in progress.track(rows, description=table.name):
                try:
                    write(row)
                    accepted += 1
                except NotAuthorised:
                    raise
                except (CdbPermanentError, RefusedRow) as error:
                    refused += 1
                    told = f"{table.name}:{line}: {name.format(**row)}: refused: {error}"
                    progress.console.print(told, markup=False, soft_wrap=True)
    finally:
        left = len(rows) - accepted - refused
        undone = f", {left} not tried: repeat the command" if left else ""
        click.echo(f"{table.name}: {len(rows)} rows, {accepted} accepted, {refused} refused{undone}", err=True)
    if refused:
        sys.exit(1)


def _progress() -> Progress:
    """A bar on a terminal, on standard error; nothing elsewhere."""
    console = Console(stderr=True, highlight=False)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn("rows"))
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _rows(table: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, Row]]:
    """The rows of a table with their line numbers, their cells without white space around. An absent cell is empty."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise click.UsageError(f"{table}: there is no column {', '.join(missing)}")
            for row in reader:
                yield reader.line_num, {key: (row[key] or "").strip() for key in row if key}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise click.UsageError(f"{table} cannot be read: {error}") from None


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise RefusedRow(f"{file} cannot be read: {error.strerror}") from None


def _say_what_is_in_force(client: CalibrationSuperMouse, stored: CalibrationRecord) -> None:
    """Rule 9: "the answer says which is in force; to go back, withdraw the later one"."""
    if stored.valid_until != stored.valid_from:
        return
    for id, fields in client.get_ids(stored.valid_from).items():
        if (fields["device_name"], fields["calibration_type"]) == (stored.device_name, stored.calibration_type):
            click.echo(
                f"{stored.id} was stored before, and {id}, stored later under the same valid from, is in force; "
                f"to go back: cdb withdraw {id} --reason …",
                err=True,
            )
