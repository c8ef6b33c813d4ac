"""What an upload or a withdrawal would change, in sentences: to be seen before it is made."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cdb._instants import say
from cdb.calibration import Calibration
from cdb.cli import difference
from cdb.records import CalibrationRecord, Preview, RunRange

# So much of a comparison or list fits on a screen beside the rest.
MOST_LINES = 40
MOST_RANGES = 12


def of_upload(
    client: Calibration,
    key: tuple[str, str],
    valid_from: datetime,
    data: bytes,
    preview: Preview,
    *,
    line_by_line: bool,
) -> list[str]:
    """The lines that tell what storing `data` for a device and type would change."""
    name = f"{key[0].upper()} {key[1].lower()}"
    if preview.stored_id is not None:
        there = f"{name} from {say(valid_from)}: these bytes are stored there as {preview.stored_id}"
        before = preview.takes_over_from
        if before is not None and before.id != preview.stored_id:
            there += f"; {before.id}, stored later under the same valid from, is in force"
        return [f"{there}; nothing would change"]
    until = "nothing takes over yet" if preview.valid_until is None else f"until {say(preview.valid_until)}"
    lines = [f"{name} from {say(valid_from)}, {until}", *(f"! {warning}" for warning in warnings(client, key, preview))]
    before = preview.takes_over_from
    if before is None:
        lines.append("takes over from none: nothing is in force at that time")
    else:
        lines.append(f"takes over from {before.id}, in force since {say(before.valid_from)}: {_origin(before)}")
    lines.append(f"runs that get it instead: {runs(preview.run_count, preview.run_range)}")
    if before is None:
        lines.append(f"content: {difference.size(data)}")
        lines += [f"! {doubt}" for doubt in difference.doubts(data)]
    else:
        old = client.get_calibration_for_id(before.id).data
        names = (str(before.id), "this file")
        lines += difference.told(old, data, names, line_by_line=line_by_line, most=MOST_LINES)
    return lines


def warnings(client: Calibration, key: tuple[str, str], preview: Preview) -> list[str]:
    """What may be a slip."""
    found = []
    if preview.device_is_new:
        known = [device.device_name for device in client.list_devices(with_cabling=True)]
        found.append(f"{key[0].upper()} is a new device{_meant(key[0].upper(), known)}")
    elif preview.calibration_type_is_new:
        types = [
            device.calibration_type
            for device in client.list_devices(with_cabling=True)
            if device.device_name == key[0].upper()
        ]
        found.append(f"{key[1].lower()} is a new type of {key[0].upper()}{_meant(key[1].lower(), sum(types, ()))}")
    if preview.lies_in_future:
        found.append("it applies from a time in the future, and is not current until then")
    if preview.lies_before_first_run:
        found.append("it applies from before the first run")
    return found


def doubts(client: Calibration, data: bytes, before: CalibrationRecord | None) -> list[str]:
    """What about the content may be a slip, beside that of the calibration that is in force now."""
    if before is None:
        return difference.doubts(data)
    old = client.get_calibration_for_id(before.id).data
    return [f"the same bytes as {before.id}"] if data == old else difference.doubts(data, old, str(before.id))


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What withdrawing a calibration would change: for `run_count` registered runs, those of `run_range`, `instead`
    would apply; None is no calibration."""

    calibration: CalibrationRecord
    instead: CalibrationRecord | None
    run_count: int
    run_range: tuple[RunRange, ...]


def withdrawal(client: Calibration, id: int) -> Withdrawal:
    """What withdrawing a calibration would change: by rule 3 the one before it applies again."""
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


def of_withdrawal(change: Withdrawal) -> list[str]:
    """The lines that tell what withdrawing a calibration would change."""
    meant, again = change.calibration, change.instead
    name = f"{meant.id}: {meant.device_name} {meant.calibration_type} from {say(meant.valid_from)}"
    lines = [f"{name}, {_origin(meant)}"]
    if meant.withdrawn and meant.withdrawn_at is not None:
        when = say(meant.withdrawn_at)
        return [*lines, f"it was withdrawn at {when}: {meant.withdrawn_reason}; nothing would change"]
    if meant.valid_until == meant.valid_from:
        return [*lines, "it is not in force at any time: what applies would not change"]
    until = "with no end" if meant.valid_until is None else f"until {say(meant.valid_until)}"
    lines.append(f"in force from {say(meant.valid_from)}, {until}")
    if again is not None:
        lines.append(f"instead would apply {again.id}, from {say(again.valid_from)}: {_origin(again)}")
    else:
        lines.append("! nothing would apply in its place")
    return [*lines, f"runs that get another answer: {runs(change.run_count, change.run_range)}"]


def runs(count: int, ranges: Sequence[RunRange]) -> str:
    """How many runs, and which."""
    if not count:
        return "none"
    spelled = [str(r.first_run) if r.first_run == r.last_run else f"{r.first_run}-{r.last_run}" for r in ranges]
    more = ", …" if len(spelled) > MOST_RANGES else ""
    return f"{count} ({', '.join(spelled[:MOST_RANGES])}{more})"


def _ranges(numbers: Sequence[int]) -> list[RunRange]:
    """Ascending numbers as ranges without a gap."""
    ranges: list[RunRange] = []
    for number in numbers:
        first = ranges.pop().first_run if ranges and ranges[-1].last_run == number - 1 else number
        ranges.append(RunRange(first, number))
    return ranges


def _origin(record: CalibrationRecord) -> str:
    comment = f", {record.comment!r}" if record.comment else ""
    return f"{record.size} bytes, stored {say(record.created)} by {record.author}{comment}"


def _meant(name: str, known: Sequence[str]) -> str:
    if not known:
        return ""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f": is {' or '.join(close)} meant?" if close else f"; there is {', '.join(known[:20])}"
