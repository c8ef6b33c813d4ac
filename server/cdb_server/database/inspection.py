"""Inspects a database without trusting it: changed or foreign schema objects, orphan rows, the backend's own check.

The database is compared whole, since anything in it may act: a trigger may write what nobody asked for, a view or a
policy may hide what is there, and a function may stand behind either. SQLite keeps the statements that made its
objects, which are compared with those of a database made anew. PostgreSQL names each object beyond its own, and
describes it.

Everything is asked in short transactions: on SQLite a long one would keep writers waiting. Because the journal only
grows, what was read once stays true.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    Connection,
    ForeignKeyConstraint,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    cast,
    create_engine,
    exc,
    exists,
    func,
    literal,
    select,
    text,
    union_all,
)
from sqlalchemy.schema import ColumnCollectionConstraint

from cdb_server import schema
from cdb_server.database.postgresql import _amcheck, _postgresql_check
from cdb_server.database.sqlite import _sqlite_check
from cdb_server.database.transactions import Database
from cdb_server.schema import calibration, following, journal, payload, restoration, run, withdrawal


@dataclass(frozen=True, slots=True)
class _SchemaObject:
    """What a database holds under a name: what it is called for the operator, and what it does."""

    label: str
    definition: str | None


# By kind and name, as the database has them.
_SchemaObjects = dict[tuple[str, str], _SchemaObject]


def find_drift(connection: Connection) -> list[str]:
    """A sentence for each object that is missing, changed, or foreign: none where all is as it was made."""
    if connection.dialect.name == "sqlite":
        found, made = _in_sqlite(connection), _made_in_sqlite()
    else:
        found, made = _in_postgresql(connection), _made_in_postgresql(connection)
    wrong = []
    for name, object in made.items():
        if name not in found:
            wrong.append(f"{object.label} is missing")
        elif found[name].definition != object.definition:
            wrong.append(f"{object.label} is changed")
    foreign = [object.label for name, object in found.items() if name not in made]
    return wrong + [f"{told} is foreign: no calibration database has it" for told in foreign]


def _in_sqlite(connection: Connection) -> _SchemaObjects:
    objects: _SchemaObjects = {}
    for kind, name, statement in connection.execute(_SQLITE_OBJECTS):
        # Another version of SQLAlchemy may break the lines elsewhere.
        objects[kind, name] = _SchemaObject(f"the {kind} {name}", " ".join(str(statement).split()))
    for table in schema.metadata.tables:
        for column, definition in connection.execute(_SQLITE_COLUMNS, {"table": table}):
            objects["column", f"{table}.{column}"] = _SchemaObject(f"the column {table}.{column}", definition)
    return objects


def _made_in_sqlite() -> _SchemaObjects:
    engine = create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            schema.metadata.create_all(connection)
            return _in_sqlite(connection)
    finally:
        engine.dispose()


# Without what SQLite makes by itself: indexes of constraints, which have no statement, and statistics, by ANALYZE.
_SQLITE_OBJECTS = text(
    "SELECT type, name, sql FROM sqlite_master WHERE NOT (type = 'index' AND sql IS NULL) "
    "AND NOT (type = 'table' AND name IN ('sqlite_stat1', 'sqlite_stat4')) ORDER BY type, name"
)

_SQLITE_COLUMNS = text(
    """SELECT name, type || ' ' || "notnull" || ' ' || quote(dflt_value) || ' ' || pk || ' ' || hidden """
    "FROM pragma_table_xinfo(:table)"
)


def _in_postgresql(connection: Connection) -> _SchemaObjects:
    own = _own_schema(connection)
    objects: _SchemaObjects = {}
    for kind, identity, definition in connection.execute(_POSTGRESQL_OBJECTS):
        objects[kind, identity] = _SchemaObject(_label(kind, identity, own), definition)
    tables = [f"{own}.{table}" for table in schema.metadata.tables]
    for table, column, definition in connection.execute(_POSTGRESQL_COLUMNS, {"tables": tables}):
        objects["column", f"{own}.{table}.{column}"] = _SchemaObject(f"the column {table}.{column}", definition)
    return objects


def _made_in_postgresql(connection: Connection) -> _SchemaObjects:
    """A database as `schema` makes it, in PostgreSQL's words."""
    own = _own_schema(connection)
    objects: _SchemaObjects = {}

    def add(kind: str, identity: str, definition: str | None) -> None:
        objects[kind, identity] = _SchemaObject(_label(kind, identity, own), definition)

    for table in schema.metadata.sorted_tables:
        add("table", f"{own}.{table}", "p f f f f")
        for column in table.columns:
            kind, _, collation = column.type.compile(dialect=connection.dialect).partition(" COLLATE ")
            kind = "character varying" if kind == "VARCHAR" else kind.lower()
            add("column", f"{own}.{table}.{column.name}", f"{kind} {collation or '-'} {'ft'[not column.nullable]}")
        for name, definition in _constraints(table):
            add("table constraint", f"{name} on {own}.{table}", definition)
        for index in table.indexes:
            on = f"{own}.{table} USING btree ({', '.join(index.columns.keys())})"
            add("index", f"{own}.{index.name}", f"CREATE INDEX {index.name} ON {on} t")
        for name, statement in schema.TRIGGERS["postgresql"].get(table, {}).items():
            add("trigger", f"{name} on {own}.{table}", f"{statement} t")
    add("function", f"{own}.cdb_refuse()", f"plpgsql trigger f {schema.REFUSE_FUNCTION_BODY}")
    if own != "public":
        add("schema", own, None)
    return objects


def _constraints(table: Table) -> Iterator[tuple[str, str]]:
    """Name and definition of each constraint of a table, the name as PostgreSQL gives it to one without."""
    for constraint in table.constraints:
        if not isinstance(constraint, ColumnCollectionConstraint):
            continue
        names = [column.name for column in constraint.columns]
        columns, joined = ", ".join(names), "_".join(names)
        match constraint:
            case PrimaryKeyConstraint():
                yield f"{table}_pkey", f"PRIMARY KEY ({columns})"
            case UniqueConstraint():
                yield f"{table}_{joined}_key", f"UNIQUE ({columns})"
            case ForeignKeyConstraint():
                referred = constraint.elements[0].column
                yield f"{table}_{joined}_fkey", f"FOREIGN KEY ({columns}) REFERENCES {referred.table}({referred.name})"


def _label(kind: str, identity: str, own: str) -> str:
    """What an object is called for the operator, who knows our tables without their schema."""
    name = identity.replace(f"{own}.", "")
    return f"the {kind} {name.partition(' on ')[0] if kind == 'trigger' else name}"


def _own_schema(connection: Connection) -> str:
    """The schema of our tables, as PostgreSQL writes it."""
    return str(connection.execute(_POSTGRESQL_SCHEMA).scalar_one())


_POSTGRESQL_SCHEMA = text("SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'cdb_schema'::regclass")

# The catalogs of what acts in a database or hides what is in it, and what there is to be known of those that we make.
_CATALOGS = {
    "pg_class": """CASE relkind
        WHEN 'r' THEN concat_ws(' ', relpersistence, relrowsecurity, relforcerowsecurity, relispartition,
            EXISTS (SELECT FROM pg_inherits WHERE object.oid IN (inhrelid, inhparent)))
        WHEN 'i' THEN (SELECT concat_ws(' ', pg_get_indexdef(indexrelid), indisvalid)
            FROM pg_index WHERE indexrelid = object.oid) END""",
    "pg_constraint": """concat_ws(' ', pg_get_constraintdef(oid), (SELECT 'but not enforced'
        FROM pg_trigger WHERE tgconstraint = object.oid AND tgenabled NOT IN ('O', 'A') LIMIT 1))""",
    "pg_trigger": "concat_ws(' ', pg_get_triggerdef(oid, true), tgenabled IN ('O', 'A'))",
    "pg_proc": """concat_ws(' ', (SELECT lanname FROM pg_language WHERE oid = prolang), prorettype::regtype, prosecdef,
        proconfig, prosrc)""",
    "pg_attrdef": "NULL",
    "pg_cast": "NULL",
    "pg_collation": "NULL",
    "pg_conversion": "NULL",
    "pg_event_trigger": "NULL",
    "pg_foreign_data_wrapper": "NULL",
    "pg_foreign_server": "NULL",
    "pg_language": "NULL",
    "pg_namespace": "NULL",
    "pg_opclass": "NULL",
    "pg_operator": "NULL",
    "pg_opfamily": "NULL",
    "pg_policy": "NULL",
    "pg_rewrite": "NULL",
    "pg_statistic_ext": "NULL",
    "pg_type": "NULL",
}

# Objects beyond PostgreSQL's own begin at 16384. Left out are parts of others, such as the index of a constraint or the
# type of a table's rows; what extensions brought, which a superuser of the cluster installed; NOT NULL, since
# PostgreSQL 18 a constraint, which is told of the column; and what ends with a session.
_POSTGRESQL_OBJECTS = text(
    "SELECT type, identity, definition FROM ("
    + " UNION ALL ".join(
        f"SELECT '{catalog}'::regclass AS class, oid, {definition} AS definition "
        f"FROM {catalog} AS object WHERE oid >= 16384"
        for catalog, definition in _CATALOGS.items()
    )
    + """) AS object, pg_identify_object(class, oid, 0)
    WHERE NOT EXISTS (SELECT FROM pg_depend WHERE classid = class AND objid = object.oid AND deptype IN ('i', 'e'))
    AND NOT (class = 'pg_constraint'::regclass AND left(definition, 9) = 'NOT NULL ')
    AND concat(schema, identity) !~ '^pg_(toast|temp)' AND (type, identity) <> ('schema', 'public')
    ORDER BY type, identity"""
)

_POSTGRESQL_COLUMNS = text(
    """SELECT relname, attname, concat_ws(' ', format_type(atttypid, atttypmod), attcollation::regcollation, attnotnull,
        nullif(attidentity, ''), nullif(attgenerated, ''), pg_get_expr(adbin, adrelid))
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = ANY(SELECT to_regclass(named) FROM unnest(CAST(:tables AS text[])) AS named)
    AND attnum > 0 AND NOT attisdropped
    ORDER BY relname, attnum"""
)

_OF_KIND = {"calibration": calibration.c.id, "withdrawal": withdrawal.c.serial, "run": run.c.serial}


class Unreadable(Exception):
    """The database cannot give what was asked for: it is damaged. The text is the driver's."""


class Inspection:
    """Looks at a database without trusting it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def last_serial(self) -> int:
        """The serial of the last entry; 0 without any. Raises Unreadable."""
        with self.reading() as connection:
            return int(connection.execute(select(func.max(journal.c.serial))).scalar() or 0)

    def payloads(self, sha256: list[str]) -> dict[str, bytes]:
        """The bytes of payloads as they are, whatever their hash, without those that are missing. Raises Unreadable."""
        statement = select(payload.c.sha256, cast(payload.c.data, LargeBinary)).where(payload.c.sha256.in_(sha256))
        with self.reading() as connection:
            return {row[0]: row[1] for row in connection.execute(statement)}

    def orphan_rows(self) -> list[str]:
        """What the journal does not speak of: rows of another kind than their entry, or of none. Raises Unreadable."""
        with self.reading() as connection:
            of_none = [
                select(literal(kind).label("kind"), serial.label("serial")).where(
                    ~exists().where(journal.c.serial == serial, journal.c.kind == kind)
                )
                for kind, serial in _OF_KIND.items()
            ]
            found = connection.execute(union_all(*of_none)).all()
            return [f"{row.kind} {row.serial}: the journal has no such entry" for row in found]

    def payload_count(self) -> int:
        """How many payloads there are. Raises Unreadable."""
        with self.reading() as connection:
            return connection.execute(select(func.count()).select_from(payload)).scalar_one()

    def unused_payloads(self) -> list[str]:
        """The sha256 of payloads that belong to no calibration. Raises Unreadable."""
        with self.reading() as connection:
            used = select(calibration.c.sha256)
            return list(connection.execute(select(payload.c.sha256).where(payload.c.sha256.not_in(used))).scalars())

    def backend_check(self) -> Iterator[str]:
        """What the database's own check finds, if it has one. Raises Unreadable."""
        with self.reading() as connection:
            if connection.dialect.name == "sqlite":
                yield from _sqlite_check(connection)
            else:
                yield from _postgresql_check(connection)

    def missing_backend_check(self) -> str | None:
        """Why there is no such check, for the operator; None when there is."""
        with self.reading() as connection:
            if connection.dialect.name == "sqlite" or _amcheck(connection):
                return None
            return "without the extension amcheck PostgreSQL's indexes are not checked: CREATE EXTENSION amcheck"

    def schema_drift(self) -> list[str]:
        """Where tables, triggers and all else that the database holds are not as it was made. Raises Unreadable."""
        with self.reading() as connection:
            return find_drift(connection)

    def mark_restored(self, at: datetime) -> None:
        """Note that this database was put in place from a backup. That of a mirror becomes a master's by it."""
        length = self.last_serial()
        with self._database.write() as connection:
            connection.execute(restoration.insert().values(restored=at, serial=length))
            connection.execute(following.delete())

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read transaction in which damage raises Unreadable."""
        with self._database.read() as connection:
            try:
                yield connection
            except exc.DBAPIError as error:
                raise Unreadable(str(error.orig).strip().partition("\n")[0]) from error
            except (ValueError, TypeError, OverflowError) as error:
                raise Unreadable(f"a value is not of its kind: {error}") from error
