"""What Reader asks, as prepared statements: the rules of validity, the columns of an answer, and how many rows."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, LargeBinary, Select, bindparam, case, cast, func, null, select

from cdb_server import validity
from cdb_server.repository.prepared import Prepared, both
from cdb_server.schema import Instant, calibration, payload, restoration

_DEVICE_NAME: Any = bindparam("device_name")
_CALIBRATION_TYPE: Any = bindparam("calibration_type")
_AT = bindparam("instant", type_=Instant)
_PERIOD = (bindparam("start", type_=Instant), bindparam("stop", type_=Instant))
# As bytes, also where damage made text of them.
_BYTES = cast(payload.c.data, LargeBinary)


def _start(upto: Any) -> Any:
    return validity.run_start(bindparam("run_number"), upto)


_Statement = Callable[[int | None], Prepared]
# A statement whose instants are datetimes, and one in which they are texts.
Statements = tuple[_Statement, _Statement]


def _listing(condition: Callable[[Any], ColumnElement[bool]]) -> Statements:
    """The calibrations of a condition without data, by id, and at most `limit`."""

    def build(upto: Any) -> Select[Any]:
        found = validity.records(upto).add_columns(null()).where(condition(upto))
        return found.order_by(calibration.c.id).limit(bindparam("limit"))

    return both(build), both(build, spelled=True)


def _single(condition: Callable[[Any], ColumnElement[bool]]) -> Statements:
    """The calibration of a condition, with its data if these are at most `most` bytes; without where that is null."""

    def build(upto: Any) -> Select[Any]:
        data = case((calibration.c.size <= bindparam("most", type_=BigInteger), _BYTES))
        found = validity.records(upto).add_columns(data).where(condition(upto))
        return found.outerjoin(payload, payload.c.sha256 == calibration.c.sha256)

    return both(build), both(build, spelled=True)


IN_FORCE = _single(lambda upto: calibration.c.id == validity.in_force(_DEVICE_NAME, _CALIBRATION_TYPE, _AT, upto))
FOR_RUN = _single(
    lambda upto: calibration.c.id == validity.in_force(_DEVICE_NAME, _CALIBRATION_TYPE, _start(upto), upto)
)
BY_ID = _single(lambda _: calibration.c.id == bindparam("id"))
DURING = _listing(lambda upto: calibration.c.id.in_(validity.in_force_during(*_PERIOD, upto)))
EVERYWHERE = _listing(lambda upto: calibration.c.id.in_(validity.in_force_everywhere(_start(upto), upto)))
HISTORY = _listing(
    lambda _: (calibration.c.device_name == _DEVICE_NAME) & (calibration.c.calibration_type == _CALIBRATION_TYPE)
)
KEYS = both(lambda upto: validity.keys(upto).limit(bindparam("limit")))
ALL_KEYS = both(validity.keys)
RUNS = both(lambda upto: validity.runs_starting(*_PERIOD, upto).limit(bindparam("limit")))
DATA = Prepared(select(_BYTES).where(payload.c.sha256 == bindparam("sha256")))
SIZE = Prepared(select(func.length(payload.c.data)).where(payload.c.sha256 == bindparam("sha256")))
RESTORED = Prepared(select(func.max(restoration.c.restored)))
