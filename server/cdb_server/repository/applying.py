"""What applies, and why: for each device and type the calibration of rule 3, and those that it stands before."""

from datetime import datetime

from sqlalchemy import bindparam

from cdb_server import instants, model, validity
from cdb_server.errors import RunNotFound, TooLarge
from cdb_server.model import Applied, Applying, CalibrationRecord, Clock
from cdb_server.repository import records
from cdb_server.repository.database import Database
from cdb_server.repository.prepared import Connected, both
from cdb_server.repository.standing import serial_as_of
from cdb_server.schema import Instant

# Of those passed over, how many are told.
MOST_PASSED_OVER = 3

_KEYS = both(lambda upto: validity.keys(upto).limit(bindparam("limit")))
_PASSED_OVER = both(
    lambda upto: validity.passed_over(
        bindparam("device_name"),
        bindparam("calibration_type"),
        bindparam("since", type_=Instant),
        bindparam("instant", type_=Instant),
        upto,
    ).limit(MOST_PASSED_OVER + 2)
)


class Explaining:
    """Rules 3 to 5 for all devices and types at once, explained; as_of as Reader takes it. Raises Unavailable."""

    def __init__(self, database: Database, clock: Clock = instants.now, max_keys: int = 5_000) -> None:
        self._database = database
        self._clock = clock
        self._max_keys = max_keys

    def for_run(self, run_number: int, as_of: datetime | None = None) -> Applied:
        """What applies to a run. Raises InvalidArgument, RunNotFound, AsOfNotReached, and TooLarge where there are
        more devices and types than can be told."""
        model.number("run_number", run_number)
        with self._database.read() as connection:
            upto = serial_as_of(connection, self._database.kind, self._clock, as_of)
            run = records.run(connection, run_number, upto)
            if run is None:
                raise RunNotFound(run_number, as_of)
            return Applied(run.start_time, run, *self._explained(connection, run.start_time, upto))

    def for_date(self, date: datetime, as_of: datetime | None = None) -> Applied:
        """What applies at an instant. Raises as for_run."""
        with self._database.read() as connection:
            upto = serial_as_of(connection, self._database.kind, self._clock, as_of)
            return Applied(date, None, *self._explained(connection, date, upto))

    def _explained(
        self, connection: Connected, instant: datetime, upto: int | None
    ) -> tuple[tuple[Applying, ...], tuple[tuple[str, str], ...]]:
        keys = _KEYS(upto).rows(connection, limit=self._max_keys + 1, upto=upto)
        if len(keys) > self._max_keys:
            problem = f"more than {self._max_keys} devices and types are stored: ask for one of them"
            raise TooLarge(self._max_keys, problem)
        found = [((key[0], key[1]), records.in_force(connection, key[0], key[1], instant, upto)) for key in keys]
        return (
            tuple(_reasons(connection, each, instant, upto) for _, each in found if each is not None),
            tuple(key for key, each in found if each is None),
        )


def _reasons(connection: Connected, found: CalibrationRecord, instant: datetime, upto: int | None) -> Applying:
    key = found.device_name, found.calibration_type
    before = None
    if found.valid_from > instants.FIRST:
        before = records.in_force(connection, *key, found.valid_from - instants.MICROSECOND, upto)
    rows = _PASSED_OVER(upto).rows(
        connection, device_name=key[0], calibration_type=key[1], since=found.valid_from, instant=instant, upto=upto
    )
    ids = [id for (id,) in rows if id != found.id]
    told = (records.record(connection, id, upto) for id in ids[:MOST_PASSED_OVER])
    return Applying(found, before, tuple(each for each in told if each), len(ids) > MOST_PASSED_OVER)
