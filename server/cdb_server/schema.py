"""Defines the tables, indexes and schema upgrades, and the triggers that forbid changes to the journal (rule 8).

Rule 8: "Nothing is changed or deleted. The database itself refuses UPDATE, DELETE, REPLACE and TRUNCATE on the
journal's tables." Instants are kept as microseconds since 1970 (UTC): they compare and index alike in every database.
"""

from datetime import datetime

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Connection,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    event,
)
from sqlalchemy.types import TypeDecorator

from cdb_server import instants

SCHEMA_VERSION = 2


class Instant(TypeDecorator[datetime]):
    """An aware datetime outside, whole microseconds since 1970 inside."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else instants.to_microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else instants.from_microseconds(value)


# SQLite makes only an INTEGER primary key the row's own number; PostgreSQL orders text by bytes only when told so.
Number = BigInteger().with_variant(Integer, "sqlite")

Text = String().with_variant(String(collation="C"), "postgresql")

metadata = MetaData()

# One row. It tells what this database is, and it is the row that a writer locks before it takes a serial.
cdb_schema = Table("cdb_schema", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

journal = Table(
    "journal",
    metadata,
    Column("serial", Number, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("created", Instant, nullable=False, unique=True),
    Column("author", Text, nullable=False),
    Column("digest", Text, nullable=False),
)

payload = Table(
    "payload",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

calibration = Table(
    "calibration",
    metadata,
    Column("id", Number, ForeignKey("journal.serial"), primary_key=True, autoincrement=False),
    Column("device_name", Text, nullable=False),
    Column("calibration_type", Text, nullable=False),
    Column("valid_from", Instant, nullable=False),
    Column("comment", Text),
    Column("size", BigInteger, nullable=False),
    Column("sha256", Text, ForeignKey("payload.sha256"), nullable=False),
    Index("calibration_by_validity", "device_name", "calibration_type", "valid_from", "id"),
    Index("calibration_by_key", "device_name", "calibration_type", "id"),
    Index("calibration_by_start", "valid_from"),
)

withdrawal = Table(
    "withdrawal",
    metadata,
    Column("serial", Number, ForeignKey("journal.serial"), primary_key=True, autoincrement=False),
    Column("calibration_id", Number, ForeignKey("calibration.id"), nullable=False, unique=True),
    Column("reason", Text, nullable=False),
)

run = Table(
    "run",
    metadata,
    Column("serial", Number, ForeignKey("journal.serial"), primary_key=True, autoincrement=False),
    Column("run_number", BigInteger, nullable=False),
    Column("start_time", Instant, nullable=False),
    Column("stop_time", Instant),
    Index("run_by_number", "run_number", "serial"),
    Index("run_by_start", "start_time", "serial"),
)

# Who may write. Not part of the journal: a mirror has none, and a token is revoked by a change.
token = Table(
    "token",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("name", Text, nullable=False, index=True),
    Column("created", Instant, nullable=False),
    Column("revoked", Instant),
)

# When this database was last put in place from a backup, and up to which serial it then went. Not part of the journal,
# which others hold too: it tells what this copy may lack.
restoration = Table(
    "restoration",
    metadata,
    Column("restored", Instant, primary_key=True, autoincrement=False),
    Column("serial", Number, nullable=False),
)

# On a mirror one row, on a master none: whom it follows, what it last heard from there and when, and why it stopped.
following = Table(
    "following",
    metadata,
    Column("master", Text, primary_key=True),
    Column("heard", Instant),
    Column("known_serial", Number, nullable=False),
    Column("complete_until", Instant),
    Column("stopped", Instant),
    Column("reason", Text),
)

# What each version brought that the one before it lacks.
_TABLES_ADDED = {2: (restoration, following)}

# The columns by which SQLite's INSERT OR REPLACE could find a row to delete. The rowid of a payload is none of ours: it
# is -1 in the trigger when the statement does not name it.
_UNIQUE = {
    journal: ("serial", "created"),
    payload: ("sha256", "rowid"),
    calibration: ("id",),
    withdrawal: ("serial", "calibration_id"),
    run: ("serial",),
}

_REFUSAL = "the journal is append-only: withdraw, or store again"

# In PostgreSQL's own words and order, as are the triggers.
REFUSE_FUNCTION_BODY = f" BEGIN RAISE EXCEPTION '{_REFUSAL}'; END "

_FUNCTION = f"CREATE FUNCTION cdb_refuse() RETURNS trigger LANGUAGE plpgsql AS $${REFUSE_FUNCTION_BODY}$$"


def _triggers(table: Table, unique: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """By dialect and name, the triggers that guard a table."""
    abort = f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
    found = " OR ".join(f"{column} = NEW.{column}" for column in unique)
    return {
        "sqlite": {
            f"{table}_no_update": f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {abort}",
            f"{table}_no_delete": f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {abort}",
            # REPLACE passes delete triggers by unless the connection asked for them, and a foreign tool would not.
            f"{table}_no_replace": f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {found}) {abort}",
        },
        "postgresql": {
            f"{table}_no_change": f"CREATE TRIGGER {table}_no_change BEFORE DELETE OR UPDATE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION cdb_refuse()",
            f"{table}_no_truncate": f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION cdb_refuse()",
        },
    }


# By kind of database and by table, the guards of rule 8.
TRIGGERS = {
    dialect: {table: _triggers(table, unique)[dialect] for table, unique in _UNIQUE.items()}
    for dialect in ("sqlite", "postgresql")
}

event.listen(metadata, "after_create", DDL(_FUNCTION).execute_if(dialect="postgresql"))

for _dialect, _guarded in TRIGGERS.items():
    for _made in _guarded.values():
        for _statement in _made.values():
            event.listen(metadata, "after_create", DDL(_statement).execute_if(dialect=_dialect))


def upgrade(connection: Connection, version: int) -> None:
    """Bring the tables of an earlier version to this one: what is missing is added, and nothing is touched."""
    for later in range(version + 1, SCHEMA_VERSION + 1):
        for brought in _TABLES_ADDED[later]:
            brought.create(connection)
    connection.execute(cdb_schema.update().values(version=SCHEMA_VERSION))
