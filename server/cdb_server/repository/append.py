"""One entry more: the rows that an entry of the journal is, as a master accepts it and as a mirror repeats it."""

from dataclasses import fields
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import bindparam, exists, select

from cdb_server import journal, model
from cdb_server.errors import InvalidArgument
from cdb_server.model import Entry, NewCalibration, RunTimes, Withdrawal
from cdb_server.repository.prepared import Connected, Prepared
from cdb_server.schema import calibration, payload, run, withdrawal
from cdb_server.schema import journal as journal_table

CLOCK_BEHIND = "the master's clock stands behind its last entry: nothing is accepted until its operator has set it"

_LAST = Prepared(
    select(journal_table.c.serial, journal_table.c.digest, journal_table.c.created)
    .order_by(journal_table.c.serial.desc())
    .limit(1)
)
_HAS_PAYLOAD = Prepared(select(exists().where(payload.c.sha256 == bindparam("sha256"))))
_IS_CALIBRATION = Prepared(select(exists().where(calibration.c.id == bindparam("id"))))
_IS_WITHDRAWN = Prepared(select(exists().where(withdrawal.c.calibration_id == bindparam("id"))))
_ADD_PAYLOAD = Prepared(payload.insert())
_ADD_ENTRY = Prepared(journal_table.insert())

# How the content of each kind of entry is added, under the names of its fields, and the column of its serial.
_ROWS: dict[type[NewCalibration | Withdrawal | RunTimes], tuple[Prepared, str]] = {
    NewCalibration: (Prepared(calibration.insert()), calibration.c.id.name),
    Withdrawal: (Prepared(withdrawal.insert()), withdrawal.c.serial.name),
    RunTimes: (Prepared(run.insert()), run.c.serial.name),
}


class Head(NamedTuple):
    """The last entry; serial 0 and the digest before the first where there is none."""

    serial: int
    digest: str
    created: datetime | None

    def is_ahead(self, now: datetime) -> bool:
        """Whether it lies too far ahead of the clock for another to follow."""
        return self.created is not None and self.created > now + model.GREATEST_LEAD


def head(connection: Connected) -> Head:
    """The last entry of the journal."""
    last = _LAST.row(connection)
    return Head(0, journal.GENESIS, None) if last is None else Head(*last)


def has_payload(connection: Connected, sha256: str) -> bool:
    """Whether a payload is there already: it then has these bytes."""
    return bool(_HAS_PAYLOAD.value(connection, sha256=sha256))


def append(connection: Connected, entry: Entry, digest: str, data: bytes | None) -> None:
    """Add an entry, whose serial follows the last one's, and its payload where that is new.

    Raises InvalidArgument, having added nothing, for an entry that no master may accept. The caller holds the write
    lock, and knows that the digest is right and that `data` has the entry's sha256.
    """
    content = entry.content
    model.check_entry(entry)
    if isinstance(content, Withdrawal):
        _check_withdrawal(connection, content.calibration_id)
    if isinstance(content, NewCalibration) and not has_payload(connection, content.sha256):
        _ADD_PAYLOAD.execute(connection, sha256=content.sha256, data=data)
    _ADD_ENTRY.execute(
        connection,
        serial=entry.serial,
        kind=content.kind,
        created=entry.created,
        author=entry.author,
        digest=digest,
    )
    statement, serial = _ROWS[type(content)]
    values = {field.name: getattr(content, field.name) for field in fields(content)}
    statement.execute(connection, **{serial: entry.serial, **values})


def _check_withdrawal(connection: Connected, id: int) -> None:
    """Rule 8: only a calibration can be withdrawn, and only once."""
    if not _IS_CALIBRATION.value(connection, id=id):
        raise InvalidArgument("calibration_id", f"there is no calibration {id} to withdraw")
    if _IS_WITHDRAWN.value(connection, id=id):
        raise InvalidArgument("calibration_id", f"calibration {id} is withdrawn already")
