"""Reads journal entries after a serial, and searches the journal by kind, device, type or author.

However few entries match, a question looks at no more than a window of them, and says how far it looked.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, String, and_, bindparam, cast, func, or_, select

from cdb_server import arguments
from cdb_server.database.statements import AnyConnection, CompiledStatement
from cdb_server.database.transactions import Database
from cdb_server.model import Entry, FormattedEntry, NewCalibration, RunTimes, Withdrawal
from cdb_server.schema import Number, calibration, journal, run, withdrawal

ENTRY_COLUMNS = (
    select(
        journal,
        calibration.c.device_name,
        calibration.c.calibration_type,
        calibration.c.valid_from,
        calibration.c.comment,
        calibration.c.size,
        calibration.c.sha256,
        withdrawal.c.calibration_id,
        withdrawal.c.reason,
        run.c.run_number,
        run.c.start_time,
        run.c.stop_time,
    )
    .outerjoin(calibration, calibration.c.id == journal.c.serial)
    .outerjoin(withdrawal, withdrawal.c.serial == journal.c.serial)
    .outerjoin(run, run.c.serial == journal.c.serial)
    .order_by(journal.c.serial)
)

_AFTER_SERIAL = ENTRY_COLUMNS.where(journal.c.serial > bindparam("after_serial")).limit(bindparam("limit"))

_AFTER, _FORMATTED_AFTER = CompiledStatement(_AFTER_SERIAL), CompiledStatement(_AFTER_SERIAL, times_as_text=True)


def read_entries(connection: AnyConnection, after_serial: int, limit: int) -> list[tuple[Entry, str]]:
    """At most `limit` entries after a serial, in order, each with the digest that is kept with it."""
    return [entry_from_row(row) for row in _AFTER.rows(connection, after_serial=after_serial, limit=limit)]


def entry_from_row(row: tuple[Any, ...]) -> tuple[Entry, str]:
    """An entry and its digest, of a row of ENTRIES."""
    serial, kind, created, author, digest, *content = row
    return Entry(serial, created, author, _content(serial, kind, *content)), digest


def read_formatted_entries(connection: AnyConnection, after_serial: int, limit: int) -> list[FormattedEntry]:
    """The same as lines."""
    return list(map(FormattedEntry._make, _FORMATTED_AFTER.rows(connection, after_serial=after_serial, limit=limit)))


def _content(serial: int, kind: str, *content: Any) -> NewCalibration | Withdrawal | RunTimes:
    """The columns of a kind, in the order of ENTRIES; those of the other kinds are null."""
    match kind:
        case NewCalibration.kind:
            return NewCalibration(*content[:6])
        case Withdrawal.kind:
            return Withdrawal(*content[6:8])
        case RunTimes.kind:
            return RunTimes(*content[8:])
    raise ValueError(f"entry {serial} is of no known kind: {kind!r}")


# Entries that one question looks at.
MAX_SEARCHED_ENTRIES = 40_000

KINDS: tuple[str, ...] = (NewCalibration.kind, Withdrawal.kind, RunTimes.kind)

# What an entry is about: the calibration itself, or the one withdrawn.
_subject = calibration.alias("about")


def _matches_parameter(name: str, column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a column has the value of a parameter, or the parameter none."""
    value = cast(bindparam(name), String)
    return or_(value.is_(None), column == value)


_BEFORE = bindparam("before", type_=Number)

_SUBJECT_JOIN = _subject.c.id == func.coalesce(withdrawal.c.calibration_id, journal.c.serial)

# With no more than what the filter needs, for it is held against every entry of the window.
_SERIALS = (
    select(journal.c.serial)
    .outerjoin(withdrawal, withdrawal.c.serial == journal.c.serial)
    .outerjoin(_subject, _SUBJECT_JOIN)
    .where(
        journal.c.serial < _BEFORE,
        journal.c.serial >= bindparam("floor", type_=Number),
        _matches_parameter("kind", journal.c.kind),
        _matches_parameter("author", func.lower(journal.c.author)),
        _matches_parameter("device_name", _subject.c.device_name),
        _matches_parameter("calibration_type", _subject.c.calibration_type),
    )
    .order_by(journal.c.serial.desc())
    .limit(bindparam("limit"))
)

_MATCHING = CompiledStatement(
    ENTRY_COLUMNS.add_columns(_subject.c.device_name, _subject.c.calibration_type)
    .outerjoin(_subject, _SUBJECT_JOIN)
    .where(journal.c.serial.in_(_SERIALS))
    .order_by(None)
    .order_by(journal.c.serial.desc())
)

_LAST = CompiledStatement(select(func.max(journal.c.serial)).where(journal.c.serial < _BEFORE))

_LAST_WITHDRAWAL = CompiledStatement(select(func.max(withdrawal.c.serial)).where(withdrawal.c.serial < _BEFORE))

_LAST_RUN = CompiledStatement(select(func.max(run.c.serial)).where(run.c.serial < _BEFORE))

_LAST_OF_KEY = CompiledStatement(
    select(func.max(calibration.c.id)).where(
        and_(
            calibration.c.device_name == bindparam("device_name"),
            calibration.c.calibration_type == bindparam("calibration_type"),
            calibration.c.id < _BEFORE,
        )
    )
)


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries: all, or those of a kind, author, device or type; case does not matter."""

    kind: str | None = None
    author: str | None = None
    device_name: str | None = None
    calibration_type: str | None = None


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """An entry, its digest, and the device and type that it is about, if it is about one."""

    entry: Entry
    digest: str
    device_name: str | None
    calibration_type: str | None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Entries that match, the latest first; all that there are from the serial `floor` on. Earlier ones may match."""

    entries: tuple[FoundEntry, ...]
    searched_from: int


class JournalSearch:
    """Answers about the journal. Every method raises Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def search(self, wanted: EntryFilter, before: int = arguments.MAX_NUMBER, limit: int = 50) -> SearchResult:
        """The last `limit` entries that match, of those with a serial below `before`; `floor` is 1 where no earlier
        ones are left to look at."""
        asked = {
            "kind": wanted.kind,
            "author": wanted.author and wanted.author.lower(),
            "device_name": wanted.device_name and wanted.device_name.upper(),
            "calibration_type": wanted.calibration_type and wanted.calibration_type.lower(),
        }
        with self._database.read() as connection:
            last = _last(connection, asked, before)
            floor = max(1, last - MAX_SEARCHED_ENTRIES + 1)
            rows = _MATCHING.rows(connection, before=last + 1, floor=floor, limit=limit + 1, **asked)
        lines = [FoundEntry(*entry_from_row(row[:-2]), row[-2], row[-1]) for row in rows[:limit]]
        return SearchResult(tuple(lines), lines[-1].entry.serial if len(rows) > limit else floor)


def _last(connection: AnyConnection, asked: dict[str, str | None], before: int) -> int:
    """A serial below `before` after which nothing matches, 0 where nothing does: found without a look at each."""
    key = asked["device_name"] and asked["calibration_type"]
    match asked["kind"]:
        case Withdrawal.kind:
            looked = [_LAST_WITHDRAWAL]
        case RunTimes.kind:
            looked = [_LAST_RUN]
        case NewCalibration.kind if key:
            looked = [_LAST_OF_KEY]
        case None if key:
            looked = [_LAST_OF_KEY, _LAST_WITHDRAWAL]
        case _:
            looked = [_LAST]
    names = {name: asked[name] for name in ("device_name", "calibration_type")}
    return max(each.value(connection, before=before, **names) or 0 for each in looked)
