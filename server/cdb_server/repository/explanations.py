"""Explains to people: timelines, why a calibration applies, and what an upload or withdrawal would change.

A device and type may have tens of thousands of calibrations. What is asked here is bounded by what a page has room for.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam

from cdb_server import arguments, instants, validity
from cdb_server.database.statements import AnyConnection, CompiledStatement, current_and_as_of
from cdb_server.database.transactions import Database
from cdb_server.errors import RunNotFound, TooLarge
from cdb_server.model import (
    CalibrationRecord,
    Clock,
    Lane,
    NewCalibration,
    Preview,
    Resolution,
    ResolutionSet,
    RunRange,
    RunStart,
    TimelinePoint,
    TimeRange,
    WithdrawalPreview,
)
from cdb_server.repository import lookups
from cdb_server.repository.lookups import serial_as_of
from cdb_server.schema import Instant, Number, calibration

# Of those passed over, how many are told.
MAX_SKIPPED_SHOWN = 3

_KEYS_AS_OF = current_and_as_of(lambda upto: validity.keys(upto).limit(bindparam("limit")))

# So many that one more than those is found, and the one in force among them, but where many are withdrawn.
_CANDIDATES_READ = MAX_SKIPPED_SHOWN + 2

_CANDIDATES = current_and_as_of(
    lambda upto: validity.candidates(
        bindparam("device_name"), bindparam("calibration_type"), bindparam("instant", type_=Instant), upto
    ).limit(_CANDIDATES_READ)
)


class Explanations:
    """Rules 3 to 5 for all devices and types at once, explained; as_of as Reader takes it. Raises Unavailable."""

    def __init__(self, database: Database, clock: Clock = instants.now, max_keys: int = 5_000) -> None:
        self._database = database
        self._clock = clock
        self._max_keys = max_keys

    def for_run(self, run_number: int, as_of: datetime | None = None) -> ResolutionSet:
        """What applies to a run. Raises InvalidArgument, RunNotFound, AsOfNotReached, and TooLarge where there are
        more devices and types than can be told."""
        arguments.check_number("run_number", run_number)
        with self._database.read() as connection:
            upto = serial_as_of(connection, self._database.kind, self._clock, as_of)
            run = lookups.run_by_number(connection, run_number, upto)
            if run is None:
                raise RunNotFound(run_number, as_of)
            return ResolutionSet(run.start_time, run, *self._all(connection, run.start_time, upto))

    def for_date(self, date: datetime, as_of: datetime | None = None) -> ResolutionSet:
        """What applies at an instant. Raises as for_run."""
        with self._database.read() as connection:
            upto = serial_as_of(connection, self._database.kind, self._clock, as_of)
            return ResolutionSet(date, None, *self._all(connection, date, upto))

    def _all(
        self, connection: AnyConnection, instant: datetime, upto: int | None
    ) -> tuple[tuple[Resolution, ...], tuple[tuple[str, str], ...]]:
        keys = _KEYS_AS_OF(upto).rows(connection, limit=self._max_keys + 1, upto=upto)
        if len(keys) > self._max_keys:
            problem = f"more than {self._max_keys} devices and types are stored: ask for one of them"
            raise TooLarge(self._max_keys, problem)
        found = {(key[0], key[1]): _explanation(connection, key[0], key[1], instant, upto) for key in keys}
        return (
            tuple(each for each in found.values() if each is not None),
            tuple(key for key, each in found.items() if each is None),
        )


def _explanation(
    connection: AnyConnection, device_name: str, calibration_type: str, instant: datetime, upto: int | None
) -> Resolution | None:
    key = device_name, calibration_type
    # What as_of hides is passed over by each look at it: so there is one, for the answer and for what it stands before.
    rows = _CANDIDATES(upto).rows(
        connection, device_name=device_name, calibration_type=calibration_type, instant=instant, upto=upto
    )
    standing = next((id for id, _, stands in rows if stands), None)
    if standing is not None:
        found = lookups.calibration_by_id(connection, standing, upto)
    else:
        found = lookups.in_force(connection, *key, instant, upto) if len(rows) == _CANDIDATES_READ else None
    if found is None:
        return None
    ids = [id for id, valid_from, _ in rows if valid_from >= found.valid_from and id != found.id]
    told = (lookups.calibration_by_id(connection, id, upto) for id in ids[:MAX_SKIPPED_SHOWN])
    before = None
    if found.valid_from > instants.MIN_INSTANT:
        before = lookups.in_force(connection, *key, found.valid_from - instants.MICROSECOND, upto)
    return Resolution(found, before, tuple(each for each in told if each), len(ids) > MAX_SKIPPED_SHOWN)


_KEY: tuple[Any, Any] = bindparam("device_name"), bindparam("calibration_type")

_PERIOD = bindparam("start", type_=Instant), bindparam("stop", type_=Instant)

_STEP = bindparam("step", type_=Number)

_LIMIT: Any = bindparam("limit")

_EXTENT = CompiledStatement(validity.time_range())

_EXTENT_OF_KEY = CompiledStatement(validity.time_range_of_key(*_KEY))

_KEYS = CompiledStatement(validity.keys(None).limit(_LIMIT))

_BEGINNING = CompiledStatement(validity.starting_between(*_KEY, *_PERIOD).limit(_LIMIT))

_AT_STEPS = CompiledStatement(validity.in_force_at_steps(*_KEY, *_PERIOD, _STEP))

_RUNS = CompiledStatement(validity.runs_by_start(*_PERIOD).limit(_LIMIT))

_RUNS_AT_STEPS = CompiledStatement(validity.runs_at_steps(*_PERIOD, _STEP))

_OF_KEY = CompiledStatement(
    validity.records(None)
    .where(
        calibration.c.device_name == _KEY[0],
        calibration.c.calibration_type == _KEY[1],
        calibration.c.valid_from > _PERIOD[0],
        calibration.c.valid_from <= _PERIOD[1],
    )
    .order_by(calibration.c.valid_from, calibration.c.id)
    .limit(_LIMIT)
)


class Timelines:
    """Answers about the whole of the database, as it stands. Every method raises Unavailable."""

    def __init__(self, database: Database, clock: Clock = instants.now) -> None:
        self._database = database
        self._clock = clock

    def time_range(self, key: tuple[str, str] | None = None) -> TimeRange | None:
        """From when to when there are calibrations, and runs; of a device and type, its calibrations alone. None when
        there are none."""
        with self._database.read() as connection:
            if key is None:
                known = _EXTENT.row(connection) or ()
            else:
                known = _EXTENT_OF_KEY.row(connection, device_name=key[0], calibration_type=key[1]) or ()
        known = tuple(at for at in known if at is not None)
        return TimeRange(min(known), max(known)) if known else None

    def keys(self, limit: int) -> list[tuple[str, str]]:
        """The first `limit` devices and types, in alphabetical order."""
        with self._database.read() as connection:
            return [(key[0], key[1]) for key in _KEYS.rows(connection, limit=limit)]

    def in_force(self, keys: list[tuple[str, str]], instant: datetime) -> list[CalibrationRecord | None]:
        """Rule 3 for each of the devices and types."""
        with self._database.read() as connection:
            return [lookups.in_force(connection, *key, instant) for key in keys]

    def lanes(self, keys: list[tuple[str, str]], period: TimeRange, max_count: int, steps: int) -> list[Lane]:
        """What was in force in a period, for each of the devices and types: up to `most` calibrations that begin in it
        exactly, with those that never were in force; more, as rule 3 gives at so many `steps`."""
        with self._database.read() as connection:
            return [_lane(connection, key, period, max_count, steps) for key in keys]

    def runs(self, period: TimeRange, max_count: int, steps: int) -> tuple[list[RunStart], bool]:
        """The runs that start in a period, and whether these are all: beyond `most`, one a step."""
        with self._database.read() as connection:
            asked = {"start": period.start, "stop": period.stop}
            found = _RUNS.rows(connection, limit=max_count + 1, **asked)
            whole = len(found) <= max_count
            if not whole:
                found = _RUNS_AT_STEPS.rows(connection, step=_step(period, steps), **asked)
            return [RunStart(*row) for row in found], whole

    def calibrations_in(self, key: tuple[str, str], period: TimeRange, limit: int) -> list[CalibrationRecord]:
        """The one in force at the period's start and, in the order of their valid_from, at most `limit` that begin in
        it: withdrawn and superseded ones too. Raises InvalidArgument."""
        device_name, calibration_type = (
            arguments.normalised_device_name(key[0]),
            arguments.normalised_calibration_type(key[1]),
        )
        with self._database.read() as connection:
            before = lookups.in_force(connection, device_name, calibration_type, period.start)
            rows = _OF_KEY.rows(
                connection,
                device_name=device_name,
                calibration_type=calibration_type,
                start=period.start,
                stop=period.stop,
                limit=limit,
            )
            return [*([before] if before else []), *(CalibrationRecord(*row) for row in rows)]


def _lane(connection: AnyConnection, key: tuple[str, str], period: TimeRange, most: int, steps: int) -> Lane:
    asked = {"device_name": key[0], "calibration_type": key[1], "start": period.start, "stop": period.stop}
    found = _BEGINNING.rows(connection, limit=most + 1, **asked)
    before = lookups.in_force(connection, *key, period.start)
    began = [] if before is None else [TimelinePoint(before.id, before.valid_from)]
    if len(found) > most:
        sampled = _AT_STEPS.rows(connection, step=_step(period, steps), **asked)
        later = [TimelinePoint(*row) for row in sampled if before is None or row[0] != before.id]
        return Lane(*key, tuple(sorted([*began, *later], key=lambda each: each.valid_from)), (), (), complete=False)
    # Of equals, the greatest id: in the order of rule 3 the last one.
    last = {valid_from: id for id, valid_from, withdrawn in found if not withdrawn}
    standing = [TimelinePoint(id, valid_from) for valid_from, id in last.items()]
    withdrawn = [TimelinePoint(id, valid_from) for id, valid_from, withdrawn in found if withdrawn]
    superseded = [TimelinePoint(id, at) for id, at, withdrawn in found if not withdrawn and last[at] != id]
    return Lane(*key, (*began, *standing), tuple(withdrawn), tuple(superseded), complete=True)


def _step(period: TimeRange, steps: int) -> int:
    length: timedelta = period.stop - period.start
    return max(1, length // instants.MICROSECOND // steps)


MAX_RUN_RANGES = 1_000

_EQUAL = CompiledStatement(
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
    stored_id = find_equal(connection, content)
    run_count, run_range = 0, tuple[RunRange, ...]()
    stored = None if stored_id is None else lookups.calibration_by_id(connection, stored_id)
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
        takes_over_from=lookups.in_force(connection, *key, content.valid_from),
    )


def preview_withdrawal(connection: Connection, found: CalibrationRecord) -> WithdrawalPreview:
    """What withdrawing a calibration now would change: by rule 3 that which stood before it applies again."""
    run_count, run_range = 0, tuple[RunRange, ...]()
    # One that is withdrawn, or superseded at once, is in force nowhere.
    if found.valid_until != found.valid_from:
        run_count, run_range = _runs(connection, found.valid_from, found.valid_until)
    return WithdrawalPreview(lookups.neighbours(connection, found), run_count, run_range)


def find_equal(connection: AnyConnection, content: NewCalibration) -> int | None:
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
    ranges = connection.execute(validity.run_ranges(start, until).limit(MAX_RUN_RANGES))
    return run_count, tuple(RunRange(*row) for row in ranges)
