"""Compiles SQL statements once, runs them on the bare driver, and cancels them from another thread.

SQLite asks after some steps of a query whether to go on; PostgreSQL is told to end one. What Python does between
queries looks by `check` from time to time.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ClauseElement, Connection, Dialect, bindparam, exc

from cdb_server import instants, schema

# Steps of SQLite's virtual machine between two looks: less than a millisecond.
SQLITE_CHECK_STEPS = 10_000


class Cancelled(BaseException):
    """The work was cancelled. No error: as asyncio's, it passes by all that handles errors."""


class Cancellation:
    """Cancels one piece of work, from any thread."""

    def __init__(self) -> None:
        self.requested = False
        self._lock = threading.Lock()
        # PostgreSQL's connection, while a query runs on it.
        self._connection: Any = None

    @contextmanager
    def covering_thread(self) -> Iterator[None]:
        """Make this thread stop in the block, by raising Cancelled, once the cancellation is requested."""
        _thread_local.cancellation = self
        try:
            check_cancelled()
            yield
        finally:
            _thread_local.cancellation = None

    def request(self) -> None:
        """Have the work stop soon. Blocks for PostgreSQL, and is to be repeated until the work has ended.

        A query that is about to begin is not met by one request: PostgreSQL forgets what comes too early.
        """
        self.requested = True
        # While the lock is held, the connection is on its query: another's query is never cancelled.
        with self._lock:
            if self._connection is not None:
                # One that is lost, or ended meanwhile, has no query any more.
                with suppress(Exception):
                    self._connection.cancel_safe(timeout=1)


class _OfThread(threading.local):
    cancellation: Cancellation | None = None


_thread_local = _OfThread()


def is_cancelled() -> bool:
    """Whether this thread's work is cancelled: what SQLite asks."""
    cancellation = _thread_local.cancellation
    return cancellation is not None and cancellation.requested


def check_cancelled() -> None:
    """Raise Cancelled if this thread's work is cancelled."""
    if is_cancelled():
        raise Cancelled


@contextmanager
def query_running(driver: Any) -> Iterator[None]:
    """Let a query in the block, on a driver's connection to PostgreSQL, be ended by this thread's cancellation."""
    cancellation = _thread_local.cancellation
    if cancellation is None:
        yield
        return
    check_cancelled()
    with cancellation._lock:
        cancellation._connection = driver
    try:
        yield
    finally:
        with cancellation._lock:
            cancellation._connection = None


@dataclass(frozen=True, slots=True)
class RawConnection:
    """A driver's own connection, or what stands for one: as good as SQLAlchemy's for what is prepared."""

    driver: Any
    dialect: Dialect
    # Texts of statements that were given up, and how often.
    interrupted_counts: dict[str, int] = field(default_factory=dict)

    def text(self, statement: str) -> str:
        """How a statement is to be said."""
        times = self.interrupted_counts.get(statement)
        return statement if times is None else f"{statement}\n-- {times}"

    def note_failure(self, statement: str, error: Exception) -> None:
        """To be told where a statement failed, by its text."""
        # Before 3.12, one that failed between its rows counts as under way from then on, and is compiled anew each
        # time: longer work than most queries. Under another text it is another.
        if sys.version_info < (3, 12) and str(error) == "interrupted":
            self.interrupted_counts[statement] = self.interrupted_counts.get(statement, 0) + 1


AnyConnection = Connection | RawConnection


@dataclass(frozen=True, slots=True)
class _Compiled:
    text: str
    # A value for each place of a parameter: a constant of the statement, or to be given.
    constants: list[Any]
    # Place, name and conversion of each parameter that is to be given.
    given: tuple[tuple[int, str, Callable[[Any], Any] | None], ...]
    # Where parameters are named, the name at each place.
    names: tuple[str, ...] | None
    # Of each column that has one, its position and conversion.
    columns: tuple[tuple[int, Callable[[Any], Any]], ...]


class CompiledStatement:
    """A statement with named parameters (SQLAlchemy's `bindparam`), compiled once for each kind of database.

    Instants in its rows are datetimes; where they are `spelled`, their texts.
    """

    def __init__(self, statement: ClauseElement, *, times_as_text: bool = False) -> None:
        self._statement = statement
        self._times_as_text = times_as_text
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, connection: AnyConnection, **values: Any) -> list[tuple[Any, ...]]:
        """The rows. Raises sqlalchemy.exc.DBAPIError."""
        compiled, rows = self._run(connection, values, _fetch_all)
        if len(rows) == 1:
            return [_convert_row(rows[0], compiled)]
        if rows and compiled.columns:
            # Column by column: a function for each row would cost more than the conversions.
            columns = list(zip(*rows, strict=True))
            for position, converted in compiled.columns:
                check_cancelled()
                columns[position] = tuple([None if value is None else converted(value) for value in columns[position]])
            rows = list(zip(*columns, strict=True))
        return rows

    def row(self, connection: AnyConnection, **values: Any) -> tuple[Any, ...] | None:
        """The first row; None where there is none."""
        compiled, rows = self._run(connection, values, _fetch_all)
        return _convert_row(rows[0], compiled) if rows else None

    def value(self, connection: AnyConnection, **values: Any) -> Any:
        """What stands first in the first row; None where there is none."""
        row = self.row(connection, **values)
        return row[0] if row else None

    def execute(self, connection: AnyConnection, **values: Any) -> None:
        """Run a statement that gives no rows."""
        self._run(connection, values, _fetch_none)

    def _run(
        self, connection: AnyConnection, values: dict[str, Any], fetched: Callable[[Any], list[tuple[Any, ...]]]
    ) -> tuple[_Compiled, list[tuple[Any, ...]]]:
        dialect = connection.dialect
        compiled = self._compiled.get(dialect.name) or self._compile(dialect)
        text = compiled.text
        if isinstance(connection, RawConnection):
            driver = connection.driver
            text = connection.text(text)
        else:
            driver = connection.connection.driver_connection
        given = compiled.constants.copy()
        for place, name, converted in compiled.given:
            value = values.get(name)
            given[place] = value if converted is None else converted(value)
        try:
            # SQLite looks for the rows after the first only when they are fetched, and may fail at each.
            if compiled.names is not None:
                # As text, a payload would come in hexadecimal.
                named = dict(zip(compiled.names, given, strict=True))
                if isinstance(connection, RawConnection):
                    return compiled, fetched(driver.execute(text, named, binary=True))
                with query_running(driver):
                    return compiled, fetched(driver.execute(text, named, binary=True))
            return compiled, fetched(driver.execute(text, given))
        except dialect.loaded_dbapi.Error as error:
            if isinstance(connection, RawConnection):
                connection.note_failure(compiled.text, error)
            elif is_cancelled():
                # Before Python 3.12, a statement of SQLite that failed between its rows counts as under way for ever.
                connection.invalidate()
            check_cancelled()
            raise exc.DBAPIError(None, None, error) from error

    def _compile(self, dialect: Dialect) -> _Compiled:
        compiled: Any = self._statement.compile(dialect=dialect)
        named = compiled.positiontup is None
        places = tuple(compiled.params if named else compiled.positiontup)
        parameters = {name: parameter for parameter, name in compiled.bind_names.items()}
        binds = {name: known.type.dialect_impl(dialect).bind_processor(dialect) for name, known in parameters.items()}
        constants = [compiled.params[name] for name in places]
        given = []
        for place, name in enumerate(places):
            converted = binds[name]
            if not parameters[name].unique:
                given.append((place, name, converted))
            elif converted is not None:
                constants[place] = converted(constants[place])
        columns = getattr(self._statement, "selected_columns", ())
        conversions = ((position, self._conversion(column.type, dialect)) for position, column in enumerate(columns))
        made = self._compiled[dialect.name] = _Compiled(
            compiled.string,
            constants,
            tuple(given),
            places if named else None,
            tuple((position, converted) for position, converted in conversions if converted is not None),
        )
        return made

    def _conversion(self, kind: Any, dialect: Dialect) -> Callable[[Any], Any] | None:
        if isinstance(kind, schema.Instant):
            # SQLAlchemy's way to it takes longer than the conversion.
            return instants.format_microseconds if self._times_as_text else instants.from_microseconds
        converted: Callable[[Any], Any] | None = kind.dialect_impl(dialect).result_processor(dialect, None)
        return converted


def _fetch_all(cursor: Any) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _fetch_none(_: object) -> list[tuple[Any, ...]]:
    return []


def _convert_row(row: tuple[Any, ...], compiled: _Compiled) -> tuple[Any, ...]:
    values = list(row)
    for position, converted in compiled.columns:
        if values[position] is not None:
            values[position] = converted(values[position])
    return tuple(values)


def current_and_as_of(
    build: Callable[[Any], ClauseElement], *, times_as_text: bool = False
) -> Callable[[int | None], CompiledStatement]:
    """A statement for the database as it stands, and one as of a serial, which is the parameter `upto`."""
    as_it_stands = CompiledStatement(build(None), times_as_text=times_as_text)
    as_of = CompiledStatement(build(bindparam("upto", type_=schema.Number)), times_as_text=times_as_text)
    return lambda upto: as_it_stands if upto is None else as_of
