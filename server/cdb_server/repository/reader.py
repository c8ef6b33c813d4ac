"""Answers reading operations by rules 3 to 7 and 13, each from one consistent snapshot."""

import copy
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Generic

from typing_extensions import TypeVar

from cdb_server import __version__, arguments, instants, model
from cdb_server.database.nonblocking import NonblockingConnection
from cdb_server.database.statements import AnyConnection, CompiledStatement
from cdb_server.database.transactions import Database
from cdb_server.errors import CalibrationNotFound, DamagedPayload, LargePayload, PayloadNotFound, RunNotFound, TooLarge
from cdb_server.model import (
    CalibrationRecord,
    Clock,
    Device,
    Entry,
    FormattedCalibration,
    FormattedEntry,
    JournalPosition,
    Neighbours,
    Run,
    Status,
)
from cdb_server.repository import lookups
from cdb_server.repository.journal_entries import read_entries, read_formatted_entries
from cdb_server.repository.lookups import CLOCK_BEHIND_TEXT, Statements, journal_state, last_entry, serial_as_of

RecordType = TypeVar("RecordType", bound=CalibrationRecord | FormattedCalibration, default=CalibrationRecord)


class Reader(Generic[RecordType]):
    """Answers about calibrations and runs. Instants are aware datetimes, data is bytes.

    `held` are the sha256s of payloads that the caller has: an answer with one of these comes without its data.

    Every method that takes `as_of` raises AsOfNotReached when it lies after `complete_until`; every method raises
    Unavailable when the database cannot be read, and InvalidArgument for a value that cannot be accepted.
    """

    # What is made of a row, and which statement of two gives it.
    _make_record: Callable[[Iterable[Any]], RecordType]
    _times_as_text: bool

    def __init__(
        self: "Reader[CalibrationRecord]",
        database: Database | NonblockingConnection,
        *,
        clock: Clock = instants.now,
        max_rows: int = 100_000,
        max_entries: int = 1_000,
        max_payload_bytes: int | None = None,
    ) -> None:
        """Longer lists are TooLarge; payloads of more bytes than `max_payload_bytes` raise LargePayload."""
        self._database = database
        self._clock = clock
        self._max_rows = max_rows
        self._max_entries = max_entries
        self._max_payload_bytes = arguments.MAX_NUMBER if max_payload_bytes is None else max_payload_bytes
        self._make_record, self._times_as_text = _record, False

    def formatted(self) -> "Reader[FormattedCalibration]":
        """The same, whose calibrations are CalibrationLine: for who only writes them, in half the time."""
        copied: Any = copy.copy(self)
        copied._make_record, copied._times_as_text = FormattedCalibration._make, True
        lines: Reader[FormattedCalibration] = copied
        return lines

    def calibration_for_date(
        self,
        device_name: str,
        calibration_type: str,
        date: datetime,
        as_of: datetime | None = None,
        held: Collection[str] = (),
    ) -> RecordType:
        """Rule 3, with data. Raises CalibrationNotFound and DamagedPayload."""
        device_name, calibration_type = (
            arguments.normalised_device_name(device_name),
            arguments.normalised_calibration_type(calibration_type),
        )
        with self._reading(as_of, held) as connection:
            upto = self._serial_as_of(connection, as_of)
            key = device_name, calibration_type
            return self._resolve(connection, *key, date, upto, held, date=date, as_of=as_of)

    def current_calibration(
        self, device_name: str, calibration_type: str, as_of: datetime | None = None, held: Collection[str] = ()
    ) -> RecordType:
        """Rule 4: the resolution at the present instant; with as_of, at as_of. Raises as calibration_for_date."""
        device_name, calibration_type = (
            arguments.normalised_device_name(device_name),
            arguments.normalised_calibration_type(calibration_type),
        )
        with self._reading(as_of, held) as connection:
            upto = self._serial_as_of(connection, as_of)
            instant = self._clock() if as_of is None else as_of
            key = device_name, calibration_type
            return self._resolve(connection, *key, instant, upto, held, date=None, as_of=as_of)

    def calibration_for_run(
        self,
        device_name: str,
        calibration_type: str,
        run_number: int,
        as_of: datetime | None = None,
        held: Collection[str] = (),
    ) -> RecordType:
        """Rule 5: the resolution at the run's start. Raises RunNotFound, and as calibration_for_date."""
        device_name, calibration_type = (
            arguments.normalised_device_name(device_name),
            arguments.normalised_calibration_type(calibration_type),
        )
        asked = {"device_name": device_name, "calibration_type": calibration_type, "run_number": run_number}
        with self._reading(as_of, held) as connection:
            upto = self._serial_as_of(connection, as_of)
            arguments.check_number("run_number", run_number)
            found = self._one(connection, lookups.FOR_RUN, upto, held, **asked)
        if found is not None:
            return found
        # What is missing shows step by step.
        with self._database.read() as connection:
            upto = self._serial_as_of(connection, as_of)
            start = self._run(connection, run_number, upto, as_of).start_time
            key = device_name, calibration_type
            return self._resolve(connection, *key, start, upto, held, date=start, run_number=run_number, as_of=as_of)

    def calibration_for_id(self, id: int, as_of: datetime | None = None, held: Collection[str] = ()) -> RecordType:
        """One calibration, superseded and withdrawn ones too, with data. Raises as calibration_for_date."""
        arguments.check_number("id", id)
        with self._reading(as_of, held) as connection:
            upto = self._serial_as_of(connection, as_of)
            found = self._one(connection, lookups.BY_ID, upto, held, id=id)
        if found is None:
            raise _unknown_id(id, as_of)
        return found

    def neighbours(self, id: int, as_of: datetime | None = None) -> Neighbours:
        """Where a calibration stands in its timeline. Raises CalibrationNotFound."""
        arguments.check_number("id", id)
        with self._database.read() as connection:
            upto = self._serial_as_of(connection, as_of)
            found = lookups.calibration_by_id(connection, id, upto)
            if found is None:
                raise _unknown_id(id, as_of)
            return lookups.neighbours(connection, found, upto)

    def ids(
        self, start_time: datetime, stop_time: datetime | None = None, as_of: datetime | None = None
    ) -> list[RecordType]:
        """Rule 6: the calibrations in force at one instant of the period at least, by id. Raises TooLarge."""
        start, stop = arguments.check_period(start_time, stop_time)
        with self._reading(as_of) as connection:
            upto = self._serial_as_of(connection, as_of)
            return self._calibrations(connection, lookups.IN_FORCE_DURING, upto, start=start, stop=stop)

    def calibrations_for_run(self, run_number: int, as_of: datetime | None = None) -> list[RecordType]:
        """Everything that applies to a run, by id. Raises RunNotFound and TooLarge."""
        with self._reading(as_of) as connection:
            upto = self._serial_as_of(connection, as_of)
            arguments.check_number("run_number", run_number)
            found = self._calibrations(connection, lookups.IN_FORCE_FOR_EACH_KEY, upto, run_number=run_number)
        if found:
            return found
        # Where nothing applies, the run may not be registered.
        with self._database.read() as connection:
            upto = self._serial_as_of(connection, as_of)
            self._run(connection, run_number, upto, as_of)
            return self._calibrations(connection, lookups.IN_FORCE_FOR_EACH_KEY, upto, run_number=run_number)

    def history(self, device_name: str, calibration_type: str, as_of: datetime | None = None) -> list[RecordType]:
        """Everything ever stored for a device and type, by id; empty for one without. Raises TooLarge."""
        device_name, calibration_type = (
            arguments.normalised_device_name(device_name),
            arguments.normalised_calibration_type(calibration_type),
        )
        with self._reading(as_of) as connection:
            upto = self._serial_as_of(connection, as_of)
            return self._calibrations(
                connection, lookups.ALL_OF_KEY, upto, device_name=device_name, calibration_type=calibration_type
            )

    def devices(self, as_of: datetime | None = None) -> list[Device]:
        """The devices, in alphabetical order, with their calibration types. Raises TooLarge."""
        types: dict[str, list[str]] = {}
        with self._reading(as_of) as connection:
            upto = self._serial_as_of(connection, as_of)
            for device_name, calibration_type in self._rows(connection, lookups.KEYS(upto), upto=upto):
                types.setdefault(device_name, []).append(calibration_type)
        return [Device(device_name, tuple(known)) for device_name, known in types.items()]

    def run(self, run_number: int, as_of: datetime | None = None) -> Run:
        """A run's times. Raises RunNotFound."""
        with self._reading(as_of) as connection:
            return self._run(connection, run_number, self._serial_as_of(connection, as_of), as_of)

    def runs(self, start_time: datetime, stop_time: datetime | None = None, as_of: datetime | None = None) -> list[Run]:
        """The runs that start in the period, by number. Raises TooLarge."""
        start, stop = arguments.check_period(start_time, stop_time)
        with self._reading(as_of) as connection:
            upto = self._serial_as_of(connection, as_of)
            return [Run(*row) for row in self._rows(connection, lookups.RUNS(upto), start=start, stop=stop, upto=upto)]

    def journal(self, after_serial: int, limit: int) -> list[tuple[Entry, str]]:
        """At most `limit` entries after a serial, in order, each with its digest. Raises TooLarge."""
        self._check_limit(limit)
        with self._database.read_statement() as connection:
            return read_entries(connection, after_serial, limit)

    def formatted_journal(self, after_serial: int, limit: int) -> list[FormattedEntry]:
        """The same for who only writes them, in half the time."""
        self._check_limit(limit)
        with self._database.read_statement() as connection:
            return read_formatted_entries(connection, after_serial, limit)

    def _check_limit(self, limit: int) -> None:
        if limit > self._max_entries:
            problem = f"limit is {limit}; at most {self._max_entries} entries are given at once: ask for the rest after"
            raise TooLarge(self._max_entries, problem)

    def payload(self, sha256: str) -> bytes:
        """The bytes of a payload. Raises PayloadNotFound, InvalidArgument and DamagedPayload."""
        sha256 = arguments.normalised_sha256(sha256)
        # A payload never changes.
        with self._database.read_statement() as connection:
            size: int | None = lookups.PAYLOAD_SIZE.value(connection, sha256=sha256)
            if size is None:
                raise PayloadNotFound(sha256)
            self._check_size(size, sha256)
            data = lookups.PAYLOAD_DATA.value(connection, sha256=sha256)
        return _verify_payload(sha256, data)

    def status(self) -> Status:
        """What this server says of itself."""
        with self._database.read() as connection:
            # First: what is created and committed while the rest is asked lies later than complete_until.
            stands = journal_state(connection, self._database.kind, self._clock)
            last = last_entry(connection)
            restored: datetime | None = lookups.LAST_RESTORATION.value(connection)
        refusal = None
        if stands.role == "master":
            refusal = CLOCK_BEHIND_TEXT if last.is_ahead_of(self._clock()) else self._database.write_refusal()
        return Status(
            stands.status if refusal is None else f"writes are refused: {refusal}",
            stands.role,
            last.serial,
            last.digest,
            stands.complete_until,
            __version__,
            stands.master,
            None if stands.known_serial is None else max(0, stands.known_serial - last.serial),
            None if stands.last_contact is None else self._age(stands.last_contact),
            restored,
        )

    def journal_position(self) -> JournalPosition:
        """How far the server knows the journal; every later answer knows it at least as far."""
        if self._database.kind == "master":
            stands = None
            with self._database.read_statement() as connection:
                serial, digest, _ = last_entry(connection)
        else:
            with self._database.read() as connection:
                stands = journal_state(connection, self._database.kind, self._clock)
                serial, digest, _ = last_entry(connection)
        return JournalPosition(serial, digest, None if stands is None else stands.last_contact)

    def _age(self, heard: datetime) -> float:
        return max(0.0, (self._clock() - heard).total_seconds())

    def _reading(self, as_of: datetime | None, held: Collection[str] = ()) -> AbstractContextManager[AnyConnection]:
        """For a question that is one statement, unless an as_of is to be found before, or a payload after it."""
        return self._database.read_statement() if as_of is None and not held else self._database.read()

    def _serial_as_of(self, connection: AnyConnection, as_of: datetime | None) -> int | None:
        return serial_as_of(connection, self._database.kind, self._clock, as_of)

    def _resolve(
        self,
        connection: AnyConnection,
        device_name: str,
        calibration_type: str,
        instant: datetime,
        upto: int | None,
        held: Collection[str],
        **asked: Any,
    ) -> RecordType:
        key: dict[str, Any] = {"device_name": device_name, "calibration_type": calibration_type}
        found = self._one(connection, lookups.IN_FORCE, upto, held, instant=instant, **key)
        if found is None:
            there_is = _available_types(connection, device_name, calibration_type, upto)
            raise CalibrationNotFound(there_is, **key, **asked)
        return found

    def _one(
        self, connection: AnyConnection, single: Statements, upto: int | None, held: Collection[str], **values: Any
    ) -> RecordType | None:
        statement = single[self._times_as_text](upto)
        # Whether the payload is wanted shows only once it is found.
        row = statement.row(connection, upto=upto, most=None if held else self._max_payload_bytes, **values)
        if row is None:
            return None
        found = self._make_record(row)
        if found.sha256 in held:
            return found
        self._check_size(found.size, found.sha256, found)
        if held:
            row = statement.row(connection, upto=upto, most=self._max_payload_bytes, **values)
            found = self._make_record(row) if row else found
        _verify_payload(found.sha256, found.data)
        return found

    def _check_size(
        self, size: int, sha256: str, found: CalibrationRecord | FormattedCalibration | None = None
    ) -> None:
        if size > self._max_payload_bytes:
            raise LargePayload(size, sha256, found)

    def _run(self, connection: AnyConnection, run_number: int, upto: int | None, as_of: datetime | None) -> Run:
        arguments.check_number("run_number", run_number)
        found = lookups.run_by_number(connection, run_number, upto)
        if found is None:
            raise RunNotFound(run_number, as_of)
        return found

    def _calibrations(
        self, connection: AnyConnection, listing: Statements, upto: int | None, **values: Any
    ) -> list[RecordType]:
        return list(
            map(self._make_record, self._rows(connection, listing[self._times_as_text](upto), upto=upto, **values))
        )

    def _rows(self, connection: AnyConnection, statement: CompiledStatement, **values: Any) -> list[tuple[Any, ...]]:
        rows = statement.rows(connection, limit=self._max_rows + 1, **values)
        if len(rows) > self._max_rows:
            problem = f"the answer has more than {self._max_rows} rows: ask for less, such as a shorter period"
            raise TooLarge(self._max_rows, problem)
        return rows


def _record(row: Iterable[Any]) -> CalibrationRecord:
    return CalibrationRecord(*row)


def _unknown_id(id: int, as_of: datetime | None) -> CalibrationNotFound:
    return CalibrationNotFound("get_ids and get_history tell which ids there are", id=id, as_of=as_of)


def _verify_payload(sha256: str, data: bytes | None) -> bytes:
    """Rule 13: "The sha256 […] is checked at […] every read from disk […]. On mismatch: an error, never the data." """
    if data is None or model.sha256_of(data) != sha256:
        raise DamagedPayload(sha256)
    return data


def _available_types(connection: AnyConnection, device_name: str, calibration_type: str, upto: int | None) -> str:
    known = lookups.ALL_KEYS(upto).rows(connection, upto=upto)
    types = [known_type for known_device, known_type in known if known_device == device_name]
    if not types:
        return "nothing is stored for this device; list_devices tells which there are"
    if calibration_type not in types:
        return f"for this device there is {', '.join(types[:20])}"
    return "all that is stored for it applies later or is withdrawn; get_history tells what there is"
