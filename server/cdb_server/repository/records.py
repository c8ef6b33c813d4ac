"""One calibration or one run, as it stands or stood as of a serial: found by one prepared statement, without data."""

from datetime import datetime
from typing import Any

from sqlalchemy import bindparam

from cdb_server import validity
from cdb_server.model import CalibrationRecord, Place, Run
from cdb_server.repository.prepared import Connected, both
from cdb_server.schema import Instant, Number, calibration

_BY_ID = both(lambda upto: validity.records(upto).where(calibration.c.id == bindparam("id")))
_KEY: tuple[Any, Any] = (bindparam("device_name"), bindparam("calibration_type"))
_IN_FORCE = both(
    lambda upto: validity.records(upto).where(
        calibration.c.id == validity.in_force(*_KEY, bindparam("instant", type_=Instant), upto)
    )
)
_PLACE: tuple[Any, Any] = (bindparam("valid_from", type_=Instant), bindparam("beside", type_=Number))
_BEFORE = both(
    lambda upto: validity.records(upto).where(calibration.c.id == validity.standing_before(*_KEY, *_PLACE, upto))
)
_AFTER = both(
    lambda upto: validity.records(upto).where(calibration.c.id == validity.standing_after(*_KEY, *_PLACE, upto))
)
_RUN = both(lambda upto: validity.run_entry(bindparam("run_number"), upto))


def record(connection: Connected, id: int, upto: int | None = None) -> CalibrationRecord | None:
    """A calibration, without data, as of a serial; None when there is none."""
    row = _BY_ID(upto).row(connection, id=id, upto=upto)
    return None if row is None else CalibrationRecord(*row)


def in_force(
    connection: Connected, device_name: str, calibration_type: str, instant: datetime, upto: int | None = None
) -> CalibrationRecord | None:
    """Rule 3: the calibration in force at an instant, without data; None when none is."""
    row = _IN_FORCE(upto).row(
        connection, device_name=device_name, calibration_type=calibration_type, instant=instant, upto=upto
    )
    return None if row is None else CalibrationRecord(*row)


def place(connection: Connected, found: CalibrationRecord, upto: int | None = None) -> Place:
    """A calibration between those that stand next to it, as of a serial."""
    place = {
        "device_name": found.device_name,
        "calibration_type": found.calibration_type,
        "valid_from": found.valid_from,
        "beside": found.id,
    }
    rows = (statement(upto).row(connection, upto=upto, **place) for statement in (_BEFORE, _AFTER))
    return Place(found, *(None if row is None else CalibrationRecord(*row) for row in rows))


def run(connection: Connected, run_number: int, upto: int | None = None) -> Run | None:
    """A run as of a serial; None when it is not registered."""
    row = _RUN(upto).row(connection, run_number=run_number, upto=upto)
    return None if row is None else Run(*row)
