"""What can be asked of a database: rules 3 to 7 and 13, one consistent moment an answer."""

import copy
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Generic

from typing_extensions import TypeVar

from cdb_server import __version__, instants, model
from cdb_server.errors import (
    CalibrationNotFound,
    DamagedPayload,
    LargePayload,
    PayloadNotFound,
    RunNotFound,
    TooLarge,
)
from cdb_server.model import (
    CalibrationLine,
    CalibrationRecord,
    Clock,
    Device,
    Entry,
    JournalLine,
    Knowledge,
    Place,
    Run,
    Status,
)
from cdb_server.repository import records, statements
from cdb_server.repository.append import CLOCK_BEHIND, head
from cdb_server.repository.database import Database
from cdb_server.repository.entries import entries, lines
from cdb_server.repository.glance import Glance
from cdb_server.repository.prepared import Connected, Prepared
from cdb_server.repository.standing import serial_as_of, standing
from cdb_server.repository.statements import Statements

Made = TypeVar("Made", bound=CalibrationRecord | CalibrationLine, default=CalibrationRecord)


class Reader(Generic[Made]):
    """Answers about calibrations and runs. Instants are aware datetimes, data is bytes.

    `held` are the sha256s of payloads that the caller has: an answer with one of these comes without its data.

    Every method that takes `as_of` raises AsOfNotReached when it lies after `complete_until`; every method raises
    Unavailable when the database cannot be read, and InvalidArgument for a value that cannot be accepted.
    """

    # What is made of a row, and which statement of two gives it.
    _made: Callable[[Iterable[Any]], Made]
    _spelled: bool

    def __init__(
        self: "Reader[CalibrationRecord]",
        database: Database | Glance,
        *,
        clock: Clock = instants.now,
        max_rows: int = 100_000,
        max_entries: int = 1_000,
        max_data: int | None = None,
    ) -> None:
        """Longer lists are TooLarge; payloads of more bytes than `max_data` raise LargePayload."""
        self._database = database
        self._clock = clock
        self._max_rows = max_rows
        self._max_entries = max_entries
        self._max_data = model.GREATEST_NUMBER if max_data is None else max_data
        self._made, self._spelled = _record, False

    def lines(self) -> "Reader[CalibrationLine]":
        """The same, whose calibrations are CalibrationLine: for who only writes them, in half the time."""
        copied: Any = copy.copy(self)
        copied._made, copied._spelled = CalibrationLine._make, True
        lines: Reader[CalibrationLine] = copied
        return lines

    def calibration_for_date(
        self,
        device_name: str,
        calibration_type: str,
        date: datetime,
        as_of: datetime | None = None,
        held: Collection[str] = (),
    ) -> Made:
        """Rule 3, with data. Raises CalibrationNotFound and DamagedPayload."""
        device_name, calibration_type = model.device_name(device_name), model.calibration_type(calibration_type)
        with self._reading(as_of, held) as connection:
            upto = self._upto(connection, as_of)
            key = device_name, calibration_type
            return self._applying(connection, *key, date, upto, held, date=date, as_of=as_of)

    def current_calibration(
        self, device_name: str, calibration_type: str, as_of: datetime | None = None, held: Collection[str] = ()
    ) -> Made:
        """Rule 4: the resolution at the present instant; with as_of, at as_of. Raises as calibration_for_date."""
        device_name, calibration_type = model.device_name(device_name), model.calibration_type(calibration_type)
        with self._reading(as_of, held) as connection:
            upto = self._upto(connection, as_of)
            instant = self._clock() if as_of is None else as_of
            key = device_name, calibration_type
            return self._applying(connection, *key, instant, upto, held, date=None, as_of=as_of)

    def calibration_for_run(
        self,
        device_name: str,
        calibration_type: str,
        run_number: int,
        as_of: datetime | None = None,
        held: Collection[str] = (),
    ) -> Made:
        """Rule 5: the resolution at the run's start. Raises RunNotFound, and as calibration_for_date."""
        device_name, calibration_type = model.device_name(device_name), model.calibration_type(calibration_type)
        asked = {"device_name": device_name, "calibration_type": calibration_type, "run_number": run_number}
        with self._reading(as_of, held) as connection:
            upto = self._upto(connection, as_of)
            model.number("run_number", run_number)
            found = self._one(connection, statements.FOR_RUN, upto, held, **asked)
        if found is not None:
            return found
        # What is missing shows step by step.
        with self._database.read() as connection:
            upto = self._upto(connection, as_of)
            start = self._run(connection, run_number, upto, as_of).start_time
            key = device_name, calibration_type
            return self._applying(connection, *key, start, upto, held, date=start, run_number=run_number, as_of=as_of)

    def calibration_for_id(self, id: int, as_of: datetime | None = None, held: Collection[str] = ()) -> Made:
        """One calibration, superseded and withdrawn ones too, with data. Raises as calibration_for_date."""
        model.number("id", id)
        with self._reading(as_of, held) as connection:
            upto = self._upto(connection, as_of)
            found = self._one(connection, statements.BY_ID, upto, held, id=id)
        if found is None:
            raise _unknown(id, as_of)
        return found

    def place(self, id: int, as_of: datetime | None = None) -> Place:
        """Where a calibration stands in its timeline. Raises CalibrationNotFound."""
        model.number("id", id)
        with self._database.read() as connection:
            upto = self._upto(connection, as_of)
            found = records.record(connection, id, upto)
            if found is None:
                raise _unknown(id, as_of)
            return records.place(connection, found, upto)

    def ids(self, start_time: datetime, stop_time: datetime | None = None, as_of: datetime | None = None) -> list[Made]:
        """Rule 6: the calibrations in force at one instant of the period at least, by id. Raises TooLarge."""
        start, stop = model.period(start_time, stop_time)
        with self._reading(as_of) as connection:
            upto = self._upto(connection, as_of)
            return self._calibrations(connection, statements.DURING, upto, start=start, stop=stop)

    def calibrations_for_run(self, run_number: int, as_of: datetime | None = None) -> list[Made]:
        """Everything that applies to a run, by id. Raises RunNotFound and TooLarge."""
        with self._reading(as_of) as connection:
            upto = self._upto(connection, as_of)
            model.number("run_number", run_number)
            found = self._calibrations(connection, statements.EVERYWHERE, upto, run_number=run_number)
        if found:
            return found
        # Where nothing applies, the run may not be registered.
        with self._database.read() as connection:
            upto = self._upto(connection, as_of)
            self._run(connection, run_number, upto, as_of)
            return self._calibrations(connection, statements.EVERYWHERE, upto, run_number=run_number)

    def history(self, device_name: str, calibration_type: str, as_of: datetime | None = None) -> list[Made]:
        """Everything ever stored for a device and type, by id; empty for one without. Raises TooLarge."""
        device_name, calibration_type = model.device_name(device_name), model.calibration_type(calibration_type)
        with self._reading(as_of) as connection:
            upto = self._upto(connection, as_of)
            return self._calibrations(
                connection, statements.HISTORY, upto, device_name=device_name, calibration_type=calibration_type
            )

    def devices(self, as_of: datetime | None = None) -> list[Device]:
        """The devices, in alphabetical order, with their calibration types. Raises TooLarge."""
        types: dict[str, list[str]] = {}
        with self._reading(as_of) as connection:
            upto = self._upto(connection, as_of)
            for device_name, calibration_type in self._rows(connection, statements.KEYS(upto), upto=upto):
                types.setdefault(device_name, []).append(calibration_type)
        return [Device(device_name, tuple(known)) for device_name, known in types.items()]

    def run(self, run_number: int, as_of: datetime | None = None) -> Run:
        """A run's times. Raises RunNotFound."""
        with self._reading(as_of) as connection:
            return self._run(connection, run_number, self._upto(connection, as_of), as_of)

    def runs(self, start_time: datetime, stop_time: datetime | None = None, as_of: datetime | None = None) -> list[Run]:
        """The runs that start in the period, by number. Raises TooLarge."""
        start, stop = model.period(start_time, stop_time)
        with self._reading(as_of) as connection:
            upto = self._upto(connection, as_of)
            return [
                Run(*row) for row in self._rows(connection, statements.RUNS(upto), start=start, stop=stop, upto=upto)
            ]

    def journal(self, after_serial: int, limit: int) -> list[tuple[Entry, str]]:
        """At most `limit` entries after a serial, in order, each with its digest. Raises TooLarge."""
        self._check_limit(limit)
        with self._database.read_one() as connection:
            return entries(connection, after_serial, limit)

    def journal_lines(self, after_serial: int, limit: int) -> list[JournalLine]:
        """The same for who only writes them, in half the time."""
        self._check_limit(limit)
        with self._database.read_one() as connection:
            return lines(connection, after_serial, limit)

    def _check_limit(self, limit: int) -> None:
        if limit > self._max_entries:
            problem = f"limit is {limit}; at most {self._max_entries} entries are given at once: ask for the rest after"
            raise TooLarge(self._max_entries, problem)

    def payload(self, sha256: str) -> bytes:
        """The bytes of a payload. Raises PayloadNotFound, InvalidArgument and DamagedPayload."""
        sha256 = model.sha256(sha256)
        # A payload never changes.
        with self._database.read_one() as connection:
            size: int | None = statements.SIZE.value(connection, sha256=sha256)
            if size is None:
                raise PayloadNotFound(sha256)
            self._check_size(size, sha256)
            data = statements.DATA.value(connection, sha256=sha256)
        return _prove(sha256, data)

    def status(self) -> Status:
        """What this server says of itself."""
        with self._database.read() as connection:
            # First: what is created and committed while the rest is asked lies later than complete_until.
            stands = standing(connection, self._database.kind, self._clock)
            last = head(connection)
            restored: datetime | None = statements.RESTORED.value(connection)
        refusal = None
        if stands.role == "master":
            refusal = CLOCK_BEHIND if last.is_ahead(self._clock()) else self._database.refusal()
        return Status(
            stands.status if refusal is None else f"writes are refused: {refusal}",
            stands.role,
            last.serial,
            last.digest,
            stands.complete_until,
            __version__,
            stands.master,
            None if stands.known_serial is None else max(0, stands.known_serial - last.serial),
            None if stands.heard is None else self._age(stands.heard),
            restored,
        )

    def knowledge(self) -> Knowledge:
        """How far the server knows the journal; every later answer knows it at least as far."""
        if self._database.kind == "master":
            stands = None
            with self._database.read_one() as connection:
                serial, digest, _ = head(connection)
        else:
            with self._database.read() as connection:
                stands = standing(connection, self._database.kind, self._clock)
                serial, digest, _ = head(connection)
        return Knowledge(serial, digest, None if stands is None else stands.heard)

    def _age(self, heard: datetime) -> float:
        return max(0.0, (self._clock() - heard).total_seconds())

    def _reading(self, as_of: datetime | None, held: Collection[str] = ()) -> AbstractContextManager[Connected]:
        """For a question that is one statement, unless an as_of is to be found before, or a payload after it."""
        return self._database.read_one() if as_of is None and not held else self._database.read()

    def _upto(self, connection: Connected, as_of: datetime | None) -> int | None:
        return serial_as_of(connection, self._database.kind, self._clock, as_of)

    def _applying(
        self,
        connection: Connected,
        device_name: str,
        calibration_type: str,
        instant: datetime,
        upto: int | None,
        held: Collection[str],
        **asked: Any,
    ) -> Made:
        key: dict[str, Any] = {"device_name": device_name, "calibration_type": calibration_type}
        found = self._one(connection, statements.IN_FORCE, upto, held, instant=instant, **key)
        if found is None:
            there_is = _what_there_is(connection, device_name, calibration_type, upto)
            raise CalibrationNotFound(there_is, **key, **asked)
        return found

    def _one(
        self, connection: Connected, single: Statements, upto: int | None, held: Collection[str], **values: Any
    ) -> Made | None:
        statement = single[self._spelled](upto)
        # Whether the payload is wanted shows only once it is found.
        row = statement.row(connection, upto=upto, most=None if held else self._max_data, **values)
        if row is None:
            return None
        found = self._made(row)
        if found.sha256 in held:
            return found
        self._check_size(found.size, found.sha256, found)
        if held:
            row = statement.row(connection, upto=upto, most=self._max_data, **values)
            found = self._made(row) if row else found
        _prove(found.sha256, found.data)
        return found

    def _check_size(self, size: int, sha256: str, found: CalibrationRecord | CalibrationLine | None = None) -> None:
        if size > self._max_data:
            raise LargePayload(size, sha256, found)

    def _run(self, connection: Connected, run_number: int, upto: int | None, as_of: datetime | None) -> Run:
        model.number("run_number", run_number)
        found = records.run(connection, run_number, upto)
        if found is None:
            raise RunNotFound(run_number, as_of)
        return found

    def _calibrations(self, connection: Connected, listing: Statements, upto: int | None, **values: Any) -> list[Made]:
        return list(map(self._made, self._rows(connection, listing[self._spelled](upto), upto=upto, **values)))

    def _rows(self, connection: Connected, statement: Prepared, **values: Any) -> list[tuple[Any, ...]]:
        rows = statement.rows(connection, limit=self._max_rows + 1, **values)
        if len(rows) > self._max_rows:
            problem = f"the answer has more than {self._max_rows} rows: ask for less, such as a shorter period"
            raise TooLarge(self._max_rows, problem)
        return rows


def _record(row: Iterable[Any]) -> CalibrationRecord:
    return CalibrationRecord(*row)


def _unknown(id: int, as_of: datetime | None) -> CalibrationNotFound:
    return CalibrationNotFound("get_ids and get_history tell which ids there are", id=id, as_of=as_of)


def _prove(sha256: str, data: bytes | None) -> bytes:
    """Rule 13: "The sha256 […] is checked at […] every read from disk […]. On mismatch: an error, never the data." """
    if data is None or model.sha256_of(data) != sha256:
        raise DamagedPayload(sha256)
    return data


def _what_there_is(connection: Connected, device_name: str, calibration_type: str, upto: int | None) -> str:
    known = statements.ALL_KEYS(upto).rows(connection, upto=upto)
    types = [known_type for known_device, known_type in known if known_device == device_name]
    if not types:
        return "nothing is stored for this device; list_devices tells which there are"
    if calibration_type not in types:
        return f"for this device there is {', '.join(types[:20])}"
    return "all that is stored for it applies later or is withdrawn; get_history tells what there is"
