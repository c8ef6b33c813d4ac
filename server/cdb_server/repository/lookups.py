"""Looks up single rows: calibration, neighbours, run, payload, last entry; and how complete and how old the journal is.

A copy is a mirror, which repeats its master's entries, or a hot standby, to which PostgreSQL itself replicates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    LargeBinary,
    Select,
    bindparam,
    case,
    cast,
    func,
    null,
    select,
)

from cdb_server import instants, journal, model, validity
from cdb_server.database.postgresql import noted_replay_position
from cdb_server.database.statements import AnyConnection, CompiledStatement, current_and_as_of
from cdb_server.errors import AsOfNotReached
from cdb_server.model import (
    COMPLETENESS_DELAY,
    CalibrationRecord,
    Clock,
    DatabaseKind,
    FollowedMaster,
    Neighbours,
    Role,
    Run,
)
from cdb_server.schema import Instant, Number, calibration, following, payload, restoration
from cdb_server.schema import journal as journal_table

CLOCK_BEHIND_TEXT = "the master's clock stands behind its last entry: nothing is accepted until its operator has set it"

_LAST_ENTRY = CompiledStatement(
    select(journal_table.c.serial, journal_table.c.digest, journal_table.c.created)
    .order_by(journal_table.c.serial.desc())
    .limit(1)
)


class LastEntry(NamedTuple):
    """The last entry; serial 0 and the digest before the first where there is none."""

    serial: int
    digest: str
    created: datetime | None

    def is_ahead_of(self, now: datetime) -> bool:
        """Whether it lies too far ahead of the clock for another to follow."""
        return self.created is not None and self.created > now + model.MAX_CLOCK_LEAD


def last_entry(connection: AnyConnection) -> LastEntry:
    """The last entry of the journal."""
    last = _LAST_ENTRY.row(connection)
    return LastEntry(0, journal.GENESIS, None) if last is None else LastEntry(*last)


_FOLLOWED_MASTER = CompiledStatement(select(following))


def followed_master(connection: AnyConnection) -> FollowedMaster | None:
    """What a mirror knows of its master; None on a master."""
    row = _FOLLOWED_MASTER.row(connection)
    return None if row is None else FollowedMaster(*row)


_BY_ID = current_and_as_of(lambda upto: validity.records(upto).where(calibration.c.id == bindparam("id")))

_KEY: tuple[Any, Any] = (bindparam("device_name"), bindparam("calibration_type"))

_IN_FORCE = current_and_as_of(
    lambda upto: validity.records(upto).where(
        calibration.c.id == validity.in_force(*_KEY, bindparam("instant", type_=Instant), upto)
    )
)

_POSITION: tuple[Any, Any] = (bindparam("valid_from", type_=Instant), bindparam("beside", type_=Number))

_PREDECESSOR = current_and_as_of(
    lambda upto: validity.records(upto).where(calibration.c.id == validity.predecessor(*_KEY, *_POSITION, upto))
)

_SUCCESSOR = current_and_as_of(
    lambda upto: validity.records(upto).where(calibration.c.id == validity.successor(*_KEY, *_POSITION, upto))
)

_RUN = current_and_as_of(lambda upto: validity.run_entry(bindparam("run_number"), upto))


def calibration_by_id(connection: AnyConnection, id: int, upto: int | None = None) -> CalibrationRecord | None:
    """A calibration, without data, as of a serial; None when there is none."""
    row = _BY_ID(upto).row(connection, id=id, upto=upto)
    return None if row is None else CalibrationRecord(*row)


def in_force(
    connection: AnyConnection, device_name: str, calibration_type: str, instant: datetime, upto: int | None = None
) -> CalibrationRecord | None:
    """Rule 3: the calibration in force at an instant, without data; None when none is."""
    row = _IN_FORCE(upto).row(
        connection, device_name=device_name, calibration_type=calibration_type, instant=instant, upto=upto
    )
    return None if row is None else CalibrationRecord(*row)


def neighbours(connection: AnyConnection, found: CalibrationRecord, upto: int | None = None) -> Neighbours:
    """A calibration between those that stand next to it, as of a serial."""
    place = {
        "device_name": found.device_name,
        "calibration_type": found.calibration_type,
        "valid_from": found.valid_from,
        "beside": found.id,
    }
    rows = (statement(upto).row(connection, upto=upto, **place) for statement in (_PREDECESSOR, _SUCCESSOR))
    return Neighbours(found, *(None if row is None else CalibrationRecord(*row) for row in rows))


def run_by_number(connection: AnyConnection, run_number: int, upto: int | None = None) -> Run | None:
    """A run as of a serial; None when it is not registered."""
    row = _RUN(upto).row(connection, run_number=run_number, upto=upto)
    return None if row is None else Run(*row)


_DEVICE_NAME: Any = bindparam("device_name")

_CALIBRATION_TYPE: Any = bindparam("calibration_type")

_AT = bindparam("instant", type_=Instant)

_PERIOD = (bindparam("start", type_=Instant), bindparam("stop", type_=Instant))

# As bytes, also where damage made text of them.
_BYTES = cast(payload.c.data, LargeBinary)


def _start(upto: Any) -> Any:
    return validity.run_start(bindparam("run_number"), upto)


_Statement = Callable[[int | None], CompiledStatement]

# A statement whose instants are datetimes, and one in which they are texts.
Statements = tuple[_Statement, _Statement]


def _listing(condition: Callable[[Any], ColumnElement[bool]]) -> Statements:
    """The calibrations of a condition without data, by id, and at most `limit`."""

    def build(upto: Any) -> Select[Any]:
        found = validity.records(upto).add_columns(null()).where(condition(upto))
        return found.order_by(calibration.c.id).limit(bindparam("limit"))

    return current_and_as_of(build), current_and_as_of(build, times_as_text=True)


def _single(condition: Callable[[Any], ColumnElement[bool]]) -> Statements:
    """The calibration of a condition, with its data if these are at most `most` bytes; without where that is null."""

    def build(upto: Any) -> Select[Any]:
        data = case((calibration.c.size <= bindparam("most", type_=BigInteger), _BYTES))
        found = validity.records(upto).add_columns(data).where(condition(upto))
        return found.outerjoin(payload, payload.c.sha256 == calibration.c.sha256)

    return current_and_as_of(build), current_and_as_of(build, times_as_text=True)


IN_FORCE = _single(lambda upto: calibration.c.id == validity.in_force(_DEVICE_NAME, _CALIBRATION_TYPE, _AT, upto))

FOR_RUN = _single(
    lambda upto: calibration.c.id == validity.in_force(_DEVICE_NAME, _CALIBRATION_TYPE, _start(upto), upto)
)

BY_ID = _single(lambda _: calibration.c.id == bindparam("id"))

IN_FORCE_DURING = _listing(lambda upto: calibration.c.id.in_(validity.in_force_during(*_PERIOD, upto)))

IN_FORCE_FOR_EACH_KEY = _listing(lambda upto: calibration.c.id.in_(validity.in_force_everywhere(_start(upto), upto)))

ALL_OF_KEY = _listing(
    lambda _: (calibration.c.device_name == _DEVICE_NAME) & (calibration.c.calibration_type == _CALIBRATION_TYPE)
)

KEYS = current_and_as_of(lambda upto: validity.keys(upto).limit(bindparam("limit")))

ALL_KEYS = current_and_as_of(validity.keys)

RUNS = current_and_as_of(lambda upto: validity.runs_starting(*_PERIOD, upto).limit(bindparam("limit")))

PAYLOAD_DATA = CompiledStatement(select(_BYTES).where(payload.c.sha256 == bindparam("sha256")))

PAYLOAD_SIZE = CompiledStatement(select(func.length(payload.c.data)).where(payload.c.sha256 == bindparam("sha256")))

LAST_RESTORATION = CompiledStatement(select(func.max(restoration.c.restored)))

_SERIAL_AS_OF = CompiledStatement(validity.serial_as_of(bindparam("instant", type_=Instant)))


@dataclass(frozen=True, slots=True)
class JournalState:
    """How complete a server's journal is, and how old its knowledge.

    `complete_until` is the latest as_of that it can answer; `heard` when the master last said what the server knows,
    `known_serial` how many entries there are as far as it knows; both None on a master.
    """

    role: Role
    complete_until: datetime
    status: str = "OK"
    master: str | None = None
    last_contact: datetime | None = None
    known_serial: int | None = None


def journal_state(connection: AnyConnection, kind: DatabaseKind, clock: Clock) -> JournalState:
    """How the server stands, of the same moment as all else that is asked in the transaction."""
    # A mirror's database may be replicated as well: what it says of itself came with it.
    if kind == "mirror" or (kind == "standby" and followed_master(connection) is not None):
        return _of_mirror(connection)
    # A standby is asked in transactions of SQLAlchemy's alone.
    if kind == "standby" and isinstance(connection, Connection):
        return _of_standby(connection)
    # No entry will be created at this instant or before it, unless the clock is set back by more than COMPLETE_AFTER
    # while nothing is written.
    return JournalState("master", clock() - COMPLETENESS_DELAY)


def serial_as_of(connection: AnyConnection, kind: DatabaseKind, clock: Clock, as_of: datetime | None) -> int | None:
    """The journal up to which serial an as_of means; None for all of it. Raises AsOfNotReached (rule 7)."""
    if as_of is None:
        return None
    complete_until = journal_state(connection, kind, clock).complete_until
    if as_of > complete_until:
        raise AsOfNotReached(as_of, complete_until)
    serial: int | None = _SERIAL_AS_OF.value(connection, instant=as_of)
    return serial or 0


def _of_mirror(connection: AnyConnection) -> JournalState:
    known = followed_master(connection)
    if known is None:
        raise LookupError("a mirror's database follows nobody")
    return JournalState(
        "mirror",
        known.complete_until or instants.EPOCH,
        _status(known),
        known.master,
        known.last_contact,
        known.known_serial,
    )


def _status(known: FollowedMaster) -> str:
    if known.stopped is not None:
        return f"stopped following at {instants.format_instant(known.stopped)}: {known.reason}"
    return "OK" if known.reason is None else f"cannot rely on its master: {known.reason}"


def _of_standby(connection: Connection) -> JournalState:
    """Entries arrive in the order of their commits, so that up to the last one's `created` nothing is missing.

    Nor is anything that was created COMPLETE_AFTER before what is replayed was said or committed: by then it had its
    commit, which was replayed first.
    """
    created = last_entry(connection).created
    known = noted_replay_position(connection)
    sure = [created, *(at - COMPLETENESS_DELAY for at in (known.committed, known.last_message) if at is not None)]
    heard = known.last_message or known.committed
    return JournalState(
        "mirror", max((at for at in sure if at is not None), default=instants.EPOCH), last_contact=heard
    )
