"""One entry more: the rows that an entry of the journal is, as a master accepts it and as a mirror repeats it."""

from dataclasses import fields
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Column, Connection, Table, exists, select

from cdb_server import journal
from cdb_server.model import Entry, NewCalibration, RunTimes, Withdrawal
from cdb_server.schema import calibration, payload, run, withdrawal
from cdb_server.schema import journal as journal_table

# Where the content of each kind of entry stands, under the names of its fields, and the column of its serial.
_ROWS: dict[type[NewCalibration | Withdrawal | RunTimes], tuple[Table, Column[int]]] = {
    NewCalibration: (calibration, calibration.c.id),
    Withdrawal: (withdrawal, withdrawal.c.serial),
    RunTimes: (run, run.c.serial),
}


class Head(NamedTuple):
    """The last entry; serial 0 and the digest before the first where there is none."""

    serial: int
    digest: str
    created: datetime | None


def head(connection: Connection) -> Head:
    """The last entry of the journal."""
    columns = journal_table.c.serial, journal_table.c.digest, journal_table.c.created
    last = connection.execute(select(*columns).order_by(journal_table.c.serial.desc()).limit(1)).first()
    return Head(0, journal.GENESIS, None) if last is None else Head(*last)


def has_payload(connection: Connection, sha256: str) -> bool:
    """Whether a payload is there already: it then has these bytes."""
    return bool(connection.execute(select(exists().where(payload.c.sha256 == sha256))).scalar_one())


def append(connection: Connection, entry: Entry, digest: str, data: bytes | None) -> None:
    """Add an entry, whose serial follows the last one's, and its payload where that is new.

    The caller holds the write lock, and knows that the digest is right and that `data` has the entry's sha256.
    """
    content = entry.content
    if isinstance(content, NewCalibration) and not has_payload(connection, content.sha256):
        connection.execute(payload.insert().values(sha256=content.sha256, data=data))
    connection.execute(
        journal_table.insert().values(
            serial=entry.serial, kind=content.kind, created=entry.created, author=entry.author, digest=digest
        )
    )
    table, serial = _ROWS[type(content)]
    values = {field.name: getattr(content, field.name) for field in fields(content)}
    connection.execute(table.insert().values({serial.name: entry.serial, **values}))
