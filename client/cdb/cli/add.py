"""Store calibrations, after a preview and a confirmation: `cdb add`."""

import difflib
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from cdb._instants import display_instant, instant
from cdb.calibration import Calibration
from cdb.cli import diff, options, printing
from cdb.cli.printing import describe_origin, describe_runs
from cdb.cli.table import RefusedRow, Row, exit_after_table, write_rows
from cdb.records import CalibrationRecord, Preview
from cdb.supermouse import CalibrationSuperMouse

# SQLite stores no longer value, PostgreSQL hardly. A device or a pipe may have no end.
MAX_FILE_BYTES = 10**9


@click.command(short_help="Store a file as a calibration.")
@options.device_and_type(required=False)
@click.argument("file", metavar="[FILE]", type=click.Path(path_type=Path), required=False)
@click.option("--valid-from", type=options.Time(), help="The time from which it applies.")
@click.option("--comment", help="A comment for later readers.")
@options.table(
    "Store every row of a table with the columns device_name, calibration_type, valid_from, file (relative to the "
    "table) and perhaps comment."
)
@click.option("--dry-run", is_flag=True, help="Show what would change; store nothing.")
@click.option("--yes", is_flag=True, help="Skip the confirmation (terminal only).")
@options.as_json
@options.with_writer
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

    On a terminal it first shows what would change, and asks for confirmation. Storing the same again writes nothing, so
    that a failed command can be repeated.
    """
    if dry_run and yes:
        raise click.UsageError("--dry-run stores nothing: leave --yes out")
    ask = not yes and sys.stdin.isatty() and sys.stderr.isatty()
    if table is not None:
        if any(value is not None for value in (device_name, valid_from, comment)):
            raise click.UsageError("--from reads these from the table: leave them out")
        _add_table(client, table, dry_run=dry_run, ask=ask, as_json=as_json)
        return
    if device_name is None or calibration_type is None or file is None:
        raise click.UsageError("name DEVICE, TYPE and FILE, or give --from")
    if valid_from is None:
        raise click.UsageError("missing --valid-from: give the time from which it applies")
    try:
        data = _content(file)
    except RefusedRow as error:
        raise click.UsageError(str(error)) from None
    if dry_run or ask:
        key = device_name, calibration_type
        preview = client.preview_calibration(*key, valid_from, data, comment)
        if dry_run and as_json:
            printing.print_json(preview)
            return
        on_terminal = sys.stdout.isatty() if dry_run else ask
        told = describe_upload(client, key, valid_from, data, preview, line_by_line=on_terminal)
        printing.print_diff(told, err=not dry_run)
        if dry_run:
            return
        if preview.stored_id is None:
            _confirm_or_exit("store it?")
    stored = client.add_calibration(device_name, calibration_type, valid_from, data, comment)
    if as_json:
        printing.print_json(stored)
    else:
        printing.print_line(str(stored.id))
    _note_if_superseded(client, stored)


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
                notes = warnings(client, (row["device_name"], row["calibration_type"]), found)
                notes += suspicions(client, data, before)
                new.append(row)
            applies = instant("valid_from", row["valid_from"]), found.valid_until
            instead = (before.id, before.size) if before else (None, None)
            told = printing.describe_runs(found.run_count, found.run_range), len(data), instead[1], "; ".join(notes)
            previews.append((row["device_name"], row["calibration_type"], *applies, instead[0], *told))
            return found

        loaded = write_rows(table, columns, preview, name, done="previewed")
        if dry_run and as_json:
            exit_after_table(loaded, as_json=True)
        heading = ("device", "type", "valid from", "valid until", "takes over from", "runs", "bytes", "now", "note")
        printing.print_rows(heading, previews, err=not dry_run)
        printing.print_note("each row compared with what is stored now, without the rows before it")
        if dry_run:
            exit_after_table(loaded, as_json=False)
        if new:
            _confirm_or_exit(f"store {len(new)} calibrations?")
    exit_after_table(
        write_rows(table, columns, lambda row: client.add_calibration(*upload(row)), name), as_json=as_json
    )


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise RefusedRow(f"{file} cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise RefusedRow(f"{file} has more than {MAX_FILE_BYTES:,} bytes, which no server stores")
    return data


def _confirm_or_exit(question: str) -> None:
    if not printing.confirm(question):
        printing.print_note("nothing was stored")
        sys.exit(1)


def _note_if_superseded(client: CalibrationSuperMouse, stored: CalibrationRecord) -> None:
    """Tell which calibration is in force. Rule 9: "to go back, withdraw the later one"."""
    if stored.valid_until != stored.valid_from:
        return
    for id, fields in client.get_ids(stored.valid_from).items():
        if (fields["device_name"], fields["calibration_type"]) == (stored.device_name, stored.calibration_type):
            printing.print_note(
                f"{stored.id} was stored before, and {id}, stored later under the same valid from, is in force; "
                f"to go back: cdb withdraw {id} --reason …"
            )


# As many lines fit on a screen with the rest.
MAX_SHOWN_DIFF_LINES = 40


def describe_upload(
    client: Calibration,
    key: tuple[str, str],
    valid_from: datetime,
    data: bytes,
    preview: Preview,
    *,
    line_by_line: bool,
) -> list[str]:
    """Describe in lines what storing `data` for a device and type would change."""
    name = f"{key[0].upper()} {key[1].lower()}"
    if preview.stored_id is not None:
        there = f"{name} from {display_instant(valid_from)}: these bytes are stored there as {preview.stored_id}"
        before = preview.takes_over_from
        if before is not None and before.id != preview.stored_id:
            there += f"; {before.id}, stored later under the same valid from, is in force"
        return [f"{there}; nothing would change"]
    until = "valid until replaced" if preview.valid_until is None else f"until {display_instant(preview.valid_until)}"
    lines = [
        f"{name} from {display_instant(valid_from)}, {until}",
        *(f"! {warning}" for warning in warnings(client, key, preview)),
    ]
    before = preview.takes_over_from
    if before is None:
        lines.append("replaces none: no calibration is in force at that time")
    else:
        lines.append(
            f"replaces {before.id} (valid since {display_instant(before.valid_from)}): {describe_origin(before)}"
        )
    lines.append(f"affected runs: {describe_runs(preview.run_count, preview.run_range)}")
    if before is None:
        lines.append(f"content: {diff.describe_size(data)}")
        lines += [f"! {doubt}" for doubt in diff.suspicions(data)]
    else:
        old = client.get_calibration_for_id(before.id).data
        names = (str(before.id), "this file")
        lines += diff.summary(old, data, names, line_by_line=line_by_line, most=MAX_SHOWN_DIFF_LINES)
    return lines


def warnings(client: Calibration, key: tuple[str, str], preview: Preview) -> list[str]:
    """List signs of a mistake in device, type or time."""
    found = []
    if preview.device_is_new:
        known = [device.device_name for device in client.list_devices(with_cabling=True)]
        found.append(f"{key[0].upper()} is a new device{_did_you_mean(key[0].upper(), known)}")
    elif preview.calibration_type_is_new:
        types = [
            device.calibration_type
            for device in client.list_devices(with_cabling=True)
            if device.device_name == key[0].upper()
        ]
        found.append(
            f"{key[1].lower()} is a new type of {key[0].upper()}{_did_you_mean(key[1].lower(), sum(types, ()))}"
        )
    if preview.lies_in_future:
        found.append("it applies only from a time in the future")
    if preview.lies_before_first_run:
        found.append("it applies from before the first run")
    return found


def suspicions(client: Calibration, data: bytes, before: CalibrationRecord | None) -> list[str]:
    """List signs of a mistake in the content, compared with the calibration that is in force now."""
    if before is None:
        return diff.suspicions(data)
    old = client.get_calibration_for_id(before.id).data
    return [f"the same bytes as {before.id}"] if data == old else diff.suspicions(data, old, str(before.id))


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    if not known:
        return ""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f": is {' or '.join(close)} meant?" if close else f"; there is {', '.join(known[:20])}"
