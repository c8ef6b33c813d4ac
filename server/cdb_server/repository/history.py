"""The journal as people read it: the latest first, by kind, device, type or author.

However few entries match, a question looks at no more than a window of them, and says how far it looked.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, String, and_, bindparam, cast, func, or_, select

from cdb_server import model
from cdb_server.model import Entry, NewCalibration, RunTimes, Withdrawal
from cdb_server.repository.database import Database
from cdb_server.repository.entries import ENTRIES, entry_of
from cdb_server.repository.prepared import Connected, Prepared
from cdb_server.schema import Number, calibration, journal, run, withdrawal

# Entries that one question looks at.
WINDOW = 40_000
KINDS: tuple[str, ...] = (NewCalibration.kind, Withdrawal.kind, RunTimes.kind)

# What an entry is about: the calibration itself, or the one withdrawn.
_about = calibration.alias("about")


def _given(name: str, column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a column has the value of a parameter, or the parameter none."""
    value = cast(bindparam(name), String)
    return or_(value.is_(None), column == value)


_BEFORE = bindparam("before", type_=Number)
_ABOUT = _about.c.id == func.coalesce(withdrawal.c.calibration_id, journal.c.serial)
# With no more than what the filter needs, for it is held against every entry of the window.
_SERIALS = (
    select(journal.c.serial)
    .outerjoin(withdrawal, withdrawal.c.serial == journal.c.serial)
    .outerjoin(_about, _ABOUT)
    .where(
        journal.c.serial < _BEFORE,
        journal.c.serial >= bindparam("floor", type_=Number),
        _given("kind", journal.c.kind),
        _given("author", func.lower(journal.c.author)),
        _given("device_name", _about.c.device_name),
        _given("calibration_type", _about.c.calibration_type),
    )
    .order_by(journal.c.serial.desc())
    .limit(bindparam("limit"))
)
_MATCHING = Prepared(
    ENTRIES.add_columns(_about.c.device_name, _about.c.calibration_type)
    .outerjoin(_about, _ABOUT)
    .where(journal.c.serial.in_(_SERIALS))
    .order_by(None)
    .order_by(journal.c.serial.desc())
)
_LAST = Prepared(select(func.max(journal.c.serial)).where(journal.c.serial < _BEFORE))
_LAST_WITHDRAWAL = Prepared(select(func.max(withdrawal.c.serial)).where(withdrawal.c.serial < _BEFORE))
_LAST_RUN = Prepared(select(func.max(run.c.serial)).where(run.c.serial < _BEFORE))
_LAST_OF_KEY = Prepared(
    select(func.max(calibration.c.id)).where(
        and_(
            calibration.c.device_name == bindparam("device_name"),
            calibration.c.calibration_type == bindparam("calibration_type"),
            calibration.c.id < _BEFORE,
        )
    )
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries: all, or those of a kind, author, device or type; case does not matter."""

    kind: str | None = None
    author: str | None = None
    device_name: str | None = None
    calibration_type: str | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """An entry, its digest, and the device and type that it is about, if it is about one."""

    entry: Entry
    digest: str
    device_name: str | None
    calibration_type: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """Entries that match, the latest first; all that there are from the serial `floor` on. Earlier ones may match."""

    lines: tuple[Line, ...]
    floor: int


class History:
    """Answers about the journal. Every method raises Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, wanted: Filter, before: int = model.GREATEST_NUMBER, limit: int = 50) -> Found:
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
            floor = max(1, last - WINDOW + 1)
            rows = _MATCHING.rows(connection, before=last + 1, floor=floor, limit=limit + 1, **asked)
        lines = [Line(*entry_of(row[:-2]), row[-2], row[-1]) for row in rows[:limit]]
        return Found(tuple(lines), lines[-1].entry.serial if len(rows) > limit else floor)


def _last(connection: Connected, asked: dict[str, str | None], before: int) -> int:
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
