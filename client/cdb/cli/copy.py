"""Copy the calibrations of a running legacy CDB into this one: `cdb copy`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from itertools import pairwise
from typing import TYPE_CHECKING

import click

from cdb._exceptions import CdbPermanentError, InvalidArgument, NotAuthorised
from cdb.cli import options, printing
from cdb.cli.log import entries
from cdb.records import CalibrationRecord
from cdb.supermouse import CalibrationSuperMouse

if TYPE_CHECKING:
    from cdb._legacy_soap import LegacyService, ListedCalibration

# The periods to list: from the first year to the second, then year by year, then to the last.
FIRST_YEAR, FIRST_SINGLE_YEAR, LAST_YEAR = 1900, 2000, 2100


@dataclass(frozen=True, slots=True)
class Original:
    """A calibration of the earlier CDB, and the service that has it."""

    service: LegacyService
    listed: ListedCalibration

    @property
    def comment(self) -> str:
        """The comment by which a later copy finds it again."""
        created = "" if self.listed.created == "null" else f", created {self.listed.created}"
        return f"id {self.listed.id} of the earlier CDB at {self.service.origin}{created}"


@dataclass(frozen=True, slots=True)
class CopyResult:
    """The result for an original: the id under which it is stored, now or before, or why it was refused."""

    original: Original
    id: int | None
    is_new: bool = False
    refused: str | None = None


@click.command(short_help="Copy the calibrations of a running earlier CDB.")
@click.option(
    "--from",
    "url",
    required=True,
    metavar="URL",
    help="Its base URL, for calibrations and cabling; or the address of one of its services, like "
    "http://cdb.example/cdb/calibration?wsdl.",
)
@click.option(
    "--first-id",
    type=click.IntRange(min=1),
    metavar="N",
    help="Copy only if no calibration has an id below N, now or later: an id of the earlier CDB is then an error, and "
    "does not get another file.",
)
@options.as_json
@options.with_writer
def copy(url: str, first_id: int | None, as_json: bool, client: CalibrationSuperMouse) -> None:
    """Copy the calibrations that a running earlier CDB lists, each with its id and created date as the comment.

    Calibrations copied before are not fetched again: repeat the command after a failure, or for what is new there.
    Refused calibrations are printed with the reason, and the exit status is 1.

    Ids are journal positions, and none can be left out. To fill those below --first-id, register runs first.
    """
    # Imported late: zeep is slow to import, and other commands do not need it.
    from cdb._legacy_soap import legacy_services

    timeout = click.get_current_context().params["timeout"]
    try:
        found = legacy_services(url, timeout)
    except InvalidArgument as error:
        raise click.UsageError(error.message) from None
    if first_id is not None:
        _check_ids(client, first_id)
    listings = [_listed(service) for service in found]
    originals = [original for of_service, _ in listings for original in of_service]
    last = max((original.listed.id for original in originals), default=0)
    if first_id is not None and last >= first_id:
        printing.print_note(
            f"cdb: the earlier CDB has ids up to {last}: with --first-id {last + 1} each of them is an error here"
        )
    taken = _copy_all(client, originals)
    refused = [one for one in taken if one.refused is not None]
    if as_json:
        printing.print_json([_to_json(one) for one in taken])
    elif refused:
        printing.print_rows(
            ("id", "device", "type", "valid from", "created", "not taken over, for"),
            [[*asdict(one.original.listed).values(), one.refused] for one in refused],
        )
    sys.exit(1 if refused or not all(complete for _, complete in listings) else 0)


def _check_ids(client: CalibrationSuperMouse, first_id: int) -> None:
    """Raise UsageError unless the journal reaches up to an id, and has no calibration below it."""
    known = client.get_status().serial
    for entry in entries(client, 0, min(known, first_id - 1)):
        if entry.kind == "calibration":
            raise click.UsageError(
                f"--first-id {first_id}: {entry.serial} is the id of {entry.device_name} {entry.calibration_type} "
                "already, and stays so; use a new database, and register the runs there first"
            )
    if known < first_id - 1:
        raise click.UsageError(
            f"--first-id {first_id}: the next id is {known + 1}, and none can be left out; {first_id - 1 - known} "
            "runs registered before, with 'cdb run add --from', would take those below"
        )


def _listed(service: LegacyService) -> tuple[list[Original], bool]:
    """List the calibrations of a service, and whether it answered for every period; prints those that it refused.

    Asks year by year, because an old server takes long for a long list.
    """
    years = [FIRST_YEAR, *range(FIRST_SINGLE_YEAR, datetime.now(timezone.utc).year + 2), LAST_YEAR]
    periods = list(pairwise(years))
    listed: dict[int, ListedCalibration] = {}
    complete = True
    with printing.progress("periods") as progress:
        for start, stop in progress.track(periods, description=printing.bar_description(service.origin)):
            try:
                found = service.ids(f"{start}-01-01 00:00:00", f"{stop}-01-01 00:00:00")
            except CdbPermanentError as error:
                complete = False
                printing.print_above_bar(
                    progress, f"what was valid from {start} to {stop} is not listed: {error.message}"
                )
            else:
                listed |= {one.id: one for one in found}
    return [Original(service, one) for one in listed.values()], complete


def _copy_all(client: CalibrationSuperMouse, originals: Sequence[Original]) -> list[CopyResult]:
    """Store each original that is not stored yet. Goes on after one that either database refuses.

    Stops at other errors, such as a server that does not answer: the command can be repeated.
    """
    stored = _already_copied(client, originals)
    taken = [CopyResult(original, stored[original.comment]) for original in originals if original.comment in stored]
    # In the order of creation: of two with one valid from, the later is in force here as there.
    new = sorted(
        (original for original in originals if original.comment not in stored),
        key=lambda original: (original.listed.created, original.listed.id),
    )
    try:
        with printing.progress("calibrations") as progress:
            for original in progress.track(new, description="copied"):
                taken.append(_copy_one(client, original))
    finally:
        copied, refused = sum(one.is_new for one in taken), sum(one.refused is not None for one in taken)
        before, left = len(taken) - copied - refused, len(originals) - len(taken)
        undone = f", {left} not tried: repeat the command" if left else ""
        told = f"{len(originals)} listed, {copied} copied, {before} stored before, {refused} not taken over{undone}"
        printing.print_note(told)
    return taken


def _already_copied(client: CalibrationSuperMouse, originals: Sequence[Original]) -> dict[str | None, int]:
    """Return the ids, by comment, of all that is stored for these devices and types, withdrawn ones too."""

    def history(key: tuple[str, str]) -> list[CalibrationRecord]:
        try:
            return client.get_history(*key)
        except InvalidArgument:
            # The name is not valid here.
            return []

    keys = {(original.listed.device_name, original.listed.calibration_type) for original in originals}
    found = printing.in_parallel("devices and types", history, sorted(keys))
    return {record.comment: record.id for records in found for record in records}


def _copy_one(client: CalibrationSuperMouse, original: Original) -> CopyResult:
    listed, comment = original.listed, original.comment
    try:
        data = original.service.payload(listed.id)
        key = listed.device_name, listed.calibration_type
        stored = client.add_calibration(*key, listed.valid_from, data, comment=comment)
    except NotAuthorised:
        raise
    except CdbPermanentError as error:
        return CopyResult(original, None, refused=error.message)
    # Another comment shows that the same bytes were stored before.
    return CopyResult(original, stored.id, is_new=stored.comment == comment)


def _to_json(one: CopyResult) -> dict[str, object]:
    """Convert a result to JSON."""
    origin = {"service": one.original.service.origin, "original": asdict(one.original.listed)}
    return {**origin, "id": one.id, "is_new": one.is_new, "refused": one.refused}
