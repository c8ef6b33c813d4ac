"""Show and search the journal: `cdb log`."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from cdb._exceptions import Unavailable
from cdb._instants import display_instant
from cdb.calibration import Calibration
from cdb.cli import options, printing
from cdb.records import JournalEntry

# Entries of the journal in one request.
JOURNAL_PAGE_ENTRIES = 1000


@click.command(short_help="Show who wrote what, when and why.")
@click.option(
    "--device", metavar="NAME", help="Only what was written about this device.", shell_complete=options.complete_devices
)
@click.option(
    "--type",
    "calibration_type",
    metavar="NAME",
    help="Only what was written about this calibration type.",
    shell_complete=options.complete_types,
)
@click.option("--author", metavar="NAME", help="Only what this user wrote.")
@click.option("--since", type=options.Time(), help="Only what was written at this time or later.")
@click.option("--until", type=options.Time(), help="Only what was written at this time or earlier.")
@options.as_json
@options.with_reader
def log(
    device: str | None,
    calibration_type: str | None,
    author: str | None,
    since: datetime | None,
    until: datetime | None,
    as_json: bool,
    client: Calibration,
) -> None:
    """Show the journal: who stored, withdrew or registered what, when and why; the earliest first."""
    length = client.get_status().serial
    before = _count_before(client, length, since)
    with printing.progress("entries") as progress:
        read = list(progress.track(entries(client, before, length), total=length - before, description="journal"))
    calibrations = {entry.serial: entry for entry in read if entry.kind == "calibration"}
    withdrawals = {entry.calibration_id: entry for entry in read if entry.kind == "withdrawal"}

    def about(entry: JournalEntry) -> JournalEntry | None:
        """Return the entry of the calibration that an entry stores or withdraws."""
        if entry.calibration_id is None:
            return entry if entry.kind == "calibration" else None
        id = entry.calibration_id
        if id not in calibrations:
            calibrations[id] = _entry(client, id)
        return calibrations[id]

    def asked_for(entry: JournalEntry) -> bool:
        if (author is not None and entry.author != author) or (until is not None and entry.created > until):
            return False
        if device is None and calibration_type is None:
            return True
        calibration = about(entry)
        return (
            calibration is not None
            and (device is None or calibration.device_name == device.upper())
            and (calibration_type is None or calibration.calibration_type == calibration_type.lower())
        )

    found = [entry for entry in read if asked_for(entry)]
    if as_json:
        printing.print_json([{**asdict(entry), "withdrawn": withdrawals.get(entry.serial)} for entry in found])
        return
    rows = []
    for entry in found:
        what, why = _what(entry, about(entry)), entry.comment or entry.reason
        rows.append([entry.serial, entry.created, entry.author, what, why, _withdrawn(withdrawals.get(entry.serial))])
    printing.print_rows(("serial", "when", "who", "what", "why", "withdrawn"), rows)


def entry_at(client: Calibration, created: datetime) -> JournalEntry:
    """Get the entry that was written at an instant."""
    return _entry(client, _count_before(client, client.get_status().serial, created) + 1)


def _count_before(client: Calibration, length: int, since: datetime | None) -> int:
    """Count the entries written before a time, out of the first `length`, by bisection."""
    if since is None:
        return 0
    return bisect_left(range(length), since, key=lambda before: _entry(client, before + 1).created)


def entries(client: Calibration, after_serial: int, length: int) -> Iterator[JournalEntry]:
    """Yield the entries of the journal after one serial, up to the one at `length`. Raises Unavailable."""
    while after_serial < length:
        page = client.get_journal(after_serial, min(JOURNAL_PAGE_ENTRIES, length - after_serial))
        if not page:
            raise _behind(after_serial + 1)
        yield from page
        after_serial = page[-1].serial


def _entry(client: Calibration, serial: int) -> JournalEntry:
    return next(entries(client, serial - 1, serial))


def _behind(serial: int) -> Unavailable:
    """Another of several servers answers than before, and it is behind."""
    return Unavailable(f"the server that answers now does not have entry {serial} yet: ask again later, or one server")


def _what(entry: JournalEntry, about: JournalEntry | None) -> str:
    name = f"{about.device_name} {about.calibration_type} from {_formatted(about.valid_from)}" if about else ""
    if entry.kind == "calibration":
        return f"{name}, {entry.size} bytes"
    if entry.kind == "withdrawal":
        return f"withdrew {entry.calibration_id}: {name}"
    stop = f" to {display_instant(entry.stop_time)}" if entry.stop_time else ""
    return f"run {entry.run_number}: {_formatted(entry.start_time)}{stop}"


def _withdrawn(withdrawal: JournalEntry | None) -> str | None:
    if withdrawal is None:
        return None
    return f"{display_instant(withdrawal.created)} by {withdrawal.author}: {withdrawal.reason}"


def _formatted(instant: Any) -> str:
    return display_instant(instant) if isinstance(instant, datetime) else ""
