"""`cdb log`: who wrote what, when and why."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from cdb._exceptions import Unavailable
from cdb._instants import say
from cdb.calibration import Calibration
from cdb.cli import completion, shared
from cdb.records import JournalEntry

AT_ONCE = 1000


@click.command(short_help="Show who wrote what, when and why.")
@click.option(
    "--device", metavar="NAME", help="Only what was written about this device.", shell_complete=completion.devices
)
@click.option(
    "--type",
    "calibration_type",
    metavar="NAME",
    help="Only what was written about this calibration type.",
    shell_complete=completion.calibration_types,
)
@click.option("--author", metavar="NAME", help="Only what this user wrote.")
@click.option("--since", type=shared.Time(), help="Only what was written at this time or later.")
@click.option("--until", type=shared.Time(), help="Only what was written at this time or earlier.")
@shared.as_json
@shared.reads
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
    before = _written_before(client, length, since)
    with shared.progress("entries") as progress:
        read = list(progress.track(_entries(client, before, length), total=length - before, description="journal"))
    calibrations = {entry.serial: entry for entry in read if entry.kind == "calibration"}
    withdrawals = {entry.calibration_id: entry for entry in read if entry.kind == "withdrawal"}

    def about(entry: JournalEntry) -> JournalEntry | None:
        """The calibration that an entry stores or withdraws."""
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
        shared.print_json([{**asdict(entry), "withdrawn": withdrawals.get(entry.serial)} for entry in found])
        return
    rows = []
    for entry in found:
        what, why = _what(entry, about(entry)), entry.comment or entry.reason
        rows.append([entry.serial, entry.created, entry.author, what, why, _withdrawn(withdrawals.get(entry.serial))])
    shared.print_rows(("serial", "when", "who", "what", "why", "withdrawn"), rows)


def written_at(client: Calibration, created: datetime) -> JournalEntry:
    """The entry that was written at an instant."""
    return _entry(client, _written_before(client, client.get_status().serial, created) + 1)


def _written_before(client: Calibration, length: int, since: datetime | None) -> int:
    """How many of the first `length` entries were written before a time. They are in the order of their times."""
    if since is None:
        return 0
    return bisect_left(range(length), since, key=lambda before: _entry(client, before + 1).created)


def _entries(client: Calibration, after_serial: int, length: int) -> Iterator[JournalEntry]:
    while after_serial < length:
        entries = client.get_journal(after_serial, min(AT_ONCE, length - after_serial))
        if not entries:
            raise _behind(after_serial + 1)
        yield from entries
        after_serial = entries[-1].serial


def _entry(client: Calibration, serial: int) -> JournalEntry:
    entries = client.get_journal(serial - 1, 1)
    if not entries:
        raise _behind(serial)
    return entries[0]


def _behind(serial: int) -> Unavailable:
    """Of several servers another answers than before, and it has not come so far."""
    return Unavailable(f"the server that answers now does not have entry {serial} yet: ask again later, or one server")


def _what(entry: JournalEntry, about: JournalEntry | None) -> str:
    name = f"{about.device_name} {about.calibration_type} from {_said(about.valid_from)}" if about else ""
    if entry.kind == "calibration":
        return f"{name}, {entry.size} bytes"
    if entry.kind == "withdrawal":
        return f"withdrew {entry.calibration_id}: {name}"
    stop = f" to {say(entry.stop_time)}" if entry.stop_time else ""
    return f"run {entry.run_number}: {_said(entry.start_time)}{stop}"


def _withdrawn(withdrawal: JournalEntry | None) -> str | None:
    if withdrawal is None:
        return None
    return f"{say(withdrawal.created)} by {withdrawal.author}: {withdrawal.reason}"


def _said(instant: Any) -> str:
    return say(instant) if isinstance(instant, datetime) else ""
