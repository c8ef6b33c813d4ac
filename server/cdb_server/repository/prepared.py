"""Statements built once and run by the driver: building one with SQLAlchemy costs ten times the look-up itself."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ClauseElement, Connection, Dialect, bindparam, exc

from cdb_server import instants, schema
from cdb_server.repository import cancellation


@dataclass(frozen=True, slots=True)
class Held:
    """A driver's own connection, or what stands for one: as good as SQLAlchemy's for what is prepared."""

    driver: Any
    dialect: Dialect
    # Texts of statements that were given up, and how often.
    given_up: dict[str, int] = field(default_factory=dict)

    def text(self, statement: str) -> str:
        """How a statement is to be said."""
        times = self.given_up.get(statement)
        return statement if times is None else f"{statement}\n-- {times}"

    def failed(self, statement: str, error: Exception) -> None:
        """To be told where a statement failed, by its text."""
        # Before 3.12, one that failed between its rows counts as under way from then on, and is compiled anew each
        # time: longer work than most queries. Under another text it is another.
        if sys.version_info < (3, 12) and str(error) == "interrupted":
            self.given_up[statement] = self.given_up.get(statement, 0) + 1


Connected = Connection | Held


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


class Prepared:
    """A statement with named parameters (SQLAlchemy's `bindparam`), compiled once for each kind of database.

    Instants in its rows are datetimes; where they are `spelled`, their texts.
    """

    def __init__(self, statement: ClauseElement, *, spelled: bool = False) -> None:
        self._statement = statement
        self._spelled = spelled
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, connection: Connected, **values: Any) -> list[tuple[Any, ...]]:
        """The rows. Raises sqlalchemy.exc.DBAPIError."""
        compiled, rows = self._run(connection, values, _fetched)
        if len(rows) == 1:
            return [_converted(rows[0], compiled)]
        if rows and compiled.columns:
            # Column by column: a function for each row would cost more than the conversions.
            columns = list(zip(*rows, strict=True))
            for position, converted in compiled.columns:
                cancellation.check()
                columns[position] = tuple([None if value is None else converted(value) for value in columns[position]])
            rows = list(zip(*columns, strict=True))
        return rows

    def row(self, connection: Connected, **values: Any) -> tuple[Any, ...] | None:
        """The first row; None where there is none."""
        compiled, rows = self._run(connection, values, _fetched)
        return _converted(rows[0], compiled) if rows else None

    def value(self, connection: Connected, **values: Any) -> Any:
        """What stands first in the first row; None where there is none."""
        row = self.row(connection, **values)
        return row[0] if row else None

    def execute(self, connection: Connected, **values: Any) -> None:
        """Run a statement that gives no rows."""
        self._run(connection, values, _nothing)

    def _run(
        self, connection: Connected, values: dict[str, Any], fetched: Callable[[Any], list[tuple[Any, ...]]]
    ) -> tuple[_Compiled, list[tuple[Any, ...]]]:
        dialect = connection.dialect
        compiled = self._compiled.get(dialect.name) or self._compile(dialect)
        text = compiled.text
        if isinstance(connection, Held):
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
                if isinstance(connection, Held):
                    return compiled, fetched(driver.execute(text, named, binary=True))
                with cancellation.querying(driver):
                    return compiled, fetched(driver.execute(text, named, binary=True))
            return compiled, fetched(driver.execute(text, given))
        except dialect.loaded_dbapi.Error as error:
            if isinstance(connection, Held):
                connection.failed(compiled.text, error)
            elif cancellation.is_requested():
                # Before Python 3.12, a statement of SQLite that failed between its rows counts as under way for ever.
                connection.invalidate()
            cancellation.check()
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
            return instants.spell_microseconds if self._spelled else instants.from_microseconds
        converted: Callable[[Any], Any] | None = kind.dialect_impl(dialect).result_processor(dialect, None)
        return converted


def _fetched(cursor: Any) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _nothing(_: object) -> list[tuple[Any, ...]]:
    return []


def _converted(row: tuple[Any, ...], compiled: _Compiled) -> tuple[Any, ...]:
    values = list(row)
    for position, converted in compiled.columns:
        if values[position] is not None:
            values[position] = converted(values[position])
    return tuple(values)


def both(build: Callable[[Any], ClauseElement], *, spelled: bool = False) -> Callable[[int | None], Prepared]:
    """A statement for the database as it stands, and one as of a serial, which is the parameter `upto`."""
    as_it_stands = Prepared(build(None), spelled=spelled)
    as_of = Prepared(build(bindparam("upto", type_=schema.Number)), spelled=spelled)
    return lambda upto: as_it_stands if upto is None else as_of
