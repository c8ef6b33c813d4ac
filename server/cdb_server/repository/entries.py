"""The journal's entries as they were accepted, each with its digest: what get_journal answers and verify recomputes."""

from typing import Any

from sqlalchemy import bindparam, select

from cdb_server.model import Entry, JournalLine, NewCalibration, RunTimes, Withdrawal
from cdb_server.repository.prepared import Connected, Prepared
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


_PART = ENTRIES.where(journal.c.serial > bindparam("after_serial")).limit(bindparam("limit"))
_AFTER, _LINES = Prepared(_PART), Prepared(_PART, spelled=True)


def entries(connection: Connected, after_serial: int, limit: int) -> list[tuple[Entry, str]]:
    """At most `limit` entries after a serial, in order, each with the digest that is kept with it."""
    return [entry_of(row) for row in _AFTER.rows(connection, after_serial=after_serial, limit=limit)]


def entry_of(row: tuple[Any, ...]) -> tuple[Entry, str]:
    """An entry and its digest, of a row of ENTRIES."""
    serial, kind, created, author, digest, *content = row
    return Entry(serial, created, author, _content(serial, kind, *content)), digest


def lines(connection: Connected, after_serial: int, limit: int) -> list[JournalLine]:
    """The same as lines."""
    return list(map(JournalLine._make, _LINES.rows(connection, after_serial=after_serial, limit=limit)))


def _content(serial: int, kind: str, *content: Any) -> NewCalibration | Withdrawal | RunTimes:
    """The columns of a kind, in the order of ENTRIES; those of the other kinds are null."""
    match kind:
        case NewCalibration.kind:
            return NewCalibration(*content[:6])
        case Withdrawal.kind:
            return Withdrawal(*content[6:8])
        case RunTimes.kind:
            return RunTimes(*content[8:])
    raise ValueError(f"entry {serial} is of no known kind: {kind!r}")
