"""The commands that write: one thing, or a table of them."""

import csv
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from cdb._exceptions import CdbPermanentError, NotAuthorised, RunNotFound
from cdb._instants import instant, say
from cdb.cli import completion, impact, shared
from cdb.records import CalibrationRecord, Preview, Run
from cdb.supermouse import CalibrationSuperMouse

Row = dict[str, str]

# SQLite stores no longer value, and PostgreSQL few more: a device or a pipe may be read without end.
MAX_FILE_BYTES = 10**9


class RefusedRow(Exception):
    """A row that cannot be sent."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of the row in a line of a table: what the service answered, or why it was refused."""

    line: int
    answer: object | None
    refused: str | None


@click.command(short_help="Store a file as a calibration.")
@click.argument("device_name", metavar="[DEVICE]", required=False, shell_complete=completion.devices)
@click.argument("calibration_type", metavar="[TYPE]", required=False, shell_complete=completion.calibration_types)
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
@click.option("--dry-run", is_flag=True, help="Show what would change; store nothing.")
@click.option("--yes", is_flag=True, help="Do not ask. Only on a terminal is it asked at all.")
@shared.as_json
@shared.writes
def add(
    device_name: str | None,
    calibration_type: str | None,
    file: Path | None,
    valid_from: Any,
    comment: str | None,
    table: Path | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    client: CalibrationSuperMouse,
) -> None:
    """Store FILE as a calibration and print its id; or, with --from, every row of a table.

    On a terminal it first shows what would change, and asks. To store again what is stored writes nothing, so that a
    command that failed can be repeated.
    """
    if dry_run and yes:
        raise click.UsageError("--dry-run stores nothing: leave --yes out")
    ask = not yes and sys.stdin.isatty() and sys.stderr.isatty()
    if table is not None:
        if any(value is not None for value in (device_name, valid_from, comment)):
            raise click.UsageError("--from says all: leave the rest out")
        _add_table(client, table, dry_run=dry_run, ask=ask, as_json=as_json)
        return
    if device_name is None or calibration_type is None or file is None:
        raise click.UsageError("name DEVICE, TYPE and FILE, or give --from")
    if valid_from is None:
        raise click.UsageError("say with --valid-from from when it applies")
    try:
        data = _content(file)
    except RefusedRow as error:
        raise click.UsageError(str(error)) from None
    if dry_run or ask:
        key = device_name, calibration_type
        preview = client.preview_calibration(*key, valid_from, data, comment)
        if dry_run and as_json:
            shared.print_json(preview)
            return
        on_terminal = sys.stdout.isatty() if dry_run else ask
        told = impact.of_upload(client, key, valid_from, data, preview, line_by_line=on_terminal)
        shared.print_comparison(told, err=not dry_run)
        if dry_run:
            return
        if preview.stored_id is None:
            _ask("store it?")
    stored = client.add_calibration(device_name, calibration_type, valid_from, data, comment)
    if as_json:
        shared.print_json(stored)
    else:
        shared.out(str(stored.id))
    _say_what_is_in_force(client, stored)


def _add_table(client: CalibrationSuperMouse, table: Path, *, dry_run: bool, ask: bool, as_json: bool) -> None:
    columns = ("device_name", "calibration_type", "valid_from", "file")
    name = "{device_name} {calibration_type} {valid_from}"

    def upload(row: Row) -> tuple[str, str, str, bytes, str | None]:
        if not row["file"]:
            raise RefusedRow("the column file is empty")
        data = _content(table.parent / row["file"])
        return row["device_name"], row["calibration_type"], row["valid_from"], data, row.get("comment") or None

    if dry_run or ask:
        previews: list[tuple[Any, ...]] = []
        new: list[Row] = []

        def preview(row: Row) -> Preview:
            uploaded = upload(row)
            found, data = client.preview_calibration(*uploaded), uploaded[3]
            before = found.takes_over_from
            if found.stored_id is not None:
                notes = [f"is stored as {found.stored_id}"]
            else:
                notes = impact.warnings(client, (row["device_name"], row["calibration_type"]), found)
                notes += impact.doubts(client, data, before)
                new.append(row)
            applies = instant("valid_from", row["valid_from"]), found.valid_until
            instead = (before.id, before.size) if before else (None, None)
            told = impact.runs(found.run_count, found.run_range), len(data), instead[1], "; ".join(notes)
            previews.append((row["device_name"], row["calibration_type"], *applies, instead[0], *told))
            return found

        loaded = _load(table, columns, preview, name, done="previewed")
        if dry_run and as_json:
            _end(loaded, as_json=True)
        heading = ("device", "type", "valid from", "valid until", "takes over from", "runs", "bytes", "now", "note")
        shared.print_rows(heading, previews, err=not dry_run)
        shared.tell("each row as things stand now, without the rows before it")
        if dry_run:
            _end(loaded, as_json=False)
        if new:
            _ask(f"store {len(new)} calibrations?")
    _end(_load(table, columns, lambda row: client.add_calibration(*upload(row)), name), as_json=as_json)


@click.command(short_help="Withdraw a calibration stored by mistake.")
@click.argument("id", type=int)
@click.option("--reason", help="Why; kept for all later readers.")
@click.option("--dry-run", is_flag=True, help="Show what would change; withdraw nothing.")
@shared.as_json
@shared.writes
def withdraw(
    id: int,
    reason: str | None,
    dry_run: bool,
    as_json: bool,
    client: CalibrationSuperMouse,
) -> None:
    """Withdraw the calibration ID, stored by mistake: the one before it applies again."""
    if dry_run:
        change = impact.withdrawal(client, id)
        if as_json:
            shared.print_json(change)
        else:
            shared.out("\n".join(impact.of_withdrawal(change)))
        return
    if reason is None:
        raise click.UsageError("say with --reason why")
    withdrawn = client.withdraw_calibration(id, reason)
    shared.tell(f"{id} is withdrawn: {withdrawn.withdrawn_reason or ''}")
    if as_json:
        shared.print_json(withdrawn)


@click.command("add", short_help="Register a run's times, or correct them.")
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
@shared.as_json
@shared.writes
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
            raise click.UsageError("--from says all: leave the rest out")

        def register(row: Row) -> Run:
            if not row["run_number"].isascii() or not row["run_number"].isdigit():
                raise RefusedRow(f"run_number {row['run_number']!r} is not a whole number")
            if not row["start_time"]:
                raise RefusedRow(f"run {row['run_number']} has no start_time")
            return client.add_run(int(row["run_number"]), row["start_time"], row["stop_time"] or None)

        _end(_load(table, ("run_number", "start_time", "stop_time"), register, "run {run_number}"), as_json=as_json)
    if run_number is None or start is None:
        raise click.UsageError("name the run N and its --start, or give --from")
    before = _registered(client, run_number)
    if before is not None and before.stop_time is not None and stop is None:
        raise click.UsageError(
            f"run {run_number} is registered with a stop, {say(before.stop_time)}, which would be lost: give --stop too"
        )
    run = client.add_run(run_number, start, stop)
    shared.tell(f"run {run.run_number} is registered")
    if before is not None and before != run:
        stopped = "" if before.stop_time is None else f" to {say(before.stop_time)}"
        shared.tell(f"before it was registered from {say(before.start_time)}{stopped}")
    if as_json:
        shared.print_json(run)


def _registered(client: CalibrationSuperMouse, run_number: int) -> Run | None:
    try:
        return client.get_run(run_number)
    except RunNotFound:
        return None


def _load(
    table: Path, columns: tuple[str, ...], write: Callable[[Row], object], name: str, *, done: str = "accepted"
) -> list[Loaded]:
    """Write the rows of a table in their order. A row that is refused is told with its reason, and the rest goes on.

    What no row is to blame for, such as a server that does not answer, ends it: it can be repeated from the start.
    `name` makes the name of a row out of its cells, `done` says what was done with those not refused.
    """
    rows, file = list(_rows(table, columns)), table.name
    loaded: list[Loaded] = []
    try:
        with shared.progress("rows") as progress:
            for line, row in progress.track(rows, description=shared.described(file)):
                try:
                    loaded.append(Loaded(line, write(row), None))
                except NotAuthorised:
                    raise
                except (CdbPermanentError, RefusedRow) as error:
                    loaded.append(Loaded(line, None, str(error)))
                    shared.tell_above(progress, f"{file}:{line}: {name.format(**row)}: refused: {error}")
    finally:
        left, refused = len(rows) - len(loaded), _refused(loaded)
        undone = f", {left} not tried: repeat the command" if left else ""
        shared.tell(f"{file}: {len(rows)} rows, {len(loaded) - refused} {done}, {refused} refused{undone}")
    return loaded


def _refused(loaded: list[Loaded]) -> int:
    return sum(row.refused is not None for row in loaded)


def _end(loaded: list[Loaded], *, as_json: bool) -> NoReturn:
    """End after a table: with exit status 1 when rows were refused."""
    if as_json:
        shared.print_json(loaded)
    sys.exit(1 if _refused(loaded) else 0)


def _rows(table: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, Row]]:
    """The rows of a table with their line numbers, their cells without white space around. An absent cell is empty."""
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


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise RefusedRow(f"{file} cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise RefusedRow(f"{file} has more than {MAX_FILE_BYTES:,} bytes, which no server stores")
    return data


def _ask(question: str) -> None:
    if not shared.confirmed(question):
        shared.tell("nothing was stored")
        sys.exit(1)


def _say_what_is_in_force(client: CalibrationSuperMouse, stored: CalibrationRecord) -> None:
    """Rule 9: "the answer says which is in force; to go back, withdraw the later one"."""
    if stored.valid_until != stored.valid_from:
        return
    for id, fields in client.get_ids(stored.valid_from).items():
        if (fields["device_name"], fields["calibration_type"]) == (stored.device_name, stored.calibration_type):
            shared.tell(
                f"{stored.id} was stored before, and {id}, stored later under the same valid from, is in force; "
                f"to go back: cdb withdraw {id} --reason …"
            )
