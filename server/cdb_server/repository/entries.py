"""The journal's entries as they were accepted, each with its digest: what get_journal answers and verify recomputes."""

from typing import Any

from sqlalchemy import Connection, select

from cdb_server.model import Entry, NewCalibration, RunTimes, Withdrawal
from cdb_server.schema import calibration, journal, run, withdrawal

ENTRIES = (
    select(
        journal,
        calibration.c.device_name,
        calibration.c.calibration_type,
        calibration.c.valid_from,
        calibration.c.comment,
        calibration.c.size,
        calibration.c.sha256,
        withdrawal.c.calibration_id,
        withdrawal.c.reason,
        run.c.run_number,
        run.c.start_time,
        run.c.stop_time,
    )
    .outerjoin(calibration, calibration.c.id == journal.c.serial)
    .outerjoin(withdrawal, withdrawal.c.serial == journal.c.serial)
    .outerjoin(run, run.c.serial == journal.c.serial)
    .order_by(journal.c.serial)
)


def entries(connection: Connection, after_serial: int, limit: int) -> list[tuple[Entry, str]]:
    """At most `limit` entries after a serial, in order, each with the digest that is kept with it."""
    found = connection.execute(ENTRIES.where(journal.c.serial > after_serial).limit(limit))
    return [(Entry(row.serial, row.created, row.author, _content(row)), row.digest) for row in found]


def _content(row: Any) -> NewCalibration | Withdrawal | RunTimes:
    match row.kind:
        case NewCalibration.kind:
            return NewCalibration(
                row.device_name, row.calibration_type, row.valid_from, row.comment, row.size, row.sha256
            )
        case Withdrawal.kind:
            return Withdrawal(row.calibration_id, row.reason)
        case RunTimes.kind:
            return RunTimes(row.run_number, row.start_time, row.stop_time)
    raise ValueError(f"entry {row.serial} is of no known kind: {row.kind!r}")
