"""Get calibrations and list what is stored: `cdb get`, `ids`, `devices`, `status`."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cdb._arguments import server_urls
from cdb._files import write_atomically
from cdb._instants import Instant, display_instant
from cdb._resolver.cache import Cache
from cdb._resolver.job import is_offline, job_as_of
from cdb.calibration import AsOf, Calibration
from cdb.cli import options, printing
from cdb.records import CalibrationText


@click.command(short_help="Get the calibration that applies, its exact bytes.")
@options.device_and_type(required=False)
@options.run
@options.date
@click.option("--id", type=int, metavar="N", help="Ask for the calibration of this id; without DEVICE and TYPE.")
@options.as_of
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file; else to stdout."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print its fields as JSON; its content only goes to a file, with -o."
)
@options.with_reader
def get(
    device_name: str | None,
    calibration_type: str | None,
    run: int | None,
    date: Any,
    id: int | None,
    as_of: Any,
    output: Path | None,
    as_json: bool,
    client: Calibration,
) -> None:
    """Get a calibration: the current one, or that of a run, a date or an id. Its exact bytes go to stdout or a file."""
    if sum(value is not None for value in (run, date, id)) > 1:
        raise click.UsageError("--run, --date and --id exclude each other")
    if id is not None:
        if device_name is not None:
            raise click.UsageError("--id needs no device and type: leave DEVICE and TYPE out")
        text = client.get_calibration_for_id(id, as_of)
    elif device_name is None or calibration_type is None:
        if device_name is not None and device_name.isdecimal():
            raise click.UsageError(f"name DEVICE and TYPE, or give --id {device_name} if that is an id")
        raise click.UsageError("name DEVICE and TYPE, or give --id; cdb devices shows which there are")
    else:
        text = get_applying(client, (device_name, calibration_type), run, date, as_of)
    if text.withdrawn and text.withdrawn_at is not None:
        printing.print_note(
            f"cdb: {text.id} was withdrawn at {display_instant(text.withdrawn_at)}: {text.withdrawn_reason or ''}"
        )
    if output is None and not as_json:
        printing.print_content(text.data)
    if output is not None:
        _write(output, text.data)
        printing.print_note(f"{output}: {text.device_name} {text.calibration_type}, id {text.id}, {text.size} bytes")
    if as_json:
        printing.print_json(text.record)


def get_applying(
    client: Calibration, key: tuple[str, str], run: int | None, date: Instant | None, as_of: AsOf
) -> CalibrationText:
    """Get the calibration that applies to a run, else at a date, else now."""
    if run is not None:
        return client.get_calibration_for_run(*key, run, as_of)
    if date is not None:
        return client.get_calibration_for_date(*key, date, as_of)
    return client.get_current_calibration(*key, as_of)


@click.command(short_help="List the calibrations in force in a period.")
@click.argument("start", type=options.Time())
@click.argument("stop", type=options.Time(), required=False)
@options.as_of
@options.as_json
@options.with_reader
def ids(start: Any, stop: Any, as_of: Any, as_json: bool, client: Calibration) -> None:
    """List the calibrations in force at one instant at least from START to STOP; without STOP, at START."""
    found = client.get_ids(start, stop, as_of)
    columns = ("device_name", "calibration_type", "validFrom", "valid_until", "author", "size", "comment")
    printing.print_answer(
        found,
        ("id", "device", "type", "valid from", "valid until", "author", "bytes", "comment"),
        [[id, *(fields[column] for column in columns)] for id, fields in found.items()],
        as_json=as_json,
    )


@click.command(short_help="List the devices and their calibration types.")
@options.as_of
@options.as_json
@options.with_reader
def devices(as_of: Any, as_json: bool, client: Calibration) -> None:
    """List the devices and their calibration types."""
    found = client.list_devices(as_of, with_cabling=True)
    printing.print_answer(
        # A device is a str, too: JSON would have its name alone.
        [asdict(device) for device in found],
        ("device", "types"),
        [[device.device_name, ", ".join(device.calibration_type)] for device in found],
        as_json=as_json,
    )


@click.command(short_help="Show the server's status.")
@options.as_json
@options.with_reader
def status(as_json: bool, client: Calibration) -> None:
    """Show the server's status, and the settings of this job."""
    job: dict[str, Any] = {
        "as_of": job_as_of(),
        "lock": os.environ.get("CDB_LOCK") or None,
        "offline": is_offline() or None,
        "cache": str(Cache().store.folder),
    }
    server = click.get_current_context().params["server"]
    if is_offline():
        job["prefetched"] = Cache().prefetched(server_urls(server)) or None
        said: dict[str, Any] = {}
    else:
        said = asdict(client.get_status())
    names = {"lag_entries": "entries behind", "lag_seconds": "seconds behind", "restored": "restored from a backup"}
    rows = [(names.get(name, name.replace("_", " ")), value) for name, value in said.items()]
    rows += [(f"this job's {name.replace('_', ' ')}", value) for name, value in job.items()]
    rows = [row for row in rows if row[1] is not None]
    printing.print_answer({**said, "job": job}, ("server", server), rows, as_json=as_json)


def _write(output: Path, data: bytes) -> None:
    """Write a file atomically: a job that is killed leaves no truncated calibration."""
    target = output.resolve()
    try:
        if target.exists() and not target.is_file():
            # Write into a pipe or a device; do not replace it.
            target.write_bytes(data)
        else:
            write_atomically(target, data)
    except OSError as error:
        raise click.FileError(str(output), error.strerror or str(error)) from None
