"""What storing a calibration would change, found without writing: mistakes are seen before they are made."""

from datetime import datetime

from sqlalchemy import Connection, bindparam

from cdb_server import validity
from cdb_server.model import CalibrationRecord, NewCalibration, Preview, RunRange, WithdrawalPreview
from cdb_server.repository import records
from cdb_server.repository.prepared import Connected, Prepared
from cdb_server.schema import Instant

MOST_RANGES = 1_000

_EQUAL = Prepared(
    validity.equal_calibration(
        bindparam("device_name"),
        bindparam("calibration_type"),
        bindparam("valid_from", type_=Instant),
        bindparam("sha256"),
    )
)


def preview(connection: Connection, content: NewCalibration, now: datetime) -> Preview:
    """What storing `content` now would change. Every run that starts while it is in force would get it (rule 5)."""
    key = (content.device_name, content.calibration_type)
    known = {tuple(row) for row in connection.execute(validity.keys(None))}
    stored_id = equal_to(connection, content)
    run_count, run_range = 0, tuple[RunRange, ...]()
    stored = None if stored_id is None else records.record(connection, stored_id)
    if stored is not None:
        # It may be superseded: to store it again does not bring it back (rule 9).
        valid_until = stored.valid_until
    else:
        valid_until = connection.execute(validity.next_valid_from(*key, content.valid_from)).scalar()
        run_count, run_range = _runs(connection, content.valid_from, valid_until)
    first_start: datetime | None = connection.execute(validity.first_run_start()).scalar()
    return Preview(
        stored_id=stored_id,
        device_is_new=content.device_name not in {device_name for device_name, _ in known},
        calibration_type_is_new=key not in known,
        lies_in_future=content.valid_from > now,
        lies_before_first_run=first_start is not None and content.valid_from < first_start,
        valid_until=valid_until,
        run_count=run_count,
        run_range=run_range,
        takes_over_from=records.in_force(connection, *key, content.valid_from),
    )


def preview_withdrawal(connection: Connection, found: CalibrationRecord) -> WithdrawalPreview:
    """What withdrawing a calibration now would change: by rule 3 that which stood before it applies again."""
    run_count, run_range = 0, tuple[RunRange, ...]()
    # One that is withdrawn, or superseded at once, is in force nowhere.
    if found.valid_until != found.valid_from:
        run_count, run_range = _runs(connection, found.valid_from, found.valid_until)
    return WithdrawalPreview(records.place(connection, found), run_count, run_range)


def equal_to(connection: Connected, content: NewCalibration) -> int | None:
    """Rule 9: the id of a calibration that storing `content` would find stored; None when it would be new."""
    id: int | None = _EQUAL.value(
        connection,
        device_name=content.device_name,
        calibration_type=content.calibration_type,
        valid_from=content.valid_from,
        sha256=content.sha256,
    )
    return id


def _runs(connection: Connection, start: datetime, until: datetime | None) -> tuple[int, tuple[RunRange, ...]]:
    """How many runs start in `[start, until)`, and which, the first MOST_RANGES sequences of them."""
    run_count: int = connection.execute(validity.run_count(start, until)).scalar_one()
    ranges = connection.execute(validity.run_ranges(start, until).limit(MOST_RANGES))
    return run_count, tuple(RunRange(*row) for row in ranges)
