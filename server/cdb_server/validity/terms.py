"""What the rules are asked with: kinds of values, what is known as of a serial, and instants a step apart."""

from datetime import datetime
from typing import Any

from sqlalchemy import CTE, BigInteger, ColumnElement, cast, select, true, type_coerce

from cdb_server.schema import Instant

# A value to compare with, a parameter, or a column of an enclosing query.
Value = str | int | datetime | ColumnElement[Any]
# A serial; None for the database as it stands.
Upto = int | ColumnElement[Any] | None


def known(serial: ColumnElement[int], upto: Upto) -> ColumnElement[bool]:
    """Whether an entry is there as of a serial."""
    return true() if upto is None else serial <= upto


def steps(start: Value, stop: Value, step: Value) -> CTE:
    """The instants from `start` on, a step apart, the last one not before `stop`."""
    begin = type_coerce(cast(type_coerce(start, Instant), BigInteger), Instant)
    at = select(begin.label("instant")).cte("step", recursive=True)
    further = type_coerce(type_coerce(at.c.instant, BigInteger) + cast(step, BigInteger), Instant)
    return at.union_all(select(further).where(at.c.instant < stop))
