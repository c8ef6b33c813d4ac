"""Rules 3, 4, 6, 7 and 9 as SQL: which calibration applies, until when, and what stands beside it."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    CompoundSelect,
    FromClause,
    ScalarSelect,
    Select,
    Tuple,
    and_,
    case,
    func,
    select,
    tuple_,
    type_coerce,
    union_all,
)

from cdb_server.schema import Instant, Number, calibration, journal, run, withdrawal
from cdb_server.validity.terms import Upto, Value, known, steps

# The tables in their parts within a query.
candidate = calibration.alias("candidate")
following = calibration.alias("following")
began = calibration.alias("began")
first, here, there = (calibration.alias(part) for part in ("first", "here", "there"))
withdrawing = journal.alias("withdrawing")


def serial_as_of(as_of: Value) -> Select[Any]:
    """The serial of the last entry created at `as_of` or before; no row when there is none."""
    return select(journal.c.serial).where(journal.c.created <= as_of).order_by(journal.c.created.desc()).limit(1)


def in_force(device_name: Value, calibration_type: Value, instant: Value, upto: Upto) -> ScalarSelect[int | None]:
    """Rule 3: the id of the calibration in force at an instant; null when none is."""
    return (
        _standing(device_name, calibration_type, upto)
        .where(candidate.c.valid_from <= instant)
        .order_by(candidate.c.valid_from.desc(), candidate.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )


def standing_before(
    device_name: Value, calibration_type: Value, valid_from: Value, id: Value, upto: Upto
) -> ScalarSelect[int | None]:
    """Rule 3: the id of the calibration that one takes over from, or would if it stood; null where there is none."""
    return (
        _standing(device_name, calibration_type, upto)
        .where(tuple_(candidate.c.valid_from, candidate.c.id) < _place(valid_from, id))
        .order_by(candidate.c.valid_from.desc(), candidate.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )


def standing_after(
    device_name: Value, calibration_type: Value, valid_from: Value, id: Value, upto: Upto
) -> ScalarSelect[int | None]:
    """Rule 3: the id of the calibration that takes over from one, or would if it stood; null where none does."""
    return (
        _standing(device_name, calibration_type, upto)
        .where(tuple_(candidate.c.valid_from, candidate.c.id) > _place(valid_from, id))
        .order_by(candidate.c.valid_from, candidate.c.id)
        .limit(1)
        .scalar_subquery()
    )


def in_force_everywhere(instant: Value, upto: Upto) -> Select[Any]:
    """Rule 3 for every device and type there is: the ids in force at an instant, null for keys that have none."""
    key = _keys("key_at")
    return select(in_force(key.c.device_name, key.c.calibration_type, instant, upto).label("id")).select_from(key)


def in_force_during(start: Value, stop: Value, upto: Upto) -> CompoundSelect[Any]:
    """Rule 6: "exactly the ids that rule 3 gives for at least one instant t with start <= t <= stop"."""
    began_later = select(began.c.id).where(
        began.c.valid_from > start,
        began.c.valid_from <= stop,
        _stands(began, upto),
        _takes_over_from(began, upto).is_distinct_from(began.c.valid_from),
    )
    return union_all(in_force_everywhere(start, upto), began_later)


def in_force_at_steps(
    device_name: Value, calibration_type: Value, start: Value, stop: Value, step: Value
) -> Select[Any]:
    """Rule 3 at `start`, and every `step` microseconds until `stop`: each id that it gives there, with its valid_from.

    However many calibrations there are, this asks no more often than there are steps.
    """
    at = steps(start, stop, step)
    given = select(in_force(device_name, calibration_type, at.c.instant, None)).select_from(at)
    return select(calibration.c.id, calibration.c.valid_from).where(calibration.c.id.in_(given))


def beginning(device_name: Value, calibration_type: Value, start: Value, stop: Value) -> Select[Any]:
    """Every calibration whose valid_from lies after `start` and not after `stop`, in the order of rule 3: its id, its
    valid_from, and whether it is withdrawn."""
    return (
        select(began.c.id, began.c.valid_from, ~_stands(began, None))
        .where(
            began.c.device_name == device_name,
            began.c.calibration_type == calibration_type,
            began.c.valid_from > start,
            began.c.valid_from <= stop,
        )
        .order_by(began.c.valid_from, began.c.id)
    )


def candidates(device_name: Value, calibration_type: Value, instant: Value, upto: Upto) -> Select[Any]:
    """Everything that begins by an instant, in the order in which rule 3 prefers it: id, valid_from, and whether it
    stands. The first that does is in force; those before it are withdrawn."""
    return (
        select(candidate.c.id, candidate.c.valid_from, _stands(candidate, upto))
        .where(
            candidate.c.device_name == device_name,
            candidate.c.calibration_type == calibration_type,
            candidate.c.valid_from <= instant,
            known(candidate.c.id, upto),
        )
        .order_by(candidate.c.valid_from.desc(), candidate.c.id.desc())
    )


def extent() -> Select[Any]:
    """The first and the last valid_from of all calibrations, and the first and the last start of a run."""
    ends = (
        select(calibration.c.valid_from).order_by(calibration.c.valid_from),
        select(calibration.c.valid_from).order_by(calibration.c.valid_from.desc()),
        select(run.c.start_time).order_by(run.c.start_time),
        select(run.c.start_time).order_by(run.c.start_time.desc()),
    )
    return select(*(end.limit(1).scalar_subquery() for end in ends))


def extent_of_key(device_name: Value, calibration_type: Value) -> Select[Any]:
    """The first and the last valid_from of a device and type."""
    of_key = select(calibration.c.valid_from).where(
        calibration.c.device_name == device_name, calibration.c.calibration_type == calibration_type
    )
    ends = (of_key.order_by(calibration.c.valid_from), of_key.order_by(calibration.c.valid_from.desc()))
    return select(*(end.limit(1).scalar_subquery() for end in ends))


def records(upto: Upto) -> Select[Any]:
    """The columns of CalibrationRecord but `data`, in its order, to be narrowed by a condition on the id."""
    withdrawn = withdrawal.c.serial.is_not(None)
    valid_until = case((withdrawn, calibration.c.valid_from), else_=_takes_over_from(calibration, upto))
    return (
        select(
            calibration.c.id,
            calibration.c.device_name,
            calibration.c.calibration_type,
            calibration.c.valid_from,
            valid_until.label("valid_until"),
            journal.c.created,
            journal.c.author,
            calibration.c.comment,
            withdrawn.label("withdrawn"),
            withdrawing.c.created.label("withdrawn_at"),
            withdrawal.c.reason.label("withdrawn_reason"),
            calibration.c.size,
            calibration.c.sha256,
        )
        .join(journal, journal.c.serial == calibration.c.id)
        .outerjoin(withdrawal, and_(withdrawal.c.calibration_id == calibration.c.id, known(withdrawal.c.serial, upto)))
        .outerjoin(withdrawing, withdrawing.c.serial == withdrawal.c.serial)
        .where(known(calibration.c.id, upto))
    )


def equal_calibration(device_name: Value, calibration_type: Value, valid_from: Value, sha256: Value) -> Select[Any]:
    """Rule 9: a calibration, not withdrawn, of exactly this key and valid_from with these bytes; the last of them."""
    return (
        select(calibration.c.id)
        .where(
            calibration.c.device_name == device_name,
            calibration.c.calibration_type == calibration_type,
            calibration.c.valid_from == valid_from,
            calibration.c.sha256 == sha256,
            _stands(calibration, None),
        )
        .order_by(calibration.c.id.desc())
        .limit(1)
    )


def keys(upto: Upto) -> Select[Any]:
    """Device and type of everything ever stored, in alphabetical order."""
    key = _keys("key_known")
    return (
        select(key.c.device_name, key.c.calibration_type)
        .where(known(key.c.id, upto))
        .order_by(key.c.device_name, key.c.calibration_type)
    )


def next_valid_from(device_name: Value, calibration_type: Value, valid_from: Value) -> Select[Any]:
    """Rule 3: the valid_from of the calibration that takes over from any with this one; no row when none does."""
    return (
        select(following.c.valid_from)
        .where(
            following.c.device_name == device_name,
            following.c.calibration_type == calibration_type,
            following.c.valid_from > valid_from,
            _stands(following, None),
        )
        .order_by(following.c.valid_from, following.c.id)
        .limit(1)
    )


def _place(valid_from: Value, id: Value) -> Tuple:
    """What tells the calibrations of a key apart, in the order of rule 3."""
    # A tuple does not hand the kinds of its columns on to plain values.
    return tuple_(type_coerce(valid_from, Instant), type_coerce(id, Number))


def _standing(device_name: Value, calibration_type: Value, upto: Upto) -> Select[Any]:
    """The ids of a key that are known and not withdrawn."""
    return select(candidate.c.id).where(
        candidate.c.device_name == device_name,
        candidate.c.calibration_type == calibration_type,
        _stands(candidate, upto),
    )


def _stands(row: FromClause, upto: Upto) -> ColumnElement[bool]:
    """Whether a calibration is known and not withdrawn."""
    # A look-up for each row, which NOT EXISTS is only until a planner makes a join with the whole table of it.
    withdrawn = (
        select(withdrawal.c.serial)
        .where(withdrawal.c.calibration_id == row.c.id, known(withdrawal.c.serial, upto))
        .scalar_subquery()
    )
    return and_(known(row.c.id, upto), withdrawn.is_(None))


def _takes_over_from(row: FromClause, upto: Upto) -> ScalarSelect[datetime | None]:
    """The valid_from of the calibration that takes over from a row that is not withdrawn: the row's own when it was
    superseded at once, null when nothing takes over."""
    of_key = select(following.c.valid_from).where(
        following.c.device_name == row.c.device_name,
        following.c.calibration_type == row.c.calibration_type,
        _stands(following, upto),
    )
    # Two searches, not `(valid_from, id) > (…)`: with columns on the right, SQLite searches by the first of them alone,
    # and passes over all that have this valid_from, for each of them.
    at_once = of_key.where(following.c.valid_from == row.c.valid_from, following.c.id > row.c.id)
    later = of_key.where(following.c.valid_from > row.c.valid_from)
    return (
        select(
            func.coalesce(
                *(
                    found.order_by(following.c.valid_from, following.c.id).limit(1).correlate(row).scalar_subquery()
                    for found in (at_once, later)
                )
            )
        )
        .correlate(row)
        .scalar_subquery()
    )


def _keys(name: str) -> CTE:
    """The first calibration of every device and type: a walk along the index from key to key, not along the table."""
    walk = (
        select(first.c.id)
        .order_by(first.c.device_name, first.c.calibration_type, first.c.id)
        .limit(1)
        .subquery()
        .select()
        .cte(f"{name}_walk", recursive=True)
    )
    next_type = (
        select(there.c.id)
        .where(there.c.device_name == here.c.device_name, there.c.calibration_type > here.c.calibration_type)
        .order_by(there.c.calibration_type, there.c.id)
    )
    next_device = (
        select(there.c.id)
        .where(there.c.device_name > here.c.device_name)
        .order_by(there.c.device_name, there.c.calibration_type, there.c.id)
    )
    step = func.coalesce(*(found.limit(1).correlate(here).scalar_subquery() for found in (next_type, next_device)))
    walk = walk.union_all(select(step).select_from(walk.join(here, here.c.id == walk.c.id)))
    return (
        select(calibration.c.id, calibration.c.device_name, calibration.c.calibration_type)
        .join(walk, walk.c.id == calibration.c.id)
        .cte(name)
    )
