"""What can be asked of a database: rules 3 to 7 and 13, one consistent moment an answer."""

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, LargeBinary, cast, func, select

from cdb_server import __version__, instants, model, validity
from cdb_server.errors import (
    AsOfNotReached,
    CalibrationNotFound,
    DamagedPayload,
    PayloadNotFound,
    RunNotFound,
    TooLarge,
)
from cdb_server.model import CalibrationRecord, Clock, Device, Entry, Run, Status
from cdb_server.repository.append import head
from cdb_server.repository.database import Database
from cdb_server.repository.entries import entries
from cdb_server.repository.standing import standing
from cdb_server.schema import calibration, payload, restoration

Made = TypeVar("Made")


class Reader:
    """Answers about calibrations and runs. Instants are aware datetimes, data is bytes.

    `held` are the sha256s of payloads that the caller has: an answer with one of these comes without its data.

    Every method that takes `as_of` raises AsOfNotReached when it lies after `complete_until`; every method raises
    Unavailable when the database cannot be read, and InvalidArgument for a value that cannot be accepted.
    """

    def __init__(
        self, database: Database, *, clock: Clock = instants.now, max_rows: int = 100_000, max_entries: int = 1_000
    ) -> None:
        self._database = database
        self._clock = clock
        self._max_rows = max_rows
        self._max_entries = max_entries

    def calibration_for_date(
        self,
        device_name: str,
        calibration_type: str,
        date: datetime,
        as_of: datetime | None = None,
        held: Collection[str] = (),
    ) -> CalibrationRecord:
        """Rule 3, with data. Raises CalibrationNotFound and DamagedPayload."""
        device_name, calibration_type = model.device_name(device_name), model.calibration_type(calibration_type)
        with self._database.read() as connection:
            upto = self._upto(connection, as_of)
            found = self._applying(connection, device_name, calibration_type, date, upto, date=date, as_of=as_of)
            return self._with_data(connection, found, held)

    def current_calibration(
        self, device_name: str, calibration_type: str, as_of: datetime | None = None, held: Collection[str] = ()
    ) -> CalibrationRecord:
        """Rule 4: the resolution at the present instant; with as_of, at as_of. Raises as calibration_for_date."""
        device_name, calibration_type = model.device_name(device_name), model.calibration_type(calibration_type)
        with self._database.read() as connection:
            upto = self._upto(connection, as_of)
            instant = self._clock() if as_of is None else as_of
            found = self._applying(connection, device_name, calibration_type, instant, upto, date=None, as_of=as_of)
            return self._with_data(connection, found, held)

    def calibration_for_run(
        self,
        device_name: str,
        calibration_type: str,
        run_number: int,
        as_of: datetime | None = None,
        held: Collection[str] = (),
    ) -> CalibrationRecord:
        """Rule 5: the resolution at the run's start. Raises RunNotFound, and as calibration_for_date."""
        device_name, calibration_type = model.device_name(device_name), model.calibration_type(calibration_type)
        with self._database.read() as connection:
            upto = self._upto(connection, as_of)
            start = self._run(connection, run_number, upto, as_of).start_time
            found = self._applying(
                connection, device_name, calibration_type, start, upto, date=start, run_number=run_number, as_of=as_of
            )
            return self._with_data(connection, found, held)

    def calibration_for_id(
        self, id: int, as_of: datetime | None = None, held: Collection[str] = ()
    ) -> CalibrationRecord:
        """One calibration, superseded and withdrawn ones too, with data. Raises as calibration_for_date."""
        model.number("id", id)
        with self._database.read() as connection:
            upto = self._upto(connection, as_of)
            found = record(connection, calibration.c.id == id, upto)
            if found is None:
                raise CalibrationNotFound("get_ids and get_history tell which ids there are", id=id, as_of=as_of)
            return self._with_data(connection, found, held)

    def ids(
        self, start_time: datetime, stop_time: datetime | None = None, as_of: datetime | None = None
    ) -> list[CalibrationRecord]:
        """Rule 6: the calibrations in force at one instant of the period at least, by id. Raises TooLarge."""
        start, stop = model.period(start_time, stop_time)
        with self._database.read() as connection:
            upto = self._upto(connection, as_of)
            return self._records(connection, calibration.c.id.in_(validity.in_force_during(start, stop, upto)), upto)

    def calibrations_for_run(self, run_number: int, as_of: datetime | None = None) -> list[CalibrationRecord]:
        """Everything that applies to a run, by id. Raises RunNotFound and TooLarge."""
        with self._database.read() as connection:
            upto = self._upto(connection, as_of)
            start = self._run(connection, run_number, upto, as_of).start_time
            return self._records(connection, calibration.c.id.in_(validity.in_force_everywhere(start, upto)), upto)

    def history(
        self, device_name: str, calibration_type: str, as_of: datetime | None = None
    ) -> list[CalibrationRecord]:
        """Everything ever stored for a device and type, by id; empty for one without. Raises TooLarge."""
        device_name, calibration_type = model.device_name(device_name), model.calibration_type(calibration_type)
        with self._database.read() as connection:
            upto = self._upto(connection, as_of)
            stored = (calibration.c.device_name == device_name) & (calibration.c.calibration_type == calibration_type)
            return self._records(connection, stored, upto)

    def devices(self, as_of: datetime | None = None) -> list[Device]:
        """The devices, in alphabetical order, with their calibration types. Raises TooLarge."""
        types: dict[str, list[str]] = {}
        with self._database.read() as connection:
            upto = self._upto(connection, as_of)
            for device_name, calibration_type in self._rows(connection, validity.keys(upto), tuple):
                types.setdefault(device_name, []).append(calibration_type)
        return [Device(device_name, tuple(known)) for device_name, known in types.items()]

    def run(self, run_number: int, as_of: datetime | None = None) -> Run:
        """A run's times. Raises RunNotFound."""
        with self._database.read() as connection:
            return self._run(connection, run_number, self._upto(connection, as_of), as_of)

    def runs(self, start_time: datetime, stop_time: datetime | None = None, as_of: datetime | None = None) -> list[Run]:
        """The runs that start in the period, by number. Raises TooLarge."""
        start, stop = model.period(start_time, stop_time)
        with self._database.read() as connection:
            upto = self._upto(connection, as_of)
            return self._rows(connection, validity.runs_starting(start, stop, upto), lambda row: Run(*row))

    def journal(self, after_serial: int, limit: int) -> list[tuple[Entry, str]]:
        """At most `limit` entries after a serial, in order, each with its digest. Raises TooLarge."""
        if limit > self._max_entries:
            problem = f"limit is {limit}; at most {self._max_entries} entries are given at once: ask for the rest after"
            raise TooLarge(self._max_entries, problem)
        with self._database.read() as connection:
            return entries(connection, after_serial, limit)

    def payload(self, sha256: str) -> bytes:
        """The bytes of a payload. Raises PayloadNotFound, InvalidArgument and DamagedPayload."""
        sha256 = model.sha256(sha256)
        with self._database.read() as connection:
            data = _data(connection, sha256)
            if data is None:
                raise PayloadNotFound(sha256)
        return _proved(sha256, data)

    def status(self) -> Status:
        """What this server says of itself."""
        with self._database.read() as connection:
            # First: what is created and committed while the rest is asked lies later than complete_until.
            stands = standing(connection, self._database.kind, self._clock)
            serial, digest, _ = head(connection)
            restored: datetime | None = connection.execute(select(func.max(restoration.c.restored))).scalar()
        return Status(
            stands.status,
            stands.role,
            serial,
            digest,
            stands.complete_until,
            __version__,
            stands.master,
            None if stands.known_serial is None else max(0, stands.known_serial - serial),
            None if stands.heard is None else self._age(stands.heard),
            restored,
        )

    def knowledge(self) -> tuple[int, float | None]:
        """The serial up to which every later answer knows the journal and, on a copy, its age in seconds."""
        with self._database.read() as connection:
            stands = standing(connection, self._database.kind, self._clock) if self._database.kind != "master" else None
            serial = head(connection).serial
        return serial, None if stands is None or stands.heard is None else self._age(stands.heard)

    def _age(self, heard: datetime) -> float:
        return max(0.0, (self._clock() - heard).total_seconds())

    def _upto(self, connection: Connection, as_of: datetime | None) -> int | None:
        if as_of is None:
            return None
        complete_until = standing(connection, self._database.kind, self._clock).complete_until
        if as_of > complete_until:
            raise AsOfNotReached(as_of, complete_until)
        serial: int | None = connection.execute(validity.serial_as_of(as_of)).scalar()
        return serial or 0

    def _applying(
        self,
        connection: Connection,
        device_name: str,
        calibration_type: str,
        instant: datetime,
        upto: int | None,
        **asked: Any,
    ) -> CalibrationRecord:
        winner = validity.in_force(device_name, calibration_type, instant, upto)
        found = record(connection, calibration.c.id == winner, upto)
        if found is None:
            raise CalibrationNotFound(
                _what_there_is(connection, device_name, calibration_type, upto),
                device_name=device_name,
                calibration_type=calibration_type,
                **asked,
            )
        return found

    def _with_data(self, connection: Connection, found: CalibrationRecord, held: Collection[str]) -> CalibrationRecord:
        if found.sha256 in held:
            return found
        return replace(found, data=_proved(found.sha256, _data(connection, found.sha256)))

    def _run(self, connection: Connection, run_number: int, upto: int | None, as_of: datetime | None) -> Run:
        model.number("run_number", run_number)
        row: Any = connection.execute(validity.run_entry(run_number, upto)).first()
        if row is None:
            raise RunNotFound(run_number, as_of)
        return Run(*row)

    def _records(
        self, connection: Connection, condition: ColumnElement[bool], upto: int | None
    ) -> list[CalibrationRecord]:
        statement = validity.records(upto).where(condition).order_by(calibration.c.id)
        return self._rows(connection, statement, lambda row: CalibrationRecord(*row))

    def _rows(self, connection: Connection, statement: Any, make: Callable[[Any], Made]) -> list[Made]:
        rows = connection.execute(statement.limit(self._max_rows + 1)).all()
        if len(rows) > self._max_rows:
            problem = f"the answer has more than {self._max_rows} rows: ask for less, such as a shorter period"
            raise TooLarge(self._max_rows, problem)
        return [make(row) for row in rows]


def record(connection: Connection, condition: ColumnElement[bool], upto: int | None = None) -> CalibrationRecord | None:
    """The one calibration of a condition, without data, as of a serial; None when there is none."""
    row: Any = connection.execute(validity.records(upto).where(condition)).first()
    return None if row is None else CalibrationRecord(*row)


def _data(connection: Connection, sha256: str) -> bytes | None:
    # As bytes, also where damage made text of them.
    statement = select(cast(payload.c.data, LargeBinary)).where(payload.c.sha256 == sha256)
    data: bytes | None = connection.execute(statement).scalar()
    return data


def _proved(sha256: str, data: bytes | None) -> bytes:
    """Rule 13: "The sha256 […] is checked at […] every read from disk […]. On mismatch: an error, never the data." """
    if data is None or model.sha256_of(data) != sha256:
        raise DamagedPayload(sha256)
    return data


def _what_there_is(connection: Connection, device_name: str, calibration_type: str, upto: int | None) -> str:
    known = connection.execute(validity.keys(upto)).all()
    types = [row.calibration_type for row in known if row.device_name == device_name]
    if not types:
        return "nothing is stored for this device; list_devices tells which there are"
    if calibration_type not in types:
        return f"for this device there is {', '.join(types[:20])}"
    return "all that is stored for it applies later or is withdrawn; get_history tells what there is"
