"""Register and show runs: `cdb run add`, `cdb run show`."""

from pathlib import Path
from typing import Any

import click

from cdb._exceptions import RunNotFound
from cdb._instants import display_instant
from cdb.calibration import Calibration
from cdb.cli import options, printing
from cdb.cli.table import RefusedRow, Row, exit_after_table, write_rows
from cdb.records import Run
from cdb.supermouse import CalibrationSuperMouse


@click.group()
def run() -> None:
    """Register runs and show them."""


@click.command("show", short_help="Show a run's times and what applies to it.")
@click.argument("run_number", metavar="N", type=int)
@options.as_of
@options.as_json
@options.with_reader
def show_run(run_number: int, as_of: Any, as_json: bool, client: Calibration) -> None:
    """Show a run's times and everything that applies to it."""
    run = client.get_run(run_number, as_of)
    applying = client.get_calibrations_for_run(run_number, as_of)
    if as_json:
        printing.print_json({"run": run, "calibrations": applying})
        return
    printing.print_rows(("run", "start", "stop"), [[run.run_number, run.start_time, run.stop_time]])
    printing.print_rows(
        ("id", "device", "type", "valid from", "valid until", "bytes"),
        [[c.id, c.device_name, c.calibration_type, c.valid_from, c.valid_until, c.size] for c in applying],
    )


@click.command("add", short_help="Register a run's times, or correct them.")
@click.argument("run_number", metavar="[N]", type=int, required=False)
@click.option("--start", type=options.Time(), help="When the run began.")
@click.option("--stop", type=options.Time(), help="When it ended, if that was recorded.")
@options.table(
    "Register every row of a table with the columns run_number, start_time and stop_time; stop_time may be empty."
)
@options.as_json
@options.with_writer
def add_run(
    run_number: int | None,
    start: Any,
    stop: Any,
    table: Path | None,
    as_json: bool,
    client: CalibrationSuperMouse,
) -> None:
    """Register the times of run N, or correct them; or, with --from, every row of a table."""
    if table is not None:
        if any(value is not None for value in (run_number, start, stop)):
            raise click.UsageError("--from reads these from the table: leave them out")

        def register(row: Row) -> Run:
            if not row["run_number"].isascii() or not row["run_number"].isdigit():
                raise RefusedRow(f"run_number {row['run_number']!r} is not a whole number")
            if not row["start_time"]:
                raise RefusedRow(f"run {row['run_number']} has no start_time")
            return client.add_run(int(row["run_number"]), row["start_time"], row["stop_time"] or None)

        exit_after_table(
            write_rows(table, ("run_number", "start_time", "stop_time"), register, "run {run_number}"), as_json=as_json
        )
    if run_number is None or start is None:
        raise click.UsageError("name the run N and its --start, or give --from")
    before = _registered(client, run_number)
    if before is not None and before.stop_time is not None and stop is None:
        raise click.UsageError(
            f"run {run_number} is registered with a stop, {display_instant(before.stop_time)}, which would be lost: "
            "give --stop too"
        )
    run = client.add_run(run_number, start, stop)
    printing.print_note(f"run {run.run_number} is registered")
    if before is not None and before != run:
        stopped = "" if before.stop_time is None else f" to {display_instant(before.stop_time)}"
        printing.print_note(f"before it was registered from {display_instant(before.start_time)}{stopped}")
    if as_json:
        printing.print_json(run)


def _registered(client: CalibrationSuperMouse, run_number: int) -> Run | None:
    try:
        return client.get_run(run_number)
    except RunNotFound:
        return None


run.add_command(add_run)
run.add_command(show_run)
