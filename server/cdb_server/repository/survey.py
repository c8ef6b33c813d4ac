"""What pages show of many calibrations at once: when which was in force, as finely as it can be drawn, and no finer.

A device and type may have tens of thousands of calibrations. What is asked here is bounded by what a page has room for.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam

from cdb_server import instants, model, validity
from cdb_server.model import Beginning, CalibrationRecord, Clock, Extent, Lane, RunStart
from cdb_server.repository import records
from cdb_server.repository.database import Database
from cdb_server.repository.prepared import Connected, Prepared
from cdb_server.schema import Instant, Number, calibration

_KEY: tuple[Any, Any] = bindparam("device_name"), bindparam("calibration_type")
_PERIOD = bindparam("start", type_=Instant), bindparam("stop", type_=Instant)
_STEP = bindparam("step", type_=Number)
_LIMIT: Any = bindparam("limit")

_EXTENT = Prepared(validity.extent())
_EXTENT_OF_KEY = Prepared(validity.extent_of_key(*_KEY))
_KEYS = Prepared(validity.keys(None).limit(_LIMIT))
_BEGINNING = Prepared(validity.beginning(*_KEY, *_PERIOD).limit(_LIMIT))
_AT_STEPS = Prepared(validity.in_force_at_steps(*_KEY, *_PERIOD, _STEP))
_RUNS = Prepared(validity.runs_by_start(*_PERIOD).limit(_LIMIT))
_RUNS_AT_STEPS = Prepared(validity.runs_at_steps(*_PERIOD, _STEP))
_OF_KEY = Prepared(
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


class Survey:
    """Answers about the whole of the database, as it stands. Every method raises Unavailable."""

    def __init__(self, database: Database, clock: Clock = instants.now) -> None:
        self._database = database
        self._clock = clock

    def extent(self, key: tuple[str, str] | None = None) -> Extent | None:
        """From when to when there are calibrations, and runs; of a device and type, its calibrations alone. None when
        there are none."""
        with self._database.read() as connection:
            if key is None:
                known = _EXTENT.row(connection) or ()
            else:
                known = _EXTENT_OF_KEY.row(connection, device_name=key[0], calibration_type=key[1]) or ()
        known = tuple(at for at in known if at is not None)
        return Extent(min(known), max(known)) if known else None

    def keys(self, limit: int) -> list[tuple[str, str]]:
        """The first `limit` devices and types, in alphabetical order."""
        with self._database.read() as connection:
            return [(key[0], key[1]) for key in _KEYS.rows(connection, limit=limit)]

    def in_force(self, keys: list[tuple[str, str]], instant: datetime) -> list[CalibrationRecord | None]:
        """Rule 3 for each of the devices and types."""
        with self._database.read() as connection:
            return [records.in_force(connection, *key, instant) for key in keys]

    def lanes(self, keys: list[tuple[str, str]], period: Extent, most: int, steps: int) -> list[Lane]:
        """What was in force in a period, for each of the devices and types: up to `most` calibrations that begin in it
        exactly, with those that never were in force; more, as rule 3 gives at so many `steps`."""
        with self._database.read() as connection:
            return [_lane(connection, key, period, most, steps) for key in keys]

    def runs(self, period: Extent, most: int, steps: int) -> tuple[list[RunStart], bool]:
        """The runs that start in a period, and whether these are all: beyond `most`, one a step."""
        with self._database.read() as connection:
            asked = {"start": period.start, "stop": period.stop}
            found = _RUNS.rows(connection, limit=most + 1, **asked)
            whole = len(found) <= most
            if not whole:
                found = _RUNS_AT_STEPS.rows(connection, step=_step(period, steps), **asked)
            return [RunStart(*row) for row in found], whole

    def beginning(self, key: tuple[str, str], period: Extent, limit: int) -> list[CalibrationRecord]:
        """The one in force at the period's start and, in the order of their valid_from, at most `limit` that begin in
        it: withdrawn and superseded ones too. Raises InvalidArgument."""
        device_name, calibration_type = model.device_name(key[0]), model.calibration_type(key[1])
        with self._database.read() as connection:
            before = records.in_force(connection, device_name, calibration_type, period.start)
            rows = _OF_KEY.rows(
                connection,
                device_name=device_name,
                calibration_type=calibration_type,
                start=period.start,
                stop=period.stop,
                limit=limit,
            )
            return [*([before] if before else []), *(CalibrationRecord(*row) for row in rows)]


def _lane(connection: Connected, key: tuple[str, str], period: Extent, most: int, steps: int) -> Lane:
    asked = {"device_name": key[0], "calibration_type": key[1], "start": period.start, "stop": period.stop}
    found = _BEGINNING.rows(connection, limit=most + 1, **asked)
    before = records.in_force(connection, *key, period.start)
    began = [] if before is None else [Beginning(before.id, before.valid_from)]
    if len(found) > most:
        sampled = _AT_STEPS.rows(connection, step=_step(period, steps), **asked)
        later = [Beginning(*row) for row in sampled if before is None or row[0] != before.id]
        return Lane(*key, tuple(sorted([*began, *later], key=lambda each: each.valid_from)), (), (), whole=False)
    # Of equals, the greatest id: in the order of rule 3 the last one.
    last = {valid_from: id for id, valid_from, withdrawn in found if not withdrawn}
    standing = [Beginning(id, valid_from) for valid_from, id in last.items()]
    withdrawn = [Beginning(id, valid_from) for id, valid_from, withdrawn in found if withdrawn]
    superseded = [Beginning(id, at) for id, at, withdrawn in found if not withdrawn and last[at] != id]
    return Lane(*key, (*began, *standing), tuple(withdrawn), tuple(superseded), whole=True)


def _step(period: Extent, steps: int) -> int:
    length: timedelta = period.stop - period.start
    return max(1, length // instants.MICROSECOND // steps)
