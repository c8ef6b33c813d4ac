"""What applies, and why: for each device and type the calibration of rule 3, and those that it stands before."""

from datetime import datetime

from sqlalchemy import bindparam

from cdb_server import instants, model, validity
from cdb_server.errors import RunNotFound, TooLarge
from cdb_server.model import Applied, Applying, Clock
from cdb_server.repository import records
from cdb_server.repository.database import Database
from cdb_server.repository.prepared import Connected, both
from cdb_server.repository.standing import serial_as_of
from cdb_server.schema import Instant

# Of those passed over, how many are told.
MOST_PASSED_OVER = 3

_KEYS = both(lambda upto: validity.keys(upto).limit(bindparam("limit")))
# So many that one more than those is found, and the one in force among them, but where many are withdrawn.
_LOOKED_AT = MOST_PASSED_OVER + 2
_CANDIDATES = both(
    lambda upto: validity.candidates(
        bindparam("device_name"), bindparam("calibration_type"), bindparam("instant", type_=Instant), upto
    ).limit(_LOOKED_AT)
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
            return Applied(run.start_time, run, *self._all(connection, run.start_time, upto))

    def for_date(self, date: datetime, as_of: datetime | None = None) -> Applied:
        """What applies at an instant. Raises as for_run."""
        with self._database.read() as connection:
            upto = serial_as_of(connection, self._database.kind, self._clock, as_of)
            return Applied(date, None, *self._all(connection, date, upto))

    def _all(
        self, connection: Connected, instant: datetime, upto: int | None
    ) -> tuple[tuple[Applying, ...], tuple[tuple[str, str], ...]]:
        keys = _KEYS(upto).rows(connection, limit=self._max_keys + 1, upto=upto)
        if len(keys) > self._max_keys:
            problem = f"more than {self._max_keys} devices and types are stored: ask for one of them"
            raise TooLarge(self._max_keys, problem)
        found = {(key[0], key[1]): _explained(connection, key[0], key[1], instant, upto) for key in keys}
        return (
            tuple(each for each in found.values() if each is not None),
            tuple(key for key, each in found.items() if each is None),
        )


def _explained(
    connection: Connected, device_name: str, calibration_type: str, instant: datetime, upto: int | None
) -> Applying | None:
    key = device_name, calibration_type
    # What as_of hides is passed over by each look at it: so there is one, for the answer and for what it stands before.
    rows = _CANDIDATES(upto).rows(
        connection, device_name=device_name, calibration_type=calibration_type, instant=instant, upto=upto
    )
    standing = next((id for id, _, stands in rows if stands), None)
    if standing is not None:
        found = records.record(connection, standing, upto)
    else:
        found = records.in_force(connection, *key, instant, upto) if len(rows) == _LOOKED_AT else None
    if found is None:
        return None
    ids = [id for id, valid_from, _ in rows if valid_from >= found.valid_from and id != found.id]
    told = (records.record(connection, id, upto) for id in ids[:MOST_PASSED_OVER])
    before = None
    if found.valid_from > instants.FIRST:
        before = records.in_force(connection, *key, found.valid_from - instants.MICROSECOND, upto)
    return Applying(found, before, tuple(each for each in told if each), len(ids) > MOST_PASSED_OVER)
