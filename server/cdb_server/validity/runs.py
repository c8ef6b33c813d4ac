"""Rule 5 as SQL: runs by number, in a period, and in sequences without a gap."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, exists, func, select, true

from cdb_server.schema import journal, run
from cdb_server.validity.terms import Upto, Value, known, steps

later = run.alias("later")


def run_entry(run_number: Value, upto: Upto) -> Select[Any]:
    """A run as of a serial: the latest entry up to it or, for a run first registered later, the first (rule 7)."""
    return _runs().where(run.c.serial == _serial(run_number, upto))


def run_start(run_number: Value, upto: Upto) -> ScalarSelect[datetime | None]:
    """Rule 5: the start of a run as of a serial, at which is resolved what applies to it; null where there is none."""
    return select(run.c.start_time).where(run.c.serial == _serial(run_number, upto)).scalar_subquery()


def runs_starting(start: Value, stop: Value, upto: Upto) -> Select[Any]:
    """The runs that start in a period, by number. With `upto`, those first registered later are left out: a list that
    grew would be an answer that changed."""
    return (
        _runs()
        .where(run.c.start_time.between(start, stop), known(run.c.serial, upto), ~_corrected(upto))
        .order_by(run.c.run_number)
    )


def runs_by_start(start: Value, stop: Value) -> Select[Any]:
    """Number and start of the runs that start in a period, in that order."""
    return (
        select(run.c.run_number, run.c.start_time)
        .where(run.c.start_time.between(start, stop), ~_corrected(None))
        .order_by(run.c.start_time, run.c.run_number)
    )


def runs_at_steps(start: Value, stop: Value, step: Value) -> Select[Any]:
    """Number and start of the run that starts next after `start`, and after every `step` microseconds until `stop`."""
    at = steps(start, stop, step)
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
    return select(run.c.start_time).where(~_corrected(None)).order_by(run.c.start_time, run.c.serial).limit(1)


def _starting(start: datetime, until: datetime | None) -> tuple[ColumnElement[bool], ...]:
    return run.c.start_time >= start, true() if until is None else run.c.start_time < until, ~_corrected(None)


def _corrected(upto: Upto) -> ColumnElement[bool]:
    """Whether a run was registered again."""
    return exists().where(
        later.c.run_number == run.c.run_number, later.c.serial > run.c.serial, known(later.c.serial, upto)
    )


def _serial(run_number: Value, upto: Upto) -> ColumnElement[Any]:
    numbered = select(func.max(run.c.serial)).where(run.c.run_number == run_number)
    if upto is None:
        return numbered.scalar_subquery()
    first = select(func.min(run.c.serial)).where(run.c.run_number == run_number)
    return func.coalesce(numbered.where(run.c.serial <= upto).scalar_subquery(), first.scalar_subquery())


def _runs() -> Select[Any]:
    return select(run.c.run_number, run.c.start_time, run.c.stop_time, journal.c.created, journal.c.author).join(
        journal, journal.c.serial == run.c.serial
    )
