"""Builds the SQL of rules 3 to 7: which calibration is in force when, until when, for which run, as of which serial.

Rule 3: "For (device, type, instant t): of the calibrations not withdrawn with valid_from <= t, the one with the
greatest valid_from; of equals, the greatest id." It is written once, in `in_force`; when another takes over
follows from the same order, in `_takes_over_from`.

The second time axis is a serial: because `created` strictly increases with the serial (rule 10), the database as of an
instant is the journal up to one serial, here `upto`. None is the database as it stands. Every query is bounded by an
index; with `upto` or withdrawals it passes over as many entries of the key as are hidden, no more.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    CompoundSelect,
    FromClause,
    ScalarSelect,
    Select,
    Tuple,
    and_,
    case,
    cast,
    exists,
    func,
    select,
    true,
    tuple_,
    type_coerce,
    union_all,
)

from cdb_server.schema import Instant, Number, calibration, journal, run, withdrawal

# A value to compare with, a parameter, or a column of an enclosing query.
Value = str | int | datetime | ColumnElement[Any]

# A serial; None for the database as it stands.
AsOfSerial = int | ColumnElement[Any] | None


def _visible_as_of(serial: ColumnElement[int], upto: AsOfSerial) -> ColumnElement[bool]:
    """Whether an entry is there as of a serial."""
    return true() if upto is None else serial <= upto


def _instants_at_steps(start: Value, stop: Value, step: Value) -> CTE:
    """The instants from `start` on, a step apart, the last one not before `stop`."""
    begin = type_coerce(cast(type_coerce(start, Instant), BigInteger), Instant)
    at = select(begin.label("instant")).cte("step", recursive=True)
    further = type_coerce(type_coerce(at.c.instant, BigInteger) + cast(step, BigInteger), Instant)
    return at.union_all(select(further).where(at.c.instant < stop))


# The tables in their parts within a query.
candidate = calibration.alias("candidate")

following = calibration.alias("following")

began = calibration.alias("began")

first, here, there = (calibration.alias(part) for part in ("first", "here", "there"))

withdrawing = journal.alias("withdrawing")


def serial_as_of(as_of: Value) -> Select[Any]:
    """The serial of the last entry created at `as_of` or before; no row when there is none."""
    return select(journal.c.serial).where(journal.c.created <= as_of).order_by(journal.c.created.desc()).limit(1)


def in_force(device_name: Value, calibration_type: Value, instant: Value, upto: AsOfSerial) -> ScalarSelect[int | None]:
    """Rule 3: the id of the calibration in force at an instant; null when none is."""
    return (
        _effective_ids(device_name, calibration_type, upto)
        .where(candidate.c.valid_from <= instant)
        .order_by(candidate.c.valid_from.desc(), candidate.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )


def predecessor(
    device_name: Value, calibration_type: Value, valid_from: Value, id: Value, upto: AsOfSerial
) -> ScalarSelect[int | None]:
    """Rule 3: the id of the calibration that one takes over from, or would if it stood; null where there is none."""
    return (
        _effective_ids(device_name, calibration_type, upto)
        .where(tuple_(candidate.c.valid_from, candidate.c.id) < _order_key(valid_from, id))
        .order_by(candidate.c.valid_from.desc(), candidate.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )


def successor(
    device_name: Value, calibration_type: Value, valid_from: Value, id: Value, upto: AsOfSerial
) -> ScalarSelect[int | None]:
    """Rule 3: the id of the calibration that takes over from one, or would if it stood; null where none does."""
    return (
        _effective_ids(device_name, calibration_type, upto)
        .where(tuple_(candidate.c.valid_from, candidate.c.id) > _order_key(valid_from, id))
        .order_by(candidate.c.valid_from, candidate.c.id)
        .limit(1)
        .scalar_subquery()
    )


def in_force_everywhere(instant: Value, upto: AsOfSerial) -> Select[Any]:
    """Rule 3 for every device and type there is: the ids in force at an instant, null for keys that have none."""
    key = _keys("key_at")
    return select(in_force(key.c.device_name, key.c.calibration_type, instant, upto).label("id")).select_from(key)


def in_force_during(start: Value, stop: Value, upto: AsOfSerial) -> CompoundSelect[Any]:
    """Rule 6: "exactly the ids that rule 3 gives for at least one instant t with start <= t <= stop"."""
    began_later = select(began.c.id).where(
        began.c.valid_from > start,
        began.c.valid_from <= stop,
        _is_effective(began, upto),
        _successor_valid_from(began, upto).is_distinct_from(began.c.valid_from),
    )
    return union_all(in_force_everywhere(start, upto), began_later)


def in_force_at_steps(
    device_name: Value, calibration_type: Value, start: Value, stop: Value, step: Value
) -> Select[Any]:
    """Rule 3 at `start`, and every `step` microseconds until `stop`: each id that it gives there, with its valid_from.

    However many calibrations there are, this asks no more often than there are steps.
    """
    at = _instants_at_steps(start, stop, step)
    given = select(in_force(device_name, calibration_type, at.c.instant, None)).select_from(at)
    return select(calibration.c.id, calibration.c.valid_from).where(calibration.c.id.in_(given))


def starting_between(device_name: Value, calibration_type: Value, start: Value, stop: Value) -> Select[Any]:
    """Every calibration whose valid_from lies after `start` and not after `stop`, in the order of rule 3: its id, its
    valid_from, and whether it is withdrawn."""
    return (
        select(began.c.id, began.c.valid_from, ~_is_effective(began, None))
        .where(
            began.c.device_name == device_name,
            began.c.calibration_type == calibration_type,
            began.c.valid_from > start,
            began.c.valid_from <= stop,
        )
        .order_by(began.c.valid_from, began.c.id)
    )


def candidates(device_name: Value, calibration_type: Value, instant: Value, upto: AsOfSerial) -> Select[Any]:
    """Everything that begins by an instant, in the order in which rule 3 prefers it: id, valid_from, and whether it
    stands. The first that does is in force; those before it are withdrawn."""
    return (
        select(candidate.c.id, candidate.c.valid_from, _is_effective(candidate, upto))
        .where(
            candidate.c.device_name == device_name,
            candidate.c.calibration_type == calibration_type,
            candidate.c.valid_from <= instant,
            _visible_as_of(candidate.c.id, upto),
        )
        .order_by(candidate.c.valid_from.desc(), candidate.c.id.desc())
    )


def time_range() -> Select[Any]:
    """The first and the last valid_from of all calibrations, and the first and the last start of a run."""
    ends = (
        select(calibration.c.valid_from).order_by(calibration.c.valid_from),
        select(calibration.c.valid_from).order_by(calibration.c.valid_from.desc()),
        select(run.c.start_time).order_by(run.c.start_time),
        select(run.c.start_time).order_by(run.c.start_time.desc()),
    )
    return select(*(end.limit(1).scalar_subquery() for end in ends))


def time_range_of_key(device_name: Value, calibration_type: Value) -> Select[Any]:
    """The first and the last valid_from of a device and type."""
    of_key = select(calibration.c.valid_from).where(
        calibration.c.device_name == device_name, calibration.c.calibration_type == calibration_type
    )
    ends = (of_key.order_by(calibration.c.valid_from), of_key.order_by(calibration.c.valid_from.desc()))
    return select(*(end.limit(1).scalar_subquery() for end in ends))


def records(upto: AsOfSerial) -> Select[Any]:
    """The columns of CalibrationRecord but `data`, in its order, to be narrowed by a condition on the id."""
    withdrawn = withdrawal.c.serial.is_not(None)
    valid_until = case((withdrawn, calibration.c.valid_from), else_=_successor_valid_from(calibration, upto))
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
        .outerjoin(
            withdrawal, and_(withdrawal.c.calibration_id == calibration.c.id, _visible_as_of(withdrawal.c.serial, upto))
        )
        .outerjoin(withdrawing, withdrawing.c.serial == withdrawal.c.serial)
        .where(_visible_as_of(calibration.c.id, upto))
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
            _is_effective(calibration, None),
        )
        .order_by(calibration.c.id.desc())
        .limit(1)
    )


def keys(upto: AsOfSerial) -> Select[Any]:
    """Device and type of everything ever stored, in alphabetical order."""
    key = _keys("key_known")
    return (
        select(key.c.device_name, key.c.calibration_type)
        .where(_visible_as_of(key.c.id, upto))
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
            _is_effective(following, None),
        )
        .order_by(following.c.valid_from, following.c.id)
        .limit(1)
    )


def _order_key(valid_from: Value, id: Value) -> Tuple:
    """What tells the calibrations of a key apart, in the order of rule 3."""
    # A tuple does not hand the kinds of its columns on to plain values.
    return tuple_(type_coerce(valid_from, Instant), type_coerce(id, Number))


def _effective_ids(device_name: Value, calibration_type: Value, upto: AsOfSerial) -> Select[Any]:
    """The ids of a key that are known and not withdrawn."""
    return select(candidate.c.id).where(
        candidate.c.device_name == device_name,
        candidate.c.calibration_type == calibration_type,
        _is_effective(candidate, upto),
    )


def _is_effective(row: FromClause, upto: AsOfSerial) -> ColumnElement[bool]:
    """Whether a calibration is known and not withdrawn."""
    # A look-up for each row, which NOT EXISTS is only until a planner makes a join with the whole table of it.
    withdrawn = (
        select(withdrawal.c.serial)
        .where(withdrawal.c.calibration_id == row.c.id, _visible_as_of(withdrawal.c.serial, upto))
        .scalar_subquery()
    )
    return and_(_visible_as_of(row.c.id, upto), withdrawn.is_(None))


def _successor_valid_from(row: FromClause, upto: AsOfSerial) -> ScalarSelect[datetime | None]:
    """The valid_from of the calibration that takes over from a row that is not withdrawn: the row's own when it was
    superseded at once, null when nothing takes over."""
    of_key = select(following.c.valid_from).where(
        following.c.device_name == row.c.device_name,
        following.c.calibration_type == row.c.calibration_type,
        _is_effective(following, upto),
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


later = run.alias("later")


def run_entry(run_number: Value, upto: AsOfSerial) -> Select[Any]:
    """A run as of a serial: the latest entry up to it or, for a run first registered later, the first (rule 7)."""
    return _runs().where(run.c.serial == _serial(run_number, upto))


def run_start(run_number: Value, upto: AsOfSerial) -> ScalarSelect[datetime | None]:
    """Rule 5: the start of a run as of a serial, at which is resolved what applies to it; null where there is none."""
    return select(run.c.start_time).where(run.c.serial == _serial(run_number, upto)).scalar_subquery()


def runs_starting(start: Value, stop: Value, upto: AsOfSerial) -> Select[Any]:
    """The runs that start in a period, by number. With `upto`, those first registered later are left out: a list that
    grew would be an answer that changed."""
    return (
        _runs()
        .where(run.c.start_time.between(start, stop), _visible_as_of(run.c.serial, upto), ~_is_corrected(upto))
        .order_by(run.c.run_number)
    )


def runs_by_start(start: Value, stop: Value) -> Select[Any]:
    """Number and start of the runs that start in a period, in that order."""
    return (
        select(run.c.run_number, run.c.start_time)
        .where(run.c.start_time.between(start, stop), ~_is_corrected(None))
        .order_by(run.c.start_time, run.c.run_number)
    )


def runs_at_steps(start: Value, stop: Value, step: Value) -> Select[Any]:
    """Number and start of the run that starts next after `start`, and after every `step` microseconds until `stop`."""
    at = _instants_at_steps(start, stop, step)
    starting = run.alias("starting")
    corrected = exists().where(later.c.run_number == starting.c.run_number, later.c.serial > starting.c.serial)
    next_run = (
        select(starting.c.serial)
        .where(starting.c.start_time >= at.c.instant, starting.c.start_time <= stop, ~corrected)
        .order_by(starting.c.start_time, starting.c.serial)
        .limit(1)
        .correlate(at)
        .scalar_subquery()
    )
    given = select(next_run).select_from(at)
    return (
        select(run.c.run_number, run.c.start_time)
        .where(run.c.serial.in_(given))
        .order_by(run.c.start_time, run.c.run_number)
    )


def run_count(start: datetime, until: datetime | None) -> Select[Any]:
    """Rule 5: how many runs start in `[start, until)`, None being the end of time."""
    return select(func.count()).select_from(run).where(*_starting(start, until))


def run_ranges(start: datetime, until: datetime | None) -> Select[Any]:
    """The runs that start in `[start, until)`, by number: first and last of each sequence without a gap."""
    # Where numbers go on without a gap, they run ahead of their positions by the same.
    ahead = (run.c.run_number - func.row_number().over(order_by=run.c.run_number)).label("ahead")
    starting = select(run.c.run_number, ahead).where(*_starting(start, until)).subquery()
    first_run = func.min(starting.c.run_number)
    return select(first_run, func.max(starting.c.run_number)).group_by(starting.c.ahead).order_by(first_run)


def first_run_start() -> Select[Any]:
    """The earliest start of a run; no row when none is registered."""
    return select(run.c.start_time).where(~_is_corrected(None)).order_by(run.c.start_time, run.c.serial).limit(1)


def _starting(start: datetime, until: datetime | None) -> tuple[ColumnElement[bool], ...]:
    return run.c.start_time >= start, true() if until is None else run.c.start_time < until, ~_is_corrected(None)


def _is_corrected(upto: AsOfSerial) -> ColumnElement[bool]:
    """Whether a run was registered again."""
    return exists().where(
        later.c.run_number == run.c.run_number, later.c.serial > run.c.serial, _visible_as_of(later.c.serial, upto)
    )


def _serial(run_number: Value, upto: AsOfSerial) -> ColumnElement[Any]:
    numbered = select(func.max(run.c.serial)).where(run.c.run_number == run_number)
    if upto is None:
        return numbered.scalar_subquery()
    first = select(func.min(run.c.serial)).where(run.c.run_number == run_number)
    return func.coalesce(numbered.where(run.c.serial <= upto).scalar_subquery(), first.scalar_subquery())


def _runs() -> Select[Any]:
    return select(run.c.run_number, run.c.start_time, run.c.stop_time, journal.c.created, journal.c.author).join(
        journal, journal.c.serial == run.c.serial
    )
