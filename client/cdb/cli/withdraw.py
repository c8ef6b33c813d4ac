"""Withdraw a calibration, or preview what that would change: `cdb withdraw`."""

from collections.abc import Sequence
from dataclasses import dataclass

import click

from cdb._instants import display_instant
from cdb.calibration import Calibration
from cdb.cli import options, printing
from cdb.cli.printing import describe_origin, describe_runs
from cdb.records import CalibrationRecord, RunRange
from cdb.supermouse import CalibrationSuperMouse


@click.command(short_help="Withdraw a calibration stored by mistake.")
@click.argument("id", type=int)
@click.option("--reason", help="Why you withdraw it; stored for later readers.")
@click.option("--dry-run", is_flag=True, help="Show what would change; withdraw nothing.")
@options.as_json
@options.with_writer
def withdraw(
    id: int,
    reason: str | None,
    dry_run: bool,
    as_json: bool,
    client: CalibrationSuperMouse,
) -> None:
    """Withdraw the calibration ID, stored by mistake: the one before it applies again."""
    if dry_run:
        change = preview_withdrawal(client, id)
        if as_json:
            printing.print_json(change)
        else:
            printing.print_line("\n".join(describe_withdrawal(change)))
        return
    if reason is None:
        raise click.UsageError("missing --reason: tell why you withdraw it")
    withdrawn = client.withdraw_calibration(id, reason)
    printing.print_note(f"{id} is withdrawn: {withdrawn.withdrawn_reason or ''}")
    if as_json:
        printing.print_json(withdrawn)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """The changes that withdrawing a calibration would make: `instead` would apply to `run_count` runs, or none."""

    calibration: CalibrationRecord
    instead: CalibrationRecord | None
    run_count: int
    run_range: tuple[RunRange, ...]


def preview_withdrawal(client: Calibration, id: int) -> Withdrawal:
    """Work out what withdrawing a calibration would change: by rule 3 the one before it applies again."""
    meant = client.get_calibration_for_id(id).record
    if meant.withdrawn or meant.valid_until == meant.valid_from:
        return Withdrawal(meant, None, 0, ())
    history = client.get_history(meant.device_name, meant.calibration_type)
    earlier = [
        record
        for record in history
        if not record.withdrawn and (record.valid_from, record.id) < (meant.valid_from, meant.id)
    ]
    instead = max(earlier, key=lambda record: (record.valid_from, record.id), default=None)
    stop = "9999-12-31T23:59:59.999999Z" if meant.valid_until is None else meant.valid_until
    changed = [run.run_number for run in client.get_runs(meant.valid_from, stop) if run.start_time != meant.valid_until]
    return Withdrawal(meant, instead, len(changed), tuple(_ranges(changed)))


def describe_withdrawal(change: Withdrawal) -> list[str]:
    """Describe in lines what withdrawing a calibration would change."""
    meant, again = change.calibration, change.instead
    name = f"{meant.id}: {meant.device_name} {meant.calibration_type} from {display_instant(meant.valid_from)}"
    lines = [f"{name}, {describe_origin(meant)}"]
    if meant.withdrawn and meant.withdrawn_at is not None:
        when = display_instant(meant.withdrawn_at)
        return [*lines, f"it was withdrawn at {when}: {meant.withdrawn_reason}; nothing would change"]
    if meant.valid_until == meant.valid_from:
        return [*lines, "it is never in force: nothing would change"]
    until = "with no end" if meant.valid_until is None else f"until {display_instant(meant.valid_until)}"
    lines.append(f"in force from {display_instant(meant.valid_from)}, {until}")
    if again is not None:
        lines.append(f"replaced by {again.id}, from {display_instant(again.valid_from)}: {describe_origin(again)}")
    else:
        lines.append("! nothing would apply instead")
    return [*lines, f"affected runs: {describe_runs(change.run_count, change.run_range)}"]


def _ranges(numbers: Sequence[int]) -> list[RunRange]:
    """Group ascending numbers into ranges without a gap."""
    ranges: list[RunRange] = []
    for number in numbers:
        first = ranges.pop().first_run if ranges and ranges[-1].last_run == number - 1 else number
        ranges.append(RunRange(first, number))
    return ranges
